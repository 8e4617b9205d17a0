//! Private keys of owners: PKCS #8 in PEM, of P-256, P-384 or Ed25519.
use crate::policy_sign::pkcs8;
use crate::screen::Failure;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING,
    ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
};
use std::path::Path;

/// A key with the one algorithm that is its own.
#[derive(Debug)]
pub(super) enum Private {
    /// The same key for both forms of a signature.
    Ec {
        alg: &'static str,
        fixed: Box<EcdsaKeyPair>,
        der: Box<EcdsaKeyPair>,
    },
    Ed(Ed25519KeyPair),
}

impl Private {
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let der = pkcs8(path)?;
        let random = SystemRandom::new();
        for (alg, fixed, asn1) in [
            ("ES256", &ECDSA_P256_SHA256_FIXED_SIGNING, &ECDSA_P256_SHA256_ASN1_SIGNING),
            ("ES384", &ECDSA_P384_SHA384_FIXED_SIGNING, &ECDSA_P384_SHA384_ASN1_SIGNING),
        ] {
            let read = |kind| EcdsaKeyPair::from_pkcs8(kind, &der, &random);
            if let (Ok(fixed), Ok(der)) = (read(fixed), read(asn1)) {
                return Ok(Self::Ec { alg, fixed: Box::new(fixed), der: Box::new(der) });
            }
        }
        // openssl writes the first version of PKCS #8, without the public half.
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map(Self::Ed).map_err(|_| {
            Failure::undecided(format!("{}: not a P-256, P-384 or Ed25519 key in PKCS #8", path.display()))
        })
    }

    /// `alg` of a token.
    pub(super) fn alg(&self) -> &'static str {
        match self {
            Self::Ec { alg, .. } => alg,
            Self::Ed(_) => "EdDSA",
        }
    }

    /// As a token has it.
    pub(super) fn sign_fixed(&self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        self.sign(message, true)
    }

    /// As an envelope has it.
    pub(super) fn sign_der(&self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        self.sign(message, false)
    }

    fn sign(&self, message: &[u8], is_fixed: bool) -> Result<Vec<u8>, Failure> {
        match self {
            Self::Ed(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Self::Ec { fixed, der, .. } => {
                let signed = if is_fixed { fixed } else { der }.sign(&SystemRandom::new(), message);
                signed.map(|s| s.as_ref().to_vec()).map_err(|_| Failure::undecided("the key cannot sign"))
            }
        }
    }
}
