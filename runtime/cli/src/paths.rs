//! The paths that operators rely on. Nothing overrides them: what is looked at is what a start uses.
use crate::screen::Failure;
use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;

pub(crate) const POLICY: &str = "/etc/boltseal";
/// Where the key is pinned that policies are signed with.
pub(crate) const LIB: &str = "/var/lib/boltseal";
/// Break-glass files.
pub(crate) const BREAK_GLASS: &str = "/var/lib/boltseal/break-glass";
pub(crate) const RUN: &str = "/run/boltseal";
pub(crate) const SIGNATURES: &str = "/var/lib/boltseal/sig";
/// Sealed layers.
pub(crate) const VERITY: &str = "/var/lib/boltseal/verity";
pub(crate) const TRAIL: &str = "/var/log/boltseal";

/// Makes [`RUN`], root's alone, when this boot has none yet.
pub(crate) fn run_folder() -> Result<(), Failure> {
    match DirBuilder::new().mode(0o700).create(RUN) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(Failure::undecided(format!("{RUN}: {e}"))),
        _ => Ok(()),
    }
}
