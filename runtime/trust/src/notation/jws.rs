//! The JWS envelope (Notary Project, signature-envelope-jws): flattened JSON, one signature. Worker's code.
use super::appraise::Attributes;
use super::{Envelope, MAX_CERTIFICATE, MAX_CHAIN, NotationProposal, time};
use crate::digest::Digest;
use crate::propose::json::{Json, Object, object};
use crate::propose::{MAX_NAME, MAX_SIGNATURE, MAX_SIGNATURE_FILE, Malformed};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

/// Header parameters of RFC 7515 and 7797 that would have a verifier fetch, or read the payload, in another way.
const REFUSED: [&str; 4] = ["b64", "jku", "x5u", "zip"];

pub(crate) fn envelope(bytes: &[u8]) -> Result<NotationProposal, Malformed> {
    let file = object(bytes, "envelope", MAX_SIGNATURE_FILE)?;
    if let Some(key) = file.keys().find(|key| !["payload", "protected", "header", "signature"].contains(key)) {
        return Err(Malformed::new(format!("unknown key {key:?}: not a flattened JWS")));
    }
    let part = |name: &str, max: usize| -> Result<Vec<u8>, Malformed> {
        let text = file.need_text(name, MAX_SIGNATURE_FILE)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Malformed::new(format!("{name} is not base64url")))?;
        if bytes.len() > max { Err(Malformed::new(format!("{name} is longer than {max} bytes"))) } else { Ok(bytes) }
    };
    let payload = part("payload", MAX_SIGNATURE_FILE)?;
    Ok(NotationProposal {
        envelope: Envelope::Jws,
        protected: part("protected", MAX_SIGNATURE_FILE)?,
        signature: part("signature", MAX_SIGNATURE)?,
        chain: chain(file.object("header")?)?,
        digest: target(&payload)?,
        payload,
    })
}

fn chain(header: &Object<'_>) -> Result<Vec<Vec<u8>>, Malformed> {
    let list = header.list("x5c")?;
    if list.is_empty() || list.len() > MAX_CHAIN {
        return Err(Malformed::new(format!("x5c has no certificate, or more than {MAX_CHAIN}")));
    }
    let certificate = |item: &Json<'_>| {
        let der = STANDARD.decode(item.text("x5c", MAX_SIGNATURE_FILE)?);
        der.ok()
            .filter(|der| der.len() <= MAX_CERTIFICATE)
            .ok_or_else(|| Malformed::new("x5c holds something that is no certificate"))
    };
    list.iter().map(certificate).collect()
}

/// The digest that a payload of `application/vnd.cncf.notary.payload.v1+json` names.
pub(super) fn target(payload: &[u8]) -> Result<Digest, Malformed> {
    let payload = object(payload, "payload", MAX_SIGNATURE_FILE)?;
    let target = payload.object("targetArtifact")?;
    let digest = target.need_text("digest", MAX_NAME)?;
    target.need_text("mediaType", MAX_NAME)?;
    target.need("size")?.number("size")?;
    digest.parse().map_err(|error| Malformed::new(format!("targetArtifact.digest: {error}")))
}

/// The signed attributes. `algorithm` is the one that the leaf's key has.
pub(super) fn attributes(protected: &[u8], algorithm: &str) -> Result<Attributes, Malformed> {
    let header = object(protected, "protected header", MAX_SIGNATURE_FILE)?;
    for name in REFUSED {
        if header.has(name)? {
            return Err(Malformed::new(format!("the protected header has {name}")));
        }
    }
    let alg = header.need_text("alg", MAX_NAME)?;
    if alg != algorithm {
        return Err(Malformed::new(format!("alg is {alg:?}, while the leaf's key signs by {algorithm}")));
    }
    let text = |name: &str| header.text(name, MAX_NAME).map(str::to_owned);
    let moment = |name: &str| match header.get(name)? {
        None => Ok(None),
        Some(value) => time::rfc3339(value.text(name, MAX_NAME)?)
            .map(Some)
            .ok_or_else(|| Malformed::new(format!("{name} is no time of RFC 3339"))),
    };
    let critical = header.list("crit")?.iter().map(|item| item.text("crit", MAX_NAME).map(str::to_owned));
    Ok(Attributes {
        content_type: text("cty")?,
        critical: critical.collect::<Result<_, _>>()?,
        scheme: text(super::appraise::SCHEME)?,
        signing_time: moment(super::appraise::SIGNING_TIME)?,
        authentic_time: moment(super::appraise::AUTHENTIC_TIME)?,
        expiry: moment(super::appraise::EXPIRY)?,
        plugin: header.has(super::appraise::PLUGIN)?,
    })
}
