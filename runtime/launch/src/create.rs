//! Create: from a sealed spec to a parked init. On an error nothing is left.
use crate::console::Console;
use crate::error::LaunchError;
use crate::executor::{Inside, Plan, decode};
use crate::inspect::{self, Status};
use crate::listener::{self, Listener};
use crate::network::Ring;
use crate::outside::outside;
use crate::record::{Layout, RECORD_VERSION, Record, write_private};
use crate::stdio::{Streams, streams};
use crate::timer::Timer;
use crate::user_namespace;
use crate::verity::{CheckedLayer, SealedMount};
use crate::{ROOTFS_NAME, cgroup, cgroup2, delete, label, memfd, mount_label, rootfs, seccomp, sys};
use boltseal_seal::{Sealed, Table};
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::fcntl::OFlag;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use oci_spec::runtime::Spec;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The image as it was verified.
#[derive(Debug, Clone, Copy)]
pub struct Rootfs<'a> {
    /// Host paths of the verified layers, top first.
    pub lowers: &'a [String],
    /// What is mounted in their place, top first: a sealed image is never mounted from folders.
    pub sealed: Option<&'a [SealedMount]>,
    /// The lower folders once more, top first, with what the kernel compared their bytes with when that was judged. It must be the
    /// same now.
    pub checked: Option<&'a [CheckedLayer]>,
}

#[derive(Debug)]
pub struct CreateRequest<'a> {
    pub id: &'a str,
    /// `/run/boltseal/<addr hash>/<ns>/<id>`: exists, root's, 0700. This crate uses `<state>/launch` and nothing else.
    pub state: &'a Path,
    pub sealed: &'a Sealed,
    pub rootfs: Rootfs<'a>,
    /// stdin, stdout, stderr; None is the container's /dev/null. Unused with a terminal.
    pub stdio: [Option<OwnedFd>; 3],
    pub deadline: Instant,
}

/// An init that has been checked and waits to be released.
#[derive(Debug)]
pub struct Parked {
    pub pid: u32,
    pub pidfd: OwnedFd,
    /// Write [`crate::RELEASE`], then `shutdown(Write)`. Closed or anything else: init exits (125..127) without execve.
    pub release: OwnedFd,
    /// Read end: end of file after a successful execve, else the reason as text (at most 4 KiB). Close-on-exec decides
    /// it: an init that is killed also ends it, so its exit says the rest.
    pub exec_status: OwnedFd,
    /// The terminal's master.
    pub console: Option<OwnedFd>,
    /// Folders on the host, one per hierarchy: (controllers, empty for v2; absolute path).
    pub cgroups: Vec<(String, String)>,
    /// `Seccomp_filters` of /proc/PID/status after execve.
    pub seccomp_filters: u32,
    /// Of the trip-wire, if one is armed.
    pub listener: Option<Listener>,
    /// Of the network's programs, if they tell anything.
    pub ring: Option<Ring>,
    /// What attr/current (AppArmor: attr/apparmor/current) shows after execve; empty without a label.
    pub expected_label: String,
    /// Clock ticks after boot, field 22 of /proc/PID/stat.
    pub start_time: u64,
    /// How long the inspections took, from inside and from outside.
    pub inspections: [Duration; 2],
    /// OCI name, nsfs (device, inode).
    pub namespaces: Vec<(String, (u64, u64))>,
}

/// Makes the container and parks its init.
///
/// # Errors
/// [`LaunchError`]; nothing is left then. `Inspection` names each difference between what was made and the table.
pub fn create(request: CreateRequest<'_>) -> Result<Parked, LaunchError> {
    let layout = Layout::new(request.state);
    if layout.top.exists() {
        return Err(LaunchError::Other(format!(
            "{} is there already: delete the container first",
            layout.top.display()
        )));
    }
    supported(request.sealed)?;
    let state = request.state.to_owned();
    build(request, &layout).map_err(|error| match delete::delete_launch(&state) {
        Ok(_) => error,
        Err(left) => LaunchError::Other(format!("{error}; and cleaning up failed: {left}")),
    })
}

/// What cannot be enforced is refused before anything is made.
fn supported(sealed: &Sealed) -> Result<(), LaunchError> {
    let (spec, table) = (&sealed.spec, &sealed.table);
    if let Some(hooks) = spec.hooks() {
        if hooks.start_container().as_ref().is_some_and(|h| !h.is_empty()) {
            return Err(LaunchError::Unsupported("startContainer hooks run after the last inspection".into()));
        }
        let before = [hooks.create_runtime(), hooks.create_container(), prestart(hooks)];
        if before.into_iter().flatten().flatten().any(|h| h.timeout().is_none_or(|t| t <= 0)) {
            return Err(LaunchError::Unsupported(
                "a hook without a timeout: it could hold the launch up for ever".into(),
            ));
        }
    }
    let linux = spec.linux().as_ref().ok_or_else(|| LaunchError::Other("the sealed spec has no linux part".into()))?;
    if table.user_ids.is_some() {
        user_namespace::supported(spec, table)?;
    }
    if linux.seccomp().is_some() {
        return Err(LaunchError::Other(
            "the sealed spec carries seccomp, which libcontainer ignores; it belongs in the table".into(),
        ));
    }
    cgroup2::supported(linux)?;
    let path = linux.cgroups_path().as_ref().and_then(|p| p.to_str()).unwrap_or_default();
    if path.is_empty() || path != table.cgroup_path {
        return Err(LaunchError::Inspection(vec![format!(
            "cgroup path is {path:?}, approved is {:?}",
            table.cgroup_path
        )]));
    }
    match cgroup::folders(path)?.first() {
        // v1's removal kills whatever is in the folder: two containers must not share one.
        Some((_, folder)) => Err(LaunchError::Other(format!("the cgroup {} is there already", folder.display()))),
        None => Ok(()),
    }
}

fn build(request: CreateRequest<'_>, layout: &Layout) -> Result<Parked, LaunchError> {
    let Sealed { spec, json, table, .. } = request.sealed;
    let timer = Timer::start(request.deadline)?;
    let host = inspect::objects(Path::new("/proc/self")).map_err(LaunchError::Other)?;
    sys::plain_inheritance().map_err(LaunchError::io("drop the inherited groups"))?;
    folders(layout)?;
    let user = user_namespace::of(spec, table)?;
    let mut given = cgroup2::spec_for_libcontainer(json, table)?;
    if spec.linux().as_ref().is_some_and(|l| l.mount_label().is_some()) {
        given = mount_label::by_mount(given)?;
    }
    if let Some(user) = &user {
        given = user_namespace::spec_for_libcontainer(&given, user)?;
    }
    write_private(&layout.config(), &given)?;
    check_root(spec, layout)?;
    let table = &user_namespace::exact(table, user.as_ref());
    let bound_devices = user_namespace::bound_devices(spec, user.is_some());
    let mut record = Record {
        version: RECORD_VERSION,
        id: request.id.to_owned(),
        cgroup_path: table.cgroup_path.clone(),
        pid: 0,
        start_time: 0,
        mounts: Vec::new(),
        console: table.terminal,
        user_namespace: user.is_some(),
        bound_devices: bound_devices.clone(),
        sealed: request.rootfs.sealed.unwrap_or_default().iter().map(|mount| mount.layer().name()).collect(),
    };
    record.save(layout)?;
    record.mounts = rootfs::prepare(&request.rootfs, spec, table, layout, user.as_ref())?;

    let (release, release_inside) = release_pair()?;
    let (status, status_inside) = status_pipe()?;
    let (way_out, way_out_inside) = listener::way_out()?;
    let Streams { fds, expected } = streams(request.stdio, table.terminal, Some(user_namespace::owner(table)))?;
    let console = table.terminal.then(|| Console::bind(&layout.top)).transpose()?;
    let (base, pod) = filters(table)?;
    let enforcing = label::enforcement(table.label.as_ref())?;
    let (beside, ring) = cgroup2::make_beside(table)?.unzip();
    let keep = fds.iter().chain([&release_inside, &status_inside, &way_out_inside]).map(AsRawFd::as_raw_fd);
    let keep: Vec<RawFd> = keep.chain([&enforcing, &beside].into_iter().flatten().map(AsRawFd::as_raw_fd)).collect();
    // The user namespace's descriptor is not kept: init has joined it by then.
    let plan = Plan {
        table: table.clone(),
        mounts: record.mounts.clone(),
        host: host.clone(),
        base,
        pod,
        console: table.terminal,
        bound_devices,
        status: status_inside.as_raw_fd(),
        release: Some(release_inside.as_raw_fd()),
        way_out: way_out_inside.as_raw_fd(),
        memory_noexec: memfd::wanted(table)?,
        enforcing,
        beside,
        stdio: expected,
        inherited: inherited(&keep)?,
    };
    let filters_after = filter_count(&plan)?;
    let memory_noexec = plan.memory_noexec;
    let traps = plan.base.traps.clone();

    sys::clear_environment();
    let built = libcontainer_create(request.id, layout, Inside::new(plan), fds, console.as_ref(), &table.cgroup_path);
    drop((release_inside, status_inside, way_out_inside));
    let pid = match built {
        Ok(pid) => pid,
        Err(text) => {
            end(&layout.pid_file());
            return Err(why(&timer, status, text));
        }
    };
    let parked = || -> Result<Parked, LaunchError> {
        let pidfd = sys::pidfd_open(pid).map_err(LaunchError::io("open init's pidfd"))?;
        record.pid = pid;
        record.start_time = sys::start_time(pid)?;
        if memory_noexec {
            memfd::forbid(pidfd.as_fd())?;
        }
        // Before anybody's program runs in it: on v2 nothing else enforces the device rules.
        let settled = spec.linux().as_ref().map_or(Ok(None), |linux| cgroup2::settle(table, linux))?;
        let begun = Instant::now();
        let namespaces = outside(pid, &host, table, &record)?;
        let from_outside = begun.elapsed();
        record.save(layout)?;
        unpark_notify(layout, request.id)?;
        let console = console.map(Console::receive).transpose()?;
        let cgroups =
            cgroup::folders(&table.cgroup_path)?.into_iter().map(|(c, f)| (c, f.display().to_string())).collect();
        let (from_inside, listener) = listener::taken(&way_out, traps)?;
        Ok(Parked {
            pid,
            pidfd,
            release,
            exec_status: status,
            console,
            cgroups,
            seccomp_filters: filters_after,
            listener,
            ring: ring.flatten().or(settled),
            expected_label: label::expected(table.label.as_ref()),
            start_time: record.start_time,
            inspections: [from_inside, from_outside],
            namespaces: namespaces.into_iter().collect(),
        })
    };
    let parked = parked();
    match parked {
        Ok(_) if timer.passed() => {
            end(&layout.pid_file());
            Err(LaunchError::TimedOut("the container was inspected".into()))
        }
        Ok(parked) => Ok(parked),
        Err(error) => {
            end(&layout.pid_file());
            Err(error)
        }
    }
}

fn folders(layout: &Layout) -> Result<(), LaunchError> {
    let mut private = std::fs::DirBuilder::new();
    private.mode(0o700);
    for path in [&layout.top, &layout.bundle(), &layout.rootfs(), &layout.libcontainer(), &layout.upper()] {
        private.create(path).map_err(LaunchError::io(format_args!("make {}", path.display())))?;
    }
    Ok(())
}

/// libcontainer takes the root's path from the file that we wrote: it must be the one that we mount.
fn check_root(spec: &Spec, layout: &Layout) -> Result<(), LaunchError> {
    let root = spec.root().as_ref().map(|r| r.path().clone()).unwrap_or_default();
    if root == Path::new(ROOTFS_NAME) || root == layout.rootfs() {
        return Ok(());
    }
    Err(LaunchError::Other(format!("root.path of the sealed spec is {}, it must be {ROOTFS_NAME:?}", root.display())))
}

/// (the shim's end, init's end).
fn release_pair() -> Result<(OwnedFd, OwnedFd), LaunchError> {
    socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
        .map_err(LaunchError::errno("make the release socket"))
}

/// (read end, write end); the read end never blocks the gate.
pub(crate) fn status_pipe() -> Result<(OwnedFd, OwnedFd), LaunchError> {
    let (read, write) =
        nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(LaunchError::errno("make the exec-status pipe"))?;
    let high = |fd: OwnedFd| sys::dup_high(fd.as_fd()).map_err(LaunchError::io("make the exec-status pipe"));
    Ok((high(read)?, high(write)?))
}

/// The base filter and the pod's own.
pub(crate) fn filters(table: &Table) -> Result<(seccomp::Compiled, Option<seccomp::Compiled>), LaunchError> {
    let traps = |name: &str| table.traps.contains(name);
    let base = seccomp::base(&traps).map_err(|e| LaunchError::Other(format!("base seccomp filter: {e}")))?;
    let pod = table.pod_seccomp.as_deref().map(|json| seccomp::pod(json, &base)).transpose();
    Ok((base, pod.map_err(|e| LaunchError::Unsupported(format!("the pod's seccomp filter: {e}")))?))
}

/// Filters after execve: those that the gate itself runs under, the base, the pod's.
pub(crate) fn filter_count(plan: &Plan) -> Result<u32, LaunchError> {
    let own = Status::read(Path::new("/proc/self")).map_err(LaunchError::Other)?.number("Seccomp_filters").unwrap_or(0);
    Ok(own + 1 + u32::from(plan.pod.is_some()))
}

/// The gate's descriptors of this moment but stdio and those that inside needs: closed there, so that neither its
/// sockets nor its locks live on in a parked init.
pub(crate) fn inherited(keep: &[RawFd]) -> Result<Vec<RawFd>, LaunchError> {
    let all = sys::open_fds().map_err(LaunchError::io("list the open descriptors"))?;
    Ok(all.into_iter().filter(|fd| *fd > 2 && !keep.contains(fd)).collect())
}

/// libcontainer's side. The error is its text.
fn libcontainer_create(
    id: &str,
    layout: &Layout,
    inside: Inside,
    stdio: [OwnedFd; 3],
    console: Option<&Console>,
    cgroup_path: &str,
) -> Result<u32, String> {
    let [stdin, stdout, stderr] = stdio;
    let text = |e: &dyn std::error::Error| chain(e);
    let builder = ContainerBuilder::new(id.to_owned(), SyscallType::default())
        .with_executor(inside)
        .with_root_path(layout.libcontainer())
        .and_then(|b| b.with_pid_file(Some(layout.pid_file())))
        .map_err(|e| text(&e))?
        .with_console_socket(console.map(|c| PathBuf::from(c.path())))
        .with_stdin(stdin)
        .with_stdout(stdout)
        .with_stderr(stderr)
        .validate_id()
        .map_err(|e| text(&e))?;
    let container = builder
        .as_init(layout.bundle())
        .with_systemd(cgroup2::is_managed(cgroup_path).map_err(|e| e.to_string())?)
        .with_detach(true)
        .build()
        .map_err(|e| text(&e))?;
    let pid = container.pid().and_then(|p| u32::try_from(p.as_raw()).ok());
    pid.ok_or_else(|| "libcontainer names no pid".to_owned())
}

/// An error with all its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = next.source();
    }
    text
}

/// The best reason there is: the deadline, what the inside said, what libcontainer said.
pub(crate) fn why(timer: &Timer, status: OwnedFd, text: String) -> LaunchError {
    if timer.passed() {
        return LaunchError::TimedOut(format!("libcontainer made the process ({text})"));
    }
    match nix::fcntl::fcntl(&status, nix::fcntl::F_SETFL(OFlag::O_NONBLOCK)) {
        Ok(_) => {}
        Err(e) => return LaunchError::Other(format!("{text}; the exec-status pipe cannot be read: {e}")),
    }
    let mut said = Vec::new();
    // A partial read ends in "would block" when somebody still holds the other end; what came is kept.
    if let Err(e) = std::fs::File::from(status).read_to_end(&mut said) {
        tracing::debug!("exec-status pipe: {e}");
    }
    decode(&String::from_utf8_lossy(&said)).unwrap_or(LaunchError::Other(format!("libcontainer: {text}")))
}

/// Kills and reaps a process that libcontainer made but is not wanted. An unreaped one would hold up the end of its
/// pid namespace, and with it of the container.
pub(crate) fn end(pid_file: &Path) {
    let pid = std::fs::read_to_string(pid_file).ok().and_then(|t| t.trim().parse::<i32>().ok());
    if let Some(pid) = pid.filter(|p| *p > 1) {
        end_child(nix::unistd::Pid::from_raw(pid));
    }
}

/// The same, of a process that was made here.
pub(crate) fn end_child(child: nix::unistd::Pid) {
    // Only ever our own child that nobody has reaped: the number cannot mean another process.
    let is_child = matches!(
        nix::sys::wait::waitpid(child, Some(nix::sys::wait::WaitPidFlag::WNOHANG)),
        Ok(nix::sys::wait::WaitStatus::StillAlive)
    );
    if !is_child {
        return;
    }
    if let Err(e) = nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL) {
        tracing::warn!("process {child} cannot be killed: {e}");
    }
    if let Err(e) = nix::sys::wait::waitpid(child, None) {
        tracing::warn!("process {child} cannot be reaped: {e}");
    }
}

/// libcontainer's own waiting point is passed at once: the true one is ours, in the Executor.
fn unpark_notify(layout: &Layout, id: &str) -> Result<(), LaunchError> {
    let folder =
        std::fs::File::open(layout.libcontainer().join(id)).map_err(LaunchError::io("open libcontainer's state"))?;
    UnixStream::connect(format!("/proc/self/fd/{}/notify.sock", folder.as_raw_fd()))
        .map(drop)
        .map_err(LaunchError::io("pass libcontainer's notify socket"))
}

#[allow(deprecated, reason = "an old spec may still name them, and libcontainer runs them")]
fn prestart(hooks: &oci_spec::runtime::Hooks) -> &Option<Vec<oci_spec::runtime::Hook>> {
    hooks.prestart()
}
