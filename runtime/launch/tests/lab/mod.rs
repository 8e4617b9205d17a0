//! A laboratory per scenario: a process of its own, in its own mount namespace, with a busybox image, a sealed spec made
//! by hand, and the shim's part (release, read, wait).
use boltseal_launch::{CreateRequest, LaunchError, Parked, RELEASE, Rootfs, create};
use boltseal_seal::{ApprovedMount, ApprovedNamespace, Landlock, Sealed, Table};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub struct Lab {
    pub name: String,
    pub top: PathBuf,
    pub layer: PathBuf,
    pub volume: PathBuf,
    pub state: PathBuf,
    pub spec: Value,
    pub table: Table,
    host: File,
    mounts_before: String,
}

pub const CAPABILITIES: &[&str] = &["CAP_CHOWN", "CAP_NET_BIND_SERVICE"];

impl Lab {
    pub fn new(top: PathBuf, cgroup: &str, name: &str) -> Self {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        // Shared, as a host's mounts are, but not with this host.
        for kind in [MsFlags::MS_PRIVATE, MsFlags::MS_SHARED] {
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | kind, None::<&str>).unwrap();
        }
        mount(Some("tmpfs"), &top, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        let layer = top.join("layer");
        for dir in ["bin", "etc", "dev", "proc", "sys", "tmp", "data", "run", "root"] {
            fs::create_dir_all(layer.join(dir)).unwrap();
        }
        fs::copy("/bin/busybox", layer.join("bin/busybox")).unwrap();
        for applet in
            ["sh", "cat", "echo", "id", "sleep", "mount", "touch", "grep", "ls", "mknod", "tty", "cp", "true", "kill"]
        {
            symlink("busybox", layer.join("bin").join(applet)).unwrap();
        }
        fs::write(layer.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
        fs::write(layer.join("bin/noexec"), "not a program").unwrap();
        symlink("/run", layer.join("var")).unwrap();
        let volume = top.join("volume");
        fs::create_dir(&volume).unwrap();
        fs::set_permissions(&volume, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let state = top.join("state");
        fs::DirBuilder::new().mode(0o700).create(&state).unwrap();
        let cgroup_path = format!("{cgroup}/{name}");
        let spec = spec(&volume.display().to_string(), &cgroup_path);
        let table = table(&volume, &cgroup_path);
        let host = File::open("/proc/self/ns/mnt").unwrap();
        let mounts_before = fs::read_to_string("/proc/self/mountinfo").unwrap();
        Self { name: name.to_owned(), top, layer, volume, state, spec, table, host, mounts_before }
    }

    /// From here on a node with cgroup v2 alone.
    pub fn on_cgroup_v2(&mut self) {
        let at = "/sys/fs/cgroup";
        // Another mount of it would change the options of the one that is there, for everybody.
        if crate::scenarios::unified() {
            return;
        }
        nix::mount::umount2(at, nix::mount::MntFlags::MNT_DETACH).unwrap();
        mount(Some("cgroup2"), at, Some("cgroup2"), MsFlags::empty(), None::<&str>).unwrap();
        self.mounts_before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    }

    /// Another container of the same image, with a state and a cgroup of its own.
    pub fn beside(&self, name: &str) -> Self {
        let state = self.top.join(format!("state-{name}"));
        fs::DirBuilder::new().mode(0o700).create(&state).unwrap_or_else(|e| assert!(state.is_dir(), "{e}"));
        let (mut spec, mut table) = (self.spec.clone(), self.table.clone());
        table.cgroup_path = format!("{}-{name}", self.table.cgroup_path);
        spec["linux"]["cgroupsPath"] = json!(table.cgroup_path);
        Self {
            name: format!("{}-{name}", self.name),
            top: self.top.clone(),
            layer: self.layer.clone(),
            volume: self.volume.clone(),
            state,
            spec,
            table,
            host: self.host.try_clone().unwrap(),
            mounts_before: self.mounts_before.clone(),
        }
    }

    /// What the scenario mounts itself is not left by a container.
    pub fn now_mounted(&mut self) {
        self.mounts_before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    }

    /// Another folder of the host at /data.
    pub fn bind_data(&mut self, source: &std::path::Path) {
        let mounts = self.spec["mounts"].as_array_mut().unwrap();
        mounts.iter_mut().find(|m| m["destination"] == "/data").unwrap()["source"] = json!(source);
        self.table.mounts.iter_mut().find(|m| m.destination == "/data").unwrap().source = Some(located(source));
    }

    /// The program, as the spec names it.
    pub fn args(&mut self, args: &[&str]) -> &mut Self {
        self.spec["process"]["args"] = json!(args);
        self
    }

    pub fn sh(&mut self, script: &str) -> &mut Self {
        self.args(&["/bin/sh", "-c", script])
    }

    pub fn sealed(&self) -> Sealed {
        let spec: oci_spec::runtime::Spec = serde_json::from_value(self.spec.clone()).unwrap();
        let json = serde_json::to_vec(&spec).unwrap();
        Sealed { spec, json, digest: String::new(), table: self.table.clone() }
    }

    pub fn create_with(&self, stdio: [Option<OwnedFd>; 3], timeout: Duration) -> Result<Parked, LaunchError> {
        let lowers = [self.layer.display().to_string()];
        let result = create(CreateRequest {
            id: &self.name,
            state: &self.state,
            sealed: &self.sealed(),
            rootfs: Rootfs { lowers: &lowers, sealed: None, checked: None },
            stdio,
            deadline: Instant::now() + timeout,
        });
        // Back on the "host", as the shim and later gates are.
        setns(&self.host, CloneFlags::CLONE_NEWNS).unwrap();
        result
    }

    /// Create with stdout in a pipe: the parked init and the reading end.
    pub fn create(&self) -> (Result<Parked, LaunchError>, File) {
        let (read, write) = pipe();
        let errors = write.try_clone().unwrap();
        let result = self.create_with([None, Some(write), Some(errors)], Duration::from_secs(20));
        (result, File::from(read))
    }

    /// Create, release, run to the end: (exit code, output, text on the exec-status pipe).
    pub fn run(&self) -> (i32, String, String) {
        let (parked, mut output) = self.create();
        let parked = parked.unwrap();
        let pid = parked.pid;
        let text = start(parked);
        let mut said = String::new();
        output.read_to_string(&mut said).unwrap();
        let code = wait(pid);
        boltseal_launch::delete(&self.state, &self.name, None).unwrap();
        self.nothing_left();
        (code, said, text)
    }

    /// A create that must fail: the error, after which nothing is left.
    pub fn refused(&self) -> LaunchError {
        let (result, _) = self.create();
        let error = result.map(|p| p.pid).unwrap_err();
        self.nothing_left();
        error
    }

    /// No mount on the host, no cgroup, no state, no child.
    pub fn nothing_left(&self) {
        assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), self.mounts_before, "mounts on the host");
        assert_eq!(fs::read_dir(&self.state).unwrap().count(), 0, "state is left");
        assert_eq!(cgroups(&self.table.cgroup_path), Vec::<PathBuf>::new(), "cgroups are left");
        match waitpid(Pid::from_raw(-1), Some(nix::sys::wait::WaitPidFlag::WNOHANG)) {
            Err(nix::Error::ECHILD) => {}
            // The intermediate of a failed create has ended on its own; it is not a process that runs.
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) => self.nothing_left(),
            other => panic!("a child is left: {other:?}"),
        }
    }
}

/// Folders of a cgroup path in any hierarchy.
pub fn cgroups(path: &str) -> Vec<PathBuf> {
    let hierarchies =
        fs::read_dir("/sys/fs/cgroup").unwrap().map(|e| e.unwrap().path()).chain([PathBuf::from("/sys/fs/cgroup")]);
    hierarchies.map(|h| h.join(path.trim_start_matches('/'))).filter(|p| p.is_dir()).collect()
}

/// What a failed scenario left in a cgroup is ended and the folder removed.
pub fn end_all(folder: &std::path::Path) {
    for _ in 0..50 {
        for pid in fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default().lines() {
            nix::sys::signal::kill(Pid::from_raw(pid.parse().unwrap()), nix::sys::signal::Signal::SIGKILL).ok();
        }
        if fs::remove_dir(folder).is_ok() || !folder.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn pipe() -> (OwnedFd, OwnedFd) {
    nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap()
}

/// The shim's Start: the token, then the end; what the exec-status pipe says.
pub fn start(parked: Parked) -> String {
    let mut release = UnixStream::from(parked.release);
    release.write_all(RELEASE).unwrap();
    release.shutdown(std::net::Shutdown::Write).unwrap();
    let mut text = String::new();
    File::from(parked.exec_status).read_to_string(&mut text).unwrap();
    text
}

pub fn wait(pid: u32) -> i32 {
    match waitpid(Pid::from_raw(i32::try_from(pid).unwrap()), None).unwrap() {
        WaitStatus::Exited(_, code) => code,
        WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
        other => panic!("{other:?}"),
    }
}

/// A field of /proc/PID/status.
pub fn status(pid: u32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix(&format!("{field}:")));
    line.unwrap_or_else(|| panic!("no {field}")).trim().to_owned()
}

fn spec(volume: &str, cgroup: &str) -> Value {
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs", "readonly": true},
        "process": {
            "terminal": false,
            "user": {"uid": 1000, "gid": 1000},
            "args": ["/bin/true"],
            "env": ["PATH=/bin", "HOME=/"],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES, "inheritable": [], "ambient": [],
            },
        },
        "hostname": "lab",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=64m"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=1m"]},
            {"destination": "/data", "type": "bind", "source": volume, "options": ["rbind", "nosuid", "nodev", "noexec"]},
            {"destination": "/var/secrets/hosts", "type": "bind", "source": "/etc/hostname", "options": ["bind", "ro", "nosuid", "nodev", "noexec"]},
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "resources": {
                "devices": crate::scenarios::standard_rules(),
                "pids": {"limit": 50},
            },
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware", "/proc/acpi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

fn table(volume: &std::path::Path, cgroup: &str) -> Table {
    let fresh = |destination: &str, fstype: &str, flags: [bool; 4]| ApprovedMount {
        destination: destination.into(),
        fstype: Some(fstype.into()),
        source: None,
        readonly: flags[0],
        nosuid: flags[1],
        nodev: flags[2],
        noexec: flags[3],
        idmapped: false,
    };
    let strings = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let bind = |destination: &str, source: &std::path::Path, readonly: bool| ApprovedMount {
        destination: destination.into(),
        fstype: None,
        source: Some(located(source)),
        readonly,
        nosuid: true,
        nodev: true,
        noexec: true,
        idmapped: false,
    };
    Table {
        mounts: vec![
            fresh("/", "overlay", [true, true, true, false]),
            fresh("/proc", "proc", [false, true, true, true]),
            fresh("/dev", "tmpfs", [false, true, false, false]),
            fresh("/dev/pts", "devpts", [false, true, false, true]),
            fresh("/dev/shm", "tmpfs", [false, true, true, true]),
            fresh("/sys", "sysfs", [true, true, true, true]),
            fresh("/tmp", "tmpfs", [false, true, true, true]),
            bind("/data", volume, false),
            bind("/var/secrets/hosts", std::path::Path::new("/etc/hostname"), true),
        ],
        masked: strings(&[
            "/proc/kcore",
            "/proc/keys",
            "/proc/timer_list",
            "/proc/scsi",
            "/sys/firmware",
            "/proc/acpi",
        ]),
        readonly: strings(&["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]),
        capabilities: CAPABILITIES.iter().map(|c| (*c).to_owned()).collect(),
        uid: 1000,
        gid: 1000,
        additional_gids: Vec::new(),
        cwd: "/".into(),
        user_ids: None,
        namespaces: ["pid", "network", "ipc", "uts", "mount", "cgroup"]
            .iter()
            .map(|k| ApprovedNamespace { kind: (*k).to_owned(), object: None })
            .collect(),
        label: None,
        landlock: Landlock { abi: 6, writable: strings(&["/data", "/tmp"]), ..Landlock::default() },
        network: Default::default(),
        watch: Default::default(),
        pod_seccomp: None,
        cgroup_path: cgroup.into(),
        terminal: false,
        traps: std::collections::BTreeSet::new(),
        memory_noexec: false,
    }
}

/// (device, path in its file system) of something on the host, from mountinfo.
fn located(path: &std::path::Path) -> ((u32, u32), String) {
    let path = path.canonicalize().unwrap();
    let dev = fs::metadata(&path).unwrap().dev();
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let best = text
        .lines()
        .map(|l| l.split(' ').collect::<Vec<_>>())
        .filter(|f| path.starts_with(f[4]))
        .max_by_key(|f| f[4].len())
        .unwrap();
    let below = path.strip_prefix(best[4]).unwrap();
    let inside = PathBuf::from(best[3]).join(below).display().to_string();
    let numbers: Vec<u32> = best[2].split(':').map(|n| n.parse().unwrap()).collect();
    assert_eq!(numbers, [libc::major(dev), libc::minor(dev)], "an overlay or btrfs below {}", path.display());
    ((numbers[0], numbers[1]), inside)
}
