//! BS-NET-001 and BS-NET-002: what is not open is refused by the kernel, for init and exec alike, on cgroup v2 alone and where it
//! lies beside v1. The same steps are tried without confinement first: there each of them succeeds.
use super::{contains, execute, process, running, unified};
use crate::lab::{Lab, start, wait};
use boltseal_launch::delete;
use boltseal_seal::network::Open;
use serde_json::json;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

const OK: i32 = 0;
/// What Landlock says, and what a program says.
const PORT: i32 = libc::EACCES;
const GOAL: i32 = libc::EPERM;

pub(super) const OPEN: &str =
    "bind=7100, bind=7101/udp, connect=127.0.0.1:7001, connect=127.0.0.1:7002/udp, connect=[::1]:7003";

/// A step, and what it says under [`OPEN`]: with Landlock beside the programs, and with the programs alone. Without confinement
/// each succeeds.
const STEPS: &[(&str, i32, i32)] = &[
    ("tcp=127.0.0.1:7001", OK, OK),
    ("tcp=[::ffff:127.0.0.1]:7001", OK, OK),
    ("tcp=[::1]:7003", OK, OK),
    ("udp=127.0.0.1:7002", OK, OK),
    ("udp=[::ffff:127.0.0.1]:7002", OK, OK),
    ("udp-other=127.0.0.1:7002", OK, OK),
    ("udp-connect=127.0.0.1:7002", OK, OK),
    ("bind-tcp=127.0.0.1:7100", OK, OK),
    ("bind-tcp=[::1]:7100", OK, OK),
    ("bind-udp=127.0.0.1:7101", OK, OK),
    ("bind-udp=127.0.0.1:0", OK, OK),
    // Another port, another address, another protocol.
    ("tcp=127.0.0.1:7009", PORT, GOAL),
    ("tcp=127.0.0.2:7001", GOAL, GOAL),
    ("tcp=0.0.0.0:7001", GOAL, GOAL),
    ("tcp=[::ffff:127.0.0.2]:7001", GOAL, GOAL),
    ("tcp=[::ffff:127.0.0.1]:7009", PORT, GOAL),
    ("tcp=[::1]:7001", GOAL, GOAL),
    ("udp=127.0.0.2:7002", GOAL, GOAL),
    ("udp=127.0.0.1:7001", GOAL, GOAL),
    ("udp=[::ffff:127.0.0.2]:7002", GOAL, GOAL),
    ("udp=[::1]:7003", GOAL, GOAL),
    ("udp-other=127.0.0.2:7002", GOAL, GOAL),
    ("udp-connect=127.0.0.2:7002", GOAL, GOAL),
    ("udp-connect=[::ffff:127.0.0.2]:7002", GOAL, GOAL),
    // Around the question.
    ("fastopen=127.0.0.1:7009", GOAL, GOAL),
    ("fastopen=127.0.0.2:7001", GOAL, GOAL),
    ("unspec=127.0.0.1:7002,127.0.0.2:7002", GOAL, GOAL),
    ("unspec-tcp=127.0.0.1:7001,127.0.0.2:7001", GOAL, GOAL),
    ("unspec-tcp=127.0.0.1:7001,127.0.0.1:7009", PORT, GOAL),
    ("mptcp", GOAL, GOAL),
    // Listeners.
    ("bind-tcp=127.0.0.1:7102", PORT, GOAL),
    ("bind-tcp=[::1]:7102", PORT, GOAL),
    ("bind-tcp=127.0.0.1:0", PORT, GOAL),
    ("bind-udp=127.0.0.1:7100", GOAL, GOAL),
    ("bind-udp=[::1]:7100", GOAL, GOAL),
];

pub(super) fn beside_v1(lab: Lab) {
    if !unified() {
        assert_eq!(boltseal_launch::network_hooks(), Ok(true), "this host has no cgroup v2 at all");
    }
    confined(lab);
}

pub(super) fn on_cgroup_v2(mut lab: Lab) {
    alone(&mut lab);
    confined(lab);
}

/// v2 alone from here on; this host's may have no controllers there.
pub(super) fn alone(lab: &mut Lab) {
    lab.on_cgroup_v2();
    lab.spec["linux"]["resources"] = json!({"devices": super::standard_rules()});
}

fn confined(mut lab: Lab) {
    let _servers = servers(&mut lab);
    let steps: Vec<&str> = STEPS.iter().map(|(step, ..)| *step).collect();
    let all_succeed: Vec<_> = steps.iter().map(|step| format!("{step}: ok")).collect();
    assert_eq!(tried(&mut lab, &steps), all_succeed, "without confinement");
    // Both locks, then each alone.
    open(&mut lab, OPEN);
    let said = |pick: fn(&(&str, i32, i32)) -> i32| -> Vec<String> {
        STEPS.iter().map(|step| answer(step.0, pick(step))).collect()
    };
    assert_eq!(tried(&mut lab, &steps), said(|s| s.1), "Landlock and programs");
    assert_eq!(tried_by_exec(&mut lab, &steps), said(|s| s.1), "an exec, Landlock and programs");
    (lab.table.landlock.bind, lab.table.landlock.connect) = (None, None);
    assert_eq!(tried(&mut lab, &steps), said(|s| s.2), "programs alone");
    assert_eq!(tried_by_exec(&mut lab, &steps), said(|s| s.2), "an exec, programs alone");
    open(&mut lab, OPEN);
    lab.table.network = Open::default();
    let by_landlock = |s: &(&str, i32, i32)| if s.1 == PORT { PORT } else { OK };
    let expected: Vec<_> = STEPS.iter().map(|s| answer(s.0, by_landlock(s))).collect();
    // What begins with its first data is not asked by every Landlock.
    let without = |list: Vec<String>| list.into_iter().filter(|l| !l.starts_with("fastopen")).collect::<Vec<_>>();
    assert_eq!(without(tried(&mut lab, &steps)), without(expected), "Landlock alone");
    folder_is_gone();
}

fn answer(step: &str, number: i32) -> String {
    if number == OK { format!("{step}: ok") } else { format!("{step}: {number}") }
}

/// What CAP_NET_RAW brings: sockets of the caller's own making, and source routes, by which a packet to an open address goes to
/// another one first.
pub(super) fn raw(lab: Lab) {
    by_root(lab);
}

pub(super) fn raw_on_cgroup_v2(mut lab: Lab) {
    alone(&mut lab);
    by_root(lab);
}

fn by_root(mut lab: Lab) {
    let _servers = servers(&mut lab);
    lab.spec["process"]["user"] = json!({"uid": 0, "gid": 0});
    (lab.table.uid, lab.table.gid) = (0, 0);
    let own = ["CAP_NET_RAW"];
    lab.table.capabilities = own.iter().map(ToString::to_string).collect();
    for set in ["bounding", "effective", "permitted"] {
        lab.spec["process"]["capabilities"][set] = json!(own);
    }
    let steps = [
        "udp=127.0.0.1:7002",
        "udp=[::1]:7002",
        "raw",
        "ping",
        "route-option=127.0.0.1:7002",
        "route-message=127.0.0.1:7002",
        "route-six=[::1]:7002",
    ];
    assert_eq!(tried(&mut lab, &steps), steps.map(|step| answer(step, OK)), "without confinement");
    open(&mut lab, "connect=127.0.0.1:7002/udp, connect=[::1]:7002/udp");
    let expected = [OK, OK, GOAL, GOAL, GOAL, GOAL, GOAL];
    let expected: Vec<_> = steps.iter().zip(expected).map(|(step, number)| answer(step, number)).collect();
    assert_eq!(tried(&mut lab, &steps), expected);
    folder_is_gone();
}

/// Nothing is open: the empty lists of a policy at level strict.
pub(super) fn nothing_open(mut lab: Lab) {
    let _servers = servers(&mut lab);
    let steps = ["tcp=127.0.0.1:7001", "udp=127.0.0.1:7002", "bind-tcp=127.0.0.1:7100", "bind-udp=127.0.0.1:0"];
    assert_eq!(tried(&mut lab, &steps), steps.map(|step| answer(step, OK)));
    open(&mut lab, "");
    let expected = [PORT, GOAL, PORT, OK];
    let expected: Vec<_> = steps.iter().zip(expected).map(|(step, number)| answer(step, number)).collect();
    assert_eq!(tried(&mut lab, &steps), expected);
    // Unix sockets are no network.
    let script = "/bin/busybox nc -l -p 1 local:/tmp/x 2>/dev/null; echo ran";
    let (_, text, _) = lab.sh(script).run();
    contains(&text, "ran");
}

/// `listen` without `bind` takes a port that nobody is asked about. It cannot be reached, but where the kernel may pick one.
pub(super) fn listener(lab: Lab) {
    listener_without_a_port(lab);
}

pub(super) fn listener_on_cgroup_v2(mut lab: Lab) {
    alone(&mut lab);
    listener_without_a_port(lab);
}

fn listener_without_a_port(mut lab: Lab) {
    let _servers = servers(&mut lab);
    for (grant, reached) in [(None, true), (Some("bind=7100"), false), (Some("bind=0"), true), (Some(""), false)] {
        match grant {
            Some(text) => open(&mut lab, text),
            None => close(&mut lab),
        }
        let (parked, output) = lab.args(&["/bin/probe", "listen"]).create();
        let parked = parked.unwrap();
        let pid = parked.pid;
        assert_eq!(start(parked), "");
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).unwrap();
        let port: u16 = line.trim().strip_prefix("port ").unwrap().parse().unwrap();
        for address in ["127.0.0.1", "127.0.0.2"] {
            let goal: SocketAddr = format!("{address}:{port}").parse().unwrap();
            // The kernel answers at once where anybody listens; a dropped SYN is not answered at all.
            let found = TcpStream::connect_timeout(&goal, Duration::from_millis(500));
            assert_eq!(found.is_ok(), reached, "{grant:?} {goal}: {found:?}");
            if reached {
                break;
            }
        }
        delete(&lab.state, &lab.name, None).unwrap();
        wait(pid);
        lab.nothing_left();
    }
    folder_is_gone();
}

/// A kernel that takes no program: nothing runs, and nothing is left. The twin is the same container before.
pub(super) fn no_program(mut lab: Lab) {
    open(&mut lab, OPEN);
    let (code, text, _) = lab.sh("echo ran").run();
    assert_eq!((code, text.as_str()), (0, "ran\n"));
    super::cgroups::without_bpf();
    contains(&boltseal_launch::network_hooks().unwrap_err(), "Operation not permitted");
    lab.sh("touch /data/ran");
    contains(&lab.refused().to_string(), "Operation not permitted");
    assert!(!lab.volume.join("ran").exists());
    folder_is_gone();
}

/// A process that is not where its sockets are confined does not run.
pub(super) fn elsewhere(mut lab: Lab) {
    open(&mut lab, OPEN);
    if unified() {
        return;
    }
    let known = running(&mut lab);
    let folder = beside(&lab);
    assert_eq!(fs::read_to_string(folder.join("cgroup.procs")).unwrap(), format!("{}\n", known.0));
    // The folder is taken away from under an exec: it does not come to run outside.
    fs::write(folder.parent().unwrap().join("cgroup.procs"), known.0.to_string()).unwrap();
    fs::remove_dir(&folder).unwrap();
    let (result, _) = execute(&lab, known, &process(&["/bin/true"], 1000));
    contains(&result.map(|e| e.pid).unwrap_err().to_string(), "cannot open the cgroup");
    delete(&lab.state, &lab.name, None).unwrap();
    wait(known.0);
    lab.nothing_left();
}

fn beside(lab: &Lab) -> std::path::PathBuf {
    let name = format!("boltseal{}", lab.table.cgroup_path.replace('/', ":"));
    std::path::Path::new("/sys/fs/cgroup/unified").join(name)
}

/// No folder of a container of ours is left beside v1.
pub(super) fn folder_is_gone() {
    let Ok(list) = fs::read_dir("/sys/fs/cgroup/unified") else { return };
    let own = format!("boltseal:boltseal-test-{}:", nix::unistd::getppid());
    let left: Vec<_> = list.map(|e| e.unwrap().file_name()).filter(|n| n.to_string_lossy().starts_with(&own)).collect();
    assert!(left.is_empty(), "{left:?}");
}

pub(super) fn open(lab: &mut Lab, text: &str) {
    let open = Open::declared(text).unwrap();
    (lab.table.landlock.bind, lab.table.landlock.connect) = (open.bind_tcp(), open.connect_tcp());
    lab.table.network = open;
}

pub(super) fn close(lab: &mut Lab) {
    (lab.table.landlock.bind, lab.table.landlock.connect) = (None, None);
    lab.table.network = Open::default();
}

/// The steps by a container's init: a line each.
fn tried(lab: &mut Lab, steps: &[&str]) -> Vec<String> {
    let (code, text, said) = lab.args(&[&["/bin/probe"], steps].concat()).run();
    assert_eq!((code, said.as_str()), (0, ""), "{text}");
    text.lines().map(str::to_owned).collect()
}

/// The same by an exec.
fn tried_by_exec(lab: &mut Lab, steps: &[&str]) -> Vec<String> {
    let known = running(lab);
    let (result, mut output) = execute(lab, known, &process(&[&["/bin/probe"], steps].concat(), 1000));
    let pid = result.unwrap().pid;
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(wait(pid), 0, "{text}");
    delete(&lab.state, &lab.name, None).unwrap();
    wait(known.0);
    lab.nothing_left();
    text.lines().map(str::to_owned).collect()
}

/// A network of this scenario's own, which the container shares as a pod's containers share theirs, with somebody at each port; and
/// the probe in the image.
pub(super) fn servers(lab: &mut Lab) -> (Vec<TcpListener>, Vec<UdpSocket>) {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    loopback_up();
    // Kubernetes' default for pods: anybody may ping.
    fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
    fs::copy("/proc/self/exe", lab.layer.join("bin/probe")).unwrap();
    let namespaces = lab.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|n| n["type"] != "network");
    lab.table.namespaces.retain(|n| n.kind != "network");
    let tcp = ["[::]:7001", "[::1]:7003", "127.0.0.1:7009"].map(|at| TcpListener::bind(at).unwrap());
    let udp = ["[::]:7001", "[::]:7002", "[::1]:7003"].map(|at| UdpSocket::bind(at).unwrap());
    (tcp.into(), udp.into())
}

fn loopback_up() {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // SAFETY: plain bytes and integers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: an interface request that outlives the call.
    let rc = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
}
