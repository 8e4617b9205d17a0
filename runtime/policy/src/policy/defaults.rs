//! What is in force when a policy file says nothing.
use super::{
    AnomalyRules, BreakGlassRules, BundleRules, DeviceRules, ImageRules, LabelRules, LandlockRules, Level, LimitRules,
    MountRules, NodeRules, OwnerRules, Policy, ProcessRules, Registries, Sandbox, SensitivityRules, Traps,
    UserNamespaceRules, Watched, Whose,
};
use crate::standard;
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn level() -> Level {
    Level::Restricted
}

pub(super) fn need() -> usize {
    1
}

/// The level `restricted` that nothing passes yet: no authority, no registry, no owner, no node is named.
impl Default for Policy {
    fn default() -> Self {
        Self {
            version: 1,
            level: level(),
            signed_at: 0,
            modes: BTreeMap::new(),
            registries: Registries::default(),
            authorities: Vec::new(),
            scopes: Vec::new(),
            sandbox: Sandbox::default(),
            image: ImageRules::default(),
            process: ProcessRules::default(),
            limits: LimitRules::default(),
            label: LabelRules::default(),
            mounts: MountRules::default(),
            devices: DeviceRules::default(),
            owner: OwnerRules::default(),
            sensitivity: SensitivityRules::default(),
            break_glass: BreakGlassRules::default(),
            bundle: BundleRules::default(),
            node: NodeRules::default(),
            user_namespace: UserNamespaceRules::default(),
            landlock: LandlockRules::default(),
            anomalies: AnomalyRules::default(),
            allowances: Vec::new(),
            exceptions: Vec::new(),
        }
    }
}

impl Default for ImageRules {
    fn default() -> Self {
        Self {
            integrity: "unpacked".into(),
            snapshotters: vec!["overlayfs".into()],
            deny_digests: Vec::new(),
            age: None,
            vulnerabilities: None,
            sbom: None,
            provenance: None,
            secrets: None,
            bases: Vec::new(),
        }
    }
}

impl Default for ProcessRules {
    fn default() -> Self {
        Self {
            capabilities: BTreeSet::new(),
            sysctls: standard::SAFE_SYSCTLS.iter().map(ToString::to_string).collect(),
        }
    }
}

impl Default for LimitRules {
    fn default() -> Self {
        Self { memory: 512 << 20, pids: 1024 }
    }
}

impl Default for LabelRules {
    fn default() -> Self {
        Self { apparmor: vec!["boltseal-default".into()], selinux: vec!["boltseal_t".into(), "container_t".into()] }
    }
}

impl Default for MountRules {
    fn default() -> Self {
        Self {
            sensitive: standard::SENSITIVE.iter().map(ToString::to_string).collect(),
            tmpfs_size: 64 << 20,
            kubelet_root: standard::KUBELET_ROOT.into(),
            containerd_root: "/var/lib/containerd".into(),
            containerd_state: "/run/containerd".into(),
        }
    }
}

impl Default for OwnerRules {
    fn default() -> Self {
        Self { level: "annotation".into(), patterns: Vec::new(), token: None, grant: None, system: Vec::new() }
    }
}

impl Default for NodeRules {
    fn default() -> Self {
        Self {
            tpm: "/dev/tpmrm0".into(),
            attestation_key: String::new(),
            enrolled: String::new(),
            pcrs: BTreeMap::new(),
            cap: None,
            log: None,
            ear: None,
            ttl: 86_400,
        }
    }
}

impl Default for Traps {
    fn default() -> Self {
        Self::All(true)
    }
}

impl Default for AnomalyRules {
    /// What is refused is told. Who is confined has programs already; what is watched unasked must not cost everybody a start.
    fn default() -> Self {
        Self {
            syscalls: Traps::default(),
            network: Watched::Of(Whose::Confined),
            flows: Watched::All(false),
            port_scan: 20,
        }
    }
}

impl Default for UserNamespaceRules {
    /// Above what the host's own users have, and as many as kubelet gives a pod.
    fn default() -> Self {
        Self { min_host_id: standard::LEAST_IDS, max_size: standard::LEAST_IDS }
    }
}

impl Default for LandlockRules {
    /// ABI 4 (Linux 6.7): the first with TCP rights.
    fn default() -> Self {
        Self { abi: 4, ports: true }
    }
}
