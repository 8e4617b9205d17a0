//! The layers, held open: what is scanned, and where a file of it is from.
use crate::answer::Seen;
use crate::{Device, Source};
use boltseal_policy::facts::Found;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{SFlag, fstat};
use std::ffi::OsStr;
use std::fs::create_dir;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Top first.
#[derive(Debug)]
pub(crate) struct Layers<'a>(Source<'a>, Vec<OwnedFd>);

impl<'a> Layers<'a> {
    /// # Errors
    /// The folder that is not there, or that a link stands in the place of.
    pub(crate) fn open(source: Source<'a>) -> Result<Self, String> {
        let folder =
            |path: &String| open(Path::new(path)).map_err(|e| format!("the layer {path} cannot be opened: {e}"));
        let root = |device: &Device<'_>| {
            device.root.try_clone_to_owned().map_err(|e| format!("a sealed layer cannot be held: {e}"))
        };
        let fds: Vec<OwnedFd> = match source {
            Source::Folders(folders) => folders.iter().map(folder).collect::<Result<_, _>>()?,
            Source::Sealed(devices) => devices.iter().map(root).collect::<Result<_, _>>()?,
        };
        if fds.is_empty() { Err("the image has no layers".into()) } else { Ok(Self(source, fds)) }
    }

    /// The same in a mount namespace that was made since: an overlay takes none of another. Folders are looked up before anything comes
    /// over a path that leads to them.
    ///
    /// # Errors
    /// Another folder stands there by now.
    pub(crate) fn again(&self) -> Result<Again<'a>, String> {
        match self.0 {
            Source::Sealed(devices) => Ok(Again::Devices(devices)),
            Source::Folders(folders) => {
                let again = Self::open(self.0)?;
                let object =
                    |fd: &OwnedFd| fstat(fd).map(|s| (s.st_dev, s.st_ino)).map_err(|e| format!("a layer: {e}"));
                for ((before, now), path) in self.1.iter().zip(&again.1).zip(folders) {
                    if object(before)? != object(now)? {
                        return Err(format!("the layer {path} is exchanged at this moment"));
                    }
                }
                Ok(Again::Folders(again.1))
            }
        }
    }

    /// Which layers these are: the folders, or the hashes that the kernel holds every byte to.
    pub(crate) fn identity(&self) -> Result<String, String> {
        let one = |fd: &OwnedFd| {
            let stat = fstat(fd).map_err(|e| format!("a layer cannot be examined: {e}"))?;
            Ok(format!("{}:{}", stat.st_dev, stat.st_ino))
        };
        let all = match self.0 {
            Source::Folders(_) => self.1.iter().map(one).collect::<Result<Vec<_>, String>>()?,
            Source::Sealed(devices) => devices.iter().map(|device| device.root_hash.to_owned()).collect(),
        };
        Ok(all.join(","))
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

/// What an overlay of this mount namespace takes, or what is mounted for it.
#[derive(Debug)]
pub(crate) enum Again<'a> {
    Folders(Vec<OwnedFd>),
    Devices(&'a [Device<'a>]),
}

impl Again<'_> {
    /// # Errors
    /// A layer that cannot be mounted below `at`.
    pub(crate) fn lowers(self, at: &Path) -> Result<Vec<OwnedFd>, String> {
        let devices = match self {
            Self::Folders(folders) => return Ok(folders),
            Self::Devices(devices) => devices,
        };
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let one = |(index, device): (usize, &Device<'_>)| {
            let point = at.join(format!("layer-{index}"));
            let failed = |e: &dyn std::fmt::Display| format!("the sealed layer {index} cannot be mounted: {e}");
            create_dir(&point).map_err(|e| failed(&e))?;
            let source = format!("/proc/self/fd/{}", device.device.as_raw_fd());
            mount(Some(source.as_str()), &point, Some("erofs"), flags, None::<&str>).map_err(|e| failed(&e))?;
            open(&point).map_err(|e| failed(&e))
        };
        devices.iter().enumerate().map(one).collect()
    }
}

fn open(path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(AT_FDCWD, path, how)
}
