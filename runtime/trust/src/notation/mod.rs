//! Signatures of the Notary Project (notation): an envelope, the certificates that lead to a root, and what was signed
//! beside the image's digest.
//!
//! Three steps, each with what the one before it has shown:
//! 1. a worker takes the envelope apart ([`crate::propose`]);
//! 2. the gate verifies every signature over the raw bytes ([`Notary::verify`]): each certificate by the next, the last
//!    one is a root byte for byte, the envelope by the first one's key. What it needs of a certificate it finds by
//!    walking DER with fixed memory;
//! 3. a worker of its own judges what certificates and attributes say ([`appraise`]): validity, usage, CA or not,
//!    subject, `crit`, expiry. This is believed, and the record says `trust=jailed`. It sees no byte that was not
//!    signed by a holder of a certificate of the authority's root, or by that root.
mod appraise;
mod cbor;
pub(crate) mod certificate;
pub(crate) mod cose;
mod identity;
pub(crate) mod jws;
mod time;

pub use appraise::appraise;
pub use identity::Identity;

use crate::digest::{Digest, digest};
use crate::propose::printable;
use crate::spki::{Public, Text};
use crate::strings::strings;
use crate::verify::{Claim, Format, Reject};
use crate::wire::{DecodeError, Reader, Writer};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use certificate::Certificate;

/// Certificates of one chain, the root included.
pub(crate) const MAX_CHAIN: usize = 8;
/// Bytes of one certificate.
pub(crate) const MAX_CERTIFICATE: usize = 16 << 10;
/// Roots of one authority.
const MAX_ROOTS: usize = 16;
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Envelope {
    /// JWS in flattened JSON, `application/jose+json`.
    Jws,
    /// A tagged COSE_Sign1, `application/cose`.
    Cose,
}

/// An envelope taken apart: raw bytes, and the digest that the worker read in the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotationProposal {
    pub envelope: Envelope,
    /// The signed attributes as they were signed.
    pub protected: Vec<u8>,
    pub payload: Vec<u8>,
    pub signature: Vec<u8>,
    /// DER; the leaf first, the root last.
    pub chain: Vec<Vec<u8>>,
    pub digest: Digest,
}

impl NotationProposal {
    /// What was signed, rebuilt: there is one text for these parts.
    fn message(&self) -> Vec<u8> {
        match self.envelope {
            Envelope::Jws => {
                format!("{}.{}", URL_SAFE_NO_PAD.encode(&self.protected), URL_SAFE_NO_PAD.encode(&self.payload))
                    .into_bytes()
            }
            Envelope::Cose => cose::message(&self.protected, &self.payload),
        }
    }

    fn format(&self) -> Format {
        match self.envelope {
            Envelope::Jws => Format::NotationJws,
            Envelope::Cose => Format::NotationCose,
        }
    }
}

/// An authority's roots, whom of their customers it trusts, and how they sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notary {
    roots: Vec<Vec<u8>>,
    identities: Vec<Identity>,
    signing_authority: bool,
}

/// What the gate itself has verified of an envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vouched {
    /// sha256 of the root's SubjectPublicKeyInfo, hex. Where several keys are needed, whom one root certifies is one: who holds
    /// a CA below it makes as many leaves as he likes.
    pub key: String,
    format: Format,
    expected: Digest,
}

impl Notary {
    /// From a PEM file of roots, one or more `CERTIFICATE` blocks with nothing but white space around them; identities as
    /// [`Identity::parse`] reads them, of which one must match. `signing_authority`: signatures are of the scheme
    /// `notary.x509.signingAuthority`, whose signing time is believed, instead of `notary.x509`, whose is not.
    ///
    /// # Errors
    /// What it is instead, in words for the operator.
    pub fn new(roots: &str, identities: &[String], signing_authority: bool) -> Result<Self, String> {
        let identities: Result<Vec<_>, _> = identities.iter().map(|text| Identity::parse(text)).collect();
        let identities = identities.map_err(|why| format!("an identity {why}"))?;
        if identities.is_empty() {
            return Err("no identity is trusted. Fix: name subjects, or \"*\" for whomever the roots certify".into());
        }
        Ok(Self { roots: certificates(roots)?, identities, signing_authority })
    }

    /// Each root's last second of validity, for whoever warns of it.
    pub fn ends(&self) -> impl Iterator<Item = u64> {
        self.roots.iter().filter_map(|der| Certificate::read(der)).map(|root| root.not_after)
    }

    /// Verifies every signature from a root down to the payload, which must name exactly `expected`.
    ///
    /// # Errors
    /// [`Reject`]; the chain is looked at first, then the envelope, so that every later reason is about signed bytes.
    pub fn verify(&self, proposal: &NotationProposal, expected: &Digest) -> Result<Vouched, Reject> {
        let untrusted = |why: &str| Reject::Untrusted(why.to_owned());
        let (Some(first), Some(last)) = (proposal.chain.first(), proposal.chain.last()) else {
            return Err(untrusted("it carries no certificate"));
        };
        if !self.roots.contains(last) {
            return Err(untrusted("its last certificate is none of the authority's roots"));
        }
        let unread = || untrusted("a certificate of its chain cannot be read");
        for pair in proposal.chain.windows(2) {
            let [of, by] = pair else { continue };
            let (of, by) = (Certificate::read(of).ok_or_else(unread)?, Certificate::read(by).ok_or_else(unread)?);
            if !of.is_signed_by(&by) {
                return Err(untrusted("a certificate of its chain is not signed by the next one's key"));
            }
        }
        let leaf = Certificate::read(first).ok_or_else(unread)?;
        let key = Public::read(leaf.key).map_err(|why| Reject::Certificate(format!("the leaf's key is {why}")))?;
        if key.notation().is_none() {
            return Err(Reject::Certificate(NO_ALGORITHM.into()));
        }
        if !key.signed(Text::Notation, &proposal.message(), &proposal.signature) {
            return Err(untrusted("the envelope is not signed by its leaf's key"));
        }
        if proposal.digest != *expected {
            return Err(Reject::OtherImage { named: proposal.digest });
        }
        let (want, mut named) = (expected.to_string(), Vec::new());
        let walked = strings(&proposal.payload, &["targetArtifact", "digest"], |_, text| named.push(text));
        if walked.is_err() || named != [want.as_bytes()] {
            return Err(Reject::Text { format: proposal.format() });
        }
        let root = Certificate::read(last).ok_or_else(unread)?;
        Ok(Vouched { key: digest(root.key).hex(), format: proposal.format(), expected: *expected })
    }

    /// What [`appraise`] is asked of a proposal that [`Notary::verify`] accepted. `now`: seconds since the epoch, None
    /// when nobody knows.
    #[must_use]
    pub fn question(&self, proposal: &NotationProposal, now: Option<u64>) -> Vec<u8> {
        let mut w = Writer::default();
        w.byte(u8::from(now.is_some()));
        w.u64(now.unwrap_or_default());
        w.byte(u8::from(self.signing_authority));
        w.list(&self.identities, |w, identity| w.text(&identity.to_string()));
        w.byte(proposal.envelope.number());
        w.bytes(&proposal.protected);
        w.bytes(&proposal.payload);
        w.list(&proposal.chain, |w, der| w.bytes(der));
        w.0
    }
}

/// The answer of [`appraise`], read by fixed code: the claim and the leaf's subject.
///
/// # Errors
/// [`Reject::Certificate`] with what does not hold, or [`DecodeError`] as text when the answer is none.
pub fn accept(vouched: &Vouched, answer: &[u8]) -> Result<(Claim, String), Reject> {
    let read = || -> Result<Result<(Digest, String), String>, DecodeError> {
        let mut r = Reader::new(answer)?;
        let answer = match r.byte()? {
            0 => Err(r.text(MAX_ANSWER)?),
            1 => Ok((r.digest()?, r.text(MAX_ANSWER)?)),
            _ => return Err(DecodeError("unknown kind")),
        };
        r.end()?;
        Ok(answer)
    };
    let answer = read().map_err(|error| Reject::Certificate(error.to_string()))?;
    let (digest, subject) = answer.map_err(|why| Reject::Certificate(printable(&why)))?;
    if digest != vouched.expected {
        return Err(Reject::OtherImage { named: digest });
    }
    Ok((Claim { format: vouched.format, repository: None, digest }, printable(&subject)))
}

/// Bytes of a reason, and of a subject.
const MAX_ANSWER: usize = 256;
const NO_ALGORITHM: &str = "the leaf's key is neither P-256, P-384 nor RSA of 2048, 3072 or 4096 bits";

impl Envelope {
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Jws => 0,
            Self::Cose => 1,
        }
    }

    pub(crate) fn of(number: u8) -> Result<Self, DecodeError> {
        match number {
            0 => Ok(Self::Jws),
            1 => Ok(Self::Cose),
            _ => Err(DecodeError("unknown envelope")),
        }
    }
}

/// Blocks `CERTIFICATE` of a PEM file.
fn certificates(pem: &str) -> Result<Vec<Vec<u8>>, String> {
    let mut found = Vec::new();
    let mut rest = pem.trim();
    while !rest.is_empty() {
        let (body, after) = rest
            .strip_prefix(BEGIN)
            .and_then(|rest| rest.split_once(END))
            .ok_or("not PEM blocks CERTIFICATE with nothing around them")?;
        let text: String = body.split_ascii_whitespace().collect();
        let der = STANDARD.decode(text).map_err(|_| "not base64 between the PEM lines")?;
        if der.len() > MAX_CERTIFICATE || Certificate::read(&der).and_then(|root| root.extensions()).is_none() {
            return Err("not an X.509 certificate of version 3".into());
        }
        if found.contains(&der) {
            return Err("a certificate stands there twice".into());
        }
        found.push(der);
        rest = after.trim_start();
    }
    if found.is_empty() || found.len() > MAX_ROOTS {
        return Err(format!("no certificate, or more than {MAX_ROOTS}"));
    }
    Ok(found)
}
