//! The node's store of signatures, written: `sha256/<manifest>/<sha256 of the content>.<kind>`. Folders 0700, files 0600, each
//! there whole or not at all.
//!
//! Nothing here is trusted: a start reads at most [`MAX_FILES`] files of an image and verifies each anew. So that what an
//! author of signatures adds cannot crowd out another's, a full folder takes no more.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests"))]

pub mod blobs;
pub mod layout;

use boltseal_evidence::file::{Folder, Owner};
use boltseal_evidence::signatures::MAX_FILES;
use boltseal_trust::{MAX_ATTESTATION_FILE, StoreFile};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Most images that signatures are kept of. `boltseal sig gc` makes room.
pub const MAX_IMAGES: usize = 4096;
/// Most names that one image's folder is searched for.
const MAX_NAMES: usize = 1024;
/// End of the name of a file that is being written.
const DRAFT: &str = ".new";

/// The store at one place.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    New,
    Known,
    /// The image has as many files as it may have, or the store [`MAX_IMAGES`] images.
    Full,
}

/// An image that the store holds files of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// 64 hex digits.
    pub manifest_hex: String,
    /// Name and bytes of each.
    pub files: Vec<(String, u64)>,
    /// When the newest of them, or the folder, was changed; seconds since the epoch.
    pub changed: u64,
}

impl Store {
    /// The store at `root`, whose folders are made where they are missing.
    ///
    /// # Errors
    /// One that cannot be made.
    pub fn open(root: &Path) -> Result<Self, String> {
        if let Some(parent) = root.parent() {
            make(parent)?;
        }
        make(root)?;
        make(&root.join("sha256"))?;
        Ok(Self { root: root.to_owned() })
    }

    /// Puts one file there, where its image has less than `most` (and never more than [`MAX_FILES`]).
    ///
    /// # Errors
    /// A name or a size that no store has, a folder that is not root's alone, a disk that does not take it.
    pub fn put(&self, file: &StoreFile, most: usize) -> Result<Put, String> {
        let plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.') && !name.starts_with('.');
        if !is_hex(&file.manifest_hex) || !plain(&file.name) {
            return Err(format!("{}/{}: not a name of the store", file.manifest_hex, file.name));
        }
        if file.bytes.len() > MAX_ATTESTATION_FILE {
            return Err(format!("{}: larger than {MAX_ATTESTATION_FILE} bytes", file.name));
        }
        let path = self.path(&file.manifest_hex);
        if !path.exists() {
            if self.folder()?.names(MAX_IMAGES * 2).map_err(|p| p.to_string())?.len() >= MAX_IMAGES {
                return Ok(Put::Full);
            }
            make(&path)?;
        }
        // Every folder on the way is root's alone, and none is a link.
        let folder = Folder::open(&path, Owner::Root).map_err(|p| p.to_string())?;
        let shown = path.join(&file.name);
        let fail = |what: &str, e: &dyn std::fmt::Display| format!("{}: {what}: {e}", shown.display());
        match folder.read(&file.name, MAX_ATTESTATION_FILE as u64, Owner::Root) {
            Ok((bytes, _)) if bytes == file.bytes => return Ok(Put::Known),
            // Someone else's content under this name: ours is the one with the right digest.
            Ok(_) => {}
            Err(problem) if problem.missing => {
                let names = folder.names(MAX_NAMES).map_err(|p| p.to_string())?;
                if names.iter().filter(|name| !name.ends_with(DRAFT)).count() >= most.min(MAX_FILES) {
                    return Ok(Put::Full);
                }
            }
            Err(problem) => return Err(problem.to_string()),
        }
        // Two at once, an importer and a fetcher, write each its own draft.
        let draft = format!(".{}.{}{DRAFT}", file.name, std::process::id());
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let open = || openat(&folder.fd, draft.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR);
        let fd = match open() {
            // Left behind by one of the same number that was killed.
            Err(Errno::EEXIST) => {
                unlinkat(&folder.fd, draft.as_str(), UnlinkatFlags::NoRemoveDir).and_then(|()| open())
            }
            other => other,
        };
        let mut draft_file = File::from(fd.map_err(|e| fail("create", &e))?);
        draft_file.write_all(&file.bytes).and_then(|()| draft_file.sync_all()).map_err(|e| fail("write", &e))?;
        renameat(&folder.fd, draft.as_str(), &folder.fd, file.name.as_str()).map_err(|e| fail("rename", &e))?;
        let synced = folder.fd.try_clone().and_then(|fd| File::from(fd).sync_all());
        synced.map_err(|e| fail("sync the folder", &e))?;
        Ok(Put::New)
    }

    /// Every image that the store holds, with its files. What has another name than a store's is none.
    ///
    /// # Errors
    /// A folder that is not root's alone, or cannot be read.
    pub fn images(&self) -> Result<Vec<Held>, String> {
        let mut held = Vec::new();
        for name in self.folder()?.names(MAX_IMAGES * 2).map_err(|p| p.to_string())? {
            if is_hex(&name) {
                held.push(self.image(&name)?);
            }
        }
        Ok(held)
    }

    fn image(&self, hex: &str) -> Result<Held, String> {
        let folder = Folder::open(&self.path(hex), Owner::Root).map_err(|p| p.to_string())?;
        let stat = |name: &str| folder.stat(name).map_err(|p| p.to_string());
        let mut changed = seconds(stat(".")?.st_mtime);
        let mut files = Vec::new();
        for name in folder.names(MAX_NAMES).map_err(|p| p.to_string())? {
            let found = stat(&name)?;
            changed = changed.max(seconds(found.st_mtime));
            files.push((name, u64::try_from(found.st_size).unwrap_or(0)));
        }
        Ok(Held { manifest_hex: hex.to_owned(), files, changed })
    }

    /// Removes one file.
    ///
    /// # Errors
    /// It is not there, or cannot be removed.
    pub fn remove_file(&self, hex: &str, name: &str) -> Result<(), String> {
        let folder = Folder::open(&self.path(hex), Owner::Root).map_err(|p| p.to_string())?;
        let removed = unlinkat(&folder.fd, name, UnlinkatFlags::NoRemoveDir);
        removed.map_err(|e| format!("{}/{name}: {e}", folder.path.display()))
    }

    /// Removes the files that were seen, then the folder; one that came meanwhile stays, and its folder with it.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn remove(&self, image: &Held) -> Result<(), String> {
        for (name, _) in &image.files {
            self.remove_file(&image.manifest_hex, name)?;
        }
        let folder = self.folder()?;
        match unlinkat(&folder.fd, image.manifest_hex.as_str(), UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOTEMPTY | Errno::EEXIST) => Ok(()),
            Err(e) => Err(format!("{}/{}: {e}", folder.path.display(), image.manifest_hex)),
        }
    }

    fn folder(&self) -> Result<Folder, String> {
        Folder::open(&self.root.join("sha256"), Owner::Root).map_err(|p| p.to_string())
    }

    fn path(&self, hex: &str) -> PathBuf {
        self.root.join("sha256").join(hex)
    }
}

fn seconds(time: i64) -> u64 {
    u64::try_from(time).unwrap_or(0)
}

fn is_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn make(path: &Path) -> Result<(), String> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(format!("{}: {e}. Fix: run as root", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn file(name: &str) -> StoreFile {
        StoreFile { manifest_hex: "a".repeat(64), name: name.into(), bytes: b"{}".to_vec() }
    }

    #[test]
    fn writes_once_private_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("boltseal/sig");
        let store = Store::open(&root).unwrap();
        let image = root.join("sha256").join("a".repeat(64));
        make(&image).unwrap();
        fs::write(image.join(format!(".b.sig.json.{}.new", std::process::id())), "half").unwrap();
        assert_eq!(store.put(&file("b.sig.json"), MAX_FILES), Ok(Put::New));
        assert_eq!(store.put(&file("b.sig.json"), MAX_FILES), Ok(Put::Known));
        assert_eq!(Store::open(&root).unwrap().put(&file("b.sig.json"), MAX_FILES), Ok(Put::Known));
        assert_eq!(fs::read(image.join("b.sig.json")).unwrap(), b"{}");
        assert_eq!(fs::read_dir(&image).unwrap().count(), 1);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&root), mode(&image), mode(&image.join("b.sig.json"))), (0o700, 0o700, 0o600));
    }

    #[test]
    fn leaves_the_store_for_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("sig");
        let store = Store::open(&root).unwrap();
        for name in ["../x", ".x", "a/b", "é"] {
            assert!(store.put(&file(name), MAX_FILES).is_err(), "{name}");
        }
        symlink("/tmp", root.join("sha256").join("a".repeat(64))).unwrap();
        assert!(store.put(&file("x"), MAX_FILES).is_err());
        fs::remove_file(root.join("sha256").join("a".repeat(64))).unwrap();
        fs::set_permissions(root.join("sha256"), PermissionsExt::from_mode(0o777)).unwrap();
        assert!(store.put(&file("x"), MAX_FILES).unwrap_err().contains("sha256"));
    }

    #[test]
    fn a_full_folder_takes_no_more_until_one_goes() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("sig")).unwrap();
        for n in 0..MAX_FILES {
            assert_eq!(store.put(&file(&format!("{n}.sig.json")), MAX_FILES), Ok(Put::New));
        }
        assert_eq!(store.put(&file("x.sig.json"), MAX_FILES), Ok(Put::Full));
        assert_eq!(store.put(&file("3.sig.json"), MAX_FILES), Ok(Put::Known));
        store.remove_file(&"a".repeat(64), "3.sig.json").unwrap();
        assert_eq!(store.put(&file("x.sig.json"), MAX_FILES), Ok(Put::New));
        let large = StoreFile { bytes: vec![0; MAX_ATTESTATION_FILE + 1], ..file("y.sig.json") };
        assert!(store.put(&large, MAX_FILES).unwrap_err().contains("larger"));
    }

    #[test]
    fn what_is_held_is_listed_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("sig");
        let store = Store::open(&root).unwrap();
        store.put(&file("b.sig.json"), MAX_FILES).unwrap();
        fs::write(root.join("sha256/README"), "x").unwrap();
        let held = store.images().unwrap();
        assert_eq!(held.len(), 1);
        assert_eq!(held[0].files, [("b.sig.json".to_owned(), 2)]);
        assert!(held[0].changed > 1_700_000_000);
        // One that came since it was looked at stays.
        store.put(&file("c.sig.json"), MAX_FILES).unwrap();
        store.remove(&held[0]).unwrap();
        assert_eq!(store.images().unwrap()[0].files, [("c.sig.json".to_owned(), 2)]);
        store.remove(&store.images().unwrap()[0]).unwrap();
        assert!(store.images().unwrap().is_empty());
    }
}
