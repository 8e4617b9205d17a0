//! The program against registries: honest ones, whatever they hold and ask for, and hostile ones, each beside its twin.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
mod common;

use common::{IMAGE, Ran, Registry, Reply, Shelf, Site, fixtures};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const REQUIRE: &str = "require = true\n";

fn honest(shelf: Shelf) -> impl Fn(&str, &str) -> Reply + Send + Sync {
    move |path, _| shelf.get(path)
}

fn stored(ran: &Ran, files: usize) {
    assert_eq!((ran.code, ran.stored), (0, files), "{} {}", ran.out, ran.err);
}

#[test]
fn what_real_tools_sign_is_stored_and_satisfies_require() {
    // cosign 3's index under a tag has a wrong type in it; cosign 2 has a manifest under .sig, and one under .att.
    for (layouts, files) in [(&["cosign3"][..], 1), (&["cosign3-both"], 2), (&["cosign3", "cosign2"], 2)] {
        let site = Site::new();
        let registry = Registry::start(&site, honest(Shelf::of(layouts)));
        let ran = site.verify(&registry, REQUIRE);
        stored(&ran, files);
        assert!(ran.out.contains("by an authority of the policy"), "{}", ran.out);
        // Again: nothing new.
        let ran = site.verify(&registry, REQUIRE);
        stored(&ran, files);
        assert!(ran.out.contains("0 new"), "{}", ran.out);
    }
    // cosign 2 signs the repository too, and this one is another.
    let site = Site::new();
    let registry = Registry::start(&site, honest(Shelf::of(&["cosign2", "cosign2-attest"])));
    stored(&site.by_hand(&registry, ""), 2);
    assert_eq!(site.verify(&registry, REQUIRE).code, 1);
}

#[test]
fn what_notation_signs_is_stored_and_satisfies_require() {
    const KIND: &str = "application/vnd.cncf.notary.signature";
    let mut shelf = Shelf::of(&[]);
    let image = json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": format!("sha256:{IMAGE}"), "size": 503 });
    let mut entries = Vec::new();
    for (file, media) in [("p256.jws", "application/jose+json"), ("rsa3072.cose", "application/cose")] {
        let envelope = std::fs::read(fixtures().join("notation").join(file)).unwrap();
        let layer = json!({ "mediaType": media, "digest": shelf.add(&envelope), "size": envelope.len() });
        let config = json!({ "mediaType": KIND, "digest": shelf.add(b"{}"), "size": 2 });
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [layer], "subject": image }).to_string();
        entries.push((shelf.add(manifest.as_bytes()), manifest.len(), KIND));
    }
    shelf.tags.insert(format!("sha256-{IMAGE}"), referrers(entries.into_iter()));
    let site = Site::new();
    let registry = Registry::start(&site, honest(shelf));
    let ran = site.verify(&registry, REQUIRE);
    assert_eq!((ran.code, ran.stored), (1, 2), "{}", ran.out);
    // The twin: the policy names their root.
    let root = std::fs::read_to_string(fixtures().join("notation/root.pem")).unwrap();
    site.write("etc/boltseal/trust/root.pem", &root, 0o644);
    site.write(
        "etc/boltseal/policy.toml",
        "version = 1\n[[authority]]\nname = \"ci\"\nformat = \"notation\"\nroots = \"root.pem\"\nidentities = [\"*\"]\nrepositories = [\"127.0.0.1/team/app\"]\n",
        0o644,
    );
    stored(&site.verify(&registry, REQUIRE), 2);
}

#[test]
fn require_refuses_what_no_authority_signed_and_else_the_start_decides() {
    for layouts in [&[][..], &["cosign3-stranger"], &["cosign3-attest"]] {
        let site = Site::new();
        let registry = Registry::start(&site, honest(Shelf::of(layouts)));
        let ran = site.verify(&registry, REQUIRE);
        assert_eq!((ran.code, ran.stored), (1, layouts.len()), "{}", ran.out);
        assert!(ran.out.starts_with("boltseal: ") && ran.out.contains("require = true"), "{}", ran.out);
        let ran = site.verify(&registry, "");
        assert_eq!(ran.code, 0);
        assert!(ran.out.contains("the start decides"), "{}", ran.out);
    }
    // A configuration that cannot be read refuses too, and so does a name that is none.
    let site = Site::new();
    let registry = Registry::start(&site, honest(Shelf::of(&["cosign3"])));
    let ran = site.verify(&registry, "requires = true\n");
    assert_eq!((ran.code, ran.stored), (1, 0), "{}", ran.out);
    stored(&site.verify(&registry, REQUIRE), 1);
}

/// An index of referrers, as a registry with the API has it.
fn referrers(entries: impl Iterator<Item = (String, usize, &'static str)>) -> Vec<u8> {
    let list: Vec<Value> = entries
        .map(|(digest, size, kind)| json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size, "artifactType": kind }))
        .collect();
    json!({ "schemaVersion": 2, "manifests": list }).to_string().into_bytes()
}

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// The manifest of cosign 3's bundle: digest and bytes.
fn bundle_manifest(shelf: &Shelf) -> (String, Vec<u8>) {
    let found = shelf
        .blobs
        .iter()
        .find(|(_, bytes)| serde_json::from_slice::<Value>(bytes).is_ok_and(|v| v["subject"].is_object()));
    let (digest, bytes) = found.unwrap();
    (digest.clone(), bytes.clone())
}

#[test]
fn ten_thousand_referrers_end_and_the_one_that_may_be_a_signature_is_found() {
    let shelf = Shelf::of(&["cosign3"]);
    let (good, bytes) = bundle_manifest(&shelf);
    let other = |n: usize| boltseal_trust::digest(&n.to_le_bytes()).to_string();
    for (kind, files) in [("application/spdx+json", 1), (BUNDLE, 0)] {
        let many = (0..10_000).map(|n| (other(n), 500, kind)).chain([(good.clone(), bytes.len(), BUNDLE)]);
        let (page, shelf) = (referrers(many), shelf.clone());
        let site = Site::new();
        let registry = Registry::start(&site, move |path, _| {
            if path.contains("/referrers/") { Reply::Body(page.clone()) } else { shelf.get(path) }
        });
        let ran = site.by_hand(&registry, "");
        stored(&ran, files);
        assert!(registry.seen().len() < 50, "{}", registry.seen().len());
        assert!(ran.err.contains("only the first"), "{}", ran.err);
    }
}

#[test]
fn what_refers_to_another_image_or_is_not_its_digest_is_not_taken() {
    let shelf = Shelf::of(&["cosign3"]);
    let (good, bytes) = bundle_manifest(&shelf);
    let twisted = String::from_utf8(bytes.clone()).unwrap().replace(IMAGE, &"0".repeat(64)).into_bytes();
    // An honest page; one whose manifest has another subject; one whose manifest, or blob, is not what was asked for.
    for (case, files) in
        [("twin", 1), ("subject", 0), ("manifest", 0), ("blob", 0), ("large", 0), ("says it is large", 0)]
    {
        let (mut shelf, good, bytes, twisted) = (shelf.clone(), good.clone(), bytes.clone(), twisted.clone());
        shelf.tags.clear();
        let named = if case == "subject" { shelf.add(&twisted) } else { good.clone() };
        let size = if case == "says it is large" { 1 << 30 } else { bytes.len() };
        let page = referrers([(named, size, BUNDLE)].into_iter());
        let site = Site::new();
        let registry = Registry::start(&site, move |path, _| match case {
            _ if path.contains("/referrers/") => Reply::Body(page.clone()),
            "manifest" if path.ends_with(&good) => Reply::Body(twisted.clone()),
            "blob" if path.contains("/blobs/") => Reply::Body(b"{}".to_vec()),
            "large" if path.contains("/blobs/") => Reply::Body(vec![b' '; 10 << 20]),
            _ => shelf.get(path),
        });
        let ran = site.by_hand(&registry, "");
        stored(&ran, files);
        assert_eq!(ran.err.is_empty(), case == "twin", "{case}: {}", ran.err);
    }
}

#[test]
fn a_registry_that_is_slow_costs_no_more_than_its_time() {
    for (slow, files) in [(false, 1), (true, 0)] {
        let shelf = Shelf::of(&["cosign3"]);
        let site = Site::new();
        let registry =
            Registry::start(
                &site,
                move |path, _| {
                    if slow && path.contains("/blobs/") { Reply::Trickle } else { shelf.get(path) }
                },
            );
        let ran = site.verify(&registry, "timeout_seconds = 3\n");
        stored(&ran, files);
        assert!(ran.took < Duration::from_secs(5), "{:?}", ran.took);
        if slow {
            assert_eq!(site.verify(&registry, "timeout_seconds = 3\nrequire = true\n").code, 1);
        }
    }
}

#[test]
fn redirects_stay_with_https_end_and_carry_no_credentials() {
    let shelf = Shelf::of(&["cosign3"]);
    for (case, files) in [("twin", 1), ("http", 0), ("endless", 0)] {
        let site = Site::new();
        // Its blobs lie elsewhere. The certificates are of this site, so is the one that is elsewhere.
        let elsewhere = Registry::start(&site, honest(shelf.clone()));
        let to = elsewhere.port;
        let shelf = shelf.clone();
        let registry = Registry::start(&site, move |path, head| {
            if !head.contains("Authorization: Basic dTpw\r\n") {
                return Reply::Status(401, vec![("WWW-Authenticate", "Basic realm=\"x\"".into())]);
            }
            let location = match case {
                _ if !path.contains("/blobs/") => return shelf.get(path),
                "twin" => format!("https://127.0.0.1:{to}{path}"),
                "http" => format!("http://127.0.0.1:{to}{path}"),
                _ => format!("{path}x"),
            };
            Reply::Status(307, vec![("Location", location)])
        });
        let auths = json!({ "auths": { format!("127.0.0.1:{}", registry.port): { "auth": "dTpw" } } });
        site.write("etc/boltseal/docker.json", &auths.to_string(), 0o600);
        let config = format!("docker_config = \"/etc/boltseal/docker.json\"\nports = [{to}]\n");
        let ran = site.by_hand(&registry, &config);
        stored(&ran, files);
        assert!(elsewhere.seen().iter().all(|line| !line.contains("Authorization")), "{:?}", elsewhere.seen());
        assert_eq!(elsewhere.seen().len(), files, "{:?}", elsewhere.seen());
        if case == "twin" {
            // A port that nobody named is not connected to.
            let site_again = site.by_hand(&registry, "docker_config = \"/etc/boltseal/docker.json\"\n");
            assert!(site_again.err.contains("ermission denied"), "{}", site_again.err);
        }
    }
}

#[test]
fn a_token_is_asked_for_with_the_registrys_own_credentials() {
    let site = Site::new();
    let shelf = Shelf::of(&["cosign3"]);
    let port = Arc::new(Mutex::new(0));
    let own = port.clone();
    let registry = Registry::start(&site, move |path, head| {
        if path.starts_with("/token?") {
            let asked =
                path.contains("service=reg&scope=repository%3Ateam%2Fapp%3Apull") && head.contains("Basic dTpw\r\n");
            return if asked { Reply::Body(br#"{"token":"t0k"}"#.to_vec()) } else { Reply::Status(401, Vec::new()) };
        }
        if head.contains("Authorization: Bearer t0k\r\n") {
            return shelf.get(path);
        }
        // It asks for more than is given.
        let realm = format!("https://127.0.0.1:{}/token", own.lock().unwrap());
        Reply::Status(
            401,
            vec![(
                "WWW-Authenticate",
                format!("Bearer realm=\"{realm}\",service=\"reg\",scope=\"repository:team/app:pull,push\""),
            )],
        )
    });
    *port.lock().unwrap() = registry.port;
    // Without credentials, with another registry's, and with its own: by the file, and by a helper, which runs as nobody.
    site.write("etc/boltseal/none.json", r#"{"auths":{"127.0.0.1:1":{"auth":"dTpw"}}}"#, 0o600);
    let of = |auth: Value| json!({ "auths": { format!("127.0.0.1:{}", registry.port): auth } }).to_string();
    site.write("etc/boltseal/own.json", &of(json!({ "username": "u", "password": "p" })), 0o600);
    site.write("etc/boltseal/helped.json", r#"{"credsStore":"test"}"#, 0o600);
    let script = "#!/bin/sh\nread server\n[ \"$1 $(id -u)\" = 'get 65534' ] || exit 1\necho \"{\\\"ServerURL\\\":\\\"$server\\\",\\\"Username\\\":\\\"u\\\",\\\"Secret\\\":\\\"p\\\"}\"\n";
    site.write("bin/docker-credential-test", script, 0o755);
    for (file, files) in [("none", 0), ("helped", 1), ("own", 1)] {
        let ran = site.verify(&registry, &format!("docker_config = \"/etc/boltseal/{file}.json\"\n"));
        stored(&ran, files);
    }
    assert!(
        registry.seen().iter().all(|line| !line.starts_with("/v2") || !line.contains("Basic")),
        "{:?}",
        registry.seen()
    );
}

#[test]
fn only_certificates_of_the_operators_authorities_count_and_there_is_no_way_around_tls() {
    let site = Site::new();
    let registry = Registry::start(&site, honest(Shelf::of(&["cosign3"])));
    let ran = site.by_hand(&registry, "ca = [\"/etc/boltseal/other.pem\"]\n");
    stored(&ran, 0);
    assert!(ran.err.contains("ertificate"), "{}", ran.err);
    stored(&site.by_hand(&registry, ""), 1);
    assert!(registry.seen().iter().all(|line| line.starts_with("/v2/team/app/")), "{:?}", registry.seen());
}

#[test]
fn a_proxy_is_used_and_passed_by() {
    let site = Site::new();
    let registry = Registry::start(&site, honest(Shelf::of(&["cosign3"])));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = listener.local_addr().unwrap().port();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            log.lock().unwrap().push(head.clone());
            let to = TcpStream::connect(head.split(' ').nth(1).unwrap()).unwrap();
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            let ways = [(client.try_clone().unwrap(), to.try_clone().unwrap()), (to, client)];
            for (mut from, mut to) in ways {
                thread::spawn(move || std::io::copy(&mut from, &mut to).map(drop).unwrap_or_default());
            }
        }
    });
    let config = format!("https_proxy = \"http://u:p@127.0.0.1:{proxy}\"\n");
    stored(&site.by_hand(&registry, &format!("{config}no_proxy = \"127.0.0.0/8\"\n")), 1);
    assert!(asked.lock().unwrap().is_empty());
    stored(&site.by_hand(&registry, &config), 1);
    let asked = asked.lock().unwrap();
    assert!(asked[0].starts_with(&format!("CONNECT 127.0.0.1:{} HTTP/1.1\r\n", registry.port)), "{asked:?}");
    assert!(asked[0].contains("Proxy-Authorization: Basic dTpw\r\n"), "{asked:?}");
}
