//! The server: one thread, one ttrpc server for Task v2 and v3, and the tasks that wait for children, send events and
//! hand records over.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use containerd_shim_protos::shim_async::create_task;
use tokio::io::Interest;
use tokio::sync::{Notify, Semaphore};
use ttrpc::asynchronous::Server;
use ttrpc::asynchronous::transport::Listener;

use crate::armour;
use crate::events::Publisher;
use crate::exec::MAX_BIRTHS;
use crate::flags::Flags;
use crate::process::Container;
use crate::reap::{self, Reaper};
use crate::runtime::{Failure, Gate};
use crate::start;
use crate::starter::Starter;
use crate::sys;
use crate::task::Service;
use crate::trail::Trail;

const TASK_V2: &str = "containerd.task.v2.Task";
const TASK_V3: &str = "containerd.task.v3.Task";
/// How long the end waits for events and for records to be taken.
const FLUSH: Duration = Duration::from_secs(5);

/// What all of the shim shares. One thread: no lock is ever waited for, and none is held across an await.
#[derive(Debug)]
pub(crate) struct Shim {
    pub(crate) gate: Gate,
    pub(crate) events: Publisher,
    pub(crate) trail: Trail,
    pub(crate) reaper: Arc<Reaper>,
    containers: Mutex<HashMap<String, Entry>>,
    /// A turn for each exec that is being started.
    pub(crate) births: Semaphore,
    /// Somebody asked for the end and no container is left.
    pub(crate) end: Notify,
    pub(crate) left: Left,
    log: Log,
}

/// The containers that were deleted while no gate could be started, one line each, in a file of the first one's bundle: for
/// `shim delete`. Opened before nothing can be made any more.
#[derive(Debug)]
pub(crate) struct Left(File);

impl Left {
    pub(crate) const FILE: &str = "left";

    fn open(bundle: &Path) -> Result<Self> {
        let mut options = File::options();
        let file = options.append(true).create(true).mode(0o600).open(bundle.join(Self::FILE));
        file.map(Self).with_context(|| bundle.display().to_string())
    }

    pub(crate) fn add(&self, id: &str) -> std::io::Result<()> {
        (&self.0).write_all(format!("{id}\n").as_bytes())
    }
}

/// containerd's log of us, if there is one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Option<Arc<File>>);

impl Log {
    /// One line. Never blocks: a fifo that is full or unread loses it.
    pub(crate) fn line(&self, message: &str) {
        if let Some(mut log) = self.0.as_deref() {
            let line = format!("boltseal-shim: {}\n", message.replace('\n', " | "));
            let _taken = log.write(line.as_bytes()).is_ok();
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Entry {
    /// The gate is at work; the notification cancels it.
    Creating(Arc<Notify>),
    Ready(Arc<Container>),
}

impl Shim {
    pub(crate) fn containers(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One line for containerd's log.
    pub(crate) fn log(&self, message: &str) {
        self.log.line(message);
    }
}

pub(crate) fn serve(flags: &Flags) -> Result<()> {
    let listener = UnixListener::from(sys::take_passed_fd().context("the listener at fd 3")?);
    listener.set_nonblocking(true)?;
    // Neither we nor the gates, which inherit it, keep a file system busy.
    std::env::set_current_dir("/").context("chdir /")?;
    nix::sys::prctl::set_child_subreaper(true).context("PR_SET_CHILD_SUBREAPER")?;
    armour::drop_capabilities()?;
    let starter = Starter::new(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let ended = runtime.block_on(run(flags, listener, starter));
    // Tasks that still wait for a silent peer must not hold the end up.
    runtime.shutdown_background();
    ended
}

async fn run(flags: &Flags, listener: UnixListener, starter: Starter) -> Result<()> {
    let signals = reap::signals().context("signals")?;
    let reaper = Arc::new(Reaper::default());
    let bundle = PathBuf::from(&flags.bundle);
    let address = std::env::var("TTRPC_ADDRESS").context("TTRPC_ADDRESS")?;
    let log = Log(open_log(&bundle).map(Arc::new));
    let shim = Arc::new(Shim {
        gate: Gate::new(&flags.namespace, &flags.address, starter).with_log(log.clone()),
        events: Publisher::new(&flags.namespace, &address),
        trail: Trail::new(&flags.id, &bundle),
        reaper: reaper.clone(),
        containers: Mutex::default(),
        births: Semaphore::new(MAX_BIRTHS),
        end: Notify::new(),
        left: Left::open(&bundle)?,
        log,
    });
    let watched = sys::asynchronous(shim.gate.starter.control()?, Interest::READABLE)?;
    tokio::spawn({
        let shim = shim.clone();
        async move {
            let _ended = watched.readable().await.is_ok();
            shim.log(&Failure::NoStarter.to_string());
        }
    });
    let mut services = create_task(Arc::new(Service(shim.clone())));
    // The messages of v2 and v3 are the same: the same methods under the other name.
    let mut again = create_task(Arc::new(Service(shim.clone())));
    let v2 = again.remove(TASK_V3).context("the Task service under the name of v3")?;
    services.insert(TASK_V2.into(), v2);
    let listener = Listener::try_from(listener)?;
    let mut server = Server::new().add_listener(listener).register_service(services);
    // Whatever comes from outside is read after this.
    armour::confine(Path::new(flags.socket.strip_prefix("unix://").unwrap_or(&flags.socket)), &bundle)?;
    server.start().await?;

    let sender = tokio::spawn({
        let shim = shim.clone();
        async move { shim.events.run().await }
    });
    let recorder = tokio::spawn({
        let shim = shim.clone();
        async move { shim.trail.run(&shim.gate).await }
    });
    tokio::select! {
        () = shim.end.notified() => {}
        ended = reap::run(reaper, signals) => ended.context("waiting for children")?,
    }
    // From here on a new `start` gets a server of its own.
    remove_socket(&flags.socket)?;
    server.stop_listen().await;
    shim.events.flush(FLUSH).await;
    sender.abort();
    let _settled = tokio::time::timeout(FLUSH, shim.trail.settled()).await.is_ok();
    recorder.abort();
    if !shim.trail.is_empty() {
        let _handed_over = tokio::time::timeout(FLUSH, shim.trail.hand_over(&shim.gate)).await.is_ok();
    }
    Ok(())
}

fn remove_socket(address: &str) -> Result<()> {
    let path = Path::new(address.strip_prefix("unix://").unwrap_or(address));
    let Some(folder) = path.parent().filter(|_| !address.is_empty()) else { return Ok(()) };
    let _lock = start::lock_folder(folder)?;
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).with_context(|| path.display().to_string()),
        _ => Ok(()),
    }
}

/// The log fifo of the first container's bundle. containerd holds its reading end open.
fn open_log(bundle: &Path) -> Option<File> {
    File::options().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(bundle.join("log")).ok()
}
