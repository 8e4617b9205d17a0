//! The CRI as kubelet speaks it for a pod whose RuntimeClass names a handler.
use crate::client::connect;
use crate::containerd;
use anyhow::Result;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Request, Status};

#[allow(
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::semicolon_if_nothing_returned,
    unused_qualifications,
    reason = "generated from proto/cri.proto"
)]
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}

use v1::image_service_client::ImageServiceClient;
use v1::runtime_service_client::RuntimeServiceClient;
use v1::{
    Capability, ContainerConfig, ContainerId, ContainerMetadata, ContainerStatus, CreateContainerRequest,
    ExecSyncRequest, ExecSyncResponse, ImageSpec, Int64Value, LinuxContainerConfig, LinuxContainerResources,
    LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceOption,
    PodSandboxConfig, PodSandboxId, PodSandboxMetadata, PullImageRequest, RunPodSandboxRequest, SecurityProfile,
    StopContainerRequest,
};

#[derive(Debug)]
pub struct Cri {
    runtime: tokio::runtime::Runtime,
    channel: Channel,
}

/// A pod as kubelet would describe it.
#[must_use]
pub fn pod(name: &str, logs: &Path, owner: Option<&str>) -> PodSandboxConfig {
    let annotations = owner.map(|owner| ("boltseal.dev/owner".to_owned(), owner.to_owned()));
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name.into(),
            uid: format!("uid-of-{name}"),
            namespace: "demo".into(),
            attempt: 0,
        }),
        hostname: name.into(),
        log_directory: logs.display().to_string(),
        annotations: annotations.into_iter().collect(),
        linux: Some(LinuxPodSandboxConfig {
            // kubelet makes and removes it; here it is one for all pods and stays.
            cgroup_parent: "/kubepods/pod".into(),
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(container_namespaces()),
                run_as_user: Some(Int64Value { value: 65532 }),
                run_as_group: Some(Int64Value { value: 65532 }),
                readonly_rootfs: true,
                seccomp: Some(SecurityProfile::default()),
                ..LinuxSandboxSecurityContext::default()
            }),
            ..LinuxPodSandboxConfig::default()
        }),
        ..PodSandboxConfig::default()
    }
}

/// Network and IPC of the pod, a process namespace per container: kubelet's default.
fn container_namespaces() -> NamespaceOption {
    NamespaceOption { pid: v1::NamespaceMode::Container.into(), ..NamespaceOption::default() }
}

/// A container of such a pod.
#[must_use]
pub fn container(name: &str, image: &str, args: &[&str], annotations: &HashMap<String, String>) -> ContainerConfig {
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: name.into(), attempt: 0 }),
        image: Some(ImageSpec { image: image.into(), ..ImageSpec::default() }),
        command: args.iter().map(ToString::to_string).collect(),
        annotations: annotations.clone(),
        log_path: format!("{name}.log"),
        linux: Some(LinuxContainerConfig {
            resources: Some(LinuxContainerResources {
                memory_limit_in_bytes: 134_217_728,
                cpu_shares: 512,
                oom_score_adj: 999,
                ..LinuxContainerResources::default()
            }),
            security_context: Some(LinuxContainerSecurityContext {
                capabilities: Some(Capability { drop_capabilities: vec!["ALL".into()], ..Capability::default() }),
                namespace_options: Some(container_namespaces()),
                run_as_user: Some(Int64Value { value: 65532 }),
                run_as_group: Some(Int64Value { value: 65532 }),
                readonly_rootfs: true,
                no_new_privs: true,
                seccomp: Some(SecurityProfile::default()),
                masked_paths: ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"]
                    .map(String::from)
                    .into(),
                readonly_paths: ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
                    .map(String::from)
                    .into(),
                ..LinuxContainerSecurityContext::default()
            }),
        }),
        ..ContainerConfig::default()
    }
}

impl Cri {
    pub fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let channel = connect(&runtime, containerd::SOCKET)?;
        Ok(Self { runtime, channel })
    }

    fn service(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone())
    }

    pub fn pull(&self, image: &str) -> Result<String, Status> {
        let message = PullImageRequest { image: Some(ImageSpec { image: image.into(), ..ImageSpec::default() }) };
        let mut service = ImageServiceClient::new(self.channel.clone());
        Ok(self.runtime.block_on(service.pull_image(message))?.into_inner().image_ref)
    }

    pub fn run_pod(&self, config: &PodSandboxConfig, handler: &str) -> Result<String, Status> {
        let message = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: handler.into() };
        let mut request = Request::new(message);
        request.set_timeout(Duration::from_secs(60));
        Ok(self.runtime.block_on(self.service().run_pod_sandbox(request))?.into_inner().pod_sandbox_id)
    }

    pub fn create(&self, pod: &str, sandbox: &PodSandboxConfig, config: &ContainerConfig) -> Result<String, Status> {
        let message = CreateContainerRequest {
            pod_sandbox_id: pod.into(),
            config: Some(config.clone()),
            sandbox_config: Some(sandbox.clone()),
        };
        Ok(self.runtime.block_on(self.service().create_container(message))?.into_inner().container_id)
    }

    pub fn start(&self, id: &str) -> Result<(), Status> {
        self.runtime.block_on(self.service().start_container(ContainerId { container_id: id.into() }))?;
        Ok(())
    }

    pub fn stop(&self, id: &str) -> Result<(), Status> {
        let message = StopContainerRequest { container_id: id.into(), timeout: 0 };
        self.runtime.block_on(self.service().stop_container(message))?;
        Ok(())
    }

    pub fn remove(&self, id: &str) -> Result<(), Status> {
        self.runtime.block_on(self.service().remove_container(ContainerId { container_id: id.into() }))?;
        Ok(())
    }

    pub fn status(&self, id: &str) -> Result<ContainerStatus, Status> {
        let message = ContainerId { container_id: id.into() };
        let answer = self.runtime.block_on(self.service().container_status(message))?.into_inner();
        answer.status.ok_or_else(|| Status::not_found(id))
    }

    pub fn reopen_log(&self, id: &str) -> Result<(), Status> {
        self.runtime.block_on(self.service().reopen_container_log(ContainerId { container_id: id.into() }))?;
        Ok(())
    }

    pub fn exec(&self, id: &str, args: &[&str]) -> Result<ExecSyncResponse, Status> {
        let message = ExecSyncRequest {
            container_id: id.into(),
            cmd: args.iter().map(ToString::to_string).collect(),
            timeout: 60,
        };
        Ok(self.runtime.block_on(self.service().exec_sync(message))?.into_inner())
    }

    /// The pod's own address; empty where it shares the host's network.
    pub fn address(&self, pod: &str) -> Result<String, Status> {
        let id = PodSandboxId { pod_sandbox_id: pod.into() };
        let answer = self.runtime.block_on(self.service().pod_sandbox_status(id))?.into_inner();
        Ok(answer.status.and_then(|status| status.network).map(|network| network.ip).unwrap_or_default())
    }

    /// Stops and removes the pod and all that is in it.
    pub fn remove_pod(&self, pod: &str) -> Result<(), Status> {
        let id = PodSandboxId { pod_sandbox_id: pod.into() };
        self.runtime.block_on(self.service().stop_pod_sandbox(id.clone()))?;
        self.runtime.block_on(self.service().remove_pod_sandbox(id))?;
        Ok(())
    }
}

/// The lines that a container wrote, without the CRI's own columns (time, stream, tag).
pub fn log_lines(logs: &Path, name: &str) -> Result<Vec<String>> {
    let path: PathBuf = logs.join(format!("{name}.log"));
    let text = fs::read_to_string(path)?;
    Ok(text.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).map(str::to_owned).collect())
}
