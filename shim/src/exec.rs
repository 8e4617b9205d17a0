//! Start of an exec'd process: a gate run, held to what was decided about its container.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use boltseal_message::{Code, Exec, Operation, Refusal, Reply};
use containerd_shim_protos::events::task::TaskExecStarted;
use nix::sys::signal::Signal;
use tokio::sync::SemaphorePermit;

use crate::process::{Container, Phase, Process, follow};
use crate::reap;
use crate::runtime::{Answer, Failure};
use crate::serve::Shim;
use crate::stdio::{prepare, read_small};
use crate::sys;
use crate::task::refusal;

/// Most gates that a pod has at work for execs at the same time; who comes next waits. Each may use a core.
pub(crate) const MAX_BIRTHS: usize = 4;
/// Most exec'd processes of a container that nobody has deleted: each keeps what it was asked for in our memory.
pub(crate) const MAX_EXECS: usize = 128;
/// Less time than a gate needs is no time.
const LEAST: Duration = Duration::from_millis(100);

impl Shim {
    /// Waits until few enough are being born. Answers with what is left of the time.
    async fn turn(&self, deadline: Duration) -> Result<(SemaphorePermit<'_>, Duration), Refusal> {
        let asked = Instant::now();
        let turn = tokio::time::timeout(deadline.saturating_sub(LEAST), self.births.acquire()).await;
        match turn {
            Ok(Ok(turn)) => Ok((turn, deadline.saturating_sub(asked.elapsed()))),
            Ok(Err(_)) | Err(_) => {
                let fact = format!("{MAX_BIRTHS} processes of this pod are being started already");
                Err(refusal(Code::Unavailable, format!("boltseal: {fact}. Fix: fewer execs at once")))
            }
        }
    }

    pub(crate) async fn start_exec(
        self: Arc<Self>,
        container: Arc<Container>,
        process: Arc<Process>,
        deadline: Duration,
    ) -> Result<u32, Refusal> {
        // First: while it waits the container may end or be paused.
        let (_turn, deadline) = self.turn(deadline).await?;
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
    ) -> Result<u32, Failure> {
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
        let (Reply::Execed { pid, traps }, Some(pidfd)) = (reply, fds.next()) else {
            return Err(Failure::Broken("a reply to another request".into()));
        };
        let pidfd = Arc::new(reap::watch(pidfd).map_err(broken)?);
        let on_loss = self.on_loss(&container.id, &process.exec_id);
        self.reaper.know(pid);
        let console = process.uris.terminal.then(|| fds.next()).flatten();
        let streams = prepared.start(console, &on_loss);
        if let Some(listener) = fds.next() {
            self.watch_traps(&container.id, listener, traps);
        }
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
        let children = read_small("/proc/thread-self/children").unwrap_or_default();
        let inside = container.cgroup.pids().unwrap_or_default();
        for pid in children.split_whitespace().filter_map(|word| word.parse::<u32>().ok()) {
            if inside.contains(&pid) && !self.reaper.knows(pid) {
                let killed =
                    sys::pidfd_open(pid).and_then(|pidfd| sys::pidfd_signal(pidfd.as_fd(), Signal::SIGKILL as i32));
                self.log(&format!("{}: killed pid {pid}, left by the gate: {killed:?}", container.id));
            }
        }
    }
}
