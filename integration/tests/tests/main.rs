//! The main job and everything that is refused, on containerd 1.6 and 2.1, each in a private machine of its own, beside each other:
//!
//!   cargo test -p boltseal-integration-tests --test main [-- PART..]     parts: life, cri, owner, grants, users (user-namespace: without pods), cases, warn, hooks, node, policies, scanned, inspected, signed, network, listed, fetch, anomalies, watch, odd, mutated; 1.6, 2.1; a part of a case's name
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod anomalies;
mod checks;
mod cri;
mod damaged;
mod fetch;
mod grants;
mod hooks;
mod inspected;
mod life;
mod listed;
mod mutated;
mod network;
mod node;
mod odd;
mod owner;
mod policies;
mod scanned;
mod signed;
mod users;
mod warn;
mod watch;

use anyhow::{Result, bail, ensure};
use stack::cases;
use stack::containerd::Version;
use stack::leak::Snapshot;
use stack::node::{Node, World};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let versions = Version::ALL.map(|version| version.name().trim_start_matches("containerd "));
    let one_is_chosen = std::env::args().skip(1).any(|word| versions.contains(&word.as_str()));
    if stack::private::is_outside() && !one_is_chosen {
        return stack::beside::beside(&versions);
    }
    stack::private::machine(work)
}

/// What the command line chose; without words, everything.
pub(crate) struct Choice(Vec<String>);

impl Choice {
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|word| name.contains(word.as_str()))
    }
}

/// Runs checks one after the other and remembers which failed.
#[derive(Default)]
pub(crate) struct Report {
    passed: usize,
    failed: Vec<String>,
}

impl Report {
    pub(crate) fn check(&mut self, name: &str, run: impl FnOnce() -> Result<String>) {
        let start = Instant::now();
        match run() {
            Ok(said) => {
                self.passed += 1;
                println!("ok    {name} ({} ms) {said}", start.elapsed().as_millis());
            }
            Err(error) => {
                println!("FAIL  {name}: {error:#}");
                self.failed.push(name.into());
            }
        }
    }

    /// A check that leaves nothing behind; what it asked to be undone is undone either way.
    pub(crate) fn clean(&mut self, name: &str, world: &mut World, run: fn(&mut World) -> Result<String>) {
        self.check(name, || {
            let clean = Snapshot::take()?;
            let said = run(world);
            let undone = world.undo();
            let said = said?;
            undone?;
            clean.compare()?;
            Ok(said)
        });
    }
}

/// Parts of the tests, as the command line names them.
const PARTS: [&str; 21] = [
    "life",
    "cri",
    "owner",
    "grants",
    "users",
    "user-namespace",
    "cases",
    "warn",
    "hooks",
    "node",
    "policies",
    "scanned",
    "inspected",
    "signed",
    "network",
    "listed",
    "fetch",
    "anomalies",
    "watch",
    "odd",
    "mutated",
];

fn work(scratch: &Path) -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let is_version = |word: &String| Version::ALL.iter().any(|version| version.name().ends_with(word.as_str()));
    let cases = cases::all();
    for word in &words {
        let known = is_version(word)
            || PARTS.iter().any(|part| part.contains(word.as_str()))
            || cases.iter().any(|case| case.name.contains(word.as_str()));
        ensure!(known, "{word:?} is no part of the tests and in no case's name");
    }
    let versions: Vec<Version> = Version::ALL
        .into_iter()
        .filter(|version| {
            let asked = |word: &String| version.name().ends_with(word.as_str());
            !words.iter().any(is_version) || words.iter().any(asked)
        })
        .collect();
    let choice = Choice(words.into_iter().filter(|word| !is_version(word)).collect());

    let node = Node::make(scratch, true)?;
    node.enroll()?;
    for image in node.images.iter() {
        node.import(image)?;
    }
    let mut node = Some(node);
    let mut report = Report::default();
    for version in versions {
        println!("---- {}", version.name());
        let Some(given) = node.take() else { bail!("no node") };
        let mut world = World::start(given, version)?;
        let outcome = on(&mut world, version, &choice, &mut report);
        if outcome.is_err() || !report.failed.is_empty() {
            println!("---- the end of containerd's log\n{}", world.containerd.log());
        }
        outcome?;
        node = Some(world.end()?);
    }
    report.check("the trail verifies", checks::trail_verifies);
    println!("{} passed, {} failed", report.passed, report.failed.len());
    if !report.failed.is_empty() {
        bail!("failed: {}", report.failed.join("; "));
    }
    Ok(())
}

fn on(world: &mut World, version: Version, choice: &Choice, report: &mut Report) -> Result<()> {
    let name = |what: &str| format!("{}: {what}", version.name());
    // The first start makes folders that stay for the next ones; only then can a leak be told from a beginning.
    let request = world.request("app", &["/bin/true"])?;
    report.check(&name("a signed image starts"), || {
        let ended = world.complete(&request)?;
        ensure!(ended.status == 0, "{ended:?}");
        Ok(String::new())
    });
    if choice.wants("life") {
        life::all(world, report, &name);
        damaged::all(world, report, &name);
    }
    if choice.wants("cri") {
        cri::all(world, report, &name);
    }
    if choice.wants("owner") {
        owner::all(world, report, &name);
    }
    if choice.wants("grants") {
        grants::all(world, report, &name);
    }
    if choice.wants("users") {
        users::all(world, version, report, &name);
    } else if choice.wants("user-namespace") {
        users::one(world, report, &name);
    }
    // The older one has no image verifiers. Before the cases, whose twins get signatures in the registry.
    if version == Version::V2_1 && choice.wants("fetch") {
        fetch::all(world, report, &name);
    }
    // What is refused does not depend on containerd's version beyond its spec: every case on one, each kind on the other.
    for case in cases::all() {
        if choice.wants("cases") || choice.wants(case.name) {
            report.check(&name(&format!("refused: {}", case.name)), || case.check(world));
        }
    }
    if version == Version::V1_6 {
        warn::all(world, choice, report, &name);
    }
    if choice.wants("hooks") {
        hooks::all(world, report, &name);
    }
    if choice.wants("node") {
        node::all(world, report, &name);
    }
    if choice.wants("policies") {
        policies::all(world, report, &name);
    }
    if choice.wants("scanned") {
        scanned::all(world, version, report, &name);
    }
    if choice.wants("inspected") {
        inspected::all(world, report, &name);
    }
    if choice.wants("signed") {
        signed::all(world, report, &name);
    }
    if choice.wants("network") {
        network::all(world, report, &name);
    }
    if choice.wants("listed") {
        listed::all(world, report, &name);
    }
    if choice.wants("anomalies") {
        anomalies::all(world, report, &name);
    }
    if choice.wants("watch") {
        watch::all(world, report, &name);
    }
    if choice.wants("odd") {
        odd::all(world, report, &name);
    }
    // containerd 2.1 reads the spec itself after it started a shim, and leaves that shim behind where it refuses.
    if version == Version::V1_6 && choice.wants("mutated") {
        mutated::all(world, report, &name);
    }
    Ok(())
}
