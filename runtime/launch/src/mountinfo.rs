//! /proc/PID/mountinfo (man proc_pid_mountinfo), as far as inspection needs it.

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) device: (u32, u32),
    /// Path in its file system of what is mounted.
    pub(crate) root: String,
    pub(crate) point: String,
    pub(crate) readonly: bool,
    pub(crate) nosuid: bool,
    pub(crate) nodev: bool,
    pub(crate) noexec: bool,
    pub(crate) idmapped: bool,
    pub(crate) shared: bool,
    pub(crate) slave: bool,
    pub(crate) fstype: String,
    /// As whoever mounted it named it.
    pub(crate) source: String,
    /// Of the file system, not of this mount: a cgroup v1 hierarchy names its controllers here.
    pub(crate) super_options: String,
}

/// Parses the file; a line that is not understood is an error, not skipped.
pub(crate) fn parse(text: &str) -> Result<Vec<Entry>, String> {
    text.lines().map(|line| entry(line).ok_or_else(|| format!("mountinfo line not understood: {line}"))).collect()
}

fn entry(line: &str) -> Option<Entry> {
    let (left, right) = line.split_once(" - ")?;
    let mut fields = left.split(' ');
    let id = fields.next()?.parse().ok()?;
    let mut fields = fields.skip(1);
    let (major, minor) = fields.next()?.split_once(':')?;
    let root = unescape(fields.next()?);
    let point = unescape(fields.next()?);
    let options: Vec<&str> = fields.next()?.split(',').collect();
    let has = |name: &str| options.contains(&name);
    let mut kind = right.split(' ');
    let mut entry = Entry {
        id,
        device: (major.parse().ok()?, minor.parse().ok()?),
        root,
        point,
        readonly: has("ro"),
        nosuid: has("nosuid"),
        nodev: has("nodev"),
        noexec: has("noexec"),
        idmapped: has("idmapped"),
        shared: false,
        slave: false,
        fstype: kind.next()?.to_owned(),
        source: unescape(kind.next()?),
        super_options: kind.next()?.to_owned(),
    };
    for tag in fields {
        entry.shared |= tag.starts_with("shared:");
        entry.slave |= tag.starts_with("master:");
    }
    Some(entry)
}

/// Blank, tab, newline, backslash and hash are written as \ and three octal digits.
fn unescape(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| *first == b'\\').and_then(|d| std::str::from_utf8(d).ok());
        match octal.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_and_without_tags() {
        let text = "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime,nosuid master:1 shared:7 - ext3 /dev/root rw,errors=continue\n\
                    37 35 0:5 / /proc ro,nodev,noexec - proc proc rw\n";
        let all = parse(text).unwrap();
        assert_eq!((all[0].id, all[0].point.as_str(), all[0].source.as_str()), (36, "/mnt 2", "/dev/root"));
        assert_eq!((all[0].device, all[0].root.as_str()), ((98, 0), "/mnt1"));
        assert!(all[0].slave && all[0].shared && all[0].nosuid && !all[0].readonly && !all[0].nodev);
        assert!(all[1].readonly && all[1].nodev && all[1].noexec && !all[1].shared && !all[1].slave);
        assert_eq!(all[1].fstype, "proc");
        assert!(parse("1 2 three").is_err());
        assert!(parse("").unwrap().is_empty());
    }
}
