//! Whom of a CA's customers an authority trusts: attributes that the leaf's subject must have (Notary Project trust
//! policy, `trustedIdentities`).
use crate::spki::{OBJECT, SEQUENCE, element};
use std::fmt;

const SET: u8 = 0x31;
/// UTF8String, PrintableString, IA5String: of the others nobody agrees what they say.
const TEXTS: [u8; 3] = [0x0c, 0x13, 0x16];
const MAX_IDENTITY: usize = 512;

/// Attribute types by the names of RFC 4514, and those of id-at.
const KINDS: [(&str, &[u8]); 8] = [
    ("CN", &[0x55, 4, 3]),
    ("SERIALNUMBER", &[0x55, 4, 5]),
    ("C", &[0x55, 4, 6]),
    ("L", &[0x55, 4, 7]),
    ("ST", &[0x55, 4, 8]),
    ("STREET", &[0x55, 4, 9]),
    ("O", &[0x55, 4, 10]),
    ("OU", &[0x55, 4, 11]),
];

/// Attributes that a subject must have; other attributes beside them say nothing. Without any, every subject matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity(Vec<(&'static str, String)>);

impl Identity {
    /// From `C=US, ST=WA, O=corp, CN=ci`, with or without `x509.subject:` before it, or `*` for whomever the roots
    /// certify.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.strip_prefix("x509.subject:").unwrap_or(text).trim();
        if text == "*" {
            return Ok(Self(Vec::new()));
        }
        if text.len() > MAX_IDENTITY {
            return Err("longer than 512 bytes");
        }
        if text.contains(['\\', '"', '+', ';', '<', '>', '#']) {
            return Err("has a character that would need an escape, which is not taken");
        }
        let mut found: Vec<(&'static str, String)> = Vec::new();
        for part in text.split(',') {
            let (kind, value) = part.split_once('=').ok_or("is not a list of NAME=value, nor `*`")?;
            let known = KINDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(kind.trim()));
            let (kind, _) = known.ok_or("names an attribute other than CN, SERIALNUMBER, C, L, ST, STREET, O, OU")?;
            if value.trim().is_empty() {
                return Err("has an attribute without a value");
            }
            if found.iter().any(|(other, _)| other == kind) {
                return Err("names an attribute twice");
            }
            found.push((kind, value.trim().to_owned()));
        }
        Ok(Self(found))
    }

    pub(super) fn matches(&self, subject: &Subject) -> bool {
        self.0.iter().all(|(kind, value)| {
            // Twice would leave it to the reader which one counts.
            let mut named = subject.0.iter().filter(|(other, _)| other == kind);
            named.next().is_some_and(|(_, found)| found.as_ref() == Some(value)) && named.next().is_none()
        })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("*");
        }
        for (n, (kind, value)) in self.0.iter().enumerate() {
            write!(f, "{}{kind}={value}", if n == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// A certificate's subject: the attributes that have a name here; None where the text cannot be read one way.
#[derive(Debug)]
pub(super) struct Subject(Vec<(&'static str, Option<String>)>);

impl Subject {
    /// From the content of a Name. None when it is none, or has a part of several attributes.
    pub(super) fn read(mut name: &[u8]) -> Option<Self> {
        let mut found = Vec::new();
        while !name.is_empty() {
            let mut part = element(SET, &mut name)?;
            let mut attribute = element(SEQUENCE, &mut part).filter(|_| part.is_empty())?;
            let id = element(OBJECT, &mut attribute)?;
            let tag = *attribute.first()?;
            let value = element(tag, &mut attribute).filter(|_| attribute.is_empty())?;
            let text = std::str::from_utf8(value).ok().filter(|_| TEXTS.contains(&tag)).map(str::to_owned);
            if let Some((kind, _)) = KINDS.iter().find(|(_, known)| *known == id) {
                found.push((*kind, text));
            }
        }
        Some(Self(found))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (kind, value)) in self.0.iter().enumerate() {
            write!(f, "{}{kind}={}", if n == 0 { "" } else { ", " }, value.as_deref().unwrap_or("?"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(parts: &[(&'static str, &str)]) -> Subject {
        Subject(parts.iter().map(|(kind, value)| (*kind, Some((*value).to_owned()))).collect())
    }

    #[test]
    fn every_attribute_must_be_there_once_and_equal() {
        let corp = subject(&[("C", "US"), ("O", "corp"), ("CN", "ci")]);
        for (identity, want) in [
            ("*", true),
            ("CN=ci", true),
            ("x509.subject: CN=ci, O=corp", true),
            ("o=corp,cn=ci", true),
            ("CN=CI", false),
            ("CN=ci, OU=x", false),
            ("O=corp, CN=c", false),
        ] {
            assert_eq!(Identity::parse(identity).unwrap().matches(&corp), want, "{identity}");
        }
        let twice = subject(&[("CN", "ci"), ("CN", "other")]);
        assert!(!Identity::parse("CN=ci").unwrap().matches(&twice));
        assert!(!Identity::parse("CN=?").unwrap().matches(&Subject(vec![("CN", None)])));
        assert!(Identity::parse("*").unwrap().matches(&Subject(vec![])));
    }

    #[test]
    fn what_is_no_identity() {
        for bad in ["", "ci", "CN=", "CN=a,CN=b", "CN=a\\, b", "CN=a+O=b", "X=1", "CN=\"a\"", "CN=ci,"] {
            assert!(Identity::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Identity::parse("cn=ci , O=corp").unwrap().to_string(), "CN=ci, O=corp");
    }

    #[test]
    fn subjects_of_der() {
        let part = |text: &[u8]| {
            let attribute = [&[6, 3, 0x55, 4, 3], &[0x0c, u8::try_from(text.len()).unwrap()][..], text].concat();
            let len = u8::try_from(attribute.len()).unwrap();
            [&[SET, len + 2, SEQUENCE, len][..], &attribute].concat()
        };
        assert_eq!(Subject::read(&part(b"ci")).unwrap().to_string(), "CN=ci");
        assert_eq!(Subject::read(&[part(b"a"), part(b"b")].concat()).unwrap().0.len(), 2);
        assert_eq!(Subject::read(&part(b"\xff")).unwrap().to_string(), "CN=?");
        let mut several = part(b"ci");
        several[1] += 2;
        several.extend([SEQUENCE, 0]);
        assert!(Subject::read(&several).is_none());
        assert!(Subject::read(b"x").is_none());
    }
}
