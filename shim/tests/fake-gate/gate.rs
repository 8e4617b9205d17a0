//! A gate for the shim's tests: it speaks the frame and hands out real processes, but decides nothing. What it does is
//! written in the file `gate` of the bundle, one order per line (see [`Orders`]).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::multiple_unsafe_ops_per_block,
    reason = "a tool of the tests"
)]

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{IoSlice, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use boltseal_message::*;
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, socketpair};
use nix::unistd::{ForkResult, fork};

/// The orders in the bundle's `gate` file.
#[derive(Default)]
struct Orders(String);

impl Orders {
    fn value(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
    }
    fn has(&self, name: &str) -> bool {
        self.0.lines().any(|line| line == name)
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    assert_eq!(args.get(1).map(String::as_str), Some("gate"), "unexpected arguments {args:?}");
    assert_eq!(std::env::vars().count(), 0, "the environment is not empty");
    assert_eq!(std::env::current_dir().unwrap(), Path::new("/"));
    // SAFETY: the shim passes the socket as fd 3 and nobody else takes it.
    let mut socket = unsafe { std::os::unix::net::UnixStream::from_raw_fd(3) };
    let mut fds = Vec::new();
    let mut frame = receive(&socket, &mut fds);
    let header = FrameHeader::parse(frame.first_chunk().unwrap()).unwrap();
    let have = frame.len();
    frame.resize(HEADER_LEN + header.body_len, 0);
    socket.read_exact(&mut frame[have..]).unwrap();
    let request = Request::decode(&frame).unwrap();

    let bundle = PathBuf::from(&request.bundle);
    let orders = Orders(fs::read_to_string(bundle.join("gate")).unwrap_or_default());
    let (reply, to_send) = answer(&request, &bundle, &orders, fds);
    let frame = reply.encode();
    let raw: Vec<RawFd> = to_send.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let rights: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    let sent =
        nix::sys::socket::sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&frame)], rights, MsgFlags::empty(), None);
    assert_eq!(sent.unwrap(), frame.len());
}

/// The header's bytes and all fds.
fn receive(socket: &std::os::unix::net::UnixStream, fds: &mut Vec<OwnedFd>) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_LEN];
    let mut space = nix::cmsg_space!([RawFd; 4]);
    let mut iov = [std::io::IoSliceMut::new(&mut bytes)];
    let message = nix::sys::socket::recvmsg::<()>(
        socket.as_raw_fd(),
        &mut iov,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_WAITALL,
    )
    .unwrap();
    for control in message.cmsgs().unwrap() {
        if let nix::sys::socket::ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: just received, nobody else has them.
            fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    assert_eq!(message.bytes, HEADER_LEN);
    bytes
}

fn note(bundle: &Path, file: &str, line: &str) {
    let path = bundle.parent().unwrap().join(file);
    let mut file = File::options().append(true).create(true).open(path).unwrap();
    // In one write: other gates append at the same time.
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn answer(request: &Request, bundle: &Path, orders: &Orders, fds: Vec<OwnedFd>) -> (Reply, Vec<OwnedFd>) {
    let kind = match &request.operation {
        Operation::Create(_) => "create",
        Operation::Exec(_) => "exec",
        Operation::Update { .. } => "update",
        Operation::Delete { .. } => "delete",
        Operation::Record { .. } => "record",
    };
    note(bundle, "operations", &format!("{kind} {}", request.id));
    let status = fs::read_to_string("/proc/self/status").unwrap();
    note(bundle, "capabilities", status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap());
    let confined = ["Seccomp:", "Seccomp_filters:", "NoNewPrivs:"]
        .map(|name| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim());
    note(bundle, "confined", &confined.join(" "));
    if let Some(warning) = orders.value("warns") {
        eprintln!("{warning}");
    }
    match orders.value(kind) {
        Some("crash") => {
            eprintln!("fake gate: told to crash");
            std::process::abort();
        }
        Some("hang") => loop {
            std::thread::sleep(std::time::Duration::from_secs(60));
        },
        Some("garbage") => {
            // SAFETY: fd 3 is the socket; this process ends right after.
            let mut socket = unsafe { File::from_raw_fd(3) };
            socket.write_all(b"this is not a frame of ours").unwrap();
            std::process::exit(0);
        }
        Some("lie") => return (Reply::Execed { pid: 1, traps: Vec::new() }, Vec::new()),
        Some(refusal) if refusal.starts_with("refuse ") => {
            let (code, message) = refusal["refuse ".len()..].split_once(' ').unwrap();
            return refuse(code, message);
        }
        _ => {}
    }
    match &request.operation {
        Operation::Create(create) => self::create(request, create, bundle, orders, fds),
        Operation::Exec(exec) => {
            let process: serde_json::Value = serde_json::from_slice(&exec.process).unwrap();
            let args = process["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap().to_owned());
            let (pid, console) = spawn(args.collect(), &exec.stdio, fds, None, &[], false);
            enter_cgroup(orders, pid);
            let mut out = vec![pidfd(pid)];
            out.extend(console);
            (Reply::Execed { pid, traps: Vec::new() }, out)
        }
        Operation::Update { resources } => {
            note(bundle, "updates", &String::from_utf8_lossy(resources));
            (Reply::Done, Vec::new())
        }
        Operation::Delete { events } => {
            record(bundle, events);
            if let Ok(pid) = fs::read_to_string(bundle.join("pid")) {
                let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap());
                let _gone = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).is_err();
            }
            for folder in cgroup_folders(orders) {
                for _ in 0..100 {
                    if !folder.exists() || fs::remove_dir(&folder).is_ok() {
                        break;
                    }
                    // What init left behind it.
                    for pid in fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default().lines() {
                        let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap());
                        let _gone = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).is_err();
                    }
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
            }
            (Reply::Done, Vec::new())
        }
        Operation::Record { events } => {
            record(bundle, events);
            (Reply::Done, Vec::new())
        }
    }
}

fn refuse(code: &str, message: &str) -> (Reply, Vec<OwnedFd>) {
    let code = match code {
        "permission" => Code::PermissionDenied,
        "precondition" => Code::FailedPrecondition,
        "argument" => Code::InvalidArgument,
        "unavailable" => Code::Unavailable,
        "notfound" => Code::NotFound,
        "exists" => Code::AlreadyExists,
        "internal" => Code::Internal,
        other => panic!("{other}"),
    };
    (Reply::Refused(Refusal { code, message: message.into() }), Vec::new())
}

fn record(bundle: &Path, events: &[Event]) {
    for event in events {
        let what = match &event.kind {
            EventKind::Exited { status, .. } => format!("exited {status}"),
            EventKind::Running { .. } => "running".into(),
            EventKind::Aborted { reason } => format!("aborted {}", reason.lines().next().unwrap_or_default()),
            EventKind::OutOfMemory => "oom".into(),
            EventKind::LogDropped { bytes } => format!("dropped {bytes}"),
            EventKind::Network(a) => format!("network {:?} {} {} {}", a.class, a.what, a.comm, a.count),
            EventKind::Anomaly(a) => format!("anomaly {:?} {} {} {}", a.class, a.what, a.comm, a.count),
        };
        note(bundle, "trail", &format!("{}/{} {what}", event.id, event.exec_id));
    }
}

fn create(
    request: &Request,
    create: &Create,
    bundle: &Path,
    orders: &Orders,
    fds: Vec<OwnedFd>,
) -> (Reply, Vec<OwnedFd>) {
    for uri in [&create.stdio.stdin, &create.stdio.stdout, &create.stdio.stderr] {
        if uri.starts_with("binary") {
            assert!(fds.is_empty());
            return refuse("permission", &format!("boltseal: denied by BS-PRC-005: a log program {uri}"));
        }
    }
    assert_eq!(fds.len(), create.stdio.fds.iter().filter(|flag| **flag).count());
    let args = orders.value("args").unwrap_or("/bin/busybox sleep 1000");
    let args = match args.split_once(" sh ") {
        Some((program, script)) => vec![program.into(), "sh".into(), "-c".into(), script.into()],
        None => args.split(' ').map(str::to_owned).collect::<Vec<_>>(),
    };
    let stream = |flags| socketpair(AddressFamily::Unix, SockType::Stream, None, flags).unwrap();
    let (release, wait) = stream(SockFlag::SOCK_CLOEXEC);
    let (status_read, status_write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let filters: u32 = orders.value("filters").map_or(1, |count| count.parse().unwrap());
    let ours = [release.as_raw_fd(), status_read.as_raw_fd()];
    let parked = Some((wait, status_write));
    let (pid, console) = spawn(args, &create.stdio, fds, parked, &ours, orders.has("dies-before-exec"));
    fs::write(bundle.join("pid"), pid.to_string()).unwrap();
    enter_cgroup(orders, pid);
    if orders.has("init-dies-parked") {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).unwrap().tv_sec() as u64;
    let not_after = if orders.has("expired") { now - 1 } else { now + 300 };
    let created = Created {
        pid,
        terminal: create.stdio.terminal,
        not_after_boottime_ns: not_after * 1_000_000_000,
        policy_files: orders.value("policy").map(stamp).into_iter().collect(),
        expected: Expected { seccomp_filters: filters, label: orders.value("label").unwrap_or_default().into() },
        cgroups: cgroups(orders),
        shared_pid_namespace: orders.has("shared"),
        traps: Vec::new(),
        scan: 0,
    };
    assert!(request.deadline_ms > 0);
    let mut out = vec![pidfd(pid), release, status_read];
    out.extend(console);
    (Reply::Created(created), out)
}

fn stamp(path: &str) -> FileStamp {
    let meta = fs::metadata(path).unwrap();
    FileStamp {
        path: path.into(),
        device: meta.dev(),
        inode: meta.ino(),
        size: meta.size(),
        mtime_ns: meta.mtime() * 1_000_000_000 + meta.mtime_nsec(),
        ctime_ns: meta.ctime() * 1_000_000_000 + meta.ctime_nsec(),
    }
}

const V1: [&str; 5] = ["freezer", "memory", "pids", "cpu", "cpuacct"];
const ROOT: &str = "/sys/fs/cgroup";

/// The machine has cgroup v2 alone.
fn unified() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// (controllers, folder): on v2 one folder, without names.
fn cgroups(orders: &Orders) -> Vec<(String, String)> {
    let names: &[&str] = if unified() { &[""] } else { &V1 };
    let folders = cgroup_folders(orders);
    names.iter().zip(folders).map(|(name, path)| ((*name).to_owned(), path.to_str().unwrap().to_owned())).collect()
}

fn cgroup_folders(orders: &Orders) -> Vec<PathBuf> {
    let Some(name) = orders.value("cgroup") else { return Vec::new() };
    if unified() {
        return vec![Path::new(ROOT).join(name)];
    }
    V1.iter().map(|controller| Path::new(ROOT).join(controller).join(name)).collect()
}

fn enter_cgroup(orders: &Orders, pid: u32) {
    if unified() {
        fs::write(Path::new(ROOT).join("cgroup.subtree_control"), "+memory +pids +cpu").unwrap();
    }
    for folder in cgroup_folders(orders) {
        fs::create_dir_all(&folder).unwrap();
        let limits = unified() || folder.to_str().unwrap().contains("/memory/");
        if let Some(limit) = orders.value("memory").filter(|_| limits) {
            let file = if unified() { "memory.max" } else { "memory.limit_in_bytes" };
            fs::write(folder.join(file), limit).unwrap();
        }
        fs::write(folder.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

fn pidfd(pid: u32) -> OwnedFd {
    // SAFETY: pidfd_open takes two integers and returns a new fd.
    unsafe { OwnedFd::from_raw_fd(libc::syscall(libc::SYS_pidfd_open, pid, 0) as RawFd) }
}

/// Forks a process; a parked one waits for its release between `wait` and execve. It lets go of `ours`: who keeps the
/// other end of his own release waits for ever once everybody else is gone.
fn spawn(
    args: Vec<String>,
    stdio: &Stdio,
    fds: Vec<OwnedFd>,
    parked: Option<(OwnedFd, OwnedFd)>,
    ours: &[RawFd],
    dies: bool,
) -> (u32, Option<OwnedFd>) {
    let args: Vec<CString> = args.into_iter().map(|arg| CString::new(arg).unwrap()).collect();
    let pty = stdio.terminal.then(|| nix::pty::openpty(None, None).unwrap());
    // SAFETY: this process has one thread.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => (child.as_raw() as u32, pty.map(|pty| pty.master)),
        ForkResult::Child => {
            nix::unistd::setsid().unwrap();
            let null = File::options().read(true).write(true).open("/dev/null").unwrap();
            let mut fds = fds.into_iter();
            for (number, passed) in stdio.fds.into_iter().enumerate() {
                let source = match &pty {
                    Some(pty) => pty.slave.as_raw_fd(),
                    None if passed => fds.next().unwrap().into_raw_fd(),
                    None => null.as_raw_fd(),
                };
                // SAFETY: plain integers.
                assert!(unsafe { libc::dup2(source, number as RawFd) } >= 0);
            }
            if pty.is_some() {
                // SAFETY: plain integers.
                assert_eq!(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) }, 0);
            }
            // The shim's socket must not stay open in here.
            // SAFETY: plain integers.
            unsafe { libc::close(3) };
            for fd in ours {
                // SAFETY: plain integers; what owned them is the parent's.
                unsafe { libc::close(*fd) };
            }
            sandbox();
            let (wait, status) = match parked {
                Some((wait, status)) => (Some(wait), Some(status)),
                None => (None, None),
            };
            if let Some(wait) = wait {
                let mut order = Vec::new();
                File::from(wait).read_to_end(&mut order).unwrap();
                if order != RELEASE || dies {
                    std::process::exit(if dies { 3 } else { 0 });
                }
            }
            let error = nix::unistd::execv(&args[0], &args).unwrap_err();
            if let Some(status) = status {
                write!(File::from(status), "execve {:?}: {error}", args[0]).unwrap();
            }
            std::process::exit(127);
        }
    }
}

/// no_new_privs and one filter that allows all: enough to be seen.
fn sandbox() {
    let allow = [libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW }];
    let program = libc::sock_fprog { len: 1, filter: allow.as_ptr().cast_mut() };
    // SAFETY: the program outlives the call.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program), 0);
    }
}
