//! What an owner signed for a pod.
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OwnerGrant {
    /// No key of the policy's authorities signed it as a grant, or it is malformed; why.
    Refused(String),
    Signed(Box<Grant>),
}

/// The claims of a grant whose signature holds. Whether they hold for this pod and now is BS-OWN-001's to say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Of the bytes: the first twelve digits of their sha256.
    pub id: String,
    /// Authorities of the policy whose key signed it.
    pub by: BTreeSet<String>,
    pub issuer: String,
    pub subject: String,
    pub audience: BTreeSet<String>,
    /// Seconds since the epoch.
    pub from: u64,
    pub until: u64,
    pub amr: BTreeSet<String>,
    pub acr: String,
    pub namespaces: BTreeSet<String>,
    /// Patterns of pods' names.
    pub pods: Vec<String>,
    pub containers: Vec<GrantedContainer>,
}

/// One container, by its name in the pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantedContainer {
    pub name: String,
    /// Digests of manifests or indexes.
    pub images: BTreeSet<String>,
    /// In the place of the signed Entrypoint; of a word None is any.
    pub command: Option<Vec<Option<String>>>,
    /// In the place of the signed Cmd.
    pub args: Option<Vec<Option<String>>>,
    /// Names of the variables whose every value in this request is a granted one: the gate compared their hashes.
    pub env: BTreeSet<String>,
    pub cwd: Option<String>,
    /// `uid:gid`.
    pub user: Option<String>,
    pub mounts: Vec<GrantedMount>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantedMount {
    pub destination: String,
    pub readonly: bool,
    /// The host's path, of a mount of one.
    pub host: Option<String>,
}
