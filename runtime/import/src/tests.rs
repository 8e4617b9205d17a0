//! What each file becomes, and what of it is lost.
mod keyless;

use super::*;
use boltseal_policy::Policy;

const SIGNER: &str = include_str!("../../trust/tests/fixtures/keys/signer.pub");
const STRANGER: &str = include_str!("../../trust/tests/fixtures/keys/stranger.pub");

fn reader(path: &str) -> Result<Vec<u8>, String> {
    match path {
        "/keys/signer.pub" => Ok(SIGNER.into()),
        "/keys/stranger.pub" => Ok(STRANGER.into()),
        "/keys/other.pub" => Ok(SIGNER.into()),
        _ => Err("no such file".into()),
    }
}

fn imported(text: &str) -> Imported {
    import(text.as_bytes(), reader, |_| true, None).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn refused(text: &str) -> String {
    import(text.as_bytes(), reader, |_| true, None).map_or_else(|e| e, |found| panic!("{}", found.policy))
}

/// Scopes as `repository: need of authorities`.
fn scopes(found: &Imported) -> Vec<String> {
    let policy = Policy::parse(&found.policy, &[]).unwrap();
    let said =
        |s: &boltseal_policy::policy::Scope| format!("{}: {} of {}", s.repository, s.need, s.authorities.join(" "));
    policy.scopes.iter().map(said).collect()
}

fn notes(found: &Imported) -> Vec<String> {
    found.notes.iter().map(|n| format!("{}: {}: {}", n.kind.name(), n.what, n.why)).collect()
}

fn says(found: &Imported, part: &str) {
    assert!(notes(found).iter().any(|note| note.contains(part)), "{part}\n{:#?}", notes(found));
}

fn docker(scopes: &str) -> Imported {
    imported(&format!(r#"{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{{scopes}}}}}}}"#))
}

const SIGNED: &str = r#"{"type":"sigstoreSigned","keyPath":"/keys/signer.pub"}"#;
const BY_STRANGER: &str = r#"{"type":"sigstoreSigned","keyPath":"/keys/stranger.pub"}"#;
const BY_ANY: &str = r#"{"type":"sigstoreSigned","keyPaths":["/keys/signer.pub","/keys/stranger.pub"]}"#;
const GPG: &str = r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/x.gpg"}"#;

#[test]
fn a_key_and_its_scope() {
    let found = docker(&format!(r#""ghcr.io/corp":[{SIGNED}]"#));
    assert_eq!(scopes(&found), ["ghcr.io/corp: 1 of signer"]);
    assert_eq!((found.scopes, found.keys), (1, vec![("signer.pub".to_owned(), SIGNER.trim().to_owned() + "\n")]));
    assert_eq!(found.notes, []);
    let policy = Policy::parse(&found.policy, &[]).unwrap();
    assert_eq!(
        (policy.registries.allow, policy.authorities[0].repositories.clone()),
        (vec!["ghcr.io/corp".into()], vec!["ghcr.io/corp".into()])
    );
    // The same key under another name, or in the file itself, is one authority.
    let data = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, SIGNER);
    let found = docker(&format!(
        r#""ghcr.io/a":[{SIGNED}],"ghcr.io/b":[{{"type":"sigstoreSigned","keyData":"{data}"}}],"ghcr.io/c":[{{"type":"sigstoreSigned","keyPath":"/keys/other.pub"}}]"#
    ));
    assert_eq!(scopes(&found), ["ghcr.io/a: 1 of signer", "ghcr.io/b: 1 of signer", "ghcr.io/c: 1 of signer"]);
    says(&found, "differs: key signer: it signs for several repositories");
}

#[test]
fn several_requirements_are_several_keys() {
    assert_eq!(scopes(&docker(&format!(r#""ghcr.io/corp":[{BY_ANY}]"#))), ["ghcr.io/corp: 1 of signer stranger"]);
    let both = docker(&format!(r#""ghcr.io/corp":[{SIGNED},{BY_STRANGER}]"#));
    assert_eq!(scopes(&both), ["ghcr.io/corp: 2 of signer stranger"]);
    // Twice the same is once.
    assert_eq!(scopes(&docker(&format!(r#""ghcr.io/corp":[{SIGNED},{SIGNED}]"#))), ["ghcr.io/corp: 1 of signer"]);
    let mixed = docker(&format!(r#""ghcr.io/corp":[{SIGNED},{BY_ANY}]"#));
    assert_eq!(scopes(&mixed), Vec::<String>::new());
    says(&mixed, "left out: docker: ghcr.io/corp: several requirements");
    // An OpenPGP signature beside a key: the key alone would be less.
    let gpg = docker(&format!(r#""ghcr.io/corp":[{SIGNED},{GPG}]"#));
    assert_eq!(scopes(&gpg), Vec::<String>::new());
    says(&gpg, "OpenPGP");
    assert_eq!(scopes(&docker(&format!(r#""ghcr.io/corp":[{SIGNED},{{"type":"reject"}}]"#))), Vec::<String>::new());
    let anything = docker(&format!(r#""ghcr.io/corp":[{SIGNED},{{"type":"insecureAcceptAnything"}}]"#));
    assert_eq!(scopes(&anything), ["ghcr.io/corp: 1 of signer"]);
}

/// What is refused, or asks for what cannot be asked for, must not start by the scope above it.
#[test]
fn what_is_lost_does_not_fall_to_a_wider_scope() {
    for lost in [r#"{"type":"reject"}"#, GPG, r#"{"type":"sigstoreSigned","keyPath":"/missing"}"#] {
        let found = docker(&format!(r#""ghcr.io/corp":[{SIGNED}],"ghcr.io/corp/x":[{lost}],"ghcr.io/zed":[{SIGNED}]"#));
        assert_eq!(scopes(&found), ["ghcr.io/zed: 1 of signer"], "{lost}");
        says(&found, "left out: docker: ghcr.io/corp: docker: ghcr.io/corp/x cannot be kept");
    }
    // Of a tag, its repository.
    let found = docker(&format!(r#""ghcr.io/corp":[{SIGNED}],"ghcr.io/corp/x:1":[{BY_STRANGER}]"#));
    assert_eq!(scopes(&found), Vec::<String>::new());
    // Beside or above, nothing changes; nor by what accepts anything, for here the wider scope's key is asked for.
    for kept in [
        r#""ghcr.io/other":[{"type":"reject"}]"#,
        r#""ghcr.io":[{"type":"reject"}]"#,
        r#""ghcr.io/corp/x":[{"type":"insecureAcceptAnything"}]"#,
    ] {
        assert_eq!(
            scopes(&docker(&format!(r#""ghcr.io/corp":[{SIGNED}],{kept}"#))),
            ["ghcr.io/corp: 1 of signer"],
            "{kept}"
        );
    }
    // A narrower scope that is kept is the longest, here as there.
    let nested = docker(&format!(r#""ghcr.io/corp":[{SIGNED}],"ghcr.io/corp/x":[{BY_STRANGER}]"#));
    assert_eq!(scopes(&nested), ["ghcr.io/corp: 1 of signer", "ghcr.io/corp/x: 1 of stranger"]);
}

#[test]
fn identities() {
    let with = |identity: &str| {
        docker(&format!(
            r#""ghcr.io/corp":[{{"type":"sigstoreSigned","keyPath":"/keys/signer.pub","signedIdentity":{identity}}}]"#
        ))
    };
    for (identity, scope, note) in [
        (r#"{"type":"matchRepository"}"#, Some("ghcr.io/corp"), ""),
        (r#"{"type":"matchRepoDigestOrExact"}"#, Some("ghcr.io/corp"), ""),
        (r#"{"type":"matchExact"}"#, Some("ghcr.io/corp"), "not demanded: docker: ghcr.io/corp: matchExact"),
        (r#"{"type":"exactRepository","dockerRepository":"quay.io/up/app"}"#, Some("quay.io/up/app"), ""),
        (r#"{"type":"exactReference","dockerReference":"quay.io/up/app:1"}"#, Some("quay.io/up/app"), "exactReference"),
        (r#"{"type":"remapIdentity","prefix":"ghcr.io","signedPrefix":"quay.io/up"}"#, Some("quay.io/up/corp"), ""),
        (r#"{"type":"remapIdentity","prefix":"ghcr.io/co","signedPrefix":"quay.io"}"#, None, "signedIdentity"),
        (r#"{"type":"matchAnything"}"#, None, "signedIdentity: of a type"),
    ] {
        let found = with(identity);
        let expected: Vec<String> = scope.iter().map(|s| format!("{s}: 1 of signer")).collect();
        assert_eq!(scopes(&found), expected, "{identity}");
        assert_eq!(found.notes.is_empty(), note.is_empty(), "{identity}");
        if !note.is_empty() {
            says(&found, note);
        }
    }
}

#[test]
fn what_has_no_counterpart_is_told() {
    let found = imported(&format!(
        r#"{{"default":[{{"type":"insecureAcceptAnything"}}],"transports":{{
            "docker":{{"":[{SIGNED}],"*.corp.example":[{SIGNED}],
                "ghcr.io/log":[{{"type":"sigstoreSigned","keyPath":"/keys/signer.pub","rekorPublicKeyPath":"/r"}}],
                "ghcr.io/pki":[{{"type":"sigstoreSigned","pki":{{"caRootsPath":"/ca"}}}}]}},
            "docker-daemon":{{"":[{{"type":"insecureAcceptAnything"}}]}}}}}}"#
    ));
    assert_eq!(scopes(&found), ["ghcr.io/log: 1 of signer"]);
    for part in [
        "left out: default: insecureAcceptAnything",
        "left out: docker: a scope of boltseal",
        "left out: docker: *.corp.example: a scope",
        "not demanded: docker: ghcr.io/log: rekorPublicKeyPath",
        "left out: docker: ghcr.io/pki: pki",
        "left out: docker-daemon: boltseal judges",
    ] {
        says(&found, part);
    }
    assert!(found.policy.contains("# left out: default: insecureAcceptAnything"), "{}", found.policy);
}

#[test]
fn a_containers_policy_is_read_strictly() {
    for (bad, why) in [
        ("{}", "no `default`"),
        (r#"{"default":[]}"#, "no requirement"),
        (r#"{"default":[{"type":"reject"}],"extra":1}"#, "unknown key \"extra\""),
        (r#"{"default":[{"type":"reject","x":1}]}"#, "unknown key \"x\""),
        (r#"{"default":[{"type":"lax"}]}"#, "unknown type"),
        (r#"{"default":[{}]}"#, "without `type`"),
        (r#"{"default":[{"type":"reject"}],"default":[{"type":"reject"}]}"#, "twice"),
        (r#"{"default":[{"type":"sigstoreSigned"}]}"#, "exactly one of"),
        (r#"{"default":[{"type":"sigstoreSigned","keyPath":"/a","keyData":"b"}]}"#, "exactly one of"),
        (r#"{"default":[{"type":"sigstoreSigned","keyPath":["/a"]}]}"#, "of another type"),
        (r#"{"default":[{"type":"sigstoreSigned","keyPaths":["/a",1]}]}"#, "of another type"),
        (r#"{"default":[{"type":"reject"}],"transports":[]}"#, "no object"),
        ("x: [", "YAML"),
        ("", "neither"),
        ("[]", "not an object"),
    ] {
        let said = refused(bad);
        assert!(said.contains(why), "{bad}: {said}");
    }
}

fn pem(text: &str, indent: usize) -> String {
    text.trim().lines().map(|line| format!("{}{line}\n", " ".repeat(indent))).collect()
}

fn kyverno(rules: &[(&str, &String)]) -> Imported {
    let rule = |(n, (reference, attestors)): (usize, &(&str, &String))| {
        format!(
            "  - name: r{n}\n    verifyImages:\n    - imageReferences: [\"{reference}\"]\n      attestors:\n{attestors}"
        )
    };
    let rules: String = rules.iter().enumerate().map(rule).collect();
    imported(&format!(
        "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata:\n  name: signed\nspec:\n  rules:\n{rules}"
    ))
}

/// An attestor set with these keys.
fn set(count: &str, keys: &[&str]) -> String {
    let one = |key: &&str| {
        format!(
            "        - keys:\n            rekor: {{ignoreTlog: true}}\n            publicKeys: |-\n{}",
            pem(key, 14)
        )
    };
    let entries: String = keys.iter().map(one).collect();
    format!("      - {count}\n        entries:\n{entries}")
}

#[test]
fn kyverno_sets_are_counts() {
    let one = set("count: 1", &[SIGNER]);
    let found = kyverno(&[("ghcr.io/corp/*", &one)]);
    assert_eq!((scopes(&found).len(), found.notes.len()), (1, 0), "{:?}", notes(&found));
    assert!(scopes(&found)[0].starts_with("ghcr.io/corp: 1 of key-"));
    // Without a count all must sign.
    let need =
        |attestors: &String| scopes(&kyverno(&[("ghcr.io/corp/*", attestors)])).first().map(|s| s[14..15].to_owned());
    assert_eq!(need(&set("count: null", &[SIGNER, STRANGER])).as_deref(), Some("2"));
    assert_eq!(need(&set("count: 1", &[SIGNER, STRANGER])).as_deref(), Some("1"));
    assert_eq!(need(&set("count: 2", &[SIGNER, STRANGER])).as_deref(), Some("2"));
    assert_eq!(need(&set("count: 3", &[SIGNER, STRANGER])), None);
    assert_eq!(need(&set("count: 0", &[SIGNER])), None);
    // The same key twice is one key; two sets must both be met.
    assert_eq!(need(&set("count: 2", &[SIGNER, SIGNER])), None);
    let two = set("count: 1", &[SIGNER]) + &set("count: 1", &[STRANGER]);
    assert_eq!(need(&two).as_deref(), Some("2"));
    let some = set("count: 1", &[SIGNER, STRANGER]) + &set("count: 1", &[STRANGER]);
    assert_eq!(need(&some), None);
    let block = format!("{SIGNER}{STRANGER}");
    assert_eq!(need(&set("count: null", &[&block])).as_deref(), Some("2"));
}

/// Of Kyverno's rules all hold that match: nothing nested can be kept.
#[test]
fn overlapping_rules_are_left_out() {
    let (one, other) = (set("count: 1", &[SIGNER]), set("count: 1", &[STRANGER]));
    assert_eq!(scopes(&kyverno(&[("ghcr.io/a/*", &one), ("ghcr.io/b/*", &other)])).len(), 2);
    assert_eq!(scopes(&kyverno(&[("ghcr.io/a/*", &one), ("ghcr.io/a/*", &one)])).len(), 1);
    for second in ["ghcr.io/a/*", "ghcr.io/a/b/*", "ghcr.io/*", "*", "ghcr.io/a/x*"] {
        let found = kyverno(&[("ghcr.io/a/*", &one), (second, &other)]);
        assert_eq!(scopes(&found), Vec::<String>::new(), "{second}");
        assert!(found.notes.iter().filter(|n| n.kind == Kind::LeftOut).count() >= 2, "{:?}", notes(&found));
    }
}

#[test]
fn what_kyverno_asks_beyond_keys_is_told() {
    let good = set("count: 1", &[SIGNER]);
    let logged = good.replace("            rekor: {ignoreTlog: true}\n", "");
    let found = kyverno(&[("ghcr.io/corp/*", &logged)]);
    assert_eq!(scopes(&found).len(), 1);
    says(&found, "not demanded: signed, rule r0: rekor");
    for (change, with, why) in [
        ("rekor: {ignoreTlog: true}", "kms: awskms:///x", "keys.kms"),
        ("rekor: {ignoreTlog: true}", "signatureAlgorithm: sha512", "signatureAlgorithm sha512"),
        ("- keys:", "- annotations: {a: b}\n          keys:", "annotations"),
        ("        entries:\n", "        entries:\n        - keyless: {issuer: x}\n", "keyless"),
        ("-----BEGIN PUBLIC KEY-----", "k8s://x/y", "not one PEM block"),
    ] {
        let bent = good.replacen(change, with, 1);
        assert_ne!(bent, good);
        let found = kyverno(&[("ghcr.io/corp/*", &bent)]);
        assert_eq!(scopes(&found), Vec::<String>::new(), "{why}");
        says(&found, why);
    }
    let whole = |more: &str, rule: &str| {
        imported(&format!(
            "apiVersion: kyverno.io/v1\nkind: Policy\nmetadata: {{name: p}}\nspec:\n{more}  rules:\n  - name: r\n{rule}    verifyImages:\n    - imageReferences: [ghcr.io/corp/app]\n      attestors:\n{good}"
        ))
    };
    let kinds = "    match: {any: [{resources: {kinds: [Pod]}}]}\n";
    assert_eq!(imported(&format!("apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata: {{name: p}}\nspec:\n  rules:\n  - name: r\n{kinds}    verifyImages:\n    - imageReferences: [ghcr.io/corp/app]\n      attestors:\n{good}")).notes, []);
    says(&whole("", "    match: {any: [{resources: {kinds: [Pod], namespaces: [x]}}]}\n"), "differs: p, rule r: match");
    let found = whole("  validationFailureAction: Audit\n", "    exclude: {any: [x]}\n");
    assert_eq!(scopes(&found).len(), 1);
    for part in
        ["differs: p: a policy of one namespace", "differs: p: validationFailureAction", "differs: p, rule r: exclude"]
    {
        says(&found, part);
    }
    for (more, why) in [
        ("      attestations: [{type: x}]\n", "attestations: boltseal cannot"),
        ("      type: Notary\n", "type Notary"),
        ("      skipImageReferences: [x]\n", "skipImageReferences"),
        ("      repository: x.io/y\n", "boltseal's own store"),
    ] {
        let bent = format!("{more}      attestors:\n{good}");
        let rule = "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata: {name: p}\nspec:\n  rules:\n  - name: r\n    verifyImages:\n    - imageReferences: [ghcr.io/corp/app]\n";
        let found = imported(&format!("{rule}{bent}"));
        says(&found, why);
        assert_eq!(found.scopes, usize::from(more.contains("skip") || more.contains("repository")), "{more}");
    }
}

fn cluster(images: &str, authorities: &str, more: &str) -> Imported {
    imported(&format!(
        "apiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata:\n  name: p\nspec:\n{more}  images:\n{images}  authorities:\n{authorities}"
    ))
}

fn authority(name: &str, more: &str, key: &str) -> String {
    format!("  - name: {name}\n{more}    key:\n      data: |\n{}", pem(key, 8))
}

#[test]
fn policy_controller() {
    let (a, b) = (authority("first", "", SIGNER), authority("second", "", STRANGER));
    let found = cluster("  - glob: ghcr.io/corp/**\n", &(a.clone() + &b), "");
    assert_eq!((scopes(&found), found.notes), (vec!["ghcr.io/corp: 1 of first second".to_owned()], vec![]));
    let found = cluster("  - glob: ghcr.io/corp/*\n  - glob: busybox\n", &a, "");
    // A name without a registry may be anything's.
    assert_eq!(scopes(&found), Vec::<String>::new());
    let found = cluster("  - glob: ghcr.io/corp/*\n", &a, "  mode: warn\n  match: [{resource: pods}]\n");
    assert_eq!(scopes(&found), ["ghcr.io/corp: 1 of first"]);
    for part in ["not demanded: p: ghcr.io/corp/*: one level", "differs: p: mode warn", "differs: p: match"] {
        says(&found, part);
    }
    // An authority that is left out makes it stricter; with none left nothing is.
    let keyless = "  - name: web\n    keyless: {url: x}\n";
    let found = cluster("  - glob: ghcr.io/corp/**\n", &format!("{a}{keyless}"), "");
    assert_eq!(scopes(&found), ["ghcr.io/corp: 1 of first"]);
    says(&found, "left out: p, web: keyless");
    let found = cluster("  - glob: ghcr.io/corp/**\n", keyless, "");
    assert_eq!(scopes(&found), Vec::<String>::new());
    says(&found, "left out: p: ghcr.io/corp/**: no authority");
    for (more, part, kept) in [
        ("    ctlog: {url: x}\n", "not demanded: p, first: ctlog", 1),
        ("    attestations: [{name: x}]\n", "attestations", 0),
        ("    static: {action: pass}\n", "static", 0),
    ] {
        let found = cluster("  - glob: ghcr.io/corp/**\n", &authority("first", more, SIGNER), "");
        says(&found, part);
        assert_eq!(found.scopes, kept, "{more}");
    }
    let hashed = a.replace("      data", "      hashAlgorithm: sha512\n      data");
    says(&cluster("  - glob: ghcr.io/corp/**\n", &hashed, ""), "hashAlgorithm sha512");
    let found = cluster("  - glob: ghcr.io/corp/**\n", &a, "  policy: {type: cue}\n");
    assert_eq!(found.scopes, 0);
    says(&found, "policy: boltseal cannot ask for it");
}

#[test]
fn manifests_come_alone_or_in_lists_of_known_kinds() {
    let one = r#"{"apiVersion":"kyverno.io/v1","kind":"ClusterPolicy","metadata":{"name":"p"},"spec":{"rules":[]}}"#;
    assert_eq!(imported(one).scopes, 0);
    assert_eq!(imported(&format!(r#"{{"apiVersion":"v1","kind":"List","items":[{one},{one}]}}"#)).scopes, 0);
    let list = r#"{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"List"}]}"#;
    assert!(refused(list).contains("of kind \"List\""));
    assert!(refused(r#"{"apiVersion":"v1","kind":"Pod"}"#).contains("of kind \"Pod\""));
    assert!(refused(r#"{"apiVersion":"kyverno.io/v1","kind":"ClusterPolicy"}"#).contains("no spec"));
}

#[test]
fn a_key_that_verifies_nothing_is_left_out() {
    let text =
        format!(r#"{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{"ghcr.io/corp":[{SIGNED}]}}}}}}"#);
    let found = import(text.as_bytes(), reader, |_| false, None).unwrap();
    assert_eq!(found.scopes, 0);
    says(&found, "a point that is not on its curve");
}
