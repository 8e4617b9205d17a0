//! What kubelet does for a pod whose RuntimeClass names the handler `boltseal`.
use crate::Report;
use crate::checks::confined;
use anyhow::{Context, Result, ensure};
use stack::cases::first_line;
use stack::cri::{self, Cri, container, log_lines, pod};
use stack::leak::Snapshot;
use stack::node::World;
use stack::policy::OWNER;
use stack::process::{poll, run};
use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

pub(crate) fn all(world: &mut World, report: &mut Report, name: &dyn Fn(&str) -> String) {
    let clean = Snapshot::take();
    // The first pod makes the bridge and folders that stay.
    report.check(&name("CRI: a pod comes and goes"), || {
        with_pod(world, "first", Some(OWNER), |_, _, _| Ok(())).map(|()| String::new())
    });
    report.check(&name("CRI: what the first pod leaves is known"), || {
        clean?.compare().or_else(|error| {
            // containerd keeps the state folder of the namespace and the network's bridge.
            let text = format!("{error:#}");
            ensure!(!text.contains("process") && !text.contains("socket") && !text.contains("boltseal-v1"), "{text}");
            Ok(())
        })?;
        Ok(String::new())
    });
    let mut check = |what: &str, run: fn(&World) -> Result<()>| {
        report.check(&name(what), || {
            let clean = Snapshot::take()?;
            run(world)?;
            clean.compare()?;
            Ok(String::new())
        });
    };
    check("CRI: a container runs, exec and logs work, both processes are confined", life);
    check("CRI: two containers share the pod's network and one shim", siblings);
    check("CRI: a pod without an owner is refused", ownerless);
    check("CRI: a container with an unsigned image is refused, the pod lives on", unsigned);
    check("CRI: privileged is refused", privileged);
    check("CRI: a host path is refused", host_path);
    // These bend the node's policy, which the others only read.
    report.check(&name("CRI: a granted folder receives what the host mounts there later"), || {
        let clean = Snapshot::take()?;
        let folder = world.node.work.join("received");
        std::fs::create_dir_all(folder.join("later"))?;
        let mut bent = world.node.policy.clone();
        let allowance = format!(
            "id = \"received\"\nauthority = \"ci\"\nrepository = \"{}/demo\"\nmounts = [{{ source = \"{}\" }}]\n",
            stack::registry::ADDRESS,
            folder.display()
        );
        bent.push("allowance", toml::from_str(&allowance)?)?;
        bent.write()?;
        let outcome = received(world, &folder);
        world.node.policy.write()?;
        outcome?;
        clean.compare()?;
        Ok(String::new())
    });
    report.check(&name("CRI: a pod beside one of another sensitivity is refused"), || {
        let clean = Snapshot::take()?;
        let mut bent = world.node.policy.clone();
        bent.set("sensitivity.levels", vec![toml::Value::from("public"), toml::Value::from("secret")])?;
        bent.write()?;
        let outcome = sensitivities(world);
        world.node.policy.write()?;
        outcome?;
        clean.compare()?;
        Ok(String::new())
    });
}

pub(crate) fn with_pod(
    world: &World,
    name: &str,
    owner: Option<&str>,
    work: impl FnOnce(&Cri, &str, &Path) -> Result<()>,
) -> Result<()> {
    let cri = Cri::new()?;
    let logs = world.node.work.join(format!("logs-{name}"));
    std::fs::create_dir_all(&logs)?;
    let config = pod(name, &logs, owner);
    let id = cri.run_pod(&config, "boltseal").context("RunPodSandbox")?;
    let outcome = work(&cri, &id, &logs);
    cri.remove_pod(&id).context("StopPodSandbox")?;
    outcome
}

fn annotations() -> HashMap<String, String> {
    HashMap::new()
}

fn life(world: &World) -> Result<()> {
    with_pod(world, "life", Some(OWNER), |cri, pod_id, logs| {
        let config = container(
            "app",
            &world.node.images.get("app")?.name,
            &["/bin/sh", "-c", "cat /proc/self/status; echo said; exec sleep 600"],
            &annotations(),
        );
        let id = cri.create(pod_id, &pod("life", logs, Some(OWNER)), &config).context("CreateContainer")?;
        cri.start(&id).context("StartContainer")?;
        ensure!(cri.status(&id)?.state() == cri::v1::ContainerState::ContainerRunning, "not running");
        let exec = cri.exec(&id, &["/bin/cat", "/proc/self/status"]).context("ExecSync")?;
        ensure!(exec.exit_code == 0, "{exec:?}");
        confined(&String::from_utf8_lossy(&exec.stdout)).context("exec")?;
        let code = cri.exec(&id, &["/bin/sh", "-c", "exit 3"])?.exit_code;
        ensure!(code == 3, "exit code {code}");
        let lines = poll("no log", Duration::from_secs(5), || {
            log_lines(logs, "app").ok().filter(|lines| lines.iter().any(|line| line == "said"))
        })?;
        confined(&lines.join("\n")).context("init")?;
        cri.reopen_log(&id).context("ReopenContainerLog")?;
        cri.stop(&id).context("StopContainer")?;
        let status = cri.status(&id)?;
        ensure!(status.state() == cri::v1::ContainerState::ContainerExited && status.exit_code == 137, "{status:?}");
        cri.remove(&id).context("RemoveContainer")
    })
}

fn siblings(world: &World) -> Result<()> {
    with_pod(world, "pair", Some(OWNER), |cri, pod_id, logs| {
        let mut parents = Vec::new();
        let mut networks = Vec::new();
        for name in ["one", "two"] {
            let config = container(name, &world.node.images.get("app")?.name, &["/bin/sleep", "600"], &annotations());
            let id = cri.create(pod_id, &pod("pair", logs, Some(OWNER)), &config)?;
            cri.start(&id)?;
            let said = cri.exec(&id, &["/bin/stat", "-L", "-c", "%i", "/proc/self/ns/net"])?;
            networks.push(String::from_utf8_lossy(&said.stdout).into_owned());
            let pids = stack::client::Client::new(stack::containerd::SOCKET, stack::node::CRI_NAMESPACE)?.pids(&id)?;
            let pid = pids.first().context("no process")?;
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            parents.push(status.lines().find(|line| line.starts_with("PPid:")).map(str::to_owned));
        }
        ensure!(networks.first() == networks.last() && !networks.is_empty(), "networks {networks:?}");
        ensure!(parents.first() == parents.last(), "shims {parents:?}");
        Ok(())
    })
}

/// mountPropagation: HostToContainer, beside the binds that CRI makes itself.
fn received(world: &World, folder: &Path) -> Result<()> {
    with_pod(world, "received", Some(OWNER), |cri, pod_id, logs| {
        let image = &world.node.images.get("app")?.name;
        let mut config = container("app", image, &["/bin/sleep", "600"], &annotations());
        config.mounts.push(cri::v1::Mount {
            container_path: "/data".into(),
            host_path: folder.display().to_string(),
            readonly: true,
            propagation: cri::v1::MountPropagation::PropagationHostToContainer.into(),
            ..cri::v1::Mount::default()
        });
        let id = cri.create(pod_id, &pod("received", logs, Some(OWNER)), &config)?;
        cri.start(&id)?;
        let later = folder.join("later");
        run(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&later))?;
        let seen = std::fs::write(later.join("word"), "mounted later").map_err(anyhow::Error::from).and_then(|()| {
            let said = cri.exec(&id, &["/bin/cat", "/data/later/word"])?;
            let others = cri.exec(&id, &["/bin/sh", "-c", "cat /proc/self/mountinfo"])?;
            Ok((said, String::from_utf8_lossy(&others.stdout).into_owned()))
        });
        run(Command::new("umount").arg(&later))?;
        let (said, mounts) = seen?;
        ensure!(said.stdout == b"mounted later", "{said:?}");
        let receiving: Vec<&str> = mounts.lines().filter(|line| line.contains("master:")).collect();
        ensure!(!receiving.is_empty() && receiving.iter().all(|line| line.contains(" /data")), "{receiving:#?}");
        Ok(())
    })
}

pub(crate) fn refused(result: Result<(), tonic::Status>, rule: &str) -> Result<()> {
    let status = result.err().with_context(|| format!("not refused, {rule} should"))?;
    let line = first_line(&status);
    ensure!(line.contains(&format!("denied by {rule}")), "{status}");
    Ok(())
}

fn ownerless(world: &World) -> Result<()> {
    let cri = Cri::new()?;
    let logs = world.node.work.join("logs-ownerless");
    std::fs::create_dir_all(&logs)?;
    refused(cri.run_pod(&pod("ownerless", &logs, None), "boltseal").map(|_| ()), "BS-OWN-001")
}

/// Sandbox and container carry the pod's annotation, and containerd hands it on to both.
fn sensitivities(world: &World) -> Result<()> {
    let cri = Cri::new()?;
    let logs = world.node.work.join("logs-sensitivity");
    std::fs::create_dir_all(&logs)?;
    let labelled = |name: &str, sensitivity: Option<&str>| {
        let mut config = pod(name, &logs, Some(OWNER));
        let label = sensitivity.map(|s| ("boltseal.dev/sensitivity".to_owned(), s.to_owned()));
        config.annotations.extend(label);
        config
    };
    let start = |config: &cri::v1::PodSandboxConfig, pod: &str| {
        let config_of = container("app", &world.node.images.get("app")?.name, &["/bin/sleep", "600"], &annotations());
        let id = cri.create(pod, config, &config_of)?;
        cri.start(&id)?;
        anyhow::Ok(())
    };
    let public = labelled("public", Some("public"));
    let first = cri.run_pod(&public, "boltseal").context("the first pod")?;
    let outcome = (|| {
        start(&public, &first).context("its container")?;
        refused(cri.run_pod(&labelled("secret", Some("secret")), "boltseal").map(|_| ()), "BS-NOD-003")?;
        // A pinned sandbox runs beside everything; what would run in it is asked.
        let unlabelled = labelled("unlabelled", None);
        let second = cri.run_pod(&unlabelled, "boltseal").context("a sandbox without a label")?;
        let refusal = start(&unlabelled, &second).err().map(|e| format!("{e:#}")).unwrap_or_default();
        cri.remove_pod(&second)?;
        ensure!(refusal.contains("denied by BS-NOD-003"), "{refusal}");
        let twin = labelled("twin", Some("public"));
        let third = cri.run_pod(&twin, "boltseal").context("the twin")?;
        let started = start(&twin, &third).context("the twin's container");
        cri.remove_pod(&third)?;
        started
    })();
    cri.remove_pod(&first)?;
    outcome
}

fn try_container(
    world: &World,
    name: &str,
    bend: fn(&World, &mut cri::v1::ContainerConfig) -> Result<()>,
    rule: &str,
) -> Result<()> {
    with_pod(world, name, Some(OWNER), |cri, pod_id, logs| {
        let sandbox = pod(name, logs, Some(OWNER));
        let mut config = container("app", &world.node.images.get("app")?.name, &["/bin/sleep", "600"], &annotations());
        let id = cri.create(pod_id, &sandbox, &config).context("the twin")?;
        cri.start(&id).context("the twin")?;
        cri.stop(&id)?;
        cri.remove(&id)?;
        bend(world, &mut config)?;
        let made = cri.create(pod_id, &sandbox, &config);
        match made {
            Err(status) => refused(Err(status), rule),
            Ok(id) => refused(cri.start(&id), rule),
        }
    })
}

fn unsigned(world: &World) -> Result<()> {
    try_container(
        world,
        "unsigned",
        |world, config| {
            let image = config.image.as_mut().context("no image")?;
            image.image.clone_from(&world.node.images.get("unsigned")?.name);
            Ok(())
        },
        "BS-IMG-001",
    )
}

fn privileged(world: &World) -> Result<()> {
    try_container(
        world,
        "privileged",
        |_, config| {
            let capabilities =
                config.linux.as_mut().and_then(|linux| linux.security_context.as_mut()).context("no context")?;
            capabilities.capabilities = Some(cri::v1::Capability {
                add_capabilities: vec!["SYS_ADMIN".into()],
                ..cri::v1::Capability::default()
            });
            Ok(())
        },
        "BS-PRC-002",
    )
}

fn host_path(world: &World) -> Result<()> {
    try_container(
        world,
        "hostpath",
        |_, config| {
            config.mounts.push(cri::v1::Mount {
                container_path: "/data".into(),
                host_path: "/etc".into(),
                readonly: true,
                ..cri::v1::Mount::default()
            });
            Ok(())
        },
        "BS-FSY-002",
    )
}
