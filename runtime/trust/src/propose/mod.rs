//! The worker's half: parse what an author chooses freely. Nothing here is believed.
mod encode;
mod image;
pub(crate) mod json;
pub(crate) mod signature;

use crate::digest::Digest;
use crate::notation::{NotationProposal, cose, jws};
use std::fmt;

pub use encode::{decode_answer, encode_answer};

/// Largest signature file that is looked at, bytes.
pub const MAX_SIGNATURE_FILE: usize = 64 << 10;
/// Largest file that may be an attestation: a Sigstore bundle or a DSSE envelope; a scan's result, a bill of materials.
pub const MAX_ATTESTATION_FILE: usize = 1 << 20;
/// Largest index, manifest or image config that is looked at, bytes (containerd's own limit for manifests is 8 MiB).
pub const MAX_IMAGE_FILE: usize = 4 << 20;

pub(crate) const MAX_ENTRIES: usize = 64;
pub(crate) const MAX_LAYERS: usize = 128;
/// Entries of Env, Entrypoint, Cmd.
pub(crate) const MAX_LIST: usize = 512;
/// Bytes of one media type, platform field, user, time.
pub(crate) const MAX_NAME: usize = 256;
/// Bytes of a signature: those of RSA with 8192 bits.
pub(crate) const MAX_SIGNATURE: usize = 1024;
/// Bytes of one entry of Env, Entrypoint, Cmd.
pub(crate) const MAX_TEXT: usize = 32 << 10;
/// Bytes of all of them together, so that every config that is proposed can also be encoded.
pub(crate) const MAX_TEXTS: usize = 512 << 10;
/// Bytes of all labels and steps of the history together.
pub(crate) const MAX_NOTES: usize = 384 << 10;
/// Bytes of a repository name.
pub(crate) const MAX_REPOSITORY: usize = 512;

/// What the bytes are meant to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// OCI index or Docker manifest list.
    Index,
    /// OCI manifest or Docker schema 2 manifest.
    Manifest,
    /// What an image record points to: either of the two above, told apart by its fields.
    Target,
    /// OCI image config.
    Config,
    /// A file of the signature store, by the end of its name: `.sig.json`.
    CosignSignature,
    /// `.bundle.json`.
    SigstoreBundle,
    /// `.dsse.json`: an attestation of cosign 2.
    Dsse,
    /// `.notation.jws`.
    NotationJws,
    /// `.notation.cose`.
    NotationCose,
}

impl Source {
    /// Of a file of the signature store, by its name.
    #[must_use]
    pub fn of_file(name: &str) -> Option<Self> {
        [
            (".sig.json", Self::CosignSignature),
            (".bundle.json", Self::SigstoreBundle),
            (".dsse.json", Self::Dsse),
            (".notation.jws", Self::NotationJws),
            (".notation.cose", Self::NotationCose),
        ]
        .into_iter()
        .find_map(|(end, source)| name.ends_with(end).then_some(source))
    }
}

/// What a worker found. Digests come with the place where their text stands, for the gate to check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proposal {
    Index(Index),
    Manifest(Manifest),
    Config(Config),
    Signature(SignatureProposal),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Empty when the file names none.
    pub media_type: String,
    /// At most 64.
    pub entries: Vec<IndexEntry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    pub descriptor: Descriptor,
    /// Platform; each empty when absent.
    pub os: String,
    pub architecture: String,
    pub variant: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Empty when the file names none.
    pub media_type: String,
    pub config: Descriptor,
    /// At most 128, the lowest first.
    pub layers: Vec<Descriptor>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    pub digest: Placed,
    /// Bytes.
    pub size: u64,
    pub media_type: String,
}

/// A digest and the offset of its text's first byte (`s` of `sha256:`) in the bytes it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    pub digest: Digest,
    pub at: u32,
}

/// The fields of an OCI image config that a start needs; texts are empty when absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub os: String,
    pub architecture: String,
    /// RFC 3339 as the author wrote it.
    pub created: String,
    pub diff_ids: Vec<Placed>,
    pub user: String,
    pub working_dir: String,
    pub env: Vec<String>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// Names and values.
    pub labels: Vec<(String, String)>,
    /// `created_by` of each step that has one.
    pub history: Vec<String>,
    /// Why labels and history were not read; then there are none of them here. They are too long, or of another form:
    /// nothing that a start needs.
    pub unread: String,
}

impl Config {
    /// What runs when nobody says otherwise: Entrypoint, then Cmd.
    #[must_use]
    pub fn args(&self) -> Vec<String> {
        self.entrypoint.iter().chain(&self.cmd).cloned().collect()
    }
}

/// A signature over raw bytes, and what the worker says about them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignatureProposal {
    /// cosign 2, "simple signing": the payload itself is signed.
    Cosign {
        payload: Vec<u8>,
        /// ASN.1 DER.
        signature: Vec<u8>,
        /// `docker-reference`.
        reference: String,
        digest: Digest,
    },
    /// Sigstore bundle v0.3 with a DSSE envelope, as cosign 3 writes it for a key.
    Bundle {
        payload_type: String,
        payload: Vec<u8>,
        /// ASN.1 DER.
        signature: Vec<u8>,
        predicate_type: String,
        /// sha256 of the one subject.
        digest: Digest,
    },
    /// The Notary Project's.
    Notation(NotationProposal),
    /// A [`SignatureProposal::Bundle`] whose key is in a certificate beside it (keyless).
    Certified {
        /// The leaf, DER.
        certificate: Vec<u8>,
        envelope: Box<SignatureProposal>,
    },
}

impl SignatureProposal {
    /// What was signed, as far as the worker knows.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        match self {
            Self::Cosign { payload, .. } | Self::Bundle { payload, .. } => payload,
            Self::Notation(proposal) => &proposal.payload,
            Self::Certified { envelope, .. } => envelope.payload(),
        }
    }

    /// The image that it names.
    #[must_use]
    pub fn digest(&self) -> Digest {
        match self {
            Self::Cosign { digest, .. } | Self::Bundle { digest, .. } => *digest,
            Self::Notation(proposal) => proposal.digest,
            Self::Certified { envelope, .. } => envelope.digest(),
        }
    }
}

/// Why bytes are not what they are meant to be: printable ASCII, at most 160 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed(pub(crate) String);

impl Malformed {
    pub(crate) fn new(why: impl AsRef<str>) -> Self {
        Self(printable(why.as_ref()))
    }

    #[must_use]
    pub fn reason(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Malformed {}

/// Text from outside, safe to show: printable ASCII, shortened.
pub(crate) fn printable(text: &str) -> String {
    let mut shown: String = text.chars().take(160).map(|c| if matches!(c, ' '..='~') { c } else { '?' }).collect();
    if text.chars().nth(160).is_some() {
        shown.truncate(157);
        shown.push_str("...");
    }
    shown
}

/// Parses `bytes` as `source`. To be called in the worker.
///
/// # Errors
/// [`Malformed`] for anything that is too large, too deep, not strict JSON (duplicate keys, trailing data), not what
/// `source` says, or of a kind that boltseal does not take; the reason names it.
pub fn propose(source: Source, bytes: &[u8]) -> Result<Proposal, Malformed> {
    match source {
        Source::Index => image::index(bytes).map(Proposal::Index),
        Source::Manifest => image::manifest(bytes).map(Proposal::Manifest),
        Source::Target => image::target(bytes),
        Source::Config => image::config(bytes).map(Proposal::Config),
        Source::CosignSignature => signature::cosign(bytes).map(Proposal::Signature),
        Source::SigstoreBundle => signature::bundle(bytes).map(Proposal::Signature),
        Source::Dsse => signature::dsse(bytes).map(Proposal::Signature),
        Source::NotationCose => cose::envelope(bytes).map(SignatureProposal::Notation).map(Proposal::Signature),
        Source::NotationJws => jws::envelope(bytes).map(SignatureProposal::Notation).map(Proposal::Signature),
    }
}

/// What a worker hands back over its pipe.
pub type Answer = Result<Proposal, Malformed>;
