//! The job: enrol, or try a start through containerd, or try it and run the tests' main job.
use super::machine;
use crate::disk;
use crate::job::{JOB, Job, OUTCOME, Outcome, What};
use anyhow::{Context, Result, ensure};
use stack::containerd::Version;
use stack::node::{Node, World};
use stack::policy::{self, Policy};
use stack::process::{output, run};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

const EXCHANGE: &str = "/run/exchange";
/// On the root's disk: containerd's snapshots want a real file system.
const SCRATCH: &str = "/var/tmp/node";
/// Written before kexec: the next kernel of this machine is the second one.
const LEFT: &str = "/var/tmp/left-by-kexec";

pub(super) fn run_job() -> Result<()> {
    let device = machine::disk("exchange")?;
    let exchange = Path::new(EXCHANGE);
    disk::read_exchange(&device, exchange)?;
    let job: Job = serde_json::from_slice(&fs::read(exchange.join(JOB)).context("no job")?)?;
    let payload = stack::private::project().join("node");
    let second = Path::new(LEFT).exists();
    let leaving = job.kexec.as_ref().filter(|_| !second);
    let mut outcome = Outcome::default();
    if let Err(error) = attend(&job, leaving.is_none(), exchange, &payload, &mut outcome) {
        println!("guest: {error:#}");
        outcome.error = Some(format!("{error:#}"));
    }
    if let (Some(cmdline), None) = (leaving, &outcome.error) {
        fs::write(LEFT, [])?;
        return machine::kexec(&payload, cmdline);
    }
    if let Some(boot) = &mut outcome.boot {
        boot.end = machine::uptime()?;
    }
    let back = Path::new("/run/back");
    fs::create_dir_all(back)?;
    fs::write(back.join(OUTCOME), serde_json::to_vec_pretty(&outcome)?)?;
    if Path::new("/var/log/boltseal").exists() {
        run(Command::new("cp").args(["-a", "/var/log/boltseal"]).arg(back.join("trail")))?;
    }
    for file in ["binary_bios_measurements", "ascii_bios_measurements"] {
        // Read, not copied: these files have no size.
        if let Ok(bytes) = fs::read(Path::new("/sys/kernel/security/tpm0").join(file)) {
            fs::write(back.join(file), bytes)?;
        }
    }
    fs::write(back.join("dmesg"), output(&mut Command::new("dmesg"))?.stdout)?;
    disk::write_exchange(back, &device)
}

/// `stay`: this kernel is the one to judge, and the node's start-up closes kexec in it.
fn attend(job: &Job, stay: bool, exchange: &Path, payload: &Path, outcome: &mut Outcome) -> Result<()> {
    let boot = outcome.boot.insert(machine::facts()?);
    println!("guest: up after {} s, {}", boot.ready, boot.lsm);
    if stay {
        machine::close_kexec()?;
    }
    machine::security_module(payload)?;
    stack::node::install()?;
    if job.what == What::Enrol {
        let args = ["-o", "json", "node", "enroll", "--trust-on-first-use", "--tpm", stack::tpm::DEVICE];
        let said = run(Command::new("boltseal").args(args))?;
        outcome.enrolment = Some(serde_json::from_str(&said).context("boltseal node enroll")?);
        return Ok(());
    }
    install(exchange, payload)?;
    if Path::new(SCRATCH).exists() {
        fs::remove_dir_all(SCRATCH)?;
    }
    fs::create_dir_all(SCRATCH)?;
    start("start", outcome)?;
    if !stay {
        return kexec_is_open(outcome);
    }
    if let What::Job(words) = &job.what {
        ensure!(outcome.refusal.is_none(), "no main job on a node that starts nothing: {:?}", outcome.refusal);
        main_job(payload, words, outcome)?;
    }
    Ok(())
}

/// What the operator brought to the node: policy, keys, signatures.
fn install(exchange: &Path, payload: &Path) -> Result<()> {
    for folder in ["/etc/boltseal", "/var/lib/boltseal", "/var/log/boltseal"] {
        run(Command::new("install").args(["-d", "-m", "0700", folder]))?;
    }
    run(Command::new("cp").arg("-rT").arg(exchange.join("etc")).arg("/etc/boltseal"))?;
    run(Command::new("cp").arg("-rT").arg(payload.join("given/sig")).arg("/var/lib/boltseal/sig"))?;
    run(Command::new("chmod").args(["-R", "go-w", "/etc/boltseal"])).map(|_| ())
}

/// A kernel that could load another is no place for a start (BS-NOD-002); with the rule on `warn` it is the only thing in
/// the way. The twin is every boot that closes kexec.
fn kexec_is_open(outcome: &mut Outcome) -> Result<()> {
    let refusal = outcome.refusal.take().context("something started while another kernel could be loaded")?;
    ensure!(refusal.contains("denied by BS-NOD-002"), "not for kexec: {refusal}");
    let asked = fs::read_to_string(policy::FILE)?;
    let mut warning = Policy::in_force()?;
    warning.warn("BS-NOD-002")?;
    warning.write()?;
    start("warned", outcome)?;
    policy::write(&asked)?;
    ensure!(outcome.refusal.is_none(), "BS-NOD-002 on warn: {:?}", outcome.refusal);
    outcome.labels.clear();
    Ok(())
}

/// One start through containerd, and an exec in it: label of both.
fn start(name: &str, outcome: &mut Outcome) -> Result<()> {
    let scratch = Path::new(SCRATCH).join(name);
    fs::create_dir_all(&scratch)?;
    let node = Node::make(&scratch, false)?;
    let mut world = World::start(node, Version::V2_1)?;
    let request = world.request("app", &["/bin/sh", "-c", "cat /proc/self/attr/current; exec sleep 600"])?;
    match world.run(&request) {
        Err(status) => outcome.refusal = Some(stack::cases::first_line(&status)),
        Ok(_) => {
            let labels = labels(&world, &request.id);
            world.client.remove(&request)?;
            outcome.labels = labels?;
        }
    }
    println!("guest: {}", outcome.refusal.clone().unwrap_or_else(|| format!("started {:?}", outcome.labels)));
    if outcome.refusal.is_some() {
        let state = Path::new("/run/boltseal");
        println!("guest: containerd says {}", world.containerd.log());
        println!("guest: /run/boltseal {:?}", output(Command::new("find").arg(state))?.stdout);
    }
    drop(world.end()?);
    Ok(())
}

fn labels(world: &World, id: &str) -> Result<Vec<String>> {
    let out = world.output_file("label");
    world.client.exec(
        id,
        "e1",
        &stack::spec::process(&["/bin/cat", "/proc/self/attr/current"]),
        &format!("file://{}", out.display()),
    )?;
    world.client.start(id, "e1")?;
    ensure!(world.client.wait(id, "e1")? == 0, "the exec failed");
    world.client.delete_exec(id, "e1")?;
    let read = |path: &Path| -> Result<String> {
        Ok(fs::read_to_string(path)?.trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned())
    };
    Ok(vec![read(&world.output_file(id))?, read(&out)?])
}

/// The integration tests' program, told that this machine is the node.
fn main_job(payload: &Path, words: &[String], outcome: &mut Outcome) -> Result<()> {
    let scratch = Path::new(SCRATCH).join("job");
    fs::create_dir_all(&scratch)?;
    let mut child = Command::new(payload.join("tests"))
        .args(words)
        .env("BOLTSEAL_STACK_STAGE", "machine")
        .env("BOLTSEAL_STACK_SCRATCH", &scratch)
        .stdout(Stdio::piped())
        .spawn()
        .context("the tests' program")?;
    for line in BufReader::new(child.stdout.take().context("no pipe")?).lines() {
        let line = line?;
        println!("{line}");
        outcome.report.push(line);
    }
    outcome.passed = child.wait()?.success();
    Ok(())
}
