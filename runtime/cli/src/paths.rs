//! The paths that operators rely on. Nothing overrides them: what is looked at is what a start uses.
pub(crate) const POLICY: &str = "/etc/boltseal";
/// Where the key is pinned that policies are signed with.
pub(crate) const LIB: &str = "/var/lib/boltseal";
pub(crate) const RUN: &str = "/run/boltseal";
pub(crate) const SIGNATURES: &str = "/var/lib/boltseal/sig";
pub(crate) const TRAIL: &str = "/var/log/boltseal";
