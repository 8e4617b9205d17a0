//! Create: the gate decides and parks init; from then on the shim holds it.

use std::collections::hash_map;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use boltseal_message::{Code, Create, Created, Mount, Operation, Refusal, Reply};
use containerd_shim_protos::api::CreateTaskRequest;
use containerd_shim_protos::events::task::{TaskCreate, TaskIO};
use tokio::sync::Notify;

use crate::process::{Container, Phase, Process, follow};
use crate::reap;
use crate::runtime::{Answer, Failure};
use crate::serve::{Entry, Shim};
use crate::stdio::{OnLoss, Prepared, Uris, prepare};
use crate::task::{check_id, refusal};

/// How long the gate may take to sweep up after one that broke.
const SWEEP: Duration = Duration::from_secs(8);

impl Shim {
    pub(crate) async fn create(
        self: Arc<Self>,
        request: CreateTaskRequest,
        deadline: Duration,
    ) -> Result<u32, Refusal> {
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
    ) -> Result<Arc<Container>, Refusal> {
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
        bundle: &Path,
        uris: Uris,
        prepared: Prepared,
        (created, fds): (Created, Vec<OwnedFd>),
        on_loss: &OnLoss,
    ) -> Result<Arc<Container>, Failure> {
        let broken = |e: std::io::Error| Failure::Broken(e.to_string());
        let mut fds = fds.into_iter();
        let (Some(pidfd), Some(release), Some(exec_status)) = (fds.next(), fds.next(), fds.next()) else {
            return Err(Failure::Broken("too few fds".into()));
        };
        let pidfd = Arc::new(reap::watch(pidfd).map_err(broken)?);
        let console = uris.terminal.then(|| fds.next()).flatten();
        let streams = prepared.start(console, on_loss).map_err(broken)?;
        if let Some(listener) = (!created.traps.is_empty()).then(|| fds.next()).flatten() {
            self.watch_traps(id, listener, created.traps.clone());
        }
        let ring = (created.scan != 0).then(|| fds.next().zip(fds.next())).flatten();
        // Asked for and not to be had: nothing starts.
        let watch = ring.map(|ring| self.watch_network(id, ring, created.scan)).transpose().map_err(broken)?;
        let pid = created.pid;
        self.reaper.know(pid);
        let init = Process::init(uris, pid, pidfd.clone(), streams);
        let mut container = Container::new(id.into(), bundle.into(), created, init, (release, exec_status));
        container.watch = watch;
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
    async fn sweep(&self, id: &str, bundle: &Path) {
        let operation = Operation::Delete { events: self.trail.take_of(id) };
        if let Err(failure) = self.gate.run((id, bundle), operation, &[], SWEEP).await {
            self.log(&format!("{id}: sweeping up after the gate: {failure}"));
        }
    }
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
