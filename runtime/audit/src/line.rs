//! A record to its line and back. A line ends in `,"sum":"<sha256 of what stands before the comma>"}`.
use crate::record::{Record, VERSION};
use ring::digest::{SHA256, digest};
use std::fmt;

/// Longest line, its newline included.
pub const MAX_LINE: usize = 16 * 1024;
const SUM: &[u8] = b",\"sum\":\"";
const END: &[u8] = b"\"}";
const HEX: usize = 64;

/// Why a line is not a record of the trail.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadLine {
    TooLong,
    /// It does not end in a sum.
    NoSum,
    /// The sum is not that of the line: the line was changed or torn.
    WrongSum,
    /// Right sum, but not a record; the parser's words.
    NotARecord(String),
    /// Of a newer format.
    Version(u32),
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "longer than {MAX_LINE} bytes"),
            Self::NoSum => write!(f, "does not end in a sum"),
            Self::WrongSum => write!(f, "its sum is wrong: changed or torn"),
            Self::NotARecord(why) => write!(f, "not a record: {why}"),
            Self::Version(v) => write!(f, "format {v} is newer than this program"),
        }
    }
}

impl std::error::Error for BadLine {}

/// sha256 as 64 lower-case hex digits.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let digits = |b: &u8| [b >> 4, b & 15].map(|n| char::from_digit(u32::from(n), 16).unwrap_or('?'));
    bytes.iter().flat_map(digits).collect()
}

/// The line of a record with its sum and newline. Sets `record.sum`.
pub(crate) fn to_line(record: &mut Record) -> Result<Vec<u8>, String> {
    record.sum.clear();
    let mut line = serde_json::to_vec(record).map_err(|e| e.to_string())?;
    // The closing brace comes after the sum.
    line.pop();
    record.sum = sha256_hex(&line);
    line.extend_from_slice(SUM);
    line.extend_from_slice(record.sum.as_bytes());
    line.extend_from_slice(END);
    line.push(b'\n');
    Ok(line)
}

/// Reads one line, without its newline, and checks its sum. Whether it is the right line in its place is `verify`'s work.
///
/// # Errors
/// See [`BadLine`].
pub fn parse_line(line: &[u8]) -> Result<Record, BadLine> {
    if line.len() >= MAX_LINE {
        return Err(BadLine::TooLong);
    }
    let split = line.len().checked_sub(SUM.len() + HEX + END.len()).ok_or(BadLine::NoSum)?;
    let (body, tail) = line.split_at(split);
    let sum = tail.strip_prefix(SUM).and_then(|t| t.strip_suffix(END)).ok_or(BadLine::NoSum)?;
    if sha256_hex(body).as_bytes() != sum {
        return Err(BadLine::WrongSum);
    }
    let record: Record = serde_json::from_slice(line).map_err(|e| BadLine::NotARecord(e.to_string()))?;
    if record.v != VERSION {
        return Err(BadLine::Version(record.v));
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Entry, Event, Finding, Outcome};
    use proptest::prelude::*;

    pub(crate) fn record(entry: &Entry) -> Record {
        crate::trail::place(entry, &crate::tail::Tail::first(), &crate::clock::now().unwrap(), "boot")
    }

    #[test]
    fn every_flipped_byte_shows() {
        let mut made = record(&Entry { note: "x".into(), ..Entry::default() });
        let line = to_line(&mut made).unwrap();
        let line = &line[..line.len() - 1];
        assert_eq!(parse_line(line).unwrap(), made);
        for i in 0..line.len() {
            for bit in 0..8 {
                let mut bad = line.to_vec();
                bad[i] ^= 1 << bit;
                assert!(parse_line(&bad).is_err(), "byte {i} bit {bit}");
            }
        }
        for end in 0..line.len() {
            assert!(parse_line(&line[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn a_newer_format_is_not_guessed_at() {
        let mut made = record(&Entry::default());
        made.v = 2;
        let line = to_line(&mut made).unwrap();
        assert_eq!(parse_line(&line[..line.len() - 1]), Err(BadLine::Version(2)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(parse_line(&bytes).is_err());
        }

        #[test]
        fn whatever_is_said_fits_on_one_line(text in any::<String>(), times in 1usize..60, findings in 0usize..90) {
            let text = text.repeat(times);
            let finding = Finding { rule: text.clone(), outcome: Outcome::Deny, by: text.clone(), condition: text.clone(), fact: text.clone() };
            let mut entry = Entry { ev: Event::Aborted, of: text.clone(), level: text.clone(), integrity: text.clone(),
                policy: text.clone(), spec: text.clone(), version: text.clone(), note: text.clone(), findings: vec![finding; findings], layers: vec![text.clone(); findings], ..Entry::default() };
            entry.who.owner = text.clone();
            let w = &mut entry.what;
            for field in [&mut w.handler, &mut w.namespace, &mut w.pod, &mut w.pod_uid, &mut w.container, &mut w.containerd_namespace,
                &mut w.id, &mut w.exec_id, &mut w.sandbox_id, &mut w.image, &mut w.digest, &mut w.repository] {
                field.clone_from(&text);
            }
            let (line, made) = crate::trail::fit(&entry, &crate::tail::Tail::first(), &crate::clock::now().unwrap(), "boot").unwrap();
            prop_assert!(line.len() <= MAX_LINE);
            prop_assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
            prop_assert_eq!(parse_line(&line[..line.len() - 1]).unwrap(), made);
        }
    }
}
