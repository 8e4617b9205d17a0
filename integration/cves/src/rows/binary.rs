//! The runtime's binary, overwritten from inside while the runtime enters the container.
use super::process;
use crate::row::{Ask, Row};
use crate::site::{Site, Who};
use anyhow::{Context, Result};
use serde_json::json;
use stack::process::{Daemon, output, run};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const VICTIM: &str = "/tmp/cve-victim";

pub(super) fn rows() -> Vec<Row> {
    let row = Row::request(
        "CVE-2019-5736",
        "the runtime's program opened for writing through /proc/PID/exe while it enters the container",
        "runtime-overwritten",
        |_, ask| {
            // What is run is the runtime itself, by the name that it has in there.
            ask.execs = (0..5).map(|_| process(&["/proc/self/exe"])).collect();
            Ok(())
        },
    );
    let program = Row::request(
        "CVE-2019-5736 (first step)",
        "the container's program is /proc/self/exe: the runtime itself, run by root of the container",
        "runtime-as-program",
        |_, ask| {
            ask.request.spec["process"]["args"] = json!(["/proc/self/exe", "--help"]);
            Ok(())
        },
    );
    vec![
        row.exploit(&["exe", "8"]).common(|_, ask| entered(ask)).escaped(|_, who, _| changed(who)).control(control),
        program.escaped(|_, _, seen| Ok(seen.output().to_lowercase().contains("usage"))).control(|_| {
            // A program that runs what it is told to, itself.
            let said = output(Command::new("bash").args(["-c", "exec /proc/self/exe --help"]))?;
            Ok(format!("{}{}", said.stdout, said.stderr).to_lowercase().contains("usage"))
        }),
    ]
}

/// The twin: processes that are run in the container as usual.
fn entered(ask: &mut Ask) -> Result<()> {
    ask.execs = (0..5).map(|_| process(&["/bin/true"])).collect();
    Ok(())
}

/// One of the programs is no longer what was installed; it is put back.
fn changed(who: Who) -> Result<bool> {
    let programs: &[&str] = match who {
        Who::Boltseal => &["/usr/local/bin/boltseal-runtime", "/usr/local/bin/containerd-shim-boltseal-v1"],
        Who::Runc => &["/usr/sbin/runc", "/usr/bin/containerd-shim-runc-v2"],
        Who::Crun => &["/usr/bin/crun"],
    };
    let mut changed = false;
    for program in programs {
        let kept = kept(program)?;
        if fs::read(program)? != fs::read(&kept)? {
            changed = true;
            fs::copy(&kept, program)?;
        }
    }
    Ok(changed)
}

/// Where a good copy lies: made at the first look, before any exploit ran.
fn kept(program: &str) -> Result<std::path::PathBuf> {
    let kept = Path::new("/var/lib/cve-kept").join(Path::new(program).file_name().context("no name")?);
    if !kept.exists() {
        fs::create_dir_all("/var/lib/cve-kept")?;
        fs::copy(program, &kept)?;
    }
    Ok(kept)
}

/// Before the first row.
pub(crate) fn keep() -> Result<()> {
    for who in [Who::Boltseal, Who::Runc, Who::Crun] {
        changed(who)?;
    }
    Ok(())
}

/// A program that is run again and again beside the exploit, and of which nobody takes care.
fn control(site: &mut Site) -> Result<bool> {
    fs::copy(&site.exploit, VICTIM)?;
    let before = fs::read(VICTIM)?;
    let log = site.world.node.work.join("overwrite.log");
    let mut exploit = Daemon::start("the exploit", Command::new(&site.exploit).args(["exe", "8"]), &log)?;
    let end = std::time::Instant::now() + Duration::from_secs(8);
    let mut overwritten = false;
    while !overwritten && std::time::Instant::now() < end {
        // Once it is overwritten it is no program any more.
        drop(output(Command::new("timeout").args(["0.2", VICTIM, "wait", "1"])));
        overwritten = fs::read(VICTIM)? != before;
    }
    exploit.stop()?;
    run(Command::new("rm").arg("-f").arg(VICTIM))?;
    Ok(overwritten)
}
