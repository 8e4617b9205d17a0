//! BS-NOD-004's fact: whether the policy bundle is signed by the key that this node pins.
use crate::policy_files::{self, PolicyBundle};
use boltseal_message::FileStamp;
use boltseal_policy::Fact;
use boltseal_policy::facts::Bundle;
use boltseal_trust::Key;
use boltseal_trust::bundle::Signed;
use std::path::Path;

/// The fact, and the stamp of the pinned key's file: who takes the key away between create and start is noticed, too.
/// `dir` is where the key is pinned (`/var/lib/boltseal`).
///
/// # Errors
/// A pinned key that others may write, or that is none: file and reason.
pub fn fact(dir: &Path, bundle: &PolicyBundle) -> Result<(Bundle, Option<FileStamp>), String> {
    let Some((key, stamp)) = pinned_key(dir)? else {
        return Ok((Bundle { digest: bundle.digest.clone(), signer: Fact::Absent, signed: Fact::Absent }, None));
    };
    Ok((signed_by(&key, bundle), Some(stamp)))
}

/// The key that this node pins, and the stamp of its file.
///
/// # Errors
/// As [`fact`].
pub fn pinned_key(dir: &Path) -> Result<Option<(Key, FileStamp)>, String> {
    let Some((pem, stamp)) = policy_files::pinned(dir).map_err(|e| e.to_string())? else { return Ok(None) };
    let shown = dir.join(policy_files::SIGNER);
    let pem = std::str::from_utf8(&pem).map_err(|e| format!("{}: {e}", shown.display()))?;
    let key = Key::from_spki_pem(pem).map_err(|e| format!("{}: {}", shown.display(), e.0))?;
    Ok(Some((key, stamp)))
}

/// What the bundle's signature is worth to who trusts `key`.
#[must_use]
pub fn signed_by(key: &Key, bundle: &PolicyBundle) -> Bundle {
    let signed = match &bundle.signature {
        None => Fact::Absent,
        Some(bytes) => match Signed::read(bytes).and_then(|signed| signed.verify(&bundle.digest, key)) {
            Ok(version) => Fact::Is(version),
            Err(why) => Fact::Unknown(why.to_string()),
        },
    };
    Bundle { digest: bundle.digest.clone(), signer: Fact::Is(key.id().into()), signed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
    use std::fs;

    fn pair() -> (EcdsaKeyPair, Key) {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let key = Key::from_point(pair.public_key().as_ref()).unwrap();
        (pair, key)
    }

    #[test]
    fn from_no_pin_to_a_signed_bundle() {
        let (pair, key) = pair();
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("etc")).unwrap();
        fs::create_dir(at("lib")).unwrap();
        fs::write(at("etc/policy.toml"), "version = 1\n").unwrap();
        let look = || {
            let bundle = policy_files::load(&at("etc")).unwrap();
            (fact(&at("lib"), &bundle), bundle.digest)
        };
        // Nothing pinned: nothing said about a signature, and no stamp.
        let (found, digest) = look();
        let (found, stamp) = found.unwrap();
        assert_eq!((found.signer, found.signed, found.digest, stamp), (Fact::Absent, Fact::Absent, digest, None));
        // Pinned and not signed.
        fs::write(at("lib/signer.pub"), key.pem()).unwrap();
        let (found, digest) = look();
        let (found, stamp) = found.unwrap();
        assert_eq!((found.signer, found.signed), (Fact::Is(key.id().to_owned()), Fact::Absent));
        assert!(stamp.unwrap().path.ends_with("lib/signer.pub"));
        // Signed.
        let statement = boltseal_trust::bundle::statement(3, &digest, key.id());
        let signature = pair.sign(&SystemRandom::new(), statement.as_bytes()).unwrap();
        let text = boltseal_trust::bundle::file(3, &digest, key.id(), signature.as_ref());
        fs::write(at("etc/bundle.sig"), text).unwrap();
        assert_eq!(look().0.unwrap().0.signed, Fact::Is(3));
        // One byte more.
        fs::write(at("etc/policy.toml"), "version = 1\n\n").unwrap();
        assert!(matches!(look().0.unwrap().0.signed, Fact::Unknown(why) if why.contains("other files")));
        // A pin that is no key is an error, not no pin.
        fs::write(at("lib/signer.pub"), "key").unwrap();
        assert!(look().0.unwrap_err().contains("signer.pub"));
    }
}
