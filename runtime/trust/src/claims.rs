//! JSON with one reading: a name that stands twice in an object is refused, not silently the last.
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;

/// A JSON value. Numbers that are no integers of 64 bits are kept as `Other`: nothing here needs them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    Null,
    Bool(bool),
    Integer(i64),
    Other,
    Text(String),
    Array(Vec<Json>),
    Object(BTreeMap<String, Json>),
}

impl Json {
    /// # Errors
    /// Not JSON, nested too deeply, or a name twice.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        match serde_json::from_slice(bytes) {
            Ok(value) => Ok(value),
            Err(e) if e.to_string().starts_with(TWICE) => Err(TWICE),
            Err(_) => Err("not JSON"),
        }
    }

    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(map) => map.get(name),
            _ => None,
        }
    }

    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    #[must_use]
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// What a JSON pointer (RFC 6901) leads to.
    #[must_use]
    pub fn pointer(&self, pointer: &str) -> Option<&Self> {
        pointer.strip_prefix('/')?.split('/').try_fold(self, |value, token| {
            let token = token.replace("~1", "/").replace("~0", "~");
            match value {
                Self::Object(map) => map.get(&token),
                Self::Array(list) => list.get(token.parse::<usize>().ok()?),
                _ => None,
            }
        })
    }
}

const TWICE: &str = "a name stands twice in an object";

struct Reader;

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(Reader)
    }
}

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(i64::try_from(value).map_or(Json::Other, Json::Integer))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = access.next_element()? {
            list.push(value);
        }
        Ok(Json::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((name, value)) = access.next_entry::<String, Json>()? {
            if map.insert(name, value).is_some() {
                return Err(serde::de::Error::custom(TWICE));
            }
        }
        Ok(Json::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_reading() {
        let read = Json::parse(br#"{"a":[1,true,null,"x",1.5,18446744073709551615]}"#).unwrap();
        let list = [Json::Integer(1), Json::Bool(true), Json::Null, Json::Text("x".into()), Json::Other, Json::Other];
        assert_eq!(read.get("a"), Some(&Json::Array(list.into())));
        assert_eq!(Json::parse(br#"{"a":1,"a":1}"#), Err(TWICE));
        assert_eq!(Json::parse(br#"{"b":{"a":1,"\u0061":2}}"#), Err(TWICE));
        assert_eq!(Json::parse(b"{} x"), Err("not JSON"));
        assert!(Json::parse("[".repeat(5000).as_bytes()).is_err());
    }

    #[test]
    fn pointers_lead_where_rfc_6901_says() {
        let read = Json::parse(br#"{"a/b":{"m~n":[{"x":"found"}]},"":1}"#).unwrap();
        assert_eq!(read.pointer("/a~1b/m~0n/0/x").and_then(Json::text), Some("found"));
        assert_eq!(read.pointer("/"), Some(&Json::Integer(1)));
        for bad in ["", "a", "/a", "/a~1b/m~0n/1", "/a~1b/m~0n/x", "/a~1b/m~0n/0/x/y"] {
            assert_eq!(read.pointer(bad), None, "{bad}");
        }
    }
}
