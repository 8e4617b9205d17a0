//! Files of memory are not executable: what a program downloads has no place left to be run from. The switch belongs to
//! a pid namespace, and only root of the host sets it for a container with a user namespace too.
use crate::error::LaunchError;
use crate::sys;
use boltseal_seal::Table;
use std::ffi::CStr;
use std::io::ErrorKind;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// `vm.memfd_noexec` (Linux 6.3) of the reader's own pid namespace.
const FILE: &str = "/proc/sys/vm/memfd_noexec";
const FILE_C: &CStr = c"/proc/sys/vm/memfd_noexec";
/// memfd_create without MFD_NOEXEC_SEAL means it, and with MFD_EXEC fails.
const REFUSED: &str = "2";

/// Whether it is asked for and this kernel has it.
///
/// # Errors
/// The kernel has it, and it cannot be read: nothing is taken for a kernel without it.
pub(crate) fn wanted(table: &Table) -> Result<bool, LaunchError> {
    Ok(table.memory_noexec && own()?.is_some())
}

/// Sets it for the pid namespace of that process, before anything of the image runs there. It can only be raised.
pub(crate) fn forbid(init: BorrowedFd<'_>) -> Result<(), LaunchError> {
    // A namespace has at least its parent's value.
    if own()?.as_deref() == Some(REFUSED) {
        return Ok(());
    }
    sys::write_in_pid_namespace(init, FILE_C, REFUSED.as_bytes()).map_err(LaunchError::io("set vm.memfd_noexec"))
}

/// Inside: it holds here.
pub(crate) fn check() -> Result<(), LaunchError> {
    match own()? {
        Some(value) if value == REFUSED => Ok(()),
        other => Err(LaunchError::Inspection(vec![format!(
            "vm.memfd_noexec is {}, approved is 2",
            other.unwrap_or_default()
        )])),
    }
}

/// None: this kernel has no such switch.
fn own() -> Result<Option<String>, LaunchError> {
    match sys::read_kernel(Path::new(FILE)) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(LaunchError::io("read vm.memfd_noexec")(e)),
    }
}
