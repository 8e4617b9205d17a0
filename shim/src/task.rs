//! The Task service. Whatever changes something runs as a task of its own: a caller that hangs up half-way (containerd
//! restarted) leaves a finished operation behind, never half of one.

use std::collections::hash_map;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use boltseal_message::{Code, Create, EventKind, Exec, Mount, Operation, Refusal, Reply};
use containerd_shim_protos::api::*;
use containerd_shim_protos::events::task::{
    TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskIO, TaskPaused, TaskResumed, TaskStart,
};
use containerd_shim_protos::shim::oci::ProcessDetails;
use containerd_shim_protos::shim_async::Task;
use containerd_shim_protos::types::task::{ProcessInfo, Status};
use nix::sys::signal::Signal;
use protobuf::Message as _;
use protobuf::well_known_types::any::Any;
use tokio::sync::Notify;
use ttrpc::asynchronous::TtrpcContext;
use ttrpc::{Error, Result, get_status};

use crate::process::{Container, Exit, Phase, Process, follow};
use crate::reap;
use crate::runtime::{Answer, DEFAULT_DEADLINE, Failure};
use crate::serve::{Entry, Shim};
use crate::stats;
use crate::stdio::{OnLoss, Uris, prepare};

/// How long Delete waits for output to be delivered.
const DRAIN: Duration = Duration::from_secs(1);
/// How long Delete waits for the exit to be told, and a cancelled Create for its remains.
const PATIENCE: Duration = Duration::from_secs(8);
/// So much of the caller's time is ours: the answer must leave before ttrpc gives up on it.
const MARGIN: Duration = Duration::from_millis(250);
const MAX_ID: usize = 256;

#[derive(Debug)]
pub(crate) struct Service(pub(crate) Arc<Shim>);

pub(crate) fn refusal(code: Code, message: impl Into<String>) -> Refusal {
    Refusal { code, message: message.into() }
}

fn status(refusal: Refusal) -> Error {
    let code = match refusal.code {
        Code::PermissionDenied => ttrpc::Code::PERMISSION_DENIED,
        Code::FailedPrecondition => ttrpc::Code::FAILED_PRECONDITION,
        Code::InvalidArgument => ttrpc::Code::INVALID_ARGUMENT,
        Code::Unavailable => ttrpc::Code::UNAVAILABLE,
        Code::NotFound => ttrpc::Code::NOT_FOUND,
        Code::AlreadyExists => ttrpc::Code::ALREADY_EXISTS,
        Code::Internal => ttrpc::Code::INTERNAL,
    };
    Error::RpcStatus(get_status(code, refusal.message))
}

fn failed(e: impl std::fmt::Display) -> Refusal {
    refusal(Code::Internal, format!("boltseal: {e}"))
}

/// Runs to its end even if the caller goes away.
async fn whole<T: Send + 'static>(
    work: impl Future<Output = std::result::Result<T, Refusal>> + Send + 'static,
) -> Result<T> {
    match tokio::spawn(work).await {
        Ok(done) => done.map_err(status),
        Err(e) => Err(status(failed(e))),
    }
}

fn deadline(context: &TtrpcContext) -> Duration {
    let asked = Duration::from_nanos(u64::try_from(context.timeout_nano).unwrap_or(0));
    if asked.is_zero() {
        return DEFAULT_DEADLINE;
    }
    asked.saturating_sub(MARGIN).max(asked / 2)
}

impl Shim {
    fn container(&self, id: &str) -> std::result::Result<Arc<Container>, Refusal> {
        match self.containers().get(id) {
            Some(Entry::Ready(container)) => Ok(container.clone()),
            _ => Err(refusal(Code::NotFound, format!("boltseal: no container {id}"))),
        }
    }

    fn process(&self, id: &str, exec_id: &str) -> std::result::Result<(Arc<Container>, Arc<Process>), Refusal> {
        let container = self.container(id)?;
        if exec_id.is_empty() {
            return Ok((container.clone(), container.init.clone()));
        }
        let process = container.execs().get(exec_id).cloned();
        let process =
            process.ok_or_else(|| refusal(Code::NotFound, format!("boltseal: no process {exec_id} in {id}")))?;
        Ok((container, process))
    }

    fn on_loss(self: &Arc<Self>, id: &str, exec_id: &str) -> OnLoss {
        let (shim, id, exec_id) = (self.clone(), id.to_owned(), exec_id.to_owned());
        Arc::new(move |bytes| shim.trail.add(&id, &exec_id, EventKind::LogDropped { bytes }))
    }

    async fn create(
        self: Arc<Self>,
        request: CreateTaskRequest,
        deadline: Duration,
    ) -> std::result::Result<u32, Refusal> {
        let id = request.id.clone();
        check_id(&id)?;
        let cancel = Arc::new(Notify::new());
        match self.containers().entry(id.clone()) {
            hash_map::Entry::Occupied(_) => {
                return Err(refusal(Code::AlreadyExists, format!("boltseal: container {id} exists already")));
            }
            hash_map::Entry::Vacant(free) => free.insert(Entry::Creating(cancel.clone())),
        };
        let made = self.make(&request, &cancel, deadline).await;
        let mut containers = self.containers();
        match made {
            Ok(container) => {
                containers.insert(id, Entry::Ready(container.clone()));
                drop(containers);
                let pid = container.init.pid();
                self.events.publish(&created_event(request, pid));
                Ok(pid)
            }
            Err(refusal) => {
                containers.remove(&id);
                Err(refusal)
            }
        }
    }

    /// The gate's part of Create, and our hold on what it made.
    async fn make(
        self: &Arc<Self>,
        request: &CreateTaskRequest,
        cancel: &Notify,
        deadline: Duration,
    ) -> std::result::Result<Arc<Container>, Refusal> {
        let (id, bundle) = (&request.id, PathBuf::from(&request.bundle));
        let uris = Uris {
            terminal: request.terminal,
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
        };
        let mut prepared =
            prepare(&uris).map_err(|e| refusal(Code::InvalidArgument, format!("boltseal: stdio: {e}")))?;
        let operation = Operation::Create(create_operation(request, prepared.wire.clone()));
        let theirs = std::mem::take(&mut prepared.theirs);
        let pause = self.reaper.pause();
        let answer = tokio::select! {
            answer = self.gate.run((id, &bundle), operation, &theirs, deadline) => answer,
            () = cancel.notified() => Err(Failure::Broken("the container was deleted meanwhile".into())),
        };
        drop(theirs);
        let made = match answer {
            Ok(Answer { reply: Reply::Created(created), fds }) => {
                let on_loss = self.on_loss(id, "");
                self.adopt(id, &bundle, uris, prepared, (created, fds), &on_loss)
            }
            Ok(_) => Err(Failure::Broken("a reply to another request".into())),
            Err(failure) => Err(failure),
        };
        drop(pause);
        match made {
            Ok(container) => Ok(container),
            Err(failure) => {
                if failure.leaves_remains() {
                    self.sweep(id, &bundle).await;
                }
                Err(failure.into_refusal())
            }
        }
    }

    fn adopt(
        self: &Arc<Self>,
        id: &str,
        bundle: &std::path::Path,
        uris: Uris,
        prepared: crate::stdio::Prepared,
        (created, fds): (boltseal_message::Created, Vec<OwnedFd>),
        on_loss: &OnLoss,
    ) -> std::result::Result<Arc<Container>, Failure> {
        let broken = |e: std::io::Error| Failure::Broken(e.to_string());
        let mut fds = fds.into_iter();
        let (Some(pidfd), Some(release), Some(exec_status)) = (fds.next(), fds.next(), fds.next()) else {
            return Err(Failure::Broken("too few fds".into()));
        };
        let pidfd = Arc::new(reap::watch(pidfd).map_err(broken)?);
        let streams = prepared.start(fds.next(), on_loss).map_err(broken)?;
        let pid = created.pid;
        self.reaper.know(pid);
        let init = Process::init(uris, pid, pidfd.clone(), streams);
        let container = Container::new(id.into(), bundle.into(), created, init, (release, exec_status));
        let container = Arc::new(container);
        // Armed before Start: a process may run out of memory in its first instant.
        match container.cgroup.oom_watch() {
            Ok(Some(watch)) => {
                let (shim, container) = (self.clone(), Arc::downgrade(&container));
                tokio::spawn(async move {
                    while watch.visited().await.is_ok() {
                        let Some(container) = container.upgrade() else { return };
                        if container.init.phase() == Phase::Stopped {
                            return;
                        }
                        container.look_for_oom(&shim);
                    }
                });
            }
            Ok(None) => {}
            Err(e) => self.log(&format!("{id}: the OOM killer is not watched: {e}")),
        }
        tokio::spawn(follow(self.clone(), container.clone(), container.init.clone(), pidfd));
        Ok(container)
    }

    /// Removes what a gate that did not finish may have left.
    async fn sweep(&self, id: &str, bundle: &std::path::Path) {
        let operation = Operation::Delete { events: self.trail.take_of(id) };
        if let Err(failure) = self.gate.run((id, bundle), operation, &[], PATIENCE).await {
            self.log(&format!("{id}: sweeping up after the gate: {failure}"));
        }
    }

    async fn start_init(
        self: Arc<Self>,
        container: Arc<Container>,
        deadline: Duration,
    ) -> std::result::Result<u32, Refusal> {
        let _turn = container.turn.lock().await;
        let init = &container.init;
        if init.begin(Phase::Created).is_none() {
            return Err(refusal(Code::FailedPrecondition, "boltseal: the container was started already, or has ended"));
        }
        let parked = container.parked.lock().unwrap_or_else(PoisonError::into_inner).take();
        let released = match parked {
            Some(fds) => crate::release::release(&container.created, fds, deadline).await,
            None => Err(refusal(Code::FailedPrecondition, "boltseal: the container was started already")),
        };
        let pid = init.pid();
        match released {
            Ok(()) => {
                self.trail.add(&container.id, "", EventKind::Running { pid });
                let started = TaskStart { container_id: container.id.clone(), pid, ..Default::default() };
                self.events.publish(&started);
                init.settle(true);
                Ok(pid)
            }
            Err(refusal) => {
                self.trail.add(&container.id, "", EventKind::Aborted { reason: refusal.message.clone() });
                if let Err(e) = init.signal(Signal::SIGKILL as i32) {
                    self.log(&format!("{}: killing init: {e}", container.id));
                }
                init.settle(false);
                let _reaped = tokio::time::timeout(PATIENCE, init.wait()).await.is_ok();
                Err(refusal)
            }
        }
    }

    async fn start_exec(
        self: Arc<Self>,
        container: Arc<Container>,
        process: Arc<Process>,
        deadline: Duration,
    ) -> std::result::Result<u32, Refusal> {
        if container.init.phase() != Phase::Running {
            return Err(refusal(Code::FailedPrecondition, "boltseal: the container does not run"));
        }
        if container.paused.load(Ordering::Relaxed) {
            // It would be born frozen, and the gate would wait for it in vain.
            return Err(refusal(Code::FailedPrecondition, "boltseal: the container is paused"));
        }
        let Some(spec) = process.begin(Phase::Added) else {
            return Err(refusal(Code::FailedPrecondition, "boltseal: the process was started already"));
        };
        let born = self.bear(&container, &process, spec, deadline).await;
        if born.is_ok() {
            self.events.publish(&TaskExecStarted {
                container_id: container.id.clone(),
                exec_id: process.exec_id.clone(),
                pid: process.pid(),
                ..Default::default()
            });
        }
        process.settle(born.is_ok());
        born.map_err(Failure::into_refusal)
    }

    /// The gate's part of an exec's Start.
    async fn bear(
        self: &Arc<Self>,
        container: &Arc<Container>,
        process: &Arc<Process>,
        spec: Vec<u8>,
        deadline: Duration,
    ) -> std::result::Result<u32, Failure> {
        let broken = |e: std::io::Error| Failure::Broken(e.to_string());
        let mut prepared = prepare(&process.uris)
            .map_err(|e| Failure::Refused(refusal(Code::InvalidArgument, format!("boltseal: stdio: {e}"))))?;
        let exec = Exec { exec_id: process.exec_id.clone(), stdio: prepared.wire.clone(), process: spec };
        let theirs = std::mem::take(&mut prepared.theirs);
        let _pause = self.reaper.pause();
        let run = self.gate.run((&container.id, &container.bundle), Operation::Exec(exec), &theirs, deadline);
        let Answer { reply, fds } = match run.await {
            Ok(answer) => answer,
            Err(failure) => {
                if failure.leaves_remains() {
                    self.kill_strays(container);
                }
                return Err(failure);
            }
        };
        drop(theirs);
        let mut fds = fds.into_iter();
        let (Reply::Execed { pid }, Some(pidfd)) = (reply, fds.next()) else {
            return Err(Failure::Broken("a reply to another request".into()));
        };
        let pidfd = Arc::new(reap::watch(pidfd).map_err(broken)?);
        let on_loss = self.on_loss(&container.id, &process.exec_id);
        self.reaper.know(pid);
        let streams = prepared.start(fds.next(), &on_loss);
        let failed = streams.as_ref().err().map(ToString::to_string);
        process.born(pid, pidfd.clone(), streams.unwrap_or_default());
        tokio::spawn(follow(self.clone(), container.clone(), process.clone(), pidfd));
        match failed {
            None => Ok(pid),
            Some(why) => {
                if let Err(e) = process.signal(Signal::SIGKILL as i32) {
                    self.log(&format!("{}: killing {}: {e}", container.id, process.exec_id));
                }
                Err(Failure::Broken(why))
            }
        }
    }

    /// Kills what a gate that broke during an exec left in the container: our children in its cgroup that nobody named.
    fn kill_strays(&self, container: &Container) {
        use std::os::fd::AsFd as _;
        let children = crate::stdio::read_small("/proc/thread-self/children").unwrap_or_default();
        let inside = container.cgroup.pids().unwrap_or_default();
        for pid in children.split_whitespace().filter_map(|word| word.parse::<u32>().ok()) {
            if inside.contains(&pid) && !self.reaper.knows(pid) {
                let killed = crate::sys::pidfd_open(pid)
                    .and_then(|pidfd| crate::sys::pidfd_signal(pidfd.as_fd(), Signal::SIGKILL as i32));
                self.log(&format!("{}: killed pid {pid}, left by the gate: {killed:?}", container.id));
            }
        }
    }

    async fn delete_exec(
        self: Arc<Self>,
        container: Arc<Container>,
        process: Arc<Process>,
    ) -> std::result::Result<DeleteResponse, Refusal> {
        match process.phase() {
            // Never started: whoever waits for it shall not wait for ever.
            Phase::Added => {
                if process.begin(Phase::Added).is_some() {
                    process.settle(false);
                }
            }
            Phase::Stopped => {}
            _ => return Err(refusal(Code::FailedPrecondition, "boltseal: the process still runs")),
        }
        let exit = process.wait().await;
        process.drain(DRAIN).await;
        container.execs().remove(&process.exec_id);
        Ok(deleted(process.pid(), exit))
    }

    async fn delete_init(
        self: Arc<Self>,
        container: Arc<Container>,
        deadline: Duration,
    ) -> std::result::Result<DeleteResponse, Refusal> {
        let _turn = container.turn.lock().await;
        // Another Delete may have been faster.
        self.container(&container.id)?;
        let init = &container.init;
        match init.phase() {
            Phase::Stopped => {}
            Phase::Created => {
                init.signal(Signal::SIGKILL as i32).map_err(failed)?;
            }
            _ => return Err(refusal(Code::FailedPrecondition, "boltseal: the container still runs")),
        }
        if tokio::time::timeout(PATIENCE, init.wait_told()).await.is_err() {
            return Err(refusal(Code::Unavailable, "boltseal: init has not ended yet"));
        }
        for process in container.all_execs() {
            process.drain(DRAIN / 4).await;
        }
        init.drain(DRAIN).await;
        let events = self.trail.take_of(&container.id);
        let operation = Operation::Delete { events: events.clone() };
        if let Err(failure) = self.gate.run((&container.id, &container.bundle), operation, &[], deadline).await {
            self.trail.put_back(events);
            return Err(failure.into_refusal());
        }
        self.containers().remove(&container.id);
        let exit = init.wait().await;
        let response = deleted(init.pid(), exit);
        self.events.publish(&TaskDelete {
            container_id: container.id.clone(),
            pid: response.pid,
            exit_status: response.exit_status,
            exited_at: response.exited_at.clone(),
            ..Default::default()
        });
        Ok(response)
    }

    /// Delete of a container that the gate still works on.
    async fn delete_unborn(
        self: Arc<Self>,
        id: String,
        cancel: Arc<Notify>,
    ) -> std::result::Result<DeleteResponse, Refusal> {
        cancel.notify_one();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while matches!(self.containers().get(&id), Some(Entry::Creating(_))) {
            if tokio::time::Instant::now() > deadline {
                return Err(refusal(Code::Unavailable, "boltseal: the container is being created"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(refusal(Code::NotFound, format!("boltseal: no container {id}")))
    }
}

fn check_id(id: &str) -> std::result::Result<(), Refusal> {
    let fits = !id.is_empty() && id.len() <= MAX_ID && id != "." && id != ".." && !id.contains(['/', '\0']);
    if fits { Ok(()) } else { Err(refusal(Code::InvalidArgument, format!("boltseal: {id:?} is not an id"))) }
}

fn create_operation(request: &CreateTaskRequest, stdio: boltseal_message::Stdio) -> Create {
    let mount = |mount: &containerd_shim_protos::types::mount::Mount| Mount {
        kind: mount.type_.clone(),
        source: mount.source.clone(),
        target: mount.target.clone(),
        options: mount.options.clone(),
    };
    Create {
        rootfs: request.rootfs.iter().map(mount).collect(),
        stdio,
        options: request.options.as_ref().map(|any| (any.type_url.clone(), any.value.clone())).unwrap_or_default(),
        checkpoint: request.checkpoint.clone(),
        parent_checkpoint: request.parent_checkpoint.clone(),
    }
}

fn created_event(request: CreateTaskRequest, pid: u32) -> TaskCreate {
    let io = TaskIO {
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr,
        terminal: request.terminal,
        ..Default::default()
    };
    let mut event = TaskCreate {
        container_id: request.id,
        bundle: request.bundle,
        io: Some(io).into(),
        checkpoint: request.checkpoint,
        pid,
        ..Default::default()
    };
    // The events' Mount and the request's are one message, generated twice; the former's type has no public name.
    event.rootfs.resize_with(request.rootfs.len(), Default::default);
    for (copy, mount) in event.rootfs.iter_mut().zip(request.rootfs) {
        (copy.type_, copy.source, copy.target, copy.options) = (mount.type_, mount.source, mount.target, mount.options);
    }
    event
}

fn deleted(pid: u32, exit: Exit) -> DeleteResponse {
    DeleteResponse { pid, exit_status: exit.status, exited_at: Some(exit.at).into(), ..Default::default() }
}

#[async_trait]
impl Task for Service {
    async fn create(&self, context: &TtrpcContext, request: CreateTaskRequest) -> Result<CreateTaskResponse> {
        let pid = whole(self.0.clone().create(request, deadline(context))).await?;
        Ok(CreateTaskResponse { pid, ..Default::default() })
    }

    async fn start(&self, context: &TtrpcContext, request: StartRequest) -> Result<StartResponse> {
        let (container, process) = self.0.process(&request.id, &request.exec_id).map_err(status)?;
        let (shim, deadline) = (self.0.clone(), deadline(context));
        let pid = if request.exec_id.is_empty() {
            whole(shim.start_init(container, deadline)).await?
        } else {
            whole(shim.start_exec(container, process, deadline)).await?
        };
        Ok(StartResponse { pid, ..Default::default() })
    }

    async fn delete(&self, context: &TtrpcContext, request: DeleteRequest) -> Result<DeleteResponse> {
        let entry = self.0.containers().get(&request.id).cloned();
        if let Some(Entry::Creating(cancel)) = entry {
            return whole(self.0.clone().delete_unborn(request.id, cancel)).await;
        }
        let (container, process) = self.0.process(&request.id, &request.exec_id).map_err(status)?;
        if request.exec_id.is_empty() {
            whole(self.0.clone().delete_init(container, deadline(context))).await
        } else {
            whole(self.0.clone().delete_exec(container, process)).await
        }
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> Result<Empty> {
        let container = self.0.container(&request.id).map_err(status)?;
        check_id(&request.exec_id).map_err(status)?;
        if container.init.phase() == Phase::Stopped {
            return Err(status(refusal(Code::FailedPrecondition, "boltseal: the container has ended")));
        }
        let spec = request.spec.into_option().map(|any| any.value).unwrap_or_default();
        if spec.len() > boltseal_message::MAX_BYTES {
            return Err(status(refusal(Code::InvalidArgument, "boltseal: a process of more than 1 MiB")));
        }
        let uris =
            Uris { terminal: request.terminal, stdin: request.stdin, stdout: request.stdout, stderr: request.stderr };
        match container.execs().entry(request.exec_id.clone()) {
            hash_map::Entry::Occupied(_) => {
                let message = format!("boltseal: process {} exists already", request.exec_id);
                return Err(status(refusal(Code::AlreadyExists, message)));
            }
            hash_map::Entry::Vacant(free) => free.insert(Arc::new(Process::exec(request.exec_id.clone(), uris, spec))),
        };
        let added = TaskExecAdded { container_id: request.id, exec_id: request.exec_id, ..Default::default() };
        self.0.events.publish(&added);
        Ok(Empty::default())
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> Result<StateResponse> {
        let (container, process) = self.0.process(&request.id, &request.exec_id).map_err(status)?;
        let status = match process.phase() {
            Phase::Added | Phase::Created | Phase::Starting => Status::CREATED,
            Phase::Running if container.paused.load(Ordering::Relaxed) => Status::PAUSED,
            Phase::Running => Status::RUNNING,
            Phase::Stopped => Status::STOPPED,
        };
        let exit = process.exited();
        Ok(StateResponse {
            id: request.id,
            bundle: container.bundle.to_string_lossy().into_owned(),
            pid: process.pid(),
            status: status.into(),
            stdin: process.uris.stdin.clone(),
            stdout: process.uris.stdout.clone(),
            stderr: process.uris.stderr.clone(),
            terminal: process.uris.terminal,
            exit_status: exit.as_ref().map_or(0, |exit| exit.status),
            exited_at: exit.map(|exit| exit.at).into(),
            exec_id: request.exec_id,
            ..Default::default()
        })
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> Result<WaitResponse> {
        let (_, process) = self.0.process(&request.id, &request.exec_id).map_err(status)?;
        let exit = process.wait().await;
        Ok(WaitResponse { exit_status: exit.status, exited_at: Some(exit.at).into(), ..Default::default() })
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> Result<Empty> {
        let (container, process) = self.0.process(&request.id, &request.exec_id).map_err(status)?;
        let signal = i32::try_from(request.signal).unwrap_or(-1);
        if !(0..=libc::SIGRTMAX()).contains(&signal) {
            return Err(status(refusal(Code::InvalidArgument, format!("boltseal: {} is no signal", request.signal))));
        }
        let shim = self.0.clone();
        whole(async move {
            if request.all {
                container.cgroup.signal(signal).await.map_err(failed)?;
            } else {
                match process.phase() {
                    Phase::Added => {
                        return Err(refusal(Code::FailedPrecondition, "boltseal: the process was not started"));
                    }
                    Phase::Stopped => return Err(refusal(Code::NotFound, "boltseal: the process has ended already")),
                    _ => {}
                }
                match process.signal(signal) {
                    Err(e) if e.raw_os_error() == Some(libc::ESRCH) || e.kind() == std::io::ErrorKind::NotFound => {
                        return Err(refusal(Code::NotFound, "boltseal: the process has ended already"));
                    }
                    other => other.map_err(failed)?,
                }
            }
            // A frozen process does not die.
            if signal == Signal::SIGKILL as i32 && container.paused.swap(false, Ordering::Relaxed) {
                container.cgroup.freeze(false).await.map_err(failed)?;
                shim.events.publish(&TaskResumed { container_id: container.id.clone(), ..Default::default() });
            }
            Ok(Empty::default())
        })
        .await
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> Result<PidsResponse> {
        let container = self.0.container(&request.id).map_err(status)?;
        let pids = match container.cgroup.pids() {
            Ok(pids) => pids,
            // The cgroup may be gone with its last process.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(status(failed(e))),
        };
        let execs = container.all_execs();
        let info = |pid: u32| {
            let exec = execs.iter().find(|exec| exec.pid() == pid && exec.phase() == Phase::Running)?;
            let details = ProcessDetails { exec_id: exec.exec_id.clone(), ..Default::default() };
            let value = details.write_to_bytes().ok()?;
            Some(Any { type_url: "containerd.runc.v1.ProcessDetails".into(), value, ..Default::default() })
        };
        let process = |pid: u32| ProcessInfo { pid, info: info(pid).into(), ..Default::default() };
        Ok(PidsResponse { processes: pids.into_iter().map(process).collect(), ..Default::default() })
    }

    async fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> Result<Empty> {
        let container = self.0.container(&request.id).map_err(status)?;
        let shim = self.0.clone();
        whole(async move {
            let _turn = container.turn.lock().await;
            if container.init.phase() != Phase::Running {
                return Err(refusal(Code::FailedPrecondition, "boltseal: the container does not run"));
            }
            container.cgroup.freeze(true).await.map_err(failed)?;
            container.paused.store(true, Ordering::Relaxed);
            shim.events.publish(&TaskPaused { container_id: container.id.clone(), ..Default::default() });
            Ok(Empty::default())
        })
        .await
    }

    async fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> Result<Empty> {
        let container = self.0.container(&request.id).map_err(status)?;
        let shim = self.0.clone();
        whole(async move {
            let _turn = container.turn.lock().await;
            container.cgroup.freeze(false).await.map_err(failed)?;
            container.paused.store(false, Ordering::Relaxed);
            shim.events.publish(&TaskResumed { container_id: container.id.clone(), ..Default::default() });
            Ok(Empty::default())
        })
        .await
    }

    async fn checkpoint(&self, _: &TtrpcContext, _: CheckpointTaskRequest) -> Result<Empty> {
        let message = "boltseal: containers are not checkpointed: a restored one could not be judged";
        Err(Error::RpcStatus(get_status(ttrpc::Code::UNIMPLEMENTED, message)))
    }

    async fn update(&self, context: &TtrpcContext, request: UpdateTaskRequest) -> Result<Empty> {
        let container = self.0.container(&request.id).map_err(status)?;
        let (shim, deadline) = (self.0.clone(), deadline(context));
        let resources = request.resources.into_option().map(|any| any.value).unwrap_or_default();
        if resources.len() > boltseal_message::MAX_BYTES {
            return Err(status(refusal(Code::InvalidArgument, "boltseal: resources of more than 1 MiB")));
        }
        whole(async move {
            let _turn = container.turn.lock().await;
            let operation = Operation::Update { resources };
            let run = shim.gate.run((&container.id, &container.bundle), operation, &[], deadline);
            run.await.map_err(Failure::into_refusal)?;
            Ok(Empty::default())
        })
        .await
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> Result<StatsResponse> {
        let container = self.0.container(&request.id).map_err(status)?;
        let stats = stats::stats(&container.cgroup).map_err(|e| status(failed(e)))?;
        Ok(StatsResponse { stats: Some(stats).into(), ..Default::default() })
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> Result<Empty> {
        let (_, process) = self.0.process(&request.id, &request.exec_id).map_err(status)?;
        match process.with_streams(|streams| streams.resize(request.width, request.height)) {
            Some(Ok(())) => Ok(Empty::default()),
            Some(Err(e)) => Err(status(refusal(Code::FailedPrecondition, format!("boltseal: resize: {e}")))),
            None => Err(status(refusal(Code::FailedPrecondition, "boltseal: the process has no terminal now"))),
        }
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> Result<Empty> {
        let (_, process) = self.0.process(&request.id, &request.exec_id).map_err(status)?;
        if request.stdin {
            let _had_streams = process.with_streams(crate::stdio::Streams::close_stdin).is_some();
        }
        Ok(Empty::default())
    }

    async fn connect(&self, _: &TtrpcContext, request: ConnectRequest) -> Result<ConnectResponse> {
        // An unknown id is no error: a containerd that comes back asks so whether we live.
        let task_pid = self.0.container(&request.id).map_or(0, |container| container.init.pid());
        Ok(ConnectResponse { shim_pid: std::process::id(), task_pid, ..Default::default() })
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> Result<Empty> {
        // The other containers of the pod need us still.
        if self.0.containers().is_empty() {
            self.0.end.notify_one();
        }
        Ok(Empty::default())
    }
}
