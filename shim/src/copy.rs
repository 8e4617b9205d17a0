//! Copying of one stream for as long as there is something to copy.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::stdio::{OnLoss, named, open_fifo};
use crate::sys;

/// Bytes moved in one step. One buffer serves all streams: there is one thread.
const STEP: usize = 16 << 10;
/// Lost bytes are told at most this often.
const TELL: Duration = Duration::from_secs(1);

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; STEP]);
}

#[derive(Debug)]
pub(crate) enum Sink {
    /// A fifo, a pipe or a console: takes what it has room for.
    Stream(Arc<AsyncFd<OwnedFd>>),
    File(Log),
}

impl Sink {
    pub(crate) fn open(path: &str) -> io::Result<Self> {
        let named = |e| named(path, e);
        let kind = std::fs::metadata(path).map(|meta| meta.file_type());
        if kind.as_ref().is_ok_and(FileTypeExt::is_fifo) {
            // Read and write: we are its reader too, so a reader that leaves is no broken pipe.
            return Self::stream(open_fifo(path, OFlag::O_RDWR)?);
        }
        if let Some(folder) = Path::new(path).parent() {
            std::fs::create_dir_all(folder).map_err(named)?;
        }
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let mut options = File::options();
        let file =
            options.append(true).create(true).mode(0o640).custom_flags(flags.bits()).open(path).map_err(named)?;
        if !file.metadata().map_err(named)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{path}: neither a fifo nor a file")));
        }
        Ok(Self::File(Log::new(file)))
    }

    pub(crate) fn stream(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self::Stream(Arc::new(sys::asynchronous(fd, Interest::WRITABLE)?)))
    }

    /// Takes what it can now: how much. A file takes all, or loses it.
    fn offer(&mut self, bytes: &[u8], on_loss: &OnLoss) -> io::Result<usize> {
        match self {
            Self::File(log) => {
                log.write(bytes, on_loss);
                Ok(bytes.len())
            }
            Self::Stream(fd) => match nix::unistd::write(fd.get_ref(), bytes) {
                Ok(taken) => Ok(taken),
                Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
                Err(e) => Err(e.into()),
            },
        }
    }

    async fn deliver(&mut self, bytes: &[u8], on_loss: &OnLoss) -> io::Result<()> {
        let Self::Stream(fd) = self else { return Ok(()) };
        let mut rest = Rest { bytes, on_loss };
        while !rest.bytes.is_empty() {
            let mut ready = fd.writable().await?;
            if let Ok(taken) = ready.try_io(|fd| Ok(nix::unistd::write(fd.get_ref(), rest.bytes)?)) {
                rest.bytes = rest.bytes.get(taken?..).unwrap_or_default();
            }
        }
        Ok(())
    }
}

/// What is still to be delivered. Whoever lets go of it, by an error or because nobody waits any longer, has lost it.
struct Rest<'a> {
    bytes: &'a [u8],
    on_loss: &'a OnLoss,
}

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            (self.on_loss)(self.bytes.len() as u64);
        }
    }
}

/// A log file that loses bytes rather than hold the process up.
#[derive(Debug)]
pub(crate) struct Log {
    file: File,
    lost: u64,
    told: Option<Instant>,
}

impl Log {
    pub(crate) fn new(file: File) -> Self {
        Self { file, lost: 0, told: None }
    }

    fn write(&mut self, bytes: &[u8], on_loss: &OnLoss) {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) | Err(_) => {
                    self.lost += rest.len() as u64;
                    break;
                }
                Ok(taken) => rest = rest.get(taken..).unwrap_or_default(),
            }
        }
        if self.lost > 0 && self.told.is_none_or(|at| at.elapsed() > TELL) {
            self.tell(on_loss);
        }
    }

    fn tell(&mut self, on_loss: &OnLoss) {
        if self.lost > 0 {
            on_loss(self.lost);
            (self.lost, self.told) = (0, Some(Instant::now()));
        }
    }
}

/// Copies until the source ends or the sink is gone. What was read and reaches nobody is told as lost.
pub(crate) async fn copy(source: Arc<AsyncFd<OwnedFd>>, mut sink: Sink, on_loss: OnLoss) {
    enum Step {
        Again,
        Left(Vec<u8>),
        End,
    }
    loop {
        let Ok(mut ready) = source.readable().await else { break };
        let step = BUFFER.with_borrow_mut(|buffer| {
            let read = ready.try_io(|fd| Ok(nix::unistd::read(fd.get_ref(), buffer)?));
            match read {
                Err(_not_yet) => Step::Again,
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => Step::Again,
                // EIO is how a console says that its last process has gone.
                Ok(Ok(0) | Err(_)) => Step::End,
                Ok(Ok(count)) => {
                    let bytes = buffer.get(..count).unwrap_or_default();
                    match sink.offer(bytes, &on_loss) {
                        Ok(taken) if taken == bytes.len() => Step::Again,
                        Ok(taken) => Step::Left(bytes.get(taken..).unwrap_or_default().to_vec()),
                        Err(_) => {
                            on_loss(bytes.len() as u64);
                            Step::End
                        }
                    }
                }
            }
        });
        drop(ready);
        match step {
            Step::Again => {}
            Step::Left(bytes) => {
                if sink.deliver(&bytes, &on_loss).await.is_err() {
                    break;
                }
            }
            Step::End => break,
        }
    }
    if let Sink::File(log) = &mut sink {
        log.tell(&on_loss);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdio::unblock;
    use nix::unistd::pipe2;
    use std::sync::atomic::{AtomicU64, Ordering};

    type Pipe = (OwnedFd, OwnedFd);

    fn pipes() -> (Pipe, Pipe) {
        let pipe = || pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap();
        (pipe(), pipe())
    }

    fn counted() -> (Arc<AtomicU64>, OnLoss) {
        let lost = Arc::new(AtomicU64::new(0));
        let counter = lost.clone();
        let on_loss: OnLoss = Arc::new(move |bytes| {
            counter.fetch_add(bytes, Ordering::Relaxed);
        });
        (lost, on_loss)
    }

    /// A reader that does not read, and nobody who waits for it any longer; or one that has gone.
    #[tokio::test]
    async fn what_a_reader_never_takes_is_counted() {
        for gone in [false, true] {
            let ((ours, theirs), (reader, sink)) = pipes();
            let (lost, on_loss) = counted();
            // As much as the pipe towards the reader takes, and so much more.
            let mut written = 0;
            for _ in 0..4 {
                written += nix::unistd::write(&sink, &[7; STEP]).unwrap();
            }
            assert_eq!(nix::unistd::write(&sink, &[7]), Err(Errno::EAGAIN), "{written} of a pipe's bytes");
            assert_eq!(nix::unistd::write(&theirs, &[7; 2398]).unwrap(), 2398);
            let source = Arc::new(sys::asynchronous(ours, Interest::READABLE).unwrap());
            let task = tokio::spawn(copy(source, Sink::stream(sink).unwrap(), on_loss));
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert_eq!(lost.load(Ordering::Relaxed), 0);
            if gone {
                drop(reader);
                task.await.unwrap();
            } else {
                task.abort();
                assert!(task.await.unwrap_err().is_cancelled());
            }
            assert_eq!(lost.load(Ordering::Relaxed), 2398, "gone: {gone}");
        }
    }

    /// And what a slow reader takes in the end is not.
    #[tokio::test]
    async fn what_a_slow_reader_takes_is_not_lost() {
        let ((ours, theirs), (reader, sink)) = pipes();
        let (lost, on_loss) = counted();
        let source = Arc::new(sys::asynchronous(ours, Interest::READABLE).unwrap());
        let task = tokio::spawn(copy(source, Sink::stream(sink).unwrap(), on_loss));
        let (mut written, mut read, mut buffer) = (0, 0, [0; 1000]);
        while written < 300_000 {
            match nix::unistd::write(&theirs, &[7; 2398]) {
                Ok(count) => written += count,
                Err(Errno::EAGAIN) => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    read += nix::unistd::read(&reader, &mut buffer).unwrap_or(0);
                }
                Err(e) => panic!("{e}"),
            }
        }
        drop(theirs);
        loop {
            match nix::unistd::read(&reader, &mut buffer) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(Errno::EAGAIN) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(e) => panic!("{e}"),
            }
        }
        task.await.unwrap();
        assert_eq!((read, lost.load(Ordering::Relaxed)), (written, 0));
    }

    #[tokio::test]
    async fn a_full_disk_loses_bytes_and_counts_them() {
        let (read, mut write) = (pipe2(OFlag::O_CLOEXEC).unwrap(), 0u64);
        let (ours, theirs) = read;
        unblock(&ours).unwrap();
        let (lost, on_loss) = counted();
        let source = Arc::new(sys::asynchronous(ours, Interest::READABLE).unwrap());
        let full = Sink::File(Log::new(File::options().write(true).open("/dev/full").unwrap()));
        let task = tokio::spawn(copy(source, full, on_loss));
        unblock(&theirs).unwrap();
        while write < 1 << 20 {
            match nix::unistd::write(&theirs, &[7; 4096]) {
                Ok(count) => write += count as u64,
                Err(Errno::EAGAIN) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(e) => panic!("{e}"),
            }
        }
        drop(theirs);
        task.await.unwrap();
        assert_eq!(lost.load(Ordering::Relaxed), write);
    }
}
