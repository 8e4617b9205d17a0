//! What the policy closes while a container runs (BS-NET-001, BS-NET-002), by init and by an exec. `runtime/launch` tries the ways
//! around it; this is the whole way from the policy's words to the kernel's answer.
use crate::Report;
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use stack::client::Request;
use stack::node::World;
use stack::registry::ADDRESS;
use stack::since::Since;
use stack::spec;
use std::fs;
use std::path::Path;

/// What is open answers "unreachable": a network that was asked, and in which nobody is. A listener says nothing until it is ended.
const STEPS: [&str; 6] = [
    "nc 127.0.0.1 7001",
    "nc 127.0.0.1 7009",
    "nc 127.0.0.2 7001",
    "nc ::ffff:127.0.0.2 7001",
    "timeout 1 busybox nc -l -p 7100",
    "timeout 1 busybox nc -l -p 7101",
];

pub(crate) fn all(world: &mut World, report: &mut Report, name: &dyn Fn(&str) -> String) {
    let mut check = |what: &str, run: fn(&mut World) -> Result<String>| report.clean(&name(what), world, run);
    check("network: only what the scope opens works, and that does", opened);
    check("network: a pod's annotation narrows it", narrowed);
    check("network: at strict nothing is open that nobody granted", closed);
    check("network: an exec is confined as its container", by_exec);
}

fn opened(world: &mut World) -> Result<String> {
    let before = steps(world, |_| Ok(()))?;
    expect(&before, ["unreachable", "unreachable", "unreachable", "unreachable", "", ""])?;
    open(world, &["7100"], &["127.0.0.1:7001"])?;
    let records = Since::now()?;
    let after = steps(world, |_| Ok(()))?;
    expect(&after, ["unreachable", "Permission denied", "not permitted", "not permitted", "", "Permission denied"])?;
    let new = records.records()?;
    for (rule, part) in
        [("BS-NET-001", "binds TCP 7100; connects to TCP 7001"), ("BS-NET-002", "reaches 127.0.0.1:7001")]
    {
        ensure!(new.iter().any(|record| sealed(record, rule, part)), "no record of {part:?}: {new:?}");
    }
    Ok(String::new())
}

fn narrowed(world: &mut World) -> Result<String> {
    open(world, &["7100-7101"], &["127.0.0.0/8:7001"])?;
    let granted = steps(world, |_| Ok(()))?;
    expect(&granted, ["unreachable", "Permission denied", "unreachable", "unreachable", "", ""])?;
    let declared = steps(world, |request| {
        request.spec["annotations"]["boltseal.dev/ports"] = json!("bind=7100, connect=127.0.0.2:7001");
        Ok(())
    })?;
    expect(&declared, ["not permitted", "Permission denied", "unreachable", "unreachable", "", "Permission denied"])?;
    Ok(String::new())
}

fn closed(world: &mut World) -> Result<String> {
    let mut policy = world.node.policy.clone();
    policy.strict()?;
    policy.write()?;
    world.undo_later(|world| world.node.policy.write());
    let said = steps(world, |_| Ok(()))?;
    let no = "Permission denied";
    expect(&said, [no, no, no, no, no, no])?;
    Ok(String::new())
}

fn by_exec(world: &mut World) -> Result<String> {
    open(world, &["7100"], &["127.0.0.1:7001"])?;
    let request = world.request("app", &["/bin/sleep", "600"])?;
    world.run(&request)?;
    let undo = request.clone();
    world.undo_later(move |world| world.client.remove(&undo).map(drop).map_err(|s| anyhow::anyhow!("{s}")));
    let file = world.output_file(&format!("{}-exec", request.id));
    let out = format!("file://{}", file.display());
    world.client.exec(&request.id, "e1", &spec::process(&["/bin/sh", "-c", &script()]), &out)?;
    world.client.start(&request.id, "e1")?;
    world.client.wait(&request.id, "e1")?;
    world.client.delete_exec(&request.id, "e1")?;
    let said = lines(&fs::read_to_string(Path::new(&file))?);
    expect(&said, ["unreachable", "Permission denied", "not permitted", "not permitted", "", "Permission denied"])?;
    Ok(String::new())
}

/// The scope of the workload's images, at whatever level.
fn open(world: &mut World, bind: &[&str], connect: &[&str]) -> Result<()> {
    let mut policy = world.node.policy.clone();
    let scope = format!("{ADDRESS}/demo");
    for (key, list) in [("bind", bind), ("connect", connect)] {
        let list: Vec<toml::Value> = list.iter().map(|item| toml::Value::from(*item)).collect();
        policy.set_scope(&scope, key, list)?;
    }
    policy.write()?;
    world.undo_later(|world| world.node.policy.write());
    Ok(())
}

/// Each step on a line of its own, whatever it says.
fn script() -> String {
    let step = |step: &&str| format!("echo \"=$(busybox {step} 2>&1 </dev/null | head -n 1)\"");
    STEPS.iter().map(step).collect::<Vec<_>>().join("; ")
}

/// The answers; a shell also tells of the listeners that are ended.
fn lines(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.strip_prefix('=')).map(str::to_owned).collect()
}

fn steps(world: &mut World, bend: fn(&mut Request) -> Result<()>) -> Result<Vec<String>> {
    let script = script();
    let mut request = world.request("app", &["/bin/sh", "-c", &script])?;
    bend(&mut request)?;
    let ended = world.complete(&request).map_err(|s| anyhow::anyhow!("{}", s.message()))?;
    ensure!(ended.status == 0, "{ended:?}");
    Ok(lines(&ended.output))
}

fn expect(said: &[String], words: [&str; STEPS.len()]) -> Result<()> {
    ensure!(said.len() == words.len(), "{said:?}");
    for ((line, word), step) in said.iter().zip(words).zip(STEPS) {
        let fits = if word.is_empty() { line.is_empty() } else { line.contains(word) };
        ensure!(fits, "{step}: {line:?}, not {word:?}");
    }
    Ok(())
}

fn sealed(record: &Value, rule: &str, part: &str) -> bool {
    let findings = record["findings"].as_array();
    findings.is_some_and(|list| {
        let fact = |f: &Value| f["fact"].as_str().is_some_and(|fact| fact.contains(part));
        list.iter().any(|f| f["rule"] == rule && f["outcome"] == "sealed" && fact(f))
    })
}
