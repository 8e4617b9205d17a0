//! Exec: one more process in a running container, bounded by the container's own table. There is no parked window:
//! everything is checked inside, before the program runs.
use crate::console::Console;
use crate::create::{chain, end, end_child, filter_count, filters, inherited, status_pipe, why};
use crate::error::LaunchError;
use crate::executor::{Inside, Plan, decode};
use crate::inspect;
use crate::join::{self, Join};
use crate::listener::{self, Listener};
use crate::record::{Layout, Record, write_private};
use crate::stdio::{Streams, streams};
use crate::timer::Timer;
use crate::{cgroup2, label, memfd, sys, user_namespace};
use boltseal_seal::{ApprovedNamespace, Table};
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::container::{Container, ContainerStatus};
use libcontainer::syscall::syscall::SyscallType;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(Debug)]
pub struct ExecRequest<'a> {
    /// The container's id.
    pub id: &'a str,
    pub state: &'a Path,
    /// OCI Process, sealed.
    pub process_json: &'a [u8],
    /// The container's table with this process's uid, gid, groups, capabilities and cwd.
    pub table: &'a Table,
    /// stdin, stdout, stderr; None is the container's /dev/null. Unused with a terminal.
    pub stdio: [Option<OwnedFd>; 3],
    pub terminal: bool,
    pub deadline: Instant,
    /// The init that the caller knows; an exec into any other process is refused.
    pub init_pid: u32,
    pub init_start_time: u64,
}

/// A process that runs.
#[derive(Debug)]
pub struct Execed {
    pub pid: u32,
    pub pidfd: OwnedFd,
    pub console: Option<OwnedFd>,
    /// `Seccomp_filters` of /proc/PID/status.
    pub seccomp_filters: u32,
    /// Of its own trip-wire, if one is armed.
    pub listener: Option<Listener>,
}

/// Runs a process in a container.
///
/// # Errors
/// [`LaunchError`]; the process is gone then.
pub fn exec(request: ExecRequest<'_>) -> Result<Execed, LaunchError> {
    let layout = Layout::new(request.state);
    let record = Record::load(&layout)?.filter(|r| r.id == request.id && r.pid != 0);
    let record = record.ok_or_else(|| LaunchError::Other(format!("container {:?} is not there", request.id)))?;
    if record.user_namespace != request.table.user_ids.is_some() || has_user(request.table) != record.user_namespace {
        return Err(LaunchError::Inspection(vec![
            "the container's record and its approved table disagree about a user namespace".into(),
        ]));
    }
    if (record.pid, record.start_time) != (request.init_pid, request.init_start_time) {
        return Err(LaunchError::Other("the init of the request is not the container's".into()));
    }
    let file = |kind: &str| layout.top.join(format!("exec-{}.{kind}", std::process::id()));
    let files = Files { process: file("json"), pid: file("pid") };
    let result =
        write_private(&files.process, request.process_json).and_then(|()| run(request, &layout, &record, &files));
    if result.is_err() {
        end(&files.pid);
    }
    for path in [&files.process, &files.pid] {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => tracing::warn!("{}: {e}", path.display()),
            _ => {}
        }
    }
    result
}

fn has_user(table: &Table) -> bool {
    table.namespaces.iter().any(|n| n.kind == "user")
}

/// What libcontainer reads and writes for one exec.
struct Files {
    process: PathBuf,
    pid: PathBuf,
}

fn run(request: ExecRequest<'_>, layout: &Layout, record: &Record, files: &Files) -> Result<Execed, LaunchError> {
    let timer = Timer::start(request.deadline)?;
    let host = inspect::objects(Path::new("/proc/self")).map_err(LaunchError::Other)?;
    // Pinned first, then checked: what is joined below is this very process.
    let init = sys::pidfd_open(record.pid).map_err(LaunchError::io("open init's pidfd"))?;
    if sys::start_time(record.pid)? != record.start_time {
        return Err(LaunchError::Other("the container's init has ended".into()));
    }
    let mut table = request.table.clone();
    table.terminal = request.terminal;
    table.namespaces = joined(record.pid, &host, &table)?;
    let exact = record.user_namespace.then(|| table.clone());

    let (status, status_inside) = status_pipe()?;
    let (way_out, way_out_inside) = listener::way_out()?;
    let Streams { fds, expected } = streams(request.stdio, request.terminal, Some(user_namespace::owner(&table)))?;
    let console = request.terminal.then(|| Console::bind(&layout.top)).transpose()?;
    let (base, pod) = filters(&table)?;
    let enforcing = label::enforcement(table.label.as_ref())?;
    let beside = cgroup2::find_beside(&table)?;
    let keep = fds.iter().chain([&status_inside, &way_out_inside]).map(AsRawFd::as_raw_fd);
    let keep: Vec<RawFd> = keep.chain([&enforcing, &beside].into_iter().flatten().map(AsRawFd::as_raw_fd)).collect();
    let plan = Plan {
        table,
        mounts: record.mounts.clone(),
        host,
        base,
        pod,
        console: record.console,
        bound_devices: record.bound_devices.clone(),
        status: status_inside.as_raw_fd(),
        release: None,
        way_out: way_out_inside.as_raw_fd(),
        memory_noexec: memfd::wanted(request.table)?,
        enforcing,
        beside,
        stdio: expected,
        inherited: inherited(&keep)?,
    };
    let seccomp_filters = filter_count(&plan)?;
    let traps = plan.base.traps.clone();

    sys::clear_environment();
    sys::plain_inheritance().map_err(LaunchError::io("drop the inherited groups"))?;
    let inside = Inside::new(plan);
    let built = if let Some(table) = &exact {
        let process = serde_json::from_slice(request.process_json)
            .map_err(|e| LaunchError::Other(format!("the sealed process does not parse: {e}")))?;
        let console = console.as_ref();
        let pid = join::start(Join { init: init.as_fd(), process: &process, table, stdio: fds, console, inside })?;
        if let Err(e) = std::fs::write(&files.pid, pid.to_string()) {
            // A full disk: nobody else knows of it, and it would go on into the container.
            end_child(pid);
            return Err(LaunchError::io("write the pid")(e));
        }
        drop((status_inside, way_out_inside, init));
        said_all(&status, request.deadline)?;
        u32::try_from(pid.as_raw()).map_err(|e| e.to_string())
    } else {
        mark_running(layout, request.id)?;
        let built = libcontainer_exec(request.id, layout, inside, fds, console.as_ref(), files);
        drop((status_inside, way_out_inside, init));
        built
    };
    let pid = match built {
        Ok(pid) => pid,
        Err(text) => return Err(why(&timer, status, text)),
    };
    // It came back: the program runs, or its process has said why not and ends.
    let mut said = Vec::new();
    std::fs::File::from(status).read_to_end(&mut said).map_err(LaunchError::io("read the exec-status pipe"))?;
    if let Some(error) = decode(&String::from_utf8_lossy(&said)) {
        return Err(error);
    }
    let pidfd = sys::pidfd_open(pid).map_err(LaunchError::io("open the process's pidfd"))?;
    label::in_force(&PathBuf::from(format!("/proc/{pid}")), request.table.label.as_ref(), Duration::from_millis(200))?;
    let console = console.map(Console::receive).transpose()?;
    let (_, listener) = listener::taken(&way_out, traps)?;
    Ok(Execed { pid, pidfd, console, seccomp_filters, listener })
}

/// Waits for the end of the exec-status pipe: the program runs, or its process has said why not.
fn said_all(status: &OwnedFd, deadline: Instant) -> Result<(), LaunchError> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(LaunchError::TimedOut("the process was made".into()));
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        // Its end is told without being asked for.
        match poll(&mut [PollFd::new(status.as_fd(), PollFlags::empty())], timeout) {
            Ok(0) | Err(nix::Error::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(e) => return Err(LaunchError::errno("wait for the process")(e)),
        }
    }
}

/// The container's namespaces as they are now; each must still be what was approved for it.
fn joined(pid: u32, host: &inspect::Objects, table: &Table) -> Result<Vec<ApprovedNamespace>, LaunchError> {
    let inspection = |line: String| LaunchError::Inspection(vec![line]);
    let actual = inspect::objects(&PathBuf::from(format!("/proc/{pid}"))).map_err(inspection)?;
    let lines = inspect::namespaces(&actual, host, &table.namespaces);
    if !lines.is_empty() {
        return Err(LaunchError::Inspection(lines));
    }
    let approved =
        |n: &ApprovedNamespace| ApprovedNamespace { kind: n.kind.clone(), object: actual.get(&n.kind).copied() };
    Ok(table.namespaces.iter().map(approved).collect())
}

/// libcontainer's exec wants its own state to say so; nobody tells it about our release.
fn mark_running(layout: &Layout, id: &str) -> Result<(), LaunchError> {
    let failed =
        |e: libcontainer::error::LibcontainerError| LaunchError::Other(format!("libcontainer's state: {}", chain(&e)));
    let mut container = Container::load(layout.libcontainer().join(id)).map_err(failed)?;
    match container.status() {
        ContainerStatus::Running => Ok(()),
        ContainerStatus::Created => container.set_status(ContainerStatus::Running).save().map_err(failed),
        other => Err(LaunchError::Other(format!("exec into a container that is {other}"))),
    }
}

fn libcontainer_exec(
    id: &str,
    layout: &Layout,
    inside: Inside,
    stdio: [OwnedFd; 3],
    console: Option<&Console>,
    files: &Files,
) -> Result<u32, String> {
    let [stdin, stdout, stderr] = stdio;
    let pid = ContainerBuilder::new(id.to_owned(), SyscallType::default())
        .with_executor(inside)
        .with_root_path(layout.libcontainer())
        .map_err(|e| chain(&e))?
        .with_pid_file(Some(&files.pid))
        .map_err(|e| chain(&e))?
        .with_console_socket(console.map(|c| PathBuf::from(c.path())))
        .with_stdin(stdin)
        .with_stdout(stdout)
        .with_stderr(stderr)
        .as_tenant()
        .with_process(Some(&files.process))
        .with_detach(true)
        .build()
        .map_err(|e| chain(&e).trim_matches('\0').to_owned())?;
    u32::try_from(pid.as_raw()).map_err(|e| e.to_string())
}
