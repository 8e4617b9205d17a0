//! The paths that operators rely on. Nothing overrides them: what is looked at is what a start uses.
pub(crate) const POLICY: &str = "/etc/boltseal";
pub(crate) const RUN: &str = "/run/boltseal";
pub(crate) const SIGNATURES: &str = "/var/lib/boltseal/sig";
pub(crate) const TRAIL: &str = "/var/log/boltseal";
