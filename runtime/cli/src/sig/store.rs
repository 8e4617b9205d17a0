//! Writes the store: folders 0700, files 0600, each there whole or not at all.
use boltseal_evidence::file::{Folder, Owner};
use boltseal_trust::StoreFile;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
}

impl Store {
    /// The store at `root`, whose folders are made where they are missing.
    pub(crate) fn open(root: &Path) -> Result<Self, String> {
        if let Some(parent) = root.parent() {
            make(parent)?;
        }
        make(root)?;
        make(&root.join("sha256"))?;
        Ok(Self { root: root.to_owned() })
    }

    /// Puts one file there. False when it was there already.
    pub(crate) fn put(&self, file: &StoreFile) -> Result<bool, String> {
        let plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.') && !name.starts_with('.');
        if !plain(&file.manifest_hex) || file.manifest_hex.len() != 64 || !plain(&file.name) {
            return Err(format!("{}/{}: not a name of the store", file.manifest_hex, file.name));
        }
        let path = self.root.join("sha256").join(&file.manifest_hex);
        make(&path)?;
        // Every folder on the way is root's alone, and none is a link.
        let folder = Folder::open(&path, Owner::Root).map_err(|p| p.to_string())?;
        let shown = path.join(&file.name);
        let fail = |what: &str, e: &dyn std::fmt::Display| format!("{}: {what}: {e}", shown.display());
        match folder.read(&file.name, boltseal_trust::MAX_SIGNATURE_FILE as u64, Owner::Root) {
            Ok((bytes, _)) if bytes == file.bytes => return Ok(false),
            // Someone else's content under this name: ours is the one with the right digest.
            Ok(_) => {}
            Err(problem) if problem.missing => {}
            Err(problem) => return Err(problem.to_string()),
        }
        let draft = format!(".{}.new", file.name);
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let open = || openat(&folder.fd, draft.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR);
        let fd = match open() {
            // Left behind by an import that was killed.
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
        Ok(true)
    }
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
        fs::write(image.join(".b.sig.json.new"), "half").unwrap();
        assert!(store.put(&file("b.sig.json")).unwrap());
        assert!(!store.put(&file("b.sig.json")).unwrap());
        assert!(!Store::open(&root).unwrap().put(&file("b.sig.json")).unwrap());
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
            assert!(store.put(&file(name)).is_err(), "{name}");
        }
        symlink("/tmp", root.join("sha256").join("a".repeat(64))).unwrap();
        assert!(store.put(&file("x")).is_err());
        fs::remove_file(root.join("sha256").join("a".repeat(64))).unwrap();
        fs::set_permissions(root.join("sha256"), PermissionsExt::from_mode(0o777)).unwrap();
        assert!(store.put(&file("x")).unwrap_err().contains("sha256"));
    }
}
