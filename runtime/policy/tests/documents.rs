//! The shipped policies are policies, and policy.md tells of every key, its table and its default, and of no other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
use boltseal_policy::policy::{Level, Policy};
use std::collections::{BTreeMap, BTreeSet};
use toml::Value;

const DEFAULT: &str = include_str!("../../../profiles/policy/default.toml");
const BASELINE: &str = include_str!("../../../profiles/policy/baseline.toml");
const RESTRICTED: &str = include_str!("../../../profiles/policy/restricted.toml");
const STRICT: &str = include_str!("../../../profiles/policy/strict.toml");
const DOCUMENT: &str = include_str!("../../../integration/docs/policy.md");

/// One of every table, or several, every key set.
const EVERYTHING: &str = r#"
version = 1
[[authority]]
name = "ci"
format = "notation"
roots = "ca.pem"
identities = ["CN=ci"]
signing_authority = true
repositories = ["a.io"]
from = "2026-01-01"
until = "2027-01-01"
min_signing_time = "2026-01-01"
[[authority]]
name = "person"
format = "keyless"
trusted_root = "root.json"
identities = ["a@b"]
issuers = ["https://i"]
log = true
sct = true
repositories = ["a.io"]
[[authority]]
name = "scanner"
key = "scanner.pub"
repositories = ["a.io"]
[[scope]]
repository = "a.io"
authorities = ["ci"]
level = "strict"
bind = ["8080"]
connect = ["*:443"]
programs = ["/app"]
bases = ["d"]
integrity = "unpacked"
[scope.age]
max_days = 1
[scope.vulnerabilities]
max_days = 1
max_severity = "low"
authorities = ["scanner"]
[scope.sbom]
authorities = ["scanner"]
[scope.provenance]
authorities = ["scanner"]
builders = ["*"]
[scope.secrets]
[image.age]
max_days = 1
[image.vulnerabilities]
max_days = 1
max_severity = "low"
authorities = ["scanner"]
except = [{ id = "CVE-1", owner = "a", reason = "b", expires = "2027-01-01" }]
[image.sbom]
authorities = ["scanner"]
[image.provenance]
authorities = ["scanner"]
builders = ["*"]
build_types = ["*"]
[image.secrets]
[[image.base]]
name = "d"
diff_ids = ["sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]
[[allowance]]
id = "x"
authority = "ci"
repository = "a.io"
mounts = [{ source = "/opt/a", writable = true, idmap = true }]
hooks = [{ stage = "prestart", path = "/opt/h", digest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", args = ["h"] }]
[node]
attestation_key = "ak.pem"
cap = 14
[node.log]
images = ["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]
certificates = ["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]
secure_boot = true
files = ["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]
command_line_never = ["init="]
[node.ear]
jwks = "ear.jwks"
issuer = "https://verifier"
audience = "node"
ak_claim = "/ak"
[break_glass]
keys = ["b1.pub", "b2.pub"]
need = 2
max_hours = 4
[owner]
level = "pod-token"
[owner.token]
jwks = "cluster.jwks"
issuer = "https://cluster"
audience = "boltseal"
[[exception]]
rule = "BS-DEV-001"
condition = "device"
scope = "*"
owner = "a"
reason = "b"
expires = "2027-01-01"
"#;

/// What an owner may be proven by, where it is no token.
const GRANTED: &str = r#"
version = 1
[[authority]]
name = "ci"
key = "ci.pub"
repositories = ["a.io"]
[owner]
level = "grant"
[owner.grant]
audiences = ["prod"]
max_days = 30
[[owner.grant.authority]]
name = "people"
key = "people.pub"
issuer = "https://people"
identities = ["a@b"]
namespaces = ["team"]
amr = ["mfa"]
acr = ["high"]
from = "2026-01-01"
until = "2027-01-01"
[[owner.grant.authority]]
name = "idp"
jwks = "idp.jwks"
issuer = "https://idp"
identities = ["a@b"]
namespaces = ["team"]
[[owner.system]]
id = "cni"
owner = "ops@corp"
namespace = "kube-system"
authority = "ci"
repository = "a.io"
[[owner.system]]
id = "dns"
owner = "ops@corp"
namespace = "kube-system"
digests = ["sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]
"#;

/// Rows `| key | default |` of the document by section.
fn documented() -> BTreeMap<String, BTreeMap<String, String>> {
    let mut out: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut section = String::new();
    for line in DOCUMENT.lines() {
        if let Some(title) = line.strip_prefix("## ").or_else(|| line.strip_prefix("### ")) {
            section = title.trim_matches(['[', ']']).replace("Top level", "");
        } else if let Some(row) = line.strip_prefix("| `") {
            let (key, rest) = row.split_once('`').unwrap();
            let default = rest.trim_start_matches(" | ").split(" | ").next().unwrap();
            out.entry(section.clone()).or_default().insert(key.into(), default.into());
        }
    }
    out
}

/// Keys of the typed policy by table; a table of free keys (modes, pcrs) is a key, and so is a scope's own of `[image]`.
fn keys(value: &Value, path: &str, out: &mut BTreeMap<String, BTreeSet<String>>) {
    for (key, value) in value.as_table().unwrap() {
        let here = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match value {
            Value::Table(_) if !["modes", "pcrs"].contains(&key.as_str()) && path != "scope" => keys(value, &here, out),
            // An empty list of tables, which the other policy has.
            Value::Array(items) if items.is_empty() && path.is_empty() => {}
            Value::Array(items) if items.first().is_some_and(Value::is_table) => {
                if !path.is_empty() {
                    out.entry(path.to_owned()).or_default().insert(key.clone());
                }
                items.iter().for_each(|item| keys(item, &here, out));
            }
            _ => {
                out.entry(path.to_owned()).or_default().insert(key.clone());
            }
        }
    }
}

#[test]
fn the_document_names_every_key_and_no_other() {
    let mut typed = BTreeMap::new();
    for text in [EVERYTHING, GRANTED] {
        keys(&Value::try_from(Policy::parse(text, &[]).unwrap()).unwrap(), "", &mut typed);
    }
    let documented: BTreeMap<String, BTreeSet<String>> =
        documented().into_iter().map(|(s, rows)| (s, rows.into_keys().collect())).collect();
    assert_eq!(typed, documented);
}

#[test]
fn the_document_names_the_defaults() {
    let defaults = Value::try_from(Policy::default()).unwrap();
    for (section, rows) in documented() {
        let Some(table) =
            (if section.is_empty() { Some(&defaults) } else { defaults.get(&section) }).filter(|t| t.is_table())
        else {
            continue;
        };
        for (key, said) in rows {
            // An option that is not set is no key of the default policy; the test above knows all keys.
            let Some(value) = table.get(&key) else {
                assert_eq!(said, "none", "[{section}] {key}");
                continue;
            };
            let expected = match value {
                Value::String(s) => format!("`\"{s}\"`"),
                Value::Integer(_) if key == "version" => "must be 1".into(),
                Value::Integer(n) => format!("`{n}`"),
                Value::Boolean(yes) => format!("`{yes}`"),
                Value::Array(a) if a.is_empty() => "none".into(),
                Value::Array(a) if a.len() < 4 => {
                    a.iter().map(|v| format!("`\"{}\"`", v.as_str().unwrap())).collect::<Vec<_>>().join(", ")
                }
                Value::Array(a) if key == "sysctls" => format!("the {} that Kubernetes calls safe", a.len()),
                Value::Array(_) => "built-in list".into(),
                Value::Table(t) if t.is_empty() => "none".into(),
                other => panic!("{other:?}"),
            };
            assert_eq!(said, expected, "[{section}] {key}");
        }
    }
}

#[test]
fn the_shipped_policies_are_policies() {
    for (text, level) in [
        (DEFAULT, Level::Restricted),
        (BASELINE, Level::Baseline),
        (RESTRICTED, Level::Restricted),
        (STRICT, Level::Strict),
    ] {
        let policy = Policy::parse(text, &[]).unwrap();
        assert_eq!(policy.level, level);
        assert!(policy.exceptions.is_empty() && policy.allowances.is_empty() && policy.modes.is_empty());
        assert!(policy.authorities.is_empty() && policy.owner.patterns.is_empty(), "nobody is trusted unasked");
    }
    let mut expected = Policy::default();
    expected.mounts.sensitive.sort();
    assert_eq!(Policy::parse(DEFAULT, &[]).unwrap(), expected);
    assert_eq!(Policy::parse(RESTRICTED, &[]).unwrap(), expected);
}

/// What default.toml shows in comments works when the comment signs are taken off.
#[test]
fn the_examples_of_the_default_policy_work() {
    let digest = format!("sha256:{}", "a".repeat(64));
    let text: String = DEFAULT
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.trim_start().starts_with(['[', '"']) || rest.contains(" = ") => {
                rest.replace("sha256:...", &digest).replace("<64 hex digits>", &"b".repeat(64))
            }
            Some(_) => String::new(),
            None => line.to_owned(),
        })
        .collect::<Vec<_>>()
        .join("\n");
    let policy = Policy::parse(&text, &[]).unwrap();
    assert_eq!(
        (policy.authorities.len(), policy.scopes.len(), policy.allowances.len(), policy.exceptions.len()),
        (1, 1, 1, 1)
    );
    assert_eq!(
        (
            policy.registries.allow.len(),
            policy.sandbox.digests.len(),
            policy.owner.patterns.len(),
            policy.node.pcrs.len(),
            policy.modes.len()
        ),
        (1, 1, 1, 1, 1)
    );
}
