//! Bytes -> values with one reading: JSON, or the part of YAML that is JSON in other clothes.
use crate::MAX_FILE;
use boltseal_policy::text;
use boltseal_trust::Json;
use saphyr_parser::{Event, Parser, ScalarStyle};
use std::collections::BTreeMap;

/// Lists and objects inside each other.
const MAX_DEPTH: usize = 64;
/// Values of one file.
const MAX_VALUES: usize = 1 << 16;

/// Every document of the file. Refused are names that stand twice, and of YAML anchors, aliases, merges and tags: each of
/// these is read differently by somebody.
///
/// # Errors
/// One line: what is wrong, and where.
pub fn read(bytes: &[u8]) -> Result<Vec<Json>, String> {
    if bytes.len() > MAX_FILE {
        return Err(format!("larger than {MAX_FILE} bytes"));
    }
    let content = std::str::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())?;
    if content.trim_start().starts_with('{') {
        let value =
            serde_json::from_str(content).map_err(|e| text::shorten(&text::escape(&format!("JSON: {e}")), 300))?;
        return Ok(vec![value]);
    }
    yaml(content)
}

#[derive(Debug)]
enum Open {
    List(Vec<Json>),
    /// With the key whose value comes next.
    Object(BTreeMap<String, Json>, Option<String>),
}

fn yaml(content: &str) -> Result<Vec<Json>, String> {
    let (mut documents, mut open, mut count) = (Vec::new(), Vec::<Open>::new(), 0_usize);
    for event in Parser::new_from_str(content) {
        let (event, span) = event.map_err(|e| text::shorten(&text::escape(&format!("YAML: {e}")), 300))?;
        let wrong = |what: &str| Err(format!("YAML: line {}: {what}", span.start.line()));
        count += 1;
        if count > MAX_VALUES || open.len() > MAX_DEPTH {
            return wrong("too many values, or too deep");
        }
        let (anchor, tag) = match &event {
            Event::Alias(_) => return wrong("an alias"),
            Event::Scalar(_, _, anchor, tag) | Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => {
                (*anchor, tag.is_some())
            }
            _ => (0, false),
        };
        if anchor != 0 || tag {
            return wrong("an anchor or a tag");
        }
        let value = match event {
            Event::SequenceStart(..) => {
                open.push(Open::List(Vec::new()));
                continue;
            }
            Event::MappingStart(..) => {
                open.push(Open::Object(BTreeMap::new(), None));
                continue;
            }
            Event::Scalar(scalar, style, ..) => {
                if let Some(Open::Object(known, key @ None)) = open.last_mut() {
                    if scalar == "<<" || known.contains_key(&*scalar) {
                        return wrong(&format!("the key \"{}\" is a merge or stands twice", text::show(&scalar)));
                    }
                    *key = Some(scalar.into_owned());
                    continue;
                }
                typed(&scalar, style)
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(items)) => Json::Array(items),
                Some(Open::Object(members, None)) => Json::Object(members),
                _ => return wrong("it ends too early"),
            },
            _ => continue,
        };
        match open.last_mut() {
            None => documents.push(value),
            Some(Open::List(items)) => items.push(value),
            Some(Open::Object(members, key)) => match key.take() {
                Some(key) => {
                    members.insert(key, value);
                }
                None => return wrong("a key that is no text"),
            },
        }
    }
    Ok(documents)
}

/// Numbers only in the one form that every reader takes for the same.
fn typed(scalar: &str, style: ScalarStyle) -> Json {
    if style != ScalarStyle::Plain {
        return Json::Text(scalar.to_owned());
    }
    match scalar {
        "" | "~" | "null" => Json::Null,
        "true" => Json::Bool(true),
        "false" => Json::Bool(false),
        _ => match scalar.parse::<i64>() {
            Ok(number) if number.to_string() == scalar => Json::Integer(number),
            _ => Json::Text(scalar.to_owned()),
        },
    }
}

/// The members of an object; every name must be one of `known`.
pub(crate) fn members<'a>(value: &'a Json, at: &str, known: &[&str]) -> Result<&'a BTreeMap<String, Json>, String> {
    let Json::Object(members) = value else { return Err(format!("{at}: not an object")) };
    match members.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(format!("{at}: unknown key \"{}\"", text::show(name))),
        None => Ok(members),
    }
}

/// The list of that name; absent or null is empty.
pub(crate) fn list<'a>(value: &'a Json, name: &str) -> Result<&'a [Json], String> {
    match value.get(name) {
        None | Some(Json::Null) => Ok(&[]),
        Some(Json::Array(items)) => Ok(items),
        Some(_) => Err(format!("`{name}` is no list")),
    }
}

/// The text of that name; absent or null is none.
pub(crate) fn text_of<'a>(value: &'a Json, name: &str) -> Result<Option<&'a str>, String> {
    match value.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::Text(text)) => Ok(Some(text)),
        Some(_) => Err(format!("`{name}` is no text")),
    }
}

/// Something is said there: neither absent, null, false nor empty.
pub(crate) fn says(value: &Json, name: &str) -> bool {
    match value.get(name) {
        None | Some(Json::Null | Json::Bool(false)) => false,
        Some(Json::Text(text)) => !text.is_empty(),
        Some(Json::Array(items)) => !items.is_empty(),
        Some(Json::Object(members)) => !members.is_empty(),
        Some(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_and_json_are_the_same_values() {
        let yaml = "a: 1\nb: [x, \"1\", null, true]\nc:\n  d: |\n    line\n    two\n";
        let json = r#"{"a":1,"b":["x","1",null,true],"c":{"d":"line\ntwo\n"}}"#;
        assert_eq!(read(yaml.as_bytes()).unwrap(), read(json.as_bytes()).unwrap());
        assert_eq!(read(b"---\na: 1\n---\nb: 2\n").unwrap().len(), 2);
        // A number that readers differ on stays a text.
        assert_eq!(read(b"a: 010").unwrap()[0].get("a"), Some(&Json::Text("010".into())));
    }

    #[test]
    fn what_has_two_readings_is_refused() {
        let deep = "[".repeat(100);
        let many = format!("a: [{}]", "1, ".repeat(MAX_VALUES));
        for (bad, says) in [
            ("a: 1\na: 2", "stands twice"),
            ("{\"a\": 1, \"a\": 2}", "twice"),
            ("a: &x 1\nb: *x", "an anchor"),
            ("a: *x", "YAML"),
            ("a: !!str 1", "a tag"),
            ("<<: {a: 1}", "a merge"),
            ("[1]: 2", "a key that is no text"),
            ("{\"a\": 1} x", "JSON"),
            ("a: [", "YAML"),
            (deep.as_str(), "YAML"),
            (many.as_str(), "too many"),
            ("a: \"\u{0}\"", ""),
        ] {
            let said = read(bad.as_bytes()).err();
            assert!(says.is_empty() || said.as_deref().is_some_and(|e| e.contains(says)), "{bad:.40} {said:?}");
        }
        assert!(read(&[b' '; MAX_FILE + 1]).unwrap_err().contains("larger"));
        assert!(read(b"\xff").unwrap_err().contains("UTF-8"));
    }
}
