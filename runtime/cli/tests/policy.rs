//! `boltseal policy lint`, `check` and `explain` as processes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod common;

use common::Node;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

/// A P-256 key that nobody holds the private half of.
const KEY: &str = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAECso41uFyDhrsAqsiAMD5soETZ/9k\nLMSnoZS666Vh8HkZQpO9y3BCdFbjQzTGAJfsmi+OyyyLQxFNxZecRwi0vg==\n-----END PUBLIC KEY-----\n";

/// P-384, one bit off.
const OFF_P384: &str = "-----BEGIN PUBLIC KEY-----\nMHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE71sdJoOs1c9iRK4bpGeqxBye0PWfxFWm\n9tmZFMAUqTo9CqTOjv3NHub+yeKtfG2OaxkShoMHhfRS12KNrtaBCcsk2ultGhZn\nT03v77kcC9ykuVKtP5giOBJbbXOcs4dR\n-----END PUBLIC KEY-----\n";

/// RSA, 1024 bits.
const WEAK: &str = "-----BEGIN PUBLIC KEY-----\nMIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC6pWDIFfcGijMV19zN8wJq0ow8\nwON1iVLNhOtEOzkIuPu0b0VRjnU1pEXL/msRoQf3RsE6OLfSiGL5F/4Ob4cLTfXY\nmM+oYDCbQhfNCXHKkeKCT22noP8fwotLyUabWEp5QapoIPg467tgR7M1Ibxd4aHr\nVJK8CNo5yUMj/0/U7QIDAQAB\n-----END PUBLIC KEY-----\n";

const ED25519: &str = include_str!("../../trust/tests/fixtures/algorithms/ed25519.pub");

const POLICY: &str = r#"version = 1
level = "baseline"
[registries]
allow = ["registry.test"]
[owner]
patterns = ["team-*"]
[[authority]]
name = "ci"
key = "ci.pem"
repositories = ["registry.test/shop"]
[[scope]]
repository = "registry.test/shop"
authorities = ["ci"]
[modes]
BS-PRC-003 = "enforce"
[[exception]]
rule = "BS-NOD-001"
condition = "no-tpm"
scope = "*"
owner = "ops"
reason = "a lab"
expires = "2099-01-01"
[[exception]]
rule = "BS-DEV-001"
condition = "not-enforced"
scope = "*"
owner = "ops"
reason = "a lab"
expires = "2099-01-01"
[[exception]]
rule = "BS-MAC-001"
condition = "no-lsm"
scope = "*"
owner = "ops"
reason = "a lab"
expires = "2099-01-01"
"#;

fn node() -> Node {
    let node = Node::new();
    node.write("etc/boltseal/policy.toml", POLICY);
    node.write("etc/boltseal/trust/ci.pem", KEY);
    node
}

/// What containerd would hand over for a plain pod's container, and one edit of it.
fn bundle(node: &Node, edit: impl FnOnce(&mut serde_json::Value)) -> String {
    let mut spec: serde_json::Value = serde_json::from_str(include_str!("config.json")).unwrap();
    edit(&mut spec);
    node.write("bundle/config.json", &spec.to_string());
    node.path("bundle").display().to_string()
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn a_good_policy_is_good_and_says_what_the_node_lacks() {
    let node = node();
    let (code, out, err) = node.run(&["policy", "lint", "-o", "json"]);
    assert_eq!(err, "");
    let report = json(&out);
    assert_eq!(
        (&report["ok"], &report["level"], &report["hints"]),
        (&true.into(), &"baseline".into(), &serde_json::json!([]))
    );
    let fails = report["node"].as_array().unwrap().iter().filter(|c| c["state"] == "fail").count();
    assert_eq!(code, i32::from(fails > 0), "{out}");
    // What the exceptions cover is a warning, and says until when.
    let (table_code, out, _) = node.run(&["policy", "lint"]);
    assert_eq!(table_code, code);
    assert!(out.contains("BS-MAC-001 (no-lsm) is excepted for * until 2099-01-01: a lab (ops)"), "{out}");
    assert!(out.contains("BS-PRC-003 is set to enforce"), "{out}");
}

#[test]
fn a_bad_policy_is_4_everywhere_and_names_file_and_key() {
    type Fault = fn(&Node);
    let faults: [(&str, &str, Fault); 10] = [
        ("policy.d/20-x.toml", "unknown field `colour`", |n| n.write("etc/boltseal/policy.d/20-x.toml", "colour = 1")),
        ("policy.toml", "expected", |n| n.write("etc/boltseal/policy.toml", "version = ")),
        ("trust/ci.pem", "not one PEM block", |n| n.write("etc/boltseal/trust/ci.pem", "key")),
        ("trust/ci.pem", "RSA of fewer than 2048 bits", |n| n.write("etc/boltseal/trust/ci.pem", WEAK)),
        // The last byte of y changed: the twin of the key that the policy has.
        ("trust/ci.pem", "not on its curve", |n| {
            n.write("etc/boltseal/trust/ci.pem", &KEY.replace("Rwi0vg==", "Rwi0vQ=="));
        }),
        ("trust/ci.pem", "not on its curve", |n| n.write("etc/boltseal/trust/ci.pem", OFF_P384)),
        ("trust/node.pem", "not a P-256 key", |n| {
            n.write("etc/boltseal/trust/node.pem", ED25519);
            n.write("etc/boltseal/policy.d/30-x.toml", "[node]\nattestation_key = \"node.pem\"\n");
        }),
        ("trust/ci.pem", "missing", |n| fs::remove_file(n.path("etc/boltseal/trust/ci.pem")).unwrap()),
        ("policy.toml", "does not exist", |n| fs::remove_file(n.path("etc/boltseal/policy.toml")).unwrap()),
        ("policy.toml", "", |n| {
            fs::set_permissions(n.path("etc/boltseal/policy.toml"), Permissions::from_mode(0o666)).unwrap();
        }),
    ];
    for (file, word, fault) in faults {
        let node = node();
        let bundle = bundle(&node, |_| ());
        fault(&node);
        for form in ["table", "json"] {
            let (code, out, _) = node.run(&["-o", form, "policy", "lint"]);
            assert_eq!(code, 4, "{out}");
            assert!(out.contains(file) && out.contains(word), "{file} {word}: {out}");
        }
        for args in [&["check", &bundle][..], &["node", "status"]] {
            let (code, out, err) = node.run(args);
            assert_eq!((code, out.as_str()), (4, ""), "{args:?}");
            assert!(err.contains(file) && err.contains(word), "{file} {word}: {err}");
        }
    }
}

/// Keys count, not names and not files.
#[test]
fn a_need_that_the_keys_cannot_meet_is_a_bad_policy() {
    for (second, reachable) in [(KEY, false), (ED25519, true)] {
        let node = node();
        let policy = POLICY.replace("authorities = [\"ci\"]", "authorities = [\"ci\", \"release\"]\nneed = 2");
        let release =
            "[[authority]]\nname = \"release\"\nkey = \"release.pem\"\nrepositories = [\"registry.test/shop\"]\n";
        node.write("etc/boltseal/policy.toml", &format!("{policy}{release}"));
        node.write("etc/boltseal/trust/release.pem", second);
        let (code, out, _) = node.run(&["policy", "lint", "-o", "json"]);
        let report = json(&out);
        assert_eq!((&report["ok"], code == 4), (&reachable.into(), !reachable), "{out}");
        let said = out.contains("`need` is 2, but its authorities have 1 key that may sign for it");
        assert_eq!(said, !reachable, "{out}");
    }
}

#[test]
fn an_authority_that_does_not_count_today_is_said() {
    for (dates, said) in [
        ("from = \"2020-01-01\"\nuntil = \"2099-01-01\"", None),
        ("from = \"2099-01-01\"", Some("counts from 2099-01-01 on, not yet")),
        ("until = \"2020-01-01\"", Some("counted until 2020-01-01: it is over")),
        ("min_signing_time = \"2020-01-01\"", Some("has a minimum signing time")),
    ] {
        let node = node();
        let policy = POLICY.replace("key = \"ci.pem\"", &format!("key = \"ci.pem\"\n{dates}"));
        node.write("etc/boltseal/policy.toml", &policy);
        let (_, out, _) = node.run(&["policy", "lint", "-o", "json"]);
        let report = json(&out);
        assert_eq!(report["ok"], true, "{out}");
        let hints = report["hints"].to_string();
        assert_eq!(hints.contains("authority"), said.is_some(), "{hints}");
        assert!(said.is_none_or(|text| hints.contains(text)), "{hints}");
    }
}

/// What import writes is a policy that lint takes; what it cannot say is told, and is a finding.
#[test]
fn an_imported_policy_passes_lint() {
    for (file, lost, scopes) in [("policy.json", true, 3), ("kyverno.yaml", true, 2), ("cluster.yaml", true, 2)] {
        let node = node();
        let seed = format!("{}/../../integration/fuzz/corpus/import_policy/{file}", env!("CARGO_MANIFEST_DIR"));
        let folder = node.path("imported").display().to_string();
        let (code, out, err) = node.run(&["policy", "import", &seed, "--write", &folder]);
        assert_eq!(code, i32::from(lost), "{file}: {err}");
        assert_eq!(out.matches("[[scope]]").count(), scopes, "{file}: {out}");
        assert!(out.contains("# trust/"), "{out}");
        let (_, report, _) = node.run(&["policy", "lint", &folder, "-o", "json"]);
        assert_eq!(json(&report)["ok"], true, "{file}: {report}");
        // Nothing is written over.
        let (code, _, err) = node.run(&["policy", "import", &seed, "--write", &folder]);
        assert_eq!(code, 3, "{err}");
        let (_, report, err) = node.run(&["policy", "import", &seed, "-o", "json"]);
        assert_eq!((&json(&report)["scopes"], err.as_str()), (&scopes.into(), ""));
    }
    let node = node();
    node.write("same.json", &format!(
        r#"{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{"ghcr.io/corp":[{{"type":"sigstoreSigned","keyPath":"{}"}}]}}}}}}"#,
        node.path("etc/boltseal/trust/ci.pem").display()
    ));
    let file = node.path("same.json").display().to_string();
    let (code, out, err) = node.run(&["policy", "import", &file]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    // A point off its curve would not pass lint: it is left out.
    node.write("etc/boltseal/trust/ci.pem", &KEY.replace("Rwi0vg==", "Rwi0vQ=="));
    let (code, out, err) = node.run(&["policy", "import", &file]);
    assert!(code == 1 && err.contains("not on its curve") && !out.contains("[[scope]]"), "{out}{err}");
    for (bad, code) in [("{}", 4), ("x: [", 4), ("{\"default\":[],\"default\":[]}", 4)] {
        node.write("bad", bad);
        let (got, out, err) = node.run(&["policy", "import", &node.path("bad").display().to_string()]);
        assert_eq!((got, out.as_str()), (code, ""), "{bad}: {err}");
    }
    assert_eq!(node.run(&["policy", "import", "/nonexistent"]).0, 3);
}

/// An authority's key of each kind; what cosign 3 does not sign with is said.
#[test]
fn keys_of_every_kind_are_good() {
    for (name, hint) in [("p384", false), ("rsa2048", false), ("rsa4096", false), ("ed25519", true)] {
        let node = node();
        let file = format!("{}/../trust/tests/fixtures/algorithms/{name}.pub", env!("CARGO_MANIFEST_DIR"));
        node.write("etc/boltseal/trust/ci.pem", &fs::read_to_string(file).unwrap());
        let (_, out, _) = node.run(&["policy", "lint", "-o", "json"]);
        let report = json(&out);
        assert_eq!(report["ok"], true, "{name}: {out}");
        assert_eq!(report["hints"].to_string().contains("cosign 2"), hint, "{name}: {out}");
    }
}

/// A policy that the gate of this build would refuse is told before it is applied.
#[test]
fn a_keyless_authority_needs_a_trusted_root_and_a_build_that_takes_it() {
    let root = include_str!("../../keyless/tests/data/public-good.json");
    let keyless = POLICY.replace(
        "key = \"ci.pem\"",
        "format = \"keyless\"\ntrusted_root = \"root.json\"\nidentities = [\"ci@corp.example\"]\nissuers = [\"https://i\"]",
    );
    let without = "built without `keyless`";
    for (file, policy, says) in [
        (Some(root), keyless.as_str(), None),
        (Some("{}"), keyless.as_str(), Some("mediaType")),
        (None, keyless.as_str(), Some("trust/root.json: is missing")),
        (Some(root), POLICY, None),
    ] {
        let node = node();
        node.write("etc/boltseal/policy.toml", policy);
        if let Some(file) = file {
            node.write("etc/boltseal/trust/root.json", file);
        }
        let (_, out, _) = node.run(&["policy", "lint"]);
        assert_eq!(out.contains(without), policy != POLICY && !cfg!(feature = "keyless"), "{out}");
        match says {
            Some(says) => assert!(out.contains(says), "{out}"),
            None => assert!(!out.contains("trust/root.json"), "{out}"),
        }
    }
}

#[test]
fn lint_of_another_folder() {
    let node = node();
    node.write("other/policy.toml", "version = 1\nlevel = \"observe\"\n");
    let (_, out, _) = node.run(&["policy", "lint", &node.path("other").display().to_string()]);
    assert!(out.contains("level observe enforces BS-AUD-001 alone"), "{out}");
    let (_, out, _) = node.shell("cd \"$D\"; exec \"$BIN\" policy lint other", &[]);
    assert!(out.contains("level observe enforces BS-AUD-001 alone"), "{out}");
    let (code, out, _) = node.run(&["policy", "lint", "/nonexistent"]);
    assert_eq!(code, 4, "{out}");
}

#[test]
fn check_decides_by_the_rules_of_a_start() {
    let node = node();
    let verdict = |path: &str, more: &[&str]| {
        let mut args = vec!["-o", "json", "check", path];
        args.extend(more);
        let (code, out, err) = node.run(&args);
        assert_eq!(err, "");
        (code, json(&out))
    };
    let denied = |report: &serde_json::Value| -> Vec<String> {
        let all = report["findings"].as_array().unwrap().iter().filter(|f| f["result"] == "deny");
        all.map(|f| f["rule"].as_str().unwrap().to_owned()).collect()
    };
    // Nothing known speaks against the plain one; what only a start can know stays unknown.
    let plain = bundle(&node, |_| ());
    let (code, report) = verdict(&plain, &[]);
    assert_eq!((code, &report["verdict"], denied(&report)), (3, &"undecided".into(), vec![]), "{report:#}");
    assert_eq!(report["counts"]["unknown"], 3, "{report:#}");
    // Each fault is found by its rule, and by that alone.
    type Edit = fn(&mut serde_json::Value);
    let faults: [(&str, Edit); 8] = [
        ("BS-PRC-003", |s| s["process"]["user"]["uid"] = 0.into()),
        ("BS-OWN-001", |s| s["annotations"]["boltseal.dev/owner"] = "someone".into()),
        ("BS-PRC-002", |s| s["process"]["capabilities"]["bounding"] = serde_json::json!(["CAP_SYS_ADMIN"])),
        ("BS-FSY-002", |s| {
            let mount =
                serde_json::json!({"destination": "/x", "type": "bind", "source": "/etc", "options": ["rbind", "rw"]});
            s["mounts"].as_array_mut().unwrap().push(mount);
        }),
        ("BS-PRC-005", |s| s["hooks"] = serde_json::json!({"prestart": [{"path": "/bin/true"}]})),
        ("BS-PRC-007", |s| s["linux"]["sysctl"] = serde_json::json!({"kernel.core_pattern": "|/x"})),
        ("BS-PRC-008", |s| s["linux"]["intelRdt"] = serde_json::json!({"closID": "x"})),
        ("BS-PRC-004", |s| {
            let kept: Vec<_> =
                s["linux"]["namespaces"].as_array().unwrap().iter().filter(|n| n["type"] != "pid").cloned().collect();
            s["linux"]["namespaces"] = kept.into();
        }),
    ];
    for (rule, edit) in faults {
        let path = bundle(&node, edit);
        let (code, report) = verdict(&path, &[]);
        let mut rules = denied(&report);
        rules.dedup();
        assert_eq!((code, &report["verdict"], rules), (1, &"deny".into(), vec![rule.to_owned()]), "{report:#}");
    }
    // The table says the same.
    let (code, out, _) = node.run(&["check", &bundle(&node, |s| s["process"]["user"]["uid"] = 0.into())]);
    assert_eq!(code, 1);
    assert!(
        out.contains(" ✗ BS-PRC-003 ") && out.contains("-> would be DENIED     more: boltseal explain BS-PRC-003"),
        "{out}"
    );
    // Another policy.
    let plain = bundle(&node, |_| ());
    assert_eq!(verdict(&plain, &["--policy", "strict"]).0, 1);
    // Observe only warns; but whether another policy than the one in force would be let judge is not known here.
    let (code, report) = verdict(&plain, &["--policy", "observe"]);
    assert_eq!((code, denied(&report), &report["counts"]["unknown"]), (3, vec![], &1.into()), "{report:#}");
    node.write("other.toml", POLICY);
    assert_eq!(verdict(&plain, &["--policy", &node.path("other.toml").display().to_string()]).0, 3);
}

#[test]
fn check_of_what_is_no_bundle() {
    let node = node();
    let (code, out, err) = node.run(&["check", "/nonexistent"]);
    assert_eq!((code, out.as_str()), (3, ""));
    assert!(err.contains("/nonexistent/config.json"), "{err}");
    node.write("bundle/config.json", "{\"ociVersion\": \"1.0.2\", ");
    let (code, _, err) = node.run(&["check", &node.path("bundle").display().to_string()]);
    assert_eq!(code, 1);
    assert!(err.starts_with("boltseal: denied by BS-PRC-008: config.json"), "{err}");
    let (code, _, err) = node.run(&["check", "x", "--policy", "lax"]);
    assert_eq!(code, 3);
    assert!(err.contains("observe, baseline, restricted, strict"), "{err}");
}

#[test]
fn explain_tells_all() {
    let node = Node::new();
    let (code, out, err) = node.run(&["explain", "bs-aud-001"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(
        out.contains("at every level") && out.contains("exception   none") && !out.contains("[[exception]]"),
        "{out}"
    );
    let (_, out, _) = node.run(&["explain", "BS-NOD-002"]);
    assert!(out.contains("from level restricted") && out.contains("[[exception]]\n    rule = \"BS-NOD-002\""), "{out}");
    // Every word of the rule is on the page, whatever the width of its lines.
    let rule = boltseal_policy::rules::find("BS-MAC-001").unwrap();
    let (_, out, _) = node.run(&["explain", "BS-MAC-001"]);
    assert!(out.lines().all(|l| l.chars().count() <= 110), "{out}");
    let words: Vec<&str> = out.split_whitespace().collect();
    for text in [rule.title, rule.nist, rule.reads, rule.predicate, rule.misfit, rule.fix]
        .into_iter()
        .chain(rule.cves.iter().copied())
    {
        let wanted: Vec<&str> = text.split_whitespace().collect();
        assert!(
            words
                .windows(wanted.len())
                .any(|w| w.iter().zip(&wanted).all(|(a, b)| a.trim_end_matches(',') == b.trim_end_matches(','))),
            "{text}"
        );
    }
    for (name, meaning) in rule.conditions {
        assert!(out.contains(&format!("{name}: {meaning}")), "{name}");
    }
    let (_, list, _) = node.run(&["explain"]);
    let (_, all, _) = node.run(&["explain", "-o", "json"]);
    let all = json(&all);
    assert_eq!(all.as_array().unwrap().len(), list.lines().count());
    for rule in all.as_array().unwrap() {
        for key in ["id", "title", "nist", "from", "misfit", "reads", "predicate", "fix"] {
            assert!(rule[key].as_str().is_some_and(|t| !t.is_empty()), "{key} of {rule}");
        }
        let id = rule["id"].as_str().unwrap();
        let (code, one, _) = node.run(&["explain", id, "-o", "json"]);
        assert_eq!((code, &json(&one)), (0, rule));
    }
    let (code, _, err) = node.run(&["explain", "BS-XYZ-001"]);
    assert_eq!(code, 2);
    assert!(err.contains("there is no rule BS-XYZ-001"), "{err}");
}
