//! The worker: a fork of the gate, jailed, one per source of bytes. It parses and proposes; it is not believed.
//!
//! Before it looks at a byte it has: no fd but the pipe back, no capability, uid and gid 65534, no file, no child, no
//! network (a filter of ten calls that kills on anything else), a second of CPU and bounded memory. What it returns is
//! decoded by fixed code and proves nothing: the gate verifies bytes, digests and signatures itself.
use crate::sys;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Pid, Uid};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Largest answer of a worker, bytes.
const MAX_ANSWER: usize = 8 << 20;
/// Memory that a worker may map on top of what the gate had, bytes.
const MEMORY: u64 = 256 << 20;
/// uid and gid of a worker: nobody's.
const NOBODY: u32 = 65534;
/// Time for one worker.
const TIME: Duration = Duration::from_secs(2);

/// What turns bytes into a proposal. A trait so that a test can put a liar in its place.
pub(crate) trait Parse {
    /// Runs `parse` on `bytes`; the answer is whatever the worker wrote.
    ///
    /// # Errors
    /// A sentence: it was killed, ran out of time, or wrote more than it may.
    fn parse(&self, parse: fn(&[u8]) -> Vec<u8>, bytes: &[u8]) -> Result<Vec<u8>, String>;
}

/// The real one.
#[derive(Debug)]
pub(crate) struct Jail {
    filter: BpfProgram,
    deadline: Instant,
}

impl Jail {
    pub(crate) fn new(deadline: Instant) -> Result<Self, String> {
        Ok(Self { filter: filter().map_err(|e| format!("the worker's filter does not build: {e}"))?, deadline })
    }
}

impl Parse for Jail {
    fn parse(&self, parse: fn(&[u8]) -> Vec<u8>, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let (read, write) =
            nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|e| format!("no pipe for the worker: {e}"))?;
        match sys::fork().map_err(|e| format!("no worker: {e}"))? {
            ForkResult::Child => {
                let code = match jailed(&self.filter, &write) {
                    Ok(()) => i32::from(!answered(&write, &parse(bytes))),
                    Err(_) => 2,
                };
                sys::exit_now(code)
            }
            ForkResult::Parent { child } => {
                drop(write);
                collect(child, read, self.deadline.min(Instant::now() + TIME))
            }
        }
    }
}

/// Writes the answer. The pipe is never closed here: dropping it may call fcntl, which the filter kills on.
fn answered(pipe: &OwnedFd, mut answer: &[u8]) -> bool {
    while !answer.is_empty() {
        match nix::unistd::write(pipe, answer) {
            Ok(written) => answer = answer.get(written..).unwrap_or_default(),
            Err(_) => return false,
        }
    }
    true
}

/// Locks the child in. The order matters: what needs a right comes before the right goes.
fn jailed(filter: &BpfProgram, write: &OwnedFd) -> Result<(), nix::Error> {
    let failed = |_| nix::Error::EPERM;
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    close_others(write)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    setrlimit(Resource::RLIMIT_CPU, 1, 1)?;
    setrlimit(Resource::RLIMIT_FSIZE, 0, 0)?;
    setrlimit(Resource::RLIMIT_AS, MEMORY, MEMORY)?;
    nix::unistd::setgroups(&[])?;
    nix::unistd::setresgid(Gid::from_raw(NOBODY), Gid::from_raw(NOBODY), Gid::from_raw(NOBODY))?;
    nix::unistd::setresuid(Uid::from_raw(NOBODY), Uid::from_raw(NOBODY), Uid::from_raw(NOBODY))?;
    setrlimit(Resource::RLIMIT_NPROC, 0, 0)?;
    setrlimit(Resource::RLIMIT_NOFILE, 0, 0)?;
    caps::clear(None, caps::CapSet::Inheritable).map_err(failed)?;
    caps::clear(None, caps::CapSet::Effective).map_err(failed)?;
    caps::clear(None, caps::CapSet::Permitted).map_err(failed)?;
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

fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let allowed = [
        libc::SYS_write,
        libc::SYS_mmap,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_brk,
        libc::SYS_madvise,
        libc::SYS_rt_sigreturn,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];
    let rules: BTreeMap<_, _> = allowed.into_iter().map(|number| (number, Vec::new())).collect();
    let arch = if cfg!(target_arch = "aarch64") { TargetArch::aarch64 } else { TargetArch::x86_64 };
    SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, arch)?.try_into()
}

/// Reads the answer until the worker closes the pipe, then reaps it. A worker that is late is killed.
fn collect(child: Pid, pipe: OwnedFd, deadline: Instant) -> Result<Vec<u8>, String> {
    let answer = read_until(&mut File::from(pipe), deadline);
    if answer.is_err() {
        kill(child, Signal::SIGKILL).map_err(|e| format!("a late worker does not die: {e}"))?;
    }
    let status = loop {
        match waitpid(child, None) {
            Err(nix::Error::EINTR) => {}
            other => break other.map_err(|e| format!("waiting for the worker: {e}"))?,
        }
    };
    let answer = answer?;
    match status {
        WaitStatus::Exited(_, 0) => Ok(answer),
        WaitStatus::Signaled(_, signal, _) => Err(format!("the worker was killed by {signal}")),
        other => Err(format!("the worker failed: {other:?}")),
    }
}

fn read_until(pipe: &mut File, deadline: Instant) -> Result<Vec<u8>, String> {
    let mut answer = Vec::new();
    let mut buffer = vec![0_u8; 64 << 10];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err("the worker took too long".into());
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut polled = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        match nix::poll::poll(&mut polled, timeout) {
            Ok(0) | Err(nix::Error::EINTR) => continue,
            Ok(_) => {}
            Err(e) => return Err(format!("waiting for the worker's answer: {e}")),
        }
        match pipe.read(&mut buffer).map_err(|e| format!("reading the worker's answer: {e}"))? {
            0 => return Ok(answer),
            read => answer.extend_from_slice(buffer.get(..read).unwrap_or_default()),
        }
        if answer.len() > MAX_ANSWER {
            return Err(format!("the worker wrote more than {MAX_ANSWER} bytes"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jail() -> Jail {
        Jail::new(Instant::now() + Duration::from_secs(5)).unwrap()
    }

    #[test]
    fn an_honest_worker_answers() {
        assert_eq!(jail().parse(|b| b.iter().rev().copied().collect(), b"abc"), Ok(b"cba".to_vec()));
    }

    #[test]
    fn a_big_answer_arrives_whole() {
        let big = vec![7_u8; 3 << 20];
        assert!(jail().parse(<[u8]>::to_vec, &big).unwrap() == big);
    }

    #[test]
    fn a_worker_that_opens_a_file_is_killed() {
        let opened = jail().parse(|_| std::fs::read("/etc/passwd").unwrap_or_default(), b"");
        assert!(opened.unwrap_err().contains("SIGSYS"));
    }

    #[test]
    fn a_worker_that_opens_a_socket_is_killed() {
        let opened = jail().parse(|_| vec![u8::from(std::net::TcpListener::bind("127.0.0.1:0").is_ok())], b"");
        assert!(opened.unwrap_err().contains("SIGSYS"));
    }

    #[test]
    fn a_worker_that_panics_starts_nothing() {
        let answer = jail().parse(|_| sys::exit_now(101), b"");
        assert!(answer.is_err());
    }

    #[test]
    fn a_worker_that_loops_is_killed() {
        let started = Instant::now();
        let answer = jail().parse(
            |_| loop {
                std::hint::spin_loop();
            },
            b"",
        );
        assert!(answer.is_err());
        assert!(started.elapsed() < Duration::from_secs(4));
    }

    #[test]
    fn a_worker_that_takes_too_much_memory_dies() {
        let answer = jail().parse(|_| vec![1_u8; 1 << 30], b"");
        assert!(answer.is_err());
    }
}
