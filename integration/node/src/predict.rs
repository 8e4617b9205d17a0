//! `boltseal node predict`, off the node: what the next boot measures, told from its parts and the enrolled boot's event log.
use crate::boots;
use crate::build::{self, Built};
use crate::enrol::Enrolled;
use crate::plan::Lsm;
use crate::{cache, uki};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use stack::process::run;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// PCRs that must be predicted: kernel, command line and initrd.
const PREDICTED: [u32; 2] = [4, 9];

/// The value of each predicted PCR when `program` is booted where the good program of `lsm` was before.
pub(crate) fn next_boot(built: &Built, enrolled: &Enrolled, lsm: Lsm, program: &Path) -> Result<BTreeMap<u32, String>> {
    let now = built.work.join("now.efi");
    uki::program(&cache().join("stub.efi"), &boots::parts(built, lsm), &built.work, &now)?;
    let said = run(Command::new(build::made().join("boltseal"))
        .args(["-o", "json", "node", "predict", "--path", "uki", "--log"])
        .arg(enrolled.log(lsm))
        .arg("--now-kernel")
        .arg(&now)
        .arg("--kernel")
        .arg(program))?;
    let answer: Value = serde_json::from_str(&said).context("boltseal node predict")?;
    let mut values = BTreeMap::new();
    for pcr in PREDICTED {
        let value = answer["pcrs"][pcr.to_string()].as_str();
        values.insert(pcr, value.with_context(|| format!("PCR {pcr} is not predicted: {answer}"))?.to_owned());
    }
    ensure!(answer["boot_path"] == "uki", "predicted for another boot path: {answer}");
    Ok(values)
}
