//! A node that leaves the measured kernel. What was in force before stays on its disk; `/run` is new in each kernel.
use super::enrol;
use super::work::start;
use crate::job::{Outcome, version};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;

/// Outcomes of the kernels that were left.
const LEFT: &str = "/var/tmp/left-by-kexec.json";

pub(super) fn left() -> Result<Vec<Outcome>> {
    if !Path::new(LEFT).exists() {
        return Ok(Vec::new());
    }
    Ok(serde_json::from_slice(&fs::read(LEFT)?)?)
}

pub(super) fn leave(mut left: Vec<Outcome>, outcome: Outcome) -> Result<()> {
    left.push(outcome);
    Ok(fs::write(LEFT, serde_json::to_vec(&left)?)?)
}

/// A kernel that could load another is no place for a start (BS-NOD-002); with the rule on `warn` it is the only thing in
/// the way. The twin is every boot that closes kexec.
pub(super) fn is_open(outcome: &mut Outcome) -> Result<()> {
    let refusal = outcome.refusal.take().context("something started while another kernel could be loaded")?;
    ensure!(refusal.contains("denied by BS-NOD-002"), "not for kexec: {refusal}");
    enrol::policy(version::KEXEC)?;
    start("warned", outcome)?;
    ensure!(outcome.refusal.is_none(), "BS-NOD-002 on warn: {:?}", outcome.refusal);
    Ok(())
}

/// What refuses in the last kernel is the cap and the measurement that is gone: without both it is as good as any.
pub(super) fn is_not_seen_without_cap(outcome: &mut Outcome) -> Result<()> {
    let refusal = outcome.refusal.clone().context("something started in a kernel that kexec started")?;
    enrol::policy(version::OPEN)?;
    start("uncapped", outcome)?;
    ensure!(outcome.refusal.is_none(), "without node.cap: {:?}", outcome.refusal);
    outcome.labels.clear();
    outcome.refusal = Some(refusal);
    Ok(())
}
