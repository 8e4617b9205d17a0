//! The gate's half: a claim comes only from signed bytes that say it themselves.
//!
//! No parser: the text that must have been signed is rebuilt from the proposal and compared. What cosign writes leaves
//! room in one place, the annotations of `cosign sign -a`; they may be an object of texts and whole numbers.
//!
//! What no verifier can see: cosign 2 signs its payload, and cosign 3 its envelope, without saying so to the key. Whoever
//! may have a blob of his choice signed by the same key (`cosign sign-blob`, or a raw signing service) may have either
//! text signed. A key that signs images signs nothing else.
use crate::digest::Digest;
use crate::key::Key;
use crate::propose::{MAX_REPOSITORY, SignatureProposal, printable};
use crate::spki::Text;
use crate::text::Cursor;
use std::fmt;

/// DSSE payload type of an in-toto statement, the only one taken.
pub(crate) const IN_TOTO: &str = "application/vnd.in-toto+json";
/// Predicate type of `cosign sign`. Any other is an attestation: it says something about an image, not "I sign it".
pub(crate) const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";

/// What a verified signature says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub format: Format,
    /// The repository inside the signed bytes, without a tag, and with Docker Hub's old name `index.docker.io` written
    /// as `docker.io`; None when the format names none.
    pub repository: Option<String>,
    /// The digest inside the signed bytes; equals the expected one.
    pub digest: Digest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// cosign 2: names digest and repository.
    CosignSignature,
    /// cosign 3: names the digest alone.
    SigstoreBundle,
    /// cosign 3 with a certificate of Fulcio's: the same.
    SigstoreKeyless,
    /// The Notary Project's JWS: names the digest alone.
    NotationJws,
    /// Its COSE envelope: the same.
    NotationCose,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CosignSignature => "cosign-signature",
            Self::SigstoreBundle => "sigstore-bundle",
            Self::SigstoreKeyless => "sigstore-keyless",
            Self::NotationJws => "notation-jws",
            Self::NotationCose => "notation-cose",
        })
    }
}

/// Why a proposed signature does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reject {
    /// The bytes were not signed by this key.
    Signature { key: String },
    /// Well signed, for another image.
    OtherImage { named: Digest },
    /// Well signed, but a statement about an image: what the worker says its predicate type is.
    NotASignature { predicate_type: String },
    /// The DSSE envelope holds another kind of payload.
    PayloadType(String),
    /// The repository cannot be compared as plain text.
    Repository(String),
    /// Well signed, but not the text that is signed in this format, or not what the worker said of it.
    Text { format: Format },
    /// Well signed, but not a statement that attests something about this image.
    Statement(&'static str),
    /// Certificates, or the envelope, that no root of the authority leads to.
    Untrusted(String),
    /// Signed under a root, but what the certificates or the signed attributes say does not hold.
    Certificate(String),
    /// Keyless: not by a certificate of the authority's trusted root.
    Uncertified(String),
    /// Keyless: by one, but certificate, log, time or identity do not hold.
    Keyless(String),
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signature { key } => write!(f, "not signed by key {key}"),
            Self::OtherImage { named } => write!(f, "signs another image, {named}"),
            Self::NotASignature { predicate_type } => {
                write!(f, "an attestation ({predicate_type}), not a signature. Fix: cosign sign")
            }
            Self::PayloadType(kind) => write!(f, "payload of type {kind}, not {IN_TOTO}"),
            Self::Repository(name) => write!(f, "signed for {name}, which is not a repository name"),
            Self::Text { format: Format::CosignSignature } => {
                f.write_str("the signed payload is not what cosign 2 signs (identity, image, type, flat annotations)")
            }
            Self::Text { format: Format::SigstoreBundle | Format::SigstoreKeyless } => {
                f.write_str("the signed statement is not what cosign 3 signs (one subject by sha256, empty predicate)")
            }
            Self::Text { format: Format::NotationJws | Format::NotationCose } => {
                f.write_str("the signed payload does not name its digest plainly")
            }
            Self::Statement(why) => write!(f, "not an attestation: {why}"),
            Self::Untrusted(why) => write!(f, "notation: {why}"),
            Self::Certificate(why) => write!(f, "notation: {why}"),
            Self::Uncertified(why) | Self::Keyless(why) => write!(f, "keyless: {why}"),
        }
    }
}

impl std::error::Error for Reject {}

/// The claim of a proposed signature: made by `key`, over bytes that name exactly `expected`.
///
/// Nothing of the proposal is believed but the raw bytes: the signature is verified over them, then the text that they
/// must be is rebuilt and compared.
///
/// # Errors
/// [`Reject`] says what is missing. The signature is checked first, so that every other reason is about signed bytes.
pub fn verify_signature(proposal: &SignatureProposal, key: &Key, expected: &Digest) -> Result<Claim, Reject> {
    match proposal {
        SignatureProposal::Cosign { payload, signature, reference, digest } => {
            signed(key, Text::Payload, payload, signature)?;
            let repository = repository(reference)?;
            if !is_simple_signing(payload, reference, digest) {
                return Err(Reject::Text { format: Format::CosignSignature });
            }
            same(digest, expected)?;
            Ok(Claim { format: Format::CosignSignature, repository: Some(repository), digest: *digest })
        }
        SignatureProposal::Bundle { payload_type, payload, signature, predicate_type, digest } => {
            if payload_type != IN_TOTO {
                return Err(Reject::PayloadType(printable(payload_type)));
            }
            signed(key, Text::Envelope, &pre_authentication_encoding(payload), signature)?;
            sign_claim(Format::SigstoreBundle, payload, predicate_type, digest, expected)
        }
        SignatureProposal::Notation(_) => Err(Reject::Untrusted("a key is no root".into())),
        SignatureProposal::Certified { .. } => Err(Reject::Uncertified("a key is no trusted root".into())),
    }
}

/// The claim of a signed in-toto statement: that of `cosign sign`, about exactly `expected`.
pub(crate) fn sign_claim(
    format: Format,
    payload: &[u8],
    predicate_type: &str,
    named: &Digest,
    expected: &Digest,
) -> Result<Claim, Reject> {
    if predicate_type != SIGN {
        return Err(Reject::NotASignature { predicate_type: printable(predicate_type) });
    }
    if !is_sign_statement(payload, named) {
        return Err(Reject::Text { format });
    }
    same(named, expected)?;
    Ok(Claim { format, repository: None, digest: *named })
}

pub(crate) fn signed(key: &Key, text: Text, message: &[u8], signature: &[u8]) -> Result<(), Reject> {
    if key.signed(text, message, signature) { Ok(()) } else { Err(Reject::Signature { key: key.id().to_owned() }) }
}

fn same(named: &Digest, expected: &Digest) -> Result<(), Reject> {
    if named == expected { Ok(()) } else { Err(Reject::OtherImage { named: *named }) }
}

/// cosign 2 and podman write this compact, in this order (containers/image docs/containers-signature.5, the JSON data
/// format; cosign pkg/signature/payload).
fn is_simple_signing(payload: &[u8], reference: &str, digest: &Digest) -> bool {
    let critical = format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"{reference}"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"cosign container image signature"}},"optional":"#
    );
    let Some(optional) = payload.strip_prefix(critical.as_bytes()) else {
        return false;
    };
    if optional == b"null}" {
        return true;
    }
    let mut cursor = Cursor::compact(optional);
    cursor.flat_object() && cursor.template("}") && cursor.end()
}

/// DSSE v1: "DSSEv1" SP LEN(type) SP type SP LEN(body) SP body.
pub(crate) fn pre_authentication_encoding(payload: &[u8]) -> Vec<u8> {
    pae(IN_TOTO, payload)
}

/// The same for any type.
pub(crate) fn pae(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut message = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    message.extend_from_slice(payload);
    message
}

/// in-toto Statement v1 as protojson writes it: fields in order of their numbers, white space anywhere between tokens.
fn is_sign_statement(payload: &[u8], digest: &Digest) -> bool {
    let mut cursor = Cursor::spaced(payload);
    cursor.template(&format!(
        r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"digest":{{"sha256":"{}"}},"annotations":"#,
        digest.hex()
    )) && cursor.flat_object()
        && cursor.template(&format!(r#"}}],"predicateType":"{SIGN}","predicate":{{}}}}"#))
        && cursor.end()
}

/// The repository of a reference. The character set needs no JSON escape, so the text in the payload is this text; the
/// parts are such that a prefix of the text is a prefix of the repository.
fn repository(reference: &str) -> Result<String, Reject> {
    let refuse = || Reject::Repository(printable(reference));
    if reference.is_empty() || reference.len() > MAX_REPOSITORY {
        return Err(refuse());
    }
    // A port's colon stands before the first slash, a tag's after the last.
    let (host, path) = reference.split_once('/').ok_or_else(refuse)?;
    let (path, tag) = path.split_once(':').unwrap_or((path, "v"));
    let (name, port) = host.split_once(':').unwrap_or((host, "1"));
    let word = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
    };
    let number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let tag = !tag.is_empty() && tag.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    if !(word(name) && number && tag && path.split('/').all(word)) {
        return Err(refuse());
    }
    let host = if host == "index.docker.io" { "docker.io" } else { host };
    Ok(format!("{host}/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::digest;

    #[test]
    fn repositories() {
        for (reference, want) in [
            ("ghcr.io/corp/app", "ghcr.io/corp/app"),
            ("127.0.0.1:5901/team/app", "127.0.0.1:5901/team/app"),
            ("localhost:5000/a/b/c:v1.2-rc_3", "localhost:5000/a/b/c"),
            ("index.docker.io/library/busybox", "docker.io/library/busybox"),
            ("ghcr.io/a__b--c/d.e", "ghcr.io/a__b--c/d.e"),
        ] {
            assert_eq!(repository(reference).unwrap(), want);
        }
        for bad in [
            "",
            "app",
            "/app",
            "ghcr.io/",
            "ghcr.io//app",
            "ghcr.io/a/../b",
            "ghcr.io/./b",
            "ghcr.io/a/",
            "ghcr.io/a:",
            "ghcr.io/a:v:w",
            "ghcr.io/a:v/b",
            "ghcr.io:x/a",
            "ghcr.io:/a",
            "a b/c",
            "ghcr.io/a\"b",
            "ghcr.io/a\\b",
            "ghcr.io/é",
            "ghcr.io/a@sha256:00",
            "ghcr.io/a\n",
            "[::1]:5000/a",
            "gh\0cr/a",
        ] {
            assert!(repository(bad).is_err(), "{bad}");
        }
        let long = |len: usize| format!("h/{}", "a".repeat(len - 2));
        assert_eq!(repository(&long(MAX_REPOSITORY)).unwrap(), long(MAX_REPOSITORY));
        assert!(repository(&long(MAX_REPOSITORY + 1)).is_err());
    }

    fn simple(identity: &str, image: &str, kind: &str, optional: &str) -> String {
        format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"{identity}"}},"image":{{"docker-manifest-digest":"{image}"}},"type":"{kind}"}},"optional":{optional}}}"#
        )
    }

    #[test]
    fn payloads_of_cosign_2_and_their_look_alikes() {
        let named = digest(b"image");
        let (id, image, kind) = ("h/r", named.to_string(), "cosign container image signature");
        let is = |payload: String| is_simple_signing(payload.as_bytes(), id, &named);
        for optional in ["null", "{}", r#"{"a":"b"}"#, r#"{"creator":"x","timestamp":1700000000}"#] {
            assert!(is(simple(id, &image, kind, optional)), "{optional}");
        }
        let good = simple(id, &image, kind, "null");
        for bad in [
            simple("h/other", &image, kind, "null"),
            simple(id, &digest(b"other").to_string(), kind, "null"),
            simple(id, &image, "atomic container signature", "null"),
            simple(id, &image, kind, "null,\"critical\":{}"),
            simple(id, &image, kind, r#"{"a":{"critical":1}}"#),
            simple(id, &image, kind, r#"{},"critical":"x""#),
            simple(id, &image, kind, "true"),
            simple(id, &image, kind, ""),
            format!("{good} "),
            format!(" {good}"),
            simple(id, &image, kind, "{}") + "}",
            simple(id, &image, kind, "{}") + r#"{"critical":{}}"#,
            format!("{good}{good}"),
            good.replace("\"critical\"", "\"Critical\""),
            good.replace(':', ": "),
            String::new(),
        ] {
            assert!(!is(bad.clone()), "{bad}");
        }
    }

    #[test]
    fn statements_of_cosign_3_and_their_look_alikes() {
        let named = digest(b"image");
        let hex = named.hex();
        let good = format!(
            r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"digest":{{"sha256":"{hex}"}},"annotations":{{}}}}],"predicateType":"{SIGN}","predicate":{{}}}}"#
        );
        let is = |payload: &str| is_sign_statement(payload.as_bytes(), &named);
        assert!(is(&good));
        assert!(is(&good.replace("\"annotations\":{}", "\"annotations\":{\"a\":\"b\",\"c\":\"d\"}")));
        assert!(is(&good.replace(",\"", ", \"").replace("\":{", "\": {")));
        let other = digest(b"other").hex();
        for bad in [
            good.replace(&hex, &other),
            good.replace(SIGN, "https://cosign.sigstore.dev/attestation/vuln/v1"),
            good.replace("Statement/v1", "Statement/v0.1"),
            good.replace("\"predicate\":{}", "\"predicate\":{\"a\":1}"),
            good.replace("\"predicate\":{}", "\"predicate\":{},\"predicateType\":\"x\""),
            good.replace("}],", &format!("}},{{\"digest\":{{\"sha256\":\"{other}\"}}}}],")),
            good.replace("[{", &format!("[{{\"digest\":{{\"sha256\":\"{other}\"}}}},{{")),
            good.replace("\"annotations\":{}", &format!("\"annotations\":{{}},\"digest\":{{\"sha256\":\"{other}\"}}")),
            good.replace("\"annotations\":{}", "\"annotations\":{\"a\":{}}"),
            good.replace("\"sha256\":", "\"sha512\":"),
            good.replace("\"digest\"", "\"name\":\"x\",\"digest\""),
            good.replace(&hex, &hex.to_uppercase()),
            good.replace(&hex, &format!(" {hex}")),
            format!("{good}{{}}"),
            String::new(),
        ] {
            assert!(!is(&bad), "{bad}");
        }
    }
}
