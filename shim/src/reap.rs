//! Ended children. Each process that we know is waited for through its own pidfd, so no recycled pid can be mistaken for
//! it; what the kernel hands us besides (orphans of a container without a pid namespace of its own) is only reaped.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use crate::sys::{self, Child};

#[derive(Debug, Default)]
pub(crate) struct Reaper {
    /// Children that somebody waits for.
    known: Mutex<HashSet<u32>>,
    /// Gate runs that may leave us a child whose pid we have not been told yet.
    runs: AtomicUsize,
    again: Notify,
}

/// While this lives, an unknown ended child may be one that the gate is about to name: none is reaped.
#[derive(Debug)]
pub(crate) struct Pause(Arc<Reaper>);

impl Drop for Pause {
    fn drop(&mut self) {
        self.0.runs.fetch_sub(1, Ordering::Relaxed);
        self.0.again.notify_one();
    }
}

impl Reaper {
    pub(crate) fn pause(self: &Arc<Self>) -> Pause {
        self.runs.fetch_add(1, Ordering::Relaxed);
        Pause(self.clone())
    }

    pub(crate) fn know(&self, pid: u32) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(pid);
    }

    pub(crate) fn knows(&self, pid: u32) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(&pid)
    }

    fn forget(&self, pid: u32) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid);
        self.again.notify_one();
    }

    /// Waits until a known child has ended and reaps it: its status as a shell tells it. `None`: it never became ours.
    pub(crate) async fn wait(&self, pid: u32, pidfd: &AsyncFd<OwnedFd>) -> io::Result<Option<u32>> {
        pidfd.readable().await?.retain_ready();
        // The gate, its parent, may need a moment more to end before the child is ours.
        let mut left = 1000;
        let status = loop {
            match sys::wait(Child::PidFd(pidfd.get_ref().as_fd())) {
                Ok(Some((_, status))) => break Some(status),
                Ok(None) => {}
                Err(e) if e.raw_os_error() == Some(libc::ECHILD) => {}
                Err(e) => return Err(e),
            }
            left -= 1;
            if left == 0 {
                break None;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        self.forget(pid);
        Ok(status)
    }

    fn reap_orphans(&self) {
        if self.runs.load(Ordering::Relaxed) > 0 {
            return;
        }
        // A known one ends the round: it stays the first found until its own task has reaped it, which wakes us again.
        while let Ok(Some((pid, _))) = sys::wait(Child::PeekAny) {
            if self.knows(pid) || sys::wait(Child::Pid(pid)).is_err() {
                return;
            }
        }
    }
}

/// Reaps orphans for ever; returns when somebody asks the process to end.
pub(crate) async fn run(reaper: Arc<Reaper>, signals: AsyncFd<SignalFd>) -> io::Result<()> {
    loop {
        tokio::select! {
            () = reaper.again.notified() => {}
            ready = signals.readable() => {
                let mut ready = ready?;
                while let Some(signal) = signals.get_ref().read_signal()? {
                    if signal.ssi_signo != Signal::SIGCHLD as u32 {
                        return Ok(());
                    }
                }
                ready.clear_ready();
            }
        }
        reaper.reap_orphans();
    }
}

/// Blocks the signals that [`run`] reads. Children get an empty mask again (`spawn`).
pub(crate) fn signals() -> io::Result<AsyncFd<SignalFd>> {
    let mask: SigSet = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    mask.thread_block()?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    sys::asynchronous(signals, Interest::READABLE)
}

/// A pidfd that can be waited for.
pub(crate) fn watch(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    sys::asynchronous(pidfd, Interest::READABLE)
}
