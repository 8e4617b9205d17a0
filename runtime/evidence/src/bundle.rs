//! BS-NOD-004's fact: whether the policy bundle is signed by the key that this node pins, and not an older one.
use crate::policy_files::{self, PolicyBundle, PolicyError};
use boltseal_message::FileStamp;
use boltseal_policy::Fact;
use boltseal_policy::facts::Bundle;
use boltseal_trust::bundle::Signed;
use boltseal_trust::{Key, Pin};
use std::path::Path;

/// Where `boltseal policy apply` keeps a copy of the bundle that it put in force, below `/var/lib/boltseal`.
pub const LAST_GOOD: &str = "policy";

/// Whom this node takes policies from, and the stamp of the file that says so: who changes it between create and start
/// is noticed. `dir` is `/var/lib/boltseal`. None: from whoever is root.
///
/// # Errors
/// A file that others may write, or that `boltseal policy trust` did not write: file and reason.
pub fn pinned(dir: &Path) -> Result<Option<(Pin, FileStamp)>, String> {
    let Some((bytes, stamp)) = policy_files::pinned(dir).map_err(|e| e.to_string())? else { return Ok(None) };
    let pin = Pin::read(&bytes).ok_or_else(|| {
        let problem = PolicyError::new(
            &dir.join(policy_files::SIGNER),
            "is not what `boltseal policy trust` writes",
            "boltseal policy trust KEY.pub --replace",
        );
        problem.to_string()
    })?;
    Ok(Some((pin, stamp)))
}

/// The fact for a bundle. `floor` is the lowest version that the node still takes; Absent where nothing keeps one.
#[must_use]
pub fn fact(pin: Option<&Pin>, floor: Fact<u64>, bundle: &PolicyBundle) -> Bundle {
    let (signer, signed) = match pin {
        None => (Fact::Absent, Fact::Absent),
        Some(pin) => (Fact::Is(pin.key.id().into()), signed(&pin.key, bundle)),
    };
    Bundle { digest: bundle.digest.clone(), signer, signed, floor, stale: None, measured: Fact::Absent }
}

/// Why a bundle does not judge where a key is pinned: it is not its authors', or an older one of theirs. None: it does.
#[must_use]
pub fn unsound(fact: &Bundle) -> Option<String> {
    match (&fact.signed, &fact.floor) {
        (Fact::Is(version), Fact::Is(floor)) if version < floor => {
            Some(format!("version {version} is below the floor, {floor}"))
        }
        (Fact::Is(_), _) => None,
        (Fact::Absent, _) => Some("it has no bundle.sig".into()),
        (Fact::Unknown(why), _) => Some(why.clone()),
    }
}

/// Which bundle judges where a key is pinned: `first`, what lies in `/etc/boltseal`; or, where that does not load or is not
/// sound, the `last` good one, if that is, its fact marked as stale. A half-copied policy then stops nothing. What does
/// not help is `first`, judged as it is.
///
/// # Errors
/// Why `first` does not load, when the last good one does not judge either.
pub fn in_force<T>(
    first: Result<T, String>,
    last: impl FnOnce() -> Result<T, String>,
    fact: impl Fn(&mut T) -> &mut Bundle,
) -> Result<T, String> {
    let (first, why) = match first {
        Err(why) => (Err(why.clone()), why),
        Ok(mut found) => match unsound(fact(&mut found)) {
            None => return Ok(found),
            Some(why) => (Ok(found), why),
        },
    };
    let Ok(mut last) = last() else { return first };
    if unsound(fact(&mut last)).is_some() {
        return first;
    }
    fact(&mut last).stale = Some(why);
    Ok(last)
}

/// The version that `key` signed these files as.
#[must_use]
pub fn signed(key: &Key, bundle: &PolicyBundle) -> Fact<u64> {
    match &bundle.signature {
        None => Fact::Absent,
        Some(bytes) => match Signed::read(bytes).and_then(|signed| signed.verify(&bundle.digest, key)) {
            Ok(version) => Fact::Is(version),
            Err(why) => Fact::Unknown(why.to_string()),
        },
    }
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
    fn the_last_good_bundle_judges_only_where_it_is_sound_and_the_first_is_not() {
        let bundle = |name: &str, signed: Fact<u64>| {
            Ok::<_, String>(Bundle { digest: name.into(), signed, floor: Fact::Is(5), ..Bundle::default() })
        };
        let choose = |first: Result<Bundle, String>, last: Result<Bundle, String>| {
            in_force(first, || last, |bundle| bundle).map(|found| (found.digest, found.stale.is_some()))
        };
        let sound = |name| bundle(name, Fact::Is(5));
        let (older, unsigned, forged) = (Fact::Is(4), Fact::Absent, Fact::Unknown("forged".into()));
        assert_eq!(choose(sound("first"), sound("last")), Ok(("first".into(), false)));
        assert_eq!(choose(Err("broken".into()), sound("last")), Ok(("last".into(), true)));
        assert_eq!(choose(Err("broken".into()), Err("none".into())), Err("broken".into()));
        for bad in [older, unsigned, forged] {
            assert_eq!(choose(bundle("first", bad.clone()), sound("last")), Ok(("last".into(), true)));
            assert_eq!(choose(bundle("first", bad.clone()), bundle("last", bad.clone())), Ok(("first".into(), false)));
            assert_eq!(choose(Err("broken".into()), bundle("last", bad.clone())), Err("broken".into()));
            assert_eq!(choose(bundle("first", bad), Err("none".into())), Ok(("first".into(), false)));
        }
        // A floor that is not known speaks for neither.
        let mut unknown = sound("first");
        if let Ok(bundle) = &mut unknown {
            bundle.floor = Fact::Unknown("no TPM".into());
        }
        assert_eq!(choose(unknown, sound("last")), Ok(("first".into(), false)));
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
            let (pin, stamp) = pinned(&at("lib")).unwrap().unzip();
            (fact(pin.as_ref(), Fact::Absent, &policy_files::load(&at("etc")).unwrap()), stamp)
        };
        // Nothing pinned: nothing said about a signature, and no stamp.
        let (found, stamp) = look();
        assert_eq!((found.signer, found.signed, stamp), (Fact::Absent, Fact::Absent, None));
        // Pinned and not signed.
        let pin = Pin { key: key.clone(), floor: None };
        fs::write(at("lib/signer"), pin.text()).unwrap();
        let (found, stamp) = look();
        assert_eq!((found.signer, found.signed), (Fact::Is(key.id().to_owned()), Fact::Absent));
        assert!(stamp.unwrap().path.ends_with("lib/signer"));
        // Signed.
        let statement = boltseal_trust::bundle::statement(3, &found.digest, key.id());
        let signature = pair.sign(&SystemRandom::new(), statement.as_bytes()).unwrap();
        let text = boltseal_trust::bundle::file(3, &found.digest, key.id(), signature.as_ref());
        fs::write(at("etc/bundle.sig"), text).unwrap();
        assert_eq!(look().0.signed, Fact::Is(3));
        // One byte more.
        fs::write(at("etc/policy.toml"), "version = 1\n\n").unwrap();
        assert!(matches!(look().0.signed, Fact::Unknown(why) if why.contains("other files")));
        // A pin that is none is an error, not no pin.
        fs::write(at("lib/signer"), key.pem()).unwrap();
        assert!(pinned(&at("lib")).unwrap_err().contains("lib/signer is not what"));
    }
}
