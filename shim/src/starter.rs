//! The starter: a process beside the server that starts gates for it, so that the server can give up for good what a gate
//! needs: its filter and its domain would be the gate's too, and every container's.
//!
//! It is the server as it was before it confined itself, forked and not executed: the pages are shared. It starts one fixed
//! program in one fixed way and says which program a process runs; no path and no argument comes from the server. It is no
//! subreaper: what a gate leaves becomes the server's child, as before. It ends with the server.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use nix::sys::time::{TimeVal, TimeValLike as _};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::spawn::{Child, spawn};
use crate::stdio::read_small;
use crate::sys::{self, Forked};

pub(crate) const BINARY: &str = "boltseal-runtime";
/// Its name in /proc; nothing else tells it from the server there.
const NAME: &std::ffi::CStr = c"shim-starter";
/// Most gates at work that it has started and not yet been relieved of.
const MAX_GATES: usize = 256;
/// How long the server waits for the name of a program.
const PATIENCE_MS: i64 = 100;

/// What the server may ask for. With each goes the socket for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// A gate, with its socket and its stderr. Answer: errno and pid; later its status.
    Gate,
    /// Answer: the path of the program that this process runs.
    Program(u32),
}

const ORDER_LEN: usize = 8;

impl Order {
    fn encode(self) -> [u8; ORDER_LEN] {
        match self {
            Self::Gate => pair(1, 0),
            Self::Program(pid) => pair(2, pid),
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        match unpair(bytes.try_into().ok()?) {
            (1, 0) => Some(Self::Gate),
            (2, pid) => Some(Self::Program(pid)),
            _ => None,
        }
    }
}

fn pair(first: u32, second: u32) -> [u8; 8] {
    (u64::from(first) << 32 | u64::from(second)).to_ne_bytes()
}

fn unpair(bytes: [u8; 8]) -> (u32, u32) {
    let both = u64::from_ne_bytes(bytes);
    ((both >> 32) as u32, both as u32)
}

/// The server's hold on its starter: when it goes, the starter goes.
#[derive(Debug)]
pub(crate) struct Starter {
    control: OwnedFd,
    /// It did not answer in time once: it is asked for no names any more.
    silent: AtomicBool,
}

/// A gate at work. While `answer` is open its pid is not another's, even when it has ended.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) pid: u32,
    answer: AsyncFd<OwnedFd>,
}

/// Why no gate was started.
#[derive(Debug)]
pub(crate) enum NotStarted {
    /// There is no starter any more.
    NoStarter,
    Failed(io::Error),
}

impl From<io::Error> for NotStarted {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => {
                Self::NoStarter
            }
            _ => Self::Failed(e),
        }
    }
}

impl Starter {
    /// Forks it off: to be called while this process has one thread, and before it gives anything up. With `raised` our own
    /// `oom_score_adj` is one above containerd's, and gates, with what they start, get containerd's.
    pub(crate) fn new(raised: bool) -> anyhow::Result<Self> {
        let gate = path()?;
        let fallback = File::options().read(true).custom_flags(libc::O_PATH).open(&gate);
        let fallback = fallback.with_context(|| format!("the gate {}", gate.display()))?;
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        let server = std::process::id();
        match sys::fork([theirs, fallback.into()]).context("fork the starter")? {
            Forked::Parent => Ok(Self { control: ours, silent: AtomicBool::new(false) }),
            Forked::Child([control, fallback]) => {
                let done = Work { gate, fallback, server, raised, gates: Vec::new() }.run(&control);
                sys::exit(i32::from(done.is_err()))
            }
        }
    }

    /// Becomes readable when the starter has ended.
    pub(crate) fn control(&self) -> io::Result<OwnedFd> {
        self.control.try_clone()
    }

    fn ask(&self, order: Order, fds: &[BorrowedFd<'_>]) -> io::Result<OwnedFd> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let fds: Vec<_> = fds.iter().map(|fd| fd.as_raw_fd()).chain([theirs.as_raw_fd()]).collect();
        sys::send(self.control.as_fd(), &order.encode(), &fds)?;
        Ok(ours)
    }

    /// Starts a gate with this socket and this stderr. When the caller loses interest before the answer, nobody holds the
    /// other end of the socket, and the gate ends without having been asked for anything.
    pub(crate) async fn gate(&self, socket: BorrowedFd<'_>, stderr: BorrowedFd<'_>) -> Result<Started, NotStarted> {
        let answer = sys::asynchronous(self.ask(Order::Gate, &[socket, stderr])?, Interest::READABLE)?;
        match packet(&answer).await? {
            (0, pid) => Ok(Started { pid, answer }),
            (errno, _) => Err(NotStarted::Failed(io::Error::from_raw_os_error(errno.cast_signed()))),
        }
    }

    /// The program that a process runs, as it sees it; empty: unknown. (Landlock lets nobody look at a process outside his
    /// own domain so, whatever his capabilities.)
    pub(crate) fn program(&self, pid: u32) -> PathBuf {
        if self.silent.load(Ordering::Relaxed) {
            return PathBuf::new();
        }
        let mut path = vec![0; libc::PATH_MAX as usize];
        let told = self.ask(Order::Program(pid), &[]).and_then(|answer| {
            setsockopt(&answer, sockopt::ReceiveTimeout, &TimeVal::milliseconds(PATIENCE_MS))?;
            Ok(nix::unistd::read(&answer, &mut path)?)
        });
        match told {
            Ok(length) => path.truncate(length),
            Err(_) => {
                self.silent.store(true, Ordering::Relaxed);
                path.clear();
            }
        }
        PathBuf::from(std::ffi::OsString::from_vec(path))
    }
}

impl Started {
    /// Waits until it has ended: its status as a shell tells it.
    pub(crate) async fn status(&self) -> io::Result<u32> {
        Ok(packet(&self.answer).await?.1)
    }
}

async fn packet(answer: &AsyncFd<OwnedFd>) -> io::Result<(u32, u32)> {
    let mut bytes = [0; 8];
    loop {
        let mut ready = answer.readable().await?;
        if let Ok(got) = ready.try_io(|fd| sys::receive(fd.as_fd(), &mut bytes, &mut Vec::new())) {
            return if got? == bytes.len() { Ok(unpair(bytes)) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
    }
}

/// Where the gate is: beside our own binary.
pub(crate) fn path() -> anyhow::Result<PathBuf> {
    Ok(std::env::current_exe().context("own binary")?.with_file_name(BINARY))
}

/// The starter's side.
struct Work {
    /// Each run takes what is there now: after an upgrade that is a gate which reads the policy of its time and serves our
    /// frames and state (the two versions before its own).
    gate: PathBuf,
    /// The gate as it was when we started, for a node whose package is being replaced at this moment.
    fallback: OwnedFd,
    server: u32,
    raised: bool,
    gates: Vec<AtWork>,
}

/// A child, until it has ended and nobody wants to know about it.
struct AtWork {
    pid: u32,
    pidfd: OwnedFd,
    answer: Option<OwnedFd>,
    told: bool,
}

impl Work {
    /// Until the server is gone.
    fn run(self, control: &OwnedFd) -> io::Result<()> {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        nix::sys::prctl::set_name(NAME)?;
        // It may have gone before the line above.
        if nix::unistd::getppid().as_raw().cast_unsigned() != self.server {
            return Ok(());
        }
        self.serve(control)
    }

    fn serve(mut self, control: &OwnedFd) -> io::Result<()> {
        loop {
            let mut polls = vec![poll_of(Some(control), libc::POLLIN)];
            for gate in &self.gates {
                polls.push(poll_of(gate.answer.as_ref(), 0));
                // What has been told shows for ever that it has ended.
                let waited = !gate.told || gate.answer.is_none();
                polls.push(poll_of(waited.then_some(&gate.pidfd), libc::POLLIN));
            }
            sys::poll(&mut polls)?;
            let mut seen = polls.iter().map(|poll| poll.revents != 0);
            let asked = seen.next() == Some(true);
            self.gates.retain_mut(|gate| {
                let (given_up, ended) = (seen.next() == Some(true), seen.next() == Some(true));
                gate.stays(given_up, ended)
            });
            if !asked {
                continue;
            }
            let (mut bytes, mut fds) = ([0; ORDER_LEN], Vec::new());
            match sys::receive(control.as_fd(), &mut bytes, &mut fds) {
                Ok(0) => return Ok(()),
                Ok(length) => {
                    // What is no order gets no answer.
                    if let Some(order) = bytes.get(..length).and_then(Order::decode) {
                        self.obey(order, fds);
                    }
                }
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::InvalidData) => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn obey(&mut self, order: Order, mut fds: Vec<OwnedFd>) {
        let Some(answer) = fds.pop() else { return };
        match (order, &fds[..]) {
            (Order::Gate, [socket, stderr]) => match self.start(socket, stderr) {
                Ok((pid, pidfd)) => {
                    // Who asked may have lost interest; then the socket tells the gate.
                    let told = sys::send(answer.as_fd(), &pair(0, pid), &[]).is_ok();
                    self.gates.push(AtWork { pid, pidfd, answer: told.then_some(answer), told: false });
                }
                Err(e) => {
                    let errno = e.raw_os_error().unwrap_or(libc::EIO).cast_unsigned();
                    let _told = sys::send(answer.as_fd(), &pair(errno, 0), &[]).is_ok();
                }
            },
            (Order::Program(pid), []) => {
                let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
                let _told = sys::send(answer.as_fd(), program.as_os_str().as_bytes(), &[]).is_ok();
            }
            _ => {}
        }
    }

    fn start(&self, socket: &OwnedFd, stderr: &OwnedFd) -> io::Result<(u32, OwnedFd)> {
        if self.gates.len() >= MAX_GATES {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
        let child = Child {
            args: vec![BINARY.as_ref(), "gate".as_ref()],
            environment: Vec::new(),
            stderr: Some(stderr.as_fd()),
            passed: socket.as_fd(),
        };
        let pid = match spawn(&self.gate, &child) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                spawn(Path::new(&format!("/proc/self/fd/{}", self.fallback.as_raw_fd())), &child)?
            }
            other => other?,
        };
        if let Some(score) = self.former_oom_score() {
            // Where that is not allowed it keeps ours.
            let _lowered = std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()).is_ok();
        }
        // Without one it finds its socket closed and ends; a zombie is left until we end.
        Ok((pid, sys::pidfd_open(pid)?))
    }

    /// Read at each run: the server may be up before `start` has raised its score.
    fn former_oom_score(&self) -> Option<i32> {
        let server: i32 = read_small(format!("/proc/{}/oom_score_adj", self.server)).ok()?.trim().parse().ok()?;
        // At the maximum nothing was raised.
        match self.raised {
            true if server < 1000 => Some(server - 1),
            _ => Some(server),
        }
    }
}

impl AtWork {
    fn stays(&mut self, given_up: bool, ended: bool) -> bool {
        if given_up {
            self.answer = None;
        }
        match &self.answer {
            None if ended => sys::wait(sys::Child::Pid(self.pid)).is_ok_and(|status| status.is_none()),
            Some(answer) if ended => {
                // Looked at and left a zombie: while somebody may signal its group, the pid stays its own.
                let status = sys::wait(sys::Child::Peek(self.pidfd.as_fd()));
                let status = status.ok().flatten().map_or(255, |(_, status)| status);
                self.told = true;
                if sys::send(answer.as_fd(), &pair(0, status), &[]).is_err() {
                    self.answer = None;
                }
                true
            }
            _ => true,
        }
    }
}

fn poll_of(fd: Option<&OwnedFd>, events: i16) -> libc::pollfd {
    libc::pollfd { fd: fd.map_or(-1, |fd| fd.as_raw_fd()), events, revents: 0 }
}

#[cfg(test)]
impl Starter {
    /// One that is a thread of the tests, which have many: it starts nothing.
    pub(crate) fn answering() -> Self {
        let pair = || socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let (control, theirs) = pair();
        let work = Work { gate: "/nowhere".into(), fallback: pair().0, server: 0, raised: false, gates: Vec::new() };
        std::thread::spawn(move || work.serve(&theirs));
        Self { control, silent: AtomicBool::new(false) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_the_two_orders_is_one() {
        for order in [Order::Gate, Order::Program(0), Order::Program(u32::MAX)] {
            assert_eq!(Order::decode(&order.encode()), Some(order));
        }
        for wrong in [&pair(0, 0)[..], &pair(1, 1), &pair(3, 0), &pair(u32::MAX, 1), b"", &[1; 7], &[1; 9]] {
            assert_eq!(Order::decode(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_starter_that_is_gone_is_told_from_other_failures() {
        for (kind, gone) in [
            (io::ErrorKind::BrokenPipe, true),
            (io::ErrorKind::ConnectionReset, true),
            (io::ErrorKind::UnexpectedEof, true),
            (io::ErrorKind::NotFound, false),
            (io::ErrorKind::WouldBlock, false),
        ] {
            assert_eq!(matches!(NotStarted::from(io::Error::from(kind)), NotStarted::NoStarter), gone, "{kind}");
        }
    }
}
