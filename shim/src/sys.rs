//! The system calls that need `unsafe`: all of the shim's unsafe code is here and in the modules below.

mod confine;
mod fork;

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use boltseal_message::{EVENT_LEN, KINDS, RING_LEN};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

#[cfg(test)]
pub(crate) use confine::try_call;
pub(crate) use confine::{Ruleset, install_filter, landlock_abi, no_new_privs};
pub(crate) use fork::{Forked, exit, fork, poll};

/// The fd at which a child finds what it was given (the gate its socket, the server its listener).
pub(crate) const PASSED_FD: RawFd = 3;
/// Most fds beside one frame: pidfd, release socket, exec-status pipe, console, listener, ring and its counters.
const MAX_FDS: usize = 7;

/// A pidfd of a process, close-on-exec.
pub(crate) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers; the result is checked.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(Errno::result(fd)?).map_err(io::Error::other)?;
    // SAFETY: the kernel just gave us this fd, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Signals exactly that process, never one that took over its pid.
pub(crate) fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: the fd is borrowed for the call; a null siginfo is allowed.
    let done = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    };
    Errno::result(done)?;
    Ok(())
}

/// Marks all fds from this one on close-on-exec.
pub(crate) fn close_on_exec_from(fd: RawFd) -> io::Result<()> {
    // SAFETY: plain integers; the fds stay open here.
    let marked = unsafe { libc::syscall(libc::SYS_close_range, fd, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    Errno::result(marked)?;
    Ok(())
}

/// Takes the fd that `start` passed. Called once, first thing in the server.
pub(crate) fn take_passed_fd() -> io::Result<OwnedFd> {
    // SAFETY: plain integers; fails when the fd is not open.
    Errno::result(unsafe { libc::fcntl(PASSED_FD, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: the fd is open (checked above), and only this function takes it.
    Ok(unsafe { OwnedFd::from_raw_fd(PASSED_FD) })
}

/// Sends bytes and, beside the first of them, fds. Returns how many bytes went.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[RawFd]) -> io::Result<usize> {
    let rights = [ControlMessage::ScmRights(fds)];
    let rights: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    Ok(sendmsg::<UnixAddr>(socket.as_raw_fd(), &[IoSlice::new(bytes)], rights, flags, None)?)
}

/// Receives bytes and the fds beside them, which are added to `fds` (close-on-exec).
pub(crate) fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = nix::cmsg_space!([RawFd; MAX_FDS]);
    let mut iov = [IoSliceMut::new(bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut iov, Some(&mut space), flags)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: the kernel just installed these fds for us, and nobody else has them.
            fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    if message.flags.contains(MsgFlags::MSG_CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "more fds than a reply may carry"));
    }
    Ok(message.bytes)
}

/// One call that waits for our answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) id: u64,
    /// Of the thread, as we see it; 0: not in our pid namespace.
    pub(crate) pid: u32,
    pub(crate) nr: u32,
    pub(crate) args: [u64; 6],
}

/// The next call that waits at a seccomp listener. `WouldBlock`: none; `UnexpectedEof`: nobody is under its filter any more.
pub(crate) fn next_call(listener: BorrowedFd<'_>) -> io::Result<Call> {
    // Asked first: receiving itself blocks. What poll has seen is ours to take, or is gone, which does not block either.
    let mut poll = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, which outlives the call; no waiting.
    Errno::result(unsafe { libc::poll(&raw mut poll, 1, 0) })?;
    if poll.revents & libc::POLLIN == 0 {
        let gone = poll.revents & (libc::POLLHUP | libc::POLLERR) != 0;
        return Err(if gone { io::ErrorKind::UnexpectedEof } else { io::ErrorKind::WouldBlock }.into());
    }
    // SAFETY: plain integers; the kernel wants all zeroes.
    let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the request's number holds the size of the struct, which outlives the call.
    Errno::result(unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) })?;
    Ok(Call { id: call.id, pid: call.pid, nr: call.data.nr.cast_unsigned(), args: call.data.args })
}

/// Refuses a call with this errno. It may be gone by now (`NotFound`).
pub(crate) fn refuse_call(listener: BorrowedFd<'_>, id: u64, errno: i32) -> io::Result<()> {
    let answer = libc::seccomp_notif_resp { id, val: 0, error: -errno, flags: 0 };
    // SAFETY: reads one struct of the size that the request's number holds, which outlives the call.
    Errno::result(unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const answer) })?;
    Ok(())
}

/// Whether that call waits still: its pid is then not another's.
pub(crate) fn call_waits(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: reads one u64, which outlives the call.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id) == 0 }
}

/// Sets a terminal's size.
pub(crate) fn resize(console: BorrowedFd<'_>, width: u16, height: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize, which outlives the call.
    Errno::result(unsafe { libc::ioctl(console.as_raw_fd(), libc::TIOCSWINSZ, &size) })?;
    Ok(())
}

/// Gives back the program text that is mapped here. It is read from the page cache again when it runs next, so a shim
/// that only waits holds little more than what it wrote itself.
pub(crate) fn release_text() -> io::Result<()> {
    let own = std::fs::read_link("/proc/self/exe")?;
    for line in crate::stdio::read_small("/proc/self/maps")?.lines() {
        // start-end perms offset device inode path
        let mut words = line.split_whitespace();
        let (Some(range), Some("r-xp"), Some(path)) = (words.next(), words.next(), words.nth(3)) else { continue };
        let bound = |text: &str| usize::from_str_radix(text, 16).ok();
        let Some((Some(start), Some(end))) = range.split_once('-').map(|(from, to)| (bound(from), bound(to))) else {
            continue;
        };
        if own.as_os_str() != path {
            continue;
        }
        let address = std::ptr::without_provenance_mut(start);
        // SAFETY: the range is a private, never written mapping of our own file (`r-xp`): what is dropped is read again.
        Errno::result(unsafe { libc::madvise(address, end.saturating_sub(start), libc::MADV_DONTNEED) })?;
    }
    Ok(())
}

/// Memory that the kernel and we look at, until this is dropped.
#[derive(Debug)]
struct Mapping {
    address: std::ptr::NonNull<u8>,
    length: usize,
}

// SAFETY: plain shared memory, not bound to a thread; all access to it goes through atomics or `&mut`.
unsafe impl Send for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping, of exactly this length, and nothing points into it any more. It cannot fail then.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.length) };
    }
}

impl Mapping {
    fn of(fd: BorrowedFd<'_>, offset: usize, length: usize, protection: i32) -> io::Result<Self> {
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        let (anywhere, shared) = (std::ptr::null_mut(), libc::MAP_SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice; the result is checked.
        let address = unsafe { libc::mmap(anywhere, length, protection, shared, fd.as_raw_fd(), offset) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address = std::ptr::NonNull::new(address.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { address, length })
    }

    /// Something in it that both sides use.
    fn shared<T>(&self, at: usize) -> io::Result<&T> {
        if !at.is_multiple_of(align_of::<T>()) || at.checked_add(size_of::<T>()).is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // SAFETY: within the mapping and aligned (checked above). Only for atomics, and for bytes that the kernel leaves alone
        // until we go on: every value of either is valid.
        let place = unsafe { self.address.add(at) };
        // SAFETY: as above.
        Ok(unsafe { place.cast::<T>().as_ref() })
    }
}

fn page() -> io::Result<usize> {
    // SAFETY: an integer in, an integer out.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).map_err(io::Error::other)
}

/// The reader's side of a BPF ring (kernel/bpf/ringbuf.c): a page with our position, one with the writers', then the data,
/// mapped twice in a row so that no event is cut.
#[derive(Debug)]
pub(crate) struct Ring {
    ours: Mapping,
    theirs: Mapping,
    data: usize,
}

impl Ring {
    const BUSY: u32 = 1 << 31;
    const DISCARDED: u32 = 1 << 30;
    const HEAD: usize = 8;

    pub(crate) fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let (data, length) = (page()?, RING_LEN as usize);
        let ours = Mapping::of(fd, 0, data, libc::PROT_READ | libc::PROT_WRITE)?;
        let theirs = Mapping::of(fd, data, data + 2 * length, libc::PROT_READ)?;
        Ok(Self { ours, theirs, data })
    }

    /// Takes the next event out. `false`: there was one that is none of [`EVENT_LEN`] bytes. `None`: none is ready.
    pub(crate) fn next(&mut self, event: &mut [u8; EVENT_LEN]) -> io::Result<Option<bool>> {
        let position: &AtomicUsize = self.ours.shared(0)?;
        let at = position.load(Ordering::Relaxed);
        // In one order with the store below: a writer that does not see us here sees us there, and wakes us.
        let written = self.theirs.shared::<AtomicUsize>(0)?.load(Ordering::SeqCst);
        let there = written.wrapping_sub(at);
        if there == 0 {
            return Ok(None);
        }
        let begin = self.data + (at & (RING_LEN as usize - 1));
        let head = self.theirs.shared::<AtomicU32>(begin)?.load(Ordering::Acquire);
        if head & Self::BUSY != 0 {
            return Ok(None);
        }
        let length = (head & !Self::DISCARDED) as usize;
        let taken = (length + Self::HEAD).next_multiple_of(Self::HEAD);
        if there > RING_LEN as usize || taken > there {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a ring that makes no sense"));
        }
        let whole = length == EVENT_LEN && head & Self::DISCARDED == 0;
        if whole {
            let from: &[u8; EVENT_LEN] = self.theirs.shared(begin + Self::HEAD)?;
            event.copy_from_slice(from);
        }
        position.store(at.wrapping_add(taken), Ordering::SeqCst);
        Ok(Some(whole))
    }
}

/// Counters that programs add to.
#[derive(Debug)]
pub(crate) struct Counters(Mapping);

impl Counters {
    pub(crate) fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        Mapping::of(fd, 0, page()?, libc::PROT_READ).map(Self)
    }

    pub(crate) fn read(&self) -> [u64; KINDS] {
        std::array::from_fn(|n| self.0.shared::<AtomicU64>(n * 8).map_or(0, |counter| counter.load(Ordering::Relaxed)))
    }
}

/// Which child to wait for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Child<'fd> {
    /// Any; it is only looked at and stays a zombie.
    PeekAny,
    Pid(u32),
    PidFd(BorrowedFd<'fd>),
    /// It is only looked at and stays a zombie.
    Peek(BorrowedFd<'fd>),
}

/// Looks for an ended child without blocking: its pid and its status as a shell tells it (128 + signal). nix's `waitid`
/// is not used because it loses the status of a child that a real-time signal killed.
pub(crate) fn wait(child: Child<'_>) -> io::Result<Option<(u32, u32)>> {
    let (kind, id, peek) = match child {
        Child::PeekAny => (libc::P_ALL, 0, libc::WNOWAIT),
        Child::Pid(pid) => (libc::P_PID, pid, 0),
        Child::PidFd(fd) => (libc::P_PIDFD, fd.as_raw_fd().cast_unsigned(), 0),
        Child::Peek(fd) => (libc::P_PIDFD, fd.as_raw_fd().cast_unsigned(), libc::WNOWAIT),
    };
    // SAFETY: all zeroes is a valid siginfo_t, and means "nobody" when the kernel leaves it as it is.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` outlives the call.
    Errno::result(unsafe { libc::waitid(kind, id, &mut info, libc::WEXITED | libc::WNOHANG | peek) })?;
    // SAFETY: waitid filled the fields of a SIGCHLD, or left zeroes.
    let (pid, status) = (unsafe { info.si_pid() }, unsafe { info.si_status() }.cast_unsigned());
    if pid <= 0 {
        return Ok(None);
    }
    let status = if info.si_code == libc::CLD_EXITED { status } else { status.saturating_add(128) };
    Ok(Some((pid.cast_unsigned(), status)))
}

/// Types whose fd is theirs alone and stays the same while they live.
pub(crate) trait OwnsItsFd: AsRawFd {}
impl OwnsItsFd for OwnedFd {}
impl OwnsItsFd for nix::sys::signalfd::SignalFd {}

/// An fd that tasks can wait for.
pub(crate) fn asynchronous<T: OwnsItsFd>(fd: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: the fd stays open and the same until the AsyncFd, which owns it, takes it out of epoll (see the trait).
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}
