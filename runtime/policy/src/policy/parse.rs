//! Policy files into one [`Policy`].
//!
//! How `policy.d` joins `policy.toml`, in the order of the file names: lists append, tables join key by key, and a single
//! value may be set by one file only: two files that set it to different values are an error that names both. So no
//! drop-in overrides silently, and reading any one file tells the truth about what it sets. `version`, `level` and
//! `signed_at` belong to `policy.toml` alone.
use super::Policy;
use crate::{standard, text};
use std::collections::BTreeMap;
use toml::{Table, Value};

/// Keys that only the main file may set.
const MAIN_ONLY: [&str; 3] = ["version", "level", "signed_at"];

impl Policy {
    /// Reads `policy.toml` (its text in `main`) and the drop-ins (file name, text), in order, and validates the result.
    ///
    /// # Errors
    /// Every problem found, one line each, beginning with the file's name where one file is to blame. Nothing partial
    /// is returned: a policy with a problem is no policy.
    pub fn parse(main: &str, drop_ins: &[(&str, &str)]) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let mut merged = Table::new();
        let mut setters = BTreeMap::new();
        let files = std::iter::once(("policy.toml", main)).chain(drop_ins.iter().copied());
        for (at, (name, content)) in files.enumerate() {
            match read(name, content, at == 0) {
                Ok(table) => merge(&mut merged, table, name, "", &mut setters, &mut problems),
                Err(mut found) => problems.append(&mut found),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut policy: Self = merged.try_into().map_err(|e| vec![line("policy", &e)])?;
        policy.mounts.sensitive.extend(standard::SENSITIVE.iter().map(ToString::to_string));
        policy.mounts.sensitive.sort();
        policy.mounts.sensitive.dedup();
        let problems = policy.validate();
        if problems.is_empty() { Ok(policy) } else { Err(problems) }
    }
}

/// One file by itself: syntax, types and unknown keys, so that the error names the file.
fn read(name: &str, content: &str, is_main: bool) -> Result<Table, Vec<String>> {
    let table: Table = content.parse().map_err(|e| vec![line(name, &e)])?;
    let typed: Result<Policy, _> = toml::from_str(content);
    typed.map_err(|e| vec![line(name, &e)])?;
    if is_main {
        return Ok(table);
    }
    let found: Vec<String> = MAIN_ONLY
        .iter()
        .filter(|key| table.contains_key(**key))
        .map(|key| format!("{name}: `{key}` belongs to policy.toml alone"))
        .collect();
    if found.is_empty() { Ok(table) } else { Err(found) }
}

/// toml's message has many lines, with the source below a position: ours is one.
fn line(name: &str, error: &toml::de::Error) -> String {
    let shown = error.to_string();
    let mut lines = shown.lines().map(str::trim).filter(|l| !l.is_empty());
    let first = lines.next().unwrap_or("unreadable");
    let place = first.strip_prefix("TOML parse error at ").map(str::to_owned);
    match place {
        Some(place) => format!("{name}: {place}: {}", text::shorten(&text::escape(error.message()), 300)),
        None => format!("{name}: {}", text::shorten(&text::escape(error.message()), 300)),
    }
}

fn merge(
    into: &mut Table,
    from: Table,
    file: &str,
    path: &str,
    setters: &mut BTreeMap<String, String>,
    problems: &mut Vec<String>,
) {
    for (key, value) in from {
        let here = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new, file, &here, setters, problems),
            (Some(Value::Array(old)), Value::Array(mut new)) => old.append(&mut new),
            (Some(old), new) => {
                if *old != new {
                    let other = setters.get(&here).map_or("policy.toml", String::as_str);
                    problems.push(format!("{file}: `{here}` is already set by {other} to another value"));
                }
            }
            (None, Value::Table(new)) => {
                let mut table = Table::new();
                merge(&mut table, new, file, &here, setters, problems);
                into.insert(key, Value::Table(table));
            }
            (None, new) => {
                setters.insert(here, file.to_owned());
                into.insert(key, new);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Level, Mode};

    #[test]
    fn the_least_policy_has_the_defaults() {
        let mut expected = Policy::default();
        expected.mounts.sensitive.sort();
        assert_eq!(Policy::parse("version = 1", &[]).unwrap(), expected);
    }

    #[test]
    fn an_unknown_key_names_file_and_key() {
        let e = Policy::parse("version = 1\n[process]\ncapabilites = []", &[]).unwrap_err();
        assert!(e[0].starts_with("policy.toml: line 3, column 1: unknown field `capabilites`"), "{e:?}");
        let e = Policy::parse("version = 1", &[("20-x.toml", "colour = 1")]).unwrap_err();
        assert!(e[0].starts_with("20-x.toml: line 1, column 1: unknown field `colour`"), "{e:?}");
        assert_eq!(e.len(), 1);
        assert!(!e[0].contains('\n'));
    }

    #[test]
    fn broken_text_is_an_error_of_one_line() {
        for bad in [
            "version = ",
            "version = 1\nversion = 1",
            "level = \"lax\"",
            "\u{0}",
            "version = 2",
            "",
            "level = \"strict\"",
        ] {
            let e = Policy::parse(bad, &[]).unwrap_err();
            assert!(e.iter().all(|l| l.starts_with("policy.toml") && !l.contains('\n')), "{bad:?} {e:?}");
        }
    }

    #[test]
    fn lists_append_and_tables_join() {
        let main = "version = 1\n[registries]\nallow = [\"ghcr.io\"]\n[node.pcrs]\n7 = [\"".to_owned()
            + &"a".repeat(64)
            + "\"]\n[modes]\nBS-DEV-001 = \"warn\"";
        let extra = "[registries]\nallow = [\"quay.io\"]\n[node.pcrs]\n7 = [\"".to_owned()
            + &"b".repeat(64)
            + "\"]\n[modes]\nBS-OWN-001 = \"warn\"";
        let p = Policy::parse(&main, &[("a.toml", &extra)]).unwrap();
        assert_eq!(p.registries.allow, ["ghcr.io", "quay.io"]);
        assert_eq!(p.node.pcrs["7"].len(), 2);
        assert_eq!(p.modes.values().collect::<Vec<_>>(), [&Mode::Warn, &Mode::Warn]);
    }

    #[test]
    fn no_file_overrides_another() {
        let e = Policy::parse("version = 1\n[limits]\npids = 5", &[("a.toml", "[limits]\npids = 6")]).unwrap_err();
        assert_eq!(e, ["a.toml: `limits.pids` is already set by policy.toml to another value"]);
        let e = Policy::parse("version = 1", &[("a.toml", "[limits]\npids = 7"), ("b.toml", "[limits]\npids = 6")])
            .unwrap_err();
        assert_eq!(e, ["b.toml: `limits.pids` is already set by a.toml to another value"]);
        let p = Policy::parse("version = 1\n[limits]\npids = 5", &[("a.toml", "[limits]\npids = 5\nmemory = 1048576")])
            .unwrap();
        assert_eq!((p.limits.pids, p.limits.memory), (5, 1 << 20));
    }

    #[test]
    fn the_level_belongs_to_the_main_file() {
        for key in ["version = 1", "level = \"observe\"", "signed_at = 1"] {
            let e = Policy::parse("version = 1", &[("a.toml", key)]).unwrap_err();
            assert!(e[0].ends_with("belongs to policy.toml alone"), "{e:?}");
        }
        assert_eq!(Policy::parse("version = 1\nlevel = \"strict\"", &[]).unwrap().level, Level::Strict);
    }

    #[test]
    fn the_sensitive_list_only_grows() {
        let p = Policy::parse("version = 1\n[mounts]\nsensitive = [\"/data/secret\"]", &[]).unwrap();
        assert!(p.mounts.sensitive.iter().any(|s| s == "/data/secret"));
        assert!(standard::SENSITIVE.iter().all(|s| p.mounts.sensitive.iter().any(|m| m == s)));
    }
}
