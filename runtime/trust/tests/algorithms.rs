//! The algorithm of a signature is its key's: what cosign and openssl make with a key of each kind verifies under that
//! key, and the same key's signature by any other algorithm does not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs,
    reason = "tests"
)]
mod openssl;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use boltseal_trust::{
    Claim, Digest, Key, Proposal, Reject, SignatureProposal, Source, digest, propose, verify_signature,
};
use openssl::Folder;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use std::path::Path;

const NAMES: [&str; 5] = ["p384", "rsa2048", "rsa3072", "rsa4096", "ed25519"];

fn file(path: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path)).unwrap()
}

fn key_of(pem: &[u8]) -> Key {
    Key::from_spki_pem(std::str::from_utf8(pem).unwrap()).unwrap()
}

fn image() -> Digest {
    digest(&file("algorithms/image.json"))
}

fn proposal(source: Source, bytes: &[u8]) -> SignatureProposal {
    let Proposal::Signature(proposal) = propose(source, bytes).unwrap() else { panic!() };
    // As it comes out of a worker.
    let encoded = Proposal::Signature(proposal.clone()).encode();
    assert_eq!(Proposal::decode(&encoded).unwrap(), Proposal::Signature(proposal.clone()));
    proposal
}

fn real(name: &str) -> [(String, SignatureProposal); 2] {
    [("sig", Source::CosignSignature), ("bundle", Source::SigstoreBundle)].map(|(end, source)| {
        let path = format!("algorithms/{name}.{end}.json");
        let proposal = proposal(source, &file(&path));
        (path, proposal)
    })
}

fn verified(proposal: &SignatureProposal, key: &Key) -> bool {
    match verify_signature(proposal, key, &image()) {
        Ok(Claim { digest, .. }) => digest == image(),
        Err(Reject::Signature { key: named }) if named == key.id() => false,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn what_cosign_signs_verifies_under_its_own_key_alone() {
    let mut keys: Vec<_> = NAMES.map(|name| (name, key_of(&file(&format!("algorithms/{name}.pub"))))).into();
    keys.push(("p256", key_of(&file("keys/signer.pub"))));
    for signer in NAMES {
        for (path, signature) in real(signer) {
            for (name, key) in &keys {
                // cosign 3 hashes before it signs with Ed25519: no verifier takes that for Ed25519, its own neither.
                let good = *name == signer && !path.ends_with("ed25519.bundle.json");
                assert_eq!(verified(&signature, key), good, "{path} under {name}");
            }
        }
    }
}

#[test]
fn no_byte_of_text_or_signature_can_change() {
    for name in ["p384", "rsa2048", "ed25519"] {
        let key = key_of(&file(&format!("algorithms/{name}.pub")));
        let [(_, good), _] = real(name);
        let SignatureProposal::Cosign { payload, signature, .. } = &good else { panic!() };
        for at in 0..payload.len() + signature.len() {
            let mut bad = good.clone();
            let SignatureProposal::Cosign { payload, signature, .. } = &mut bad else { panic!() };
            match payload.len() {
                len if at < len => payload[at] ^= 1,
                len => signature[at - len] ^= 1,
            }
            assert!(!verified(&bad, &key), "{name} {at}");
        }
        let SignatureProposal::Cosign { signature, .. } = &good else { panic!() };
        for other in [vec![], [signature.as_slice(), &[0]].concat(), [&[0], signature.as_slice()].concat()] {
            assert!(!verified(&with(&good, other), &key), "{name}");
        }
    }
}

fn with(proposal: &SignatureProposal, made: Vec<u8>) -> SignatureProposal {
    let mut proposal = proposal.clone();
    let (SignatureProposal::Cosign { signature, .. } | SignatureProposal::Bundle { signature, .. }) = &mut proposal
    else {
        panic!()
    };
    *signature = made;
    proposal
}

/// The bytes that are signed of a proposal.
fn message(proposal: &SignatureProposal) -> Vec<u8> {
    match proposal {
        SignatureProposal::Cosign { payload, .. } => payload.clone(),
        SignatureProposal::Bundle { payload_type, payload, .. } => {
            let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
            [head.as_bytes(), payload].concat()
        }
        SignatureProposal::Notation(_) | SignatureProposal::Certified { .. } => panic!("not of a key"),
    }
}

/// Signatures by openssl, over both texts, in every way that it can: one of them is right.
#[test]
fn truth_table_of_algorithms() {
    const DGST: &str = "openssl dgst -sign k.pem -out s";
    const PSS: &str = "-sigopt rsa_padding_mode:pss";
    const HMAC: &str = "openssl dgst -sha256 -mac HMAC -binary -out s";
    let folder = Folder::new("algorithms");
    let [(_, payload), (_, envelope)] = real("p384");
    folder.write("payload", &message(&payload));
    folder.write("envelope", &message(&envelope));
    for (kind, ways, good) in [
        ("EC -pkeyopt ec_paramgen_curve:P-256", vec!["-sha256", "-sha384", "-sha512", "-sha224"], ["-sha256"; 2]),
        (
            "EC -pkeyopt ec_paramgen_curve:P-384",
            vec!["-sha256", "-sha384", "-sha512", "-sha224"],
            ["-sha256", "-sha384"],
        ),
        ("RSA -pkeyopt rsa_keygen_bits:2048", vec!["-sha256", "-sha384", "-sha512", "-sha1"], ["-sha256"; 2]),
    ] {
        folder.run(&format!("openssl genpkey -quiet -algorithm {kind} -out k.pem; openssl pkey -in k.pem -pubout -out k.pub; openssl pkey -in k.pem -pubout -outform DER -out k.der"));
        let key = key_of(&folder.read("k.pub"));
        for (text, proposal, good) in [("payload", &payload, good[0]), ("envelope", &envelope, good[1])] {
            for way in &ways {
                folder.run(&format!("{DGST} {way} {text}"));
                assert_eq!(verified(&with(proposal, folder.read("s")), &key), *way == good, "{kind} {way} {text}");
                if kind.starts_with("RSA") {
                    folder.run(&format!("{DGST} {way} {PSS} {text}"));
                    assert!(!verified(&with(proposal, folder.read("s")), &key), "PSS {way} {text}");
                }
            }
            // The public key as the secret of an HMAC.
            for secret in ["k.pub", "k.der"] {
                folder.run(&format!("{HMAC} -macopt hexkey:$(od -An -vtx1 {secret} | tr -d ' \\n') {text}"));
                assert!(!verified(&with(proposal, folder.read("s")), &key), "{kind} {secret} {text}");
            }
        }
        // The right way over the other text.
        folder.run(&format!("{DGST} {} envelope", good[1]));
        assert!(!verified(&with(&payload, folder.read("s")), &key), "{kind}");
    }
    folder.run("openssl genpkey -quiet -algorithm ED25519 -out k.pem; openssl pkey -in k.pem -pubout -out k.pub");
    let key = key_of(&folder.read("k.pub"));
    for (text, proposal) in [("payload", &payload), ("envelope", &envelope)] {
        let sign = |file: &str| {
            folder.run(&format!("openssl pkeyutl -sign -inkey k.pem -rawin -in {file} -out s"));
            with(proposal, folder.read("s"))
        };
        assert!(verified(&sign(text), &key), "{text}");
        folder.run(&format!("openssl dgst -sha512 -binary -out hashed {text}"));
        assert!(!verified(&sign("hashed"), &key), "{text}");
    }
}

/// RSA with a modulus too small to trust: the signature is right, the key is refused.
#[test]
fn a_weak_rsa_key_verifies_nothing() {
    let folder = Folder::new("weak");
    let [(_, payload), _] = real("rsa2048");
    folder.write("payload", &message(&payload));
    for (bits, usable) in [(1024, false), (2048, true)] {
        folder.run(&format!("openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:{bits} -out k.pem; openssl pkey -in k.pem -pubout -out k.pub; openssl dgst -sha256 -sign k.pem -out s payload; openssl dgst -sha256 -verify k.pub -signature s payload"));
        let key = Key::from_spki_pem(std::str::from_utf8(&folder.read("k.pub")).unwrap());
        match key {
            Ok(key) => assert!(usable && verified(&with(&payload, folder.read("s")), &key)),
            Err(error) => assert!(!usable && error.0.contains("fewer than 2048"), "{error}"),
        }
    }
}

const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

fn ed25519_key(point: &[u8; 32]) -> Result<Key, &'static str> {
    let der = [&[0x30, 42, 0x30, 5, 0x06, 3, 0x2b, 0x65, 0x70, 3, 33, 0], point.as_slice()].concat();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der));
    Key::from_spki_pem(&pem).map_err(|e| e.0)
}

#[test]
fn ed25519_has_one_signature_per_text() {
    let [(_, payload), _] = real("ed25519");
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let key = ed25519_key(pair.public_key().as_ref().try_into().unwrap()).unwrap();
    let good = pair.sign(&message(&payload)).as_ref().to_vec();
    assert!(verified(&with(&payload, good.clone()), &key));
    // S + L: the same number to a verifier that does not look whether S is below the order of the group.
    let mut other = good.clone();
    let mut carry = 0u16;
    for (digit, order) in other[32..].iter_mut().zip(ORDER) {
        carry += u16::from(*digit) + u16::from(order);
        *digit = carry.to_le_bytes()[0];
        carry >>= 8;
    }
    assert_eq!((carry, other == good), (0, false));
    assert!(!verified(&with(&payload, other), &key));
}

/// With the neutral point as key, R = [S]B is a signature over every text: no library refuses it, so the key is refused.
#[test]
fn an_ed25519_key_for_which_anybody_signs_is_no_key() {
    let [(_, payload), _] = real("ed25519");
    let neutral = {
        let mut point = [0; 32];
        point[0] = 1;
        point
    };
    let forged = [neutral.as_slice(), &[0; 32]].concat();
    let ring = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, neutral);
    assert!(ring.verify(&message(&payload), &forged).is_ok(), "the forgery is no forgery");
    let point = |first: u8, middle: u8, last: u8| {
        let mut p = [middle; 32];
        (p[0], p[31]) = (first, last);
        p
    };
    for (first, middle, last) in [(0, 0, 0), (1, 0, 0), (0xec, 0xff, 0x7f), (0xed, 0xff, 0x7f), (0xee, 0xff, 0x7f)] {
        for sign in [0, 0x80] {
            assert!(ed25519_key(&point(first, middle, last | sign)).unwrap_err().contains("small order"), "{first:x}");
        }
    }
    assert!(ed25519_key(&point(2, 0, 0)).is_ok());
}
