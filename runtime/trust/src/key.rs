//! A policy's key: PEM SubjectPublicKeyInfo of P-256, P-384, RSA or Ed25519.
use crate::digest::digest;
use crate::spki::{Public, Text};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt;

/// The DER before the coordinates of a P-256 point: SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING, no
/// unused bits, 0x04 } (RFC 5480 section 2).
const P256: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
/// Bytes of a PEM file that are looked at.
const MAX_PEM: usize = 4096;

/// A public key and its id. How it signs is the key's own: see [`Key::from_spki_pem`].
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    der: Vec<u8>,
    public: Public,
    id: String,
}

impl Key {
    /// From one PEM block `PUBLIC KEY` with nothing around it but white space: P-256, P-384, RSA of 2048 to 8192 bits
    /// with the exponent 65537, or Ed25519.
    ///
    /// # Errors
    /// [`KeyError`] says what it is instead. Whether a point lies on its curve is seen at the first verification, which
    /// then fails.
    pub fn from_spki_pem(pem: &str) -> Result<Self, KeyError> {
        if pem.len() > MAX_PEM {
            return Err(KeyError("longer than a public key"));
        }
        let body = pem
            .trim()
            .strip_prefix("-----BEGIN PUBLIC KEY-----")
            .and_then(|rest| rest.strip_suffix("-----END PUBLIC KEY-----"))
            .ok_or(KeyError("not one PEM block PUBLIC KEY"))?;
        let body: String = body.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        let der = STANDARD.decode(body.trim()).map_err(|_| KeyError("not base64 between the PEM lines"))?;
        let public = Public::read(&der).map_err(KeyError)?;
        Ok(Self { id: digest(&der).hex(), der, public })
    }

    /// The same for a key that signs policies or speaks for a node, of which only P-256 is taken.
    ///
    /// # Errors
    /// [`KeyError`], also for a good key of another kind.
    pub fn p256_from_spki_pem(pem: &str) -> Result<Self, KeyError> {
        let key = Self::from_spki_pem(pem)?;
        if matches!(key.public, Public::P256(_)) { Ok(key) } else { Err(KeyError("not a P-256 key")) }
    }

    /// From an uncompressed P-256 point (4, x, y): the public half of a key pair that one holds.
    #[must_use]
    pub fn from_point(point: &[u8]) -> Option<Self> {
        let coordinates = point.strip_prefix(&[4])?;
        let der = [&P256, coordinates].concat();
        let public = Public::read(&der).ok()?;
        Some(Self { id: digest(&der).hex(), der, public })
    }

    /// The SubjectPublicKeyInfo in DER, base64 on one line.
    pub(crate) fn base64(&self) -> String {
        STANDARD.encode(&self.der)
    }

    /// One PEM block, as [`Key::from_spki_pem`] reads it.
    #[must_use]
    pub fn pem(&self) -> String {
        let body = self.base64();
        let lines: Vec<&str> = body.as_bytes().chunks(64).filter_map(|l| std::str::from_utf8(l).ok()).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }

    /// sha256 of the SubjectPublicKeyInfo in DER, hex.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The uncompressed point of a P-256 or a P-384 key; its length tells which.
    #[must_use]
    pub fn ec_point(&self) -> Option<&[u8]> {
        match &self.public {
            Public::P256(point) => Some(point),
            Public::P384(point) => Some(point),
            Public::Rsa(_) | Public::Ed25519(_) => None,
        }
    }

    /// Whether cosign 3 signs with this key in a way that can be verified: with Ed25519 it hashes first (Ed25519ph),
    /// which neither `ring` nor cosign itself verifies.
    #[must_use]
    pub fn signs_bundles(&self) -> bool {
        !matches!(self.public, Public::Ed25519(_))
    }

    pub(crate) fn public(&self) -> &Public {
        &self.public
    }

    /// Whether `signature` is this key's over `message`. The algorithm comes from the key and the kind of text, never
    /// from what is signed.
    pub(crate) fn signed(&self, text: Text, message: &[u8], signature: &[u8]) -> bool {
        self.public.signed(text, message, signature)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

/// Why a file is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyError(pub &'static str);

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}. Fix: cosign generate-key-pair makes a P-256 pair, cosign.pub is what belongs here", self.0)
    }
}

impl std::error::Error for KeyError {}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNER: &str = include_str!("../tests/fixtures/keys/signer.pub");

    #[test]
    fn a_cosign_key_with_either_line_end() {
        let key = Key::from_spki_pem(SIGNER).unwrap();
        assert_eq!(key.id().len(), 64);
        assert_eq!(Key::from_spki_pem(&SIGNER.replace('\n', "\r\n")).unwrap(), key);
    }

    #[test]
    fn a_key_is_written_as_it_is_read() {
        let key = Key::from_spki_pem(SIGNER).unwrap();
        assert_eq!(key.pem(), SIGNER);
        assert_eq!(Key::from_point(&key.der[P256.len() - 1..]), Some(key.clone()));
        assert_eq!(Key::from_point(&key.der[P256.len()..]), None);
        assert_eq!(Key::from_point(&[2; 65]), None);
    }

    #[test]
    fn a_point_is_of_a_curve() {
        let key = Key::from_spki_pem(SIGNER).unwrap();
        assert_eq!(key.ec_point(), Some(&key.der[P256.len() - 1..]));
        let ed = [&[0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0][..], &[7; 32]].concat();
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(ed));
        let ed = Key::from_spki_pem(&pem).unwrap();
        assert_eq!(ed.ec_point(), None);
        // cosign 3 hashes first with this one.
        assert!(key.signs_bundles() && !ed.signs_bundles());
        assert!(Key::from_spki_pem(&format!("{SIGNER:MAX_PEM$}")).is_ok());
    }

    #[test]
    fn anything_else_is_refused() {
        let body = SIGNER.lines().nth(1).unwrap();
        for (bad, why) in [
            (String::new(), "PEM block"),
            (format!("{SIGNER}{SIGNER}"), "base64"),
            (SIGNER.replace("PUBLIC", "PRIVATE"), "PEM block"),
            (SIGNER.replace(body, &body[..body.len() - 4]), "DER"),
            (SIGNER.replace(body, &format!("AAAA{}", &body[4..])), "DER"),
            (SIGNER.replace(body, &format!("*{}", &body[1..])), "base64"),
            (format!("a comment\n{SIGNER}"), "PEM block"),
            (" ".repeat(MAX_PEM + 1), "longer"),
        ] {
            let error = Key::from_spki_pem(&bad).unwrap_err();
            assert!(error.0.contains(why), "{error}: {bad}");
        }
    }

    #[test]
    fn a_point_off_the_curve_verifies_nothing() {
        let mut der = P256.to_vec();
        der.extend_from_slice(&[7; 64]);
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der));
        let key = Key::from_spki_pem(&pem).unwrap();
        assert!(!key.signed(Text::Payload, b"", &[]));
    }
}
