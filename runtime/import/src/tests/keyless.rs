//! Signers by an identity: what of them is kept, under which root, and what is left out by name.
use super::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use boltseal_policy::policy::Authority;

/// Sigstore's own; its CAs and logs are real ones.
const ROOT: &str = include_str!("../../../keyless/tests/data/public-good.json");

/// A CA's certificate of that root, PEM, and the key of its log.
fn parts() -> (String, String) {
    let root: serde_json::Value = serde_json::from_str(ROOT).unwrap();
    let pem = |kind: &str, raw: &serde_json::Value| {
        format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", raw.as_str().unwrap())
    };
    let ca = pem("CERTIFICATE", &root["certificateAuthorities"][0]["certChain"]["certificates"][0]["rawBytes"]);
    (ca, pem("PUBLIC KEY", &root["tlogs"][0]["publicKey"]["rawBytes"]))
}

fn given(text: &str, root: Option<&str>) -> Imported {
    import(text.as_bytes(), reader, |_| true, root.map(str::to_owned)).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn authorities(found: &Imported) -> Vec<Authority> {
    Policy::parse(&found.policy, &[]).unwrap().authorities
}

/// A `sigstoreSigned` with `fulcio`, its members and the log's key as given.
fn fulcio(members: &str, log: &str) -> String {
    format!(r#"{{"type":"sigstoreSigned","fulcio":{{{members}}}{log}}}"#)
}

fn good() -> (String, String) {
    let (ca, log) = parts();
    (
        format!(
            r#""caData":"{}","oidcIssuer":"https://accounts.example","subjectEmail":"ci@corp.example""#,
            STANDARD.encode(ca)
        ),
        format!(r#","rekorPublicKeyData":"{}""#, STANDARD.encode(log)),
    )
}

#[test]
fn a_containers_policy_brings_its_own_root() {
    let (members, log) = good();
    let found = docker(&format!(r#""ghcr.io/corp":[{}]"#, fulcio(&members, &log)));
    let [authority] = &authorities(&found)[..] else { panic!("{}", found.policy) };
    assert_eq!(
        (authority.format.as_str(), &authority.identities[..]),
        ("keyless", &["ci@corp.example".to_owned()][..])
    );
    assert_eq!(
        (&authority.issuers[..], authority.log, authority.sct),
        (&["https://accounts.example".to_owned()][..], None, Some(false))
    );
    assert_eq!(scopes(&found), [format!("ghcr.io/corp: 1 of {}", authority.name)]);
    let [(file, root)] = &found.keys[..] else { panic!() };
    assert_eq!(*file, authority.trusted_root);
    // The log's id is that of Sigstore's own root.
    let (ours, theirs): (serde_json::Value, serde_json::Value) =
        (serde_json::from_str(root).unwrap(), serde_json::from_str(ROOT).unwrap());
    assert_eq!(ours["tlogs"][0]["logId"], theirs["tlogs"][0]["logId"]);
    says(&found, "not demanded: docker: ghcr.io/corp: signedIdentity");
    says(&found, "differs: docker: ghcr.io/corp: keyless: bundles of cosign 3 alone");
    // A bundle names no repository: an authority for each, one file for both.
    let both = docker(&format!(r#""ghcr.io/a":[{0}],"ghcr.io/b":[{0}]"#, fulcio(&members, &log)));
    let all = authorities(&both);
    assert_eq!((all.len(), both.keys.len()), (2, 1));
    assert_eq!(all[1].name, format!("{}-2", all[0].name));
    assert!(all.iter().all(|a| a.repositories.len() == 1));
}

/// What a root certifies is one key of several.
#[test]
fn two_of_one_root_are_not_two_keys() {
    let (members, log) = good();
    let other = members.replace("ci@corp", "release@corp");
    let found = docker(&format!(r#""ghcr.io/corp":[{},{}]"#, fulcio(&members, &log), fulcio(&other, &log)));
    assert_eq!(found.scopes, 0);
    says(&found, "it asks for 2 of 1 keys");
    let beside = docker(&format!(r#""ghcr.io/corp":[{},{SIGNED}]"#, fulcio(&members, &log)));
    assert_eq!(beside.scopes, 1, "{:?}", notes(&beside));
}

#[test]
fn what_a_fulcio_does_not_say_loses_its_scope() {
    let (members, log) = good();
    for (members, log, why) in [
        (members.replace("ci@corp", "*@corp"), log.clone(), "a `*` that stands for itself"),
        (members.replace("ci@corp", "ci\\\\@corp"), log.clone(), "not plain text"),
        (members.replace(r#""caData":""#, r#""caData":"*"#), log.clone(), "not base64"),
        (members.replace(r#""caData":""#, r#""caData":"AAAA"#), log.clone(), "left out"),
        (members.clone(), log.replace("Data\":\"", "Data\":\"AAAA"), "left out"),
        (members.clone(), log.replace("Data\":\"", "Path\":\"/missing"), "rekorPublicKeyPath: no such file"),
    ] {
        let found = docker(&format!(r#""ghcr.io/corp":[{SIGNED}],"ghcr.io/corp/x":[{}]"#, fulcio(&members, &log)));
        // Nor does the wider scope judge it.
        assert_eq!(found.scopes, 0, "{why}");
        says(&found, why);
    }
    let whole = |members: &str, log: &str| refused(&format!(r#"{{"default":[{}]}}"#, fulcio(members, log)));
    assert!(whole(&members, "").contains("a rekorPublicKey must be given"));
    assert!(whole(&members.replace("oidcIssuer", "issuer"), &log).contains("unknown key \"issuer\""));
    assert!(whole(r#""caPath":"/a","oidcIssuer":"x""#, &log).contains("must be given"));
    assert!(whole(&format!(r#"{members},"caPath":"/a""#), &log).contains("exactly one of caPath and caData"));
}

fn controller(keyless: &str, root: Option<&str>) -> Imported {
    let head = "apiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata: {name: p}\nspec:\n";
    let images = "  images: [{glob: ghcr.io/corp/**}]\n  authorities:\n";
    given(
        &format!(
            "{head}{images}  - name: web\n    keyless:\n{keyless}    ctlog: {{url: https://rekor.sigstore.dev}}\n"
        ),
        root,
    )
}

#[test]
fn policy_controller_needs_a_root_beside_it() {
    const BOTH: &str = "      url: https://fulcio.sigstore.dev\n      identities:\n      - {issuer: https://a.example, subject: ci@corp.example}\n      - {issuerRegExp: '^https://b\\.example/.*$', subjectRegExp: '@corp\\.example$'}\n";
    let found = controller(BOTH, Some(ROOT));
    let all = authorities(&found);
    assert_eq!(
        all.iter()
            .map(|a| (a.issuers[0].as_str(), a.identities[0].as_str()))
            .collect::<std::collections::BTreeSet<_>>(),
        [("https://a.example", "ci@corp.example"), ("https://b.example/*", "*@corp.example")].into()
    );
    assert!(all.iter().all(|a| a.log.is_none() && a.sct.is_none()));
    assert_eq!((found.scopes, found.keys.len(), found.keys[0].1.as_str()), (1, 2, ROOT));
    says(&found, "differs: p, web: keyless.url: what --trusted-root holds");
    says(&found, "differs: p, web: ctlog");
    let found = controller(BOTH, None);
    assert_eq!(found.scopes, 0);
    says(&found, "left out: p, web: keyless: its CA and logs are not in this file: name them with --trusted-root");
    for (keyless, why) in [
        ("      identities: [{issuer: x}]\n", "exactly one of subject and subjectRegExp"),
        ("      identities: [{issuer: x, subject: y, subjectRegExp: z}]\n", "exactly one of subject"),
        ("      identities: [{issuer: x, subjectRegExp: '.*'}]\n", "everybody whom the CA certifies"),
        ("      identities: [{issuer: x, subjectRegExp: '(a|b)'}]\n", "of a regular expression only"),
        ("      identities: []\n", "no identity of it can be kept"),
        ("      ca-cert: {data: x}\n      identities: [{issuer: x, subject: y}]\n", "keyless.ca-cert"),
    ] {
        let found = controller(keyless, Some(ROOT));
        assert_eq!(found.scopes, 0, "{keyless}");
        says(&found, why);
    }
    let relaxed =
        controller("      insecureIgnoreSCT: true\n      identities: [{issuer: x, subject: y}]\n", Some(ROOT));
    assert_eq!(authorities(&relaxed)[0].sct, Some(false));
    let bad = controller("      identities: [{issuer: x, subject: y}]\n", Some("{}"));
    says(&bad, "the trusted root: not a trusted root");
}

fn by_kyverno(keyless: &str, root: Option<&str>) -> Imported {
    let head = "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata: {name: p}\nspec:\n  rules:\n  - name: r\n    verifyImages:\n";
    let entry = "    - imageReferences: ['ghcr.io/corp/*']\n      attestors:\n      - entries:\n        - keyless:\n";
    given(&format!("{head}{entry}{keyless}"), root)
}

#[test]
fn kyverno_with_its_own_root_or_one_beside_it() {
    const WHO: &str = "            subject: 'https://github.com/corp/*'\n            issuer: https://a.example\n";
    let found = by_kyverno(WHO, Some(ROOT));
    let all = authorities(&found);
    assert_eq!((all[0].identities[0].as_str(), found.keys[0].1.as_str()), ("https://github.com/corp/*", ROOT));
    assert_eq!(by_kyverno(WHO, None).scopes, 0);
    let (ca, log) = parts();
    let block = |name: &str, text: &str, by: usize| format!("{0}{name}: |\n{1}", " ".repeat(by), pem(text, by + 2));
    let own = format!("{WHO}{}            rekor:\n{}", block("roots", &ca, 12), block("pubkey", &log, 14));
    let whole = format!("{own}            ctlog:\n{}", block("pubkey", &log, 14));
    let found = by_kyverno(&whole, None);
    assert_eq!(found.scopes, 1, "{:?}", notes(&found));
    assert!(found.keys[0].1.contains("\"ctlogs\": [\n") && authorities(&found)[0].sct.is_none());
    let found = by_kyverno(&format!("{own}            ctlog: {{ignoreSCT: true}}\n"), None);
    assert_eq!(authorities(&found)[0].sct, Some(false));
    for (keyless, why) in [
        (own.clone(), "all or none"),
        (format!("{WHO}            ctlog: {{tsaCertChain: x}}\n"), "tsaCertChain"),
        (format!("{WHO}            additionalExtensions: {{a: b}}\n"), "additionalExtensions"),
        (WHO.replace("https://a", "https://*"), "a `*` that stands for itself"),
        (WHO.replace("corp/*", "corp/?"), "`?` for one character"),
        (format!("{WHO}          keys: {{publicKeys: x}}\n"), "beside keys"),
    ] {
        let found = by_kyverno(&keyless, Some(ROOT));
        assert_eq!(found.scopes, 0, "{keyless}");
        says(&found, why);
    }
    assert_eq!(
        authorities(&by_kyverno(&format!("{WHO}            rekor: {{ignoreTlog: true}}\n"), Some(ROOT)))[0].log,
        Some(false)
    );
}
