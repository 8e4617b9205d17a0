//! What is known about one request: claims that the gate verified, plus what it observed itself.
//!
//! Every field that gathering can fail at is a [`Fact`]: a rule that meets `Unknown` denies and says why.
mod break_glass;
mod grant;
mod image;
mod node;
mod scan;

pub use crate::variable::Variable;
pub use break_glass::{BreakGlass, BreakGlasses};
pub use grant::{Grant, GrantedContainer, GrantedMount, OwnerGrant};
pub use image::{
    Attestation, Bom, CheckedLayer, Image, Provenance, Report, Rootfs, Said, Secret, Severity, Signature, Verity,
    VerityLayer,
};
pub use node::{BoundToken, Bundle, Kexec, Neighbour, Node, OwnerToken};
pub use scan::{Found, From as ScannedFrom, Kind as FoundKind, Scan};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A three-valued fact. `Absent` is knowledge (it is not there), `Unknown` is the lack of it, and says why; a reason that
/// begins with `timeout` makes the denial UNAVAILABLE.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact<T> {
    Is(T),
    Absent,
    Unknown(String),
}

/// A field that nobody filled in denies.
impl<T> Default for Fact<T> {
    fn default() -> Self {
        Self::Unknown("not gathered".into())
    }
}

impl<T> Fact<T> {
    pub fn is(&self) -> Option<&T> {
        match self {
            Self::Is(value) => Some(value),
            Self::Absent | Self::Unknown(_) => None,
        }
    }
}

/// Which door the request came through. Rules say which of them they rule on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Door {
    Create,
    Exec,
    Update,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    pub door: Door,
    /// Seconds since the epoch. Unknown when earlier than the last record of the trail or the policy's signing time.
    pub now: Fact<u64>,
    pub subject: Subject,
    pub image: Fact<Image>,
    pub rootfs: Fact<Rootfs>,
    /// What its layers hold. Absent: nobody asked ([`crate::scan::wanted`]).
    pub scan: Fact<Scan>,
    pub process: Process,
    /// For exec: what the container's own sealed record bounds it to.
    pub bound: Fact<Bound>,
    pub namespaces: Namespaces,
    pub user_namespace: Option<UserNamespace>,
    pub hooks: Vec<Hook>,
    /// A checkpoint to restore from was named.
    pub restore: bool,
    /// stdio URIs that would run a program (`binary://`), or that name a scheme that is not known.
    pub log_programs: Vec<String>,
    pub limits: Limits,
    pub sysctls: BTreeMap<String, String>,
    /// JSON paths of fields that are outside the sealed set, or that a reader would drop or misread (BS-PRC-008).
    pub foreign_fields: Vec<String>,
    pub mounts: Vec<Mount>,
    pub root: Root,
    pub devices: Devices,
    pub seccomp: Seccomp,
    pub label: Label,
    pub owner: Fact<String>,
    /// The pod's token, where the policy asks for one. Absent: it has none.
    pub owner_token: Fact<OwnerToken>,
    /// The pod's grant, where the policy asks for one. Absent: it has none.
    #[serde(default)]
    pub owner_grant: Fact<OwnerGrant>,
    /// What several people signed to let through here.
    #[serde(default)]
    pub break_glass: BreakGlasses,
    pub node: Fact<Node>,
    /// The policy bundle that judges. One that does not load at all denies before there are facts.
    pub bundle: Fact<Bundle>,
    pub kexec: Fact<Kexec>,
    /// What the pod's annotation `boltseal.dev/sensitivity` names. It narrows: nothing is granted for it.
    pub sensitivity: Fact<String>,
    /// The other containers that run on this node under boltseal, while nobody else starts one.
    pub neighbours: Fact<Vec<Neighbour>>,
    /// The pod's annotation `boltseal.dev/ports`, or the container's own, as it stands. It narrows: nothing is granted for it.
    pub ports: Fact<String>,
    /// Programs can be attached to a cgroup v2 folder of the container's own. Absent: this node has no cgroup v2.
    pub network_hooks: Fact<()>,
    /// Landlock ABI of this kernel; 0 without Landlock.
    pub landlock: Fact<u32>,
    /// Whether the trail can take a record now.
    pub audit: Fact<()>,
}

/// Whom it is about. Text for records and scopes; nothing here is evidence by itself but what its comment says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    pub containerd_namespace: String,
    pub id: String,
    pub exec_id: String,
    /// The image name in containerd's record: text, never identity.
    pub image_name: String,
    pub pod_namespace: String,
    pub pod_name: String,
    pub pod_uid: String,
    pub container_name: String,
    /// From containerd's record and our own record of the sandbox, not from the annotation.
    pub sandbox_id: String,
    /// Annotations, containerd's record and our own record of the sandbox disagree: one line each.
    pub disagreements: Vec<String>,
    /// CRI: this is a container or a sandbox of a pod.
    pub is_pod: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub args: Vec<String>,
    /// One per entry, a name that stands there twice among them.
    pub env: Vec<Variable>,
    /// The environment's PATH, where a program without a slash is looked for. Of no other variable the value can be read.
    #[serde(default)]
    pub search: Option<String>,
    pub cwd: String,
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
    pub terminal: bool,
    /// The five sets as the spec names them; None when the spec has no capabilities at all.
    pub capabilities: Option<Capabilities>,
    pub no_new_privileges: bool,
    pub oom_score_adj: Option<i32>,
    /// Lowest oom_score_adj that this process may set; None when any.
    pub oom_score_floor: Option<i32>,
    pub rlimits: BTreeMap<String, (u64, u64)>,
}

/// Names as `CAP_NET_BIND_SERVICE`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    pub bounding: BTreeSet<String>,
    pub effective: BTreeSet<String>,
    pub inheritable: BTreeSet<String>,
    pub permitted: BTreeSet<String>,
    pub ambient: BTreeSet<String>,
}

/// The ceiling of an exec: what the container itself was sealed to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    pub capabilities: BTreeSet<String>,
    pub label: String,
    pub user_namespace: bool,
    /// How many ids its user namespace has, from 0 on; a record of a version that launched none has 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub user_ids: u32,
    pub uid: u32,
    /// The verified repository and authority of its image (`Terms` of its permit): scopes, allowances and exceptions
    /// go by them.
    pub repository: Option<String>,
    /// The first of them by name, which alone a gate of the version before knows.
    pub authority: Option<String>,
    /// All of them, where there are several.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub authorities: BTreeSet<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// One per namespace that the spec lists; a kind that is not listed is the host's.
    pub listed: Vec<Namespace>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// OCI name: pid, network, mount, ipc, uts, user, cgroup, time.
    pub kind: String,
    pub origin: Fact<NamespaceOrigin>,
    /// The path that the spec names, for the message.
    pub path: String,
    /// nsfs (device, inode) of that path.
    pub object: Option<(u64, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamespaceOrigin {
    /// Made for this container.
    New,
    /// This pod's own, by the sealed record of its sandbox; or, for a sandbox, a network namespace that no other
    /// container holds and that is not the host's, and the user namespace that this one belongs to.
    OwnPod,
    Host,
    /// Held by the container named here, of another pod.
    Foreign(String),
}

/// The maps that the spec lists, with or without a user namespace beside them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserNamespace {
    pub ids: IdMaps,
    /// For one that is joined: what the kernel shows of it. Absent for a new one, and for one that CRI made for this sandbox,
    /// in which no process is yet: of both the inspection tells.
    pub joined: Fact<IdMaps>,
    /// Ids of other pods whose host range overlaps, while nobody else makes a user namespace.
    pub overlaps: Fact<Vec<String>>,
}

/// Ranges of (container id, host id, size).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMaps {
    pub uids: Vec<(u32, u32, u32)>,
    pub gids: Vec<(u32, u32, u32)>,
}

impl IdMaps {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.uids.is_empty() && self.gids.is_empty()
    }

    /// (host id, size) where both maps are the same one range from 0 on: the only form that is launched.
    #[must_use]
    pub fn range(&self) -> Option<(u32, u32)> {
        match (self.uids.as_slice(), self.gids.as_slice()) {
            ([(0, host, size)], [(0, of, count)]) if (host, size) == (of, count) => Some((*host, *size)),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    pub stage: String,
    pub path: String,
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub digest: Fact<String>,
    /// Path of our own copy of exactly the bytes of `digest`, which is what runs; empty when there is none.
    pub copy: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes; None when the spec sets none or -1.
    pub memory: Option<i64>,
    pub pids: Option<i64>,
    /// A limit in force on an ancestor cgroup below the root.
    pub ancestor_memory: Option<u64>,
    pub ancestor_pids: Option<u64>,
    /// For update: the change would remove or lift a limit that the policy demands; one line each.
    pub removed: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub index: usize,
    pub destination: String,
    /// OCI type; `bind` for every bind.
    pub kind: String,
    pub source: String,
    pub options: Vec<String>,
    /// Options that are not in the known list.
    pub unknown_options: Vec<String>,
    pub writable: bool,
    /// `private`, `rslave`, `rshared`, ... as the options say.
    pub propagation: Option<String>,
    /// For a bind: what its source is.
    pub object: Fact<Object>,
    /// The mount's own maps, where it is to be idmapped; both empty where an option asks for the container's.
    pub idmap: Option<IdMaps>,
}

/// A resolved bind source: judged as an object, not as a string.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// (major, minor) of the file system.
    pub device: (u32, u32),
    /// Path inside that file system.
    pub root: String,
    pub fstype: String,
    /// `folder`, `file`, `socket`, `block`, `char`, `fifo`.
    pub kind: String,
    /// Hard links of a regular file.
    pub links: u64,
    /// Canonical path on the host.
    pub path: String,
    /// Sensitive paths that it is, lies in, or contains - through bind aliases and overlay layers too:
    /// (path of the list, `is` | `inside` | `contains`).
    pub touches: Vec<(String, String)>,
    /// What made it, when CRI or kubelet made it for this pod's own ids; `host` otherwise.
    pub origin: Origin,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    #[default]
    Host,
    /// CRI's own file of this sandbox: `hosts`, `hostname`, `resolv.conf`, `shm`.
    Cri(String),
    /// kubelet's own of this pod uid: `etc-hosts`, `termination-log`, `empty-dir`, `configmap`, `secret`, `projected`, ...
    Kubelet(String),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    pub readonly: bool,
    pub masked: Vec<String>,
    pub readonly_paths: Vec<String>,
    pub propagation: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Devices {
    /// Devices that the spec creates.
    pub nodes: Vec<Device>,
    /// What the node itself has at their paths: (kind, major, minor). A path that is not in it is no device there.
    pub host: BTreeMap<String, (char, i64, i64)>,
    /// Cgroup rules of the spec that allow something.
    pub allowed: Vec<DeviceRule>,
    /// cgroup v1 `devices` is there, so rules are in force; on pure v2 they are not yet.
    pub enforced: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub path: String,
    pub kind: char,
    pub major: i64,
    pub minor: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    pub kind: char,
    /// None is every number.
    pub major: Option<i64>,
    pub minor: Option<i64>,
    pub access: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seccomp {
    /// The spec brings a filter of its own.
    pub present: bool,
    /// Why that filter cannot be installed as it is (allow as default, notify, unknown names, foreign ABIs): one line each.
    pub unusable: Vec<String>,
    /// This kernel can install a filter.
    pub available: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// What the spec names.
    pub apparmor: Option<String>,
    pub selinux: Option<String>,
    pub lsm: Lsm,
    /// AppArmor: mode of that profile in the kernel (`enforce`, `complain`, `kill`, `unconfined`), None when not loaded.
    pub mode: Option<String>,
    /// AppArmor: mode of the policy's default profile, which is injected when the spec names none.
    pub default_mode: Option<String>,
    /// SELinux: enforcing.
    pub enforcing: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lsm {
    AppArmor,
    Selinux,
    /// Neither is active in this kernel.
    #[default]
    Neither,
    Unknown(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A gate of the version before knows no ids: it reads a record without them.
    #[test]
    fn ids_are_written_where_there_are_any() {
        for user_ids in [0, 1, 65_536] {
            let bound = Bound { user_ids, ..Bound::default() };
            let written = toml::Value::try_from(&bound).unwrap();
            assert_eq!(written.get("user_ids").is_some(), user_ids != 0, "{written:?}");
            assert_eq!(written.try_into::<Bound>().unwrap(), bound);
        }
    }
}
