//! What people sign, and the manifests that it is made of.
use super::outcome;
use boltseal_import::{Asked, workloads};
use boltseal_trust::{Json, Key, break_glass, dsse, grant};
use serde_json::json;

const STRANGER: &str = include_str!("../../../../runtime/trust/tests/fixtures/keys/stranger.pub");

pub(super) fn import_workload(bytes: &[u8]) -> u64 {
    let found = workloads(bytes, &Asked::default());
    for workload in found.iter().flatten() {
        let claims = json!({ "nbf": 1, "exp": 2, "aud": "a", grant::CLAIM: workload.claim }).to_string();
        let read: Json = serde_json::from_str(&claims).unwrap_or_else(|e| panic!("{e}: {claims}"));
        // Longer lists than a node takes, and names that stand twice, are refused there by name.
        match grant::read(&read) {
            Ok(grant) => assert_eq!(grant.pods.len(), 1, "{claims}"),
            Err(why) => assert!(why.0.contains("at most") || why.0.contains("twice"), "{why}: {claims}"),
        }
        for line in workload.notes.iter().chain([&workload.name]) {
            assert!(!line.contains('\n'), "{line:?}");
        }
    }
    outcome(&found.map(|found| found.iter().map(|w| w.notes.len()).collect::<Vec<_>>()))
}

pub(super) fn trust_grant(bytes: &[u8]) -> u64 {
    let Ok(claims) = serde_json::from_slice::<Json>(bytes) else { return 0 };
    let read = grant::read(&claims);
    if let Ok(grant) = &read {
        let names: std::collections::BTreeSet<&str> = grant.containers.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names.len(), grant.containers.len());
        assert!(!names.contains(""));
    }
    outcome(&read.map(|grant| grant.containers.len()).map_err(|e| e.0))
}

pub(super) fn trust_envelope(bytes: &[u8]) -> u64 {
    let read = dsse::propose(bytes);
    assert_eq!(dsse::decode(&dsse::answer(0, bytes)).as_ref(), Ok(&read));
    if let Ok(envelope) = &read {
        let key = Key::from_spki_pem(STRANGER).unwrap_or_else(|e| panic!("{e}"));
        assert!(envelope.signers([&key]).is_empty());
        let again = dsse::propose(envelope.json().as_bytes());

        assert_eq!(again.as_ref().ok(), Some(envelope));
    }
    // Whatever a worker says is bounded.
    let said = dsse::decode(bytes);
    outcome(&(read.map(|e| e.signatures.len()).map_err(|e| e.to_string()), said.is_ok()))
}

pub(super) fn trust_break_glass(bytes: &[u8]) -> u64 {
    let read = break_glass::read(bytes);
    if let Ok(glass) = &read {
        assert!(
            !glass.nodes.is_empty() && !glass.rules.is_empty() && glass.rules.values().all(|list| !list.is_empty())
        );
        assert_eq!(glass.id.len(), 12);
    }
    outcome(&read.map(|glass| glass.rules.len()).map_err(|e| e.0))
}
