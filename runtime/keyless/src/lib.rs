//! What a worker makes of a keyless signature: who signed it, and when, by Sigstore's own rules. No I/O, no clock.
//!
//! The rules are those of the library `sigstore-verify`: certificate chain at every vouched time, code signing, the CT log's
//! promise, Rekor's inclusion proof, checkpoint and entry (versions 1 and 2), time stamps (RFC 3161). Ours are the
//! cryptography under it ([`provider`]), what is demanded, and that nobody's identity is chosen here: the gate compares it.
//!
//! The gate has shown that a CA of the same trusted root signed the leaf and that the leaf signed the envelope
//! ([`boltseal_trust::keyless::Fulcio`]), which are not verified here a second time, nor are the chains of time stamp authorities
//! that the trusted root itself spells out; it believes the answer, and the record says
//! `trust=jailed`.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests"))]

mod provider;

use boltseal_trust::keyless::{Answer, Question};
use sigstore_verify::trust_root::TrustedRoot;
use sigstore_verify::types::{Bundle, Sha256Hash};
use sigstore_verify::{VerificationPolicy, Verifier};

/// Before the worker is forked: what it needs of the kernel that its filter does not give. Maps of the standard library
/// are seeded from the kernel's random numbers once per thread, and a fork has its parent's seed.
pub fn prepare() {
    std::hint::black_box(std::hash::RandomState::new());
}

/// Answers a question of [`boltseal_trust::keyless::Fulcio::question`]. To be called in the worker.
#[must_use]
pub fn judge(question: &[u8]) -> Vec<u8> {
    let answer = Question::decode(question).map_err(|error| error.to_string());
    Answer::encode(&answer.and_then(|question| signer(&question)))
}

fn signer(question: &Question) -> Result<Answer, String> {
    provider::install()?;
    provider::know(&question.verified);
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned());
    let root = TrustedRoot::from_json(text(&question.root)?).map_err(|e| format!("the trusted root: {e}"))?;
    let bundle = Bundle::from_json(text(&question.bundle)?).map_err(|e| format!("the bundle: {e}"))?;
    let verifier = Verifier::new(&root).map_err(|e| format!("the trusted root: {e}"))?;
    let mut policy = VerificationPolicy::any_identity();
    if !question.demands.log {
        policy = policy.skip_tlog_unsafe();
    }
    if !question.demands.sct {
        policy = policy.skip_sct();
    }
    let digest = Sha256Hash::from_hex(&question.digest.hex()).map_err(|e| e.to_string())?;
    let found = verifier.verify(digest, &bundle, &policy).map_err(|e| e.to_string())?;
    // What was asked for has been looked at, whatever the library's defaults come to be.
    let missing = [
        (!found.certificate_verified(), "the certificate's chain"),
        (question.demands.log && !found.tlog_verified(), "inclusion in the log"),
        (question.demands.sct && !found.sct_verified(), "the certificate log's promise"),
    ];
    if let Some((_, what)) = missing.iter().find(|(missing, _)| *missing) {
        return Err(format!("{what} was not verified"));
    }
    let earliest = found.verified_timestamps().iter().map(|time| time.as_second()).min();
    let signed_at =
        earliest.and_then(|second| u64::try_from(second).ok()).ok_or("nobody vouches for the time of signing")?;
    let identity = found.identity().map(|name| name.as_str().to_owned()).ok_or("the certificate names nobody")?;
    let issuer = found.issuer().map(ToOwned::to_owned).ok_or("the certificate names no issuer")?;
    Ok(Answer { identity, issuer, signed_at })
}
