//! What the keys of the node's policy say of a signature file, for what is kept and for `require`. It decides no start.
use crate::keep::Word;
use crate::keyless::Keyless;
use boltseal_evidence::policy_files;
use boltseal_jail::{Jail, Parse};
use boltseal_policy::Policy;
use boltseal_trust::notation::{Notary, accept, appraise};
use boltseal_trust::{
    Digest, Key, Proposal, SignatureProposal, Source, StoreFile, decode_answer, encode_answer, propose,
    verify_attestation, verify_signature,
};
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

enum Trust {
    Key(Key),
    Roots(Notary),
    Keyless(Keyless),
}

/// The policy's keys, and a jail for what is parsed.
pub struct Judge {
    signers: Vec<Trust>,
    /// Images that start without a signature: the policy's sandboxes.
    listed: Vec<String>,
    jail: Jail,
    repository: String,
}

impl std::fmt::Debug for Judge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Judge").field("signers", &self.signers.len()).finish_non_exhaustive()
    }
}

impl Judge {
    /// The keys of the policy in `folder`, for an image of `repository`.
    ///
    /// # Errors
    /// A policy that does not load.
    pub fn new(folder: &Path, repository: &str, deadline: Instant) -> Result<Self, String> {
        let bundle = policy_files::load(folder).map_err(|problem| problem.to_string())?;
        let texts = bundle.policy_texts().map_err(|problem| problem.to_string())?;
        let (main, drop_ins) = texts.split_first().ok_or("no policy.toml")?;
        let policy = Policy::parse(main.1, drop_ins).map_err(|problems| problems.join("; "))?;
        let mut signers = Vec::new();
        for authority in &policy.authorities {
            let name = match authority.format.as_str() {
                "notation" => &authority.roots,
                "keyless" => &authority.trusted_root,
                _ => &authority.key,
            };
            let bad = |why: &dyn std::fmt::Display| format!("trust/{name} of authority {:?}: {why}", authority.name);
            let bytes = bundle.trust(name).ok_or_else(|| bad(&"is missing"))?;
            let pem = || std::str::from_utf8(bytes).map_err(|e| bad(&e));
            signers.push(match authority.format.as_str() {
                "notation" => {
                    let notary = Notary::new(pem()?, &authority.identities, authority.signing_authority);
                    Trust::Roots(notary.map_err(|e| bad(&e))?)
                }
                "keyless" => Trust::Keyless(Keyless::new(bytes, authority).map_err(|e| bad(&e))?),
                _ => Trust::Key(Key::from_spki_pem(pem()?).map_err(|e| bad(&e.0))?),
            });
        }
        let listed = policy.sandbox.digests.clone();
        Ok(Self { signers, listed, jail: Jail::new(deadline)?, repository: repository.to_owned() })
    }

    /// Whether the policy lists the image itself.
    #[must_use]
    pub fn lists(&self, image: &Digest) -> bool {
        self.listed.contains(&image.to_string())
    }

    /// What the keys say of that file.
    #[must_use]
    pub fn word(&self, file: &StoreFile) -> Word {
        let expected: Option<Digest> = format!("sha256:{}", file.manifest_hex).parse().ok();
        let (Some(source), Some(expected)) = (Source::of_file(&file.name), expected) else { return Word::Nothing };
        // One file's author shall not answer for another's.
        self.jail.afresh();
        let Ok(answer) = self.jail.parse(parse, kind(source), &file.bytes) else { return Word::Nothing };
        let Ok(Ok(Proposal::Signature(proposal))) = decode_answer(&answer) else { return Word::Nothing };
        let words = self.signers.iter().map(|signer| self.by(signer, &proposal, &file.bytes, &expected));
        words.fold(Word::Nothing, |best, word| if word == Word::Nothing { best } else { higher(best, word) })
    }

    fn by(&self, signer: &Trust, proposal: &SignatureProposal, file: &[u8], expected: &Digest) -> Word {
        let claim = match (signer, proposal) {
            (Trust::Roots(notary), SignatureProposal::Notation(proposal)) => {
                let Ok(vouched) = notary.verify(proposal, expected) else { return Word::Nothing };
                let now = SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|d| d.as_secs());
                self.jail.afresh();
                let Ok(answer) = self.jail.parse(certificates, 0, &notary.question(proposal, now)) else {
                    return Word::Nothing;
                };
                accept(&vouched, &answer).map(|(claim, _)| claim)
            }
            (Trust::Keyless(keyless), SignatureProposal::Certified { .. }) => {
                return keyless.word(&self.jail, proposal, file, expected);
            }
            (Trust::Roots(_) | Trust::Keyless(_), _)
            | (Trust::Key(_), SignatureProposal::Notation(_) | SignatureProposal::Certified { .. }) => {
                return Word::Nothing;
            }
            (Trust::Key(key), proposal) => match verify_signature(proposal, key, expected) {
                Err(_) if verify_attestation(proposal, key, expected).is_ok() => return Word::Statement,
                other => other,
            },
        };
        match claim {
            Ok(claim) if claim.repository.as_ref().is_none_or(|r| *r == self.repository) => Word::Signature,
            _ => Word::Nothing,
        }
    }
}

fn higher(one: Word, other: Word) -> Word {
    if one == Word::Signature { one } else { other }
}

fn certificates(_: u8, question: &[u8]) -> Vec<u8> {
    appraise(question)
}

/// What a worker does with a question. The numbers are between us and our own fork.
fn parse(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let source = match kind {
        0 => Source::CosignSignature,
        1 => Source::SigstoreBundle,
        2 => Source::NotationJws,
        3 => Source::NotationCose,
        _ => Source::Dsse,
    };
    encode_answer(&propose(source, bytes))
}

fn kind(source: Source) -> u8 {
    match source {
        Source::CosignSignature => 0,
        Source::SigstoreBundle => 1,
        Source::NotationJws => 2,
        Source::NotationCose => 3,
        Source::Index | Source::Manifest | Source::Target | Source::Config | Source::Dsse => 4,
    }
}
