//! JSON from outside: bounded, parsed once, and without the freedom that readers of JSON disagree about.
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Parses at most `cap` bytes. A key that appears twice in one object is refused (one reader would keep the first and
/// another the last), as is anything after the value; the depth is bounded by serde_json (128).
///
/// # Errors
/// What is wrong and where, one line.
pub fn parse(bytes: &[u8], cap: usize) -> Result<Value, String> {
    if bytes.len() > cap {
        return Err(format!("{} bytes, more than the {cap} that are read", bytes.len()));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Unique.deserialize(&mut reader).map_err(|e| e.to_string())?;
    reader.end().map_err(|e| e.to_string())?;
    Ok(value)
}

/// Builds a [`Value`] and refuses a second key of the same name.
struct Unique;

impl<'de> DeserializeSeed<'de> for Unique {
    type Value = Value;
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }
    fn visit_f64<E: Error>(self, v: f64) -> Result<Value, E> {
        Number::from_f64(v).map(Value::Number).ok_or_else(|| E::custom("a number out of range"))
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }
    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Unique)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(Unique)?;
            if object.contains_key(&key) {
                return Err(A::Error::custom(format!("the key {key:?} appears twice")));
            }
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_as_serde_json_but_for_doubles() {
        let text = br#"{"a":[1,-2,3.5,null,true,"x",{"b":{}}],"c":18446744073709551615}"#;
        assert_eq!(parse(text, 1024).unwrap(), serde_json::from_slice::<Value>(text).unwrap());
        for doubled in [r#"{"a":1,"a":1}"#, r#"{"x":[{"a":1,"b":2,"a":3}]}"#, "{\"a\":1,\"\\u0061\":2}"] {
            assert!(parse(doubled.as_bytes(), 1024).unwrap_err().contains("twice"), "{doubled}");
        }
    }

    #[test]
    fn bounded_and_complete() {
        assert!(parse(b"{}", 1).unwrap_err().contains("more than the 1"));
        assert!(parse(b"{} {}", 100).is_err());
        assert!(parse(b"{\"a\":", 100).is_err());
        assert!(parse("[".repeat(100_000).as_bytes(), 1 << 20).is_err());
    }
}
