//! A verifier's token in place of the local policy, and beside it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod common;

use common::Node;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{SystemTime, UNIX_EPOCH};

fn pair() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap()
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn base64url(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        let digits = (0..=chunk.len()).map(|n| ALPHABET[(word >> (18 - 6 * n) & 63) as usize]);
        out.extend(digits.map(char::from));
    }
    out
}

/// DER SubjectPublicKeyInfo.
fn spki(key: &EcdsaKeyPair) -> Vec<u8> {
    let head = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
        0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ];
    [&head[..], key.public_key().as_ref()].concat()
}

struct Case {
    node: Node,
    verifier: EcdsaKeyPair,
    ak: EcdsaKeyPair,
    nonce: String,
}

impl Case {
    fn new(more: &str) -> Self {
        let (node, verifier, ak) = (Node::new(), pair(), pair());
        let point = verifier.public_key().as_ref();
        let (x, y) = (base64url(&point[1..33]), base64url(&point[33..]));
        node.write(
            "etc/boltseal/trust/ear.jwks",
            &json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": x, "y": y }] }).to_string(),
        );
        let text = base64url(&spki(&ak)).replace('-', "+").replace('_', "/");
        let padding = "=".repeat((4 - text.len() % 4) % 4);
        let (first, second) = text.split_at(64);
        node.write(
            "etc/boltseal/trust/ak.pem",
            &format!("-----BEGIN PUBLIC KEY-----\n{first}\n{second}{padding}\n-----END PUBLIC KEY-----\n"),
        );
        node.write(
            "etc/boltseal/policy.toml",
            &format!("version = 1\n[node]\nattestation_key = \"ak.pem\"\n{more}\n[node.ear]\njwks = \"ear.jwks\"\nissuer = \"v\"\naudience = \"n\"\nak_claim = \"/submods/tpm/ak\"\n"),
        );
        let (_, out, err) = node.run(&["-o", "json", "node", "status"]);
        let status: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
        let nonce = status["ear_nonce"].as_str().unwrap().to_owned();
        assert_eq!(nonce.len(), 64);
        Self { node, verifier, ak, nonce }
    }

    fn token(&self, change: impl Fn(&mut Value)) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({
            "iss": "v", "aud": "n", "iat": now, "exp": now + 300, "eat_nonce": self.nonce,
            "submods": { "tpm": { "ear.status": "affirming", "ak": base64url(&spki(&self.ak)) } },
        });
        change(&mut claims);
        let message = format!("{}.{}", base64url(br#"{"alg":"ES256"}"#), base64url(claims.to_string().as_bytes()));
        let signature = self.verifier.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}\n", base64url(signature.as_ref()))
    }

    fn put(&self, token: &str) {
        let path = self.node.path("run/boltseal/node.jwt");
        fs::write(&path, token).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn denied_by_policy(&self) {
        assert_eq!(self.node.run(&["node", "attest", "--wait", "0"]).0, 4);
    }

    #[track_caller]
    fn denied(&self, said: &str) {
        let (code, out, err) = self.node.run(&["node", "attest", "--wait", "0"]);
        assert!(code == 1 && out.contains(said), "wanted {said:?}: {code} {out}{err}");
    }
}

#[test]
fn a_token_attests_this_boot_and_key_alone() {
    let case = Case::new("");
    fs::write(
        case.node.path("etc/boltseal/policy.toml"),
        fs::read_to_string(case.node.path("etc/boltseal/policy.toml")).unwrap() + "instead = true\n",
    )
    .unwrap();
    case.denied("there is no verifier's token");
    case.put(&case.token(|_| {}));
    let (code, out, err) = case.node.run(&["node", "attest"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("attested for this boot by the verifier's token"), "{out}");
    for (change, said) in [
        ((|c| c["exp"] = 1_700_000_000.into()) as fn(&mut Value), "has expired"),
        (|c| c["aud"] = "m".into(), "another audience"),
        (|c| c["eat_nonce"] = "00".repeat(32).into(), "this boot's nonce"),
        (|c| c["submods"]["tpm"]["ak"] = "AAAA".into(), "enrolled attestation key"),
        (|c| c["submods"]["tpm"]["ear.status"] = "warning".into(), "does not affirm"),
    ] {
        case.put(&case.token(change));
        case.denied(said);
    }
    let stranger = Case { verifier: pair(), ..Case::new("") };
    case.put(&stranger.token(|c| c["eat_nonce"] = case.nonce.clone().into()));
    case.denied("none of the pinned keys");
    // Something that root did not put there.
    let path = case.node.path("run/boltseal/node.jwt");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o622)).unwrap();
    case.denied("writable by others");
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/etc/boltseal/policy.toml", &path).unwrap();
    case.denied("a symbolic link");
    fs::remove_file(&path).unwrap();
    case.put(&case.token(|_| {}));
    assert_eq!(case.node.run(&["node", "attest"]).0, 0, "twin");
}

#[test]
fn lint_looks_at_the_verifiers_keys() {
    let case = Case::new("");
    case.node.write("etc/boltseal/trust/ear.jwks", r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#);
    let (code, out, err) = case.node.run(&["policy", "lint"]);
    assert!(code == 4 && format!("{out}{err}").contains("symmetric"), "{out}{err}");
    fs::remove_file(case.node.path("etc/boltseal/trust/ear.jwks")).unwrap();
    let (code, out, err) = case.node.run(&["policy", "lint"]);
    assert!(code == 4 && format!("{out}{err}").contains("trust/ear.jwks is missing"), "{out}{err}");
    case.denied_by_policy();
}

#[test]
fn beside_a_local_policy_both_must_hold() {
    let pcrs = format!("tpm = \"unix:/run/none\"\n[node.pcrs]\n7 = [\"{}\"]", "ab".repeat(32));
    let case = Case::new(&pcrs);
    case.put(&case.token(|_| {}));
    case.denied("cannot be reached");
    let (_, out, _) = case.node.run(&["node", "attest", "--wait", "0"]);
    assert!(!out.contains("token"), "the token holds; the TPM does not: {out}");
    fs::remove_file(case.node.path("run/boltseal/node.jwt")).unwrap();
    case.denied("there is no verifier's token");
}
