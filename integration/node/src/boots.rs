//! Runs the boots of the plan and counts what the trails say.
use crate::boot::{self, Boot};
use crate::build::{self, Built};
use crate::enrol::{self, Enrolled};
use crate::job::{Job, Outcome, TRAIL};
use crate::plan::{AFTER_KEXEC, Change, Expect, Lsm, More, PLANS, Plan};
use crate::trail::Trail;
use crate::{anchor, cache, predict, tampered, uki, vm};
use anyhow::{Context, Result, ensure};
use stack::process::run as command;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Machines that run beside each other: without hardware help each keeps about one core busy.
const AT_ONCE: usize = 2;

/// Runs the boots of these names (all when empty). Answers whether each ended as it must.
pub(crate) fn run(names: &[&str]) -> Result<bool> {
    for name in names {
        ensure!(PLANS.iter().any(|plan| plan.name.contains(name)), "no boot is called {name:?}");
    }
    let plans: Vec<&Plan> =
        PLANS.iter().filter(|plan| names.is_empty() || names.iter().any(|name| plan.name.contains(name))).collect();
    fs::create_dir_all(cache())?;
    let lock = File::create(cache().join("lock"))?;
    lock.try_lock().context("another run of the test node is under way")?;
    let work = cache().join("run");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    fs::create_dir_all(&work)?;
    let built = build::all(&work)?;
    let enrolled = enrol::enrolled(&built)?;
    let tally = Mutex::new(Tally::default());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(&plan) = plans.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut own = Tally::default();
                    if let Err(error) = attempt(&built, &enrolled, plan, &mut own) {
                        own.say(plan.name, format_args!("{error:#}"));
                        own.wrong.push(format!("{}: no result", plan.name));
                    }
                    tally.lock().unwrap_or_else(PoisonError::into_inner).add(own);
                }
            });
        }
    });
    fs::remove_dir_all(&work)?;
    Ok(tally.into_inner().unwrap_or_else(PoisonError::into_inner).end())
}

/// A boot in a scratch folder of its own, for another runs beside it.
fn attempt(built: &Built, enrolled: &Enrolled, plan: &Plan, tally: &mut Tally) -> Result<()> {
    let work = built.work.join(plan.name.replace(' ', "-"));
    fs::create_dir_all(&work)?;
    let built = Built { work, ..built.clone() };
    let done = one(&built, enrolled, plan, tally);
    done.and(fs::remove_dir_all(&built.work).map_err(Into::into))
}

/// What the trails say, counted.
#[derive(Debug, Default)]
struct Tally {
    said: Vec<String>,
    boots: usize,
    trusted: usize,
    refused: usize,
    wrong: Vec<String>,
}

impl Tally {
    fn say(&mut self, name: &str, text: std::fmt::Arguments<'_>) {
        self.said.push(format!("{name:<16} {text}"));
    }

    /// Takes in that of a boot that has ended, and prints what it said.
    fn add(&mut self, boot: Self) {
        boot.said.iter().for_each(|line| println!("{line}"));
        self.boots += boot.boots;
        self.trusted += boot.trusted;
        self.refused += boot.refused;
        self.wrong.extend(boot.wrong);
    }

    fn end(self) -> bool {
        for wrong in &self.wrong {
            println!("WRONG {wrong}");
        }
        println!("node: {} boots, {} trusted, {} refused as intended", self.boots, self.trusted, self.refused);
        self.wrong.is_empty()
    }
}

pub(crate) fn parts(built: &Built, lsm: Lsm) -> uki::Parts {
    uki::Parts { kernel: built.kernel.clone(), cmdline: lsm.cmdline(), initrd: built.initrd.clone() }
}

fn one(built: &Built, enrolled: &Enrolled, plan: &Plan, tally: &mut Tally) -> Result<()> {
    let mut parts = parts(built, plan.lsm);
    match plan.change {
        Change::Cmdline => parts.cmdline.push_str(" init=/bin/sh"),
        // Behind the image's end: the same code, another file.
        Change::Kernel => parts.kernel.extend([0x90; 16]),
        Change::Initrd => parts.initrd.extend([0; 512]),
        Change::Nothing | Change::SecureBootOff | Change::Kexec => {}
    }
    let program = built.work.join("node.efi");
    uki::program(&cache().join("stub.efi"), &parts, &built.work, &program)?;
    // A prediction is for the firmware as it was: without Secure Boot the stub has the kernel inside measured as well.
    let predicted = match plan.change {
        Change::SecureBootOff => BTreeMap::new(),
        _ => predict::next_boot(built, enrolled, plan.lsm, &program)?,
    };
    let mut given = enrolled.given(plan.lsm);
    if matches!(plan.more, More::Life | More::Demo) {
        given.push(enrolled.author());
    }
    let boot = Boot {
        program: &program,
        variables: if plan.change == Change::SecureBootOff { vm::NO_KEYS } else { vm::KEYS },
        tpm: &built.work.join("tpm"),
        given,
        name: plan.name,
    };
    if boot.tpm.exists() {
        fs::remove_dir_all(boot.tpm)?;
    }
    command(Command::new("cp").arg("-a").arg(enrolled.tpm()).arg(boot.tpm))?;
    let job = Job { what: plan.more.what(), kexec: plan.kexec(), systemd: plan.more == More::Demo };
    let (outcome, took) = boot.run(built, &job)?;
    tally.boots += 1;
    let facts = outcome.boot.clone().context("no facts of the boot")?;
    ensure!(facts.secure_boot == (plan.change != Change::SecureBootOff), "Secure Boot is {}", facts.secure_boot);
    let trail = Trail::read(&boot::logs(plan.name).join("back").join(TRAIL))?;

    let good = enrolled.good(plan.lsm)?;
    let moved: Vec<String> = enrol::MEASURED
        .iter()
        .filter(|&pcr| good.pcrs.get(pcr) != facts.pcrs.get(pcr))
        .map(ToString::to_string)
        .collect();
    let moved = if moved.is_empty() { "no PCR moved".into() } else { format!("PCR {} moved", moved.join(", ")) };
    let told = if predicted.is_empty() { "" } else { ", PCR 4 and 9 predicted" };
    match verdict(plan, &trail, &outcome) {
        Ok(said) => {
            match plan.expect {
                Expect::Trusted => tally.trusted += 1,
                Expect::Refused { .. } => tally.refused += 1,
            }
            tally.say(plan.name, format_args!("{said} [{moved}{told}; {} s]", took.as_secs()));
        }
        Err(error) => {
            tally.say(plan.name, format_args!("{error:#} [{moved}{told}; {} s]", took.as_secs()));
            tally.wrong.push(format!("{}: {error:#}", plan.name));
        }
    }
    for (pcr, value) in &predicted {
        let measured = facts.pcrs.get(pcr);
        if measured != Some(value) {
            tally.wrong.push(format!("{}: PCR {pcr} was predicted to be {value}, it is {measured:?}", plan.name));
        }
    }
    if matches!(plan.more, More::Life | More::Demo) {
        main_job(plan, &outcome, tally);
    }
    let parts: [Part; 7] = [units, tampering, sealing, levels, enforcement, kernels, anchors];
    for more in parts {
        match more(plan, &trail, &outcome, enrolled) {
            Ok(lines) => lines.iter().for_each(|line| tally.say("", format_args!("{line}"))),
            Err(error) => {
                tally.say("", format_args!("{error:#}"));
                tally.wrong.push(format!("{}: {error:#}", plan.name));
            }
        }
    }
    Ok(())
}

/// What the trail says of the start, if that is as planned, and if containerd answered the same.
fn verdict(plan: &Plan, trail: &Trail, outcome: &Outcome) -> Result<String> {
    let boot = outcome.boot.as_ref().context("no facts of the boot")?;
    let start = trail.start(&boot.boot_id, "start")?;
    ensure!(
        outcome.refusal.is_none() == start.started,
        "the trail says {start:?}, containerd said {:?} to the start",
        outcome.refusal
    );
    match plan.expect {
        Expect::Trusted => {
            ensure!(start.started, "{start:?}");
            ensure!(
                outcome.labels.len() == 2 && outcome.labels.iter().all(|label| label.contains(plan.lsm.label())),
                "init and exec must have the label {:?}: {:?}",
                plan.lsm.label(),
                outcome.labels
            );
            Ok(format!("started, {}", outcome.labels.join(", exec ")))
        }
        Expect::Refused { rules, says } => {
            ensure!(start.refused(rules, says), "{start:?}, expected {rules:?}, {says:?}");
            Ok(format!("refused as intended by {}: {}", rules.join(", "), start.facts.join("; ")))
        }
    }
}

fn main_job(plan: &Plan, outcome: &Outcome, tally: &mut Tally) {
    let passed = outcome.report.iter().filter(|line| line.starts_with("ok ")).count();
    let failed: Vec<&String> = outcome.report.iter().filter(|line| line.starts_with("FAIL")).collect();
    tally.say("", format_args!("main job: {passed} passed, {} failed", failed.len()));
    if !outcome.passed {
        tally.wrong.push(format!("{}: the main job failed", plan.name));
        tally.wrong.extend(failed.into_iter().cloned());
    }
}

/// What the trail says of more than the one start, in lines of its own.
type Part = fn(&Plan, &Trail, &Outcome, &Enrolled) -> Result<Vec<String>>;

/// systemd's boot: the first start used the verdict that the unit had made.
fn units(plan: &Plan, trail: &Trail, outcome: &Outcome, _: &Enrolled) -> Result<Vec<String>> {
    if plan.more != More::Demo {
        return Ok(Vec::new());
    }
    let boot = outcome.boot.as_ref().context("no facts of the boot")?;
    let units = outcome.units.as_ref().context("systemd said nothing of the units")?;
    let first = trail.start(&boot.boot_id, "first")?;
    ensure!(first.started && first.note.is_empty(), "the first start under systemd's containerd: {first:?}");
    Ok(vec![format!("systemd: {units}; the first start needed no quote of its own")])
}

fn tampering(plan: &Plan, trail: &Trail, outcome: &Outcome, _: &Enrolled) -> Result<Vec<String>> {
    let boot = outcome.boot.as_ref().context("no facts of the boot")?;
    if plan.more == More::Demo { Ok(vec![tampered::told(trail, &boot.boot_id)?]) } else { Ok(Vec::new()) }
}

fn sealing(plan: &Plan, trail: &Trail, outcome: &Outcome, _: &Enrolled) -> Result<Vec<String>> {
    if plan.more != More::Sealed {
        return Ok(Vec::new());
    }
    let boot = outcome.boot.as_ref().context("no facts of the boot")?;
    ensure!(!outcome.sealed.is_empty(), "nothing was seen of sealed images: {:?}", outcome.error);
    let mut lines = vec![crate::sealed::told(trail, &boot.boot_id)?];
    lines.extend(outcome.sealed.iter().cloned());
    Ok(lines)
}

fn levels(plan: &Plan, trail: &Trail, outcome: &Outcome, _: &Enrolled) -> Result<Vec<String>> {
    if plan.more != More::Levels {
        return Ok(Vec::new());
    }
    let boot = outcome.boot.as_ref().context("no facts of the boot")?;
    ensure!(!outcome.levels.is_empty(), "nothing was seen of layers with digests: {:?}", outcome.error);
    let mut lines = vec![crate::levels::told(trail, &boot.boot_id)?];
    lines.extend(outcome.levels.iter().cloned());
    Ok(lines)
}

fn enforcement(plan: &Plan, trail: &Trail, outcome: &Outcome, _: &Enrolled) -> Result<Vec<String>> {
    if plan.lsm != Lsm::SeLinux {
        return Ok(Vec::new());
    }
    let boot = outcome.boot.as_ref().context("no facts of the boot")?;
    let permissive = trail.start(&boot.boot_id, "permissive")?;
    ensure!(permissive.refused(&["BS-MAC-001"], "permissive"), "SELinux permissive: {permissive:?}");
    ensure!(trail.start(&boot.boot_id, "enforcing")?.started, "SELinux enforces again");
    Ok(vec!["SELinux permissive: refused by BS-MAC-001; enforcing again: started".into()])
}

/// The kernels on the way: the one that was booted, and the one with another command line.
fn kernels(plan: &Plan, trail: &Trail, outcome: &Outcome, _: &Enrolled) -> Result<Vec<String>> {
    let [first, second] = outcome.left.as_slice() else {
        ensure!(outcome.left.is_empty() && plan.kexec().is_empty(), "{} kernels were left", outcome.left.len());
        return Ok(Vec::new());
    };
    let id = |outcome: &Outcome| Ok::<_, anyhow::Error>(outcome.boot.clone().context("no facts of a kernel")?.boot_id);
    let open = trail.start(&id(first)?, "start")?;
    ensure!(open.refused(&["BS-NOD-002"], "kexec"), "kexec is open: {open:?}");
    ensure!(trail.start(&id(first)?, "warned")?.started, "kexec is open and BS-NOD-002 warns");
    let other = trail.start(&id(second)?, "start")?;
    let line = "another command line was measured";
    ensure!(other.refused(&AFTER_KEXEC, line) && other.says("PCR 14 (node.cap)"), "another command line: {other:?}");
    let last = trail.start(&id(outcome)?, "start")?;
    ensure!(!last.says(line), "the command line is the measured one: {last:?}");
    ensure!(trail.start(&id(outcome)?, "uncapped")?.started, "without node.cap and bundle.measured it starts");
    Ok(vec![
        "the booted kernel, kexec open: refused by BS-NOD-002; with that rule on warn: started".into(),
        format!(
            "kexec, another command line: refused by {}: {}",
            other.rules.join(", "),
            other.facts.first().map_or("", String::as_str)
        ),
        "kexec, the measured command line and another initrd: refused as above; without node.cap and bundle.measured: started".into(),
    ])
}

fn anchors(plan: &Plan, _: &Trail, outcome: &Outcome, enrolled: &Enrolled) -> Result<Vec<String>> {
    match (plan.change, plan.expect) {
        // kexec keeps the PCRs, so that it says nothing there.
        (Change::Kexec, _) => Ok(Vec::new()),
        (_, Expect::Trusted) => {
            anchor::signed(&boot::logs(plan.name).join("back"), outcome, enrolled).map(|line| vec![line])
        }
        (_, Expect::Refused { .. }) => anchor::refused(outcome).map(|line| vec![line]),
    }
}
