//! The endorsement key (EK): the key that the TPM's maker certified. It decrypts and never signs, so it vouches for the
//! attestation key by a detour: only a TPM that holds both can open a credential made for the two.
//!
//! Templates and NV indexes: TCG EK Credential Profile for TPM 2.0, 2.5, annex B (L-1: RSA 2048, L-2: P-256, H-3: P-384,
//! H-6: RSA 3072).
use crate::Error;
use crate::key::{AttestationKey, ENDORSEMENT, SHA256_ID};
use crate::tpm::Tpm;
use crate::wire::{Command, Reader, Request, Writer};
use std::time::Instant;

/// Longest certificate that is read from the TPM.
const MAX_CERTIFICATE: u16 = 4096;
/// Bytes of one NV_Read; every TPM takes this much.
const CHUNK: u16 = 512;
const OWNER: u32 = 0x4000_0001;
const NULL_HANDLE: u32 = 0x4000_0007;
const NULL: u16 = 0x0010;
/// fixedTPM, fixedParent, sensitiveDataOrigin, adminWithPolicy, restricted, decrypt.
const ATTRIBUTES: u32 = 0x0003_00b2;
/// The same and userWithAuth: keys of the high range may be used with their empty password.
const HIGH_ATTRIBUTES: u32 = 0x0003_00f2;
/// PolicySecret(TPM_RH_ENDORSEMENT), PolicyA of the profile: who knows the endorsement hierarchy's password may use the key.
const POLICY: [u8; 32] = [
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24, 0xfd, 0x52, 0xd7,
    0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa,
];
/// PolicyB with SHA-384: that, or what a maker wrote into an NV index.
const HIGH_POLICY: [u8; 48] = [
    0xb2, 0x6e, 0x7d, 0x28, 0xd1, 0x1a, 0x50, 0xbc, 0x53, 0xd8, 0x82, 0xbc, 0xf5, 0xfd, 0x3a, 0x1a, 0x07, 0x41, 0x48,
    0xbb, 0x35, 0xd3, 0xb4, 0xe4, 0xcb, 0x1c, 0x0a, 0xd9, 0xbd, 0xe4, 0x19, 0xca, 0xcb, 0x47, 0xba, 0x09, 0x69, 0x96,
    0x46, 0x15, 0x0f, 0x9f, 0xc0, 0x00, 0xf3, 0xf8, 0x0e, 0x12,
];
const SHA384_ID: u16 = 0x000c;
const RSA_ID: u16 = 0x0001;
const ECC_ID: u16 = 0x0023;

/// Which endorsement key: of its kind, the TPM has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    P256,
    Rsa2048,
    P384,
    Rsa3072,
}

impl Kind {
    /// In the order in which certificates are looked for.
    pub(crate) const ALL: [Self; 4] = [Self::P256, Self::Rsa2048, Self::P384, Self::Rsa3072];

    /// As an approval names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::P256 => "p256",
            Self::Rsa2048 => "rsa2048",
            Self::P384 => "p384",
            Self::Rsa3072 => "rsa3072",
        }
    }

    /// Of the high range: SHA-384 and AES-256 where the others have SHA-256 and AES-128.
    pub(crate) fn is_high(self) -> bool {
        matches!(self, Self::P384 | Self::Rsa3072)
    }

    fn certificate_index(self) -> u32 {
        match self {
            Self::P256 => 0x01c0_000a,
            Self::Rsa2048 => 0x01c0_0002,
            Self::P384 => 0x01c0_0016,
            Self::Rsa3072 => 0x01c0_001c,
        }
    }

    fn template(self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u16(if matches!(self, Self::P256 | Self::P384) { ECC_ID } else { RSA_ID });
        let aes = if self.is_high() {
            out.u16(SHA384_ID);
            out.u32(HIGH_ATTRIBUTES);
            out.sized(&HIGH_POLICY);
            256
        } else {
            out.u16(SHA256_ID);
            out.u32(ATTRIBUTES);
            out.sized(&POLICY);
            128
        };
        for word in [0x0006, aes, 0x0043, NULL] {
            out.u16(word); // AES in CFB mode for what it protects, no scheme
        }
        // The high range leaves the unique field empty, the low one fills it with zeros.
        let (words, unique): (&[u16], &[&[u8]]) = match self {
            Self::P256 => (&[0x0003, NULL], &[&[0; 32], &[0; 32]]),
            Self::P384 => (&[0x0004, NULL], &[&[], &[]]),
            Self::Rsa2048 => (&[2048, 0, 0], &[&[0; 256]]),
            Self::Rsa3072 => (&[3072, 0, 0], &[&[]]),
        };
        words.iter().for_each(|word| out.u16(*word));
        unique.iter().for_each(|part| out.sized(part));
        out.0
    }
}

/// The certificates of endorsement keys that this TPM carries, DER.
///
/// # Errors
/// When there is none: then a maker's word on this TPM cannot be had.
pub(crate) fn certificates(address: &str, deadline: Instant) -> Result<Vec<Vec<u8>>, Error> {
    let mut tpm = Tpm::open(address, deadline)?;
    let mut found = Vec::new();
    for kind in Kind::ALL {
        found.extend(tpm.nv(kind.certificate_index())?);
    }
    if found.is_empty() {
        return Err(Error::refused(
            "the TPM carries no certificate of an endorsement key. Fix: get it from the TPM's maker, or enrol with --trust-on-first-use",
        ));
    }
    Ok(found)
}

/// Opens a credential for the attestation key with the endorsement key of `kind`: the secret is proof that this TPM has both.
pub(crate) fn activate(
    tpm: &mut Tpm,
    kind: Kind,
    ak: &AttestationKey,
    credential: &[u8],
    secret: &[u8],
) -> Result<Vec<u8>, Error> {
    tpm.with_key(ak, |tpm, ak_handle| {
        tpm.with_primary(&kind.template(), |tpm, ek_handle, _| {
            let mut parameters = Writer::default();
            parameters.sized(credential);
            parameters.sized(secret);
            let request = Request::new(Command::ActivateCredential, &[ak_handle, ek_handle], parameters);
            if kind.is_high() {
                return tpm.opened(&request.with_two_passwords());
            }
            let session = tpm.policy_session()?;
            let opened = tpm.endorsed(session).and_then(|()| tpm.opened(&request.with_policy(session)));
            let flushed = tpm.flush(session);
            let opened = opened?;
            flushed.map(|()| opened)
        })
    })
}

impl Tpm {
    /// The bytes of an NV index; None when there is none.
    fn nv(&mut self, index: u32) -> Result<Option<Vec<u8>>, Error> {
        let public = match self.ask(&Request::new(Command::NvReadPublic, &[index], Writer::default())) {
            Ok((_, public)) => public,
            Err(Error::Code(..)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let size = nv_size(&public, index)?;
        let mut bytes = Vec::new();
        while bytes.len() < usize::from(size) {
            let left = size - bytes.len() as u16;
            let mut parameters = Writer::default();
            parameters.u16(left.min(CHUNK));
            parameters.u16(bytes.len() as u16);
            // By its own empty password, or by the owner's.
            let read = |auth| Request::new(Command::NvRead, &[auth, index], parameters.clone());
            let (_, reply) = match self.ask(&read(index)) {
                Err(Error::Code(..)) => self.ask(&read(OWNER))?,
                other => other?,
            };
            let mut reader = Reader::new("reply to NV_Read", &reply);
            let part = reader.sized()?;
            reader.end()?;
            if part.len() != usize::from(left.min(CHUNK)) {
                return Err(Error::Malformed("reply to NV_Read", "another size than was asked for"));
            }
            bytes.extend_from_slice(part);
        }
        Ok(Some(der(&bytes)?.to_vec()))
    }

    fn opened(&mut self, request: &Request) -> Result<Vec<u8>, Error> {
        let (_, reply) = self.ask(request)?;
        let mut reader = Reader::new("reply to ActivateCredential", &reply);
        let opened = reader.sized()?.to_vec();
        reader.end()?;
        Ok(opened)
    }

    pub(crate) fn policy_session(&mut self) -> Result<u32, Error> {
        let nonce = self.random(16)?;
        let mut parameters = Writer::default();
        parameters.sized(&nonce);
        parameters.sized(&[]); // no salt
        parameters.put(&[1]); // a policy session
        parameters.u16(NULL);
        parameters.u16(SHA256_ID);
        self.ask(&Request::new(Command::StartAuthSession, &[NULL_HANDLE, NULL_HANDLE], parameters)).map(|(h, _)| h)
    }

    fn endorsed(&mut self, session: u32) -> Result<(), Error> {
        let mut parameters = Writer::default();
        parameters.put(&[0; 6]); // no nonce, no command, no reference
        parameters.u32(0); // does not expire
        self.ask(&Request::new(Command::PolicySecret, &[ENDORSEMENT, session], parameters)).map(|_| ())
    }
}

/// Size of the data of an NV index, from NV_ReadPublic.
fn nv_size(parameters: &[u8], wanted: u32) -> Result<u16, Error> {
    let what = "reply to NV_ReadPublic";
    let mut reader = Reader::new(what, parameters);
    let public = reader.sized()?;
    reader.sized()?;
    reader.end()?;
    let mut reader = Reader::new(what, public);
    let index = reader.u32()?;
    reader.u16()?;
    reader.u32()?;
    reader.sized()?;
    let size = reader.u16()?;
    reader.end()?;
    if index != wanted || size > MAX_CERTIFICATE {
        return Err(Error::Malformed(what, "another index, or one that is too large for a certificate"));
    }
    Ok(size)
}

/// The DER SEQUENCE that bytes begin with: makers pad what they store.
fn der(bytes: &[u8]) -> Result<&[u8], Error> {
    let malformed = Error::Malformed("EK certificate", "not DER");
    let size = match bytes {
        [0x30, 0x82, high, low, ..] => 4 + usize::from(u16::from_be_bytes([*high, *low])),
        [0x30, 0x81, size, ..] => 3 + usize::from(*size),
        _ => return Err(malformed),
    };
    bytes.get(..size).ok_or(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_after_a_certificate_is_cut_off() {
        assert_eq!(der(&[0x30, 0x82, 0, 2, 7, 8, 0xff, 0xff]), Ok(&[0x30, 0x82, 0, 2, 7, 8][..]));
        assert_eq!(der(&[0x30, 0x81, 1, 7, 0]), Ok(&[0x30, 0x81, 1, 7][..]));
        for bad in [&[][..], &[0x30], &[0x30, 0x82, 0, 9, 1], &[0xff; 8], &[0; 8]] {
            assert!(der(bad).is_err());
        }
    }

    #[test]
    fn templates_are_the_profiles() {
        assert_eq!(Kind::P256.template().len(), 8 + 34 + 8 + 4 + 68);
        assert_eq!(Kind::Rsa2048.template().len(), 8 + 34 + 8 + 6 + 258);
        assert_eq!(Kind::Rsa2048.template()[..8], [0, 1, 0, 0x0b, 0, 3, 0, 0xb2]);
        assert_eq!(Kind::P384.template().len(), 8 + 50 + 8 + 4 + 4);
        assert_eq!(Kind::Rsa3072.template().len(), 8 + 50 + 8 + 6 + 2);
        assert_eq!(Kind::P384.template()[..8], [0, 0x23, 0, 0x0c, 0, 3, 0, 0xf2]);
    }
}
