//! Many distinct destinations that were refused within a minute are a port scan.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

/// (UDP, address, port).
pub(crate) type Goal = (bool, Ipv6Addr, u16);

/// What one container was refused lately: never more than `many`.
#[derive(Debug)]
pub(crate) struct Scan {
    many: usize,
    /// And when last.
    goals: BTreeMap<Goal, Instant>,
    told: Option<Instant>,
}

impl Scan {
    pub(crate) fn new(many: u32) -> Self {
        // One refusal is no scan, whatever a gate says.
        Self { many: usize::try_from(many).unwrap_or(usize::MAX).clamp(2, 1000), goals: BTreeMap::new(), told: None }
    }

    /// One more refusal: how many destinations there were, if this one makes them many. A scan that goes on is told once a minute.
    pub(crate) fn refused(&mut self, goal: Goal, now: Instant) -> Option<u32> {
        let past = |then: Instant| now.saturating_duration_since(then) >= MINUTE;
        if self.told.is_some_and(|told| !past(told)) {
            return None;
        }
        self.goals.insert(goal, now);
        if self.goals.len() < self.many {
            return None;
        }
        self.goals.retain(|_, then| !past(*then));
        let count = self.goals.len();
        if count < self.many {
            return None;
        }
        self.goals.clear();
        self.told = Some(now);
        u32::try_from(count).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goal(port: u16) -> Goal {
        (false, Ipv6Addr::LOCALHOST, port)
    }

    #[test]
    fn many_distinct_ones_within_a_minute_and_nothing_less() {
        let begin = Instant::now();
        // (distinct, seconds between two, told)
        for (count, step, told) in [(19, 0, 0), (20, 0, 1), (20, 3, 1), (100, 4, 0), (19, 3, 0), (1000, 0, 1)] {
            let mut scan = Scan::new(20);
            let times = (0..count).map(|n| scan.refused(goal(n), begin + Duration::from_secs(u64::from(n) * step)));
            assert_eq!(times.flatten().collect::<Vec<_>>(), vec![20; told], "{count} {step}");
        }
        // The same one again and again is one.
        let mut scan = Scan::new(2);
        assert!((0..1000).all(|_| scan.refused(goal(1), begin).is_none()));
        // Another address, another protocol, another port.
        assert_eq!(scan.refused((true, Ipv6Addr::LOCALHOST, 1), begin), Some(2));
        let mut scan = Scan::new(2);
        assert_eq!(scan.refused(goal(1), begin), None);
        assert_eq!(scan.refused((false, Ipv6Addr::UNSPECIFIED, 1), begin), Some(2));
    }

    #[test]
    fn one_that_goes_on_is_told_once_a_minute() {
        let (begin, mut scan) = (Instant::now(), Scan::new(20));
        let told = (0..6000_u32).filter(|n| {
            let now = begin + Duration::from_millis(u64::from(*n) * 100);
            scan.refused(goal(u16::try_from(*n).unwrap()), now).is_some()
        });
        assert_eq!(told.count(), 10);
    }

    #[test]
    fn memory_is_bounded() {
        let (begin, mut scan) = (Instant::now(), Scan::new(1000));
        for n in 0..60_000_u32 {
            let now = begin + Duration::from_millis(u64::from(n) * 61);
            let _one = scan.refused(goal(u16::try_from(n).unwrap()), now);
            assert!(scan.goals.len() < 1000);
        }
        assert_eq!(Scan::new(0).many, 2);
        assert_eq!(Scan::new(u32::MAX).many, 1000);
    }
}
