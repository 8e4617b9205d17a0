//! MakeCredential in software, off the node: a secret that only the TPM with this endorsement key can open, and only while
//! it holds this attestation key (TPM 2.0 part 1, section 24, annex B.10.4 and C.6.4).
use crate::Error;
use crate::ek::Kind;
use crate::key::AttestationKey;
use crate::wire::Writer;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit, consts::U16};
use aes::{Aes128, Aes256};
use num_bigint::BigUint;
use ring::agreement::{Algorithm, ECDH_P256, ECDH_P384, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use ring::digest::{self, Context};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

/// SubjectPublicKeyInfo of a P-256 point, up to the point (RFC 5480).
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// Of a P-384 point.
const P384: [u8; 23] = [
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00,
    0x22, 0x03, 0x62, 0x00,
];
/// The same of an RSA key with the exponent 65537, up to and after the modulus (RFC 3279): 2048 bits, 3072 bits.
const RSA_2048: [u8; 33] = [
    0x30, 0x82, 0x01, 0x22, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
    0x03, 0x82, 0x01, 0x0f, 0x00, 0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0x00,
];
const RSA_3072: [u8; 33] = [
    0x30, 0x82, 0x01, 0xa2, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
    0x03, 0x82, 0x01, 0x8f, 0x00, 0x30, 0x82, 0x01, 0x8a, 0x02, 0x82, 0x01, 0x81, 0x00,
];
const RSA_END: [u8; 5] = [0x02, 0x03, 0x01, 0x00, 0x01];
/// Bytes of what a credential hides.
const VALUE: usize = 32;

/// An endorsement key's public part: a point (with its 4), or a modulus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EndorsementKey {
    kind: Kind,
    public: Vec<u8>,
}

/// What the key's own hash and cipher are: a TPM wraps a credential by those of the endorsement key.
struct Suite {
    hash: &'static digest::Algorithm,
    mac: hmac::Algorithm,
    /// Bits of the cipher's key.
    cipher: u32,
}

impl Suite {
    fn of(kind: Kind) -> Self {
        if kind.is_high() {
            Self { hash: &digest::SHA384, mac: hmac::HMAC_SHA384, cipher: 256 }
        } else {
            Self { hash: &digest::SHA256, mac: hmac::HMAC_SHA256, cipher: 128 }
        }
    }

    fn size(&self) -> usize {
        self.hash.output_len()
    }

    fn digest(&self, parts: &[&[u8]]) -> Vec<u8> {
        let mut hash = Context::new(self.hash);
        parts.iter().for_each(|part| hash.update(part));
        hash.finish().as_ref().to_vec()
    }

    /// KDFa (part 1, section 11.4.10.2) for at most one block; `label` carries its zero.
    fn kdf_a(&self, key: &[u8], label: &[u8], context: &[u8], bits: u32) -> Vec<u8> {
        let message = [&1_u32.to_be_bytes()[..], label, context, &bits.to_be_bytes()].concat();
        let mut out = hmac::sign(&hmac::Key::new(self.mac, key), &message).as_ref().to_vec();
        out.truncate(bits as usize / 8);
        out
    }

    /// OAEP with the label of a credential's seed (RFC 8017, section 7.1.1), as long as the modulus.
    fn oaep(&self, message: &[u8], mask: &[u8], modulus: usize) -> Vec<u8> {
        let mut out = vec![0; modulus];
        let (seed, data) = out[1..].split_at_mut(self.size());
        seed.copy_from_slice(mask);
        data[..self.size()].copy_from_slice(&self.digest(&[b"IDENTITY\0"]));
        let start = data.len() - message.len();
        data[start - 1] = 1;
        data[start..].copy_from_slice(message);
        self.mgf1(seed, data);
        self.mgf1(data, seed);
        out
    }

    /// Masks `out` with MGF1 of `seed`.
    fn mgf1(&self, seed: &[u8], out: &mut [u8]) {
        for (counter, chunk) in (0_u32..).zip(out.chunks_mut(self.size())) {
            let mask = self.digest(&[seed, &counter.to_be_bytes()]);
            chunk.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
        }
    }
}

impl EndorsementKey {
    /// From the SubjectPublicKeyInfo of its certificate.
    pub(crate) fn from_spki(der: &[u8]) -> Result<Self, Error> {
        let point = |head: &[u8], size: usize| der.strip_prefix(head).filter(|p| p.len() == size && p[0] == 4);
        let modulus = |head: &[u8], size: usize| {
            let modulus = der.strip_prefix(head).and_then(|rest| rest.strip_suffix(&RSA_END));
            modulus.filter(|m| m.len() == size && m[0] & 0x80 != 0)
        };
        let found = [
            (Kind::P256, point(&P256, 65)),
            (Kind::P384, point(&P384, 97)),
            (Kind::Rsa2048, modulus(&RSA_2048, 256)),
            (Kind::Rsa3072, modulus(&RSA_3072, 384)),
        ];
        let found = found.into_iter().find_map(|(kind, public)| Some((kind, public?.to_vec())));
        let (kind, public) = found.ok_or(Error::refused(
            "the endorsement key is neither P-256, P-384 nor RSA 2048 or 3072 with the exponent 65537",
        ))?;
        Ok(Self { kind, public })
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// A fresh seed, and what brings it to the TPM.
    fn seed(&self, suite: &Suite) -> Result<(Vec<u8>, Vec<u8>), Error> {
        match self.kind {
            Kind::P256 => ecdh(&ECDH_P256, suite, &self.public),
            Kind::P384 => ecdh(&ECDH_P384, suite, &self.public),
            Kind::Rsa2048 | Kind::Rsa3072 => {
                let (mut seed, mut mask) = (vec![0; suite.size()], vec![0; suite.size()]);
                random(&mut seed)?;
                random(&mut mask)?;
                let size = self.public.len();
                let number = BigUint::from_bytes_be(&suite.oaep(&seed, &mask, size));
                let bytes =
                    number.modpow(&BigUint::from(65537_u32), &BigUint::from_bytes_be(&self.public)).to_bytes_be();
                let mut out = vec![0; size - bytes.len().min(size)];
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

/// Wraps `value` for the TPM with `ek` that holds `ak`.
pub(crate) fn make(ek: &EndorsementKey, ak: &AttestationKey, value: &[u8; VALUE]) -> Result<Credential, Error> {
    let suite = Suite::of(ek.kind);
    let (seed, secret) = ek.seed(&suite)?;
    let name = ak.name();
    let mut plain = Writer::default();
    plain.sized(value);
    let mut identity = plain.0;
    cfb(&suite.kdf_a(&seed, b"STORAGE\0", &name, suite.cipher), &mut identity)?;
    let bits = u32::try_from(suite.size() * 8).unwrap_or_default();
    let integrity = hmac::Key::new(suite.mac, &suite.kdf_a(&seed, b"INTEGRITY\0", &[], bits));
    let mut blob = Writer::default();
    blob.sized(hmac::sign(&integrity, &[&identity[..], &name].concat()).as_ref());
    blob.put(&identity);
    Ok(Credential { blob: blob.0, secret })
}

fn random(out: &mut [u8]) -> Result<(), Error> {
    SystemRandom::new().fill(out).map_err(|_| Error::io("a random seed", "the kernel gave none"))
}

fn ecdh(curve: &'static Algorithm, suite: &Suite, point: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Error> {
    let failed = |_| Error::refused("the endorsement key is no point of its curve");
    let ours = EphemeralPrivateKey::generate(curve, &SystemRandom::new()).map_err(failed)?;
    let public = ours.compute_public_key().map_err(failed)?;
    let half = point.len() / 2;
    let (x, y) = match public.as_ref() {
        [4, rest @ ..] if rest.len() == 2 * half => rest.split_at(half),
        _ => return Err(Error::refused("an odd ephemeral key")),
    };
    let seed = agree_ephemeral(ours, &UnparsedPublicKey::new(curve, point), |z| {
        // KDFe (part 1, section 11.4.10.3), one round.
        suite.digest(&[&1_u32.to_be_bytes(), z, b"IDENTITY\0", x, &point[1..=half]])
    })
    .map_err(failed)?;
    let mut out = Writer::default();
    out.sized(x);
    out.sized(y);
    Ok((seed, out.0))
}

/// AES-128 or AES-256 in CFB mode with a zero vector: the key is used once.
fn cfb(key: &[u8], data: &mut [u8]) -> Result<(), Error> {
    let odd = |_| Error::refused("a cipher key of an odd size");
    if key.len() == 16 {
        chain(&Aes128::new_from_slice(key).map_err(odd)?, data);
    } else {
        chain(&Aes256::new_from_slice(key).map_err(odd)?, data);
    }
    Ok(())
}

fn chain(cipher: &impl BlockCipherEncrypt<BlockSize = U16>, data: &mut [u8]) {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 197, appendix C.1: in CFB mode the first block is the cipher of the vector, here zero.
    #[test]
    fn cfb_chains_blocks() {
        let key: [u8; 16] = std::array::from_fn(|n| n as u8);
        let mut once = [0; 16];
        cfb(&key, &mut once).unwrap();
        let mut data = [0; 40];
        cfb(&key, &mut data).unwrap();
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
        for kind in [Kind::Rsa2048, Kind::Rsa3072] {
            let suite = Suite::of(kind);
            let mut padded = suite.oaep(&vec![7; suite.size()], &vec![9; suite.size()], 384);
            let (seed, data) = padded[1..].split_at_mut(suite.size());
            suite.mgf1(data, seed);
            suite.mgf1(seed, data);
            assert_eq!(
                (seed.to_vec(), &data[data.len() - suite.size()..]),
                (vec![9; suite.size()], &vec![7; suite.size()][..])
            );
            assert_eq!(padded[0], 0);
        }
    }

    #[test]
    fn four_kinds_of_key_and_no_other() {
        let rsa = |head: &[u8], size: usize| [head, &vec![0x80; size][..], &RSA_END].concat();
        let ec = |head: &[u8], size: usize| [head, &vec![4; size][..]].concat();
        let good = [
            (Kind::Rsa2048, rsa(&RSA_2048, 256)),
            (Kind::Rsa3072, rsa(&RSA_3072, 384)),
            (Kind::P256, ec(&P256, 65)),
            (Kind::P384, ec(&P384, 97)),
        ];
        for (kind, spki) in &good {
            assert_eq!(EndorsementKey::from_spki(spki).unwrap().kind(), *kind);
            assert!(EndorsementKey::from_spki(&spki[1..]).is_err());
            assert!(EndorsementKey::from_spki(&spki[..spki.len() - 1]).is_err());
        }
        let weak = [&RSA_2048[..], &[0x80; 256], &[2, 3, 1, 0, 3]].concat();
        for bad in [&weak[..], &rsa(&RSA_2048, 384), &rsa(&RSA_3072, 256), &ec(&P384, 65), &ec(&P256, 97), &[]] {
            assert!(EndorsementKey::from_spki(bad).is_err());
        }
        for (kind, spki) in good.into_iter().skip(2) {
            let no_point = EndorsementKey::from_spki(&spki).unwrap();
            assert!(make(&no_point, &crate::key::from_point([4; 65]), &[1; 32]).is_err(), "{kind:?}");
        }
    }
}
