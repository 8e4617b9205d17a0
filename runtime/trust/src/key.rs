//! A policy's key: PEM SubjectPublicKeyInfo, P-256.
use crate::digest::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt;

/// The DER before the 64 bytes of an uncompressed P-256 point: SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 },
/// BIT STRING, no unused bits, 0x04 } (RFC 5480 section 2). DER has one form, so comparing it is parsing it.
const P256: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
const DER_LEN: usize = P256.len() + 64;
/// Bytes of a PEM file that are looked at.
const MAX_PEM: usize = 4096;

/// A P-256 public key and its id.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    der: [u8; DER_LEN],
    id: String,
}

impl Key {
    /// From one PEM block `PUBLIC KEY` with nothing around it but white space.
    ///
    /// # Errors
    /// [`KeyError`] when it is not one such block, or not an uncompressed P-256 key in DER. Whether the point lies on
    /// the curve is seen at the first verification, which then fails.
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
        let der: [u8; DER_LEN] =
            der.try_into().map_err(|_| KeyError("not an uncompressed P-256 SubjectPublicKeyInfo"))?;
        if !der.starts_with(&P256) {
            return Err(KeyError("not an uncompressed P-256 SubjectPublicKeyInfo"));
        }
        Ok(Self { id: digest(&der).hex(), der })
    }

    /// From an uncompressed point (4, x, y): the public half of a key pair that one holds.
    #[must_use]
    pub fn from_point(point: &[u8]) -> Option<Self> {
        let mut der = [0; DER_LEN];
        der.get_mut(..P256.len())?.copy_from_slice(&P256);
        let coordinates = point.strip_prefix(&[4]).filter(|rest| rest.len() == 64)?;
        der.get_mut(P256.len()..)?.copy_from_slice(coordinates);
        Some(Self { id: digest(&der).hex(), der })
    }

    /// The SubjectPublicKeyInfo in DER, base64 on one line.
    pub(crate) fn base64(&self) -> String {
        STANDARD.encode(self.der)
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

    /// Whether `signature` (ASN.1 DER) is this key's ECDSA-SHA256 over `message`. The algorithm comes from the key,
    /// never from the message.
    pub(crate) fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let point = self.der.get(P256.len() - 1..).unwrap_or_default();
        ring::signature::UnparsedPublicKey::new(&ring::signature::ECDSA_P256_SHA256_ASN1, point)
            .verify(message, signature)
            .is_ok()
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
    fn anything_else_is_refused() {
        let body = SIGNER.lines().nth(1).unwrap();
        for (bad, why) in [
            (String::new(), "PEM block"),
            (format!("{SIGNER}{SIGNER}"), "base64"),
            (SIGNER.replace("PUBLIC", "PRIVATE"), "PEM block"),
            (SIGNER.replace(body, &body[..body.len() - 4]), "P-256"),
            (SIGNER.replace(body, &format!("AAAA{}", &body[4..])), "P-256"),
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
        assert!(!key.signed(b"", &[]));
    }
}
