//! Appends: lock, look at the tail, repair it, write once, unlock. The sync comes after, outside the lock.
use crate::TrailError;
use crate::clock::{self, Stamp};
use crate::folder::{Folder, SYNC_FAILED, Segment, mark_failed_sync};
use crate::line::{MAX_LINE, hex, to_line};
use crate::record::{Entry, Event, Record, VERSION};
use crate::tail::{self, End, Tail};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::fstatvfs;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Size at which a file is closed and the next begun.
const ROTATE_AT: u64 = 64 << 20;
/// Room that is kept allocated behind the end, so that a full disk still takes denials; and the least of it that a
/// start asks for: the difference is what denials may use up.
const RESERVE: u64 = 1 << 20;
const LEAST: u64 = 512 << 10;
/// Room for the fact of a finding, and of one that passed, tried in this order until the record fits into a line. Who signed
/// is told at length; where all of it is too much, what passed needs fewer words than what did not.
const FACTS: [(usize, usize); 5] = [(640, 640), (480, 160), (160, 160), (80, 80), (32, 32)];

/// The trail in one folder. Cheap to open, made for one run of the gate.
#[derive(Debug)]
pub struct Trail {
    folder: Folder,
    boot_id: String,
    rotate_at: u64,
}

/// A record that is in the trail, and on the disk once `sync` has said so.
#[must_use]
#[derive(Debug)]
pub struct Appended {
    pub seq: u64,
    /// 8 hex digits; the id that a denial shows and that later records name in `of`.
    pub id: String,
    pub sync: SyncHandle,
}

/// Makes an appended record durable. An allowed init must not run, and a refusal must not return, before.
#[must_use]
#[derive(Debug)]
pub struct SyncHandle {
    file: File,
    folder: OwnedFd,
}

impl SyncHandle {
    /// fdatasync of the file: this record and all before it.
    ///
    /// # Errors
    /// The record may be lost. The kernel says so once: deny, do not try again. A mark is left in the folder, and nothing
    /// starts on this node until an operator has looked and removed it.
    pub fn sync(&self) -> Result<(), TrailError> {
        self.file.sync_data().map_err(|error| match mark_failed_sync(&self.folder) {
            Ok(()) => TrailError::Io("fdatasync", error),
            // A disk that takes no mark takes no record either.
            Err(errno) => TrailError::Io(
                "fdatasync, and no mark can be left of it",
                io::Error::new(error.kind(), format!("{error}; {errno}")),
            ),
        })
    }
}

impl AsFd for SyncHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Trail {
    /// Opens the trail of a folder that exists, is root's, closed to other writers, and not in memory.
    ///
    /// # Errors
    /// [`TrailError::Folder`] says what is wrong and how to put it right.
    pub fn open(dir: &Path) -> Result<Self, TrailError> {
        let folder = Folder::open(dir)?;
        folder.check(dir)?;
        let boot_id =
            std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(TrailError::io("read the boot id"))?;
        Ok(Self { folder, boot_id: boot_id.trim().to_owned(), rotate_at: ROTATE_AT })
    }

    #[cfg(test)]
    pub(crate) fn rotating_at(mut self, size: u64) -> Self {
        self.rotate_at = size;
        self
    }

    /// Whether a start may count on the trail: lock, tail and room. Writes no record.
    ///
    /// # Errors
    /// What the fact `audit` is Unknown for. [`TrailError::NoRoom`] leaves room for the denial itself.
    pub fn can_append(&self) -> Result<(), TrailError> {
        let _lock = self.folder.lock()?;
        if self.folder.segments()?.1.iter().any(|name| name == SYNC_FAILED) {
            let why = format!(
                "a sync failed earlier, records may be lost on the disk; see to the disk, then remove the file {SYNC_FAILED}"
            );
            return Err(TrailError::Damaged(why));
        }
        let end = tail::find(&self.folder)?;
        self.reserve(&end.file, end.size)
    }

    /// Seconds since the epoch of the latest record ever made; `None` in an empty trail. It never goes back, not even
    /// when records are added after the clock was set back.
    ///
    /// # Errors
    /// As for [`Self::append`], but for the lock.
    pub fn last_time(&self) -> Result<Option<u64>, TrailError> {
        Ok(tail::look(&self.folder)?.map(|tail| tail.latest))
    }

    /// Adds a record. When this returns, the record has its place in the chain; it is on the disk after
    /// [`SyncHandle::sync`].
    ///
    /// # Errors
    /// Nothing is in the trail then, but perhaps a torn tail, which the next append repairs. The caller denies.
    pub fn append(&self, entry: &Entry) -> Result<Appended, TrailError> {
        let _lock = self.folder.lock()?;
        let mut end = tail::find(&self.folder)?;
        if end.size >= self.rotate_at && self.has_room_for_a_file() {
            end = self.rotate(end)?;
        }
        match self.reserve(&end.file, end.size) {
            // What is left of the reserve is for this record.
            Ok(()) | Err(TrailError::NoRoom(_)) => {}
            Err(error) => return Err(error),
        }
        let folder = self.folder.duplicate()?;
        let (record, file) = self.write(end, entry, None)?;
        Ok(Appended { seq: record.seq, id: record.id, sync: SyncHandle { file, folder } })
    }

    /// Closes the newest file and opens the next. Both are on the disk before anyone writes on.
    fn rotate(&self, end: End) -> Result<End, TrailError> {
        let entry = Entry { ev: Event::Rotate, ..Entry::default() };
        let next = |seq: u64| Segment::starting_at(seq + 1);
        let (record, file) = self.write(end, &entry, Some(&|seq| next(seq).name))?;
        file.sync_data().map_err(TrailError::io("fdatasync"))?;
        let file = self.folder.create(&next(record.seq))?;
        Ok(End { file, size: 0, tail: Tail::after(&record), torn: Vec::new() })
    }

    /// One write: the mark of a repair where one is due, then the record.
    fn write(
        &self,
        end: End,
        entry: &Entry,
        next: Option<&dyn Fn(u64) -> String>,
    ) -> Result<(Record, File), TrailError> {
        let stamp = clock::now()?;
        let mut bytes = Vec::new();
        let mut tail = end.tail.clone();
        if !end.torn.is_empty() {
            let (hash, length, newline) = end.torn_hash();
            if newline {
                bytes.push(b'\n');
            }
            let mark = Entry { ev: Event::Recovered, bytes: Some(length), ..Entry::default() };
            let mut record = place(&mark, &tail, &stamp, &self.boot_id);
            record.torn = hash;
            bytes.extend_from_slice(
                &to_line(&mut record).map_err(|e| TrailError::Io("write JSON", io::Error::other(e)))?,
            );
            tail = Tail::after(&record);
        }
        let (line, record) = match next {
            None => fit(entry, &tail, &stamp, &self.boot_id)?,
            Some(next) => {
                let mut record = place(entry, &tail, &stamp, &self.boot_id);
                record.next = next(record.seq);
                let line = to_line(&mut record).map_err(|e| TrailError::Io("write JSON", io::Error::other(e)))?;
                (line, record)
            }
        };
        bytes.extend_from_slice(&line);
        let mut file = end.file;
        loop {
            match file.write(&bytes) {
                Ok(n) if n == bytes.len() => return Ok((record, file)),
                Ok(_) => return Err(TrailError::Io("write the record", Errno::ENOSPC.into())),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TrailError::Io("write the record", error)),
            }
        }
    }

    /// Keeps room allocated behind the end of the file. Never moves the end: records are appended there.
    fn reserve(&self, file: &File, size: u64) -> Result<(), TrailError> {
        let allocated = file.metadata().map_err(TrailError::io("stat a file of the trail"))?.blocks() * 512;
        if allocated.saturating_sub(size) >= LEAST {
            return Ok(());
        }
        let (offset, length) = (i64::try_from(size).unwrap_or(i64::MAX), i64::try_from(RESERVE).unwrap_or(i64::MAX));
        match fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, offset, length) {
            Ok(()) => Ok(()),
            Err(Errno::ENOSPC | Errno::EDQUOT) => {
                Err(TrailError::NoRoom(format!("less than {} KiB free for records", RESERVE >> 10)))
            }
            // A file system without reservations: free space is all there is to go by.
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) if self.has_room_for_a_file() => Ok(()),
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Err(TrailError::NoRoom("little disk space is free".into())),
            Err(errno) => Err(TrailError::Io("reserve room", errno.into())),
        }
    }

    /// On a full disk the old file grows on: its reserve is worth more than its length.
    fn has_room_for_a_file(&self) -> bool {
        fstatvfs(self.folder.fd()).is_ok_and(|s| s.blocks_available().saturating_mul(s.fragment_size()) >= 4 * RESERVE)
    }
}

/// The record of an entry in its place, as short as it must be.
pub(crate) fn fit(entry: &Entry, tail: &Tail, stamp: &Stamp, boot_id: &str) -> Result<(Vec<u8>, Record), TrailError> {
    let mut length = 0;
    for facts in FACTS {
        let mut record = place(&entry.bounded(facts), tail, stamp, boot_id);
        record.more_findings = entry.more_findings();
        let line = to_line(&mut record).map_err(|e| TrailError::Io("write JSON", io::Error::other(e)))?;
        if line.len() <= MAX_LINE {
            return Ok((line, record));
        }
        length = line.len();
    }
    Err(TrailError::TooLong(length))
}

pub(crate) fn place(entry: &Entry, tail: &Tail, stamp: &Stamp, boot_id: &str) -> Record {
    let seq = tail.seq + 1;
    let entry = entry.clone();
    Record {
        v: VERSION,
        seq,
        ts: clock::rfc3339(stamp.wall_ns),
        boottime_ns: stamp.boottime_ns,
        boot_id: boot_id.to_owned(),
        latest: tail.latest.max(u64::try_from(stamp.wall_ns / 1_000_000_000).unwrap_or(u64::MAX)),
        ev: entry.ev,
        id: short_id(seq),
        of: entry.of,
        door: entry.door,
        decision: entry.decision,
        who: entry.who,
        what: entry.what,
        level: entry.level,
        integrity: entry.integrity,
        layers: entry.layers,
        findings: entry.findings,
        more_findings: None,
        policy: entry.policy,
        spec: entry.spec,
        version: entry.version,
        ms: entry.ms,
        cost: entry.cost,
        pid: entry.pid,
        status: entry.status,
        bytes: entry.bytes,
        anomaly: entry.anomaly,
        network: entry.network,
        at: entry.at_ns.map(|ns| clock::rfc3339(u128::from(ns))).unwrap_or_default(),
        note: entry.note,
        break_glass: entry.break_glass,
        torn: String::new(),
        next: String::new(),
        prev: tail.sum.clone(),
        sum: String::new(),
    }
}

/// Turns the number into 8 hex digits that do not look alike. Every step can be undone, so no two of 2^32 records share one.
fn short_id(seq: u64) -> String {
    let mut x = u32::try_from(seq & 0xffff_ffff).unwrap_or(0);
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^= x >> 16;
    hex(&x.to_be_bytes())
}
