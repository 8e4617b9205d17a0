//! Follows the chain through all files and says what does not fit.
use crate::TrailError;
use crate::folder::{Folder, SYNC_FAILED, Segment};
use crate::line::{hex, parse_line};
use crate::list::{Lines, snapshot};
use crate::record::{Decision, Door, Event, Record};
use crate::tail::Tail;
use ring::digest::{Context, SHA256};
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

/// Problems that are told one by one; the rest is counted.
const MAX_PROBLEMS: usize = 100;

/// What the trail holds and what is wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub files: usize,
    pub records: u64,
    /// Decisions on create, exec and update.
    pub decisions: u64,
    pub allowed: u64,
    pub refused: u64,
    /// Containers that were started; processes in them, and updates that were applied.
    pub started: u64,
    pub execs: u64,
    pub updates: u64,
    /// Allowed, and then not started after all.
    pub aborted: u64,
    /// Torn tails that were marked: a writer was killed there.
    pub recovered: u64,
    /// Empty: the chain is whole from the first record to `head`.
    pub problems: Vec<Problem>,
    /// Problems beyond those told.
    pub more_problems: u64,
    /// Allowed, but neither started nor aborted (yet).
    pub unfinished: Vec<Unfinished>,
    /// The newest record. A trail whose tail was cut off is whole up to an older head: only a copy of a newer head,
    /// kept elsewhere, shows that.
    pub head: Option<Head>,
    /// A head was given to compare with, and its record is in the trail.
    pub anchored: bool,
    /// Names in the folder that are no files of the trail.
    pub others: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub file: String,
    /// The last good record before it.
    pub after: u64,
    pub what: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unfinished {
    pub seq: u64,
    pub id: String,
    pub ts: String,
    pub container: String,
}

/// A record's number and sum: what to keep elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Head {
    pub seq: u64,
    pub sum: String,
}

impl Head {
    /// From `seq:sum`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (seq, sum) = text.split_once(':')?;
        let hex = sum.len() == 64 && sum.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        Some(Self { seq: seq.parse().ok().filter(|_| hex)?, sum: sum.to_owned() })
    }
}

/// Reads the whole trail. `kept` is a head from earlier on: a trail that does not hold it was cut or rewritten.
///
/// # Errors
/// The folder or a file of it cannot be read, or a writer held the lock too long.
pub fn verify(dir: &Path, kept: Option<&Head>) -> Result<Report, TrailError> {
    let folder = Folder::open(dir)?;
    let (files, others) = snapshot(&folder)?;
    let report = Report { files: files.len(), others, ..Report::default() };
    let mut walk =
        Walk { report, tail: Tail::first(), last: None, open: BTreeMap::new(), allowed: HashSet::new(), kept };
    for (segment, size) in &files {
        walk.file(&folder, segment, *size)?;
    }
    Ok(walk.end(files.last().map(|(segment, _)| segment)))
}

struct Walk<'a> {
    report: Report,
    tail: Tail,
    last: Option<Record>,
    open: BTreeMap<u64, Unfinished>,
    allowed: HashSet<String>,
    kept: Option<&'a Head>,
}

/// Bytes that are no record, until something explains them.
struct Torn {
    hash: Context,
    length: u64,
    why: String,
}

impl Walk<'_> {
    fn file(&mut self, folder: &Folder, segment: &Segment, size: u64) -> Result<(), TrailError> {
        match self.last.as_ref().map(|r| (r.ev, r.next.as_str())) {
            None if segment.first == 1 => {}
            Some((Event::Rotate, next)) if next == segment.name => {}
            Some((Event::Rotate, next)) => {
                self.problem(&segment.name, format!("{next} should come here: a file is missing"));
            }
            Some(_) => self.problem(&segment.name, "the file before it does not end in a rotate record".into()),
            None => self.problem(&segment.name, "the files before it are missing".into()),
        }
        let (file, odd) = folder.read_segment(segment)?;
        if let Some(odd) = odd {
            self.problem(&segment.name, format!("the file {odd}"));
        }
        let mut lines = Lines::new(file, size);
        let mut torn: Option<Torn> = None;
        while let Some(line) = lines.next()? {
            let parsed = match line.strip_suffix(b"\n") {
                Some(line) => parse_line(line).map_err(|bad| bad.to_string()),
                None => Err("it has no end".into()),
            };
            match parsed {
                Ok(record) => self.record(&segment.name, record, torn.take()),
                Err(why) => {
                    let torn = torn.get_or_insert_with(|| Torn { hash: Context::new(&SHA256), length: 0, why });
                    torn.hash.update(&line);
                    torn.length += line.len() as u64;
                }
            }
        }
        if let Some(torn) = torn {
            self.problem(
                &segment.name,
                format!("the file ends in {} bytes that are no record ({})", torn.length, torn.why),
            );
        }
        Ok(())
    }

    fn record(&mut self, file: &str, record: Record, torn: Option<Torn>) {
        let mut linked = true;
        let marks =
            |torn: &Torn| record.torn == hex(torn.hash.clone().finish().as_ref()) && record.bytes == Some(torn.length);
        match (torn, record.ev) {
            (Some(torn), Event::Recovered) if marks(&torn) => self.report.recovered += 1,
            (Some(torn), _) => {
                self.problem(file, format!("{} bytes are no record ({})", torn.length, torn.why));
                linked = false;
            }
            (None, Event::Recovered) => {
                self.problem(file, format!("record {} marks torn bytes that are not there", record.seq));
            }
            (None, _) => {}
        }
        if linked {
            self.link(file, &record);
        }
        self.count(file, &record);
        if self.kept.is_some_and(|kept| kept.seq == record.seq && kept.sum == record.sum) {
            self.report.anchored = true;
        }
        self.tail = Tail::after(&record);
        self.last = Some(record);
    }

    /// Whether the record is the one that comes next.
    fn link(&mut self, file: &str, record: &Record) {
        if record.seq != self.tail.seq + 1 {
            self.problem(file, format!("record {} stands where {} should", record.seq, self.tail.seq + 1));
        } else if record.prev != self.tail.sum {
            self.problem(file, format!("record {} does not continue the one before it", record.seq));
        } else if record.latest < self.tail.latest {
            self.problem(file, format!("record {} forgets the latest time", record.seq));
        } else if let Some(last) = &self.last {
            if last.boot_id == record.boot_id && last.boottime_ns > record.boottime_ns {
                self.problem(file, format!("record {} is older than the one before it", record.seq));
            } else if last.ev == Event::Rotate && last.next != file {
                self.problem(file, format!("record {} stands behind the file's last", record.seq));
            }
        }
    }

    fn count(&mut self, file: &str, record: &Record) {
        self.report.records += 1;
        match (record.ev, record.decision) {
            (Event::Decision | Event::Exec, Some(decision)) => {
                self.report.decisions += 1;
                if decision == Decision::Deny {
                    self.report.refused += 1;
                    return;
                }
                self.report.allowed += 1;
                self.allowed.insert(record.id.clone());
                // An update has no process whose start would end it.
                if record.door != Some(Door::Update) {
                    let (id, ts, container) = (record.id.clone(), record.ts.clone(), record.what.id.clone());
                    self.open.insert(record.seq, Unfinished { seq: record.seq, id, ts, container });
                }
            }
            (Event::Decision | Event::Exec, None) => {
                self.problem(file, format!("record {} does not say what was decided", record.seq));
            }
            (Event::Started | Event::Aborted, _) => {
                match (record.ev, record.door) {
                    (Event::Aborted, _) => self.report.aborted += 1,
                    (_, Some(Door::Exec)) => self.report.execs += 1,
                    (_, Some(Door::Update)) => self.report.updates += 1,
                    (_, Some(Door::Create) | None) => self.report.started += 1,
                }
                // What ended before the decision's own record could be read names none.
                if !record.of.is_empty() && !self.allowed.contains(&record.of) {
                    self.problem(file, format!("record {} ends a decision that the trail does not hold", record.seq));
                }
                self.open.retain(|_, unfinished| unfinished.id != record.of);
            }
            _ => {}
        }
    }

    fn end(mut self, newest: Option<&Segment>) -> Report {
        if self.report.others.iter().any(|name| name == SYNC_FAILED) {
            self.problem(SYNC_FAILED, "a sync failed: records may be lost on the disk".into());
        }
        if let (Some(Record { ev: Event::Rotate, next, .. }), Some(newest)) = (&self.last, newest) {
            // An empty next file is what a writer leaves that was killed right there.
            if next != &newest.name {
                let what = format!("{next} should follow: the newest file is missing");
                self.problem(&newest.name.clone(), what);
            }
        }
        if let (Some(kept), false) = (self.kept, self.report.anchored) {
            let what =
                format!("the trail does not hold the kept head {}:{}: it was cut or rewritten", kept.seq, kept.sum);
            self.problem("", what);
        }
        self.report.unfinished = self.open.into_values().collect();
        self.report.head = self.last.map(|r| Head { seq: r.seq, sum: r.sum });
        self.report
    }

    fn problem(&mut self, file: &str, what: String) {
        if self.report.problems.len() < MAX_PROBLEMS {
            self.report.problems.push(Problem { file: file.to_owned(), after: self.tail.seq, what });
        } else {
            self.report.more_problems += 1;
        }
    }
}
