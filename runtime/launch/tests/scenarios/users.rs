//! Containers with a user namespace: its root owns what root owned in the image and in an idmapped volume, and is nobody's root
//! outside. Each refusal has a twin that starts.
use super::{contains, execute, inspection, process, read_terminal, running, split_console, unified};
use crate::lab::{Lab, start, status, wait};
use boltseal_launch::{LaunchError, delete};
use boltseal_seal::ApprovedNamespace;
use boltseal_seal::network::Open;
use nix::mount::{MsFlags, mount};
use serde_json::json;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The first id of the host that the container has, and how many.
const IDS: (u32, u32) = (7_340_032, 65_536);

impl Lab {
    /// Root of a new user namespace.
    fn in_user_namespace(&mut self) -> &mut Self {
        self.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        for map in ["uidMappings", "gidMappings"] {
            self.spec["linux"][map] = json!([{"containerID": 0, "hostID": IDS.0, "size": IDS.1}]);
        }
        self.table.namespaces.push(ApprovedNamespace { kind: "user".into(), object: None });
        self.table.user_ids = Some(IDS);
        self.as_user(0)
    }

    fn as_user(&mut self, id: u32) -> &mut Self {
        self.spec["process"]["user"] = json!({"uid": id, "gid": id});
        (self.table.uid, self.table.gid) = (id, id);
        self
    }

    fn idmapped(&mut self) -> &mut Self {
        self.table.mounts.iter_mut().find(|m| m.destination == "/data").unwrap().idmapped = true;
        self
    }

    fn joins(&mut self, kind: &str, path: &str) -> &mut Self {
        let object = fs::metadata(path).map(|m| (m.dev(), m.ino())).unwrap();
        let listed = self.spec["linux"]["namespaces"].as_array_mut().unwrap();
        listed.iter_mut().find(|n| n["type"] == kind).unwrap()["path"] = json!(path);
        self.table.namespaces.iter_mut().find(|n| n.kind == kind).unwrap().object = Some(object);
        self
    }

    fn refused_as_unsupported(&self) -> String {
        match self.refused() {
            LaunchError::Unsupported(text) => text,
            other => panic!("{other:?}"),
        }
    }
}

const LOOK: &str = "cat /proc/self/uid_map /proc/self/gid_map; id -u; id -g; ls -ldn / /bin/busybox /data /dev /var/secrets; \
    echo x > /dev/null && echo null; touch /tmp/t && echo tmp; touch /data/made && echo data; touch /no 2>&1; cat /proc/kcore; \
    grep -E '^(Seccomp|NoNewPrivs|CapBnd|CapEff):' /proc/self/status";

pub(super) fn root_of_its_own(mut lab: Lab) {
    let (parked, mut output) = lab.in_user_namespace().idmapped().sh(LOOK).create();
    let parked = parked.unwrap();
    let pid = parked.pid;
    let ids = vec![IDS.0.to_string(); 4].join("\t");
    assert_eq!((status(pid, "Uid"), status(pid, "Gid")), (ids.clone(), ids));
    let (own, ours) = (fs::read_link(format!("/proc/{pid}/ns/user")), fs::read_link("/proc/self/ns/user"));
    assert_ne!(own.unwrap(), ours.unwrap());
    let object = fs::metadata(format!("/proc/{pid}/ns/user")).map(|m| (m.dev(), m.ino())).unwrap();
    assert!(parked.namespaces.contains(&("user".to_owned(), object)));
    assert_eq!(start(parked), "");
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(wait(pid), 0, "{text}");
    let map = format!("         0    {}      {}\n", IDS.0, IDS.1);
    contains(&text, &format!("{map}{map}0\n0\n"));
    for path in ["/", "/bin/busybox", "/data", "/dev", "/var/secrets"] {
        let line = text.lines().find(|l| l.ends_with(&format!(" {path}"))).unwrap_or_else(|| panic!("{path}: {text}"));
        assert_eq!(line.split_whitespace().skip(2).take(2).collect::<Vec<_>>(), ["0", "0"], "{line}");
    }
    for part in [
        "null\ntmp\ndata\n",
        "touch: /no: Read-only file system\n",
        "Seccomp:\t2\n",
        "NoNewPrivs:\t1\n",
        "CapBnd:\t0000000000000401\n",
        "CapEff:\t0000000000000401\n",
    ] {
        contains(&text, part);
    }
    // Root of the container is the owner of root's files in a volume that is idmapped, and of nothing else on the host.
    assert_eq!(fs::metadata(lab.volume.join("made")).unwrap().uid(), 0);
    delete(&lab.state, &lab.name, None).unwrap();
    lab.nothing_left();
}

pub(super) fn volume_as_it_is(mut lab: Lab) {
    let (code, text, _) = lab.in_user_namespace().sh("ls -ldn /data; touch /data/made && echo data").run();
    assert_eq!(code, 0);
    assert_eq!(text.split_whitespace().skip(2).take(2).collect::<Vec<_>>(), ["65534", "65534"], "{text}");
    contains(&text, "data\n");
    assert_eq!(fs::metadata(lab.volume.join("made")).unwrap().uid(), IDS.0);
}

pub(super) fn another_user(mut lab: Lab) {
    lab.in_user_namespace().as_user(1000);
    lab.spec["process"]["user"]["additionalGids"] = json!([7]);
    lab.table.additional_gids = vec![7];
    let (parked, mut output) = lab.sh("id -u; grep Groups /proc/self/status; echo again > /proc/self/fd/1").create();
    let parked = parked.unwrap();
    let pid = parked.pid;
    assert!(status(pid, "Uid").starts_with(&(IDS.0 + 1000).to_string()));
    assert_eq!(status(pid, "Groups"), (IDS.0 + 7).to_string());
    assert_eq!(start(parked), "");
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    // The pipe is its own, also to be opened anew.
    assert_eq!((wait(pid), text.as_str()), (0, "1000\nGroups:\t7 \nagain\n"));
    delete(&lab.state, &lab.name, None).unwrap();
    lab.nothing_left();
}

pub(super) fn exec_joins_it(mut lab: Lab) {
    lab.in_user_namespace().idmapped();
    lab.spec["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 64}]);
    let known = running(&mut lab);
    let of_init = |name: &str| fs::read_link(format!("/proc/{}/ns/{name}", known.0)).unwrap();
    for uid in [0, 1000] {
        let mut asked = process(
            &[
                "sh",
                "-c",
                "sleep 1; cat /proc/self/uid_map; id -u; ls /proc/self/fd; \
            grep -E '^(Seccomp|Seccomp_filters|NoNewPrivs|CapBnd|CapPrm|CapInh|CapAmb|Groups):' /proc/self/status; \
            ls -l /proc/self/fd/0; cat /proc/self/cgroup; kill -0 1 && echo reached; touch /data/by-exec && echo data; \
            ulimit -n; touch /no 2>&1",
            ],
            uid,
        );
        asked["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 77}]);
        asked["oomScoreAdj"] = json!(100);
        let (result, mut output) = execute(&lab, known, &asked);
        let execed = result.unwrap();
        let host = IDS.0 + uid;
        assert_eq!(status(execed.pid, "Uid"), vec![host.to_string(); 4].join("\t"));
        for name in ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"] {
            assert_eq!(fs::read_link(format!("/proc/{}/ns/{name}", execed.pid)).unwrap(), of_init(name), "{name}");
        }
        assert_eq!(fs::read_to_string(format!("/proc/{}/oom_score_adj", execed.pid)).unwrap(), "100\n");
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        assert_eq!(wait(execed.pid), 1, "touch on a read-only root: {text}");
        contains(&text, &format!("         0    {}      {}\n{uid}\n0\n1\n2\n3\n", IDS.0, IDS.1));
        for part in [
            "CapInh:\t0000000000000000\n",
            "CapBnd:\t0000000000000401\n",
            "CapAmb:\t0000000000000000\n",
            "Groups:\t \n",
            "Seccomp:\t2\nSeccomp_filters:\t1\n",
            "NoNewPrivs:\t1\n",
            "/dev/null",
            "data\n",
            "\n77\n",
            "Read-only file system",
        ] {
            contains(&text, part);
        }
        contains(&text, if unified() { "0::/\n" } else { "pids:/\n" });
        assert_eq!(text.contains("reached\n"), uid == 0, "{text}");
        nix::unistd::unlink(&lab.volume.join("by-exec")).unwrap();
        fs::set_permissions(&lab.volume, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    }
    let mut with_terminal = process(&["sh", "-c", "tty; id -u"], 0);
    with_terminal["terminal"] = json!(true);
    let (result, _) = execute(&lab, known, &with_terminal);
    let execed = result.unwrap();
    let text = read_terminal(execed.console.unwrap());
    contains(&text, "/dev/pts/0\r\n0\r\n");
    assert_eq!(wait(execed.pid), 0);
    gone(&mut lab, known.0);
}

fn gone(lab: &mut Lab, pid: u32) {
    delete(&lab.state, &lab.name, None).unwrap();
    wait(pid);
    lab.nothing_left();
}

/// What libcontainer's own exec would say, this one says too; and an id that the namespace does not have is nobody.
pub(super) fn exec_failures(mut lab: Lab) {
    let known = running(lab.in_user_namespace());
    let refused = |lab: &Lab, change: &dyn Fn(&mut serde_json::Value)| {
        let mut asked = process(&["true"], 0);
        change(&mut asked);
        let (result, _) = execute(lab, known, &asked);
        result.map(|e| e.pid).unwrap_err().to_string()
    };
    contains(&refused(&lab, &|p| p["args"] = json!(["nothing"])), "executable file not found in $PATH");
    contains(&refused(&lab, &|p| p["env"] = json!(["PATH=/bin"])), "HOME is not in the environment");
    for id in [IDS.1, IDS.0] {
        contains(&refused(&lab, &|p| p["user"] = json!({"uid": id, "gid": id})), "become the user");
    }
    // The table says more than the process gets.
    let ids = std::mem::take(&mut lab.table.user_ids);
    contains(&refused(&lab, &|_| {}), "disagree about a user namespace");
    lab.table.user_ids = Some((IDS.0 + IDS.1, IDS.1));
    contains(&refused(&lab, &|_| {}), "uid_map is");
    lab.table.user_ids = ids;
    // What nobody could find again is ended.
    let pid_file = lab.state.join(format!("launch/exec-{}.pid", std::process::id()));
    fs::create_dir(&pid_file).unwrap();
    contains(&refused(&lab, &|p| p["args"] = json!(["sleep", "60"])), "write the pid");
    for folder in crate::lab::cgroups(&lab.table.cgroup_path) {
        assert_eq!(fs::read_to_string(folder.join("cgroup.procs")).unwrap(), format!("{}\n", known.0), "{folder:?}");
    }
    fs::remove_dir(&pid_file).unwrap();
    let bounding = std::mem::take(&mut lab.table.capabilities);
    let (twin, _) = execute(&lab, known, &process(&["true"], 0));
    assert_eq!(wait(twin.unwrap().pid), 0, "less than its container");
    lab.table.capabilities = bounding;
    gone(&mut lab, known.0);
}

pub(super) fn terminal(mut lab: Lab) {
    lab.in_user_namespace().spec["process"]["terminal"] = json!(true);
    lab.table.terminal = true;
    let parked = lab.sh("tty; id -u").create_with([None, None, None], Duration::from_secs(20)).unwrap();
    let pid = parked.pid;
    let (parked, console) = split_console(parked);
    assert_eq!(start(parked), "");
    contains(&read_terminal(console), "/dev/pts/0\r\n0\r\n");
    assert_eq!(wait(pid), 0);
    delete(&lab.state, &lab.name, None).unwrap();
    lab.nothing_left();
}

pub(super) fn memory(mut lab: Lab) {
    lab.in_user_namespace().table.memory_noexec = true;
    let (code, text, _) = lab.sh("cat /proc/sys/vm/memfd_noexec").run();
    assert_eq!((code, text.as_str()), (0, "2\n"));
}

pub(super) fn on_cgroup_v2(mut lab: Lab) {
    lab.on_cgroup_v2();
    lab.in_user_namespace().spec["linux"]["resources"] = json!({"devices": super::standard_rules()});
    let options = ["nosuid", "noexec", "nodev", "ro"];
    let mount = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options});
    lab.spec["mounts"].as_array_mut().unwrap().push(mount);
    let mut approved = lab.table.mounts[5].clone();
    approved.destination = "/sys/fs/cgroup".into();
    approved.fstype = Some("cgroup".into());
    lab.table.mounts.push(approved);
    let (code, text, _) = lab.sh("ls /sys/fs/cgroup; echo $$ > /sys/fs/cgroup/cgroup.procs; echo end").run();
    assert_eq!(code, 0, "{text}");
    contains(&text, "cgroup.procs");
    contains(&text, "Read-only file system");
    let known = running(&mut lab);
    let (result, mut output) = execute(&lab, known, &process(&["cat", "/proc/self/cgroup"], 0));
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(wait(result.unwrap().pid), 0);
    contains(&text, "0::/\n");
    gone(&mut lab, known.0);
}

/// Sockets of both are made where programs confine them, also where that is a cgroup v2 beside v1.
pub(super) fn confined_network(mut lab: Lab) {
    let open = Open::declared("connect=127.0.0.1:7001").unwrap();
    (lab.table.landlock.bind, lab.table.landlock.connect) = (open.bind_tcp(), open.connect_tcp());
    lab.table.network = open;
    let known = running(lab.in_user_namespace());
    let (result, _output) = execute(&lab, known, &process(&["sleep", "5"], 0));
    let pid = result.unwrap().pid;
    let v2 = |pid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        text.lines().find(|line| line.starts_with("0::")).unwrap().to_owned()
    };
    assert_eq!(v2(pid), v2(known.0));
    contains(&v2(pid), &lab.name);
    delete(&lab.state, &lab.name, None).unwrap();
    // Its pid namespace, and with it init, ends when every process of it is reaped.
    assert_eq!((wait(pid), wait(known.0)), (128 + 9, 128 + 9));
    lab.nothing_left();
}

/// As a pod's containers join their sandbox.
pub(super) fn joined(mut lab: Lab) {
    let known = running(lab.in_user_namespace());
    let mut other = second(&lab);
    for (kind, name) in [("user", "user"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
        other.joins(kind, &format!("/proc/{}/ns/{name}", known.0));
    }
    let (code, text, _) = run_beside(&mut other, "cat /proc/self/uid_map; id -u");
    assert_eq!((code, text), (0, format!("         0    {}      {}\n0\n", IDS.0, IDS.1)));
    // Another one than was approved, or of other ids.
    let right = other.table.namespaces.iter().find(|n| n.kind == "user").and_then(|n| n.object).unwrap();
    let user = |other: &mut Lab, object| {
        other.table.namespaces.iter_mut().find(|n| n.kind == "user").unwrap().object = Some(object);
    };
    user(&mut other, (right.0, right.1 + 1));
    contains(&inspection(refused_beside(&other)), "approved is");
    user(&mut other, right);
    other.table.user_ids = Some((IDS.0 + IDS.1, IDS.1));
    contains(&inspection(refused_beside(&other)), "uid_map is");
    other.table.user_ids = Some(IDS);
    assert_eq!(run_beside(&mut other, "true").0, 0);
    gone(&mut lab, known.0);
}

/// A network namespace of the host's making is not one that root of a user namespace may enter.
pub(super) fn foreign_network(mut lab: Lab) {
    let known = running(&mut lab);
    let mut other = second(&lab);
    other.in_user_namespace();
    let mut apart = second(&lab);
    apart.in_user_namespace();
    other.joins("network", &format!("/proc/{}/ns/net", known.0));
    let text = match refused_beside(&other) {
        LaunchError::Unsupported(text) => text,
        error => panic!("{error:?}"),
    };
    contains(&text, "the net namespace /proc/");
    contains(&text, "belongs to another user namespace");
    assert_eq!(run_beside(&mut apart, "true").0, 0);
    gone(&mut lab, known.0);
}

/// Another container of the same image beside the first.
fn second(lab: &Lab) -> Lab {
    lab.beside("second")
}

fn run_beside(lab: &mut Lab, script: &str) -> (i32, String, String) {
    let (parked, mut output) = lab.sh(script).create();
    let parked = parked.unwrap();
    let pid = parked.pid;
    let said = start(parked);
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    let code = wait(pid);
    delete(&lab.state, &lab.name, None).unwrap();
    (code, text, said)
}

fn refused_beside(lab: &Lab) -> LaunchError {
    let error = lab.create().0.map(|p| p.pid).unwrap_err();
    assert_eq!(fs::read_dir(&lab.state).unwrap().count(), 0, "state is left");
    error
}

/// Neither layers nor volumes of a file system that takes no idmapped mounts; a volume that is not to be idmapped may.
pub(super) fn unmappable(mut lab: Lab) {
    let odd = lab.top.join("ramfs");
    fs::create_dir(&odd).unwrap();
    mount(Some("ramfs"), &odd, Some("ramfs"), MsFlags::MS_NOSUID, None::<&str>).unwrap();
    lab.now_mounted();
    let volume = odd.join("volume");
    fs::create_dir(&volume).unwrap();
    copy(&lab.layer, &odd.join("layer"));
    let good = std::mem::replace(&mut lab.layer, odd.join("layer"));
    let text = lab.in_user_namespace().refused_as_unsupported();
    for part in ["the image's layers", "ramfs", "Fix: "] {
        contains(&text, part);
    }
    lab.layer = good;
    let twin = lab.volume.clone();
    lab.bind_data(&volume);
    contains(&lab.idmapped().refused_as_unsupported(), "the volume at /data cannot be mapped");
    lab.bind_data(&twin);
    assert_eq!(lab.sh("true").run().0, 0);
    lab.bind_data(&volume);
    lab.table.mounts.iter_mut().for_each(|m| m.idmapped = false);
    assert_eq!(lab.sh("true").run().0, 0);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (path, at): (PathBuf, PathBuf) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy(&path, &at);
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&path).unwrap(), at).unwrap();
        } else {
            fs::copy(&path, at).unwrap();
        }
    }
}

pub(super) fn unsupported(mut lab: Lab) {
    lab.in_user_namespace();
    let plain = lab.spec.clone();
    lab.spec["hooks"] = json!({"createContainer": [{"path": "/bin/true", "timeout": 1}]});
    contains(&lab.refused_as_unsupported(), "createContainer hook in a user namespace");
    lab.spec = plain.clone();
    let data = lab.spec["mounts"].as_array_mut().unwrap().iter_mut().find(|m| m["destination"] == "/data").unwrap();
    data["options"].as_array_mut().unwrap().push(json!("rslave"));
    contains(&lab.refused_as_unsupported(), "receives the host's mounts in a user namespace");
    lab.spec = plain;
    let ids = lab.table.user_ids.take();
    contains(&inspection(lab.refused()), "do not go together");
    lab.table.user_ids = ids;
    assert_eq!(lab.sh("true").run().0, 0);
}

/// Files that the table was not told of are seen: a volume that is not idmapped where it was approved so.
pub(super) fn what_the_kernel_shows(mut lab: Lab) {
    lab.in_user_namespace();
    assert_eq!(lab.sh("true").run().0, 0);
    lab.table.namespaces.retain(|n| n.kind != "user");
    contains(&inspection(lab.refused()), "do not go together");
    // Without a user namespace nothing is idmapped, whatever the table says.
    lab.spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "user");
    for map in ["uidMappings", "gidMappings"] {
        lab.spec["linux"].as_object_mut().unwrap().remove(map);
    }
    lab.table.user_ids = None;
    contains(&inspection(lab.idmapped().refused()), "mount /data is not idmapped");
    lab.table.mounts.iter_mut().for_each(|m| m.idmapped = false);
    lab.as_user(1000);
    assert_eq!(lab.sh("true").run().0, 0);
}

/// The gate's descriptors of a user namespace do not live on in the container.
pub(super) fn nothing_is_left_open(mut lab: Lab) {
    let known = running(lab.in_user_namespace());
    let open: Vec<_> = fs::read_dir(format!("/proc/{}/fd", known.0)).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(open.len(), 3, "{open:?}");
    let place = fs::read_dir("/run/boltseal-userns").unwrap().count();
    assert_eq!(place, 0, "the place is empty on the host");
    drop(File::open("/run/boltseal-userns").unwrap());
    gone(&mut lab, known.0);
}
