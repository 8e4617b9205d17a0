//! Files of the signature store.
//!
//! `.sig.json` is ours: what cosign 2 spreads over a manifest's annotation and a layer, without the rest, which nobody
//! signed. `.bundle.json` is Sigstore's bundle v0.3 as cosign 3 writes it.
use super::json::{Object, object};
use super::{
    MAX_ATTESTATION_FILE, MAX_NAME, MAX_REPOSITORY, MAX_SIGNATURE, MAX_SIGNATURE_FILE, Malformed, SignatureProposal,
};
use crate::digest::Digest;
use crate::notation::MAX_CERTIFICATE;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

pub(crate) fn cosign(bytes: &[u8]) -> Result<SignatureProposal, Malformed> {
    let file = object(bytes, "signature", MAX_SIGNATURE_FILE)?;
    if let Some(key) = file.keys().find(|key| !["payload", "signature"].contains(key)) {
        return Err(Malformed::new(format!("unknown key {key:?}")));
    }
    let payload = base64(&file, "payload", MAX_SIGNATURE_FILE)?;
    let signature = base64(&file, "signature", MAX_SIGNATURE)?;
    let (reference, digest) = simple_signing(&payload)?;
    Ok(SignatureProposal::Cosign { payload, signature, reference, digest })
}

/// Reference and digest that a cosign 2 payload names.
fn simple_signing(payload: &[u8]) -> Result<(String, Digest), Malformed> {
    let payload = object(payload, "payload", MAX_SIGNATURE_FILE)?;
    let critical = payload.object("critical")?;
    let reference = critical.object("identity")?.need_text("docker-reference", MAX_REPOSITORY)?;
    let digest = critical.object("image")?.need_text("docker-manifest-digest", MAX_NAME)?;
    Ok((reference.to_owned(), named(digest)?))
}

pub(crate) fn bundle(bytes: &[u8]) -> Result<SignatureProposal, Malformed> {
    let file = object(bytes, "bundle", MAX_ATTESTATION_FILE)?;
    let media_type = file.need_text("mediaType", MAX_NAME)?;
    if media_type != BUNDLE {
        return Err(Malformed::new(format!("bundle of type {media_type:?}, not {BUNDLE}. Fix: sign with cosign 3")));
    }
    if file.has("messageSignature")? {
        return Err(Malformed::new("a bundle of cosign sign-blob, which signs a file, not an image"));
    }
    let material = file.object("verificationMaterial")?;
    if material.has("x509CertificateChain")? {
        return Err(Malformed::new(
            "a chain of certificates, which bundles of v0.3 have no more. Fix: sign with cosign 3",
        ));
    }
    let envelope = envelope(file.object("dsseEnvelope")?)?;
    if !material.has("certificate")? {
        return Ok(envelope);
    }
    if material.has("publicKey")? {
        return Err(Malformed::new("signed with a key and with a certificate"));
    }
    let certificate = base64(material.object("certificate")?, "rawBytes", MAX_CERTIFICATE)?;
    Ok(SignatureProposal::Certified { certificate, envelope: Box::new(envelope) })
}

/// A DSSE envelope alone, as cosign 2 attests.
pub(crate) fn dsse(bytes: &[u8]) -> Result<SignatureProposal, Malformed> {
    envelope(&object(bytes, "envelope", MAX_ATTESTATION_FILE)?)
}

fn envelope(envelope: &Object<'_>) -> Result<SignatureProposal, Malformed> {
    let [signature] = envelope.list("signatures")? else {
        return Err(Malformed::new("not exactly one signature in the envelope"));
    };
    let payload = base64(envelope, "payload", MAX_ATTESTATION_FILE)?;
    let (predicate_type, digest) = statement(&payload)?;
    Ok(SignatureProposal::Bundle {
        payload_type: envelope.need_text("payloadType", MAX_NAME)?.to_owned(),
        payload,
        signature: base64(signature.object("signatures")?, "sig", MAX_SIGNATURE)?,
        predicate_type,
        digest,
    })
}

/// Predicate type and the one subject's sha256 of an in-toto statement.
fn statement(payload: &[u8]) -> Result<(String, Digest), Malformed> {
    let statement = object(payload, "statement", MAX_ATTESTATION_FILE)?;
    let [subject] = statement.list("subject")? else {
        return Err(Malformed::new("the statement is not about exactly one subject"));
    };
    let digests = subject.object("subject")?.object("digest")?;
    let hex = digests.need_text("sha256", MAX_NAME)?;
    let digest = Digest::from_hex(hex).map_err(|_| Malformed::new("the subject's sha256 is not 64 hex digits"))?;
    Ok((statement.need_text("predicateType", MAX_NAME)?.to_owned(), digest))
}

fn named(text: &str) -> Result<Digest, Malformed> {
    text.parse().map_err(|error| Malformed::new(format!("docker-manifest-digest: {error}")))
}

fn base64(object: &Object<'_>, name: &str, max: usize) -> Result<Vec<u8>, Malformed> {
    let bytes = STANDARD
        .decode(object.need_text(name, MAX_ATTESTATION_FILE)?)
        .map_err(|_| Malformed::new(format!("{name} is not base64")))?;
    if bytes.len() > max {
        return Err(Malformed::new(format!("{name} is longer than {max} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(payload: &str, change: impl Fn(String) -> String) -> Result<SignatureProposal, Malformed> {
        bundle(
            change(format!(
                r#"{{"mediaType":"{BUNDLE}","verificationMaterial":{{"publicKey":{{"hint":""}}}},"dsseEnvelope":{{"payload":"{}","payloadType":"application/vnd.in-toto+json","signatures":[{{"sig":"AAAA"}}]}}}}"#,
                STANDARD.encode(payload)
            ))
            .as_bytes(),
        )
    }

    #[test]
    fn bundles_that_are_not_taken_are_named() {
        let hex = "0".repeat(64);
        let good = format!(r#"{{"subject":[{{"digest":{{"sha256":"{hex}"}}}}],"predicateType":"p"}}"#);
        assert!(envelope(&good, |b| b).is_ok());
        // A log entry or a time stamp beside the key changes nothing: the key alone decides.
        let stamped = |b: String| {
            b.replace(
                "{\"publicKey\"",
                r#"{"tlogEntries":[{"logIndex":"1"}],"timestampVerificationData":{},"publicKey""#,
            )
        };
        assert_eq!(envelope(&good, stamped), envelope(&good, |b| b));
        for (bad, why) in [
            (envelope(&good, |b| b.replace("v0.3", "v0.2")), "cosign 3"),
            (envelope(&good, |b| b.replace("publicKey", "x509CertificateChain")), "no more"),
            (
                envelope(&good, |b| {
                    b.replace("{\"publicKey\"", "{\"certificate\":{\"rawBytes\":\"AAAA\"},\"publicKey\"")
                }),
                "and with a certificate",
            ),
            (
                envelope(&good, |b| {
                    b.replace("{\"publicKey\":{\"hint\":\"\"}", "{\"certificate\":{\"rawBytes\":\"A\"}")
                }),
                "base64",
            ),
            (envelope(&good, |b| b.replace("[{\"sig\"", "[{},{\"sig\"")), "exactly one signature"),
            (envelope(&good, |b| b.replace("\"dsse", "\"messageSignature\":{},\"dsse")), "sign-blob"),
            (envelope(&good, |b| b.replace("AAAA", "A")), "base64"),
            (envelope(&good.replace("[{\"d", "[{},{\"d"), |b| b), "one subject"),
            (envelope(&good.replace("sha256", "sha512"), |b| b), "no sha256"),
            (envelope(&good.replace(&hex, "00"), |b| b), "64 hex"),
            (envelope(&format!("{good}{good}"), |b| b), "trailing"),
            (envelope(&good.replace("\"p\"}", "\"p\",\"predicateType\":\"q\"}"), |b| b), "twice"),
        ] {
            let error = bad.unwrap_err().0;
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_signature_file_holds_two_things() {
        let payload = format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"r"}},"image":{{"docker-manifest-digest":"sha256:{}"}}}}}}"#,
            "0".repeat(64)
        );
        let file = format!(r#"{{"payload":"{}","signature":"AAAA"}}"#, STANDARD.encode(&payload));
        assert!(cosign(file.as_bytes()).is_ok());
        assert!(cosign(file.replace("{\"p", "{\"x\":1,\"p").as_bytes()).unwrap_err().0.contains("unknown key"));
        assert!(cosign(&vec![b' '; MAX_SIGNATURE_FILE + 1]).unwrap_err().0.contains("at most"));
    }
}
