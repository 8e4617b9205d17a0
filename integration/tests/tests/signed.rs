//! What runs is what was signed, as a pod asks for it: `command`, `args`, variables, folder and user through the CRI, the level
//! `strict` as it comes, and what is recorded below it. The image's config: Entrypoint `/bin/true`, Cmd `signed`.
use crate::Report;
use crate::cri::{refused, with_pod};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use stack::cases::signed::{SIGNED, enforce};
use stack::cri::{Cri, container, pod, v1};
use stack::node::World;
use stack::policy::OWNER;
use stack::process::poll;
use stack::since::Since;
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

const RULE: &str = "BS-PRC-009";

pub(crate) fn all(world: &mut World, report: &mut Report, name: &dyn Fn(&str) -> String) {
    // The first pod makes folders that stay.
    report.check(&name("signed: CRI: a pod comes and goes"), || {
        with_pod(world, "signed", Some(OWNER), |_, _, _| Ok(())).map(|()| String::new())
    });
    let mut check = |what: &str, run: fn(&mut World) -> Result<String>| report.clean(&name(what), world, run);
    check("signed: at strict the image's own command starts, another one is refused", strict);
    check("signed: at restricted an override starts, and the record names it without its value", recorded);
    check("signed: CRI: what a pod overrides is refused, each beside its twin", overrides);
    check("signed: CRI: of a pod at restricted loader variables alone are refused", restricted);
}

fn strict(world: &mut World) -> Result<String> {
    let mut policy = world.node.policy.clone();
    policy.set("level", "strict")?;
    // Its image is busybox, and built on nothing that could be named.
    policy.warn("BS-IMG-007")?;
    policy.warn("BS-IMG-010")?;
    policy.write()?;
    world.undo_later(|world| world.node.policy.write());
    let request = world.request("own", &["/bin/true", "other"])?;
    refused(world.complete(&request).map(drop), RULE)?;
    let request = world.request("own", &SIGNED)?;
    let ended = world.complete(&request).context("the twin")?;
    ensure!(ended.status == 0, "{ended:?}");
    Ok(String::new())
}

fn recorded(world: &mut World) -> Result<String> {
    const SECRET: &str = "s3cret-of-a-pod";
    let before = Since::now()?;
    let mut request = world.request("own", &["/bin/true", SECRET])?;
    request.spec["process"]["env"] = json!(["PATH=/bin", format!("TOKEN={SECRET}")]);
    let ended = world.complete(&request).context("it is refused")?;
    ensure!(ended.status == 0, "{ended:?}");
    let new = before.records()?;
    let warned: Vec<&str> =
        findings(&new).filter(|f| f["outcome"] == "warn").filter_map(|f| f["fact"].as_str()).collect();
    ensure!(
        warned
            == ["other arguments than the signed ones, from argument 1 on", "not as the signed config has it: TOKEN"],
        "{warned:?}"
    );
    ensure!(!new.iter().any(|record| record.to_string().contains(SECRET)), "the trail holds the secret: {new:?}");
    // The twin: nothing is overridden, and nothing is said of it.
    let before = Since::now()?;
    let request = world.request("own", &SIGNED)?;
    world.complete(&request).context("the twin")?;
    let new = before.records()?;
    let all: Vec<&Value> = findings(&new).collect();
    ensure!(!all.is_empty() && all.iter().all(|f| f["outcome"] == "pass"), "{all:?}");
    Ok(String::new())
}

fn findings(records: &[Value]) -> impl Iterator<Item = &Value> {
    records.iter().flat_map(|r| r["findings"].as_array().into_iter().flatten()).filter(|f| f["rule"] == RULE)
}

type Bend = fn(&mut v1::ContainerConfig) -> Result<()>;

/// What a pod asks for beside nothing: the fault, and what is so near to it as can be and starts.
const OVERRIDES: [(&str, Bend, Bend); 6] = [
    (
        "args",
        |c| {
            c.args = vec!["other".into()];
            Ok(())
        },
        |c| {
            c.args = vec!["signed".into()];
            Ok(())
        },
    ),
    (
        "command",
        |c| {
            c.command = vec!["/bin/echo".into(), "signed".into()];
            Ok(())
        },
        |c| {
            c.command = SIGNED.map(String::from).to_vec();
            Ok(())
        },
    ),
    // `command` drops Cmd.
    (
        "a command that drops Cmd",
        |c| {
            c.command = vec!["/bin/true".into()];
            Ok(())
        },
        |c| {
            c.command = vec!["/bin/true".into()];
            c.args = vec!["signed".into()];
            Ok(())
        },
    ),
    (
        "a variable",
        |c| variable(c, "LOG_LEVEL", "debug"),
        // As kubelet tells of a service.
        |c| variable(c, "DB_SERVICE_HOST", "10.96.0.7"),
    ),
    (
        "a working folder",
        |c| {
            c.working_dir = "/tmp".into();
            Ok(())
        },
        |c| {
            c.working_dir = "/".into();
            Ok(())
        },
    ),
    ("a user", |c| user(c, 1000), |c| user(c, 65532)),
];

fn variable(config: &mut v1::ContainerConfig, key: &str, value: &str) -> Result<()> {
    config.envs.push(v1::KeyValue { key: key.into(), value: value.into() });
    Ok(())
}

fn user(config: &mut v1::ContainerConfig, uid: i64) -> Result<()> {
    let context = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut()).context("no context")?;
    context.run_as_user = Some(v1::Int64Value { value: uid });
    Ok(())
}

fn overrides(world: &mut World) -> Result<String> {
    let mut policy = world.node.policy.clone();
    enforce(&mut policy, "")?;
    policy.write()?;
    world.undo_later(|world| world.node.policy.write());
    in_pod(world, "overrides", |start| {
        start("nothing", &|_| Ok(()))?.context("an image that runs as it is")?;
        for (what, fault, twin) in OVERRIDES {
            refused(start(what, &fault)?, RULE).context(what)?;
            start(what, &twin)?.with_context(|| format!("{what}: the twin"))?;
        }
        Ok(())
    })?;
    Ok(format!("{} overrides", OVERRIDES.len()))
}

fn restricted(world: &mut World) -> Result<String> {
    in_pod(world, "restricted", |start| {
        for (what, fault, _) in OVERRIDES {
            start(what, &fault)?.with_context(|| format!("{what} at restricted"))?;
        }
        for name in ["LD_PRELOAD", "LD_LIBRARY_PATH", "NODE_OPTIONS", "PYTHONPATH", "BASH_ENV", "_JAVA_OPTIONS"] {
            refused(start(name, &|c| variable(c, name, "/data/x"))?, RULE).context(name)?;
        }
        start("twin", &|c| variable(c, "LD_SDK_KEY", "/data/x"))?.context("the twin")
    })?;
    Ok(String::new())
}

type Start<'a> =
    dyn Fn(&str, &dyn Fn(&mut v1::ContainerConfig) -> Result<()>) -> Result<Result<(), tonic::Status>> + 'a;

/// One pod, in which containers of the image start one after the other.
fn in_pod(world: &World, name: &str, work: impl FnOnce(&Start<'_>) -> Result<()>) -> Result<()> {
    with_pod(world, name, Some(OWNER), |cri, id, logs| {
        work(&|_, bend| {
            let mut config = container("own", &world.node.images.get("own")?.name, &[], &HashMap::new());
            bend(&mut config)?;
            attempt(cri, id, name, logs, &config)
        })
    })
}

fn attempt(
    cri: &Cri,
    pod_id: &str,
    name: &str,
    logs: &Path,
    config: &v1::ContainerConfig,
) -> Result<Result<(), tonic::Status>> {
    let id = match cri.create(pod_id, &pod(name, logs, Some(OWNER)), config) {
        Ok(id) => id,
        Err(status) => return Ok(Err(status)),
    };
    let started = cri.start(&id);
    if started.is_ok() {
        poll("it does not end", Duration::from_secs(10), || {
            cri.status(&id).ok().filter(|status| status.state() == v1::ContainerState::ContainerExited)
        })?;
    }
    cri.remove(&id)?;
    Ok(started)
}
