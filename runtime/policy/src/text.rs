//! Text from outside, made safe to print: one line, no control or direction-changing characters, bounded.

/// Longest piece of outside text that a finding quotes, characters.
const SHOWN: usize = 96;

/// Escapes and shortens `text`. Letters and digits of any script, space and printable ASCII stay as they are.
#[must_use]
pub fn show(text: &str) -> String {
    shorten(&escape(text), SHOWN)
}

/// Escapes `text` without shortening it.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c == ' ' || c.is_ascii_graphic() || (!c.is_ascii() && c.is_alphanumeric()) {
            out.push(c);
        } else {
            out.extend(c.escape_default());
        }
    }
    out
}

/// At most `limit` characters; a cut ends in `..`.
#[must_use]
pub fn shorten(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(limit.saturating_sub(2)).collect();
    out.push_str("..");
    out
}

/// `a, b, c and 4 more`, each shown safely.
pub fn list<S: AsRef<str>>(items: impl IntoIterator<Item = S>) -> String {
    const NAMED: usize = 3;
    let all: Vec<String> = items.into_iter().map(|i| show(i.as_ref())).collect();
    let mut out = all.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if all.len() > NAMED {
        out.push_str(&format!(" and {} more", all.len() - NAMED));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_text_cannot_forge_a_line_or_a_direction() {
        assert_eq!(show("a\nboltseal: allowed\u{202e}x\u{7f}\0"), "a\\nboltseal: allowed\\u{202e}x\\u{7f}\\u{0}");
        assert_eq!(show("größe 1"), "größe 1");
        assert_eq!(show(r#"a "b" 'c' \d"#), r#"a "b" 'c' \d"#);
    }

    #[test]
    fn outside_text_is_bounded() {
        assert_eq!(show(&"x".repeat(10_000_000)).chars().count(), SHOWN);
        assert_eq!(list(["a", "b", "c", "d", "e"]), "a, b, c and 2 more");
        assert_eq!(list(["a"]), "a");
        assert_eq!(list(["a", "b", "c"]), "a, b, c");
        assert_eq!((shorten("abc", 3), shorten("abcd", 3)), ("abc".into(), "a..".into()));
    }
}
