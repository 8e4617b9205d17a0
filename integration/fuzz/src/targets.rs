//! One target per parser. A target panics when its property does not hold; what it returns tells outcomes apart, so
//! that an input with a new one is mutated further.
#![allow(clippy::panic, reason = "a target panics when its property does not hold")]
mod fetch;
mod files;
mod grants;
mod keyless;
mod scan;
mod start;
mod trust;

use fetch::{fetch_challenge, fetch_docker, fetch_frames, fetch_head, fetch_referrers, store_tar};
use files::{
    audit_line, audit_text, evidence_cri, evidence_rootfs, import_policy, node_reply, node_verdict, policy_network,
    policy_pattern, policy_secrets, policy_signed, policy_toml,
};
use grants::{import_workload, trust_break_glass, trust_envelope, trust_grant};
use keyless::{keyless_bundle, keyless_judge, keyless_root};
use trust::{
    image, signature, trust_answer, trust_appraise, trust_bind, trust_key, trust_layout, trust_roots, trust_said,
    trust_statement, trust_verity,
};

use boltseal_evidence as evidence;
use boltseal_fuzz::random::Random;
use boltseal_message as message;
use boltseal_node as node;
use boltseal_trust::Source;
use std::collections::BTreeMap;
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
    Target { name: "keyless_root", holds: "what is no trusted root is refused", run: keyless_root },
    Target { name: "keyless_bundle", holds: "only true statements are taken", run: keyless_bundle },
    Target { name: "keyless_judge", holds: "nobody signs but who did", run: keyless_judge },
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
    Target { name: "trust_dsse", holds: "only true signatures verify", run: |b| signature(Source::Dsse, b) },
    Target {
        name: "trust_notation",
        holds: "only what was truly signed under the root verifies",
        run: |b| signature(Source::NotationJws, b),
    },
    Target {
        name: "trust_cose",
        holds: "only what was truly signed under the root verifies",
        run: |b| signature(Source::NotationCose, b),
    },
    Target { name: "trust_appraise", holds: "whatever is asked has an answer that can be read", run: trust_appraise },
    Target {
        name: "trust_verity",
        holds: "what is read of a sealed image can be written and read again",
        run: trust_verity,
    },
    Target { name: "trust_roots", holds: "a file of roots has at least one", run: trust_roots },
    Target { name: "trust_answer", holds: "whatever a worker answers, only true signatures verify", run: trust_answer },
    Target {
        name: "trust_statement",
        holds: "what is read of a statement is bounded and adds up",
        run: trust_statement,
    },
    Target { name: "trust_said", holds: "whatever a worker says of a statement is bounded", run: trust_said },
    Target { name: "policy_secrets", holds: "what is hidden is found, and not shown", run: policy_secrets },
    Target { name: "trust_key", holds: "a key that is read is the bytes that it is written as", run: trust_key },
    Target { name: "trust_layout", holds: "every file that is made can be read by a start", run: trust_layout },
    Target { name: "fetch_challenge", holds: "a URL that is read is read again as the same", run: fetch_challenge },
    Target { name: "fetch_head", holds: "no header has a line end", run: fetch_head },
    Target { name: "fetch_docker", holds: "no registry gets another one's credentials", run: fetch_docker },
    Target { name: "fetch_frames", holds: SAME, run: fetch_frames },
    Target { name: "fetch_referrers", holds: "what may be a signature comes first", run: fetch_referrers },
    Target { name: "store_tar", holds: "every blob is as long as it says", run: store_tar },
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
    Target {
        name: "message_seen",
        holds: "what a program told is shown on one line; nothing else is an event",
        run: |b| {
            let read = message::Seen::decode(b);
            if let Ok(seen) = &read {
                assert_eq!(b.len(), message::EVENT_LEN);
                let shown = seen.to_string();
                assert!(shown.len() < 64 && !shown.chars().any(char::is_control), "{shown}");
                assert!(seen.comm.chars().count() <= 16, "{}", seen.comm);
            }
            outcome(&read.map_err(|e| e.0).map(|seen| (seen.kind, seen.udp)))
        },
    },
    Target { name: "scan_answer", holds: SAME, run: scan::scan_answer },
    Target { name: "scan_cached", holds: "what is torn or altered does not count", run: scan::scan_cached },
    Target { name: "scan_capability", holds: "what is told is one short line", run: scan::scan_capability },
    Target { name: "scan_peek", holds: "a program is the same in whatever parts it is read", run: scan::scan_peek },
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
        name: "node_answer",
        holds: "a reply is one to the command that was sent, with the sessions that were sent",
        run: crate::node_targets::answer,
    },
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
    Target {
        name: "trust_pod_token",
        holds: "a signed token proves an account only by the claims that say so",
        run: crate::node_targets::pod_token,
    },
    Target { name: "trust_jwks", holds: "only the key that signed verifies", run: crate::node_targets::jwks },
    Target { name: "node_enrolment", holds: "no file is two things", run: crate::node_targets::enrolment },
    Target { name: "policy_signed", holds: "one spelling, and nobody's signature verifies", run: policy_signed },
    Target { name: "import_policy", holds: "what another tool's policy becomes passes lint", run: import_policy },
    Target {
        name: "import_workload",
        holds: "what a manifest becomes is a grant that a node reads",
        run: import_workload,
    },
    Target { name: "trust_grant", holds: "what is read of a grant has one reading", run: trust_grant },
    Target {
        name: "trust_envelope",
        holds: "what a worker finds is what the gate gets, and nobody signed it",
        run: trust_envelope,
    },
    Target { name: "trust_break_glass", holds: "what is read is bounded and whole", run: trust_break_glass },
    Target { name: "policy_toml", holds: "no panic", run: policy_toml },
    Target {
        name: "evidence_spec",
        holds: "no panic",
        run: |b| outcome(&evidence::spec::parse(b).map(|p| p.foreign_fields.len())),
    },
    Target {
        name: "start_spec",
        holds: "no start that the policy does not allow, nothing in a sealed spec that no oracle expects; sealed stays sealed",
        run: start::run,
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
        name: "policy_network",
        holds: "what is read is written as it is read; what is declared opens nothing that is not granted",
        run: policy_network,
    },
    Target {
        name: "evidence_json",
        holds: "no panic",
        run: |b| outcome(&evidence::json::parse(b, 1 << 20).map(|_| ())),
    },
];

/// Changes an input; the second is what a splice takes from.
pub(crate) type Mutator = fn(&mut Random, &[u8], &[u8]) -> Vec<u8>;

/// What changes the inputs of a target: bytes, but where somebody knows what they mean.
pub(crate) fn mutator(target: &Target) -> Mutator {
    if target.name == "start_spec" { start::mutate } else { crate::mutate::mutate }
}

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
