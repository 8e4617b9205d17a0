//! Delete: output is delivered, the gate removes what is left, and only then is the container forgotten.

use std::sync::Arc;
use std::time::Duration;

use boltseal_message::{Code, Operation, Refusal};
use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::events::task::TaskDelete;
use nix::sys::signal::Signal;
use tokio::sync::Notify;

use crate::process::{Container, Exit, Phase, Process};
use crate::runtime::Failure;
use crate::serve::{Entry, Shim};
use crate::task::{failed, refusal};

/// How long output may take to be delivered.
const DRAIN: Duration = Duration::from_secs(1);
/// How long to wait for the exit to be told, and for a Create that was cancelled.
const PATIENCE: Duration = Duration::from_secs(8);
/// So long an answer may take to leave.
const ANSWERED: Duration = Duration::from_millis(200);

impl Shim {
    pub(crate) async fn delete_exec(
        self: Arc<Self>,
        container: Arc<Container>,
        process: Arc<Process>,
    ) -> Result<DeleteResponse, Refusal> {
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

    pub(crate) async fn delete_init(
        self: Arc<Self>,
        container: Arc<Container>,
        deadline: Duration,
    ) -> Result<DeleteResponse, Refusal> {
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
        container.hear_out(&self);
        let events = self.trail.take_of(&container.id);
        let operation = Operation::Delete { events: events.clone() };
        match self.gate.run((&container.id, &container.bundle), operation, &[], deadline).await {
            Ok(_) => {}
            Err(Failure::NoStarter) => self.leave_behind(&container).await?,
            Err(failure) => {
                self.trail.put_back(events);
                return Err(failure.into_refusal());
            }
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

    /// Without a starter nobody can remove what the gate keeps of a container. Its processes end; what else there is waits for
    /// `shim delete`, which containerd calls for the pod's last container: then we end instead of answering well.
    async fn leave_behind(self: &Arc<Self>, container: &Container) -> Result<(), Refusal> {
        container.cgroup.signal(Signal::SIGKILL as i32).await.map_err(failed)?;
        if self.containers().len() > 1 {
            return self.left.add(&container.id).map_err(failed);
        }
        let shim = self.clone();
        tokio::spawn(async move {
            // First the answer.
            tokio::time::sleep(ANSWERED).await;
            shim.end.notify_one();
        });
        let message = "boltseal: the starter of this pod's gates has ended, so its shim ends now and containerd removes what is \
                       left. Fix: delete again";
        Err(refusal(Code::FailedPrecondition, message))
    }

    /// Delete of a container that the gate still works on.
    pub(crate) async fn delete_unborn(
        self: Arc<Self>,
        id: String,
        cancel: Arc<Notify>,
    ) -> Result<DeleteResponse, Refusal> {
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

fn deleted(pid: u32, exit: Exit) -> DeleteResponse {
    DeleteResponse { pid, exit_status: exit.status, exited_at: Some(exit.at).into(), ..Default::default() }
}
