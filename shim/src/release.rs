//! Start of a parked init: what was judged must still hold, then the release, then the proof that it runs as judged.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use boltseal_message::{Code, Created, EventKind, Expected, FileStamp, RELEASE, Refusal};
use containerd_shim_protos::events::task::TaskStart;
use nix::sys::signal::Signal;
use nix::sys::socket::{Shutdown, shutdown};
use nix::time::{ClockId, clock_gettime};
use tokio::io::Interest;

use crate::process::{Container, Phase};
use crate::serve::Shim;
use crate::stdio::read_small;
use crate::sys;
use crate::task::refusal;

/// How long a killed init may take to be reaped before the failure is answered.
const REAPED: Duration = Duration::from_secs(8);
/// Most bytes of an exec failure that are told.
const MAX_FAILURE: usize = 4096;
/// `PF_FORKNOEXEC` of the kernel's `linux/sched.h`: set by fork, cleared by execve.
const FORKED_NOT_EXECED: u64 = 0x40;

impl Shim {
    pub(crate) async fn start_init(
        self: Arc<Self>,
        container: Arc<Container>,
        deadline: Duration,
    ) -> Result<u32, Refusal> {
        let _turn = container.turn.lock().await;
        let init = &container.init;
        if init.begin(Phase::Created).is_none() {
            return Err(refusal(Code::FailedPrecondition, "boltseal: the container was started already, or has ended"));
        }
        let parked = container.parked.lock().unwrap_or_else(PoisonError::into_inner).take();
        let released = match parked {
            Some(fds) => release(&container.created, fds, deadline).await,
            None => Err(refusal(Code::FailedPrecondition, "boltseal: the container was started already")),
        };
        let pid = init.pid();
        match released {
            Ok(()) => {
                self.trail.add(&container.id, "", EventKind::Running { pid });
                let started = TaskStart { container_id: container.id.clone(), pid, ..Default::default() };
                self.events.publish(&started);
                init.settle(true);
                Ok(pid)
            }
            Err(refusal) => {
                self.trail.add(&container.id, "", EventKind::Aborted { reason: refusal.message.clone() });
                if let Err(e) = init.signal(Signal::SIGKILL as i32) {
                    self.log(&format!("{}: killing init: {e}", container.id));
                }
                init.settle(false);
                let _reaped = tokio::time::timeout(REAPED, init.wait()).await.is_ok();
                Err(refusal)
            }
        }
    }
}

/// Lets init go on and returns once it has called execve and is seen to run under the filters and label that were
/// judged. Any error: the caller kills it.
async fn release(created: &Created, (socket, status): (OwnedFd, OwnedFd), deadline: Duration) -> Result<(), Refusal> {
    still_permitted(created)?;
    let failed = |e: io::Error| refusal(Code::Internal, format!("boltseal: releasing init: {e}"));
    match sys::send(socket.as_fd(), RELEASE, &[]) {
        Ok(sent) if sent == RELEASE.len() => {}
        Ok(_) => return Err(failed(io::ErrorKind::WriteZero.into())),
        Err(e) => return Err(failed(e)),
    }
    shutdown(socket.as_raw_fd(), Shutdown::Write).map_err(|e| failed(e.into()))?;
    let told = match tokio::time::timeout(deadline, read_all(status)).await {
        Ok(told) => told.map_err(failed)?,
        Err(_) => {
            let message =
                "boltseal: init did not call execve in time and was killed. Fix: see the node's load, try again";
            return Err(refusal(Code::Unavailable, message));
        }
    };
    if !told.is_empty() {
        let text = String::from_utf8_lossy(&told);
        return Err(refusal(Code::InvalidArgument, format!("boltseal: init did not start: {}", text.trim_end())));
    }
    runs_as_judged(created.pid, &created.expected)
}

fn still_permitted(created: &Created) -> Result<(), Refusal> {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map_err(|e| refusal(Code::Internal, format!("boltseal: CLOCK_BOOTTIME: {e}")))?;
    let now = u64::try_from(now.tv_sec()).unwrap_or(u64::MAX).saturating_mul(1_000_000_000)
        + u64::try_from(now.tv_nsec()).unwrap_or(0);
    if now > created.not_after_boottime_ns {
        let message =
            "boltseal: the permit has expired: too long between create and start. Fix: create the container again";
        return Err(refusal(Code::FailedPrecondition, message));
    }
    for stamp in &created.policy_files {
        if !unchanged(stamp) {
            let message = format!(
                "boltseal: denied by BS-NOD-004: policy changed between create and start. Fix: create the container again\n\
                 changed: {}",
                stamp.path
            );
            return Err(refusal(Code::FailedPrecondition, message));
        }
    }
    Ok(())
}

/// A file that cannot be looked at counts as changed.
fn unchanged(stamp: &FileStamp) -> bool {
    let nanoseconds = |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
    std::fs::metadata(&stamp.path).is_ok_and(|meta| {
        let seen = FileStamp {
            path: stamp.path.clone(),
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            mtime_ns: nanoseconds(meta.mtime(), meta.mtime_nsec()),
            ctime_ns: nanoseconds(meta.ctime(), meta.ctime_nsec()),
        };
        seen == *stamp
    })
}

async fn read_all(pipe: OwnedFd) -> io::Result<Vec<u8>> {
    let flags = nix::fcntl::fcntl(&pipe, nix::fcntl::FcntlArg::F_GETFL)?;
    let flags = nix::fcntl::OFlag::from_bits_retain(flags) | nix::fcntl::OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(&pipe, nix::fcntl::FcntlArg::F_SETFL(flags))?;
    let pipe = sys::asynchronous(pipe, Interest::READABLE)?;
    let mut all = Vec::new();
    let mut buffer = [0; 512];
    loop {
        let mut ready = pipe.readable().await?;
        match ready.try_io(|pipe| Ok(nix::unistd::read(pipe.get_ref(), &mut buffer)?)) {
            Err(_not_yet) => {}
            Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(e)) => return Err(e),
            Ok(Ok(0)) => return Ok(all),
            Ok(Ok(count)) => {
                let room = MAX_FAILURE.saturating_sub(all.len());
                all.extend(buffer.iter().take(count.min(room)));
            }
        }
    }
}

/// Looks at the process from outside. It may have ended already: as a zombie it still shows all of this, and we have not
/// reaped it.
fn runs_as_judged(pid: u32, expected: &Expected) -> Result<(), Refusal> {
    let differs = |what: String| {
        let message = format!("boltseal: init does not run as judged and was killed: {what}. Fix: report this node");
        refusal(Code::Internal, message)
    };
    let read = |file: &str| read_small(format!("/proc/{pid}/{file}")).map_err(|e| differs(format!("{file}: {e}")));
    if flags_of(&read("stat")?).is_none_or(|flags| flags & FORKED_NOT_EXECED != 0) {
        let message =
            "boltseal: init ended before it called execve. Fix: see the trail and the node's log (memory limit?)";
        return Err(refusal(Code::FailedPrecondition, message));
    }
    check_status(&read("status")?, expected).map_err(differs)?;
    if !expected.label.is_empty() {
        let label = read("attr/apparmor/current").or_else(|_| read("attr/current"))?;
        let label = label.trim_end_matches(['\0', '\n']);
        if label != expected.label {
            return Err(differs(format!("label is {label:?}, not {:?}", expected.label)));
        }
    }
    Ok(())
}

/// Field 9 of /proc/pid/stat; the name before it may hold anything, so it is counted from its closing parenthesis.
fn flags_of(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(6)?.parse().ok()
}

/// The program may have added filters of its own by now, which only tightens; fewer than judged is a fault.
fn check_status(status: &str, expected: &Expected) -> Result<(), String> {
    let value = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.trim().parse::<u32>().ok()
    };
    for (key, fits, wanted) in [
        ("Seccomp", value("Seccomp") == Some(2), "2".to_owned()),
        (
            "Seccomp_filters",
            value("Seccomp_filters").is_some_and(|count| count >= expected.seccomp_filters),
            format!("{}", expected.seccomp_filters),
        ),
        ("NoNewPrivs", value("NoNewPrivs") == Some(1), "1".to_owned()),
    ] {
        if !fits {
            return Err(format!("{key} is {:?}, not {wanted}", value(key)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_must_show_what_was_judged() {
        let expected = Expected { seccomp_filters: 2, label: String::new() };
        let status = |seccomp, filters, privs| {
            format!("Name:\tx\nNoNewPrivs:\t{privs}\nSeccomp:\t{seccomp}\nSeccomp_filters:\t{filters}\n")
        };
        assert_eq!(check_status(&status(2, 2, 1), &expected), Ok(()));
        assert_eq!(check_status(&status(2, 3, 1), &expected), Ok(()));
        for wrong in [status(0, 2, 1), status(2, 1, 1), status(2, 2, 0), String::new()] {
            assert!(check_status(&wrong, &expected).is_err(), "{wrong}");
        }
    }

    #[test]
    fn flags_are_found_behind_any_name() {
        assert_eq!(flags_of("7 (a) b (c)) S 1 7 7 0 -1 4194304 5 6"), Some(4_194_304));
        assert_eq!(flags_of("7 (x) S 1"), None);
        let own = read_small("/proc/self/stat").unwrap();
        assert!(flags_of(&own).is_some_and(|flags| flags & FORKED_NOT_EXECED == 0), "{own}");
    }

    #[test]
    fn any_difference_of_a_policy_file_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.toml");
        std::fs::write(&path, "a").unwrap();
        let meta = std::fs::metadata(&path).unwrap();
        let stamp = FileStamp {
            path: path.to_str().unwrap().into(),
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            mtime_ns: meta.mtime() * 1_000_000_000 + meta.mtime_nsec(),
            ctime_ns: meta.ctime() * 1_000_000_000 + meta.ctime_nsec(),
        };
        assert!(unchanged(&stamp));
        for wrong in [
            FileStamp { device: stamp.device + 1, ..stamp.clone() },
            FileStamp { inode: stamp.inode + 1, ..stamp.clone() },
            FileStamp { size: 2, ..stamp.clone() },
            FileStamp { mtime_ns: 0, ..stamp.clone() },
            FileStamp { ctime_ns: 0, ..stamp.clone() },
            FileStamp { path: "/nowhere".into(), ..stamp.clone() },
        ] {
            assert!(!unchanged(&wrong), "{wrong:?}");
        }
    }
}
