//! A pod under test: the shim's binary beside the fake gate in a folder of its own, a fake events service, a client.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use containerd_shim_protos::api::*;
use containerd_shim_protos::events::task::TaskExit;
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim_async::{Client, Events, TaskClient, create_events};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use ttrpc::asynchronous::{Server, TtrpcContext};

pub(crate) const NAMESPACE: &str = "tests";
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test on one thread, in a mount namespace with a /run of its own.
pub(crate) fn isolated(test: impl Future<Output = ()>) {
    unshare(CloneFlags::CLONE_NEWNS).expect("these tests need root");
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    mount(Some("run"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[derive(Default)]
struct Heard(Arc<Mutex<Vec<Envelope>>>);

#[async_trait]
impl Events for Heard {
    async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
        let envelope = request.envelope.into_option().unwrap();
        assert_eq!(envelope.namespace, NAMESPACE);
        self.0.lock().unwrap().push(envelope);
        Ok(Empty::default())
    }
}

pub(crate) fn gate_state(id: &str) -> PathBuf {
    Path::new("/run/boltseal/0123456789abcdef").join(NAMESPACE).join(id)
}

/// Folders and binaries of one pod, before any shim runs.
pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("bs").tempdir().unwrap();
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).unwrap();
        fs::create_dir(folder.path().join("state")).unwrap();
        let shim = Path::new(env!("CARGO_BIN_EXE_containerd-shim-boltseal-v1"));
        let gate = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("examples/fake-gate");
        for (from, name) in [(shim, "containerd-shim-boltseal-v1"), (&gate, "boltseal-runtime")] {
            let to = bin.join(name);
            if fs::hard_link(from, &to).is_err() {
                fs::copy(from, &to).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
            }
        }
        Self { folder }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub(crate) fn events_socket(&self) -> PathBuf {
        self.folder.path().join("events.sock")
    }

    /// A bundle with its group and the fake gate's orders.
    pub(crate) fn bundle(&self, id: &str, group: &str, orders: &str) -> PathBuf {
        let bundle = self.state().join(id);
        fs::DirBuilder::new().mode(0o711).create(&bundle).unwrap();
        let config = format!(r#"{{"annotations":{{"io.kubernetes.cri.sandbox-id":"{group}"}}}}"#);
        fs::write(bundle.join("config.json"), config).unwrap();
        fs::write(bundle.join("gate"), orders).unwrap();
        // What the real gate would keep of it: without that, `delete` has nothing to ask the gate for.
        fs::create_dir_all(gate_state(id)).unwrap();
        bundle
    }

    /// Runs the shim's binary as containerd does.
    pub(crate) fn run(&self, id: &str, stdin: &[u8], args: &[&str]) -> Output {
        let mut child = Command::new(self.folder.path().join("bin/containerd-shim-boltseal-v1"))
            .args(["-namespace", NAMESPACE, "-address"])
            .arg(self.folder.path().join("containerd.sock"))
            .args(["-publish-binary", "/bin/false", "-id", id])
            .args(args)
            .current_dir(self.state().join(id))
            .env("TTRPC_ADDRESS", self.events_socket())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(stdin).unwrap();
        child.wait_with_output().unwrap()
    }

    pub(crate) fn start(&self, id: &str) -> String {
        let output = self.run(id, b"", &["start"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.stderr, b"", "containerd glues stderr to the address");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn lines(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.state().join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub(crate) fn trail(&self) -> Vec<String> {
        self.lines("trail")
    }
}

/// A running shim with a client.
pub(crate) struct Pod {
    pub(crate) place: Place,
    pub(crate) address: String,
    pub(crate) raw: Client,
    pub(crate) client: TaskClient,
    pub(crate) shim_pid: u32,
    heard: Arc<Mutex<Vec<Envelope>>>,
    server: Option<Server>,
}

impl Pod {
    /// A pod `pod` whose first container has that id too.
    pub(crate) async fn new(orders: &str) -> Self {
        let place = Place::new();
        place.bundle("pod", "pod", orders);
        Self::at(place).await
    }

    /// One whose bundle is there already.
    pub(crate) async fn at(place: Place) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let server = serve_events(&place, heard.clone()).await;
        let address = place.start("pod");
        let raw = Client::connect(&address).await.unwrap();
        let client = TaskClient::new(raw.clone());
        let request = ConnectRequest { id: "pod".into(), ..Default::default() };
        let shim_pid = client.connect(soon(), &request).await.unwrap().shim_pid;
        Self { place, address, raw, client, shim_pid, heard, server: Some(server) }
    }

    pub(crate) async fn stop_events(&mut self) {
        let mut server = self.server.take().unwrap();
        server.shutdown().await.unwrap();
        drop(server);
        fs::remove_file(self.place.events_socket()).unwrap();
    }

    pub(crate) async fn start_events(&mut self) {
        self.server = Some(serve_events(&self.place, self.heard.clone()).await);
    }

    pub(crate) fn create_request(&self, id: &str) -> CreateTaskRequest {
        let bundle = self.place.state().join(id).to_str().unwrap().to_owned();
        CreateTaskRequest { id: id.into(), bundle, ..Default::default() }
    }

    pub(crate) async fn create(&self, id: &str) -> ttrpc::Result<u32> {
        self.client.create(soon(), &self.create_request(id)).await.map(|response| response.pid)
    }

    pub(crate) async fn start(&self, id: &str, exec_id: &str) -> ttrpc::Result<u32> {
        let request = StartRequest { id: id.into(), exec_id: exec_id.into(), ..Default::default() };
        self.client.start(soon(), &request).await.map(|response| response.pid)
    }

    pub(crate) fn exec_request(&self, id: &str, exec_id: &str, args: &[&str]) -> ExecProcessRequest {
        let process = serde_json::json!({ "args": args });
        let spec = Any { type_url: "process".into(), value: process.to_string().into(), ..Default::default() };
        ExecProcessRequest { id: id.into(), exec_id: exec_id.into(), spec: Some(spec).into(), ..Default::default() }
    }

    pub(crate) async fn exec(&self, id: &str, exec_id: &str, args: &[&str]) -> ttrpc::Result<u32> {
        self.client.exec(soon(), &self.exec_request(id, exec_id, args)).await?;
        self.start(id, exec_id).await
    }

    pub(crate) async fn wait(&self, id: &str, exec_id: &str) -> ttrpc::Result<u32> {
        let request = WaitRequest { id: id.into(), exec_id: exec_id.into(), ..Default::default() };
        self.client.wait(soon(), &request).await.map(|response| response.exit_status)
    }

    pub(crate) async fn delete(&self, id: &str, exec_id: &str) -> ttrpc::Result<DeleteResponse> {
        let request = DeleteRequest { id: id.into(), exec_id: exec_id.into(), ..Default::default() };
        self.client.delete(soon(), &request).await
    }

    pub(crate) async fn kill(&self, id: &str, exec_id: &str, signal: u32, all: bool) -> ttrpc::Result<Empty> {
        let request = KillRequest { id: id.into(), exec_id: exec_id.into(), signal, all, ..Default::default() };
        self.client.kill(soon(), &request).await
    }

    pub(crate) async fn state(&self, id: &str, exec_id: &str) -> ttrpc::Result<StateResponse> {
        let request = StateRequest { id: id.into(), exec_id: exec_id.into(), ..Default::default() };
        self.client.state(soon(), &request).await
    }

    pub(crate) async fn kill_and_delete(&self, id: &str) {
        self.kill(id, "", 9, false).await.unwrap();
        self.wait(id, "").await.unwrap();
        self.delete(id, "").await.unwrap();
    }

    /// Topics without `/tasks/`, in the order of arrival.
    pub(crate) fn topics(&self) -> Vec<String> {
        let heard = self.heard.lock().unwrap();
        heard.iter().map(|envelope| envelope.topic.trim_start_matches("/tasks/").to_owned()).collect()
    }

    pub(crate) async fn wait_topics(&self, expected: &[&str]) {
        let good = eventually(|| self.topics() == expected).await;
        assert!(good, "heard {:?}, not {expected:?}", self.topics());
    }

    /// (id, status) of each exit heard.
    pub(crate) fn exits(&self) -> Vec<(String, u32)> {
        let heard = self.heard.lock().unwrap();
        let exits = heard.iter().filter(|envelope| envelope.topic == "/tasks/exit");
        let exit = |envelope: &Envelope| {
            assert_eq!(envelope.event.type_url, "containerd.events.TaskExit");
            let exit = TaskExit::parse_from_bytes(&envelope.event.value).unwrap();
            (exit.id, exit.exit_status)
        };
        exits.map(exit).collect()
    }

    /// Ends the shim as containerd does, and sees that nothing is left.
    pub(crate) async fn shut_down(mut self) {
        let request = ShutdownRequest { id: "pod".into(), ..Default::default() };
        self.client.shutdown(soon(), &request).await.unwrap();
        let pid = self.shim_pid;
        assert!(eventually(|| !alive(pid)).await, "the shim does not end");
        assert!(!Path::new(self.address.strip_prefix("unix://").unwrap()).exists(), "the socket is left");
        self.shim_pid = 0;
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if self.shim_pid == 0 {
            return;
        }
        // A failed test leaves no process behind.
        for pid in children(self.shim_pid).into_iter().chain([self.shim_pid]) {
            let pid = nix::unistd::Pid::from_raw(pid as i32);
            let _gone = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).is_err();
        }
    }
}

async fn serve_events(place: &Place, heard: Arc<Mutex<Vec<Envelope>>>) -> Server {
    let address = format!("unix://{}", place.events_socket().display());
    let service = create_events(Arc::new(Heard(heard)));
    let mut server = Server::new().bind(&address).unwrap().register_service(service);
    server.start().await.unwrap();
    server
}

pub(crate) fn soon() -> ttrpc::context::Context {
    ttrpc::context::with_duration(PATIENCE)
}

pub(crate) fn code(error: &ttrpc::Error) -> ttrpc::Code {
    match error {
        ttrpc::Error::RpcStatus(status) => status.code.enum_value().unwrap(),
        other => panic!("not a status: {other}"),
    }
}

pub(crate) fn message(error: &ttrpc::Error) -> String {
    match error {
        ttrpc::Error::RpcStatus(status) => status.message.clone(),
        other => panic!("not a status: {other}"),
    }
}

pub(crate) async fn eventually(mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if condition() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    condition()
}

/// Runs, and is no zombie.
pub(crate) fn alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// Those of the shim but its starter.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    all_children(pid).into_iter().filter(|pid| comm(*pid) != "shim-starter").collect()
}

pub(crate) fn starter(shim: u32) -> u32 {
    all_children(shim).into_iter().find(|pid| comm(*pid) == "shim-starter").expect("a starter")
}

fn comm(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

fn all_children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|word| word.parse().unwrap()).collect()
}
