//! Sealed layers: each brought once, under the digest that its bytes have. Nothing of them is believed: a start mounts what a signed
//! statement names, and the kernel compares every block that is read with it.
use boltseal_store::blobs::{Blobs, MAX_BLOBS, MAX_BYTES};
use boltseal_store::layout::Layout;
use boltseal_trust::Digest;
use ring::digest::{Context, SHA256};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::SystemTime;

/// Answers with what is there now, new or not, and with a line for each that is not.
pub(crate) type Taken = (Vec<(Digest, bool)>, Vec<String>);

pub(crate) fn take(layout: &Layout, blobs: &BTreeMap<Digest, u64>, store: &Path) -> Result<Taken, String> {
    let (mut taken, mut skipped) = (Vec::new(), Vec::new());
    if blobs.is_empty() {
        return Ok((taken, skipped));
    }
    let folder = store.join("sha256");
    for path in [store, &folder] {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                return Err(format!("{}: {e}. Fix: run as root", path.display()));
            }
            _ => {}
        }
    }
    // Every folder on the way is root's alone, and none is a link.
    let kept = Blobs::open(store)?.ok_or_else(|| format!("{}: gone at once", folder.display()))?;
    for (digest, size) in blobs {
        match one(layout, digest, *size, &folder, &kept) {
            Ok(new) => taken.push((*digest, new)),
            Err(why) => skipped.push(format!("{digest}: {why}")),
        }
    }
    Ok((taken, skipped))
}

fn one(layout: &Layout, digest: &Digest, size: u64, folder: &Path, kept: &Blobs) -> Result<bool, String> {
    let named = digest.to_string();
    let at = folder.join(digest.hex());
    // A file of that name is only as good as its bytes, which nobody watches: read it again.
    if let Ok(mut there) = OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW).open(&at) {
        let mut sum = Sum { context: Context::new(&SHA256), to: io::sink(), left: size };
        if io::copy(&mut there, &mut sum).is_ok() && sum.is(digest) {
            // Brought again, it is as young as one that is new: its statement may still be to come.
            there.set_modified(SystemTime::now()).map_err(|e| e.to_string())?;
            return Ok(false);
        }
    }
    if layout.blobs().get(&named) != Some(&size) {
        return Err("not in the layout, or not as large as its manifest says".into());
    }
    if !kept.has_room(size)? {
        let (most, bytes) = (MAX_BLOBS, MAX_BYTES >> 30);
        return Err(format!("there is no room: at most {most} sealed layers, of {bytes} GiB. Fix: boltseal sig gc"));
    }
    let draft = folder.join(format!(".{}.new", digest.hex()));
    match fs::remove_file(&draft) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e.to_string()),
        _ => {}
    }
    let to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).map_err(|e| e.to_string())?;
    let mut sum = Sum { context: Context::new(&SHA256), to, left: size };
    let copied = layout.copy(&named, &mut sum).and_then(|()| sum.to.sync_all().map_err(|e| e.to_string()));
    let put = match copied {
        Ok(()) if sum.is(digest) => fs::rename(&draft, &at).map_err(|e| e.to_string()),
        Ok(()) => Err("the blob does not have its digest".into()),
        Err(why) => Err(why),
    };
    if put.is_err() {
        fs::remove_file(&draft).map_err(|e| e.to_string())?;
    }
    put.map(|()| true)
}

/// Passes on and hashes at most so many bytes.
struct Sum<W> {
    context: Context,
    to: W,
    left: u64,
}

impl<W> Sum<W> {
    fn is(self, digest: &Digest) -> bool {
        self.left == 0 && self.context.finish().as_ref() == digest.0
    }
}

impl<W: Write> Write for Sum<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or_else(|| io::Error::other("longer than it says"))?;
        self.context.update(bytes);
        self.to.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boltseal_trust::digest;
    use std::fs::File;
    use std::os::unix::fs::symlink;

    #[test]
    fn each_blob_once_whole_and_under_its_own_digest() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = dir.path().join("l/blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        let (good, bad, absent) = (digest(b"good"), digest(b"bad"), digest(b"absent"));
        fs::write(blobs.join(good.hex()), b"good").unwrap();
        fs::write(blobs.join(bad.hex()), b"BAD").unwrap();
        let layout = Layout::open(&dir.path().join("l")).unwrap();
        let store = dir.path().join("verity");
        let wanted = BTreeMap::from([(good, 4), (bad, 3), (absent, 6)]);
        let (taken, skipped) = take(&layout, &wanted, &store).unwrap();
        assert_eq!((taken, skipped.len()), (vec![(good, true)], 2), "{skipped:?}");
        let at = store.join("sha256").join(good.hex());
        assert_eq!(fs::read(&at).unwrap(), b"good");
        assert_eq!(take(&layout, &BTreeMap::from([(good, 4)]), &store).unwrap().0, [(good, false)]);
        // Changed, a link, or another size: brought again, or not at all.
        fs::write(&at, b"gooD").unwrap();
        assert_eq!(take(&layout, &BTreeMap::from([(good, 4)]), &store).unwrap().0, [(good, true)]);
        fs::remove_file(&at).unwrap();
        symlink(blobs.join(good.hex()), &at).unwrap();
        assert_eq!(take(&layout, &BTreeMap::from([(good, 4)]), &store).unwrap().0, [(good, true)]);
        assert!(fs::symlink_metadata(&at).unwrap().is_file());
        assert_eq!(take(&layout, &BTreeMap::from([(good, 3)]), &store).unwrap().0, []);
        assert_eq!(fs::read_dir(store.join("sha256")).unwrap().count(), 1);
        // A folder that is full takes nothing new, and one that is there is still known; what is brought again is young again.
        for n in 1..MAX_BLOBS {
            fs::write(store.join("sha256").join(format!("{n:064x}")), "").unwrap();
        }
        File::open(&at).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(take(&layout, &BTreeMap::from([(good, 4)]), &store).unwrap().0, [(good, false)]);
        assert!(fs::metadata(&at).unwrap().modified().unwrap() > SystemTime::UNIX_EPOCH);
        fs::write(blobs.join(bad.hex()), b"bad").unwrap();
        let (taken, skipped) = take(&layout, &BTreeMap::from([(bad, 3)]), &store).unwrap();
        assert!(taken.is_empty() && skipped[0].contains("no room"), "{skipped:?}");
        fs::remove_file(store.join("sha256").join(format!("{:064x}", 1))).unwrap();
        assert_eq!(take(&layout, &BTreeMap::from([(bad, 3)]), &store).unwrap().0, [(bad, true)]);
    }
}
