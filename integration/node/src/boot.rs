//! One boot with one job: disks made, machine run, what it brought back read.
use crate::build::Built;
use crate::job::{GIVEN, JOB, Job, OUTCOME, Outcome, What};
use crate::{cache, disk, uki, vm};
use anyhow::{Result, bail};
use stack::process::run;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Files and folders for the guest, and what they are called there.
pub(crate) type Given = Vec<(PathBuf, &'static str)>;

#[derive(Debug)]
pub(crate) struct Boot<'a> {
    /// The signed EFI program.
    pub(crate) program: &'a Path,
    /// Template of the firmware's variables.
    pub(crate) variables: &'a str,
    /// State of the TPM, which the boot changes.
    pub(crate) tpm: &'a Path,
    pub(crate) given: Given,
    pub(crate) name: &'a str,
}

/// Folder of what is kept of a boot: console, what the guest brought back.
pub(crate) fn logs(name: &str) -> PathBuf {
    cache().join("last").join(name.replace(' ', "-"))
}

pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("cp").arg("-aT").arg(from).arg(to)).map(|_| ())
}

impl Boot<'_> {
    /// Answers with what came of it, and how long it took.
    pub(crate) fn run(&self, built: &Built, job: &Job) -> Result<(Outcome, Duration)> {
        let log = logs(self.name);
        if log.exists() {
            fs::remove_dir_all(&log)?;
        }
        fs::create_dir_all(&log)?;
        let stage = built.work.join("exchange");
        fs::create_dir_all(stage.join(GIVEN))?;
        fs::write(stage.join(JOB), serde_json::to_vec_pretty(job)?)?;
        for (from, name) in &self.given {
            copy(from, &stage.join(GIVEN).join(name))?;
        }
        let exchange = built.work.join("exchange.img");
        disk::write_exchange(&stage, &exchange)?;
        fs::remove_dir_all(&stage)?;
        let boot = built.work.join("boot.img");
        uki::boot_disk(self.program, &boot)?;
        // It tells a hang from an answer: without hardware help a boot takes half a minute, with many starts some minutes.
        let many = matches!(job.what, What::Job { .. } | What::Sealed);
        let limit = Duration::from_secs(if many { 1800 } else { 600 });
        let took = vm::boot(&vm::Machine {
            variables: self.variables,
            tpm: self.tpm,
            boot: &boot,
            payload: &built.payload,
            exchange: &exchange,
            log: &log,
            limit,
        })?;
        let back = log.join("back");
        disk::read_exchange(&exchange, &back)?;
        fs::remove_file(&exchange)?;
        let Ok(bytes) = fs::read(back.join(OUTCOME)) else {
            bail!("the guest brought nothing back:\n{}", vm::tail(&log));
        };
        let outcome: Outcome = serde_json::from_slice(&bytes)?;
        if let Some(error) = &outcome.error {
            bail!("in the guest: {error}\n{}", vm::tail(&log));
        }
        Ok((outcome, took))
    }
}
