//! `boltseal policy sign`, `trust` and `apply` as processes: what one signs, another node takes; anything else it does not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod common;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::Node;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use std::fs;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A policy that any node can enforce, and a mark to tell one from another.
fn policy(mark: &str) -> String {
    format!("version = 1\nlevel = \"observe\"\n[owner]\npatterns = [\"{mark}\"]\n")
}

/// `name.key` and `name.pub` in the node's folder.
fn author(node: &Node, name: &str) {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).unwrap();
    let pem = |what: &str, der: &[u8]| {
        format!("-----BEGIN {what} KEY-----\n{}\n-----END {what} KEY-----\n", STANDARD.encode(der))
    };
    node.write(&format!("{name}.key"), &pem("PRIVATE", pkcs8.as_ref()));
    node.write(&format!("{name}.pub"), &pem("PUBLIC", &[&SPKI, pair.public_key().as_ref()].concat()));
}

struct World {
    node: Node,
    swtpm: Child,
}

impl Drop for World {
    fn drop(&mut self) {
        self.swtpm.kill().unwrap_or_default();
        self.swtpm.wait().map(drop).unwrap_or_default();
    }
}

impl World {
    /// A node with an unsigned policy in force, a software TPM, and two authors.
    fn new() -> Self {
        let node = Node::new();
        node.write("etc/boltseal/policy.toml", &policy("first"));
        for name in ["ci", "mallory"] {
            author(&node, name);
        }
        fs::create_dir(node.path("tpm")).unwrap();
        let tpm = node.path("tpm").display().to_string();
        let swtpm = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "startup-clear", "--tpmstate", &format!("dir={tpm}")])
            .args([
                "--server",
                &format!("type=unixio,path={tpm}/sock"),
                "--ctrl",
                &format!("type=unixio,path={tpm}/ctrl"),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("swtpm is installed");
        let end = Instant::now() + Duration::from_secs(10);
        while UnixStream::connect(node.path("tpm/sock")).is_err() {
            assert!(Instant::now() < end, "swtpm did not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { node, swtpm }
    }

    fn path(&self, name: &str) -> String {
        self.node.path(name).display().to_string()
    }

    /// `new/`: a policy to sign and apply.
    fn draft(&self, mark: &str) -> String {
        self.node.write("new/policy.toml", &policy(mark));
        self.path("new")
    }

    fn run(&self, args: &[&str]) -> (i32, String) {
        let (code, out, err) = self.node.run(args);
        (code, out + &err)
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let (code, said) = self.run(args);
        assert_eq!(code, 0, "{args:?}: {said}");
        said
    }

    #[track_caller]
    fn fails(&self, args: &[&str], code: i32, says: &str) {
        let in_force = self.in_force();
        let (found, said) = self.run(args);
        assert_eq!(found, code, "{args:?}: {said}");
        assert!(said.contains(says), "wanted {says:?}: {said}");
        assert_eq!(self.in_force(), in_force, "{args:?} changed the policy in force");
    }

    fn sign(&self, author: &str, more: &[&str]) -> String {
        let (new, key) = (self.path("new"), self.path(&format!("{author}.key")));
        self.ok(&[&["policy", "sign", &new, "--key", &key], more].concat())
    }

    fn trust(&self) -> String {
        let tpm = format!("unix:{}", self.path("tpm/sock"));
        self.ok(&["policy", "trust", &self.path("ci.pub"), "--tpm", &tpm])
    }

    /// All of /etc/boltseal.
    fn in_force(&self) -> Vec<(String, Vec<u8>)> {
        let mut out = Vec::new();
        for entry in fs::read_dir(self.node.path("etc/boltseal")).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                out.push((path.display().to_string(), fs::read(&path).unwrap()));
            }
        }
        out.sort();
        out
    }

    fn mark(&self) -> String {
        let text = fs::read_to_string(self.node.path("etc/boltseal/policy.toml")).unwrap();
        text.split('"').nth(3).unwrap().to_owned()
    }
}

#[test]
fn a_signed_policy_takes_the_place_of_the_one_before() {
    let world = World::new();
    world.trust();
    let new = world.draft("second");
    world.node.write("new/trust/ci.pem", &fs::read_to_string(world.path("ci.pub")).unwrap());
    world.node.write("new/policy.d/a.toml", "[limits]\npids = 7\n");
    assert!(world.sign("ci", &[]).contains("version 1"));
    // In a boot in which nothing has started yet.
    fs::remove_dir(world.path("run/boltseal")).unwrap();
    // Tried first: nothing changes.
    let before = world.in_force();
    let said = world.ok(&["policy", "apply", &new, "--dry-run"]);
    assert!(said.contains("version 1: nothing changed; nothing runs"), "{said}");
    assert_eq!(world.in_force(), before);
    let said = world.ok(&["policy", "apply", &new]);
    assert!(said.contains("version 1: in force"), "{said}");
    assert_eq!(world.mark(), "second");
    for name in ["etc/boltseal", "lib/boltseal/policy"] {
        for file in ["policy.toml", "policy.d/a.toml", "trust/ci.pem", "bundle.sig"] {
            let (copy, original) = (fs::read(world.path(&format!("{name}/{file}"))), fs::read(format!("{new}/{file}")));
            assert_eq!(copy.unwrap(), original.unwrap(), "{name}/{file}");
        }
    }
    assert_eq!(fs::read_dir(world.node.path("etc")).unwrap().count(), 1, "nothing is left beside it");
    let (_, said) = world.run(&["policy", "lint"]);
    assert!(said.contains("version 1, signed by the pinned key; the floor is 1"), "{said}");
    // The same once more is no harm: the floor is what it was.
    world.ok(&["policy", "apply", &new]);
}

#[test]
fn an_older_signed_policy_put_back_is_refused() {
    let world = World::new();
    world.trust();
    let new = world.draft("second");
    world.sign("ci", &[]);
    world.ok(&["policy", "apply", &new]);
    let old = fs::read(format!("{new}/bundle.sig")).unwrap();
    world.draft("third");
    world.sign("ci", &["--number", "5"]);
    world.ok(&["policy", "apply", &new]);
    // By the command, and behind its back; with the note of this boot and without.
    let third = (world.in_force(), fs::read(format!("{new}/bundle.sig")).unwrap());
    world.draft("second");
    fs::write(format!("{new}/bundle.sig"), &old).unwrap();
    for _ in 0..2 {
        world.fails(&["policy", "apply", &new], 4, "version 1; this node takes 5 and above");
        fs::remove_file(world.path("run/boltseal/floor")).unwrap();
    }
    for (name, bytes) in [("policy.toml", policy("second").into_bytes()), ("bundle.sig", old)] {
        fs::write(world.path(&format!("etc/boltseal/{name}")), bytes).unwrap();
    }
    let (_, said) = world.run(&["policy", "lint"]);
    assert!(said.contains("version 1 is below the floor, 5: it is not in force"), "{said}");
    // A newer one, numbered on from there.
    world.draft("fourth");
    fs::write(format!("{new}/bundle.sig"), &third.1).unwrap();
    assert!(world.sign("ci", &[]).contains("version 6"));
    world.ok(&["policy", "apply", &new]);
    assert_eq!(world.mark(), "fourth");
}

#[test]
fn what_does_not_load_or_is_not_signed_changes_nothing() {
    let world = World::new();
    world.trust();
    let new = world.draft("second");
    world.fails(&["policy", "apply", &new], 4, "no bundle.sig");
    world.sign("ci", &[]);
    // One byte changed, a file more, a file less.
    world.draft("secund");
    world.fails(&["policy", "apply", &new], 4, "other files");
    world.draft("second");
    world.node.write("new/trust/x.pem", "");
    world.fails(&["policy", "apply", &new], 4, "other files");
    fs::remove_file(format!("{new}/trust/x.pem")).unwrap();
    world.ok(&["policy", "apply", &new, "--dry-run"]);
    // Somebody else's signature.
    world.sign("mallory", &["--number", "9"]);
    world.fails(&["policy", "apply", &new], 4, "not by the pinned one");
    // What does not load is neither signed nor applied.
    for (text, says) in [("version = ", "policy.toml"), ("version = 1\ncolour = 1", "unknown field `colour`")] {
        world.node.write("new/policy.toml", text);
        world.fails(&["policy", "apply", &new], 4, says);
        let key = world.path("ci.key");
        world.fails(&["policy", "sign", &new, "--key", &key], 4, says);
    }
    world.fails(&["policy", "apply", "/etc/boltseal"], 2, "is where it goes");
    world.fails(&["policy", "apply", "/nonexistent"], 4, "does not exist");
}

#[test]
fn the_last_good_policy_judges_where_the_first_does_not_load() {
    let world = World::new();
    world.trust();
    let new = world.draft("second");
    world.sign("ci", &[]);
    world.ok(&["policy", "apply", &new]);
    let bundle = world.path("oci");
    world.node.write("oci/config.json", include_str!("config.json"));
    let judged = |says: &str| {
        let (_, said) = world.run(&["check", &bundle]);
        let line = said.lines().find(|line| line.contains("BS-NOD-004")).unwrap_or_else(|| panic!("{said}"));
        assert!(line.contains(says), "{line}");
        said
    };
    assert!(!judged("is version 1, signed by").contains("last good"));
    for text in ["version = ", &policy("mallory")] {
        world.node.write("etc/boltseal/policy.toml", text);
        assert!(judged("is version 1, signed by").contains("the last good policy is in force"));
        // Lint tells of what lies there.
        let (code, said) = world.run(&["policy", "lint"]);
        assert!(code == 4 || said.contains("it is not in force"), "{said}");
    }
    // One that was tampered with, too, is none.
    world.node.write("lib/boltseal/policy/policy.toml", &policy("mallory"));
    judged("bundle.sig is over other files");
    world.node.write("etc/boltseal/policy.toml", "version = ");
    assert_eq!(world.run(&["check", &bundle]).0, 4);
}

/// As with a key in a security module: openssl stands for its tool.
#[test]
fn a_key_that_is_elsewhere_signs_in_two_steps() {
    let world = World::new();
    world.trust();
    let new = world.draft("second");
    let (public, made) = (world.path("ci.pub"), world.path("made"));
    let (code, statement, _) = world.node.run(&["policy", "sign", &new, "--public", &public]);
    assert_eq!((code, statement.lines().count()), (0, 4));
    world.node.write("statement", &statement);
    let status = Command::new("openssl")
        .args(["dgst", "-sha256", "-sign", &world.path("ci.key"), "-out", &made, &world.path("statement")])
        .status();
    assert!(status.unwrap().success());
    let finish = ["policy", "sign", &new, "--public", &public, "--signature", &made];
    assert!(world.ok(&finish).contains("version 1"));
    world.ok(&["policy", "apply", &new]);
    // A signature over another version, other files, or by another key is not put in place.
    world.fails(&finish, 1, "does not verify");
    fs::remove_file(format!("{new}/bundle.sig")).unwrap();
    world.draft("third");
    world.fails(&finish, 1, "does not verify");
    world.draft("second");
    let stranger = world.path("mallory.pub");
    world.fails(&["policy", "sign", &new, "--public", &stranger, "--signature", &made], 1, "does not verify");
    world.fails(&["policy", "sign", &new], 2, "--key");
    world.fails(&["policy", "sign", &new, "--key", &world.path("ci.key"), "--public", &public], 2, "--public");
}

#[test]
fn versions_go_up_and_keys_are_keys() {
    let world = World::new();
    let new = world.draft("second");
    world.sign("ci", &["--number", "3"]);
    let key = world.path("ci.key");
    for number in ["0", "2", "3", "1000001"] {
        world.fails(&["policy", "sign", &new, "--key", &key, "--number", number], 2, "versions go up");
    }
    assert!(world.sign("ci", &[]).contains("version 4"));
    for (text, says) in [
        ("", "not one PEM block"),
        ("-----BEGIN PRIVATE KEY-----\n*\n-----END PRIVATE KEY-----", "not base64"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "not a P-256 key"),
        ("-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----", "not one PEM block"),
    ] {
        world.node.write("bad.key", text);
        world.fails(&["policy", "sign", &new, "--key", &world.path("bad.key")], 3, says);
    }
    world.fails(&["policy", "trust", &key, "--no-floor"], 4, "not one PEM block PUBLIC KEY");
}

#[test]
fn a_pin_is_not_changed_unasked_and_its_floor_stays() {
    let world = World::new();
    world.trust();
    let pinned = fs::read(world.path("lib/boltseal/signer")).unwrap();
    let tpm = format!("unix:{}", world.path("tpm/sock"));
    let (ci, mallory) = (world.path("ci.pub"), world.path("mallory.pub"));
    world.fails(&["policy", "trust", &mallory, "--tpm", &tpm], 1, "pins key");
    assert_eq!(fs::read(world.path("lib/boltseal/signer")).unwrap(), pinned);
    let new = world.draft("second");
    world.sign("ci", &["--number", "4"]);
    world.ok(&["policy", "apply", &new]);
    // Pinned once more, or another key: what was refused stays refused.
    world.fails(&["policy", "trust", &ci, "--no-floor"], 1, "keeps a floor");
    world.ok(&["policy", "trust", &ci]);
    assert_eq!(fs::read(world.path("lib/boltseal/signer")).unwrap(), pinned);
    world.ok(&["policy", "trust", &mallory, "--replace"]);
    fs::remove_file(format!("{new}/bundle.sig")).unwrap();
    world.sign("mallory", &["--number", "3"]);
    world.fails(&["policy", "apply", &new], 4, "this node takes 4 and above");
    // A pin that somebody else wrote is no pin, and not none.
    world.node.write("lib/boltseal/signer", "key");
    world.fails(&["policy", "apply", &new], 3, "is not what `boltseal policy trust` writes");
    world.fails(&["policy", "trust", &ci, "--tpm", &tpm], 3, "--replace");
    world.ok(&["policy", "trust", &ci, "--tpm", &tpm, "--replace"]);
}

#[test]
fn a_tpm_that_is_gone_leaves_the_policy_as_it_was() {
    let mut world = World::new();
    world.trust();
    let new = world.draft("second");
    world.sign("ci", &[]);
    world.swtpm.kill().unwrap();
    world.swtpm.wait().unwrap();
    world.fails(&["policy", "apply", &new], 3, "cannot be reached");
    let (_, said) = world.run(&["policy", "lint"]);
    assert!(said.contains("not signed, although this node pins a key"), "{said}");
}

#[test]
fn without_a_pin_whoever_is_root_says_what_holds() {
    let world = World::new();
    let new = world.draft("second");
    let said = world.ok(&["policy", "apply", &new]);
    assert!(said.contains("not signed: this node pins no key: in force"), "{said}");
    assert_eq!(world.mark(), "second");
    // Without a floor it says so, and an older version is as good.
    let said = world.ok(&["policy", "trust", &world.path("ci.pub"), "--no-floor"]);
    assert!(said.contains("no floor"), "{said}");
    world.sign("ci", &["--number", "2"]);
    world.ok(&["policy", "apply", &new]);
    let (_, said) = world.run(&["policy", "lint"]);
    assert!(said.contains("version 2, signed by the pinned key; no floor is kept"), "{said}");
    fs::remove_file(format!("{new}/bundle.sig")).unwrap();
    world.sign("ci", &["--number", "1"]);
    world.ok(&["policy", "apply", &new]);
}
