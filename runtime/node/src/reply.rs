//! Parameters of the replies that this client reads, bytes to types. Pure, so that a fuzzer can reach each of them.
use crate::Error;
use crate::key::SHA256_ID;
use crate::quote::{Quote, parse_signature};
use crate::wire::Reader;
use std::collections::BTreeMap;

/// CreatePrimary: the public area; creation data, hash, ticket and name are read over.
pub fn primary(parameters: &[u8]) -> Result<Vec<u8>, Error> {
    let mut reader = Reader::new("reply to CreatePrimary", parameters);
    let public = reader.sized()?.to_vec();
    reader.sized()?;
    reader.sized()?;
    reader.u16()?;
    reader.u32()?;
    reader.sized()?;
    reader.sized()?;
    reader.end()?;
    Ok(public)
}

/// ReadPublic: the public area; name and qualified name follow from it.
pub fn public(parameters: &[u8]) -> Result<Vec<u8>, Error> {
    let mut reader = Reader::new("reply to ReadPublic", parameters);
    let public = reader.sized()?.to_vec();
    reader.sized()?;
    reader.sized()?;
    reader.end()?;
    Ok(public)
}

/// Quote.
pub fn quote(parameters: &[u8]) -> Result<Quote, Error> {
    let mut reader = Reader::new("reply to Quote", parameters);
    let attest = reader.sized()?.to_vec();
    Ok(Quote { attest, signature: parse_signature(reader.rest())? })
}

/// PCR_Read: the values that came, which may be fewer than asked for (eight at a time).
pub fn pcr_values(parameters: &[u8]) -> Result<BTreeMap<u32, [u8; 32]>, Error> {
    let what = "reply to PCR_Read";
    let mut reader = Reader::new(what, parameters);
    reader.u32()?; // the update counter
    let banks = reader.u32()?;
    let mut pcrs = Vec::new();
    if banks > 1 {
        return Err(Error::Malformed(what, "more than the one bank that was asked for"));
    }
    if banks == 1 {
        if reader.u16()? != SHA256_ID {
            return Err(Error::Malformed(what, "another bank than SHA-256"));
        }
        let size = reader.u8()?;
        if size > 4 {
            return Err(Error::Malformed(what, "more than 32 PCRs"));
        }
        for (byte, bits) in (0u32..).zip(reader.take(usize::from(size))?) {
            pcrs.extend((0..8).filter(|bit| bits & (1 << bit) != 0).map(|bit| byte * 8 + bit));
        }
    }
    if reader.u32()? as usize != pcrs.len() {
        return Err(Error::Malformed(what, "not one value per PCR"));
    }
    let mut values = BTreeMap::new();
    for pcr in pcrs {
        let value = <[u8; 32]>::try_from(reader.sized()?)
            .map_err(|_| Error::Malformed(what, "a value that is not 32 bytes"))?;
        values.insert(pcr, value);
    }
    reader.end()?;
    Ok(values)
}

/// What the TPM says of itself. Nothing here is signed: for an operator's eyes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Time {
    /// Milliseconds since this boot.
    pub time: u64,
    /// Milliseconds powered over all boots.
    pub clock: u64,
    pub resets: u32,
    pub restarts: u32,
}

/// ReadClock.
pub fn time(parameters: &[u8]) -> Result<Time, Error> {
    let mut reader = Reader::new("reply to ReadClock", parameters);
    let time = Time { time: reader.u64()?, clock: reader.u64()?, resets: reader.u32()?, restarts: reader.u32()? };
    reader.u8()?;
    reader.end()?;
    Ok(time)
}

/// GetRandom.
pub fn random(parameters: &[u8]) -> Result<Vec<u8>, Error> {
    let mut reader = Reader::new("reply to GetRandom", parameters);
    let bytes = reader.sized()?.to_vec();
    reader.end()?;
    Ok(bytes)
}

/// GetCapability of one TPM property: its value, printable characters alone.
pub fn property(parameters: &[u8], wanted: u32) -> Result<String, Error> {
    let what = "reply to GetCapability";
    let mut reader = Reader::new(what, parameters);
    reader.u8()?; // more data
    let (capability, count) = (reader.u32()?, reader.u32()?);
    if capability != 6 || count != 1 || reader.u32()? != wanted {
        return Err(Error::Malformed(what, "another property than the one that was asked for"));
    }
    let value = reader.u32()?.to_be_bytes();
    reader.end()?;
    let text: String = value.into_iter().filter(u8::is_ascii_graphic).map(char::from).collect();
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Writer;

    fn pcrs(bank: u16, bits: &[u8], values: usize, size: usize) -> Result<BTreeMap<u32, [u8; 32]>, Error> {
        let mut out = Writer::default();
        out.u32(9);
        out.u32(1);
        out.u16(bank);
        out.put(&[bits.len() as u8]);
        out.put(bits);
        out.u32(values as u32);
        for n in 0..values {
            out.sized(&vec![n as u8; size]);
        }
        pcr_values(&out.0)
    }

    #[test]
    fn pcr_values_pair_up_with_their_numbers() {
        let read = pcrs(SHA256_ID, &[0x82, 0, 0x80], 3, 32).unwrap();
        assert_eq!(read.into_iter().collect::<Vec<_>>(), [(1, [0; 32]), (7, [1; 32]), (23, [2; 32])]);
        assert!(pcrs(SHA256_ID, &[0x82, 0, 0x80], 2, 32).is_err());
        assert!(pcrs(SHA256_ID, &[0x82, 0, 0x80], 4, 32).is_err());
        assert!(pcrs(SHA256_ID, &[0x82, 0, 0x80], 3, 20).is_err());
        assert!(pcrs(4, &[0x82, 0, 0x80], 3, 32).is_err());
        assert!(pcrs(SHA256_ID, &[1, 0, 0, 0, 0], 1, 32).is_err());
    }

    #[test]
    fn a_bank_that_is_not_there_has_no_values() {
        let mut out = Writer::default();
        out.u32(9);
        out.u32(0);
        out.u32(0);
        assert_eq!(pcr_values(&out.0), Ok(BTreeMap::new()));
        out.put(&[0]);
        assert!(pcr_values(&out.0).is_err());
    }

    #[test]
    fn no_decoder_panics_on_short_or_odd_bytes() {
        for size in 0..64 {
            for fill in [0u8, 1, 3, 0x0b, 0xff] {
                let bytes = vec![fill; size];
                let all = [
                    primary(&bytes).is_ok(),
                    public(&bytes).is_ok(),
                    quote(&bytes).is_ok(),
                    pcr_values(&bytes).is_ok(),
                    time(&bytes).is_ok(),
                    random(&bytes).is_ok(),
                    property(&bytes, 1).is_ok(),
                ];
                // Only structures that are all zero lengths, or a clock of 25 bytes, can be well-formed.
                assert!(!all.contains(&true) || fill == 0 || size == 25, "{size} of {fill:x}: {all:?}");
            }
        }
    }
}
