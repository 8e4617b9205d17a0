//! The floor under a policy's version: a counter in the TPM's NV memory, which nobody can set back.
//!
//! A TPM counter only goes up: undefined and defined again, it begins above every count that the TPM ever had (TPM 2.0
//! part 1, section 37.2.4). So who has the owner's password can take it away, and who may open the TPM can push it up;
//! then nothing starts until a higher version is signed, but no older policy is good again.
use crate::Error;
use crate::key::SHA256_ID;
use crate::tpm::Tpm;
use crate::wire::{Command, Reader, Writer};
use std::time::Instant;

/// Where the counter is: owner range of part 2, table 29.
pub const INDEX: u32 = 0x0180_8b01;
/// Most steps in one go: a discrete TPM writes its flash for each.
pub const MAX_STEPS: u64 = 1000;

const OWNER: u32 = 0x4000_0001;
/// TPMA_NV (part 2, section 13.4): the index's own empty password reads and increments, the owner's too, and no wrong
/// password locks it.
const OWNER_WRITE: u32 = 1 << 1;
const AUTH_WRITE: u32 = 1 << 2;
const COUNTER: u32 = 1 << 4;
const OWNER_READ: u32 = 1 << 17;
const AUTH_READ: u32 = 1 << 18;
const NO_DA: u32 = 1 << 25;
const WRITTEN: u32 = 1 << 29;
const ATTRIBUTES: u32 = OWNER_WRITE | AUTH_WRITE | COUNTER | OWNER_READ | AUTH_READ | NO_DA;
const SIZE: u16 = 8;
/// TPM_RC_HANDLE for the first handle: nothing is there.
const NOTHING_THERE: u32 = 0x18b;

/// The counter of the TPM at `address`; None when it has none.
///
/// # Errors
/// No TPM, or something else at the counter's place.
pub fn read(address: &str, deadline: Instant) -> Result<Option<u64>, Error> {
    Tpm::open(address, deadline)?.counter()
}

/// The counter, which is made when it is not there.
///
/// # Errors
/// As [`read`]; also when the owner hierarchy has a password, or no NV memory is left.
pub fn establish(address: &str, deadline: Instant) -> Result<u64, Error> {
    let mut tpm = Tpm::open(address, deadline)?;
    match tpm.counter()? {
        Some(count) => Ok(count),
        None => {
            tpm.define_counter()?;
            tpm.increment()?;
            tpm.counter()?.ok_or(Error::Malformed("the TPM's counter", "it is not there after it was made"))
        }
    }
}

/// Counts up until the counter is at least `to`, and says where it then is.
///
/// # Errors
/// As [`read`]; no counter; more than [`MAX_STEPS`] steps.
pub fn raise(address: &str, to: u64, deadline: Instant) -> Result<u64, Error> {
    let mut tpm = Tpm::open(address, deadline)?;
    let mut count = tpm.counter()?.ok_or_else(lost)?;
    if to.saturating_sub(count) > MAX_STEPS {
        return Err(Error::refused(format!(
            "the policy version is {} steps above the TPM's counter, which goes up one by one. Fix: number versions 1, 2, 3",
            to.saturating_sub(count)
        )));
    }
    while count < to {
        tpm.increment()?;
        let next = tpm.counter()?.ok_or_else(lost)?;
        if next <= count {
            return Err(Error::Malformed("the TPM's counter", "it does not go up"));
        }
        count = next;
    }
    Ok(count)
}

pub(crate) fn lost() -> Error {
    Error::refused("the TPM has no counter for the policy's version: it was cleared, or it is another TPM")
}

impl Tpm {
    fn counter(&mut self) -> Result<Option<u64>, Error> {
        let public = match self.run(Command::NvReadPublic, &[INDEX], Writer::default()) {
            Ok((_, reply)) => reply,
            Err(Error::Code(_, NOTHING_THERE)) => return Ok(None),
            Err(error) => return Err(error),
        };
        counter_public(&public)?;
        let mut parameters = Writer::default();
        parameters.u16(SIZE);
        parameters.u16(0);
        let (_, reply) = self.run(Command::NvRead, &[INDEX, INDEX], parameters)?;
        count(&reply).map(Some)
    }

    fn define_counter(&mut self) -> Result<(), Error> {
        let mut public = Writer::default();
        public.u32(INDEX);
        public.u16(SHA256_ID);
        public.u32(ATTRIBUTES);
        public.sized(&[]); // no policy
        public.u16(SIZE);
        let mut parameters = Writer::default();
        parameters.sized(&[]); // empty password
        parameters.sized(&public.0);
        self.run(Command::NvDefineSpace, &[OWNER], parameters).map(|_| ())
    }

    fn increment(&mut self) -> Result<(), Error> {
        self.run(Command::NvIncrement, &[INDEX, INDEX], Writer::default()).map(|_| ())
    }
}

/// Reply to NV_ReadPublic: exactly the index that boltseal makes, written or not.
///
/// # Errors
/// Another index, or a reply that is none.
pub fn counter_public(parameters: &[u8]) -> Result<(), Error> {
    let what = "reply to NV_ReadPublic";
    let mut reader = Reader::new(what, parameters);
    let public = reader.sized()?;
    reader.sized()?;
    reader.end()?;
    let mut reader = Reader::new(what, public);
    let (index, hash, attributes) = (reader.u32()?, reader.u16()?, reader.u32()?);
    let (policy, size) = (reader.sized()?.is_empty(), reader.u16()?);
    reader.end()?;
    if index != INDEX {
        return Err(Error::Malformed(what, "another index"));
    }
    if hash != SHA256_ID || attributes & !WRITTEN != ATTRIBUTES || !policy || size != SIZE {
        return Err(Error::refused(format!(
            "NV index {INDEX:#x} of the TPM is not the counter that boltseal makes there. Fix: find out who made it, then remove it"
        )));
    }
    Ok(())
}

/// Reply to NV_Read of a counter.
///
/// # Errors
/// Anything but eight bytes.
pub fn count(parameters: &[u8]) -> Result<u64, Error> {
    let what = "reply to NV_Read";
    let mut reader = Reader::new(what, parameters);
    let bytes = reader.sized()?;
    reader.end()?;
    let mut reader = Reader::new(what, bytes);
    let count = reader.u64()?;
    reader.end()?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(change: impl Fn(&mut [u32; 3], &mut Vec<u8>, &mut u16)) -> Vec<u8> {
        let (mut words, mut policy, mut size) = ([INDEX, u32::from(SHA256_ID), ATTRIBUTES | WRITTEN], Vec::new(), SIZE);
        change(&mut words, &mut policy, &mut size);
        let mut inner = Writer::default();
        inner.u32(words[0]);
        inner.u16(words[1] as u16);
        inner.u32(words[2]);
        inner.sized(&policy);
        inner.u16(size);
        let mut out = Writer::default();
        out.sized(&inner.0);
        out.sized(&[0, 11, 1, 2]);
        out.0
    }

    #[test]
    fn only_our_own_counter_is_one() {
        assert_eq!(counter_public(&public(|_, _, _| {})), Ok(()));
        assert_eq!(counter_public(&public(|w, _, _| w[2] = ATTRIBUTES)), Ok(()));
        for bad in [
            public(|w, _, _| w[0] += 1),
            public(|w, _, _| w[1] = 4),
            public(|w, _, _| w[2] &= !COUNTER),
            public(|w, _, _| w[2] |= 1 << 5),
            public(|_, p, _| p.extend([0; 32])),
            public(|_, _, s| *s = 4),
        ] {
            assert!(counter_public(&bad).is_err(), "{bad:x?}");
        }
        let good = public(|_, _, _| {});
        for end in 0..good.len() {
            assert!(counter_public(&good[..end]).is_err());
        }
    }

    #[test]
    fn a_count_is_eight_bytes() {
        assert_eq!(count(&[0, 8, 0, 0, 0, 0, 0, 0, 1, 2]), Ok(258));
        for bad in [&[0, 8, 0, 0, 0, 0, 0, 0, 1][..], &[0, 7, 0, 0, 0, 0, 0, 0, 1], &[0, 8, 0, 0, 0, 0, 0, 0, 1, 2, 3]]
        {
            assert!(count(bad).is_err());
        }
    }
}
