//! What no containerd sends: the gate is asked directly, over its own frame.
use crate::Report;
use anyhow::{Context, Result, bail, ensure};
use boltseal_message::{Code, Create, Mount, Operation, Refusal, Reply, Request, Stdio};
use stack::gate;
use stack::node::{NAMESPACE, World};
use stack::since::Since;
use std::fs;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

pub(crate) fn all(world: &mut World, report: &mut Report, name: &dyn Fn(&str) -> String) {
    let mut check = |what: &str, run: fn(&mut World) -> Result<String>| report.clean(&name(what), world, run);
    check("containerd's socket is silent: refused after two seconds", silent);
    check("containerd's socket is not there: refused", absent);
    check("a config.json that ends in the middle: refused", truncated);
    check("no config.json: refused", no_config);
    check("a frame of garbage: refused", garbage);
    check("two creates of one container at the same time: one makes it", two_creates);
    check("a create of a container that runs: refused, and in the trail", create_again);
    check("a delete while a create is under way: nothing stays", delete_meanwhile);
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
    ensure!(refusal.message.contains("containerd did not answer"), "{refusal:?}");
    ensure!((Duration::from_millis(1500)..Duration::from_secs(4)).contains(&took), "after {took:?}");
    Ok(format!("{} ms", took.as_millis()))
}

fn absent(world: &mut World) -> Result<String> {
    let refusal =
        ask(world, "/run/nobody.sock", &serde_json::to_vec(&stack::spec::spec(NAMESPACE, "absent", &["/bin/true"]))?)?;
    ensure!(refusal.message.contains("containerd cannot be asked"), "{refusal:?}");
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

/// A Create as a shim would send it for a container that containerd knows, and what undoes all of it.
fn known(world: &mut World) -> Result<(stack::client::Request, Request)> {
    let request = world.request("app", &["/bin/sleep", "600"])?;
    let mounts = world.client.create_container(&request)?;
    let bundle = world.node.work.join("race");
    fs::create_dir_all(bundle.join("rootfs"))?;
    fs::write(bundle.join("config.json"), serde_json::to_vec(&request.spec)?)?;
    let rootfs =
        mounts.into_iter().map(|m| Mount { kind: m.r#type, source: m.source, target: m.target, options: m.options });
    let create = Request {
        namespace: NAMESPACE.into(),
        address: stack::containerd::SOCKET.into(),
        id: request.id.clone(),
        bundle: bundle.display().to_string(),
        deadline_ms: 20_000,
        operation: Operation::Create(Create {
            rootfs: rootfs.collect(),
            stdio: Stdio::default(),
            options: (String::new(), Vec::new()),
            checkpoint: String::new(),
            parent_checkpoint: String::new(),
        }),
    };
    Ok((request, create))
}

fn forget(world: &World, request: &stack::client::Request, create: &Request) -> Result<()> {
    let delete = Request { operation: Operation::Delete { events: Vec::new() }, ..create.clone() };
    let gone = gate::together(&[delete])?;
    ensure!(matches!(gone.as_slice(), [Reply::Done]), "{gone:?}");
    fs::remove_dir_all(&create.bundle)?;
    Ok(world.client.remove(request)?)
}

fn two_creates(world: &mut World) -> Result<String> {
    let (request, create) = known(world)?;
    let mut said = String::new();
    for _ in 0..5 {
        let before = Since::now()?;
        let replies = gate::together(&[create.clone(), create.clone()])?;
        let made: Vec<u32> =
            replies.iter().filter_map(|r| if let Reply::Created(c) = r { Some(c.pid) } else { None }).collect();
        let refused = replies.iter().find_map(|r| if let Reply::Refused(refusal) = r { Some(refusal) } else { None });
        let refused = refused.with_context(|| format!("nobody was refused: {replies:?}"))?;
        ensure!(made.len() == 1 && refused.code == Code::AlreadyExists, "{replies:?}");
        said.clone_from(&refused.message);
        recorded(&before.records()?, &["another request makes", "exists and runs"])?;
        let delete = Request { operation: Operation::Delete { events: Vec::new() }, ..create.clone() };
        let gone = gate::together(&[delete])?;
        ensure!(matches!(gone.as_slice(), [Reply::Done]), "{gone:?}");
    }
    forget(world, &request, &create)?;
    Ok(said)
}

/// Of two decisions that allowed, one started; the other says in the trail why it did not.
fn recorded(new: &[serde_json::Value], why: &[&str]) -> Result<()> {
    let of = |ev: &str| new.iter().filter(|record| record["ev"] == ev).collect::<Vec<_>>();
    let (decided, started, aborted) = (of("decision"), of("started"), of("aborted"));
    ensure!(decided.len() == 2 && decided.iter().all(|record| record["decision"] == "allow"), "{new:?}");
    ensure!(started.len() == 1 && aborted.len() == 1 && started[0]["of"] != aborted[0]["of"], "{new:?}");
    ensure!(decided.iter().any(|record| record["id"] == aborted[0]["of"]), "{new:?}");
    ensure!(aborted[0]["note"].as_str().is_some_and(|note| why.iter().any(|why| note.contains(why))), "{new:?}");
    Ok(())
}

/// A container that runs, and a second create of its id: refused, and in the trail. Twin: after its delete.
fn create_again(world: &mut World) -> Result<String> {
    let (request, create) = known(world)?;
    let before = Since::now()?;
    let first = gate::hold(&create)?;
    let second = gate::together(std::slice::from_ref(&create))?;
    let Some(Reply::Refused(refused)) = second.first() else { bail!("it was made twice: {second:?}") };
    ensure!(refused.code == Code::AlreadyExists, "{refused:?}");
    recorded(&before.records()?, &["exists and runs"])?;
    let first = first.reply()?;
    ensure!(matches!(first, Reply::Created(_)), "{first:?}");
    let said = refused.message.clone();
    let delete = Request { operation: Operation::Delete { events: Vec::new() }, ..create.clone() };
    ensure!(gate::together(&[delete])? == [Reply::Done], "the first cannot be deleted");
    let again = gate::together(std::slice::from_ref(&create))?;
    ensure!(matches!(again.as_slice(), [Reply::Created(_)]), "{again:?}");
    forget(world, &request, &create)?;
    Ok(said)
}

fn delete_meanwhile(world: &mut World) -> Result<String> {
    let (request, create) = known(world)?;
    let delete = Request { operation: Operation::Delete { events: Vec::new() }, ..create.clone() };
    for _ in 0..5 {
        // Several, so that one of them comes in the midst of it.
        let replies = gate::together(&[create.clone(), delete.clone(), delete.clone(), delete.clone()]);
        let replies = replies?;
        ensure!(replies.iter().skip(1).all(|reply| *reply == Reply::Done), "a delete failed: {replies:?}");
    }
    forget(world, &request, &create)?;
    Ok(String::new())
}
