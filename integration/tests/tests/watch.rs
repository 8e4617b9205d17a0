//! The network as the trail shows it: what is refused, what listens, what flows, and who scans. Each has a twin that differs in the
//! forbidden thing alone, and no record.
use crate::Report;
use crate::anomalies::{PATIENCE, Since, resident, under};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use stack::node::World;
use stack::policy::{OWNER, Policy};
use stack::process::poll;
use stack::registry::ADDRESS;
use std::fs;
use std::time::Duration;

const FLOOD: u64 = 100_000;
const GOAL: &str = "127.0.0.2";

pub(crate) fn all(world: &mut World, report: &mut Report, name: &dyn Fn(&str) -> String) {
    let mut check = |what: &str, run: fn(&mut World) -> Result<String>| report.clean(&name(what), world, run);
    check("watch: a refused destination is in the trail, with who and what", refused_destination);
    check("watch: many of them within a minute are a port scan", port_scan);
    check("watch: a TCP port that Landlock refuses is seen where it is left to the programs", behind_landlock);
    check("watch: a listener is in the trail, with its program", listener);
    check("watch: what flows is in the trail where that is asked for", flows);
    check("watch: a flood is counted, bounded, and hides nothing", flood);
    check("watch: when the shim is killed nothing opens", shim_killed);
}

/// What is open to the workload's images, and how it is watched.
fn confine(policy: &mut Policy, connect: &str) -> Result<()> {
    let scope = format!("{ADDRESS}/demo");
    policy.set_scope(&scope, "connect", vec![toml::Value::from(connect)])
}

/// Its output, and its records of these events, in their order.
fn complete(world: &mut World, args: &[&str]) -> Result<(String, Vec<Value>)> {
    let request = world.request("tries", args)?;
    let since = Since::now()?;
    let ended = world.complete(&request)?;
    ensure!(ended.status == 0, "{ended:?}");
    poll("the exit in the trail", PATIENCE, || since.of(&request.id, "exited").ok().filter(|e| !e.is_empty()))?;
    let mut told = since.of(&request.id, "anomaly")?;
    told.extend(since.of(&request.id, "network")?);
    Ok((ended.output, told))
}

fn refused_destination(world: &mut World) -> Result<String> {
    under(world, |policy| confine(policy, "127.0.0.1:1-9/udp"))?;
    let (output, told) = complete(world, &["/bin/tries", "datagrams", "1", "127.0.0.2:7"])?;
    ensure!(output == "send EPERM 1\n" && told.len() == 1, "{output} {told:?}");
    let record = &told[0];
    let anomaly = &record["anomaly"];
    ensure!(record["ev"] == "anomaly" && anomaly["class"] == "destination" && anomaly["refused"] == true, "{record}");
    ensure!(anomaly["what"] == "udp 127.0.0.2:7" && anomaly["comm"] == "tries", "{record}");
    ensure!(anomaly["count"] == 1 && anomaly.get("port_scan").is_none(), "{record}");
    ensure!(told_by(record) && record["who"]["owner"] == OWNER, "{record}");
    ensure!(record["what"]["image"].as_str().is_some_and(|image| image.contains("tries")), "{record}");
    ensure!(record["what"]["digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:")), "{record}");
    // What is open is not told, and answers as a network in which nobody is.
    let (output, told) = complete(world, &["/bin/tries", "datagrams", "1", "127.0.0.1:7"])?;
    ensure!(!output.contains("EPERM") && told.is_empty(), "{output} {told:?}");
    Ok(String::new())
}

/// Programs tell pids of the kernel's own namespace; a machine in another one does without.
fn in_first_pid_namespace() -> bool {
    fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() == "pid:[4026531836]")
}

fn told_by(record: &Value) -> bool {
    if in_first_pid_namespace() { record["pid"].as_u64() > Some(1) } else { record.get("pid").is_none() }
}

fn scans(told: &[Value]) -> Vec<&Value> {
    told.iter().filter(|record| record["anomaly"]["port_scan"].as_u64().is_some()).collect()
}

fn counted(told: &[Value], event: &str) -> u64 {
    told.iter().filter_map(|record| record[event]["count"].as_u64()).sum()
}

fn port_scan(world: &mut World) -> Result<String> {
    under(world, |policy| confine(policy, "127.0.0.1:1-9/udp"))?;
    let (output, told) = complete(world, &["/bin/tries", "scan-udp", "500", GOAL])?;
    ensure!(output == "send EPERM 500\n", "{output}");
    let scans = scans(&told);
    ensure!(scans.len() == 1 && scans[0]["anomaly"]["port_scan"] == 20, "{told:?}");
    ensure!(scans[0]["anomaly"]["class"] == "destination", "{told:?}");
    ensure!(counted(&told, "anomaly") == 500, "{told:?}");
    let records = told.len();
    // One destination less is none.
    let (_, told) = complete(world, &["/bin/tries", "scan-udp", "19", GOAL])?;
    ensure!(self::scans(&told).is_empty() && counted(&told, "anomaly") == 19, "{told:?}");
    // Nor is one destination again and again.
    let (_, told) = complete(world, &["/bin/tries", "datagrams", "500", "127.0.0.2:7"])?;
    ensure!(self::scans(&told).is_empty() && counted(&told, "anomaly") == 500, "{told:?}");
    Ok(format!("{records} records for 500 destinations"))
}

fn behind_landlock(world: &mut World) -> Result<String> {
    under(world, |policy| confine(policy, "127.0.0.1:7001"))?;
    let (output, told) = complete(world, &["/bin/tries", "scan-tcp", "30", GOAL])?;
    ensure!(output == "connect EACCES 30\n" && told.is_empty(), "{output} {told:?}");
    under(world, |policy| {
        confine(policy, "127.0.0.1:7001")?;
        policy.set("landlock.ports", false)
    })?;
    let (output, told) = complete(world, &["/bin/tries", "scan-tcp", "30", GOAL])?;
    ensure!(output == "connect EPERM 30\n" && counted(&told, "anomaly") == 30, "{output} {told:?}");
    ensure!(scans(&told).len() == 1, "{told:?}");
    Ok(String::new())
}

fn listener(world: &mut World) -> Result<String> {
    for (watched, expected) in [(true, 1), (false, 0)] {
        under(world, |policy| policy.set("anomalies.network", watched))?;
        let request = world.request("tries", &["/bin/tries", "listen", "7100"])?;
        let since = Since::now()?;
        world.run(&request)?;
        let outcome = (|| {
            let output = world.output_file(&request.id);
            let listens = || fs::read_to_string(&output).ok().filter(|text| text.contains("listens")).map(drop);
            poll("the listener", PATIENCE, listens)?;
            // While it runs, not at its end.
            if expected > 0 {
                poll("the record", PATIENCE, || since.of(&request.id, "network").ok().filter(|t| !t.is_empty()))?;
            }
            since.of(&request.id, "network")
        })();
        world.client.remove(&request)?;
        let told = outcome?;
        ensure!(told.len() == expected, "{told:?}");
        for record in told {
            let seen = &record["network"];
            ensure!(seen["class"] == "listener" && seen["refused"] == false && seen["count"] == 1, "{record}");
            ensure!(seen["what"] == "tcp 0.0.0.0:7100" && told_by(&record), "{record}");
            let (comm, executable) = if in_first_pid_namespace() { ("tries", "/bin/tries") } else { ("", "") };
            ensure!(seen["comm"].as_str().unwrap_or("") == comm, "{record}");
            ensure!(seen["executable"].as_str().unwrap_or("") == executable, "{record}");
            ensure!(
                record["who"]["owner"] == OWNER && record["of"].as_str().is_some_and(|of| !of.is_empty()),
                "{record}"
            );
        }
    }
    Ok(String::new())
}

fn flows(world: &mut World) -> Result<String> {
    for (asked, expected) in [(true, 5), (false, 0)] {
        under(world, |policy| policy.set("anomalies.flows", asked))?;
        let (_, told) = complete(world, &["/bin/tries", "scan-tcp", "5", "127.0.0.1"])?;
        ensure!(counted(&told, "network") == expected, "{told:?}");
        ensure!(
            told.iter().all(|record| record["ev"] == "network" && record["network"]["class"] == "destination"),
            "{told:?}"
        );
        ensure!(asked == told.iter().any(|record| record["network"]["what"] == "tcp 127.0.0.1:1"), "{told:?}");
    }
    Ok(String::new())
}

fn flood(world: &mut World) -> Result<String> {
    under(world, |policy| confine(policy, "127.0.0.1:1-9/udp"))?;
    let request = world.request("tries", &["/bin/tries", "datagrams", &FLOOD.to_string(), "127.0.0.2:7"])?;
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
    ensure!(output == format!("send EPERM {FLOOD}\n"), "{output}");
    poll("the exit in the trail", PATIENCE, || since.of(&request.id, "exited").ok().filter(|e| !e.is_empty()))?;
    let told = since.of(&request.id, "anomaly")?;
    ensure!(counted(&told, "anomaly") == FLOOD, "{} of {FLOOD}: {told:?}", counted(&told, "anomaly"));
    ensure!(told.len() <= 40, "{} records", told.len());
    ensure!(most <= before + 2048, "the shim grew from {before} to {most} KiB");
    Ok(format!("{} records for {FLOOD} datagrams, shim {before} to {most} KiB", told.len()))
}

/// How many datagrams were refused, and how many were not.
fn answers(pid: u32) -> Option<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/root/dev/shm/answers")).ok()?;
    let mut words = text.split_whitespace().map(|word| word.parse().ok());
    Some((words.next()??, words.next()??))
}

/// containerd removes a container whose shim is gone. It is held up here, so that the container outlives its shim for longer
/// than the ring has room.
fn shim_killed(world: &mut World) -> Result<String> {
    const MORE: u64 = 5000;
    under(world, |policy| confine(policy, "127.0.0.1:1-9/udp"))?;
    let request = world.request("tries", &["/bin/tries", "hold-datagrams", "1", "127.0.0.2:7"])?;
    let pid = world.run(&request)?;
    let shim = crate::life::parent(pid)?;
    let signal = |pid: u32, signal| kill(Pid::from_raw(i32::try_from(pid)?), signal).context("kill");
    let containerd = world.containerd.pid()?;
    signal(containerd, Signal::SIGSTOP)?;
    let outcome = (|| {
        poll("a refusal", PATIENCE, || answers(pid).filter(|(refused, _)| *refused > 0))?;
        signal(shim, Signal::SIGKILL)?;
        poll("the shim's end", PATIENCE, || (crate::life::parent(pid).ok()? != shim).then_some(()))?;
        let (before, _) = answers(pid).context("no answers")?;
        poll("more refusals", PATIENCE, || answers(pid).filter(|(refused, _)| *refused > before + MORE))
    })();
    signal(containerd, Signal::SIGCONT)?;
    let gone = || (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(());
    let ended = poll("init outlives its shim", PATIENCE, gone);
    poll("containerd does not notice", PATIENCE, || {
        (world.client.state(&request.id).map_or(true, |state| state == 3)).then_some(())
    })?;
    world.client.remove(&request)?;
    let (refused, other) = outcome?;
    ended?;
    ensure!(other == 0, "{other} of {} datagrams were let through", refused + other);
    Ok(format!("{refused} refused, none let through"))
}
