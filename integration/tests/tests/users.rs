//! Containers and pods with a user namespace: their root is nobody's on the node.
use crate::Report;
use crate::checks::confined_as;
use anyhow::{Context, Result, ensure};
use serde_json::json;
use stack::cases::users::{HOST, SIZE, own};
use stack::containerd::Version;
use stack::cri::{self, Cri, container, log_lines, pod};
use stack::leak::Snapshot;
use stack::node::{World, state};
use stack::policy::OWNER;
use stack::process::poll;
use stack::spec;
use std::collections::HashMap;
use std::fs;
use std::time::Duration;

pub(crate) fn all(world: &mut World, version: Version, report: &mut Report, name: &dyn Fn(&str) -> String) {
    one(world, report, name);
    if version == Version::V2_1 {
        // containerd asks the shim for what it can do, makes the namespaces of the pod and labels the snapshot.
        report.check(&name("CRI: a pod with hostUsers: false"), || pods(world).map(|()| String::new()));
        report.check(&name("CRI: the same again leaves nothing"), || {
            let clean = Snapshot::take()?;
            pods(world)?;
            clean.compare()?;
            Ok(String::new())
        });
    }
}

/// Containers without pods.
pub(crate) fn one(world: &mut World, report: &mut Report, name: &dyn Fn(&str) -> String) {
    // The first one makes the folder that stays.
    report.check(&name("root of a user namespace, exec'd too, is nobody's on the node"), || life(world));
    report.clean(&name("the same again leaves nothing"), world, life);
}

fn map(host: u32) -> String {
    format!("         0    {host}      {SIZE}\n")
}

fn life(world: &mut World) -> Result<String> {
    let script = "cat /proc/self/uid_map /proc/self/gid_map /proc/self/status; ls -ldn / /bin; exec sleep 600";
    let mut request = world.request("app", &["/bin/sh", "-c", script])?;
    own(&mut request, HOST, SIZE)?;
    request.spec["process"]["user"] = json!({ "uid": 0, "gid": 0 });
    let pid = world.run(&request)?;
    let outcome = (|| {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let uid = status.lines().find(|line| line.starts_with("Uid:")).unwrap_or_default().to_owned();
        ensure!(uid == format!("Uid:\t{HOST}\t{HOST}\t{HOST}\t{HOST}"), "{uid}");
        let record = fs::read_to_string(state(&request.id)?.join("container.json"))?;
        ensure!(record.contains(&format!("\"user_ns_ranges\":[[{HOST},{SIZE}]]")), "{record}");
        let said = poll("nothing said", Duration::from_secs(5), || {
            fs::read_to_string(world.output_file(&request.id)).ok().filter(|text| text.contains(" /bin\n"))
        })?;
        ensure!(said.starts_with(&format!("{}{}", map(HOST), map(HOST))), "{said}");
        confined_as(&said, 0)?;
        for path in ["/", "/bin"] {
            let line = said.lines().find(|l| l.ends_with(&format!(" {path}"))).context("not listed")?;
            ensure!(line.split_whitespace().skip(2).take(2).eq(["0", "0"]), "{line}");
        }
        for uid in [0, 1000] {
            let exec = format!("e{uid}");
            let out = world.output_file(&format!("{}-{exec}", request.id));
            let mut process = spec::process(&["/bin/sh", "-c", "cat /proc/self/uid_map /proc/self/status; id -u"]);
            process["user"] = json!({ "uid": uid, "gid": uid });
            world.client.exec(&request.id, &exec, &process, &format!("file://{}", out.display()))?;
            world.client.start(&request.id, &exec)?;
            let code = world.client.wait(&request.id, &exec)?;
            world.client.delete_exec(&request.id, &exec)?;
            let said = fs::read_to_string(&out)?;
            ensure!(
                code == 0 && said.starts_with(&map(HOST)) && said.ends_with(&format!("\n{uid}\n")),
                "{code} {said}"
            );
            confined_as(&said, uid)?;
        }
        Ok(String::new())
    })();
    world.client.remove(&request)?;
    outcome
}

fn pods(world: &World) -> Result<()> {
    let cri = Cri::new()?;
    let logs = world.node.work.join("logs-users");
    fs::create_dir_all(&logs)?;
    let host = HOST + 4 * SIZE;
    let id = |length| cri::v1::IdMapping { host_id: host, container_id: 0, length };
    let options = || cri::v1::UserNamespace {
        mode: cri::v1::NamespaceMode::Pod.into(),
        uids: vec![id(SIZE)],
        gids: vec![id(SIZE)],
    };
    let mut sandbox = pod("users", &logs, Some(OWNER));
    let linux = sandbox.linux.as_mut().and_then(|l| l.security_context.as_mut()).context("no context")?;
    linux.namespace_options.as_mut().context("no namespaces")?.userns_options = Some(options());
    let pod_id = cri.run_pod(&sandbox, "boltseal").context("RunPodSandbox")?;
    let outcome = (|| {
        let script = "cat /proc/self/uid_map; ls -ldn / /etc/hosts; cat /proc/self/status; exec sleep 600";
        let image = &world.node.images.get("app")?.name;
        let mut config = container("app", image, &["/bin/sh", "-c", script], &HashMap::new());
        let linux = config.linux.as_mut().and_then(|l| l.security_context.as_mut()).context("no context")?;
        linux.run_as_user = Some(cri::v1::Int64Value { value: 0 });
        linux.run_as_group = Some(cri::v1::Int64Value { value: 0 });
        linux.namespace_options.as_mut().context("no namespaces")?.userns_options = Some(options());
        let id = cri.create(&pod_id, &sandbox, &config).context("CreateContainer")?;
        cri.start(&id).context("StartContainer")?;
        let lines = poll("no log", Duration::from_secs(5), || {
            log_lines(&logs, "app").ok().filter(|lines| lines.iter().any(|line| line.contains("nonvoluntary")))
        })?
        .join("\n");
        ensure!(lines.contains(map(host).trim_end()), "{lines}");
        // The pod's own file, seen through the map.
        let hosts = lines.lines().find(|line| line.ends_with(" /etc/hosts")).context("no /etc/hosts")?;
        ensure!(hosts.split_whitespace().skip(2).take(2).eq(["0", "0"]), "{hosts}");
        confined_as(&lines, 0)?;
        let exec = cri.exec(&id, &["/bin/cat", "/proc/self/uid_map"]).context("ExecSync")?;
        ensure!(exec.exit_code == 0 && exec.stdout == map(host).as_bytes(), "{exec:?}");
        // The next pod has other ids, or none.
        let mut next = sandbox.clone();
        if let Some(metadata) = &mut next.metadata {
            (metadata.name, metadata.uid) = ("next".into(), "uid-of-next".into());
        }
        let refusal = cri.run_pod(&next, "boltseal").err().map(|s| s.message().to_owned()).unwrap_or_default();
        ensure!(refusal.contains("denied by BS-PRC-010") && refusal.contains("ids are also those of"), "{refusal}");
        Ok(())
    })();
    cri.remove_pod(&pod_id).context("StopPodSandbox")?;
    outcome
}
