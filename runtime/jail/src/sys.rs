//! The jail's only unsafe code: fork for the worker, its end, and the closing of what it inherits.
use nix::unistd::ForkResult;

/// Forks. The child runs nothing but the jail and a parser: both take no lock but the heap's.
pub(crate) fn fork() -> nix::Result<ForkResult> {
    // SAFETY: the gate has one thread; elsewhere the heap is musl's, which fork leaves usable in the child.
    unsafe { nix::unistd::fork() }
}

/// Ends a forked child at once, without running anything of the parent's.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Closes every fd from `first` to `last`.
pub(crate) fn close_range(first: u32, last: u32) -> nix::Result<()> {
    // SAFETY: only called in a forked worker right after fork, where no owner of those fds runs again.
    nix::errno::Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0_u32) }).map(drop)
}
