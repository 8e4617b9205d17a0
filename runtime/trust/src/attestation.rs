//! Attestations: in-toto statements in a DSSE envelope, signed by an authority's key. What a statement says is for whoever
//! asks for its kind; here is shown that the authority said it, of this image, and of what kind it is.
use crate::digest::{Digest, digest};
use crate::key::Key;
use crate::propose::{SignatureProposal, printable};
use crate::spki::Text;
use crate::strings::{strings, unescapes_to};
use crate::verify::{IN_TOTO, Reject, SIGN, pre_authentication_encoding, signed};

/// The two versions of a statement that cosign writes.
const STATEMENTS: [&str; 2] = ["https://in-toto.io/Statement/v0.1", "https://in-toto.io/Statement/v1"];

/// A verified statement about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attestation {
    /// What kind of statement it is, as it was signed. Never that of `cosign sign`.
    pub predicate_type: String,
    /// The image, its one subject; equals the expected one.
    pub digest: Digest,
    /// sha256 of the signed statement: what a reader of its predicate must have before it.
    pub statement: Digest,
}

/// The attestation of a proposed DSSE envelope: signed by `key`, about exactly `expected`.
///
/// Nothing of the proposal is believed but the raw bytes: predicate type and subject are found in them again, once each.
///
/// # Errors
/// [`Reject`] says what is missing. The signature is checked first, so that every other reason is about signed bytes.
pub fn verify_attestation(proposal: &SignatureProposal, key: &Key, expected: &Digest) -> Result<Attestation, Reject> {
    let SignatureProposal::Bundle { payload_type, payload, signature, predicate_type, digest: named } = proposal else {
        return Err(Reject::Statement("not a DSSE envelope"));
    };
    if payload_type != IN_TOTO {
        return Err(Reject::PayloadType(printable(payload_type)));
    }
    signed(key, Text::Envelope, &pre_authentication_encoding(payload), signature)?;
    about(payload, predicate_type, named, expected)
}

/// What a signed payload attests: a statement of `predicate_type` about exactly `expected`.
pub(crate) fn about(
    payload: &[u8],
    predicate_type: &str,
    named: &Digest,
    expected: &Digest,
) -> Result<Attestation, Reject> {
    if predicate_type == SIGN {
        return Err(Reject::Statement("it is a signature, which attests nothing more"));
    }
    let hex = expected.hex();
    let once = |path: &[&str], fits: &dyn Fn(&[u8]) -> bool| {
        let mut found = Vec::new();
        strings(payload, path, |_, raw| found.push(fits(raw))).is_ok() && found == [true]
    };
    if !once(&["_type"], &|raw| STATEMENTS.iter().any(|known| raw == known.as_bytes())) {
        return Err(Reject::Statement("its _type is not that of an in-toto statement"));
    }
    if !once(&["predicateType"], &|raw| unescapes_to(raw, predicate_type)) {
        return Err(Reject::Statement("its predicateType is not what was read there"));
    }
    if named != expected {
        return Err(Reject::OtherImage { named: *named });
    }
    if !once(&["subject", "*", "digest", "sha256"], &|raw| raw == hex.as_bytes()) {
        return Err(Reject::Statement("it is not about one image by its sha256"));
    }
    Ok(Attestation { predicate_type: predicate_type.to_owned(), digest: *expected, statement: digest(payload) })
}
