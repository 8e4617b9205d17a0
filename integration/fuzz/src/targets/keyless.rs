//! Bundles that certificates of Fulcio's sign, and what the worker says of them.
use super::{outcome, seed, seeds};
use boltseal_trust::keyless::{Answer, Certified, Demands, Fulcio};
use boltseal_trust::{Attestation, Proposal, Reject, SignatureProposal, Source, propose};
use std::sync::LazyLock;

const ALL: Demands = Demands { log: true, sct: true };

/// A true bundle, the root that it was made under, and who made it.
struct Truth {
    fulcio: Fulcio,
    file: &'static [u8],
    proposal: SignatureProposal,
    who: Answer,
}

static TRUTHS: LazyLock<Vec<Truth>> = LazyLock::new(|| {
    let truth = |root: &str, bundle: &str| {
        let fulcio = Fulcio::new(seed("keyless_root", root), ALL).unwrap_or_else(|e| panic!("{root}: {e}"));
        let file = seed("keyless_bundle", bundle);
        let Ok(Proposal::Signature(proposal)) = propose(Source::SigstoreBundle, file) else { panic!("{bundle}") };
        let (_, _, who) = asked(&fulcio, &proposal, file).unwrap_or_else(|e| panic!("{bundle}: {e}"));
        Truth { fulcio, file, proposal, who }
    };
    vec![truth("public-good.json", "rekor-v1.json"), truth("staging.json", "rekor-v2.json")]
});

fn certified(fulcio: &Fulcio, proposal: &SignatureProposal) -> Result<Certified<Attestation>, Reject> {
    fulcio.verify_attestation(proposal, &proposal.digest())
}

fn asked(fulcio: &Fulcio, proposal: &SignatureProposal, file: &[u8]) -> Result<(Attestation, String, Answer), Reject> {
    let certified = certified(fulcio, proposal)?;
    let question = fulcio.question(&certified, file, &proposal.digest());
    certified.accept(&boltseal_keyless::judge(&question))
}

pub(super) fn keyless_root(bytes: &[u8]) -> u64 {
    outcome(&Fulcio::new(bytes, ALL).map(|_| ()))
}

/// The input is a bundle; the roots are the seeds'.
pub(super) fn keyless_bundle(bytes: &[u8]) -> u64 {
    let Ok(Proposal::Signature(proposal)) = propose(Source::SigstoreBundle, bytes) else { return 0 };
    let said: Vec<_> = TRUTHS
        .iter()
        .map(|truth| {
            let said = asked(&truth.fulcio, &proposal, bytes);
            if let Ok((_, _, who)) = &said {
                assert_eq!(proposal.payload(), truth.proposal.payload(), "forged");
                assert_eq!((&who.identity, &who.issuer), (&truth.who.identity, &truth.who.issuer), "forged");
            }
            said.map(|_| ()).map_err(|why| why.to_string())
        })
        .collect();
    outcome(&said)
}

/// The input is a question; an answer is read as that about a true bundle.
pub(super) fn keyless_judge(bytes: &[u8]) -> u64 {
    let answer = boltseal_keyless::judge(bytes);
    let Some(truth) = TRUTHS.first() else { panic!("no seed") };
    let Ok(certified) = certified(&truth.fulcio, &truth.proposal) else { panic!("not the seed's") };
    let said = certified.accept(&answer);
    if let Ok((_, _, who)) = &said {
        assert!(TRUTHS.iter().any(|truth| truth.who.identity == who.identity), "{who:?}");
    }
    assert!(seeds("keyless_bundle").count() > 0 && !truth.file.is_empty());
    outcome(&said.map(|_| ()).map_err(|why| why.to_string()))
}
