//! What of the network is open (BS-NET-001, BS-NET-002): BPF programs of our own on the container's cgroup v2 folder, which the
//! kernel asks at socket, bind, connect and send, and per packet. They are of the cgroup in which a socket was made, so they hold
//! for every process of the container and end with its cgroup. Landlock holds TCP ports beside them: see `landlock`.
mod program;
#[cfg(test)]
mod tests;

use crate::error::LaunchError;
use crate::{bpf, cgroup};
use boltseal_seal::network::Open;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

/// Whether programs can be attached to a container's cgroup here: false without cgroup v2.
///
/// # Errors
/// One line: cgroup v2 is there, and the kernel does not tell of programs on it.
pub fn hooks() -> Result<bool, String> {
    let Some(top) = cgroup::unified_mount().map_err(|e| e.to_string())? else { return Ok(false) };
    let folder = File::open(&top).map_err(|e| format!("{}: {e}", top.display()))?;
    match bpf::in_force(program::CONNECT4, folder.as_fd()) {
        Ok(_) => Ok(true),
        Err(e) => Err(format!("this kernel tells of no programs on a cgroup: {e}")),
    }
}

/// Something is confined.
pub(crate) fn is_confined(open: &Open) -> bool {
    *open != Open::default()
}

/// Attaches the programs to the container's folder, and sees each in force there.
pub(crate) fn enforce(open: &Open, folder: &Path) -> Result<(), LaunchError> {
    let programs = program::programs(open);
    if programs.is_empty() {
        return Ok(());
    }
    let cgroup = File::open(folder).map_err(LaunchError::io(format_args!("open the cgroup {}", folder.display())))?;
    programs.iter().try_for_each(|(hook, program)| bpf::enforce(*hook, program, &cgroup, folder))
}
