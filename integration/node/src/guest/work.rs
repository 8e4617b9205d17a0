//! The job: a part of the enrolment, or a start through containerd, with what goes with it.
use super::{enrol, given, job, kexec, levels, machine, made, payload, sealed, systemd, tamper};
use crate::disk;
use crate::job::{Job, OUTCOME, Outcome, TRAIL, What, file};
use crate::sealed::TIMEOUT;
use anyhow::{Context, Result, ensure};
use stack::client::Status;
use stack::containerd::Version;
use stack::node::Node;
pub(super) use stack::node::World;
use stack::process::{output, run};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// On the root's disk: containerd's snapshots want a real file system.
const SCRATCH: &str = "/var/tmp/node";

pub(super) fn run_job() -> Result<()> {
    let job = job()?;
    let left = kexec::left()?;
    let leap = job.kexec.get(left.len());
    let mut outcome = Outcome::default();
    fs::create_dir_all(made(""))?;
    if let Err(error) = attend(&job, left.len(), &mut outcome) {
        println!("guest: {error:#}");
        outcome.error = Some(format!("{error:#}"));
    }
    if let (Some(leap), None) = (leap, &outcome.error) {
        kexec::leave(left, outcome)?;
        return machine::kexec(leap);
    }
    if let Some(boot) = &mut outcome.boot {
        boot.end = machine::uptime()?;
    }
    outcome.left = left;
    hand_back(&outcome, job.systemd)
}

/// `kernel`: how many were left before this one.
fn attend(job: &Job, kernel: usize, outcome: &mut Outcome) -> Result<()> {
    let boot = outcome.boot.insert(machine::facts()?);
    println!("guest: up after {} s, {}", boot.ready, boot.lsm);
    let last = kernel == job.kexec.len();
    if job.systemd {
        systemd::first_start(outcome)?;
    } else {
        if last {
            machine::close_kexec()?;
        }
        machine::security_module(&payload())?;
        stack::node::install()?;
        if matches!(job.what, What::Request | What::Complete | What::Apply) {
            return enrol::run_part(&job.what);
        }
        if kernel == 0 {
            enrol::install()?;
        }
        enrol::attest()?;
    }
    if Path::new(SCRATCH).exists() {
        fs::remove_dir_all(SCRATCH)?;
    }
    start("start", outcome)?;
    match (kernel, last) {
        (0, false) => return kexec::is_open(outcome),
        (_, false) => return Ok(()),
        (0, true) => {}
        (_, true) => return kexec::is_not_seen_without_cap(outcome),
    }
    if job.what == What::Sealed {
        let mut seen = Vec::new();
        with_world("sealed", &crate::sealed::MORE, |world| {
            seen = sealed::all(world)?;
            Ok(())
        })?;
        outcome.sealed = seen;
    }
    if job.what == What::Levels {
        outcome.levels = levels::all(&Path::new(SCRATCH).join("levels"))?;
    }
    if let What::Job { words, tamper } = &job.what {
        ensure!(outcome.refusal.is_none(), "no main job on a node that starts nothing: {:?}", outcome.refusal);
        main_job(words, outcome)?;
        if *tamper {
            with_world("tamper", &[], tamper::all)?;
        }
        if machine::is_selinux() {
            with_world("enforcement", &[], |world| permissive(world, outcome))?;
        }
    }
    enrol::anchor(outcome)
}

/// A security module that only tells of denials confines nothing. The twin is the same start once it enforces again.
fn permissive(world: &World, outcome: &mut Outcome) -> Result<()> {
    let kept = outcome.clone();
    machine::enforce(false)?;
    let tried = one_start(world, "permissive", outcome);
    machine::enforce(true)?;
    tried.and_then(|()| one_start(world, "enforcing", outcome))?;
    *outcome = kept;
    Ok(())
}

fn hand_back(outcome: &Outcome, systemd: bool) -> Result<()> {
    let back = Path::new("/run/back");
    fs::write(back.join(OUTCOME), serde_json::to_vec_pretty(outcome)?)?;
    if Path::new("/var/log/boltseal").exists() {
        run(Command::new("cp").args(["-a", "/var/log/boltseal"]).arg(back.join(TRAIL)))?;
    }
    for file in ["binary_bios_measurements", "ascii_bios_measurements"] {
        // Read, not copied: these files have no size.
        if let Ok(bytes) = fs::read(Path::new("/sys/kernel/security/tpm0").join(file)) {
            fs::write(back.join(file), bytes)?;
        }
    }
    fs::write(back.join("dmesg"), output(&mut Command::new("dmesg"))?.stdout)?;
    if systemd {
        let words = ["--boot", "--no-pager", "--output=short-monotonic"];
        fs::write(back.join("journal"), output(Command::new("journalctl").args(words))?.stdout)?;
    }
    let device = machine::disk("exchange")?;
    disk::write_exchange(back, &device)
}

/// One start through containerd, and an exec in it: label of both.
pub(super) fn start(name: &str, outcome: &mut Outcome) -> Result<()> {
    with_world(name, &[], |world| {
        one_start(world, name, outcome)?;
        if outcome.refusal.is_some() {
            let state = output(Command::new("find").arg("/run/boltseal"))?.stdout;
            println!("guest: containerd says {}", world.containerd.log());
            println!("guest: /run/boltseal {state:?}");
        }
        Ok(())
    })
}

/// A containerd of its own for a while, with these images beside the few that every boot has.
fn with_world(name: &str, more: &[&str], work: impl FnOnce(&World) -> Result<()>) -> Result<()> {
    let scratch = Path::new(SCRATCH).join(name);
    fs::create_dir_all(&scratch)?;
    let mut node = Node::make(&scratch, false)?;
    let mut given = stack::given::images(&payload().join("given"))?;
    for name in more {
        node.images.insert(name, given.remove(*name).with_context(|| format!("no image {name}"))?);
    }
    let world = World::start(node, Version::V2_1)?;
    work(&world)?;
    drop(world.end()?);
    Ok(())
}

pub(super) fn one_start(world: &World, name: &str, outcome: &mut Outcome) -> Result<()> {
    let request = world.named(name, "app", &["/bin/sh", "-c", "cat /proc/self/attr/current; exec sleep 600"])?;
    outcome.refusal = None;
    match world.run(&request) {
        Err(status) => outcome.refusal = Some(stack::cases::first_line(&status)),
        Ok(_) => {
            let labels = labels(world, &request.id);
            world.client.remove(&request)?;
            outcome.labels = labels?;
        }
    }
    println!("guest: {name}: {}", outcome.refusal.clone().unwrap_or_else(|| format!("started {:?}", outcome.labels)));
    Ok(())
}

fn labels(world: &World, id: &str) -> Result<Vec<String>> {
    let (code, exec) = exec(world, id, &["/bin/cat", "/proc/self/attr/current"])?;
    ensure!(code == 0, "the exec failed");
    let trim = |text: &str| text.trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned();
    Ok(vec![trim(&fs::read_to_string(world.output_file(id))?), trim(&exec)])
}

/// Without hardware help, and with others on the machine, a start may run into its time limits: that is said so, and is no answer.
pub(super) fn in_time<T>(mut start: impl FnMut() -> std::result::Result<T, Status>) -> std::result::Result<T, Status> {
    const TRIES: usize = 4;
    for _ in 1..TRIES {
        match start() {
            Err(status) if status.message().contains(TIMEOUT) => {
                println!("guest: again: {}", stack::cases::first_line(&status));
            }
            answer => return answer,
        }
    }
    start()
}

/// How a process in the container ended, and what it wrote.
pub(super) fn exec(world: &World, id: &str, args: &[&str]) -> Result<(u32, String)> {
    let out = world.output_file("exec");
    if out.exists() {
        fs::remove_file(&out)?;
    }
    world.client.exec(id, "e1", &stack::spec::process(args), &format!("file://{}", out.display()))?;
    world.client.start(id, "e1")?;
    let code = world.client.wait(id, "e1")?;
    world.client.delete_exec(id, "e1")?;
    Ok((code, fs::read_to_string(&out)?))
}

/// The integration tests' program, told that this machine is the node.
fn main_job(words: &[String], outcome: &mut Outcome) -> Result<()> {
    let scratch = Path::new(SCRATCH).join("job");
    fs::create_dir_all(&scratch)?;
    let mut child = Command::new(payload().join("tests"))
        .args(words)
        .env("BOLTSEAL_STACK_STAGE", "machine")
        .env("BOLTSEAL_STACK_SCRATCH", &scratch)
        .env(stack::policy::AUTHOR, given(file::AUTHOR_KEY))
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
