//! The folder of the verdict: root's own, everything in it reached through its file descriptor, nothing in it trusted.
use crate::Error;
use crate::channel::pause;
use crate::verdict::MAX_FILE;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, Flock, FlockArg, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const VERDICT: &str = "node.json";
const NEXT: &str = "node.json.next";
const LOCK: &str = "node.lock";
const TOKEN: &str = "node.jwt";

/// An open folder, root-owned and closed to others.
#[derive(Debug)]
pub(crate) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

/// Held while one start attests; dropped, it is free again.
pub(crate) type Lock = Flock<OwnedFd>;

impl Folder {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let shown = path.display();
        let fd = openat(AT_FDCWD, path, flags, Mode::empty()).map_err(|e| {
            Error::refused(format!("the folder {shown} cannot be opened: {e}. Fix: mkdir -m 0700 {shown}"))
        })?;
        let stat = fstat(&fd).map_err(|e| Error::io(shown.to_string(), e))?;
        if stat.st_uid != 0 || stat.st_mode & 0o077 != 0 {
            return Err(Error::refused(format!(
                "the folder {shown} is not root's alone. Fix: chown root {shown}; chmod 0700 {shown}"
            )));
        }
        Ok(Self { fd, path: path.to_owned() })
    }

    /// The verdict file's bytes; None when there is none. One byte above the limit is read, never more.
    ///
    /// # Errors
    /// When what is there was not put there by boltseal: a symlink, a fifo, a file of another owner, or one that others may write.
    pub(crate) fn read(&self) -> Result<Option<Vec<u8>>, Error> {
        self.read_file(VERDICT)
    }

    /// A verifier's token, under the same conditions.
    pub(crate) fn token(&self) -> Result<Option<Vec<u8>>, Error> {
        self.read_file(TOKEN)
    }

    fn read_file(&self, file: &str) -> Result<Option<Vec<u8>>, Error> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let fd = match openat(&self.fd, file, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => return Ok(None),
            Err(Errno::ELOOP) => return Err(self.in_the_way(file, "a symbolic link")),
            Err(Errno::ENXIO) => return Err(self.in_the_way(file, "a socket")),
            Err(e) => return Err(Error::io(self.name(file), e)),
        };
        self.own(file, &fd)?;
        let mut bytes = Vec::with_capacity(4096);
        File::from(fd).take(MAX_FILE as u64 + 1).read_to_end(&mut bytes).map_err(|e| Error::io(self.name(file), e))?;
        Ok(Some(bytes))
    }

    /// Takes the lock, in a loop until the deadline: a stopped holder must not stop every start for good.
    pub(crate) fn lock(&self, deadline: Instant) -> Result<Lock, Error> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let mut fd = openat(&self.fd, LOCK, flags, Mode::S_IRUSR | Mode::S_IWUSR).map_err(|e| match e {
            Errno::ELOOP => self.in_the_way(LOCK, "a symbolic link"),
            Errno::ENXIO => self.in_the_way(LOCK, "a socket"),
            e => Error::io(self.name(LOCK), e),
        })?;
        self.own(LOCK, &fd)?;
        let mut wait = Duration::from_millis(1);
        loop {
            match Flock::lock(fd, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(lock),
                Err((back, Errno::EWOULDBLOCK | Errno::EINTR)) => fd = back,
                Err((_, e)) => return Err(Error::io(self.name(LOCK), e)),
            }
            pause(wait, "another start that is attesting this node", deadline)?;
            wait = (wait * 2).min(Duration::from_millis(10));
        }
    }

    /// Puts a verdict in place in one step. The lock says that nobody else does so now.
    ///
    /// No fsync: the folder is on a tmpfs, and a boot later the verdict is void anyway.
    pub(crate) fn write(&self, _held: &Lock, bytes: &[u8]) -> Result<(), Error> {
        let failed = |e: &dyn std::fmt::Display| Error::io(self.name(NEXT), e);
        // What a killed start left behind.
        match unlinkat(&self.fd, NEXT, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(e) => return Err(failed(&e)),
        }
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(&self.fd, NEXT, flags, Mode::S_IRUSR | Mode::S_IWUSR).map_err(|e| failed(&e))?;
        File::from(fd).write_all(bytes).map_err(|e| failed(&e))?;
        renameat(&self.fd, NEXT, &self.fd, VERDICT).map_err(|e| Error::io(self.name(VERDICT), e))
    }

    fn own(&self, file: &str, fd: &OwnedFd) -> Result<(), Error> {
        let stat: FileStat = fstat(fd).map_err(|e| Error::io(self.name(file), e))?;
        let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        if kind != SFlag::S_IFREG {
            return Err(self.in_the_way(file, "not a regular file"));
        }
        if stat.st_uid != 0 {
            return Err(self.in_the_way(file, "not root's"));
        }
        if stat.st_mode & 0o022 != 0 {
            return Err(self.in_the_way(file, "writable by others than root"));
        }
        Ok(())
    }

    fn in_the_way(&self, file: &str, why: &str) -> Error {
        let name = self.name(file);
        Error::refused(format!("{name} is {why}: boltseal did not make it so. Fix: find out who did, then remove it"))
    }

    fn name(&self, file: &str) -> String {
        self.path.join(file).display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn folder() -> (tempfile::TempDir, Folder) {
        let closed = std::fs::Permissions::from_mode(0o700);
        let dir = tempfile::Builder::new().permissions(closed).tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        (dir, folder)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(60)
    }

    #[test]
    fn what_is_written_is_read() {
        let (dir, folder) = folder();
        assert_eq!(folder.read(), Ok(None));
        let lock = folder.lock(soon()).unwrap();
        folder.write(&lock, b"one").unwrap();
        std::fs::write(dir.path().join(NEXT), b"left behind").unwrap();
        folder.write(&lock, b"two").unwrap();
        assert_eq!(folder.read(), Ok(Some(b"two".to_vec())));
        let mode = std::fs::metadata(dir.path().join(VERDICT)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!dir.path().join(NEXT).exists());
    }

    #[test]
    fn the_lock_is_held_by_one_and_waited_for_until_the_deadline() {
        let (dir, folder) = folder();
        let held = folder.lock(soon()).unwrap();
        let other = Folder::open(dir.path()).unwrap();
        let begun = Instant::now();
        assert!(matches!(other.lock(soon()), Err(Error::Deadline(_))));
        assert!(begun.elapsed() < Duration::from_secs(1));
        drop(held);
        assert!(other.lock(soon()).is_ok());
    }

    #[test]
    fn a_folder_that_others_reach_into_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let set = |mode| std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        for mode in [0o777, 0o710, 0o704] {
            set(mode);
            assert!(Folder::open(dir.path()).is_err(), "{mode:o}");
        }
        set(0o700);
        assert!(Folder::open(dir.path()).is_ok());
        let link = dir.path().join("link");
        symlink(dir.path(), &link).unwrap();
        assert!(Folder::open(&link).is_err());
        assert!(Folder::open(&dir.path().join("none")).unwrap_err().to_string().contains("Fix: mkdir"));
        std::os::unix::fs::chown(dir.path(), Some(1), None).unwrap();
        assert!(Folder::open(dir.path()).is_err());
    }

    #[test]
    fn what_boltseal_did_not_put_there_is_reported() {
        for file in [VERDICT, TOKEN, LOCK] {
            for (kind, said) in [
                ("symlink", "symbolic link"),
                ("fifo", "regular file"),
                ("folder", ""),
                ("socket", "socket"),
                ("foreign", "not root's"),
                ("writable", "writable by others"),
            ] {
                let (dir, folder) = folder();
                let path = dir.path().join(file);
                let keep = match kind {
                    "symlink" => {
                        std::fs::write(dir.path().join("target"), b"x").unwrap();
                        symlink("target", &path).map(|()| None).unwrap()
                    }
                    "fifo" => {
                        nix::sys::stat::mknod(&path, SFlag::S_IFIFO, Mode::S_IRWXU, 0).unwrap();
                        None
                    }
                    "folder" => std::fs::create_dir(&path).map(|()| None).unwrap(),
                    "socket" => Some(std::os::unix::net::UnixListener::bind(&path).unwrap()),
                    _ => {
                        std::fs::write(&path, b"x").unwrap();
                        let mode = if kind == "writable" { 0o602 } else { 0o600 };
                        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
                        let owner = if kind == "foreign" { 1 } else { 0 };
                        std::os::unix::fs::chown(&path, Some(owner), None).map(|()| None).unwrap()
                    }
                };
                let error = match file {
                    VERDICT => folder.read().unwrap_err(),
                    TOKEN => folder.token().unwrap_err(),
                    _ => folder.lock(soon()).map(drop).unwrap_err(),
                };
                assert!(error.to_string().contains(said), "{file} {kind}: {error}");
                drop(keep);
            }
        }
    }

    #[test]
    fn a_large_file_is_read_to_the_limit_and_no_further() {
        let (dir, folder) = folder();
        std::fs::write(dir.path().join(VERDICT), vec![b' '; 1 << 20]).unwrap();
        std::fs::set_permissions(dir.path().join(VERDICT), std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(folder.read().unwrap().unwrap().len(), MAX_FILE + 1);
    }
}
