//! The Task service. Whatever changes something runs as a task of its own: a caller that hangs up half-way (containerd
//! restarted) leaves a finished operation behind, never half of one.

use std::collections::hash_map;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use boltseal_message::{Code, EventKind, Operation, Refusal};
use containerd_shim_protos::api::*;
use containerd_shim_protos::events::task::{TaskExecAdded, TaskPaused, TaskResumed};
use containerd_shim_protos::shim::oci::ProcessDetails;
use containerd_shim_protos::shim_async::Task;
use containerd_shim_protos::types::task::{ProcessInfo, Status};
use nix::sys::signal::Signal;
use protobuf::Message as _;
use protobuf::well_known_types::any::Any;
use ttrpc::asynchronous::TtrpcContext;
use ttrpc::{Error, Result, get_status};

use crate::exec::MAX_EXECS;
use crate::process::{Container, Phase, Process};
use crate::runtime::{DEFAULT_DEADLINE, Failure};
use crate::serve::{Entry, Shim};
use crate::stats;
use crate::stdio::{OnLoss, Uris};

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

pub(crate) fn failed(e: impl std::fmt::Display) -> Refusal {
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
    pub(crate) fn container(&self, id: &str) -> std::result::Result<Arc<Container>, Refusal> {
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

    pub(crate) fn on_loss(self: &Arc<Self>, id: &str, exec_id: &str) -> OnLoss {
        let (shim, id, exec_id) = (self.clone(), id.to_owned(), exec_id.to_owned());
        Arc::new(move |bytes| shim.trail.add(&id, &exec_id, EventKind::LogDropped { bytes }))
    }
}

pub(crate) fn check_id(id: &str) -> std::result::Result<(), Refusal> {
    let fits = !id.is_empty() && id.len() <= MAX_ID && id != "." && id != ".." && !id.contains(['/', '\0']);
    if fits { Ok(()) } else { Err(refusal(Code::InvalidArgument, format!("boltseal: {id:?} is not an id"))) }
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
        let mut execs = container.execs();
        if execs.len() >= MAX_EXECS && !execs.contains_key(&request.exec_id) {
            let fact = format!("{MAX_EXECS} exec'd processes of this container were never deleted");
            return Err(status(refusal(Code::Unavailable, format!("boltseal: {fact}. Fix: delete those that ended"))));
        }
        match execs.entry(request.exec_id.clone()) {
            hash_map::Entry::Occupied(_) => {
                let message = format!("boltseal: process {} exists already", request.exec_id);
                return Err(status(refusal(Code::AlreadyExists, message)));
            }
            hash_map::Entry::Vacant(free) => free.insert(Arc::new(Process::exec(request.exec_id.clone(), uris, spec))),
        };
        drop(execs);
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
