//! Who makes or clears a container's folder: the one run that holds `lock` in it, from its making to the end of the
//! create. The kernel lets go of the lock when that run ends, however it ends.
//!
//! A create never waits: who comes second is refused. A delete waits a moment, ends the create that is still under way,
//! and goes on in any case: it must always work.
use crate::log::spill;
use crate::refuse::{Refused, Result};
use boltseal_evidence::record;
use boltseal_launch::Deleted;
use boltseal_message::Code;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const LOCK: &str = "lock";
/// How long a delete waits for a create to end by itself, and again after it was killed.
const PATIENCE: Duration = Duration::from_millis(50);
/// And for another delete.
const PATIENCE_FOR_A_DELETE: Duration = Duration::from_secs(2);
/// What a delete writes into the lock that it holds; a create writes its pid and start time.
const DELETE: &str = "delete";
/// How often a folder may vanish under a create before it gives up.
const ATTEMPTS: usize = 16;

/// The folder is this run's alone while this value lives.
#[must_use]
#[derive(Debug)]
pub(crate) struct Claim {
    folder: PathBuf,
    lock: File,
}

impl Drop for Claim {
    /// Also where a forked child still has a copy of the descriptor.
    fn drop(&mut self) {
        if let Err(e) = self.lock.unlock() {
            tracing::warn!("the lock of {} stays until this run ends: {e}", self.folder.display());
        }
    }
}

impl Claim {
    /// Kills what is left of the container and removes the folder.
    pub(crate) fn abandon(self, id: &str) -> Result<()> {
        clear(&self.folder, id)?;
        remove_folder(&self.folder)
    }
}

/// Makes the folder for a new container; it is empty. What a dead container or a crashed create left is removed first.
///
/// # Errors
/// `AlreadyExists` when a live container has it, or another create is making it at this moment; a record of which nobody
/// can say whether its container lives.
pub(crate) fn make(folder: &Path, id: &str) -> Result<Claim> {
    let failed = |e: io::Error| {
        Refused::because(Code::FailedPrecondition, format!("the state folder {} cannot be made: {e}", folder.display()))
    };
    let mut claim = taken(folder, id, failed)?;
    match record::load(folder) {
        Ok(found) if found.alive() => {
            return Err(Refused::because(Code::AlreadyExists, format!("the container {id} exists and runs")));
        }
        Err(problem) if !problem.missing => {
            let text = format!("the container {id} has a record that cannot be used: {problem}");
            return Err(Refused::because(Code::FailedPrecondition, text));
        }
        Ok(_) | Err(_) => clear(folder, id)?,
    }
    sign(&mut claim.lock).map_err(failed)?;
    Ok(claim)
}

/// Whether a run that makes or clears that folder holds its lock, or may: what cannot be looked at counts as held. The
/// look itself holds it for a moment, which a delete waits for; creates of a node with sensitivities take turns.
pub(crate) fn is_held(folder: &Path) -> bool {
    let lock = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(folder.join(LOCK));
    match lock {
        // No create came as far as launching here. One that begins now takes its turn after ours; one under an older policy
        // without levels is stopped at its Start, for the policy's files changed.
        Err(e) if e.kind() == ErrorKind::NotFound => false,
        Err(_) => true,
        Ok(lock) => lock.try_lock_shared().and_then(|()| lock.unlock().map_err(TryLockError::Error)).is_err(),
    }
}

/// Kills what is left of the container and removes all state. Idempotent; with or without the lock.
pub(crate) fn remove(folder: &Path, id: &str) -> Result<()> {
    // No folder of ours, and nothing that it leads to either.
    if std::fs::symlink_metadata(folder).is_ok_and(|found| !found.is_dir()) {
        return remove_any(folder)
            .map_err(|e| Refused::internal(format!("{} cannot be removed: {e}", folder.display())));
    }
    // Held until the folder is gone: a create that comes meanwhile waits for nothing and makes its own.
    let _lock = match Waiting::open(folder) {
        Some(waiting) => waiting.get(),
        None if !folder.exists() => return Ok(()),
        None => None,
    };
    clear(folder, id)?;
    remove_folder(folder)
}

/// Makes the folder if need be and locks it.
fn taken(folder: &Path, id: &str, failed: impl Fn(io::Error) -> Refused) -> Result<Claim> {
    let builder = |recursive: bool| {
        let mut builder = DirBuilder::new();
        builder.mode(0o700).recursive(recursive);
        builder
    };
    builder(true).create(folder.parent().unwrap_or(folder)).map_err(&failed)?;
    for _ in 0..ATTEMPTS {
        match builder(false).create(folder) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(failed(e)),
            _ => {}
        }
        let lock = match open(folder) {
            // A delete was quicker.
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            other => other.map_err(&failed)?,
        };
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let text = format!("another request makes or removes the container {id} at this moment");
                return Err(Refused::because(Code::AlreadyExists, text));
            }
            Err(TryLockError::Error(e)) => return Err(failed(e)),
            Ok(()) => {}
        }
        if in_place(folder, &lock) {
            return Ok(Claim { folder: folder.to_owned(), lock });
        }
    }
    Err(failed(io::Error::other("it is removed again and again")))
}

fn open(folder: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW;
    OpenOptions::new().read(true).write(true).create(true).mode(0o600).custom_flags(flags).open(folder.join(LOCK))
}

/// Whether what was locked is still what a next one would lock.
fn in_place(folder: &Path, lock: &File) -> bool {
    let object = |m: std::fs::Metadata| (m.dev(), m.ino());
    let (Ok(ours), Ok(there)) = (lock.metadata(), std::fs::symlink_metadata(folder.join(LOCK))) else { return false };
    object(ours) == object(there)
}

/// Says who holds it: pid and start time, which no other process shares.
fn sign(lock: &mut File) -> io::Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let start = record::start_time(&stat).ok_or_else(|| io::Error::other("/proc/self/stat has no start time"))?;
    lock.set_len(0)?;
    lock.write_all(format!("{} {start}", std::process::id()).as_bytes())
}

/// A delete in front of a lock.
struct Waiting {
    lock: File,
}

impl Waiting {
    fn open(folder: &Path) -> Option<Self> {
        // Only one that is there: a folder without it is an older version's, or made by nobody.
        let lock = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(folder.join(LOCK));
        Some(Self { lock: lock.ok()? })
    }

    /// The lock, or none after twice the patience.
    fn get(self) -> Option<File> {
        if !self.within(PATIENCE) {
            self.end_holder();
            // Another delete does what this one would, and may be waiting for a cgroup to empty: side by side they would fail.
            let patience = if self.holder() == DELETE { PATIENCE_FOR_A_DELETE } else { PATIENCE };
            if !self.within(patience) {
                return None;
            }
        }
        // For the next delete. Where nothing can be written it only waits less.
        if let Err(e) = self.lock.set_len(0).and_then(|()| self.lock.write_all_at(DELETE.as_bytes(), 0)) {
            tracing::debug!("the lock is not signed: {e}");
        }
        Some(self.lock)
    }

    /// What whoever took the lock wrote into it.
    fn holder(&self) -> String {
        let mut text = [0; 64];
        let read = self.lock.read_at(&mut text, 0).unwrap_or(0);
        String::from_utf8_lossy(text.get(..read).unwrap_or_default()).into_owned()
    }

    fn within(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        loop {
            match self.lock.try_lock() {
                Ok(()) => return true,
                Err(TryLockError::WouldBlock) if Instant::now() < until => {}
                Err(_) => return false,
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Nobody wants any more what that create makes. Only the very process that signed is killed.
    fn end_holder(&self) {
        let text = self.holder();
        let Some((pid, start)) = text.split_once(' ') else { return };
        let (Ok(pid), Ok(start)) = (pid.parse::<i32>(), start.parse::<u64>()) else { return };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let is_us = u32::try_from(pid) == Ok(std::process::id());
        let signed = pid > 1 && !is_us && record::start_time(&stat) == Some(start);
        if signed && let Err(e) = kill(Pid::from_raw(pid), Signal::SIGKILL) {
            tracing::warn!("the create {pid} cannot be ended: {e}");
        }
    }
}

/// Kills what is left of the container and removes everything but the lock. Where the launch's own record cannot be used,
/// ours may still tell the cgroup.
fn clear(folder: &Path, id: &str) -> Result<()> {
    let ours = record::load(folder).ok().filter(|ours| ours.id == id);
    let deleted = boltseal_launch::delete(folder, id, ours.as_ref().map(|ours| ours.cgroup_path.as_str()))
        .map_err(|e| Refused::internal(format!("the container {id} cannot be removed: {e}")))?;
    if deleted == Deleted::Blind {
        spill(&format!(
            "boltseal: every record of the container {id} was unusable: its files are removed, and what may still run of it was not ended"
        ));
    }
    entries(folder)
        .map_err(|e| Refused::internal(format!("the state folder {} cannot be cleared: {e}", folder.display())))
}

fn entries(folder: &Path) -> io::Result<()> {
    let list = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in list {
        let entry = entry?;
        if entry.file_name() == LOCK {
            continue;
        }
        remove_any(&entry.path())?;
    }
    Ok(())
}

fn remove_any(path: &Path) -> io::Result<()> {
    gone(match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        _ => std::fs::remove_file(path),
    })
}

/// The lock's file goes last but one: who finds the folder without it makes and locks a new one, and then the folder stays.
fn remove_folder(folder: &Path) -> Result<()> {
    let removed = remove_any(&folder.join(LOCK)).and_then(|()| gone(std::fs::remove_dir(folder)));
    match removed {
        Err(e) if e.kind() == ErrorKind::DirectoryNotEmpty && folder.join(LOCK).exists() => Ok(()),
        Err(e) => Err(Refused::internal(format!("the state folder {} cannot be removed: {e}", folder.display()))),
        Ok(()) => Ok(()),
    }
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
