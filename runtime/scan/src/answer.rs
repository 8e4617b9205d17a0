//! What a worker says, as text: a line per fact, paths with every unusual byte as `%XX`. Decoded by whoever does not believe it,
//! and read again from the cache.
use crate::Progress;
use crate::walk::LISTED;
use boltseal_policy::facts::FoundKind;
use std::fmt::Write as _;

/// Most bytes of an answer: every kind's list full, each path as long as the kernel takes.
pub const MAX: usize = 1 << 20;
/// A longer path is cut.
const MAX_PATH: usize = 1024;
/// Characters of a note; a longer one is cut.
const MAX_NOTE: usize = 64;
/// And so many bytes of UTF-8 at most.
const MAX_NOTE_BYTES: usize = 4 * MAX_NOTE;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    pub entries: u64,
    pub bytes: u64,
    pub found: Vec<Seen>,
    pub more: [u64; FoundKind::ALL.len()],
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub kind: FoundKind,
    pub path: Vec<u8>,
    pub note: String,
}

/// A result, or why there is none.
#[must_use]
pub fn encode(answer: &Result<Answer, String>) -> Vec<u8> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(why) => {
            return format!("failed {}\n", escaped(why.as_bytes().get(..MAX_PATH).unwrap_or(why.as_bytes())))
                .into_bytes();
        }
    };
    let mut out = format!("entries {}\nbytes {}\n", answer.entries, answer.bytes);
    for (kind, more) in FoundKind::ALL.iter().zip(answer.more).filter(|(_, more)| *more > 0) {
        append(&mut out, format_args!("more {} {more}\n", kind.name()));
    }
    for seen in &answer.found {
        let note: String = seen.note.chars().take(MAX_NOTE).collect();
        let path = seen.path.get(..MAX_PATH).unwrap_or(&seen.path);
        append(&mut out, format_args!("found {} {} {}\n", seen.kind.name(), escaped(path), escaped(note.as_bytes())));
    }
    out.into_bytes()
}

/// # Errors
/// What the worker says it failed at, or that it says something else than it may.
pub fn decode(bytes: &[u8]) -> Result<Answer, String> {
    let odd = || "the scan's result is malformed".to_owned();
    if bytes.len() > MAX {
        return Err(odd());
    }
    let text = std::str::from_utf8(bytes).map_err(|_| odd())?;
    let mut lines = text.strip_suffix('\n').ok_or_else(odd)?.split('\n');
    let first = lines.next().ok_or_else(odd)?;
    if let Some(why) = first.strip_prefix("failed ") {
        let why = unescaped(why, MAX_PATH).filter(|_| lines.next().is_none()).ok_or_else(odd)?;
        // What begins like a time-out would be taken for one.
        return Err(format!("it cannot be scanned: {}", String::from_utf8_lossy(&why)));
    }
    let mut answer = Answer { entries: number(first, "entries ").ok_or_else(odd)?, ..Answer::default() };
    answer.bytes = lines.next().and_then(|line| number(line, "bytes ")).ok_or_else(odd)?;
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["more", kind, count] => {
                let more = kind_of(kind).and_then(|kind| answer.more.get_mut(kind.place())).ok_or_else(odd)?;
                *more = plain(count).filter(|count| *more == 0 && *count > 0).ok_or_else(odd)?;
            }
            ["found", kind, path, note] => {
                let kind = kind_of(kind).ok_or_else(odd)?;
                let path = unescaped(path, MAX_PATH).filter(|path| path.starts_with(b"/")).ok_or_else(odd)?;
                let note = unescaped(note, MAX_NOTE_BYTES)
                    .and_then(|note| String::from_utf8(note).ok())
                    .filter(|note| note.chars().count() <= MAX_NOTE)
                    .ok_or_else(odd)?;
                if answer.found.iter().filter(|f| f.kind == kind).count() == LISTED {
                    return Err(odd());
                }
                answer.found.push(Seen { kind, path, note });
            }
            _ => return Err(odd()),
        }
    }
    Ok(answer)
}

pub(crate) fn encode_progress(progress: Progress) -> [u8; 16] {
    let mut out = [0; 16];
    let (entries, bytes) = out.split_at_mut(8);
    entries.copy_from_slice(&progress.entries.to_le_bytes());
    bytes.copy_from_slice(&progress.bytes.to_le_bytes());
    out
}

pub(crate) fn decode_progress(bytes: &[u8]) -> Option<Progress> {
    let (entries, rest) = bytes.split_first_chunk()?;
    let bytes: [u8; 8] = rest.try_into().ok()?;
    Some(Progress { entries: u64::from_le_bytes(*entries), bytes: u64::from_le_bytes(bytes) })
}

fn append(out: &mut String, what: std::fmt::Arguments<'_>) {
    if out.write_fmt(what).is_err() {
        // A String takes everything.
    }
}

fn kind_of(name: &str) -> Option<FoundKind> {
    FoundKind::ALL.into_iter().find(|kind| kind.name() == name)
}

fn number(line: &str, head: &str) -> Option<u64> {
    plain(line.strip_prefix(head)?)
}

/// In the one form that it is written in.
fn plain(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/._-+:,=@~>".contains(&byte)
}

pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        if is_plain(byte) {
            out.push(char::from(byte));
        } else {
            append(&mut out, format_args!("%{byte:02X}"));
        }
    }
    out
}

/// None: not what [`escaped`] writes.
pub(crate) fn unescaped(text: &str, most: usize) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    };
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let literal = if byte == b'%' { digit(bytes.next()?)? << 4 | digit(bytes.next()?)? } else { byte };
        if is_plain(literal) != (byte != b'%') || out.len() == most {
            return None;
        }
        out.push(literal);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> Answer {
        let seen = |kind, path: &[u8], note: &str| Seen { kind, path: path.into(), note: note.into() };
        Answer {
            entries: 12,
            bytes: u64::MAX,
            found: vec![
                seen(FoundKind::Shell, b"/bin/sh", "-> busybox"),
                seen(FoundKind::Setuid, b"/a b\n%\xff", ""),
                seen(FoundKind::FileCapability, b"/x", "permitted 0x1, effective"),
            ],
            more: [0, 1, 0, 0, 9],
        }
    }

    #[test]
    fn what_is_said_is_heard() {
        assert_eq!(decode(&encode(&Ok(answer()))), Ok(answer()));
        assert_eq!(decode(&encode(&Ok(Answer::default()))), Ok(Answer::default()));
        assert_eq!(decode(&encode(&Err("timeout: /a\n".into()))), Err("it cannot be scanned: timeout: /a\n".into()));
        let progress = Progress { entries: 7, bytes: 1 << 40 };
        assert_eq!(decode_progress(&encode_progress(progress)), Some(progress));
        assert_eq!(decode_progress(&[0; 17]), None);
        assert_eq!(decode_progress(&[0; 3]), None);
    }

    #[test]
    fn nothing_else_is_an_answer() {
        let good = String::from_utf8(encode(&Ok(answer()))).unwrap();
        for (from, to) in [
            ("entries 12", "entries 012"),
            ("entries 12", "entries -1"),
            ("entries 12\n", ""),
            ("bytes", "byte"),
            ("found shell", "found root"),
            ("/bin/sh", "bin/sh"),
            ("/bin/sh", "/bin/%73h"),
            ("/bin/sh", "/bin/ sh"),
            ("%0A", "%0a"),
            ("%0A", "%0"),
            ("more device 9", "more device 0"),
            ("more device 9", "more device 9\nmore device 9"),
            ("found setuid", "failed setuid"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good, "{from}");
            assert!(decode(bad.as_bytes()).is_err(), "{from} -> {to}");
        }
        for bad in [&b""[..], b"\n", b"failed x\nfailed y\n", b"entries 1\nbytes 1", b"\xff\n"] {
            assert_eq!(decode(bad), Err("the scan's result is malformed".into()));
        }
    }

    /// Found by the fuzzer: a note that nobody writes was read.
    #[test]
    fn a_note_is_read_as_long_as_it_is_written() {
        let noted = |count| Answer {
            found: vec![Seen { kind: FoundKind::Shell, path: b"/a".to_vec(), note: "é".repeat(count) }],
            ..Answer::default()
        };
        assert_eq!(decode(&encode(&Ok(noted(MAX_NOTE)))), Ok(noted(MAX_NOTE)));
        assert_eq!(decode(&encode(&Ok(noted(MAX_NOTE + 1)))), Ok(noted(MAX_NOTE)));
        let long = format!("entries 1\nbytes 1\nfound shell /a {}\n", "x".repeat(MAX_NOTE + 1));
        assert!(decode(long.as_bytes()).is_err());
    }

    #[test]
    fn more_than_a_list_holds_is_no_answer() {
        let seen = Seen { kind: FoundKind::Shell, path: b"/a".to_vec(), note: String::new() };
        let full = |count| Answer { found: vec![seen.clone(); count], ..Answer::default() };
        assert!(decode(&encode(&Ok(full(LISTED)))).is_ok());
        assert!(decode(&encode(&Ok(full(LISTED + 1)))).is_err());
    }

    #[test]
    fn a_full_answer_of_the_longest_paths_has_room() {
        // Each byte takes three.
        let seen = |kind| Seen { kind, path: [b"/".as_slice(), &[0xff; 4096]].concat(), note: "x".repeat(900) };
        let found = FoundKind::ALL.into_iter().flat_map(|kind| vec![seen(kind); LISTED]).collect();
        let answer = Answer { found, more: [u64::MAX; 5], ..Answer::default() };
        let bytes = encode(&Ok(answer));
        assert!(decode(&bytes).is_ok() && bytes.len() < MAX, "{}", bytes.len());
    }
}
