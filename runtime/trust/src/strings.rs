//! Every string of a JSON text at a known path, found without a parser.
//!
//! A tokenizer: one pass, no recursion, fixed memory. It knows strings, brackets, colons and commas; whether the text
//! is JSON in full is for those who parse it (the worker, and containerd before). A path's key that stands twice, or
//! is spelt so that another reader could take it for the key (case, escapes), is refused: there must be one reading.
use crate::bind::Unbound;

/// Brackets inside each other that are followed.
const MAX_DEPTH: usize = 64;

/// In a path, any member of an object.
pub(crate) const ANY: &str = "{}";

/// Calls `found(offset, text)` for every string value at `path` (`*` is any element of a list, [`ANY`] any member of an
/// object), text and offset being what stands between the quotes.
pub(crate) fn strings<'a>(
    bytes: &'a [u8],
    path: &[&str],
    mut found: impl FnMut(usize, &'a [u8]),
) -> Result<(), Unbound> {
    members(bytes, path, |_, at, text| found(at, text))
}

/// The same, with the key before each value; of an element of a list it is whatever key came before.
pub(crate) fn members<'a>(
    bytes: &'a [u8],
    path: &[&str],
    mut found: impl FnMut(&'a [u8], usize, &'a [u8]),
) -> Result<(), Unbound> {
    let mut key: &[u8] = &[];
    let closed = Open { object: false, on_path: false, seen: false };
    let mut stack = [closed; MAX_DEPTH];
    let mut depth = 0_usize;
    // Open brackets, counted from the outermost, whose current key or element lies on the path.
    let on_path = |stack: &[Open; MAX_DEPTH], depth: usize| {
        depth <= path.len() && stack.iter().take(depth).all(|open| open.on_path)
    };
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'{' | b'[' => {
                let object = *byte == b'{';
                let element = !object && path.get(depth) == Some(&"*");
                *stack.get_mut(depth).ok_or(Unbound::Broken)? = Open { object, on_path: element, seen: false };
                depth += 1;
            }
            b'}' | b']' => {
                depth = depth.checked_sub(1).ok_or(Unbound::Broken)?;
                if stack.get(depth).is_none_or(|open| open.object != (*byte == b'}')) {
                    return Err(Unbound::Broken);
                }
            }
            b'"' => {
                let start = at + 1;
                let end = string_end(bytes, start)?;
                let text = bytes.get(start..end).unwrap_or_default();
                at = end + 1;
                let is_key = next_token(bytes, at) == Some(b':');
                let above = depth.checked_sub(1).ok_or(Unbound::Broken)?;
                if is_key {
                    let outer = on_path(&stack, above);
                    let open = stack.get_mut(above).filter(|open| open.object).ok_or(Unbound::Broken)?;
                    open.on_path = false;
                    key = text;
                    if outer && let Some(want) = path.get(above).filter(|want| **want != "*") {
                        if *want == ANY {
                            open.on_path = true;
                        } else if text == want.as_bytes() {
                            if open.seen {
                                return Err(Unbound::Ambiguous);
                            }
                            open.on_path = true;
                            open.seen = true;
                        } else if looks_like(text, want) {
                            return Err(Unbound::Ambiguous);
                        }
                    }
                } else if depth == path.len() && on_path(&stack, depth) {
                    found(key, start, text);
                }
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    if depth == 0 { Ok(()) } else { Err(Unbound::Broken) }
}

/// One open bracket: what kind, and the key that is current in it.
#[derive(Clone, Copy)]
struct Open {
    object: bool,
    /// The current key is the path's at this depth.
    on_path: bool,
    /// The path's key was seen in this object.
    seen: bool,
}

/// Offset of the closing quote.
fn string_end(bytes: &[u8], start: usize) -> Result<usize, Unbound> {
    let mut at = start;
    loop {
        match bytes.get(at) {
            Some(b'"') => return Ok(at),
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
            None => return Err(Unbound::Broken),
        }
    }
}

fn next_token(bytes: &[u8], from: usize) -> Option<u8> {
    bytes.iter().skip(from).copied().find(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
}

/// A key that is not `want` but that another reader could take for it. An escaped key is one: its reading needs a parser.
/// A non-ASCII key can fold to ASCII (U+017F, U+212A), which only matters where the rest of it fits in length.
fn looks_like(key: &[u8], want: &str) -> bool {
    key.contains(&b'\\')
        || key.eq_ignore_ascii_case(want.as_bytes())
        || (!key.is_ascii() && key.len() <= want.len() * 3)
}

/// Whether the text between the quotes of a JSON string is `want`.
pub(crate) fn unescapes_to(raw: &[u8], want: &str) -> bool {
    let mut want = want.as_bytes();
    let mut raw = raw;
    let mut buffer = [0; 4];
    loop {
        let Some((&byte, rest)) = raw.split_first() else { return want.is_empty() };
        raw = rest;
        let plain = [byte];
        let expected: &[u8] = if byte == b'\\' {
            let Some((&kind, rest)) = raw.split_first() else { return false };
            raw = rest;
            let c = match kind {
                b'"' | b'\\' | b'/' => char::from(kind),
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'u' => match unicode(&mut raw) {
                    Some(c) => c,
                    None => return false,
                },
                _ => return false,
            };
            c.encode_utf8(&mut buffer).as_bytes()
        } else {
            &plain
        };
        match want.strip_prefix(expected) {
            Some(rest) => want = rest,
            None => return false,
        }
    }
}

/// The character after `\u`: four digits, and a second escape when it is the first half of a pair.
fn unicode(raw: &mut &[u8]) -> Option<char> {
    let first = unit(raw)?;
    if !(0xd800..0xdc00).contains(&first) {
        return char::from_u32(first);
    }
    *raw = raw.strip_prefix(b"\\u")?;
    let second = unit(raw)?;
    if !(0xdc00..0xe000).contains(&second) {
        return None;
    }
    char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))
}

fn unit(raw: &mut &[u8]) -> Option<u32> {
    let (digits, rest) = raw.split_at_checked(4)?;
    *raw = rest;
    digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str, path: &[&str]) -> Result<Vec<String>, Unbound> {
        let mut seen = Vec::new();
        strings(text.as_bytes(), path, |at, raw| {
            assert_eq!(&text.as_bytes()[at..at + raw.len()], raw);
            seen.push(String::from_utf8(raw.to_vec()).unwrap());
        })?;
        Ok(seen)
    }

    #[test]
    fn strings_at_a_path_and_nowhere_else() {
        let path = ["a", "*", "d"];
        for (text, want) in [
            (r#"{"a":[{"d":"1"},{"x":{"d":"no"},"d":"2","e":"no"}]}"#, vec!["1", "2"]),
            (r#"{"b":[{"d":"no"}],"a":{"d":"no","x":[{"d":"no"}]}}"#, vec![]),
            (r#"{"a":[["no"],{"d":["no"]},"no",{"d":{"d":"no"}}]}"#, vec![]),
            (r#"{"x":"\"a\":[{\"d\":\"no\"}]","a":[]}"#, vec![]),
            (r#"{"y":{"a":[{"d":"no"}]},"a" : [ { "d" : "1" } ] , "z":"d"}"#, vec!["1"]),
            (r#"{"a":[{"d":7,"e":"no"},{"d":null}],"d":"no"}"#, vec![]),
        ] {
            assert_eq!(all(text, &path).unwrap(), want, "{text}");
        }
        assert_eq!(all(r#"{"os":"linux","x":{"os":"no"}}"#, &["os"]).unwrap(), ["linux"]);
    }

    #[test]
    fn members_come_with_their_keys() {
        let text = r#"{"l":{"a":"1","b":["no"],"c":{"d":"no"},"e\"":"2","f":7,"":"3"},"m":{"a":"no"}}"#;
        let mut seen = Vec::new();
        members(text.as_bytes(), &["l", ANY], |key, _, raw| seen.push((key.to_vec(), raw.to_vec()))).unwrap();
        let want =
            [("a", "1"), (r#"e\""#, "2"), ("", "3")].map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().to_vec()));
        assert_eq!(seen, want);
        assert_eq!(all(r#"{"l":["no",{"a":"no"}]}"#, &["l", ANY]).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn two_readings_are_refused() {
        for text in [
            r#"{"a":[],"a":[]}"#,
            r#"{"A":[],"a":[]}"#,
            r#"{"\u0061":[]}"#,
            r#"{"a":[{"d":"1","d":"2"}]}"#,
            r#"{"a":[{"d":"1","D":"2"}]}"#,
        ] {
            assert_eq!(all(text, &["a", "*", "d"]), Err(Unbound::Ambiguous), "{text}");
        }
        assert_eq!(all("{\"di\u{17f}k\":1}", &["disk"]), Err(Unbound::Ambiguous));
        // The same oddities elsewhere are none of our business.
        assert!(all(r#"{"z":{"A":1,"a":2,"a":3,"\u0061":4}}"#, &["b"]).is_ok());
    }

    #[test]
    fn broken_text_is_refused() {
        for text in ["{", "}", "[}", "\"a\"", "{\"a", "{\"a\\", "[\"a\":1]"] {
            assert_eq!(all(text, &["a"]), Err(Unbound::Broken), "{text}");
        }
        assert_eq!(all(&"[".repeat(MAX_DEPTH + 1), &["a"]), Err(Unbound::Broken));
    }

    #[test]
    fn unescaping() {
        for (raw, want) in [
            ("", ""),
            ("plain", "plain"),
            (r#"\"\\\/\b\f\n\r\t"#, "\"\\/\u{8}\u{c}\n\r\t"),
            (r"\u0026\u00e9é\ud83d\ude00", "&éé😀"),
        ] {
            assert!(unescapes_to(raw.as_bytes(), want), "{raw}");
            assert!(!unescapes_to(raw.as_bytes(), &format!("{want}x")), "{raw}");
        }
        for raw in [r"\", r"\x", r"\u00", r"\ud83d", r"\ud83dx", r"\ud83d\u0041", r"\ude00", r"\u+041"] {
            for want in ["", "A", "\u{fffd}", "x"] {
                assert!(!unescapes_to(raw.as_bytes(), want), "{raw}");
            }
        }
    }
}
