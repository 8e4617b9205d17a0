//! The layers' folders, held open: what is scanned, and where a file of it is from.
use crate::Image;
use crate::answer::Seen;
use boltseal_policy::facts::Found;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{SFlag, fstat};
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Top first.
#[derive(Debug)]
pub(crate) struct Layers<'a>(&'a [String], Vec<OwnedFd>);

impl<'a> Layers<'a> {
    /// # Errors
    /// The folder that is not there, or that a link stands in the place of.
    pub(crate) fn open(lowers: &'a [String]) -> Result<Self, String> {
        if lowers.is_empty() {
            return Err("the image has no layers".into());
        }
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
        let open = |path: &String| {
            openat2(AT_FDCWD, Path::new(path), how).map_err(|e| format!("the layer {path} cannot be opened: {e}"))
        };
        lowers.iter().map(open).collect::<Result<_, _>>().map(|fds| Self(lowers, fds))
    }

    /// The same folders in a mount namespace that was made since: an overlay takes none of another.
    ///
    /// # Errors
    /// Another folder stands there by now.
    pub(crate) fn again(&self) -> Result<Self, String> {
        let again = Self::open(self.0)?;
        let object = |fd: &OwnedFd| fstat(fd).map(|s| (s.st_dev, s.st_ino)).map_err(|e| format!("a layer: {e}"));
        for ((before, now), path) in self.1.iter().zip(&again.1).zip(self.0) {
            if object(before)? != object(now)? {
                return Err(format!("the layer {path} is exchanged at this moment"));
            }
        }
        Ok(again)
    }

    pub(crate) fn fds(&self) -> impl Iterator<Item = &OwnedFd> {
        self.1.iter()
    }

    /// Which folders these are. Where the kernel itself holds every byte to the signature, it does not matter which.
    pub(crate) fn identity(&self, image: &Image<'_>) -> Result<String, String> {
        if image.integrity == "dmverity-signed" {
            return Ok("signed".into());
        }
        let one = |fd: &OwnedFd| {
            let stat = fstat(fd).map_err(|e| format!("a layer cannot be examined: {e}"))?;
            Ok(format!("{}:{}", stat.st_dev, stat.st_ino))
        };
        self.1.iter().map(one).collect::<Result<Vec<_>, String>>().map(|all| all.join(","))
    }

    /// What was found, with the layer that has it: of those that have the path, the one on top.
    pub(crate) fn place(&self, seen: &Seen) -> Found {
        let relative = seen.path.strip_prefix(b"/").unwrap_or(&seen.path);
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_BENEATH);
        let has = |fd: &OwnedFd| {
            let stat = openat2(fd, Path::new(OsStr::from_bytes(relative)), how).and_then(fstat);
            // A whiteout is no file.
            stat.is_ok_and(|s| s.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFCHR.bits() || s.st_rdev != 0)
        };
        let from_the_top = self.1.iter().position(has);
        let layer = from_the_top.and_then(|place| u32::try_from(self.1.len() - 1 - place).ok());
        let path = String::from_utf8_lossy(&seen.path).into_owned();
        Found { kind: seen.kind, path, note: seen.note.clone(), layer }
    }
}
