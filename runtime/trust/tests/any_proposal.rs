//! For ANY proposal, `verify_signature` is Ok only when a real signature by that key over bytes that name exactly the
//! expected digest is inside: there are as many true (payload, signature) pairs as the fixtures hold, and an Ok that is
//! not one of them fails here.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "tests"
)]
use boltseal_trust::{
    Digest, Key, Link, Placed, Proposal, SignatureProposal, Source, Unbound, bind_child, bind_config, decode_answer,
    digest, import_layout, propose, verify_signature,
};
use proptest::prelude::*;
use std::path::Path;
use std::sync::LazyLock;

struct World {
    key: Key,
    /// Real proposals, and what each is truly signed for; None for the stranger's.
    real: Vec<(SignatureProposal, Option<Digest>)>,
    images: Vec<Digest>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let read = |path: &str| std::fs::read(root.join(path)).unwrap();
    let images: Vec<_> = ["app.manifest", "other.manifest", "app.index", "arm.manifest"]
        .map(|name| digest(&read(&format!("image/{name}.json"))))
        .into();
    let mut real = Vec::new();
    for (layout, named) in [
        ("cosign2", Some(images[0])),
        ("cosign2-annotated", Some(images[0])),
        ("cosign2-identity", Some(images[0])),
        ("cosign2-other", Some(images[1])),
        ("cosign2-index", Some(images[2])),
        ("cosign2-stranger", None),
        ("cosign3", Some(images[0])),
        ("cosign3-annotated", Some(images[0])),
        ("cosign3-other", Some(images[1])),
        ("cosign3-index", Some(images[2])),
        ("cosign3-stranger", None),
    ] {
        let folder = root.join("layouts").join(layout);
        let found = import_layout(
            |name| std::fs::read(folder.join("blobs").join(name.replace(':', "/"))),
            &std::fs::read(folder.join("index.json")).unwrap(),
        )
        .unwrap();
        let file = &found.files[0];
        let source = if file.name.ends_with(".sig.json") { Source::CosignSignature } else { Source::SigstoreBundle };
        let Ok(Proposal::Signature(proposal)) = propose(source, &file.bytes) else { panic!() };
        real.push((proposal, named));
    }
    let key = Key::from_spki_pem(std::str::from_utf8(&read("keys/signer.pub")).unwrap()).unwrap();
    World { key, real, images }
});

fn parts(proposal: &SignatureProposal) -> (&[u8], &[u8]) {
    match proposal {
        SignatureProposal::Cosign { payload, signature, .. } | SignatureProposal::Bundle { payload, signature, .. } => {
            (payload, signature)
        }
        SignatureProposal::Notation(proposal) => (&proposal.payload, &proposal.signature),
        SignatureProposal::Certified { envelope, .. } => parts(envelope),
    }
}

/// The property: an Ok is one of the true pairs, and for the image that this pair was made for.
fn check(proposal: &SignatureProposal) -> Result<(), TestCaseError> {
    let world = &*WORLD;
    for expected in &world.images {
        let Ok(claim) = verify_signature(proposal, &world.key, expected) else { continue };
        prop_assert_eq!(claim.digest, *expected);
        let true_one =
            world.real.iter().any(|(real, named)| parts(real) == parts(proposal) && *named == Some(*expected));
        prop_assert!(true_one, "accepted for {}: {:?}", expected, proposal);
    }
    Ok(())
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..300)
}

fn any_digest() -> impl Strategy<Value = Digest> {
    prop_oneof![any::<[u8; 32]>().prop_map(Digest), (0..4_usize).prop_map(|i| WORLD.images[i])]
}

/// Real payloads and signatures, cut up and put together at will.
fn real_part(which: usize) -> impl Strategy<Value = Vec<u8>> {
    (0..WORLD.real.len(), proptest::option::weighted(0.5, (any::<prop::sample::Index>(), any::<u8>()))).prop_map(
        move |(i, change)| {
            let (payload, signature) = parts(&WORLD.real[i].0);
            let mut part = [payload, signature][which].to_vec();
            if let Some((at, value)) = change {
                let at = at.index(part.len());
                part[at] = value;
            }
            part
        },
    )
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![1 => bytes(), 4 => real_part(0)]
}

fn signature() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![1 => bytes(), 4 => real_part(1)]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,40}",
        Just("127.0.0.1:5901/team/app".to_owned()),
        Just("127.0.0.1:5901/team/other".to_owned()),
        Just("https://sigstore.dev/cosign/sign/v1".to_owned()),
        Just("application/vnd.in-toto+json".to_owned()),
    ]
}

fn any_proposal() -> impl Strategy<Value = SignatureProposal> {
    prop_oneof![
        (payload(), signature(), text(), any_digest()).prop_map(|(payload, signature, reference, digest)| {
            SignatureProposal::Cosign { payload, signature, reference, digest }
        }),
        (text(), payload(), signature(), text(), any_digest()).prop_map(
            |(payload_type, payload, signature, predicate_type, digest)| SignatureProposal::Bundle {
                payload_type,
                payload,
                signature,
                predicate_type,
                digest,
            }
        ),
        (bytes(), 0..WORLD.real.len()).prop_map(|(certificate, i)| SignatureProposal::Certified {
            certificate,
            envelope: Box::new(WORLD.real[i].0.clone()),
        }),
    ]
}

/// A real proposal with one of its parts taken from anywhere else: an "always valid" worker at its best.
fn nearly_real() -> impl Strategy<Value = SignatureProposal> {
    (0..WORLD.real.len(), 0..5_u8, any_proposal(), text(), any_digest()).prop_map(|(i, part, donor, words, named)| {
        let (other_payload, other_signature) = parts(&donor);
        let mut proposal = WORLD.real[i].0.clone();
        match &mut proposal {
            SignatureProposal::Cosign { payload, signature, reference, digest } => match part {
                0 => *payload = other_payload.to_vec(),
                1 => *signature = other_signature.to_vec(),
                2 => *reference = words,
                3 => *digest = named,
                _ => {}
            },
            SignatureProposal::Bundle { payload_type, payload, signature, predicate_type, digest } => match part {
                0 => *payload = other_payload.to_vec(),
                1 => *signature = other_signature.to_vec(),
                2 => *payload_type = words,
                3 => *digest = named,
                _ => *predicate_type = words,
            },
            SignatureProposal::Notation(_) | SignatureProposal::Certified { .. } => {}
        }
        proposal
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn of_any_proposal_only_the_true_ones_verify(proposal in any_proposal()) {
        check(&proposal)?;
    }

    #[test]
    fn of_nearly_real_ones_too(proposal in nearly_real()) {
        check(&proposal)?;
    }

    #[test]
    fn whatever_decodes_is_checked_and_encodes_back(i in 0..WORLD.real.len(), at in any::<prop::sample::Index>(), value in any::<u8>(), cut in 0..3_usize) {
        let mut bytes = Proposal::Signature(WORLD.real[i].0.clone()).encode();
        let at = at.index(bytes.len());
        match cut {
            0 => bytes.truncate(at),
            _ => bytes[at] = value,
        }
        if let Ok(proposal) = Proposal::decode(&bytes) {
            prop_assert_eq!(proposal.encode(), bytes);
            if let Proposal::Signature(proposal) = proposal {
                check(&proposal)?;
            }
        }
    }

    #[test]
    fn noise_is_no_answer_and_no_panic(noise in proptest::collection::vec(any::<u8>(), 0..2000)) {
        if let Ok(Ok(proposal)) = decode_answer(&noise) {
            prop_assert_eq!(proposal.encode(), noise);
        }
    }

    /// Whatever a worker says about an image's files, what binds is what the strict parser reads there.
    #[test]
    fn only_what_the_config_says_binds(at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let honest = include_bytes!("fixtures/image/app.config.json");
        let Ok(Proposal::Config(config)) = propose(Source::Config, honest) else { panic!() };
        bind_config(honest, &config).unwrap();
        let mut bytes = Proposal::Config(config.clone()).encode();
        let at = at.index(bytes.len());
        bytes[at] = value;
        if let Ok(Proposal::Config(changed)) = Proposal::decode(&bytes) {
            prop_assert_eq!(bind_config(honest, &changed).is_ok(), changed == config);
        }
        // The same the other way round: the file changes under an unchanged proposal.
        let mut file = honest.to_vec();
        let at = at % file.len();
        file[at] = value;
        if let Ok(Proposal::Config(reread)) = propose(Source::Config, &file) {
            let bound = bind_config(&file, &reread);
            // An escaped key beside the path's keys: the gate refuses what it cannot tell apart without a parser.
            let unclear = bound == Err(Unbound::Ambiguous);
            prop_assert!(unclear || bound.is_ok(), "{:?}", bound);
            prop_assert_eq!(bind_config(&file, &config).is_ok(), !unclear && reread == config);
        }
    }

    #[test]
    fn only_a_listed_child_binds(entry in 0..2_usize, at in 0..700_u32, named in any_digest()) {
        let index = include_bytes!("fixtures/image/app.index.json");
        let children: [&[u8]; 2] = [
            include_bytes!("fixtures/image/app.manifest.json"), include_bytes!("fixtures/image/arm.manifest.json"),
        ];
        let Ok(Proposal::Index(listed)) = propose(Source::Index, index) else { panic!() };
        let truth = listed.entries[entry].descriptor.digest;
        prop_assert!(bind_child(index, Link::IndexToManifest, &truth, children[entry]).is_ok());
        for child in children {
            for placed in [Placed { digest: named, at }, Placed { digest: truth.digest, at }, Placed { digest: named, at: truth.at }] {
                let bound = bind_child(index, Link::IndexToManifest, &placed, child).is_ok();
                prop_assert_eq!(bound, digest(child) == placed.digest && listed.entries.iter().any(|e| e.descriptor.digest == placed));
            }
        }
    }
}
