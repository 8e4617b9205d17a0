//! What the programs of a container's network tell (`boltseal_message::Seen`): taken out of the kernel's ring, looked up, and handed
//! to the trail. Nothing is decided here: the programs have refused, or not, before we hear of it.
//!
//! When this process dies the programs stay and go on refusing. The ring fills, what comes then is counted, and nobody reads it.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use boltseal_message::{Anomaly, Class, EVENT_LEN, KINDS, Kind, Seen};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::AbortHandle;

use crate::scan::Scan;
use crate::serve::Shim;
use crate::starter::Starter;
use crate::sys::{self, Counters, Ring};

/// Most events of one ring in a second. What a container does beyond is counted by its programs, so that a flood costs us little.
const PER_SECOND: u32 = 10_000;
const SECOND: Duration = Duration::from_secs(1);
/// Events until others get their turn in this thread.
const TURN: u32 = 64;
/// The pid namespace that the kernel itself is in (linux/proc_ns.h): programs tell pids of this one.
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";
/// Nanoseconds of a clock tick as /proc counts them.
const TICK: u64 = 10_000_000;

/// The watch over one container, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Watch {
    ear: Arc<Ear>,
    task: AbortHandle,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
struct Ear {
    id: String,
    wakes: AsyncFd<OwnedFd>,
    /// Our pids are those that programs tell.
    same_pids: bool,
    inside: Mutex<Inside>,
}

#[derive(Debug)]
struct Inside {
    ring: Ring,
    lost: Counters,
    /// What of `lost` has been told.
    told: [u64; KINDS],
    scan: Scan,
}

impl Shim {
    pub(crate) fn watch_network(
        self: &Arc<Self>,
        id: &str,
        (events, lost): (OwnedFd, OwnedFd),
        scan: u32,
    ) -> io::Result<Watch> {
        let inside = Inside {
            ring: Ring::of(events.as_fd())?,
            lost: Counters::of(lost.as_fd())?,
            told: [0; KINDS],
            scan: Scan::new(scan),
        };
        let own = std::fs::read_link("/proc/self/ns/pid")?;
        let ear = Arc::new(Ear {
            id: id.into(),
            wakes: sys::asynchronous(events, Interest::READABLE)?,
            same_pids: own.as_os_str() == FIRST_PID_NAMESPACE,
            inside: Mutex::new(inside),
        });
        let (shim, heard) = (self.clone(), ear.clone());
        let task = tokio::spawn(async move {
            if let Err(e) = shim.hear(&heard).await {
                shim.log(&format!("{}: the network is not watched any more, and confined as before: {e}", heard.id));
            }
        });
        Ok(Watch { ear, task: task.abort_handle() })
    }

    async fn hear(&self, ear: &Ear) -> io::Result<()> {
        let (mut second, mut taken) = (Instant::now(), 0);
        loop {
            // Before the ring is emptied: what comes meanwhile wakes us again.
            ear.wakes.readable().await?.clear_ready();
            while self.take(ear, TURN)? == TURN {
                taken += TURN;
                if taken >= PER_SECOND {
                    tokio::time::sleep(SECOND.saturating_sub(second.elapsed())).await;
                } else {
                    tokio::task::yield_now().await;
                }
                if second.elapsed() >= SECOND {
                    (second, taken) = (Instant::now(), 0);
                }
            }
        }
    }

    /// All that a container's programs have told so far, before its end is told.
    pub(crate) fn hear_out(&self, watch: &Watch) {
        // The ring has no room for more; who still runs may fill it again.
        let mut left = boltseal_message::RING_LEN / EVENT_LEN as u32;
        while left > 0 && self.take(&watch.ear, TURN).is_ok_and(|taken| taken == TURN) {
            left = left.saturating_sub(TURN);
        }
    }

    /// Takes at most so many events: how many there were.
    fn take(&self, ear: &Ear, most: u32) -> io::Result<u32> {
        let mut inside = ear.inside();
        let mut taken = 0;
        while taken < most {
            let mut event = [0; EVENT_LEN];
            let Some(whole) = inside.ring.next(&mut event)? else { break };
            taken += 1;
            // Only our own programs write there: what is none of their events is a fault of ours, and no reason to stop.
            if let Some(seen) = Seen::decode(&event).ok().filter(|_| whole) {
                let scan = (seen.kind == Kind::Destination)
                    .then(|| inside.scan.refused((seen.udp, seen.address, seen.port), Instant::now()));
                self.tell(ear, seen, scan.flatten().unwrap_or(0));
            }
        }
        let lost = inside.lost.read();
        for ((kind, now), told) in Kind::ALL.into_iter().zip(lost).zip(&mut inside.told) {
            let count = now.wrapping_sub(std::mem::replace(told, now));
            if count > 0 {
                let what = "what was not told one by one".into();
                self.trail.anomaly(&ear.id, Anomaly { count, what, ..nobody(kind) });
            }
        }
        Ok(taken)
    }

    fn tell(&self, ear: &Ear, seen: Seen, port_scan: u32) {
        let mut told = Anomaly { what: seen.to_string(), port_scan, ..nobody(seen.kind) };
        if ear.same_pids {
            told.pid = seen.pid;
            if port_scan > 0 || self.trail.wants_details(&ear.id, told.class, told.refused) {
                (told.comm, told.executable) = who(&self.gate.starter, seen.pid, seen.at_boot_ns).unwrap_or_default();
            }
        }
        if !seen.comm.is_empty() {
            told.comm = seen.comm;
        }
        self.trail.anomaly(&ear.id, told);
    }
}

impl Ear {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn nobody(kind: Kind) -> Anomaly {
    Anomaly {
        class: match kind {
            Kind::Destination | Kind::Flow => Class::Destination,
            Kind::Bind | Kind::Listener | Kind::Unreachable => Class::Listener,
        },
        refused: kind.refused(),
        pid: 0,
        comm: String::new(),
        executable: String::new(),
        what: String::new(),
        count: 1,
        port_scan: 0,
    }
}

/// Name of a process, and path of its program as it sees it, if it is the one that had this pid then. Text from inside the container.
fn who(starter: &Starter, pid: u32, at_boot_ns: u64) -> Option<(String, String)> {
    let comm = std::fs::read(format!("/proc/{pid}/comm")).ok().filter(|_| pid != 0)?;
    let executable = starter.program(pid);
    // Read last: while it has not changed, what was read before was of the same process.
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    if started(&stat)?.checked_mul(TICK)? > at_boot_ns {
        return None;
    }
    let comm = String::from_utf8_lossy(&comm).trim_end_matches('\n').to_owned();
    Some((comm, executable.to_string_lossy().into_owned()))
}

/// Field 22 of /proc/PID/stat: when it began, ticks after boot. The name in parentheses may hold anything.
fn started(stat: &[u8]) -> Option<u64> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use boltseal_message::RING_LEN;
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use std::fs::File;
    use std::os::unix::fs::FileExt as _;

    #[test]
    fn who_it_was_is_read_only_of_the_process_that_was_there_then() {
        let own = std::process::id();
        let starter = Starter::answering();
        let (comm, executable) = who(&starter, own, u64::MAX).unwrap();
        assert!(!comm.is_empty() && !comm.ends_with('\n'));
        assert_eq!(executable, std::env::current_exe().unwrap().to_string_lossy());
        let begun = started(&std::fs::read("/proc/self/stat").unwrap()).unwrap();
        assert!(begun > 0 && who(&starter, own, begun * TICK).is_some());
        // Something of that pid did it before this process began: another one.
        assert_eq!(who(&starter, own, begun * TICK - 1), None);
        assert_eq!(who(&starter, 0, u64::MAX), None);
    }

    const PAGE: usize = 4096;

    /// A file that looks as the kernel's ring does, but that its data lies there twice instead of being shown twice.
    struct Paper(File);

    impl Paper {
        fn new() -> (Self, Ring) {
            let file = File::from(memfd_create(c"ring", MFdFlags::MFD_CLOEXEC).unwrap());
            file.set_len((2 * PAGE + 2 * RING_LEN as usize) as u64).unwrap();
            let ring = Ring::of(file.as_fd()).unwrap();
            (Self(file), ring)
        }

        fn number(&self, at: usize, number: u64) {
            self.0.write_all_at(&number.to_ne_bytes(), at as u64).unwrap();
        }

        fn event(&self, at: usize, head: u32, byte: u8) {
            for copy in [0, RING_LEN as usize] {
                let at = (2 * PAGE + copy + at % RING_LEN as usize) as u64;
                self.0.write_all_at(&head.to_ne_bytes(), at).unwrap();
                self.0.write_all_at(&[byte; EVENT_LEN], at + 8).unwrap();
            }
        }
    }

    #[test]
    fn events_are_taken_in_their_order_and_once_beyond_the_rings_end_too() {
        let (paper, mut ring) = Paper::new();
        let mut event = [0; EVENT_LEN];
        assert_eq!(ring.next(&mut event).unwrap(), None);
        let size = EVENT_LEN + 8;
        for turn in 0..3000_usize {
            paper.event(turn * size, EVENT_LEN as u32, turn as u8);
            paper.number(PAGE, ((turn + 1) * size) as u64);
            assert_eq!(ring.next(&mut event).unwrap(), Some(true));
            assert_eq!(event, [turn as u8; EVENT_LEN]);
            assert_eq!(ring.next(&mut event).unwrap(), None);
        }
    }

    #[test]
    fn what_is_not_whole_is_waited_for_or_passed_over() {
        const BUSY: u32 = 1 << 31;
        const DISCARDED: u32 = 1 << 30;
        let length = EVENT_LEN as u32;
        let (paper, mut ring) = Paper::new();
        let mut event = [0; EVENT_LEN];
        paper.event(0, length | BUSY, 1);
        paper.number(PAGE, 4 * 64);
        assert_eq!(ring.next(&mut event).unwrap(), None);
        for (at, head) in [(0, length), (64, length | DISCARDED), (128, length - 1), (192, length)] {
            paper.event(at, head, 1);
        }
        let taken: Vec<_> = (0..5).map(|_| ring.next(&mut event).unwrap()).collect();
        assert_eq!(taken, [Some(true), Some(false), Some(false), Some(true), None]);
    }

    #[test]
    fn a_ring_that_makes_no_sense_is_an_error_and_reads_nothing_beyond_it() {
        for (head, written) in
            [(EVENT_LEN as u32, 63), (RING_LEN, 64), ((1 << 30) - 1, 1 << 40), (0, 1 << 20), (7, u64::MAX)]
        {
            let (paper, mut ring) = Paper::new();
            paper.event(0, head, 1);
            paper.number(PAGE, written);
            assert!(ring.next(&mut [0; EVENT_LEN]).is_err(), "{head} {written}");
        }
        // Whatever stands as our own position: no byte outside is touched.
        for position in [1, 7, u64::MAX, u64::from(RING_LEN) - 1, 1 << 63] {
            let (paper, mut ring) = Paper::new();
            paper.number(0, position);
            paper.number(PAGE, position.wrapping_add(64));
            let _any = ring.next(&mut [0; EVENT_LEN]).is_ok();
        }
    }

    #[test]
    fn a_name_cannot_move_the_fields() {
        let line = |name: &str| format!("7 ({name}) S 1 7 7 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0");
        for name in ["sh", ") S 1 1 (", "a b", "\n"] {
            assert_eq!(started(line(name).as_bytes()), Some(4242), "{name:?}");
        }
        for damaged in ["", "7 sh S 1", "7 (sh) S 1 2", "7 (sh"] {
            assert_eq!(started(damaged.as_bytes()), None);
        }
    }

    #[test]
    fn each_kind_is_of_one_class() {
        for (kind, class, refused) in [
            (Kind::Destination, Class::Destination, true),
            (Kind::Flow, Class::Destination, false),
            (Kind::Bind, Class::Listener, true),
            (Kind::Listener, Class::Listener, false),
            (Kind::Unreachable, Class::Listener, true),
        ] {
            assert_eq!((nobody(kind).class, nobody(kind).refused), (class, refused));
        }
    }
}
