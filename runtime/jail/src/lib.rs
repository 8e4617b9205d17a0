//! The worker: a fork of whoever asks, jailed. It parses and proposes; it is not believed.
//!
//! Before it looks at a byte it has: no fd but the socket to its parent, no capability, uid and gid 65534, no file, no
//! child, no network (a filter of eleven calls that kills on anything else), a second of CPU and bounded memory. What it
//! returns is decoded by fixed code and proves nothing: the parent verifies bytes, digests and signatures itself.
//!
//! One worker may answer several questions in turn, for a fork costs more than they do: what an author gives can then
//! spoil the answers about what is asked after it, never those before. Who asks about bytes of another author, one whom
//! it need not trust with the rest, begins with [`Parse::afresh`].
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests"))]

mod sys;
mod tree;

pub use tree::{LATE, Tell, look};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Pid, Uid};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Largest answer of a worker, bytes.
const MAX_ANSWER: usize = 8 << 20;
/// All memory that a worker may have mapped, what it inherits included, bytes.
const MEMORY: u64 = 256 << 20;
/// uid and gid of a worker: nobody's.
const NOBODY: u32 = 65534;
/// Time for one answer.
const TIME: Duration = Duration::from_secs(2);
/// Before a question: which one, and the length of its bytes. Before an answer: its length.
const QUESTION: usize = 5;
const ANSWER: usize = 4;

/// Turns bytes into a proposal; the number says what the bytes are taken for.
pub type Parser = fn(u8, &[u8]) -> Vec<u8>;

/// What runs a parser. A trait so that a test can put a liar in its place.
pub trait Parse {
    /// Runs `parser` on `kind` and `bytes`; the answer is whatever the worker wrote.
    ///
    /// # Errors
    /// A sentence: it was killed, ran out of time, or wrote more than it may.
    fn parse(&self, parser: Parser, kind: u8, bytes: &[u8]) -> Result<Vec<u8>, String>;

    /// What is asked next is none of the business of a worker that saw what was asked before.
    fn afresh(&self) {}
}

/// The real one.
#[derive(Debug)]
pub struct Jail {
    filter: BpfProgram,
    deadline: Instant,
    worker: RefCell<Option<Worker>>,
}

impl Jail {
    /// A jail whose workers answer until `deadline`.
    ///
    /// # Errors
    /// A machine that the filter is not built for.
    pub fn new(deadline: Instant) -> Result<Self, String> {
        let filter = filter(&[]).map_err(|e| format!("the worker's filter does not build: {e}"))?;
        Ok(Self { filter, deadline, worker: RefCell::default() })
    }
}

impl Parse for Jail {
    fn parse(&self, parser: Parser, kind: u8, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let idle = self.worker.take().filter(|w| w.parser.is_some_and(|of| std::ptr::fn_addr_eq(of, parser)));
        let worker = idle.map_or_else(|| Worker::start(parser, &self.filter), Ok)?;
        match worker.ask(kind, bytes, self.deadline.min(Instant::now() + TIME)) {
            Ok(answer) => {
                self.worker.replace(Some(worker));
                Ok(answer)
            }
            Err(Some(late)) => Err(late),
            // It closed the socket: how it ended says more.
            Err(None) => Err(worker.end()),
        }
    }

    fn afresh(&self) {
        drop(self.worker.take());
    }
}

/// A child that waits for questions. Dropped, it is killed and reaped.
#[derive(Debug)]
struct Worker {
    /// None: it does one thing and ends.
    parser: Option<Parser>,
    child: Pid,
    socket: OwnedFd,
    reaped: bool,
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        // Our own child, not reaped: the number is still its own.
        if let Err(e) = kill(self.child, Signal::SIGKILL).and_then(|()| self.wait().map(drop)) {
            tracing::warn!("a worker does not end: {e}");
        }
    }
}

impl Worker {
    fn start(parser: Parser, filter: &BpfProgram) -> Result<Self, String> {
        let life = |socket: &OwnedFd| match jailed(filter, socket) {
            Ok(()) => i32::from(!answers(socket, parser)),
            Err(_) => 2,
        };
        Self::fork(Some(parser), life)
    }

    /// A child that lives `life` and ends with what that returns.
    fn fork(parser: Option<Parser>, life: impl FnOnce(&OwnedFd) -> i32) -> Result<Self, String> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
            .map_err(|e| format!("no socket for the worker: {e}"))?;
        match sys::fork().map_err(|e| format!("no worker: {e}"))? {
            ForkResult::Child => sys::exit_now(life(&theirs)),
            ForkResult::Parent { child } => {
                let worker = Self { parser, child, socket: ours, reaped: false };
                nix::fcntl::fcntl(&worker.socket, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
                    .map_err(|e| format!("the worker's socket: {e}"))?;
                Ok(worker)
            }
        }
    }

    /// `Err(None)`: the worker is gone.
    fn ask(&self, kind: u8, bytes: &[u8], deadline: Instant) -> Result<Vec<u8>, Option<String>> {
        let length = u32::try_from(bytes.len()).map_err(|_| Some("too many bytes for a worker".to_owned()))?;
        let mut question = Vec::with_capacity(QUESTION + bytes.len());
        question.push(kind);
        question.extend_from_slice(&length.to_le_bytes());
        question.extend_from_slice(bytes);
        self.tell(&question, deadline)?;
        let mut length = [0; ANSWER];
        self.hear(&mut length, deadline)?;
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if length > MAX_ANSWER {
            return Err(Some(format!("the worker wants to write more than {MAX_ANSWER} bytes")));
        }
        let mut answer = vec![0; length];
        self.hear(&mut answer, deadline)?;
        Ok(answer)
    }

    fn tell(&self, mut rest: &[u8], deadline: Instant) -> Result<(), Option<String>> {
        while !rest.is_empty() {
            match send(self.socket.as_raw_fd(), rest, MsgFlags::MSG_NOSIGNAL) {
                Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
                Err(nix::Error::EAGAIN) => self.poll(PollFlags::POLLOUT, deadline)?,
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::EPIPE | nix::Error::ECONNRESET) => return Err(None),
                Err(e) => return Err(Some(format!("asking the worker: {e}"))),
            }
        }
        Ok(())
    }

    fn hear(&self, mut room: &mut [u8], deadline: Instant) -> Result<(), Option<String>> {
        while !room.is_empty() {
            match nix::unistd::read(&self.socket, room) {
                Ok(0) | Err(nix::Error::ECONNRESET) => return Err(None),
                Ok(read) => room = room.get_mut(read..).unwrap_or_default(),
                Err(nix::Error::EAGAIN) => self.poll(PollFlags::POLLIN, deadline)?,
                Err(nix::Error::EINTR) => {}
                Err(e) => return Err(Some(format!("reading the worker's answer: {e}"))),
            }
        }
        Ok(())
    }

    fn poll(&self, what: PollFlags, deadline: Instant) -> Result<(), Option<String>> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Some(LATE.into()));
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match nix::poll::poll(&mut [PollFd::new(self.socket.as_fd(), what)], timeout) {
            Ok(_) | Err(nix::Error::EINTR) => Ok(()),
            Err(e) => Err(Some(format!("waiting for the worker: {e}"))),
        }
    }

    /// How a worker that left ended. One that merely closed its socket is killed.
    fn end(mut self) -> String {
        if let Err(e) = kill(self.child, Signal::SIGKILL) {
            return format!("a worker that left does not die: {e}");
        }
        let status = self.wait();
        self.reaped = status.is_ok();
        match status {
            Ok(WaitStatus::Signaled(_, signal, _)) => format!("the worker was killed by {signal}"),
            Ok(other) => format!("the worker failed: {other:?}"),
            Err(e) => format!("waiting for the worker: {e}"),
        }
    }

    fn wait(&self) -> nix::Result<WaitStatus> {
        loop {
            match waitpid(self.child, None) {
                Err(nix::Error::EINTR) => {}
                other => return other,
            }
        }
    }
}

/// The worker's life: question, answer, until its parent has no more. The socket is never closed here: dropping it may call
/// fcntl, which the filter kills on.
fn answers(socket: &OwnedFd, parser: Parser) -> bool {
    let mut head = [0; QUESTION];
    while filled(socket, &mut head) {
        let [kind, length @ ..] = head;
        let mut bytes = vec![0; usize::try_from(u32::from_le_bytes(length)).unwrap_or_default()];
        if !filled(socket, &mut bytes) {
            return false;
        }
        let answer = parser(kind, &bytes);
        let Ok(length) = u32::try_from(answer.len()) else { return false };
        if !written(socket, &length.to_le_bytes()) || !written(socket, &answer) {
            return false;
        }
    }
    true
}

fn filled(socket: &OwnedFd, mut room: &mut [u8]) -> bool {
    while !room.is_empty() {
        match nix::unistd::read(socket, room) {
            Ok(0) | Err(_) => return false,
            Ok(read) => room = room.get_mut(read..).unwrap_or_default(),
        }
    }
    true
}

fn written(socket: &OwnedFd, mut rest: &[u8]) -> bool {
    while !rest.is_empty() {
        match nix::unistd::write(socket, rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(_) => return false,
        }
    }
    true
}

/// Locks the child in. The order matters: what needs a right comes before the right goes.
fn jailed(filter: &BpfProgram, socket: &OwnedFd) -> Result<(), nix::Error> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    close_others(socket)?;
    locked(filter, 1, 0, &caps::CapsHashSet::new())
}

/// Bounds, nobody's ids, no capability but those to keep, the filter.
fn locked(filter: &BpfProgram, cpu: u64, files: u64, keep: &caps::CapsHashSet) -> Result<(), nix::Error> {
    let failed = |_| nix::Error::EPERM;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    setrlimit(Resource::RLIMIT_CPU, cpu, cpu)?;
    setrlimit(Resource::RLIMIT_FSIZE, 0, 0)?;
    setrlimit(Resource::RLIMIT_AS, MEMORY, MEMORY)?;
    // Only root can become somebody else; an operator who is not root is no more than the worker may be.
    if nix::unistd::geteuid().is_root() {
        nix::sys::prctl::set_keepcaps(!keep.is_empty())?;
        nix::unistd::setgroups(&[])?;
        nix::unistd::setresgid(Gid::from_raw(NOBODY), Gid::from_raw(NOBODY), Gid::from_raw(NOBODY))?;
        nix::unistd::setresuid(Uid::from_raw(NOBODY), Uid::from_raw(NOBODY), Uid::from_raw(NOBODY))?;
    }
    setrlimit(Resource::RLIMIT_NPROC, 0, 0)?;
    setrlimit(Resource::RLIMIT_NOFILE, files, files)?;
    caps::clear(None, caps::CapSet::Inheritable).map_err(failed)?;
    caps::set(None, caps::CapSet::Effective, keep).map_err(failed)?;
    caps::set(None, caps::CapSet::Permitted, keep).map_err(failed)?;
    nix::sys::prctl::set_dumpable(false)?;
    nix::sys::prctl::set_no_new_privs()?;
    seccompiler::apply_filter(filter).map_err(|_| nix::Error::EPERM)
}

fn close_others(keep: &OwnedFd) -> Result<(), nix::Error> {
    let keep = u32::try_from(keep.as_raw_fd()).map_err(|_| nix::Error::EBADF)?;
    if keep > 0 {
        sys::close_range(0, keep - 1)?;
    }
    sys::close_range(keep + 1, u32::MAX)
}

/// Memory is mapped and unmapped, never made executable; musl's own heap turns its pages readable by mprotect.
fn filter(more: &[libc::c_long]) -> Result<BpfProgram, seccompiler::BackendError> {
    let executable = u64::try_from(libc::PROT_EXEC).unwrap_or(u64::MAX);
    let not_executable = SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(executable), 0)?;
    let maps = [libc::SYS_mmap, libc::SYS_mprotect];
    // Where it may open anything, it is to read: no flag that writes or makes a file.
    let writes = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND;
    let writes = u64::try_from(writes).unwrap_or(u64::MAX);
    let to_read = SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(writes), 0)?;
    let allowed = [
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_brk,
        libc::SYS_madvise,
        libc::SYS_rt_sigreturn,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];
    let mut rules: BTreeMap<_, _> = allowed.iter().chain(more).map(|number| (*number, Vec::new())).collect();
    for number in maps {
        rules.insert(number, vec![SeccompRule::new(vec![not_executable.clone()])?]);
    }
    if let Some(rule) = rules.get_mut(&libc::SYS_openat) {
        rule.push(SeccompRule::new(vec![to_read])?);
    }
    let arch = if cfg!(target_arch = "aarch64") { TargetArch::aarch64 } else { TargetArch::x86_64 };
    SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, arch)?.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jail() -> Jail {
        Jail::new(Instant::now() + Duration::from_secs(5)).unwrap()
    }

    #[test]
    fn an_honest_worker_answers() {
        assert_eq!(jail().parse(|_, b| b.iter().rev().copied().collect(), 0, b"abc"), Ok(b"cba".to_vec()));
    }

    #[test]
    fn a_big_answer_arrives_whole() {
        let big = vec![7_u8; 3 << 20];
        assert!(jail().parse(|_, b| b.to_vec(), 0, &big).unwrap() == big);
    }

    #[test]
    fn a_worker_that_opens_a_file_is_killed() {
        let opened = jail().parse(|_, _| std::fs::read("/etc/passwd").unwrap_or_default(), 0, b"");
        assert!(opened.unwrap_err().contains("SIGSYS"));
    }

    #[test]
    fn a_worker_that_opens_a_socket_is_killed() {
        let opened = jail().parse(|_, _| vec![u8::from(std::net::TcpListener::bind("127.0.0.1:0").is_ok())], 0, b"");
        assert!(opened.unwrap_err().contains("SIGSYS"));
    }

    #[test]
    fn a_worker_that_panics_starts_nothing() {
        let answer = jail().parse(|_, _| sys::exit_now(101), 0, b"");
        assert!(answer.is_err());
    }

    #[test]
    fn a_worker_that_loops_is_killed() {
        let started = Instant::now();
        let answer = jail().parse(
            |_, _| loop {
                std::hint::spin_loop();
            },
            0,
            b"",
        );
        assert!(answer.is_err());
        assert!(started.elapsed() < Duration::from_secs(4));
    }

    #[test]
    fn a_worker_that_takes_too_much_memory_dies() {
        let answer = jail().parse(|_, _| vec![1_u8; 1 << 30], 0, b"");
        assert!(answer.is_err());
    }

    /// Counts what one worker was asked.
    fn count(kind: u8, _: &[u8]) -> Vec<u8> {
        use std::sync::atomic::{AtomicU8, Ordering};
        static ASKED: AtomicU8 = AtomicU8::new(0);
        vec![kind, ASKED.fetch_add(1, Ordering::Relaxed)]
    }

    #[test]
    fn one_worker_answers_in_turn_until_another_is_wanted() {
        let jail = jail();
        assert_eq!([jail.parse(count, 7, b"a"), jail.parse(count, 8, b"")], [Ok(vec![7, 0]), Ok(vec![8, 1])]);
        jail.afresh();
        assert_eq!(jail.parse(count, 9, b"b"), Ok(vec![9, 0]));
        // Another parser is another worker.
        assert_eq!(jail.parse(|_, b| b.to_vec(), 0, b"c"), Ok(b"c".to_vec()));
        assert_eq!(jail.parse(count, 1, b""), Ok(vec![1, 0]));
    }

    #[test]
    fn after_one_that_died_comes_another() {
        let jail = jail();
        let parser: Parser = |kind, _| if kind == 0 { sys::exit_now(3) } else { vec![kind] };
        assert_eq!(jail.parse(parser, 1, b""), Ok(vec![1]));
        assert!(jail.parse(parser, 0, b"").unwrap_err().contains("Exited"));
        assert_eq!(jail.parse(parser, 2, b""), Ok(vec![2]));
    }

    #[test]
    fn no_worker_stays() {
        let children = || std::fs::read_to_string("/proc/thread-self/children").unwrap();
        let jail = jail();
        assert_eq!(jail.parse(|kind, _| vec![kind], 5, b""), Ok(vec![5]));
        assert_ne!(children(), "");
        drop(jail);
        assert_eq!(children(), "");
    }
}
