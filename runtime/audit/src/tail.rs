//! Where the trail ends: the last good record, and what a killed writer left behind it.
use crate::TrailError;
use crate::folder::{Folder, Segment};
use crate::line::{BadLine, MAX_LINE, parse_line, sha256_hex};
use crate::record::{Event, Record};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// One write holds at most a `recovered` record and one more, so torn bytes are fewer than this; the double, in case.
const WINDOW: u64 = 8 * MAX_LINE as u64;

/// What the next record continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) seq: u64,
    pub(crate) sum: String,
    pub(crate) latest: u64,
}

impl Tail {
    /// Before the first record.
    pub(crate) fn first() -> Self {
        Self { seq: 0, sum: "0".repeat(64), latest: 0 }
    }

    pub(crate) fn after(record: &Record) -> Self {
        Self { seq: record.seq, sum: record.sum.clone(), latest: record.latest }
    }
}

/// The end of the newest file.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) file: File,
    pub(crate) size: u64,
    pub(crate) tail: Tail,
    /// Bytes behind the last good record.
    pub(crate) torn: Vec<u8>,
}

impl End {
    /// Hash of the torn bytes as they stand after the newline that the repair puts behind them.
    pub(crate) fn torn_hash(&self) -> (String, u64, bool) {
        let newline = self.torn.last() != Some(&b'\n');
        let mut bytes = self.torn.clone();
        if newline {
            bytes.push(b'\n');
        }
        (sha256_hex(&bytes), bytes.len() as u64, newline)
    }
}

/// Finds the end. With the lock held it also makes the first file, or the one that a `rotate` record announced.
pub(crate) fn find(folder: &Folder) -> Result<End, TrailError> {
    let (segments, _) = folder.segments()?;
    let Some(last) = segments.last() else {
        let file = folder.create(&Segment::starting_at(1))?;
        return Ok(End { file, size: 0, tail: Tail::first(), torn: Vec::new() });
    };
    let file = folder.open_segment(last, true)?;
    let (size, good, torn) = read(&file, &last.name)?;
    match good {
        Some(record) if record.ev == Event::Rotate => {
            if !torn.is_empty() {
                return Err(TrailError::Damaged(format!("{} goes on behind its last record", last.name)));
            }
            let file = folder.create(&Segment::starting_at(record.seq + 1))?;
            Ok(End { file, size: 0, tail: Tail::after(&record), torn })
        }
        Some(record) => Ok(End { file, size, tail: Tail::after(&record), torn }),
        None => Ok(End { file, size, tail: before(folder, &segments)?, torn }),
    }
}

/// The tail as a reader sees it: `None` in an empty trail.
pub(crate) fn look(folder: &Folder) -> Result<Option<Tail>, TrailError> {
    let (segments, _) = folder.segments()?;
    let Some(last) = segments.last() else { return Ok(None) };
    match read(&folder.open_segment(last, false)?, &last.name)?.1 {
        Some(record) => Ok(Some(Tail::after(&record))),
        None => before(folder, &segments).map(|tail| (tail.seq > 0).then_some(tail)),
    }
}

/// The tail of the file before the newest, which has no record yet.
fn before(folder: &Folder, segments: &[Segment]) -> Result<Tail, TrailError> {
    let Some([previous, last]) = segments.last_chunk() else {
        return match segments {
            [only] if only.first == 1 => Ok(Tail::first()),
            _ => Err(TrailError::Damaged("the files before the newest are gone".into())),
        };
    };
    let (_, good, torn) = read(&folder.open_segment(previous, false)?, &previous.name)?;
    match good {
        Some(record) if record.next == last.name && torn.is_empty() => Ok(Tail::after(&record)),
        _ => Err(TrailError::Damaged(format!("{} does not lead to {}", previous.name, last.name))),
    }
}

/// Size, last good record and the bytes behind it.
fn read(file: &File, name: &str) -> Result<(u64, Option<Record>, Vec<u8>), TrailError> {
    let size = file.metadata().map_err(TrailError::io("stat a file of the trail"))?.len();
    // One line nearly always; more only after a kill.
    for window in [MAX_LINE as u64 + 1, WINDOW] {
        let start = size.saturating_sub(window);
        let mut bytes = vec![0; usize::try_from(size - start).unwrap_or(0)];
        file.read_exact_at(&mut bytes, start).map_err(TrailError::io("read the tail"))?;
        let mut end = bytes.len();
        while let Some(newline) = bytes.get(..end).and_then(|b| b.iter().rposition(|b| *b == b'\n')) {
            let head = bytes.get(..newline).unwrap_or_default();
            let from = match head.iter().rposition(|b| *b == b'\n') {
                Some(before) => before + 1,
                None if start == 0 => 0,
                // The line starts outside the window.
                None => break,
            };
            match parse_line(head.get(from..).unwrap_or_default()) {
                Ok(record) => return Ok((size, Some(record), bytes.split_off(newline + 1))),
                Err(BadLine::TooLong | BadLine::NoSum | BadLine::WrongSum) => end = newline,
                // Whole, but not ours to continue.
                Err(bad) => return Err(TrailError::Damaged(format!("last record of {name}: {bad}"))),
            }
        }
        if start == 0 {
            return Ok((size, None, bytes));
        }
    }
    Err(TrailError::Damaged(format!("no good record in the last {WINDOW} bytes of {name}")))
}
