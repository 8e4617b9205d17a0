//! What no containerd sends: the gate is asked directly, over its own frame.
use crate::Report;
use anyhow::{Context, Result, ensure};
use boltseal_message::{Code, Create, Operation, Refusal, Reply, Request, Stdio};
use serde_json::json;
use stack::leak::Snapshot;
use stack::node::{NAMESPACE, World};
use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio as Pipe};
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

/// One Create, as a shim would send it; a bundle folder of our own with `config` in it.
fn ask(world: &World, address: &str, config: &[u8]) -> Result<Refusal> {
    let bundle = world.node.work.join("bundle");
    fs::create_dir_all(bundle.join("rootfs"))?;
    if !config.is_empty() {
        fs::write(bundle.join("config.json"), config)?;
    }
    let request = Request {
        namespace: NAMESPACE.into(),
        address: address.into(),
        id: "odd".into(),
        bundle: bundle.display().to_string(),
        deadline_ms: 10_000,
        operation: Operation::Create(Create {
            rootfs: Vec::new(),
            stdio: Stdio::default(),
            options: (String::new(), Vec::new()),
            checkpoint: String::new(),
            parent_checkpoint: String::new(),
        }),
    };
    let answer = frame(&request.encode());
    fs::remove_dir_all(&bundle)?;
    match Reply::decode(&answer?)? {
        Reply::Refused(refusal) => {
            ensure!(refusal.message.starts_with("boltseal: "), "{}", refusal.message);
            Ok(refusal)
        }
        other => anyhow::bail!("not refused: {other:?} {}", json!({})),
    }
}

/// Runs the gate with a socket as its fd 3 and answers with all that it wrote.
fn frame(bytes: &[u8]) -> Result<Vec<u8>> {
    let (mut ours, theirs) = UnixStream::pair()?;
    ours.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut gate = Command::new("sh")
        .args(["-c", "exec 3<&0 </dev/null; exec boltseal-runtime gate"])
        .stdin(Pipe::from(OwnedFd::from(theirs)))
        .spawn()
        .context("the gate")?;
    let mut answer = Vec::new();
    let said = ours.write_all(bytes).and_then(|()| ours.read_to_end(&mut answer));
    gate.wait()?;
    said.context("talking to the gate")?;
    Ok(answer)
}

fn garbage(_: &mut World) -> Result<String> {
    for bytes in [vec![0xff; 4096], vec![0; 64], b"GET / HTTP/1.0\r\n\r\n".to_vec()] {
        let (mut ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut gate = Command::new("sh")
            .args(["-c", "exec 3<&0 </dev/null; exec boltseal-runtime gate"])
            .stdin(Pipe::from(OwnedFd::from(theirs)))
            .stderr(Pipe::null())
            .spawn()?;
        // It may hang up before it has read all.
        if let Err(error) = ours.write_all(&bytes) {
            ensure!(error.kind() == std::io::ErrorKind::BrokenPipe, "{error}");
        }
        ours.shutdown(std::net::Shutdown::Write)?;
        let status = gate.wait()?;
        ensure!(!status.success(), "the gate took garbage for a request");
    }
    Ok(String::new())
}
