//! The paths that operators rely on (DESIGN section 8). There is no override, in tests either.
pub(crate) const POLICY: &str = "/etc/boltseal";
/// Where the key is pinned that policies are signed with.
pub(crate) const LIB: &str = "/var/lib/boltseal";
/// Break-glass files, root's alone.
pub(crate) const BREAK_GLASS: &str = "/var/lib/boltseal/break-glass";
pub(crate) const SIGNATURES: &str = "/var/lib/boltseal/sig";
/// Sealed layers, by the digest of each file.
pub(crate) const VERITY: &str = "/var/lib/boltseal/verity/sha256";
pub(crate) const RUN: &str = "/run/boltseal";
pub(crate) const TRAIL: &str = "/var/log/boltseal";
