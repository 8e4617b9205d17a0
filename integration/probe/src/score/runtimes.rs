//! The probe under each runtime, through containerd: the same request by `ctr run`, as containerd itself fills it in.
use crate::{IMAGE, INSIDE, SET_UID};
use anyhow::{Context, Result, bail};
use probe::Report;
use stack::client::{BOLTSEAL, RUNC};
use stack::node::{NAMESPACE, World};
use stack::process::{output, run};
use stack::{policy, private};
use std::fs;
use std::process::Command;

/// One column.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) name: &'static str,
    /// What it was, in one line.
    pub(crate) how: String,
    /// What the probe said; or why it did not run.
    pub(crate) report: Result<Report, String>,
}

pub(crate) const NAMES: [&str; 4] = ["runc", "crun", "runsc", "boltseal"];

/// In the order of [`NAMES`].
pub(crate) fn all(world: &mut World) -> Result<Vec<Run>> {
    let (crun, runsc) = (crun()?, runsc()?);
    // containerd's default seccomp profile is Docker's, in Go.
    let peers = ["--runtime", RUNC, "--seccomp", "--runc-binary"];
    let owner = format!("boltseal.dev/owner={}", policy::OWNER);
    // No profile of the pod's: the base filter alone.
    let ours = ["--runtime", BOLTSEAL, "--annotation", &owner];
    let mut runs = Vec::new();
    for (name, binary) in [("runc", "/usr/sbin/runc"), ("crun", crun.as_str()), ("runsc", runsc.as_str())] {
        let how = format!("{}, containerd's default seccomp profile", version(binary)?);
        runs.push(Run { name, how, report: start(world, name, &[&peers[..], &[binary]].concat())? });
    }
    let how = format!("{}, default policy, no profile of the pod's", version("/usr/local/bin/boltseal")?);
    runs.push(Run { name: "boltseal", how, report: start(world, "boltseal", &ours)? });
    Ok(runs)
}

fn version(binary: &str) -> Result<String> {
    let text = run(Command::new(binary).arg("--version"))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// The probe's report, or what the runtime said instead.
fn start(world: &World, name: &str, options: &[&str]) -> Result<Result<Report, String>> {
    let image = &world.node.images.get(IMAGE)?.name;
    let said = output(world.containerd.ctr(NAMESPACE).args(["run", "--rm"]).args(options).args([
        image,
        &format!("probe-{name}"),
        INSIDE,
        "score",
        "--set-uid",
        SET_UID,
        "--host",
        &namespaces()?,
    ]))?;
    if !said.ok() {
        return Ok(Err(format!("ctr ended with {}: {}{}", said.code, said.stdout.trim(), said.stderr.trim())));
    }
    Ok(serde_json::from_str(&said.stdout).map_err(|error| format!("{error}: {}{}", said.stdout, said.stderr)))
}

/// This machine's own, which no container shall be in.
fn namespaces() -> Result<String> {
    let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
    let one = |kind: &str| -> Result<String> {
        let link = fs::read_link(format!("/proc/self/ns/{kind}"))?;
        let inode = link.to_str().and_then(|link| link.split_once(":[")?.1.strip_suffix(']'));
        Ok(format!("{kind}={}", inode.with_context(|| link.display().to_string())?))
    };
    Ok(kinds.into_iter().map(one).collect::<Result<Vec<_>>>()?.join(","))
}

/// Debian's crun knows the specification up to 1.0; of what containerd writes, only the version's number is changed for it.
/// And it refuses to run where cgroup v1 and v2 both have controllers: it does not see v2.
fn crun() -> Result<String> {
    script(
        "crun",
        r#"bundle=
for word in "$@"; do
    [ "$bundle" = next ] && bundle=$word
    [ "$word" = --bundle ] && bundle=next
done
[ -z "$bundle" ] || sed -i 's/"ociVersion":"[^"]*"/"ociVersion":"1.0.2"/' "$bundle/config.json"
if mountpoint -q /sys/fs/cgroup/unified; then
    exec unshare --mount --propagation slave sh -c 'umount /sys/fs/cgroup/unified && exec /usr/bin/crun "$@"' crun "$@"
fi
exec /usr/bin/crun "$@""#,
    )
}

/// gVisor as Docker runs it, below containerd's shim for runc: its default platform, no network, our cgroups.
fn runsc() -> Result<String> {
    let program = private::project().join(".cache/tools/runsc/usr/bin/runsc");
    if !program.exists() {
        bail!("{} is missing. Fix: make setup", program.display());
    }
    script("runsc", &format!("exec {} --platform=systrap --network=none --ignore-cgroups \"$@\"", program.display()))
}

fn script(name: &str, text: &str) -> Result<String> {
    let path = format!("/usr/local/bin/{name}");
    fs::write(&path, format!("#!/bin/sh\n{text}\n"))?;
    run(Command::new("chmod").arg("755").arg(&path))?;
    Ok(path)
}
