//! Signers that a CA certifies by an identity: whom a file means, in patterns of boltseal's, never more than it says.
use boltseal_policy::text;
use boltseal_trust::digest;
use boltseal_trust::keyless::{Demands, Fulcio};

/// Longest identity or issuer.
const MAX_PATTERN: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Keyless {
    /// Patterns of boltseal's.
    pub(crate) identity: String,
    pub(crate) issuer: String,
    pub(crate) log: bool,
    pub(crate) sct: bool,
    /// A trusted root, the file's text.
    pub(crate) root: String,
}

impl Keyless {
    /// # Errors
    /// What a policy with it would not pass.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (what, pattern) in [("identity", &self.identity), ("issuer", &self.issuer)] {
            if pattern.bytes().all(|byte| byte == b'*') {
                return Err(format!("{what}: none, or everybody whom the CA certifies"));
            }
            let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
            if pattern.len() > MAX_PATTERN || !pattern.bytes().all(plain) {
                return Err(format!("{what} {}: not plain text", text::show(pattern)));
            }
        }
        let demands = Demands { log: self.log, sct: self.sct };
        Fulcio::new(self.root.as_bytes(), demands).map(drop).map_err(|why| format!("the trusted root: {why}"))
    }

    /// Two that differ in anything are two.
    pub(crate) fn id(&self) -> String {
        let all = [&self.identity, &self.issuer, &self.root].map(|text| digest(text.as_bytes()).hex()).concat();
        digest(format!("{all}{}{}", self.log, self.sct).as_bytes()).hex()
    }

    /// Whom one root certifies is one key of several.
    pub(crate) fn counts_as(&self) -> String {
        digest(self.root.as_bytes()).hex()
    }

    pub(crate) fn authority(&self, name: &str, file: &str, repository: &str) -> String {
        let (identity, issuer) = (&self.identity, &self.issuer);
        let mut out = format!(
            "\n[[authority]]\nname = {name:?}\nformat = \"keyless\"\ntrusted_root = {file:?}\nidentities = [{identity:?}]\n\
             issuers = [{issuer:?}]\n"
        );
        for (key, demanded) in [("log", self.log), ("sct", self.sct)] {
            if !demanded {
                out.push_str(&format!("{key} = false\n"));
            }
        }
        out.push_str(&format!("repositories = [{repository:?}]\n"));
        out
    }
}

/// How a text of the file is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meant {
    Exactly,
    /// `*` stands for any characters.
    Wildcard,
    /// Go's regular expression, which need not match all of the text.
    RegExp,
}

/// The pattern that means the same, or fewer: a dot of a regular expression stands for itself.
pub(crate) fn pattern(given: &str, meant: Meant) -> Result<String, String> {
    let refused = |why: &str| Err(format!("{}: {why}", text::show(given)));
    match meant {
        Meant::Exactly if given.contains('*') => refused("a `*` that stands for itself"),
        Meant::Wildcard if given.contains('?') => refused("`?` for one character"),
        Meant::Exactly | Meant::Wildcard => Ok(given.to_owned()),
        Meant::RegExp => match regexp(given) {
            Some(pattern) => Ok(pattern),
            None => refused("of a regular expression only literals, `.*`, `^` and `$` are kept"),
        },
    }
}

fn regexp(given: &str) -> Option<String> {
    let (open, mut rest) = given.strip_prefix('^').map_or((true, given), |rest| (false, rest));
    let mut out = if open { "*".to_owned() } else { String::new() };
    loop {
        let mut chars = rest.chars();
        match chars.next() {
            None => {
                out.push('*');
                return Some(out);
            }
            Some('$') if chars.as_str().is_empty() => return Some(out),
            Some('\\') => out.push(chars.next().filter(|c| c.is_ascii_punctuation() && *c != '*')?),
            Some('.') if chars.as_str().starts_with('*') => {
                chars.next();
                out.push('*');
            }
            Some('[' | ']' | '(' | ')' | '{' | '}' | '|' | '+' | '?' | '*' | '^' | '$') => return None,
            Some(literal) => out.push(literal),
        }
        rest = chars.as_str();
        // How often the last one may come.
        if rest.starts_with(['+', '?', '*', '{']) {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boltseal_policy::pattern::matches;

    #[test]
    fn a_regular_expression_means_no_more_than_before() {
        for (given, expected) in [
            ("^https://github\\.com/corp/.*$", Some("https://github.com/corp/*")),
            ("^https://github.com/corp/", Some("https://github.com/corp/*")),
            ("@corp\\.example$", Some("*@corp.example")),
            ("corp", Some("*corp*")),
            (".*", Some("***")),
            ("^a.*b$", Some("a*b")),
            ("^.+@corp$", None),
            ("^(a|b)$", None),
            ("^a?$", None),
            ("^a{2}$", None),
            ("^[ab]$", None),
            ("^a|b$", None),
            ("^\\w$", None),
            ("^\\*$", None),
            ("^a\\", None),
            ("^a*$", None),
            ("^.*?$", None),
        ] {
            assert_eq!(pattern(given, Meant::RegExp).ok().as_deref(), expected, "{given}");
        }
        let corp = pattern("^https://github.com/corp/.*$", Meant::RegExp).unwrap();
        assert!(matches(&corp, "https://github.com/corp/a") && !matches(&corp, "https://githubXcom/corp/a"));
    }

    #[test]
    fn exact_texts_and_wildcards() {
        assert_eq!(pattern("a@b", Meant::Exactly).unwrap(), "a@b");
        assert!(pattern("*@b", Meant::Exactly).is_err());
        assert_eq!(pattern("*@b", Meant::Wildcard).unwrap(), "*@b");
        assert!(pattern("?@b", Meant::Wildcard).is_err());
    }
}
