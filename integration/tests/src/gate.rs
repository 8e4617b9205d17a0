//! The gate asked directly, over its own frame: for what no containerd sends, and to measure it alone.
use anyhow::{Context, Result, bail, ensure};
use boltseal_message::{Create, Mount, Operation, Refusal, Reply, Request, Stdio};
use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio as Pipe};
use std::time::Duration;

/// A Create as a shim would send it, for a bundle folder of our own with `config` in it (none when empty).
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    pub work: &'a Path,
    pub address: &'a str,
    pub namespace: &'a str,
    pub id: &'a str,
    pub config: &'a [u8],
    pub rootfs: Vec<Mount>,
    /// Folder of a cgroup that the gate is put into.
    pub cgroup: Option<&'a Path>,
}

/// Asks for something that must be refused.
pub fn refused(ask: &Ask<'_>) -> Result<Refusal> {
    let bundle = ask.work.join("bundle");
    fs::create_dir_all(bundle.join("rootfs"))?;
    if !ask.config.is_empty() {
        fs::write(bundle.join("config.json"), ask.config)?;
    }
    let request = Request {
        namespace: ask.namespace.into(),
        address: ask.address.into(),
        id: ask.id.into(),
        bundle: bundle.display().to_string(),
        deadline_ms: 10_000,
        operation: Operation::Create(Create {
            rootfs: ask.rootfs.clone(),
            stdio: Stdio::default(),
            options: (String::new(), Vec::new()),
            checkpoint: String::new(),
            parent_checkpoint: String::new(),
        }),
    };
    let answer = talk(&request.encode(), ask.cgroup);
    fs::remove_dir_all(&bundle)?;
    let (answer, status) = answer?;
    ensure!(status.success() || !answer.is_empty(), "the gate ended with {status} and no answer");
    match Reply::decode(&answer)? {
        Reply::Refused(refusal) => {
            ensure!(refusal.message.starts_with("boltseal: "), "{}", refusal.message);
            Ok(refusal)
        }
        other => bail!("not refused: {other:?}"),
    }
}

/// Runs the gate with a socket as its fd 3, sends `bytes`, and answers with all that it wrote and how it ended.
pub fn talk(bytes: &[u8], cgroup: Option<&Path>) -> Result<(Vec<u8>, ExitStatus)> {
    let (ours, gate) = spawn(cgroup)?;
    say(&ours, bytes)?;
    let answer = hear(ours)?;
    Ok((answer, wait(gate)?))
}

/// Runs one gate per request, all at the same time, and answers with what each said. Nothing is read before all have
/// ended: what they made is held until then by the descriptors that lie in the sockets.
pub fn together(requests: &[Request]) -> Result<Vec<Reply>> {
    let gates = requests.iter().map(|_| spawn(None)).collect::<Result<Vec<_>>>()?;
    for ((socket, _), request) in gates.iter().zip(requests) {
        say(socket, &request.encode())?;
    }
    let mut held = Vec::new();
    for (socket, gate) in gates {
        wait(gate)?;
        held.push(Held(socket));
    }
    held.into_iter().map(Held::reply).collect()
}

/// An answer that nobody has read yet: what was made is held by the descriptors that lie in the socket.
#[derive(Debug)]
pub struct Held(UnixStream);

impl Held {
    /// Reads it, and lets go.
    pub fn reply(self) -> Result<Reply> {
        Ok(Reply::decode(&hear(self.0)?)?)
    }
}

/// Runs one gate to its end.
pub fn hold(request: &Request) -> Result<Held> {
    let (socket, gate) = spawn(None)?;
    say(&socket, &request.encode())?;
    wait(gate)?;
    Ok(Held(socket))
}

fn spawn(cgroup: Option<&Path>) -> Result<(UnixStream, Child)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_read_timeout(Some(Duration::from_secs(20)))?;
    // A shell moves its stdin to fd 3: a file descriptor of a fixed number takes unsafe code in Rust.
    let enter = cgroup.map_or_else(|| ":".into(), |folder| format!("echo 0 >{}/cgroup.procs", folder.display()));
    let gate = Command::new("sh")
        .args(["-c", &format!("exec 3<&0 </dev/null; {enter}; exec boltseal-runtime gate")])
        .stdin(Pipe::from(OwnedFd::from(theirs)))
        .stderr(Pipe::piped())
        .spawn()
        .context("the gate")?;
    Ok((ours, gate))
}

fn say(mut socket: &UnixStream, bytes: &[u8]) -> Result<()> {
    match socket.write_all(bytes) {
        // It may hang up before it has read all.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        other => other?,
    }
    Ok(socket.shutdown(std::net::Shutdown::Write)?)
}

fn hear(mut socket: UnixStream) -> Result<Vec<u8>> {
    let mut answer = Vec::new();
    match socket.read_to_end(&mut answer) {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        other => drop(other.context("the gate's answer")?),
    }
    Ok(answer)
}

/// Waits for it and passes on what it said on stderr.
fn wait(mut gate: Child) -> Result<ExitStatus> {
    let mut said = String::new();
    if let Some(mut stderr) = gate.stderr.take() {
        stderr.read_to_string(&mut said)?;
    }
    let status = gate.wait()?;
    if !said.is_empty() {
        println!("      the gate says: {}", said.trim());
    }
    Ok(status)
}
