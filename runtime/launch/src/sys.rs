//! System calls that nix lacks, and files of /proc. One unsafe block per call.
use crate::error::LaunchError;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A file of the kernel's, whose size field says nothing: read in one go, not in pieces of 32 bytes.
pub(crate) fn read_kernel(path: impl AsRef<Path>) -> io::Result<String> {
    use std::io::Read;
    let mut text = String::with_capacity(8192);
    std::fs::File::open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

/// A pidfd of a process; of a child that is not reaped yet it can only be that child.
pub(crate) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; a new descriptor or -1 comes back.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    owned(fd)
}

pub(crate) fn pidfd_kill(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    let none: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: siginfo may be null (man pidfd_send_signal).
    let rc = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), libc::SIGKILL, none, 0) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

pub(crate) fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(fd) {
        // SAFETY: the kernel just made this descriptor for us; nobody else owns it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// open(2) with O_PATH. Not std's: musl counts O_PATH to O_ACCMODE, which std takes out of `custom_flags`.
pub(crate) fn open_path(path: &Path, flags: i32) -> io::Result<OwnedFd> {
    let flags = nix::fcntl::OFlag::from_bits_retain(flags | libc::O_PATH | libc::O_CLOEXEC);
    Ok(nix::fcntl::open(path, flags, nix::sys::stat::Mode::empty())?)
}

/// openat2(2) with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`, O_PATH.
pub(crate) fn open_beneath(dir: BorrowedFd<'_>, path: &str, flags: i32) -> io::Result<OwnedFd> {
    let path = CString::new(path).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: open_how is plain integers; all zero is its documented default.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = u64::from((flags | libc::O_PATH | libc::O_CLOEXEC).unsigned_abs());
    how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS;
    let size = size_of::<libc::open_how>();
    // SAFETY: path is NUL-terminated, how is a valid struct of `size` bytes; both outlive the call.
    let fd = unsafe { libc::syscall(libc::SYS_openat2, dir.as_raw_fd(), path.as_ptr(), &raw const how, size) };
    owned(fd)
}

/// A copy of a descriptor, above the three of stdio, close-on-exec.
pub(crate) fn dup_high(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with an integer argument.
    let copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 10) };
    owned(libc::c_long::from(copy))
}

/// Whether a descriptor closes on exec.
pub(crate) fn closes_on_exec(fd: RawFd) -> io::Result<bool> {
    // SAFETY: fcntl without a pointer; a bad descriptor is an error.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    if flags < 0 { Err(io::Error::last_os_error()) } else { Ok(flags & libc::FD_CLOEXEC != 0) }
}

/// Closes a descriptor by number: in init, what was copied from the gate has no owner.
pub(crate) fn close_raw(fd: RawFd) {
    // SAFETY: the number was listed by the gate before the fork and nothing in init owns it.
    unsafe { libc::close(fd) };
}

/// A descriptor by number for the length of a call.
pub(crate) fn borrow(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: used in init for descriptors that stay open until execve or exit.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

pub(crate) fn dup_onto(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: two integers; the kernel checks them.
    let rc = unsafe { libc::dup2(fd.as_raw_fd(), number) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// fstat of a descriptor: (device, inode, file type and mode, rdev).
pub(crate) fn fstat(fd: RawFd) -> io::Result<libc::stat> {
    // SAFETY: stat is plain integers, filled by the kernel.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a local of the right type.
    let rc = unsafe { libc::fstat(fd, &raw mut stat) };
    if rc == 0 { Ok(stat) } else { Err(io::Error::last_os_error()) }
}

pub(crate) fn no_new_privs() -> bool {
    // SAFETY: PR_GET_NO_NEW_PRIVS takes no pointers.
    unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 }
}

/// Ends this process at once, running nothing.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes an integer and does not return.
    unsafe { libc::_exit(code) }
}

/// execve(2): only comes back with an error.
pub(crate) fn execve(path: &CString, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
    };
    let (argv, envp) = (pointers(args), pointers(env));
    // SAFETY: path and all strings are NUL-terminated, both arrays end in null, everything outlives the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// Signals as a new program expects them: none blocked, none ignored. Rust ignores SIGPIPE, and execve keeps that. The
/// kernel's own call: libc refuses the numbers 32 to 34, which a parent may have ignored all the same.
pub(crate) fn default_signals() -> io::Result<()> {
    // struct kernel_sigaction: handler, flags, restorer, mask; all zero is SIG_DFL.
    let default = [0_u64; 4];
    for number in (1..=64).filter(|n| ![libc::SIGKILL, libc::SIGSTOP].contains(n)) {
        let old: *mut u64 = std::ptr::null_mut();
        // SAFETY: the kernel reads one sigaction of at most 32 bytes with an 8-byte mask; the default is no code of ours.
        let rc = unsafe { libc::syscall(libc::SYS_rt_sigaction, number, default.as_ptr(), old, 8) };
        if rc != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    nix::sys::signal::SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// What a child would inherit and nobody approved: supplementary groups of whoever started containerd, an odd umask.
pub(crate) fn plain_inheritance() -> io::Result<()> {
    // SAFETY: an empty list needs no pointer.
    let rc = unsafe { libc::setgroups(0, std::ptr::null()) };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    Ok(())
}

/// Empties this process's environment, so that nothing of it reaches libcontainer (`LISTEN_FDS` leaks descriptors).
pub(crate) fn clear_environment() {
    for (name, _) in std::env::vars_os() {
        // SAFETY: the gate is single-threaded (a promise of this crate's caller).
        unsafe { std::env::remove_var(name) };
    }
}

/// Writes to a file of /proc as a process of another pid namespace, by a child that shares our memory and does nothing else.
pub(crate) fn write_in_pid_namespace(of: BorrowedFd<'_>, file: &std::ffi::CStr, text: &[u8]) -> io::Result<()> {
    use nix::sched::{CloneFlags, setns};
    let own = std::fs::File::open("/proc/self/ns/pid")?;
    setns(of, CloneFlags::CLONE_NEWPID)?;
    let mut stack = vec![0_u8; 64 << 10];
    let mut outcome = Err(io::Error::other("the child wrote nothing"));
    let write = || {
        // Errors are kept as numbers: this shares the parent's memory while the parent stands still.
        outcome = nix::fcntl::open(file, nix::fcntl::OFlag::O_WRONLY, nix::sys::stat::Mode::empty())
            .and_then(|fd| nix::unistd::write(fd, text))
            .map(|_| ())
            .map_err(io::Error::from);
        0
    };
    let flags = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK;
    // SAFETY: this process has one thread and stands still until the child, on a stack of its own, has ended.
    let child = unsafe { nix::sched::clone(Box::new(write), &mut stack, flags, Some(libc::SIGCHLD)) };
    // What comes later belongs to our own namespace again, whatever became of the child.
    setns(&own, CloneFlags::CLONE_NEWPID)?;
    nix::sys::wait::waitpid(child?, None)?;
    outcome
}

/// nsfs (device, inode) of a link in /proc/PID/ns.
pub(crate) fn object(path: &Path) -> io::Result<(u64, u64)> {
    let meta = std::fs::metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

/// Field 22 of /proc/PID/stat: start time in clock ticks after boot. With the pid it names a process for good.
pub(crate) fn start_time(pid: u32) -> Result<u64, LaunchError> {
    let text = read_kernel(format!("/proc/{pid}/stat"))
        .map_err(LaunchError::io(format_args!("read the state of process {pid}")))?;
    // The name in parentheses may hold anything; the rest starts after the last one. Field 3 comes first there.
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = rest.split_whitespace().nth(19).and_then(|f| f.parse().ok());
    field.ok_or_else(|| LaunchError::Other(format!("/proc/{pid}/stat has no start time")))
}

/// The numbers of this process's open descriptors.
pub(crate) fn open_fds() -> io::Result<Vec<RawFd>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        if let Some(number) = entry?.file_name().to_str().and_then(|n| n.parse().ok()) {
            all.push(number);
        }
    }
    // The descriptor of the listing itself is closed by now.
    all.retain(|fd| closes_on_exec(*fd).is_ok());
    Ok(all)
}

/// The kernel's answer to LANDLOCK_CREATE_RULESET_VERSION; 0 when Landlock is absent or switched off.
pub(crate) fn landlock_abi() -> u32 {
    // SAFETY: no ruleset is made: with flag 1 the kernel takes no pointer and returns a number.
    let answer = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, 1_u32) };
    u32::try_from(answer).unwrap_or(0)
}

/// A copy of another process's descriptor.
pub(crate) fn pidfd_getfd(pidfd: BorrowedFd<'_>, number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: integers only; a new descriptor or -1 comes back.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) };
    owned(fd)
}

/// struct seccomp_notif (linux/seccomp.h), flat.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Notified {
    pub(crate) id: u64,
    pub(crate) pid: u32,
    flags: u32,
    pub(crate) nr: i32,
    arch: u32,
    instruction_pointer: u64,
    pub(crate) args: [u64; 6],
}

/// struct seccomp_notif_resp.
#[derive(Debug, Default)]
#[repr(C)]
struct Response {
    id: u64,
    val: i64,
    error: i32,
    flags: u32,
}

/// _IOWR('!', nr, size).
const fn notify_request(nr: u32, size: usize) -> libc::Ioctl {
    (3 << 30 | (size as u32) << 16 | (b'!' as u32) << 8 | nr) as libc::Ioctl
}

/// The next call that waits at a seccomp listener; None when its process has ended meanwhile.
pub(crate) fn notified(listener: BorrowedFd<'_>) -> io::Result<Option<Notified>> {
    let mut call = Notified::default();
    let request = notify_request(0, size_of::<Notified>());
    // SAFETY: the kernel fills a struct of the size that the request names; it must be zero before, and is.
    let rc = unsafe { libc::ioctl(listener.as_raw_fd(), request, &raw mut call) };
    if rc == 0 { Ok(Some(call)) } else { unless_gone(io::Error::last_os_error()).map(|()| None) }
}

/// Lets a call go on as it was asked for.
pub(crate) fn go_on(listener: BorrowedFd<'_>, id: u64) -> io::Result<()> {
    const CONTINUE: u32 = 1;
    let mut response = Response { id, flags: CONTINUE, ..Response::default() };
    let request = notify_request(1, size_of::<Response>());
    // SAFETY: the kernel reads a struct of the size that the request names.
    let rc = unsafe { libc::ioctl(listener.as_raw_fd(), request, &raw mut response) };
    if rc == 0 { Ok(()) } else { unless_gone(io::Error::last_os_error()) }
}

fn unless_gone(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::EINTR) => Ok(()),
        _ => Err(error),
    }
}
