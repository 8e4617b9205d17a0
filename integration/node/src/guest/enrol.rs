//! The node's side of its enrolment, and what an operator's start-up does with it in every boot after that.
use super::{given, made, payload};
use crate::job::{Outcome, What, file, version};
use anyhow::{Context, Result, bail, ensure};
use stack::process::{output, run};
use stack::tpm::DEVICE;
use std::fs;
use std::path::Path;
use std::process::Command;

pub(super) const ETC: &str = "/etc/boltseal";
pub(super) const LIB: &str = "/var/lib/boltseal";
const NAME: &str = "test-node";

pub(super) fn run_part(what: &What) -> Result<()> {
    match what {
        What::Request => {
            let out = made(file::REQUEST);
            boltseal(&["node", "enroll", "request", "--node", NAME, "--tpm", DEVICE, "--out", text(&out)?])?;
            state()
        }
        What::Complete => {
            let (approval, proof) = (given(file::APPROVAL), made(file::PROOF));
            boltseal(&["node", "enroll", "complete", text(&approval)?, "--tpm", DEVICE, "--out", text(&proof)?])?;
            state()
        }
        What::Apply => apply(),
        _ => bail!("no part of an enrolment: {what:?}"),
    }
}

/// The key for anchors, which must be the same in every boot, and this boot's state for the authority to approve.
fn state() -> Result<()> {
    let key = boltseal(&["node", "anchor", "key", "--tpm", DEVICE, "--authority", text(&given(file::AUTHORITY))?])?;
    fs::write(made(file::BOUND), key)?;
    boltseal(&["node", "anchor", "state", "--tpm", DEVICE, "--out", text(&made(file::STATE))?]).map(drop)
}

/// From here on this node believes that author, and takes no older policy than the newest that it had in force.
fn apply() -> Result<()> {
    folders()?;
    boltseal(&["policy", "trust", "--tpm", DEVICE, text(&given(file::AUTHOR))?])?;
    for number in version::OLD..=version::NOW {
        policy(number)?;
    }
    let older = output(Command::new("boltseal").args(["policy", "apply", text(&policies(version::OLD))?]))?;
    ensure!(!older.ok() && older.stderr.contains("takes 2 and above"), "an older policy: {older:?}");
    for (from, name) in [(ETC, file::ETC), (LIB, file::LIB)] {
        run(Command::new("cp").arg("-aT").arg(from).arg(made(name)))?;
    }
    Ok(())
}

/// Puts this version of the signed policy in force.
pub(super) fn policy(number: u64) -> Result<()> {
    boltseal(&["policy", "apply", text(&policies(number))?]).map(drop)
}

pub(super) fn policies(number: u64) -> std::path::PathBuf {
    given(file::POLICIES).join(number.to_string())
}

/// The enrolled node's disk: policy, keys, pin, last good policy; and the signatures of images.
pub(super) fn install() -> Result<()> {
    stack::tpm::settle_device()?;
    folders()?;
    for (name, to) in [(file::ETC, ETC), (file::LIB, LIB)] {
        run(Command::new("cp").arg("-rT").arg(given(name)).arg(to))?;
        run(Command::new("chmod").args(["-R", "go-w", to]))?;
    }
    run(Command::new("cp").arg("-rT").arg(payload().join("given/sig")).arg(Path::new(LIB).join("sig"))).map(drop)
}

fn folders() -> Result<()> {
    for folder in [ETC, LIB, "/var/log/boltseal"] {
        run(Command::new("install").args(["-d", "-m", "0700", folder]))?;
    }
    Ok(())
}

/// What boltseal-attest.service does at start-up. A boot that is not good does not get through it.
pub(super) fn attest() -> Result<()> {
    let said = output(Command::new("boltseal").args(["node", "attest", "--wait", "30"]))?;
    println!("guest: node attest ended with {}: {}{}", said.code, said.stdout.trim(), said.stderr.trim());
    Ok(())
}

/// The trail's head, signed by the key that only an approved state may use.
pub(super) fn anchor(outcome: &mut Outcome) -> Result<()> {
    let (authority, approval) = (given(file::AUTHORITY), given(file::APPROVED));
    let words = ["node", "anchor", "sign", "--tpm", DEVICE, "--authority", text(&authority)?, "--approval"];
    let said = output(Command::new("boltseal").args(words).arg(approval))?;
    if said.ok() {
        return Ok(fs::write(made(file::ANCHOR), said.stdout)?);
    }
    ensure!(said.code == 1, "boltseal node anchor sign: {said:?}");
    outcome.no_anchor = Some(said.stderr.trim().to_owned());
    Ok(())
}

fn boltseal(words: &[&str]) -> Result<String> {
    run(Command::new("boltseal").args(words))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}
