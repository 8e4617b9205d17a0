//! Text from outside, made fit for one line of a record and for a terminal.
use crate::line::hex;
use std::fmt::Write;

/// Bytes that the mark of a cut takes.
const CUT: &str = "..";
/// Layers that a record names one by one, and the longest digest of these (sha512).
const MAX_LAYERS: usize = 32;
const LAYER: usize = 136;

/// Replaces control, line-separating and direction-changing characters by `<U+XXXX>` and cuts the text so that its JSON
/// form (without quotes) has at most `max` bytes; a cut shows as `..`. Applying it twice changes nothing.
#[must_use]
pub fn clean(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max));
    let (mut size, mut room_for_mark) = (0usize, 0usize);
    for c in text.chars() {
        let before = out.len();
        let cost = if deceives(c) {
            // Writing to a String cannot fail.
            write!(out, "<U+{:04X}>", u32::from(c)).map_or(0, |()| out.len() - before)
        } else {
            out.push(c);
            if matches!(c, '"' | '\\') { 2 } else { c.len_utf8() }
        };
        size += cost;
        if size > max {
            out.truncate(room_for_mark);
            if max >= CUT.len() {
                out.push_str(CUT);
            }
            return out;
        }
        if size + CUT.len() <= max {
            room_for_mark = out.len();
        }
    }
    out
}

/// Digests of layers. Of more than a line should hold one digest stands for all: two starts can still be compared.
pub(crate) fn layers(all: &[String]) -> Vec<String> {
    let named: Vec<String> = all.iter().map(|layer| clean(layer, LAYER)).collect();
    if named.len() <= MAX_LAYERS {
        return named;
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, named.join("\n").as_bytes());
    vec![format!("{} layers, sha256 of their lines {}", named.len(), hex(digest.as_ref()))]
}

/// Characters that end a line, move a cursor, hide, or turn the reading direction.
fn deceives(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{00ad}' | '\u{061c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shows_what_would_hide() {
        assert_eq!(clean("a\nb\x1b[2J\u{202e}c", 99), "a<U+000A>b<U+001B>[2J<U+202E>c");
        assert_eq!(clean("abcdef", 6), "abcdef");
        assert_eq!(clean("abcdefg", 6), "abcd..");
        assert_eq!(clean("\"\"\"\"", 6), "\"\"..");
        assert_eq!(clean("\n\n", 8), "..");
        assert_eq!(clean("abc", 1), "");
    }

    #[test]
    fn many_layers_are_one_digest() {
        let all: Vec<String> = (0..33).map(|n| format!("sha256:{n:064}")).collect();
        assert_eq!(layers(&all[..32]), all[..32]);
        let one = layers(&all);
        assert!(one.len() == 1 && one[0].starts_with("33 layers, sha256 of their lines "), "{one:?}");
        let mut other = all;
        other[32].replace_range(70..71, "9");
        assert_ne!(layers(&other), one);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn bounded_and_stable(text in any::<String>(), max in 0usize..200) {
            let once = clean(&text, max);
            prop_assert!(serde_json::to_string(&once).unwrap().len() <= max + 2);
            prop_assert_eq!(clean(&once, max), once);
        }
    }
}
