//! What one process can do to another of the same user.
use super::{Given, Seen, address, any};
use crate::sys::{self, call};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{ForkResult, Pid};
use std::sync::atomic::Ordering;

/// What the other process has in [`sys::WORD`], and this one has not.
const SECRET: u32 = 0x0dd5_ea1e;

/// A child that waits with the secret in its memory, for the length of `work`.
fn with_neighbour(work: impl FnOnce(Pid) -> Result<(), Errno>) -> Result<(), Errno> {
    let (reader, writer) = nix::unistd::pipe()?;
    match sys::fork()? {
        ForkResult::Child => {
            drop(reader);
            sys::WORD.store(SECRET, Ordering::SeqCst);
            drop(writer);
            std::thread::sleep(std::time::Duration::from_secs(20));
            sys::exit_now(0)
        }
        ForkResult::Parent { child } => {
            drop(writer);
            // The end of the pipe: the secret is there.
            let ready = nix::unistd::read(&reader, &mut [0]).map(drop);
            let outcome = ready.and_then(|()| work(child));
            kill(child, Signal::SIGKILL)?;
            waitpid(child, Some(WaitPidFlag::__WALL))?;
            outcome
        }
    }
}

fn number(pid: Pid) -> u64 {
    u64::try_from(pid.as_raw()).unwrap_or_default()
}

fn is_secret(word: u64) -> Result<(), Errno> {
    if word & 0xffff_ffff == u64::from(SECRET) { Ok(()) } else { Err(Errno::EIO) }
}

/// CVE-2019-13272, and a program that follows another's every step.
pub(super) fn ptrace(_: &Given) -> Seen {
    const PEEK: u64 = 2;
    const ATTACH: u64 = 16;
    let read = with_neighbour(|pid| {
        call(libc::SYS_ptrace, &[ATTACH, number(pid), 0, 0, 0, 0])?;
        waitpid(pid, Some(WaitPidFlag::__WALL))?;
        let mut word = 0_u64;
        let (from, to) = (u64::try_from(sys::WORD.as_ptr().addr()).unwrap_or_default(), super::address_mut(&mut word));
        call(libc::SYS_ptrace, &[PEEK, number(pid), from, to, 0, 0])?;
        is_secret(word)
    });
    any([("attached and read".into(), read)])
}

pub(super) fn memory(_: &Given) -> Seen {
    let read = with_neighbour(|pid| {
        let mut word = 0_u64;
        let local = [super::address_mut(&mut word), 4];
        let remote = [u64::try_from(sys::WORD.as_ptr().addr()).unwrap_or_default(), 4];
        call(libc::SYS_process_vm_readv, &[number(pid), address(&local), 1, address(&remote), 1, 0])?;
        is_secret(word)
    });
    any([("process_vm_readv".into(), read)])
}

pub(super) fn descriptor(_: &Given) -> Seen {
    let taken = with_neighbour(|pid| {
        let pidfd = call(libc::SYS_pidfd_open, &[number(pid), 0, 0, 0, 0, 0])?;
        call(libc::SYS_pidfd_getfd, &[pidfd, 1, 0, 0, 0, 0]).map(drop)
    });
    any([("pidfd_getfd".into(), taken)])
}
