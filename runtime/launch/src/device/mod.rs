//! Device rules on cgroup v2: a BPF program of our own on the container's cgroup, made from the sealed rules and nothing
//! else. The kernel asks it at every mknod and open of a device node in that cgroup or below it; 1 allows, 0 refuses.
//! Programs attached elsewhere (systemd's, an ancestor's) can only refuse more: all must allow.
mod program;
#[cfg(test)]
mod tests;
pub(crate) mod v1;

use crate::bpf::{self, Hook};
use crate::error::LaunchError;
use oci_spec::runtime::LinuxDeviceCgroup;
use std::fs::File;
use std::path::Path;

pub(crate) use program::Program;

/// The program of these rules.
///
/// # Errors
/// Rules that are not the sealed form: everything denied first, then single devices allowed.
pub(crate) fn compile(rules: &[LinuxDeviceCgroup]) -> Result<Program, LaunchError> {
    Program::of(rules).map_err(|why| LaunchError::Unsupported(format!("device rules: {why}")))
}

/// BPF_PROG_TYPE_CGROUP_DEVICE, BPF_CGROUP_DEVICE.
const HOOK: Hook = Hook { program_type: 15, attach_type: 6, name: "device" };

/// Attaches the program to a cgroup folder and sees that it is in force there.
///
/// # Errors
/// What the kernel says; nothing is attached then, or the caller removes the cgroup.
pub(crate) fn enforce(program: &Program, folder: &Path) -> Result<(), LaunchError> {
    let cgroup = File::open(folder).map_err(LaunchError::io(format_args!("open the cgroup {}", folder.display())))?;
    bpf::enforce(HOOK, program.instructions(), &cgroup, folder)
}
