//! What one start costs, what the shim holds, what the gate takes.
use anyhow::{Context, Result, bail, ensure};
use boltseal_message::Mount;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use serde_json::json;
use stack::client::Request;
use stack::containerd::SOCKET;
use stack::gate;
use stack::node::{NAMESPACE, OUTPUT, World};
use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Of one container's life; times in milliseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    pub(crate) create: f64,
    pub(crate) start: f64,
    pub(crate) wait: f64,
    pub(crate) delete: f64,
    /// CPU of shim, gate or runc, container and containerd together.
    pub(crate) cpu: f64,
    /// containerd's part of it.
    pub(crate) containerd: f64,
}

impl Cost {
    pub(crate) fn wall(&self) -> f64 {
        self.create + self.start + self.wait + self.delete
    }
}

const CPUACCT: &str = "/sys/fs/cgroup/cpuacct";

/// One cgroup for containerd and all that comes of it: shims, gates, runc and, by their cgroup's path, the containers.
pub(crate) fn cgroup_of_containerd(world: &World) -> Result<PathBuf> {
    let folder = Path::new(CPUACCT).join("bench");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    fs::write(folder.join("cgroup.procs"), world.containerd.pid()?.to_string())?;
    Ok(folder)
}

fn usage(cgroup: &Path) -> Result<f64> {
    let text = fs::read_to_string(cgroup.join("cpuacct.usage"))?;
    Ok(text.trim().parse::<f64>()? / 1e6)
}

/// CPU of all threads of a process, milliseconds.
fn cpu_of(pid: u32) -> Result<f64> {
    let mut sum = 0.0;
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(entry?.path().join("schedstat"))?;
        sum += text.split_whitespace().next().context("schedstat")?.parse::<f64>()? / 1e6;
    }
    Ok(sum)
}

/// The fifos that a client of containerd makes for a container's output, and holds open.
pub(crate) struct Output {
    stdout: (PathBuf, File),
    stderr: (PathBuf, File),
}

impl Output {
    pub(crate) fn make() -> Result<Self> {
        fs::create_dir_all(OUTPUT)?;
        let fifo = |name: &str| -> Result<(PathBuf, File)> {
            let path = Path::new(OUTPUT).join(name);
            nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)?;
            let file = File::options().read(true).write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&path)?;
            Ok((path, file))
        };
        Ok(Self { stdout: fifo("bench-stdout")?, stderr: fifo("bench-stderr")? })
    }
}

fn request(world: &mut World, output: &Output, args: &[&str]) -> Result<Request> {
    let mut request = world.request("app", args)?;
    request.stdout = output.stdout.0.display().to_string();
    request.stderr = output.stderr.0.display().to_string();
    request.spec["linux"]["cgroupsPath"] = json!(format!("/bench/{}", request.id));
    Ok(request)
}

fn timed<T, E: std::error::Error + Send + Sync + 'static>(
    milliseconds: &mut f64,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T> {
    let start = Instant::now();
    let value = work()?;
    *milliseconds = start.elapsed().as_secs_f64() * 1e3;
    Ok(value)
}

/// Task Create, Start, Wait, Delete, as a client of containerd sees them.
pub(crate) fn one(world: &mut World, output: &Output, cgroup: &Path) -> Result<Cost> {
    let request = request(world, output, &["/bin/true"])?;
    let client = &world.client;
    let mounts = client.create_container(&request)?;
    let mut cost = Cost::default();
    let (cpu, containerd) = (usage(cgroup)?, cpu_of(world.containerd.pid()?)?);
    timed(&mut cost.create, || client.create_task(&request, mounts))?;
    timed(&mut cost.start, || client.start(&request.id, ""))?;
    let code = timed(&mut cost.wait, || client.wait(&request.id, ""))?;
    timed(&mut cost.delete, || client.delete_task(&request.id))?;
    // What goes on after the answer is part of the cost: the shim's own end.
    std::thread::sleep(Duration::from_millis(100));
    cost.cpu = usage(cgroup)? - cpu;
    cost.containerd = cpu_of(world.containerd.pid()?)? - containerd;
    client.remove(&request)?;
    ensure!(code == 0, "the workload ended with {code}");
    Ok(cost)
}

/// A shim with one container; sizes in KiB.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    pub(crate) rss: u64,
    pub(crate) private_dirty: u64,
    pub(crate) private: u64,
    pub(crate) threads: u64,
    /// The starter beside it: all that it sees, and what is its own alone. runc has none.
    pub(crate) starter: (u64, u64),
}

pub(crate) fn shim_memory(world: &mut World, output: &Output) -> Result<Memory> {
    let request = request(world, output, &["/bin/sleep", "600"])?;
    let pid = world.run(&request)?;
    std::thread::sleep(Duration::from_secs(1));
    let memory = memory_of(pid);
    world.client.remove(&request)?;
    memory
}

fn memory_of(init: u32) -> Result<Memory> {
    let shim = field(&format!("/proc/{init}/status"), "PPid")?;
    let name = fs::read_to_string(format!("/proc/{shim}/comm"))?;
    if !name.starts_with("containerd-shim") {
        bail!("the parent of init is {name}");
    }
    let rollup = format!("/proc/{shim}/smaps_rollup");
    let (dirty, clean) = (field(&rollup, "Private_Dirty")?, field(&rollup, "Private_Clean")?);
    Ok(Memory {
        rss: field(&rollup, "Rss")?,
        private_dirty: dirty,
        private: dirty + clean,
        threads: field(&format!("/proc/{shim}/status"), "Threads")?,
        starter: starter_of(shim)?,
    })
}

fn starter_of(shim: u64) -> Result<(u64, u64)> {
    let children = fs::read_to_string(format!("/proc/{shim}/task/{shim}/children"))?;
    for pid in children.split_whitespace() {
        if fs::read_to_string(format!("/proc/{pid}/comm"))?.trim_end() == "shim-starter" {
            let rollup = format!("/proc/{pid}/smaps_rollup");
            return Ok((field(&rollup, "Rss")?, field(&rollup, "Private_Dirty")?));
        }
    }
    Ok((0, 0))
}

/// The number of a line `name:  123 kB`.
fn field(file: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(file).with_context(|| file.to_owned())?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let word = line.and_then(|line| line.split_whitespace().next()).with_context(|| format!("{file}: no {name}"))?;
    Ok(word.parse()?)
}

/// CPU of the gate alone for evidence, verification, decision and record, milliseconds per run: a request that is right
/// but for a hook, so that it goes all the way to the verdict and is not launched.
pub(crate) fn gate_cpu(world: &mut World, output: &Output, runs: usize) -> Result<Vec<f64>> {
    let folder = Path::new(CPUACCT).join("gate");
    fs::create_dir_all(&folder)?;
    let mut all = Vec::new();
    for _ in 0..runs {
        let mut request = request(world, output, &["/bin/true"])?;
        request.spec["hooks"] = json!({ "prestart": [{ "path": "/bin/busybox" }] });
        let mounts = world.client.create_container(&request)?;
        let before = usage(&folder)?;
        let refusal = gate::refused(&gate::Ask {
            work: &world.node.work,
            address: SOCKET,
            namespace: NAMESPACE,
            id: &request.id,
            config: &serde_json::to_vec(&request.spec)?,
            rootfs: mounts
                .into_iter()
                .map(|mount| Mount {
                    kind: mount.r#type,
                    source: mount.source,
                    target: mount.target,
                    options: mount.options,
                })
                .collect(),
            cgroup: Some(&folder),
        })?;
        all.push(usage(&folder)? - before);
        world.client.remove(&request)?;
        ensure!(
            refusal.message.contains("denied by BS-PRC-005") && !refusal.message.contains("(+"),
            "{}",
            refusal.message
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    fs::remove_dir(&folder)?;
    Ok(all)
}
