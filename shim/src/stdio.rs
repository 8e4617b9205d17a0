//! A process's stdin, stdout and stderr: pipes (or a console) towards the process, fifos or files towards containerd.
//!
//! The shim reads for ever what the process writes. A fifo whose reader is slow holds that one stream back and no other;
//! a fifo is held at both ends, so a reader that goes away breaks nothing; a file that takes no more (disk full) loses
//! bytes, which are counted and recorded, and the process goes on.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use boltseal_message::Stdio;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

use crate::armour::LOGS;
use crate::copy::{Log, Sink, copy};
use crate::sys;

/// Where containerd wants the streams, as it named it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Uris {
    pub(crate) terminal: bool,
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Called with the number of lost bytes.
pub(crate) type OnLoss = Arc<dyn Fn(u64) + Send + Sync>;

/// Opened towards containerd; with pipes towards a process that does not exist yet.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) wire: Stdio,
    /// The process's ends, for the gate. Dropped here once it has them.
    pub(crate) theirs: Vec<OwnedFd>,
    input: Option<Input>,
    /// (where from: none is the console, where to)
    outputs: Vec<(Option<OwnedFd>, Sink)>,
}

#[derive(Debug)]
struct Input {
    fifo: OwnedFd,
    /// A writer of our own: the process sees the end only after CloseIO.
    hold: OwnedFd,
    /// The process's pipe; none is the console.
    pipe: Option<OwnedFd>,
}

/// What a URI names.
enum Target<'a> {
    Nothing,
    Path(&'a str),
    /// `binary://` and whatever else: not opened, the gate refuses it by its name.
    Foreign,
}

fn target(uri: &str) -> Target<'_> {
    match uri.split_once("://") {
        None if uri.is_empty() => Target::Nothing,
        None | Some(("fifo", "")) => Target::Path(uri),
        Some(("fifo" | "file", path)) => Target::Path(path),
        Some(_) => Target::Foreign,
    }
}

/// Opens what can be opened without waiting for anybody.
pub(crate) fn prepare(uris: &Uris) -> io::Result<Prepared> {
    let wire = Stdio {
        terminal: uris.terminal,
        stdin: uris.stdin.clone(),
        stdout: uris.stdout.clone(),
        stderr: uris.stderr.clone(),
        fds: [false; 3],
    };
    let mut prepared = Prepared { wire, theirs: Vec::new(), input: None, outputs: Vec::new() };
    let all = [&uris.stdin, &uris.stdout, &uris.stderr];
    if all.iter().any(|uri| matches!(target(uri), Target::Foreign)) {
        return Ok(prepared);
    }
    if let Target::Path(path) = target(&uris.stdin) {
        let fifo = open_fifo(path, OFlag::O_RDONLY)?;
        let hold = open_fifo(path, OFlag::O_WRONLY)?;
        let pipe = if uris.terminal { None } else { Some(prepared.pipe(0)?) };
        prepared.input = Some(Input { fifo, hold, pipe });
    }
    for (number, uri) in [(1, &uris.stdout), (2, &uris.stderr)] {
        let Target::Path(path) = target(uri) else { continue };
        if uris.terminal && number == 2 {
            continue;
        }
        let sink = Sink::open(path)?;
        let pipe = if uris.terminal { None } else { Some(prepared.pipe(number)?) };
        prepared.outputs.push((pipe, sink));
    }
    Ok(prepared)
}

impl Prepared {
    /// A pipe for the process's fd `number`: keeps its end for the gate, returns ours.
    fn pipe(&mut self, number: usize) -> io::Result<OwnedFd> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        let (theirs, ours) = if number == 0 { (read, write) } else { (write, read) };
        unblock(&ours)?;
        self.theirs.push(theirs);
        if let Some(flag) = self.wire.fds.get_mut(number) {
            *flag = true;
        }
        Ok(ours)
    }

    /// Starts to copy, with the console that the gate sent back when a terminal was asked for.
    pub(crate) fn start(self, console: Option<OwnedFd>, on_loss: &OnLoss) -> io::Result<Streams> {
        let console = match console {
            Some(fd) => {
                unblock(&fd)?;
                Some(Arc::new(sys::asynchronous(fd, Interest::READABLE | Interest::WRITABLE)?))
            }
            None => None,
        };
        let no_console = || io::Error::other("a terminal without its console");
        let mut streams = Streams::default();
        streams.console.clone_from(&console);
        if let Some(input) = self.input {
            let source = sys::asynchronous(input.fifo, Interest::READABLE)?;
            let sink = match input.pipe {
                Some(pipe) => Sink::stream(pipe)?,
                None => Sink::Stream(console.clone().ok_or_else(no_console)?),
            };
            streams.hold = Mutex::new(Some(input.hold));
            let nobody: OnLoss = Arc::new(|_| ());
            streams.input = Some(tokio::spawn(copy(Arc::new(source), sink, nobody)));
        }
        for (pipe, sink) in self.outputs {
            let source = match pipe {
                Some(pipe) => Arc::new(sys::asynchronous(pipe, Interest::READABLE)?),
                None => console.clone().ok_or_else(no_console)?,
            };
            streams.outputs.push(tokio::spawn(copy(source, sink, on_loss.clone())));
        }
        if self.wire.terminal && streams.outputs.is_empty() {
            // Nobody asked for the output, but somebody must read it.
            let source = console.ok_or_else(no_console)?;
            let null = Sink::File(Log::new(File::options().write(true).open("/dev/null")?));
            streams.outputs.push(tokio::spawn(copy(source, null, on_loss.clone())));
        }
        Ok(streams)
    }
}

/// The streams of a process that exists.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    console: Option<Arc<AsyncFd<OwnedFd>>>,
    hold: Mutex<Option<OwnedFd>>,
    input: Option<JoinHandle<()>>,
    outputs: Vec<JoinHandle<()>>,
}

impl Streams {
    /// CloseIO: the process sees the end of stdin once containerd's side has closed it too.
    pub(crate) fn close_stdin(&self) {
        drop(self.hold.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    pub(crate) fn resize(&self, width: u32, height: u32) -> io::Result<()> {
        let console = self.console.as_ref().ok_or(Errno::ENOTTY)?;
        let size = |value| u16::try_from(value).map_err(|_| io::Error::from(Errno::EINVAL));
        sys::resize(console.get_ref().as_fd(), size(width)?, size(height)?)
    }

    /// The process has ended: what stdin still holds is for nobody.
    pub(crate) fn end_input(&self) {
        self.close_stdin();
        if let Some(input) = &self.input {
            input.abort();
        }
    }

    /// Waits until all output is delivered, at most so long, then lets go.
    pub(crate) async fn drain(mut self, at_most: Duration) {
        let deadline = tokio::time::Instant::now() + at_most;
        for output in &mut self.outputs {
            if tokio::time::timeout_at(deadline, &mut *output).await.is_err() {
                // What it held is told as lost before anybody goes on.
                output.abort();
                let _cancelled = output.await.is_err();
            }
        }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.input.iter().chain(&self.outputs).for_each(JoinHandle::abort);
    }
}

/// The kernel's answer with what it was about. Landlock's no (`armour.rs`) looks like any other.
pub(crate) fn named(path: &str, e: io::Error) -> io::Error {
    let fix = match e.kind() {
        io::ErrorKind::PermissionDenied => format!(
            ". Fix: name a fifo in containerd's own folders, or a file below {}: the shim writes nowhere else",
            LOGS.join(", ")
        ),
        _ => String::new(),
    };
    io::Error::new(e.kind(), format!("{path}: {e}{fix}"))
}

pub(crate) fn open_fifo(path: &str, access: OFlag) -> io::Result<OwnedFd> {
    let named = |e| named(path, e);
    let mut options = File::options();
    options.read(access != OFlag::O_WRONLY).write(access != OFlag::O_RDONLY).custom_flags(OFlag::O_NONBLOCK.bits());
    let file = options.open(path).map_err(named)?;
    if !file.metadata().map_err(named)?.file_type().is_fifo() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{path}: not a fifo")));
    }
    Ok(file.into())
}

pub(crate) fn unblock(fd: impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd.as_fd(), FcntlArg::F_GETFL)?);
    fcntl(fd.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Reads a small text (a file of procfs or cgroupfs).
pub(crate) fn read_small(path: impl AsRef<Path>) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(1 << 20).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uris(stdin: &str, stdout: &str, stderr: &str) -> Uris {
        Uris { terminal: false, stdin: stdin.into(), stdout: stdout.into(), stderr: stderr.into() }
    }

    #[test]
    fn a_foreign_scheme_opens_nothing_and_travels_on() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let prepared = prepare(&uris("", &format!("file://{}", log.display()), "binary:///bin/logger?x=y")).unwrap();
        assert_eq!(prepared.wire.stderr, "binary:///bin/logger?x=y");
        assert_eq!((prepared.wire.fds, prepared.theirs.len()), ([false; 3], 0));
        assert!(!log.exists());
    }

    #[test]
    fn a_stdin_that_is_no_fifo_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert!(prepare(&uris(file.to_str().unwrap(), "", "")).is_err());
        assert!(prepare(&uris("/nowhere/at/all", "", "")).is_err());
    }
}
