//! Enrolment by two parties and three files: the node asks, somebody off the node decides, nobody has to be believed.
//!
//! ```text
//! node  request   attestation key, endorsement certificates, a quote          -> request.json
//! off   approve   certificate leads to a given root; a credential for the two -> approval.json, and pending.json is kept
//! node  complete  only a TPM with both keys can open it                       -> proof.json
//! off   confirm   the proof fits what was kept: now the key may be signed into a policy
//! ```
//! Before `confirm` the attestation key is only claimed. A credential names the key's whole public area, so that a key that
//! is not restricted, not fixed to this TPM, or in no TPM at all opens nothing.
use crate::chain::Makers;
use crate::credential::make;
use crate::ek::{Kind, activate, certificates};
use crate::key::AttestationKey;
use crate::log::events::hash;
use crate::quote::{PCRS, Quote, verify};
use crate::tpm::Tpm;
use crate::{Error, enroll, hex};
use base64::{Engine, engine::general_purpose::STANDARD};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Instant;

const VERSION: u32 = 1;
/// Largest of these files.
pub const MAX_FILE: usize = 64 << 10;
const MAX_NAME: usize = 253;
const DOMAIN: &[u8] = b"boltseal enrolment v1";

/// What a node asks with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    version: u32,
    /// What the node calls itself; nothing proves it.
    pub node: String,
    pub ak_spki_pem: String,
    /// DER, base64.
    ek_certificates: Vec<String>,
    /// All 24 values of the SHA-256 bank, as quoted.
    #[serde(with = "hex::digests")]
    pub pcrs: BTreeMap<u32, [u8; 32]>,
    #[serde(with = "hex::digest")]
    nonce: [u8; 32],
    attest: String,
    signature: String,
}

/// What goes back to the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    version: u32,
    pub node: String,
    /// The TPM's name of the attestation key, hex.
    pub ak_name: String,
    /// `p256`, `rsa2048`, `p384` or `rsa3072`: the endorsement key that the credential is for.
    endorsement_key: String,
    credential: String,
    secret: String,
}

/// What the approver keeps until the proof comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pending {
    version: u32,
    pub node: String,
    pub ak_spki_pem: String,
    pub ak_name: String,
    /// SHA-256 of the endorsement certificate, hex.
    pub ek_certificate: String,
    #[serde(with = "hex::digests")]
    pub pcrs: BTreeMap<u32, [u8; 32]>,
    /// SHA-256 of the proof.
    #[serde(with = "hex::digest")]
    expects: [u8; 32],
}

/// What only the TPM with both keys can say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    version: u32,
    pub node: String,
    pub ak_name: String,
    #[serde(with = "hex::digest")]
    proof: [u8; 32],
}

/// Reads one of these files.
///
/// # Errors
/// Larger than [`MAX_FILE`], not the JSON that boltseal writes, another version.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let bad = |_| Error::Malformed("enrolment file", "not the JSON that boltseal writes");
    if bytes.len() > MAX_FILE {
        return Err(Error::Malformed("enrolment file", "larger than 64 KiB"));
    }
    if serde_json::from_slice::<Versioned>(bytes).map_err(bad)?.version != VERSION {
        return Err(Error::Malformed("enrolment file", "of another version"));
    }
    serde_json::from_slice(bytes).map_err(bad)
}

/// On the node: finds or makes the attestation key and asks for its enrolment.
///
/// # Errors
/// No TPM, no endorsement certificate, or a TPM whose quote does not verify.
pub fn request(address: &str, node: &str, deadline: Instant) -> Result<Request, Error> {
    name(node)?;
    let ek_certificates = certificates(address, deadline)?.iter().map(|der| STANDARD.encode(der)).collect();
    // The key is kept by the TPM where it can be, and the TPM is seen to measure.
    let enrolment = enroll(address, deadline)?;
    let key = AttestationKey::from_pem(&enrolment.ak_spki_pem)?;
    let nonce = random()?;
    let (quote, pcrs) = Tpm::open(address, deadline)?.with_key(&key, |tpm, handle| {
        let pcrs = tpm.pcrs(0..PCRS)?;
        Ok((tpm.quote(handle, &nonce, 0..PCRS)?, pcrs))
    })?;
    verify(&quote, &key, &nonce, &pcrs)?;
    Ok(Request {
        version: VERSION,
        node: node.to_owned(),
        ak_spki_pem: enrolment.ak_spki_pem,
        ek_certificates,
        pcrs,
        nonce,
        attest: STANDARD.encode(&quote.attest),
        signature: STANDARD.encode(quote.signature),
    })
}

/// Off the node: checks the request and makes the credential. `now` is in seconds since the epoch.
///
/// # Errors
/// No endorsement certificate leads to a root, the quote does not verify, an odd name.
pub fn approve(request: &Request, makers: &Makers, now: u64) -> Result<(Approval, Pending), Error> {
    name(&request.node)?;
    let key = AttestationKey::from_pem(&request.ak_spki_pem)?;
    let decode = |text: &str| STANDARD.decode(text).map_err(|_| Error::Malformed("request", "not base64"));
    let signature = decode(&request.signature)?.try_into();
    let signature = signature.map_err(|_| Error::Malformed("request", "its signature is not 64 bytes"))?;
    let quote = Quote { attest: decode(&request.attest)?, signature };
    verify(&quote, &key, &request.nonce, &request.pcrs)?;

    let mut last = Error::refused("the request carries no endorsement certificate");
    for certificate in &request.ek_certificates {
        let der = decode(certificate)?;
        let ek = match makers.check(&der, now) {
            Ok(ek) => ek,
            Err(error) => {
                last = error;
                continue;
            }
        };
        let value = random()?;
        let credential = make(&ek, &key, &value)?;
        let ak_name = hex::encode(&key.name());
        let approval = Approval {
            version: VERSION,
            node: request.node.clone(),
            ak_name: ak_name.clone(),
            endorsement_key: ek.kind().name().into(),
            credential: STANDARD.encode(&credential.blob),
            secret: STANDARD.encode(&credential.secret),
        };
        let pending = Pending {
            version: VERSION,
            node: request.node.clone(),
            ak_spki_pem: key.to_pem(),
            ak_name,
            ek_certificate: hex::encode(&hash(&der)),
            pcrs: request.pcrs.clone(),
            expects: hash(&proof(&value, &key)),
        };
        return Ok((approval, pending));
    }
    Err(last)
}

/// On the node: opens the credential.
///
/// # Errors
/// The approval is for another key, or this TPM cannot open it.
pub fn complete(address: &str, approval: &Approval, deadline: Instant) -> Result<Proof, Error> {
    let decode = |text: &str| STANDARD.decode(text).map_err(|_| Error::Malformed("approval", "not base64"));
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == approval.endorsement_key);
    let kind = kind.ok_or(Error::Malformed("approval", "for an unknown kind of endorsement key"))?;
    let mut tpm = Tpm::open(address, deadline)?;
    let key = tpm.with_new_key(|_, _, key| Ok(key))?;
    if hex::encode(&key.name()) != approval.ak_name {
        return Err(Error::refused("the approval is for another attestation key than this TPM's"));
    }
    let (credential, secret) = (decode(&approval.credential)?, decode(&approval.secret)?);
    let opened = activate(&mut tpm, kind, &key, &credential, &secret)?;
    let value = <[u8; 32]>::try_from(opened).map_err(|_| Error::Malformed("credential", "not 32 bytes"))?;
    Ok(Proof {
        version: VERSION,
        node: approval.node.clone(),
        ak_name: approval.ak_name.clone(),
        proof: proof(&value, &key),
    })
}

/// Off the node: the proof fits what was kept.
///
/// # Errors
/// It is of another node or key, or no proof.
pub fn confirm(pending: &Pending, proof: &Proof) -> Result<AttestationKey, Error> {
    if (&pending.node, &pending.ak_name) != (&proof.node, &proof.ak_name) {
        return Err(Error::refused("the proof is of another node or key than the one that was approved"));
    }
    if hash(&proof.proof) != pending.expects {
        return Err(Error::refused(
            "the proof is wrong: the TPM that was certified does not hold this attestation key",
        ));
    }
    let key = AttestationKey::from_pem(&pending.ak_spki_pem)?;
    if hex::encode(&key.name()) != pending.ak_name {
        return Err(Error::refused("what was kept names another key than it holds"));
    }
    Ok(key)
}

fn proof(value: &[u8; 32], key: &AttestationKey) -> [u8; 32] {
    let mut out = [0; 32];
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, value), &[DOMAIN, &key.name()].concat());
    out.copy_from_slice(tag.as_ref());
    out
}

fn random() -> Result<[u8; 32], Error> {
    let mut out = [0; 32];
    SystemRandom::new().fill(&mut out).map_err(|_| Error::io("a random secret", "the kernel gave none"))?;
    Ok(out)
}

/// A host name: it also becomes a file's name off the node.
fn name(text: &str) -> Result<(), Error> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if (1..=MAX_NAME).contains(&text.len()) && text.chars().all(good) && !text.starts_with(['.', '-']) {
        return Ok(());
    }
    Err(Error::refused("the node's name is no host name. Fix: letters, digits, dots and hyphens"))
}
