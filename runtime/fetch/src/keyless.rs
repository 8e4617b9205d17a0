//! What a keyless authority says of a signature file: as a start judges it, but that nothing is decided by it. It takes a
//! build with the feature `keyless`; any other takes no policy that names such an authority, as the gate of that build.
use crate::keep::Word;
use boltseal_jail::Parse;
use boltseal_policy::pattern;
use boltseal_policy::policy::Authority;
use boltseal_trust::keyless::{Certified, Demands, Fulcio};
use boltseal_trust::{Digest, SignatureProposal};

/// A trusted root, and whom of those that it certifies an authority means.
#[derive(Debug)]
pub struct Keyless {
    fulcio: Fulcio,
    identities: Vec<String>,
    issuers: Vec<String>,
}

impl Keyless {
    /// Of an authority's trusted root.
    ///
    /// # Errors
    /// What the file is instead; that this program does not take any.
    pub fn new(root: &[u8], authority: &Authority) -> Result<Self, String> {
        if !cfg!(feature = "keyless") {
            return Err("this build has no keyless signatures. Fix: make build FEATURES=keyless".into());
        }
        let demands = Demands { log: authority.log.unwrap_or(true), sct: authority.sct.unwrap_or(true) };
        let (identities, issuers) = (authority.identities.clone(), authority.issuers.clone());
        Ok(Self { fulcio: Fulcio::new(root, demands)?, identities, issuers })
    }

    /// What it says of that file.
    pub fn word(&self, jail: &dyn Parse, proposal: &SignatureProposal, file: &[u8], expected: &Digest) -> Word {
        let said = |word, by_whom| if by_whom { word } else { Word::Nothing };
        match self.fulcio.verify(proposal, expected) {
            Ok(certified) => said(Word::Signature, self.means(jail, certified, file, expected)),
            Err(_) => match self.fulcio.verify_attestation(proposal, expected) {
                Ok(certified) => said(Word::Statement, self.means(jail, certified, file, expected)),
                Err(_) => Word::Nothing,
            },
        }
    }

    /// A worker that saw nothing of anybody else's says who it was.
    fn means<T>(&self, jail: &dyn Parse, certified: Certified<T>, file: &[u8], expected: &Digest) -> bool {
        prepare();
        jail.afresh();
        let answer = jail.parse(judge, 0, &self.fulcio.question(&certified, file, expected));
        jail.afresh();
        let is = |patterns: &[String], text: &str| patterns.iter().any(|pattern| pattern::matches(pattern, text));
        answer
            .ok()
            .and_then(|answer| certified.accept(&answer).ok())
            .is_some_and(|(_, _, who)| is(&self.identities, &who.identity) && is(&self.issuers, &who.issuer))
    }
}

#[cfg(feature = "keyless")]
fn prepare() {
    boltseal_keyless::prepare();
}

#[cfg(not(feature = "keyless"))]
fn prepare() {}

/// What the worker does. A program without it has no [`Keyless`] to ask about, and its answer would be none.
fn judge(_: u8, question: &[u8]) -> Vec<u8> {
    #[cfg(feature = "keyless")]
    return boltseal_keyless::judge(question);
    #[cfg(not(feature = "keyless"))]
    question.get(..0).unwrap_or_default().to_vec()
}
