//! Files of memory are not executable: what a program downloads has no place left to be run from. The switch belongs to
//! a pid namespace, and only root of the host sets it for a container with a user namespace too.
use crate::error::LaunchError;
use crate::sys;
use boltseal_seal::Table;
use std::os::fd::BorrowedFd;

/// `vm.memfd_noexec` (Linux 6.3) of the reader's own pid namespace.
const FILE: &std::ffi::CStr = c"/proc/sys/vm/memfd_noexec";
/// memfd_create without MFD_NOEXEC_SEAL means it, and with MFD_EXEC fails.
const REFUSED: &str = "2";

/// Whether it is asked for and this kernel has it.
pub(crate) fn wanted(table: &Table) -> bool {
    table.memory_noexec && own().is_some()
}

/// Sets it for the pid namespace of that process, before anything of the image runs there. It can only be raised.
pub(crate) fn forbid(init: BorrowedFd<'_>) -> Result<(), LaunchError> {
    // A namespace has at least its parent's value.
    if own().as_deref() == Some(REFUSED) {
        return Ok(());
    }
    sys::write_in_pid_namespace(init, FILE, REFUSED.as_bytes()).map_err(LaunchError::io("set vm.memfd_noexec"))
}

/// Inside: it holds here.
pub(crate) fn check() -> Result<(), LaunchError> {
    match own() {
        Some(value) if value == REFUSED => Ok(()),
        other => Err(LaunchError::Inspection(vec![format!(
            "vm.memfd_noexec is {}, approved is 2",
            other.unwrap_or_default()
        )])),
    }
}

fn own() -> Option<String> {
    sys::read_kernel(std::path::Path::new(FILE.to_str().ok()?)).ok().map(|text| text.trim().to_owned())
}
