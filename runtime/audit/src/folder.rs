//! The folder of the trail: its checks, its lock, its files. Everything goes through one folder descriptor.
use crate::TrailError;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use nix::sys::statfs::{FsType, TMPFS_MAGIC, fstatfs};
use std::fs::{File, TryLockError};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long an append waits for other writers: a stopped process must not stop the node's starts for ever unseen.
pub(crate) const LOCK_DEADLINE: Duration = Duration::from_secs(2);
/// Left in the folder when a sync failed: the kernel tells of a lost page once, and the next run would not know.
pub(crate) const SYNC_FAILED: &str = "sync-failed";
/// `RAMFS_MAGIC` of linux/magic.h.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);
/// So many files of 64 MiB are more than a disk of a node holds; a bound, not a target.
const MAX_FILES: usize = 100_000;

#[derive(Debug)]
pub(crate) struct Folder {
    fd: OwnedFd,
}

/// A file of the trail by its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Segment {
    /// Number of its first record, as its name says.
    pub(crate) first: u64,
    pub(crate) name: String,
}

impl Segment {
    pub(crate) fn starting_at(first: u64) -> Self {
        Self { first, name: format!("audit-{first:012}.jsonl") }
    }

    fn parse(name: &str) -> Option<Self> {
        let digits = name.strip_prefix("audit-")?.strip_suffix(".jsonl")?;
        let first = digits.parse().ok()?;
        let segment = Self::starting_at(first);
        (segment.name == name).then_some(segment)
    }
}

/// Held while a record is placed. Closing the descriptor lets go; it is never inherited by an exec'd program.
#[derive(Debug)]
pub(crate) struct Lock {
    _folder: File,
}

impl Folder {
    /// Opens without judging it: for readers.
    pub(crate) fn open(path: &Path) -> Result<Self, TrailError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(AT_FDCWD, path, flags, Mode::empty()) {
            Ok(fd) => Ok(Self { fd }),
            Err(Errno::ENOENT) => {
                Err(TrailError::Folder(format!("{0} is missing. Fix: install -d -m 0700 {0}", path.display())))
            }
            Err(Errno::ENOTDIR | Errno::ELOOP) => {
                Err(TrailError::Folder(format!("{} is not a folder", path.display())))
            }
            Err(errno) => Err(TrailError::Io("open the folder", errno.into())),
        }
    }

    /// A folder that only root may change, on a file system that survives a restart.
    pub(crate) fn check(&self, path: &Path) -> Result<(), TrailError> {
        let meta = self.reopen()?.metadata().map_err(TrailError::io("stat the folder"))?;
        let path = path.display();
        if meta.uid() != 0 {
            return Err(TrailError::Folder(format!("{path} belongs to uid {}. Fix: chown root {path}", meta.uid())));
        }
        if meta.mode() & 0o022 != 0 {
            return Err(TrailError::Folder(format!(
                "{path} is writable by others (mode {:o}). Fix: chmod 0700 {path}",
                meta.mode() & 0o7777
            )));
        }
        let kind = fstatfs(&self.fd).map_err(TrailError::sys("statfs"))?.filesystem_type();
        if kind == TMPFS_MAGIC || kind == RAMFS_MAGIC {
            return Err(TrailError::Folder(format!(
                "{path} is in memory (tmpfs) and would be lost. Fix: put it on a disk"
            )));
        }
        Ok(())
    }

    /// A descriptor of its own: locks belong to the open file, not to the process.
    fn reopen(&self) -> Result<File, TrailError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        openat(&self.fd, ".", flags, Mode::empty()).map(File::from).map_err(TrailError::sys("open the folder"))
    }

    pub(crate) fn lock(&self) -> Result<Lock, TrailError> {
        let folder = self.reopen()?;
        let deadline = Instant::now() + LOCK_DEADLINE;
        let mut pause = Duration::from_micros(100);
        loop {
            match folder.try_lock() {
                Ok(()) => return Ok(Lock { _folder: folder }),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(pause),
                Err(TryLockError::WouldBlock) => return Err(TrailError::Locked),
                Err(TryLockError::Error(error)) => return Err(TrailError::Io("lock the folder", error)),
            }
            pause = (pause * 2).min(Duration::from_millis(4));
        }
    }

    /// The trail's files, oldest first, and the names that are none.
    pub(crate) fn segments(&self) -> Result<(Vec<Segment>, Vec<String>), TrailError> {
        let mut dir = Dir::from_fd(self.reopen()?.into()).map_err(TrailError::sys("read the folder"))?;
        let (mut segments, mut others) = (Vec::new(), Vec::new());
        for entry in dir.iter() {
            let entry = entry.map_err(TrailError::sys("read the folder"))?;
            let name = entry.file_name().to_string_lossy();
            if name == "." || name == ".." {
                continue;
            }
            match Segment::parse(&name) {
                Some(segment) => segments.push(segment),
                None => others.push(name.into_owned()),
            }
            if segments.len() + others.len() > MAX_FILES {
                return Err(TrailError::Folder(format!("more than {MAX_FILES} entries")));
            }
        }
        segments.sort();
        others.sort();
        Ok((segments, others))
    }

    /// Opens a file of the trail to go on with it; refuses what is not a plain root-only file.
    pub(crate) fn open_segment(&self, segment: &Segment, write: bool) -> Result<File, TrailError> {
        let mode = if write { OFlag::O_RDWR | OFlag::O_APPEND } else { OFlag::O_RDONLY };
        match self.open_file(segment, mode)? {
            (file, None) => Ok(file),
            (_, Some(odd)) => Err(TrailError::Damaged(format!("{} {odd}", segment.name))),
        }
    }

    /// Opens a file of the trail to look at it, and says what is odd about it.
    pub(crate) fn read_segment(&self, segment: &Segment) -> Result<(File, Option<String>), TrailError> {
        self.open_file(segment, OFlag::O_RDONLY)
    }

    fn open_file(&self, segment: &Segment, mode: OFlag) -> Result<(File, Option<String>), TrailError> {
        let flags = mode | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let fd = openat(&self.fd, segment.name.as_str(), flags, Mode::empty())
            .map_err(TrailError::sys("open a file of the trail"))?;
        let file = File::from(fd);
        let meta = file.metadata().map_err(TrailError::io("stat a file of the trail"))?;
        let odd = !meta.is_file() || meta.uid() != 0 || meta.mode() & 0o077 != 0 || meta.nlink() != 1;
        let (mode, uid, links) = (meta.mode(), meta.uid(), meta.nlink());
        Ok((file, odd.then(|| format!("is not a plain root-only file (mode {mode:o}, uid {uid}, {links} links)"))))
    }

    /// Makes the next file; it is there after a power cut too.
    pub(crate) fn create(&self, segment: &Segment) -> Result<File, TrailError> {
        let flags = OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let fd = openat(&self.fd, segment.name.as_str(), flags, mode)
            .map_err(TrailError::sys("make a file of the trail"))?;
        self.reopen()?.sync_all().map_err(TrailError::io("sync the folder"))?;
        Ok(File::from(fd))
    }

    /// A descriptor to leave the mark with, later.
    pub(crate) fn duplicate(&self) -> Result<OwnedFd, TrailError> {
        self.fd.try_clone().map_err(TrailError::io("duplicate the folder"))
    }

    pub(crate) fn fd(&self) -> impl AsFd + '_ {
        self.fd.as_fd()
    }
}

/// Leaves the mark that a sync failed.
pub(crate) fn mark_failed_sync(folder: &OwnedFd) -> nix::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(folder, SYNC_FAILED, flags, Mode::S_IRUSR | Mode::S_IWUSR).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(Segment::parse("audit-000000000001.jsonl"), Some(Segment::starting_at(1)));
        assert_eq!(Segment::parse("audit-1234567890123.jsonl").map(|s| s.first), Some(1_234_567_890_123));
        for bad in [
            "audit-1.jsonl",
            "audit-0000000000001.jsonl",
            "audit-000000000001.jsonl.gz",
            "audit-+00000000001.jsonl",
            "x",
        ] {
            assert_eq!(Segment::parse(bad), None, "{bad}");
        }
    }
}
