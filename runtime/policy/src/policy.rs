//! The policy's typed form. Unknown keys are refused. One bundle: `policy.toml`, `policy.d/*.toml`, `trust/`.
mod defaults;
mod gates;
mod lint;
mod owner;
mod window;
pub(crate) use lint::INTEGRITY;
pub use owner::{BreakGlassRules, GrantAuthority, GrantRules, SystemPods};
pub use window::Closed;
mod node;
mod parse;
pub use gates::{AgeRules, AgeSource, Base, BomRules, ProvenanceRules, ScanRules, SecretRules, Tolerated};
pub use node::{EarRules, LogRules};

use crate::network::{Destination, Ports};
use crate::standard;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How much is enforced; see DESIGN section 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    Observe,
    Baseline,
    Restricted,
    Strict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    Enforce,
    Warn,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Format of this file; 1.
    #[serde(default)]
    pub version: u32,
    #[serde(default = "defaults::level")]
    pub level: Level,
    /// When it was made, seconds since the epoch: `now` is Unknown before it.
    #[serde(default)]
    pub signed_at: u64,
    /// Mode per rule id, over the level.
    #[serde(default)]
    pub modes: BTreeMap<String, Mode>,
    #[serde(default)]
    pub registries: Registries,
    #[serde(default, rename = "authority")]
    pub authorities: Vec<Authority>,
    #[serde(default, rename = "scope")]
    pub scopes: Vec<Scope>,
    #[serde(default)]
    pub sandbox: Sandbox,
    #[serde(default)]
    pub image: ImageRules,
    #[serde(default)]
    pub process: ProcessRules,
    #[serde(default)]
    pub limits: LimitRules,
    #[serde(default)]
    pub label: LabelRules,
    #[serde(default)]
    pub mounts: MountRules,
    #[serde(default)]
    pub devices: DeviceRules,
    #[serde(default)]
    pub owner: OwnerRules,
    #[serde(default)]
    pub sensitivity: SensitivityRules,
    #[serde(default)]
    pub break_glass: BreakGlassRules,
    #[serde(default)]
    pub bundle: BundleRules,
    #[serde(default)]
    pub node: NodeRules,
    #[serde(default)]
    pub user_namespace: UserNamespaceRules,
    #[serde(default)]
    pub landlock: LandlockRules,
    #[serde(default)]
    pub anomalies: AnomalyRules,
    #[serde(default, rename = "allowance")]
    pub allowances: Vec<Allowance>,
    #[serde(default, rename = "exception")]
    pub exceptions: Vec<Exception>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registries {
    /// Registry or repository prefixes, on `/` boundaries (`ghcr.io/corp`). Empty allows none.
    #[serde(default)]
    pub allow: Vec<String>,
}

/// Who may sign images: a key, or whom roots of X.509 certify.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    pub name: String,
    /// File below `trust/`, PEM SubjectPublicKeyInfo: P-256, P-384, RSA or Ed25519. Empty with a format that has roots.
    #[serde(default)]
    pub key: String,
    /// `notation` or `keyless`; empty for a key, which signs by cosign.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub format: String,
    /// File below `trust/`, PEM certificates of the roots that lead to signers.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub roots: String,
    /// notation: subjects of signers (`C=US, O=corp, CN=ci`), of which one must match; `*` for whomever the roots certify.
    /// keyless: patterns for the certificate's identity, an email address or a workflow's URI.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub identities: Vec<String>,
    /// File below `trust/`, a Sigstore trusted root: the CAs, logs and time stamp authorities of keyless signers.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trusted_root: String,
    /// Patterns for the OIDC issuer that a keyless certificate names, of which one must match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<String>,
    /// Inclusion in the transparency log must be shown; None: it must.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<bool>,
    /// The certificate log's promise must stand in the certificate; None: it must.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sct: Option<bool>,
    /// Signatures are of the scheme `notary.x509.signingAuthority`, whose time of signing is believed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub signing_authority: bool,
    /// Repository prefixes that it may sign for. A format that signs no repository needs exactly one.
    pub repositories: Vec<String>,
    /// From when on its signatures count, and until when; RFC 3339 date or date-time, UTC. Windows may overlap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Of its signatures those count that a trusted time shows to be made then or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_signing_time: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// Repository prefix; the longest that matches the verified repository is in force.
    pub repository: String,
    /// Any `need` of these suffice.
    pub authorities: Vec<String>,
    /// How many of their keys must have signed. Keys count, not names: two authorities may have the same key.
    #[serde(default = "defaults::need")]
    pub need: usize,
    /// As `image.deny_digests`, for what this prefix covers, narrower scopes included.
    #[serde(default)]
    pub deny_digests: Vec<String>,
    #[serde(default)]
    pub level: Option<Level>,
    #[serde(default)]
    pub modes: BTreeMap<String, Mode>,
    /// One of `sensitivity.levels`, or [`NEUTRAL`]; empty: the pod says.
    #[serde(default)]
    pub sensitivity: String,
    /// Ports that may be bound; None: the rules' level says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bind: Option<Vec<Ports>>,
    /// Where connections and datagrams may go; None: the rules' level says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect: Option<Vec<Destination>>,
    /// Programs that may be executed, see [`crate::programs`]; None: all of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub programs: Option<Vec<String>>,
    /// Least integrity level, where it is more than `image.integrity`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub integrity: String,
    /// What stands in the place of the node's table of the same name below `[image]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<AgeRules>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vulnerabilities: Option<ScanRules>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sbom: Option<BomRules>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<ProvenanceRules>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<SecretRules>,
    /// Names of the bases that these images may have; None: any of the node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bases: Option<Vec<String>>,
}

/// Sensitivity of what runs beside everything.
pub const NEUTRAL: &str = "*";

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sandbox {
    /// Manifest or index digests that may be a pod's sandbox.
    #[serde(default)]
    pub digests: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageRules {
    /// Least integrity level: `unpacked`, `fsverity`, `dmverity-local`, `dmverity-signed`.
    pub integrity: String,
    pub snapshotters: Vec<String>,
    /// Of an index, a manifest, a config, or a layer as its diff_id: what never starts, signed or not.
    pub deny_digests: Vec<String>,
    /// What every image must show; None: nothing of the kind is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age: Option<AgeRules>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vulnerabilities: Option<ScanRules>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sbom: Option<BomRules>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provenance: Option<ProvenanceRules>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secrets: Option<SecretRules>,
    /// Base images by name.
    #[serde(rename = "base", skip_serializing_if = "Vec::is_empty")]
    pub bases: Vec<Base>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessRules {
    /// Capabilities that a container may keep, of the runtime's default set; others of that set are dropped. Empty by
    /// default: what a workload needs, an allowance grants by name.
    pub capabilities: BTreeSet<String>,
    /// sysctls that are namespaced and safe.
    pub sysctls: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitRules {
    /// Bytes, when nothing sets a limit.
    pub memory: u64,
    pub pids: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LabelRules {
    /// AppArmor profiles that may be named; the first is injected when none is.
    pub apparmor: Vec<String>,
    /// SELinux types that may be named; the first is injected when none is.
    pub selinux: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MountRules {
    /// Host paths that are never mounted writable and, unless an allowance names them, not at all. The built-in list
    /// (`standard::SENSITIVE`) is always part of it; a policy file only adds.
    pub sensitive: Vec<String>,
    /// Size of tmpfs mounts that name none, bytes.
    pub tmpfs_size: u64,
    /// kubelet's root folder.
    pub kubelet_root: String,
    /// containerd's root and state folders.
    pub containerd_root: String,
    pub containerd_state: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeviceRules {
    /// Paths of devices beside the standard ones (null, zero, full, random, urandom, tty, ptmx, pts, console).
    pub allow: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OwnerRules {
    /// `annotation`: the pod says it. `pod-token`: the cluster does, by a token that it bound to the pod. `grant`: the owner
    /// does, and signs for what runs.
    pub level: String,
    /// Patterns with `*`; the owner must match one. Empty allows none.
    pub patterns: Vec<String>,
    /// For the level `pod-token`.
    pub token: Option<TokenRules>,
    /// For the level `grant`.
    pub grant: Option<GrantRules>,
    /// Pods that no person starts.
    pub system: Vec<SystemPods>,
}

/// The projected service-account token of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenRules {
    /// The cluster's keys: file below `trust/`, a JWKS (RFC 7517), as the API server shows it at `/openid/v1/jwks`.
    pub jwks: String,
    /// `iss`, exactly: the cluster's `--service-account-issuer`.
    pub issuer: String,
    /// `aud`: one that no other service takes.
    pub audience: String,
    /// This node's name in the cluster; empty: its host name.
    pub node: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SensitivityRules {
    /// What this node may run, one at a time. Empty: BS-NOD-003 asks nothing of a pod that names none.
    pub levels: Vec<String>,
    /// Of a pod that names none; empty: it is refused.
    pub default: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BundleRules {
    /// This policy is meant to be signed: a node that pins no signing key starts nothing with it.
    pub signed: bool,
    /// Nothing starts in a boot in which `boltseal-attest` measured nothing.
    pub measured: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeRules {
    /// `/dev/tpmrm0`, or `unix:/absolute/path` of a software TPM (which needs a dated exception).
    pub tpm: String,
    /// Enrolled AK: file below `trust/`, PEM SubjectPublicKeyInfo; written by `boltseal node enroll`.
    pub attestation_key: String,
    /// How the key was enrolled: `certified` by its TPM's maker and a second party, or `trust-on-first-use`.
    pub enrolled: String,
    /// Accepted values per PCR of the SHA-256 bank, hex.
    pub pcrs: BTreeMap<String, Vec<String>>,
    /// A PCR, 10 to 15, that the first verdict of a boot extends with its boot id: after kexec it fits no boot.
    pub cap: Option<u32>,
    /// Rules on the replayed event log.
    pub log: Option<LogRules>,
    /// A verifier's token, beside or instead of all that.
    pub ear: Option<EarRules>,
    /// Seconds of CLOCK_BOOTTIME that a verdict lives.
    pub ttl: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LandlockRules {
    /// Least ABI of the kernel; below it every start is denied.
    pub abi: u32,
    /// It holds TCP ports beside the programs on the cgroup. Without it those hold them alone, where they are attached, and see
    /// each refusal; a socket that was made elsewhere and handed in is then held by nobody.
    pub ports: bool,
}

/// Which ids of the host a pod's user namespace may have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UserNamespaceRules {
    /// The host's ids below it are never a pod's.
    pub min_host_id: u32,
    /// Most ids of one pod.
    pub max_size: u32,
}

/// What is watched beyond being refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AnomalyRules {
    pub syscalls: Traps,
    /// Whose listeners are told, and whose refused destinations and ports.
    pub network: Watched,
    /// Whose connections and datagrams are told, those that are let through too.
    pub flows: Watched,
    /// Distinct refused destinations within a minute that are a port scan.
    pub port_scan: u32,
}

/// Containers whose network is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "true, false or \"confined\"")]
pub enum Watched {
    /// All or none of them.
    All(bool),
    Of(Whose),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Whose {
    /// Those of whom anything is confined.
    Confined,
}

impl Watched {
    #[must_use]
    pub fn covers(self, confined: bool) -> bool {
        match self {
            Self::All(all) => all,
            Self::Of(Whose::Confined) => confined,
        }
    }
}

/// Which refused system calls are told, of [`standard::TRIP_WIRE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Traps {
    /// All or none of them.
    All(bool),
    Named(BTreeSet<String>),
}

impl Traps {
    #[must_use]
    pub fn names(&self) -> BTreeSet<String> {
        match self {
            Self::All(true) => standard::TRIP_WIRE.iter().map(ToString::to_string).collect(),
            Self::All(false) => BTreeSet::new(),
            Self::Named(names) => names.clone(),
        }
    }
}

/// Permanent, named permission for one image family. Recorded as `allowed by <id>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowance {
    pub id: String,
    pub authority: String,
    pub repository: String,
    #[serde(default)]
    pub capabilities: BTreeSet<String>,
    #[serde(default)]
    pub mounts: Vec<AllowedMount>,
    #[serde(default)]
    pub devices: Vec<String>,
    #[serde(default)]
    pub sysctls: BTreeSet<String>,
    /// OCI names: network, pid, ipc, uts.
    #[serde(default)]
    pub host_namespaces: BTreeSet<String>,
    /// Destinations whose files may be executed.
    #[serde(default)]
    pub exec_volumes: Vec<String>,
    /// Files of memory (memfd) may be executed.
    #[serde(default)]
    pub exec_memory: bool,
    #[serde(default)]
    pub hooks: Vec<AllowedHook>,
    /// Commands that may run in the place of the signed one: a pattern per argument, `...` at the end for any more.
    #[serde(default)]
    pub args: Vec<Vec<String>>,
    /// Patterns of names of variables that may be set, changed or missing; never one that makes programs load code.
    #[serde(default)]
    pub env: Vec<String>,
    /// Patterns of working folders.
    #[serde(default)]
    pub cwd: Vec<String>,
    /// Patterns of `uid:gid`.
    #[serde(default)]
    pub users: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowedMount {
    /// Canonical host path: the object itself, not what is below it.
    pub source: String,
    #[serde(default)]
    pub writable: bool,
    /// It may be idmapped: then root of a pod's user namespace is the owner of root's files in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub idmap: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowedHook {
    pub stage: String,
    pub path: String,
    /// `sha256:<hex>` of the file.
    pub digest: String,
    #[serde(default)]
    pub args: Vec<String>,
}

/// A dated exception. It turns a denial of its rule into `excepted`, shown in every record, never into a pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    pub rule: String,
    /// The rule's condition that it covers (`software-tpm`, `no-lsm`, ...); every condition of the rule when absent.
    /// BS-NOD-001 and BS-MAC-001 demand one.
    #[serde(default)]
    pub condition: Option<String>,
    /// Repository prefix; `*` for the node.
    pub scope: String,
    pub owner: String,
    pub reason: String,
    /// RFC 3339 date or date-time, UTC.
    pub expires: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trip_wire_is_all_nothing_or_what_is_named() {
        let named = BTreeSet::from(["mount".to_owned()]);
        let all: BTreeSet<String> = standard::TRIP_WIRE.iter().map(ToString::to_string).collect();
        assert_eq!(Traps::All(true).names(), all);
        assert_eq!(Traps::All(false).names(), BTreeSet::new());
        assert_eq!(Traps::Named(named.clone()).names(), named);
        assert!(all.len() > 1);
    }
}
