//! `sigstore-verify`'s cryptography by `ring`. What `ring` has not got is refused by name: signatures over a digest alone (a
//! bundle of `cosign sign-blob`, which no image has), P-521, ML-DSA, Ed25519ph.
use boltseal_trust::Digest;
use boltseal_trust::keyless::verification;
use ring::digest::{Algorithm, Context, SHA256, SHA384, SHA512};
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
};
use sigstore_verify::crypto::{CryptoProvider, Error, HashContext, Result, SigningScheme, install_default_provider};
use sigstore_verify::types::HashAlgorithm;
use std::cell::Cell;
use std::sync::OnceLock;

/// A bundle asks for some ten verifications.
const MAX_KNOWN: usize = 32;

thread_local! {
    /// What need not be verified again: by who asks, or before in this answer. Nothing that must be dropped: the standard library
    /// would have the C library make a key for it, which blocks signals, for which the worker's filter kills.
    static KNOWN: Cell<([Digest; MAX_KNOWN], usize)> = const { Cell::new(([Digest([0; 32]); MAX_KNOWN], 0)) };
}

/// At the beginning of an answer: these, and nothing of another question's.
pub(crate) fn know(verified: &[Digest]) {
    KNOWN.set(([Digest([0; 32]); MAX_KNOWN], 0));
    verified.iter().copied().for_each(learn);
}

/// What finds no room is verified again.
fn learn(verified: Digest) {
    let (mut all, len) = KNOWN.get();
    if let Some(free) = all.get_mut(len) {
        *free = verified;
        KNOWN.set((all, len + 1));
    }
}

fn known(this: &Digest) -> bool {
    let (all, len) = KNOWN.get();
    all.iter().take(len).any(|known| known == this)
}

#[derive(Debug)]
struct Ring;

struct Hash(Context);

impl HashContext for Hash {
    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn finalize(self: Box<Self>) -> Vec<u8> {
        self.0.finish().as_ref().to_vec()
    }
}

impl CryptoProvider for Ring {
    fn hash(&self, algorithm: HashAlgorithm) -> Result<Box<dyn HashContext>> {
        let algorithm: &'static Algorithm = match algorithm {
            HashAlgorithm::Sha2256 => &SHA256,
            HashAlgorithm::Sha2384 => &SHA384,
            HashAlgorithm::Sha2512 => &SHA512,
            other => return Err(Error::UnsupportedAlgorithm(format!("ring does not compute {other}"))),
        };
        Ok(Box::new(Hash(Context::new(algorithm))))
    }

    fn verify_raw(&self, scheme: SigningScheme, key: &[u8], data: &[u8], signature: &[u8]) -> Result<()> {
        let algorithm = algorithm(scheme).ok_or_else(|| unsupported(scheme, ""))?;
        // A verification on P-384 takes a millisecond, and the library asks for some a second time.
        let this = verification(key, data, signature);
        if known(&this) {
            return Ok(());
        }
        UnparsedPublicKey::new(algorithm, key)
            .verify(data, signature)
            .map_err(|_| Error::Verification(format!("{} signature does not verify", scheme.name())))?;
        learn(this);
        Ok(())
    }

    fn verify_prehashed(&self, scheme: SigningScheme, _: &[u8], _: &[u8], _: &[u8]) -> Result<()> {
        Err(unsupported(scheme, " over a digest alone"))
    }
}

fn unsupported(scheme: SigningScheme, how: &str) -> Error {
    Error::UnsupportedAlgorithm(format!("ring does not verify {}{how}", scheme.name()))
}

fn algorithm(scheme: SigningScheme) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match scheme {
        SigningScheme::EcdsaP256Sha256 => &ECDSA_P256_SHA256_ASN1,
        SigningScheme::EcdsaP256Sha384 => &ECDSA_P256_SHA384_ASN1,
        SigningScheme::EcdsaP384Sha256 => &ECDSA_P384_SHA256_ASN1,
        SigningScheme::EcdsaP384Sha384 => &ECDSA_P384_SHA384_ASN1,
        SigningScheme::Ed25519 => &ED25519,
        SigningScheme::RsaPssSha256 => &RSA_PSS_2048_8192_SHA256,
        SigningScheme::RsaPssSha384 => &RSA_PSS_2048_8192_SHA384,
        SigningScheme::RsaPssSha512 => &RSA_PSS_2048_8192_SHA512,
        SigningScheme::RsaPkcs1Sha256 => &RSA_PKCS1_2048_8192_SHA256,
        SigningScheme::RsaPkcs1Sha384 => &RSA_PKCS1_2048_8192_SHA384,
        SigningScheme::RsaPkcs1Sha512 => &RSA_PKCS1_2048_8192_SHA512,
        _ => return None,
    })
}

/// Once in a process; a second time changes nothing.
pub(crate) fn install() -> std::result::Result<(), String> {
    static DONE: OnceLock<bool> = OnceLock::new();
    if *DONE.get_or_init(|| install_default_provider(&Ring).is_ok()) {
        return Ok(());
    }
    Err("another cryptographic provider is installed".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ring_has_not_got_is_refused_by_name() {
        let refused = |said: Result<()>| said.unwrap_err().to_string();
        assert!(refused(Ring.verify_raw(SigningScheme::MlDsa44, &[], &[], &[])).contains("does not verify ML_DSA_44"));
        let prehashed = Ring.verify_prehashed(SigningScheme::EcdsaP256Sha256, &[], &[0; 32], &[]);
        assert!(refused(prehashed).contains("over a digest alone"));
        assert!(Ring.hash(HashAlgorithm::Sha2256).is_ok());
    }

    /// Nobody made these signatures: that they count shows that nothing is verified twice, and for one question alone.
    #[test]
    fn what_is_known_is_not_verified_again() {
        let ask = |data: &[u8]| Ring.verify_raw(SigningScheme::EcdsaP384Sha384, b"key", data, b"signature");
        know(&[verification(b"key", b"data", b"signature")]);
        assert!(ask(b"data").is_ok());
        assert!(ask(b"other").is_err());
        // Lengths are part of it: the same bytes, cut elsewhere, are another verification.
        assert!(Ring.verify_raw(SigningScheme::EcdsaP384Sha384, b"keyd", b"ata", b"signature").is_err());
        (0..MAX_KNOWN + 2).for_each(|_| learn(verification(b"", b"", b"")));
        assert!(ask(b"data").is_ok() && ask(b"other").is_err());
        know(&[]);
        assert!(ask(b"data").is_err());
        assert!(ask(b"data").is_err(), "what failed is not known");
    }

    #[test]
    fn hashes_are_those_of_the_standard() {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        // FIPS 180-4, "abc".
        assert_eq!(hex(&Ring.sha256(b"abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(hex(&Ring.sha384(b"abc")).starts_with("cb00753f45a35e8bb5a03d699ac65007"));
        assert!(hex(&Ring.sha512(b"abc")).starts_with("ddaf35a193617abacc417349ae204131"));
    }
}
