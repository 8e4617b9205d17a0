//! What the trail says of the node, beside refusals.
use crate::Report;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use stack::node::World;
use stack::since::Since;
use std::fs;

const VERDICT: &str = "/run/boltseal/node.json";

pub(crate) fn all(world: &mut World, report: &mut Report, name: &dyn Fn(&str) -> String) {
    let mut check = |what: &str, run: fn(&mut World) -> Result<String>| report.clean(&name(what), world, run);
    check("a verdict of another boot is made anew, and the record says so", other_boot);
    check("an altered verdict is made anew, and the record says so", altered);
}

fn other_boot(world: &mut World) -> Result<String> {
    healed(world, |text| {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        text.replace(boot.trim(), "00000000-0000-4000-8000-000000000000")
    })
}

fn altered(world: &mut World) -> Result<String> {
    healed(world, |text| text.replacen("\"signature\":\"", "\"signature\":\"AAAA", 1))
}

/// The TPM answers, so the start goes on; that something was wrong stands in its record, and in no later one.
fn healed(world: &mut World, change: fn(&str) -> String) -> Result<String> {
    // The first start after the policy changed says that, too.
    note(world)?;
    ensure!(note(world)?.is_empty(), "a note without a reason");
    let text = fs::read_to_string(VERDICT).context("verdict file")?;
    let changed = change(&text);
    ensure!(changed != text, "the verdict file could not be altered: {text}");
    fs::write(VERDICT, changed)?;
    let said = note(world)?;
    ensure!(said.contains("verdict was not used"), "the record does not say it: {said:?}");
    ensure!(note(world)?.is_empty(), "said again although the new verdict holds");
    Ok(said)
}

/// What the decision on one good start says beside its findings.
fn note(world: &mut World) -> Result<String> {
    let before = Since::now()?;
    let request = world.request("app", &["/bin/true"])?;
    let ended = world.complete(&request)?;
    ensure!(ended.status == 0, "{ended:?}");
    let new = before.records()?;
    let decision = |record: &&Value| record["decision"] == "allow" && record["what"]["id"] == request.id.as_str();
    let record = new.iter().find(decision).context("no decision")?;
    Ok(record["note"].as_str().unwrap_or_default().to_owned())
}
