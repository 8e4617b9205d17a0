//! The VM's second program, on the Debian root: as pid 1 it makes the machine a node and reaps, or hands over to systemd; its
//! child does the job that the host wrote on the exchange disk and writes there what came of it.
mod enrol;
mod kexec;
mod levels;
mod machine;
mod sealed;
mod systemd;
mod tamper;
mod work;

use crate::disk;
use crate::job::{JOB, Job};
use anyhow::{Context, Result};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const EXCHANGE: &str = "/run/exchange";

pub(crate) fn main() -> ExitCode {
    if std::process::id() != 1 {
        return match work::run_job() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                println!("guest: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    if let Err(error) = supervise() {
        println!("guest: {error:#}");
    }
    nix::unistd::sync();
    let Err(error) = reboot(RebootMode::RB_POWER_OFF);
    println!("guest: cannot power off: {error}");
    ExitCode::FAILURE
}

fn supervise() -> Result<()> {
    machine::first_mounts()?;
    disk::read_exchange(&machine::disk("exchange")?, Path::new(EXCHANGE))?;
    if job()?.systemd {
        return systemd::become_it();
    }
    machine::mounts()?;
    let child = Command::new(std::env::current_exe()?)
        .args(["guest", "work"])
        .env(stack::given::GIVEN, payload().join("given"))
        .spawn()
        .context("the guest's work")?;
    let child = Pid::from_raw(i32::try_from(child.id())?);
    loop {
        match waitpid(None::<Pid>, None)? {
            WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _) if pid == child => return Ok(()),
            _ => {}
        }
    }
}

fn job() -> Result<Job> {
    Ok(serde_json::from_slice(&fs::read(Path::new(EXCHANGE).join(JOB)).context("no job")?)?)
}

/// What the host gave for this job.
fn given(name: &str) -> PathBuf {
    Path::new(EXCHANGE).join(crate::job::GIVEN).join(name)
}

/// What this job made for the host.
fn made(name: &str) -> PathBuf {
    Path::new("/run/back").join(crate::job::MADE).join(name)
}

/// Programs, tests and images.
fn payload() -> PathBuf {
    stack::private::project().join("node")
}
