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

#[cfg(test)]
mod tests {
    use super::*;

    const APP: Digest = Digest([0xab; 32]);
    const KIND: &str = "https://example.org/scan/v1";

    fn statement(kind: &str, predicate_type: &str, subject: &str) -> String {
        format!(r#"{{"_type":"{kind}","predicateType":"{predicate_type}","subject":[{subject}],"predicate":{{}}}}"#)
    }

    fn subject(digest: &Digest) -> String {
        format!(r#"{{"name":"x","digest":{{"sha256":"{}"}}}}"#, digest.hex())
    }

    fn says(text: &str) -> Result<Attestation, Reject> {
        about(text.as_bytes(), KIND, &APP, &APP)
    }

    #[test]
    fn a_statement_of_a_known_type_about_one_image() {
        for known in STATEMENTS {
            let text = statement(known, KIND, &subject(&APP));
            let found = says(&text).unwrap();
            assert_eq!((found.predicate_type.as_str(), found.digest), (KIND, APP));
            assert_eq!(found.statement, digest(text.as_bytes()));
        }
    }

    #[test]
    fn each_part_once_and_as_it_was_read() {
        let known = STATEMENTS[0];
        let (good, other) = (subject(&APP), subject(&Digest([0xcd; 32])));
        let twice = |name: &str| statement(known, KIND, &good).replacen('{', &format!(r#"{{"{name}":"{KIND}","#), 1);
        for (what, text) in [
            ("another _type", statement("https://in-toto.io/Statement/v2", KIND, &good)),
            ("no _type", statement(known, KIND, &good).replace("_type", "type")),
            ("two _types", twice("_type")),
            ("another predicateType", statement(known, "https://example.org/other/v1", &good)),
            ("two predicateTypes", twice("predicateType")),
            ("no subject", statement(known, KIND, "")),
            ("another subject", statement(known, KIND, &other)),
            ("two subjects", statement(known, KIND, &format!("{good},{other}"))),
            ("one subject twice", statement(known, KIND, &format!("{good},{good}"))),
            ("not JSON", String::new()),
        ] {
            assert!(matches!(says(&text), Err(Reject::Statement(_))), "{what}: {:?}", says(&text));
        }
        let text = statement(known, KIND, &other);
        let named = Digest([0xcd; 32]);
        assert_eq!(about(text.as_bytes(), KIND, &named, &APP), Err(Reject::OtherImage { named }));
    }

    #[test]
    fn a_signature_attests_nothing_more() {
        let text = statement(STATEMENTS[0], SIGN, &subject(&APP));
        assert!(matches!(about(text.as_bytes(), SIGN, &APP, &APP), Err(Reject::Statement(_))));
    }
}
