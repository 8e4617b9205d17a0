//! Namespaces of the host, and what they alone would hide.
use crate::row::{Ask, Row};
use crate::site::{SECRET, Site};
use anyhow::Result;
use serde_json::json;
use stack::process::{Daemon, output};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::Command;

/// An abstract socket as containerd's shims had it.
const ABSTRACT: &str = "/containerd-shim/cve-canary.sock";

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row::request(
            "containerd CVE-2020-15257",
            "an abstract socket of the host's network namespace",
            "abstract-socket",
            |site, ask| {
                listen(site)?;
                without(ask, "network");
                Ok(())
            },
        )
        .exploit(&["abstract", ABSTRACT])
        .control(|site| {
            listen(site)?;
            let seen = site.bare(&["abstract", ABSTRACT])?;
            site.world.undo()?;
            Ok(seen.word("ESCAPED ").is_some())
        }),
        Row::request(
            "host processes",
            "the host's process namespace: another process's root",
            "host-processes",
            |site, ask| {
                let log = site.world.node.work.join("victim.log");
                // Without capabilities, as most daemons: only then may root of a container look at it at all.
                let mut command = Command::new("setpriv");
                command.args(["--bounding-set=-all", "--inh-caps=-all", "sleep", "60"]);
                let mut victim = Daemon::start("a process of the host", &mut command, &log)?;
                let pid = victim.pid();
                site.world.undo_later(move |_| victim.stop());
                without(ask, "pid");
                ask.request.spec["process"]["args"] =
                    json!(["/bin/exploit", "read", format!("/proc/{pid}/root{SECRET}")]);
                Ok(())
            },
        )
        .exploit(&["wait", "0"])
        .control(|site| {
            let own = std::process::id();
            Ok(site.bare(&["read", &format!("/proc/{own}/root{SECRET}")])?.word("ESCAPED ").is_some())
        }),
        Row::request("host ipc by path", "a namespace of the host's, by the path of its file", "host-ipc", |_, ask| {
            without(ask, "ipc");
            super::push(
                &mut ask.request.spec["linux"]["namespaces"],
                json!({ "type": "ipc", "path": "/proc/1/ns/ipc" }),
            );
            Ok(())
        })
        .args(&["/bin/ls", "-l", "/proc/self/ns/ipc"])
        .escaped(|_, _, seen| {
            let own = std::fs::read_link("/proc/1/ns/ipc")?;
            Ok(seen.output().contains(own.to_string_lossy().as_ref()))
        })
        .on_runc(),
        Row::request(
            "libcontainer 0.7 (exec)",
            "a user namespace that an exec does not join: root of the host",
            "exec-user-namespace",
            |_, ask| {
                super::push(&mut ask.request.spec["linux"]["namespaces"], json!({ "type": "user" }));
                for map in ["uidMappings", "gidMappings"] {
                    ask.request.spec["linux"][map] = json!([{ "containerID": 0, "hostID": 200_000, "size": 65536 }]);
                }
                ask.execs = vec![super::process(&["/bin/cat", "/proc/self/uid_map"])];
                Ok(())
            },
        )
        .args(&["/bin/sleep", "60"])
        .common(|_, ask| {
            ask.execs = vec![super::process(&["/bin/true"])];
            Ok(())
        })
        .escaped(|_, _, seen| Ok(seen.output().contains("4294967295")))
        .control(|_| Ok(output(Command::new("cat").arg("/proc/self/uid_map"))?.stdout.contains("4294967295"))),
    ]
}

fn without(ask: &mut Ask, kind: &str) {
    if let Some(list) = ask.request.spec["linux"]["namespaces"].as_array_mut() {
        list.retain(|namespace| namespace["type"] != kind);
    }
}

/// It is there until the row is over.
fn listen(site: &mut Site) -> Result<()> {
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(ABSTRACT)?)?;
    site.world.undo_later(move |_| {
        drop(listener);
        Ok(())
    });
    Ok(())
}
