//! A policy's text as the numbers that are compared. What does not read is an error, never a value less.
use crate::{Error, hex};
use std::collections::BTreeMap;

/// `[node.pcrs]`: accepted values per PCR of the SHA-256 bank.
///
/// # Errors
/// An index that is no PCR, a value that is not 64 lower-case hex digits.
pub fn accepted(pcrs: &BTreeMap<String, Vec<String>>) -> Result<BTreeMap<u32, Vec<[u8; 32]>>, Error> {
    let read = |(index, values): (&String, &Vec<String>)| {
        let number = index.parse::<u32>().ok().filter(|n| *n < crate::quote::PCRS && n.to_string() == *index);
        let number = number.ok_or_else(|| Error::refused(format!("[node.pcrs] {index:?} is no PCR")))?;
        Ok((number, digests("pcrs", values)?))
    };
    pcrs.iter().map(read).collect()
}

/// A list of SHA-256 digests.
///
/// # Errors
/// One that is not 64 lower-case hex digits; `key` is its place below `[node]`.
pub fn digests<'a>(key: &str, list: impl IntoIterator<Item = &'a String>) -> Result<Vec<[u8; 32]>, Error> {
    let read = |text: &String| {
        hex::decode32(text)
            .map_err(|_| Error::refused(format!("[node] {key}: {text:?} is not 64 lower-case hex digits")))
    };
    list.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_read_is_an_error_not_a_gap() {
        let good = "ab".repeat(32);
        let of = |index: &str, value: &str| accepted(&[(index.into(), vec![value.into()])].into());
        assert_eq!(of("7", &good).unwrap()[&7], [[0xab_u8; 32]]);
        for (index, value) in [
            ("24", good.as_str()),
            ("07", &good),
            ("x", &good),
            ("7", "abc"),
            ("7", &"zz".repeat(32)),
            ("7", &"é".repeat(32)),
        ] {
            assert!(of(index, value).is_err(), "{index} {value}");
        }
    }
}
