//! A statement that GitHub's runners signed under Sigstore's public root, with Rekor of version 1, one that a person signed under the
//! staging root, with version 2, and everything that may be wrong with
//! them. Where they come from: `tests/data/SOURCE`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use boltseal_keyless::{judge, prepare};
use boltseal_trust::keyless::{Answer, Demands, Fulcio};
use boltseal_trust::{Attestation, Digest, Proposal, Source, propose};
use serde_json::Value;

const ROOT: &[u8] = include_bytes!("data/public-good.json");
/// Of Sigstore's staging instance, which signed `V2`.
const STAGING: &[u8] = include_bytes!("data/staging.json");
const V1: &[u8] = include_bytes!("data/rekor-v1.json");
const V2: &[u8] = include_bytes!("data/rekor-v2.json");
const ALL: Demands = Demands { log: true, sct: true };

/// The one subject of a bundle's statement.
fn subject(bundle: &[u8]) -> Digest {
    let file: Value = serde_json::from_slice(bundle).unwrap();
    let payload = STANDARD.decode(file["dsseEnvelope"]["payload"].as_str().unwrap()).unwrap();
    let statement: Value = serde_json::from_slice(&payload).unwrap();
    Digest::from_hex(statement["subject"][0]["digest"]["sha256"].as_str().unwrap()).unwrap()
}

fn asked(root: &[u8], demands: Demands, bundle: &[u8], of: &Digest) -> Result<(Attestation, String, Answer), String> {
    let fulcio = Fulcio::new(root, demands)?;
    let proposal = match propose(Source::SigstoreBundle, bundle) {
        Ok(Proposal::Signature(proposal)) => proposal,
        other => return Err(format!("{other:?}")),
    };
    let certified = fulcio.verify_attestation(&proposal, of).map_err(|why| why.to_string())?;
    let question = fulcio.question(&certified, bundle, of);
    certified.accept(&judge(&question)).map_err(|why| why.to_string())
}

/// The same, with one value of the bundle's JSON changed.
fn changed(bundle: &[u8], change: impl Fn(&mut Value)) -> Result<(Attestation, String, Answer), String> {
    let mut file: Value = serde_json::from_slice(bundle).unwrap();
    change(&mut file);
    asked(root_of(bundle), ALL, file.to_string().as_bytes(), &subject(bundle))
}

fn root_of(bundle: &[u8]) -> &'static [u8] {
    if bundle == V2 { STAGING } else { ROOT }
}

/// One bit in the middle of what a base64 text stands for is another.
fn bent(value: &mut Value) {
    let mut bytes = STANDARD.decode(value.as_str().unwrap()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    *value = STANDARD.encode(bytes).into();
}

/// One bit of the CA's signature, which ends the certificate: name, key and envelope are as they were.
fn forged(certificate: &mut Value) {
    let mut bytes = STANDARD.decode(certificate.as_str().unwrap()).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    *certificate = STANDARD.encode(bytes).into();
}

#[test]
fn what_a_workflow_signed_names_it_its_issuer_and_the_time() {
    prepare();
    for (bundle, version) in [(V1, 1), (V2, 2)] {
        let (attestation, key, answer) = asked(root_of(bundle), ALL, bundle, &subject(bundle)).unwrap();
        assert!(attestation.predicate_type.starts_with("https://schemas.conda.org/"), "{version}");
        let who = (answer.identity.as_str(), answer.issuer.as_str());
        if version == 1 {
            assert_eq!(who.1, "https://token.actions.githubusercontent.com");
            assert!(who.0.starts_with("https://github.com/") && who.0.contains("/.github/workflows/"), "{who:?}");
        } else {
            assert_eq!(who.1, "https://github.com/login/oauth");
            assert!(who.0.contains('@') && !who.0.contains('/'), "{who:?}");
        }
        // 2024-01-01 and 2027-01-01.
        assert!((1_704_067_200..1_798_761_600).contains(&answer.signed_at), "{version}: {}", answer.signed_at);
        assert_eq!(key, boltseal_trust::digest(root_of(bundle)).hex());
    }
}

#[test]
fn a_statement_is_no_signature_of_an_image() {
    let Ok(Proposal::Signature(proposal)) = propose(Source::SigstoreBundle, V1) else { panic!() };
    let fulcio = Fulcio::new(ROOT, ALL).unwrap();
    let why = fulcio.verify(&proposal, &subject(V1)).unwrap_err().to_string();
    assert!(why.contains("an attestation"), "{why}");
}

#[test]
fn of_anything_else_it_says_nothing() {
    let other = boltseal_trust::digest(b"other");
    assert!(asked(ROOT, ALL, V1, &other).unwrap_err().contains("signs another image"));
}

/// Each fault alone, with what is said of it. The bundle without it is accepted above.
#[test]
fn one_fault_is_enough() {
    type Fault = (&'static str, fn(&mut Value), &'static str);
    let faults: [Fault; 10] = [
        ("the envelope's signature", |b| bent(&mut b["dsseEnvelope"]["signatures"][0]["sig"]), "leaf's key"),
        (
            "the CA's signature",
            |b| forged(&mut b["verificationMaterial"]["certificate"]["rawBytes"]),
            "no CA of the trusted root signed",
        ),
        ("the certificate", |b| bent(&mut b["verificationMaterial"]["certificate"]["rawBytes"]), ""),
        ("no log entry", |b| b["verificationMaterial"]["tlogEntries"] = Value::Array(Vec::new()), ""),
        (
            "no inclusion proof",
            |b| {
                b["verificationMaterial"]["tlogEntries"][0].as_object_mut().unwrap().remove("inclusionProof");
            },
            "",
        ),
        (
            "another root hash",
            |b| bent(&mut b["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]["rootHash"]),
            "",
        ),
        (
            "a checkpoint that nobody signed",
            |b| {
                let at = &mut b["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]["checkpoint"]["envelope"];
                *at = at.as_str().unwrap().replacen('\u{2014}', "-", 1).into();
            },
            "",
        ),
        (
            "an entry about something else",
            |b| bent(&mut b["verificationMaterial"]["tlogEntries"][0]["canonicalizedBody"]),
            "",
        ),
        ("another log", |b| bent(&mut b["verificationMaterial"]["tlogEntries"][0]["logId"]["keyId"]), ""),
        (
            "another key beside the certificate",
            |b| b["verificationMaterial"]["publicKey"] = serde_json::json!({"hint": ""}),
            "with a key and with a certificate",
        ),
    ];
    for bundle in [V1, V2] {
        assert!(changed(bundle, |_| {}).is_ok());
        for (name, fault, says) in &faults {
            // Version 2's proof leads to the checkpoint's own hash and signer: what is written beside them is not read.
            if bundle == V2 && ["another root hash", "another log"].contains(name) {
                assert!(changed(bundle, fault).is_ok());
                continue;
            }
            let why = changed(bundle, fault).expect_err(name);
            assert!(why.contains(says), "{name}: {why}");
        }
    }
}

/// Version 1's entry has a promise with the time in it, version 2's a time stamp beside it.
#[test]
fn the_time_is_vouched_for() {
    let at = "/verificationMaterial/timestampVerificationData/rfc3161Timestamps/0/signedTimestamp";
    let file: Value = serde_json::from_slice(V2).unwrap();
    let token = STANDARD.decode(file.pointer(at).unwrap().as_str().unwrap()).unwrap();
    // From the signed attributes on. Before them stands a certificate, which the trusted root's own is taken for; between them
    // and the signature the name of an algorithm, which the key decides.
    let attributes = 800..1149;
    let signature = 1157..token.len();
    for at_byte in attributes.chain(signature) {
        let mut bent = token.clone();
        bent[at_byte] ^= 1;
        let bent = changed(V2, |b| *b.pointer_mut(at).unwrap() = STANDARD.encode(&bent).into());
        assert!(bent.is_err(), "byte {at_byte}");
    }
    assert!(changed(V2, |b| b["verificationMaterial"]["timestampVerificationData"] = serde_json::json!({})).is_err());
    let time = |b: &mut Value| b["verificationMaterial"]["tlogEntries"][0]["integratedTime"] = "1700000000".into();
    assert!(changed(V1, time).is_err());
}

#[test]
fn a_root_without_what_is_demanded_or_without_the_signer_is_none() {
    let root: Value = serde_json::from_slice(ROOT).unwrap();
    let without = |name: &str| {
        let mut root = root.clone();
        root[name] = Value::Array(Vec::new());
        root.to_string().into_bytes()
    };
    let of = subject(V1);
    assert!(asked(&without("tlogs"), ALL, V1, &of).unwrap_err().contains("log = false"));
    assert!(asked(&without("ctlogs"), ALL, V1, &of).unwrap_err().contains("sct = false"));
    assert!(asked(&without("certificateAuthorities"), ALL, V1, &of).unwrap_err().contains("no certificate"));
    // What is not demanded is not looked at: the same bundle, no certificate log.
    assert!(asked(&without("ctlogs"), Demands { log: true, sct: false }, V1, &of).is_ok());
    // Whoever does not demand inclusion still wants a time that the root's logs vouch for.
    assert!(asked(&without("tlogs"), Demands { log: false, sct: true }, V1, &of).is_err());
    let mut other = root;
    let stranger = other["certificateAuthorities"][0].clone();
    other["certificateAuthorities"] = Value::Array(vec![stranger]);
    let why = asked(other.to_string().as_bytes(), ALL, V1, &of).unwrap_err();
    assert!(why.contains("no CA of the trusted root signed its certificate"), "{why}");
}

/// What the root spells out of a time stamp authority is not verified again, and nothing else of it is taken.
#[test]
fn a_time_stamp_is_by_the_leaf_that_the_root_spells_out() {
    let judged = |change: &dyn Fn(&mut Value)| {
        let mut root: Value = serde_json::from_slice(STAGING).unwrap();
        for authority in root["timestampAuthorities"].as_array_mut().unwrap() {
            change(&mut authority["certChain"]["certificates"]);
        }
        asked(root.to_string().as_bytes(), ALL, V2, &subject(V2))
    };
    assert!(judged(&|_| {}).is_ok());
    let fulcio: Value = serde_json::from_slice(STAGING).unwrap();
    let fulcio = fulcio["certificateAuthorities"][0]["certChain"]["certificates"].clone();
    for change in [
        &(|chain: &mut Value| chain[0] = chain[1].clone()) as &dyn Fn(&mut Value),
        &|chain| *chain = fulcio.clone(),
        &|chain| chain[0] = fulcio[0].clone(),
        &|chain| chain[1] = fulcio[1].clone(),
    ] {
        let why = judged(change).unwrap_err();
        assert!(why.starts_with("keyless: "), "{why}");
    }
}

#[test]
fn what_is_no_question_gets_a_reason() {
    let fulcio = Fulcio::new(ROOT, ALL).unwrap();
    let Ok(Proposal::Signature(proposal)) = propose(Source::SigstoreBundle, V1) else { panic!() };
    let of = subject(V1);
    let certified = fulcio.verify_attestation(&proposal, &of).unwrap();
    let asked = |file: &[u8]| fulcio.question(&certified, file, &of);
    for question in [b"".to_vec(), vec![2; 40], asked(b"{}"), asked(&[0xff; 9])] {
        assert!(fulcio.verify_attestation(&proposal, &of).unwrap().accept(&judge(&question)).is_err());
    }
    for answer in [&b""[..], &[1], &[7; 20]] {
        assert!(fulcio.verify_attestation(&proposal, &of).unwrap().accept(answer).is_err());
    }
    let nobody = Answer { identity: String::new(), issuer: "https://i".into(), signed_at: 1 };
    let said = Answer::encode(&Ok(nobody));
    assert!(fulcio.verify_attestation(&proposal, &of).unwrap().accept(&said).is_err());
}

#[test]
fn what_is_no_trusted_root_is_said() {
    for (root, says) in [
        (&b"{}"[..], "mediaType"),
        (b"not json", "not JSON"),
        (br#"{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}"#, "certificateAuthorities"),
        (br#"{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"}"#, "mediaType"),
    ] {
        let why = Fulcio::new(root, ALL).unwrap_err();
        assert!(why.contains(says), "{why}");
    }
}
