//! Cgroups: limits of both versions, device rules and paths of v2.
use super::{contains, execute, inspection, process, running};
use crate::lab::{Lab, cgroups, start, wait};
use boltseal_launch::{LaunchError, delete, update};
use serde_json::json;
use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Every controller that this host has, set at the start, seen, changed by an update.
pub(super) fn limits(mut lab: Lab) {
    let memory = 64 << 20;
    let disk = disk();
    let mut resources = json!({
        "devices": standard_rules(),
        "pids": {"limit": 50},
        "memory": {"limit": memory, "swap": memory},
        "cpu": {"quota": 20_000, "period": 100_000, "shares": 512},
    });
    if let Some((major, minor)) = disk {
        resources["blockIO"] = json!({"throttleReadBpsDevice": [{"major": major, "minor": minor, "rate": 1 << 20}]});
    }
    if unified() {
        resources["unified"] = json!({"memory.oom.group": "1", "memory.swap.max": "0"});
    }
    lab.spec["linux"]["resources"] = resources;
    let known = running(&mut lab);
    let value = |file: &str| limit(&lab, file);
    assert_eq!(value("pids.max"), "50");
    if unified() {
        assert_eq!((value("memory.max"), value("memory.swap.max")), (memory.to_string(), "0".into()));
        assert_eq!((value("cpu.max"), value("memory.oom.group")), ("20000 100000".into(), "1".into()));
        assert_eq!(value("io.max").contains("rbps=1048576"), disk.is_some());
    } else {
        assert_eq!(value("memory.limit_in_bytes"), memory.to_string());
        assert_eq!((value("cpu.cfs_quota_us"), value("cpu.shares")), ("20000".into(), "512".into()));
        if disk.is_some() {
            assert!(value("blkio.throttle.read_bps_device").ends_with(" 1048576"));
        }
    }
    let new =
        json!({"pids": {"limit": 20}, "memory": {"limit": memory / 2}, "cpu": {"quota": 30_000, "period": 100_000}});
    update(&lab.state, &lab.name, &serde_json::from_value(new).unwrap()).unwrap();
    assert_eq!(value("pids.max"), "20");
    if unified() {
        assert_eq!((value("memory.max"), value("cpu.max")), ((memory / 2).to_string(), "30000 100000".into()));
        assert_eq!(value("memory.swap.max"), "0");
    } else {
        assert_eq!(value("cpu.cfs_quota_us"), "30000");
        // Only what was granted, and nothing of what libcgroups adds.
        assert!(!value("devices.list").contains("a *:* rwm"));
        let mut granted: Vec<String> = [3, 5, 7, 8, 9]
            .map(|n| format!("c 1:{n} rwm"))
            .into_iter()
            .chain([0, 1, 2].map(|n| format!("c 5:{n} rwm")))
            .collect();
        granted.push("c 136:* rwm".into());
        granted.sort_unstable();
        let found = value("devices.list");
        let mut found: Vec<&str> = found.lines().collect();
        found.sort_unstable();
        assert_eq!(found, granted);
    }
    let devices = serde_json::from_value(json!({"devices": [{"allow": true, "access": "rwm"}]})).unwrap();
    assert!(matches!(update(&lab.state, &lab.name, &devices), Err(LaunchError::Unsupported(_))));
    let other = serde_json::from_value(json!({"unified": {"memory.high": "1"}})).unwrap();
    assert!(matches!(update(&lab.state, &lab.name, &other), Err(LaunchError::Unsupported(_))));
    assert!(update(&lab.state, "another", &Default::default()).is_err());
    delete(&lab.state, &lab.name, None).unwrap();
    wait(known.0);
    lab.nothing_left();
}

/// Settings of v2 mean nothing to v1's controllers: refused, not dropped.
pub(super) fn unified_settings(mut lab: Lab) {
    lab.spec["linux"]["resources"] = json!({"devices": standard_rules(), "unified": {"memory.oom.group": "1"}});
    if unified() {
        let (parked, _) = lab.args(&["/bin/sleep", "100"]).create();
        let pid = parked.unwrap().pid;
        assert_eq!(limit(&lab, "memory.oom.group"), "1");
        delete(&lab.state, &lab.name, None).unwrap();
        wait(pid);
        lab.nothing_left();
        lab.spec["linux"]["resources"]["unified"] = json!({"memory.high": "max"});
    }
    assert!(matches!(lab.refused(), LaunchError::Unsupported(t) if t.contains("memory.")));
}

/// What needs more memory than its limit is killed, and the kernel's count says so: what the shim reports.
pub(super) fn out_of_memory(mut lab: Lab) {
    let (limit_of, swap) = (16 << 20, 16 << 20);
    lab.spec["linux"]["resources"] = json!({"devices": standard_rules(), "memory": {"limit": limit_of, "swap": swap}});
    if !unified() {
        // v1 counts swap only where the kernel was told to.
        lab.spec["linux"]["resources"]["memory"] = json!({"limit": limit_of});
    }
    let (parked, _) = lab.args(&["/bin/busybox", "tail", "-c", "100m", "/dev/zero"]).create();
    let parked = parked.unwrap();
    let pid = parked.pid;
    assert_eq!(start(parked), "");
    assert_eq!(wait(pid), 128 + 9);
    let events = limit(&lab, if unified() { "memory.events" } else { "memory.oom_control" });
    let kills = events.lines().find_map(|l| l.strip_prefix("oom_kill "));
    assert!(kills.is_some_and(|n| n != "0"), "{events}");
    delete(&lab.state, &lab.name, None).unwrap();
    lab.nothing_left();
}

/// The only hierarchy here is v2.
pub fn unified() -> bool {
    std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// A file of the container's cgroup, whichever hierarchy has it.
fn limit(lab: &Lab, file: &str) -> String {
    let found = cgroups(&lab.table.cgroup_path).into_iter().map(|p| p.join(file)).find(|p| p.exists());
    let path = found.unwrap_or_else(|| panic!("no {file}"));
    fs::read_to_string(path).unwrap().trim_end().to_owned()
}

/// A whole disk of this host, whose throughput can be limited.
fn disk() -> Option<(u32, u32)> {
    let disks = fs::read_dir("/sys/block").unwrap().map(|e| e.unwrap().path());
    let numbers = disks.filter(|p| p.join("device").exists()).map(|p| fs::read_to_string(p.join("dev")).unwrap());
    let pair = |text: String| text.trim().split_once(':').map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap()));
    numbers.filter_map(pair).min()
}

/// Rules as the seal makes them: everything denied, the standard nodes allowed.
pub fn standard_rules() -> Vec<serde_json::Value> {
    let mut rules = vec![json!({"allow": false, "access": "rwm"})];
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
        rules.push(json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm"}));
    }
    rules.push(json!({"allow": true, "type": "c", "major": 136, "access": "rwm"}));
    rules
}

pub(super) fn on_cgroup_v2(mut lab: Lab) {
    lab.on_cgroup_v2();
    // Without rules every device would be open; other forms are not understood.
    for rules in [json!({}), json!({"devices": [{"allow": true, "access": "rwm"}]})] {
        lab.spec["linux"]["resources"] = rules;
        assert!(matches!(lab.refused(), LaunchError::Unsupported(t) if t.starts_with("device rules: ")));
    }
    lab.spec["linux"]["resources"] = json!({"devices": standard_rules()});
    let (parked, _) = lab.args(&["/bin/sleep", "100"]).create();
    let parked = parked.unwrap();
    let folder = format!("/sys/fs/cgroup{}", lab.table.cgroup_path);
    assert_eq!(parked.cgroups, [(String::new(), folder.clone())]);
    assert_eq!(fs::read_to_string(format!("{folder}/cgroup.procs")).unwrap(), format!("{}\n", parked.pid));
    let known = (parked.pid, parked.start_time);
    assert_eq!(start(parked), "");
    let (result, mut output) = execute(&lab, known, &process(&["cat", "/proc/self/cgroup"], 1000));
    wait(result.unwrap().pid);
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    contains(&text, "0::/\n");
    let begun = Instant::now();
    delete(&lab.state, &lab.name, None).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(wait(known.0), 128 + 9);
    lab.nothing_left();
}

/// kubelet's systemd form: the scope is systemd's where that is the init, and elsewhere the folder that it would have
/// made. Limits, device rules, exec, update and delete are the same for both.
pub(super) fn slice(mut lab: Lab) {
    let systemd = PathBuf::from("/run/systemd/system").exists();
    if !systemd {
        lab.on_cgroup_v2();
    }
    let slice = format!("boltseal{}-pod1.slice", std::process::id());
    let top = format!("/sys/fs/cgroup/{}", slice.replace("-pod1", ""));
    lab.table.cgroup_path = format!("{slice}:cri:{}", lab.name.replace('_', "-"));
    lab.spec["linux"]["cgroupsPath"] = json!(lab.table.cgroup_path);
    let mut resources = json!({"devices": standard_rules()});
    let limited = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap().contains("memory");
    if limited {
        resources["memory"] = json!({"limit": 64 << 20, "swap": 64 << 20});
        resources["pids"] = json!({"limit": 50});
        resources["cpu"] = json!({"quota": 20_000, "period": 100_000, "shares": 512});
        resources["unified"] = json!({"memory.oom.group": "1"});
    }
    lab.spec["linux"]["resources"] = resources;
    let (parked, _) = lab.args(&["/bin/sleep", "100"]).create();
    let parked = parked.unwrap();
    let folder = format!("{top}/{slice}/cri-{}.scope", lab.name.replace('_', "-"));
    assert_eq!(parked.cgroups, [(String::new(), folder.clone())]);
    let value = |file: &str| fs::read_to_string(format!("{folder}/{file}")).unwrap().trim_end().to_owned();
    if limited {
        assert_eq!((value("memory.max"), value("memory.swap.max")), ((64 << 20).to_string(), "0".into()));
        assert_eq!((value("pids.max"), value("memory.oom.group")), ("50".into(), "1".into()));
        assert_eq!(value("cpu.max"), "20000 100000");
    }
    assert_eq!(probe(&lab, &folder, (1, 11)), (libc::EPERM, libc::EPERM));
    assert_eq!(probe(&lab, &folder, (1, 3)), (0, 0));
    let known = (parked.pid, parked.start_time);
    assert_eq!(start(parked), "");
    let (result, _) = execute(&lab, known, &process(&["/bin/sleep", "100"], 1000));
    let execed = result.unwrap().pid;
    let members = fs::read_to_string(format!("{folder}/cgroup.procs")).unwrap();
    assert_eq!(members, format!("{}\n{execed}\n", known.0));
    let new = if limited { json!({"memory": {"limit": 32 << 20}, "pids": {"limit": 20}}) } else { json!({}) };
    update(&lab.state, &lab.name, &serde_json::from_value(new).unwrap()).unwrap();
    if limited {
        assert_eq!((value("memory.max"), value("pids.max")), ((32 << 20).to_string(), "20".into()));
        assert_eq!(value("memory.oom.group"), "1");
    }
    if systemd {
        // systemd sets its own view of every unit anew.
        let reloaded = std::process::Command::new("systemctl").arg("daemon-reload").status().unwrap();
        assert!(reloaded.success());
        assert_eq!((value("memory.max"), value("pids.max")), ((32 << 20).to_string(), "20".into()));
        // memory.oom.group is systemd's own: a reload takes it back, whoever set it.
        assert_eq!(value("memory.swap.max"), "0");
    }
    assert_eq!(probe(&lab, &folder, (1, 11)), (libc::EPERM, libc::EPERM), "after the update");
    delete(&lab.state, &lab.name, None).unwrap();
    // The exec first: its pid namespace does not end before it is reaped.
    assert_eq!((wait(execed), wait(known.0)), (128 + 9, 128 + 9));
    assert!(!PathBuf::from(folder).exists());
    if !systemd {
        // The slices are the pod's: who made the pod removes them. systemd lets go of its own.
        fs::remove_dir(format!("{top}/{slice}")).unwrap();
        fs::remove_dir(top).unwrap();
    }
    lab.nothing_left();
}

/// A process of the host joins the container's cgroup, where neither Landlock nor the filter bind it, makes a node and
/// opens it: what each step said, 0 for success.
fn probe(lab: &Lab, folder: &str, (major, minor): (u64, u64)) -> (i32, i32) {
    let node = lab.top.join(format!("node-{major}-{minor}"));
    let error = |result: Result<(), i32>| result.err().unwrap_or(0);
    let made = |path: &std::path::Path| {
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
        let device = nix::sys::stat::makedev(major, minor);
        nix::sys::stat::mknod(path, nix::sys::stat::SFlag::S_IFCHR, mode, device).map_err(|e| e as i32)
    };
    made(&node).unwrap();
    // SAFETY: this process has one thread.
    let answer = match unsafe { nix::unistd::fork() }.unwrap() {
        nix::unistd::ForkResult::Parent { child } => wait(child.as_raw().unsigned_abs()),
        nix::unistd::ForkResult::Child => {
            fs::write(format!("{folder}/cgroup.procs"), "0").unwrap();
            let made = error(made(&node.with_extension("made")));
            let opened = File::options().read(true).write(true).open(&node);
            let opened = error(opened.map(drop).map_err(|e| e.raw_os_error().unwrap()));
            std::process::exit(made << 4 | opened)
        }
    };
    for path in [&node, &node.with_extension("made")] {
        fs::remove_file(path).or_else(|e| if path == &node { Err(e) } else { Ok(()) }).unwrap();
    }
    (answer >> 4, answer & 15)
}

/// A kernel that takes no program: nothing runs, and nothing is left. The twin is the same container before.
pub(super) fn no_device_program(mut lab: Lab) {
    lab.on_cgroup_v2();
    lab.spec["linux"]["resources"] = json!({"devices": standard_rules()});
    let (code, text, _) = lab.sh("echo ran").run();
    assert_eq!((code, text.as_str()), (0, "ran\n"));
    without_bpf();
    lab.sh("touch /data/ran");
    contains(&lab.refused().to_string(), "cannot load the device program: Operation not permitted");
    assert!(!lab.volume.join("ran").exists());
}

/// bpf(2) answers EPERM from here on, in this process and what it starts.
pub(super) fn without_bpf() {
    let instruction = |code: u32, jt, jf, k| libc::sock_filter { code: u16::try_from(code).unwrap(), jt, jf, k };
    let filter = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, u32::try_from(libc::SYS_bpf).unwrap()),
        instruction(libc::BPF_RET, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs()),
        instruction(libc::BPF_RET, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the program is four instructions that outlive the call.
    let rc = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
}

/// The kernel asks our program at each mknod and open. One device is granted in one way after the other, the same
/// steps each time.
pub(super) fn devices_on_cgroup_v2(mut lab: Lab) {
    lab.on_cgroup_v2();
    // /dev/kmsg is in the container whatever its rules say: libcontainer makes it before the program is there.
    lab.spec["process"]["user"] = json!({"uid": 0, "gid": 0});
    (lab.table.uid, lab.table.gid) = (0, 0);
    lab.spec["linux"]["devices"] =
        json!([{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666}]);
    lab.table.landlock.writable.push("/dev/kmsg".into());
    let folder = format!("/sys/fs/cgroup{}", lab.table.cgroup_path);
    let refused = libc::EPERM;
    for (access, made, opened) in
        [("", refused, refused), ("m", 0, refused), ("rw", refused, 0), ("r", refused, refused), ("rwm", 0, 0)]
    {
        let mut rules = standard_rules();
        if !access.is_empty() {
            rules.push(json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": access}));
        }
        lab.spec["linux"]["resources"] = json!({"devices": rules});
        lab.sh("cat /dev/null && echo null read; echo x > /dev/zero && echo zero written; echo boltseal >> /dev/kmsg && echo kmsg written");
        let (parked, mut output) = lab.create();
        let parked = parked.unwrap();
        let pid = parked.pid;
        // While it is parked the rules are in force already.
        assert_eq!(probe(&lab, &folder, (1, 11)), (made, opened), "granted {access:?}");
        assert_eq!(probe(&lab, &folder, (1, 3)), (0, 0), "the null device, granted {access:?}");
        assert_eq!(probe(&lab, &folder, (1, 1)), (refused, refused), "memory, granted {access:?}");
        assert_eq!(start(parked), "");
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        wait(pid);
        contains(&text, "null read\nzero written\n");
        let writes = access.contains('w');
        assert_eq!(text.contains("kmsg written"), writes, "granted {access:?}: {text}");
        assert_eq!(
            text.contains("can't create /dev/kmsg: Operation not permitted"),
            !writes,
            "granted {access:?}: {text}"
        );
        delete(&lab.state, &lab.name, None).unwrap();
        lab.nothing_left();
    }
}

pub(super) fn cgroup_mount(mut lab: Lab) {
    let options = ["nosuid", "noexec", "nodev", "ro"];
    let mount = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options});
    lab.spec["mounts"].as_array_mut().unwrap().push(mount);
    let mut approved = lab.table.mounts[5].clone();
    approved.destination = "/sys/fs/cgroup".into();
    approved.fstype = Some("cgroup".into());
    lab.table.mounts.push(approved);
    if unified() {
        // One mount, and it is read-only as approved.
        lab.spec["process"]["user"] = json!({"uid": 0, "gid": 0});
        (lab.table.uid, lab.table.gid) = (0, 0);
        let (_, text, _) = lab.sh("echo 10 > /sys/fs/cgroup/pids.max; cat /sys/fs/cgroup/pids.max").run();
        contains(&text, "can't create /sys/fs/cgroup/pids.max: Read-only file system");
        contains(&text, "50\n");
        // An exec sees the same.
        let known = running(&mut lab);
        let (result, mut output) = execute(&lab, known, &process(&["cat", "/sys/fs/cgroup/pids.max"], 0));
        wait(result.unwrap().pid);
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        assert_eq!(text, "50\n");
        delete(&lab.state, &lab.name, None).unwrap();
        wait(known.0);
        return lab.nothing_left();
    }
    // libcontainer mounts v1's hierarchies writable whatever the spec says: not what was approved.
    contains(&inspection(lab.refused()), "mount /sys/fs/cgroup/pids is not read-only");
    // Approved as they are, they pass, and Landlock keeps them from being written.
    lab.table.mounts.last_mut().unwrap().readonly = false;
    lab.spec["process"]["user"] = json!({"uid": 0, "gid": 0});
    (lab.table.uid, lab.table.gid) = (0, 0);
    let (_, text, _) = lab.sh("echo 10 > /sys/fs/cgroup/pids/pids.max; cat /sys/fs/cgroup/pids/pids.max").run();
    contains(&text, "can't create /sys/fs/cgroup/pids/pids.max: Permission denied");
    contains(&text, "50\n");
}

pub(super) fn cgroup_in_use(lab: Lab) {
    let first = PathBuf::from(if unified() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/pids" });
    let folder = first.join(lab.table.cgroup_path.trim_start_matches('/'));
    fs::create_dir_all(&folder).unwrap();
    let (result, _) = lab.create();
    contains(&result.map(|p| p.pid).unwrap_err().to_string(), "is there already");
    assert!(folder.exists(), "another's cgroup was removed");
    fs::remove_dir(&folder).unwrap();
    lab.nothing_left();
}
