//! The boots, as a table: what is changed against the enrolled node, and what must come of it.
use crate::boot::{self, Boot};
use crate::build::{self, Built};
use crate::enrol::{self, Enrolled};
use crate::job::{Job, Outcome, What};
use crate::trail::{Verdict, verdict};
use crate::{cache, predict, uki, vm};
use anyhow::{Context, Result, ensure};
use stack::cases::SHOWN;
use stack::process::run as command;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::process::Command;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lsm {
    AppArmor,
    SeLinux,
}

impl Lsm {
    pub(crate) const ALL: [Self; 2] = [Self::AppArmor, Self::SeLinux];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AppArmor => "apparmor",
            Self::SeLinux => "selinux",
        }
    }

    /// Part of the label that a container's processes must have.
    fn label(self) -> &'static str {
        match self {
            Self::AppArmor => "boltseal-default (enforce)",
            Self::SeLinux => ":boltseal_t:",
        }
    }

    pub(crate) fn cmdline(self) -> String {
        // Permissive until the node has loaded its policy and says enforce.
        let more = if self == Self::SeLinux { " enforcing=0" } else { "" };
        format!("console=ttyS0 panic=-1 quiet lsm=landlock,lockdown,yama,integrity,{},bpf{more}", self.name())
    }
}

/// The one thing that differs from the good boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Nothing,
    Cmdline,
    Kernel,
    Initrd,
    SecureBootOff,
    Kexec,
}

/// What must come of the container start.
#[derive(Debug, Clone, Copy)]
enum Expect {
    Trusted,
    /// Denied, by `ATTESTED` alone and for this reason: part of the decision's fact.
    Refused {
        says: &'static str,
    },
}

#[derive(Debug, Clone, Copy)]
struct Plan {
    name: &'static str,
    lsm: Lsm,
    change: Change,
    expect: Expect,
    more: More,
}

/// What runs in the VM beside the one start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum More {
    Nothing,
    /// The tests' main job.
    Life,
    /// The main job, what a confined network answers, and the refusals that the demo shows.
    Demo,
}

impl More {
    fn words(self) -> Vec<String> {
        // The one that needs a TPM to play with: the refused boots show it with a real one.
        let shown = SHOWN.iter().filter(|name| !name.starts_with("a PCR has another value"));
        match self {
            Self::Nothing => Vec::new(),
            Self::Life => vec!["2.1".into(), "life".into()],
            Self::Demo => ["2.1", "life", "network"].iter().chain(shown).map(|&word| word.to_owned()).collect(),
        }
    }
}

const fn refused(name: &'static str, change: Change, says: &'static str) -> Plan {
    Plan { name, lsm: Lsm::AppArmor, change, expect: Expect::Refused { says }, more: More::Nothing }
}

const ATTESTED: &str = "BS-NOD-001";

const PLANS: [Plan; 7] = [
    Plan {
        name: "apparmor good",
        lsm: Lsm::AppArmor,
        change: Change::Nothing,
        expect: Expect::Trusted,
        more: More::Demo,
    },
    Plan {
        name: "selinux good",
        lsm: Lsm::SeLinux,
        change: Change::Nothing,
        expect: Expect::Trusted,
        more: More::Life,
    },
    refused("cmdline changed", Change::Cmdline, "PCR 9 is"),
    refused("kernel changed", Change::Kernel, "PCR 4 is"),
    refused("initrd changed", Change::Initrd, "PCR 9 is"),
    refused("secure boot off", Change::SecureBootOff, "PCR 7 is"),
    refused("kexec", Change::Kexec, "another command line was measured"),
];

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
    let mut tally = Tally::default();
    for plan in plans {
        if let Err(error) = one(&built, &enrolled, plan, &mut tally) {
            println!("{:<16} {error:#}", plan.name);
            tally.wrong.push(format!("{}: no result", plan.name));
        }
    }
    fs::remove_dir_all(&work)?;
    Ok(tally.end())
}

/// What the trails say, counted.
#[derive(Debug, Default)]
struct Tally {
    boots: usize,
    trusted: usize,
    refused: usize,
    wrong: Vec<String>,
}

impl Tally {
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
    let boot = Boot {
        program: &program,
        variables: if plan.change == Change::SecureBootOff { vm::NO_KEYS } else { vm::KEYS },
        tpm: &built.work.join("tpm"),
        etc: Some(&enrolled.etc),
        name: plan.name,
    };
    if boot.tpm.exists() {
        fs::remove_dir_all(boot.tpm)?;
    }
    command(Command::new("cp").arg("-a").arg(&enrolled.tpm).arg(boot.tpm))?;
    let job = Job {
        what: if plan.more == More::Nothing { What::Start } else { What::Job(plan.more.words()) },
        kexec: (plan.change == Change::Kexec).then(|| format!("{} init=/bin/sh", plan.lsm.cmdline())),
    };
    let (outcome, took) = boot.run(built, &job)?;

    let facts = outcome.boot.clone().context("no facts of the boot")?;
    ensure!(facts.secure_boot == (plan.change != Change::SecureBootOff), "Secure Boot is {}", facts.secure_boot);
    let back = boot::logs(plan.name).join("back");
    let verdict = verdict(&back.join("trail"), &facts.boot_id)?;
    // After kexec both are the second kernel's.
    let denied = matches!(verdict, Verdict::Denied { .. });
    ensure!(
        outcome.refusal.is_some() == denied,
        "the trail says {verdict:?}, containerd said {:?} to the start",
        outcome.refusal
    );
    tally.boots += 1;
    let good = enrolled.good(plan.lsm)?;
    let moved: Vec<String> = facts
        .pcrs
        .iter()
        .filter(|(pcr, value)| good.pcrs.get(pcr) != Some(value))
        .map(|(pcr, _)| pcr.to_string())
        .collect();
    let moved = if moved.is_empty() { "no PCR moved".into() } else { format!("PCR {} moved", moved.join(", ")) };
    let said = match (&verdict, plan.expect) {
        (Verdict::Started, Expect::Trusted) => {
            ensure!(
                outcome.labels.len() == 2 && outcome.labels.iter().all(|label| label.contains(plan.lsm.label())),
                "init and exec must have the label {:?}: {:?}",
                plan.lsm.label(),
                outcome.labels
            );
            tally.trusted += 1;
            format!("started, {}", outcome.labels.join(", exec "))
        }
        (Verdict::Denied { rules, fact }, Expect::Refused { says })
            if matches!(rules.as_slice(), [rule] if rule == ATTESTED) && fact.contains(says) =>
        {
            tally.refused += 1;
            format!("refused as intended by {}: {fact}", rules.join(", "))
        }
        (other, expect) => {
            let text = format!("{other:?}, expected {expect:?}; containerd said {:?}", outcome.refusal);
            tally.wrong.push(format!("{}: {text}", plan.name));
            text
        }
    };
    let told = if predicted.is_empty() { "" } else { ", PCR 4 and 9 predicted" };
    println!("{:<16} {said} [{moved}{told}; {} s]", plan.name, took.as_secs());
    for (pcr, value) in &predicted {
        let measured = facts.pcrs.get(pcr);
        if measured != Some(value) {
            tally.wrong.push(format!("{}: PCR {pcr} was predicted to be {value}, it is {measured:?}", plan.name));
        }
    }
    if plan.more != More::Nothing {
        main_job(plan, &outcome, tally);
    }
    Ok(())
}

fn main_job(plan: &Plan, outcome: &Outcome, tally: &mut Tally) {
    let passed = outcome.report.iter().filter(|line| line.starts_with("ok ")).count();
    let failed: Vec<&String> = outcome.report.iter().filter(|line| line.starts_with("FAIL")).collect();
    println!("{:<16} main job: {passed} passed, {} failed", "", failed.len());
    if !outcome.passed {
        tally.wrong.push(format!("{}: the main job failed", plan.name));
        tally.wrong.extend(failed.into_iter().cloned());
    }
}
