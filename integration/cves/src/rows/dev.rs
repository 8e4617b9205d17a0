//! /dev of the image: links that a runtime follows while it makes nodes, and nodes that nobody granted.
use super::without_mount;
use crate::row::{Ask, Row};
use crate::site::{OUTSIDE, PROC_FILE, SECRET, Site, Who};
use anyhow::Result;
use serde_json::json;
use stack::process::run;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

pub(super) fn rows() -> Vec<Row> {
    let own_dev = |_: &mut Site, ask: &mut Ask| {
        without_mount(ask, "/dev");
        Ok(())
    };
    vec![
        Row::request(
            "CVE-2026-41579 (runc), libcontainer 0.7",
            "/dev of the image leads to a folder of the host, and no fresh /dev is mounted",
            "dev-link",
            own_dev,
        )
        .image("dev-out", "app")
        .escaped(|_, _, _| outside_touched())
        .control(|_| {
            run(Command::new("ln").args(["-s", "/proc/self/fd", &format!("{OUTSIDE}/fd")]))?;
            outside_touched()
        }),
        Row::request(
            "CVE-2026-47766 (crun)",
            "the same with a fresh /dev named in the spec: the link is followed to mount it",
            "dev-link-mounted",
            |_, _| Ok(()),
        )
        .image("dev-out", "app")
        // A mount that lands on the same path of the image's own is none of the host's.
        .escaped(|_, _, _| outside_touched())
        .control(|_| {
            run(Command::new("ln").args(["-s", "/proc/self/fd", &format!("{OUTSIDE}/fd")]))?;
            outside_touched()
        }),
        Row::request(
            "crun CVE-2026-88264, CVE-2026-88265",
            "no fresh /dev, a terminal, and /dev/console of the image leads to a file of the host",
            "dev-console",
            |_, ask| {
                without_mount(ask, "/dev");
                ask.request.spec["process"]["user"] = json!({ "uid": 1, "gid": 1 });
                ask.request.spec["process"]["terminal"] = json!(true);
                ask.request.terminal = true;
                Ok(())
            },
        )
        .image("dev-console", "app")
        .escaped(|_, _, _| Ok(fs::metadata(SECRET)?.uid() != 0))
        .control(|_| {
            run(Command::new("chown").args(["1", SECRET]))?;
            Ok(fs::metadata(SECRET)?.uid() != 0)
        })
        .not_on(|who| if who == Who::Crun { "its terminal needs a console socket" } else { "" }),
        Row::request(
            "CVE-2025-31133, youki CVE-2025-62161",
            "/dev/null of the image is a symbolic link, so that a masked path shows what it leads to",
            "dev-null",
            own_dev,
        )
        .image("dev-null", "app")
        // runc 1.1 opens the link in the place of stdout: the exploit's word is lost in it, its exit code is not.
        .exploit(&["proc-file", "/proc/keys", "/proc/timer_list"])
        // A bind mount of a link is a bind mount of what it leads to.
        .control(|_| link_bound("touch /tmp/cve-masked")),
        Row::request(
            "CVE-2025-52565, youki CVE-2025-62596",
            "/dev/pts is a volume in which the terminal's name leads elsewhere",
            "dev-pts",
            |_, ask| {
                std::os::unix::fs::symlink(PROC_FILE, format!("{}/0", crate::site::VOLUME))?;
                without_mount(ask, "/dev/pts");
                super::bind(ask, "/dev/pts", crate::site::VOLUME);
                ask.request.spec["process"]["terminal"] = json!(true);
                ask.request.terminal = true;
                Ok(())
            },
        )
        .exploit(&["proc-file", "/dev/console"])
        .control(|_| link_bound("mknod /tmp/cve-masked c 1 3"))
        .not_on(|who| if who == Who::Crun { "its terminal needs a console socket" } else { "" }),
        Row::inside(
            "device rules (libcontainer on cgroup v2)",
            "a node of the kernel's log made and opened inside",
            "dev-node",
            &["device", "c", "1", "11"],
        )
        .not_on(|who| {
            if who == Who::Crun { "its device rules need BPF, which this machine does not give" } else { "" }
        }),
        Row::request("device rules (allow all)", "the spec opens every device", "dev-all", |_, ask| {
            ask.request.spec["linux"]["resources"]["devices"] = json!([{ "allow": true, "access": "rwm" }]);
            Ok(())
        })
        .exploit(&["device", "c", "1", "11"])
        .control(|site| Ok(site.bare(&["device", "c", "1", "11"])?.word("ESCAPED ").is_some())),
    ]
}

/// Something was made in the host's folder.
fn outside_touched() -> Result<bool> {
    Ok(fs::read_dir(OUTSIDE)?.next().is_some())
}

/// What a runtime does that binds a name over what it wants to hide, when the name is a link.
fn link_bound(make: &str) -> Result<bool> {
    let script = format!(
        "{make} && ln -s {PROC_FILE} /tmp/cve-link && mount --bind /tmp/cve-link /tmp/cve-masked && \
         boltseal-exploit proc-file /tmp/cve-masked; umount /tmp/cve-masked; rm /tmp/cve-masked /tmp/cve-link"
    );
    let said = stack::process::output(Command::new("unshare").args(["--mount", "sh", "-c", &script]))?;
    Ok(said.stdout.starts_with("ESCAPED"))
}
