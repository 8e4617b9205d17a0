//! X.509 certificates of version 3 (RFC 5280) as slices of their DER, read with fixed memory: gate and worker share it.
//!
//! What is told apart here are the parts that a chain is made of. What the parts mean is judged in `appraise`.
use super::time;
use crate::spki::{BIT_STRING, INTEGER, OBJECT, SEQUENCE, element};
use rustls_pki_types::SignatureVerificationAlgorithm;

const BOOLEAN: u8 = 0x01;
const OCTET_STRING: u8 = 0x04;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;

/// id-ce-basicConstraints, id-ce-keyUsage, id-ce-extKeyUsage.
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];

/// How a certificate may be signed: what `ring` verifies, SHA-1 not among it.
pub(crate) static ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    webpki::ring::ECDSA_P256_SHA256,
    webpki::ring::ECDSA_P256_SHA384,
    webpki::ring::ECDSA_P384_SHA256,
    webpki::ring::ECDSA_P384_SHA384,
    webpki::ring::RSA_PKCS1_2048_8192_SHA256,
    webpki::ring::RSA_PKCS1_2048_8192_SHA384,
    webpki::ring::RSA_PKCS1_2048_8192_SHA512,
    webpki::ring::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    webpki::ring::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    webpki::ring::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

#[derive(Debug, Clone, Copy)]
pub(crate) struct Certificate<'a> {
    /// What the issuer signed.
    pub(crate) signed: &'a [u8],
    algorithm: &'a [u8],
    pub(crate) signature: &'a [u8],
    /// The names, without their outermost tag.
    pub(crate) issuer: &'a [u8],
    pub(crate) subject: &'a [u8],
    /// Seconds since the epoch, both within.
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
    /// The SubjectPublicKeyInfo.
    pub(crate) key: &'a [u8],
    extensions: &'a [u8],
}

/// The three extensions that the Notary Project honours.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Extensions<'a> {
    pub(crate) constraints: Option<Constraints>,
    pub(crate) usage: Option<Usage>,
    /// The content of the list of purposes.
    pub(crate) purposes: Option<&'a [u8]>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Constraints {
    pub(crate) critical: bool,
    pub(crate) is_ca: bool,
    pub(crate) path_length: Option<u8>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) critical: bool,
    /// Bit 0 of RFC 5280, digitalSignature, is the highest.
    pub(crate) bits: u16,
}

impl<'a> Certificate<'a> {
    /// The whole of `der`; None when it is no certificate, or has what no certificate of a chain needs.
    pub(crate) fn read(der: &'a [u8]) -> Option<Self> {
        let mut rest = der;
        let mut outer = element(SEQUENCE, &mut rest).filter(|_| rest.is_empty())?;
        let (signed, mut body) = whole(SEQUENCE, &mut outer)?;
        let algorithm = element(SEQUENCE, &mut outer)?;
        let signature = element(BIT_STRING, &mut outer)?.strip_prefix(&[0])?;
        if !outer.is_empty() || element(VERSION, &mut body)? != [INTEGER, 1, 2] {
            return None;
        }
        element(INTEGER, &mut body)?;
        // Said twice, once where it is signed: only if both agree there is one reading.
        if element(SEQUENCE, &mut body)? != algorithm {
            return None;
        }
        let issuer = element(SEQUENCE, &mut body)?;
        let mut validity = element(SEQUENCE, &mut body)?;
        let (not_before, not_after) = (moment(&mut validity)?, moment(&mut validity)?);
        let subject = element(SEQUENCE, &mut body)?;
        let (key, _) = whole(SEQUENCE, &mut body)?;
        let mut wrapped = element(EXTENSIONS, &mut body)?;
        let extensions = element(SEQUENCE, &mut wrapped)?;
        (validity.is_empty() && wrapped.is_empty() && body.is_empty()).then_some(Self {
            signed,
            algorithm,
            signature,
            issuer,
            subject,
            not_before,
            not_after,
            key,
            extensions,
        })
    }

    /// Whether the key of `issuer` signed it, by an algorithm that `ring` has.
    pub(crate) fn is_signed_by(&self, issuer: &Self) -> bool {
        let Some((algorithm, point)) = issuer.key_parts() else { return false };
        ALGORITHMS.iter().any(|known| {
            known.public_key_alg_id().as_ref() == algorithm
                && known.signature_alg_id().as_ref() == self.algorithm
                && known.verify_signature(point, self.signed, self.signature).is_ok()
        })
    }

    /// The key's algorithm, and the key itself as that has it: a point, or an RSAPublicKey.
    pub(crate) fn key_parts(&self) -> Option<(&'a [u8], &'a [u8])> {
        let mut rest = self.key;
        let mut key = element(SEQUENCE, &mut rest).filter(|_| rest.is_empty())?;
        let algorithm = element(SEQUENCE, &mut key)?;
        let point = element(BIT_STRING, &mut key)?.strip_prefix(&[0])?;
        key.is_empty().then_some((algorithm, point))
    }

    /// None when one of the three cannot be read or stands there twice. Others are webpki's business.
    pub(crate) fn extensions(&self) -> Option<Extensions<'a>> {
        let (mut found, mut rest) = (Extensions::default(), self.extensions);
        while !rest.is_empty() {
            let mut extension = element(SEQUENCE, &mut rest)?;
            let id = element(OBJECT, &mut extension)?;
            let critical = flag(&mut extension)?;
            let value = element(OCTET_STRING, &mut extension).filter(|_| extension.is_empty())?;
            let twice = match id {
                BASIC_CONSTRAINTS => found.constraints.replace(constraints(critical, value)?).is_some(),
                KEY_USAGE => found.usage.replace(usage(critical, value)?).is_some(),
                EXTENDED_KEY_USAGE => {
                    let mut rest = value;
                    let purposes = element(SEQUENCE, &mut rest).filter(|_| rest.is_empty())?;
                    found.purposes.replace(purposes).is_some()
                }
                _ => false,
            };
            if twice {
                return None;
            }
        }
        Some(found)
    }
}

/// The element and its content.
fn whole<'a>(tag: u8, rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let all = *rest;
    let content = element(tag, rest)?;
    Some((all.get(..all.len() - rest.len())?, content))
}

fn moment(rest: &mut &[u8]) -> Option<u64> {
    match rest.first()? {
        &UTC_TIME => time::utc(element(UTC_TIME, rest)?),
        _ => time::generalized(element(GENERALIZED_TIME, rest)?),
    }
}

/// A BOOLEAN that is there only when it is true.
fn flag(rest: &mut &[u8]) -> Option<bool> {
    if rest.first() != Some(&BOOLEAN) {
        return Some(false);
    }
    (element(BOOLEAN, rest)? == [0xff]).then_some(true)
}

fn constraints(critical: bool, value: &[u8]) -> Option<Constraints> {
    let mut rest = value;
    let mut body = element(SEQUENCE, &mut rest).filter(|_| rest.is_empty())?;
    let is_ca = flag(&mut body)?;
    let path_length = match body {
        [] => None,
        [INTEGER, 1, length @ 0..=0x7f] if is_ca => Some(*length),
        _ => return None,
    };
    Some(Constraints { critical, is_ca, path_length })
}

fn usage(critical: bool, value: &[u8]) -> Option<Usage> {
    let mut rest = value;
    let bits = match element(BIT_STRING, &mut rest).filter(|_| rest.is_empty())? {
        [0..=7, first] => u16::from_be_bytes([*first, 0]),
        [0..=7, first, second] => u16::from_be_bytes([*first, *second]),
        _ => return None,
    };
    Some(Usage { critical, bits })
}
