//! Layers that somebody else mounted (containerd's erofs snapshotter does) so that the kernel compares their bytes with a digest:
//! what it is, when the start is judged and once more when it is launched.
//!
//! The digest is this node's own. It says that the bytes are what they were when it was made, not that anybody signed them.
use super::sys::Control;
use super::{ask, table};
use crate::error::LaunchError;
use crate::{mountinfo, sys as calls};
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use nix::sys::statfs::fstatfs;
use nix::sys::statvfs::FsFlags;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// EROFS_SUPER_MAGIC_V1 (linux/magic.h).
const EROFS: u32 = 0xe0f5_e1e2;
/// Its superblock, and the feature that says that data lies on other devices too (fs/erofs/erofs_fs.h).
const SUPERBLOCK: u64 = 1024;
const FEATURES: usize = 80;
const DEVICE_TABLE: u32 = 8;

/// A layer and what the kernel compares every byte of it with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedLayer {
    pub folder: PathBuf,
    pub by: CheckedBy,
    /// fs-verity's digest of the file, or the root hash of the device: `sha256:<hex>`, `sha512:<hex>`.
    pub digest: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckedBy {
    FsVerity,
    DmVerity,
}

/// What a lower folder is. `Ok(None)`: no EROFS, so nothing compares its bytes.
///
/// # Errors
/// An EROFS whose bytes nothing compares, or of which that cannot be told: why.
pub fn checked_layer(folder: &Path) -> Result<Option<CheckedLayer>, String> {
    let opened = open_folder(folder).map_err(|e| e.to_string())?;
    let layer = |look: Look| CheckedLayer { folder: folder.to_owned(), by: look.by, digest: look.digest };
    Ok(look(&opened)?.map(layer))
}

/// Whether this kernel can have files with fs-verity. Which file system does, only the file tells.
///
/// # Errors
/// What is missing.
pub fn fsverity_support() -> Result<(), String> {
    let signs = ["/proc/sys/fs/verity", "/sys/fs/ext4/features/verity", "/sys/fs/f2fs/features/verity"];
    if signs.iter().any(|sign| Path::new(sign).exists()) {
        return Ok(());
    }
    Err("no fs-verity in this kernel (CONFIG_FS_VERITY)".into())
}

/// Opens each layer's root, which must be what was judged. In the order given; `at` is this process's own.
pub(crate) fn opened(layers: &[CheckedLayer], at: &Path) -> Result<Vec<OwnedFd>, LaunchError> {
    let one = |(index, layer): (usize, &CheckedLayer)| {
        let folder = layer.folder.display();
        let opened = open_folder(&layer.folder).map_err(LaunchError::io(format_args!("open the folder {folder}")))?;
        let changed = |now: &str| {
            LaunchError::Inspection(vec![format!("the layer {folder} was {}, now it is {now}", layer.digest)])
        };
        let now = match look(&opened) {
            Ok(Some(now)) => now,
            Ok(None) => return Err(changed("a plain folder")),
            Err(why) => return Err(changed(&why)),
        };
        if (now.by, &now.digest) != (layer.by, &layer.digest) {
            return Err(changed(&now.digest));
        }
        match now.file {
            None => Ok(opened),
            Some(file) => of_file(&file, &at.join(format!("layer-{index}"))),
        }
    };
    layers.iter().enumerate().map(one).collect()
}

/// No mount tells from which file it reads. So this very file is mounted once more, and whatever is there already is not used. On a
/// loop device: a mount of the file itself takes what fs-verity refuses for a short read, and fills it up with zeroes.
fn of_file(file: &OwnedFd, point: &Path) -> Result<OwnedFd, LaunchError> {
    let cannot = || LaunchError::io("mount a layer's file");
    std::fs::create_dir(point).map_err(cannot())?;
    let size = calls::fstat(file.as_raw_fd()).map_err(cannot())?.st_size;
    let device = super::sys::attach(file.as_fd(), u64::try_from(size).unwrap_or(0)).map_err(cannot())?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let source = format!("/proc/self/fd/{}", device.as_raw_fd());
    mount(Some(source.as_str()), point, Some("erofs"), flags, None::<&str>)
        .map_err(LaunchError::errno("mount a layer's file"))?;
    open_folder(point).map_err(cannot())
}

fn open_folder(path: &Path) -> std::io::Result<OwnedFd> {
    calls::open_path(path, libc::O_DIRECTORY | libc::O_NOFOLLOW)
}

#[derive(Debug)]
struct Look {
    by: CheckedBy,
    digest: String,
    /// Of a mount without a device (Linux 6.12): the file that it names.
    file: Option<OwnedFd>,
}

fn look(folder: &OwnedFd) -> Result<Option<Look>, String> {
    let of_what = fstatfs(folder).map_err(|e| format!("its file system cannot be told: {e}"))?;
    if of_what.filesystem_type().0 != u64::from(EROFS) {
        return Ok(None);
    }
    if !of_what.flags().contains(FsFlags::ST_RDONLY) {
        return Err("it is not mounted read-only".into());
    }
    let mounted = mount_of(folder)?;
    if mounted.fstype != "erofs" || mounted.root != "/" {
        return Err("it is not the root of an EROFS mount".into());
    }
    let device = calls::fstat(folder.as_raw_fd()).map_err(|e| e.to_string())?.st_dev;
    if libc::major(device) == 0 {
        let file = open(&mounted.source).map_err(|e| format!("the file that it names cannot be opened: {e}"))?;
        let digest = of_verity(&file)?;
        return Ok(Some(Look { by: CheckedBy::FsVerity, digest, file: Some(file) }));
    }
    let place = format!("/sys/dev/block/{}:{}", libc::major(device), libc::minor(device));
    let name = |path: &str| calls::read_kernel(format!("{place}/{path}")).map(|text| text.trim_end().to_owned());
    let (by, digest) = if let Ok(name) = name("dm/name") {
        (CheckedBy::DmVerity, of_mapper(&name, device)?)
    } else if let Ok(file) = name("loop/backing_file") {
        (CheckedBy::FsVerity, of_loop(&file, &place, device)?)
    } else {
        return Err("it is on a device that compares nothing".into());
    };
    Ok(Some(Look { by, digest, file: None }))
}

fn mount_of(folder: &OwnedFd) -> Result<mountinfo::Entry, String> {
    let told = calls::read_kernel(format!("/proc/self/fdinfo/{}", folder.as_raw_fd())).map_err(|e| e.to_string())?;
    let id = told.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse::<u64>().ok());
    let table = calls::read_kernel("/proc/self/mountinfo").map_err(|e| e.to_string())?;
    let found = mountinfo::parse(&table)?.into_iter().find(|entry| Some(entry.id) == id);
    found.ok_or_else(|| "its mount is not in the table of mounts".into())
}

fn open(path: &str) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    nix::fcntl::open(path, flags, Mode::empty())
}

fn of_verity(file: &OwnedFd) -> Result<String, String> {
    match ask::fsverity(file.as_fd()) {
        Ok(Some(digest)) => Ok(digest),
        Ok(None) => Err("its file has no fs-verity digest".into()),
        Err(e) => Err(format!("its file's fs-verity digest cannot be read: {e}")),
    }
}

/// The device reads the file that is opened here, whatever the name says.
fn of_loop(file: &str, place: &str, device: libc::dev_t) -> Result<String, String> {
    let node = node(place, device)?;
    let backing = ask::backing(node.as_fd()).map_err(|e| format!("its loop device does not tell its file: {e}"))?;
    let file = open(file).map_err(|e| format!("the file of its loop device cannot be opened: {e}"))?;
    let stat = calls::fstat(file.as_raw_fd()).map_err(|e| e.to_string())?;
    if (stat.st_dev, stat.st_ino) != backing {
        return Err("its loop device reads another file than the one of that name".into());
    }
    whole(&node)?;
    of_verity(&file)
}

fn of_mapper(name: &str, device: libc::dev_t) -> Result<String, String> {
    let asked = |e: &dyn std::fmt::Display| format!("its device {name} does not tell what it is: {e}");
    let control = Control::open().map_err(|e| asked(&e))?;
    let state = control.state(name).map_err(|e| asked(&e))?;
    if state.device != device || !state.live || !state.readonly {
        return Err(format!("its device {name} is not live and read-only"));
    }
    // A device with more than one target has no one answer.
    let (sectors, target, line) = control.table(name).map_err(|e| asked(&e))?;
    let root = table::root_hash(&target, sectors, &line)?;
    let status = control.status(name).map_err(|e| asked(&e))?;
    if status.split(' ').next() != Some("V") {
        return Err(format!("its verity device has found blocks that differ (status {status:?})"));
    }
    let node = super::open(&control, name)?.ok_or_else(|| format!("its device {name} is gone"))?;
    whole(&node)?;
    Ok(root)
}

/// The node of that number in /dev.
fn node(place: &str, device: libc::dev_t) -> Result<OwnedFd, String> {
    let cannot = |e: &dyn std::fmt::Display| format!("its device cannot be opened: {e}");
    let link = std::fs::read_link(place).map_err(|e| cannot(&e))?;
    let name = link.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let node = open(&format!("/dev/{name}")).map_err(|e| cannot(&e))?;
    let stat = calls::fstat(node.as_raw_fd()).map_err(|e| cannot(&e))?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFBLK || stat.st_rdev != device {
        return Err(format!("/dev/{name} is not its device"));
    }
    Ok(node)
}

/// All of an EROFS's data is on this one device: others would be read without being compared.
fn whole(node: &OwnedFd) -> Result<(), String> {
    let mut block = [0; 128];
    let file = File::from(node.try_clone().map_err(|e| e.to_string())?);
    file.read_exact_at(&mut block, SUPERBLOCK).map_err(|e| format!("its superblock cannot be read: {e}"))?;
    if on_one_device(&block) { Ok(()) } else { Err("its data may lie on several devices".into()) }
}

fn on_one_device(superblock: &[u8; 128]) -> bool {
    let number = |at: usize| superblock.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
    number(0) == Some(EROFS) && number(FEATURES).is_some_and(|features| features & DEVICE_TABLE == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_no_erofs() {
        let dir = std::env::temp_dir();
        assert_eq!(checked_layer(&dir), Ok(None));
        assert!(checked_layer(Path::new("/nowhere")).is_err());
        let approved = CheckedLayer { folder: dir.clone(), by: CheckedBy::FsVerity, digest: "sha256:00".into() };
        let said = opened(&[approved], &dir).unwrap_err().to_string();
        assert!(said.contains("was sha256:00, now it is a plain folder"), "{said}");
    }

    #[test]
    fn data_on_several_devices() {
        let mut block = [0; 128];
        assert!(!on_one_device(&block));
        block[..4].copy_from_slice(&0xe0f5_e1e2_u32.to_le_bytes());
        assert!(on_one_device(&block));
        block[FEATURES] = 0xf7;
        assert!(on_one_device(&block));
        block[FEATURES] = 8;
        assert!(!on_one_device(&block));
    }

    #[test]
    fn the_mount_of_a_folder() {
        let proc = open_folder(Path::new("/proc")).unwrap();
        let found = mount_of(&proc).unwrap();
        assert_eq!((found.fstype.as_str(), found.point.as_str()), ("proc", "/proc"));
    }
}
