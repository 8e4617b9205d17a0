//! The image as the proof chain shows it, and the root file system that is to be it.
use super::{Fact, IdMaps};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The image as the proof chain shows it: each digest is of bytes that the gate hashed itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Digest that the image record points to (index or manifest), `sha256:<hex>`.
    pub target: String,
    pub manifest: String,
    pub config: String,
    pub chain_id: String,
    /// diff_ids of the layers, the lowest first.
    #[serde(default)]
    pub layers: Vec<String>,
    /// Signatures that the gate verified with a key of the policy, over `target` or `manifest`.
    pub signatures: Vec<Signature>,
    /// Statements about `target` or `manifest` that the gate verified with a key of the policy. None of them is a signature.
    #[serde(default)]
    pub attestations: Vec<Attestation>,
    /// Of these, what says which verity device each layer is: see [`Verity`].
    #[serde(default)]
    pub verity: Vec<Verity>,
    /// Why each file that was looked at did not count, for the message; bounded. A line that begins with
    /// `wrong-key: `, `other-digest: `, `attestation: `, `malformed: `, `store: ` or `certificate: ` gives the denial that condition.
    pub rejected: Vec<String>,
    /// Where signature files are looked for, for the message.
    pub looked_in: String,
    /// The config's own process fields.
    pub user: String,
    /// Entrypoint, then Cmd.
    pub args: Vec<String>,
    /// The first of `args`. Records of a version that did not tell it have none.
    #[serde(default)]
    pub entrypoint: Vec<String>,
    pub env: Vec<String>,
    pub cwd: String,
    /// When the config says that it was made, as it stands there; empty when it does not say.
    #[serde(default)]
    pub created: String,
    /// What looks like a secret in config and history, in the clear.
    #[serde(default)]
    pub secrets: Fact<Vec<Secret>>,
}

/// Something in the config or the history that looks like a secret. What it is stays where it was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Secret {
    /// `env`, `label`, `entrypoint`, `cmd` or `history`.
    pub place: String,
    /// Of the variable, the flag or the label; else which entry it is, from 1 on.
    pub name: String,
    /// What it looks like: `a GitHub token`, `a value for PASSWORD`.
    pub kind: String,
}

/// What a statement says, as a jailed worker read it in bytes that an authority signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    Scan(Report),
    Bom(Bom),
    Provenance(Provenance),
}

/// What a scan for vulnerabilities found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whose result it is: `trivy` or `grype`.
    pub scanner: String,
    /// RFC 3339 as it stands there.
    pub finished: String,
    /// How many there are of each severity, each id once.
    pub counts: BTreeMap<Severity, u64>,
    /// Ids, the worst first; of a very long report not all.
    pub found: Vec<(String, Severity)>,
}

/// A bill of materials.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bom {
    /// `SPDX` or `CycloneDX`.
    pub format: String,
    /// Packages or components that it lists.
    pub packages: u64,
}

/// Who says to have built the image, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    pub builder: String,
    pub build_type: String,
}

/// How bad a vulnerability is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// As a bound: nothing at all.
    None,
    Negligible,
    Low,
    Medium,
    High,
    Critical,
    /// The scanner does not know: as bad as can be.
    Unknown,
}

impl Severity {
    /// Whether it is worse than what a policy takes.
    #[must_use]
    pub fn exceeds(self, bound: Self) -> bool {
        let known = |severity| if severity == Self::Unknown { Self::Critical } else { severity };
        known(self) > known(bound)
    }

    /// As the policy and the records name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Negligible => "negligible",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
            Self::Unknown => "unknown",
        }
    }
}

/// That an authority said something about the image; what it said is in the statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attestation {
    /// Name of the policy's authority whose key verified it.
    pub authority: String,
    /// sha256 of the key's SPKI, hex; of a signer under a root (notation) the root's.
    pub key: String,
    /// in-toto predicate type, as signed.
    pub predicate_type: String,
    /// The image, its one subject.
    pub digest: String,
    /// sha256 of the signed statement.
    pub statement: String,
    /// What it says, where a rule asks for its kind. Absent: nobody asked.
    #[serde(default)]
    pub says: Fact<Said>,
}

/// An authority's statement that the image's layers are the data of these verity devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verity {
    /// Name of the policy's authority whose key verified it.
    pub authority: String,
    /// sha256 of the signed statement.
    pub statement: String,
    /// The lowest first.
    pub layers: Vec<VerityLayer>,
}

/// One layer of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerityLayer {
    /// `sha256:<hex>` of the unpacked layer.
    pub diff_id: String,
    /// The same of the file with data and tree.
    pub blob: String,
    /// Of the file, bytes.
    pub size: u64,
    /// Where its data ends.
    pub hash_offset: u64,
    /// 64 hex digits.
    pub root_hash: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Name of the policy's authority whose key verified it.
    pub authority: String,
    /// sha256 of the key's SPKI, hex.
    pub key: String,
    /// `cosign-signature` (cosign 2 `.sig`), `sigstore-bundle` (cosign 3), or `notation-jws` with the signer's subject and
    /// `trust=jailed`: what its certificates say was read by a worker.
    pub format: String,
    /// The repository inside the signed bytes; None when the format names none.
    pub repository: Option<String>,
    /// The digest inside the signed bytes.
    pub digest: String,
    /// When it was made, seconds since the epoch, by somebody who is trusted with the time; None where nobody is, as with
    /// every format that this version verifies.
    #[serde(default)]
    pub signed_at: Option<u64>,
}

/// One layer whose bytes the kernel compares with a digest that this node itself made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedLayer {
    /// Lower folder that it is mounted on.
    pub folder: String,
    /// `fsverity` or `dmverity-local`.
    pub level: String,
    /// fs-verity's digest of the file, or the root hash of the device: `sha256:<hex>` or `sha512:<hex>`.
    pub digest: String,
}

/// The root file system that containerd asks to mount, against containerd's own snapshot record and the image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    pub snapshotter: String,
    /// Parent of the container's snapshot.
    pub parent: String,
    /// The snapshot is active (a container's own), not a view or committed.
    pub active: bool,
    /// The request's mounts equal those of the snapshot service, as sets of (type, source, options).
    pub mounts_match: bool,
    /// Why the mounts are not of the one known form (overlay; lowerdir, upperdir, workdir, index=off, ...).
    pub unknown_form: Vec<String>,
    /// Lower folders, top first.
    pub lowers: Vec<String>,
    /// The snapshot's upper folder has no entry.
    pub upper_empty: Fact<bool>,
    /// How well the bytes are bound to the signature: `unpacked`, `fsverity`, `dmverity-local`, `dmverity-signed`.
    pub integrity: String,
    /// The layers that are mounted in the place of the lower folders: signed by one whose word counts for this image, with
    /// every file here and a kernel that can. Absent: nobody whose word counts sealed it. Unknown: somebody did, and why it cannot be.
    #[serde(default)]
    pub verity: Fact<Vec<VerityLayer>>,
    /// The lower folders, top first, where the kernel compares the bytes of each with a digest. Absent: they are plain folders.
    /// Unknown: one is not, and why that is worth nothing or cannot be told.
    #[serde(default)]
    pub checked: Fact<Vec<CheckedLayer>>,
    /// `/dev`, `/proc`, `/sys` of the image that are not folders (a symlink among them).
    pub unsafe_roots: Vec<String>,
    /// What the snapshotter asks the layers to be idmapped to (`uidmap=`, `gidmap=`).
    pub idmap: Option<IdMaps>,
}
