//! MakeCredential in software, off the node: a secret that only the TPM with this endorsement key can open, and only while
//! it holds this attestation key (TPM 2.0 part 1, section 24, annex B.10.4 and C.6.4).
use crate::Error;
use crate::ek::Kind;
use crate::key::AttestationKey;
use crate::wire::Writer;
use aes::Aes128;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use num_bigint::BigUint;
use ring::agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use ring::digest::{Context, SHA256};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

/// SubjectPublicKeyInfo of a P-256 point, up to the point (RFC 5480).
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// The same of a 2048-bit RSA key with the exponent 65537, up to and after the modulus (RFC 3279).
const RSA: [u8; 33] = [
    0x30, 0x82, 0x01, 0x22, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
    0x03, 0x82, 0x01, 0x0f, 0x00, 0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0x00,
];
const RSA_END: [u8; 5] = [0x02, 0x03, 0x01, 0x00, 0x01];
const HASH: usize = 32;
const MODULUS: usize = 256;

/// An endorsement key's public part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EndorsementKey {
    P256([u8; 65]),
    Rsa2048([u8; MODULUS]),
}

impl EndorsementKey {
    /// From the SubjectPublicKeyInfo of its certificate.
    pub(crate) fn from_spki(der: &[u8]) -> Result<Self, Error> {
        if let Some(point) = der.strip_prefix(&P256).and_then(|p| <[u8; 65]>::try_from(p).ok()).filter(|p| p[0] == 4) {
            return Ok(Self::P256(point));
        }
        let modulus = der.strip_prefix(&RSA).and_then(|rest| rest.strip_suffix(&RSA_END));
        match modulus.and_then(|m| <[u8; MODULUS]>::try_from(m).ok()).filter(|m| m[0] & 0x80 != 0) {
            Some(modulus) => Ok(Self::Rsa2048(modulus)),
            None => Err(Error::refused("the endorsement key is neither P-256 nor RSA 2048 with the exponent 65537")),
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::P256(_) => Kind::P256,
            Self::Rsa2048(_) => Kind::Rsa2048,
        }
    }

    /// A fresh seed, and what brings it to the TPM.
    fn seed(&self) -> Result<([u8; HASH], Vec<u8>), Error> {
        match self {
            Self::P256(point) => ecdh(point),
            Self::Rsa2048(modulus) => {
                let (mut seed, mut mask) = ([0; HASH], [0; HASH]);
                random(&mut seed)?;
                random(&mut mask)?;
                let padded = oaep(&seed, &mask);
                let number = BigUint::from_bytes_be(&padded);
                let bytes = number.modpow(&BigUint::from(65537_u32), &BigUint::from_bytes_be(modulus)).to_bytes_be();
                let mut out = vec![0; MODULUS - bytes.len().min(MODULUS)];
                out.extend(bytes);
                Ok((seed, out))
            }
        }
    }
}

/// A credential as TPM2_ActivateCredential takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credential {
    /// TPMS_ID_OBJECT.
    pub(crate) blob: Vec<u8>,
    /// TPM2B_ENCRYPTED_SECRET's content.
    pub(crate) secret: Vec<u8>,
}

/// Wraps `value` (at most 32 bytes) for the TPM with `ek` that holds `ak`.
pub(crate) fn make(ek: &EndorsementKey, ak: &AttestationKey, value: &[u8; HASH]) -> Result<Credential, Error> {
    let (seed, secret) = ek.seed()?;
    let name = ak.name();
    let cipher_key = kdf_a(&seed, b"STORAGE\0", &name, 128);
    let mut plain = Writer::default();
    plain.sized(value);
    let mut identity = plain.0;
    cfb(cipher_key.first_chunk().unwrap_or(&[0; 16]), &mut identity);
    let integrity = hmac::Key::new(hmac::HMAC_SHA256, &kdf_a(&seed, b"INTEGRITY\0", &[], 256));
    let mut blob = Writer::default();
    blob.sized(hmac::sign(&integrity, &[&identity[..], &name].concat()).as_ref());
    blob.put(&identity);
    Ok(Credential { blob: blob.0, secret })
}

fn random(out: &mut [u8]) -> Result<(), Error> {
    SystemRandom::new().fill(out).map_err(|_| Error::io("a random seed", "the kernel gave none"))
}

fn ecdh(point: &[u8; 65]) -> Result<([u8; HASH], Vec<u8>), Error> {
    let failed = |_| Error::refused("the endorsement key is no point of P-256");
    let ours = EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new()).map_err(failed)?;
    let public = ours.compute_public_key().map_err(failed)?;
    let (x, y) = match public.as_ref() {
        [4, rest @ ..] if rest.len() == 64 => rest.split_at(32),
        _ => return Err(Error::refused("an odd ephemeral key")),
    };
    let seed = agree_ephemeral(ours, &UnparsedPublicKey::new(&ECDH_P256, point), |z| {
        // KDFe (part 1, section 11.4.10.3), one round.
        let mut hash = Context::new(&SHA256);
        for part in [&1_u32.to_be_bytes()[..], z, b"IDENTITY\0", x, &point[1..33]] {
            hash.update(part);
        }
        digest(hash)
    })
    .map_err(failed)?;
    let mut out = Writer::default();
    out.sized(x);
    out.sized(y);
    Ok((seed, out.0))
}

/// KDFa (part 1, section 11.4.10.2) for at most one block; `label` carries its zero.
fn kdf_a(key: &[u8], label: &[u8], context: &[u8], bits: u32) -> [u8; HASH] {
    let message = [&1_u32.to_be_bytes()[..], label, context, &bits.to_be_bytes()].concat();
    let mut out = [0; HASH];
    out.copy_from_slice(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &message).as_ref());
    out
}

/// AES-128 in CFB mode with a zero vector: the key is used once.
fn cfb(key: &[u8; 16], data: &mut [u8]) {
    let cipher = Aes128::new(&Array::from(*key));
    let mut feedback = Array::from([0; 16]);
    for chunk in data.chunks_mut(16) {
        cipher.encrypt_block(&mut feedback);
        for (byte, mask) in chunk.iter_mut().zip(feedback) {
            *byte ^= mask;
        }
        for (at, byte) in chunk.iter().enumerate() {
            feedback[at] = *byte;
        }
    }
}

/// OAEP with SHA-256 and the label of a credential's seed (RFC 8017, section 7.1.1).
fn oaep(message: &[u8; HASH], mask: &[u8; HASH]) -> [u8; MODULUS] {
    let mut label = Context::new(&SHA256);
    label.update(b"IDENTITY\0");
    let mut out = [0; MODULUS];
    let (seed, data) = out[1..].split_at_mut(HASH);
    seed.copy_from_slice(mask);
    data[..HASH].copy_from_slice(&digest(label));
    let start = data.len() - HASH;
    data[start - 1] = 1;
    data[start..].copy_from_slice(message);
    mgf1(seed, data);
    mgf1(data, seed);
    out
}

/// Masks `out` with MGF1 of `seed`.
fn mgf1(seed: &[u8], out: &mut [u8]) {
    for (counter, chunk) in (0_u32..).zip(out.chunks_mut(HASH)) {
        let mut hash = Context::new(&SHA256);
        hash.update(seed);
        hash.update(&counter.to_be_bytes());
        chunk.iter_mut().zip(digest(hash)).for_each(|(byte, mask)| *byte ^= mask);
    }
}

fn digest(hash: Context) -> [u8; HASH] {
    let mut out = [0; HASH];
    out.copy_from_slice(hash.finish().as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 197, appendix C.1: in CFB mode the first block is the cipher of the vector, here zero.
    #[test]
    fn cfb_chains_blocks() {
        let key: [u8; 16] = std::array::from_fn(|n| n as u8);
        let mut once = [0; 16];
        cfb(&key, &mut once);
        let mut data = [0; 40];
        cfb(&key, &mut data);
        assert_eq!(data[..16], once);
        assert_ne!(data[16..32], once);
        let mut known = Array::from([
            0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff,
        ]);
        Aes128::new(&Array::from(key)).encrypt_block(&mut known);
        assert_eq!(known[..4], [0x69, 0xc4, 0xe0, 0xd8]);
    }

    #[test]
    fn oaep_can_be_taken_off_again() {
        let mut padded = oaep(&[7; HASH], &[9; HASH]);
        let (seed, data) = padded[1..].split_at_mut(HASH);
        mgf1(data, seed);
        mgf1(seed, data);
        assert_eq!((seed.to_vec(), &data[data.len() - HASH..]), (vec![9; HASH], &[7; HASH][..]));
        assert_eq!(padded[0], 0);
    }

    #[test]
    fn two_kinds_of_key_and_no_other() {
        let rsa = [&RSA[..], &[0x80; 256], &RSA_END].concat();
        assert_eq!(EndorsementKey::from_spki(&rsa).unwrap().kind(), Kind::Rsa2048);
        let ec = [&P256[..], &[4; 65]].concat();
        assert_eq!(EndorsementKey::from_spki(&ec).unwrap().kind(), Kind::P256);
        let weak = [&RSA[..], &[0x80; 256], &[2, 3, 1, 0, 3]].concat();
        for bad in [&rsa[1..], &ec[..90], &weak, &[]] {
            assert!(EndorsementKey::from_spki(bad).is_err());
        }
        assert!(make(&EndorsementKey::P256([4; 65]), &crate::key::from_point([4; 65]), &[1; 32]).is_err());
    }
}
