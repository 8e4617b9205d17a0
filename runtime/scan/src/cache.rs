//! Results that are kept: a folder per chain id below `/var/lib/boltseal/scan/sha256`, a file per integrity level in it.
//!
//! Only root can write there, and a result is whole and of these very layers or none: a sum over its bytes, the scanner's
//! number, the chain id, the level, and which folders or sealed devices were scanned. Layers that were unpacked anew are scanned anew.
use crate::answer::{self, Answer};
use crate::{SCANNER, layers::Layers};
use boltseal_evidence::file::{Folder, Owner};
use boltseal_policy::facts::{Scan, ScannedFrom};
use ring::digest::{SHA256, digest};
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Results kept at most; beyond it the oldest go.
const MOST: usize = 1024;
/// Largest file: an answer, and what it is of.
const MAX: u64 = (answer::MAX + (64 << 10)) as u64;
const HEAD: &str = "boltseal-scan ";

/// Of what a result is.
#[derive(Debug)]
pub(crate) struct Key<'a> {
    pub(crate) chain_id: &'a str,
    pub(crate) integrity: &'a str,
    pub(crate) identity: String,
}

/// A result as it was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cached {
    pub chain_id: String,
    pub integrity: String,
    pub identity: String,
    pub answer: Answer,
}

/// The folder of one chain id.
#[derive(Debug)]
pub(crate) struct Room {
    cache: PathBuf,
    folder: PathBuf,
    open: Folder,
}

/// While it lives nobody else scans that image.
#[must_use]
#[derive(Debug)]
pub(crate) struct Turn(File);

impl Drop for Turn {
    /// Also where a forked child still has a copy of the descriptor.
    fn drop(&mut self) {
        if let Err(e) = self.0.unlock() {
            tracing::warn!("the lock on a scan stays until this run ends: {e}");
        }
    }
}

impl Room {
    /// Made if it is not there.
    pub(crate) fn open(cache: &Path, chain_id: &str) -> Result<Self, String> {
        let hex = chain_id.strip_prefix("sha256:").filter(|hex| hex.len() == 64 && hex.bytes().all(is_hex));
        let hex = hex.ok_or("the chain id is no sha256 digest")?;
        let folder = cache.join(hex);
        let open = match Folder::open(&folder, Owner::RootPrivate) {
            Err(problem) if problem.missing => {
                let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
                made.map_err(|e| format!("{}: {e}", folder.display()))?;
                Folder::open(&folder, Owner::RootPrivate)
            }
            other => other,
        };
        Ok(Self { cache: cache.to_owned(), folder, open: open.map_err(|problem| problem.to_string())? })
    }

    /// The result of exactly that key.
    pub(crate) fn kept(&self, key: &Key<'_>, layers: &Layers<'_>) -> Option<Scan> {
        let name = file_name(key.integrity)?;
        let bytes = match self.open.read(name, MAX, Owner::RootPrivate) {
            Ok((bytes, _)) => bytes,
            Err(problem) if problem.missing => return None,
            Err(problem) => {
                tracing::warn!("a kept scan cannot be read, it is made anew: {problem}");
                return None;
            }
        };
        match decode(&bytes) {
            Ok(kept) => {
                let is = (kept.chain_id.as_str(), kept.integrity.as_str(), &kept.identity);
                (is == (key.chain_id, key.integrity, &key.identity))
                    .then(|| scan(&kept.answer, ScannedFrom::Cached, layers))
            }
            Err(why) => {
                tracing::warn!("a kept scan of {} does not count, it is made anew: {why}", key.chain_id);
                None
            }
        }
    }

    /// Waits for whoever scans this image now.
    ///
    /// # Errors
    /// It did not end in time, or there can be no lock.
    pub(crate) fn turn(&self, deadline: Instant) -> Result<Turn, String> {
        let failed = |e: std::io::Error| format!("{}: {e}", self.folder.display());
        let open = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_DIRECTORY).open(&self.folder);
        let folder = open.map_err(failed)?;
        loop {
            match folder.try_lock() {
                Ok(()) => return Ok(Turn(folder)),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err("timeout: another start scans this image and goes on".into());
                }
                Err(TryLockError::Error(e)) => return Err(failed(e)),
            }
        }
    }

    /// Puts a result there by one rename. It need not be durable: what a crash leaves of it does not count.
    pub(crate) fn keep(&self, key: &Key<'_>, answer: &Answer) -> Result<(), String> {
        let name = file_name(key.integrity).ok_or("the integrity level is no name")?;
        let new = self.folder.join(".new");
        let failed = |e: std::io::Error| format!("{}: {e}", new.display());
        match std::fs::remove_file(&new) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(failed)?;
        file.write_all(&encode(key, answer)).map_err(failed)?;
        std::fs::rename(&new, self.folder.join(name)).map_err(failed)?;
        self.thin_out();
        Ok(())
    }

    /// Results of images that are long gone.
    fn thin_out(&self) {
        let Ok(entries) = std::fs::read_dir(&self.cache) else { return };
        let age =
            |entry: &std::fs::DirEntry| entry.metadata().and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut all: Vec<_> = entries.flatten().map(|entry| (age(&entry), entry.path())).collect();
        all.sort();
        for (_, old) in all.iter().take(all.len().saturating_sub(MOST)) {
            if let Err(e) = std::fs::remove_dir_all(old) {
                tracing::warn!("an old scan stays: {}: {e}", old.display());
            }
        }
    }
}

/// A worker's answer as a fact.
pub(crate) fn scan(answer: &Answer, from: ScannedFrom, layers: &Layers<'_>) -> Scan {
    let found = answer.found.iter().map(|seen| layers.place(seen)).collect();
    Scan { from, entries: answer.entries, bytes: answer.bytes, found, more: answer.more }
}

fn encode(key: &Key<'_>, answer: &Answer) -> Vec<u8> {
    let mut body = format!("{}\n{}\n{}\n", key.chain_id, key.integrity, key.identity).into_bytes();
    body.extend(answer::encode(&Ok(answer.clone())));
    let mut out = format!("{HEAD}{SCANNER} {}\n", sum(&body)).into_bytes();
    out.extend(body);
    out
}

/// Reads what [`Room::keep`] wrote.
///
/// # Errors
/// Why it does not count.
pub fn decode(bytes: &[u8]) -> Result<Cached, String> {
    let newline = bytes.iter().position(|b| *b == b'\n').ok_or("it has no first line")?;
    let (head, body) = bytes.split_at(newline);
    let body = body.get(1..).unwrap_or_default();
    if head != format!("{HEAD}{SCANNER} {}", sum(body)).as_bytes() {
        return Err("it is torn, altered or of another version".into());
    }
    let mut lines = body.splitn(4, |b| *b == b'\n');
    let mut line = || lines.next().and_then(|line| std::str::from_utf8(line).ok()).map(str::to_owned);
    let (Some(chain_id), Some(integrity), Some(identity)) = (line(), line(), line()) else {
        return Err("it is short".into());
    };
    let answer = answer::decode(lines.next().unwrap_or_default())?;
    Ok(Cached { chain_id, integrity, identity, answer })
}

fn sum(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

fn file_name(integrity: &str) -> Option<&str> {
    let plain =
        !integrity.is_empty() && integrity.len() < 64 && integrity.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    plain.then_some(integrity)
}
