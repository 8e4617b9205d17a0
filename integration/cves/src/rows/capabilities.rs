//! More capabilities, or another user, than the container was given.
use super::process;
use crate::row::{Row, Seen};
use anyhow::{Context, Result};
use serde_json::json;
use stack::image::USER;
use stack::process::{output, run};
use std::process::Command;

const STATUS: [&str; 2] = ["/bin/cat", "/proc/self/status"];
/// CAP_NET_BIND_SERVICE, which the policy leaves.
const LEFT: u64 = 1 << 10;
/// containerd's default set, which the request names.
const DEFAULT: u64 = 0xa80c_25fb;

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row::request(
            "CVE-2022-24769 (Moby), CVE-2022-29162 (runc)",
            "inheritable capabilities, which a file's own capabilities turn into more",
            "inheritable",
            |_, ask| {
                ask.request.spec["process"]["capabilities"]["inheritable"] =
                    json!(["CAP_NET_RAW", "CAP_NET_BIND_SERVICE"]);
                Ok(())
            },
        )
        .args(&STATUS)
        .escaped(|_, _, seen| Ok(set(seen, "CapInh") != 0))
        .control(|_| inherited()),
        Row::request(
            "crun CVE-2022-27650, youki CVE-2025-27612",
            "inheritable and ambient capabilities of an exec",
            "inheritable-exec",
            |_, ask| {
                let mut process = process(&STATUS);
                for set in ["inheritable", "ambient"] {
                    process["capabilities"][set] = json!(["CAP_NET_RAW", "CAP_NET_BIND_SERVICE"]);
                }
                ask.execs = vec![process];
                Ok(())
            },
        )
        .args(&["/bin/sleep", "60"])
        .common(|_, ask| {
            ask.execs = vec![process(&["/bin/true"])];
            Ok(())
        })
        .escaped(|_, _, seen| Ok(set(seen, "CapInh") != 0 || set(seen, "CapAmb") != 0))
        .control(|_| inherited()),
        Row::request(
            "libcontainer 0.7 (absent means all)",
            "a spec that names no capabilities at all",
            "capabilities-absent",
            |_, ask| {
                if let Some(process) = ask.request.spec["process"].as_object_mut() {
                    process.remove("capabilities");
                }
                Ok(())
            },
        )
        .args(&STATUS)
        .escaped(|_, _, seen| Ok(set(seen, "CapEff") & !LEFT != 0))
        .control(|_| Ok(set(&bare_status(&[])?, "CapEff") & !LEFT != 0)),
        Row::request(
            "rkt CVE-2019-10144, 10145, 10147; libcontainer's exec",
            "an exec'd process without the container's bounds: no filter, every capability",
            "exec-unbounded",
            |_, ask| {
                let mut process = process(&STATUS);
                process["noNewPrivileges"] = json!(false);
                if let Some(process) = process.as_object_mut() {
                    process.remove("capabilities");
                }
                ask.execs = vec![process];
                Ok(())
            },
        )
        .args(&["/bin/sleep", "60"])
        .common(|_, ask| {
            ask.execs = vec![process(&["/bin/true"])];
            Ok(())
        })
        .escaped(|_, _, seen| Ok(seen.output().contains("Seccomp:\t0") || set(seen, "CapBnd") & !(LEFT | DEFAULT) != 0))
        .control(|_| {
            let seen = bare_status(&[])?;
            Ok(seen.output().contains("Seccomp:\t0") && set(&seen, "CapBnd") & !(LEFT | DEFAULT) != 0)
        }),
        Row::request("privileged", "every capability of the kernel", "capabilities-all", |_, ask| {
            for set in ["bounding", "effective", "permitted"] {
                ask.request.spec["process"]["capabilities"][set] =
                    json!(["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_MODULE"]);
            }
            Ok(())
        })
        .args(&STATUS)
        .escaped(|_, _, seen| Ok(set(seen, "CapEff") & (1 << 21) != 0))
        .on_runc(),
        Row::request("crun CVE-2026-30892", "an exec as user 1 that runs as user 0", "exec-user", |_, ask| {
            let mut process = process(&["/bin/id", "-u"]);
            process["user"] = json!({ "uid": 1, "gid": 1 });
            ask.execs = vec![process];
            Ok(())
        })
        .args(&["/bin/sleep", "60"])
        .common(|_, ask| {
            ask.execs = vec![process(&["/bin/true"])];
            Ok(())
        })
        .escaped(|_, _, seen| Ok(seen.output().trim() == "0"))
        .control(|_| Ok(run(Command::new("id").arg("-u"))?.trim() == "0")),
        Row::request(
            "containerd CVE-2024-40635",
            "a user id beyond 32 bits, which a client turns into 0",
            "user-wraps",
            |site, ask| {
                // What such a client makes of it; this containerd's own does not any more.
                ask.request.spec["process"]["user"] = json!({ "uid": 0, "gid": 0 });
                site.enforce_root_rule()
            },
        )
        .image("user-wraps", "app")
        .common(|_, ask| {
            let (uid, gid) = USER.split_once(':').context("user")?;
            ask.request.spec["process"]["user"] = json!({ "uid": uid.parse::<u32>()?, "gid": gid.parse::<u32>()? });
            Ok(())
        })
        .args(&["/bin/id", "-u"])
        .escaped(|_, _, seen| Ok(seen.output().trim() == "0"))
        .on_runc(),
    ]
}

/// A capability set of a status file, as bits; 0 when it is not there.
fn set(seen: &Seen, name: &str) -> u64 {
    let line = seen.output().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0)
}

fn bare_status(before: &[&str]) -> Result<Seen> {
    let (program, words) = before.split_first().unwrap_or((&"cat", &[]));
    let mut command = Command::new(program);
    if !before.is_empty() {
        command.args(words).arg("cat");
    }
    let said = output(command.arg("/proc/self/status"))?;
    Ok(Seen::Ran { code: 0, output: said.stdout })
}

fn inherited() -> Result<bool> {
    Ok(set(&bare_status(&["setpriv", "--inh-caps", "+net_raw"])?, "CapInh") != 0)
}
