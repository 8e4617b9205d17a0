//! What is measured of boltseal itself: its programs beside this one, the pinned key, the policy.
use crate::paths::{LIB, RUN};
use crate::policy::Loaded;
use crate::screen::Failure;
use boltseal_evidence::bundle;
use boltseal_node::Boot;
use boltseal_node::measured::{self, Log, Now};
use std::path::{Path, PathBuf};
use std::time::Instant;

const PROGRAMS: [&str; 3] = ["boltseal", "boltseal-runtime", "containerd-shim-boltseal-v1"];

/// Measures them with this policy, in the TPM that it names, unless they are measured in this boot.
pub(crate) fn measure(loaded: &Loaded, deadline: Instant) -> Result<Log, Failure> {
    let pin = bundle::pinned(Path::new(LIB)).map_err(Failure::undecided)?.map(|(pin, _)| pin.id());
    let now = Now { signer: pin.as_deref(), bundle: &loaded.bundle.digest };
    let boot = Boot::current().map_err(Failure::undecided)?;
    measured::measure(Path::new(RUN), &loaded.policy.node.tpm, &programs()?, now, &boot, deadline)
        .map_err(Failure::undecided)
}

/// What was measured in this boot.
pub(crate) fn log() -> Result<Option<Log>, Failure> {
    if !Path::new(RUN).exists() {
        return Ok(None);
    }
    let boot = Boot::current().map_err(Failure::undecided)?;
    measured::read(Path::new(RUN), &boot).map_err(Failure::undecided)
}

/// They are installed in one folder: the shim runs the gate beside it.
fn programs() -> Result<Vec<PathBuf>, Failure> {
    let own = std::env::current_exe().map_err(Failure::undecided)?;
    let folder = own.parent().unwrap_or(Path::new("/"));
    Ok(PROGRAMS.iter().map(|name| folder.join(name)).collect())
}
