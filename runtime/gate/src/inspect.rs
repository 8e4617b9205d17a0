//! `boltseal-runtime inspect`, for `boltseal image inspect`: what a start would find out about an image, and what the rules on
//! images would say of it, by the very code of a start. It starts nothing and records nothing.
//!
//! One JSON document on stdout; on stderr, line by line, how far a scan is.
mod told;

use crate::checked;
use crate::gather;
use crate::image::{NoProof, Signed, prove};
use crate::log::spill;
use crate::trail::Book;
use crate::verity;
use anyhow::{Context, Result, bail};
use boltseal_evidence::containerd::{CAP, Client, Container, Target};
use boltseal_evidence::rootfs::rootfs_facts;
use boltseal_jail::Jail;
use boltseal_launch::SealedMount;
use boltseal_policy::facts::{Door, Facts, Rootfs};
use boltseal_policy::{Fact, Finding, Outcome, Verdict, decide};
use serde_json::{Value, json};
use std::io::Write;
use std::time::{Duration, Instant};

/// A scan that somebody waits for before a terminal.
const PATIENCE: Duration = Duration::from_secs(3600);

/// `ADDRESS NAMESPACE SNAPSHOTTER NAME`.
pub(crate) fn inspect(words: &[String]) -> Result<()> {
    let [address, namespace, snapshotter, name] = words else { bail!("inspect ADDRESS NAMESPACE SNAPSHOTTER NAME") };
    let document = Looked { address, namespace, snapshotter, name }.look()?;
    let text = serde_json::to_string(&document)?;
    writeln!(std::io::stdout(), "{text}").context("stdout")
}

struct Looked<'a> {
    address: &'a str,
    namespace: &'a str,
    snapshotter: &'a str,
    name: &'a str,
}

impl Looked<'_> {
    /// One connection lives for two seconds: a scan takes longer.
    fn client(&self) -> Result<Client> {
        Ok(Client::connect(self.address, self.namespace, Instant::now() + CAP)?)
    }

    fn look(&self) -> Result<Value> {
        let client = self.client()?;
        let target = client.image(self.name)?;
        let book = Book::open();
        let policy = match gather::policy_in_force() {
            Ok(policy) => policy,
            Err(why) => return Ok(json!({ "policy_error": why })),
        };
        let mut facts = gather::common(Door::Create, &book, &policy);
        facts.subject.image_name = self.name.to_owned();

        let deadline = Instant::now() + CAP;
        let jail = Jail::new(deadline).map_err(anyhow::Error::msg)?;
        let signed = Signed {
            jail: &jail,
            signers: &policy.signers,
            now: facts.now.is().copied(),
            reads: boltseal_policy::rules::statements_asked(&policy.rules),
        };
        // Without a container there is no snapshot to choose a manifest by: the one that is unpacked here.
        let container = Container { image: self.name.to_owned(), ..nobodys(self.snapshotter) };
        facts.image = prove(&client, &signed, &container, "").map_or_else(NoProof::fact, Fact::Is);
        let parts =
            facts.image.is().map(|image| told::parts(&client, &jail, image)).transpose().map_err(anyhow::Error::msg)?;

        let draft = self.draft(&client, &facts)?;
        let sealed = draft.as_ref().and_then(|draft| {
            facts.rootfs = Fact::Is(draft.rootfs.clone());
            let sealed = verity::gather(&policy.rules, &mut facts, Instant::now() + CAP);
            checked::gather(&mut facts);
            sealed
        });
        as_signed(&mut facts);
        scan(&mut facts, sealed.as_deref());
        drop(draft);
        let (verdict, findings) = judged(&policy, &facts);
        Ok(document(self.name, &target, &policy.digest, &facts, parts, verdict, &findings))
    }

    fn draft(&self, client: &Client, facts: &Facts) -> Result<Option<Draft<'_>>> {
        let Fact::Is(image) = &facts.image else { return Ok(None) };
        let key = format!("boltseal-inspect-{}", std::process::id());
        match client.prepare_snapshot(self.snapshotter, &key, &image.chain_id) {
            Err(boltseal_evidence::containerd::Error::NotFound { .. }) => return Ok(None),
            other => other?,
        }
        let mut draft = Draft { of: self, key, rootfs: Rootfs::default() };
        let snapshot = client.snapshot(self.snapshotter, &draft.key)?;
        draft.rootfs = rootfs_facts(&snapshot.mounts, self.snapshotter, &snapshot);
        Ok(Some(draft))
    }
}

/// Whatever the policy asks: somebody wants to know.
fn scan(facts: &mut Facts, sealed: Option<&[SealedMount]>) {
    let (Fact::Is(image), Fact::Is(rootfs)) = (&facts.image, &facts.rootfs) else {
        facts.scan = Fact::Unknown("the image is not unpacked on this node".into());
        return;
    };
    let progress = &mut |p: boltseal_scan::Progress| spill(&format!("progress {} {}", p.entries, p.bytes));
    facts.scan = crate::scan::look(image, rootfs, sealed, Instant::now() + PATIENCE, progress);
}

/// A snapshot for as long as the layers are looked at.
struct Draft<'a> {
    of: &'a Looked<'a>,
    key: String,
    rootfs: Rootfs,
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        let removed = self.of.client().map(|client| client.remove_snapshot(self.of.snapshotter, &self.key));
        if let Err(e) | Ok(Err(e)) = removed.map(|r| r.map_err(anyhow::Error::from)) {
            spill(&format!("the snapshot {} stays until containerd collects it: {e}", self.key));
        }
    }
}

fn nobodys(snapshotter: &str) -> Container {
    Container {
        id: String::new(),
        image: String::new(),
        snapshotter: snapshotter.to_owned(),
        snapshot_key: String::new(),
        runtime_name: String::new(),
        labels: Default::default(),
        sandbox_id: None,
        cri: None,
        spec: Vec::new(),
    }
}

/// What would run is what the config says, so that nothing is refused for what nobody asked for here.
fn as_signed(facts: &mut Facts) {
    if let Fact::Is(image) = &facts.image {
        (facts.process.args, facts.process.cwd) = (image.args.clone(), image.cwd.clone());
    }
}

/// What the rules on images say; the others speak of a container, and there is none.
fn judged(policy: &gather::InForce, facts: &Facts) -> (&'static str, Vec<Finding>) {
    let findings = match decide(&policy.rules, facts) {
        Verdict::Allow(permit) => permit.findings().to_vec(),
        Verdict::Deny(denial) => denial.findings,
    };
    let findings: Vec<Finding> = findings.into_iter().filter(|f| f.rule.starts_with("BS-IMG-")).collect();
    let denied = |missing: bool| {
        let is_missing = |f: &Finding| ["unknown", "timeout", "unverified"].contains(&f.condition.as_str());
        findings.iter().any(|f| f.outcome == Outcome::Deny && is_missing(f) == missing)
    };
    let verdict = if denied(false) {
        "deny"
    } else if denied(true) {
        "undecided"
    } else {
        "allow"
    };
    (verdict, findings)
}

fn document(
    name: &str,
    target: &Target,
    policy: &str,
    facts: &Facts,
    parts: Option<Value>,
    verdict: &str,
    findings: &[Finding],
) -> Value {
    let finding = |f: &Finding| {
        let (outcome, by) = match &f.outcome {
            Outcome::Pass => ("pass", ""),
            Outcome::Sealed => ("sealed", ""),
            Outcome::Allowed(by) => ("allowed", by.as_str()),
            Outcome::Excepted(by) => ("excepted", by.as_str()),
            Outcome::Warn => ("warn", ""),
            Outcome::Deny => ("deny", ""),
        };
        json!({ "rule": f.rule, "outcome": outcome, "by": by, "condition": f.condition, "fact": f.fact, "fix": f.fix })
    };
    json!({
        "name": name,
        "target": { "digest": target.digest, "media_type": target.media_type },
        "policy": policy,
        "image": facts.image,
        "parts": parts,
        "rootfs": facts.rootfs,
        "scan": facts.scan,
        "verdict": verdict,
        "findings": findings.iter().map(finding).collect::<Vec<_>>(),
    })
}
