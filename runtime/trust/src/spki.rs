//! SubjectPublicKeyInfo in DER (RFC 5280; 5480, 8017 and 8410 for the algorithms), and what its key verifies.
//!
//! A policy's key says how it signs: one curve, one padding, one hash for one kind of text. Nothing beside a signature
//! has a say in it. DER has one form, so that comparing the algorithm's bytes is parsing them.
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1,
    ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaPublicKeyComponents, UnparsedPublicKey,
};

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OBJECT: u8 = 0x06;
pub(crate) const SEQUENCE: u8 = 0x30;

/// id-ecPublicKey.
const EC: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// prime256v1.
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// secp521r1, which `ring` does not verify.
const P521: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23];
/// secp384r1.
const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
/// rsaEncryption.
const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// id-RSASSA-PSS.
const PSS: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];
const NULL: &[u8] = &[0x05, 0x00];
/// id-Ed25519, which has no parameters.
const ED: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];

/// The one public exponent: what every tool makes, and the least that FIPS 186-5 allows.
const EXPONENT: [u8; 3] = [1, 0, 1];

/// The encodings of the points of Ed25519 whose order divides 8, without the sign bit. For such a key a signature over
/// one text, or over any, is one that anybody can write down.
const SMALL_ORDER: [[u8; 32]; 7] = [
    point_of(0, 0, 0),
    point_of(1, 0, 0),
    // p - 1, p and p + 1, with p = 2^255 - 19.
    point_of(0xec, 0xff, 0x7f),
    point_of(0xed, 0xff, 0x7f),
    point_of(0xee, 0xff, 0x7f),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
        0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
        0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
];

const fn point_of(first: u8, middle: u8, last: u8) -> [u8; 32] {
    let mut bytes = [middle; 32];
    bytes[0] = first;
    bytes[31] = last;
    bytes
}

/// What a signature is over: it decides the hash where a curve leaves a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Text {
    /// A policy bundle's statement: P-256 alone.
    Policy,
    /// cosign 2's payload, which it hashes with SHA-256 whatever the key.
    Payload,
    /// A DSSE envelope, which cosign 3 hashes with its curve's own hash.
    Envelope,
    /// A Notary Project envelope: hash and padding by the kind and size of the key, ECDSA as two numbers of fixed size.
    Notation,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Public {
    P256([u8; 65]),
    P384([u8; 97]),
    /// The modulus; the exponent is [`EXPONENT`].
    Rsa(Vec<u8>),
    Ed25519([u8; 32]),
}

impl Public {
    /// Reads the whole of `der`.
    pub(crate) fn read(der: &[u8]) -> Result<Self, &'static str> {
        const OTHER: &str = "not a SubjectPublicKeyInfo in DER";
        let mut rest = der;
        let mut info = element(SEQUENCE, &mut rest).ok_or(OTHER)?;
        if !rest.is_empty() {
            return Err("bytes after the key");
        }
        let algorithm = element(SEQUENCE, &mut info).ok_or(OTHER)?;
        let bits = element(BIT_STRING, &mut info).and_then(|bits| bits.strip_prefix(&[0])).ok_or(OTHER)?;
        if !info.is_empty() {
            return Err("bytes after the key");
        }
        let is = |id: &[u8], parameters: &[u8]| algorithm.strip_prefix(id) == Some(parameters);
        if is(EC, P256) {
            point(bits, "not an uncompressed P-256 point").map(Self::P256)
        } else if is(EC, P384) {
            point(bits, "not an uncompressed P-384 point").map(Self::P384)
        } else if is(RSA, NULL) {
            modulus(bits).map(Self::Rsa)
        } else if is(ED, &[]) {
            ed25519(bits).map(Self::Ed25519)
        } else {
            Err(unusable(algorithm))
        }
    }

    /// Whether `signature` is this key's over `message`: ECDSA in ASN.1, RSA in PKCS #1 v1.5, Ed25519 without a
    /// hash before it.
    pub(crate) fn signed(&self, text: Text, message: &[u8], signature: &[u8]) -> bool {
        let good = match (self, text) {
            (_, Text::Notation) => return self.signed_notation(message, signature),
            (Self::P256(point), _) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature),
            (_, Text::Policy) => return false,
            (Self::P384(point), Text::Payload) => {
                UnparsedPublicKey::new(&ECDSA_P384_SHA256_ASN1, point).verify(message, signature)
            }
            (Self::P384(point), Text::Envelope) => {
                UnparsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, point).verify(message, signature)
            }
            (Self::Rsa(n), _) => {
                let key = RsaPublicKeyComponents { n: n.as_slice(), e: EXPONENT.as_slice() };
                key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
            (Self::Ed25519(point), _) => UnparsedPublicKey::new(&ED25519, point).verify(message, signature),
        };
        good.is_ok()
    }

    fn signed_notation(&self, message: &[u8], signature: &[u8]) -> bool {
        let good = match self {
            Self::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature),
            Self::P384(point) => UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).verify(message, signature),
            Self::Rsa(n) => {
                let key = RsaPublicKeyComponents { n: n.as_slice(), e: EXPONENT.as_slice() };
                let padding = match n.len() {
                    256 => &RSA_PSS_2048_8192_SHA256,
                    384 => &RSA_PSS_2048_8192_SHA384,
                    512 => &RSA_PSS_2048_8192_SHA512,
                    _ => return false,
                };
                key.verify(padding, message, signature)
            }
            Self::Ed25519(_) => return false,
        };
        good.is_ok()
    }

    /// The algorithm of a Notary Project signature by this key, as JWS and as COSE name it (RFC 7518, RFC 9053).
    pub(crate) fn notation(&self) -> Option<(&'static str, i64)> {
        match self {
            Self::P256(_) => Some(("ES256", -7)),
            Self::P384(_) => Some(("ES384", -35)),
            Self::Rsa(n) => match n.len() {
                256 => Some(("PS256", -37)),
                384 => Some(("PS384", -38)),
                512 => Some(("PS512", -39)),
                _ => None,
            },
            Self::Ed25519(_) => None,
        }
    }
}

/// The content of the element with this tag that `rest` begins with. Lengths up to 65535, each in its shortest form.
pub(crate) fn element<'a>(tag: u8, rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (&[found, first], tail) = rest.split_first_chunk()?;
    let (len, tail) = match first {
        0..=0x7f => (usize::from(first), tail),
        0x81 => {
            let (&len, tail) = tail.split_first()?;
            (Some(usize::from(len)).filter(|len| *len >= 0x80)?, tail)
        }
        0x82 => {
            let (&len, tail) = tail.split_first_chunk()?;
            (Some(usize::from(u16::from_be_bytes(len))).filter(|len| *len >= 0x100)?, tail)
        }
        _ => return None,
    };
    let (content, tail) = tail.split_at_checked(len)?;
    *rest = tail;
    (found == tag).then_some(content)
}

/// 4, x, y. Whether it lies on the curve is seen at the first verification, which then fails.
fn point<const N: usize>(bits: &[u8], why: &'static str) -> Result<[u8; N], &'static str> {
    bits.try_into().ok().filter(|bytes: &[u8; N]| bytes.first() == Some(&4)).ok_or(why)
}

fn ed25519(bits: &[u8]) -> Result<[u8; 32], &'static str> {
    let point: [u8; 32] = bits.try_into().map_err(|_| "not the 32 bytes of an Ed25519 key")?;
    let mut unsigned = point;
    unsigned[31] &= 0x7f;
    if SMALL_ORDER.contains(&unsigned) {
        return Err("an Ed25519 point of small order, for which anybody can sign");
    }
    Ok(point)
}

/// The modulus of an RSAPublicKey with the one exponent.
fn modulus(bits: &[u8]) -> Result<Vec<u8>, &'static str> {
    const OTHER: &str = "not an RSA key in DER";
    let mut rest = bits;
    let mut key = element(SEQUENCE, &mut rest).filter(|_| rest.is_empty()).ok_or(OTHER)?;
    let n = natural(&mut key).ok_or(OTHER)?;
    let e = natural(&mut key).filter(|_| key.is_empty()).ok_or(OTHER)?;
    if n.len() < 256 || (n.len() == 256 && n.first().is_some_and(|first| *first < 0x80)) {
        return Err("RSA of fewer than 2048 bits");
    }
    if n.len() > 1024 {
        return Err("RSA of more than 8192 bits");
    }
    if e != EXPONENT {
        return Err("RSA with another public exponent than 65537");
    }
    if n.last().is_some_and(|last| last % 2 == 0) {
        return Err("RSA with an even modulus");
    }
    Ok(n.to_vec())
}

/// A positive INTEGER in its shortest form, without the byte that keeps it from being negative.
fn natural<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    match element(INTEGER, rest)? {
        [0, digits @ ..] => Some(digits).filter(|digits| digits.first().is_some_and(|first| *first >= 0x80)),
        digits => Some(digits).filter(|digits| digits.first().is_some_and(|first| *first < 0x80)),
    }
}

/// Names what it is instead.
fn unusable(algorithm: &[u8]) -> &'static str {
    if let Some(curve) = algorithm.strip_prefix(EC) {
        match curve.first() {
            _ if curve == P521 => "an EC key on P-521, which ring does not verify",
            Some(&OBJECT) => "an EC key on another curve than P-256 and P-384",
            Some(&SEQUENCE) => "an EC key with its curve spelled out instead of named",
            _ => "an EC key without a curve",
        }
    } else if algorithm.starts_with(PSS) {
        "an RSA key for PSS alone, while cosign signs with PKCS #1 v1.5"
    } else if algorithm.starts_with(RSA) {
        "an RSA key with parameters"
    } else if algorithm.starts_with(ED) {
        "an Ed25519 key with parameters"
    } else {
        "a key that is neither P-256, P-384, RSA nor Ed25519"
    }
}
