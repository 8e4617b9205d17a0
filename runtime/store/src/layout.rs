//! An OCI image layout as a folder or as a tar archive, plain or by gzip. Names inside it are never used as paths; links,
//! devices and folders of an archive are none of it; what is read has its caps.
use flate2::read::GzDecoder;
use std::collections::BTreeMap;
use std::fs::{File, read_dir};
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Largest file that is read from a layout: an index or a manifest.
const MAX_FILE: u64 = 4 << 20;
/// All files together that are kept of an archive.
const MAX_KEPT: u64 = 128 << 20;
/// What an archive may become when it is unpacked: a layout with all its layers.
const MAX_UNPACKED: u64 = 32 << 30;
const MAX_ENTRIES: usize = 100_000;
const BLOCK: usize = 512;
const BLOBS: &str = "blobs/sha256/";
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// What an index, a manifest or a signature begins with: JSON, or the tag of a COSE_Sign1.
const FIRST: [u8; 6] = [b'{', b' ', b'\n', b'\r', b'\t', 0xd2];

#[derive(Debug)]
pub struct Layout {
    place: Place,
    /// `sha256:<hex>` and size of each blob.
    blobs: BTreeMap<String, u64>,
}

#[derive(Debug)]
enum Place {
    Folder(PathBuf),
    /// By name below the root: of the small ones, those that may be read. The archive itself, for the others.
    Tar(BTreeMap<String, Vec<u8>>, Option<File>),
}

impl Layout {
    /// # Errors
    /// It is none, or an archive that is not as it should be.
    pub fn open(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let meta = std::fs::metadata(path).map_err(|e| format!("{shown}: {e}"))?;
        if meta.is_dir() {
            return Self::folder(path);
        }
        let fail = |e: std::io::Error| format!("{shown}: {e}");
        // A fifo in its place does not make us wait.
        let flags = nix::libc::O_NONBLOCK;
        let mut file = File::options().read(true).custom_flags(flags).open(path).map_err(fail)?;
        let found = match zipped(&mut file).map_err(fail)? {
            true => Self::tar(Stream(GzDecoder::new(BufReader::new(&file)))),
            false => Self::tar(Plain { length: meta.len(), file: BufReader::new(&file) }),
        };
        let mut found = found.map_err(|why| format!("{shown}: {why}"))?;
        if let Place::Tar(_, archive) = &mut found.place {
            *archive = Some(file);
        }
        Ok(found)
    }

    /// The same of an archive that is in memory.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of_bytes(bytes: &[u8]) -> Result<Self, String> {
        if bytes.starts_with(&GZIP) { Self::tar(Stream(GzDecoder::new(bytes))) } else { Self::tar(Stream(bytes)) }
    }

    fn folder(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let mut blobs = BTreeMap::new();
        for entry in
            read_dir(path.join(BLOBS)).map_err(|e| format!("{shown}/{BLOBS}: {e}. Fix: give an OCI image layout"))?
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
        Ok(Self { place: Place::Folder(path.to_owned()), blobs })
    }

    fn tar(mut source: impl Source) -> Result<Self, String> {
        let (kept, sizes) = entries(&mut source)?;
        if !kept.contains_key("index.json") && sizes.contains_key("manifest.json") {
            return Err("an archive of `docker save`, which holds no signatures. Fix: give an OCI image layout".into());
        }
        let named =
            sizes.iter().filter_map(|(name, size)| Some((name.strip_prefix(BLOBS).filter(|h| is_hex(h))?, *size)));
        let blobs = named.map(|(hex, size)| (format!("sha256:{hex}"), size)).collect();
        Ok(Self { place: Place::Tar(kept, None), blobs })
    }

    #[must_use]
    pub fn blobs(&self) -> &BTreeMap<String, u64> {
        &self.blobs
    }

    /// # Errors
    /// It is missing or too large.
    pub fn index(&self) -> Result<Vec<u8>, String> {
        self.read("index.json")
    }

    /// The blob `sha256:<hex>`, unverified.
    ///
    /// # Errors
    /// It is missing or too large; of an archive also one that is neither JSON nor COSE.
    pub fn blob(&self, digest: &str) -> Result<Vec<u8>, String> {
        match digest.strip_prefix("sha256:").filter(|hex| is_hex(hex)) {
            Some(hex) => self.read(&format!("{BLOBS}{hex}")),
            None => Err("not a sha256 digest".into()),
        }
    }

    /// Writes the blob to `to`, unverified, however large. Of an archive that means to read it once more, up to there.
    ///
    /// # Errors
    /// It is missing, or cannot be read or written.
    pub fn copy(&self, digest: &str, to: &mut impl Write) -> Result<(), String> {
        let hex = digest.strip_prefix("sha256:").filter(|hex| is_hex(hex)).ok_or("not a sha256 digest")?;
        let name = format!("{BLOBS}{hex}");
        let fail = |e: std::io::Error| format!("{name}: {e}");
        let missing = || format!("{name}: not in the archive");
        match &self.place {
            Place::Folder(root) => {
                let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
                let mut file = File::options().read(true).custom_flags(flags).open(root.join(&name)).map_err(fail)?;
                std::io::copy(&mut file, to).map_err(fail)?;
                Ok(())
            }
            Place::Tar(kept, archive) => {
                if let Some(bytes) = kept.get(&name) {
                    return to.write_all(bytes).map_err(fail);
                }
                let mut file = archive.as_ref().ok_or_else(missing)?.try_clone().map_err(fail)?;
                let length = file.metadata().map_err(fail)?.len();
                let found = match zipped(&mut file).map_err(fail)? {
                    true => passed_to(&mut Stream(GzDecoder::new(BufReader::new(&file))), &name, to),
                    false => passed_to(&mut Plain { length, file: BufReader::new(&file) }, &name, to),
                };
                if found? { Ok(()) } else { Err(missing()) }
            }
        }
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
            Place::Tar(kept, _) => kept.get(name).cloned().ok_or_else(|| format!("{name}: not in the archive")),
        }
    }
}

/// Whether gzip packed it; it is at its beginning afterwards.
fn zipped(file: &mut File) -> std::io::Result<bool> {
    file.rewind()?;
    let mut first = [0; 2];
    let zipped = file.read_exact(&mut first).is_ok() && first == GZIP;
    file.rewind()?;
    Ok(zipped)
}

fn is_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Where an archive comes from: bytes one after the other, some of them passed over.
trait Source {
    fn fill(&mut self, room: &mut [u8]) -> std::io::Result<()>;
    /// False where there are less.
    fn pass(&mut self, bytes: u64) -> std::io::Result<bool>;
    /// The same, but they go there.
    fn copy(&mut self, bytes: u64, to: &mut impl Write) -> std::io::Result<bool>;
}

struct Plain<'a> {
    file: BufReader<&'a File>,
    length: u64,
}

impl Source for Plain<'_> {
    fn fill(&mut self, room: &mut [u8]) -> std::io::Result<()> {
        self.file.read_exact(room)
    }
    fn pass(&mut self, bytes: u64) -> std::io::Result<bool> {
        let at = self.file.stream_position()?;
        let Some(to) = at.checked_add(bytes).filter(|to| *to <= self.length) else { return Ok(false) };
        self.file.seek(SeekFrom::Start(to)).map(|_| true)
    }
    fn copy(&mut self, bytes: u64, to: &mut impl Write) -> std::io::Result<bool> {
        std::io::copy(&mut self.file.by_ref().take(bytes), to).map(|copied| copied == bytes)
    }
}

/// One that must be read to be passed.
struct Stream<R>(R);

impl<R: Read> Source for Stream<R> {
    fn fill(&mut self, room: &mut [u8]) -> std::io::Result<()> {
        self.0.read_exact(room)
    }
    fn pass(&mut self, bytes: u64) -> std::io::Result<bool> {
        self.copy(bytes, &mut std::io::sink())
    }
    fn copy(&mut self, bytes: u64, to: &mut impl Write) -> std::io::Result<bool> {
        std::io::copy(&mut self.0.by_ref().take(bytes), to).map(|copied| copied == bytes)
    }
}

type Entries = (BTreeMap<String, Vec<u8>>, BTreeMap<String, u64>);

/// Regular files of a POSIX tar (ustar): the content of the small ones that may be read, the size of each. Extended headers
/// are stepped over, unless they would rename or resize an entry: no name of a layout is that long.
fn entries(source: &mut impl Source) -> Result<Entries, String> {
    let (mut found, mut sizes) = (BTreeMap::new(), BTreeMap::new());
    let (mut all, mut kept) = (0_u64, 0_u64);
    for _ in 0..MAX_ENTRIES {
        let Some(Entry { kind, name, size, padded }) = next(source)? else { return Ok((found, sizes)) };
        all = all.saturating_add(padded);
        if all > MAX_UNPACKED {
            return Err(format!("more than {} GiB when unpacked", MAX_UNPACKED >> 30));
        }
        match kind {
            0 | b'0' => {
                if sizes.insert(name.clone(), size).is_some() {
                    return Err(format!("{name}: twice in the archive"));
                }
                if size > MAX_FILE || size == 0 {
                    pass(source, padded)?;
                    continue;
                }
                let mut bytes = vec![0; usize::try_from(padded).unwrap_or(0)];
                source.fill(&mut bytes).map_err(|e| ended(&e, "an entry is longer than the archive"))?;
                bytes.truncate(usize::try_from(size).unwrap_or(0));
                if bytes.first().is_some_and(|first| FIRST.contains(first)) {
                    kept += size;
                    if kept > MAX_KEPT {
                        return Err(format!("more than {} MiB of manifests", MAX_KEPT >> 20));
                    }
                    found.insert(name, bytes);
                }
            }
            b'x' | b'g' => {
                if size > MAX_FILE {
                    return Err("an extended header that is too long".into());
                }
                let mut extended = vec![0; usize::try_from(padded).unwrap_or(0)];
                source.fill(&mut extended).map_err(|e| ended(&e, "an entry is longer than the archive"))?;
                let text = String::from_utf8_lossy(&extended);
                if text.contains(" path=") || text.contains(" size=") {
                    return Err("the archive renames an entry by an extended header".into());
                }
            }
            b'L' => return Err("the archive has names of GNU's long form".into()),
            // Folders, links: nothing of a layout, and nothing follows them.
            _ => pass(source, padded)?,
        }
    }
    Err(format!("more than {MAX_ENTRIES} entries"))
}

struct Entry {
    kind: u8,
    name: String,
    size: u64,
    /// Bytes up to the next header.
    padded: u64,
}

/// The next header; None at the end.
fn next(source: &mut impl Source) -> Result<Option<Entry>, String> {
    let mut header = [0; BLOCK];
    let no_end = "the archive has no end. Fix: give a whole tar of an OCI image layout";
    source.fill(&mut header).map_err(|e| ended(&e, no_end))?;
    if header.iter().all(|b| *b == 0) {
        return Ok(None);
    }
    if !sum_is_right(&header) {
        return Err("not a tar archive. Fix: give an OCI image layout, as a folder, a tar or a tar.gz".into());
    }
    let size = octal(header.get(124..136)).ok_or("an entry has no size")?;
    let padded = size.checked_next_multiple_of(BLOCK as u64).ok_or("an entry has no size")?;
    Ok(Some(Entry { kind: header.get(156).copied().unwrap_or_default(), name: name(&header), size, padded }))
}

/// Writes the regular file of that name; false where there is none. What else is wrong showed when it was opened.
fn passed_to(source: &mut impl Source, name: &str, to: &mut impl Write) -> Result<bool, String> {
    for _ in 0..MAX_ENTRIES {
        let Some(entry) = next(source)? else { return Ok(false) };
        if matches!(entry.kind, 0 | b'0') && entry.name == name {
            return source.copy(entry.size, to).map_err(|e| format!("{name}: {e}"));
        }
        pass(source, entry.padded)?;
    }
    Ok(false)
}

fn pass(source: &mut impl Source, bytes: u64) -> Result<(), String> {
    match source.pass(bytes) {
        Ok(true) => Ok(()),
        Ok(false) => Err("an entry is longer than the archive".into()),
        Err(e) => Err(e.to_string()),
    }
}

fn ended(error: &std::io::Error, short: &str) -> String {
    if error.kind() == std::io::ErrorKind::UnexpectedEof { short.to_owned() } else { error.to_string() }
}

fn name(header: &[u8; BLOCK]) -> String {
    let (prefix, name) = (text(header.get(345..500)), text(header.get(..100)));
    let name = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
    name.strip_prefix("./").unwrap_or(&name).to_owned()
}

fn sum_is_right(header: &[u8; BLOCK]) -> bool {
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
        fs::write(dir.path().join("l/blobs/sha256").join("a".repeat(64)), "{blob").unwrap();
        fs::write(dir.path().join("l/blobs/sha256/other"), "").unwrap();
        dir
    }

    fn sh(dir: &tempfile::TempDir, script: &str) {
        let script = format!("cd {} && {script}", dir.path().display());
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    }

    #[test]
    fn a_folder_and_its_tars_are_the_same() {
        let dir = layout();
        for root in [".", "index.json blobs"] {
            sh(&dir, &format!("tar -C l -cf t.tar {root} && gzip -kf t.tar"));
            for name in ["l", "t.tar", "t.tar.gz"] {
                let layout = Layout::open(&dir.path().join(name)).unwrap();
                assert_eq!(layout.index().unwrap(), b"{}", "{name}");
                let digest = format!("sha256:{}", "a".repeat(64));
                assert_eq!(layout.blobs().iter().collect::<Vec<_>>(), [(&digest, &5)]);
                assert_eq!(layout.blob(&digest).unwrap(), b"{blob");
                let mut copy = Vec::new();
                layout.copy(&digest, &mut copy).unwrap();
                assert_eq!(copy, b"{blob");
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
        assert!(Layout::open(&path).unwrap_err().contains("not a tar"));
        fs::write(&path, "").unwrap();
        assert!(Layout::open(&path).unwrap_err().contains("no end"));
        assert!(Layout::open(dir.path()).unwrap_err().contains("OCI image layout"));
        assert!(Layout::open(&dir.path().join("none")).is_err());
        sh(&dir, "mkdir d && echo [] > d/manifest.json && tar -C d -cf x . && mkfifo f");
        assert!(Layout::open(&path).unwrap_err().contains("docker save"));
        assert!(Layout::open(&dir.path().join("f")).is_err());
    }

    #[test]
    fn every_cut_of_an_archive_is_an_error_or_a_smaller_layout() {
        let dir = layout();
        sh(&dir, "tar -C l -cf t.tar . && gzip -kf t.tar");
        for name in ["t.tar", "t.tar.gz"] {
            let whole = fs::read(dir.path().join(name)).unwrap();
            assert!(Layout::of_bytes(&whole).is_ok());
            for cut in (0..whole.len()).step_by(7) {
                if let Ok(layout) = Layout::of_bytes(&whole[..cut]) {
                    assert!(name == "t.tar.gz" || cut > 1024);
                    assert!(layout.blobs().len() <= 1);
                }
            }
        }
    }

    #[test]
    fn hostile_archives_are_refused_or_hold_nothing_more() {
        let dir = layout();
        let secret = dir.path().join("secret");
        fs::write(&secret, "{secret}").unwrap();
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        // A link where a blob should be is no blob, whatever it leads to; a hard link neither.
        sh(&dir, &format!("ln -s {} l/blobs/sha256/{b} && tar -C l -cf x .", secret.display()));
        let layout = Layout::open(&dir.path().join("x")).unwrap();
        assert!(layout.blob(&format!("sha256:{b}")).is_err() && layout.blobs().len() == 1);
        sh(
            &dir,
            &format!(
                "rm l/blobs/sha256/{b} && ln l/blobs/sha256/{a} l/blobs/sha256/{b} && tar -C l -cf x . && rm l/blobs/sha256/{b}"
            ),
        );
        assert_eq!(Layout::open(&dir.path().join("x")).unwrap().blobs().len(), 1);
        // One name twice; names that lead out of it are names like others.
        sh(&dir, "tar -C l -cf x index.json && tar -C l -rf x index.json");
        assert!(Layout::open(&dir.path().join("x")).unwrap_err().contains("twice"));
        sh(&dir, "cd l && tar -P -cf ../x ../secret index.json");
        assert_eq!(Layout::open(&dir.path().join("x")).unwrap().index().unwrap(), b"{}");
        // A name by an extended header, a name of GNU's.
        for (form, says) in [("posix", "renames"), ("gnu", "long form")] {
            sh(&dir, &format!("mkdir -p l/{a} && touch l/{a}/{b} && tar -C l --format={form} -cf x {a}/{b}"));
            assert!(Layout::open(&dir.path().join("x")).unwrap_err().contains(says), "{form}");
        }
    }

    #[test]
    fn what_is_large_can_be_copied() {
        let dir = layout();
        let (name, bytes) = ("c".repeat(64), vec![7; 5 << 20]);
        fs::write(dir.path().join("l/blobs/sha256").join(&name), &bytes).unwrap();
        sh(&dir, "tar -C l -cf t.tar . && gzip -kf t.tar");
        for from in ["l", "t.tar", "t.tar.gz"] {
            let layout = Layout::open(&dir.path().join(from)).unwrap();
            for _ in 0..2 {
                let mut copy = Vec::new();
                layout.copy(&format!("sha256:{name}"), &mut copy).unwrap();
                assert!(copy == bytes, "{from}");
            }
            assert!(layout.copy(&format!("sha256:{}", "d".repeat(64)), &mut Vec::new()).is_err());
            assert!(layout.blob(&format!("sha256:{name}")).is_err());
        }
    }

    #[test]
    fn bombs_cost_no_memory() {
        // One entry that says it is 8 GiB less a byte and one that really is 64 MiB of nothing, packed.
        let dir = layout();
        sh(&dir, "truncate -s 64M l/zeros && tar -C l -czf x .");
        let layout = Layout::open(&dir.path().join("x")).unwrap();
        assert_eq!(layout.index().unwrap(), b"{}");
        assert!(layout.read("zeros").is_err());
        let mut header = fs::read(dir.path().join("x")).unwrap();
        sh(&dir, "tar -C l -cf x zeros");
        header.splice(.., fs::read(dir.path().join("x")).unwrap()[..512].iter().copied());
        header[124..136].copy_from_slice(b"77777777777\0");
        let sum: u32 =
            header.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) }).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        assert!(Layout::of_bytes(&header).unwrap_err().contains("longer than the archive"));
        let many = [header.as_slice(); 9].concat();
        assert!(Layout::of_bytes(&many).is_err());
    }
}
