//! One connection to a TPM: the kernel's resource manager device, or a software TPM's unix socket.
//!
//! Nothing waits past the deadline: a TPM may take minutes, a peer may never answer. The kernel's TPM device makes that
//! hard. While a command is under way its poll, read and write all sleep on a mutex, uninterruptibly, O_NONBLOCK or not
//! (drivers/char/tpm/tpm-dev-common.c). What does not sleep is an epoll instance that got the device *before* the
//! command was written: epoll_wait(2) asks the driver only after the driver's own wake-up. So: one epoll per command.
use crate::Error;
use crate::wire::{HEADER, MAX_REPLY};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::sys::stat::{Mode, SFlag, fstat};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

/// Where a TPM is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Address<'a> {
    /// `/dev/tpmrm<N>`
    Device(&'a str),
    /// The path of `unix:/absolute/path`: the data socket of a software TPM.
    Socket(&'a str),
}

impl<'a> Address<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Self, Error> {
        if let Some(path) = text.strip_prefix("unix:") {
            // sun_path has 108 bytes, the last one a zero.
            if !path.starts_with('/') || path.len() > 107 || path.contains('\0') {
                return Err(Error::refused(
                    "the node policy's tpm is not unix: and an absolute path of at most 107 bytes",
                ));
            }
            return Ok(Self::Socket(path));
        }
        match text.strip_prefix("/dev/tpmrm") {
            Some(n) if (1..=5).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_digit()) => Ok(Self::Device(text)),
            // /dev/tpm0 goes around the resource manager: one user at a time, and no room for our key.
            _ => Err(Error::refused(
                "the node policy's tpm is neither /dev/tpmrm<N> nor unix:/absolute/path. Fix: tpm = \"/dev/tpmrm0\"",
            )),
        }
    }

    pub(crate) fn software(self) -> bool {
        matches!(self, Self::Socket(_))
    }
}

#[derive(Debug)]
pub(crate) struct Channel {
    /// Also for a socket: both are a file descriptor that is read and written.
    file: File,
    stream: bool,
}

impl Channel {
    pub(crate) fn open(address: &str, deadline: Instant) -> Result<Self, Error> {
        match Address::parse(address)? {
            Address::Device(path) => device(path),
            Address::Socket(path) => stream(path, deadline),
        }
    }

    /// Sends one command and returns the bytes of one reply.
    pub(crate) fn exchange(&mut self, name: &'static str, command: &[u8], deadline: Instant) -> Result<Vec<u8>, Error> {
        left(name, deadline)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|e| Error::io(name, e))?;
        epoll.add(&self.file, EpollEvent::new(EpollFlags::EPOLLIN, 0)).map_err(|e| Error::io(name, e))?;
        let result = self.send(name, command, deadline).and_then(|()| self.receive(&epoll, name, deadline));
        if matches!(result, Err(Error::Deadline(_))) && !self.stream {
            self.abandon();
        }
        result
    }

    /// Keeps the device open for the rest of this process: closing it while a command is under way waits, in the
    /// kernel, until the TPM has answered. The gate must be able to say no before that. Its *exit* still waits so:
    /// whoever started the gate has to go by its reply, not by its end.
    fn abandon(&self) {
        if let Ok(another) = self.file.try_clone() {
            std::mem::forget(another);
        }
    }

    fn receive(&mut self, epoll: &Epoll, name: &'static str, deadline: Instant) -> Result<Vec<u8>, Error> {
        let mut reply = Vec::with_capacity(512);
        loop {
            if let Some(whole) = complete(&reply)? {
                return if whole { Ok(reply) } else { Err(Error::Malformed("TPM reply", "more than one")) };
            }
            match epoll.wait(&mut [EpollEvent::empty()], PollTimeout::from(millis(name, deadline)?)) {
                Ok(1..) => {}
                Ok(0) | Err(Errno::EINTR) => continue,
                Err(e) => return Err(Error::io(name, e)),
            }
            let mut buffer = [0; MAX_REPLY];
            match self.file.read(&mut buffer) {
                Ok(0) if self.stream => {
                    return Err(Error::io(name, "the TPM closed the connection"));
                }
                // Kernels that report readable before the answer is there then read nothing.
                Ok(0) => pause(Duration::from_millis(1), name, deadline)?,
                Ok(count) => reply.extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(e) if retriable(&e) => {}
                Err(e) => return Err(Error::io(name, e)),
            }
        }
    }

    fn send(&mut self, name: &'static str, command: &[u8], deadline: Instant) -> Result<(), Error> {
        let mut left = command;
        while !left.is_empty() {
            // The device takes a command in one write and is never asked whether it would.
            if self.stream {
                self.writable(name, deadline)?;
            }
            match self.file.write(left) {
                Ok(count) => left = left.get(count..).unwrap_or_default(),
                Err(e) if retriable(&e) => pause(Duration::from_millis(1), name, deadline)?,
                Err(e) => return Err(Error::io(name, e)),
            }
        }
        Ok(())
    }

    fn writable(&self, name: &'static str, deadline: Instant) -> Result<(), Error> {
        loop {
            let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
            match poll(&mut fds, PollTimeout::from(millis(name, deadline)?)) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(()),
                Err(e) => return Err(Error::io(name, e)),
            }
        }
    }
}

/// Some(true): exactly one reply is there. Some(false): more than that. None: not yet.
fn complete(reply: &[u8]) -> Result<Option<bool>, Error> {
    let Some(header) = reply.get(..HEADER) else {
        return Ok(None);
    };
    let size = match header {
        [_, _, a, b, c, d, ..] => u32::from_be_bytes([*a, *b, *c, *d]) as usize,
        _ => 0,
    };
    if !(HEADER..=MAX_REPLY).contains(&size) {
        return Err(Error::Malformed("TPM reply", "its size field is out of bounds"));
    }
    Ok((reply.len() >= size).then_some(reply.len() == size))
}

fn device(path: &str) -> Result<Channel, Error> {
    let fix = "Fix: load the TPM driver, or enable the TPM in the firmware";
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let fd = open(path, flags, Mode::empty())
        .map_err(|e| Error::refused(format!("the TPM {path} cannot be opened: {e}. {fix}")))?;
    let kind = fstat(&fd).map_err(|e| Error::io(path, e))?.st_mode;
    if SFlag::from_bits_truncate(kind) & SFlag::S_IFMT != SFlag::S_IFCHR {
        return Err(Error::refused(format!("the TPM {path} is not a character device. {fix}")));
    }
    Ok(Channel { file: File::from(fd), stream: false })
}

fn stream(path: &str, deadline: Instant) -> Result<Channel, Error> {
    let name = "connecting to the software TPM";
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(|e| Error::io(name, e))?;
    let address = UnixAddr::new(path).map_err(|e| Error::io(name, e))?;
    loop {
        match connect(fd.as_raw_fd(), &address) {
            Ok(()) => return Ok(Channel { file: File::from(fd), stream: true }),
            // swtpm serves one connection at a time: its backlog is full while others wait.
            Err(Errno::EAGAIN | Errno::EINTR) => pause(Duration::from_millis(2), name, deadline)?,
            Err(e) => {
                return Err(Error::refused(format!(
                    "the software TPM unix:{path} cannot be reached: {e}. Fix: start it"
                )));
            }
        }
    }
}

fn retriable(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn left(name: &'static str, deadline: Instant) -> Result<Duration, Error> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(Error::Deadline(name)) } else { Ok(left) }
}

/// What is left, rounded up: half a millisecond must not spin.
fn millis(name: &'static str, deadline: Instant) -> Result<u16, Error> {
    Ok((left(name, deadline)?.as_millis() + 1).min(60_000) as u16)
}

/// Sleeps, but not past the deadline.
pub(crate) fn pause(time: Duration, name: &'static str, deadline: Instant) -> Result<(), Error> {
    std::thread::sleep(time.min(left(name, deadline)?));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_kinds_of_address_and_no_other() {
        assert_eq!(Address::parse("/dev/tpmrm0"), Ok(Address::Device("/dev/tpmrm0")));
        assert_eq!(Address::parse("unix:/run/tpm"), Ok(Address::Socket("/run/tpm")));
        assert!(Address::parse("unix:/run/tpm").unwrap().software());
        assert!(!Address::parse("/dev/tpmrm0").unwrap().software());
        let long = format!("unix:/{}", "a".repeat(107));
        for bad in ["", "unix:", "unix:tpm", "unix:/a\0b", "/dev/tpm0", "/dev/tpmrm", "/dev/tpmrm/../x", "tcp:1", &long]
        {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_reply_ends_where_its_header_says() {
        let reply = [0x80, 1, 0, 0, 0, 11, 0, 0, 0, 0, 9, 9];
        assert_eq!(complete(&reply[..5]), Ok(None));
        assert_eq!(complete(&reply[..10]), Ok(None));
        assert_eq!(complete(&reply[..11]), Ok(Some(true)));
        assert_eq!(complete(&reply), Ok(Some(false)));
        assert!(complete(&[0x80, 1, 0, 0, 0, 9, 0, 0, 0, 0]).is_err());
        assert!(complete(&[0x80, 1, 0, 0, 0x10, 1, 0, 0, 0, 0]).is_err());
        assert!(complete(&[0xff; 10]).is_err());
    }

    /// A device is a file that is read and written; here a pair of sockets stands for one that never answers.
    #[test]
    fn a_device_that_is_late_is_not_closed() {
        for stream in [false, true] {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            theirs.set_nonblocking(true).unwrap();
            let mut channel = Channel { file: File::from(std::os::fd::OwnedFd::from(ours)), stream };
            let soon = Instant::now() + Duration::from_millis(30);
            assert_eq!(channel.exchange("Quote", b"command", soon), Err(Error::Deadline("Quote")));
            // Late already: nothing is sent.
            assert_eq!(channel.exchange("Flush", b"another", soon), Err(Error::Deadline("Flush")));
            drop(channel);
            let mut heard = [0; 64];
            assert_eq!((&theirs).read(&mut heard).unwrap(), 7);
            match (&theirs).read(&mut heard) {
                Ok(count) => assert!(stream && count == 0, "closed"),
                Err(e) => assert!(!stream && e.kind() == ErrorKind::WouldBlock, "{e}"),
            }
        }
    }

    #[test]
    fn what_is_missing_or_no_device_is_refused() {
        let soon = Instant::now() + Duration::from_millis(50);
        let error = Channel::open("/dev/tpmrm99999", soon).unwrap_err().to_string();
        assert!(error.contains("/dev/tpmrm99999") && error.contains("Fix:"), "{error}");
        let error = Channel::open("unix:/nonexistent/tpm", soon).unwrap_err().to_string();
        assert!(error.contains("cannot be reached"), "{error}");
    }
}
