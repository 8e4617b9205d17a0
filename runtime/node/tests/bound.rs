//! The bound key signs in the approved state, and in no other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod common;

use boltseal_node::bound::{Approved, authority_name, key, sign, state};
use common::{Swtpm, measure, soon};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use std::collections::BTreeMap;

const MESSAGE: &[u8] = b"head of the trail";

struct Authority(EcdsaKeyPair);

impl Authority {
    fn new() -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap())
    }

    fn pem(&self) -> String {
        pem(self.0.public_key().as_ref())
    }

    fn approve(&self, pcrs: &BTreeMap<u32, [u8; 32]>) -> Approved {
        let signature = self.0.sign(&SystemRandom::new(), &state(pcrs).unwrap()).unwrap();
        Approved { pcrs: pcrs.clone(), signature: signature.as_ref().try_into().unwrap() }
    }
}

fn pem(point: &[u8]) -> String {
    boltseal_node::key::AttestationKey::from_point(point).unwrap().to_pem()
}

fn verifies(key: &str, signature: &[u8; 64]) -> bool {
    let key = boltseal_node::key::AttestationKey::from_pem(key).unwrap();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.point()).verify(MESSAGE, signature).is_ok()
}

#[test]
fn a_bad_boot_cannot_sign() {
    let mut swtpm = Swtpm::start();
    measure(&swtpm);
    let authority = Authority::new();
    let bound = key(&swtpm.address(), &authority.pem(), soon()).unwrap();
    let pcrs = swtpm.open().pcrs([4, 7, 9]).unwrap();
    let approved = authority.approve(&pcrs);
    let try_with =
        |swtpm: &Swtpm, approved: &Approved| sign(&swtpm.address(), &authority.pem(), approved, MESSAGE, soon());
    // More often than a TPM has room for sessions and keys.
    for _ in 0..5 {
        assert!(verifies(&bound, &try_with(&swtpm, &approved).unwrap()));
    }
    // Another PCR than the approved ones may move; one of them may not.
    swtpm.extend(10, 1);
    assert!(try_with(&swtpm, &approved).is_ok());
    swtpm.extend(9, 1);
    for _ in 0..5 {
        let error = try_with(&swtpm, &approved).unwrap_err().to_string();
        assert!(error.contains("not in the approved state"), "{error}");
    }
    // The next kernel: one more approval, the same key.
    let next = authority.approve(&swtpm.open().pcrs([4, 7, 9]).unwrap());
    assert!(verifies(&bound, &try_with(&swtpm, &next).unwrap()));
    swtpm = swtpm.reboot();
    assert!(try_with(&swtpm, &approved).is_err(), "nothing was measured yet");
    measure(&swtpm);
    assert!(verifies(&bound, &try_with(&swtpm, &approved).unwrap()));
    assert!(try_with(&swtpm, &next).is_err());
    assert_eq!(key(&swtpm.address(), &authority.pem(), soon()).unwrap(), bound);
}

#[test]
fn only_the_authority_approves() {
    let swtpm = Swtpm::start();
    measure(&swtpm);
    let (authority, stranger) = (Authority::new(), Authority::new());
    let pcrs = swtpm.open().pcrs([4, 7, 9]).unwrap();
    let forged = stranger.approve(&pcrs);
    let error = sign(&swtpm.address(), &authority.pem(), &forged, MESSAGE, soon()).unwrap_err().to_string();
    assert!(error.contains("not signed by the authority"), "{error}");
    // Values that were painted over.
    let mut painted = authority.approve(&pcrs);
    painted.pcrs.insert(9, [0; 32]);
    assert!(sign(&swtpm.address(), &authority.pem(), &painted, MESSAGE, soon()).is_err());
    // The stranger's own bound key is another key.
    let theirs = sign(&swtpm.address(), &stranger.pem(), &forged, MESSAGE, soon()).unwrap();
    assert!(!verifies(&key(&swtpm.address(), &authority.pem(), soon()).unwrap(), &theirs));
    assert!(verifies(&key(&swtpm.address(), &stranger.pem(), soon()).unwrap(), &theirs));
    assert_ne!(authority_name(&authority.pem()).unwrap(), authority_name(&stranger.pem()).unwrap());
    assert!(key(&swtpm.address(), "none", soon()).is_err());
    assert!(state(&BTreeMap::new()).is_err());
}
