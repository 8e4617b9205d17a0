//! seccomp(2), called by ourselves: the crate's call would set no_new_privs silently and knows no flags.
use super::Compiled;
use crate::error::LaunchError;
use crate::sys;
use std::io;
use std::os::fd::OwnedFd;

/// Installs a filter on this thread; needs no_new_privs, which it does not set. With traps the listener comes back.
pub(crate) fn install(filter: &Compiled) -> Result<Option<OwnedFd>, LaunchError> {
    let program = &filter.program;
    let len = u16::try_from(program.len()).map_err(|_| LaunchError::Other("the seccomp filter is too long".into()))?;
    let listens = !filter.traps.is_empty();
    let flags = filter.flags | if listens { libc::SECCOMP_FILTER_FLAG_NEW_LISTENER } else { 0 };
    let fprog = libc::sock_fprog { len, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: fprog points at `len` instructions that outlive the call; the kernel copies and checks them. Both
    // `sock_filter` types are the uapi's struct (u16, u8, u8, u32), repr(C).
    let rc = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const fprog) };
    let failed = |e: io::Error| {
        match e.raw_os_error() {
        Some(libc::EBUSY) => LaunchError::Other(
            "the seccomp filter cannot have a listener: this runtime runs under one itself. Set anomalies.syscalls = false".into(),
        ),
        _ => LaunchError::Other(format!("cannot install the seccomp filter: {e}")),
    }
    };
    if rc < 0 {
        return Err(failed(io::Error::last_os_error()));
    }
    listens.then(|| sys::owned(rc)).transpose().map_err(failed)
}
