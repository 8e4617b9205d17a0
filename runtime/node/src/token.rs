//! A verifier's token (EAR): where it lies, what binds it to this boot and key, and whether it holds.
use crate::folder::Folder;
use crate::key::AttestationKey;
use crate::{Boot, Error, hex};
use boltseal_trust::ear::{Accepted, Expected, accept};
use boltseal_trust::jws::Jwks;
use ring::digest::{Context, SHA256};
use std::path::Path;

const DOMAIN: &[u8] = b"boltseal ear v1";

/// The enrolled key in the forms that a token may name it by, and the nonce that a verifier has to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// DER SubjectPublicKeyInfo.
    pub ak_der: Vec<u8>,
    /// The TPM's name of it, hex.
    pub ak_name: String,
    /// SHA-256 over the boot id and that name: another boot, or another key, is another nonce.
    pub nonce: [u8; 32],
}

/// # Errors
/// A key that is none, a boot id that is none.
pub fn binding(ak_spki_pem: &str, boot: &Boot) -> Result<Binding, Error> {
    boot.valid()?;
    let key = AttestationKey::from_pem(ak_spki_pem)?;
    let mut hash = Context::new(&SHA256);
    hash.update(DOMAIN);
    hash.update(boot.boot_id.as_bytes());
    hash.update(&key.name());
    let mut nonce = [0; 32];
    nonce.copy_from_slice(hash.finish().as_ref());
    Ok(Binding { ak_der: key.to_der(), ak_name: hex::encode(&key.name()), nonce })
}

/// `[node.ear]`.
#[derive(Debug, Clone, Copy)]
pub struct TokenPolicy<'a> {
    /// The verifier's keys, a JWKS.
    pub jwks: &'a [u8],
    pub issuer: &'a str,
    pub audience: &'a str,
    pub ak_claim: &'a str,
    pub nonce_claim: &'a str,
}

/// Verifies `node.jwt` in `dir` for this boot and key. `now` is in seconds since the epoch, from a clock that did not go back.
///
/// # Errors
/// No token, one that somebody else may have put there, or the first thing of it that does not hold.
pub fn check_token(
    dir: &Path,
    policy: &TokenPolicy<'_>,
    ak_spki_pem: &str,
    boot: &Boot,
    now: u64,
) -> Result<Accepted, Error> {
    let binding = binding(ak_spki_pem, boot)?;
    let keys = Jwks::parse(policy.jwks).map_err(|e| Error::refused(format!("node.ear.jwks: {e}")))?;
    let token = token(dir)?.ok_or_else(|| {
        let path = dir.join("node.jwt");
        Error::refused(format!(
            "there is no verifier's token at {}. Fix: let the verifier's agent put it there",
            path.display()
        ))
    })?;
    let expected = Expected {
        issuer: policy.issuer,
        audience: policy.audience,
        ak_claim: policy.ak_claim,
        nonce_claim: policy.nonce_claim,
        ak_der: &binding.ak_der,
        ak_name: &binding.ak_name,
        nonce: &binding.nonce,
        now,
    };
    accept(&token, &keys, &expected).map_err(|e| Error::refused(format!("the verifier's token: {e}")))
}

/// `node.jwt` in `dir` (`/run/boltseal`): root's own, writable by nobody else, at most 64 KiB. None: there is none.
///
/// # Errors
/// A file that something else than root may have put there.
fn token(dir: &Path) -> Result<Option<Vec<u8>>, Error> {
    Folder::open(dir)?.token()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quote::tests::software_key;

    #[test]
    fn the_nonce_is_of_one_boot_and_one_key() {
        let boot = |id: &str| Boot { boot_id: id.into(), boottime_ns: 1 };
        let (one, other) = (software_key().1, software_key().1);
        let (a, b) = ("0f5dbb6c-31f6-4c0e-8b6a-5f6f0a7d9b11", "1f5dbb6c-31f6-4c0e-8b6a-5f6f0a7d9b11");
        let of = |key: &AttestationKey, id: &str| binding(&key.to_pem(), &boot(id)).unwrap().nonce;
        assert_eq!(of(&one, a), of(&one, a));
        assert_ne!(of(&one, a), of(&one, b));
        assert_ne!(of(&one, a), of(&other, a));
        assert!(binding(&one.to_pem(), &boot("")).is_err());
        assert!(binding("none", &boot(a)).is_err());
        assert_eq!(binding(&one.to_pem(), &boot(a)).unwrap().ak_der.len(), 91);
    }
}
