//! Signatures by a certificate of Sigstore's CA (Fulcio), which names a person or a workflow and lives ten minutes: "keyless".
//!
//! Three steps, as with notation:
//! 1. a worker takes the bundle apart ([`crate::propose`]);
//! 2. the gate verifies over raw bytes that a certificate of the authority's trusted root signed the leaf, that the leaf's key
//!    signed the envelope, and that the envelope names the image ([`Fulcio::verify`]);
//! 3. a worker of its own judges what cannot be judged without a parser: validity at the time of signing, usage, the CT log's
//!    promise, Rekor's inclusion proof and checkpoint, time stamps (RFC 3161). Its word is an [`Answer`], which is believed,
//!    and the record says `trust=jailed`. What is patterned after the policy, issuer and identity, is compared by the caller.
use crate::attestation::{Attestation, about};
use crate::claims::Json;
use crate::digest::{Digest, digest};
use crate::notation::certificate::Certificate;
use crate::propose::{SignatureProposal, printable};
use crate::spki::{Public, Text};
use crate::verify::{Claim, Format, IN_TOTO, Reject, pre_authentication_encoding, sign_claim};
use crate::wire::{DecodeError, Reader, Writer};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Bytes of a trusted root's file.
pub const MAX_TRUSTED_ROOT: usize = 256 << 10;
/// Bytes of a bundle that a question carries.
const MAX_BUNDLE: usize = 512 << 10;
/// Certificates of one trusted root.
const MAX_CERTIFICATES: usize = 64;
/// [`verification`]s that a question carries.
const MAX_VERIFIED: usize = 16;
/// Bytes of an identity, an issuer, a reason.
const MAX_ANSWER: usize = 1024;
const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.trustedroot";

/// An authority that trusts what Fulcio certified, and what its certificates must have beside them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fulcio {
    /// The file as it stands: what the worker is given.
    root: Vec<u8>,
    /// DER of every certificate of its CAs, those of time stamps not among them.
    certificates: Vec<Vec<u8>>,
    /// Of its time stamp authorities, each certificate under the next of its chain: the operator's file names them all, the leaf
    /// as well, and nobody else's signature makes them more trusted than that.
    pinned: Vec<Digest>,
    demands: Demands,
}

/// What has to be shown beside the certificate's chain and a time of signing that somebody trusted vouches for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demands {
    /// Inclusion in the transparency log (Rekor): proof and checkpoint.
    pub log: bool,
    /// The CT log's signed promise in the certificate (RFC 6962).
    pub sct: bool,
}

/// What [`Fulcio::verify`] and [`Fulcio::verify_attestation`] have shown without a parser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified<T> {
    /// What is claimed, once the worker has nothing against the certificate.
    claim: T,
    /// sha256 of the trusted root's file, hex: whom it certifies is one key where several are needed.
    key: String,
    /// What the worker need not verify again: the leaf under its CA, and the envelope under the leaf.
    verified: [Digest; 2],
}

/// The worker's word on a certificate and what stands beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The subject's alternative name: an email address or a URI.
    pub identity: String,
    /// URL of the OIDC issuer.
    pub issuer: String,
    /// The earliest time that a log or a time stamp authority vouches for, seconds since the epoch.
    pub signed_at: u64,
}

/// What the worker is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The signature store's file.
    pub bundle: Vec<u8>,
    /// The trusted root's file.
    pub root: Vec<u8>,
    /// sha256 that the statement must name.
    pub digest: Digest,
    pub demands: Demands,
    /// [`verification`]s that whoever asks answers for, at most 16.
    pub verified: Vec<Digest>,
}

/// What was verified, as one digest: `key` as its algorithm has it (a point), `text`, and a signature that is good. Which hash
/// it is by the text says itself, a certificate in what is signed of it, an envelope by the kind of its key.
#[must_use]
pub fn verification(key: &[u8], text: &[u8], signature: &[u8]) -> Digest {
    let mut w = Writer::default();
    for part in [key, text, signature] {
        w.bytes(part);
    }
    digest(&w.0)
}

impl Fulcio {
    /// From a trusted root as `cosign trusted-root create` and TUF repositories write it (`trusted_root.json`).
    ///
    /// # Errors
    /// What it is instead, in words for the operator.
    pub fn new(root: &[u8], demands: Demands) -> Result<Self, String> {
        if root.len() > MAX_TRUSTED_ROOT {
            return Err(format!("more than {MAX_TRUSTED_ROOT} bytes"));
        }
        let json = Json::parse(root)?;
        if !json.get("mediaType").and_then(Json::text).is_some_and(|kind| kind.starts_with(MEDIA_TYPE)) {
            return Err(format!("not a trusted root: its mediaType is not {MEDIA_TYPE}..."));
        }
        let Some(Json::Array(authorities)) = json.get("certificateAuthorities") else {
            return Err("it names no certificateAuthorities".into());
        };
        let mut certificates = Vec::new();
        for authority in authorities {
            let Some(Json::Array(chain)) = authority.get("certChain").and_then(|chain| chain.get("certificates"))
            else {
                return Err("a certificate authority without certChain.certificates".into());
            };
            for certificate in chain {
                let raw = certificate.get("rawBytes").and_then(Json::text).unwrap_or_default();
                let der = STANDARD.decode(raw).map_err(|_| "a certificate's rawBytes are not base64")?;
                if Certificate::read(&der).is_none() {
                    return Err("a certificate of certificateAuthorities is not X.509 of version 3".into());
                }
                certificates.push(der);
            }
        }
        if certificates.is_empty() || certificates.len() > MAX_CERTIFICATES {
            return Err(format!("no certificate of a CA, or more than {MAX_CERTIFICATES}"));
        }
        let some = |name: &str| matches!(json.get(name), Some(Json::Array(list)) if !list.is_empty());
        if demands.log && !some("tlogs") {
            return Err("no transparency log (tlogs), which `log` demands. Fix: log = false where there is none".into());
        }
        if demands.sct && !some("ctlogs") {
            return Err("no certificate log (ctlogs), which `sct` demands. Fix: sct = false where there is none".into());
        }
        Ok(Self { root: root.to_vec(), certificates, pinned: pinned(&json), demands })
    }

    /// A signature of the image: by a leaf of the trusted root, over the statement that `cosign sign` makes of `expected`.
    ///
    /// # Errors
    /// [`Reject`]; the chain is looked at first, then the envelope, so that every later reason is about signed bytes.
    pub fn verify(&self, proposal: &SignatureProposal, expected: &Digest) -> Result<Certified<Claim>, Reject> {
        let Signed { payload, kind, named, verified } = self.signed(proposal)?;
        let claim = sign_claim(Format::SigstoreKeyless, payload, kind, named, expected)?;
        Ok(Certified { claim, key: self.id(), verified })
    }

    /// A statement about the image that is no signature.
    ///
    /// # Errors
    /// As [`crate::verify_attestation`], the chain first.
    pub fn verify_attestation(
        &self,
        proposal: &SignatureProposal,
        expected: &Digest,
    ) -> Result<Certified<Attestation>, Reject> {
        let Signed { payload, kind, named, verified } = self.signed(proposal)?;
        Ok(Certified { claim: about(payload, kind, named, expected)?, key: self.id(), verified })
    }

    /// Of an envelope that a leaf of the trusted root signed.
    fn signed<'a>(&self, proposal: &'a SignatureProposal) -> Result<Signed<'a>, Reject> {
        let none = |why: &str| Reject::Uncertified(why.to_owned());
        let SignatureProposal::Certified { certificate, envelope } = proposal else {
            return Err(none("not signed with a certificate"));
        };
        let SignatureProposal::Bundle { payload_type, payload, signature, predicate_type, digest } = &**envelope else {
            return Err(none("not a DSSE envelope"));
        };
        let leaf = Certificate::read(certificate).ok_or_else(|| none("its certificate cannot be read"))?;
        // By name first: an ECDSA verification on P-384, which Fulcio's CAs have, is what this costs.
        let by = |ca: &Vec<u8>| {
            let ca = Certificate::read(ca).filter(|ca| ca.subject == leaf.issuer && leaf.is_signed_by(ca))?;
            Some(verification(ca.key_parts()?.1, leaf.signed, leaf.signature))
        };
        let certified = self.certificates.iter().find_map(by);
        let certified = certified.ok_or_else(|| none("no CA of the trusted root signed its certificate"))?;
        if payload_type != IN_TOTO {
            return Err(Reject::PayloadType(printable(payload_type)));
        }
        let key = Public::read(leaf.key).map_err(|why| Reject::Keyless(format!("the leaf's key is {why}")))?;
        let text = pre_authentication_encoding(payload);
        if !key.signed(Text::Envelope, &text, signature) {
            return Err(none("the envelope is not signed by its leaf's key"));
        }
        let point = leaf.key_parts().map_or(&[][..], |(_, point)| point);
        let verified = [certified, verification(point, &text, signature)];
        Ok(Signed { payload, kind: predicate_type, named: digest, verified })
    }

    fn id(&self) -> String {
        digest(&self.root).hex()
    }

    /// What the worker is asked of the bundle `file`, of which `certified` came.
    #[must_use]
    pub fn question<T>(&self, certified: &Certified<T>, file: &[u8], expected: &Digest) -> Vec<u8> {
        let mut w = Writer::default();
        w.byte(u8::from(self.demands.log));
        w.byte(u8::from(self.demands.sct));
        w.digest(expected);
        let verified: Vec<&Digest> = certified.verified.iter().chain(&self.pinned).take(MAX_VERIFIED).collect();
        w.list(&verified, |w, verified| w.digest(verified));
        w.bytes(file);
        w.bytes(&self.root);
        w.0
    }
}

/// Payload, predicate type and digest as proposed, all of them signed.
struct Signed<'a> {
    payload: &'a [u8],
    kind: &'a str,
    named: &'a Digest,
    verified: [Digest; 2],
}

/// Of `timestampAuthorities`; a chain that cannot be read pins nothing, and is the worker's to refuse.
fn pinned(root: &Json) -> Vec<Digest> {
    let Some(Json::Array(authorities)) = root.get("timestampAuthorities") else { return Vec::new() };
    let mut all = Vec::new();
    for authority in authorities {
        let Some(Json::Array(chain)) = authority.get("certChain").and_then(|chain| chain.get("certificates")) else {
            continue;
        };
        let raw = |certificate: &Json| STANDARD.decode(certificate.get("rawBytes").and_then(Json::text)?).ok();
        let chain: Vec<Vec<u8>> = chain.iter().take(MAX_CERTIFICATES).map_while(raw).collect();
        all.extend(chain.windows(2).filter_map(|pair| {
            let [of, by] = pair else { return None };
            let (of, by) = (Certificate::read(of)?, Certificate::read(by)?);
            (of.issuer == by.subject).then_some(verification(by.key_parts()?.1, of.signed, of.signature))
        }));
    }
    all
}

impl<T> Certified<T> {
    /// The claim with the key that it counts as, and who made it: once the worker's `answer` has nothing against it.
    ///
    /// # Errors
    /// [`Reject::Keyless`] with what does not hold, or why the answer is none.
    pub fn accept(self, answer: &[u8]) -> Result<(T, String, Answer), Reject> {
        let answer = Answer::decode(answer).map_err(|error| Reject::Keyless(error.to_string()))?;
        let answer = answer.map_err(|why| Reject::Keyless(printable(&why)))?;
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'!'..=b'~'));
        if !plain(&answer.identity) || !plain(&answer.issuer) {
            return Err(Reject::Keyless("identity or issuer is missing, or is not plain text".into()));
        }
        Ok((self.claim, self.key, answer))
    }
}

impl Question {
    /// Reads what [`Fulcio::question`] wrote. To be called in the worker.
    ///
    /// # Errors
    /// Not a question.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes)?;
        let demands = Demands { log: flag(&mut r)?, sct: flag(&mut r)? };
        let (digest, verified) = (r.digest()?, r.list(MAX_VERIFIED, |r| r.digest())?);
        let question =
            Self { demands, digest, verified, bundle: r.bytes(MAX_BUNDLE)?, root: r.bytes(MAX_TRUSTED_ROOT)? };
        r.end()?;
        Ok(question)
    }
}

fn flag(r: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match r.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError("not a flag")),
    }
}

impl Answer {
    /// What the worker writes: who signed when, or why nobody did.
    #[must_use]
    pub fn encode(answer: &Result<Self, String>) -> Vec<u8> {
        let mut w = Writer::default();
        match answer {
            Err(why) => {
                w.byte(0);
                w.text(&printable(why));
            }
            Ok(answer) => {
                w.byte(1);
                w.u64(answer.signed_at);
                w.text(&answer.identity);
                w.text(&answer.issuer);
            }
        }
        w.0
    }

    fn decode(bytes: &[u8]) -> Result<Result<Self, String>, DecodeError> {
        let mut r = Reader::new(bytes)?;
        let answer = match r.byte()? {
            0 => Err(r.text(MAX_ANSWER)?),
            1 => Ok(Self { signed_at: r.u64()?, identity: r.text(MAX_ANSWER)?, issuer: r.text(MAX_ANSWER)? }),
            _ => return Err(DecodeError("unknown kind")),
        };
        r.end()?;
        Ok(answer)
    }
}

#[cfg(test)]
mod tests;
