//! cgroups: limits that the container lifts by itself, and the hierarchy that calls a program of the host.
use super::push;
use crate::row::{Ask, Row};
use crate::site::Who;
use anyhow::Result;
use serde_json::json;
use std::fs;

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row::inside(
            "CVE-2022-0492",
            "a cgroup hierarchy mounted from a new user namespace, and notify_on_release set in it",
            "release-agent",
            &["cgroup"],
        ),
        Row::request(
            "CVE-2023-25809 class",
            "the container's own cgroup is mounted writable, and it lifts its limit",
            "cgroup-writable",
            |_, ask| {
                cgroup(ask, &["nosuid", "noexec", "nodev", "rw"]);
                Ok(())
            },
        )
        .args(&["/bin/sh", "-c", LIFT])
        .escaped(|_, _, seen| Ok(seen.output().contains("LIFTED")))
        .control(|_| own_limit())
        .not_on(|who| if who == Who::Crun { "it is given no limits here" } else { "" }),
        Row::request(
            "CVE-2023-25809",
            "the node's whole hierarchy: no cgroup namespace, mounted writable",
            "cgroup-of-the-node",
            |_, ask| {
                cgroup(ask, &["nosuid", "noexec", "nodev", "rw"]);
                Ok(())
            },
        )
        .exploit(&["open-write", "/sys/fs/cgroup/memory/cgroup.procs", "/sys/fs/cgroup/pids/cgroup.procs", "/sys/fs/cgroup/cgroup.procs"])
        .control(|_| {
            // The private machine's own view.
            Ok(fs::File::options().write(true).open("/sys/fs/cgroup/memory/cgroup.procs").is_ok())
        })
        .not_on(|who| if who == Who::Crun { "it is run without cgroups here" } else { "" }),
        Row::request(
            "no limits",
            "a spec without any limit",
            "limits-absent",
            |_, ask| {
                if let Some(resources) = ask.request.spec["linux"]["resources"].as_object_mut() {
                    resources.remove("memory");
                    resources.remove("pids");
                }
                cgroup(ask, &["nosuid", "noexec", "nodev", "ro"]);
                Ok(())
            },
        )
        .args(&["/bin/sh", "-c", "grep -hx max /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; cat /sys/fs/cgroup/pids/pids.max; echo end"])
        .escaped(|_, _, seen| Ok(seen.output().lines().next() == Some("max")))
        .on_runc()
        .not_on(|who| if who == Who::Crun { "it is given no limits here" } else { "" }),
    ]
}

/// Lifts the limit on processes of the cgroup that it is in.
const LIFT: &str = "for f in /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max; do \
                    echo max 2>/dev/null >$f && echo LIFTED; done; echo end";

fn cgroup(ask: &mut Ask, options: &[&str]) {
    let mount = json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options });
    push(&mut ask.request.spec["mounts"], mount);
}

/// Root outside a container, in a cgroup of its own.
fn own_limit() -> Result<bool> {
    let folder = "/sys/fs/cgroup/pids/cve-limit";
    fs::create_dir(folder)?;
    fs::write(format!("{folder}/pids.max"), "64")?;
    fs::write(format!("{folder}/pids.max"), "max")?;
    let lifted = fs::read_to_string(format!("{folder}/pids.max"))?.trim() == "max";
    fs::remove_dir(folder)?;
    Ok(lifted)
}
