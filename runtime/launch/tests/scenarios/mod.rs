//! What must hold, one function each.
mod cgroups;
mod damaged;
mod labels;
mod network;
mod programs;
mod traps;
mod users;
mod watch;

pub use cgroups::{standard_rules, unified};
pub use labels::enter as enter_label;

use crate::lab::{CAPABILITIES, Lab, pipe, start, status, wait};
use boltseal_launch::{ExecRequest, Execed, LaunchError, Parked, delete, exec};
use boltseal_seal::ApprovedNamespace;
use serde_json::json;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A name and what it runs.
pub type Scenario = (&'static str, fn(Lab));

pub const ALL: &[Scenario] = &[
    ("parked_released_gone", parked_released_gone),
    ("inside_the_running_container", inside_the_running_container),
    ("release_without_token", release_without_token),
    ("wrong_token", wrong_token),
    ("missing_binary", missing_binary),
    ("not_executable", not_executable),
    ("missing_home", missing_home),
    ("wrong_capabilities", wrong_capabilities),
    ("wrong_user", wrong_user),
    ("wrong_cwd", wrong_cwd),
    ("extra_mount", extra_mount),
    ("other_bind_source", other_bind_source),
    ("writable_where_readonly_was_approved", writable_where_readonly_was_approved),
    ("unmasked_path", unmasked_path),
    ("unapproved_namespace", unapproved_namespace),
    ("host_namespace", host_namespace),
    ("no_new_privileges_off", no_new_privileges_off),
    ("label_unknown", labels::unknown),
    ("label_in_force", labels::in_force),
    ("label_categories", labels::categories),
    ("label_that_only_complains", labels::complains),
    ("label_changed_while_parked", labels::changed_while_parked),
    ("dev_symlink", dev_symlink),
    ("mount_below_proc", mount_below_proc),
    ("no_fresh_dev", no_fresh_dev),
    ("landlock", landlock),
    ("landlock_too_new", landlock_too_new),
    ("programs_only_what_is_listed_runs", programs::only_what_is_listed_runs),
    ("programs_refused_by_name", programs::refused_by_name),
    ("programs_interpreter", programs::interpreter),
    ("programs_hold_alone", programs::holds_alone),
    ("programs_exec", programs::exec),
    ("programs_without_landlock", programs::without_landlock),
    ("base_filter", base_filter),
    ("pod_filter", pod_filter),
    ("pod_filter_that_allows_all", pod_filter_that_allows_all),
    ("traps_told_and_refused", traps::told_and_refused),
    ("traps_not_armed", traps::not_armed),
    ("traps_nobody_listens", traps::nobody_listens),
    ("traps_die_while_a_call_waits", traps::dies_while_a_call_waits),
    ("traps_exec_is_told", traps::exec_is_told),
    ("traps_beside_a_pods_filter", traps::beside_a_pods_filter),
    ("memory_is_not_executable", traps::memory_is_not_executable),
    ("terminal", terminal),
    ("exec_in_a_running_container", exec_in_a_running_container),
    ("exec_failures", exec_failures),
    ("limits", cgroups::limits),
    ("unified_settings", cgroups::unified_settings),
    ("out_of_memory", cgroups::out_of_memory),
    ("on_cgroup_v2", cgroups::on_cgroup_v2),
    ("devices_on_cgroup_v2", cgroups::devices_on_cgroup_v2),
    ("no_device_program", cgroups::no_device_program),
    ("slice", cgroups::slice),
    ("network_beside_v1", network::beside_v1),
    ("network_on_cgroup_v2", network::on_cgroup_v2),
    ("network_closed", network::nothing_open),
    ("network_raw", network::raw),
    ("network_raw_on_cgroup_v2", network::raw_on_cgroup_v2),
    ("network_listener_without_a_port", network::listener),
    ("network_listener_on_cgroup_v2", network::listener_on_cgroup_v2),
    ("network_without_programs", network::no_program),
    ("network_elsewhere", network::elsewhere),
    ("watch_beside_v1", watch::beside_v1),
    ("watch_on_cgroup_v2", watch::on_cgroup_v2),
    ("watch_unconfined", watch::unconfined),
    ("watch_nobody_reads", watch::nobody_reads),
    ("watch_cost", watch::cost),
    ("user_namespace", users::root_of_its_own),
    ("user_namespace_volume_as_it_is", users::volume_as_it_is),
    ("user_namespace_another_user", users::another_user),
    ("user_namespace_exec", users::exec_joins_it),
    ("user_namespace_exec_failures", users::exec_failures),
    ("user_namespace_terminal", users::terminal),
    ("user_namespace_memory", users::memory),
    ("user_namespace_on_cgroup_v2", users::on_cgroup_v2),
    ("user_namespace_confined_network", users::confined_network),
    ("user_namespace_joined", users::joined),
    ("user_namespace_foreign_network", users::foreign_network),
    ("user_namespace_unmappable", users::unmappable),
    ("user_namespace_unsupported", users::unsupported),
    ("user_namespace_shown", users::what_the_kernel_shows),
    ("user_namespace_descriptors", users::nothing_is_left_open),
    ("cgroup_mount", cgroups::cgroup_mount),
    ("cgroup_in_use", cgroups::cgroup_in_use),
    ("seccomp_in_the_spec", seccomp_in_the_spec),
    ("delete_twice", delete_twice),
    ("delete_a_running_container", delete_a_running_container),
    ("delete_with_a_damaged_record", damaged::record),
    ("delete_with_a_damaged_record_and_spec", damaged::record_and_spec),
    ("delete_of_what_is_anothers", damaged::of_another),
    ("deadline", deadline),
    ("deadline_while_creating", deadline_while_creating),
    ("timing", timing),
];

fn inspection(error: LaunchError) -> String {
    match error {
        LaunchError::Inspection(lines) => lines.join("\n"),
        other => panic!("not an inspection: {other:?}"),
    }
}

fn contains(text: &str, part: &str) {
    assert!(text.contains(part), "{part:?} is not in: {text}");
}

fn parked_released_gone(mut lab: Lab) {
    let (parked, mut output) = lab.sh("echo alive; id -u").create();
    let parked = parked.unwrap();
    let pid = parked.pid;
    for (field, expected) in [
        ("Seccomp", "2"),
        ("Seccomp_filters", "1"),
        ("NoNewPrivs", "1"),
        ("CapEff", "0000000000000401"),
        ("CapBnd", "0000000000000401"),
        ("CapInh", "0000000000000000"),
        ("Uid", "1000\t1000\t1000\t1000"),
    ] {
        assert_eq!(status(pid, field), expected, "{field}");
    }
    // On its way from libcontainer's waiting point to ours it runs for a moment; then it sleeps until it is released.
    let begun = Instant::now();
    while status(pid, "State") != "S (sleeping)" {
        assert!(begun.elapsed() < Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(parked.seccomp_filters, 1);
    assert_eq!(parked.expected_label, labels::shown(&lab));
    assert!(parked.start_time > 0 && parked.console.is_none());
    assert!(parked.cgroups.len() >= if unified() { 1 } else { 4 }, "{:?}", parked.cgroups);
    for (_, folder) in &parked.cgroups {
        contains(&fs::read_to_string(format!("{folder}/cgroup.procs")).unwrap(), &pid.to_string());
    }
    let kinds: Vec<&str> = parked.namespaces.iter().map(|(k, _)| k.as_str()).collect();
    for kind in ["pid", "network", "ipc", "uts", "mount", "cgroup"] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    assert_eq!(start(parked), "");
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(text, "alive\n1000\n");
    assert_eq!(wait(pid), 0);
    delete(&lab.state, &lab.name, None).unwrap();
    lab.nothing_left();
}

fn inside_the_running_container(mut lab: Lab) {
    // What a careless parent leaves behind must not come through: groups, umask, blocked and ignored signals, variables.
    nix::unistd::setgroups(&[nix::unistd::Gid::from_raw(0), nix::unistd::Gid::from_raw(44)]).unwrap();
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o777));
    nix::sys::signal::SigSet::all().thread_block().unwrap();
    for number in [libc::SIGPIPE, 32, 33] {
        let ignore = [1_u64, 0, 0, 0];
        // SAFETY: one kernel sigaction with SIG_IGN.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, number, ignore.as_ptr(), 0, 8) };
    }
    let leak = File::open("/etc/shadow").unwrap();
    nix::fcntl::fcntl(&leak, nix::fcntl::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    // SAFETY: this process has one thread.
    unsafe { std::env::set_var("LISTEN_FDS", "1") };
    labels::share(std::path::Path::new("/etc/hostname"));
    let script = "grep -E '^(Seccomp|NoNewPrivs|CapBnd|Seccomp_filters|SigBlk|SigIgn|Groups):' /proc/self/status; umask; ls /proc/self/fd; cat /var/secrets/hosts; \
                  echo env; /bin/busybox env; touch /x 2>&1; cat /proc/1/cmdline | /bin/busybox tr '\\0' ' '; cat /proc/kcore; ls /sys/firmware";
    let (code, text, status) = lab.sh(script).run();
    assert_eq!((code, status.as_str()), (0, ""));
    contains(&text, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
    contains(&text, "Groups:\t \n");
    contains(&text, "\n0022\n");
    contains(&text, "NoNewPrivs:\t1\n");
    contains(&text, "CapBnd:\t0000000000000401\n");
    contains(&text, "Seccomp:\t2\nSeccomp_filters:\t1\n");
    contains(&text, "\n0\n1\n2\n3\n");
    contains(&text, &fs::read_to_string("/etc/hostname").unwrap());
    contains(&text, "touch: /x: Read-only file system");
    let mut environment: Vec<&str> =
        text.split("env\n").nth(1).unwrap().lines().take_while(|l| l.contains('=')).collect();
    environment.sort_unstable();
    // SHLVL and PWD are the shell's own.
    assert_eq!(environment, ["HOME=/", "PATH=/bin", "PWD=/", "SHLVL=1"]);
}

fn release_without_token(mut lab: Lab) {
    let (parked, _) = lab.sh("touch /data/ran").create();
    let Parked { pid, release, exec_status, .. } = parked.unwrap();
    drop(release);
    let mut text = String::new();
    File::from(exec_status).read_to_string(&mut text).unwrap();
    contains(&text, "never released");
    assert_eq!(wait(pid), 126);
    assert!(!lab.volume.join("ran").exists());
    delete(&lab.state, &lab.name, None).unwrap();
    lab.nothing_left();
}

fn wrong_token(mut lab: Lab) {
    let (parked, _) = lab.sh("touch /data/ran").create();
    let Parked { pid, release, .. } = parked.unwrap();
    let mut release = UnixStream::from(release);
    release.write_all(b"start container please").unwrap();
    drop(release);
    assert_eq!(wait(pid), 126);
    assert!(!lab.volume.join("ran").exists());
    delete(&lab.state, &lab.name, None).unwrap();
    lab.nothing_left();
}

fn missing_binary(mut lab: Lab) {
    let (code, _, text) = lab.args(&["/bin/none"]).run();
    assert_eq!((code, text.as_str()), (127, "\"/bin/none\": no such file or directory"));
}

fn not_executable(mut lab: Lab) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(lab.layer.join("bin/noexec"), mode).unwrap();
    let (code, _, text) = lab.args(&["noexec"]).run();
    assert_eq!((code, text.as_str()), (126, "\"noexec\": exec format error"));
}

fn missing_home(mut lab: Lab) {
    lab.spec["process"]["env"] = json!(["PATH=/bin"]);
    contains(&inspection(lab.refused()), "HOME is not in the environment");
}

fn wrong_capabilities(mut lab: Lab) {
    lab.table.capabilities.remove("CAP_CHOWN");
    contains(&inspection(lab.refused()), "CapBnd is 0000000000000401, approved is 0000000000000400");
}

fn wrong_user(mut lab: Lab) {
    lab.spec["process"]["user"]["uid"] = json!(0);
    contains(&inspection(lab.refused()), "Uid is Some([0, 0, 0, 0]), approved is Some([1000, 1000, 1000, 1000])");
}

fn wrong_cwd(mut lab: Lab) {
    lab.spec["process"]["cwd"] = json!("/tmp");
    contains(&inspection(lab.refused()), "the working folder is /tmp, approved is /");
}

fn extra_mount(mut lab: Lab) {
    // Beneath the approved recursive bind lies a second mount that nobody approved.
    fs::create_dir(lab.volume.join("sub")).unwrap();
    nix::mount::mount(
        Some("tmpfs"),
        &lab.volume.join("sub"),
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
    let (result, _) = lab.args(&["/bin/true"]).create();
    contains(&inspection(result.map(|p| p.pid).unwrap_err()), "mount /data/sub (tmpfs /) was not approved");
    nix::mount::umount(&lab.volume.join("sub")).unwrap();
    lab.nothing_left();
}

fn other_bind_source(mut lab: Lab) {
    lab.spec["mounts"][6]["source"] = json!("/etc");
    contains(&inspection(lab.refused()), "mount /data shows");
}

fn writable_where_readonly_was_approved(mut lab: Lab) {
    lab.spec["mounts"][7]["options"] = json!(["bind", "nosuid", "nodev", "noexec"]);
    contains(&inspection(lab.refused()), "mount /run/secrets/hosts is not read-only");
    lab.spec["mounts"][7]["options"] = json!(["bind", "ro", "nosuid", "nodev", "noexec"]);
    lab.spec["root"]["readonly"] = json!(false);
    contains(&inspection(lab.refused()), "mount / is not read-only");
}

fn unmasked_path(mut lab: Lab) {
    lab.spec["linux"]["maskedPaths"] = json!([]);
    contains(&inspection(lab.refused()), " is not masked");
    lab.spec["linux"]["maskedPaths"] = json!(lab.table.masked);
    lab.spec["linux"]["readonlyPaths"] = json!([]);
    contains(&inspection(lab.refused()), "/proc/sys is not read-only");
}

fn unapproved_namespace(mut lab: Lab) {
    lab.table.namespaces.retain(|n| n.kind != "uts");
    contains(&inspection(lab.refused()), "namespace uts is not the host's and was not approved");
    lab.table.namespaces.push(ApprovedNamespace { kind: "uts".into(), object: Some((4, 1)) });
    contains(&inspection(lab.refused()), "approved is 4:1");
}

fn host_namespace(mut lab: Lab) {
    let kinds = lab.spec["linux"]["namespaces"].as_array_mut().unwrap();
    kinds.retain(|n| n["type"] != "network");
    contains(&inspection(lab.refused()), "namespace network is the host's");
}

fn no_new_privileges_off(mut lab: Lab) {
    lab.spec["process"]["noNewPrivileges"] = json!(false);
    contains(&inspection(lab.refused()), "no_new_privs is not set");
}

fn dev_symlink(lab: Lab) {
    let host = lab.top.join("host-dev");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("ptmx"), "the host's").unwrap();
    for (name, target) in [("dev", host.display().to_string()), ("proc", "/tmp".to_owned()), ("sys", "tmp".to_owned())]
    {
        fs::remove_dir(lab.layer.join(name)).unwrap();
        symlink(target, lab.layer.join(name)).unwrap();
        contains(&inspection(lab.refused()), &format!("/{name} of the image is not a real folder"));
        fs::remove_file(lab.layer.join(name)).unwrap();
        fs::create_dir(lab.layer.join(name)).unwrap();
    }
    let names: Vec<_> = fs::read_dir(&host).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["ptmx"]);
    assert_eq!(fs::read_to_string(host.join("ptmx")).unwrap(), "the host's");
}

fn mount_below_proc(mut lab: Lab) {
    for destination in ["/proc/sys/kernel", "/loop"] {
        // An image may lead there by a link of its own.
        symlink("proc/self", lab.layer.join("loop")).ok();
        lab.spec["mounts"][6]["destination"] = json!(destination);
        lab.table.mounts[7].destination = destination.into();
        let text = inspection(lab.refused());
        assert!(text.contains("may not lie on /proc/"), "{text}");
    }
}

fn no_fresh_dev(mut lab: Lab) {
    lab.spec["mounts"].as_array_mut().unwrap().remove(1);
    lab.table.mounts.remove(2);
    contains(&inspection(lab.refused()), "no fresh tmpfs on /dev");
}

fn landlock(mut lab: Lab) {
    // As root and on a writable root: only Landlock stands between.
    lab.spec["process"]["user"] = json!({"uid": 0, "gid": 0});
    lab.table.uid = 0;
    lab.table.gid = 0;
    lab.spec["root"]["readonly"] = json!(false);
    lab.table.mounts[0].readonly = false;
    let mount_and_mknod = ["CAP_SYS_ADMIN", "CAP_MKNOD", "CAP_DAC_OVERRIDE"];
    for set in ["bounding", "effective", "permitted"] {
        lab.spec["process"]["capabilities"][set] = json!(mount_and_mknod);
    }
    lab.table.capabilities = mount_and_mknod.iter().map(|c| (*c).to_owned()).collect();
    lab.sh("touch /etc/x; touch /data/x && echo data; touch /tmp/x && echo tmp; echo hi > /dev/null && echo null; \
         echo 0 > /proc/self/oom_score_adj && echo oom; echo 1 > /proc/sys/kernel/domainname; mknod /data/n c 1 3; \
         cp /bin/busybox /data/b; /data/b true; mount -t tmpfs t /tmp; ls /etc/passwd");
    let (_, text, _) = lab.run();
    for part in [
        "touch: /etc/x: Permission denied",
        "data\ntmp\nnull\noom\n",
        "can't create /proc/sys/kernel/domainname: Read-only file system",
        "mknod: /data/n: Permission denied",
        "/data/b: Permission denied",
        "mount: permission denied",
        "/etc/passwd\n",
    ] {
        contains(&text, part);
    }
    assert!(lab.volume.join("x").exists() && !lab.volume.join("n").exists());
}

fn landlock_too_new(mut lab: Lab) {
    lab.table.landlock.abi = 10;
    assert!(matches!(lab.refused(), LaunchError::Unsupported(t) if t.contains("Landlock ABI 10")));
    lab.table.landlock.abi = 11;
    assert!(matches!(lab.refused(), LaunchError::Unsupported(t) if t.contains("not known")));
}

fn base_filter(mut lab: Lab) {
    let script = "/bin/busybox unshare -U true; /bin/busybox nsenter -t 1 -m true; /bin/busybox mount -t proc p /tmp; \
                  /bin/busybox dmesg; /bin/busybox hostname x; /bin/busybox ip link show lo >/dev/null && echo route";
    let (_, text, _) = lab.sh(script).run();
    for part in [
        "unshare: unshare(0x10000000): Operation not permitted",
        "dmesg: klogctl: Operation not permitted",
        "hostname: sethostname: Operation not permitted",
        "route\n",
    ] {
        contains(&text, part);
    }
}

fn pod_filter(mut lab: Lab) {
    // Tightens: no uname; and tries to loosen: allows mount. The base still says no.
    let mut names: Vec<String> = Vec::new();
    let base: serde_json::Value = serde_json::from_str(boltseal_profiles::base_seccomp()).unwrap();
    for rule in base["syscalls"].as_array().unwrap() {
        names.extend(rule["names"].as_array().unwrap().iter().map(|n| n.as_str().unwrap().to_owned()));
    }
    names.retain(|n| n != "uname");
    names.push("mount".into());
    names.push("unshare".into());
    names.push("a_call_of_tomorrow".into());
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 77, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}]});
    lab.table.pod_seccomp = Some(profile.to_string());
    lab.sh("grep Seccomp /proc/self/status; /bin/busybox uname; /bin/busybox unshare -U true");
    let (parked, mut output) = lab.create();
    let parked = parked.unwrap();
    assert_eq!(parked.seccomp_filters, 2);
    let pid = parked.pid;
    assert_eq!(start(parked), "");
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    wait(pid);
    contains(&text, "Seccomp_filters:\t2\n");
    contains(&text, "unshare: unshare(0x10000000): Operation not permitted");
    assert!(!text.contains("Linux"), "{text}");
    delete(&lab.state, &lab.name, None).unwrap();
    let known = running(&mut lab);
    let (result, mut output) =
        execute(&lab, known, &process(&["sh", "-c", "grep Seccomp /proc/self/status; /bin/busybox uname"], 1000));
    let execed = result.unwrap();
    assert_eq!(execed.seccomp_filters, 2);
    text.clear();
    output.read_to_string(&mut text).unwrap();
    wait(execed.pid);
    contains(&text, "Seccomp_filters:\t2\n");
    assert!(!text.contains("Linux"), "{text}");
    delete(&lab.state, &lab.name, None).unwrap();
    wait(known.0);
    lab.nothing_left();
    delete(&lab.state, &lab.name, None).unwrap();
    lab.nothing_left();
}

fn pod_filter_that_allows_all(mut lab: Lab) {
    lab.table.pod_seccomp = Some(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#.into());
    assert!(matches!(lab.refused(), LaunchError::Unsupported(t) if t.contains("lets everything through")));
}

fn terminal(mut lab: Lab) {
    lab.spec["process"]["terminal"] = json!(true);
    lab.table.terminal = true;
    let parked = lab
        .sh("tty; ls -l /proc/self/fd/0; echo done")
        .create_with([None, None, None], Duration::from_secs(20))
        .unwrap();
    let pid = parked.pid;
    let (parked, console) = split_console(parked);
    assert_eq!(start(parked), "");
    let text = read_terminal(console);
    contains(&text, "/dev/pts/0\r\n");
    contains(&text, "done\r\n");
    assert_eq!(wait(pid), 0);
    delete(&lab.state, &lab.name, None).unwrap();
    lab.nothing_left();
}

fn split_console(mut parked: Parked) -> (Parked, OwnedFd) {
    let console = parked.console.take().unwrap();
    (parked, console)
}

/// A terminal whose other side is closed reads as EIO.
fn read_terminal(console: OwnedFd) -> String {
    let (mut file, mut text, mut part) = (File::from(console), Vec::new(), [0; 512]);
    loop {
        match file.read(&mut part) {
            Ok(0) => break,
            Ok(n) => text.extend(&part[..n]),
            Err(e) if e.raw_os_error() == Some(libc::EIO) => break,
            Err(e) => panic!("{e}"),
        }
    }
    String::from_utf8(text).unwrap()
}

/// A container that sleeps: (pid, start time).
fn running(lab: &mut Lab) -> (u32, u64) {
    let (parked, _) = lab.args(&["/bin/sleep", "100"]).create();
    let parked = parked.unwrap();
    let known = (parked.pid, parked.start_time);
    assert_eq!(start(parked), "");
    known
}

fn process(args: &[&str], uid: u32) -> serde_json::Value {
    json!({
        "terminal": false, "user": {"uid": uid, "gid": uid}, "args": args, "env": ["PATH=/bin", "HOME=/"], "cwd": "/",
        "noNewPrivileges": true,
        "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES, "inheritable": [], "ambient": []},
    })
}

fn execute(lab: &Lab, known: (u32, u64), process: &serde_json::Value) -> (Result<Execed, LaunchError>, File) {
    let (read, write) = pipe();
    let errors = write.try_clone().unwrap();
    let mut table = lab.table.clone();
    table.uid = u32::try_from(process["user"]["uid"].as_u64().unwrap()).unwrap();
    table.gid = table.uid;
    let result = exec(ExecRequest {
        id: &lab.name,
        state: &lab.state,
        process_json: process.to_string().as_bytes(),
        table: &table,
        stdio: [None, Some(write), Some(errors)],
        terminal: process["terminal"].as_bool().unwrap(),
        deadline: Instant::now() + Duration::from_secs(20),
        init_pid: known.0,
        init_start_time: known.1,
    });
    (result, File::from(read))
}

fn exec_in_a_running_container(mut lab: Lab) {
    let known = running(&mut lab);
    for uid in [1000, 7] {
        let script = format!(
            "grep -E '^(Seccomp|Seccomp_filters|NoNewPrivs|CapBnd|Uid):' /proc/self/status; ls /proc/self/fd; ls -l /proc/self/fd/0; \
                      touch /data/fine-{uid} && echo wrote; touch /etc/x; id -u; cat /proc/self/cgroup; kill -0 1 && echo reached"
        );
        let (result, mut output) = execute(&lab, known, &process(&["sh", "-c", &script], uid));
        let execed = result.unwrap();
        assert_eq!(execed.seccomp_filters, 1);
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        assert_eq!(wait(execed.pid), if uid == 1000 { 0 } else { 1 }, "{text}");
        for part in [
            "Seccomp:\t2\nSeccomp_filters:\t1\n",
            "NoNewPrivs:\t1\n",
            "CapBnd:\t0000000000000401\n",
            "\n0\n1\n2\n3\n",
            "wrote\n",
            "/dev/null",
        ] {
            contains(&text, part);
        }
        contains(&text, &format!("\n{uid}\n"));
        contains(&text, if unified() { "0::/\n" } else { "pids:/\n" });
    }
    // A terminal of its own.
    let mut with_terminal = process(&["tty"], 1000);
    with_terminal["terminal"] = json!(true);
    let (result, _) = execute(&lab, known, &with_terminal);
    let execed = result.unwrap();
    contains(&read_terminal(execed.console.unwrap()), "/dev/pts/");
    assert_eq!(wait(execed.pid), 0);
    delete(&lab.state, &lab.name, None).unwrap();
    wait(known.0);
    lab.nothing_left();
}

fn exec_failures(mut lab: Lab) {
    let known = running(&mut lab);
    let refused = |lab: &Lab, process: &serde_json::Value| execute(lab, known, process).0.map(|e| e.pid).unwrap_err();
    assert_eq!(
        refused(&lab, &process(&["/bin/none"], 1000)),
        LaunchError::Exec("\"/bin/none\": no such file or directory".into())
    );
    let mut more = process(&["true"], 1000);
    for set in ["bounding", "effective", "permitted"] {
        more["capabilities"][set] = json!(["CAP_CHOWN", "CAP_NET_BIND_SERVICE", "CAP_SYS_ADMIN"]);
    }
    contains(&inspection(refused(&lab, &more)), "CapBnd is 0000000000200401, approved is 0000000000000401");
    let mut loose = process(&["true"], 1000);
    loose["noNewPrivileges"] = json!(false);
    contains(&inspection(refused(&lab, &loose)), "no_new_privs is not set");
    let mut homeless = process(&["true"], 1000);
    homeless["env"] = json!(["PATH=/bin"]);
    contains(&inspection(refused(&lab, &homeless)), "HOME");
    // Another init than the caller knows; a namespace that is not what was approved.
    let (result, _) = execute(&lab, (known.0, known.1 + 1), &process(&["true"], 1000));
    contains(&result.map(|e| e.pid).unwrap_err().to_string(), "not the container's");
    lab.table.namespaces[0].object = Some((4, 4));
    contains(&inspection(refused(&lab, &process(&["true"], 1000))), "namespace pid is");
    assert_eq!(
        fs::read_dir(lab.state.join("launch"))
            .unwrap()
            .filter(|e| e.as_ref().unwrap().file_name().to_str().unwrap().starts_with("exec"))
            .count(),
        0
    );
    delete(&lab.state, &lab.name, None).unwrap();
    wait(known.0);
    lab.nothing_left();
}

fn seccomp_in_the_spec(mut lab: Lab) {
    lab.spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ERRNO"});
    contains(&lab.refused().to_string(), "libcontainer ignores");
}

fn delete_twice(mut lab: Lab) {
    let (parked, _) = lab.create();
    let pid = parked.unwrap().pid;
    wait(pid);
    delete(&lab.state, &lab.name, None).unwrap();
    let again = Instant::now();
    delete(&lab.state, &lab.name, None).unwrap();
    assert!(again.elapsed() < Duration::from_millis(100));
    lab.nothing_left();
    lab.args(&["/bin/true"]);
    assert_eq!(lab.run().0, 0, "the same id again");
}

fn delete_a_running_container(mut lab: Lab) {
    let known = running(&mut lab);
    let begun = Instant::now();
    // The shim reaps while delete waits: here init is reaped after it, so it is a zombie in no cgroup.
    delete(&lab.state, &lab.name, None).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(wait(known.0), 128 + 9);
    lab.nothing_left();
}

fn deadline(lab: Lab) {
    let error = lab.create_with([None, None, None], Duration::ZERO).map(|p| p.pid).unwrap_err();
    assert!(matches!(error, LaunchError::TimedOut(_)), "{error:?}");
    lab.nothing_left();
}

fn deadline_while_creating(mut lab: Lab) {
    let sleep = json!([{"path": "/bin/sleep", "args": ["sleep", "30"]}]);
    lab.spec["hooks"] = json!({"createRuntime": sleep});
    assert!(matches!(lab.refused(), LaunchError::Unsupported(t) if t.contains("without a timeout")));
    // A hook in init's place that takes too long holds libcontainer up.
    let sleep = json!([{"path": "/bin/sleep", "args": ["sleep", "30"], "timeout": 40}]);
    lab.spec["hooks"] = json!({"createContainer": sleep});
    let begun = Instant::now();
    let error = lab.create_with([None, None, None], Duration::from_millis(600)).map(|p| p.pid).unwrap_err();
    assert!(matches!(error, LaunchError::TimedOut(_)), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    lab.nothing_left();
}

fn timing(mut lab: Lab) {
    lab.args(&["/bin/true"]);
    let (mut creates, mut deletes) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        let begun = Instant::now();
        let (parked, _) = lab.create();
        let parked = parked.unwrap();
        creates.push(begun.elapsed());
        let pid = parked.pid;
        assert!(parked.pidfd.as_raw_fd() > 2);
        start(parked);
        wait(pid);
        let begun = Instant::now();
        delete(&lab.state, &lab.name, None).unwrap();
        deletes.push(begun.elapsed());
    }
    creates.sort();
    deletes.sort();
    println!(
        "create: least {:?}, median {:?}; delete: least {:?}, median {:?}",
        creates[0], creates[5], deletes[0], deletes[5]
    );
    assert!(deletes[5] < Duration::from_secs(1));
    lab.nothing_left();
}
