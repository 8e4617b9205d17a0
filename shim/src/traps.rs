//! The trip-wire: calls that the base filter refuses and hands to us. Each is refused here too, with the errno of the
//! table that the gate sealed, and told to the trail. There is no way to let one through, and nothing is decided.
//!
//! When this process dies, the kernel closes the listener and answers such calls with ENOSYS: refused without us as well.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use boltseal_message::{Anomaly, Class, Trap};
use tokio::io::Interest;

use crate::serve::Shim;
use crate::starter::Starter;
use crate::sys::{self, Call};

/// Most answers of one listener in a second: who calls more often waits, so that a flood costs us a few percent of a core.
const PER_SECOND: u32 = 10_000;
const SECOND: Duration = Duration::from_secs(1);
/// Answers until others get their turn in this thread.
const TURN: u32 = 64;

impl Shim {
    /// Answers for the processes under one filter, until the last of them has ended.
    pub(crate) fn watch_traps(self: &Arc<Self>, id: &str, listener: OwnedFd, traps: Vec<Trap>) {
        let (shim, id) = (self.clone(), id.to_owned());
        tokio::spawn(async move {
            if let Err(e) = shim.answer_traps(&id, listener, &traps).await {
                shim.log(&format!("{id}: the trip-wire is not watched any more, its calls get ENOSYS: {e}"));
            }
        });
    }

    async fn answer_traps(&self, id: &str, listener: OwnedFd, traps: &[Trap]) -> io::Result<()> {
        let listener = sys::asynchronous(listener, Interest::READABLE)?;
        let (mut second, mut answered) = (Instant::now(), 0);
        loop {
            let mut ready = listener.readable().await?;
            let call = match ready.try_io(|listener| sys::next_call(listener.as_fd())) {
                Err(_not_yet) => continue,
                Ok(Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                // It was there and is gone: its caller was killed.
                Ok(Err(e)) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::Interrupted) => continue,
                Ok(call) => call?,
            };
            self.answer(id, listener.as_fd(), call, traps)?;
            answered += 1;
            if answered >= PER_SECOND {
                tokio::time::sleep(SECOND.saturating_sub(second.elapsed())).await;
            } else if answered % TURN == 0 {
                tokio::task::yield_now().await;
            }
            if second.elapsed() >= SECOND {
                (second, answered) = (Instant::now(), 0);
            }
        }
    }

    fn answer(&self, id: &str, listener: std::os::fd::BorrowedFd<'_>, call: Call, traps: &[Trap]) -> io::Result<()> {
        let trap = traps.binary_search_by_key(&call.nr, |trap| trap.nr).ok().and_then(|at| traps.get(at));
        // While it waits for us it cannot end: who it is can be read, where that is told.
        let (comm, executable) = if self.trail.wants_details(id, Class::Syscall, true) {
            who(&self.gate.starter, call.pid).filter(|_| sys::call_waits(listener, call.id)).unwrap_or_default()
        } else {
            Default::default()
        };
        let errno = trap.map_or(libc::EPERM, |trap| i32::try_from(trap.errno).unwrap_or(libc::EPERM));
        match sys::refuse_call(listener, call.id, errno) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let what = what(&call, trap);
        let (class, pid) = (Class::Syscall, call.pid);
        self.trail.anomaly(id, Anomaly { class, refused: true, pid, comm, executable, what, count: 1, port_scan: 0 });
        Ok(())
    }
}

/// Name of the thread, and path of its program as it sees it. Text from inside the container.
fn who(starter: &Starter, pid: u32) -> Option<(String, String)> {
    let comm = std::fs::read(format!("/proc/{pid}/comm")).ok().filter(|_| pid != 0)?;
    let comm = String::from_utf8_lossy(&comm).trim_end_matches('\n').to_owned();
    let executable = starter.program(pid);
    Some((comm, executable.to_string_lossy().into_owned()))
}

/// `mount`, `socket(0x26, 0x5, 0x0)`.
fn what(call: &Call, trap: Option<&Trap>) -> String {
    let Some(trap) = trap else { return format!("call {}", call.nr) };
    if trap.args == 0 {
        return trap.name.clone();
    }
    let args: Vec<String> = call.args.iter().take(usize::from(trap.args)).map(|arg| format!("{arg:#x}")).collect();
    format!("{}({})", trap.name, args.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_told_with_the_arguments_that_matter() {
        let call = Call { id: 1, pid: 2, nr: 41, args: [38, 5, 0, 9, 9, 9] };
        let trap = |args| Trap { nr: 41, name: "socket".into(), errno: 1, args };
        assert_eq!(what(&call, Some(&trap(0))), "socket");
        assert_eq!(what(&call, Some(&trap(3))), "socket(0x26, 0x5, 0x0)");
        assert_eq!(what(&call, None), "call 41");
    }

    #[test]
    fn who_is_read_from_proc_and_nobody_is_nobody() {
        let starter = Starter::answering();
        let (comm, executable) = who(&starter, std::process::id()).unwrap();
        assert!(!comm.is_empty() && !comm.ends_with('\n'));
        assert_eq!(executable, std::env::current_exe().unwrap().to_string_lossy());
        assert_eq!(who(&starter, 0), None);
    }
}
