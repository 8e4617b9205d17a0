//! The list of events as it crosses from the worker: fixed records, bounded, spans inside the log.
use super::{MAX_EVENTS, MAX_LOG};
use crate::Error;
use ring::digest::{SHA256, digest};
use std::ops::Range;

/// One event of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub pcr: u32,
    /// TCG event type. Not covered by any digest.
    pub kind: u32,
    /// SHA-256: what the PCR was extended with.
    pub digest: [u8; 32],
    /// Where its data stands in the log. Covered by the digest for some types only.
    pub data: Range<usize>,
}

const RECORD: usize = 4 + 4 + 32 + 4 + 4;

/// What a worker found, before anything of it is proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Events<'a> {
    pub(crate) log: &'a [u8],
    pub(crate) list: Vec<Event>,
}

pub(crate) fn encode(events: &[Event]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + events.len() * RECORD);
    out.push(b'L');
    for event in events {
        out.extend(event.pcr.to_be_bytes());
        out.extend(event.kind.to_be_bytes());
        out.extend(event.digest);
        // A log is below 4 GiB.
        out.extend((event.data.start as u32).to_be_bytes());
        out.extend((event.data.end as u32).to_be_bytes());
    }
    out
}

impl<'a> Events<'a> {
    /// Reads a worker's answer about `log`.
    ///
    /// # Errors
    /// What the worker says is wrong with the log, or an answer that no worker of ours writes.
    pub fn decode(log: &'a [u8], answer: &[u8]) -> Result<Self, Error> {
        let what = "worker's answer on the event log";
        if log.len() > MAX_LOG {
            return Err(Error::Malformed("event log", "larger than 2 MiB"));
        }
        let records = match answer.split_first() {
            Some((b'L', records)) => records,
            Some((b'E', text)) => {
                let text: String =
                    String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).take(200).collect();
                return Err(Error::Refused(text));
            }
            _ => return Err(Error::Malformed(what, "neither events nor an error")),
        };
        if records.len() % RECORD != 0 || records.len() / RECORD > MAX_EVENTS {
            return Err(Error::Malformed(what, "not a list of at most 8192 events"));
        }
        let mut list = Vec::with_capacity(records.len() / RECORD);
        let mut last = 0;
        for record in records.chunks_exact(RECORD) {
            let number = |at: usize| {
                let mut out = [0; 4];
                out.copy_from_slice(&record[at..at + 4]);
                u32::from_be_bytes(out)
            };
            let data = number(40) as usize..number(44) as usize;
            if data.start < last || data.end < data.start || data.end > log.len() {
                return Err(Error::Malformed(what, "data of an event that is not in the log"));
            }
            last = data.end;
            let mut digest = [0; 32];
            digest.copy_from_slice(&record[8..40]);
            list.push(Event { pcr: number(0), kind: number(4), digest, data });
        }
        Ok(Self { log, list })
    }

    /// SHA-256 of the log's bytes.
    pub fn digest(&self) -> [u8; 32] {
        hash(self.log)
    }
}

pub(crate) fn hash(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::super::parse::{propose, tests::Written};
    use super::*;

    #[test]
    fn a_list_crosses_whole() {
        let log = Written::new().event(4, 5, [7; 32], b"abc").event(9, 6, [8; 32], b"").0;
        let events = Events::decode(&log, &propose(&log)).unwrap();
        assert_eq!(encode(&events.list), propose(&log));
        assert_eq!(&log[events.list[0].data.clone()], b"abc");
    }

    #[test]
    fn a_workers_error_is_told_on_one_line() {
        let error = Events::decode(b"", &propose(b"")).unwrap_err().to_string();
        assert!(error.contains("middle of an event"), "{error}");
        let error = Events::decode(b"", b"Ea\x1b[31m\nb").unwrap_err().to_string();
        assert_eq!(error, "a[31mb");
    }

    #[test]
    fn no_span_leaves_the_log() {
        let log = [0; 10];
        let record = |start: u32, end: u32| {
            let mut out = vec![0; 40];
            out.extend(start.to_be_bytes());
            out.extend(end.to_be_bytes());
            out
        };
        let of = |records: &[Vec<u8>]| Events::decode(&log, &[b"L", &records.concat()[..]].concat());
        assert!(of(&[record(0, 4), record(4, 10)]).is_ok());
        assert!(of(&[record(0, 11)]).is_err());
        assert!(of(&[record(5, 4)]).is_err());
        assert!(of(&[record(0, 4), record(3, 6)]).is_err());
        assert!(of(&vec![record(0, 0); MAX_EVENTS]).is_ok());
        assert!(of(&vec![record(0, 0); MAX_EVENTS + 1]).is_err());
        for bad in [&b""[..], b"x", b"L1", &[b'L'; RECORD]] {
            assert!(Events::decode(&log, bad).is_err());
        }
    }
}
