//! containerd's gRPC as the tests speak it: blocking calls, one namespace, statuses kept as they came.
use anyhow::{Context, Result};
use containerd_client::services::v1::container::Runtime as RuntimeName;
use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{
    MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, ViewSnapshotRequest,
};
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{
    Container, CreateContainerRequest, CreateTaskRequest, DeleteContainerRequest, DeleteProcessRequest,
    DeleteTaskRequest, ExecProcessRequest, GetImageRequest, GetRequest, Image, KillRequest, ListPidsRequest,
    MetricsRequest, PauseTaskRequest, ResumeTaskRequest, StartRequest, UpdateImageRequest, UpdateTaskRequest,
    WaitRequest,
};
pub use containerd_client::types::{Descriptor, Mount};
use prost_types::Any;
use serde_json::Value;
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
pub use tonic::{Code, Status};

pub const BOLTSEAL: &str = "io.containerd.boltseal.v1";
pub const RUNC: &str = "io.containerd.runc.v2";
pub const SNAPSHOTTER: &str = "overlayfs";
const SPEC_URL: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
const PROCESS_URL: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
const RESOURCES_URL: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

/// Connects to a gRPC server on a unix socket.
pub fn connect(runtime: &tokio::runtime::Runtime, socket: &str) -> Result<Channel> {
    let path = PathBuf::from(socket);
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(tokio::net::UnixStream::connect(path).await?)) }
    });
    let endpoint = Endpoint::try_from("http://containerd")?;
    runtime.block_on(endpoint.connect_with_connector(connector)).with_context(|| socket.to_owned())
}

#[derive(Debug)]
pub struct Client {
    runtime: tokio::runtime::Runtime,
    channel: Channel,
    namespace: String,
}

/// One container as it will be asked for; a test bends it before it is sent.
#[derive(Debug, Clone)]
pub struct Request {
    pub id: String,
    /// Name of the image record.
    pub image: String,
    pub runtime: String,
    pub snapshotter: String,
    /// The container's snapshot; made of `parent` when the request is sent.
    pub key: String,
    pub parent: String,
    pub view: bool,
    pub spec: Value,
    /// Sent in place of `spec`, byte for byte.
    pub raw_spec: Option<Vec<u8>>,
    /// Bends the mounts that the snapshot service gave.
    pub rootfs: fn(&mut Vec<Mount>),
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    pub terminal: bool,
    pub checkpoint: Option<Descriptor>,
    pub labels: HashMap<String, String>,
}

impl Client {
    pub fn new(socket: &str, namespace: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let channel = connect(&runtime, socket)?;
        Ok(Self { runtime, channel, namespace: namespace.into() })
    }

    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Ok(value) = self.namespace.parse() {
            request.metadata_mut().insert("containerd-namespace", value);
        }
        request.set_timeout(Duration::from_secs(60));
        request
    }

    fn tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.channel.clone())
    }

    /// The container's record and its snapshot; answers with the mounts for the task.
    pub fn create_container(&self, request: &Request) -> Result<Vec<Mount>, Status> {
        let value = match &request.raw_spec {
            Some(bytes) => bytes.clone(),
            None => serde_json::to_vec(&request.spec).map_err(|error| Status::internal(error.to_string()))?,
        };
        let mounts = self.snapshot(request)?;
        let container = Container {
            id: request.id.clone(),
            labels: request.labels.clone(),
            image: request.image.clone(),
            runtime: Some(RuntimeName { name: request.runtime.clone(), options: None }),
            spec: Some(Any { type_url: SPEC_URL.into(), value }),
            snapshotter: request.snapshotter.clone(),
            snapshot_key: request.key.clone(),
            ..Container::default()
        };
        let message = CreateContainerRequest { container: Some(container) };
        let mut containers = ContainersClient::new(self.channel.clone()).max_decoding_message_size(64 << 20);
        self.runtime.block_on(containers.create(self.request(message)))?;
        Ok(mounts)
    }

    fn snapshot(&self, request: &Request) -> Result<Vec<Mount>, Status> {
        let (snapshotter, key, parent) = (request.snapshotter.clone(), request.key.clone(), request.parent.clone());
        let mut client = SnapshotsClient::new(self.channel.clone());
        // Until the container's record names it, the garbage collector would take it.
        let labels = HashMap::from([("containerd.io/gc.root".to_owned(), "test".to_owned())]);
        Ok(if request.view {
            let message = ViewSnapshotRequest { snapshotter, key, parent, labels };
            self.runtime.block_on(client.view(self.request(message)))?.into_inner().mounts
        } else {
            let message = PrepareSnapshotRequest { snapshotter, key, parent, labels };
            self.runtime.block_on(client.prepare(self.request(message)))?.into_inner().mounts
        })
    }

    pub fn mounts(&self, key: &str) -> Result<Vec<Mount>, Status> {
        let message = MountsRequest { snapshotter: SNAPSHOTTER.into(), key: key.into() };
        let mut client = SnapshotsClient::new(self.channel.clone());
        Ok(self.runtime.block_on(client.mounts(self.request(message)))?.into_inner().mounts)
    }

    /// Task Create; the pid of init.
    pub fn create_task(&self, request: &Request, mut rootfs: Vec<Mount>) -> Result<u32, Status> {
        (request.rootfs)(&mut rootfs);
        let message = CreateTaskRequest {
            container_id: request.id.clone(),
            rootfs,
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
            checkpoint: request.checkpoint.clone(),
            ..CreateTaskRequest::default()
        };
        Ok(self.runtime.block_on(self.tasks().create(self.request(message)))?.into_inner().pid)
    }

    /// Starts init, or the exec'd process `exec` (empty: init).
    pub fn start(&self, id: &str, exec: &str) -> Result<u32, Status> {
        let message = StartRequest { container_id: id.into(), exec_id: exec.into() };
        Ok(self.runtime.block_on(self.tasks().start(self.request(message)))?.into_inner().pid)
    }

    pub fn exec(&self, id: &str, exec: &str, process: &Value, stdout: &str) -> Result<(), Status> {
        let value = serde_json::to_vec(process).map_err(|error| Status::internal(error.to_string()))?;
        let message = ExecProcessRequest {
            container_id: id.into(),
            exec_id: exec.into(),
            stdout: stdout.into(),
            stderr: stdout.into(),
            spec: Some(Any { type_url: PROCESS_URL.into(), value }),
            ..ExecProcessRequest::default()
        };
        self.runtime.block_on(self.tasks().exec(self.request(message)))?;
        Ok(())
    }

    pub fn delete_exec(&self, id: &str, exec: &str) -> Result<u32, Status> {
        let message = DeleteProcessRequest { container_id: id.into(), exec_id: exec.into() };
        Ok(self.runtime.block_on(self.tasks().delete_process(self.request(message)))?.into_inner().exit_status)
    }

    pub fn kill(&self, id: &str, exec: &str, signal: u32, all: bool) -> Result<(), Status> {
        let message = KillRequest { container_id: id.into(), exec_id: exec.into(), signal, all };
        self.runtime.block_on(self.tasks().kill(self.request(message)))?;
        Ok(())
    }

    /// Exit status of init or of the exec'd process.
    pub fn wait(&self, id: &str, exec: &str) -> Result<u32, Status> {
        let message = WaitRequest { container_id: id.into(), exec_id: exec.into() };
        Ok(self.runtime.block_on(self.tasks().wait(self.request(message)))?.into_inner().exit_status)
    }

    pub fn delete_task(&self, id: &str) -> Result<u32, Status> {
        let message = DeleteTaskRequest { container_id: id.into() };
        Ok(self.runtime.block_on(self.tasks().delete(self.request(message)))?.into_inner().exit_status)
    }

    /// 0 unknown, 1 created, 2 running, 3 stopped, 4 paused, 5 pausing.
    pub fn state(&self, id: &str) -> Result<i32, Status> {
        let message = GetRequest { container_id: id.into(), ..GetRequest::default() };
        let answer = self.runtime.block_on(self.tasks().get(self.request(message)))?.into_inner();
        Ok(answer.process.map_or(0, |process| process.status))
    }

    pub fn pids(&self, id: &str) -> Result<Vec<u32>, Status> {
        let message = ListPidsRequest { container_id: id.into() };
        let answer = self.runtime.block_on(self.tasks().list_pids(self.request(message)))?.into_inner();
        Ok(answer.processes.iter().map(|process| process.pid).collect())
    }

    /// The metrics' type url and their size in bytes.
    pub fn stats(&self, id: &str) -> Result<(String, usize), Status> {
        let message = MetricsRequest { filters: vec![format!("id=={id}")] };
        let answer = self.runtime.block_on(self.tasks().metrics(self.request(message)))?.into_inner();
        let data = answer.metrics.into_iter().next().and_then(|metric| metric.data);
        Ok(data.map(|data| (data.type_url, data.value.len())).unwrap_or_default())
    }

    pub fn pause(&self, id: &str) -> Result<(), Status> {
        let message = PauseTaskRequest { container_id: id.into() };
        self.runtime.block_on(self.tasks().pause(self.request(message)))?;
        Ok(())
    }

    pub fn resume(&self, id: &str) -> Result<(), Status> {
        let message = ResumeTaskRequest { container_id: id.into() };
        self.runtime.block_on(self.tasks().resume(self.request(message)))?;
        Ok(())
    }

    pub fn update(&self, id: &str, resources: &Value) -> Result<(), Status> {
        let value = serde_json::to_vec(resources).map_err(|error| Status::internal(error.to_string()))?;
        let message = UpdateTaskRequest {
            container_id: id.into(),
            resources: Some(Any { type_url: RESOURCES_URL.into(), value }),
            ..UpdateTaskRequest::default()
        };
        self.runtime.block_on(self.tasks().update(self.request(message)))?;
        Ok(())
    }

    pub fn image(&self, name: &str) -> Result<Image, Status> {
        let message = GetImageRequest { name: name.into() };
        let answer = self.runtime.block_on(ImagesClient::new(self.channel.clone()).get(self.request(message)))?;
        answer.into_inner().image.ok_or_else(|| Status::not_found(name))
    }

    /// Points the name at another image: what a re-tag does.
    pub fn retag(&self, name: &str, to: &Image) -> Result<(), Status> {
        let image = Image { name: name.into(), target: to.target.clone(), ..to.clone() };
        let message = UpdateImageRequest { image: Some(image), ..UpdateImageRequest::default() };
        self.runtime.block_on(ImagesClient::new(self.channel.clone()).update(self.request(message)))?;
        Ok(())
    }

    /// Kills and removes whatever of the container is there; what was never made is no error.
    pub fn remove(&self, request: &Request) -> Result<(), Status> {
        let gone = |result: Result<(), Status>| match result {
            Err(status) if matches!(status.code(), Code::NotFound | Code::FailedPrecondition) => Ok(()),
            other => other,
        };
        if self.state(&request.id).is_ok() {
            gone(self.kill(&request.id, "", 9, true))?;
            gone(self.wait(&request.id, "").map(|_| ()))?;
            gone(self.delete_task(&request.id).map(|_| ()))?;
        }
        let message = DeleteContainerRequest { id: request.id.clone() };
        let mut containers = ContainersClient::new(self.channel.clone());
        gone(self.runtime.block_on(containers.delete(self.request(message))).map(|_| ()))?;
        let message = RemoveSnapshotRequest { snapshotter: request.snapshotter.clone(), key: request.key.clone() };
        let mut snapshots = SnapshotsClient::new(self.channel.clone());
        gone(self.runtime.block_on(snapshots.remove(self.request(message))).map(|_| ()))
    }
}
