//! Enrolment: the good boots once, on a TPM that has never been used. Their PCR values and the TPM's key become the policy
//! of every boot after that. Kept until something that is measured, or a program of ours, changes.
use crate::boots::{self, Lsm};
use crate::build::Built;
use crate::job::{Boot, Job, Outcome, What};
use crate::{boot, cache, uki, vm};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use stack::image::sha256;
use stack::policy::Policy;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// PCRs that the policy names: firmware, loader and kernel, Secure Boot, command line and initrd.
const MEASURED: [u32; 5] = [0, 2, 4, 7, 9];

/// A node that an operator has enrolled.
#[derive(Debug)]
pub(crate) struct Enrolled {
    /// State of its TPM.
    pub(crate) tpm: PathBuf,
    /// Its `/etc/boltseal`.
    pub(crate) etc: PathBuf,
    /// Facts of the good boots.
    good: BTreeMap<String, Boot>,
    folder: PathBuf,
}

impl Enrolled {
    pub(crate) fn good(&self, lsm: Lsm) -> Result<&Boot> {
        self.good.get(lsm.name()).with_context(|| format!("{} was not enrolled", lsm.name()))
    }

    /// The firmware's event log of that boot.
    pub(crate) fn log(&self, lsm: Lsm) -> PathBuf {
        self.folder.join(format!("{}.log", lsm.name()))
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    key: String,
    good: BTreeMap<String, Boot>,
}

pub(crate) fn enrolled(built: &Built) -> Result<Enrolled> {
    let folder = cache().join("enrolled");
    let key = key(built)?;
    let note = folder.join("kept.json");
    let kept = fs::read(&note).ok().and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
    let good = match kept {
        Some(kept) if kept.key == key => kept.good,
        _ => {
            if folder.exists() {
                fs::remove_dir_all(&folder)?;
            }
            let good = enrol(built, &folder)?;
            fs::write(&note, serde_json::to_vec_pretty(&Kept { key, good: good.clone() })?)?;
            good
        }
    };
    Ok(Enrolled { tpm: folder.join("tpm"), etc: folder.join("etc"), good, folder })
}

fn key(built: &Built) -> Result<String> {
    let mut all = vec![built.programs.clone(), sha256(&built.kernel), sha256(&built.initrd)];
    all.push(built.images.display().to_string());
    all.extend(Lsm::ALL.map(Lsm::cmdline));
    all.push(sha256(&fs::read(cache().join("stub.efi"))?));
    for file in [vm::FIRMWARE, vm::KEYS] {
        all.push(sha256(&fs::read(file).context(file)?));
    }
    // How the policy is made of it.
    let made = [
        include_str!("enrol.rs"),
        include_str!("uki.rs"),
        include_str!("../../tests/src/policy.rs"),
        include_str!("../../tests/src/tpm.rs"),
    ];
    all.extend(made.map(|text| sha256(text.as_bytes())));
    Ok(sha256(all.join("\n").as_bytes()))
}

fn enrol(built: &Built, folder: &Path) -> Result<BTreeMap<String, Boot>> {
    let tpm = folder.join("tpm");
    vm::new_tpm(&tpm)?;
    let mut accepted: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    let mut keys = BTreeSet::new();
    let mut good = BTreeMap::new();
    for lsm in Lsm::ALL {
        let job = Job { what: What::Enrol, kexec: None };
        let name = format!("enrol-{}", lsm.name());
        let program = built.work.join("node.efi");
        uki::program(&cache().join("stub.efi"), &boots::parts(built, lsm), &built.work, &program)?;
        let machine = boot::Boot { program: &program, variables: vm::KEYS, tpm: &tpm, etc: None, name: &name };
        let (outcome, took) = machine.run(built, &job)?;
        let log = boot::logs(&name).join("back/binary_bios_measurements");
        fs::copy(&log, folder.join(format!("{}.log", lsm.name()))).context("the firmware's event log")?;
        let (boot, pem) = said(outcome).with_context(|| name.clone())?;
        println!("node: enrolled {} ({} s)", lsm.name(), took.as_secs());
        for pcr in MEASURED {
            accepted.entry(pcr).or_default().insert(boot.pcrs.get(&pcr).context("PCR")?.clone());
        }
        keys.insert(pem);
        good.insert(lsm.name().to_owned(), boot);
    }
    ensure!(keys.len() == 1, "the TPM's key is another one at each boot");
    policy(built, &folder.join("etc"), &keys.into_iter().next().unwrap_or_default(), accepted)?;
    Ok(good)
}

fn said(outcome: Outcome) -> Result<(Boot, String)> {
    let enrolment = outcome.enrolment.context("no enrolment")?;
    let pem = enrolment["ak_spki_pem"].as_str().context("no key in the enrolment")?.to_owned();
    Ok((outcome.boot.context("no facts of the boot")?, pem))
}

/// The tests' policy without its exceptions: a real TPM device and a real security module.
fn policy(built: &Built, etc: &Path, pem: &str, accepted: BTreeMap<u32, BTreeSet<String>>) -> Result<()> {
    let images = stack::given::images(&built.images)?;
    let pause = images.get("pause").context("no image pause")?;
    let mut policy = Policy::for_this_node(std::slice::from_ref(&pause.manifest))?;
    policy.without_exception("BS-NOD-001")?;
    policy.without_exception("BS-MAC-001")?;
    policy.set("node.tpm", stack::tpm::DEVICE)?;
    for pcr in stack::tpm::MEASURED.into_iter().chain(MEASURED) {
        let values: Vec<String> = accepted.get(&pcr).context("PCR")?.iter().cloned().collect();
        policy.set(&format!("node.pcrs.{pcr}"), values)?;
    }
    // After kexec the PCRs are the old kernel's: what was measured must be the command line that is in force.
    policy.set("node.log.command_line_never", vec!["init=".to_owned()])?;
    policy.set("node.log.secure_boot", true)?;
    let trust = etc.join("trust");
    fs::create_dir_all(&trust)?;
    fs::write(etc.join("policy.toml"), policy.text()?)?;
    fs::copy(built.images.join("keys/ci.pub"), trust.join("ci.pub"))?;
    fs::write(trust.join(stack::policy::NODE_KEY), pem)?;
    Ok(())
}
