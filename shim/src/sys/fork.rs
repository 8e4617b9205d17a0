//! A process of our own without an exec, and what it waits with.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use nix::errno::Errno;

use super::PASSED_FD;

/// Which of the two a fork came back as.
pub(crate) enum Forked {
    Parent,
    /// With what was kept.
    Child([OwnedFd; 2]),
}

/// A fork of this process, which must have one thread. The child has stdio on /dev/null and, from [`PASSED_FD`] on, what is
/// `kept`; all else is closed in it, so it must not return to who called this one's caller.
pub(crate) fn fork(kept: [OwnedFd; 2]) -> io::Result<Forked> {
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    // SAFETY: one thread (the caller's promise): no lock is held by somebody who is not there in the child.
    if Errno::result(unsafe { libc::fork() })? > 0 {
        return Ok(Forked::Parent);
    }
    // What fails from here on fails in the child: it must not go on as a second server, whose end would take the socket along.
    Ok(Forked::Child(settle(kept, null).unwrap_or_else(|_| exit(1))))
}

/// The child's descriptors as [`fork`] promises them.
fn settle(kept: [OwnedFd; 2], null: std::fs::File) -> io::Result<[OwnedFd; 2]> {
    let [first, second] = kept.map(std::mem::ManuallyDrop::new);
    let safe = [first.as_raw_fd(), second.as_raw_fd(), null.as_raw_fd()].map(|fd| {
        // SAFETY: plain integers. Numbers that none of those below are.
        unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 16) }
    });
    std::mem::forget(null);
    let [first, second, null] = safe;
    for (fd, number) in [(null, 0), (null, 1), (null, 2), (first, PASSED_FD), (second, PASSED_FD + 1)] {
        // SAFETY: plain integers; what stood there is not used any more in this process.
        Errno::result(unsafe { libc::dup2(fd, number) })?;
    }
    // SAFETY: plain integers; nobody in this process uses the fds that go.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, PASSED_FD + 2, u32::MAX, 0) })?;
    Ok([PASSED_FD, PASSED_FD + 1].map(|fd| {
        // SAFETY: made above, and nobody else has them.
        unsafe { OwnedFd::from_raw_fd(fd) }
    }))
}

/// Ends this process at once: a fork's end is not its parent's.
pub(crate) fn exit(status: i32) -> ! {
    // SAFETY: an integer; it does not return.
    unsafe { libc::_exit(status) }
}

/// Waits for events.
pub(crate) fn poll(fds: &mut [libc::pollfd]) -> io::Result<()> {
    let count = libc::nfds_t::try_from(fds.len()).map_err(io::Error::other)?;
    // SAFETY: the slice outlives the call and has that many.
    match Errno::result(unsafe { libc::poll(fds.as_mut_ptr(), count, -1) }) {
        Err(Errno::EINTR) => {
            fds.iter_mut().for_each(|fd| fd.revents = 0);
            Ok(())
        }
        other => Ok(other.map(drop)?),
    }
}
