//! What no single refusal shows: two starts at once, and the last good policy judging in the place of one that does not load.
use crate::Report;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use stack::client::{Client, Request};
use stack::containerd;
use stack::node::{NAMESPACE, World};
use stack::since::Since;
use stack::{policy, tpm};
use std::fs;
use std::path::Path;
use std::process::Command;

const ROUNDS: usize = 6;

pub(crate) fn all(world: &mut World, report: &mut Report, name: &dyn Fn(&str) -> String) {
    let mut check = |what: &str, run: fn(&mut World) -> Result<String>| report.clean(&name(what), world, run);
    check("policies: two sensitivities started at once: one of them runs", two_sensitivities);
    check("policies: a new policy is tried on what runs", simulated);
    check("policies: a policy that does not load leaves the last good one in force, and the record says so", last_good);
}

fn two_sensitivities(world: &mut World) -> Result<String> {
    let mut bent = world.node.policy.clone();
    bent.set("sensitivity.levels", vec![toml::Value::from("public"), toml::Value::from("secret")])?;
    bent.write()?;
    world.undo_later(|world| world.node.policy.write());
    let mut alone = 0;
    for _ in 0..ROUNDS {
        let mut requests = Vec::new();
        for sensitivity in ["public", "secret", "public", "secret"] {
            let mut request = world.request("app", &["/bin/sleep", "600"])?;
            request.spec["annotations"]["boltseal.dev/sensitivity"] = json!(sensitivity);
            requests.push((sensitivity, request));
        }
        let started: Vec<Result<bool>> = std::thread::scope(|scope| {
            let threads: Vec<_> = requests.iter().map(|(_, request)| scope.spawn(|| start(request))).collect();
            threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a panic")))).collect()
        });
        for (_, request) in &requests {
            world.client.remove(request).context("remove")?;
        }
        let mut running = Vec::new();
        for (started, (sensitivity, _)) in started.into_iter().zip(&requests) {
            if started? {
                running.push(*sensitivity);
            }
        }
        ensure!(!running.is_empty(), "none of four started");
        ensure!(running.iter().all(|s| Some(s) == running.first()), "both run: {running:?}");
        alone += running.len();
    }
    Ok(format!("{alone} of {} in {ROUNDS} rounds", ROUNDS * 4))
}

/// On a connection of its own, as another client would.
fn start(request: &Request) -> Result<bool> {
    let client = Client::new(containerd::SOCKET, NAMESPACE)?;
    let mounts = client.create_container(request).map_err(|s| anyhow::anyhow!("{s}"))?;
    match client.create_task(request, mounts) {
        Ok(_) => Ok(true),
        Err(status) => {
            ensure!(status.message().contains("denied by BS-NOD-003"), "{}", status.message());
            Ok(false)
        }
    }
}

/// What runs is judged by the new policy before that is in force, and goes on in any case.
fn simulated(world: &mut World) -> Result<String> {
    let request = world.request("app", &["/bin/sleep", "600"])?;
    world.run(&request)?;
    let undo = request.clone();
    world.undo_later(move |world| world.client.remove(&undo).context("remove").map(drop));
    let draft = world.node.work.join("tried");
    if draft.exists() {
        fs::remove_dir_all(&draft)?;
    }
    run(Command::new("cp").arg("-r").arg(policy::FOLDER).arg(&draft))?;
    let tried = || stack::process::run(Command::new("boltseal").args(["policy", "apply", "--dry-run"]).arg(&draft));
    let said = tried()?;
    ensure!(said.contains("0 of 1 container"), "{said}");
    let mut bent = world.node.policy.clone();
    bent.set("owner.patterns", vec![toml::Value::from("nobody@example.org")])?;
    fs::write(draft.join("policy.toml"), bent.text()?)?;
    let said = tried()?;
    let name = format!("tests/{} runs and would not start again: BS-OWN-001", request.id);
    ensure!(said.contains(&name) && said.contains("1 of 1 container"), "{said}");
    ensure!(world.client.state(&request.id)? == 2, "it no longer runs");
    Ok(String::new())
}

fn last_good(world: &mut World) -> Result<String> {
    let (key, public, draft) =
        (world.node.work.join("good.key"), world.node.work.join("good.pub"), world.node.work.join("good"));
    run(Command::new("openssl")
        .args(["genpkey", "-quiet", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"])
        .arg(&key))?;
    run(Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&key).arg("-out").arg(&public))?;
    if draft.exists() {
        fs::remove_dir_all(&draft)?;
    }
    run(Command::new("cp").arg("-r").arg(policy::FOLDER).arg(&draft))?;
    run(Command::new("boltseal").args(["policy", "sign", "--key"]).arg(&key).arg(&draft))?;
    let tpm = format!("unix:{}", tpm::SOCKET);
    run(Command::new("boltseal").args(["policy", "trust", "--tpm", &tpm]).arg(&public))?;
    world.undo_later(|world| {
        for gone in ["/var/lib/boltseal/signer", "/etc/boltseal/bundle.sig", "/run/boltseal/floor"] {
            if Path::new(gone).exists() {
                fs::remove_file(gone)?;
            }
        }
        fs::remove_dir_all("/var/lib/boltseal/policy")?;
        world.node.policy.write()
    });
    run(Command::new("boltseal").args(["policy", "apply"]).arg(&draft))?;
    ensure!(finding(world)?["outcome"] == "pass", "a sound policy is a plain pass");

    // A new policy does not load, by the command: nothing changes.
    fs::write(draft.join("policy.toml"), "version = \n")?;
    let refused = run(Command::new("boltseal").args(["policy", "apply"]).arg(&draft));
    ensure!(refused.is_err(), "a policy that does not parse was applied");
    ensure!(finding(world)?["outcome"] == "pass", "the refused policy left a trace");
    // And behind its back: the last good one judges, and says so.
    for broken in ["version = \n", "version = 1\nlevel = \"observe\"\n"] {
        policy::write(broken)?;
        let found = finding(world)?;
        let fact = found["fact"].as_str().unwrap_or_default();
        ensure!(found["outcome"] == "sealed" && found["condition"] == "last-good", "{found}");
        ensure!(fact.contains("last good bundle is in force"), "{fact}");
    }
    Ok("observed in the record".into())
}

/// What BS-NOD-004 says in the record of a start that goes well; its strongest word.
fn finding(world: &mut World) -> Result<Value> {
    let before = Since::now()?;
    let request = world.request("app", &["/bin/true"])?;
    let ended = world.complete(&request).map_err(|s| anyhow::anyhow!("{}", s.message()))?;
    ensure!(ended.status == 0, "{ended:?}");
    let records = before.records()?;
    let decision = records.iter().find(|r| r["decision"] == "allow").context("no decision")?;
    let found: Vec<&Value> =
        decision["findings"].as_array().context("no findings")?.iter().filter(|f| f["rule"] == "BS-NOD-004").collect();
    let strongest = found.iter().find(|f| f["outcome"] != "pass").or(found.first()).context("BS-NOD-004 is silent")?;
    Ok((*strongest).clone())
}

fn run(command: &mut Command) -> Result<()> {
    stack::process::run(command).map(drop)
}
