//! What no containerd sends: the gate is asked directly, over its own frame.
use crate::Report;
use anyhow::{Result, ensure};
use boltseal_message::{Code, Refusal};
use stack::gate;
use stack::leak::Snapshot;
use stack::node::{NAMESPACE, World};
use std::fs;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

pub(crate) fn all(world: &mut World, report: &mut Report, name: &dyn Fn(&str) -> String) {
    let mut check = |what: &str, run: fn(&mut World) -> Result<String>| {
        report.check(&name(what), || {
            let clean = Snapshot::take()?;
            let said = run(world)?;
            clean.compare()?;
            Ok(said)
        });
    };
    check("containerd's socket is silent: refused after two seconds", silent);
    check("containerd's socket is not there: refused", absent);
    check("a config.json that ends in the middle: refused", truncated);
    check("no config.json: refused", no_config);
    check("a frame of garbage: refused", garbage);
}

fn silent(world: &mut World) -> Result<String> {
    let socket = "/run/silent.sock";
    let listener = UnixListener::bind(socket)?;
    let start = Instant::now();
    let refusal = ask(world, socket, &serde_json::to_vec(&stack::spec::spec(NAMESPACE, "silent", &["/bin/true"]))?);
    let took = start.elapsed();
    drop(listener);
    fs::remove_file(socket)?;
    let refusal = refusal?;
    ensure!(refusal.code == Code::Unavailable, "{refusal:?}");
    ensure!((Duration::from_millis(1500)..Duration::from_secs(4)).contains(&took), "after {took:?}");
    Ok(format!("{} ms", took.as_millis()))
}

fn absent(world: &mut World) -> Result<String> {
    let refusal =
        ask(world, "/run/nobody.sock", &serde_json::to_vec(&stack::spec::spec(NAMESPACE, "absent", &["/bin/true"]))?)?;
    Ok(refusal.message.lines().next().unwrap_or_default().to_owned())
}

fn truncated(world: &mut World) -> Result<String> {
    let whole = serde_json::to_vec(&stack::spec::spec(NAMESPACE, "truncated", &["/bin/true"]))?;
    let half = whole.get(..whole.len() / 2).unwrap_or_default();
    let refusal = ask(world, stack::containerd::SOCKET, half)?;
    ensure!(refusal.code == Code::InvalidArgument, "{refusal:?}");
    Ok(refusal.message.lines().next().unwrap_or_default().to_owned())
}

fn no_config(world: &mut World) -> Result<String> {
    let refusal = ask(world, stack::containerd::SOCKET, b"")?;
    ensure!(refusal.code == Code::InvalidArgument, "{refusal:?}");
    Ok(refusal.message.lines().next().unwrap_or_default().to_owned())
}

fn ask(world: &World, address: &str, config: &[u8]) -> Result<Refusal> {
    gate::refused(&gate::Ask {
        work: &world.node.work,
        address,
        namespace: NAMESPACE,
        id: "odd",
        config,
        rootfs: Vec::new(),
        cgroup: None,
    })
}

fn garbage(_: &mut World) -> Result<String> {
    for bytes in [vec![0xff; 4096], vec![0; 64], b"GET / HTTP/1.0\r\n\r\n".to_vec()] {
        let (answer, status) = gate::talk(&bytes, None)?;
        ensure!(!status.success() && answer.is_empty(), "the gate took garbage for a request");
    }
    Ok(String::new())
}
