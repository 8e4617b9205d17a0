//! A sha256 digest, the only kind taken.
use std::fmt;
use std::str::FromStr;

/// Length of the text form `sha256:<64 hex>`.
pub(crate) const TEXT_LEN: usize = 7 + 64;

/// A sha256 digest. Its text is `sha256:<64 lower-case hex>` (OCI image-spec, descriptor.md).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

/// sha256 of `bytes`.
#[must_use]
pub fn digest(bytes: &[u8]) -> Digest {
    let hash = ring::digest::digest(&ring::digest::SHA256, bytes);
    let mut out = [0; 32];
    out.copy_from_slice(hash.as_ref());
    Digest(out)
}

impl Digest {
    /// 64 lower-case hex digits.
    #[must_use]
    pub fn hex(&self) -> String {
        let mut text = String::with_capacity(64);
        for byte in self.0 {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
            }
        }
        text
    }

    /// From 64 lower-case hex digits.
    ///
    /// # Errors
    /// [`NotADigest`] for any other text.
    pub fn from_hex(hex: &str) -> Result<Self, NotADigest> {
        let hex = hex.as_bytes();
        if hex.len() != 64 {
            return Err(NotADigest);
        }
        let mut out = [0; 32];
        for (byte, pair) in out.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = match pair {
                [high, low] => nibble(*high)? << 4 | nibble(*low)?,
                _ => return Err(NotADigest),
            };
        }
        Ok(Self(out))
    }
}

fn nibble(digit: u8) -> Result<u8, NotADigest> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(NotADigest),
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        Self::from_hex(text.strip_prefix("sha256:").ok_or(NotADigest)?)
    }
}

/// The text is not `sha256:<64 lower-case hex>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotADigest;

impl fmt::Display for NotADigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not sha256:<64 lower-case hex digits>")
    }
}

impl std::error::Error for NotADigest {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_nothing_and_back() {
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest(b"").to_string(), text);
        assert_eq!(text.parse::<Digest>().unwrap(), digest(b""));
        assert_eq!(text.len(), TEXT_LEN);
    }

    #[test]
    fn other_texts_are_refused() {
        let good = digest(b"").to_string();
        for bad in [
            good.to_uppercase(),
            format!("sha256:{}", digest(b"").hex().to_uppercase()),
            good.replace("sha256", "sha512"),
            good[..70].to_owned(),
            format!("{good}0"),
            format!(" {good}"),
            good.replace('e', "g"),
            digest(b"").hex(),
            String::new(),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
