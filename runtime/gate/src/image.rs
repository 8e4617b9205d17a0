//! The proof chain of an image (BS-IMG-001, 002): from containerd's record to the layers that will be mounted.
//!
//! record -> target digest -> (index) -> manifest -> config -> diff_ids -> chain id == parent of the container's snapshot.
//! Every digest is computed here over raw bytes; a worker only proposes where things stand in them.
mod keyless;
mod says;

use crate::paths;
use boltseal_evidence::containerd::{Client, Container, Error};
use boltseal_evidence::signatures;
use boltseal_jail::Parse;
use boltseal_policy::Fact;
use boltseal_policy::facts::{Image, Secret, Signature};
use boltseal_policy::secrets;
use boltseal_trust::notation::{Notary, NotationProposal, accept, appraise};
use boltseal_trust::{
    Answer, Claim, Config, Digest, Key, Link, MAX_IMAGE_FILE, Malformed, Manifest, Proposal, Reject, SignatureProposal,
    Source, bind_child, bind_config, bind_diff_ids, chain_id, decode_answer, digest, encode_answer, propose,
    verify_signature,
};
pub(crate) use keyless::Keyless;
use std::collections::BTreeSet;
use std::path::Path;

/// Most verifications of one start. Beyond what any policy needs; with every key P-384 it is less than a second.
const MAX_VERIFICATIONS: usize = 1024;

/// An authority of the policy with what its signatures are verified by.
#[derive(Debug)]
pub(crate) struct Signer {
    pub(crate) authority: String,
    pub(crate) trust: Trust,
}

#[derive(Debug)]
pub(crate) enum Trust {
    Key(Key),
    Roots(Notary),
    Keyless(Keyless),
}

/// What a signature's verification brings: its format as it is recorded, the key that it counts as, what it claims, and when
/// it was made, where somebody vouches for that.
type Counted = (String, String, Claim, Option<u64>);

/// What signatures are judged with.
pub(crate) struct Signed<'a> {
    pub(crate) jail: &'a dyn Parse,
    pub(crate) signers: &'a [Signer],
    /// Seconds since the epoch; None when nobody knows.
    pub(crate) now: Option<u64>,
    /// Predicate types of statements that are to be read.
    pub(crate) reads: BTreeSet<&'static str>,
}

/// Why there is no proof.
#[derive(Debug)]
pub(crate) enum NoProof {
    Containerd(Error),
    Why(String),
}

impl NoProof {
    /// As the fact that denies. A reason that begins with `timeout` makes the denial UNAVAILABLE.
    pub(crate) fn fact<T>(self) -> Fact<T> {
        match self {
            Self::Containerd(e @ Error::Timeout(_)) => Fact::Unknown(format!("timeout: {e}")),
            Self::Containerd(e) => Fact::Unknown(e.to_string()),
            Self::Why(why) => Fact::Unknown(why),
        }
    }
}

impl From<Error> for NoProof {
    fn from(error: Error) -> Self {
        Self::Containerd(error)
    }
}

fn why(text: impl std::fmt::Display) -> NoProof {
    NoProof::Why(text.to_string())
}

/// Proves which image the container's snapshot is. `parent` is the snapshot's parent: of an index's manifests, the one
/// whose layers are mounted is the one that runs.
pub(crate) fn prove(
    client: &Client,
    signed: &Signed<'_>,
    container: &Container,
    parent: &str,
) -> Result<Image, NoProof> {
    let target: Digest =
        client.image(&container.image)?.digest.parse().map_err(|_| why("the image record names no sha256 digest"))?;
    let chain = chain(signed.jail, target, parent, |digest| Ok(client.blob(&digest.to_string(), MAX_IMAGE_FILE)?))?;
    let mut image = Image {
        target: target.to_string(),
        manifest: chain.manifest.to_string(),
        config: chain.config_digest.to_string(),
        chain_id: chain.chain_id.to_string(),
        layers: chain.layers.iter().map(ToString::to_string).collect(),
        user: chain.config.user.clone(),
        args: chain.config.args(),
        entrypoint: chain.config.entrypoint.clone(),
        env: chain.config.env.clone(),
        cwd: chain.config.working_dir.clone(),
        created: chain.config.created.clone(),
        secrets: secrets_of(&chain.config),
        ..Image::default()
    };
    signed.look(&mut image, target, chain.manifest)?;
    Ok(image)
}

/// What looks like a secret; where the worker did not read all, nobody says that there is none.
fn secrets_of(config: &Config) -> Fact<Vec<Secret>> {
    if !config.unread.is_empty() {
        return Fact::Unknown(config.unread.clone());
    }
    Fact::Is(secrets::find(&secrets::Texts {
        env: &config.env,
        labels: &config.labels,
        entrypoint: &config.entrypoint,
        cmd: &config.cmd,
        history: &config.history,
    }))
}

/// The links below the target.
struct Chain {
    manifest: Digest,
    config_digest: Digest,
    config: Config,
    /// diff_ids, the lowest first.
    layers: Vec<Digest>,
    chain_id: Digest,
}

fn chain(
    jail: &dyn Parse,
    target: Digest,
    parent: &str,
    read: impl Fn(Digest) -> Result<Vec<u8>, NoProof>,
) -> Result<Chain, NoProof> {
    let bytes = hashed(target, read(target)?)?;
    let (manifests, index) = match ask(jail, Source::Target, &bytes)? {
        Proposal::Manifest(manifest) => (vec![(target, bytes.clone(), manifest)], None),
        Proposal::Index(index) => {
            let here = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
            let mut found = Vec::new();
            for entry in index.entries.iter().filter(|e| e.os == "linux" && e.architecture == here) {
                // containerd fetches one variant of an architecture: what it has not got is not what is mounted.
                let child = match read(entry.descriptor.digest.digest) {
                    Err(NoProof::Containerd(Error::NotFound { .. })) => continue,
                    other => other?,
                };
                let digest =
                    bind_child(&bytes, Link::IndexToManifest, &entry.descriptor.digest, &child).map_err(why)?;
                if let Proposal::Manifest(manifest) = ask(jail, Source::Manifest, &child)? {
                    found.push((digest, child, manifest));
                }
            }
            (found, Some(target))
        }
        Proposal::Config(_) | Proposal::Signature(_) => {
            return Err(why("the image's target is neither an index nor a manifest"));
        }
    };
    let mut last = None;
    for (digest, bytes, manifest) in manifests {
        let chain = below(jail, digest, &bytes, &manifest, &read)?;
        if chain.chain_id.to_string() == parent {
            return Ok(chain);
        }
        last = Some(chain);
    }
    // No manifest has the mounted layers. BS-IMG-002 says so, with both digests.
    last.ok_or_else(|| why(format!("{} has no manifest for this machine", index.unwrap_or(target))))
}

fn below(
    jail: &dyn Parse,
    manifest: Digest,
    bytes: &[u8],
    proposed: &Manifest,
    read: &impl Fn(Digest) -> Result<Vec<u8>, NoProof>,
) -> Result<Chain, NoProof> {
    let config_bytes = read(proposed.config.digest.digest)?;
    let config_digest =
        bind_child(bytes, Link::ManifestToConfig, &proposed.config.digest, &config_bytes).map_err(why)?;
    let Proposal::Config(config) = ask(jail, Source::Config, &config_bytes)? else {
        return Err(why("the manifest's config is no image config"));
    };
    bind_config(&config_bytes, &config).map_err(why)?;
    let layers = bind_diff_ids(&config_bytes, &config.diff_ids).map_err(why)?;
    let chain_id = chain_id(&layers).ok_or_else(|| why("the image has no layer"))?;
    Ok(Chain { manifest, config_digest, config, layers, chain_id })
}

fn hashed(expected: Digest, bytes: Vec<u8>) -> Result<Vec<u8>, NoProof> {
    if digest(&bytes) == expected {
        return Ok(bytes);
    }
    Err(why(format!("the content store holds other bytes under {expected}")))
}

impl Signed<'_> {
    /// Looks at every signature file of the target and of the manifest, with every authority. What counts goes into
    /// `image.signatures`, why another did not into `image.rejected`.
    fn look(&self, image: &mut Image, target: Digest, manifest: Digest) -> Result<(), NoProof> {
        let mut over = vec![target];
        if manifest != target {
            over.push(manifest);
        }
        // Each file is tried with each authority, for a scope may need several: none is the last one that counts.
        let mut room = (MAX_VERIFICATIONS / self.signers.len().max(1)).max(1);
        let mut another = false;
        for digest in over {
            let files = match signatures::files(Path::new(paths::SIGNATURES), &digest.to_string()) {
                Ok(files) => files,
                // The image is who it is; that nobody's signature of it can be looked at is for the rules to say.
                Err(problem) => {
                    image.rejected.push(format!("store: the folder of its signatures {}", problem.fact));
                    continue;
                }
            };
            image.looked_in = files.looked_in.display().to_string();
            image.rejected.extend(files.skipped.iter().map(|line| format!("malformed: {line}")));
            for file in files.files {
                if room == 0 {
                    image
                        .rejected
                        .push(format!("malformed: {} and what follows: too many for so many keys", file.name));
                    break;
                }
                room -= 1;
                // Anybody may have signed: one file's author shall not answer for another's. The image's own files were
                // asked about before the first one.
                if std::mem::replace(&mut another, true) {
                    self.jail.afresh();
                }
                let Some(source) = Source::of_file(&file.name) else { continue };
                match ask(self.jail, source, &file.bytes) {
                    Ok(Proposal::Signature(proposal)) => self.judge(image, &proposal, &file.bytes, digest),
                    Ok(_) => image.rejected.push("malformed: the worker answered something else".into()),
                    Err(NoProof::Why(text)) => image.rejected.push(format!("malformed: {text}")),
                    Err(other) => return Err(other),
                }
            }
        }
        image.rejected.truncate(16);
        Ok(())
    }

    fn judge(&self, image: &mut Image, proposal: &SignatureProposal, file: &[u8], expected: Digest) {
        let mut reason = match proposal {
            SignatureProposal::Notation(_) => "wrong-key: no authority of the policy has format notation".to_owned(),
            SignatureProposal::Certified { .. } => {
                "wrong-key: no authority of the policy has format keyless".to_owned()
            }
            _ => "wrong-key: the policy has no key".to_owned(),
        };
        let before = image.signatures.len();
        // Every authority that verifies it: two may share a key, and which one counts is the policy's to say.
        for signer in self.signers {
            let said = match (proposal, &signer.trust) {
                (SignatureProposal::Notation(proposal), Trust::Roots(notary)) => {
                    self.vouched(notary, proposal, &expected)
                }
                (SignatureProposal::Certified { .. }, Trust::Keyless(keyless)) => {
                    self.certified(keyless, proposal, file, &expected)
                }
                (SignatureProposal::Notation(_) | SignatureProposal::Certified { .. }, Trust::Key(_))
                | (_, Trust::Roots(_) | Trust::Keyless(_)) => continue,
                (proposal, Trust::Key(key)) => verify_signature(proposal, key, &expected)
                    .map(|claim| (claim.format.to_string(), key.id().to_owned(), claim, None)),
            };
            match said {
                Ok((format, key, claim, signed_at)) => {
                    image.signatures.push(Signature {
                        authority: signer.authority.clone(),
                        key,
                        format,
                        repository: claim.repository,
                        digest: claim.digest.to_string(),
                        signed_at,
                    });
                }
                // What another key says of its own signature is worth more than that this one did not sign.
                Err(reject @ (Reject::Signature { .. } | Reject::Untrusted(_) | Reject::Uncertified(_)))
                    if reason.starts_with("wrong-key") =>
                {
                    reason = format!("wrong-key: {reject}");
                }
                Err(Reject::Signature { .. } | Reject::Untrusted(_) | Reject::Uncertified(_)) => {}
                Err(reject @ Reject::OtherImage { .. }) => reason = format!("other-digest: {reject}"),
                Err(reject @ Reject::NotASignature { .. }) => {
                    reason = format!("attestation: {reject}");
                    if let Err(why) = self.attested(image, proposal, file, signer, &expected) {
                        reason = format!("malformed: {why}");
                    }
                }
                Err(reject @ (Reject::Certificate(_) | Reject::Keyless(_))) => {
                    reason = format!("certificate: {reject}");
                }
                Err(reject) => reason = format!("malformed: {reject}"),
            }
        }
        if image.signatures.len() == before {
            image.rejected.push(reason);
        }
    }

    /// The signatures are verified here. What the certificates say is a worker's word, so the record says: one that saw
    /// nothing that was not signed under the authority's root.
    fn vouched(&self, notary: &Notary, proposal: &NotationProposal, expected: &Digest) -> Result<Counted, Reject> {
        let vouched = notary.verify(proposal, expected)?;
        self.jail.afresh();
        let answer = self.jail.parse(judge_certificates, 0, &notary.question(proposal, self.now));
        self.jail.afresh();
        let (claim, subject) = accept(&vouched, &answer.map_err(Reject::Certificate)?)?;
        Ok((format!("{} by {subject}, trust=jailed", claim.format), vouched.key, claim, None))
    }
}

/// What the worker of [`Signed::vouched`] does.
fn judge_certificates(_: u8, question: &[u8]) -> Vec<u8> {
    appraise(question)
}

/// Has a worker parse `bytes`. Its answer is decoded by fixed code; a refusal of its own is a reason.
fn ask(jail: &dyn Parse, source: Source, bytes: &[u8]) -> Result<Proposal, NoProof> {
    let answer = jail.parse(parse, kind(source), bytes).map_err(why)?;
    let answer: Answer = decode_answer(&answer).map_err(|e| why(format!("the worker's answer: {e}")))?;
    answer.map_err(|malformed: Malformed| why(malformed.reason()))
}

/// What a worker does with a question. The numbers are between a gate and its own fork.
fn parse(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let source = match kind {
        0 => Source::Index,
        1 => Source::Manifest,
        2 => Source::Target,
        3 => Source::Config,
        4 => Source::CosignSignature,
        5 => Source::SigstoreBundle,
        6 => Source::NotationJws,
        7 => Source::NotationCose,
        _ => Source::Dsse,
    };
    encode_answer(&propose(source, bytes))
}

fn kind(source: Source) -> u8 {
    match source {
        Source::Index => 0,
        Source::Manifest => 1,
        Source::Target => 2,
        Source::Config => 3,
        Source::CosignSignature => 4,
        Source::SigstoreBundle => 5,
        Source::NotationJws => 6,
        Source::NotationCose => 7,
        Source::Dsse => 8,
    }
}

#[cfg(test)]
mod tests;
