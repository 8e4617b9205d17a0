//! What the shim saw and the trail shall hold, handed to the gate in batches: the gate is the trail's only writer.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use boltseal_message::{Anomaly, Class, Event, EventKind, Operation};
use tokio::sync::Notify;

use crate::anomalies::Anomalies;
use crate::runtime::{DEFAULT_DEADLINE, Gate};
use crate::sys;

/// What happens within this time travels in one run.
const BATCH: Duration = Duration::from_millis(200);
/// Most events of one run, and most kept while the gate cannot take them.
const MAX_BATCH: usize = 512;
const MAX_KEPT: usize = 8192;
const MAX_REASON: usize = 1024;

#[derive(Debug)]
pub(crate) struct Trail {
    pending: Mutex<VecDeque<Event>>,
    /// Those that are counted and not yet told.
    counted: Mutex<Anomalies>,
    more: Notify,
    /// One run of the gate after another. Who ends us waits for it: what a run carries that is broken off is lost.
    turn: tokio::sync::Mutex<()>,
    /// The pod that the records are handed in for.
    group: (String, PathBuf),
}

impl Trail {
    pub(crate) fn new(id: &str, bundle: &std::path::Path) -> Self {
        Self {
            pending: Mutex::default(),
            counted: Mutex::default(),
            more: Notify::new(),
            turn: tokio::sync::Mutex::default(),
            group: (id.into(), bundle.into()),
        }
    }

    pub(crate) fn add(&self, id: &str, exec_id: &str, mut kind: EventKind) {
        if let EventKind::Aborted { reason } = &mut kind {
            reason.truncate(reason.floor_char_boundary(MAX_REASON));
        }
        let event = Event { id: id.into(), exec_id: exec_id.into(), at_ns: now_ns(), kind };
        self.keep(|pending| pending.push_back(event));
    }

    /// Something that the container was not meant to do, or that is told all the same: a record of its own, or one more in the
    /// next sum.
    pub(crate) fn anomaly(&self, id: &str, mut anomaly: Anomaly) {
        anomaly.bounded();
        let at_ns = now_ns();
        match self.counted().add(id, anomaly, at_ns, Instant::now()) {
            Some(anomaly) => self.add(id, "", told(anomaly)),
            None => self.more.notify_one(),
        }
    }

    /// Whether the next one of this class is told with its details, or only counted.
    pub(crate) fn wants_details(&self, id: &str, class: Class, refused: bool) -> bool {
        !self.counted().holds(id, class, refused)
    }

    fn counted(&self) -> MutexGuard<'_, Anomalies> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sums that are due join what waits.
    fn sum_up(&self) {
        let due = self.counted().due(Instant::now());
        if !due.is_empty() {
            let events = due.into_iter().map(|(id, anomaly, at_ns)| summed(&id, anomaly, at_ns));
            self.keep(|pending| pending.extend(events));
        }
    }

    /// Takes out what waits for `id`, for the Delete that will carry it.
    pub(crate) fn take_of(&self, id: &str) -> Vec<Event> {
        let held = self.counted().take_of(id);
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let (of, rest): (Vec<Event>, Vec<Event>) = pending.drain(..).partition(|event| event.id == id);
        *pending = rest.into();
        let sums = held.into_iter().map(|(anomaly, at_ns)| summed(id, anomaly, at_ns));
        of.into_iter().chain(sums).collect()
    }

    /// Puts back what was taken but not recorded.
    pub(crate) fn put_back(&self, events: Vec<Event>) {
        self.keep(|pending| events.into_iter().rev().for_each(|event| pending.push_front(event)));
    }

    fn keep(&self, change: impl FnOnce(&mut VecDeque<Event>)) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut pending);
        // A gate that fails for hours must not fill our memory: anomalies are counted, dropped-log counts go, then the oldest.
        while pending.len() > MAX_KEPT {
            let anomaly =
                pending.iter().rposition(|event| matches!(event.kind, EventKind::Anomaly(_) | EventKind::Network(_)));
            let log = || pending.iter().position(|event| matches!(event.kind, EventKind::LogDropped { .. }));
            let gone = anomaly.or_else(log).unwrap_or(0);
            match pending.remove(gone) {
                Some(Event { id, at_ns, kind: EventKind::Anomaly(anomaly) | EventKind::Network(anomaly), .. }) => {
                    self.counted().take_back(&id, anomaly, at_ns, Instant::now());
                }
                _other => {}
            }
        }
        drop(pending);
        self.more.notify_one();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Waits until there is something to hand over.
    async fn wait(&self) {
        loop {
            self.sum_up();
            if !self.is_empty() {
                return;
            }
            let due = self.counted().next_due();
            let due = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.more.notified() => {}
                () = due => {}
            }
        }
    }

    /// Hands over what waits. `false`: the gate did not take it, and it waits still.
    pub(crate) async fn hand_over(&self, gate: &Gate) -> bool {
        let _turn = self.turn.lock().await;
        let events: Vec<Event> = {
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            let count = pending.len().min(MAX_BATCH);
            pending.drain(..count).collect()
        };
        if events.is_empty() {
            return true;
        }
        let (id, bundle) = &self.group;
        let operation = Operation::Record { events: events.clone() };
        let done = gate.run((id, bundle), operation, &[], DEFAULT_DEADLINE).await;
        if done.is_err() {
            self.put_back(events);
        }
        done.is_ok()
    }

    /// Waits until no run is under way.
    pub(crate) async fn settled(&self) {
        drop(self.turn.lock().await);
    }

    /// Hands over for ever.
    pub(crate) async fn run(&self, gate: &Gate) {
        let mut pause = BATCH;
        loop {
            self.wait().await;
            tokio::time::sleep(pause).await;
            pause = if self.hand_over(gate).await { BATCH } else { (pause * 2).min(Duration::from_secs(10)) };
            // Whatever happened is over: from here on we most likely only wait. A failure costs memory alone.
            let _smaller = sys::release_text().is_ok();
        }
    }
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn summed(id: &str, anomaly: Anomaly, at_ns: u64) -> Event {
    Event { id: id.into(), exec_id: String::new(), at_ns, kind: told(anomaly) }
}

/// A listener or a flow that nobody refused is none.
fn told(seen: Anomaly) -> EventKind {
    let expected = !seen.refused && matches!(seen.class, Class::Listener | Class::Destination);
    if expected { EventKind::Network(seen) } else { EventKind::Anomaly(seen) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delete_takes_its_own_events_in_order_and_they_can_go_back() {
        let trail = Trail::new("pod", "/b".as_ref());
        trail.add("a", "", EventKind::Running { pid: 1 });
        trail.add("b", "", EventKind::OutOfMemory);
        trail.add("a", "", EventKind::Exited { pid: 1, status: 0 });
        let taken = trail.take_of("a");
        assert!(
            matches!(taken[0].kind, EventKind::Running { .. }) && matches!(taken[1].kind, EventKind::Exited { .. })
        );
        trail.put_back(taken);
        let ids: Vec<String> = trail.pending.lock().unwrap().iter().map(|event| event.id.clone()).collect();
        assert_eq!(ids, ["a", "a", "b"]);
    }

    #[test]
    fn memory_is_bounded_and_exits_outlive_dropped_log_counts() {
        let trail = Trail::new("pod", "/b".as_ref());
        trail.add("a", "", EventKind::LogDropped { bytes: 1 });
        for pid in 0..MAX_KEPT as u32 {
            trail.add("a", "", EventKind::Exited { pid, status: 0 });
        }
        let pending = trail.pending.lock().unwrap();
        assert_eq!(pending.len(), MAX_KEPT);
        assert!(pending.iter().all(|event| matches!(event.kind, EventKind::Exited { .. })));
    }

    #[test]
    fn anomalies_that_find_no_room_are_counted_and_delete_takes_the_sum() {
        let trail = Trail::new("pod", "/b".as_ref());
        let anomaly = |class| Anomaly {
            class,
            refused: true,
            pid: 3,
            comm: "sh".into(),
            executable: String::new(),
            what: "mount".into(),
            count: 1,
            port_scan: 0,
        };
        trail.anomaly("a", anomaly(Class::Syscall));
        for pid in 0..MAX_KEPT as u32 {
            trail.add("b", "", EventKind::Exited { pid, status: 0 });
        }
        for _ in 0..20 {
            trail.anomaly("a", anomaly(Class::Syscall));
        }
        assert_eq!(trail.pending.lock().unwrap().len(), MAX_KEPT);
        let taken = trail.take_of("a");
        assert!(matches!(&taken[..], [Event { kind: EventKind::Anomaly(sum), .. }] if sum.count == 21), "{taken:?}");
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let trail = Trail::new("pod", "/b".as_ref());
        trail.add("a", "", EventKind::Aborted { reason: "é".repeat(MAX_REASON) });
        let taken = trail.take_of("a");
        assert!(matches!(&taken[0].kind, EventKind::Aborted { reason } if reason.len() == MAX_REASON));
    }
}
