//! The OCI spec, the Process of an exec and the resources of an update: bounded bytes, parsed once.
//!
//! Each parse is pure and total over its bytes (fuzzed). Errors are for a request that nobody can understand; what is
//! understood but not carried over is listed in `foreign_fields` and BS-PRC-008 rules on it.
use crate::file::{self, Owner};
use crate::json;
use crate::spec_table::{self, Shape};
use oci_spec::runtime::{LinuxResources, Process, Spec};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::Path;

/// Bytes of the largest spec, Process or resources.
pub const MAX: usize = 1 << 20;

#[derive(Debug, Clone, PartialEq)]
pub struct ParsedSpec {
    pub spec: Spec,
    /// JSON paths of what is outside the sealed set.
    pub foreign_fields: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedProcess {
    pub process: Process,
    pub foreign_fields: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedResources {
    pub resources: LinuxResources,
    pub foreign_fields: Vec<String>,
}

impl ParsedSpec {
    /// The spec's annotations: text, evidence of nothing.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.spec.annotations().as_ref()?.get(name).map(String::as_str)
    }
}

/// Reads `config.json` of the bundle, once: a regular file, no link, at most [`MAX`] bytes.
///
/// # Errors
/// One line that names the file, the fact and the fix.
pub fn read_config(bundle: &Path) -> Result<Vec<u8>, String> {
    let cap = u64::try_from(MAX).unwrap_or(u64::MAX);
    let path = bundle.join("config.json");
    file::read(&path, cap, Owner::Any).map(|(bytes, _)| bytes).map_err(|mut problem| {
        if problem.fact.contains("larger") {
            problem.fix = "shorten the pod's annotations, arguments or environment".into();
        }
        problem.to_string()
    })
}

/// Parses a spec. `process`, `root` and `linux` must be there; `ociVersion` is 1.0 to 1.3.
///
/// # Errors
/// What is wrong, one line: too large, no JSON, a doubled key, a wrong type, an unknown name, a missing section.
pub fn parse(bytes: &[u8]) -> Result<ParsedSpec, String> {
    let value = value(bytes, "config.json")?;
    for section in ["process", "root", "linux"] {
        if !value.get(section).is_some_and(Value::is_object) {
            return Err(format!("config.json has no `{section}`"));
        }
    }
    let version = value.get("ociVersion").and_then(Value::as_str).unwrap_or_default();
    if !is_known_version(version) {
        return Err(format!("config.json is of ociVersion {version:?}; 1.0 to 1.3 are understood"));
    }
    let (spec, mut foreign_fields): (Spec, _) = typed(value, &spec_table::SPEC, "config.json")?;
    if let Some(resources) = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref()) {
        pages(resources, "linux.resources.", &mut foreign_fields);
    }
    Ok(ParsedSpec { spec, foreign_fields })
}

/// Parses the Process of an exec.
///
/// # Errors
/// As [`parse`].
pub fn parse_process(bytes: &[u8]) -> Result<ParsedProcess, String> {
    let (process, foreign_fields) = typed(value(bytes, "the process")?, &spec_table::PROCESS, "the process")?;
    Ok(ParsedProcess { process, foreign_fields })
}

/// Parses the resources of an update.
///
/// # Errors
/// As [`parse`].
pub fn parse_resources(bytes: &[u8]) -> Result<ParsedResources, String> {
    let (resources, mut foreign_fields) = typed(value(bytes, "the update")?, &spec_table::RESOURCES, "the update")?;
    pages(&resources, "", &mut foreign_fields);
    Ok(ParsedResources { resources, foreign_fields })
}

/// A limit for pages of no size: oci-spec reads an empty one where none is named, and it becomes part of a file name.
fn pages(resources: &LinuxResources, at: &str, foreign: &mut Vec<String>) {
    for (index, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
        let path = format!("{at}hugepageLimits[{index}].pageSize");
        if limit.page_size().is_empty() && !foreign.contains(&path) {
            foreign.push(path);
        }
    }
}

fn value(bytes: &[u8], what: &str) -> Result<Value, String> {
    let value = json::parse(bytes, MAX).map_err(|e| format!("{what} cannot be read: {e}"))?;
    if !value.is_object() {
        return Err(format!("{what} is no JSON object"));
    }
    match zero_byte(&value) {
        Some(at) => Err(format!("{what} holds a zero byte in {at:?}")),
        None => Ok(value),
    }
}

fn typed<T: DeserializeOwned>(value: Value, shape: &Shape, what: &str) -> Result<(T, Vec<String>), String> {
    let foreign = spec_table::foreign(&value, shape, "");
    let typed = serde_json::from_value(value).map_err(|e| format!("{what} cannot be understood: {e}"))?;
    Ok((typed, foreign))
}

/// A string that the kernel would read only half of.
fn zero_byte(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => text.contains('\0').then_some(text),
        Value::Array(items) => items.iter().find_map(zero_byte),
        Value::Object(members) => members
            .iter()
            .find_map(|(key, member)| if key.contains('\0') { Some(key.as_str()) } else { zero_byte(member) }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

fn is_known_version(version: &str) -> bool {
    let number = version.split(['-', '+']).next().unwrap_or_default();
    let mut parts = number.split('.');
    let known = parts.next() == Some("1") && matches!(parts.next(), Some("0" | "1" | "2" | "3"));
    let patch = parts.next().is_some_and(|p| !p.is_empty() && p.len() <= 4 && p.bytes().all(|b| b.is_ascii_digit()));
    known && patch && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str =
        r#"{"ociVersion":"1.0.2-dev","process":{"user":{},"cwd":"/"},"root":{"path":"rootfs"},"linux":{}}"#;

    fn refused(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn the_least_spec() {
        let found = parse(LEAST.as_bytes()).unwrap();
        assert!(found.foreign_fields.is_empty());
        assert!(found.spec.process().is_some());
    }

    #[test]
    fn versions() {
        for good in ["1.0.0", "1.0.2-dev", "1.1.0", "1.2.1", "1.3.0", "1.1.0+dev"] {
            assert!(is_known_version(good), "{good}");
        }
        for bad in ["", "1", "1.4.0", "2.0.0", "1.0", "1.0.x", "1.0.0.0", "01.0.0", "1.0.-dev"] {
            assert!(!is_known_version(bad), "{bad}");
        }
    }

    #[test]
    fn each_way_to_be_malformed_says_which() {
        assert!(refused("").contains("EOF"));
        assert!(refused(&LEAST[..LEAST.len() - 20]).contains("EOF"));
        assert!(refused("[]").contains("no JSON object"));
        assert!(refused(&LEAST.replace("\"root\"", "\"Root\"")).contains("no `root`"));
        assert!(refused(&LEAST.replace("\"linux\":{}", "\"linux\":null")).contains("no `linux`"));
        assert!(refused(&LEAST.replace("1.0.2-dev", "3.0.0")).contains("3.0.0"));
        assert!(refused(&LEAST.replace("\"linux\":{}", "\"linux\":{},\"linux\":{}")).contains("twice"));
        assert!(refused(&LEAST.replace("\"cwd\":\"/\"", "\"cwd\":\"/a\\u0000b\"")).contains("zero byte"));
        assert!(refused(&LEAST.replace("\"cwd\":\"/\"", "\"cwd\":7")).contains("understood"));
        let cap = LEAST.replace("\"cwd\"", "\"capabilities\":{\"bounding\":[\"CAP_ROOT\"]},\"cwd\"");
        assert!(refused(&cap).contains("CAP_ROOT"));
    }

    #[test]
    fn a_spec_larger_than_the_cap_is_refused_by_its_size() {
        let big = LEAST.replacen('{', &format!("{{\"annotations\":{{\"a\":\"{}\"}},", "x".repeat(10 << 20)), 1);
        assert!(refused(&big).contains("more than the 1048576"));
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), &big).unwrap();
        let error = read_config(dir.path()).unwrap_err();
        assert!(error.contains("larger than 1048576") && error.contains("annotations"), "{error}");
    }

    #[test]
    fn the_config_is_a_file_and_no_link() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read_config(dir.path()).unwrap_err().contains("does not exist"));
        std::fs::write(dir.path().join("real"), LEAST).unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("config.json")).unwrap();
        assert!(read_config(dir.path()).unwrap_err().contains("symbolic link"));
        std::fs::remove_file(dir.path().join("config.json")).unwrap();
        std::fs::write(dir.path().join("config.json"), LEAST).unwrap();
        assert_eq!(read_config(dir.path()).unwrap(), LEAST.as_bytes());
    }

    #[test]
    fn process_and_resources_take_the_same_way() {
        let p = parse_process(br#"{"user":{"uid":7},"args":["sh"],"cwd":"/","scheduler":{"policy":"SCHED_FIFO"}}"#)
            .unwrap();
        assert_eq!((p.process.user().uid(), p.foreign_fields.as_slice()), (7, ["scheduler".to_owned()].as_slice()));
        assert!(parse_process(br#"{"user":{},"user":{},"cwd":"/"}"#).is_err());
        let r = parse_resources(br#"{"memory":{"limit":1},"unified":{"a":"b"},"new":1}"#).unwrap();
        assert_eq!(r.foreign_fields, ["new", "unified.a"]);
        for size in ["", r#","pageSize":"""#] {
            let limits = format!(r#"{{"hugepageLimits":[{{"limit":1,"pageSize":"2MB"}},{{"limit":1{size}}}]}}"#);
            let foreign = parse_resources(limits.as_bytes()).unwrap().foreign_fields;
            assert_eq!(foreign, ["hugepageLimits[1].pageSize"], "{size}");
            let spec = LEAST.replace("\"linux\":{}", &format!("\"linux\":{{\"resources\":{limits}}}"));
            let foreign = parse(spec.as_bytes()).unwrap().foreign_fields;
            assert_eq!(foreign, ["linux.resources.hugepageLimits[1].pageSize"], "{size}");
        }
        assert!(parse_resources(b"null").is_err());
    }
}
