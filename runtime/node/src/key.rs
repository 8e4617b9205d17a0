//! The attestation key (AK): its template, its public area, its name, its PEM.
//!
//! A quote is worth what its key is worth. Only a *restricted* signing key refuses to sign bytes that begin like a
//! quote but were made outside the TPM; only `fixedTPM` keeps it in this TPM. So exactly one template is accepted, and
//! since the name of a key is a hash over its whole public area, the enrolled point alone tells what name its quotes carry.
use crate::Error;
use crate::wire::{Reader, Writer};
use base64::{Engine, engine::general_purpose::STANDARD};
use ring::digest::{SHA256, digest};

/// The hierarchy of the AK. In the owner hierarchy a TPM obfuscates resetCount and firmware version in quotes.
pub(crate) const ENDORSEMENT: u32 = 0x4000_000b;
/// Where an enrolled AK is kept (owner range of part 2, section 14.4), unless another key is there already.
pub const PERSISTENT: u32 = 0x8101_8b01;

const ECC: u16 = 0x0023;
pub(crate) const SHA256_ID: u16 = 0x000b;
pub(crate) const ECDSA: u16 = 0x0018;
const NULL: u16 = 0x0010;
const P256: u16 = 0x0003;

/// TPMA_OBJECT bits (part 2, section 8.3).
const FIXED_TPM: u32 = 1 << 1;
const FIXED_PARENT: u32 = 1 << 4;
const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
const USER_WITH_AUTH: u32 = 1 << 6;
const NO_DA: u32 = 1 << 10;
const RESTRICTED: u32 = 1 << 16;
const DECRYPT: u32 = 1 << 17;
const SIGN: u32 = 1 << 18;
const ATTRIBUTES: u32 = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | USER_WITH_AUTH | NO_DA | RESTRICTED | SIGN;

/// SubjectPublicKeyInfo of an uncompressed P-256 point, up to the point (RFC 5480).
const SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";

/// A P-256 attestation key of the one accepted template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestationKey {
    /// Uncompressed point: 4, x, y.
    point: [u8; 65],
}

impl AttestationKey {
    /// From a TPMT_PUBLIC, the public area that the TPM returned.
    ///
    /// # Errors
    /// When it is not exactly the template: restricted, fixedTPM, sign, not decrypt, ECDSA with SHA-256 on P-256.
    pub fn from_public(public: &[u8]) -> Result<Self, Error> {
        let (attributes, x, y) = parse_public(public)?;
        for (bit, wanted, name) in [
            (RESTRICTED, true, "restricted"),
            (FIXED_TPM, true, "fixedTPM"),
            (FIXED_PARENT, true, "fixedParent"),
            (SENSITIVE_DATA_ORIGIN, true, "sensitiveDataOrigin"),
            (SIGN, true, "sign"),
            (DECRYPT, false, "decrypt"),
        ] {
            if (attributes & bit != 0) != wanted {
                let verb = if wanted { "is not" } else { "is" };
                return Err(Error::refused(format!(
                    "the attestation key {verb} {name}: its quotes prove nothing. Fix: boltseal node enroll"
                )));
            }
        }
        let mut point = [4; 65];
        point[1..33].copy_from_slice(&x);
        point[33..].copy_from_slice(&y);
        let key = Self { point };
        if key.public() != public {
            return Err(Error::refused("the attestation key is not of boltseal's template. Fix: boltseal node enroll"));
        }
        Ok(key)
    }

    /// From PEM, one `PUBLIC KEY` block and nothing else.
    ///
    /// # Errors
    /// When it is anything but a P-256 SubjectPublicKeyInfo with an uncompressed point.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        let body = pem
            .trim()
            .strip_prefix(BEGIN)
            .and_then(|rest| rest.strip_suffix(END))
            .ok_or(Error::Malformed("attestation key", "not one PEM block PUBLIC KEY"))?;
        let text: String = body.split_ascii_whitespace().collect();
        if text.len() > 256 {
            return Err(Error::Malformed("attestation key", "too long for P-256"));
        }
        let der = STANDARD.decode(text).map_err(|_| Error::Malformed("attestation key", "not base64"))?;
        match der.strip_prefix(&SPKI).and_then(|point| <[u8; 65]>::try_from(point).ok()) {
            Some(point) if point[0] == 4 => Ok(Self { point }),
            _ => Err(Error::Malformed("attestation key", "not a P-256 SubjectPublicKeyInfo")),
        }
    }

    /// From an uncompressed point; None when it has another form.
    pub fn from_point(point: &[u8]) -> Option<Self> {
        let point = <[u8; 65]>::try_from(point).ok().filter(|point| point[0] == 4)?;
        Some(Self { point })
    }

    /// SubjectPublicKeyInfo.
    pub fn to_der(&self) -> Vec<u8> {
        [&SPKI[..], &self.point].concat()
    }

    /// RFC 7468, 64 characters a line.
    pub fn to_pem(&self) -> String {
        let text = STANDARD.encode(self.to_der());
        let (first, second) = text.split_at(64);
        format!("{BEGIN}\n{first}\n{second}\n{END}\n")
    }

    /// The point as ring takes it.
    pub fn point(&self) -> &[u8; 65] {
        &self.point
    }

    /// TPMT_PUBLIC.
    pub fn public(&self) -> Vec<u8> {
        let mut out = template_with(ATTRIBUTES);
        out.sized(&self.point[1..33]);
        out.sized(&self.point[33..]);
        out.0
    }

    /// The TPM's name of it: hash algorithm, then SHA-256 of the public area (part 1, section 16).
    pub fn name(&self) -> Vec<u8> {
        named(&self.public())
    }

    /// The qualified name, which a quote carries: it adds the hierarchy that the key is a primary of.
    pub fn qualified_name(&self) -> Vec<u8> {
        named(&[&ENDORSEMENT.to_be_bytes()[..], &self.name()].concat())
    }
}

fn named(bytes: &[u8]) -> Vec<u8> {
    let mut out = Writer::default();
    out.u16(SHA256_ID);
    out.put(digest(&SHA256, bytes).as_ref());
    out.0
}

/// The template that CreatePrimary takes: with an empty `unique`, so that it is the same key at every boot.
pub(crate) fn template() -> Vec<u8> {
    let mut out = template_with(ATTRIBUTES);
    out.sized(&[]);
    out.sized(&[]);
    out.0
}

fn template_with(attributes: u32) -> Writer {
    let mut out = Writer::default();
    out.u16(ECC);
    out.u16(SHA256_ID);
    out.u32(attributes);
    out.sized(&[]); // no policy: the empty password authorizes it
    out.u16(NULL); // no symmetric cipher: it does not decrypt
    out.u16(ECDSA);
    out.u16(SHA256_ID);
    out.u16(P256);
    out.u16(NULL); // no key derivation
    out
}

/// Attributes, x and y of a P-256 TPMT_PUBLIC whose scheme is ECDSA with SHA-256.
///
/// # Errors
/// `Malformed` for every other form.
pub fn parse_public(bytes: &[u8]) -> Result<(u32, [u8; 32], [u8; 32]), Error> {
    let what = "public area";
    let mut reader = Reader::new(what, bytes);
    if reader.u16()? != ECC || reader.u16()? != SHA256_ID {
        return Err(Error::Malformed(what, "not an ECC key with SHA-256 as its name"));
    }
    let attributes = reader.u32()?;
    reader.sized()?;
    if reader.u16()? != NULL || reader.u16()? != ECDSA || reader.u16()? != SHA256_ID {
        return Err(Error::Malformed(what, "its scheme is not ECDSA with SHA-256"));
    }
    if reader.u16()? != P256 || reader.u16()? != NULL {
        return Err(Error::Malformed(what, "its curve is not P-256"));
    }
    let mut coordinate =
        || <[u8; 32]>::try_from(reader.sized()?).map_err(|_| Error::Malformed(what, "a coordinate is not 32 bytes"));
    let (x, y) = (coordinate()?, coordinate()?);
    reader.end()?;
    Ok((attributes, x, y))
}

#[cfg(test)]
pub(crate) fn from_point(point: [u8; 65]) -> AttestationKey {
    AttestationKey { point }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> AttestationKey {
        let mut point: [u8; 65] = std::array::from_fn(|n| n as u8);
        point[0] = 4;
        AttestationKey { point }
    }

    #[test]
    fn the_attributes_are_those_of_an_attestation_key() {
        assert_eq!(ATTRIBUTES, 0x0005_0472);
    }

    #[test]
    fn pem_and_public_area_go_both_ways() {
        let key = key();
        assert_eq!(AttestationKey::from_pem(&key.to_pem()), Ok(key.clone()));
        assert_eq!(AttestationKey::from_public(&key.public()), Ok(key.clone()));
        assert!(key.to_pem().lines().all(|line| line.len() <= 64));
    }

    #[test]
    fn only_the_template_is_an_attestation_key() {
        let good = key().public();
        for byte in 0..good.len() - 68 {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[byte] ^= 1 << bit;
                assert!(AttestationKey::from_public(&bad).is_err(), "byte {byte} bit {bit}");
            }
        }
        assert!(AttestationKey::from_public(&[&good[..], &[0]].concat()).is_err());
        assert!(AttestationKey::from_public(&good[..good.len() - 1]).is_err());
        let of = |attributes| {
            let mut public = good.clone();
            public[4..8].copy_from_slice(&u32::to_be_bytes(attributes));
            AttestationKey::from_public(&public).unwrap_err().to_string()
        };
        assert!(of(ATTRIBUTES & !RESTRICTED).contains("is not restricted"));
        assert!(of(ATTRIBUTES & !FIXED_TPM).contains("is not fixedTPM"));
        assert!(of(ATTRIBUTES | DECRYPT).contains("is decrypt"));
        assert!(of(ATTRIBUTES & !NO_DA).contains("template"));
    }

    #[test]
    fn only_a_p256_key_is_read_from_pem() {
        let pem = key().to_pem();
        assert!(AttestationKey::from_pem(&format!("\n{}", pem.replace('\n', "\r\n"))).is_ok());
        let compressed = STANDARD.encode([&SPKI[..], &[2; 65]].concat());
        for bad in [
            String::new(),
            pem.repeat(2),
            pem.replace("PUBLIC", "PRIVATE"),
            pem.replacen("MF", "MG", 1),
            format!("{BEGIN}\n{compressed}\n{END}"),
            format!("{BEGIN}\n{}\n{END}", "A".repeat(5000)),
            format!("{BEGIN}\n{END}"),
        ] {
            assert!(AttestationKey::from_pem(&bad).is_err(), "{bad}");
        }
    }
}
