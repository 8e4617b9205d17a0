//! The calls that make a file system and its mount one by one (fsopen(2) and on). One unsafe block per call.
use crate::sys::owned;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// What a file system of this name is made by; the kernel may load a module of it (fsopen(2)).
pub(super) fn filesystem(name: &CStr) -> io::Result<OwnedFd> {
    const FSOPEN_CLOEXEC: libc::c_uint = 1;
    // SAFETY: the name is NUL-terminated; a new descriptor or -1 comes back.
    let fd = unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), FSOPEN_CLOEXEC) };
    owned(fd)
}

/// The file system of a device, read-only and mounted nowhere: it goes with the descriptor.
pub(super) fn erofs(device: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const SET_FLAG: libc::c_uint = 0;
    const SET_STRING: libc::c_uint = 1;
    const CREATE: libc::c_uint = 6;
    const FSMOUNT_CLOEXEC: libc::c_uint = 1;
    const READONLY_NOSUID_NODEV: libc::c_uint = 1 | 2 | 4;
    let context = filesystem(c"erofs")?;
    let source = CString::new(format!("/proc/self/fd/{}", device.as_raw_fd())).map_err(io::Error::other)?;
    configure(&context, SET_STRING, Some(c"source"), Some(&source))?;
    configure(&context, SET_FLAG, Some(c"ro"), None)?;
    configure(&context, CREATE, None, None)?;
    let fd = context.as_raw_fd();
    // SAFETY: no pointers; a new descriptor or -1 comes back.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, fd, FSMOUNT_CLOEXEC, READONLY_NOSUID_NODEV) })
}

fn configure(context: &OwnedFd, command: libc::c_uint, key: Option<&CStr>, value: Option<&CStr>) -> io::Result<()> {
    let text = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    let (fd, key, value) = (context.as_raw_fd(), text(key), text(value));
    // SAFETY: key and value are NUL-terminated, or null where the command takes none (fsconfig(2)).
    let rc = unsafe { libc::syscall(libc::SYS_fsconfig, fd, command, key, value, 0) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
