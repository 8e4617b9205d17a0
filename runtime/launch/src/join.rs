//! One more process in a container that has a user namespace. libcontainer's exec does not join that one: what it makes would be
//! the host's root. So this process is made here, from a fork of the gate: born in the container's pid namespace, it does what
//! only root of the host may (limits, cgroups, oom score), joins all other namespaces in one call, the user namespace first,
//! becomes the approved user, and goes on as any other process: inspected from inside, then the program.
use crate::console::Console;
use crate::error::LaunchError;
use crate::executor::Inside;
use crate::{cgroup, cgroup2, sys};
use boltseal_seal::Table;
use caps::{CapSet, Capability, CapsHashSet};
use nix::sched::{CloneFlags, setns};
use nix::unistd::Pid;
use oci_spec::runtime::{PosixRlimitType, Process, Spec};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;

/// What the process is made of.
pub(crate) struct Join<'a> {
    /// The container's init, pinned and known to be the one that was approved.
    pub(crate) init: BorrowedFd<'a>,
    pub(crate) process: &'a Process,
    pub(crate) table: &'a Table,
    pub(crate) stdio: [OwnedFd; 3],
    pub(crate) console: Option<&'a Console>,
    pub(crate) inside: Inside,
}

/// linux/magic.h
const DEVPTS_MAGIC: libc::c_ulong = 0x1cd1;

/// Makes it; its pid. Why it does not run, it says on the exec-status pipe of `inside`.
pub(crate) fn start(join: Join<'_>) -> Result<Pid, LaunchError> {
    // What a program of the container could otherwise do to a process that is not its own yet: see it through /proc, trace it.
    sys::control(libc::PR_SET_DUMPABLE, 0).map_err(LaunchError::io("hide from the container"))?;
    let cgroups = cgroups(join.table)?;
    match sys::fork_in_pid_namespace(join.init).map_err(LaunchError::io("make a process in the container"))? {
        Some(child) => Ok(child),
        None => {
            let Join { init, process, table, stdio, console, inside } = join;
            let mut spec = Spec::default();
            spec.set_process(Some(process.clone()));
            match enter(init, process, table, stdio, console, &cgroups) {
                Ok(()) => inside.go(&spec),
                Err(error) => inside.give_up(&error),
            }
        }
    }
}

/// The container's folders that libcontainer would join; the one that confines sockets beside v1 is joined later, as by init.
fn cgroups(table: &Table) -> Result<Vec<PathBuf>, LaunchError> {
    let unified = cgroup2::is_unified()?;
    let all = cgroup::folders(&table.cgroup_path)?.into_iter();
    Ok(all.filter(|(controllers, _)| unified || !controllers.is_empty()).map(|(_, folder)| folder).collect())
}

fn enter(
    init: BorrowedFd<'_>,
    process: &Process,
    table: &Table,
    stdio: [OwnedFd; 3],
    console: Option<&Console>,
    cgroups: &[PathBuf],
) -> Result<(), LaunchError> {
    // As root of the host.
    for folder in cgroups {
        std::fs::write(folder.join("cgroup.procs"), "0")
            .map_err(LaunchError::io(format_args!("join the cgroup {}", folder.display())))?;
    }
    limits(process)?;
    if let Some(score) = process.oom_score_adj() {
        std::fs::write("/proc/self/oom_score_adj", score.to_string()).map_err(LaunchError::io("set the oom score"))?;
    }
    let console = console.map(|c| UnixStream::connect(c.path())).transpose();
    let console = console.map_err(LaunchError::io("reach the console socket"))?;
    nix::unistd::setsid().map_err(LaunchError::errno("begin a session"))?;
    setns(init, joined(table)?).map_err(LaunchError::errno("join the container's namespaces"))?;
    // As root of the container.
    nix::unistd::setgroups(&[]).map_err(LaunchError::errno("drop the inherited groups"))?;
    sys::become_ids(0, 0).map_err(LaunchError::io("become the container's root"))?;
    sys::control(libc::PR_SET_DUMPABLE, 0).map_err(LaunchError::io("hide from the container"))?;
    match console {
        Some(socket) => terminal(&socket)?,
        None => {
            for (number, fd) in (0..).zip(&stdio) {
                sys::dup_onto(fd.as_fd(), number).map_err(LaunchError::io("put stdio in its place"))?;
            }
        }
    }
    drop(stdio);
    std::env::set_current_dir(&table.cwd).map_err(|e| LaunchError::Exec(format!("cwd {:?}: {e}", table.cwd)))?;
    become_user(process, table)?;
    sys::close_on_exec().map_err(LaunchError::io("close what was inherited"))
}

/// Before the user namespace is joined: only root of the host may raise a limit.
fn limits(process: &Process) -> Result<(), LaunchError> {
    use nix::sys::resource::{Resource, setrlimit};
    for limit in process.rlimits().iter().flatten() {
        let resource = match limit.typ() {
            PosixRlimitType::RlimitCpu => Resource::RLIMIT_CPU,
            PosixRlimitType::RlimitFsize => Resource::RLIMIT_FSIZE,
            PosixRlimitType::RlimitData => Resource::RLIMIT_DATA,
            PosixRlimitType::RlimitStack => Resource::RLIMIT_STACK,
            PosixRlimitType::RlimitCore => Resource::RLIMIT_CORE,
            PosixRlimitType::RlimitRss => Resource::RLIMIT_RSS,
            PosixRlimitType::RlimitNproc => Resource::RLIMIT_NPROC,
            PosixRlimitType::RlimitNofile => Resource::RLIMIT_NOFILE,
            PosixRlimitType::RlimitMemlock => Resource::RLIMIT_MEMLOCK,
            PosixRlimitType::RlimitAs => Resource::RLIMIT_AS,
            PosixRlimitType::RlimitLocks => Resource::RLIMIT_LOCKS,
            PosixRlimitType::RlimitSigpending => Resource::RLIMIT_SIGPENDING,
            PosixRlimitType::RlimitMsgqueue => Resource::RLIMIT_MSGQUEUE,
            PosixRlimitType::RlimitNice => Resource::RLIMIT_NICE,
            PosixRlimitType::RlimitRtprio => Resource::RLIMIT_RTPRIO,
            PosixRlimitType::RlimitRttime => Resource::RLIMIT_RTTIME,
        };
        setrlimit(resource, limit.soft(), limit.hard())
            .map_err(LaunchError::errno(format_args!("set the limit {}", limit.typ())))?;
    }
    Ok(())
}

/// Every namespace that was approved but the pid namespace, in which this process was born.
fn joined(table: &Table) -> Result<CloneFlags, LaunchError> {
    let flag = |kind: &str| match kind {
        "pid" => Some(CloneFlags::empty()),
        "network" => Some(CloneFlags::CLONE_NEWNET),
        "ipc" => Some(CloneFlags::CLONE_NEWIPC),
        "uts" => Some(CloneFlags::CLONE_NEWUTS),
        "mount" => Some(CloneFlags::CLONE_NEWNS),
        "cgroup" => Some(CloneFlags::CLONE_NEWCGROUP),
        "user" => Some(CloneFlags::CLONE_NEWUSER),
        _ => None,
    };
    let unknown = |kind: &str| LaunchError::Unsupported(format!("an exec into a {kind} namespace"));
    let flags: Result<Vec<_>, _> =
        table.namespaces.iter().map(|n| flag(&n.kind).ok_or_else(|| unknown(&n.kind))).collect();
    Ok(flags?.into_iter().fold(CloneFlags::empty(), |all, one| all | one))
}

/// A terminal of the container's own devpts, checked to be one (CVE-2025-52565), for the shim and for stdio.
fn terminal(socket: &UnixStream) -> Result<(), LaunchError> {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    let pair = nix::pty::openpty(None, None).map_err(LaunchError::errno("open a terminal in the container"))?;
    let real = |fd: &OwnedFd, major: std::ops::RangeInclusive<u32>| {
        let devpts = nix::sys::statfs::fstatfs(fd).is_ok_and(|fs| fs.filesystem_type().0 == DEVPTS_MAGIC);
        let stat = sys::fstat(fd.as_raw_fd());
        devpts
            && stat.is_ok_and(|s| s.st_mode & libc::S_IFMT == libc::S_IFCHR && major.contains(&libc::major(s.st_rdev)))
    };
    if !real(&pair.master, 5..=5) || !real(&pair.slave, 136..=143) {
        return Err(LaunchError::Inspection(vec!["/dev/ptmx of the container opens no terminal".into()]));
    }
    let fds = [pair.master.as_raw_fd()];
    let (text, rights) = ([std::io::IoSlice::new(b"/dev/ptmx")], [ControlMessage::ScmRights(&fds)]);
    sendmsg::<()>(socket.as_raw_fd(), &text, &rights, MsgFlags::MSG_NOSIGNAL, None)
        .map_err(LaunchError::errno("hand out the terminal"))?;
    sys::control_terminal(pair.slave.as_fd()).map_err(LaunchError::io("take the terminal"))?;
    for number in 0..3 {
        sys::dup_onto(pair.slave.as_fd(), number).map_err(LaunchError::io("put the terminal in its place"))?;
    }
    Ok(())
}

/// No more than was approved, in an order that the kernel takes; inspection reads the outcome back.
fn become_user(process: &Process, table: &Table) -> Result<(), LaunchError> {
    let failed = |e: caps::errors::CapsError| LaunchError::Other(format!("capabilities: {e}"));
    let known = |name: &String| {
        Capability::from_str(name)
            .map_err(|_| LaunchError::Inspection(vec![format!("the capability {name} is not known")]))
    };
    let kept: CapsHashSet = table.capabilities.iter().map(known).collect::<Result<_, _>>()?;
    sys::control(libc::PR_SET_NO_NEW_PRIVS, 1).map_err(LaunchError::io("set no_new_privs"))?;
    for capability in caps::runtime::thread_all_supported().difference(&kept) {
        caps::drop(None, CapSet::Bounding, *capability).map_err(failed)?;
    }
    let groups: Vec<_> = table.additional_gids.iter().map(|gid| nix::unistd::Gid::from_raw(*gid)).collect();
    nix::unistd::setgroups(&groups).map_err(LaunchError::errno("set the groups"))?;
    if let Some(umask) = process.user().umask() {
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(umask));
    }
    // So that the permitted set outlives the change of the user.
    sys::control(libc::PR_SET_KEEPCAPS, 1).map_err(LaunchError::io("keep the capabilities"))?;
    sys::become_ids(table.uid, table.gid).map_err(LaunchError::io("become the user"))?;
    caps::clear(None, CapSet::Ambient).map_err(failed)?;
    caps::set(None, CapSet::Effective, &kept).map_err(failed)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(failed)?;
    caps::clear(None, CapSet::Inheritable).map_err(failed)
}
