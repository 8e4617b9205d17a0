//! A /proc or /sys that is none, so that what the runtime writes there (labels, sysctls) goes astray.
use super::{bind, push, without_mount};
use crate::row::{Ask, Row, Seen};
use crate::site::{HOST, Site, VOLUME};
use anyhow::{Context, Result};
use serde_json::json;
use stack::process::{output, run};
use std::fs;
use std::process::Command;

pub(super) fn rows() -> Vec<Row> {
    let fake = |ids, mechanism, test, fault: fn(&mut Site, &mut Ask) -> Result<()>| {
        Row::request(ids, mechanism, test, fault)
            .args(&[
                "/bin/sh",
                "-c",
                "cat /proc/canary /proc/self/attr/canary /proc/sys/canary /sys/canary 2>/dev/null; echo end",
            ])
            .escaped(|_, _, seen| Ok(is_fake(seen)))
            .control(control)
    };
    vec![
        fake("CVE-2019-16884", "a volume mounted on /proc", "proc-volume", |_, ask| {
            filled(&[""])?;
            without_mount(ask, "/proc");
            bind(ask, "/proc", VOLUME);
            Ok(())
        }),
        // The image's own file stands for the fake there.
        fake("CVE-2019-19921, youki CVE-2025-54867", "/proc of the image is a symbolic link", "proc-link", |_, _| {
            Ok(())
        })
        .image("proc-link", "app")
        .escaped(|_, _, seen| Ok(writes_astray(seen)))
        .args(&["/bin/sh", "-c", "[ -e /tmp/self/status ] && echo ASTRAY; echo end"]),
        fake("CVE-2023-27561", "/proc of the image is a symbolic link into a volume", "proc-link-volume", |_, ask| {
            filled(&["proc"])?;
            bind_first(ask, "/volume", VOLUME);
            Ok(())
        })
        .image("proc-volume", "app"),
        fake("CVE-2023-28642", "/sys of the image is a symbolic link", "sys-link", |_, _| Ok(()))
            .image("sys-link", "app")
            .escaped(|_, _, seen| Ok(writes_astray(seen)))
            .args(&["/bin/sh", "-c", "[ -e /tmp/kernel/notes ] && echo ASTRAY; echo end"]),
        fake("CVE-2025-52881", "a volume mounted on /proc/self/attr", "proc-attr", |_, ask| {
            filled(&[""])?;
            bind(ask, "/proc/self/attr", VOLUME);
            Ok(())
        }),
        fake("CVE-2025-52881", "a volume mounted on /proc/sys", "proc-sys", |_, ask| {
            filled(&[""])?;
            bind(ask, "/proc/sys", VOLUME);
            Ok(())
        }),
        Row::request("youki GHSA-vf95-55w6-qmrf class", "a tmpfs over /proc/sys", "proc-sys-tmpfs", |_, ask| {
            let mount = json!({ "destination": "/proc/sys", "type": "tmpfs", "source": "tmpfs", "options": ["rw"] });
            push(&mut ask.request.spec["mounts"], mount);
            Ok(())
        })
        .args(&["/bin/sh", "-c", "[ -e /proc/sys/kernel/hostname ] || echo FAKED; echo end"])
        .escaped(|_, _, seen| Ok(seen.output().contains("FAKED")))
        .control(|_| {
            let script = "mount -t tmpfs none /proc/sys && [ ! -e /proc/sys/kernel/hostname ] && echo FAKED";
            Ok(output(Command::new("unshare").args(["--mount", "sh", "-c", script]))?.stdout.contains("FAKED"))
        }),
    ]
}

/// Before the other mounts: what comes later may lie in it.
fn bind_first(ask: &mut Ask, destination: &str, source: &str) {
    if let Some(mounts) = ask.request.spec["mounts"].as_array_mut() {
        let mount = json!({ "destination": destination, "type": "bind", "source": source, "options": ["bind", "rw"] });
        mounts.insert(0, mount);
    }
}

/// The volume looks like what it stands for.
fn filled(folders: &[&str]) -> Result<()> {
    for folder in folders {
        let folder = format!("{VOLUME}/{folder}");
        fs::create_dir_all(format!("{folder}/self/attr")).context(HOST)?;
        for name in ["canary", "self/attr/exec", "self/attr/canary"] {
            fs::write(format!("{folder}/{name}"), "FAKE\n")?;
        }
    }
    Ok(())
}

fn is_fake(seen: &Seen) -> bool {
    seen.output().contains("FAKE")
}

/// The real one lies elsewhere: whoever wrote to the path wrote to the image's folder.
fn writes_astray(seen: &Seen) -> bool {
    seen.output().contains("ASTRAY")
}

/// A mount by its path, with nobody looking at what is there.
fn control(site: &mut Site) -> Result<bool> {
    filled(&[""])?;
    let script = format!("mount --bind {VOLUME} /proc && cat /proc/self/attr/canary");
    let fake = output(Command::new("unshare").args(["--mount", "sh", "-c", &script]))?.stdout.contains("FAKE");
    let root = site.world.node.work.join("link-root");
    fs::create_dir_all(root.join("tmp"))?;
    let script =
        format!("ln -sfn tmp {0}/proc && mount -t proc proc {0}/proc && ls {0}/tmp/self/status", root.display());
    let astray = output(Command::new("unshare").args(["--mount", "sh", "-c", &script]))?.ok();
    run(Command::new("rm").arg("-rf").arg(root))?;
    Ok(fake && astray)
}
