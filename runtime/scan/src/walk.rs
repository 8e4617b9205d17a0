//! The worker's walk through its root: every name once, by descriptors of folders, through no link.
use crate::answer::{Answer, Seen, encode, encode_progress};
use crate::peek::{OVERLAP, Peek};
use crate::{Progress, capability, names};
use boltseal_jail::Tell;
use boltseal_policy::facts::FoundKind;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RawDir, Stat, fgetxattr, lgetxattr, openat, readlinkat, statat,
};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;

/// Bounds of one scan. Beyond one of them there is no result.
#[derive(Debug, Clone)]
pub struct Limits {
    pub entries: u64,
    /// Of folders within each other.
    pub depth: usize,
    /// Bytes of names that wait to be looked at.
    pub waiting: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 1_000_000, depth: 200, waiting: 64 << 20 }
    }
}

/// Found files that are listed of each kind; the others are counted.
pub(crate) const LISTED: usize = 32;
/// Between two words of how far it is.
const TOLD_EVERY: u64 = 2_000;
/// Of one program, as much is looked through; none of the multicall binaries has a tenth of it.
const MAX_PROGRAM: u64 = 64 << 20;
const PART: usize = 256 << 10;
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// A fifo in the file's place does not make it wait.
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// What the root that the worker has holds, or why that cannot be told.
pub(crate) fn walk(limits: &Limits, tell: Tell<'_>) -> Vec<u8> {
    let mut walk = Walk {
        limits,
        tell,
        answer: Answer::default(),
        peek: Peek::default(),
        buffer: vec![0; PART],
        path: Vec::new(),
    };
    let ended = walk.all();
    encode(&ended.map(|()| walk.answer))
}

struct Walk<'a> {
    limits: &'a Limits,
    tell: Tell<'a>,
    answer: Answer,
    peek: Peek,
    buffer: Vec<u8>,
    /// Of the folder that it is in.
    path: Vec<u8>,
}

/// A folder whose names are being looked at.
struct Open {
    fd: OwnedFd,
    /// Length of the path before it.
    before: usize,
    names: Vec<CString>,
}

type Done<T> = Result<T, String>;

impl Walk<'_> {
    fn all(&mut self) -> Done<()> {
        let root = openat(CWD, "/", FOLDER, Mode::empty()).map_err(|e| self.failed("opened", e))?;
        let mut open = vec![self.opened(root, 0, 0)?];
        let mut waiting = 0;
        while let Some(folder) = open.last_mut() {
            let Some(name) = folder.names.pop() else {
                let done = open.pop();
                self.path.truncate(done.map_or(0, |done| done.before));
                if let Some(above) = open.last() {
                    fchdir(&above.fd).map_err(|e| self.failed("entered", e))?;
                }
                continue;
            };
            let stat = match statat(&folder.fd, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // A whiteout in a folder that one layer alone has: an overlay lists it, and has nothing there.
                Err(Errno::NOENT) => continue,
                Err(e) => return Err(self.named(&name).failed("examined", e)),
            };
            self.counted(&stat)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                self.look(folder.fd.as_fd(), &name, &stat)?;
                continue;
            }
            let fd =
                openat(&folder.fd, &name, FOLDER, Mode::empty()).map_err(|e| self.named(&name).failed("opened", e))?;
            let before = self.path.len();
            self.path.push(b'/');
            self.path.extend_from_slice(name.to_bytes());
            if open.len() >= self.limits.depth {
                return Err(format!("folders lie more than {} deep at {}", self.limits.depth, self.here()));
            }
            waiting += name.to_bytes().len();
            if waiting > self.limits.waiting {
                return Err("the names of its folders are too long".into());
            }
            let next = self.opened(fd, before, open.iter().map(|o| o.names.len()).sum())?;
            open.push(next);
        }
        Ok(())
    }

    /// Its names, read at once: the walk goes on in it later.
    fn opened(&mut self, fd: OwnedFd, before: usize, others: usize) -> Done<Open> {
        fchdir(&fd).map_err(|e| self.failed("entered", e))?;
        let mut room = vec![MaybeUninit::uninit(); 64 << 10];
        let mut entries = RawDir::new(&fd, &mut room);
        let mut names = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(|e| self.failed("listed", e))?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            names.push(name.to_owned());
            let known = self.answer.entries.saturating_add(u64::try_from(names.len() + others).unwrap_or(u64::MAX));
            if known > self.limits.entries {
                return Err(too_many(self.limits));
            }
        }
        Ok(Open { fd, before, names })
    }

    fn counted(&mut self, stat: &Stat) -> Done<()> {
        self.answer.entries += 1;
        if self.answer.entries > self.limits.entries {
            return Err(too_many(self.limits));
        }
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            self.answer.bytes = self.answer.bytes.saturating_add(u64::try_from(stat.st_size).unwrap_or_default());
        }
        if self.answer.entries.is_multiple_of(TOLD_EVERY) {
            (self.tell)(&encode_progress(Progress { entries: self.answer.entries, bytes: self.answer.bytes }));
        }
        Ok(())
    }

    /// What is no folder. The folder is the working directory, for the one call that knows no descriptor.
    fn look(&mut self, folder: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Done<()> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice | FileType::BlockDevice => {
                let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
                let block = FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice;
                self.found(FoundKind::Device, name, format!("{} {major}:{minor}", if block { "b" } else { "c" }));
            }
            FileType::Symlink => self.link(folder, name)?,
            FileType::RegularFile => self.file(folder, name, stat)?,
            // Fifos and sockets hold nothing.
            _ => {}
        }
        Ok(())
    }

    /// A link counts where its name says so and an executable file is at its end. The root is the image's: it leads to what
    /// the container would find.
    fn link(&mut self, folder: BorrowedFd<'_>, name: &CStr) -> Done<()> {
        let Some(kind) = names::kind(name.to_bytes()) else { return Ok(()) };
        let end = match statat(folder, name, AtFlags::empty()) {
            Ok(end) => end,
            // It leads nowhere, in a circle, or through a file.
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NAMETOOLONG) => return Ok(()),
            Err(e) => return Err(self.named(name).failed("followed", e)),
        };
        if is_executable(&end) {
            let target = readlinkat(folder, name, Vec::new()).map_err(|e| self.named(name).failed("read", e))?;
            self.found(kind, name, format!("-> {}", target.to_string_lossy()));
        }
        Ok(())
    }

    fn file(&mut self, folder: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Done<()> {
        if stat.st_mode & 0o6000 != 0 {
            self.found(FoundKind::Setuid, name, format!("mode {:o}", stat.st_mode & 0o7777));
        }
        let mut known = names::kind(name.to_bytes()).filter(|_| is_executable(stat));
        let mut note = String::new();
        let mut value = [0_u8; 64];
        let attribute = if is_executable(stat) {
            let fd = openat(folder, name, FILE, Mode::empty()).map_err(|e| self.named(name).failed("opened", e))?;
            if known.is_none()
                && let Some(multicall) =
                    self.multicall(fd.as_fd(), stat).map_err(|e| self.named(name).failed("read", e))?
            {
                (known, note) = (Some(FoundKind::Shell), format!("is {multicall}"));
            }
            fgetxattr(&fd, capability::NAME, &mut value)
        } else {
            lgetxattr(name, capability::NAME, &mut value)
        };
        match attribute {
            Ok(length) => {
                let shown = capability::shown(value.get(..length).unwrap_or_default());
                self.found(FoundKind::FileCapability, name, shown);
            }
            // Longer than any that the kernel takes, and one all the same.
            Err(Errno::RANGE) => self.found(FoundKind::FileCapability, name, "malformed".into()),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            // Of another user namespace: the kernel hides what it says.
            Err(Errno::OVERFLOW) => self.found(FoundKind::FileCapability, name, "of another user namespace".into()),
            Err(e) => return Err(self.named(name).failed("examined", e)),
        }
        if let Some(kind) = known {
            self.found(kind, name, note);
        }
        Ok(())
    }

    fn multicall(&mut self, fd: BorrowedFd<'_>, stat: &Stat) -> Result<Option<&'static str>, Errno> {
        let end = u64::try_from(stat.st_size).unwrap_or_default().min(MAX_PROGRAM);
        let (mut at, mut kept) = (0, 0);
        self.peek.begin();
        while at < end {
            let read = rustix::io::pread(fd, self.buffer.get_mut(kept..).unwrap_or_default(), at)?;
            if read == 0 {
                break;
            }
            let filled = kept + read;
            let part = self.buffer.get(..filled).unwrap_or_default();
            if at == 0 && !Peek::is_elf(part) {
                return Ok(None);
            }
            self.peek.part(part);
            if let Some(name) = self.peek.name() {
                return Ok(Some(name));
            }
            at = at.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
            kept = filled.min(OVERLAP);
            self.buffer.copy_within(filled - kept..filled, 0);
        }
        Ok(None)
    }

    fn found(&mut self, kind: FoundKind, name: &CStr, note: String) {
        if self.answer.found.iter().filter(|f| f.kind == kind).count() < LISTED {
            let path = [&self.path, b"/".as_slice(), name.to_bytes()].concat();
            self.answer.found.push(Seen { kind, path, note });
        } else if let Some(more) = self.answer.more.get_mut(kind.place()) {
            *more += 1;
        }
    }

    fn named(&mut self, name: &CStr) -> &mut Self {
        self.path.push(b'/');
        self.path.extend_from_slice(name.to_bytes());
        self
    }

    fn failed(&self, what: &str, errno: Errno) -> String {
        format!("{} cannot be {what}: {errno}", self.here())
    }

    fn here(&self) -> String {
        let shown: String = String::from_utf8_lossy(&self.path).chars().rev().take(80).collect();
        let shown: String = shown.chars().rev().collect();
        if self.path.len() > 80 {
            format!("..{shown}")
        } else if shown.is_empty() {
            "/".into()
        } else {
            shown
        }
    }
}

fn too_many(limits: &Limits) -> String {
    format!("it has more than {} entries", limits.entries)
}

fn is_executable(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_mode & 0o111 != 0
}

fn fchdir(fd: &OwnedFd) -> Result<(), Errno> {
    nix::unistd::fchdir(fd).map_err(|e| Errno::from_raw_os_error(e as i32))
}
