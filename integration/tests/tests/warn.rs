//! Each rule on `warn`: what would be refused starts, or meets the next rule; what is tightened stays tightened.
use crate::{Choice, Report};
use anyhow::{Context, Result, ensure};
use stack::cases::{self, Warned};
use stack::node::World;
use stack::process::run;
use stack::since::Since;
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

pub(crate) fn all(world: &mut World, choice: &Choice, report: &mut Report, name: &dyn Fn(&str) -> String) {
    for case in cases::all() {
        if case.warned == Warned::StartsOrMeetsNext && (choice.wants("warn") || choice.wants(case.name)) {
            report.check(&name(&format!("{} on warn: {}", case.rule, case.name)), || case.warned(world));
        }
    }
    if choice.wants("warn") {
        report.check(&name("each rule has a refused case, and each that takes a mode one on warn"), every_rule);
        report.check(&name("BS-PRC-006 on warn: limits that are missing are set all the same"), || sealed(world));
    }
}

/// BS-AUD-001 takes no mode, and its case (a full disk) can name it in the message only.
fn every_rule() -> Result<String> {
    let known = run(Command::new("boltseal").arg("explain"))?;
    let known: BTreeSet<&str> = known.split_whitespace().filter(|word| word.starts_with("BS-")).collect();
    let cases = cases::all();
    let refused: BTreeSet<&str> = cases.iter().map(|case| case.rule).collect();
    let on_warn = cases.iter().filter(|case| case.warned == Warned::StartsOrMeetsNext);
    let on_warn: BTreeSet<&str> = on_warn.map(|case| case.rule).collect();
    for rule in known.iter().filter(|rule| **rule != "BS-AUD-001") {
        ensure!(refused.contains(rule), "no case is refused by {rule}");
        ensure!(on_warn.contains(rule), "no case shows {rule} on warn");
    }
    ensure!(known.len() > 20, "rules: {known:?}");
    Ok(format!("{} rules, {} cases", known.len(), cases.len()))
}

/// At create the rule has nothing to deny: what nothing limits gets the policy's limits, in every mode.
fn sealed(world: &mut World) -> Result<String> {
    let mut policy = world.node.policy.clone();
    policy.warn("BS-PRC-006")?;
    policy.set("limits.memory", 100 << 20)?;
    policy.set("limits.pids", 40)?;
    policy.write()?;
    let run = |world: &mut World| -> Result<String> {
        let before = Since::now()?;
        let mut request = world.request("app", &["/bin/sleep", "600"])?;
        for limit in ["memory", "pids"] {
            request.spec["linux"]["resources"][limit] = serde_json::Value::Null;
        }
        let pid = world.run(&request)?;
        let limits = [("memory", "memory.limit_in_bytes"), ("pids", "pids.max")].map(|(c, file)| limit(pid, c, file));
        world.client.remove(&request)?;
        let [memory, pids] = limits;
        ensure!((memory?, pids?) == (100 << 20, 40), "other limits than the policy's");
        let new = before.records()?;
        for condition in ["memory-default", "pids-default"] {
            ensure!(new.iter().any(|record| sealed_by(record, condition)), "no record of {condition}: {new:?}");
        }
        Ok(String::new())
    };
    let outcome = run(world);
    world.node.policy.write()?;
    outcome
}

fn sealed_by(record: &serde_json::Value, condition: &str) -> bool {
    let findings = record["findings"].as_array();
    findings.is_some_and(|list| {
        let found = |f: &serde_json::Value| {
            f["rule"] == "BS-PRC-006" && f["outcome"] == "sealed" && f["condition"] == condition
        };
        list.iter().any(found)
    })
}

/// A limit of the v1 cgroup that a process is in.
fn limit(pid: u32, controller: &str, file: &str) -> Result<u64> {
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let path =
        cgroups.lines().find_map(|line| line.split_once(&format!(":{controller}:"))).context("no such cgroup")?.1;
    let file = format!("/sys/fs/cgroup/{controller}{path}/{file}");
    Ok(fs::read_to_string(&file).context(file)?.trim().parse()?)
}
