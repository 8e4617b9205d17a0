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

/// openat2(2) of an absolute path in the mount that the root is of, O_PATH: EXDEV where the way leads through another one, ELOOP
/// where it leads through a link of the kernel's own (`/proc/self/exe`).
pub(crate) fn open_in_root(path: &str, flags: i32) -> io::Result<OwnedFd> {
    let path = CString::new(path).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: open_how is plain integers; all zero is its documented default.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = u64::from((flags | libc::O_PATH | libc::O_CLOEXEC).unsigned_abs());
    how.resolve = libc::RESOLVE_NO_XDEV | libc::RESOLVE_NO_MAGICLINKS;
    let size = size_of::<libc::open_how>();
    // SAFETY: path is NUL-terminated, how is a valid struct of `size` bytes; both outlive the call.
    let fd = unsafe { libc::syscall(libc::SYS_openat2, libc::AT_FDCWD, path.as_ptr(), &raw const how, size) };
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

/// Closes a descriptor by number: in a fork of the gate, what was copied from it has no owner.
pub(crate) fn close_raw(fd: RawFd) {
    // SAFETY: the number was taken from the gate before the fork and nothing in the fork drops it.
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

/// A copy of what is mounted where `at` lies, from there on and without what is mounted below, on no folder yet.
pub(crate) fn clone_mount(at: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as libc::c_uint;
    // SAFETY: the path is NUL-terminated; a new descriptor or -1 comes back.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, at.as_raw_fd(), c"".as_ptr(), flags) };
    owned(fd)
}

/// struct mount_attr (linux/mount.h).
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Shows a mount that is on no folder yet through the map of a user namespace.
pub(crate) fn idmap(mount: BorrowedFd<'_>, userns: BorrowedFd<'_>) -> io::Result<()> {
    const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
    let userns_fd = u64::from(userns.as_raw_fd().unsigned_abs());
    let attr = MountAttr { set: MOUNT_ATTR_IDMAP, clear: 0, propagation: 0, userns_fd };
    let (fd, size) = (mount.as_raw_fd(), size_of::<MountAttr>());
    // SAFETY: the path is NUL-terminated and attr a valid struct of `size` bytes; both outlive the call.
    let rc =
        unsafe { libc::syscall(libc::SYS_mount_setattr, fd, c"".as_ptr(), libc::AT_EMPTY_PATH, &raw const attr, size) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Puts such a mount on a folder or file.
pub(crate) fn move_mount(mount: BorrowedFd<'_>, onto: BorrowedFd<'_>) -> io::Result<()> {
    const BOTH_EMPTY: libc::c_uint = 0x4 | 0x40;
    let (from, to) = (mount.as_raw_fd(), onto.as_raw_fd());
    // SAFETY: both paths are NUL-terminated.
    let rc = unsafe { libc::syscall(libc::SYS_move_mount, from, c"".as_ptr(), to, c"".as_ptr(), BOTH_EMPTY) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The user namespace that a namespace belongs to (ioctl_nsfs(2)); EPERM where that is none of ours or below.
pub(crate) fn owner_of_namespace(namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const NS_GET_USERNS: libc::Ioctl = 0xb701;
    // SAFETY: an ioctl without an argument; a new descriptor or -1 comes back.
    let fd = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS) };
    owned(libc::c_long::from(fd))
}

/// A child in a user namespace of its own, which waits at a pipe until nobody holds its other end, and exits. Its pid.
pub(crate) fn fork_in_user_namespace(wait: BorrowedFd<'_>, held: BorrowedFd<'_>) -> io::Result<libc::pid_t> {
    let (stack, flags) = (std::ptr::null_mut::<u8>(), libc::CLONE_NEWUSER | libc::SIGCHLD);
    // SAFETY: without a stack it is fork(2); this process has one thread, so the child finds no lock taken.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, stack, 0, 0, 0) };
    if pid == 0 {
        close_raw(held.as_raw_fd());
        let ended = nix::unistd::read(wait, &mut [0_u8; 1]).is_ok();
        exit_now(i32::from(!ended));
    }
    match libc::pid_t::try_from(pid) {
        Ok(pid) if pid > 0 => Ok(pid),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A child in the pid namespace of that process: its pid as it is here; None in the child.
pub(crate) fn fork_in_pid_namespace(of: BorrowedFd<'_>) -> io::Result<Option<nix::unistd::Pid>> {
    use nix::sched::{CloneFlags, setns};
    let own = std::fs::File::open("/proc/self/ns/pid")?;
    setns(of, CloneFlags::CLONE_NEWPID)?;
    // SAFETY: this process has one thread, so the child finds no lock taken.
    let forked = unsafe { nix::unistd::fork() };
    if matches!(forked, Ok(nix::unistd::ForkResult::Child)) {
        return Ok(None);
    }
    // What comes later belongs to our own namespace again.
    let back = setns(&own, CloneFlags::CLONE_NEWPID);
    let nix::unistd::ForkResult::Parent { child } = forked? else { return Ok(None) };
    if let Err(e) = back {
        nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL)?;
        return Err(e.into());
    }
    Ok(Some(child))
}

/// All three user and group ids.
pub(crate) fn become_ids(uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid) = (nix::unistd::Uid::from_raw(uid), nix::unistd::Gid::from_raw(gid));
    nix::unistd::setresgid(gid, gid, gid)?;
    nix::unistd::setresuid(uid, uid, uid)?;
    Ok(())
}

/// prctl(2) with one number.
pub(crate) fn control(option: libc::c_int, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the options that this crate uses it with take numbers only.
    let rc = unsafe { libc::prctl(option, value, 0, 0, 0) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes a terminal the controlling one of this session.
pub(crate) fn control_terminal(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes a number.
    let rc = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Every descriptor above the three of stdio closes on exec.
pub(crate) fn close_on_exec() -> io::Result<()> {
    // SAFETY: integers only.
    let rc = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
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
