//! One container and its processes: what phase each is in, and the order in which its end is told.
//!
//! Order that containerd relies on: create < start < exit < delete; an OOM before the exit that it caused; the exit of
//! init last of all. So a process is reaped only when no Start is under way (`settled`), and the exit of init is told
//! when every other process's has been (`told`).

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use boltseal_message::{Created, EventKind};
use containerd_shim_protos::events::task::{TaskExit, TaskOOM};
use nix::sys::signal::Signal;
use protobuf::well_known_types::timestamp::Timestamp;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use crate::cgroup::Cgroup;
use crate::events::now;
use crate::network::Watch;
use crate::serve::Shim;
use crate::stdio::{Streams, Uris};
use crate::sys;

/// How long the exit of init waits for the exits of other processes.
const LAST: Duration = Duration::from_secs(5);
/// Status of a process whose own nobody can tell any more.
const UNKNOWN_STATUS: u32 = 255;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// An exec that was asked for.
    Added,
    /// Init, parked.
    Created,
    /// A Start is under way.
    Starting,
    Running,
    Stopped,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Exit {
    pub(crate) status: u32,
    pub(crate) at: Timestamp,
}

#[derive(Debug)]
pub(crate) struct Process {
    /// Empty for init.
    pub(crate) exec_id: String,
    pub(crate) uris: Uris,
    live: Mutex<Live>,
    exit: watch::Sender<Option<Exit>>,
    /// No Start is under way.
    settled: watch::Sender<bool>,
    /// Its exit has been told, or there is none to tell.
    told: watch::Sender<bool>,
}

#[derive(Debug)]
struct Live {
    phase: Phase,
    pid: u32,
    pidfd: Option<Arc<AsyncFd<OwnedFd>>>,
    streams: Option<Streams>,
    /// An exec's OCI Process, until it is started.
    spec: Vec<u8>,
}

impl Process {
    pub(crate) fn init(uris: Uris, pid: u32, pidfd: Arc<AsyncFd<OwnedFd>>, streams: Streams) -> Self {
        let live = Live { phase: Phase::Created, pid, pidfd: Some(pidfd), streams: Some(streams), spec: Vec::new() };
        Self::with(String::new(), uris, live, false)
    }

    pub(crate) fn exec(exec_id: String, uris: Uris, spec: Vec<u8>) -> Self {
        let live = Live { phase: Phase::Added, pid: 0, pidfd: None, streams: None, spec };
        Self::with(exec_id, uris, live, true)
    }

    fn with(exec_id: String, uris: Uris, live: Live, told: bool) -> Self {
        Self {
            exec_id,
            uris,
            live: Mutex::new(live),
            exit: watch::Sender::new(None),
            settled: watch::Sender::new(true),
            told: watch::Sender::new(told),
        }
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn phase(&self) -> Phase {
        self.live().phase
    }

    pub(crate) fn pid(&self) -> u32 {
        self.live().pid
    }

    pub(crate) fn exited(&self) -> Option<Exit> {
        self.exit.borrow().clone()
    }

    /// Takes the one Start that a process has: from `from` to Starting. The spec of an exec comes with it.
    pub(crate) fn begin(&self, from: Phase) -> Option<Vec<u8>> {
        let mut live = self.live();
        if live.phase != from {
            return None;
        }
        live.phase = Phase::Starting;
        self.settled.send_replace(false);
        Some(std::mem::take(&mut live.spec))
    }

    /// The exec'd process exists.
    pub(crate) fn born(&self, pid: u32, pidfd: Arc<AsyncFd<OwnedFd>>, streams: Streams) {
        let mut live = self.live();
        (live.pid, live.pidfd, live.streams) = (pid, Some(pidfd), Some(streams));
        self.told.send_replace(false);
    }

    /// The Start is over: it runs, or (then it has been killed, or never was) it does not.
    pub(crate) fn settle(&self, running: bool) {
        let mut live = self.live();
        if running {
            live.phase = Phase::Running;
        } else if live.pid == 0 {
            live.phase = Phase::Stopped;
            self.exit.send_replace(Some(Exit { status: UNKNOWN_STATUS, at: now() }));
        }
        drop(live);
        self.settled.send_replace(true);
    }

    pub(crate) fn signal(&self, signal: i32) -> io::Result<()> {
        let live = self.live();
        let pidfd = live.pidfd.as_ref().ok_or(io::ErrorKind::NotFound)?;
        sys::pidfd_signal(pidfd.get_ref().as_fd(), signal)
    }

    pub(crate) fn with_streams<T>(&self, act: impl FnOnce(&Streams) -> T) -> Option<T> {
        self.live().streams.as_ref().map(act)
    }

    /// Waits until it has ended.
    pub(crate) async fn wait(&self) -> Exit {
        let mut exit = self.exit.subscribe();
        loop {
            if let Some(exit) = exit.borrow_and_update().clone() {
                return exit;
            }
            if exit.changed().await.is_err() {
                return Exit { status: UNKNOWN_STATUS, at: now() };
            }
        }
    }

    /// Waits until its exit has been told.
    pub(crate) async fn wait_told(&self) {
        wait_true(&self.told).await;
    }

    /// Lets output be delivered, at most so long, then closes all streams.
    pub(crate) async fn drain(&self, at_most: Duration) {
        let streams = self.live().streams.take();
        if let Some(streams) = streams {
            streams.drain(at_most).await;
        }
    }
}

async fn wait_true(flag: &watch::Sender<bool>) {
    // The sender is borrowed, so it lives as long as this waits.
    let _set = flag.subscribe().wait_for(|set| *set).await.is_ok();
}

#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) created: Created,
    pub(crate) cgroup: Cgroup,
    pub(crate) init: Arc<Process>,
    /// Release socket and exec-status pipe of the parked init.
    pub(crate) parked: Mutex<Option<(OwnedFd, OwnedFd)>>,
    pub(crate) execs: Mutex<HashMap<String, Arc<Process>>>,
    /// Start, Pause, Resume and Delete of the container, one at a time.
    pub(crate) turn: tokio::sync::Mutex<()>,
    pub(crate) paused: AtomicBool,
    oom_kills: AtomicU64,
    /// Over its network, where the policy asks for one.
    pub(crate) watch: Option<Watch>,
}

impl Container {
    pub(crate) fn new(
        id: String,
        bundle: PathBuf,
        created: Created,
        init: Process,
        parked: (OwnedFd, OwnedFd),
    ) -> Self {
        let cgroup = Cgroup::new(&created.cgroups);
        Self {
            id,
            bundle,
            created,
            cgroup,
            init: Arc::new(init),
            parked: Mutex::new(Some(parked)),
            execs: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            paused: AtomicBool::new(false),
            oom_kills: AtomicU64::new(0),
            watch: None,
        }
    }

    pub(crate) fn execs(&self) -> MutexGuard<'_, HashMap<String, Arc<Process>>> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn all_execs(&self) -> Vec<Arc<Process>> {
        self.execs().values().cloned().collect()
    }

    /// Tells what its network's programs have told so far.
    pub(crate) fn hear_out(&self, shim: &Shim) {
        if let Some(watch) = &self.watch {
            shim.hear_out(watch);
        }
    }

    /// Tells what the OOM killer did since we last looked.
    pub(crate) fn look_for_oom(&self, shim: &Shim) {
        let kills = self.cgroup.oom_kills();
        if kills > self.oom_kills.fetch_max(kills, Ordering::Relaxed) {
            shim.trail.add(&self.id, "", EventKind::OutOfMemory);
            shim.events.publish(&TaskOOM { container_id: self.id.clone(), ..Default::default() });
        }
    }
}

/// Waits for the end of a process, reaps it and tells it.
pub(crate) async fn follow(
    shim: Arc<Shim>,
    container: Arc<Container>,
    process: Arc<Process>,
    pidfd: Arc<AsyncFd<OwnedFd>>,
) {
    let pid = process.pid();
    match pidfd.readable().await {
        Ok(mut ready) => ready.retain_ready(),
        Err(e) => shim.log(&format!("{}: waiting for pid {pid}: {e}", container.id)),
    }
    wait_true(&process.settled).await;
    let status = match shim.reaper.wait(pid, &pidfd).await {
        Ok(status) => status.unwrap_or(UNKNOWN_STATUS),
        Err(e) => {
            shim.log(&format!("{}: reaping pid {pid}: {e}", container.id));
            UNKNOWN_STATUS
        }
    };
    let exit = Exit { status, at: now() };
    {
        let mut live = process.live();
        live.phase = Phase::Stopped;
        live.pidfd = None;
        if let Some(streams) = &live.streams {
            streams.end_input();
        }
    }
    process.exit.send_replace(Some(exit.clone()));
    let is_init = process.exec_id.is_empty();
    if is_init {
        if container.created.shared_pid_namespace {
            // Without a pid namespace the kernel ends nothing with init.
            if let Err(e) = container.cgroup.signal(Signal::SIGKILL as i32).await {
                shim.log(&format!("{}: killing what is left: {e}", container.id));
            }
        }
        let others = async {
            for exec in container.all_execs() {
                wait_true(&exec.settled).await;
                exec.wait_told().await;
            }
        };
        if tokio::time::timeout(LAST, others).await.is_err() {
            shim.log(&format!("{}: a process outlives init", container.id));
        }
    }
    container.look_for_oom(&shim);
    container.hear_out(&shim);
    shim.trail.add(&container.id, &process.exec_id, EventKind::Exited { pid, status });
    shim.events.publish(&TaskExit {
        container_id: container.id.clone(),
        id: if is_init { container.id.clone() } else { process.exec_id.clone() },
        pid,
        exit_status: status,
        exited_at: Some(exit.at).into(),
        ..Default::default()
    });
    process.told.send_replace(true);
}
