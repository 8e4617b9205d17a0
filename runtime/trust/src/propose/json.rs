//! Strict JSON: no duplicate keys, nothing after the value, bounded depth and count; a text knows where it stands.
use super::Malformed;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

/// Arrays and objects inside each other.
const MAX_DEPTH: usize = 32;
/// Values in one file: memory is a bounded multiple of it.
const MAX_VALUES: usize = 1 << 16;

#[derive(Debug)]
pub(crate) enum Json<'a> {
    Null,
    /// A whole number that is not negative.
    Number(u64),
    Text(Cow<'a, str>),
    List(Vec<Json<'a>>),
    Object(Object<'a>),
    /// true, false, other numbers: nothing here needs them.
    Other,
}

#[derive(Debug, Default)]
pub(crate) struct Object<'a>(BTreeMap<Cow<'a, str>, Json<'a>>);

/// Parses all of `bytes` as one object.
pub(crate) fn object<'a>(bytes: &'a [u8], what: &str, max: usize) -> Result<Object<'a>, Malformed> {
    if bytes.len() > max {
        return Err(Malformed::new(format!("{what}: {} bytes, at most {max} are looked at", bytes.len())));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Malformed::new(format!("{what}: not UTF-8")))?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let left = Cell::new(MAX_VALUES);
    let value = Value { depth: 0, left: &left }
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|error| Malformed::new(format!("{what}: {error}")))?;
    match value {
        Json::Object(object) => Ok(object),
        _ => Err(Malformed::new(format!("{what}: not a JSON object"))),
    }
}

impl<'a> Object<'a> {
    /// The member `name`, or None when it is absent or null. A key that Go's decoder would take for `name` though it
    /// is spelt otherwise is an error: two readers must not see two values.
    pub(crate) fn get(&self, name: &str) -> Result<Option<&Json<'a>>, Malformed> {
        for key in self.0.keys() {
            if key != name && folded(key) == folded(name) {
                return Err(Malformed::new(format!("key {key:?} looks like {name:?}")));
            }
        }
        Ok(self.0.get(name).filter(|value| !matches!(value, Json::Null)))
    }

    pub(crate) fn has(&self, name: &str) -> Result<bool, Malformed> {
        Ok(self.get(name)?.is_some())
    }

    pub(crate) fn need(&self, name: &str) -> Result<&Json<'a>, Malformed> {
        self.get(name)?.ok_or_else(|| Malformed::new(format!("no {name}")))
    }

    pub(crate) fn object(&self, name: &str) -> Result<&Object<'a>, Malformed> {
        self.need(name)?.object(name)
    }

    pub(crate) fn list(&self, name: &str) -> Result<&[Json<'a>], Malformed> {
        self.need(name)?.list(name)
    }

    /// A text of at most `max` bytes without NUL; empty when absent.
    pub(crate) fn text(&self, name: &str, max: usize) -> Result<&str, Malformed> {
        self.get(name)?.map_or(Ok(""), |value| value.text(name, max))
    }

    pub(crate) fn need_text(&self, name: &str, max: usize) -> Result<&str, Malformed> {
        self.need(name)?.text(name, max)
    }

    /// A text that stands in the input as it is, without escapes.
    pub(crate) fn placed(&self, name: &str) -> Result<&'a str, Malformed> {
        self.need(name)?.placed(name)
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = (&str, &Json<'a>)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(AsRef::as_ref)
    }
}

impl<'a> Json<'a> {
    pub(crate) fn object(&self, name: &str) -> Result<&Object<'a>, Malformed> {
        match self {
            Self::Object(object) => Ok(object),
            _ => Err(Malformed::new(format!("{name} is not an object"))),
        }
    }

    pub(crate) fn list(&self, name: &str) -> Result<&[Self], Malformed> {
        match self {
            Self::List(list) => Ok(list),
            _ => Err(Malformed::new(format!("{name} is not a list"))),
        }
    }

    pub(crate) fn number(&self, name: &str) -> Result<u64, Malformed> {
        match self {
            Self::Number(number) => Ok(*number),
            _ => Err(Malformed::new(format!("{name} is not a whole number"))),
        }
    }

    pub(crate) fn text(&self, name: &str, max: usize) -> Result<&str, Malformed> {
        match self {
            Self::Text(text) if text.len() > max => Err(Malformed::new(format!("{name} is longer than {max} bytes"))),
            Self::Text(text) if text.contains('\0') => Err(Malformed::new(format!("{name} holds a NUL"))),
            Self::Text(text) => Ok(text),
            _ => Err(Malformed::new(format!("{name} is not a text"))),
        }
    }

    pub(crate) fn placed(&self, name: &str) -> Result<&'a str, Malformed> {
        match self {
            Self::Text(Cow::Borrowed(text)) => Ok(text),
            Self::Text(Cow::Owned(_)) => Err(Malformed::new(format!("{name} is written with escapes"))),
            _ => Err(Malformed::new(format!("{name} is not a text"))),
        }
    }
}

/// As Go's encoding/json compares keys: simple case folding, in which U+017F is an `s` and U+212A a `k`.
fn folded(key: &str) -> String {
    key.chars()
        .map(|c| match c {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            c => c.to_ascii_lowercase(),
        })
        .collect()
}

struct Value<'c> {
    depth: usize,
    left: &'c Cell<usize>,
}

impl Value<'_> {
    fn inner<E: Error>(&self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom("nested too deeply"));
        }
        let left = self.left.get().checked_sub(1).ok_or_else(|| E::custom("too many values"))?;
        self.left.set(left);
        Ok(Self { depth: self.depth + 1, left: self.left })
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// A key, borrowed where it can be.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Json<'de>, E> {
        Ok(Json::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Json<'de>, E> {
        Ok(Json::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json<'de>, E> {
        Ok(Json::Other)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json<'de>, E> {
        Ok(Json::Number(number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json<'de>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.inner()?)? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json<'de>, A::Error> {
        let mut object = BTreeMap::new();
        while let Some(key) = members.next_key_seed(Key)? {
            let value = members.next_value_seed(self.inner()?)?;
            if object.contains_key(&key) {
                return Err(A::Error::custom(format!("key {key:?} twice")));
            }
            object.insert(key, value);
        }
        Ok(Json::Object(Object(object)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        object(text.as_bytes(), "it", 1 << 20).unwrap_err().0
    }

    #[test]
    fn what_is_not_strict_is_refused() {
        for (bad, why) in [
            (r#"{"a":1,"a":2}"#, "twice"),
            (r#"{"a":1,"\u0061":2}"#, "twice"),
            (r#"{"x":{"b":1,"b":1}}"#, "twice"),
            ("{} {}", "trailing"),
            ("{}x", "trailing"),
            ("[]", "not a JSON object"),
            ("{", "EOF"),
            ("", "EOF"),
            ("\u{feff}{}", "expected"),
            (r#"{"a":NaN}"#, "expected"),
            (r#"{"a":"\ud800\u0041"}"#, "surrogate"),
            ("{\"a\":\"\n\"}", "control character"),
        ] {
            let why_not = refused(bad);
            assert!(why_not.contains(why), "{bad}: {why_not}");
        }
        assert!(object(b"\xff", "it", 10).unwrap_err().0.contains("UTF-8"));
        assert!(object(b"{}       ", "it", 5).unwrap_err().0.contains("at most 5"));
    }

    #[test]
    fn depth_and_count_are_bounded() {
        let deep = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
        assert!(object(deep(MAX_DEPTH - 1).as_bytes(), "it", 1000).is_ok());
        assert!(refused(&deep(MAX_DEPTH)).contains("deeply"));
        assert!(refused(&deep(100_000)).contains("deeply"));
        let many = |n: usize| format!("{{\"a\":[{}0]}}", "0,".repeat(n));
        assert!(object(many(1000).as_bytes(), "it", 1 << 20).is_ok());
        assert!(refused(&many(MAX_VALUES)).contains("too many"));
    }

    #[test]
    fn look_alike_keys_are_refused_where_they_matter() {
        for text in [r#"{"Config":1}"#, r#"{"config":1,"CONFIG":2}"#] {
            assert!(object(text.as_bytes(), "it", 99).unwrap().get("config").is_err());
        }
        assert!(object("{\"di\u{17f}k\":1}".as_bytes(), "it", 99).unwrap().get("disk").is_err());
        assert!(object(b"{\"x\":null}", "it", 99).unwrap().get("x").unwrap().is_none());
    }

    #[test]
    fn a_placed_text_has_no_escapes() {
        let text = br#"{"a":"plain","b":"esc\u0061ped"}"#;
        let object = object(text, "it", 99).unwrap();
        assert_eq!(object.placed("a").unwrap(), "plain");
        assert!(object.placed("b").unwrap_err().0.contains("escapes"));
        assert_eq!(object.need_text("b", 99).unwrap(), "escaped");
        assert!(object.need_text("b", 3).is_err());
    }
}
