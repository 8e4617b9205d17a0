//! The gate's client: one run of `boltseal-runtime gate` per operation, one frame each way over its fd 3. A run that
//! crashes or takes too long is killed with its process group, and whatever it had begun counts as not done.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

use boltseal_message::{Code, FrameHeader, HEADER_LEN, Operation, Refusal, Reply, Request};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{Pid, pipe2};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::serve::Log;
use crate::starter::{BINARY, NotStarted, Started, Starter};
use crate::sys;

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
    pub(crate) starter: Starter,
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
    /// No gate can be started any more; nothing was begun.
    NoStarter,
}

impl Failure {
    /// Whether something may be left of what the run had begun.
    pub(crate) fn leaves_remains(&self) -> bool {
        !matches!(self, Self::Refused(_) | Self::NoStarter)
    }

    pub(crate) fn into_refusal(self) -> Refusal {
        let message = self.to_string();
        match self {
            Self::Refused(refusal) => refusal,
            Self::TimedOut(_) => Refusal { code: Code::Unavailable, message },
            Self::Broken(_) => Refusal { code: Code::Internal, message },
            Self::NoStarter => Refusal { code: Code::FailedPrecondition, message },
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
            Self::NoStarter => f.write_str(
                "boltseal: the starter of this pod's gates has ended (killed?): what runs goes on, and nothing new starts \
                 in this pod. Fix: delete the pod; its successor has a new one",
            ),
            Self::Broken(why) => write!(
                f,
                "boltseal: the gate ({BINARY}) failed without an answer: {why}. Fix: `boltseal doctor` on the node"
            ),
        }
    }
}

impl Gate {
    pub(crate) fn new(namespace: &str, address: &str, starter: Starter) -> Self {
        Self { namespace: namespace.into(), address: address.into(), starter, log: Log::default() }
    }

    /// Warnings of gates that give an answer all the same go there.
    pub(crate) fn with_log(self, log: Log) -> Self {
        Self { log, ..self }
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
        let fds: Vec<RawFd> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
        let run = async { Run::spawn(&self.starter).await?.converse(&frame, &fds).await.map_err(Failure::Broken) };
        // Whatever ends this future early (a time-out, a cancelled Create) drops the run, which kills its group.
        let ((reply, fds), warnings) = match tokio::time::timeout(deadline, run).await {
            Ok(done) => done?,
            Err(_) => return Err(Failure::TimedOut(deadline)),
        };
        warnings.lines().for_each(|line| self.log.line(&format!("{id}: the gate: {line}")));
        match reply {
            Reply::Refused(refusal) => Err(Failure::Refused(refusal)),
            reply => expected.check(reply, fds),
        }
    }
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
    gate: Started,
    socket: AsyncFd<OwnedFd>,
    stderr: File,
    ended: bool,
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.ended {
            // While we hold `gate` nobody has reaped it, so the group is still its own. ESRCH: it ended by itself.
            let _group_gone = killpg(Pid::from_raw(self.gate.pid.cast_signed()), Signal::SIGKILL).is_err();
        }
    }
}

impl Run {
    async fn spawn(starter: &Starter) -> Result<Self, Failure> {
        let started = async {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let pair = socketpair(AddressFamily::Unix, SockType::Stream, None, flags).map_err(io::Error::from);
            let (ours, theirs) = pair.map_err(NotStarted::Failed)?;
            let failed = |e: Errno| NotStarted::Failed(e.into());
            // The gate reads and writes plainly.
            fcntl(&theirs, FcntlArg::F_SETFL(OFlag::empty())).map_err(failed)?;
            let (stderr, their_stderr) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
            fcntl(&stderr, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(failed)?;
            let gate = starter.gate(theirs.as_fd(), their_stderr.as_fd()).await?;
            let socket = sys::asynchronous(ours, Interest::READABLE | Interest::WRITABLE)?;
            Ok(Self { gate, socket, stderr: stderr.into(), ended: false })
        };
        started.await.map_err(|e| match e {
            NotStarted::NoStarter => Failure::NoStarter,
            NotStarted::Failed(e) => Failure::Broken(format!("{BINARY}: {e}")),
        })
    }

    /// Sends the frame, takes the reply, and waits until the gate has ended: only then is its child ours.
    /// Answers with what it wrote to stderr beside.
    async fn converse(mut self, frame: &[u8], fds: &[RawFd]) -> Result<((Reply, Vec<OwnedFd>), String), String> {
        let answer = match self.send(frame, fds).await {
            // A gate that refuses early may not read it all; its answer is what counts.
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe && e.kind() != io::ErrorKind::ConnectionReset => Err(e),
            _ => self.receive().await,
        };
        let status = self.gate.status().await;
        self.ended = status.is_ok();
        match (answer, status) {
            (Ok(answer), Ok(status)) if status < 128 => Ok((answer, self.words())),
            (answer, status) => {
                let how = match status {
                    Ok(status) if status > 128 => format!("signal {}", status - 128),
                    Ok(status) => format!("exit status {status}"),
                    Err(_) => "its starter ended".into(),
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
