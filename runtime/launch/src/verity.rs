//! Layers as dm-verity devices: each of a file that a signed statement names, read-only, every block compared with the signed
//! root hash when it is read. A block that differs is an I/O error to whoever reads it.
//!
//! One device serves all containers that have the layer. It is marked to be removed as soon as nobody holds it, and its loop
//! device clears itself, so that nothing stays behind, whoever is killed: but in the moment between making and marking,
//! which ends in the next start of that layer or in a delete. A lock keeps that moment to one run at a time.
mod ask;
mod fs;
mod local;
mod mounts;
mod sys;
mod table;

pub use local::{CheckedBy, CheckedLayer, checked_layer, fsverity_support};
pub use mounts::{SealedMount, set_up};

pub(crate) use local::opened;
pub(crate) use mounts::attached;

use crate::error::LaunchError;
use crate::sys as calls;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::stat::Mode;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use sys::Control;

const BLOCK: u64 = 4096;
const SECTOR: u64 = 512;
/// How often a device that is there may be gone once it is opened.
const TRIES: u32 = 8;
/// Begin of the name of each device of ours.
const PREFIX: &str = "boltseal-";
/// Of the device mapper, where the kernel has it loaded: to open its node would load it.
const LOADED: &str = "/sys/class/misc/device-mapper";
/// How long a delete waits for starts that make devices.
const PATIENCE: Duration = Duration::from_millis(200);

/// One layer, as its signed statement names it. The file's superblock is not read: nobody signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedLayer {
    pub file: PathBuf,
    /// Of the file.
    pub size: u64,
    /// Where the data ends.
    pub hash_offset: u64,
    /// 64 hex digits each.
    pub root_hash: String,
    pub salt: String,
}

impl SealedLayer {
    /// Of the device.
    pub(crate) fn name(&self) -> String {
        format!("{PREFIX}{}", self.root_hash)
    }

    /// Of the file's name as much as tells it from others: more would be what a finding and the CRI cut off.
    fn short(&self) -> String {
        self.file.file_name().unwrap_or_default().to_string_lossy().chars().take(12).collect()
    }

    fn uuid(&self) -> String {
        format!("BOLTSEAL-VERITY-{}", self.root_hash)
    }

    /// The table's line for this kernel's target (Documentation/admin-guide/device-mapper/verity.rst), version 1: what differs is
    /// an I/O error, and nothing of it is optional. The tree stands one block behind the superblock's place.
    fn table(&self, device: &str) -> String {
        let blocks = self.hash_offset / BLOCK;
        let tree = blocks + 1;
        let Self { root_hash, salt, .. } = self;
        format!("1 {device} {device} {BLOCK} {BLOCK} {blocks} {tree} sha256 {root_hash} {salt}")
    }

    fn plain(&self) -> bool {
        let hex = |text: &str| text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        hex(&self.root_hash) && hex(&self.salt) && self.hash_offset.is_multiple_of(BLOCK) && self.hash_offset > 0
    }
}

/// Whether this kernel has what it takes. It may load a module for it.
///
/// # Errors
/// What is missing.
pub fn verity_support() -> Result<(), String> {
    let missing = |what: &str, e: &dyn std::fmt::Display| format!("{what}: {e}");
    sys::loop_control().map_err(|e| missing("no loop devices (/dev/loop-control)", &e))?;
    let control = Control::open().map_err(|e| missing("no device mapper (/dev/mapper/control)", &e))?;
    control.target("verity").map_err(|e| missing("no dm-verity in this kernel", &e))?;
    fs::filesystem(c"erofs").map(drop).map_err(|e| missing("no erofs in this kernel", &e))
}

/// Removes what of our devices nobody holds, whichever run left it. Those that somebody holds go when they are let go.
pub(crate) fn sweep() {
    if !Path::new(LOADED).exists() {
        return;
    }
    let swept = locked(Some(PATIENCE)).and_then(|(control, _lock)| {
        let names = control.names().map_err(LaunchError::errno("list the devices of sealed layers"))?;
        for name in names.iter().filter(|name| name.starts_with(PREFIX)) {
            match control.remove(name, true) {
                Ok(()) | Err(Errno::ENXIO) => {}
                Err(e) => tracing::warn!("{name} cannot be removed: {e}"),
            }
        }
        Ok(())
    });
    // A start that is under way makes such devices itself, and removes what is half made.
    if let Err(e) = swept {
        tracing::warn!("sealed layers: {e}");
    }
}

/// The device mapper, with the lock of all who make or remove devices of ours.
fn locked(patience: Option<Duration>) -> Result<(Control, Flock<File>), LaunchError> {
    let open = |e: std::io::Error| LaunchError::Unsupported(format!("no device mapper (/dev/mapper/control): {e}"));
    let control = Control::open().map_err(open)?;
    let mut file = control.file().map_err(open)?;
    let begun = Instant::now();
    loop {
        let how = if patience.is_some() { FlockArg::LockExclusiveNonblock } else { FlockArg::LockExclusive };
        match Flock::lock(file, how) {
            Ok(lock) => return Ok((control, lock)),
            Err((back, Errno::EAGAIN)) if patience.is_some_and(|most| begun.elapsed() < most) => {
                file = back;
                std::thread::sleep(Duration::from_millis(10));
            }
            Err((_, e)) => return Err(LaunchError::errno("take the lock of sealed layers")(e)),
        }
    }
}

/// The device of a layer, open: the one that is there, or a new one.
fn device(control: &Control, layer: &SealedLayer) -> Result<OwnedFd, String> {
    if !layer.plain() {
        return Err("it is not named as a sealed layer is".into());
    }
    // Also where the device is there already: a layer that this node no longer has does not start again.
    let file = backing(layer)?;
    let name = layer.name();
    for _ in 0..TRIES {
        match control.create(&name, &layer.uuid()) {
            Ok(()) => {
                let made = make(control, layer, &file);
                if made.is_err() {
                    control.remove(&name, true).map_err(|e| format!("{name} cannot be removed: {e}"))?;
                }
                return made;
            }
            Err(Errno::EBUSY) => {}
            Err(e) => return Err(format!("the device {name} cannot be made: {e}")),
        }
        match there(control, layer)? {
            Some(device) => return Ok(device),
            None => std::thread::yield_now(),
        }
    }
    Err(format!("the device {name} comes and goes"))
}

fn backing(layer: &SealedLayer) -> Result<OwnedFd, String> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = nix::fcntl::open(&layer.file, flags, Mode::empty()).map_err(|e| e.to_string())?;
    let stat = calls::fstat(file.as_raw_fd()).map_err(|e| e.to_string())?;
    let own = stat.st_mode & libc::S_IFMT == libc::S_IFREG && stat.st_uid == 0 && stat.st_mode & 0o022 == 0;
    if !own {
        return Err("not a plain file that only root may write".into());
    }
    if u64::try_from(stat.st_size) != Ok(layer.size) {
        return Err(format!("{} bytes, the signed statement says {}", stat.st_size, layer.size));
    }
    Ok(file)
}

fn make(control: &Control, layer: &SealedLayer, file: &OwnedFd) -> Result<OwnedFd, String> {
    let name = layer.name();
    let looped = sys::attach(file.as_fd(), layer.size).map_err(|e| format!("loop device: {e}"))?;
    let stat = calls::fstat(looped.as_raw_fd()).map_err(|e| e.to_string())?;
    let number = format!("{}:{}", libc::major(stat.st_rdev), libc::minor(stat.st_rdev));
    let said = |what: &str, e: Errno| format!("{what} {name}: {e}");
    control
        .load(&name, layer.hash_offset / SECTOR, "verity", &layer.table(&number))
        .map_err(|e| said("the table of", e))?;
    control.resume(&name).map_err(|e| said("resume", e))?;
    let device = open(control, &name)?.ok_or_else(|| format!("{name} is gone at once"))?;
    control.remove(&name, true).map_err(|e| said("mark for removal", e))?;
    inspect(control, layer)?;
    Ok(device)
}

/// One that serves another container. None when it went away, or was left behind half made.
fn there(control: &Control, layer: &SealedLayer) -> Result<Option<OwnedFd>, String> {
    let name = layer.name();
    match control.state(&name) {
        Ok(state) if state.live => {}
        Ok(_) => {
            return match control.remove(&name, true) {
                Ok(()) | Err(Errno::ENXIO) => Ok(None),
                Err(e) => Err(format!("{name} was left behind and cannot be removed: {e}")),
            };
        }
        Err(Errno::ENXIO) => return Ok(None),
        Err(e) => return Err(format!("{name}: {e}")),
    }
    let Some(device) = open(control, &name)? else { return Ok(None) };
    // One that a killed run did not come to mark.
    control.remove(&name, true).map_err(|e| format!("mark {name} for removal: {e}"))?;
    inspect(control, layer)?;
    Ok(Some(device))
}

/// Opens its node, which must be of its number.
fn open(control: &Control, name: &str) -> Result<Option<OwnedFd>, String> {
    let state = match control.state(name) {
        Err(Errno::ENXIO) => return Ok(None),
        state => state.map_err(|e| format!("{name}: {e}"))?,
    };
    let node = format!("/dev/dm-{}", libc::minor(state.device));
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let device = match nix::fcntl::open(node.as_str(), flags, Mode::empty()) {
        Err(Errno::ENXIO) => return Ok(None),
        device => device.map_err(|e| format!("{node}: {e}"))?,
    };
    let stat = calls::fstat(device.as_raw_fd()).map_err(|e| format!("{node}: {e}"))?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFBLK || stat.st_rdev != state.device {
        return Err(format!("{node} is not the device {name}"));
    }
    Ok(Some(device))
}

/// What the kernel says of it now is what was signed.
fn inspect(control: &Control, layer: &SealedLayer) -> Result<(), String> {
    let name = layer.name();
    let state = control.state(&name).map_err(|e| format!("{name}: {e}"))?;
    let (sectors, kind, table) = control.table(&name).map_err(|e| format!("the table of {name}: {e}"))?;
    // Which loop device it is says nothing: the root hash is of the bytes.
    let number = table.split(' ').nth(1).unwrap_or_default();
    let signed = table == layer.table(number) && kind == "verity" && sectors == layer.hash_offset / SECTOR;
    if signed && state.readonly && state.uuid == layer.uuid() {
        return Ok(());
    }
    Err(format!("the device {name} is not what was signed: {kind} {table}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer() -> SealedLayer {
        SealedLayer {
            file: "/x".into(),
            size: 3 * BLOCK,
            hash_offset: BLOCK,
            root_hash: "a".repeat(64),
            salt: "b".repeat(64),
        }
    }

    #[test]
    fn the_line_of_a_table() {
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        assert_eq!(layer().table("7:3"), format!("1 7:3 7:3 4096 4096 1 2 sha256 {a} {b}"));
        assert!(layer().name().len() < 128 && layer().uuid().len() < 129);
        assert!(layer().plain());
        assert!(!SealedLayer { root_hash: format!("{} x", "a".repeat(62)), ..layer() }.plain());
        assert!(!SealedLayer { salt: "-".into(), ..layer() }.plain());
        assert!(!SealedLayer { hash_offset: 4097, ..layer() }.plain());
        assert!(!SealedLayer { hash_offset: 0, ..layer() }.plain());
    }

    #[test]
    fn a_file_that_is_not_as_it_was_signed() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let dir = std::env::temp_dir().join(format!("boltseal-verity-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let at = |name: &str| SealedLayer { file: dir.join(name), ..layer() };
        std::fs::write(dir.join("good"), vec![0; 3 * 4096]).unwrap();
        std::fs::write(dir.join("short"), vec![0; 4096]).unwrap();
        std::fs::write(dir.join("open"), vec![0; 3 * 4096]).unwrap();
        std::fs::set_permissions(dir.join("open"), std::fs::Permissions::from_mode(0o666)).unwrap();
        symlink("good", dir.join("link")).unwrap();
        nix::unistd::mkfifo(&dir.join("fifo"), Mode::S_IRUSR).unwrap();
        let said = |name| backing(&at(name)).map(drop);
        assert_eq!(said("good"), Ok(()));
        for (name, why) in
            [("short", "4096 bytes"), ("open", "only root"), ("fifo", "plain"), ("link", "ELOOP"), ("none", "ENOENT")]
        {
            assert!(said(name).unwrap_err().contains(why), "{name}: {:?}", said(name));
        }
        std::fs::remove_dir_all(dir).unwrap();
    }

    /// Loop devices are in every kernel that this is built on; the rest needs the device mapper.
    #[test]
    fn what_is_missing_is_named() {
        if let Err(why) = verity_support() {
            assert!(why.starts_with("no "), "{why}");
            assert!(set_up(&[layer()], Instant::now() + PATIENCE).is_err());
        }
        sweep();
    }
}
