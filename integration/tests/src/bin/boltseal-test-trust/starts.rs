//! Keyless signatures where they count: at a start, by containerd, the shim and a gate that was built with the feature
//! `keyless`; then by one that was not. The image has no other signature, and what is refused has one fault.
//!
//! What is counted stands in the trail: a start that it does not show is none, and neither is a refusal.
use crate::{Case, fetched};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use stack::cases::{denies, first_line};
use stack::containerd::Version;
use stack::fulcio::{Fulcio, IDENTITY, ISSUER, Signer, certified_anew};
use stack::image::{Image, Recipe, build, sha256};
use stack::node::{NAMESPACE, Node, SIGNATURES, World, built, install_of, trail};
use stack::policy::{Policy, trust};
use stack::process::{output, run};
use stack::registry::ADDRESS;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const RULE: &str = "BS-IMG-001";
const FORMATS: [&str; 2] = ["keyless start, 1.6", "keyless start, 2.1"];
const NOTE: &str = "the trail's word";
pub(crate) const MISSING: &str = "this build has no keyless signatures. Fix: make build FEATURES=keyless";

/// A node on which the image's authority is keyless.
pub(crate) struct Stand {
    pub(crate) world: World,
    /// Programs with the feature, and without.
    keyless: PathBuf,
    pub(crate) plain: PathBuf,
    /// Of the key that signed: another good certificate, and one that had ended before.
    another: Vec<u8>,
    ended: Vec<u8>,
    /// Of each image, its signature files: name and bytes.
    files: Vec<(&'static str, Files)>,
}

type Files = Vec<(String, Vec<u8>)>;

struct Start {
    name: &'static str,
    image: &'static str,
    /// The rule that refuses, and what it says; None: it starts.
    refused: Option<(&'static str, &'static str)>,
    bend: fn(&mut Stand) -> Result<()>,
}

const fn starts(name: &'static str, image: &'static str, bend: fn(&mut Stand) -> Result<()>) -> Start {
    Start { name, image, refused: None, bend }
}

const fn refused(
    name: &'static str,
    image: &'static str,
    says: &'static str,
    bend: fn(&mut Stand) -> Result<()>,
) -> Start {
    Start { name, image, refused: Some((RULE, says)), bend }
}

const STARTS: [Start; 14] = [
    starts("signed by the identity that is named", "keyless", |_| Ok(())),
    refused("another identity named", "keyless", "whom the authority does not name", |stand| {
        stand.authority("identities", vec!["https://git.corp.example/intern/*"])
    }),
    refused("another issuer named", "keyless", "whom the authority does not name", |stand| {
        stand.authority("issuers", vec!["https://accounts.example"])
    }),
    refused("another trusted root", "keyless", "no CA of the trusted root signed", |stand| {
        stand.authority("trusted_root", "other.json")
    }),
    refused("another image's signature", "other", "signs another image", |stand| {
        stand.store("other", stand.of("keyless"))
    }),
    starts("the same image, its own signature", "other", |_| Ok(())),
    refused("a certificate that had ended when it signed", "keyless", "keyless: certificate chain", |stand| {
        stand.certified("keyless", &stand.ended.clone())
    }),
    starts("another certificate of the same kind", "keyless", |stand| {
        stand.certified("keyless", &stand.another.clone())
    }),
    refused("without a time stamp", "unstamped", "keyless: Bundle error: bundle mu", |_| Ok(())),
    refused("no signature at all", "keyless", "has no signature", |stand| stand.store("keyless", Vec::new())),
    refused("signed before the authority's least time", "keyless", "was made before", |stand| {
        stand.authority("min_signing_time", "2099-01-01")
    }),
    starts("signed after it", "keyless", |stand| stand.authority("min_signing_time", "2026-01-01")),
    Start {
        name: "a gate without the feature",
        image: "keyless",
        refused: Some(("BS-NOD-004", MISSING)),
        bend: |stand| install_of(&stand.plain),
    },
    starts("the one with it again", "keyless", |_| Ok(())),
];

pub(crate) fn cases(scratch: &Path) -> Result<Vec<Case>> {
    let plain = built("debug");
    let keyless = plain.join("keyless");
    let mut node = Node::of(&keyless, scratch, false)?;
    node.enroll()?;
    let fulcio = Fulcio::start(&node.work)?;
    // Made before the signatures, so that they are valid then.
    let ended = fulcio.certificate(&Signer { ended: true, ..Signer::default() })?;
    let another = fulcio.certificate(&Signer::default())?;
    // In one repository: a bundle names none, so the authority has one alone.
    for (tag, name) in [("1", "keyless"), ("2", "other"), ("3", "unstamped")] {
        let recipe = Recipe { release: name.into(), ..Recipe::default() };
        let image = build(&node.work, ADDRESS, "demo/keyless", tag, &recipe)?;
        fulcio.sign(&Signer { stamped: name != "unstamped", ..Signer::default() }, &image)?;
        node.images.insert(name, image);
    }
    for (name, ca) in [("release.json", "fulcio"), ("other.json", "other")] {
        trust(name, &fulcio.trusted_root(ca)?)?;
    }
    authority(&mut node.policy)?;
    node.policy.write()?;
    for image in node.images.iter() {
        node.import(image)?;
    }
    lint(&keyless, &plain)?;
    let (mut all, mut fetch) = (Vec::new(), Vec::new());
    for (version, format) in Version::ALL.into_iter().zip(FORMATS) {
        let world = World::start(node, version)?;
        let names = ["keyless", "other", "unstamped"];
        let files =
            names.map(|name| files(&world, name).map(|files| (name, files))).into_iter().collect::<Result<_>>()?;
        let (keyless, plain) = (keyless.clone(), plain.clone());
        let mut stand = Stand { world, keyless, plain, another: another.clone(), ended: ended.clone(), files };
        let mut ran = stand.all(format, &mut all);
        if version == Version::V2_1 {
            ran = ran.and_then(|()| fetched::cases(&mut stand).map(|more| fetch.extend(more)));
        }
        if ran.is_err() {
            println!("---- the end of containerd's log\n{}", stand.world.containerd.log());
        }
        ran?;
        node = stand.world.end()?;
    }
    counted(&all)?;
    run(Command::new("boltseal").args(["audit", "verify"]))?;
    all.extend(fetch);
    Ok(all)
}

fn authority(policy: &mut Policy) -> Result<()> {
    policy.push("authority", toml::from_str(&format!(
        "name = \"release\"\nformat = \"keyless\"\ntrusted_root = \"release.json\"\nidentities = [\"{IDENTITY}\"]\nissuers = [\"{ISSUER}\"]\n\
         log = false\nsct = false\nrepositories = [\"{ADDRESS}/demo/keyless\"]"
    ))?)?;
    policy.push(
        "scope",
        toml::from_str(&format!("repository = \"{ADDRESS}/demo/keyless\"\nauthorities = [\"release\"]"))?,
    )
}

/// The operator's program says beforehand what a gate of the same build would.
fn lint(keyless: &Path, plain: &Path) -> Result<()> {
    let lint = |of: &Path| output(Command::new(of.join("boltseal")).args(["policy", "lint"]));
    let (with, without) = (lint(keyless)?, lint(plain)?);
    ensure!(with.ok(), "policy lint of a build with keyless: {with:?}");
    ensure!(without.code == 4, "policy lint of a build without: {without:?}");
    ensure!(without.stdout.contains("built without `keyless`"), "{without:?}");
    ensure!(without.stdout.contains("Fix: make build FEATURES=keyless"), "{without:?}");
    Ok(())
}

fn files(world: &World, name: &str) -> Result<Files> {
    let folder = Path::new(SIGNATURES).join(world.node.images.get(name)?.hex());
    let mut files = Files::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        files.push((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?));
    }
    ensure!(files.len() == 1, "{name} has {} signature files", files.len());
    Ok(files)
}

/// As many starts and refusals as were meant stand in the trail, and no other of these containers.
fn counted(all: &[Case]) -> Result<()> {
    let records = trail()?;
    let ours = |record: &&Value| record["what"]["id"].as_str().is_some_and(|id| id.starts_with("keyless-"));
    let count = |is: fn(&Value) -> bool| records.iter().filter(ours).filter(|record| is(record)).count();
    let (started, denied) = (count(|r| r["ev"] == "started"), count(|r| r["decision"] == "deny"));
    let accepted = all.iter().filter(|case| case.ours.is_ok()).count();
    ensure!(
        (started, denied) == (accepted, all.len() - accepted),
        "the trail has {started} starts and {denied} refusals, of {accepted} and {}",
        all.len() - accepted
    );
    Ok(())
}

impl Stand {
    fn all(&mut self, format: &'static str, all: &mut Vec<Case>) -> Result<()> {
        for (at, start) in STARTS.iter().enumerate() {
            (start.bend)(self).with_context(|| start.name)?;
            let id = format!("keyless-{}-{at}", format.trim_start_matches("keyless start, "));
            let ours = self.start(&id, start).with_context(|| format!("{format}: {}", start.name))?;
            all.push(Case { format, name: start.name, accept: start.refused.is_none(), ours, tool: None, note: NOTE });
            self.undo()?;
        }
        self.inspected()
    }

    /// Policy, store and programs as they were.
    pub(crate) fn undo(&mut self) -> Result<()> {
        install_of(&self.keyless)?;
        self.world.node.policy.write()?;
        for (name, files) in self.files.clone() {
            self.store(name, files)?;
        }
        Ok(())
    }

    /// What containerd said and what the trail says of it, which must be the same.
    fn start(&mut self, id: &str, start: &Start) -> Result<Result<(), String>> {
        let request = self.world.named(id, start.image, &["/bin/true"])?;
        let answer = self.world.complete(&request);
        let records: Vec<Value> = trail()?.into_iter().filter(|record| record["what"]["id"] == id).collect();
        let started = records.iter().filter(|record| record["ev"] == "started").count();
        let denied = records.iter().filter(|record| record["decision"] == "deny").count();
        match (answer, start.refused) {
            (Ok(ended), _) => {
                ensure!(ended.status == 0 && (started, denied) == (1, 0), "{ended:?}, and the trail: {records:?}");
                named(&records)?;
                Ok(Ok(()))
            }
            (Err(status), None) => Ok(Err(first_line(&status))),
            (Err(status), Some((rule, says))) => {
                ensure!((started, denied) == (0, 1), "{status:?}, and the trail: {records:?}");
                ensure!(records.iter().any(|record| denies(record, rule)), "not by {rule}: {records:?}");
                let line = first_line(&status);
                ensure!(line.contains(&format!("denied by {rule}: ")), "{line}");
                ensure!(status.message().contains(says), "nothing about \"{says}\": {}", status.message());
                Ok(Err(line))
            }
        }
    }

    /// What an operator sees of it before any start.
    fn inspected(&self) -> Result<()> {
        let name = &self.world.node.images.get("keyless")?.name;
        let mut command = Command::new("boltseal");
        let said = output(command.args(["image", "inspect", "--namespace", NAMESPACE, name]))?;
        let line = format!("by release, sigstore-keyless by {IDENTITY} of {ISSUER}, trust=jailed,");
        ensure!(said.stdout.contains(&line), "image inspect says nothing about {line}: {said:?}");
        Ok(())
    }

    pub(crate) fn image(&self, name: &str) -> Result<&Image> {
        self.world.node.images.get(name)
    }

    fn of(&self, name: &str) -> Files {
        self.files.iter().find(|(of, _)| *of == name).map(|(_, files)| files.clone()).unwrap_or_default()
    }

    /// Another value in the authority.
    pub(crate) fn authority(&mut self, key: &str, value: impl Into<toml::Value>) -> Result<()> {
        let mut policy = self.world.node.policy.clone();
        policy.set_authority("release", key, value)?;
        policy.write()
    }

    /// These are the image's signature files, and no others.
    pub(crate) fn store(&self, name: &str, files: Files) -> Result<()> {
        let folder = Path::new(SIGNATURES).join(self.image(name)?.hex());
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir(&folder)?;
        for (name, bytes) in files {
            fs::write(folder.join(name), bytes)?;
        }
        Ok(())
    }

    /// The image's signature with another certificate in its place.
    fn certified(&self, name: &str, certificate: &[u8]) -> Result<()> {
        let mut files = self.of(name);
        for (name, bytes) in &mut files {
            *bytes = certified_anew(bytes, certificate)?;
            let end = name.split_once('.').map_or("", |(_, end)| end);
            *name = format!("{}.{end}", sha256(bytes).trim_start_matches("sha256:"));
        }
        self.store(name, files)
    }
}

/// The decision names who signed: authority, identity, issuer, and that a jailed worker says so.
fn named(records: &[Value]) -> Result<()> {
    let decision = records.iter().find(|record| record["decision"] == "allow").context("no decision")?;
    let mut findings = decision["findings"].as_array().into_iter().flatten().filter(|f| f["rule"] == RULE);
    let fact = findings.next().and_then(|finding| finding["fact"].as_str()).context("no finding")?;
    let who = format!("signed by \"release\" (sigstore-keyless by {IDENTITY} of {ISSUER}, trust=jailed)");
    if !fact.ends_with(&who) || findings.next().is_some() {
        bail!("the record names another signer than {who}: {decision}");
    }
    Ok(())
}
