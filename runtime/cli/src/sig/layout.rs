//! An OCI image layout as a folder or as a tar archive, read only where asked. Names inside it are never used as paths.
use std::collections::BTreeMap;
use std::fs::{File, read_dir};
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Largest file that is read from a layout: an index or a manifest.
const MAX_FILE: u64 = 4 << 20;
const MAX_ENTRIES: usize = 100_000;
const BLOCK: u64 = 512;
const BLOBS: &str = "blobs/sha256/";

#[derive(Debug)]
pub(crate) struct Layout {
    place: Place,
    /// `sha256:<hex>` and size of each blob.
    blobs: BTreeMap<String, u64>,
}

#[derive(Debug)]
enum Place {
    Folder(PathBuf),
    /// Name below the root, then offset and size.
    Tar(File, BTreeMap<String, (u64, u64)>),
}

impl Layout {
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let meta = std::fs::metadata(path).map_err(|e| format!("{shown}: {e}"))?;
        if meta.is_dir() {
            let mut blobs = BTreeMap::new();
            for entry in read_dir(path.join(BLOBS))
                .map_err(|e| format!("{shown}/{BLOBS}: {e}. Fix: give an OCI image layout"))?
            {
                let entry = entry.map_err(|e| format!("{shown}/{BLOBS}: {e}"))?;
                let meta = entry.metadata().map_err(|e| format!("{}: {e}", entry.path().display()))?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if meta.is_file() && is_hex(&name) {
                    blobs.insert(format!("sha256:{name}"), meta.len());
                }
                if blobs.len() > MAX_ENTRIES {
                    return Err(format!("{shown}: more than {MAX_ENTRIES} blobs"));
                }
            }
            return Ok(Self { place: Place::Folder(path.to_owned()), blobs });
        }
        let file = File::open(path).map_err(|e| format!("{shown}: {e}"))?;
        let entries = entries(&file, meta.len()).map_err(|e| format!("{shown}: {e}"))?;
        let named = entries
            .iter()
            .filter_map(|(name, (_, size))| Some((name.strip_prefix(BLOBS).filter(|h| is_hex(h))?, *size)));
        let blobs = named.map(|(hex, size)| (format!("sha256:{hex}"), size)).collect();
        Ok(Self { place: Place::Tar(file, entries), blobs })
    }

    pub(crate) fn blobs(&self) -> &BTreeMap<String, u64> {
        &self.blobs
    }

    pub(crate) fn index(&self) -> Result<Vec<u8>, String> {
        self.read("index.json")
    }

    /// The blob `sha256:<hex>`, unverified.
    pub(crate) fn blob(&self, digest: &str) -> Result<Vec<u8>, String> {
        match digest.strip_prefix("sha256:").filter(|hex| is_hex(hex)) {
            Some(hex) => self.read(&format!("{BLOBS}{hex}")),
            None => Err("not a sha256 digest".into()),
        }
    }

    /// Writes the blob to `to`, unverified, however large.
    pub(crate) fn copy(&self, digest: &str, to: &mut impl std::io::Write) -> Result<(), String> {
        let hex = digest.strip_prefix("sha256:").filter(|hex| is_hex(hex)).ok_or("not a sha256 digest")?;
        let name = format!("{BLOBS}{hex}");
        let fail = |e: std::io::Error| format!("{name}: {e}");
        match &self.place {
            Place::Folder(root) => {
                let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
                let mut file = File::options().read(true).custom_flags(flags).open(root.join(&name)).map_err(fail)?;
                std::io::copy(&mut file, to).map_err(fail)?;
            }
            Place::Tar(file, entries) => {
                let (mut at, size) = *entries.get(&name).ok_or_else(|| format!("{name}: not in the archive"))?;
                let end = at + size;
                let mut buffer = vec![0; 1 << 20];
                while at < end {
                    let part = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
                    let part = buffer.get_mut(..part).unwrap_or_default();
                    file.read_exact_at(part, at).map_err(fail)?;
                    to.write_all(part).map_err(fail)?;
                    at += part.len() as u64;
                }
            }
        }
        Ok(())
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, String> {
        let fail = |e: std::io::Error| format!("{name}: {e}");
        match &self.place {
            Place::Folder(root) => {
                let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
                let file = File::options().read(true).custom_flags(flags).open(root.join(name)).map_err(fail)?;
                let mut bytes = Vec::new();
                file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(fail)?;
                if bytes.len() as u64 > MAX_FILE {
                    Err(format!("{name}: larger than {MAX_FILE} bytes"))
                } else {
                    Ok(bytes)
                }
            }
            Place::Tar(file, entries) => {
                let (offset, size) = *entries.get(name).ok_or_else(|| format!("{name}: not in the archive"))?;
                if size > MAX_FILE {
                    return Err(format!("{name}: larger than {MAX_FILE} bytes"));
                }
                let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
                file.read_exact_at(&mut bytes, offset).map_err(fail)?;
                Ok(bytes)
            }
        }
    }
}

fn is_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Regular files of a POSIX tar (ustar). Extended headers are stepped over, unless they would rename or resize an entry:
/// no name of a layout is that long.
fn entries(file: &File, length: u64) -> Result<BTreeMap<String, (u64, u64)>, String> {
    let mut found = BTreeMap::new();
    let mut at = 0;
    for _ in 0..MAX_ENTRIES {
        let mut header = [0; BLOCK as usize];
        if at + BLOCK > length {
            return Err("the archive has no end. Fix: give an uncompressed tar of an OCI image layout".into());
        }
        file.read_exact_at(&mut header, at).map_err(|e| e.to_string())?;
        if header.iter().all(|b| *b == 0) {
            return Ok(found);
        }
        if !sum_is_right(&header) {
            return Err(
                "not an uncompressed tar archive. Fix: give an OCI image layout, as a folder or as a tar".into()
            );
        }
        let size = octal(header.get(124..136)).ok_or("an entry has no size")?;
        let data = at + BLOCK;
        let end = data.checked_add(size).filter(|end| *end <= length).ok_or("an entry is longer than the archive")?;
        match header.get(156) {
            Some(0 | b'0') => {
                let prefix = text(header.get(345..500));
                let name = text(header.get(..100));
                let name = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
                let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
                if found.insert(name.clone(), (data, size)).is_some() {
                    return Err(format!("{name}: twice in the archive"));
                }
            }
            Some(b'x' | b'g') => {
                let mut extended = vec![0; usize::try_from(size.min(MAX_FILE)).unwrap_or(0)];
                file.read_exact_at(&mut extended, data).map_err(|e| e.to_string())?;
                let text = String::from_utf8_lossy(&extended);
                if text.contains(" path=") || text.contains(" size=") {
                    return Err("the archive renames an entry by an extended header".into());
                }
            }
            Some(b'L') => return Err("the archive has names of GNU's long form".into()),
            // Folders, links.
            _ => {}
        }
        at = end.div_ceil(BLOCK) * BLOCK;
    }
    Err(format!("more than {MAX_ENTRIES} entries"))
}

fn sum_is_right(header: &[u8; BLOCK as usize]) -> bool {
    let sum: u64 = header
        .iter()
        .enumerate()
        .map(|(i, b)| if (148..156).contains(&i) { u64::from(b' ') } else { u64::from(*b) })
        .sum();
    octal(header.get(148..156)) == Some(sum)
}

fn octal(field: Option<&[u8]>) -> Option<u64> {
    let text = text(field);
    u64::from_str_radix(text.trim_matches(' '), 8).ok()
}

fn text(field: Option<&[u8]>) -> String {
    let field = field.unwrap_or_default();
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    String::from_utf8_lossy(field.get(..end).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::Command;

    fn layout() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("l/blobs/sha256")).unwrap();
        fs::write(dir.path().join("l/index.json"), "{}").unwrap();
        fs::write(dir.path().join("l/blobs/sha256").join("a".repeat(64)), "blob").unwrap();
        fs::write(dir.path().join("l/blobs/sha256/other"), "").unwrap();
        dir
    }

    #[test]
    fn a_folder_and_its_tar_are_the_same() {
        let dir = layout();
        for root in [".", "index.json blobs"] {
            let script = format!("tar -C {0}/l -cf {0}/t.tar {root}", dir.path().display());
            assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
            for name in ["l", "t.tar"] {
                let layout = Layout::open(&dir.path().join(name)).unwrap();
                assert_eq!(layout.index().unwrap(), b"{}");
                let digest = format!("sha256:{}", "a".repeat(64));
                assert_eq!(layout.blobs().iter().collect::<Vec<_>>(), [(&digest, &4)]);
                assert_eq!(layout.blob(&digest).unwrap(), b"blob");
                let mut copy = Vec::new();
                layout.copy(&digest, &mut copy).unwrap();
                assert_eq!(copy, b"blob");
                assert!(layout.copy("sha256:../../index.json", &mut copy).is_err());
                assert!(layout.blob("sha256:../../index.json").is_err());
                assert!(layout.blob(&digest.replace('a', "b")).is_err());
            }
        }
    }

    #[test]
    fn what_is_no_layout_says_so() {
        let dir = layout();
        let path = dir.path().join("x");
        fs::write(&path, "x".repeat(2000)).unwrap();
        assert!(Layout::open(&path).unwrap_err().contains("not an uncompressed tar"));
        fs::write(&path, "").unwrap();
        assert!(Layout::open(&path).unwrap_err().contains("no end"));
        assert!(Layout::open(dir.path()).unwrap_err().contains("OCI image layout"));
        assert!(Layout::open(&dir.path().join("none")).is_err());
        // Every cut of an archive is an error or a smaller layout, never a panic.
        let script = format!("tar -C {0}/l -cf {0}/t.tar .", dir.path().display());
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
        let whole = fs::read(dir.path().join("t.tar")).unwrap();
        for cut in (0..whole.len()).step_by(97) {
            fs::write(&path, &whole[..cut]).unwrap();
            if let Ok(layout) = Layout::open(&path) {
                assert!(cut > 1024 && layout.blobs().len() <= 1);
            }
        }
    }
}
