//! What a start pays for a keyless signature, microseconds: `cargo run --release -p boltseal-keyless --example keyless_cost`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, missing_docs, reason = "a measurement")]
use boltseal_keyless::{judge, prepare};
use boltseal_trust::keyless::{Demands, Fulcio};
use boltseal_trust::{Proposal, Source, propose};
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

/// The heap of the gate, whose start pays it.
#[global_allocator]
static HEAP: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

const RUNS: usize = 500;

fn main() {
    prepare();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let read = |name: &str| std::fs::read(data.join(name)).unwrap();
    println!("{:44} {:>9} {:>9}", "us", "least", "median");
    for (root, bundle) in [("public-good.json", "rekor-v1.json"), ("staging.json", "rekor-v2.json")] {
        let (root, file) = (read(root), read(bundle));
        let demands = Demands { log: true, sct: true };
        let fulcio = Fulcio::new(&root, demands).unwrap();
        let Ok(Proposal::Signature(proposal)) = propose(Source::SigstoreBundle, &file) else { panic!() };
        let of = proposal.digest();
        let certified = fulcio.verify_attestation(&proposal, &of).unwrap();
        let question = fulcio.question(&certified, &file, &of);
        assert!(certified.accept(&judge(&question)).is_ok());
        time(&format!("gate: read the root of {bundle}"), || Fulcio::new(&root, demands).unwrap());
        time(&format!("gate: verify {bundle}"), || fulcio.verify_attestation(&proposal, &of).unwrap());
        time(&format!("worker: judge {bundle}"), || judge(&question));
    }
}

fn time<T>(name: &str, mut run: impl FnMut() -> T) {
    let mut taken: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let begun = Instant::now();
            black_box(run());
            begun.elapsed()
        })
        .collect();
    taken.sort_unstable();
    let us = |duration: Option<&Duration>| duration.map_or(0.0, |d| d.as_secs_f64() * 1e6);
    println!("{name:44} {:>9.1} {:>9.1}", us(taken.first()), us(taken.get(RUNS / 2)));
}
