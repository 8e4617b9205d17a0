//! The worker's half: parse what an author chooses freely. Nothing here is believed.
mod image;
pub(crate) mod json;
pub(crate) mod signature;

use crate::digest::Digest;
use crate::wire::{DecodeError, Reader, Writer};
use std::fmt;

/// Largest signature file that is looked at, bytes.
pub const MAX_SIGNATURE_FILE: usize = 64 << 10;
/// Largest index, manifest or image config that is looked at, bytes (containerd's own limit for manifests is 8 MiB).
pub const MAX_IMAGE_FILE: usize = 4 << 20;

pub(crate) const MAX_ENTRIES: usize = 64;
pub(crate) const MAX_LAYERS: usize = 128;
/// Entries of Env, Entrypoint, Cmd.
pub(crate) const MAX_LIST: usize = 512;
/// Bytes of one media type, platform field, user, time.
pub(crate) const MAX_NAME: usize = 256;
/// Bytes of one entry of Env, Entrypoint, Cmd.
pub(crate) const MAX_TEXT: usize = 32 << 10;
/// Bytes of all of them together, so that every config that is proposed can also be encoded.
pub(crate) const MAX_TEXTS: usize = 512 << 10;
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
    }
}

/// What a worker hands back over its pipe.
pub type Answer = Result<Proposal, Malformed>;

const ANSWER_MALFORMED: u8 = 0;
const INDEX: u8 = 1;
const MANIFEST: u8 = 2;
const CONFIG: u8 = 3;
const COSIGN: u8 = 4;
const BUNDLE: u8 = 5;

/// An answer as bytes.
#[must_use]
pub fn encode_answer(answer: &Answer) -> Vec<u8> {
    match answer {
        Ok(proposal) => proposal.encode(),
        Err(why) => {
            let mut writer = Writer::default();
            writer.byte(ANSWER_MALFORMED);
            writer.text(&why.0);
            writer.0
        }
    }
}

/// An answer from bytes; the reason of a refusal is made printable again, for the worker may be anyone's.
///
/// # Errors
/// [`DecodeError`] when the bytes are not an answer.
pub fn decode_answer(bytes: &[u8]) -> Result<Answer, DecodeError> {
    if bytes.first() != Some(&ANSWER_MALFORMED) {
        return Proposal::decode(bytes).map(Ok);
    }
    let mut reader = Reader::new(bytes)?;
    reader.byte()?;
    let why = reader.text(MAX_NAME)?;
    reader.end()?;
    Ok(Err(Malformed::new(why)))
}

impl Proposal {
    /// At most [`crate::MAX_PROPOSAL`] bytes for every proposal that [`propose`] makes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        match self {
            Self::Index(index) => {
                w.byte(INDEX);
                w.text(&index.media_type);
                w.list(&index.entries, |w, entry| {
                    put_descriptor(w, &entry.descriptor);
                    w.text(&entry.os);
                    w.text(&entry.architecture);
                    w.text(&entry.variant);
                });
            }
            Self::Manifest(manifest) => {
                w.byte(MANIFEST);
                w.text(&manifest.media_type);
                put_descriptor(&mut w, &manifest.config);
                w.list(&manifest.layers, put_descriptor);
            }
            Self::Config(config) => {
                w.byte(CONFIG);
                for text in [&config.os, &config.architecture, &config.created, &config.user, &config.working_dir] {
                    w.text(text);
                }
                w.list(&config.diff_ids, put_placed);
                for list in [&config.env, &config.entrypoint, &config.cmd] {
                    w.list(list, |w, text| w.text(text));
                }
            }
            Self::Signature(SignatureProposal::Cosign { payload, signature, reference, digest }) => {
                w.byte(COSIGN);
                w.bytes(payload);
                w.bytes(signature);
                w.text(reference);
                w.digest(digest);
            }
            Self::Signature(SignatureProposal::Bundle { payload_type, payload, signature, predicate_type, digest }) => {
                w.byte(BUNDLE);
                w.text(payload_type);
                w.bytes(payload);
                w.bytes(signature);
                w.text(predicate_type);
                w.digest(digest);
            }
        }
        w.0
    }

    /// The gate's only reading of what a worker writes.
    ///
    /// # Errors
    /// [`DecodeError`] for anything but the exact encoding of a proposal within its bounds.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes)?;
        let proposal = match r.byte()? {
            INDEX => Self::Index(Index {
                media_type: r.text(MAX_NAME)?,
                entries: r.list(MAX_ENTRIES, |r| {
                    Ok(IndexEntry {
                        descriptor: descriptor(r)?,
                        os: r.text(MAX_NAME)?,
                        architecture: r.text(MAX_NAME)?,
                        variant: r.text(MAX_NAME)?,
                    })
                })?,
            }),
            MANIFEST => Self::Manifest(Manifest {
                media_type: r.text(MAX_NAME)?,
                config: descriptor(&mut r)?,
                layers: r.list(MAX_LAYERS, descriptor)?,
            }),
            CONFIG => Self::Config(Config {
                os: r.text(MAX_NAME)?,
                architecture: r.text(MAX_NAME)?,
                created: r.text(MAX_NAME)?,
                user: r.text(MAX_NAME)?,
                working_dir: r.text(MAX_TEXT)?,
                diff_ids: r.list(MAX_LAYERS, placed)?,
                env: r.list(MAX_LIST, |r| r.text(MAX_TEXT))?,
                entrypoint: r.list(MAX_LIST, |r| r.text(MAX_TEXT))?,
                cmd: r.list(MAX_LIST, |r| r.text(MAX_TEXT))?,
            }),
            COSIGN => Self::Signature(SignatureProposal::Cosign {
                payload: r.bytes(MAX_SIGNATURE_FILE)?,
                signature: r.bytes(MAX_NAME)?,
                reference: r.text(MAX_REPOSITORY)?,
                digest: r.digest()?,
            }),
            BUNDLE => Self::Signature(SignatureProposal::Bundle {
                payload_type: r.text(MAX_NAME)?,
                payload: r.bytes(MAX_SIGNATURE_FILE)?,
                signature: r.bytes(MAX_NAME)?,
                predicate_type: r.text(MAX_NAME)?,
                digest: r.digest()?,
            }),
            _ => return Err(DecodeError("unknown kind")),
        };
        r.end()?;
        Ok(proposal)
    }
}

fn put_placed(w: &mut Writer, placed: &Placed) {
    w.digest(&placed.digest);
    w.u32(placed.at);
}

fn placed(r: &mut Reader<'_>) -> Result<Placed, DecodeError> {
    Ok(Placed { digest: r.digest()?, at: r.u32()? })
}

fn put_descriptor(w: &mut Writer, descriptor: &Descriptor) {
    put_placed(w, &descriptor.digest);
    w.u64(descriptor.size);
    w.text(&descriptor.media_type);
}

fn descriptor(r: &mut Reader<'_>) -> Result<Descriptor, DecodeError> {
    Ok(Descriptor { digest: placed(r)?, size: r.u64()?, media_type: r.text(MAX_NAME)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_crosses_the_line_printable() {
        let refusal = Err(Malformed("evil\n\u{1b}[31m".into()));
        assert_eq!(decode_answer(&encode_answer(&refusal)).unwrap(), Err(Malformed("evil??[31m".into())));
        let long = Malformed::new("x".repeat(1000));
        assert_eq!(long.reason().len(), 160);
        assert_eq!(decode_answer(&encode_answer(&Err(long.clone()))).unwrap(), Err(long));
    }

    #[test]
    fn unknown_kinds_and_left_over_bytes_are_refused() {
        assert!(Proposal::decode(&[]).is_err());
        assert!(Proposal::decode(&[9]).is_err());
        assert!(Proposal::decode(&[0, 0, 0, 0, 0]).is_err());
        let index = Proposal::Index(Index { media_type: String::new(), entries: vec![] });
        let mut bytes = index.encode();
        assert_eq!(Proposal::decode(&bytes).unwrap(), index);
        bytes.push(0);
        assert_eq!(Proposal::decode(&bytes), Err(DecodeError("bytes left over")));
    }
}
