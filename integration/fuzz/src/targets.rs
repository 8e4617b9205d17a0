//! One target per parser. A target panics when its property does not hold; what it returns tells outcomes apart, so
//! that an input with a new one is mutated further.
#![allow(clippy::panic, reason = "a target panics when its property does not hold")]
use boltseal_audit as audit;
use boltseal_evidence as evidence;
use boltseal_message as message;
use boltseal_node as node;
use boltseal_policy as policy;
use boltseal_trust::{
    Config, Descriptor, Digest, Key, Link, MAX_PROPOSAL, Proposal, Reject, SignatureProposal, Source, Unbound,
    bind_child, bind_config, bind_diff_ids, bundle_file, decode_answer, digest, encode_answer, import_layout, propose,
    verify_signature,
};
use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::LazyLock;

#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// What it shows.
    pub(crate) holds: &'static str,
    pub(crate) run: fn(&[u8]) -> u64,
}

const SAME: &str = "what is read can be written and read again";

pub(crate) const ALL: &[Target] = &[
    Target {
        name: "trust_index",
        holds: "the gate binds every digest that the worker reads",
        run: |b| image(Source::Index, b),
    },
    Target {
        name: "trust_manifest",
        holds: "the gate binds every digest that the worker reads",
        run: |b| image(Source::Manifest, b),
    },
    Target { name: "trust_target", holds: "one file is one kind of thing", run: |b| image(Source::Target, b) },
    Target {
        name: "trust_config",
        holds: "the gate binds every text that the worker reads",
        run: |b| image(Source::Config, b),
    },
    Target {
        name: "trust_bind",
        holds: "the gate binds nothing that the strict parser reads otherwise",
        run: trust_bind,
    },
    Target { name: "trust_sig", holds: "only true signatures verify", run: |b| signature(Source::CosignSignature, b) },
    Target {
        name: "trust_bundle",
        holds: "only true signatures verify",
        run: |b| signature(Source::SigstoreBundle, b),
    },
    Target { name: "trust_answer", holds: "whatever a worker answers, only true signatures verify", run: trust_answer },
    Target {
        name: "trust_key",
        holds: "no panic",
        run: |b| outcome(&text(b).map(Key::from_spki_pem).map(|r| r.map_err(|e| e.0))),
    },
    Target { name: "trust_layout", holds: "every file that is made can be read by a start", run: trust_layout },
    Target {
        name: "message_request",
        holds: SAME,
        run: |b| {
            let read = message::Request::decode(b);
            if let Ok(read) = &read {
                assert_eq!(message::Request::decode(&read.encode()).as_ref(), Ok(read));
            }
            outcome(&read.map_err(|e| e.0).map(|_| ()))
        },
    },
    Target {
        name: "message_reply",
        holds: SAME,
        run: |b| {
            let read = message::Reply::decode(b);
            if let Ok(read) = &read {
                assert_eq!(message::Reply::decode(&read.encode()).as_ref(), Ok(read));
            }
            outcome(&read.map_err(|e| e.0).map(|_| ()))
        },
    },
    Target { name: "audit_line", holds: "no panic, also behind a right sum", run: audit_line },
    Target { name: "audit_text", holds: "no control character is shown", run: audit_text },
    Target { name: "node_reply", holds: "no panic, whatever a TPM answers", run: node_reply },
    Target {
        name: "node_attest",
        holds: "no panic",
        run: |b| outcome(&node::quote::parse_attest(b).map(|_| ()).map_err(|e| e.to_string())),
    },
    Target {
        name: "node_signature",
        holds: "no panic",
        run: |b| outcome(&node::quote::parse_signature(b).map(|_| ()).map_err(|e| e.to_string())),
    },
    Target {
        name: "node_public",
        holds: "no panic",
        run: |b| outcome(&node::key::parse_public(b).map(|_| ()).map_err(|e| e.to_string())),
    },
    Target { name: "node_verdict", holds: "only the bytes that boltseal writes", run: node_verdict },
    Target {
        name: "node_log",
        holds: "only what a log leads to is proven; what is told has no control character",
        run: crate::node_targets::log,
    },
    Target {
        name: "node_log_answer",
        holds: "whatever a worker answers, the same",
        run: crate::node_targets::log_answer,
    },
    Target {
        name: "node_command_line",
        holds: "words are split where the kernel splits them",
        run: crate::node_targets::command_line,
    },
    Target {
        name: "trust_token",
        holds: "only the token that was truly signed verifies",
        run: crate::node_targets::token,
    },
    Target { name: "trust_jwks", holds: "only the key that signed verifies", run: crate::node_targets::jwks },
    Target { name: "node_enrolment", holds: "no file is two things", run: crate::node_targets::enrolment },
    Target { name: "policy_toml", holds: "no panic", run: policy_toml },
    Target {
        name: "evidence_spec",
        holds: "no panic",
        run: |b| outcome(&evidence::spec::parse(b).map(|p| p.foreign_fields.len())),
    },
    Target {
        name: "evidence_process",
        holds: "no panic",
        run: |b| outcome(&evidence::spec::parse_process(b).map(|p| p.foreign_fields.len())),
    },
    Target {
        name: "evidence_resources",
        holds: "no panic",
        run: |b| outcome(&evidence::spec::parse_resources(b).map(|p| p.foreign_fields.len())),
    },
    Target {
        name: "evidence_mountinfo",
        holds: "no panic",
        run: |b| outcome(&evidence::mountinfo::Table::parse(b).map(|t| t.entries.len())),
    },
    Target {
        name: "evidence_rootfs",
        holds: "what is of the known form has plain absolute folders alone",
        run: evidence_rootfs,
    },
    Target { name: "evidence_cri", holds: "metadata is of the container that was asked for", run: evidence_cri },
    Target {
        name: "policy_pattern",
        holds: "a prefix ends on a boundary; outside text is shown on one line",
        run: policy_pattern,
    },
    Target {
        name: "evidence_json",
        holds: "no panic",
        run: |b| outcome(&evidence::json::parse(b, 1 << 20).map(|_| ())),
    },
];

/// Tells outcomes apart by their text without its numbers (offsets would make every input new).
pub(crate) fn outcome(value: &impl Debug) -> u64 {
    let mut hasher = DefaultHasher::new();
    let text: String = format!("{value:?}").chars().filter(|c| !c.is_ascii_digit()).take(80).collect();
    text.hash(&mut hasher);
    hasher.finish()
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn image(source: Source, bytes: &[u8]) -> u64 {
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
fn trust_bind(bytes: &[u8]) -> u64 {
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

struct Signatures {
    keys: Vec<Key>,
    images: Vec<Digest>,
    /// (key id, sha256 of the signed payload, image): what was truly signed.
    truths: HashSet<(String, Digest, Digest)>,
}

static SIGNATURES: LazyLock<Signatures> = LazyLock::new(|| {
    let keys: Vec<_> = ["signer.pub", "stranger.pub"]
        .map(|name| {
            Key::from_spki_pem(&String::from_utf8_lossy(seed("trust_key", name))).unwrap_or_else(|e| panic!("{e}"))
        })
        .into();
    let mut known = Signatures { keys, images: Vec::new(), truths: HashSet::new() };
    for (target, source) in [("trust_sig", Source::CosignSignature), ("trust_bundle", Source::SigstoreBundle)] {
        for (name, file) in seeds(target).filter(|(name, _)| name.starts_with("real-")) {
            let Ok(Proposal::Signature(proposal)) = propose(source, file) else { panic!("{name}") };
            let (payload, image) = match &proposal {
                SignatureProposal::Cosign { payload, digest, .. }
                | SignatureProposal::Bundle { payload, digest, .. } => (payload, *digest),
            };
            for key in known.keys.iter().filter(|key| verify_signature(&proposal, key, &image).is_ok()) {
                known.truths.insert((key.id().to_owned(), digest(payload), image));
            }
            known.images.push(image);
        }
    }
    assert!(known.truths.len() >= 4, "the seeds hold no true signatures");
    known
});

/// Every verification that says yes is one that was truly signed; the reasons of the others tell inputs apart.
fn only_truth(proposal: &SignatureProposal) -> Vec<String> {
    let (SignatureProposal::Cosign { payload, .. } | SignatureProposal::Bundle { payload, .. }) = proposal;
    let known = &*SIGNATURES;
    let mut reasons = Vec::new();
    for key in &known.keys {
        for image in &known.images {
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

fn signature(source: Source, bytes: &[u8]) -> u64 {
    let read = propose(source, bytes);
    let mut reasons = Vec::new();
    if let Ok(proposal) = &read {
        again(proposal);
        reasons = only_what_stands(proposal);
    }
    outcome(&(read.map(|_| ()), reasons))
}

fn trust_answer(bytes: &[u8]) -> u64 {
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

fn trust_layout(bytes: &[u8]) -> u64 {
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
            let source =
                if file.name.ends_with(".sig.json") { Source::CosignSignature } else { Source::SigstoreBundle };
            assert!(propose(source, &file.bytes).is_ok(), "{}", file.name);
        }
    }
    outcome(&(found.map(|found| (found.files.len(), found.skipped)), bundle_file(bytes).is_ok()))
}

/// The line as it is, and with the sum that a forger would give it.
fn audit_line(bytes: &[u8]) -> u64 {
    let body = bytes.rsplit(|byte| *byte == b',').next().map_or(bytes, |tail| &bytes[..bytes.len() - tail.len()]);
    let body = body.strip_suffix(b",").unwrap_or(body);
    let mut summed = body.to_vec();
    summed.extend_from_slice(format!(",\"sum\":\"{}\"}}", digest(body).hex()).as_bytes());
    let read = audit::parse_line(&summed);
    assert!(!matches!(read, Err(audit::BadLine::NoSum | audit::BadLine::WrongSum)), "the sum is written otherwise");
    outcome(&(audit::parse_line(bytes).map(|_| ()), read.map(|_| ())))
}

fn audit_text(bytes: &[u8]) -> u64 {
    let Some(text) = text(bytes) else { return 0 };
    let shown = audit::clean(text, 200);
    assert!(!shown.chars().any(char::is_control), "{shown:?}");
    outcome(&(audit::Head::parse(text), audit::parse_since(text, 1_700_000_000)))
}

fn node_reply(bytes: &[u8]) -> u64 {
    use node::reply;
    let parsed = node::wire::parse_reply(bytes).map(|_| ()).map_err(|e| e.to_string());
    let parts = [
        reply::primary(bytes).is_ok(),
        reply::public(bytes).is_ok(),
        reply::quote(bytes).is_ok(),
        reply::pcr_values(bytes).is_ok(),
        reply::time(bytes).is_ok(),
        reply::random(bytes).is_ok(),
        reply::property(bytes, 0x105).is_ok(),
    ];
    outcome(&(parsed, parts))
}

fn node_verdict(bytes: &[u8]) -> u64 {
    let read = node::verdict::parse(bytes);
    if let Ok(verdict) = &read {
        assert_eq!(verdict.bytes().ok().as_deref(), Some(bytes));
    }
    outcome(&read.map(|_| ()).map_err(|e| e.to_string()))
}

fn policy_toml(bytes: &[u8]) -> u64 {
    let Some(text) = text(bytes) else { return 0 };
    // The part after a form feed is a drop-in.
    let read = match text.split_once('\u{c}') {
        Some((main, drop_in)) => policy::Policy::parse(main, &[("10-more.toml", drop_in)]),
        None => policy::Policy::parse(text, &[]),
    };
    outcome(&read.map(|_| ()))
}

/// A mount request: kind, source and target, then one option per line.
fn evidence_rootfs(bytes: &[u8]) -> u64 {
    let Some(text) = text(bytes) else { return 0 };
    let mut lines = text.split('\n').map(str::to_owned);
    let mut next = || lines.next().unwrap_or_default();
    let (kind, source, target) = (next(), next(), next());
    let mount = message::Mount { kind, source, target, options: lines.collect() };
    let request = [mount];
    let (overlay, wrong) = evidence::rootfs::parse(&request);
    if wrong.is_empty() {
        assert_eq!((request[0].kind.as_str(), request[0].target.as_str()), ("overlay", ""));
        assert!(!overlay.lowers.is_empty());
        for folder in overlay.lowers.iter().chain([&overlay.upper, &overlay.work]) {
            assert!(folder.starts_with('/'), "{folder:?}");
            assert!(!folder.split('/').any(|part| part == ".."), "{folder:?}");
        }
        assert!(evidence::rootfs::same(&request, &request));
    }
    outcome(&wrong)
}

fn evidence_cri(bytes: &[u8]) -> u64 {
    let mut outcomes = Vec::new();
    for kind in ["io.cri-containerd.container.metadata", "io.cri-containerd.sandbox.metadata"] {
        let any = prost_types::Any { type_url: "any".into(), value: bytes.to_vec() };
        let found = evidence::cri::metadata("c1", &[(kind.to_owned(), any)].into());
        if let Ok(Some(found)) = &found {
            assert_eq!(found.is_sandbox, kind.contains("sandbox"));
            assert!(!found.is_sandbox || found.sandbox_id == "c1");
        }
        outcomes.push(found.map(|_| ()));
    }
    outcome(&outcomes)
}

/// A pattern and a text, one line each.
fn policy_pattern(bytes: &[u8]) -> u64 {
    use policy::pattern;
    let Some(text) = text(bytes) else { return 0 };
    let (first, second) = text.split_once('\n').unwrap_or((text, ""));
    let covers = pattern::covers(first, second);
    if covers {
        let rest = &second[first.strip_suffix('/').unwrap_or(first).len()..];
        assert!(rest.is_empty() || rest.starts_with('/'), "{first:?} covers {second:?}");
    }
    assert!(!first.is_empty() || !covers);
    let matches = pattern::matches(first, second);
    assert_eq!(matches && !first.contains('*'), first == second && !first.contains('*'));
    assert!(pattern::matches("*", second) && pattern::matches(&format!("{second}*"), second));
    if let Some(normal) = pattern::normal(first) {
        assert_eq!(pattern::normal(&normal).as_ref(), Some(&normal));
        assert!(pattern::within(&normal, "/"));
    }
    let shown = policy::text::show(first);
    assert!(!shown.chars().any(|c| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c)), "{shown:?}");
    outcome(&(covers, matches, pattern::normal(first).is_some(), pattern::is_repository(first), shown.len() / 8))
}

/// The whole corpus, read once: (target, name) -> bytes.
static SEEDS: LazyLock<BTreeMap<(&'static str, String), Vec<u8>>> = LazyLock::new(|| {
    let load = |target: &'static Target| {
        let seeds = crate::corpus::load(target).unwrap_or_else(|e| panic!("{e}"));
        seeds.into_iter().map(|(name, bytes)| ((target.name, name), bytes))
    };
    ALL.iter().flat_map(load).collect()
});

fn seeds(target: &str) -> impl Iterator<Item = (&'static str, &'static [u8])> {
    SEEDS.iter().filter(move |((of, _), _)| *of == target).map(|((_, name), bytes)| (name.as_str(), bytes.as_slice()))
}

fn seed(target: &str, name: &str) -> &'static [u8] {
    seeds(target).find(|(found, _)| *found == name).unwrap_or_else(|| panic!("no seed {target}/{name}")).1
}
