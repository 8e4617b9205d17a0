//! Work in a forked child with a time limit: what a call spoils or waits for is the child's own.
use crate::sys;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, pipe};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;

/// How long a child may be silent, milliseconds: a busy machine shall not be taken for a call that waits.
const LIMIT: u16 = 20_000;

#[derive(Debug)]
pub(crate) enum Ended {
    /// What it said.
    Said(Vec<u8>),
    Killed(Signal),
    /// Not within the limit, and ended from here.
    Stuck,
}

/// Runs `work` in a child and answers with what it returned.
pub(crate) fn run(work: impl FnOnce() -> Vec<u8>) -> nix::Result<Ended> {
    run_within(LIMIT, work)
}

fn run_within(limit: u16, work: impl FnOnce() -> Vec<u8>) -> nix::Result<Ended> {
    let (reader, writer) = pipe()?;
    match sys::fork()? {
        ForkResult::Child => {
            drop(reader);
            let said = File::from(writer).write_all(&work());
            sys::exit_now(i32::from(said.is_err()))
        }
        ForkResult::Parent { child } => {
            drop(writer);
            listen(child, File::from(reader), limit)
        }
    }
}

fn listen(child: Pid, mut pipe: File, limit: u16) -> nix::Result<Ended> {
    let mut said = Vec::new();
    let mut stuck = false;
    loop {
        let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(limit))? == 0 {
            stuck = true;
            kill(child, Signal::SIGKILL)?;
            break;
        }
        let mut piece = [0; 4096];
        match pipe.read(&mut piece) {
            Ok(0) | Err(_) => break,
            Ok(count) => said.extend(piece.iter().take(count)),
        }
    }
    let status = waitpid(child, None)?;
    Ok(match status {
        _ if stuck => Ended::Stuck,
        WaitStatus::Signaled(_, signal, _) => Ended::Killed(signal),
        _ => Ended::Said(said),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_says_dies_or_is_ended() {
        assert!(matches!(run(|| b"x".to_vec()), Ok(Ended::Said(said)) if said == b"x"));
        assert!(matches!(run(Vec::new), Ok(Ended::Said(said)) if said.is_empty()));
        let aborts = run(|| std::process::abort());
        assert!(matches!(aborts, Ok(Ended::Killed(Signal::SIGABRT))), "{aborts:?}");
        let waits = run_within(50, || {
            loop {
                std::thread::park();
            }
        });
        assert!(matches!(waits, Ok(Ended::Stuck)), "{waits:?}");
    }
}
