//! What containerd hands on: programs for logs, checkpoints, hooks.
use crate::row::Row;
use crate::site::{HOST, OUTSIDE};
use anyhow::Result;
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A program of the host, and the file that it makes when it runs.
const PROGRAM: &str = "/var/lib/cves/program";
const RAN: &str = "/var/lib/cves/host/outside/ran";

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row::request(
            "containerd CVE-2026-53488",
            "a log program: the URI of stdout names a program of the host",
            "log-program",
            |_, ask| {
                program("exec 3>&- 4>&- 5>&-")?;
                ask.request.stdout = format!("binary://{PROGRAM}");
                ask.request.stderr.clone_from(&ask.request.stdout);
                Ok(())
            },
        )
        .escaped(|_, _, _| Ok(Path::new(RAN).exists()))
        .on_runc()
        .not_on(|who| if who == crate::site::Who::Crun { "a matter of the shim" } else { "" }),
        Row::request(
            "containerd CVE-2026-53492, CVE-2026-53489, CVE-2026-50195",
            "restore from a checkpoint that the request names",
            "checkpoint",
            |site, ask| stack::cases::checkpoint(&mut site.world, &mut ask.request),
        )
        .escaped(|_, _, seen| Ok(matches!(seen, crate::row::Seen::Ran { .. })))
        .no_control("a restore needs CRIU, which is not here")
        .not_on(|_| "a restore needs CRIU"),
        Row::request(
            "NVIDIA CVE-2025-23266, CVE-2024-0132 (hooks)",
            "a hook of the spec runs a program of the host as root",
            "hook",
            |_, ask| {
                program("")?;
                ask.request.spec["hooks"] = json!({ "createRuntime": [{ "path": PROGRAM, "args": ["program"] }] });
                Ok(())
            },
        )
        .escaped(|_, _, _| Ok(Path::new(RAN).exists()))
        .on_runc(),
        Row::request(
            "a filter's listener",
            "the pod's own filter hands calls to a socket of the host",
            "filter-listener",
            |_, ask| {
                let path = format!("{OUTSIDE}/listener.sock");
                ask.request.spec["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW",
                    "architectures": ["SCMP_ARCH_X86_64"], "listenerPath": path,
                    "syscalls": [{ "names": ["getppid"], "action": "SCMP_ACT_NOTIFY" }] });
                listener(&path)
            },
        )
        .escaped(|_, _, _| Ok(Path::new(RAN).exists()))
        .on_runc(),
    ]
}

fn program(first: &str) -> Result<()> {
    fs::write(PROGRAM, format!("#!/bin/sh\n{first}\necho ran >{RAN}\n"))?;
    fs::set_permissions(PROGRAM, fs::Permissions::from_mode(0o755))?;
    fs::set_permissions(HOST, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Says that somebody connected.
fn listener(path: &str) -> Result<()> {
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    std::thread::spawn(move || {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while std::time::Instant::now() < end {
            if listener.accept().is_ok() {
                drop(fs::write(RAN, "connected\n"));
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    });
    Ok(())
}
