//! What a container is not meant to do is refused, and seen: each finds its record, and its twin that differs in the
//! forbidden call alone has none.
use crate::Report;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use stack::client::Request;
use stack::node::World;
use stack::process::poll;
use stack::since;
use stack::spec;
use std::fs;
use std::time::Duration;

/// More than enough for a record; how long it may take is not what is tested.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
const FLOOD: u64 = 100_000;

pub(crate) fn all(world: &mut World, report: &mut Report, name: &dyn Fn(&str) -> String) {
    let mut check = |what: &str, run: fn(&mut World) -> Result<String>| report.clean(&name(what), world, run);
    check("anomalies: a refused call is in the trail, with who and what", refused_call);
    check("anomalies: one in an exec is as well", refused_call_of_an_exec);
    check("anomalies: a flood is counted, bounded, and hides nothing", flood);
    check("anomalies: what a refusal costs, told and not (measured, not judged)", cost);
    check("anomalies: without a trip-wire calls are refused and not told", disarmed);
    check("anomalies: a file of memory does not run, but by an allowance", memory);
}

/// What the trail says of a container from here on: another containerd's may have had the same id.
pub(crate) struct Since(since::Since);

impl Since {
    pub(crate) fn now() -> Result<Self> {
        since::Since::now().map(Self)
    }

    pub(crate) fn of(&self, id: &str, event: &str) -> Result<Vec<Value>> {
        Ok(self.0.records()?.into_iter().filter(|r| r["ev"] == event && r["what"]["id"] == id).collect())
    }

    fn anomalies(&self, id: &str) -> Result<Vec<Value>> {
        self.of(id, "anomaly")
    }

    /// All records of the container once its exit is among them.
    fn after_exit(&self, id: &str) -> Result<Vec<Value>> {
        poll("the exit in the trail", PATIENCE, || self.of(id, "exited").ok().filter(|exits| !exits.is_empty()))?;
        self.anomalies(id)
    }
}

fn complete(world: &mut World, args: &[&str]) -> Result<(String, Vec<Value>)> {
    let request = world.request("tries", args)?;
    let since = Since::now()?;
    let ended = world.complete(&request)?;
    ensure!(ended.status == 0, "{ended:?}");
    Ok((ended.output, since.after_exit(&request.id)?))
}

fn refused_call(world: &mut World) -> Result<String> {
    let (output, told) = complete(world, &["/bin/tries", "mount", "2"])?;
    ensure!(output == "mount EPERM 1\nunshare EPERM 1\n", "{output}");
    ensure!(told.len() == 2, "{told:?}");
    for (record, call) in told.iter().zip(["mount", "unshare"]) {
        let anomaly = &record["anomaly"];
        ensure!(anomaly["class"] == "syscall" && anomaly["refused"] == true && anomaly["count"] == 1, "{record}");
        ensure!(anomaly["what"] == call && anomaly["comm"] == "tries", "{record}");
        ensure!(anomaly["executable"] == "/bin/tries" && record["pid"].as_u64() > Some(1), "{record}");
        ensure!(record["who"]["owner"] == stack::policy::OWNER, "{record}");
        ensure!(record["what"]["image"].as_str().is_some_and(|image| image.contains("tries")), "{record}");
        ensure!(record["what"]["digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:")), "{record}");
        ensure!(record["of"].as_str().is_some_and(|of| !of.is_empty()), "{record}");
    }
    let (output, told) = complete(world, &["/bin/tries", "plain", "2"])?;
    ensure!(output == "chdir done 2\n" && told.is_empty(), "{output} {told:?}");
    Ok(String::new())
}

/// A running container, its exec, and then its end.
fn with_running(world: &mut World, run: impl FnOnce(&mut World, &Request) -> Result<()>) -> Result<()> {
    let request = world.request("tries", &["/bin/sleep", "600"])?;
    world.run(&request)?;
    let outcome = run(world, &request);
    world.client.remove(&request)?;
    outcome
}

fn refused_call_of_an_exec(world: &mut World) -> Result<String> {
    let since = Since::now()?;
    with_running(world, |world, request| {
        let exec = |id: &str, args: &[&str]| -> Result<()> {
            world.client.exec(&request.id, id, &spec::process(args), "")?;
            world.client.start(&request.id, id)?;
            ensure!(world.client.wait(&request.id, id)? == 0, "{args:?}");
            Ok(world.client.delete_exec(&request.id, id).map(drop)?)
        };
        exec("plain", &["/bin/tries", "plain", "2"])?;
        exec("mount", &["/bin/tries", "mount", "1"])?;
        // While it runs, not at its end.
        let told = poll("the record", PATIENCE, || since.anomalies(&request.id).ok().filter(|told| !told.is_empty()))?;
        ensure!(told.len() == 1 && told[0]["anomaly"]["what"] == "unshare", "{told:?}");
        Ok(())
    })?;
    Ok(String::new())
}

/// Resident memory of the shim that is the parent of this init, KiB.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    let field = |pid: &str, name: &str| -> Result<String> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Ok(line.context("field")?.split_whitespace().next().context("value")?.to_owned())
    };
    Ok(field(&field(&pid.to_string(), "PPid")?, "VmRSS")?.parse()?)
}

fn flood(world: &mut World) -> Result<String> {
    let request = world.request("tries", &["/bin/tries", "mount", &FLOOD.to_string()])?;
    let since = Since::now()?;
    let pid = world.create(&request)?;
    let before = resident(pid)?;
    let outcome = (|| -> Result<(u32, u64)> {
        world.client.start(&request.id, "")?;
        let mut most = before;
        let status = poll("the end of the flood", Duration::from_secs(240), || {
            most = most.max(resident(pid).unwrap_or(0));
            (world.client.state(&request.id).ok()? == 3).then_some(())
        })
        .and_then(|()| Ok(world.client.wait(&request.id, "")?))?;
        Ok((status, most))
    })();
    world.client.remove(&request)?;
    let (status, most) = outcome?;
    ensure!(status == 0, "status {status}");
    let output = fs::read_to_string(world.output_file(&request.id))?;
    ensure!(output == format!("mount EPERM {}\nunshare EPERM 1\n", FLOOD - 1), "{output}");
    let told = since.after_exit(&request.id)?;
    let count: u64 = told.iter().filter_map(|record| record["anomaly"]["count"].as_u64()).sum();
    ensure!(count == FLOOD, "{count} of {FLOOD} counted in {} records", told.len());
    ensure!(told.len() <= 40, "{} records", told.len());
    let named = |what: &str| told.iter().any(|r| r["anomaly"]["what"].as_str().is_some_and(|w| w.contains(what)));
    ensure!(named("mount") && named("unshare"), "{told:?}");
    ensure!(most <= before + 2048, "the shim grew from {before} to {most} KiB");
    Ok(format!("{} records for {FLOOD} calls, shim {before} to {most} KiB", told.len()))
}

fn cost(world: &mut World) -> Result<String> {
    let told = complete(world, &["/bin/tries", "cost", "2000"])?.0;
    under(world, |policy| policy.set("anomalies.syscalls", false))?;
    let plain = complete(world, &["/bin/tries", "cost", "2000"])?.0;
    Ok(format!("{} ns told, {} ns not", told.trim(), plain.trim()))
}

/// The policy with this change, for one start.
pub(crate) fn under(world: &mut World, change: impl FnOnce(&mut stack::policy::Policy) -> Result<()>) -> Result<()> {
    world.undo_later(|world| world.node.policy.write());
    let mut policy = world.node.policy.clone();
    change(&mut policy)?;
    policy.write()
}

fn disarmed(world: &mut World) -> Result<String> {
    under(world, |policy| policy.set("anomalies.syscalls", false))?;
    let (output, told) = complete(world, &["/bin/tries", "mount", "2"])?;
    ensure!(output == "mount EPERM 1\nunshare EPERM 1\n" && told.is_empty(), "{output} {told:?}");
    under(world, |policy| policy.set("anomalies.syscalls", vec!["unshare"]))?;
    let (output, told) = complete(world, &["/bin/tries", "mount", "2"])?;
    ensure!(output == "mount EPERM 1\nunshare EPERM 1\n", "{output}");
    ensure!(told.len() == 1 && told[0]["anomaly"]["what"] == "unshare", "{told:?}");
    Ok(String::new())
}

fn memory(world: &mut World) -> Result<String> {
    let (output, _) = complete(world, &["/bin/tries", "memory"])?;
    ensure!(output == "MFD_EXEC EACCES\nfexecve EACCES\n", "{output}");
    let image = world.node.images.get("tries")?.repository.clone();
    under(world, |policy| {
        let allowance = toml::toml! { id = "memory" authority = "ci" exec_memory = true };
        let mut allowance = allowance;
        allowance.insert("repository".into(), image.into());
        policy.push("allowance", allowance)
    })?;
    let (output, _) = complete(world, &["/bin/tries", "memory"])?;
    ensure!(output == "MFD_EXEC done\na copy runs\n", "{output}");
    Ok(String::new())
}
