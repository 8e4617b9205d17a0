//! The gate's client: one run of `boltseal-runtime gate` per operation, one frame each way over its fd 3. A run that
//! crashes or takes too long is killed with its process group, and whatever it had begun counts as not done.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use boltseal_message::{Code, FrameHeader, HEADER_LEN, Operation, Refusal, Reply, Request};
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, killpg};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::reap::{self, Reaper};
use crate::serve::Log;
use crate::spawn::{Child, spawn};
use crate::stdio::read_small;
use crate::sys;

const BINARY: &str = "boltseal-runtime";
/// How long a run may take when the request names no time.
pub(crate) const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);
/// Most bytes of a gate's stderr that are told.
const MAX_STDERR: u64 = 4096;
/// Most characters of a line of it in an error.
const MAX_LAST_WORDS: usize = 512;

#[derive(Debug)]
pub(crate) struct Gate {
    namespace: String,
    /// containerd's gRPC socket.
    address: String,
    /// Beside our own binary. Each run takes what is there now: after an upgrade that is a gate which reads the
    /// policy of its time and serves our frames and state (the two versions before its own).
    path: PathBuf,
    /// The gate as it was when we started, for a node whose package is being replaced at this moment.
    fallback: File,
    /// Our own `oom_score_adj` is one above containerd's; the gate, and what it starts, gets containerd's.
    raised_oom_score: bool,
    reaper: Arc<Reaper>,
    log: Log,
}

/// A gate's answer that is not a refusal, and the fds beside it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) reply: Reply,
    pub(crate) fds: Vec<OwnedFd>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The gate decided; nothing is left.
    Refused(Refusal),
    /// The gate was killed after this time; something may be left.
    TimedOut(Duration),
    /// The gate ended without an answer, or with one that makes no sense; something may be left.
    Broken(String),
}

impl Failure {
    /// Whether something may be left of what the run had begun.
    pub(crate) fn leaves_remains(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }

    pub(crate) fn into_refusal(self) -> Refusal {
        let message = self.to_string();
        match self {
            Self::Refused(refusal) => refusal,
            Self::TimedOut(_) => Refusal { code: Code::Unavailable, message },
            Self::Broken(_) => Refusal { code: Code::Internal, message },
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => f.write_str(&refusal.message),
            Self::TimedOut(after) => write!(
                f,
                "boltseal: the gate ({BINARY}) gave no answer within {:.1} s and was killed. Fix: see the node's load and \
                 containerd's health, then try again",
                after.as_secs_f32()
            ),
            Self::Broken(why) => write!(
                f,
                "boltseal: the gate ({BINARY}) failed without an answer: {why}. Fix: `boltseal doctor` on the node"
            ),
        }
    }
}

impl Gate {
    /// Finds the gate beside our own binary.
    pub(crate) fn new(namespace: &str, address: &str, reaper: Arc<Reaper>) -> anyhow::Result<Self> {
        let path = path()?;
        let fallback = File::options()
            .read(true)
            .custom_flags(libc::O_PATH)
            .open(&path)
            .with_context(|| format!("the gate {}", path.display()))?;
        Ok(Self {
            namespace: namespace.into(),
            address: address.into(),
            path,
            fallback,
            raised_oom_score: false,
            reaper,
            log: Log::default(),
        })
    }

    /// Warnings of gates that give an answer all the same go there.
    pub(crate) fn with_log(self, log: Log) -> Self {
        Self { log, ..self }
    }

    /// For the server, whose own score `start` raises by one: its gates get the former.
    pub(crate) fn with_former_oom_score(self) -> Self {
        Self { raised_oom_score: true, ..self }
    }

    /// Read at each run: the server may be up before `start` has raised its score.
    fn former_oom_score(&self) -> Option<i32> {
        let own: i32 = read_small("/proc/self/oom_score_adj").ok()?.trim().parse().ok()?;
        // At the maximum nothing was raised.
        (self.raised_oom_score && own < 1000).then_some(own - 1)
    }

    /// One run. `fds` travel beside the frame, in the order that `operation` names.
    pub(crate) async fn run(
        &self,
        (id, bundle): (&str, &Path),
        operation: Operation,
        fds: &[OwnedFd],
        deadline: Duration,
    ) -> Result<Answer, Failure> {
        let request = Request {
            namespace: self.namespace.clone(),
            address: self.address.clone(),
            id: id.into(),
            bundle: bundle.to_string_lossy().into_owned(),
            deadline_ms: u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX),
            operation,
        };
        let expected = Expectation::of(&request.operation);
        let frame = request.encode();
        drop(request);
        let run = Run::spawn(self).map_err(|e| Failure::Broken(format!("{}: {e}", self.path.display())))?;
        let fds: Vec<RawFd> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
        // Whatever ends this future early (a time-out, a cancelled Create) drops `run`, which kills the group.
        let (reply, fds) = match tokio::time::timeout(deadline, run.converse(&frame, &fds)).await {
            Ok(Ok((answer, warnings))) => {
                warnings.lines().for_each(|line| self.log.line(&format!("{id}: the gate: {line}")));
                answer
            }
            Ok(Err(why)) => return Err(Failure::Broken(why)),
            Err(_) => return Err(Failure::TimedOut(deadline)),
        };
        match reply {
            Reply::Refused(refusal) => Err(Failure::Refused(refusal)),
            reply => expected.check(reply, fds),
        }
    }
}

/// Where the gate is: beside our own binary.
pub(crate) fn path() -> anyhow::Result<PathBuf> {
    Ok(std::env::current_exe().context("own binary")?.with_file_name(BINARY))
}

/// Which reply fits which request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expectation {
    Created { terminal: bool },
    Execed { terminal: bool },
    Done,
}

impl Expectation {
    fn of(operation: &Operation) -> Self {
        match operation {
            Operation::Create(create) => Self::Created { terminal: create.stdio.terminal },
            Operation::Exec(exec) => Self::Execed { terminal: exec.stdio.terminal },
            Operation::Update { .. } | Operation::Delete { .. } | Operation::Record { .. } => Self::Done,
        }
    }

    fn check(self, reply: Reply, fds: Vec<OwnedFd>) -> Result<Answer, Failure> {
        let fitting = match (self, &reply) {
            (Self::Created { terminal }, Reply::Created(created)) if created.terminal == terminal => {
                let ring = if created.scan == 0 { 0 } else { 2 };
                Some(3 + usize::from(terminal) + usize::from(!created.traps.is_empty()) + ring)
            }
            (Self::Execed { terminal }, Reply::Execed { traps, .. }) => {
                Some(1 + usize::from(terminal) + usize::from(!traps.is_empty()))
            }
            (Self::Done, Reply::Done) => Some(0),
            _ => None,
        };
        if fitting != Some(fds.len()) {
            return Err(Failure::Broken(format!("a reply that does not fit the request, with {} fds", fds.len())));
        }
        Ok(Answer { reply, fds })
    }
}

/// A gate at work.
struct Run {
    pid: u32,
    pidfd: AsyncFd<OwnedFd>,
    socket: AsyncFd<OwnedFd>,
    stderr: File,
    reaper: Arc<Reaper>,
    ended: bool,
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // It is a child that we have not reaped, so the group is still its own. ESRCH: it ended by itself.
        let _group_gone = killpg(Pid::from_raw(self.pid.cast_signed()), Signal::SIGKILL).is_err();
        let (pid, reaper) = (self.pid, self.reaper.clone());
        if let Ok(pidfd) = self.pidfd.get_ref().try_clone().and_then(reap::watch) {
            tokio::spawn(async move { reaper.wait(pid, &pidfd).await.is_ok() });
        }
    }
}

impl Run {
    fn spawn(gate: &Gate) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags)?;
        // The gate reads and writes plainly.
        std::os::unix::net::UnixStream::from(theirs.try_clone()?).set_nonblocking(false)?;
        let (stderr, their_stderr) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        nix::fcntl::fcntl(&stderr, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let child = Child {
            args: vec![BINARY.as_ref(), "gate".as_ref()],
            environment: Vec::new(),
            stderr: Some(their_stderr.as_fd()),
            passed: theirs.as_fd(),
        };
        let pid = match spawn(&gate.path, &child) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                spawn(Path::new(&format!("/proc/self/fd/{}", gate.fallback.as_raw_fd())), &child)?
            }
            other => other?,
        };
        gate.reaper.know(pid);
        if let Some(score) = gate.former_oom_score() {
            // Where that is not allowed it keeps ours, which is one step more killable.
            let _lowered = std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()).is_ok();
        }
        let pidfd = reap::watch(sys::pidfd_open(pid)?)?;
        let socket = sys::asynchronous(ours, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { pid, pidfd, socket, stderr: stderr.into(), reaper: gate.reaper.clone(), ended: false })
    }

    /// Sends the frame, takes the reply, and waits until the gate has ended: only then is its child ours.
    /// Answers with what it wrote to stderr beside.
    async fn converse(mut self, frame: &[u8], fds: &[RawFd]) -> Result<((Reply, Vec<OwnedFd>), String), String> {
        let answer = match self.send(frame, fds).await {
            // A gate that refuses early may not read it all; its answer is what counts.
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe && e.kind() != io::ErrorKind::ConnectionReset => Err(e),
            _ => self.receive().await,
        };
        let status = self.reaper.wait(self.pid, &self.pidfd).await;
        self.ended = true;
        match (answer, status) {
            (Ok(answer), Ok(Some(status))) if status < 128 => Ok((answer, self.words())),
            (answer, status) => {
                let how = match status {
                    Ok(Some(status)) if status > 128 => format!("signal {}", status - 128),
                    Ok(Some(status)) => format!("exit status {status}"),
                    Ok(None) => "unknown end".into(),
                    Err(e) => e.to_string(),
                };
                let what = answer.err().map_or_else(|| "an answer".into(), |e| e.to_string());
                Err(format!("{how} after {what}{}", self.last_words()))
            }
        }
    }

    async fn send(&self, frame: &[u8], fds: &[RawFd]) -> io::Result<()> {
        let (mut rest, mut fds) = (frame, fds);
        while !rest.is_empty() {
            let mut ready = self.socket.writable().await?;
            if let Ok(sent) = ready.try_io(|socket| sys::send(socket.as_fd(), rest, fds)) {
                rest = rest.get(sent?..).unwrap_or_default();
                fds = &[];
            }
        }
        Ok(())
    }

    async fn receive(&self) -> io::Result<(Reply, Vec<OwnedFd>)> {
        let (mut frame, mut fds) = (vec![0; HEADER_LEN], Vec::new());
        let mut have = 0;
        let mut header_seen = false;
        loop {
            if have == frame.len() {
                if header_seen {
                    break;
                }
                let header = frame.first_chunk().ok_or(io::ErrorKind::InvalidData)?;
                let header = FrameHeader::parse(header).map_err(io::Error::other)?;
                frame.resize(HEADER_LEN + header.body_len, 0);
                header_seen = true;
                continue;
            }
            let mut ready = self.socket.readable().await?;
            let room = frame.get_mut(have..).unwrap_or_default();
            if let Ok(got) = ready.try_io(|socket| sys::receive(socket.as_fd(), room, &mut fds)) {
                match got? {
                    0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "no whole reply")),
                    got => have += got,
                }
            }
        }
        let reply = Reply::decode(&frame).map_err(io::Error::other)?;
        Ok((reply, fds))
    }

    /// What the gate, which has ended, wrote to stderr.
    fn words(&mut self) -> String {
        let mut words = Vec::new();
        // What was read before an error is all that there is.
        let _whole = (&mut self.stderr).take(MAX_STDERR).read_to_end(&mut words).is_ok();
        String::from_utf8_lossy(&words).into_owned()
    }

    /// The first line of it.
    fn last_words(&mut self) -> String {
        match self.words().lines().next() {
            Some(line) if !line.is_empty() => format!(": {}", line.chars().take(MAX_LAST_WORDS).collect::<String>()),
            _ => String::new(),
        }
    }
}
