//! Replay: events prove what a quote says, or they are nothing.
use super::events::hash;
use super::{Event, Events};
use crate::{Error, hex};
use std::collections::BTreeMap;

const NO_ACTION: u32 = 3;
const STARTUP_LOCALITY: &[u8; 16] = b"StartupLocality\0";

/// Events whose replay is what the TPM signed, PCR by PCR. Their digests are proven; their types and data are not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven<'a> {
    log: &'a [u8],
    list: Vec<Event>,
}

impl<'a> Events<'a> {
    /// The values that these events lead to, for PCRs 0 to 16 and 23.
    pub fn replay(&self) -> BTreeMap<u32, [u8; 32]> {
        let mut values: BTreeMap<u32, [u8; 32]> = (0..=16).chain([23]).map(|pcr| (pcr, [0; 32])).collect();
        if let Some(first) = values.get_mut(&0) {
            first[31] = self.locality();
        }
        for event in self.list.iter().filter(|event| event.kind != NO_ACTION) {
            if let Some(value) = values.get_mut(&event.pcr) {
                *value = extended(value, &event.digest);
            }
        }
        values
    }

    /// The digest was put into that PCR.
    pub(crate) fn has(&self, pcr: u32, digest: &[u8; 32]) -> bool {
        self.list.iter().any(|e| e.kind != NO_ACTION && e.pcr == pcr && e.digest == *digest)
    }

    /// The value of a PCR (not 0) if each digest had been another.
    pub(crate) fn value_with(&self, pcr: u32, change: impl Fn(&[u8; 32]) -> [u8; 32]) -> [u8; 32] {
        let events = self.list.iter().filter(|e| e.kind != NO_ACTION && e.pcr == pcr);
        events.fold([0; 32], |value, event| extended(&value, &change(&event.digest)))
    }

    /// What PCR 0 starts as: the locality of TPM2_Startup, when the log names one (profile, section 10.4.5.3).
    fn locality(&self) -> u8 {
        let said = self.list.iter().filter(|e| e.kind == NO_ACTION).filter_map(|e| self.log.get(e.data.clone()));
        said.filter_map(|data| data.strip_prefix(STARTUP_LOCALITY)).find_map(|rest| rest.first().copied()).unwrap_or(0)
    }

    /// Compares the replay with quoted values: each of them, and only events of these PCRs go on.
    ///
    /// # Errors
    /// The first PCR that the log does not lead to.
    pub fn prove(self, quoted: &BTreeMap<u32, [u8; 32]>) -> Result<Proven<'a>, Error> {
        let replayed = self.replay();
        for (pcr, value) in quoted {
            match replayed.get(pcr) {
                Some(found) if found == value => {}
                Some(found) => {
                    return Err(Error::refused(format!(
                        "the event log leads PCR {pcr} to {}, but the TPM quotes {}: the log was cut or changed, or something extended the PCR after the boot",
                        hex::encode(found),
                        hex::encode(value)
                    )));
                }
                None => {
                    return Err(Error::refused(format!(
                        "PCR {pcr} cannot be replayed from an event log. Fix: leave it out of [node.pcrs]"
                    )));
                }
            }
        }
        let list = self.list.into_iter().filter(|e| e.kind != NO_ACTION && quoted.contains_key(&e.pcr)).collect();
        Ok(Proven { log: self.log, list })
    }
}

pub(crate) fn extended(value: &[u8; 32], digest: &[u8; 32]) -> [u8; 32] {
    hash(&[&value[..], digest].concat())
}

impl<'a> Proven<'a> {
    /// The events of one PCR, in order.
    pub fn of(&self, pcr: u32) -> impl Iterator<Item = &Event> {
        self.list.iter().filter(move |event| event.pcr == pcr)
    }

    /// An event's data, not proven.
    pub fn data(&self, event: &Event) -> &'a [u8] {
        self.log.get(event.data.clone()).unwrap_or_default()
    }

    /// An event's data, if it is what was hashed.
    pub fn proven_data(&self, event: &Event) -> Option<&'a [u8]> {
        Some(self.data(event)).filter(|data| hash(data) == event.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse::{propose, tests::Written};
    use super::*;

    fn events(log: &[u8]) -> Events<'_> {
        Events::decode(log, &propose(log)).unwrap()
    }

    fn log() -> Written {
        Written::new()
            .event(4, 1, [1; 32], b"a")
            .event(9, 1, [2; 32], b"b")
            .event(4, 1, [3; 32], b"c")
            .event(5, 3, [9; 32], b"")
    }

    #[test]
    fn replay_is_extend_after_extend() {
        let log = log().0;
        let replayed = events(&log).replay();
        let once = hash(&[[0; 32], [1; 32]].concat());
        assert_eq!(replayed[&4], hash(&[once, [3; 32]].concat()));
        assert_eq!((replayed[&5], replayed[&0]), ([0; 32], [0; 32]), "EV_NO_ACTION extends nothing");
    }

    #[test]
    fn the_locality_of_startup_is_what_pcr_0_starts_as() {
        let of = |data: &[u8]| {
            let log = Written::new().event(0, 3, [0; 32], data).0;
            events(&log).replay()[&0][31]
        };
        assert_eq!(of(b"StartupLocality\0\x03"), 3);
        assert_eq!(of(b"StartupLocality\0"), 0);
        assert_eq!(of(b"Startup"), 0);
    }

    #[test]
    fn only_what_was_quoted_is_proven() {
        let written = log();
        let quoted: BTreeMap<_, _> =
            events(&written.0).replay().into_iter().filter(|(p, _)| [4, 9].contains(p)).collect();
        let proven = events(&written.0).prove(&quoted).unwrap();
        assert_eq!((proven.of(4).count(), proven.of(9).count(), proven.of(5).count()), (2, 1, 0));
        // Cut at an event, one added, two swapped, a digest changed, a value changed.
        let again = |log: Written| events(&log.0).prove(&quoted).unwrap_err().to_string();
        assert!(again(Written::new().event(4, 1, [1; 32], b"a").event(9, 1, [2; 32], b"b")).contains("PCR 4"));
        assert!(again(log().event(9, 1, [0; 32], b"")).contains("PCR 9"));
        assert!(
            again(Written::new().event(4, 1, [3; 32], b"").event(9, 1, [2; 32], b"").event(4, 1, [1; 32], b""))
                .contains("PCR 4")
        );
        assert!(again(Written::new()).contains("leads PCR 4 to 0000"));
        // Padded with what extends nothing: nothing changes, and nothing of it is looked at.
        let padded = log().event(4, 3, [7; 32], b"SecureBoot");
        assert_eq!(events(&padded.0).prove(&quoted).unwrap().of(4).count(), 2);
        let drtm = BTreeMap::from([(17, [0; 32])]);
        assert!(events(&written.0).prove(&drtm).unwrap_err().to_string().contains("PCR 17 cannot be replayed"));
    }

    /// A worker that lies about types and spans proves no other digest by it.
    #[test]
    fn a_lying_worker_proves_nothing() {
        let log = log().0;
        let quoted: BTreeMap<_, _> = events(&log).replay().into_iter().filter(|(p, _)| *p == 4).collect();
        let honest = propose(&log);
        for at in 1..honest.len() {
            let mut lie = honest.clone();
            lie[at] ^= 1;
            let Ok(events) = Events::decode(&log, &lie) else { continue };
            if let Ok(proven) = events.prove(&quoted) {
                assert_eq!(proven.of(4).map(|e| e.digest).collect::<Vec<_>>(), [[1; 32], [3; 32]], "{at}");
            }
        }
    }
}
