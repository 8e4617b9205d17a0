//! The mount table of this process, `/proc/self/mountinfo`. Source: proc_pid_mountinfo(5).
use crate::sensitive::within;
use std::ffi::OsString;
use std::io::Read;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Bytes of the largest table that is read: some tens of thousands of mounts.
const CAP: u64 = 16 << 20;

/// One mount. Paths are bytes: a mount point need not be UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub id: u64,
    pub parent: u64,
    /// (major, minor) of the file system.
    pub device: (u32, u32),
    /// Folder of the file system that is the mount's root.
    pub root: PathBuf,
    /// The mount's root has been removed meanwhile.
    pub deleted: bool,
    pub point: PathBuf,
    pub options: String,
    pub fstype: String,
    pub source: PathBuf,
    /// The file system's own options, each name with its value, unescaped.
    pub data: Vec<(String, OsString)>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    pub entries: Vec<Entry>,
}

impl Table {
    /// # Errors
    /// When the table cannot be read or a line makes no sense.
    pub fn read() -> Result<Self, String> {
        const PATH: &str = "/proc/self/mountinfo";
        let bytes = std::fs::File::open(PATH).map_err(|e| e.to_string()).and_then(|file| bounded(file, CAP));
        Self::parse(&bytes.map_err(|why| format!("{PATH}: {why}"))?)
    }

    /// # Errors
    /// The first line that makes no sense.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let lines = bytes.split(|&b| b == b'\n').filter(|line| !line.is_empty());
        Ok(Self { entries: lines.map(parse_line).collect::<Result<_, _>>()? })
    }

    #[must_use]
    pub fn by_id(&self, id: u64) -> Option<&Entry> {
        self.entries.iter().find(|e| e.id == id)
    }

    /// Mounts below `path`, not the one at it; those that another mount hides are among them.
    pub fn below<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(move |e| e.point != path && within(&e.point, path))
    }

    /// Mounts below `path` that are reached from mount `id`: what a recursive bind of `path` brings along.
    pub fn tree<'a>(&'a self, id: u64, path: &'a Path) -> impl Iterator<Item = &'a Entry> {
        self.below(path).filter(move |entry| {
            let mut at = *entry;
            // A table that changed while it was read could hold a ring.
            for _ in 0..self.entries.len() {
                match self.by_id(at.parent) {
                    _ if at.parent == id => return true,
                    Some(parent) if parent.id != at.id => at = parent,
                    _ => return false,
                }
            }
            true
        })
    }
}

/// All bytes of `source`, or an error where it has more than `cap`.
fn bounded(source: impl Read, cap: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(64 << 10);
    source.take(cap + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if u64::try_from(bytes.len()).map_or(true, |n| n > cap) {
        Err(format!("larger than {cap} bytes"))
    } else {
        Ok(bytes)
    }
}

/// The id of the mount that an open file is on, as the table names it. Many files are asked for it, so nothing is
/// allocated.
///
/// # Errors
/// When /proc does not say.
pub fn mount_id(fd: BorrowedFd<'_>) -> Result<u64, String> {
    let wrong = |what: String| format!("the kernel does not say on which mount a file is: {what}");
    let mut buffer = [0; 1024];
    let path = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
    let length = std::fs::File::open(path).and_then(|mut f| f.read(&mut buffer)).map_err(|e| wrong(e.to_string()))?;
    let lines = buffer.get(..length).unwrap_or_default().split(|&b| b == b'\n');
    let id = lines.filter_map(|line| line.strip_prefix(b"mnt_id:")).next();
    id.and_then(|id| number(id.trim_ascii())).ok_or_else(|| wrong("no mnt_id".into()))
}

/// Parses one line. Pure; fuzzed.
///
/// # Errors
/// What is missing or wrong, with the line.
pub fn parse_line(line: &[u8]) -> Result<Entry, String> {
    let wrong = |what: &str| format!("mountinfo: {what} in {:?}", String::from_utf8_lossy(line));
    let mut fields = line.split(|&b| b == b' ');
    let mut field = |what| fields.next().filter(|f| !f.is_empty()).ok_or_else(|| wrong(&format!("no {what}")));
    let id = number(field("mount id")?).ok_or_else(|| wrong("a bad mount id"))?;
    let parent = number(field("parent id")?).ok_or_else(|| wrong("a bad parent id"))?;
    let device = device(field("device")?).ok_or_else(|| wrong("a bad device"))?;
    let root = unescape(field("root")?);
    let point = unescape(field("mount point")?);
    let options = text(field("options")?);
    // Optional fields (shared:1 master:2 ...) end with a single dash.
    while field("end of the optional fields")? != b"-" {}
    let fstype = text(field("type")?);
    // A source may be empty; then two blanks follow each other.
    let source = unescape(fields.next().ok_or_else(|| wrong("no source"))?);
    let data = fields.next().unwrap_or_default();
    if fields.next().is_some() {
        return Err(wrong("too many fields"));
    }
    let deleted = root.as_bytes().strip_suffix(b"//deleted").map(|r| OsString::from_vec(r.to_vec()));
    Ok(Entry {
        id,
        parent,
        device,
        deleted: deleted.is_some(),
        root: deleted.unwrap_or(root).into(),
        point: point.into(),
        options,
        fstype,
        source: source.into(),
        data: data.split(|&b| b == b',').map(option).collect(),
    })
}

fn option(raw: &[u8]) -> (String, OsString) {
    match raw.iter().position(|&b| b == b'=') {
        Some(at) => {
            let (name, value) = raw.split_at(at);
            (text(name), unescape(value.get(1..).unwrap_or_default()))
        }
        None => (text(raw), OsString::new()),
    }
}

fn text(raw: &[u8]) -> String {
    unescape(raw).to_string_lossy().into_owned()
}

fn number(raw: &[u8]) -> Option<u64> {
    std::str::from_utf8(raw).ok()?.parse().ok()
}

fn device(raw: &[u8]) -> Option<(u32, u32)> {
    let (major, minor) = std::str::from_utf8(raw).ok()?.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Undoes the kernel's `\ooo` for blanks, tabs, line ends, backslashes, commas.
fn unescape(raw: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|d| first == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        let byte = octal.and_then(|d| d.iter().try_fold(0_u8, |n, b| n.checked_mul(8)?.checked_add(b - b'0')));
        match byte {
            Some(byte) => {
                out.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                out.push(first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_line() {
        let line = br"36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue";
        let e = parse_line(line).unwrap();
        assert_eq!((e.id, e.parent, e.device), (36, 35, (98, 0)));
        assert_eq!((e.root.as_path(), e.point.as_path()), (Path::new("/mnt1"), Path::new("/mnt 2")));
        assert_eq!((e.fstype.as_str(), e.deleted), ("ext3", false));
        assert_eq!(e.data[1], ("errors".into(), "continue".into()));
    }

    #[test]
    fn reads_the_odd_ones() {
        let e = parse_line(br"1 2 0:4 net:[4026531840] /run/netns/x rw - nsfs nsfs rw").unwrap();
        assert_eq!(e.root, Path::new("net:[4026531840]"));
        assert!(parse_line(b"1 2 0:4 /a//deleted /b rw - ext4 x rw").unwrap().deleted);
        assert_eq!(
            parse_line(b"1 2 0:4 / /b rw -  tmpfs rw").map(|e| e.fstype),
            Err("mountinfo: no type in \"1 2 0:4 / /b rw -  tmpfs rw\"".to_owned())
        );
        assert_eq!(parse_line(b"1 2 0:4 / /b rw - tmpfs  rw").unwrap().source, Path::new(""));
        let e = parse_line(br"1 2 0:4 / /b rw - overlay o rw,lowerdir=/a\134:b:/c\054d").unwrap();
        assert_eq!(e.data[1].1, r"/a\:b:/c,d");
        assert_eq!(parse_line(b"1 2 0:4 / /\xff rw - tmpfs t rw").unwrap().point.as_os_str().as_bytes(), b"/\xff");
    }

    #[test]
    fn refuses_nonsense() {
        for bad in [
            "",
            "1",
            "1 2 0:4 / /b rw",
            "x 2 0:4 / /b rw - a b c",
            "1 2 04 / /b rw - a b c",
            "1 2 0:4 / /b rw - a b c d",
        ] {
            assert!(parse_line(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_table_that_is_too_large_is_an_error() {
        assert_eq!(bounded(&b"1234"[..], 4).unwrap(), b"1234");
        assert_eq!(bounded(&b"12345"[..], 4), Err("larger than 4 bytes".into()));
    }

    /// What hangs on another mount lies beside the path, not on it.
    #[test]
    fn a_tree_follows_parents_and_not_paths() {
        let lines = [
            "1 0 0:1 / /",
            "2 1 0:2 / /a",
            "3 2 0:3 / /a/b",
            "4 3 0:4 / /a/b/c",
            "5 1 0:5 / /a/covered",
            "6 6 0:6 / /a/own",
            "7 8 0:7 / /a/x",
            "8 7 0:8 / /a/y",
            "9 2 0:9 / /elsewhere",
        ];
        let text: String = lines.iter().map(|line| format!("{line} rw - tmpfs t rw\n")).collect();
        let table = Table::parse(text.as_bytes()).unwrap();
        let ids = |id| table.tree(id, Path::new("/a")).map(|e| e.id).collect::<Vec<_>>();
        // A ring cannot be told apart from a table that changed, and counts.
        assert_eq!(ids(2), [3, 4, 7, 8]);
        assert_eq!(ids(3), [4, 7, 8]);
    }

    #[test]
    fn this_process_has_a_table() {
        let table = Table::read().unwrap();
        assert!(table.entries.iter().any(|e| e.point == Path::new("/proc")));
        assert!(table.below(Path::new("/")).all(|e| e.point != Path::new("/")));
        let proc = std::fs::File::open("/proc").unwrap();
        let id = mount_id(std::os::fd::AsFd::as_fd(&proc)).unwrap();
        assert_eq!(table.by_id(id).unwrap().point, Path::new("/proc"));
    }
}
