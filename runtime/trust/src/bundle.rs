//! The signature over a policy bundle: the file `bundle.sig` beside `policy.toml`.
//!
//! Five lines of text, in this order and no other form:
//! ```text
//! boltseal-bundle 1
//! version 7
//! digest <sha256 of the bundle's files, 64 hex digits>
//! key <sha256 of the signing key's SubjectPublicKeyInfo, 64 hex digits>
//! signature <base64 of an ASN.1 DER ECDSA-SHA256 signature, P-256>
//! ```
//! Signed are the bytes of the first four lines, line ends included, so `head -n4 bundle.sig | openssl dgst -sha256 -sign`
//! makes one too. The first line keeps such a signature from being one of anything else.
use crate::Key;
use crate::spki::Text;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Longest file that is looked at.
pub const MAX_FILE: usize = 1024;
/// Highest version that a bundle can have: versions are counted one by one in a TPM.
pub const MAX_VERSION: u64 = 1_000_000;

/// What a bundle's signature file says; believed only after [`Signed::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    pub version: u64,
    /// Of the bundle's files, hex.
    pub digest: String,
    /// [`Key::id`] of the key that is said to have signed.
    pub key: String,
    signature: Vec<u8>,
}

/// Why a signature file does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unsigned {
    /// Not the five lines.
    Malformed,
    /// By another key than the pinned one: its id.
    OtherKey(String),
    /// Over other files than these.
    OtherFiles,
    /// The key did not sign these lines.
    Forged,
}

impl std::fmt::Display for Unsigned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Malformed => f.write_str("bundle.sig is not what `boltseal policy sign` writes"),
            Self::OtherKey(key) => {
                write!(f, "bundle.sig is by key {}.., not by the pinned one", key.get(..16).unwrap_or(key))
            }
            Self::OtherFiles => f.write_str("bundle.sig is over other files: one was changed, added or removed"),
            Self::Forged => f.write_str("the signature in bundle.sig does not verify"),
        }
    }
}

impl std::error::Error for Unsigned {}

/// The bytes to sign.
#[must_use]
pub fn statement(version: u64, digest: &str, key: &str) -> String {
    format!("boltseal-bundle 1\nversion {version}\ndigest {digest}\nkey {key}\n")
}

/// The file's text; `signature` in ASN.1 DER.
#[must_use]
pub fn file(version: u64, digest: &str, key: &str, signature: &[u8]) -> String {
    format!("{}signature {}\n", statement(version, digest, key), STANDARD.encode(signature))
}

impl Signed {
    /// Reads the file's bytes. What is read, spelled again, is those bytes.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn read(bytes: &[u8]) -> Result<Self, Unsigned> {
        let read = || {
            let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= MAX_FILE)?;
            let mut lines = text.strip_suffix('\n')?.split('\n');
            (lines.next()? == "boltseal-bundle 1").then_some(())?;
            let version: u64 = lines.next()?.strip_prefix("version ")?.parse().ok()?;
            let digest = lines.next()?.strip_prefix("digest ")?.to_owned();
            let key = lines.next()?.strip_prefix("key ")?.to_owned();
            let signature = STANDARD.decode(lines.next()?.strip_prefix("signature ")?).ok()?;
            let hex = |text: &str| text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            let good = (1..=MAX_VERSION).contains(&version) && hex(&digest) && hex(&key);
            (good && file(version, &digest, &key, &signature) == text).then_some(Self {
                version,
                digest,
                key,
                signature,
            })
        };
        read().ok_or(Unsigned::Malformed)
    }

    /// Whether `key` signed this version of exactly the files with this digest.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn verify(&self, digest: &str, key: &Key) -> Result<u64, Unsigned> {
        if self.key != key.id() {
            return Err(Unsigned::OtherKey(self.key.clone()));
        }
        let statement = statement(self.version, &self.digest, &self.key);
        if !key.signed(Text::Policy, statement.as_bytes(), &self.signature) {
            return Err(Unsigned::Forged);
        }
        if self.digest != digest {
            return Err(Unsigned::OtherFiles);
        }
        Ok(self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

    const DIGEST: &str = "4c2a1f0e4c2a1f0e4c2a1f0e4c2a1f0e4c2a1f0e4c2a1f0e4c2a1f0e4c2a1f0e";

    fn pair() -> (EcdsaKeyPair, Key) {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let key = Key::from_point(pair.public_key().as_ref()).unwrap();
        (pair, key)
    }

    fn signed(pair: &EcdsaKeyPair, key: &Key, version: u64) -> String {
        let statement = statement(version, DIGEST, key.id());
        let signature = pair.sign(&SystemRandom::new(), statement.as_bytes()).unwrap();
        file(version, DIGEST, key.id(), signature.as_ref())
    }

    fn verify(text: &str, digest: &str, key: &Key) -> Result<u64, Unsigned> {
        Signed::read(text.as_bytes())?.verify(digest, key)
    }

    #[test]
    fn what_is_signed_verifies_for_its_key_and_files_alone() {
        let (_, stranger) = pair();
        let (pair, key) = pair();
        let text = signed(&pair, &key, 7);
        assert!(text.len() < MAX_FILE);
        assert_eq!(verify(&text, DIGEST, &key), Ok(7));
        assert_eq!(verify(&text, &"0".repeat(64), &key), Err(Unsigned::OtherFiles));
        assert_eq!(verify(&text, DIGEST, &stranger), Err(Unsigned::OtherKey(key.id().into())));
        // Naming the stranger's key in the file does not make it the stranger's signature.
        assert_eq!(verify(&text.replace(key.id(), stranger.id()), DIGEST, &stranger), Err(Unsigned::Forged));
        assert_eq!(verify(&text.replace("version 7", "version 8"), DIGEST, &key), Err(Unsigned::Forged));
        assert_eq!(verify(&text.replace(DIGEST, &"0".repeat(64)), &"0".repeat(64), &key), Err(Unsigned::Forged));
    }

    #[test]
    fn no_bit_of_the_file_can_change() {
        let (pair, key) = pair();
        let good = signed(&pair, &key, 7).into_bytes();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert!(!Signed::read(&bad).is_ok_and(|s| s.verify(DIGEST, &key).is_ok()), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn there_is_one_spelling() {
        let (pair, key) = pair();
        let good = signed(&pair, &key, 7);
        for bad in [
            "",
            "\n",
            good.trim_end(),
            &format!("{good}\n"),
            &good.replace('\n', "\r\n"),
            &good.replace("version 7", "version 07"),
            &good.replace("version 7", "version +7"),
            &signed(&pair, &key, 0),
            &signed(&pair, &key, MAX_VERSION + 1),
            &good.replace(DIGEST, &DIGEST.to_uppercase()),
            &good.replace("boltseal-bundle 1", "boltseal-bundle 2"),
            &format!("{good}{}", " ".repeat(MAX_FILE)),
        ] {
            assert_eq!(Signed::read(bad.as_bytes()), Err(Unsigned::Malformed), "{bad}");
        }
    }
}
