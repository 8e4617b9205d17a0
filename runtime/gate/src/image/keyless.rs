//! Signatures by certificates of Fulcio's (BS-IMG-001): what the gate verifies itself, what a worker of its own is asked, and
//! whom the policy names.
use super::{Counted, Signed};
use boltseal_policy::pattern;
use boltseal_policy::policy::Authority;
use boltseal_trust::keyless::{Certified, Demands, Fulcio};
use boltseal_trust::{Attestation, Digest, Reject, SignatureProposal};

/// Whether this program has what the worker needs.
pub(crate) const BUILT: bool = cfg!(feature = "keyless");

/// A trusted root, and whom of those that it certifies an authority means.
#[derive(Debug)]
pub(crate) struct Keyless {
    fulcio: Fulcio,
    identities: Vec<String>,
    issuers: Vec<String>,
}

impl Keyless {
    /// Of an authority's trusted root.
    ///
    /// # Errors
    /// What the file is instead; that this program does not take any.
    pub(crate) fn new(root: &[u8], authority: &Authority) -> Result<Self, String> {
        if !BUILT {
            return Err(
                "this build has no keyless signatures. Fix: make build FEATURES=keyless, and install what it makes"
                    .into(),
            );
        }
        let demands = Demands { log: authority.log.unwrap_or(true), sct: authority.sct.unwrap_or(true) };
        let (identities, issuers) = (authority.identities.clone(), authority.issuers.clone());
        Ok(Self { fulcio: Fulcio::new(root, demands)?, identities, issuers })
    }
}

impl Signed<'_> {
    pub(super) fn certified(
        &self,
        keyless: &Keyless,
        proposal: &SignatureProposal,
        file: &[u8],
        expected: &Digest,
    ) -> Result<Counted, Reject> {
        let certified = keyless.fulcio.verify(proposal, expected)?;
        let (claim, key, by, signed_at) = self.asked(keyless, certified, file, expected)?;
        Ok((format!("{} {by}", claim.format), key, claim, Some(signed_at)))
    }

    pub(super) fn attested_keyless(
        &self,
        keyless: &Keyless,
        proposal: &SignatureProposal,
        file: &[u8],
        expected: &Digest,
    ) -> Result<(Attestation, String), Reject> {
        let certified = keyless.fulcio.verify_attestation(proposal, expected)?;
        let (found, key, _, _) = self.asked(keyless, certified, file, expected)?;
        Ok((found, key))
    }

    /// A worker that saw nothing of anybody else's says who it was and when; the policy's patterns say whether that is whom
    /// it means.
    fn asked<T>(
        &self,
        keyless: &Keyless,
        certified: Certified<T>,
        file: &[u8],
        expected: &Digest,
    ) -> Result<(T, String, String, u64), Reject> {
        prepare();
        self.jail.afresh();
        let answer = self.jail.parse(judge, 0, &keyless.fulcio.question(&certified, file, expected));
        self.jail.afresh();
        let (claim, key, who) = certified.accept(&answer.map_err(Reject::Keyless)?)?;
        let is = |patterns: &[String], text: &str| patterns.iter().any(|pattern| pattern::matches(pattern, text));
        if !is(&keyless.identities, &who.identity) || !is(&keyless.issuers, &who.issuer) {
            let who = format!("signed by {} of {}, whom the authority does not name", who.identity, who.issuer);
            return Err(Reject::Keyless(who));
        }
        // From the future nobody has seen it signed: a clock that is behind, here or there.
        if self.now.is_some_and(|now| who.signed_at > now + AHEAD) {
            return Err(Reject::Keyless("its time of signing lies ahead of this node's clock".into()));
        }
        let by = format!("by {} of {}, trust=jailed", who.identity, who.issuer);
        Ok((claim, key, by, who.signed_at))
    }
}

/// Seconds that a log's clock may be ahead of the node's.
const AHEAD: u64 = 300;

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

#[cfg(all(test, feature = "keyless"))]
mod tests;
