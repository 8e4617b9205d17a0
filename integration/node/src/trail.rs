//! What the audit trail that a machine handed back says of a start.
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::path::Path;

#[derive(Debug)]
pub(crate) struct Trail(Vec<Value>);

/// How a start ended.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) started: bool,
    /// Rules that denied, and what they said.
    pub(crate) rules: Vec<String>,
    pub(crate) facts: Vec<String>,
    /// What lies in /etc/boltseal did not judge.
    pub(crate) last_good: bool,
    /// What the record says beside its findings.
    pub(crate) note: String,
    /// How firmly the image's bytes are bound to its signature.
    pub(crate) integrity: String,
    /// What the kernel compares each of its layers with.
    pub(crate) layers: Vec<String>,
}

impl Trail {
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let mut files: Vec<_> = fs::read_dir(folder).context("no trail came back")?.collect::<Result<_, _>>()?;
        files.sort_by_key(fs::DirEntry::file_name);
        let mut records = Vec::new();
        for file in files {
            if file.path().extension().is_some_and(|extension| extension == "jsonl") {
                for line in fs::read_to_string(file.path())?.lines() {
                    records.push(serde_json::from_str(line)?);
                }
            }
        }
        Ok(Self(records))
    }

    /// The one start of this container in that boot.
    pub(crate) fn start(&self, boot_id: &str, id: &str) -> Result<Start> {
        self.only(boot_id, id, |_| true)
    }

    /// The same, of those that did not run into a time limit: each of these was tried again.
    pub(crate) fn start_in_time(&self, boot_id: &str, id: &str) -> Result<Start> {
        let late = |finding: &Value| {
            let fact = finding["fact"].as_str().unwrap_or_default();
            finding["outcome"] == "deny" && fact.contains(crate::sealed::TIMEOUT)
        };
        self.only(boot_id, id, |record| !record["findings"].as_array().into_iter().flatten().any(late))
    }

    fn only(&self, boot_id: &str, id: &str, counts: impl Fn(&Value) -> bool) -> Result<Start> {
        let own =
            |record: &&Value| record["ev"] == "decision" && record["boot_id"] == boot_id && record["what"]["id"] == id;
        let mut decisions = self.0.iter().filter(own).filter(|record| counts(record));
        let decision =
            decisions.next().with_context(|| format!("the trail holds no decision on {id:?} in this boot"))?;
        ensure!(decisions.next().is_none(), "the trail holds two decisions on {id:?}");
        let end = self.0.iter().find(|record| record["ev"] == "started" && record["of"] == decision["id"]);
        let started = end.is_some();
        let allowed = decision["decision"] == "allow";
        ensure!(allowed == started, "{id:?}: allowed {allowed}, started {started}");
        let findings = || decision["findings"].as_array().into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let denials: Vec<&Value> = findings().filter(|finding| finding["outcome"] == "deny").collect();
        ensure!(allowed == denials.is_empty(), "{id:?}: allowed {allowed}, denials {denials:?}");
        let mut rules: Vec<String> = denials.iter().map(|finding| text(&finding["rule"])).collect();
        rules.dedup();
        Ok(Start {
            started,
            rules,
            facts: denials.iter().map(|finding| text(&finding["fact"])).collect(),
            last_good: findings().any(|finding| finding["condition"] == "last-good"),
            note: text(&decision["note"]),
            integrity: text(&decision["integrity"]),
            layers: end.and_then(|end| end["layers"].as_array()).into_iter().flatten().map(text).collect(),
        })
    }
}

impl Start {
    pub(crate) fn says(&self, text: &str) -> bool {
        self.facts.iter().any(|fact| fact.contains(text))
    }

    /// Denied by exactly these rules, one of which says `text`.
    pub(crate) fn refused(&self, rules: &[&str], text: &str) -> bool {
        !self.started && self.rules == rules && self.says(text)
    }
}
