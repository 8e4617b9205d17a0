//! What the audit trail that a machine handed back says of its first start.
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// How it ended.
#[derive(Debug)]
pub(crate) enum Verdict {
    Started,
    Denied { rules: Vec<String>, fact: String },
}

pub(crate) fn verdict(trail: &Path, boot_id: &str) -> Result<Verdict> {
    let mut files: Vec<_> = fs::read_dir(trail).context("no trail came back")?.collect::<Result<_, _>>()?;
    files.sort_by_key(fs::DirEntry::file_name);
    let mut records = Vec::new();
    for file in files {
        if file.path().extension().is_some_and(|extension| extension == "jsonl") {
            for line in fs::read_to_string(file.path())?.lines() {
                records.push(serde_json::from_str::<Value>(line)?);
            }
        }
    }
    let own = |record: &&Value| record["ev"] == "decision" && record["boot_id"] == boot_id;
    let decision = records.iter().find(own).context("the trail holds no decision of this boot")?;
    let started = records.iter().any(|record| record["ev"] == "started" && record["of"] == decision["id"]);
    if decision["decision"] == "allow" {
        ensure!(started, "allowed, and not started");
        return Ok(Verdict::Started);
    }
    ensure!(!started, "denied, and started all the same");
    let denials: Vec<&Value> =
        decision["findings"].as_array().into_iter().flatten().filter(|finding| finding["outcome"] == "deny").collect();
    let Some(first) = denials.first() else { bail!("denied without a rule: {decision}") };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut rules: Vec<String> = denials.iter().map(|finding| text(&finding["rule"])).collect();
    rules.dedup();
    Ok(Verdict::Denied { rules, fact: text(&first["fact"]) })
}
