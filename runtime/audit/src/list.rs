//! Reads records in order, one at a time.
use crate::TrailError;
use crate::clock::parse_rfc3339;
use crate::folder::{Folder, Segment};
use crate::line::{MAX_LINE, parse_line};
use crate::record::{Decision, Event, Outcome, Record};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// Which records to show; every field that is set must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Seconds since the epoch, by the record's own wall clock.
    pub since: Option<u64>,
    /// Only refusals.
    pub denied: bool,
    /// A finding of this rule that is not a pass.
    pub rule: Option<String>,
    pub owner: Option<String>,
    /// Part of the image's name, repository or digest.
    pub image: Option<String>,
    /// The record with this id, and those that belong to it.
    pub id: Option<String>,
    pub event: Option<Event>,
}

impl Filter {
    #[must_use]
    pub fn fits(&self, record: &Record) -> bool {
        let what = &record.what;
        self.since.is_none_or(|since| parse_rfc3339(&record.ts).is_some_and(|ts| ts >= since))
            && (!self.denied || record.decision == Some(Decision::Deny))
            && self
                .rule
                .as_ref()
                .is_none_or(|rule| record.findings.iter().any(|f| &f.rule == rule && f.outcome != Outcome::Pass))
            && self.owner.as_ref().is_none_or(|owner| &record.who.owner == owner)
            && self.image.as_ref().is_none_or(|part| {
                [&what.image, &what.repository, &what.digest].iter().any(|t| t.contains(part.as_str()))
            })
            && self.id.as_ref().is_none_or(|id| &record.id == id || &record.of == id)
            && self.event.is_none_or(|event| record.ev == event)
    }
}

/// Calls `show` for each record that fits, oldest first, and returns how many lines were no records. Says nothing about
/// the chain.
///
/// # Errors
/// The folder or a file of it cannot be read.
pub fn list(dir: &Path, filter: &Filter, mut show: impl FnMut(Record)) -> Result<u64, TrailError> {
    let folder = Folder::open(dir)?;
    let mut bad = 0;
    for (segment, size) in snapshot(&folder)?.0 {
        let mut lines = Lines::new(folder.read_segment(&segment)?.0, size);
        while let Some(line) = lines.next()? {
            match line.strip_suffix(b"\n").map(parse_line) {
                Some(Ok(record)) if filter.fits(&record) => show(record),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => bad += 1,
            }
        }
    }
    Ok(bad)
}

/// The files and how long they were at one moment between two appends, and the names of other entries.
pub(crate) type Snapshot = (Vec<(Segment, u64)>, Vec<String>);

pub(crate) fn snapshot(folder: &Folder) -> Result<Snapshot, TrailError> {
    let _lock = folder.lock()?;
    let (segments, others) = folder.segments()?;
    let sized = segments.into_iter().map(|segment| {
        let (file, _) = folder.read_segment(&segment)?;
        let size = file.metadata().map_err(TrailError::io("stat a file of the trail"))?.len();
        Ok((segment, size))
    });
    Ok((sized.collect::<Result<_, TrailError>>()?, others))
}

/// Lines with their newline, in bounded memory: an overlong one comes in pieces without.
pub(crate) struct Lines {
    reader: BufReader<std::io::Take<File>>,
}

impl Lines {
    pub(crate) fn new(file: File, size: u64) -> Self {
        Self { reader: BufReader::with_capacity(4 * MAX_LINE, file.take(size)) }
    }

    pub(crate) fn next(&mut self) -> Result<Option<Vec<u8>>, TrailError> {
        let mut line = Vec::new();
        let piece = (&mut self.reader).take(MAX_LINE as u64).read_until(b'\n', &mut line);
        let count = piece.map_err(TrailError::io("read a file of the trail"))?;
        Ok((count > 0).then_some(line))
    }
}
