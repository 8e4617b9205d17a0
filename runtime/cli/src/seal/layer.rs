//! One layer: unpacked by tar into a folder of our own, packed by mkfs.erofs, hashed here.
//!
//! mkfs.erofs of Debian 12 reads no archive, so the layer is unpacked first, as root, for owners and device nodes. What a later
//! layer removes becomes what overlayfs reads: a character device 0:0, and `trusted.overlay.opaque`.
use crate::screen::Failure;
use boltseal_trust::{BLOCK, Digest, Tree, VerityLayer};
use nix::sys::stat::{Mode, SFlag, mknod};
use ring::digest::{Context, SHA256};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, setxattr, utimensat};
use std::cell::RefCell;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";
/// After every time of a file: mkfs.erofs writes it as the time of the image, and leaves those of the files as they are.
const EPOCH: &str = "4102444800";

/// A folder that nobody else sees, and where the blobs go.
#[derive(Debug)]
pub(crate) struct Work {
    folder: PathBuf,
    blobs: PathBuf,
    mkfs: RefCell<String>,
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir_all(&self.folder) {
            crate::screen::talk(&format!("{}: {e}", self.folder.display()));
        }
    }
}

impl Work {
    pub(crate) fn new(blobs: PathBuf) -> Result<Self, Failure> {
        if !nix::unistd::geteuid().is_root() {
            return Err(Failure::undecided("a layer's files belong to many users. Fix: run as root, off the node"));
        }
        let folder = std::env::temp_dir().join(format!("boltseal-seal-{}", std::process::id()));
        DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .map_err(|e| Failure::undecided(format!("{}: {e}", folder.display())))?;
        Ok(Self { folder, blobs, mkfs: RefCell::default() })
    }

    /// Name and version of the program that packs, once it has packed.
    pub(crate) fn mkfs(&self) -> String {
        self.mkfs.borrow().clone()
    }

    pub(crate) fn layer(&self, diff_id: &Digest, packed: &Path) -> Result<VerityLayer, Failure> {
        self.seal(diff_id, packed).map_err(|why| Failure::undecided(format!("{diff_id}: {why}")))
    }

    fn seal(&self, diff_id: &Digest, packed: &Path) -> Result<VerityLayer, String> {
        let (root, image) = (self.folder.join("root"), self.folder.join("image"));
        let begun = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|e| e.to_string())?.as_secs();
        DirBuilder::new().mode(0o755).create(&root).map_err(|e| e.to_string())?;
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).map_err(|e| e.to_string())?;
        unpack(diff_id, packed, &root)?;
        convert(&root, i64::try_from(begun).unwrap_or(i64::MAX)).map_err(|e| format!("whiteouts: {e}"))?;
        *self.mkfs.borrow_mut() = pack(diff_id, &root, &image)?;
        fs::remove_dir_all(&root).map_err(|e| e.to_string())?;
        let sealed = self.hash(diff_id, &image);
        fs::remove_file(&image).map_err(|e| e.to_string())?;
        sealed
    }

    /// Copies the image to where the blobs are, with its tree behind it.
    fn hash(&self, diff_id: &Digest, image: &Path) -> Result<VerityLayer, String> {
        let text = |e: io::Error| e.to_string();
        let mut from = File::open(image).map_err(text)?;
        let draft = self.blobs.join(format!(".{}.new", diff_id.hex()));
        let mut to = File::create(&draft).map_err(text)?;
        let (mut tree, mut all) = (Tree::new(diff_id.0), Context::new(&SHA256));
        let mut hash_offset = 0;
        loop {
            let mut block = [0; BLOCK as usize];
            let mut filled = 0;
            while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                match from.read(rest).map_err(text)? {
                    0 => break,
                    read => filled += read,
                }
            }
            if filled == 0 {
                break;
            }
            tree.block(&block);
            all.update(&block);
            to.write_all(&block).map_err(text)?;
            hash_offset += BLOCK;
        }
        let hashed = tree.finish().ok_or("mkfs.erofs made an empty file")?;
        all.update(&hashed.area);
        to.write_all(&hashed.area).and_then(|()| to.sync_all()).map_err(text)?;
        let mut blob = Digest([0; 32]);
        blob.0.copy_from_slice(all.finish().as_ref());
        fs::rename(&draft, self.blobs.join(blob.hex())).map_err(text)?;
        let size = hash_offset + hashed.area.len() as u64;
        let layer = VerityLayer { diff_id: *diff_id, blob, size, hash_offset, root_hash: hashed.root };
        if layer.is_whole() { Ok(layer) } else { Err("larger than a layer may be".into()) }
    }
}

/// By tar, from bytes that have this digest unpacked. Extended attributes but the two kinds that a workload has stay out: those
/// of overlayfs would be ours to write.
fn unpack(diff_id: &Digest, packed: &Path, root: &Path) -> Result<(), String> {
    let text = |e: io::Error| format!("{}: {e}", packed.display());
    let mut file = File::open(packed).map_err(text)?;
    let mut magic = [0; 4];
    let known = file.read(&mut magic).map_err(text)?;
    let program = match magic.get(..known) {
        Some([0x1f, 0x8b, ..]) => Some("gzip"),
        Some([0x28, 0xb5, 0x2f, 0xfd]) => Some("zstd"),
        _ => None,
    };
    let file = File::open(packed).map_err(text)?;
    let (mut from, mut child): (Box<dyn Read>, _) = match program {
        None => (Box::new(file), None),
        Some(program) => {
            let mut child = Command::new(program)
                .args(["-d", "-c"])
                .stdin(file)
                .stdout(Stdio::piped())
                .spawn()
                .map_err(|e| format!("{program}: {e}. Fix: install it"))?;
            (Box::new(child.stdout.take().ok_or("no pipe")?), Some(child))
        }
    };
    let mut tar = Command::new("tar")
        .args(["--extract", "--file=-", "--numeric-owner", "--same-owner", "--same-permissions", "--xattrs"])
        .args(["--xattrs-include=user.*", "--xattrs-include=security.capability", "--delay-directory-restore"])
        .args(["--warning=no-timestamp", "--directory"])
        .arg(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|e| format!("tar: {e}"))?;
    let mut into = tar.stdin.take().ok_or("no pipe")?;
    let mut all = Context::new(&SHA256);
    let mut buffer = vec![0; 1 << 20];
    let copied = loop {
        match from.read(&mut buffer) {
            Ok(0) => break Ok(()),
            Ok(read) => {
                let bytes = buffer.get(..read).unwrap_or_default();
                all.update(bytes);
                // tar stops reading at the archive's end; what stands behind it still counts.
                match into.write_all(bytes) {
                    Err(e) if e.kind() != io::ErrorKind::BrokenPipe => break Err(e.to_string()),
                    _ => {}
                }
            }
            Err(e) => break Err(e.to_string()),
        }
    };
    drop((into, from));
    let unpacked = tar.wait().map_err(|e| e.to_string())?;
    if let Some(child) = &mut child
        && !child.wait().map_err(|e| e.to_string())?.success()
    {
        return Err("it cannot be decompressed".into());
    }
    copied?;
    if all.finish().as_ref() != diff_id.0 {
        return Err("the layer's bytes are not those of its diff_id".into());
    }
    if unpacked.success() { Ok(()) } else { Err("tar cannot unpack it".into()) }
}

/// Whiteouts as overlayfs reads them. Times of folders are those of the archive, or none: a folder that it does not name has
/// been made just now.
fn convert(folder: &Path, begun: i64) -> io::Result<()> {
    let meta = fs::symlink_metadata(folder)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type()?.is_dir() {
            convert(&path, begun)?;
            continue;
        }
        let Some(hidden) = name.to_str().and_then(|name| name.strip_prefix(WHITEOUT)) else { continue };
        fs::remove_file(&path)?;
        if name == OPAQUE {
            setxattr(folder, "trusted.overlay.opaque", b"y", XattrFlags::empty())?;
        } else if !hidden.is_empty() && !hidden.starts_with(WHITEOUT) && hidden != "." && hidden != ".." {
            let at = folder.join(hidden);
            // What the layer has itself stays.
            if fs::symlink_metadata(&at).is_err() {
                mknod(&at, SFlag::S_IFCHR, Mode::empty(), 0)?;
                times(&at, 0, 0)?;
            }
        }
    }
    if meta.mtime() >= begun { times(folder, 0, 0) } else { times(folder, meta.mtime(), meta.mtime_nsec()) }
}

fn times(path: &Path, tv_sec: i64, tv_nsec: i64) -> io::Result<()> {
    let at = Timespec { tv_sec, tv_nsec };
    Ok(utimensat(CWD, path, &Timestamps { last_access: at, last_modification: at }, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// The same bytes for the same tree: neither time nor id of the image is of this run. Answers with who packed.
fn pack(diff_id: &Digest, root: &Path, image: &Path) -> Result<String, String> {
    let hex = diff_id.hex();
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| hex.get(range).unwrap_or_default().to_owned());
    let out = Command::new("mkfs.erofs")
        .env("SOURCE_DATE_EPOCH", EPOCH)
        .args(["-U", &parts.join("-")])
        .arg(image)
        .arg(root)
        .output()
        .map_err(|e| format!("mkfs.erofs: {e}. Fix: install erofs-utils"))?;
    if !out.status.success() {
        return Err(format!("mkfs.erofs: {}", String::from_utf8_lossy(&out.stderr).trim()));
    }
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    Ok(said.lines().next().unwrap_or("mkfs.erofs").trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use boltseal_trust::digest;

    fn sh(script: &str) -> String {
        let out = Command::new("sh").args(["-c", script]).output().unwrap();
        assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// A layer that removes, replaces a folder, and has owners, links, a capability and odd times.
    fn layer(dir: &Path) -> Vec<u8> {
        let at = dir.display();
        sh(&format!(
            "cd {at} && mkdir -p l/etc l/opt/app l/bin && echo x >l/bin/p && ln l/bin/p l/bin/q && ln -s p l/bin/s && chmod 4755 l/bin/p \
             && chown 12:34 l/etc && touch l/.wh.gone l/opt/app/.wh..wh..opq l/etc/.wh.passwd && touch -d @1600000000 l/bin/p l/etc l/opt/app \
             && tar --sort=name --numeric-owner -C l -cf l.tar bin/p bin/q bin/s etc opt/app .wh.gone && rm -r l"
        ));
        fs::read(dir.join("l.tar")).unwrap()
    }

    #[test]
    fn a_layer_is_the_same_blob_each_time_and_veritysetup_verifies_it() {
        let dir = tempfile::tempdir().unwrap();
        let tar = layer(dir.path());
        let named = digest(&tar);
        let work = Work::new(dir.path().to_owned()).unwrap();
        let first = work.layer(&named, &dir.path().join("l.tar")).unwrap();
        sh(&format!("cd {0} && gzip -1 -k l.tar && zstd -q l.tar && sleep 1", dir.path().display()));
        for packed in ["l.tar.gz", "l.tar.zst"] {
            assert_eq!(work.layer(&named, &dir.path().join(packed)).unwrap(), first, "{packed}");
        }
        assert!(work.mkfs().starts_with("mkfs.erofs"), "{}", work.mkfs());
        let blob = dir.path().join(first.blob.hex());
        assert_eq!(fs::metadata(&blob).unwrap().len(), first.size);
        // Where the tool is not, its own figures are in the tree's test.
        if Command::new("veritysetup").arg("--version").output().is_ok_and(|out| out.status.success()) {
            let verify = |root: &str| {
                let mut command = Command::new("veritysetup");
                command
                    .arg(format!("--hash-offset={}", first.hash_offset))
                    .arg("verify")
                    .args([&blob, &blob])
                    .arg(root);
                command.output().unwrap().status.success()
            };
            assert!(verify(&first.root_hash.hex()));
            assert!(!verify(&first.diff_id.hex()));
            let mut bytes = fs::read(&blob).unwrap();
            bytes[1024] ^= 1;
            fs::write(&blob, bytes).unwrap();
            assert!(!verify(&first.root_hash.hex()));
        }
        let other = work.layer(&digest(b"other"), &dir.path().join("l.tar")).unwrap_err();
        assert!(other.text.contains("diff_id"), "{other:?}");
        drop(work);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
    }

    #[test]
    fn whiteouts_become_those_of_overlayfs() {
        let dir = tempfile::tempdir().unwrap();
        let tar = layer(dir.path());
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        unpack(&digest(&tar), &dir.path().join("l.tar"), &root).unwrap();
        convert(&root, 1_700_000_000).unwrap();
        let meta = |name: &str| fs::symlink_metadata(root.join(name)).unwrap();
        for name in ["gone", "etc/passwd"] {
            assert_eq!((meta(name).mode() & 0o170_000, meta(name).rdev()), (0o020_000, 0), "{name}");
        }
        let mut value = [0; 8];
        assert_eq!(rustix::fs::getxattr(root.join("opt/app"), "trusted.overlay.opaque", &mut value), Ok(1));
        assert_eq!((meta("etc").uid(), meta("etc").gid(), meta("etc").mtime()), (12, 34, 1_600_000_000));
        assert_eq!(
            (meta("bin/p").mode() & 0o7777, meta("bin/p").nlink(), meta("bin/p").mtime()),
            (0o4755, 2, 1_600_000_000)
        );
        // Not in the archive: made by tar, just now.
        assert_eq!((meta("opt").mtime(), meta("bin").mtime()), (0, 0));
        assert!(!root.join(".wh.gone").exists() && !root.join("opt/app/.wh..wh..opq").exists());
    }
}
