//! The paths that operators rely on (DESIGN section 8). There is no override, in tests either.
pub(crate) const POLICY: &str = "/etc/boltseal";
/// Where the key is pinned that policies are signed with.
pub(crate) const LIB: &str = "/var/lib/boltseal";
pub(crate) const SIGNATURES: &str = "/var/lib/boltseal/sig";
pub(crate) const RUN: &str = "/run/boltseal";
pub(crate) const TRAIL: &str = "/var/log/boltseal";
