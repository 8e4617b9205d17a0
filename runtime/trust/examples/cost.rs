//! What a start pays for its signature, microseconds: `cargo run --release -p boltseal-trust --example cost`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, missing_docs, reason = "a measurement")]
use boltseal_trust::notation::{Notary, accept, appraise};
use boltseal_trust::{
    Key, Link, Proposal, SignatureProposal, Source, bind_child, bind_config, digest, import_layout, propose,
    verify_signature,
};
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

const RUNS: usize = 2000;

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let read = |path: &str| std::fs::read(root.join(path)).unwrap();
    let key = Key::from_spki_pem(std::str::from_utf8(&read("keys/signer.pub")).unwrap()).unwrap();
    let (index, manifest, config) =
        (read("image/app.index.json"), read("image/app.manifest.json"), read("image/app.config.json"));
    let image = digest(&manifest);
    println!("{:44} {:>9} {:>9}", "us", "least", "median");
    for (layout, source) in [("cosign2", Source::CosignSignature), ("cosign3", Source::SigstoreBundle)] {
        let folder = root.join("layouts").join(layout);
        let blob = |name: &str| std::fs::read(folder.join("blobs").join(name.replace(':', "/")));
        let file = import_layout(blob, &std::fs::read(folder.join("index.json")).unwrap()).unwrap().files.remove(0);
        let Ok(Proposal::Signature(proposal)) = propose(source, &file.bytes) else { panic!() };
        let encoded = Proposal::Signature(proposal.clone()).encode();
        time(&format!("worker: parse {layout} file and encode"), || propose(source, &file.bytes).unwrap().encode());
        time("gate: decode", || Proposal::decode(&encoded).unwrap());
        time("gate: verify", || verify_signature(&proposal, &key, &image).unwrap());
    }
    let image_of_keys = digest(&read("algorithms/image.json"));
    for name in ["rsa2048", "rsa3072", "rsa4096", "p384", "ed25519"] {
        let pem = read(&format!("algorithms/{name}.pub"));
        let key = Key::from_spki_pem(std::str::from_utf8(&pem).unwrap()).unwrap();
        let Ok(Proposal::Signature(proposal)) =
            propose(Source::CosignSignature, &read(&format!("algorithms/{name}.sig.json")))
        else {
            panic!()
        };
        time(&format!("gate: read key {name}"), || Key::from_spki_pem(std::str::from_utf8(&pem).unwrap()).unwrap());
        time(&format!("gate: verify {name}"), || verify_signature(&proposal, &key, &image_of_keys).unwrap());
    }
    let pem = String::from_utf8(read("notation/root.pem")).unwrap();
    let notary = Notary::new(&pem, &["CN=ci".into()], false).unwrap();
    time("gate: read a file of one root", || Notary::new(&pem, &["CN=ci".into()], false).unwrap());
    for name in ["p256.jws", "p256.cose", "rsa3072.jws", "rsa3072.cose"] {
        let source = if name.ends_with("jws") { Source::NotationJws } else { Source::NotationCose };
        let bytes = read(&format!("notation/{name}"));
        let Ok(Proposal::Signature(SignatureProposal::Notation(proposal))) = propose(source, &bytes) else { panic!() };
        let vouched = notary.verify(&proposal, &image).unwrap();
        let question = notary.question(&proposal, Some(1_798_761_600));
        assert!(accept(&vouched, &appraise(&question)).is_ok());
        time(&format!("worker: parse {name} and encode"), || propose(source, &bytes).unwrap().encode());
        time(&format!("gate: verify {name}"), || notary.verify(&proposal, &image).unwrap());
        time(&format!("worker: appraise {name}"), || appraise(&question));
    }
    let Ok(Proposal::Index(listed)) = propose(Source::Index, &index) else { panic!() };
    let Ok(Proposal::Manifest(parsed)) = propose(Source::Manifest, &manifest) else { panic!() };
    let Ok(Proposal::Config(text)) = propose(Source::Config, &config) else { panic!() };
    time("worker: parse index, manifest, config", || {
        (propose(Source::Index, &index), propose(Source::Manifest, &manifest), propose(Source::Config, &config))
    });
    time("gate: bind index, manifest, config", || {
        bind_child(&index, Link::IndexToManifest, &listed.entries[0].descriptor.digest, &manifest).unwrap();
        bind_child(&manifest, Link::ManifestToConfig, &parsed.config.digest, &config).unwrap();
        bind_config(&config, &text).unwrap();
    });
}

fn time<T>(what: &str, mut work: impl FnMut() -> T) {
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            black_box(work());
            start.elapsed()
        })
        .collect();
    times.sort();
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    println!("{what:44} {:9.1} {:9.1}", us(times[0]), us(times[RUNS / 2]));
}
