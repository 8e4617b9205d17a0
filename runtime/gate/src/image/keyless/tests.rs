use super::*;
use crate::image::{Signer, Trust};
use boltseal_jail::Jail;
use boltseal_policy::facts::Image;
use boltseal_trust::{Proposal, Source, propose};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// See `runtime/keyless/tests/data/SOURCE`.
const ROOT: &[u8] = include_bytes!("../../../../keyless/tests/data/public-good.json");
const BUNDLE: &[u8] = include_bytes!("../../../../keyless/tests/data/rekor-v1.json");
/// Its one subject.
const SUBJECT: &str = "sha256:54303491a8418fbed24344b513546182c29b43bf282ceb433af65e2299f9271f";
const ISSUER: &str = "https://token.actions.githubusercontent.com";
/// Later than the bundle was made.
const NOW: u64 = 1_798_761_600;

fn judged(identity: &str, issuer: &str, of: &str, now: u64) -> Image {
    let authority = Authority {
        name: "release".into(),
        format: "keyless".into(),
        identities: vec!["nobody".into(), identity.into()],
        issuers: vec![issuer.into()],
        ..Authority::default()
    };
    let trust = Trust::Keyless(Keyless::new(ROOT, &authority).unwrap());
    let signers = [Signer { authority: authority.name, trust }];
    let Ok(Proposal::Signature(proposal)) = propose(Source::SigstoreBundle, BUNDLE) else { panic!() };
    let jail = Jail::new(Instant::now() + Duration::from_secs(10)).unwrap();
    let mut image = Image::default();
    let signed = Signed { jail: &jail, signers: &signers, now: Some(now), reads: BTreeSet::new() };
    signed.judge(&mut image, &proposal, BUNDLE, of.parse().unwrap());
    image
}

/// In the real jail, with Sigstore's own root.
#[test]
fn a_workflow_that_the_policy_names_counts_and_nobody_else() {
    let good = judged("https://github.com/*/.github/workflows/*", ISSUER, SUBJECT, NOW);
    let [found] = &good.attestations[..] else { panic!("{:?}", good.rejected) };
    assert_eq!((found.authority.as_str(), found.digest.as_str()), ("release", SUBJECT));
    assert!(good.signatures.is_empty(), "an attestation is no signature");
    let other = format!("sha256:{}", "0".repeat(64));
    for (identity, issuer, of, now, why) in [
        ("https://gitlab.com/*", ISSUER, SUBJECT, NOW, "malformed: keyless: signed by https://github.com/"),
        ("https://github.com/*", "https://accounts.google.com", SUBJECT, NOW, "whom the authority does not name"),
        ("https://github.com/*", ISSUER, other.as_str(), NOW, "signs another image"),
        ("https://github.com/*", ISSUER, SUBJECT, 1_000_000_000, "ahead of this node's clock"),
    ] {
        let image = judged(identity, issuer, of, now);
        assert!(image.attestations.is_empty(), "{identity} {issuer} {of}");
        assert!(image.rejected.iter().any(|line| line.contains(why)), "{why}: {:?}", image.rejected);
    }
}
