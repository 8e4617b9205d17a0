//! Reads files that only root may have written: by folder fd, never through a link, bounded, and unchanged meanwhile.
use boltseal_message::FileStamp;
use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use ring::digest;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// What is wrong with a file or a folder: one that names the file, the fact and the fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub file: PathBuf,
    pub fact: String,
    pub fix: String,
    /// It is not there at all.
    pub missing: bool,
}

impl Problem {
    pub(crate) fn new(file: &Path, fact: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { file: file.to_owned(), fact: fact.into(), fix: fix.into(), missing: false }
    }

    fn errno(file: &Path, what: &str, errno: nix::errno::Errno) -> Self {
        use nix::errno::Errno;
        let (fact, fix) = match errno {
            Errno::ENOENT => ("does not exist".to_owned(), "create it"),
            Errno::ELOOP => ("is a symbolic link".to_owned(), "put the file itself there"),
            Errno::ENOTDIR => ("is not a folder".to_owned(), "make it a folder, not a link or a file"),
            other => (format!("cannot be {what}: {}", other.desc()), "repair it"),
        };
        Self { missing: errno == Errno::ENOENT, ..Self::new(file, fact, fix) }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}. Fix: {}", self.file.display(), self.fact, self.fix)
    }
}

impl std::error::Error for Problem {}

/// Who may have written it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Owned by root, not writable by group or others.
    Root,
    /// Owned by root, no access at all for group and others.
    RootPrivate,
    /// Not asked.
    Any,
}

/// An open folder and the path that led to it, for messages.
#[derive(Debug)]
pub struct Folder {
    pub fd: OwnedFd,
    pub path: PathBuf,
}

const FOLDER: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
// O_NONBLOCK: a fifo in the file's place does not make us wait.
const FILE: OFlag = OFlag::O_RDONLY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC).union(OFlag::O_NONBLOCK);

impl Folder {
    /// Opens an absolute path from `/` down, one component at a time, through no link. Every folder on the way is
    /// root's and not writable by others (one with the sticky bit may be: nobody else can replace what root has there);
    /// the last one must meet `owner`.
    ///
    /// # Errors
    /// The folder on the way that is wrong.
    pub fn open(path: &Path, owner: Owner) -> Result<Self, Problem> {
        let mut here = Self {
            fd: open("/", FOLDER, Mode::empty()).map_err(|e| Problem::errno(path, "opened", e))?,
            path: "/".into(),
        };
        let names: Vec<_> = path.components().collect();
        if names.first() != Some(&Component::RootDir) {
            return Err(Problem::new(path, "is not an absolute path", "name the whole path"));
        }
        for name in names.iter().skip(1) {
            let Component::Normal(name) = name else {
                return Err(Problem::new(path, "holds `..`", "name the whole path"));
            };
            if owner != Owner::Any {
                here.check(Owner::Root, true)?;
            }
            here = here.folder(name.as_ref())?;
        }
        here.check(owner, false)?;
        Ok(here)
    }

    /// Opens a folder in this one; it must not be a link. Its owner is not checked.
    ///
    /// # Errors
    /// Missing, a link, not a folder.
    pub fn folder(&self, name: &Path) -> Result<Self, Problem> {
        let path = self.path.join(name);
        let fd = openat(&self.fd, name, FOLDER, Mode::empty()).map_err(|e| Problem::errno(&path, "opened", e))?;
        Ok(Self { fd, path })
    }

    /// Owner and mode of the folder itself. With `sticky` a folder that others may write to passes if it has that bit.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, owner: Owner, sticky: bool) -> Result<(), Problem> {
        let stat = fstat(&self.fd).map_err(|e| Problem::errno(&self.path, "examined", e))?;
        check(&self.path, &stat, owner, sticky)
    }

    /// # Errors
    /// When it cannot be examined.
    pub fn stamp(&self) -> Result<FileStamp, Problem> {
        let stat = fstat(&self.fd).map_err(|e| Problem::errno(&self.path, "examined", e))?;
        Ok(stamp(&self.path, &stat))
    }

    /// Names in the folder, sorted; at most `most`.
    ///
    /// # Errors
    /// More than `most`, a name that is not UTF-8, or the folder cannot be read.
    pub fn names(&self, most: usize) -> Result<Vec<String>, Problem> {
        // A description of its own, so that the position of a reader elsewhere does not matter.
        let own = openat(&self.fd, ".", FOLDER, Mode::empty()).map_err(|e| Problem::errno(&self.path, "opened", e))?;
        let mut dir = Dir::from_fd(own).map_err(|e| Problem::errno(&self.path, "read", e))?;
        let mut names = Vec::new();
        for entry in dir.iter() {
            let entry = entry.map_err(|e| Problem::errno(&self.path, "read", e))?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let name = std::str::from_utf8(name)
                .map_err(|_| Problem::new(&self.path, "holds a name that is not UTF-8", "remove it"))?;
            if names.len() == most {
                return Err(Problem::new(
                    &self.path,
                    format!("holds more than {most} files"),
                    "remove what is not needed",
                ));
            }
            names.push(name.to_owned());
        }
        names.sort();
        Ok(names)
    }

    /// Whether nothing is in the folder; stops at the first name.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn is_empty(&self) -> Result<bool, Problem> {
        let own = openat(&self.fd, ".", FOLDER, Mode::empty()).map_err(|e| Problem::errno(&self.path, "opened", e))?;
        let mut dir = Dir::from_fd(own).map_err(|e| Problem::errno(&self.path, "read", e))?;
        for entry in dir.iter() {
            let entry = entry.map_err(|e| Problem::errno(&self.path, "read", e))?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Type, owner, mode and size of a name in the folder, the link itself if it is one.
    ///
    /// # Errors
    /// When it cannot be examined.
    pub fn stat(&self, name: &str) -> Result<FileStat, Problem> {
        fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(|e| Problem::errno(&self.path.join(name), "examined", e))
    }

    /// Reads a regular file of this folder whole: at most `cap` bytes, the same before and after.
    ///
    /// # Errors
    /// Missing, a link, not a regular file, not `owner`'s, larger than `cap`, changed while it was read.
    pub fn read(&self, name: &str, cap: u64, owner: Owner) -> Result<(Vec<u8>, FileStamp), Problem> {
        let path = self.path.join(name);
        let fd = openat(&self.fd, name, FILE, Mode::empty()).map_err(|e| Problem::errno(&path, "opened", e))?;
        read_fd(&path, fd, cap, owner)
    }

    /// The same through links that stay below this folder, whoever owns it: kubelet exchanges what is in a volume by a link.
    ///
    /// # Errors
    /// As [`Folder::read`]; a link that leads out of the folder.
    pub fn read_below(&self, name: &str, cap: u64) -> Result<(Vec<u8>, FileStamp), Problem> {
        let path = self.path.join(name);
        let how = OpenHow::new()
            .flags(FILE.difference(OFlag::O_NOFOLLOW))
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let fd = openat2(&self.fd, name, how).map_err(|e| Problem::errno(&path, "opened", e))?;
        read_fd(&path, fd, cap, Owner::Any)
    }
}

/// Reads a regular file whole, its last component no link; the folders on the way are the caller's matter.
///
/// # Errors
/// As [`Folder::read`].
pub fn read(path: &Path, cap: u64, owner: Owner) -> Result<(Vec<u8>, FileStamp), Problem> {
    let fd = open(path, FILE, Mode::empty()).map_err(|e| Problem::errno(path, "opened", e))?;
    read_fd(path, fd, cap, owner)
}

/// Reads a small file of the kernel's (proc, sysfs, cgroupfs), whose size field says nothing.
///
/// # Errors
/// Missing, unreadable, larger than `cap`, not UTF-8.
pub fn kernel(path: &Path, cap: u64) -> Result<String, Problem> {
    let fd = open(path, FILE, Mode::empty()).map_err(|e| Problem::errno(path, "opened", e))?;
    // Without room to begin with, it is read in pieces of 32 bytes.
    let mut text = String::with_capacity(4096);
    File::from(fd)
        .take(cap + 1)
        .read_to_string(&mut text)
        .map_err(|e| Problem::new(path, format!("cannot be read: {e}"), "repair it"))?;
    if u64::try_from(text.len()).is_ok_and(|n| n <= cap) {
        Ok(text)
    } else {
        Err(Problem::new(path, format!("is larger than {cap} bytes"), "repair it"))
    }
}

/// sha256 as lower-case hex.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        if write!(text, "{byte:02x}").is_err() {
            unreachable!("writing to a String does not fail");
        }
        text
    })
}

fn read_fd(path: &Path, fd: OwnedFd, cap: u64, owner: Owner) -> Result<(Vec<u8>, FileStamp), Problem> {
    let before = examine(path, fd.as_fd(), owner)?;
    let too_large = || Problem::new(path, format!("is larger than {cap} bytes"), "make it smaller");
    if u64::try_from(before.st_size).map_or(true, |n| n > cap) {
        return Err(too_large());
    }
    let file = File::from(fd);
    let mut bytes = Vec::with_capacity(usize::try_from(before.st_size).unwrap_or_default().max(64) + 64);
    (&file)
        .take(cap + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Problem::new(path, format!("cannot be read: {e}"), "repair it"))?;
    let after = examine(path, file.as_fd(), owner)?;
    // Not the ctime: a rename over it or its removal meanwhile leaves what was read whole.
    let content = |s: &FileStat| (s.st_size, s.st_mtime, s.st_mtime_nsec);
    if content(&before) != content(&after) || i64::try_from(bytes.len()).ok() != Some(after.st_size) {
        return Err(Problem::new(path, "changed while it was read", "write it once, by a rename, and try again"));
    }
    Ok((bytes, stamp(path, &before)))
}

fn examine(path: &Path, fd: BorrowedFd<'_>, owner: Owner) -> Result<FileStat, Problem> {
    let stat = fstat(fd).map_err(|e| Problem::errno(path, "examined", e))?;
    if stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() {
        return Err(Problem::new(path, "is not a regular file", "put a regular file there"));
    }
    check(path, &stat, owner, false)?;
    Ok(stat)
}

fn check(path: &Path, stat: &FileStat, owner: Owner, sticky: bool) -> Result<(), Problem> {
    let shown = path.display();
    let forbidden = match owner {
        Owner::Any => return Ok(()),
        Owner::Root => 0o022,
        Owner::RootPrivate => 0o077,
    };
    if stat.st_uid != 0 {
        return Err(Problem::new(
            path,
            format!("is owned by uid {}, not by root", stat.st_uid),
            format!("chown root {shown}"),
        ));
    }
    if sticky && stat.st_mode & libc::S_ISVTX != 0 {
        return Ok(());
    }
    if stat.st_mode & 0o022 != 0 {
        let fact = format!("may be written to by others than root (mode {:04o})", stat.st_mode & 0o7777);
        return Err(Problem::new(path, fact, format!("chmod go-w {shown}")));
    }
    if stat.st_mode & forbidden != 0 {
        let fact = format!("may be read by others than root (mode {:04o})", stat.st_mode & 0o7777);
        return Err(Problem::new(path, fact, format!("chmod go-rwx {shown}")));
    }
    Ok(())
}

fn stamp(path: &Path, stat: &FileStat) -> FileStamp {
    FileStamp {
        path: path.to_string_lossy().into_owned(),
        device: stat.st_dev,
        inode: stat.st_ino,
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        mtime_ns: stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(stat.st_mtime_nsec),
        ctime_ns: stat.st_ctime.saturating_mul(1_000_000_000).saturating_add(stat.st_ctime_nsec),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn reads_only_regular_files_of_root() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "text").unwrap();
        assert_eq!(read(&path, 4, Owner::Root).unwrap().0, b"text");
        assert!(read(&path, 3, Owner::Root).unwrap_err().fact.contains("larger than 3"));
        symlink(&path, dir.path().join("l")).unwrap();
        assert!(read(&dir.path().join("l"), 9, Owner::Root).unwrap_err().fact.contains("symbolic link"));
        assert!(read(dir.path(), 9, Owner::Any).unwrap_err().fact.contains("regular"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert!(read(&path, 4, Owner::Root).unwrap_err().fact.contains("mode 0666"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read(&path, 4, Owner::RootPrivate).unwrap_err().fix.contains("go-rwx"));
        std::os::unix::fs::chown(&path, Some(1000), None).unwrap();
        assert!(read(&path, 4, Owner::Root).unwrap_err().fact.contains("uid 1000"));
        assert!(read(&dir.path().join("none"), 4, Owner::Root).unwrap_err().missing);
    }

    #[test]
    fn a_fifo_is_refused_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        nix::unistd::mkfifo(&path, Mode::S_IRUSR).unwrap();
        assert!(read(&path, 9, Owner::Any).unwrap_err().fact.contains("regular"));
    }

    #[test]
    fn the_chain_of_folders_counts() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        assert!(Folder::open(&inner, Owner::Root).is_ok());
        std::fs::set_permissions(dir.path().join("a"), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Folder::open(&inner, Owner::Root).unwrap_err().file.ends_with("a"));
        std::fs::set_permissions(dir.path().join("a"), std::fs::Permissions::from_mode(0o755)).unwrap();
        symlink(&inner, dir.path().join("link")).unwrap();
        assert!(Folder::open(&dir.path().join("link"), Owner::Root).is_err());
        assert!(Folder::open(&dir.path().join("a/../a"), Owner::Root).is_err());
        assert!(Folder::open(Path::new("a"), Owner::Root).is_err());
    }

    #[test]
    fn links_are_followed_only_below() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        std::fs::create_dir_all(volume.join("..2026")).unwrap();
        std::fs::write(volume.join("..2026/token"), "t").unwrap();
        std::fs::write(dir.path().join("secret"), "s").unwrap();
        symlink("..2026", volume.join("..data")).unwrap();
        symlink("..data/token", volume.join("token")).unwrap();
        symlink("../secret", volume.join("out")).unwrap();
        symlink(dir.path().join("secret"), volume.join("absolute")).unwrap();
        nix::unistd::mkfifo(&volume.join("fifo"), Mode::S_IRUSR).unwrap();
        let folder = Folder::open(&volume, Owner::Any).unwrap();
        assert_eq!(folder.read_below("token", 1).unwrap().0, b"t");
        for name in ["out", "absolute", "fifo", "..2026", "../secret"] {
            assert!(folder.read_below(name, 100).is_err(), "{name}");
        }
        assert!(folder.read_below("token", 0).unwrap_err().to_string().contains("larger"));
        assert!(folder.read_below("none", 1).unwrap_err().missing);
    }
}
