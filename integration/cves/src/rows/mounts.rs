//! Mounts whose source or destination is not what its path says.
use super::{bind, push};
use crate::row::{Ask, Row};
use crate::site::{OUTSIDE, SECRET, Site, VOLUME};
use anyhow::Result;
use serde_json::json;
use stack::process::run;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row::request(
            "Kubernetes CVE-2017-1002101, containerd CVE-2021-43816",
            "the source in the volume is a symbolic link to a folder of the host",
            "source-link",
            |_, ask| {
                symlink("/var/lib/cves/host", format!("{VOLUME}/sub"))?;
                bind(ask, "/data", &format!("{VOLUME}/sub"));
                Ok(())
            },
        )
        .common(|_, ask| volume(ask))
        .exploit(&["read", "/data/secret"])
        .control(read_by_link),
        Row::request(
            "containerd CVE-2022-23648",
            "a destination that climbs out of the root file system",
            "destination-climbs",
            |_, ask| {
                bind(ask, "/../../../../../../../../../../../var/lib/cves/host/outside/climbed", VOLUME);
                Ok(())
            },
        )
        .escaped(|_, _, _| Ok(Path::new(OUTSIDE).join("climbed").exists()))
        .control(|site| {
            // A path joined as text.
            let root = site.world.node.work.join("climb-root");
            fs::create_dir_all(&root)?;
            fs::create_dir_all(format!("{}/{}/climbed", root.display(), "../".repeat(20) + OUTSIDE))?;
            fs::remove_dir(root)?;
            Ok(Path::new(OUTSIDE).join("climbed").exists())
        }),
        Row::request(
            "crun CVE-2019-18837, CVE-2025-24965",
            "a file that the runtime makes in the image, where a symbolic link leads to the host",
            "file-link",
            |_, ask| {
                fs::write(format!("{VOLUME}/file"), "from the volume\n")?;
                bind(ask, "/etc/out", &format!("{VOLUME}/file"));
                Ok(())
            },
        )
        .image("file-out", "app")
        .escaped(|_, _, _| Ok(Path::new(OUTSIDE).join("file").exists()))
        .control(|site| {
            let root = site.world.node.work.join("file-root");
            fs::create_dir_all(&root)?;
            symlink(Path::new(OUTSIDE).join("file"), root.join("out"))?;
            fs::write(root.join("out"), "by the path\n")?;
            fs::remove_dir_all(root)?;
            Ok(Path::new(OUTSIDE).join("file").exists())
        }),
        Row::request("host folder", "a folder of the host as a volume", "host-folder", |_, ask| {
            bind(ask, "/data", "/var/lib/cves/host");
            Ok(())
        })
        .common(|_, ask| volume(ask))
        .exploit(&["read", "/data/secret"])
        .on_runc(),
        Row::request("docker.sock", "the socket of a container engine as a volume", "engine-socket", |site, ask| {
            let listener = std::os::unix::net::UnixListener::bind("/run/docker.sock")?;
            drop(listener);
            site.world.undo_later(|_| Ok(fs::remove_file("/run/docker.sock")?));
            bind(ask, "/docker.sock", "/run/docker.sock");
            Ok(())
        })
        .args(&["/bin/sh", "-c", "[ -S /docker.sock ] && echo REACHED; echo end"])
        .escaped(|_, _, seen| Ok(seen.output().contains("REACHED")))
        .on_runc(),
        Row::request(
            "debugfs, tracefs",
            "a file system of the kernel's that no container needs",
            "kernel-file-system",
            |_, ask| {
                let mount = json!({ "destination": "/sys/kernel/debug", "type": "debugfs", "source": "debugfs", "options": [] });
                push(&mut ask.request.spec["mounts"], mount);
                Ok(())
            },
        )
        .args(&["/bin/ls", "/sys/kernel/debug"])
        .escaped(|_, _, seen| Ok(seen.output().contains("sched") || seen.output().contains("bdi")))
        .control(|_| {
            let script = "mount -t debugfs none /mnt && ls /mnt";
            let said = stack::process::output(Command::new("unshare").args(["--mount", "sh", "-c", script]))?;
            Ok(said.stdout.contains("sched") || said.stdout.contains("bdi"))
        }),
        Row::request(
            "shared propagation",
            "the root stays shared, so that mounts made inside may travel out",
            "shared-propagation",
            |_, ask| {
                ask.request.spec["linux"]["rootfsPropagation"] = json!("rshared");
                Ok(())
            },
        )
        .args(&["/bin/cat", "/proc/self/mountinfo"])
        .escaped(|_, _, seen| {
            let root = seen.output().lines().find(|line| line.split(' ').nth(4) == Some("/"));
            Ok(root.is_some_and(|line| line.contains(" shared:")))
        })
        .control(|_| {
            let said = fs::read_to_string("/proc/self/mountinfo")?;
            Ok(said.lines().any(|line| line.split(' ').nth(4) == Some("/") && line.contains(" shared:")))
        }),
    ]
}

/// The volume that is granted, where it may be.
pub(super) fn volume(ask: &mut Ask) -> Result<()> {
    bind(ask, "/volume", VOLUME);
    Ok(())
}

fn read_by_link(site: &mut Site) -> Result<bool> {
    symlink("/var/lib/cves/host", format!("{VOLUME}/sub"))?;
    let target = site.world.node.work.join("link-target");
    fs::create_dir_all(&target)?;
    let script = format!("mount --bind {VOLUME}/sub {0} && boltseal-exploit read {0}/secret", target.display());
    let said = stack::process::output(Command::new("unshare").args(["--mount", "sh", "-c", &script]))?;
    run(Command::new("rmdir").arg(target))?;
    debug_assert!(Path::new(SECRET).exists());
    Ok(said.stdout.starts_with("ESCAPED"))
}
