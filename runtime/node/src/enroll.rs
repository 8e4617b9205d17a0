//! Enrolment: an operator tells a policy which key this node's quotes are signed by, once, on a node that is known good.
use crate::channel::Address;
use crate::key::{AttestationKey, PERSISTENT};
use crate::quote::{Clock, PCRS, verify};
use crate::tpm::Tpm;
use crate::{Error, hex};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Instant;

/// What `boltseal node enroll` writes into a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Enrolment {
    /// The attestation key, PEM SubjectPublicKeyInfo.
    pub ak_spki_pem: String,
    /// The TPM's name of it, hex.
    pub ak_name_hex: String,
    /// Where the TPM keeps it; None: it is made anew for each attestation (the same key, some 100 ms later).
    pub ak_handle: Option<u32>,
    /// Why it is not kept.
    pub not_kept: Option<String>,
    /// All 24 values of the SHA-256 bank, as quoted now.
    #[serde(with = "hex::digests")]
    pub pcrs: BTreeMap<u32, [u8; 32]>,
    /// The TPM is a program at a socket.
    pub software: bool,
    /// Four letters that the TPM says of itself; `IBM` is swtpm.
    pub manufacturer: String,
    pub clock: Clock,
    /// Always true in this version: nothing but this run says that the key lives in a genuine TPM (no check of an
    /// endorsement certificate). Compare `ak_name_hex` on another way before trusting it.
    pub trust_on_first_use: bool,
}

/// Finds or makes the attestation key, has the TPM keep it, and proves with one quote that it works.
///
/// # Errors
/// When there is no TPM, when it makes no such key, or when its quote does not verify.
pub fn enroll(tpm: &str, deadline: Instant) -> Result<Enrolment, Error> {
    let software = Address::parse(tpm)?.software();
    let mut tpm = Tpm::open(tpm, deadline)?;
    tpm.with_new_key(|tpm, handle, key| {
        let (ak_handle, not_kept) = match tpm.keep(handle, &key) {
            Ok(true) => (Some(PERSISTENT), None),
            Ok(false) => (None, Some(format!("another key is at 0x{PERSISTENT:08x}"))),
            // A set owner password: quoting works without a kept key.
            Err(error @ Error::Code(..)) => (None, Some(error.to_string())),
            Err(error) => return Err(error),
        };
        let nonce: [u8; 32] =
            tpm.random(32)?.try_into().map_err(|_| Error::Malformed("reply to GetRandom", "not 32 bytes"))?;
        let pcrs = tpm.pcrs(0..PCRS)?;
        let quote = tpm.quote(handle, &nonce, 0..PCRS)?;
        let attest = verify(&quote, &key, &nonce, &pcrs)?;
        Ok(Enrolment {
            ak_spki_pem: key.to_pem(),
            ak_name_hex: hex::encode(&key.name()),
            ak_handle,
            not_kept,
            pcrs,
            software,
            manufacturer: tpm.manufacturer()?,
            clock: attest.clock,
            trust_on_first_use: true,
        })
    })
}

/// The name of an enrolled key, to compare with what `enroll` printed.
pub(crate) fn name_hex(key: &AttestationKey) -> String {
    hex::encode(&key.name())
}
