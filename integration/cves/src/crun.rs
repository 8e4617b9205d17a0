//! crun by its own command line: Debian's knows no hybrid cgroups, so that it gets a mount namespace with v2 alone.
use crate::row::{Ask, Seen};
use crate::site::Site;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use stack::process::output;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Everything in one namespace of mounts: root file system, container, processes in it, end.
const SCRIPT: &str = r#"
umount -l /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup || exit 99
mount -t overlay overlay -o "$OPTIONS" "$BUNDLE/rootfs" || exit 99
cd "$BUNDLE" || exit 99
crun() { /usr/bin/crun --root /run/crun --cgroup-manager disabled "$@"; }
[ "$EXECS" = 0 ] && { crun run --bundle "$BUNDLE" "$ID" >"$BUNDLE/out" 2>"$BUNDLE/err" </dev/null; exit $?; }
crun run --detach --bundle "$BUNDLE" "$ID" >"$BUNDLE/out" 2>"$BUNDLE/err" </dev/null || exit $?
code=0
n=0
while [ $n -lt "$EXECS" ]; do
    crun exec --process "$BUNDLE/exec-$n.json" "$ID" >>"$BUNDLE/exec-out" 2>>"$BUNDLE/err" </dev/null || code=$?
    n=$((n + 1))
done
[ "$WAITS" = 0 ] || while crun state "$ID" 2>/dev/null | grep -q '"status": "running"'; do sleep 0.1; done
crun delete --force "$ID" 2>>"$BUNDLE/err"
exit $code
"#;

pub(crate) fn run(site: &Site, ask: &Ask) -> Result<Seen> {
    let request = &ask.request;
    let mut mounts = site.world.client.create_container(request).context("a snapshot for crun")?;
    (request.rootfs)(&mut mounts);
    let options = mounts.first().map(|mount| mount.options.join(",")).context("no root file system")?;
    let bundle = site.world.node.work.join(format!("crun-{}", request.id));
    fs::create_dir_all(bundle.join("rootfs"))?;
    fs::write(bundle.join("config.json"), serde_json::to_vec(&spec(&request.spec))?)?;
    for (number, process) in ask.execs.iter().enumerate() {
        fs::write(bundle.join(format!("exec-{number}.json")), serde_json::to_vec(process)?)?;
    }
    let waits = request.spec["process"]["args"][0] == "/bin/exploit";
    let said = output(
        Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT])
            .env("OPTIONS", options)
            .env("BUNDLE", &bundle)
            .env("ID", &request.id)
            .env("EXECS", ask.execs.len().to_string())
            .env("WAITS", u8::from(waits).to_string()),
    )?;
    site.world.client.remove(request)?;
    ensure!(said.code != 99, "crun's surroundings could not be made: {}", said.stderr);
    let seen = seen(&bundle, u32::try_from(said.code).unwrap_or(255))?;
    stack::process::run(Command::new("rm").arg("-rf").arg(&bundle))?;
    Ok(seen)
}

fn seen(bundle: &Path, code: u32) -> Result<Seen> {
    let read = |name: &str| match fs::read(bundle.join(name)) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    };
    let (output, errors) = (format!("{}{}", read("exec-out")?, read("out")?), read("err")?);
    // What crun refuses it says on stderr, and no program has said a word then.
    let refused = code != 0 && output.trim().is_empty() && !errors.trim().is_empty();
    Ok(if refused {
        Seen::Refused(errors.trim().lines().last().unwrap_or_default().to_owned())
    } else {
        Seen::Ran { code, output }
    })
}

/// Without limits: what crun would set by BPF, this kind of machine does not let it.
fn spec(spec: &Value) -> Value {
    let mut spec = spec.clone();
    if let Some(linux) = spec["linux"].as_object_mut() {
        linux.remove("resources");
        linux.remove("cgroupsPath");
    }
    spec
}
