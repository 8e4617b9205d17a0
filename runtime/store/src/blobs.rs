//! Sealed layers on the node: `sha256/<digest of the file>`, and which of them nothing needs any more.
//!
//! A layer is needed while a statement of the store names it: whether that statement counts is a start's matter, and one that does not
//! keeps no more than room. One that a device reads from stays for whoever starts beside it.
use crate::{Held, Store, is_hex, seconds};
use boltseal_evidence::file::{Folder, Owner};
use boltseal_trust::{Digest, MAX_ATTESTATION_FILE, Proposal, Source, propose, verity_layers};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// Most sealed layers that are kept. `boltseal sig gc` makes room.
pub const MAX_BLOBS: usize = 4096;
/// Most bytes of all of them together.
pub const MAX_BYTES: u64 = 256 << 30;
/// What the kernel adds to the path of a file that is gone.
const DELETED: &str = " (deleted)";

/// The folder of them.
#[derive(Debug)]
pub struct Blobs {
    folder: Folder,
}

/// One file of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// 64 hex digits, or the name of one that was never written to its end.
    pub name: String,
    pub bytes: u64,
    /// Seconds since the epoch.
    pub changed: u64,
}

impl Blobs {
    /// None where there is no such folder.
    ///
    /// # Errors
    /// A folder that is not root's alone.
    pub fn open(root: &Path) -> Result<Option<Self>, String> {
        match Folder::open(&root.join("sha256"), Owner::Root) {
            Ok(folder) => Ok(Some(Self { folder })),
            Err(problem) if problem.missing => Ok(None),
            Err(problem) => Err(problem.to_string()),
        }
    }

    /// All, and what was left half written. What has another name is none.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn all(&self) -> Result<Vec<Blob>, String> {
        let draft = |name: &str| name.strip_prefix('.').and_then(|name| name.strip_suffix(".new")).is_some_and(is_hex);
        let mut all = Vec::new();
        for name in self.folder.names(MAX_BLOBS * 2).map_err(|p| p.to_string())? {
            if is_hex(&name) || draft(&name) {
                let stat = self.folder.stat(&name).map_err(|p| p.to_string())?;
                let bytes = u64::try_from(stat.st_size).unwrap_or(0);
                all.push(Blob { name, bytes, changed: seconds(stat.st_mtime) });
            }
        }
        Ok(all)
    }

    /// Whether one more of this size is let in.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn has_room(&self, size: u64) -> Result<bool, String> {
        let all = self.all()?;
        Ok(all.len() < MAX_BLOBS && all.iter().map(|blob| blob.bytes).fold(size, u64::saturating_add) <= MAX_BYTES)
    }

    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self, blob: &Blob) -> Result<(), String> {
        unlinkat(&self.folder.fd, blob.name.as_str(), UnlinkatFlags::NoRemoveDir)
            .map_err(|e| format!("{}/{}: {e}", self.folder.path.display(), blob.name))
    }
}

impl Store {
    /// The sealed layers that statements about these images name, by the hex of their digests.
    ///
    /// # Errors
    /// A file that may be a statement and cannot be read: what it names is not known.
    pub fn sealed(&self, images: &[&Held]) -> Result<BTreeSet<String>, String> {
        let mut named = BTreeSet::new();
        for image in images {
            let folder = Folder::open(&self.path(&image.manifest_hex), Owner::Root).map_err(|p| p.to_string())?;
            for (name, _) in &image.files {
                let Some(source @ (Source::Dsse | Source::SigstoreBundle)) = Source::of_file(name) else { continue };
                let read = folder.read(name, MAX_ATTESTATION_FILE as u64, Owner::Root).map_err(|p| p.to_string())?;
                named.extend(layers(source, &read.0).iter().map(Digest::hex));
            }
        }
        Ok(named)
    }
}

/// Of a statement that a start could read; any other names nothing.
fn layers(source: Source, file: &[u8]) -> Vec<Digest> {
    let Ok(Proposal::Signature(proposal)) = propose(source, file) else { return Vec::new() };
    verity_layers(proposal.payload()).unwrap_or_default().into_iter().map(|layer| layer.blob).collect()
}

/// Names of the files that loop devices read from, whatever folder they are in.
///
/// # Errors
/// The kernel's list of block devices (`/sys/block`) cannot be read.
pub fn held(block: &Path) -> Result<BTreeSet<String>, String> {
    let failed = |path: &Path, e: std::io::Error| format!("{}: {e}", path.display());
    let mut held = BTreeSet::new();
    for entry in fs::read_dir(block).map_err(|e| failed(block, e))? {
        let path = entry.map_err(|e| failed(block, e))?.path().join("loop/backing_file");
        match fs::read_to_string(&path) {
            Ok(text) => {
                let text = text.trim_end_matches('\n');
                let text = text.strip_suffix(DELETED).unwrap_or(text);
                held.extend(text.rsplit('/').next().map(str::to_owned));
            }
            // No loop device, or one without a file, or gone since.
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(e) if e.raw_os_error() == Some(nix::libc::ENXIO) || e.raw_os_error() == Some(nix::libc::ENODEV) => {}
            Err(e) => return Err(failed(&path, e)),
        }
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use boltseal_evidence::signatures::MAX_FILES;
    use boltseal_trust::{
        StoreFile, VerityLayer, attestation_file, digest, dsse_envelope, verity_predicate, verity_statement,
    };
    use std::os::unix::fs::symlink;

    fn statement(blob: &Digest) -> StoreFile {
        let hash_offset = 8 * boltseal_trust::BLOCK;
        let size = hash_offset + boltseal_trust::area(8);
        let (diff_id, root_hash) = (digest(b"layer"), digest(b"root"));
        let layer = VerityLayer { diff_id, blob: *blob, size, hash_offset, root_hash };
        let text = verity_statement(&digest(b"image"), &verity_predicate(&[layer], "mkfs"));
        attestation_file(dsse_envelope(&text, b"not even a signature", "key").as_bytes()).unwrap()
    }

    #[test]
    fn what_a_statement_names_is_known_and_what_cannot_be_read_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("sig")).unwrap();
        let (one, two) = (digest(b"one"), digest(b"two"));
        for file in [statement(&one), statement(&two)] {
            store.put(&file, MAX_FILES).unwrap();
        }
        let other = StoreFile { name: "x.sig.json".into(), ..statement(&one) };
        store.put(&other, MAX_FILES).unwrap();
        let images = store.images().unwrap();
        let named = |images: &[Held]| store.sealed(&images.iter().collect::<Vec<_>>());
        assert_eq!(named(&images), Ok(BTreeSet::from([one.hex(), two.hex()])));
        assert_eq!(named(&[]), Ok(BTreeSet::new()));
        store.remove_file(&images[0].manifest_hex, &statement(&two).name).unwrap();
        assert_eq!(named(&store.images().unwrap()), Ok(BTreeSet::from([one.hex()])));
        // It may be one: until somebody looks, everything stays.
        let at = dir.path().join("sig/sha256").join(&images[0].manifest_hex).join("y.dsse.json");
        symlink("/etc/passwd", &at).unwrap();
        assert!(named(&store.images().unwrap()).unwrap_err().contains("y.dsse.json"));
        fs::remove_file(&at).unwrap();
        fs::write(&at, "{}").unwrap();
        assert_eq!(named(&store.images().unwrap()), Ok(BTreeSet::from([one.hex()])));
    }

    #[test]
    fn blobs_are_listed_and_go_one_by_one() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Blobs::open(dir.path()).unwrap().is_none());
        let folder = dir.path().join("sha256");
        fs::create_dir(&folder).unwrap();
        let (good, draft) = ("a".repeat(64), format!(".{}.new", "b".repeat(64)));
        for name in [&good, &draft, &"README".to_owned(), &".x.new".to_owned()] {
            fs::write(folder.join(name), [0; 9]).unwrap();
        }
        let blobs = Blobs::open(dir.path()).unwrap().unwrap();
        let all = blobs.all().unwrap();
        assert_eq!(all.iter().map(|b| (&b.name, b.bytes)).collect::<Vec<_>>(), [(&draft, 9), (&good, 9)]);
        assert_eq!(blobs.has_room(MAX_BYTES - 18), Ok(true));
        assert_eq!(blobs.has_room(MAX_BYTES - 17), Ok(false));
        assert_eq!(blobs.has_room(u64::MAX), Ok(false));
        blobs.remove(&all[0]).unwrap();
        assert!(blobs.remove(&all[0]).is_err());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 3);
        for n in 1..MAX_BLOBS {
            fs::write(folder.join(format!("{n:064x}")), "").unwrap();
        }
        assert_eq!(blobs.has_room(1), Ok(false));
    }

    #[test]
    fn files_of_loop_devices_are_found_by_their_names() {
        let dir = tempfile::tempdir().unwrap();
        assert!(held(&dir.path().join("none")).unwrap_err().contains("none"));
        for (device, file) in
            [("loop0", Some("/a/b/one\n")), ("loop1", Some("/x/two (deleted)\n")), ("loop2", None), ("sda", None)]
        {
            let at = dir.path().join(device).join("loop");
            fs::create_dir_all(&at).unwrap();
            if let Some(file) = file {
                fs::write(at.join("backing_file"), file).unwrap();
            }
        }
        fs::create_dir(dir.path().join("vda")).unwrap();
        assert_eq!(held(dir.path()), Ok(BTreeSet::from(["one".to_owned(), "two".to_owned()])));
        assert!(held(Path::new("/sys/block")).is_ok());
    }
}
