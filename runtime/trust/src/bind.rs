//! Shows, without a parser, that a proposed value is the one that a JSON text holds at a known path.
//!
//! [`strings`] is a tokenizer: one pass, no recursion, fixed memory. It knows strings, brackets, colons and commas, so
//! it finds every string under a path; whether the text is JSON in full is for those who parse it (the worker, and
//! containerd before). A path's key that stands twice, or is spelt so that another reader could take it for the
//! key (case, escapes), is refused: there must be one reading.
use crate::digest::{Digest, TEXT_LEN, digest};
use crate::propose::{Config, Placed};
use std::fmt;

/// Brackets inside each other that are followed.
const MAX_DEPTH: usize = 64;

/// Which link of the chain a child hangs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// `manifests[].digest`
    IndexToManifest,
    /// `config.digest`
    ManifestToConfig,
    /// `layers[].digest`
    ManifestToLayer,
}

impl Link {
    fn path(self) -> &'static [&'static str] {
        match self {
            Self::IndexToManifest => &["manifests", "*", "digest"],
            Self::ManifestToConfig => &["config", "digest"],
            Self::ManifestToLayer => &["layers", "*", "digest"],
        }
    }
}

/// Why a proposed value does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unbound {
    /// The path that was looked at does not hold the proposed value.
    Value(&'static str),
    /// The child's bytes are not those that the parent names.
    Child,
    /// The text can be read in two ways: a key twice, or written so that readers differ.
    Ambiguous,
    /// Brackets or quotes that do not fit, or too many of them.
    Broken,
}

impl fmt::Display for Unbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(name) => write!(f, "{name} in the file is not what was proposed"),
            Self::Child => f.write_str("the bytes do not have the digest that their parent names"),
            Self::Ambiguous => f.write_str("a key stands twice or is written so that readers differ"),
            Self::Broken => f.write_str("not JSON"),
        }
    }
}

impl std::error::Error for Unbound {}

/// The child's digest, shown twice: `parent` holds it at `link`, at the proposed place, and `child` hashes to it.
/// `parent` must itself be verified bytes.
///
/// # Errors
/// [`Unbound`] when one of the two does not hold.
pub fn bind_child(parent: &[u8], link: Link, placed: &Placed, child: &[u8]) -> Result<Digest, Unbound> {
    let want = placed.digest.to_string();
    let at = usize::try_from(placed.at).map_err(|_| Unbound::Value("digest"))?;
    let mut found = false;
    strings(parent, link.path(), |offset, text| found |= offset == at && text == want.as_bytes())?;
    if !found {
        return Err(Unbound::Value("digest"));
    }
    if digest(child) != placed.digest {
        return Err(Unbound::Child);
    }
    Ok(placed.digest)
}

/// The image's diff_ids: the proposed ones are all that the config holds, in its order.
///
/// # Errors
/// [`Unbound`] when one is missing, added or moved.
pub fn bind_diff_ids(config: &[u8], proposed: &[Placed]) -> Result<Vec<Digest>, Unbound> {
    let mut rest = proposed.iter();
    let mut fits = true;
    strings(config, &["rootfs", "diff_ids", "*"], |offset, text| {
        fits &= rest.next().is_some_and(|placed| {
            u32::try_from(offset) == Ok(placed.at)
                && text.len() == TEXT_LEN
                && text == placed.digest.to_string().as_bytes()
        });
    })?;
    if !fits || rest.next().is_some() {
        return Err(Unbound::Value("rootfs.diff_ids"));
    }
    Ok(proposed.iter().map(|placed| placed.digest).collect())
}

/// Everything else of a proposed [`Config`], diff_ids included: each text is the config's own, none is missing.
///
/// # Errors
/// [`Unbound`] names the field that differs.
pub fn bind_config(config: &[u8], proposed: &Config) -> Result<(), Unbound> {
    bind_diff_ids(config, &proposed.diff_ids)?;
    for (path, name, text) in [
        (&["os"][..], "os", &proposed.os),
        (&["architecture"], "architecture", &proposed.architecture),
        (&["created"], "created", &proposed.created),
        (&["config", "User"], "config.User", &proposed.user),
        (&["config", "WorkingDir"], "config.WorkingDir", &proposed.working_dir),
    ] {
        let mut seen = None;
        strings(config, path, |_, raw| seen = Some(unescapes_to(raw, text)))?;
        if !seen.unwrap_or(text.is_empty()) {
            return Err(Unbound::Value(name));
        }
    }
    for (path, name, texts) in [
        (["config", "Env", "*"], "config.Env", &proposed.env),
        (["config", "Entrypoint", "*"], "config.Entrypoint", &proposed.entrypoint),
        (["config", "Cmd", "*"], "config.Cmd", &proposed.cmd),
    ] {
        let mut rest = texts.iter();
        let mut fits = true;
        strings(config, &path, |_, raw| fits &= rest.next().is_some_and(|text| unescapes_to(raw, text)))?;
        if !fits || rest.next().is_some() {
            return Err(Unbound::Value(name));
        }
    }
    Ok(())
}

/// The chain id of layers, the lowest first (OCI image-spec, config.md); None when there are none.
#[must_use]
pub fn chain_id(diff_ids: &[Digest]) -> Option<Digest> {
    let (first, above) = diff_ids.split_first()?;
    Some(above.iter().fold(*first, |below, id| digest(format!("{below} {id}").as_bytes())))
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

/// Calls `found(offset, text)` for every string value at `path` (`*` is any element of a list), text and offset being
/// what stands between the quotes.
fn strings<'a>(bytes: &'a [u8], path: &[&str], mut found: impl FnMut(usize, &'a [u8])) -> Result<(), Unbound> {
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
                    if outer && let Some(want) = path.get(above).filter(|want| **want != "*") {
                        if text == want.as_bytes() {
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
                    found(start, text);
                }
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    if depth == 0 { Ok(()) } else { Err(Unbound::Broken) }
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
fn unescapes_to(raw: &[u8], want: &str) -> bool {
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
    use crate::propose::{Proposal, Source, propose};

    const INDEX: &[u8] = include_bytes!("../tests/fixtures/image/app.index.json");
    const APP: &[u8] = include_bytes!("../tests/fixtures/image/app.manifest.json");
    const ARM: &[u8] = include_bytes!("../tests/fixtures/image/arm.manifest.json");
    const CONFIG: &[u8] = include_bytes!("../tests/fixtures/image/app.config.json");

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

    #[test]
    fn the_chain_of_a_real_image_holds_and_breaks() {
        let Proposal::Index(index) = propose(Source::Index, INDEX).unwrap() else { panic!() };
        let Proposal::Manifest(manifest) = propose(Source::Manifest, APP).unwrap() else { panic!() };
        let Proposal::Config(config) = propose(Source::Config, CONFIG).unwrap() else { panic!() };
        let placed = index.entries[0].descriptor.digest;
        assert_eq!(bind_child(INDEX, Link::IndexToManifest, &placed, APP), Ok(digest(APP)));
        assert_eq!(bind_child(INDEX, Link::IndexToManifest, &placed, ARM), Err(Unbound::Child));
        let moved = Placed { at: placed.at + 1, ..placed };
        assert_eq!(bind_child(INDEX, Link::IndexToManifest, &moved, APP), Err(Unbound::Value("digest")));
        let foreign = Placed { digest: digest(b"x"), ..placed };
        assert_eq!(bind_child(INDEX, Link::IndexToManifest, &foreign, b"x"), Err(Unbound::Value("digest")));

        let placed = manifest.config.digest;
        assert_eq!(bind_child(APP, Link::ManifestToConfig, &placed, CONFIG), Ok(digest(CONFIG)));
        // A layer passed off as the config.
        let layer = manifest.layers[0].digest;
        assert_eq!(bind_child(APP, Link::ManifestToConfig, &layer, b""), Err(Unbound::Value("digest")));
        assert_eq!(bind_child(APP, Link::ManifestToLayer, &layer, b""), Err(Unbound::Child));

        bind_config(CONFIG, &config).unwrap();
        let ids = bind_diff_ids(CONFIG, &config.diff_ids).unwrap();
        let joined = format!("{} {}", ids[0], ids[1]);
        assert_eq!(chain_id(&ids), Some(digest(joined.as_bytes())));
        assert_eq!(chain_id(&ids[..1]), Some(ids[0]));
        assert_eq!(chain_id(&[]), None);
    }

    #[test]
    fn a_config_that_lies_in_any_field_is_refused() {
        let Proposal::Config(config) = propose(Source::Config, CONFIG).unwrap() else { panic!() };
        let lie = |change: &dyn Fn(&mut Config)| {
            let mut lie = config.clone();
            change(&mut lie);
            assert_ne!(lie, config);
            bind_config(CONFIG, &lie).unwrap_err()
        };
        assert_eq!(lie(&|c| c.user = "0".into()), Unbound::Value("config.User"));
        assert_eq!(lie(&|c| c.user.clear()), Unbound::Value("config.User"));
        assert_eq!(lie(&|c| c.working_dir = "/etc".into()), Unbound::Value("config.WorkingDir"));
        assert_eq!(lie(&|c| c.env.clear()), Unbound::Value("config.Env"));
        assert_eq!(lie(&|c| c.env.push("A=b".into())), Unbound::Value("config.Env"));
        assert_eq!(lie(&|c| c.entrypoint[0] = "/bin/sh".into()), Unbound::Value("config.Entrypoint"));
        assert_eq!(lie(&|c| c.cmd.swap(0, 1)), Unbound::Value("config.Cmd"));
        assert_eq!(lie(&|c| c.os = "windows".into()), Unbound::Value("os"));
        assert_eq!(lie(&|c| c.architecture.clear()), Unbound::Value("architecture"));
        assert_eq!(lie(&|c| c.created.push('0')), Unbound::Value("created"));
        assert_eq!(lie(&|c| c.diff_ids.swap(0, 1)), Unbound::Value("rootfs.diff_ids"));
        assert_eq!(lie(&|c| c.diff_ids.truncate(1)), Unbound::Value("rootfs.diff_ids"));
        assert_eq!(lie(&|c| c.diff_ids[0].at += 1), Unbound::Value("rootfs.diff_ids"));
    }
}
