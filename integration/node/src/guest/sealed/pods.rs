//! A pod with `hostUsers: false` over sealed layers, by the CRI: containerd makes the namespaces and names the ids of the snapshot, which the
//! sealed layers take the place of.
use super::{file_of, flip, layer, nothing_left, of, said};
use crate::guest::work::{World, in_time};
use anyhow::{Context, Result, ensure};
use stack::cases::users::{HOST, SIZE};
use stack::client::Status;
use stack::cri::v1::{IdMapping, Int64Value, NamespaceMode, PodSandboxConfig, UserNamespace};
use stack::cri::{Cri, container, log_lines, pod};
use stack::policy::OWNER;
use stack::since::Since;
use std::collections::HashMap;
use std::fs;
use std::time::Duration;

const POD: u32 = HOST + 4 * SIZE;

fn own() -> Option<UserNamespace> {
    let ids = vec![IdMapping { host_id: POD, container_id: 0, length: SIZE }];
    Some(UserNamespace { mode: NamespaceMode::Pod.into(), uids: ids.clone(), gids: ids })
}

fn created(world: &World, cri: &Cri, pod: &str, sandbox: &PodSandboxConfig, name: &str) -> Result<String> {
    let script = "cat /proc/self/uid_map; ls -ldn / /bin /etc/release /etc/hosts; echo listed; exec sleep 600";
    let image = &world.node.images.get("layered")?.name;
    let mut config = container(name, image, &["/bin/sh", "-c", script], &HashMap::new());
    let linux = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut()).context("no context")?;
    (linux.run_as_user, linux.run_as_group) = (Some(Int64Value { value: 0 }), Some(Int64Value { value: 0 }));
    linux.namespace_options.as_mut().context("no namespaces")?.userns_options = own();
    cri.create(pod, sandbox, &config).context("CreateContainer")
}

pub(super) fn all(world: &World) -> Result<String> {
    let cri = Cri::new()?;
    let logs = world.node.work.join("logs-sealed");
    fs::create_dir_all(&logs)?;
    let mut sandbox = pod("sealed", &logs, Some(OWNER));
    let linux = sandbox.linux.as_mut().and_then(|linux| linux.security_context.as_mut()).context("no context")?;
    linux.namespace_options.as_mut().context("no namespaces")?.userns_options = own();
    let pod_id = in_time(|| cri.run_pod(&sandbox, "boltseal")).map_err(|status| said("RunPodSandbox", &status))?;

    let mut turn = 0;
    let mut start = || -> Result<(String, String), Status> {
        turn += 1;
        let id = created(world, &cri, &pod_id, &sandbox, &turn.to_string())
            .map_err(|error| Status::unavailable(format!("{error:#}")))?;
        cri.start(&id).map(|()| (id, turn.to_string()))
    };
    let seen = (|| {
        // The lowest layer, in which the programs are.
        let lowest = file_of(&layer(&of("layered"), 0)?)?;
        let bytes = fs::read(&lowest)?;
        let program = bytes.windows(4).position(|w| w == b"\x7fELF").context("no program in the layer")? as u64 + 100;
        flip(&lowest, program)?;
        let changed = in_time(&mut start);
        flip(&lowest, program)?;
        let refusal = changed.err().context("the pod's container started over a changed byte")?;
        ensure!(refusal.message().contains("I/O error"), "{refusal}");

        let before = Since::now()?;
        let (id, name) = in_time(&mut start).map_err(|status| said("StartContainer", &status))?;
        let lines = stack::process::poll("no log", Duration::from_secs(20), || {
            log_lines(&logs, &name).ok().filter(|lines| lines.iter().any(|line| line == "listed"))
        })?;
        ensure!(
            lines.iter().any(|line| line.split_whitespace().eq(["0", &POD.to_string(), &SIZE.to_string()])),
            "{lines:?}"
        );
        for path in ["/", "/bin", "/etc/release", "/etc/hosts"] {
            let line = lines.iter().find(|line| line.ends_with(&format!(" {path}"))).context("not listed")?;
            ensure!(line.split_whitespace().skip(2).take(2).eq(["0", "0"]), "{line}");
        }
        let exec = cri.exec(&id, &["/bin/busybox", "id", "-u"]).context("ExecSync")?;
        ensure!(exec.exit_code == 0 && exec.stdout == b"0\n", "{exec:?}");
        let records = before.records()?;
        let decision = records.iter().find(|record| record["ev"] == "decision" && record["what"]["id"] == id.as_str());
        let decision = decision.context("no decision on the pod's container")?;
        ensure!(decision["integrity"] == "dmverity-signed", "{decision}");
        Ok(())
    })();
    cri.remove_pod(&pod_id).context("StopPodSandbox")?;
    seen?;
    nothing_left()?;
    Ok("a pod with hostUsers: false over sealed layers: root's files are its root's; one byte of a program changed: refused; put back: started".into())
}
