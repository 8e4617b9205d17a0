//! seccomp(2), called by ourselves: the crate's call would set no_new_privs silently and knows no flags.
use crate::error::LaunchError;
use seccompiler::sock_filter;

/// Installs a program on this thread; needs no_new_privs, which it does not set.
pub(crate) fn install(program: &[sock_filter], flags: u64) -> Result<(), LaunchError> {
    let len = u16::try_from(program.len()).map_err(|_| LaunchError::Other("the seccomp filter is too long".into()))?;
    let fprog = libc::sock_fprog { len, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: fprog points at `len` instructions that outlive the call; the kernel copies and checks them. Both
    // `sock_filter` types are the uapi's struct (u16, u8, u8, u32), repr(C).
    let rc = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const fprog) };
    if rc == 0 {
        return Ok(());
    }
    Err(LaunchError::Other(format!("cannot install the seccomp filter: {}", std::io::Error::last_os_error())))
}
