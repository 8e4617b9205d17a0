//! What a worker proposes of an image's files and signatures, and what the gate makes of it.
use super::{outcome, seed, seeds};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use boltseal_trust::notation::{Notary, NotationProposal, accept, appraise};
use boltseal_trust::{
    Config, Descriptor, Digest, Key, Link, MAX_PROPOSAL, Proposal, Reject, SignatureProposal, Source, Statement,
    Unbound, bind_child, bind_config, bind_diff_ids, bundle_file, decode_answer, decode_statement, digest,
    encode_answer, import_layout, propose, read_statement, verify_attestation, verify_signature, verity_layers,
    verity_predicate, verity_statement,
};
use std::collections::HashSet;
use std::sync::LazyLock;
pub(super) fn image(source: Source, bytes: &[u8]) -> u64 {
    let read = propose(source, bytes);
    if let Ok(proposal) = &read {
        again(proposal);
        match proposal {
            Proposal::Index(index) => {
                for entry in &index.entries {
                    placed(bytes, Link::IndexToManifest, &entry.descriptor);
                }
                assert!(propose(Source::Manifest, bytes).is_err(), "an index that is a manifest too");
            }
            Proposal::Manifest(manifest) => {
                placed(bytes, Link::ManifestToConfig, &manifest.config);
                for layer in &manifest.layers {
                    placed(bytes, Link::ManifestToLayer, layer);
                }
                assert!(propose(Source::Index, bytes).is_err(), "a manifest that is an index too");
            }
            Proposal::Config(config) => {
                // A key that only a full reader can tell from the path's is the one reason to differ.
                match bind_config(bytes, config) {
                    Ok(()) => assert_eq!(
                        bind_diff_ids(bytes, &config.diff_ids).map(|ids| ids.len()),
                        Ok(config.diff_ids.len())
                    ),
                    Err(Unbound::Ambiguous) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            Proposal::Signature(_) => panic!("a signature in an image file"),
        }
    }
    outcome(&read)
}

fn again(proposal: &Proposal) {
    let bytes = proposal.encode();
    assert!(bytes.len() <= MAX_PROPOSAL);
    assert_eq!(Proposal::decode(&bytes).as_ref(), Ok(proposal));
}

/// The gate finds the digest where the worker did: only the child (nothing here hashes to it) is missing.
fn placed(parent: &[u8], link: Link, descriptor: &Descriptor) {
    match bind_child(parent, link, &descriptor.digest, b"no such child") {
        Err(Unbound::Child | Unbound::Ambiguous) => {}
        other => panic!("{other:?}"),
    }
}

/// The input is a config's bytes and, after the last NUL, nothing that matters; the proposal is the seed's.
pub(super) fn trust_bind(bytes: &[u8]) -> u64 {
    static TRUE: LazyLock<Config> = LazyLock::new(|| {
        let Ok(Proposal::Config(config)) = propose(Source::Config, seed("trust_bind", "app.json")) else {
            panic!("the seed is not a config")
        };
        config
    });
    let bound = bind_config(bytes, &TRUE);
    if bound.is_ok()
        && let Ok(read) = propose(Source::Config, bytes)
    {
        assert_eq!(read, Proposal::Config(TRUE.clone()));
    }
    outcome(&bound)
}

/// The input is a PEM file, or the DER of one: mutated base64 would seldom reach the reader of DER.
pub(super) fn trust_key(bytes: &[u8]) -> u64 {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) if text.starts_with("-----") => text.to_owned(),
        _ => format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(bytes)),
    };
    let read = Key::from_spki_pem(&text);
    if let Ok(key) = &read {
        let body = |pem: &str| pem.chars().filter(|c| !c.is_whitespace()).collect::<String>();
        assert_eq!(body(&key.pem()), body(&text));
        assert_eq!(Key::from_spki_pem(&key.pem()).as_ref(), Ok(key));
    }
    outcome(&read.map(|_| ()).map_err(|e| e.0))
}

struct Signatures {
    keys: Vec<Key>,
    images: Vec<Digest>,
    /// (key id, sha256 of the signed payload, image): what was truly signed.
    truths: HashSet<(String, Digest, Digest)>,
    /// (key id, sha256 of the statement, image): what was truly attested.
    said: HashSet<(String, Digest, Digest)>,
}

static SIGNATURES: LazyLock<Signatures> = LazyLock::new(|| {
    let keys: Vec<_> = ["signer.pub", "stranger.pub", "p384.pub", "rsa2048.pub", "ed25519.pub"]
        .map(|name| {
            Key::from_spki_pem(&String::from_utf8_lossy(seed("trust_key", name))).unwrap_or_else(|e| panic!("{e}"))
        })
        .into();
    let mut known = Signatures { keys, images: Vec::new(), truths: HashSet::new(), said: HashSet::new() };
    for (target, source) in [("trust_sig", Source::CosignSignature), ("trust_bundle", Source::SigstoreBundle)] {
        for (name, file) in seeds(target).filter(|(name, _)| name.starts_with("real-")) {
            let Ok(Proposal::Signature(proposal)) = propose(source, file) else { panic!("{name}") };
            let (payload, image) = (proposal.payload(), proposal.digest());
            for key in known.keys.iter().filter(|key| verify_signature(&proposal, key, &image).is_ok()) {
                known.truths.insert((key.id().to_owned(), digest(payload), image));
            }
            known.images.push(image);
        }
    }
    for (target, source) in [("trust_dsse", Source::Dsse), ("trust_bundle", Source::SigstoreBundle)] {
        for (_, file) in seeds(target).filter(|(name, _)| *name == "attestation") {
            let Ok(Proposal::Signature(proposal)) = propose(source, file) else { panic!("{target}") };
            for key in known.keys.iter().filter(|key| verify_attestation(&proposal, key, &proposal.digest()).is_ok()) {
                known.said.insert((key.id().to_owned(), digest(proposal.payload()), proposal.digest()));
            }
            known.images.push(proposal.digest());
        }
    }
    assert_eq!(known.said.len(), 2, "the seeds hold no true attestations");
    assert!(known.truths.len() >= 9, "the seeds hold no true signatures");
    known
});

/// Every verification that says yes is one that was truly signed; the reasons of the others tell inputs apart.
fn only_truth(proposal: &SignatureProposal) -> Vec<String> {
    if let SignatureProposal::Notation(proposal) = proposal {
        return only_rooted(proposal);
    }
    let payload = proposal.payload();
    let known = &*SIGNATURES;
    let mut reasons = Vec::new();
    for key in &known.keys {
        for image in &known.images {
            if let Ok(said) = verify_attestation(proposal, key, image) {
                assert!(known.said.contains(&(key.id().to_owned(), said.statement, *image)), "forged: {proposal:?}");
            }
            match verify_signature(proposal, key, image) {
                Ok(claim) => {
                    assert_eq!(claim.digest, *image);
                    let truth = (key.id().to_owned(), digest(payload), *image);
                    assert!(known.truths.contains(&truth), "forged: {proposal:?}");
                }
                // Another key has nothing else to say.
                Err(reason @ Reject::Signature { .. }) => {
                    reasons.push(reason.to_string());
                    break;
                }
                Err(reason) => reasons.push(reason.to_string()),
            }
        }
    }
    reasons
}

/// The root of the seeds, and what was truly signed under it: attributes, payload and leaf of each.
struct Rooted {
    notary: Notary,
    truths: Vec<NotationProposal>,
}

static ROOTED: LazyLock<Rooted> = LazyLock::new(|| {
    let pem = String::from_utf8_lossy(seed("trust_roots", "root.pem"));
    let notary = Notary::new(&pem, &["*".into()], false).unwrap_or_else(|e| panic!("{e}"));
    let mut truths = Vec::new();
    for (target, source) in [("trust_notation", Source::NotationJws), ("trust_cose", Source::NotationCose)] {
        for (name, file) in seeds(target).filter(|(name, _)| name.starts_with("real-")) {
            match propose(source, file) {
                Ok(Proposal::Signature(SignatureProposal::Notation(proposal))) => truths.push(proposal),
                other => panic!("{name}: {other:?}"),
            }
        }
    }
    let known = Rooted { notary, truths };
    assert!(!known.truths.is_empty(), "the seeds hold no true signature");
    for truth in &known.truths {
        assert!(accepted(&known.notary, truth).is_ok(), "{truth:?}");
    }
    known
});

/// Within the validity of the seeds' certificates.
const THEN: u64 = 1_798_761_600;

fn accepted(notary: &Notary, proposal: &NotationProposal) -> Result<(), Reject> {
    let vouched = notary.verify(proposal, &proposal.digest)?;
    accept(&vouched, &appraise(&notary.question(proposal, Some(THEN)))).map(|_| ())
}

fn only_rooted(proposal: &NotationProposal) -> Vec<String> {
    let known = &*ROOTED;
    let said = accepted(&known.notary, proposal);
    if said.is_ok() {
        // ECDSA has more than one signature of a text; what was signed, and by whom, is one thing.
        let same = |truth: &NotationProposal| {
            (&truth.protected, &truth.payload, &truth.chain, truth.digest)
                == (&proposal.protected, &proposal.payload, &proposal.chain, proposal.digest)
        };
        assert!(known.truths.iter().any(same), "forged: {proposal:?}");
    }
    vec![format!("{said:?}")]
}

/// What certificates and attributes say, of whatever a worker could be asked; what it answers can be read.
pub(super) fn trust_appraise(bytes: &[u8]) -> u64 {
    let known = &*ROOTED;
    let answer = appraise(bytes);
    let Some(truth) = known.truths.first() else { panic!("no true signature") };
    let Ok(vouched) = known.notary.verify(truth, &truth.digest) else { panic!("not the seed's") };
    outcome(&accept(&vouched, &answer))
}

pub(super) fn trust_roots(bytes: &[u8]) -> u64 {
    let read = Notary::new(&String::from_utf8_lossy(bytes), &["*".into()], false);
    if let Ok(notary) = &read {
        assert!(notary.ends().count() > 0);
    }
    outcome(&read.map(|_| ()))
}

/// What a worker says of an image's files binds only when it is what the strict parser reads there.
fn only_what_stands(proposal: &Proposal) -> Vec<String> {
    match proposal {
        Proposal::Signature(signature) => only_truth(signature),
        Proposal::Config(config) => {
            let file = seed("trust_bind", "app.json");
            let bound = bind_config(file, config);
            if bound.is_ok() {
                assert_eq!(propose(Source::Config, file).as_ref(), Ok(proposal));
            }
            vec![format!("{bound:?}")]
        }
        Proposal::Manifest(manifest) => {
            let parent = seed("trust_manifest", "app.manifest.json");
            let child = seed("trust_bind", "app.json");
            let bound = bind_child(parent, Link::ManifestToConfig, &manifest.config.digest, child);
            let Ok(Proposal::Manifest(read)) = propose(Source::Manifest, parent) else {
                panic!("the seed is no manifest")
            };
            assert_eq!(bound.is_ok(), read.config.digest == manifest.config.digest);
            vec![format!("{bound:?}")]
        }
        Proposal::Index(index) => {
            let parent = seed("trust_index", "app.index.json");
            let child = seed("trust_manifest", "app.manifest.json");
            let Ok(Proposal::Index(read)) = propose(Source::Index, parent) else { panic!("the seed is no index") };
            let entries = index.entries.iter().map(|entry| {
                let bound = bind_child(parent, Link::IndexToManifest, &entry.descriptor.digest, child);
                let real = read.entries.iter().any(|e| e.descriptor.digest == entry.descriptor.digest);
                assert_eq!(bound.is_ok(), real && entry.descriptor.digest.digest == digest(child));
                format!("{bound:?}")
            });
            entries.collect()
        }
    }
}

pub(super) fn signature(source: Source, bytes: &[u8]) -> u64 {
    let read = propose(source, bytes);
    let mut reasons = Vec::new();
    if let Ok(proposal) = &read {
        again(proposal);
        reasons = only_what_stands(proposal);
    }
    outcome(&(read.map(|_| ()), reasons))
}

pub(super) fn trust_answer(bytes: &[u8]) -> u64 {
    let read = decode_answer(bytes);
    let mut reasons = Vec::new();
    if let Ok(answer) = &read {
        if let Ok(proposal) = answer {
            assert_eq!(proposal.encode(), bytes);
            reasons = only_what_stands(proposal);
        } else {
            assert_eq!(decode_answer(&encode_answer(answer)).as_ref(), Ok(answer));
        }
    }
    outcome(&(read.map(|answer| answer.map(|_| ()).map_err(|_| ())), reasons))
}

/// The input is a signed statement: whoever seals may write what he likes.
pub(super) fn trust_verity(bytes: &[u8]) -> u64 {
    let read = verity_layers(bytes);
    if let Ok(layers) = &read {
        assert!(layers.iter().all(boltseal_trust::VerityLayer::is_whole) && (1..=128).contains(&layers.len()));
        let written = verity_statement(&digest(b"image"), &verity_predicate(layers, ""));
        assert_eq!(verity_layers(written.as_bytes()).as_ref(), Ok(layers));
    }
    outcome(&read.map(|layers| layers.len()))
}

/// The first byte is the kind, `0` to `4`.
pub(super) fn trust_statement(bytes: &[u8]) -> u64 {
    let (kind, statement) = bytes.split_first().map_or((0, bytes), |(kind, rest)| (kind.wrapping_sub(b'0'), rest));
    let answer = read_statement(kind, statement);
    assert!(answer.len() <= MAX_PROPOSAL);
    let Ok(said) = decode_statement(&answer) else { panic!("an answer that cannot be read") };
    if let Ok(Statement::Scan { counts, found, .. }) = &said {
        let all: usize = counts.iter().map(|count| *count as usize).sum();
        assert!(found.len() == all.min(4096) && found.is_sorted_by(|(_, a), (_, b)| a >= b), "{counts:?}");
    }
    outcome(&said.map(|said| std::mem::discriminant(&said)))
}

pub(super) fn trust_said(bytes: &[u8]) -> u64 {
    let said = decode_statement(bytes);
    if let Ok(Ok(Statement::Scan { found, .. })) = &said {
        assert!(found.iter().all(|(id, severity)| id.len() <= 64 && *severity < 6));
    }
    outcome(&said.map(|said| said.map(|said| std::mem::discriminant(&said)).map_err(|why| why.len())))
}

pub(super) fn trust_layout(bytes: &[u8]) -> u64 {
    // Every blob of the layout is the input itself or a seed: enough to walk in.
    let found = import_layout(
        |name| {
            let blob = seeds("trust_layout").find(|(_, blob)| digest(blob).to_string() == name);
            blob.map(|(_, blob)| blob.to_vec()).ok_or("no such blob")
        },
        bytes,
    );
    if let Ok(found) = &found {
        for file in &found.files {
            let source = Source::of_file(&file.name);
            assert!(source.is_some_and(|source| propose(source, &file.bytes).is_ok()), "{}", file.name);
        }
    }
    outcome(&(found.map(|found| (found.files.len(), found.skipped)), bundle_file(bytes).is_ok()))
}
