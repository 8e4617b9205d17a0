//! One pod with one container, as kubelet would ask for it, and what the trail says of it.
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use stack::cri::v1::{ContainerConfig, ContainerState, KeyValue, Mount, PodSandboxConfig};
use stack::cri::{self, Cri, log_lines};
use stack::node::{World, trail};
use stack::policy::OWNER;
use stack::process::poll;
use stack::registry::ADDRESS;
use stack::since::Since;
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

/// How long a program may take to answer: the machine may be slow, and nothing is measured here.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// Findings that this kind of machine has whatever is started: no hardware TPM, maybe no LSM.
const OF_THE_MACHINE: [&str; 2] = ["BS-NOD-001", "BS-MAC-001"];

/// No capability is kept that the shipped policy does not keep, and `ci` may sign wherever the templates put their images.
pub(crate) fn default_policy(world: &mut World) -> Result<()> {
    let policy = &mut world.node.policy;
    policy.set("process.capabilities", Vec::<toml::Value>::new())?;
    for path in ["pause", "istio", "logging", "monitoring", "storage", "ml"] {
        policy.authorize("ci", &format!("{ADDRESS}/{path}"))?;
    }
    policy.set_scope(&format!("{ADDRESS}/pause"), "authorities", vec![toml::Value::from("ci")])?;
    policy.write()
}

/// Under boltseal and under runc, which leaves folders of its own.
pub(crate) fn first() -> Result<()> {
    let cri = Cri::new()?;
    for handler in ["boltseal", "runc"] {
        let id = cri.run_pod(&Pod::config("first")?, handler).with_context(|| format!("the first pod of {handler}"))?;
        cri.remove_pod(&id)?;
    }
    Ok(())
}

/// A running pod.
pub(crate) struct Pod {
    pub(crate) cri: Cri,
    pub(crate) sandbox: PodSandboxConfig,
    pub(crate) id: String,
}

impl Pod {
    fn config(name: &str) -> Result<PodSandboxConfig> {
        let logs = PathBuf::from(format!("/var/log/pods/demo_{name}"));
        fs::create_dir_all(&logs)?;
        Ok(cri::pod(name, &logs, Some(OWNER)))
    }

    /// `bend` changes the sandbox before it is asked for.
    pub(crate) fn run(name: &str, handler: &str, bend: impl FnOnce(&mut PodSandboxConfig)) -> Result<Self> {
        let cri = Cri::new()?;
        let mut sandbox = Self::config(name)?;
        bend(&mut sandbox);
        let id = cri.run_pod(&sandbox, handler).context("RunPodSandbox")?;
        Ok(Self { cri, sandbox, id })
    }

    /// An emptyDir as kubelet makes it, mounted at `at`.
    pub(crate) fn volume(&self, at: &str) -> Result<Mount> {
        let uid = self.sandbox.metadata.as_ref().map_or("", |metadata| metadata.uid.as_str());
        let name = at.trim_matches('/').replace('/', "-");
        let folder = PathBuf::from(format!("/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~empty-dir/{name}"));
        fs::create_dir_all(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
        Ok(Mount { container_path: at.into(), host_path: folder.display().to_string(), ..Mount::default() })
    }

    /// Creates and starts; what refuses it is the error.
    pub(crate) fn start(&self, config: &ContainerConfig) -> Result<String, tonic::Status> {
        let id = self.cri.create(&self.id, &self.sandbox, config)?;
        self.cri.start(&id)?;
        Ok(id)
    }

    /// Asks until there is an answer; when the container ends or patience does, its own last words are the error.
    pub(crate) fn answer<T>(&self, id: &str, name: &str, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
        let mut ended = None;
        let answer = poll("no answer", PATIENCE, || {
            if let Some(answer) = ask() {
                return Some(Some(answer));
            }
            match self.cri.status(id) {
                Ok(status) if status.state() == ContainerState::ContainerRunning => {
                    std::thread::sleep(Duration::from_millis(100));
                    None
                }
                Ok(status) => {
                    ended = Some(format!("it ended with {}", status.exit_code));
                    Some(None)
                }
                Err(error) => {
                    ended = Some(error.to_string());
                    Some(None)
                }
            }
        });
        match answer {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => bail!("{}: {}", ended.unwrap_or_default(), self.said(name)),
            Err(error) => bail!("{error}: {}", self.said(name)),
        }
    }

    /// The last lines that container `name` wrote.
    pub(crate) fn said(&self, name: &str) -> String {
        let lines = log_lines(self.sandbox.log_directory.as_ref(), name).unwrap_or_default();
        lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n")
    }

    /// Stops and removes it, its volumes and logs.
    pub(crate) fn end(self) -> Result<()> {
        self.cri.remove_pod(&self.id)?;
        let uid = self.sandbox.metadata.as_ref().map_or("", |metadata| metadata.uid.as_str());
        for folder in [format!("/var/lib/kubelet/pods/{uid}"), self.sandbox.log_directory.clone()] {
            if fs::exists(&folder)? {
                fs::remove_dir_all(&folder).context(folder)?;
            }
        }
        Ok(())
    }
}

/// A container of such a pod: not root, no capability, read-only root.
pub(crate) fn container(name: &str, image: &str, args: &[&str], env: &[(&str, &str)]) -> ContainerConfig {
    let mut config = cri::container(name, image, args, &HashMap::new());
    config.envs = env.iter().map(|(key, value)| KeyValue { key: (*key).into(), value: (*value).into() }).collect();
    config
}

/// The decision on container `id` and that it was started, from the trail. Answers with the ids of the allowances that were
/// used; a rule that only warned must be in `warned`.
pub(crate) fn allowed(id: &str, warned: &[&str]) -> Result<Vec<String>> {
    let records = trail()?;
    let decision = records
        .iter()
        .find(|r| r["what"]["id"] == id && r["ev"] == "decision" && r["decision"] == "allow")
        .context("the trail holds no decision that allows it")?;
    ensure!(
        records.iter().any(|r| r["ev"] == "started" && r["of"] == decision["id"]),
        "the trail does not say that it started"
    );
    let mut by = Vec::new();
    for finding in decision["findings"].as_array().context("no findings")? {
        let rule = finding["rule"].as_str().unwrap_or_default();
        match finding["outcome"].as_str().unwrap_or_default() {
            "pass" | "sealed" => {}
            "allowed" => by.push(finding["by"].as_str().unwrap_or_default().to_owned()),
            "excepted" if OF_THE_MACHINE.contains(&rule) => {}
            // Each of them runs a command of its pod, not of its image's config.
            "warn" if warned.contains(&rule) || rule == "BS-PRC-009" => {}
            other => bail!("{rule} ended as {other}: {finding}"),
        }
    }
    by.sort();
    by.dedup();
    Ok(by)
}

/// The rules that denied a container of this image, from the newest record that denies.
pub(crate) fn denied(image: &str, before: &Since) -> Result<Vec<String>> {
    let new = before.records()?;
    let decision = new
        .iter()
        .rev()
        .find(|r| r["decision"] == "deny" && r["what"]["image"].as_str().is_some_and(|name| name.contains(image)))
        .with_context(|| format!("the trail holds no denial of {image}"))?;
    let findings = decision["findings"].as_array().cloned().unwrap_or_default();
    let denies = findings.iter().filter(|f| f["outcome"] == "deny");
    let mut rules: Vec<String> = denies.filter_map(|f| f["rule"].as_str().map(str::to_owned)).collect();
    rules.dedup();
    let started = |r: &Value| r["ev"] == "started" && r["of"] == decision["id"];
    ensure!(!new.iter().any(started), "the trail says that it started");
    Ok(rules)
}
