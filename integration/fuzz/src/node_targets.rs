//! Targets of the node's part: event logs, workers' answers on them, tokens.
#![allow(clippy::panic, reason = "a target panics when its property does not hold")]
use crate::targets::outcome;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use boltseal_node::log::{Events, Known, LogRules, judge, propose, words};
use boltseal_node::parties::{self, Approval, Pending, Proof};
use boltseal_node::wire::{Command, Request, Writer};
use boltseal_trust::ear::{Expected, accept};
use boltseal_trust::jws::Jwks;
use boltseal_trust::pod_token;
use ring::signature::{Ed25519KeyPair, KeyPair};
use std::sync::LazyLock;

/// What firmware wrote: parsed, crossed, replayed and judged.
pub(crate) fn log(bytes: &[u8]) -> u64 {
    judged(bytes, &propose(bytes))
}

/// A worker's answer on a log that is there: whatever it says, spans stay inside and nothing is proven but digests.
pub(crate) fn log_answer(bytes: &[u8]) -> u64 {
    judged(&[0x5a; 4096], bytes)
}

fn judged(log: &[u8], answer: &[u8]) -> u64 {
    let events = match Events::decode(log, answer) {
        Ok(events) => events,
        Err(error) => return outcome(&error),
    };
    let quoted = events.replay();
    let path = Known(&events).boot_path();
    let mut off = quoted.clone();
    if let Some(value) = off.get_mut(&4) {
        value[0] ^= 1;
    }
    assert!(events.clone().prove(&off).is_err(), "a value that the log does not lead to was proven");
    let proven = events.prove(&quoted).unwrap_or_else(|e| panic!("its own replay does not prove it: {e}"));
    let rules = LogRules {
        images: vec![[0x44; 32]],
        certificates: vec![[1; 32]],
        secure_boot: true,
        files: vec![[0x99; 32]],
        command_line_has: vec!["ro".into()],
        command_line_never: vec!["init=".into()],
    };
    let problems = judge(&rules, &proven, b"root=/dev/vda1 ro\n");
    let clean = problems.iter().all(|line| !line.chars().any(char::is_control));
    assert!(clean, "{problems:?}");
    outcome(&(path, problems.first()))
}

/// A whole reply, to commands with no session, with a password, with a policy session, and with both.
pub(crate) fn answer(bytes: &[u8]) -> u64 {
    use Command::{ActivateCredential, CreatePrimary, Quote, Sign, StartAuthSession};
    let ask = |command, handles: &[u32]| Request::new(command, handles, Writer::default());
    let requests = [
        ask(StartAuthSession, &[1, 2]),
        ask(CreatePrimary, &[1]),
        ask(Quote, &[1]),
        ask(Sign, &[1]).with_policy(3),
        ask(ActivateCredential, &[1, 2]).with_policy(3),
        ask(ActivateCredential, &[1, 2]).with_two_passwords(),
    ];
    let answers: Vec<_> =
        requests.iter().map(|request| request.answer(bytes).map(|(_, left)| left.len() <= bytes.len())).collect();
    assert!(answers.iter().all(|answer| *answer != Ok(false)));
    // Without sessions and with them are never the same reply.
    assert!(!(answers[0].is_ok() && answers[2].is_ok()));
    outcome(&answers)
}

/// Words hold no space that was not quoted, and none is empty.
pub(crate) fn command_line(bytes: &[u8]) -> u64 {
    let Ok(text) = std::str::from_utf8(bytes) else { return 0 };
    let words = words(text);
    assert!(words.iter().all(|word| !word.is_empty() && !word.contains('"')));
    assert!(text.contains('"') || words.iter().all(|word| !word.contains(' ')));
    outcome(&"x".repeat(words.len().min(40)))
}

const KEYS: &str = include_str!("../../../runtime/trust/tests/fixtures/jws/rs256.jwks");
const TOKEN: &str = include_str!("../../../runtime/trust/tests/fixtures/jws/rs256.jwt");

/// The input as a token: only the one that was truly signed verifies, and it attests nothing.
pub(crate) fn token(bytes: &[u8]) -> u64 {
    let keys = Jwks::parse(KEYS.as_bytes()).unwrap_or_else(|e| panic!("{e}"));
    let verified = std::str::from_utf8(bytes).ok().map(|text| keys.verify(text));
    if let Some(Ok(_)) = &verified {
        assert_eq!(bytes, TOKEN.as_bytes(), "forged");
    }
    let expected = Expected {
        issuer: "https://verifier.test",
        audience: "node",
        ak_claim: "/ak",
        nonce_claim: "",
        ak_der: b"der",
        ak_name: "000b",
        nonce: &[7; 32],
        now: 1_800_000_000,
    };
    let accepted = accept(bytes, &keys, &expected);
    assert!(accepted.is_err());
    outcome(&(verified.map(|v| v.map(drop)), accepted.map(drop)))
}

/// The input as the claims of a token that the cluster did sign: what is accepted is what they say, read a second time.
pub(crate) fn pod_token(claims: &[u8]) -> u64 {
    static CLUSTER: LazyLock<(Ed25519KeyPair, Jwks)> = LazyLock::new(|| {
        let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap_or_else(|e| panic!("{e}"));
        let x = URL_SAFE_NO_PAD.encode(key.public_key().as_ref());
        let set = format!("{{\"keys\":[{{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"{x}\"}}]}}");
        let keys = Jwks::parse(set.as_bytes()).unwrap_or_else(|e| panic!("{e}"));
        (key, keys)
    });
    let (key, keys) = &*CLUSTER;
    let message = [br#"{"alg":"EdDSA"}"#, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(key.sign(message.as_bytes())));
    let expected = pod_token::Expected { issuer: "https://cluster.test", audience: "boltseal", now: 1_800_000_000 };
    let accepted = pod_token::accept(token.as_bytes(), keys, &expected);
    if let Ok(token) = &accepted {
        let said: serde_json::Value = serde_json::from_slice(claims).unwrap_or_else(|e| panic!("accepted: {e}"));
        let bound = &said["kubernetes.io"];
        let named = format!(
            "system:serviceaccount:{}:{}",
            bound["namespace"].as_str().unwrap_or_default(),
            bound["serviceaccount"]["name"].as_str().unwrap_or_default()
        );
        assert!(said["iss"] == expected.issuer && said["sub"] == named && token.subject == named, "{token:?}");
        assert!(said["exp"].as_u64().is_some_and(|exp| exp > expected.now), "{token:?}");
        assert_eq!(
            (bound["pod"]["uid"].as_str(), bound["node"]["name"].as_str()),
            (Some(&*token.pod_uid), token.node.as_deref())
        );
        assert!(
            said["aud"] == "boltseal" || said["aud"].as_array().is_some_and(|list| list.contains(&"boltseal".into()))
        );
    }
    outcome(&accepted.map(|token| token.node.is_some()))
}

/// The input as a set of keys: whichever it is, it says nothing of a token but by a true signature.
pub(crate) fn jwks(bytes: &[u8]) -> u64 {
    let keys = Jwks::parse(bytes);
    if let Ok(keys) = &keys
        && let Ok(verified) = keys.verify(TOKEN)
    {
        let n = KEYS.split("\"n\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or("none");
        let same = String::from_utf8_lossy(bytes).contains(n) || bytes.contains(&b'\\');
        assert!(same && verified.claims.get("aud").is_some(), "verified by another key");
    }
    outcome(&keys.map(drop))
}

/// Files of an enrolment: what is read can be written and read again.
pub(crate) fn enrolment(bytes: &[u8]) -> u64 {
    let request = parties::read::<parties::Request>(bytes).map(drop);
    let approval = parties::read::<Approval>(bytes).map(drop);
    let (pending, proof) = (parties::read::<Pending>(bytes), parties::read::<Proof>(bytes));
    if let (Ok(pending), Ok(proof)) = (&pending, &proof) {
        panic!("one file is two things: {pending:?} {proof:?}");
    }
    outcome(&(request, approval, pending.map(drop), proof.map(drop)))
}
