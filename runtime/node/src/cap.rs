//! The cap: a PCR that the first verdict of a boot extends with that boot's id.
//!
//! kexec keeps every PCR, and starts a kernel with another boot id. Where a boot is capped, such a kernel finds a value that is neither
//! what a TPM has after a reset nor what its own boot id makes: it is never attested. A reset clears it.
use crate::log::{events::hash, prove::extended};
use crate::{Boot, Error};
use std::collections::BTreeMap;

const DOMAIN: &[u8] = b"boltseal cap v1";
/// After a reset.
pub(crate) const OPEN: [u8; 32] = [0; 32];

/// What the PCR is extended with.
pub(crate) fn digest(boot: &Boot) -> [u8; 32] {
    hash(&[DOMAIN, boot.boot_id.as_bytes()].concat())
}

/// The policy's accepted values, with the two of the cap: not capped yet, capped in this very boot.
pub(crate) fn accepted(
    pcrs: &BTreeMap<u32, Vec<[u8; 32]>>,
    cap: Option<u32>,
    boot: &Boot,
) -> BTreeMap<u32, Vec<[u8; 32]>> {
    let mut all = pcrs.clone();
    all.extend(cap.map(|pcr| (pcr, vec![OPEN, extended(&OPEN, &digest(boot))])));
    all
}

/// # Errors
/// A PCR that is not free for it.
pub(crate) fn valid(cap: Option<u32>, pcrs: &BTreeMap<u32, Vec<[u8; 32]>>) -> Result<(), Error> {
    match cap {
        Some(pcr) if !(10..=15).contains(&pcr) || pcrs.contains_key(&pcr) => Err(Error::refused(format!(
            "node.cap: PCR {pcr} cannot be the cap. Fix: one of 10 to 15 that nothing else extends and node.pcrs does not name, such as 14"
        ))),
        _ => Ok(()),
    }
}
