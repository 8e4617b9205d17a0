//! `boltseal image inspect` on a real containerd: what is shown is what a start finds, and nothing is left of it.
use crate::Report;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use stack::containerd::SOCKET;
use stack::node::{NAMESPACE, World};
use stack::process::output;
use stack::since::Since;
use std::process::Command;

pub(crate) fn all(world: &mut World, report: &mut Report, name: &impl Fn(&str) -> String) {
    let mut check = |what: &str, run: fn(&mut World) -> Result<String>| report.clean(&name(what), world, run);
    check("inspected: a signed image, as proven", signed);
    check("inspected: an unsigned image, with the rule that refuses it", unsigned);
    check("inspected: what a layer holds, and the same without it", layers);
    check("inspected: an image that is not there", missing);
}

/// Exit code, the document, and what the trail has more.
fn inspect(image: &str) -> Result<(i32, Value)> {
    let before = Since::now()?;
    let mut command = Command::new("boltseal");
    command.args(["-o", "json", "image", "inspect", "--address", SOCKET, "--namespace", NAMESPACE, image]);
    let said = output(&mut command)?;
    ensure!(before.records()?.is_empty(), "it wrote into the trail");
    let document =
        if said.stdout.is_empty() { Value::Null } else { serde_json::from_str(&said.stdout).context(said.stderr)? };
    Ok((said.code, document))
}

fn name(world: &World, image: &str) -> Result<String> {
    Ok(world.node.images.get(image)?.name.clone())
}

fn of<'a>(document: &'a Value, rule: &str) -> Vec<&'a str> {
    let found = document["findings"].as_array().into_iter().flatten().filter(|f| f["rule"] == rule);
    found.filter_map(|f| f["outcome"].as_str()).collect()
}

fn signed(world: &mut World) -> Result<String> {
    let app = world.node.images.get("app")?.clone();
    let (code, document) = inspect(&app.name)?;
    ensure!(code == 0 && document["verdict"] == "allow", "{code}: {document}");
    let image = &document["image"]["is"];
    ensure!(image["target"] == *app.manifest && image["config"] == *app.config, "{image}");
    ensure!(image["signatures"][0]["authority"] == "ci", "{image}");
    let layer = &document["parts"]["layers"][0];
    ensure!(layer["diff_id"] == *app.chain_id && layer["chain_id"] == *app.chain_id, "{layer}");
    ensure!(layer["created_by"] == "demo/app" && layer["size"].as_u64() > Some(0), "{layer}");
    ensure!(document["parts"]["platform"] == "linux/amd64", "{document}");
    ensure!(of(&document, "BS-IMG-001") == ["pass"] && of(&document, "BS-IMG-002") == ["pass"], "{document}");
    // What nobody asks for is scanned all the same: busybox and its links.
    let scan = &document["scan"]["is"];
    ensure!(scan["found"].as_array().is_some_and(|found| found.iter().any(|f| f["path"] == "/bin/busybox")), "{scan}");
    let again = inspect(&app.name)?.1;
    ensure!(again["scan"]["is"]["from"] == "cached", "{again}");
    Ok(String::new())
}

fn unsigned(world: &mut World) -> Result<String> {
    let (code, document) = inspect(&name(world, "unsigned")?)?;
    ensure!(code == 1 && document["verdict"] == "deny", "{code}: {document}");
    ensure!(of(&document, "BS-IMG-001") == ["deny"], "{document}");
    Ok(String::new())
}

fn layers(world: &mut World) -> Result<String> {
    let mut policy = world.node.policy.clone();
    policy.enforce("BS-IMG-007")?;
    policy.write()?;
    world.undo_later(|world| world.node.policy.write());
    let (code, document) = inspect(&name(world, "shell")?)?;
    ensure!(code == 1 && of(&document, "BS-IMG-007") == ["deny"], "{code}: {document}");
    let found = &document["scan"]["is"]["found"][0];
    ensure!(found["path"] == "/bin/sh" && found["layer"] == 0, "{found}");
    let (code, document) = inspect(&name(world, "bare")?)?;
    ensure!(code == 0 && of(&document, "BS-IMG-007") == ["pass"], "{code}: {document}");
    Ok(String::new())
}

fn missing(_: &mut World) -> Result<String> {
    let (code, _) = inspect("127.0.0.1:5000/demo/nothing:1")?;
    ensure!(code == 3, "exit code {code}");
    Ok(String::new())
}
