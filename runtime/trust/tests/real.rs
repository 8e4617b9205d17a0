//! What the real tools write (tests/fixtures/make.sh) goes through, and what only looks like it does not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "tests"
)]
use boltseal_trust::{
    Claim, Digest, Format, Imported, Key, Proposal, Reject, SignatureProposal, Source, bundle_file, digest,
    import_layout, propose, verify_attestation, verify_signature,
};
use std::path::{Path, PathBuf};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn file(path: &str) -> Vec<u8> {
    std::fs::read(fixtures().join(path)).unwrap()
}

fn key(name: &str) -> Key {
    Key::from_spki_pem(&String::from_utf8(file(&format!("keys/{name}.pub"))).unwrap()).unwrap()
}

fn image(name: &str) -> Digest {
    digest(&file(&format!("image/{name}.json")))
}

fn import(layout: &str) -> Imported {
    let root = fixtures().join("layouts").join(layout);
    import_layout(
        |digest| std::fs::read(root.join("blobs").join(digest.replace(':', "/"))),
        &std::fs::read(root.join("index.json")).unwrap(),
    )
    .unwrap()
}

/// The one signature of a layout, by way of its store file.
fn signature(layout: &str) -> SignatureProposal {
    let found = import(layout);
    let [file] = &found.files[..] else { panic!("{layout}: {found:?}") };
    let (hash, end) = file.name.split_once('.').unwrap();
    assert_eq!(hash, digest(&file.bytes).hex());
    let source = match end {
        "sig.json" => Source::CosignSignature,
        "bundle.json" => Source::SigstoreBundle,
        other => panic!("{other}"),
    };
    let Proposal::Signature(proposal) = propose(source, &file.bytes).unwrap() else { panic!() };
    let named = proposal.digest();
    assert_eq!(named.hex(), file.manifest_hex);
    let encoded = Proposal::Signature(proposal.clone()).encode();
    assert_eq!(Proposal::decode(&encoded).unwrap(), Proposal::Signature(proposal.clone()));
    proposal
}

fn claim(format: Format, repository: Option<&str>, digest: Digest) -> Claim {
    Claim { format, repository: repository.map(Into::into), digest }
}

#[test]
fn cosign_2_and_3_verify() {
    let key = key("signer");
    let app = image("app.manifest");
    let repository = Some("127.0.0.1:5901/team/app");
    for (layout, want) in [
        ("cosign2", claim(Format::CosignSignature, repository, app)),
        ("cosign2-save", claim(Format::CosignSignature, repository, app)),
        ("cosign2-annotated", claim(Format::CosignSignature, repository, app)),
        ("cosign2-identity", claim(Format::CosignSignature, Some("registry.example/other/name"), app)),
        ("cosign2-index", claim(Format::CosignSignature, repository, image("app.index"))),
        ("cosign3", claim(Format::SigstoreBundle, None, app)),
        ("cosign3-annotated", claim(Format::SigstoreBundle, None, app)),
        ("cosign3-index", claim(Format::SigstoreBundle, None, image("app.index"))),
    ] {
        assert_eq!(verify_signature(&signature(layout), &key, &want.digest), Ok(want), "{layout}");
    }
}

#[test]
fn another_key_verifies_nothing() {
    let app = image("app.manifest");
    for (layout, right, wrong) in [
        ("cosign2", "signer", "stranger"),
        ("cosign3", "signer", "stranger"),
        ("cosign2-stranger", "stranger", "signer"),
        ("cosign3-stranger", "stranger", "signer"),
    ] {
        assert!(verify_signature(&signature(layout), &key(right), &app).is_ok(), "{layout}");
        let wrong = key(wrong);
        assert_eq!(
            verify_signature(&signature(layout), &wrong, &app),
            Err(Reject::Signature { key: wrong.id().to_owned() }),
            "{layout}"
        );
    }
}

#[test]
fn of_two_signatures_of_one_image_each_is_its_own_file() {
    let app = image("app.manifest");
    for layout in ["cosign2-both", "cosign3-both"] {
        let found = import(layout);
        assert_eq!((found.files.len(), &found.skipped[..]), (2, &[][..]), "{layout}");
        let source = if layout == "cosign2-both" { Source::CosignSignature } else { Source::SigstoreBundle };
        for name in ["signer", "stranger"] {
            let verified = found.files.iter().filter(|file| {
                let Ok(Proposal::Signature(proposal)) = propose(source, &file.bytes) else { panic!("{layout}") };
                verify_signature(&proposal, &key(name), &app).is_ok()
            });
            assert_eq!(verified.count(), 1, "{layout} {name}");
        }
    }
}

#[test]
fn another_images_signature_names_that_image() {
    let named = image("other.manifest");
    for layout in ["cosign2-other", "cosign3-other"] {
        let other = signature(layout);
        assert!(verify_signature(&other, &key("signer"), &named).is_ok());
        let reject = verify_signature(&other, &key("signer"), &image("app.manifest"));
        assert_eq!(reject, Err(Reject::OtherImage { named }), "{layout}");
    }
}

#[test]
fn an_altered_payload_or_signature_does_not_verify() {
    let key = key("signer");
    let app = image("app.manifest");
    for layout in ["cosign2", "cosign3"] {
        let good = signature(layout);
        let (SignatureProposal::Cosign { payload, signature, .. }
        | SignatureProposal::Bundle { payload, signature, .. }) = &good
        else {
            panic!()
        };
        for at in 0..payload.len() + signature.len() {
            let mut bad = good.clone();
            let (SignatureProposal::Cosign { payload, signature, .. }
            | SignatureProposal::Bundle { payload, signature, .. }) = &mut bad
            else {
                panic!()
            };
            match payload.len() {
                len if at < len => payload[at] ^= 1,
                len => signature[at - len] ^= 1,
            }
            assert!(matches!(verify_signature(&bad, &key, &app), Err(Reject::Signature { .. })), "{layout} {at}");
        }
    }
}

#[test]
fn an_attestation_is_not_a_signature() {
    for (layout, end) in [("cosign2-attest", ".dsse.json"), ("cosign3-attest", ".bundle.json")] {
        let found = import(layout);
        let [file] = &found.files[..] else { panic!("{layout}: {:?}", found.skipped) };
        assert!(file.name.ends_with(end), "{}", file.name);
        let proposal = propose(Source::of_file(&file.name).unwrap(), &file.bytes).unwrap();
        let Proposal::Signature(proposal) = proposal else { panic!() };
        let app = image("app.manifest");
        let reject = verify_signature(&proposal, &key("signer"), &app).unwrap_err();
        assert!(matches!(reject, Reject::NotASignature { .. }), "{layout}: {reject}");
        attests(&proposal);
    }
    // The real bundle of `cosign attest`, put into the store by hand.
    let proposal = attestation();
    let app = image("app.manifest");
    let reject = verify_signature(&proposal, &key("signer"), &app).unwrap_err();
    assert!(
        matches!(&reject, Reject::NotASignature { predicate_type } if predicate_type.ends_with("/vuln/v1")),
        "{reject}"
    );
    // Its DSSE does verify: another key is another reason.
    assert!(matches!(verify_signature(&proposal, &key("stranger"), &app), Err(Reject::Signature { .. })));
    // A worker that lies about the predicate type.
    let SignatureProposal::Bundle { payload_type, payload, signature, digest, .. } = proposal else { panic!() };
    let lie = SignatureProposal::Bundle {
        payload_type,
        payload,
        signature,
        predicate_type: "https://sigstore.dev/cosign/sign/v1".into(),
        digest,
    };
    assert_eq!(verify_signature(&lie, &key("signer"), &app), Err(Reject::Text { format: Format::SigstoreBundle }));
}

/// What `cosign attest` of either version made, and everything that one may try to have it say.
fn attests(proposal: &SignatureProposal) {
    let (app, signer) = (image("app.manifest"), key("signer"));
    let found = verify_attestation(proposal, &signer, &app).unwrap();
    assert_eq!(found.predicate_type, "https://cosign.sigstore.dev/attestation/vuln/v1");
    assert_eq!((found.digest, found.statement), (app, digest(proposal.payload())));
    let of = |proposal: &SignatureProposal, expected: &Digest| verify_attestation(proposal, &signer, expected);
    assert!(matches!(verify_attestation(proposal, &key("stranger"), &app), Err(Reject::Signature { .. })));
    let other = image("other.manifest");
    assert_eq!(of(proposal, &other), Err(Reject::OtherImage { named: app }));
    let bent = |bend: &dyn Fn(&mut SignatureProposal)| {
        let mut proposal = proposal.clone();
        bend(&mut proposal);
        proposal
    };
    // A worker's lies: the kind of statement, and of which image it is.
    for kind in ["https://cosign.sigstore.dev/attestation/v1", "https://sigstore.dev/cosign/sign/v1", ""] {
        let lie = bent(&|p| {
            if let SignatureProposal::Bundle { predicate_type, .. } = p {
                *predicate_type = kind.into();
            }
        });
        assert!(matches!(of(&lie, &app), Err(Reject::Statement(_))), "{kind}");
    }
    let lie = bent(&|p| {
        if let SignatureProposal::Bundle { digest, .. } = p {
            *digest = other;
        }
    });
    assert!(matches!(of(&lie, &other), Err(Reject::Statement(_))));
    let lie = bent(&|p| {
        if let SignatureProposal::Bundle { payload_type, .. } = p {
            *payload_type = "text/plain".into();
        }
    });
    assert!(matches!(of(&lie, &app), Err(Reject::PayloadType(_))));
    for at in 0..proposal.payload().len() {
        let bad = bent(&|p| {
            if let SignatureProposal::Bundle { payload, .. } = p {
                payload[at] ^= 1;
            }
        });
        assert!(matches!(of(&bad, &app), Err(Reject::Signature { .. })), "{at}");
    }
}

/// A signature attests nothing more, and what is neither is no attestation.
#[test]
fn a_signature_is_not_an_attestation() {
    let app = image("app.manifest");
    for layout in ["cosign2", "cosign3"] {
        let said = verify_attestation(&signature(layout), &key("signer"), &app);
        assert!(matches!(said, Err(Reject::Statement(_))), "{layout}: {said:?}");
    }
}

fn small_blobs(layout: &str) -> Vec<Vec<u8>> {
    let folder = fixtures().join("layouts").join(layout).join("blobs/sha256");
    std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect()
}

fn attestation() -> SignatureProposal {
    let bundles: Vec<_> =
        small_blobs("cosign3-attest").iter().filter_map(|blob| propose(Source::SigstoreBundle, blob).ok()).collect();
    let [Proposal::Signature(proposal)] = &bundles[..] else { panic!("{bundles:?}") };
    proposal.clone()
}

#[test]
fn a_payload_of_another_type_is_named() {
    let mut proposal = signature("cosign3");
    let SignatureProposal::Bundle { payload_type, .. } = &mut proposal else { panic!() };
    *payload_type = "text/plain\u{1b}".into();
    let reject = verify_signature(&proposal, &key("signer"), &image("app.manifest"));
    assert_eq!(reject, Err(Reject::PayloadType("text/plain?".into())));
}

#[test]
fn a_bundle_below_another_subject_is_skipped() {
    let bundle = import("cosign3").files[0].bytes.clone();
    let layout = |subject: &Digest| {
        let manifest = format!(
            r#"{{"layers":[{{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","digest":"{}","size":{}}}],"subject":{{"digest":"{subject}"}}}}"#,
            digest(&bundle),
            bundle.len()
        );
        let index =
            format!(r#"{{"manifests":[{{"digest":"{}","size":{}}}]}}"#, digest(manifest.as_bytes()), manifest.len());
        let blobs = [manifest.into_bytes(), bundle.clone()];
        import_layout(
            |name| blobs.iter().find(|b| digest(b).to_string() == name).cloned().ok_or("gone"),
            index.as_bytes(),
        )
        .unwrap()
    };
    assert_eq!(layout(&image("app.manifest")).files, import("cosign3").files);
    let found = layout(&image("other.manifest"));
    assert!(found.files.is_empty() && found.skipped[0].contains("subject"), "{found:?}");
}

#[test]
fn cosign_3_save_leaves_its_bundle_unlisted() {
    assert!(import("cosign3-save").files.is_empty());
    let files: Vec<_> = small_blobs("cosign3-save").iter().filter_map(|blob| bundle_file(blob).ok()).collect();
    let [file] = &files[..] else { panic!("{files:?}") };
    assert_eq!(*file, import("cosign3").files[0]);
    let taken = small_blobs("cosign3-attest").iter().filter(|blob| bundle_file(blob).is_ok()).count();
    assert_eq!(taken, 1, "the attestation is taken, for what it is");
}

#[test]
fn a_worker_that_always_says_valid_gets_nowhere() {
    let (app, signer) = (image("app.manifest"), key("signer"));
    let payload = format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"127.0.0.1:5901/team/app"}},"image":{{"docker-manifest-digest":"{app}"}},"type":"cosign container image signature"}},"optional":null}}"#
    );
    let SignatureProposal::Cosign { signature: borrowed, .. } = signature("cosign2-other") else { panic!() };
    for forged in [vec![], vec![0; 72], borrowed] {
        let lie = SignatureProposal::Cosign {
            payload: payload.clone().into_bytes(),
            signature: forged,
            reference: "127.0.0.1:5901/team/app".into(),
            digest: app,
        };
        assert!(matches!(verify_signature(&lie, &signer, &app), Err(Reject::Signature { .. })));
    }
    // A real signature of another image, said to be of this one, or of this repository.
    for layout in ["cosign2-other", "cosign3-other"] {
        let mut lie = signature(layout);
        let (SignatureProposal::Cosign { digest, .. } | SignatureProposal::Bundle { digest, .. }) = &mut lie else {
            panic!()
        };
        *digest = app;
        assert!(matches!(verify_signature(&lie, &signer, &app), Err(Reject::Text { .. })), "{layout}");
    }
    let mut lie = signature("cosign2");
    let SignatureProposal::Cosign { reference, .. } = &mut lie else { panic!() };
    *reference = "127.0.0.1:5901/prod/app".into();
    assert_eq!(verify_signature(&lie, &signer, &app), Err(Reject::Text { format: Format::CosignSignature }));
}
