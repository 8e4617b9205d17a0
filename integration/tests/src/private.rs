//! The private machine that a stack runs in: own pid, mount, network, ipc and cgroup namespaces, own cgroups, own
//! `/run`, `/etc`, `/var/lib`, `/var/log` and `/usr/local/bin`. Everything in it ends with the process that asked for it,
//! even when that one is killed, and the machine outside is not touched but for a scratch folder and empty cgroups.
//!
//! Three stages of one binary: `outside` (makes scratch and cgroups, waits, removes them), `init` (pid 1: mounts, then
//! reaps), `inside` (the caller's own work).
use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const STAGE: &str = "BOLTSEAL_STACK_STAGE";
const SCRATCH: &str = "BOLTSEAL_STACK_SCRATCH";

/// Runs `work` in a private machine and answers with its exit code. Call it first in `main`, before any thread.
pub fn machine(work: impl FnOnce(&Path) -> Result<()>) -> ExitCode {
    let stage = std::env::var(STAGE).unwrap_or_default();
    let result = crate::kexec::stand_in().map(|error| error.map(|()| 1));
    let result = result.unwrap_or_else(|| match stage.as_str() {
        "" => outside(),
        "init" => init(),
        _ => scratch().and_then(|scratch| work(&scratch)).map(|()| 0),
    });
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether [`machine`] would make one: this is no stage of it yet.
#[must_use]
pub fn is_outside() -> bool {
    std::env::var_os(STAGE).is_none() && !crate::kexec::stands_in()
}

/// The project's root folder.
#[must_use]
pub fn project() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.ancestors().nth(2).unwrap_or(tests).to_path_buf()
}

fn scratch() -> Result<PathBuf> {
    Ok(PathBuf::from(std::env::var_os(SCRATCH).context("no scratch folder named")?))
}

// ---- outside --------------------------------------------------------------------------------------------------------

fn outside() -> Result<u8> {
    if !nix::unistd::geteuid().is_root() {
        bail!("this needs root: it makes namespaces, mounts and cgroups");
    }
    sweep()?;
    let name = format!("boltseal-{}", std::process::id());
    let scratch = stacks().join(&name);
    fs::create_dir_all(&scratch)?;
    let cgroups = Cgroups::join(&name)?;
    let status = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--cgroup"])
        .args(["--fork", "--kill-child", "--mount-proc", "--"])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(STAGE, "init")
        .env(SCRATCH, &scratch)
        .status();
    cgroups.leave()?;
    fs::remove_dir_all(&scratch).with_context(|| format!("cannot remove {}", scratch.display()))?;
    let status = status.context("cannot run setpriv and unshare (Debian's util-linux)")?;
    Ok(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1))
}

fn stacks() -> PathBuf {
    project().join(".cache/stacks")
}

/// Removes what a stack left whose process was killed.
fn sweep() -> Result<()> {
    let mut dead = Vec::new();
    if let Ok(entries) = fs::read_dir(stacks()) {
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(pid) = name.strip_prefix("boltseal-")
                && !Path::new("/proc").join(pid).exists()
            {
                dead.push(name);
            }
        }
    }
    for name in dead {
        for hierarchy in hierarchies()? {
            remove_cgroups(&hierarchy.own_folder()?.join(&name))?;
        }
        match fs::remove_dir_all(stacks().join(&name)) {
            // Somebody who began at the same time was first.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            removed => removed.with_context(|| format!("cannot remove what {name} left"))?,
        }
    }
    Ok(())
}

/// One cgroup hierarchy of this machine.
#[derive(Debug, Clone)]
struct Hierarchy {
    /// Name of its mount below /sys/fs/cgroup (`memory`, `systemd`, `unified`; empty when v2 is all there is).
    folder: String,
    /// Mount options (`memory`, `none,name=systemd`); empty for v2.
    options: String,
    /// This process's cgroup in it.
    path: String,
}

impl Hierarchy {
    fn own_folder(&self) -> Result<PathBuf> {
        let mount = Path::new("/sys/fs/cgroup").join(&self.folder);
        Ok(mount.join(self.path.trim_start_matches('/')))
    }
}

fn hierarchies() -> Result<Vec<Hierarchy>> {
    let mut found = Vec::new();
    for line in fs::read_to_string("/proc/self/cgroup")?.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            bail!("/proc/self/cgroup: {line}")
        };
        let hybrid = Path::new("/sys/fs/cgroup/unified").exists();
        let (folder, options) = match controllers.strip_prefix("name=") {
            Some(name) => (name.to_owned(), format!("none,{controllers}")),
            None if controllers.is_empty() => (if hybrid { "unified".into() } else { String::new() }, String::new()),
            None => (controllers.to_owned(), controllers.to_owned()),
        };
        if Path::new("/sys/fs/cgroup").join(&folder).exists() {
            found.push(Hierarchy { folder, options, path: path.to_owned() });
        }
    }
    Ok(found)
}

/// Own cgroups, one per hierarchy, with this process in them.
struct Cgroups {
    folders: Vec<(PathBuf, PathBuf)>,
}

impl Cgroups {
    fn join(name: &str) -> Result<Self> {
        let mut folders = Vec::new();
        for hierarchy in hierarchies()? {
            let home = hierarchy.own_folder()?;
            let own = home.join(name);
            fs::create_dir(&own).with_context(|| own.display().to_string())?;
            for file in ["cpuset.cpus", "cpuset.mems"] {
                // v1: empty in a new cgroup, and no process may join it then.
                if let Ok(value) = fs::read_to_string(home.join(file))
                    && hierarchy.folder == "cpuset"
                {
                    fs::write(own.join(file), value.trim())?;
                }
            }
            enter(&own)?;
            folders.push((home, own));
        }
        Ok(Self { folders })
    }

    fn leave(self) -> Result<()> {
        for (home, own) in &self.folders {
            enter(home)?;
            remove_cgroups(own)?;
        }
        Ok(())
    }
}

fn enter(cgroup: &Path) -> Result<()> {
    let procs = cgroup.join("cgroup.procs");
    let mut file = fs::File::options().write(true).open(&procs).with_context(|| procs.display().to_string())?;
    file.write_all(std::process::id().to_string().as_bytes()).with_context(|| procs.display().to_string())
}

/// Removes a cgroup and those below it; they are empty once the pid namespace is gone, at the latest after a moment.
fn remove_cgroups(cgroup: &Path) -> Result<()> {
    if !cgroup.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_cgroups(&entry.path())?;
        }
    }
    crate::process::poll(&format!("cannot remove {}", cgroup.display()), std::time::Duration::from_secs(5), || {
        (fs::remove_dir(cgroup).is_ok() || !cgroup.exists()).then_some(())
    })
}

// ---- init -----------------------------------------------------------------------------------------------------------

fn init() -> Result<u8> {
    mounts(&scratch()?).context("private mounts")?;
    crate::process::run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    nix::unistd::sethostname("node")?;
    let child = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(STAGE, "inside")
        .process_group(0)
        .spawn()?;
    let child = Pid::from_raw(i32::try_from(child.id())?);
    loop {
        match waitpid(None::<Pid>, None)? {
            WaitStatus::Exited(pid, code) if pid == child => return Ok(u8::try_from(code).unwrap_or(1)),
            WaitStatus::Signaled(pid, signal, _) if pid == child => bail!("the stack's own process died of {signal}"),
            _ => {}
        }
    }
}

/// This project's own folder, wherever it was cloned to: also below a folder that is hidden here.
struct Checkout {
    folder: fs::File,
    path: PathBuf,
}

impl Checkout {
    fn open() -> Result<Self> {
        let path = project();
        Ok(Self { folder: fs::File::open(&path)?, path })
    }

    /// Puts it back after `hidden` was covered.
    fn show(&self, hidden: &str) -> Result<()> {
        if !self.path.starts_with(hidden) {
            return Ok(());
        }
        fs::create_dir_all(&self.path)?;
        let open = PathBuf::from(format!("/proc/self/fd/{}", self.folder.as_raw_fd()));
        bind(&open, &self.path.display().to_string()).context("show the checkout again")
    }
}

fn mounts(scratch: &Path) -> Result<()> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("make / private")?;
    let checkout = Checkout::open()?;
    tmpfs("/run", "mode=0755")?;
    checkout.show("/run")?;
    tmpfs("/tmp", "mode=1777")?;
    checkout.show("/tmp")?;
    for folder in ["/var/lib", "/var/log", "/usr/local/bin"] {
        let own = scratch.join(folder.trim_start_matches('/').replace('/', "-"));
        fs::create_dir(&own)?;
        bind(&own, folder)?;
        checkout.show(folder)?;
    }
    // A copy, so that folders can be made in it; Debian's is a few megabytes.
    let etc = scratch.join("etc");
    crate::process::run(Command::new("cp").arg("-a").arg("/etc").arg(&etc))?;
    bind(&etc, "/etc")?;
    cgroup_mounts()?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SHARED, None::<&str>).context("make / shared")
}

fn tmpfs(target: &str, options: &str) -> Result<()> {
    mount(Some("tmpfs"), target, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options))
        .with_context(|| format!("tmpfs on {target}"))
}

fn bind(source: &Path, target: &str) -> Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("bind {} on {target}", source.display()))
}

/// The hierarchies again, seen from the new cgroup namespace: its root is our own cgroup.
fn cgroup_mounts() -> Result<()> {
    let hierarchies = hierarchies()?;
    let hybrid = hierarchies.iter().any(|hierarchy| !hierarchy.options.is_empty());
    // The old ones away, so that mountinfo shows each hierarchy once.
    umount2("/sys/fs/cgroup", MntFlags::MNT_DETACH).context("detach /sys/fs/cgroup")?;
    if hybrid {
        tmpfs("/sys/fs/cgroup", "mode=0755")?;
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    for hierarchy in hierarchies {
        let target = Path::new("/sys/fs/cgroup").join(&hierarchy.folder);
        if hybrid {
            fs::create_dir(&target)?;
        }
        let (kind, options) =
            if hierarchy.options.is_empty() { ("cgroup2", None) } else { ("cgroup", Some(hierarchy.options.as_str())) };
        mount(Some(kind), &target, Some(kind), flags, options).with_context(|| target.display().to_string())?;
        if let [_, _, ..] = hierarchy.folder.split(',').collect::<Vec<_>>().as_slice() {
            for one in hierarchy.folder.split(',') {
                symlink(&hierarchy.folder, Path::new("/sys/fs/cgroup").join(one))?;
            }
        }
    }
    Ok(())
}
