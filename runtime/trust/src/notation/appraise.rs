//! What certificates and signed attributes say, judged at a time: the half that is believed, in a worker of its own.
//!
//! The requirements are the Notary Project's (signature-specification, certificate requirements and signed attributes),
//! and webpki's, which looks at what that leaves out: unknown critical extensions and name constraints.
use super::certificate::{ALGORITHMS, Certificate};
use super::identity::{Identity, Subject};
use super::{Envelope, MAX_ANSWER, MAX_CERTIFICATE, MAX_CHAIN, NO_ALGORITHM, cose, jws};
use crate::digest::Digest;
use crate::propose::{MAX_SIGNATURE_FILE, Malformed};
use crate::spki::{OBJECT, Public, element};
use crate::wire::{DecodeError, Reader, Writer};
use rustls_pki_types::{CertificateDer, UnixTime};
use std::time::Duration;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

const CONTENT_TYPE: &str = "application/vnd.cncf.notary.payload.v1+json";
pub(super) const SCHEME: &str = "io.cncf.notary.signingScheme";
pub(super) const SIGNING_TIME: &str = "io.cncf.notary.signingTime";
pub(super) const AUTHENTIC_TIME: &str = "io.cncf.notary.authenticSigningTime";
pub(super) const EXPIRY: &str = "io.cncf.notary.expiry";
pub(super) const PLUGIN: &str = "io.cncf.notary.verificationPlugin";

/// digitalSignature and nonRepudiation: all that a leaf may be for. keyCertSign: what a CA must be for.
const DIGITAL_SIGNATURE: u16 = 1 << 15;
const NON_REPUDIATION: u16 = 1 << 14;
const KEY_CERT_SIGN: u16 = 1 << 10;

/// id-kp-codeSigning, and the purposes that a leaf must not have: anyExtendedKeyUsage, serverAuth, clientAuth,
/// emailProtection, timeStamping.
const CODE_SIGNING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 3];
const FORBIDDEN: [&[u8]; 5] = [
    &[0x55, 0x1d, 0x25, 0],
    &[0x2b, 6, 1, 5, 5, 7, 3, 1],
    &[0x2b, 6, 1, 5, 5, 7, 3, 2],
    &[0x2b, 6, 1, 5, 5, 7, 3, 4],
    &[0x2b, 6, 1, 5, 5, 7, 3, 8],
];

/// Signed attributes, of whichever envelope. Texts are empty when absent.
#[derive(Debug)]
pub(super) struct Attributes {
    pub(super) content_type: String,
    pub(super) critical: Vec<String>,
    pub(super) scheme: String,
    pub(super) signing_time: Option<u64>,
    pub(super) authentic_time: Option<u64>,
    pub(super) expiry: Option<u64>,
    /// A plugin is asked for.
    pub(super) plugin: bool,
}

struct Question {
    now: Option<u64>,
    signing_authority: bool,
    identities: Vec<Identity>,
    envelope: Envelope,
    protected: Vec<u8>,
    payload: Vec<u8>,
    chain: Vec<Vec<u8>>,
}

/// Judges what [`super::Notary::question`] asks. To be called in a worker that has seen nothing else.
#[must_use]
pub fn appraise(question: &[u8]) -> Vec<u8> {
    let answer =
        read(question).map_err(|error| Malformed::new(error.to_string())).and_then(|question| judge(&question));
    let mut w = Writer::default();
    match answer {
        Ok((digest, subject)) => {
            w.byte(1);
            w.digest(&digest);
            w.text(&subject);
        }
        Err(why) => {
            w.byte(0);
            w.text(why.reason());
        }
    }
    w.0
}

fn read(bytes: &[u8]) -> Result<Question, DecodeError> {
    let mut r = Reader::new(bytes)?;
    let known = r.byte()? == 1;
    let now = r.u64()?;
    let question = Question {
        now: known.then_some(now),
        signing_authority: r.byte()? == 1,
        identities: r.list(MAX_IDENTITIES, |r| Identity::parse(&r.text(MAX_NAMED)?).map_err(DecodeError))?,
        envelope: Envelope::of(r.byte()?)?,
        protected: r.bytes(MAX_SIGNATURE_FILE)?,
        payload: r.bytes(MAX_SIGNATURE_FILE)?,
        chain: r.list(MAX_CHAIN, |r| r.bytes(MAX_CERTIFICATE))?,
    };
    r.end()?;
    Ok(question)
}

const MAX_IDENTITIES: usize = 64;
/// An identity spelled out: longer than it was written by a space after each comma.
const MAX_NAMED: usize = 600;

fn judge(question: &Question) -> Result<(Digest, String), Malformed> {
    let read = |der: &Vec<u8>| Certificate::read(der).map(|_| ());
    if question.chain.is_empty() || question.chain.iter().any(|der| read(der).is_none()) {
        return Err(Malformed::new("a certificate of the chain cannot be read"));
    }
    let chain: Vec<Certificate<'_>> = question.chain.iter().filter_map(|der| Certificate::read(der)).collect();
    let [leaf, above @ ..] = chain.as_slice() else { return Err(Malformed::new("no certificate")) };
    let (name, number) = Public::read(leaf.key)
        .map_err(|why| Malformed::new(format!("the leaf's key is {why}")))?
        .notation()
        .ok_or(Malformed::new(NO_ALGORITHM))?;
    let attributes = match question.envelope {
        Envelope::Jws => jws::attributes(&question.protected, name)?,
        Envelope::Cose => cose::attributes(&question.protected, number)?,
    };
    let at = moment(&attributes, question)?;
    within(&chain, at, question.signing_authority)?;
    leaf_is_for_signing(leaf)?;
    for (below, ca) in above.iter().enumerate() {
        certifies(ca, below)?;
    }
    path(&question.chain, at)?;
    let subject = Subject::read(leaf.subject).ok_or(Malformed::new("the leaf's subject cannot be read"))?;
    if !question.identities.iter().any(|identity| identity.matches(&subject)) {
        return Err(Malformed::new(format!("\"{subject}\" is none of the authority's identities")));
    }
    let shown: String = subject.to_string().chars().take(MAX_ANSWER / 4).collect();
    Ok((jws::target(&question.payload)?, shown))
}

/// The time at which the certificates must be valid, after the attributes were judged.
fn moment(signed: &Attributes, question: &Question) -> Result<u64, Malformed> {
    let refuse = |why: &str| Err(Malformed::new(why));
    let Some(now) = question.now else {
        return refuse("the time is unknown, and a certificate holds only for a while");
    };
    if signed.content_type != CONTENT_TYPE {
        return Err(Malformed::new(format!("a payload of type {:?}, not {CONTENT_TYPE}", signed.content_type)));
    }
    if signed.plugin {
        return refuse("it asks for a verification plugin, which nothing here runs");
    }
    let scheme = if question.signing_authority { "notary.x509.signingAuthority" } else { "notary.x509" };
    if signed.scheme != scheme {
        return Err(Malformed::new(format!("signing scheme {:?}, while the authority's is {scheme}", signed.scheme)));
    }
    let must = [(SCHEME, true), (AUTHENTIC_TIME, signed.authentic_time.is_some()), (EXPIRY, signed.expiry.is_some())];
    for (name, there) in must {
        if signed.critical.iter().filter(|critical| *critical == name).count() != usize::from(there) {
            return Err(Malformed::new(format!("crit does not name {name} exactly where it is signed")));
        }
    }
    if let Some(other) = signed.critical.iter().find(|name| !must.iter().any(|(known, _)| known == name)) {
        return Err(Malformed::new(format!("crit names {other:?}, which is not understood")));
    }
    if signed.expiry.is_some_and(|expiry| now >= expiry) {
        return refuse("the signature has expired");
    }
    match (question.signing_authority, signed.signing_time, signed.authentic_time) {
        // The signer's own word on the time: it must be there, and is worth nothing.
        (false, Some(_), None) => Ok(now),
        (true, None, Some(at)) if at <= now => Ok(at),
        (true, None, Some(_)) => refuse("the authority signed it in the future"),
        _ => refuse("it does not carry exactly the one signing time of its scheme"),
    }
}

fn within(chain: &[Certificate<'_>], at: u64, then: bool) -> Result<(), Malformed> {
    let when = if then { "when it was signed" } else { "now, and nothing proves when it was signed" };
    for (n, certificate) in chain.iter().enumerate() {
        let which = if n == 0 { "the leaf".to_owned() } else { format!("certificate {n} above the leaf") };
        if at < certificate.not_before {
            return Err(Malformed::new(format!("{which} is not valid yet {when}")));
        }
        if at > certificate.not_after {
            return Err(Malformed::new(format!("{which} has expired {when}")));
        }
    }
    Ok(())
}

fn leaf_is_for_signing(leaf: &Certificate<'_>) -> Result<(), Malformed> {
    let refuse = |why: &str| Err(Malformed::new(format!("the leaf {why}")));
    let Some(extensions) = leaf.extensions() else { return refuse("has extensions that cannot be read") };
    if extensions.constraints.is_some_and(|constraints| constraints.is_ca) {
        return refuse("is a CA");
    }
    let Some(usage) = extensions.usage.filter(|usage| usage.critical) else {
        return refuse("has no critical keyUsage");
    };
    if usage.bits & DIGITAL_SIGNATURE == 0 || usage.bits & !(DIGITAL_SIGNATURE | NON_REPUDIATION) != 0 {
        return refuse("has a keyUsage that is not for signatures alone");
    }
    let Some(mut purposes) = extensions.purposes else { return Ok(()) };
    let mut signs_code = false;
    while !purposes.is_empty() {
        match element(OBJECT, &mut purposes) {
            Some(CODE_SIGNING) => signs_code = true,
            Some(other) if !FORBIDDEN.contains(&other) => {}
            _ => return refuse("has an extendedKeyUsage that code signing excludes"),
        }
    }
    if signs_code { Ok(()) } else { refuse("has an extendedKeyUsage without codeSigning") }
}

/// `below`: how many CAs lie between it and the leaf.
fn certifies(ca: &Certificate<'_>, below: usize) -> Result<(), Malformed> {
    let refuse = |why: &str| Err(Malformed::new(format!("a certificate above the leaf {why}")));
    let Some(extensions) = ca.extensions() else { return refuse("has extensions that cannot be read") };
    let Some(constraints) = extensions.constraints.filter(|found| found.critical && found.is_ca) else {
        return refuse("is no CA by critical basicConstraints");
    };
    if constraints.path_length.is_some_and(|length| below > usize::from(length)) {
        return refuse("may not have that many CAs below it");
    }
    match extensions.usage {
        Some(usage) if usage.critical && usage.bits & KEY_CERT_SIGN != 0 => Ok(()),
        _ => refuse("has no critical keyUsage with keyCertSign"),
    }
}

/// The path by webpki, along this chain and no other: each issuer's name is the next one's.
fn path(chain: &[Vec<u8>], at: u64) -> Result<(), Malformed> {
    for pair in chain.windows(2) {
        let [of, by] = pair else { continue };
        let names = Certificate::read(of).zip(Certificate::read(by));
        if names.is_none_or(|(of, by)| of.issuer != by.subject) {
            return Err(Malformed::new("a certificate of the chain was issued by another than the next"));
        }
    }
    let refused = |error: webpki::Error| Malformed::new(format!("the chain does not hold: {error:?}"));
    let certificates: Vec<CertificateDer<'_>> = chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let (Some(leaf), Some(root)) = (certificates.first(), certificates.last()) else {
        return Err(Malformed::new("no certificate"));
    };
    let anchors = [anchor_from_trusted_cert(root).map_err(refused)?];
    let between = certificates.get(1..certificates.len().saturating_sub(1)).unwrap_or_default();
    let leaf = EndEntityCert::try_from(leaf).map_err(refused)?;
    let usage = KeyUsage::required_if_present(CODE_SIGNING);
    let at = UnixTime::since_unix_epoch(Duration::from_secs(at));
    leaf.verify_for_usage(ALGORITHMS, &anchors, between, at, usage, None, None).map(|_| ()).map_err(refused)
}
