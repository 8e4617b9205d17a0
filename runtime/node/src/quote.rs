//! A quote: the TPM's signed statement on the values of its PCRs (TPMS_ATTEST, part 2 section 10.12).
use crate::Error;
use crate::key::{AttestationKey, ECDSA, SHA256_ID};
use crate::wire::{Reader, Writer};
use ring::digest::{SHA256, digest};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// TPM_GENERATED_VALUE: a restricted key signs no foreign bytes that begin so.
const MAGIC: u32 = 0xff54_4347;
const ATTEST_QUOTE: u16 = 0x8018;
/// PCRs 0 to 23, the ones of a PC.
pub const PCRS: u32 = 24;

/// What a quote says. Nothing of it counts before [`verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attest {
    /// Qualified name of the key that signed it.
    pub qualified_signer: Vec<u8>,
    /// The nonce.
    pub extra_data: Vec<u8>,
    pub clock: Clock,
    /// (hash algorithm, bitmap), as signed.
    pub selections: Vec<(u16, Vec<u8>)>,
    /// SHA-256 over the selected values, lowest PCR first.
    pub pcr_digest: Vec<u8>,
}

/// TPMS_CLOCK_INFO, and the firmware version beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clock {
    /// Milliseconds that the TPM has been powered, over all boots.
    pub milliseconds: u64,
    /// Boots since the TPM was last cleared. kexec does not count.
    pub resets: u32,
    /// Suspends since the last boot.
    pub restarts: u32,
    /// `milliseconds` has not gone back by a power cut.
    pub safe: bool,
    pub firmware: u64,
}

/// A quote and its signature, as kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// TPMS_ATTEST, as signed.
    pub attest: Vec<u8>,
    /// r and s, 32 bytes each.
    pub signature: [u8; 64],
}

/// Takes a TPMS_ATTEST of a quote apart.
///
/// # Errors
/// `Malformed`: not made by a TPM, not a quote, a length that does not fit, bytes after its end.
pub fn parse_attest(bytes: &[u8]) -> Result<Attest, Error> {
    let what = "quote";
    let mut reader = Reader::new(what, bytes);
    if reader.u32()? != MAGIC {
        return Err(Error::Malformed(what, "not made inside a TPM"));
    }
    if reader.u16()? != ATTEST_QUOTE {
        return Err(Error::Malformed(what, "an attestation of something else"));
    }
    let qualified_signer = reader.sized()?.to_vec();
    let extra_data = reader.sized()?.to_vec();
    let (milliseconds, resets, restarts) = (reader.u64()?, reader.u32()?, reader.u32()?);
    let safe = match reader.u8()? {
        0 => false,
        1 => true,
        _ => return Err(Error::Malformed(what, "its clock is neither safe nor unsafe")),
    };
    let firmware = reader.u64()?;
    let count = reader.u32()?;
    if count > 16 {
        return Err(Error::Malformed(what, "more than 16 PCR banks"));
    }
    let mut selections = Vec::new();
    for _ in 0..count {
        let bank = reader.u16()?;
        let size = reader.u8()?;
        selections.push((bank, reader.take(usize::from(size))?.to_vec()));
    }
    let pcr_digest = reader.sized()?.to_vec();
    reader.end()?;
    Ok(Attest {
        qualified_signer,
        extra_data,
        clock: Clock { milliseconds, resets, restarts, safe, firmware },
        selections,
        pcr_digest,
    })
}

/// Takes a TPMT_SIGNATURE apart: ECDSA with SHA-256. r and s may come without their leading zeros.
///
/// # Errors
/// `Malformed` for every other form.
pub fn parse_signature(bytes: &[u8]) -> Result<[u8; 64], Error> {
    let what = "signature";
    let mut reader = Reader::new(what, bytes);
    if reader.u16()? != ECDSA || reader.u16()? != SHA256_ID {
        return Err(Error::Malformed(what, "not ECDSA with SHA-256"));
    }
    let mut out = [0; 64];
    for half in out.chunks_exact_mut(32) {
        let number = reader.sized()?;
        let start = 32usize.checked_sub(number.len()).ok_or(Error::Malformed(what, "longer than P-256"))?;
        half[start..].copy_from_slice(number);
    }
    reader.end()?;
    Ok(out)
}

/// Verifies a quote: signed by `key` (the enrolled one: never a key that came with the quote), over `nonce`, over
/// exactly the PCRs of `values` in the SHA-256 bank, with exactly these values.
///
/// # Errors
/// `Refused` with the first thing that does not hold.
pub fn verify(
    quote: &Quote,
    key: &AttestationKey,
    nonce: &[u8; 32],
    values: &BTreeMap<u32, [u8; 32]>,
) -> Result<Attest, Error> {
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.point())
        .verify(&quote.attest, &quote.signature)
        .map_err(|_| Error::refused("the quote is not signed by the enrolled attestation key"))?;
    let attest = parse_attest(&quote.attest)?;
    // Whoever signs with a key of other attributes or another hierarchy signs under another name.
    if attest.qualified_signer != key.qualified_name() {
        return Err(Error::refused("the quote names another key than the enrolled one"));
    }
    if attest.extra_data != nonce {
        return Err(Error::refused("the quote carries another nonce"));
    }
    let wanted = selection(values.keys().copied())?;
    // A TPM may quote fewer PCRs than asked, or a bank that is not there.
    if attest.selections != [(SHA256_ID, wanted.to_vec())] {
        return Err(Error::refused("the quote is over other PCRs than the node policy names"));
    }
    if attest.pcr_digest != pcr_digest(values) {
        return Err(mismatch());
    }
    if values.values().all(|value| [[0; 32], [0xff; 32]].contains(value)) {
        return Err(Error::refused(
            "all PCRs of the node policy are zero or 0xff: nothing was measured. Fix: enable measured boot, or name the PCRs that it extends",
        ));
    }
    Ok(attest)
}

/// Values and quote do not belong together: also what a PCR that is extended between the two commands looks like.
pub(crate) fn mismatch() -> Error {
    Error::refused("the quote is over other PCR values than the ones beside it")
}

fn pcr_digest(values: &BTreeMap<u32, [u8; 32]>) -> [u8; 32] {
    let mut out = [0; 32];
    let all: Vec<u8> = values.values().flatten().copied().collect();
    out.copy_from_slice(digest(&SHA256, &all).as_ref());
    out
}

/// The bitmap of a TPMS_PCR_SELECTION.
///
/// # Errors
/// For a PCR above 23, and for none at all.
pub(crate) fn selection(pcrs: impl IntoIterator<Item = u32>) -> Result<[u8; 3], Error> {
    let mut bitmap = [0u8; 3];
    for pcr in pcrs {
        if pcr >= PCRS {
            return Err(Error::refused(format!("PCR {pcr} does not exist. Fix: the node policy's pcrs are 0 to 23")));
        }
        bitmap[(pcr / 8) as usize] |= 1 << (pcr % 8);
    }
    if bitmap == [0; 3] {
        return Err(Error::refused("the node policy names no PCR. Fix: boltseal node enroll prints them"));
    }
    Ok(bitmap)
}

/// TPML_PCR_SELECTION with the SHA-256 bank alone.
pub(crate) fn put_selection(out: &mut Writer, bitmap: [u8; 3]) {
    out.u32(1);
    out.u16(SHA256_ID);
    out.put(&[3]);
    out.put(&bitmap);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

    /// A key outside any TPM, which can sign whatever it likes.
    pub(crate) fn software_key() -> (EcdsaKeyPair, AttestationKey) {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let point = pair.public_key().as_ref().try_into().unwrap();
        (pair, crate::key::from_point(point))
    }

    pub(crate) struct Parts {
        pub(crate) magic: u32,
        pub(crate) kind: u16,
        pub(crate) signer: Vec<u8>,
        pub(crate) nonce: Vec<u8>,
        pub(crate) selections: Vec<(u16, Vec<u8>)>,
        pub(crate) digest: Vec<u8>,
    }

    impl Parts {
        pub(crate) fn good(key: &AttestationKey, nonce: [u8; 32], values: &BTreeMap<u32, [u8; 32]>) -> Self {
            Self {
                magic: MAGIC,
                kind: ATTEST_QUOTE,
                signer: key.qualified_name(),
                nonce: nonce.to_vec(),
                selections: vec![(SHA256_ID, selection(values.keys().copied()).unwrap().to_vec())],
                digest: pcr_digest(values).to_vec(),
            }
        }

        pub(crate) fn attest(&self) -> Vec<u8> {
            let mut out = Writer::default();
            out.u32(self.magic);
            out.u16(self.kind);
            out.sized(&self.signer);
            out.sized(&self.nonce);
            out.put(&77u64.to_be_bytes());
            out.u32(5);
            out.u32(6);
            out.put(&[1]);
            out.put(&0x20u64.to_be_bytes());
            out.u32(self.selections.len() as u32);
            for (bank, bits) in &self.selections {
                out.u16(*bank);
                out.put(&[bits.len() as u8]);
                out.put(bits);
            }
            out.sized(&self.digest);
            out.0
        }

        pub(crate) fn sign(&self, pair: &EcdsaKeyPair) -> Quote {
            let attest = self.attest();
            let mut signature = [0; 64];
            signature.copy_from_slice(pair.sign(&SystemRandom::new(), &attest).unwrap().as_ref());
            Quote { attest, signature }
        }
    }

    fn values() -> BTreeMap<u32, [u8; 32]> {
        BTreeMap::from([(0, [1; 32]), (4, [0; 32]), (23, [2; 32])])
    }

    #[test]
    fn each_part_of_a_quote_must_hold() {
        let (pair, key) = software_key();
        let good = || Parts::good(&key, [9; 32], &values());
        let check = |parts: Parts| verify(&parts.sign(&pair), &key, &[9; 32], &values());
        let attest = check(good()).unwrap();
        assert_eq!(attest.clock, Clock { milliseconds: 77, resets: 5, restarts: 6, safe: true, firmware: 0x20 });

        let says = |parts: Parts, text: &str| {
            let error = check(parts).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        };
        says(Parts { magic: 0xff54_4346, ..good() }, "not made inside a TPM");
        says(Parts { kind: 0x8017, ..good() }, "something else");
        says(Parts { signer: key.name(), ..good() }, "another key");
        says(Parts { nonce: vec![8; 32], ..good() }, "nonce");
        says(Parts { nonce: vec![], ..good() }, "nonce");
        says(Parts { digest: vec![0; 32], ..good() }, "other PCR values");
        for selections in [
            vec![],
            vec![(SHA256_ID, vec![0x11, 0, 0])],
            vec![(SHA256_ID, vec![0x11, 0, 0x80, 0])],
            vec![(4, vec![0x11, 0, 0x80])],
            vec![(SHA256_ID, vec![0x11, 0, 0x80]), (4, vec![0, 0, 0])],
        ] {
            says(Parts { selections, ..good() }, "other PCRs");
        }
    }

    #[test]
    fn a_quote_by_another_key_is_refused() {
        let (_, enrolled) = software_key();
        let (thief, _) = software_key();
        let forged = Parts::good(&enrolled, [9; 32], &values()).sign(&thief);
        let error = verify(&forged, &enrolled, &[9; 32], &values()).unwrap_err();
        assert!(error.to_string().contains("not signed by the enrolled"), "{error}");
    }

    #[test]
    fn a_bank_that_nothing_was_measured_into_is_refused() {
        let (pair, key) = software_key();
        let check = |values: BTreeMap<u32, [u8; 32]>| {
            verify(&Parts::good(&key, [9; 32], &values).sign(&pair), &key, &[9; 32], &values)
        };
        assert!(check(BTreeMap::from([(0, [0; 32]), (17, [0xff; 32])])).is_err());
        assert!(check(BTreeMap::from([(0, [0; 32])])).is_err());
        assert!(check(BTreeMap::from([(0, [0; 32]), (17, [1; 32])])).is_ok());
    }

    #[test]
    fn attest_is_read_to_its_last_byte_and_no_further() {
        let (_, key) = software_key();
        let good = Parts::good(&key, [9; 32], &values()).attest();
        assert!(parse_attest(&good).is_ok());
        for end in 0..good.len() {
            assert!(parse_attest(&good[..end]).is_err(), "{end}");
        }
        assert!(parse_attest(&[&good[..], &[0]].concat()).is_err());
        let mut odd = good.clone();
        odd[4 + 2 + 36 + 34 + 16] = 2;
        assert!(parse_attest(&odd).is_err());
        let mut banks = good.clone();
        banks[4 + 2 + 36 + 34 + 17 + 8] = 0xff;
        assert!(parse_attest(&banks).is_err());
    }

    #[test]
    fn short_numbers_are_padded_and_long_ones_refused() {
        let of = |r: &[u8], s: &[u8]| {
            let mut out = Writer::default();
            out.u16(ECDSA);
            out.u16(SHA256_ID);
            out.sized(r);
            out.sized(s);
            parse_signature(&out.0)
        };
        let padded = of(&[7; 31], &[8; 32]).unwrap();
        assert_eq!((padded[0], padded[1], padded[32]), (0, 7, 8));
        assert!(of(&[7; 33], &[8; 32]).is_err());
        assert!(parse_signature(&[0, 0x14, 0, 0x0b, 0, 0, 0, 0]).is_err());
    }

    #[test]
    fn pcrs_are_0_to_23_and_at_least_one() {
        assert_eq!(selection([0, 9, 23]), Ok([1, 2, 0x80]));
        assert!(selection([24]).is_err());
        assert!(selection([u32::MAX]).is_err());
        assert!(selection([]).is_err());
    }
}
