//! Where root of a user namespace reaches. To it the container's state folder is shut like any other of the host's root, and so
//! is the way to most volumes. So its root and the sources of its binds are put on a tmpfs that anybody may walk through, in the
//! gate's own mount namespace and nowhere else; there the layers and volumes are also mapped to its ids.
use crate::error::LaunchError;
use crate::rootfs::is_bind;
use crate::{mountinfo, sys};
use boltseal_seal::ApprovedMount;
use nix::mount::{MsFlags, mount};
use oci_spec::runtime::{Mount, Spec};
use std::fs::DirBuilder;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The one thing of it that is seen from the host: an empty folder of root's, which stays. To remove it would take the mounts
/// of other gates away that lie on it.
const PLACE: &str = "/run/boltseal-userns";

/// Which mounts of a spec are binds, by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    binds: Vec<usize>,
}

impl Place {
    pub(crate) fn of(spec: &Spec) -> Self {
        Self { binds: mounts(spec).filter(|(_, m)| is_bind(m)).map(|(index, _)| index).collect() }
    }

    /// Where the container's root is mounted.
    pub(crate) fn root(&self) -> PathBuf {
        Path::new(PLACE).join("rootfs")
    }

    /// Where the source of that mount is found.
    pub(crate) fn bind(&self, index: usize) -> Option<PathBuf> {
        self.binds.contains(&index).then(|| Path::new(PLACE).join("binds").join(index.to_string()))
    }

    /// Makes it, in a mount namespace that is this process's own.
    pub(crate) fn make(&self) -> Result<(), LaunchError> {
        match DirBuilder::new().mode(0o700).create(PLACE) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(LaunchError::io(format_args!("make {PLACE}"))(e));
            }
            _ => {}
        }
        let at = open(Path::new(PLACE), libc::O_DIRECTORY | libc::O_NOFOLLOW)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let through = format!("/proc/self/fd/{}", at.as_raw_fd());
        mount(Some("tmpfs"), through.as_str(), Some("tmpfs"), flags, Some("size=64k,nr_inodes=4k,mode=0711"))
            .map_err(LaunchError::errno("mount a place for a user namespace"))?;
        for (name, mode) in [("rootfs", 0o700), ("binds", 0o711), ("layers", 0o700)] {
            folder(&Path::new(PLACE).join(name), mode)?;
        }
        Ok(())
    }

    /// The layers, seen through the user namespace: root's files are its root's.
    pub(crate) fn layers(&self, lowers: &[OwnedFd], user: BorrowedFd<'_>) -> Result<Vec<OwnedFd>, LaunchError> {
        let one = |(index, layer): (usize, &OwnedFd)| {
            let at = Path::new(PLACE).join("layers").join(index.to_string());
            folder(&at, 0o700)?;
            put(layer, Some(user), &at, "the image's layers")?;
            open(&at, libc::O_DIRECTORY)
        };
        lowers.iter().enumerate().map(one).collect()
    }

    /// The source of each bind; seen through the user namespace where that was approved, else as it is.
    pub(crate) fn sources(
        &self,
        spec: &Spec,
        approved: &[ApprovedMount],
        user: BorrowedFd<'_>,
    ) -> Result<(), LaunchError> {
        // The table begins with the root.
        for ((index, mount), approved) in mounts(spec).zip(approved.iter().skip(1)) {
            let (Some(at), Some(source)) = (self.bind(index), mount.source()) else { continue };
            let object = open(source, 0)?;
            let stat = sys::fstat(object.as_raw_fd()).map_err(LaunchError::io("stat a mount's source"))?;
            if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
                folder(&at, 0o700)?;
            } else {
                file(&at)?;
            }
            let what = format!("the volume at {}", approved.destination);
            put(&object, approved.idmapped.then_some(user), &at, &what)?;
        }
        Ok(())
    }
}

fn mounts(spec: &Spec) -> impl Iterator<Item = (usize, &Mount)> {
    spec.mounts().as_deref().unwrap_or_default().iter().enumerate()
}

fn put(object: &OwnedFd, user: Option<BorrowedFd<'_>>, at: &Path, what: &str) -> Result<(), LaunchError> {
    let failed = |e| LaunchError::io(format_args!("put {what} where a user namespace reaches"))(e);
    let tree = sys::clone_mount(object.as_fd()).map_err(failed)?;
    if let Some(user) = user {
        sys::idmap(tree.as_fd(), user).map_err(|e| unmappable(object, what, &e))?;
    }
    sys::move_mount(tree.as_fd(), open(at, libc::O_NOFOLLOW)?.as_fd()).map_err(failed)
}

/// EINVAL: this file system, or this kernel, takes no idmapped mounts (mount_setattr(2)).
fn unmappable(object: &OwnedFd, what: &str, error: &std::io::Error) -> LaunchError {
    LaunchError::Unsupported(format!(
        "{what} cannot be mapped to a user namespace: {} takes no idmapped mount ({error}). Fix: keep it on ext4, xfs, btrfs or \
         tmpfs (Linux 6.3), or take hostUsers: false away",
        filesystem(object).unwrap_or_else(|| "its file system".to_owned())
    ))
}

fn filesystem(object: &OwnedFd) -> Option<String> {
    let device = sys::fstat(object.as_raw_fd()).ok()?.st_dev;
    let all = mountinfo::parse(&sys::read_kernel("/proc/self/mountinfo").ok()?).ok()?;
    let found = all.into_iter().find(|e| e.device == (libc::major(device), libc::minor(device)));
    found.map(|e| format!("a file system of type {}", e.fstype))
}

fn open(path: &Path, flags: i32) -> Result<OwnedFd, LaunchError> {
    sys::open_path(path, flags).map_err(LaunchError::io(format_args!("open {}", path.display())))
}

fn folder(at: &Path, mode: u32) -> Result<(), LaunchError> {
    DirBuilder::new().mode(mode).create(at).map_err(LaunchError::io(format_args!("make {}", at.display())))
}

fn file(at: &Path) -> Result<(), LaunchError> {
    let made = std::fs::File::options().write(true).create_new(true).mode(0o600).open(at);
    made.map(drop).map_err(LaunchError::io(format_args!("make {}", at.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_binds_have_another_source() {
        let spec: Spec = serde_json::from_value(json!({ "ociVersion": "1.0.2", "mounts": [
            { "destination": "/proc", "type": "proc" },
            { "destination": "/a", "type": "bind", "source": "/a" },
            { "destination": "/b", "type": "none", "source": "/b", "options": ["rbind"] },
            { "destination": "/tmp", "type": "tmpfs" },
        ] }))
        .unwrap();
        let place = Place::of(&spec);
        let found: Vec<_> = (0..5).map(|i| place.bind(i)).collect();
        let at = |i: &str| Some(PathBuf::from(format!("/run/boltseal-userns/binds/{i}")));
        assert_eq!(found, [None, at("1"), at("2"), None, None]);
        assert_eq!(place.root(), Path::new("/run/boltseal-userns/rootfs"));
    }
}
