//! Lower-case hex, strictly: one text per value, so that no byte of a file can change without changing what it says.
use crate::Error;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

pub(crate) fn encode(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|nibble| char::from(DIGITS[usize::from(nibble)])).collect()
}

pub(crate) fn decode32(text: &str) -> Result<[u8; 32], Error> {
    let text = text.as_bytes();
    if text.len() != 64 {
        return Err(Error::Malformed("digest", "not 64 hex digits"));
    }
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        for digit in pair {
            let nibble = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return Err(Error::Malformed("digest", "not lower-case hex")),
            };
            *byte = *byte << 4 | nibble;
        }
    }
    Ok(out)
}

/// For `#[serde(with)]` on a 32-byte field.
pub(crate) mod digest {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(crate) fn serialize<S: Serializer>(value: &[u8; 32], out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&super::encode(value))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<[u8; 32], D::Error> {
        super::decode32(&String::deserialize(input)?).map_err(D::Error::custom)
    }
}

/// For `#[serde(with)]` on a 32-byte field that may be missing; `null` is none of its forms.
pub(crate) mod perhaps {
    use serde::{Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &Option<[u8; 32]>, out: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => super::digest::serialize(value, out),
            None => out.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<[u8; 32]>, D::Error> {
        super::digest::deserialize(input).map(Some)
    }
}

/// For `#[serde(with)]` on a map from PCR number to value.
pub(crate) mod digests {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};
    use std::collections::BTreeMap;

    pub(crate) fn serialize<S: Serializer>(map: &BTreeMap<u32, [u8; 32]>, out: S) -> Result<S::Ok, S::Error> {
        out.collect_map(map.iter().map(|(pcr, value)| (pcr, super::encode(value))))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<BTreeMap<u32, [u8; 32]>, D::Error> {
        BTreeMap::<u32, String>::deserialize(input)?
            .into_iter()
            .map(|(pcr, text)| Ok((pcr, super::decode32(&text).map_err(D::Error::custom)?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_per_value() {
        let value: [u8; 32] = std::array::from_fn(|n| (n * 9) as u8);
        let text = encode(&value);
        assert_eq!(decode32(&text), Ok(value));
        assert!(decode32(&text.to_uppercase()).is_err());
        assert!(decode32(&text[1..]).is_err());
        assert!(decode32(&format!("{text}0")).is_err());
        assert!(decode32(&text.replace('0', "g")).is_err());
        assert!(decode32(&"é".repeat(32)).is_err());
    }
}
