//! How many anomalies of one container and class get a record of their own: what a container does without end must
//! neither fill the trail nor our memory, and no call may hide behind a flood of another.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use boltseal_message::{Anomaly, Class, MAX_WHAT};

/// Most records of their own in one second; the rest of that second is one more.
const SINGLE: u32 = 8;
const SECOND: Duration = Duration::from_secs(1);
/// Records of either kind at a stretch, and how often there is one more.
const STRETCH: u32 = 32;
const ONE_MORE: Duration = Duration::from_secs(30);
/// Most distinct `what` that one record sums up.
const MAX_DISTINCT: usize = 16;

/// What each container of the pod did lately, by class and outcome.
#[derive(Debug, Default)]
pub(crate) struct Anomalies(BTreeMap<Key, Flow>);

/// Container, class, and whether it was refused: what was let be does not use up what tells of refusals.
type Key = (String, Class, bool);

#[derive(Debug)]
struct Flow {
    /// Records that may still be written, and since when this number stands.
    left: u32,
    refilled: Instant,
    /// The second that runs, and how many of it got a record of their own.
    second: Instant,
    single: u32,
    held: Option<Held>,
}

/// What is summed up: the first one's details, when it happened, and the distinct `what`.
#[derive(Debug)]
struct Held {
    first: Anomaly,
    at_ns: u64,
    since: Instant,
    distinct: Vec<String>,
}

impl Anomalies {
    /// One more: comes back when it gets a record of its own, else it is counted.
    pub(crate) fn add(&mut self, id: &str, anomaly: Anomaly, at_ns: u64, now: Instant) -> Option<Anomaly> {
        // Told at most once a minute, whatever else is.
        if anomaly.port_scan > 0 {
            return Some(anomaly);
        }
        let flow = self.flow(id, &anomaly, now);
        flow.refill(now);
        if now.saturating_duration_since(flow.second) >= SECOND {
            (flow.second, flow.single) = (now, 0);
        }
        // The last one is for the sum. While something is held all are: records come in the order of what they tell.
        if flow.held.is_none() && flow.single < SINGLE && flow.left > 1 {
            (flow.single, flow.left) = (flow.single + 1, flow.left - 1);
            return Some(anomaly);
        }
        flow.hold(anomaly, at_ns, now);
        None
    }

    /// Counts one that was to get a record and found no room.
    pub(crate) fn take_back(&mut self, id: &str, anomaly: Anomaly, at_ns: u64, now: Instant) {
        self.flow(id, &anomaly, now).hold(anomaly, at_ns, now);
    }

    /// Whether the next one joins others that are summed up: its own details are then not told.
    pub(crate) fn holds(&self, id: &str, class: Class, refused: bool) -> bool {
        self.0.get(&(id.to_owned(), class, refused)).is_some_and(|flow| flow.held.is_some())
    }

    /// The sums that are due: container, anomaly, when the first of it happened.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<(String, Anomaly, u64)> {
        let mut sums = Vec::new();
        for ((id, ..), flow) in &mut self.0 {
            flow.refill(now);
            if flow.due_at().is_some_and(|at| at <= now) {
                flow.left -= 1;
                sums.extend(flow.held.take().map(Held::sum).map(|(sum, at_ns)| (id.clone(), sum, at_ns)));
            }
        }
        sums
    }

    /// When the next sum is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.0.values().filter_map(Flow::due_at).min()
    }

    /// All that is held of one container, which is about to be removed.
    pub(crate) fn take_of(&mut self, of: &str) -> Vec<(Anomaly, u64)> {
        let mut sums = Vec::new();
        self.0.retain(|(id, ..), flow| {
            if id == of {
                sums.extend(flow.held.take().map(Held::sum));
            }
            id != of
        });
        sums
    }

    fn flow(&mut self, id: &str, of: &Anomaly, now: Instant) -> &mut Flow {
        self.0.entry((id.to_owned(), of.class, of.refused)).or_insert_with(|| Flow {
            left: STRETCH,
            refilled: now,
            second: now,
            single: 0,
            held: None,
        })
    }
}

impl Flow {
    fn refill(&mut self, now: Instant) {
        while self.left < STRETCH && now.saturating_duration_since(self.refilled) >= ONE_MORE {
            (self.left, self.refilled) = (self.left + 1, self.refilled + ONE_MORE);
        }
        if self.left == STRETCH {
            self.refilled = now;
        }
    }

    fn due_at(&self) -> Option<Instant> {
        let held = self.held.as_ref()?;
        Some(if self.left > 0 { held.since + SECOND } else { (held.since + SECOND).max(self.refilled + ONE_MORE) })
    }

    fn hold(&mut self, anomaly: Anomaly, at_ns: u64, now: Instant) {
        match &mut self.held {
            Some(held) => held.add(anomaly),
            None => {
                let distinct = vec![anomaly.what.clone()];
                self.held = Some(Held { first: anomaly, at_ns, since: now, distinct });
            }
        }
    }
}

impl Held {
    fn add(&mut self, other: Anomaly) {
        self.first.count = self.first.count.saturating_add(other.count);
        self.first.port_scan = self.first.port_scan.max(other.port_scan);
        let size: usize = self.distinct.iter().map(|what| what.len() + 2).sum();
        let room = self.distinct.len() < MAX_DISTINCT && size + other.what.len() <= MAX_WHAT;
        if room && !self.distinct.contains(&other.what) {
            self.distinct.push(other.what);
        }
    }

    fn sum(self) -> (Anomaly, u64) {
        (Anomaly { what: self.distinct.join(", "), ..self.first }, self.at_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(what: &str) -> Anomaly {
        Anomaly {
            class: Class::Syscall,
            refused: true,
            pid: 7,
            comm: "sh".into(),
            executable: String::new(),
            what: what.into(),
            count: 1,
            port_scan: 0,
        }
    }

    #[test]
    fn a_flood_is_summed_up_and_nothing_is_lost_or_hidden() {
        let (mut anomalies, start) = (Anomalies::default(), Instant::now());
        let (mut records, mut counted, mut seen) = (0, 0, false);
        for step in 0..100_000_u32 {
            let now = start + Duration::from_micros(u64::from(step) * 20);
            let what = if step == 60_000 { "bpf" } else { "mount" };
            let sums = anomalies.due(now).into_iter().map(|(_, sum, _)| sum);
            for record in sums.chain(anomalies.add("a", call(what), 1, now)).collect::<Vec<_>>() {
                (records, counted, seen) = (records + 1, counted + record.count, seen || record.what.contains("bpf"));
            }
        }
        let rest = anomalies.take_of("a");
        assert!(seen || rest.iter().any(|(sum, _)| sum.what == "mount, bpf"));
        assert_eq!(counted + rest.iter().map(|(sum, _)| sum.count).sum::<u64>(), 100_000);
        assert!(records <= 18, "{records} records in two seconds");
        assert!(anomalies.next_due().is_none());
    }

    #[test]
    fn neither_an_endless_flood_nor_a_drip_fills_the_trail_and_who_was_quiet_begins_anew() {
        for per_second in [1_u32, 20] {
            let (mut anomalies, start) = (Anomalies::default(), Instant::now());
            let (mut records, mut counted) = (0_u32, 0);
            for step in 0..3600 * per_second {
                let now = start + SECOND * step / per_second;
                let sums = anomalies.due(now).into_iter().map(|(_, sum, _)| sum);
                for record in sums.chain(anomalies.add("a", call("mount"), 1, now)).collect::<Vec<_>>() {
                    (records, counted) = (records + 1, counted + record.count);
                }
            }
            assert!(records <= STRETCH + 120, "{records}");
            let later = start + SECOND * 3600 + ONE_MORE * (STRETCH + 2);
            counted += anomalies.due(later).iter().map(|(_, sum, _)| sum.count).sum::<u64>();
            assert_eq!(counted, u64::from(3600 * per_second));
            for _ in 0..SINGLE {
                assert!(anomalies.add("a", call("mount"), 1, later).is_some());
            }
            assert!(anomalies.add("a", call("mount"), 1, later).is_none());
        }
    }

    #[test]
    fn containers_and_classes_do_not_share() {
        let (mut anomalies, now) = (Anomalies::default(), Instant::now());
        for _ in 0..=SINGLE {
            anomalies.add("a", call("mount"), 1, now);
        }
        assert!(anomalies.add("a", call("mount"), 1, now).is_none());
        assert!(anomalies.add("b", call("mount"), 1, now).is_some());
        assert!(anomalies.add("a", Anomaly { class: Class::Listener, ..call("tcp") }, 1, now).is_some());
        assert!(anomalies.add("a", Anomaly { refused: false, ..call("mount") }, 1, now).is_some());
        // A port scan is told, whatever was.
        assert!(anomalies.add("a", Anomaly { port_scan: 20, ..call("mount") }, 1, now).is_some());
        assert_eq!(anomalies.take_of("b").len(), 0);
        assert_eq!(anomalies.take_of("a")[0].0.count, 2);
    }

    #[test]
    fn a_sum_names_no_more_than_fits() {
        let (mut anomalies, now) = (Anomalies::default(), Instant::now());
        for number in 0..1000 {
            anomalies.add("a", call(&format!("a call with a long name, number {number}")), 1, now);
        }
        let (sum, _) = anomalies.take_of("a").remove(0);
        assert!(sum.what.len() <= MAX_WHAT && sum.count == 1000 - u64::from(SINGLE), "{sum:?}");
    }
}
