//! The VM's second program, on the Debian root: as pid 1 it makes the machine a node and reaps; its child does the job that
//! the host wrote on the exchange disk and writes there what came of it.
mod machine;
mod work;

use anyhow::{Context, Result};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::process::{Command, ExitCode};

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
    machine::mounts()?;
    let child = Command::new(std::env::current_exe()?)
        .args(["guest", "work"])
        .env(stack::given::GIVEN, stack::private::project().join("node/given"))
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
