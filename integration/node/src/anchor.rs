//! The trail's head, signed in the VM by the TPM key that only an approved state may use, and checked off the node.
use crate::author::boltseal;
use crate::build;
use crate::enrol::Enrolled;
use crate::job::{MADE, Outcome, TRAIL, file};
use anyhow::{Context, Result, ensure};
use stack::process::{Said, output, run};
use std::fs;
use std::path::Path;
use std::process::Command;

/// The anchor is this boot's, and the trail that came back still holds the record that it names. `back`: what came back.
pub(crate) fn signed(back: &Path, outcome: &Outcome, enrolled: &Enrolled) -> Result<String> {
    ensure!(outcome.no_anchor.is_none(), "an approved state could not sign: {:?}", outcome.no_anchor);
    let anchor = back.join(MADE).join(file::ANCHOR).display().to_string();
    let key = enrolled.bound().display().to_string();
    let said = boltseal(&["-o", "json", "node", "anchor", "check", anchor.as_str(), "--key", key.as_str()])?;
    let said: serde_json::Value = serde_json::from_str(&said)?;
    let boot = outcome.boot.as_ref().context("no facts of the boot")?;
    ensure!(said["boot_id"] == boot.boot_id.as_str(), "the anchor is of another boot: {said}");
    let head = said["head"].as_str().context("no head in the anchor")?;
    let trail = back.join(TRAIL);
    let whole = verify(&trail, head)?;
    ensure!(whole.ok(), "the trail does not hold the anchored record: {whole:?}");
    let cut = back.join("cut");
    run(Command::new("cp").arg("-aT").arg(&trail).arg(&cut))?;
    cut_before(&cut, head)?;
    let said = verify(&cut, head)?;
    ensure!(said.code == 1, "a trail that was cut verifies with the anchor: {said:?}");
    let number = head.split(':').next().unwrap_or_default();
    Ok(format!("anchor: signed, record {number} is in the trail that came back; a trail cut before it is told"))
}

/// The TPM itself said no, not something on the way to it.
pub(crate) fn refused(outcome: &Outcome) -> Result<String> {
    let said = outcome.no_anchor.as_ref().context("a state that nobody approved signed an anchor")?;
    ensure!(said.contains("TPM"), "no anchor, but not by the TPM: {said}");
    Ok(format!("anchor: {said}"))
}

/// `boltseal audit verify` reads one path alone: the trail goes there, for this one process.
fn verify(trail: &Path, head: &str) -> Result<Said> {
    let script =
        "mount -t tmpfs tmpfs /var/log && cp -aT \"$1\" /var/log/boltseal && exec \"$2\" audit verify --head \"$3\"";
    output(
        Command::new("unshare")
            .args(["--mount", "sh", "-c", script, "verify"])
            .arg(trail)
            .arg(build::made().join("boltseal"))
            .arg(head),
    )
}

/// Takes the anchored record and what follows it out of the trail's newest file.
fn cut_before(trail: &Path, head: &str) -> Result<()> {
    let (number, _) = head.split_once(':').context("a head without a number")?;
    let mark = format!("\"seq\":{number},");
    for entry in fs::read_dir(trail)? {
        let path = entry?.path();
        let text = fs::read_to_string(&path).unwrap_or_default();
        if let Some(at) = text.lines().position(|line| line.contains(&mark)) {
            let kept: String = text.lines().take(at).flat_map(|line| [line, "\n"]).collect();
            return Ok(fs::write(path, kept)?);
        }
    }
    anyhow::bail!("no record {number} in {}", trail.display())
}
