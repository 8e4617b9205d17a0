//! `boltseal node anchor`: a boot in the approved state signs the trail's head, another cannot.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod common;

use boltseal_audit::{Decision, Door, Entry, Trail};
use common::Node;
use std::fs;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct Tpm(Child);

impl Drop for Tpm {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        self.0.wait().map(drop).unwrap_or_default();
    }
}

#[test]
fn only_an_approved_boot_signs_the_trail() {
    let node = Node::new();
    let at = |name: &str| node.path(name).display().to_string();
    fs::create_dir(node.path("tpm")).unwrap();
    let child = Command::new("swtpm")
        .args(["socket", "--tpm2", "--flags", "startup-clear", "--tpmstate", &format!("dir={}", at("tpm"))])
        .args(["--server", &format!("type=unixio,path={}", at("tpm/s")), "--ctrl"])
        .arg(format!("type=unixio,path={}", at("tpm/c")))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("swtpm is installed");
    let _tpm = Tpm(child);
    let end = Instant::now() + Duration::from_secs(20);
    while UnixStream::connect(node.path("tpm/s")).is_err() {
        assert!(Instant::now() < end, "swtpm did not start");
        std::thread::sleep(Duration::from_millis(5));
    }
    let address = format!("unix:{}", at("tpm/s"));
    let extend = |value| boltseal_node::tpm::Tpm::open(&address, end).unwrap().extend(7, &[value; 32]).unwrap();
    extend(7);
    let made = Command::new("sh")
        .args(["-ec", "umask 077; openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out a.key; openssl pkey -in a.key -pubout -out a.pub"])
        .current_dir(node.dir.path())
        .status();
    assert!(made.unwrap().success());
    let denied = Entry { door: Some(Door::Create), decision: Some(Decision::Deny), ..Entry::default() };
    Trail::open(&node.trail()).unwrap().append(&denied).unwrap().sync.sync().unwrap();

    let anchor = |args: &[&str]| node.run(&[&["node", "anchor"], args].concat());
    let (code, key, err) = anchor(&["key", "--authority", &at("a.pub"), "--tpm", &address]);
    assert!(code == 0 && key.starts_with("-----BEGIN PUBLIC KEY-----"), "{err}");
    node.write("bound.pem", &key);
    assert_eq!(anchor(&["state", "--pcrs", "7", "--tpm", &address, "--out", &at("state")]).0, 0);
    assert_eq!(anchor(&["approve", &at("state"), "--key", &at("a.key"), "--out", &at("approval")]).0, 0);
    let sign =
        |approval: &str| anchor(&["sign", "--authority", &at("a.pub"), "--approval", &at(approval), "--tpm", &address]);
    let (code, signed, err) = sign("approval");
    assert_eq!(code, 0, "{err}");
    node.write("anchor", &signed);
    let (code, head, err) = anchor(&["check", &at("anchor"), "--key", &at("bound.pem")]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(node.run(&["audit", "verify", "--head", head.trim()]).0, 0, "{head}");

    // As the timer runs it: a file that grows by a line, and that is nothing else.
    let unit = include_str!("../../../integration/systemd/boltseal-anchor.service");
    let setting = |name: &str| unit.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    for folder in ["lib/boltseal/anchor", "log/boltseal-anchor"] {
        fs::create_dir(node.path(folder)).unwrap();
    }
    fs::copy(node.path("a.pub"), node.path("lib/boltseal/anchor/authority.pub")).unwrap();
    fs::copy(node.path("approval"), node.path("lib/boltseal/anchor/approval.json")).unwrap();
    let capabilities = setting("CapabilityBoundingSet=").to_lowercase().replace("cap_", "+").replace(' ', ",");
    let command = setting("ExecStart=/usr/local/bin/boltseal ");
    let before = format!("setpriv --bounding-set -all,{capabilities} --no-new-privs");
    let run = || node.shell(&format!("exec {before} \"$BIN\" {command} --tpm {address}"), &[]);
    let lines = || fs::read_to_string(node.path("log/boltseal-anchor/anchors.jsonl")).unwrap_or_default();
    for count in 1..=2 {
        let (code, out, err) = run();
        assert!(code == 0 && lines().lines().count() == count && lines().ends_with(&out), "{err}");
        node.write("anchor", lines().lines().last().unwrap());
        assert_eq!(anchor(&["check", &at("anchor"), "--key", &at("bound.pem")]).0, 0);
    }
    let (code, out, _) = node.run(&["audit", "verify"]);
    assert!(code == 0 && !out.contains("anchors"), "{out}");
    fs::remove_file(node.path("log/boltseal-anchor/anchors.jsonl")).unwrap();
    std::os::unix::fs::symlink(node.path("state"), node.path("log/boltseal-anchor/anchors.jsonl")).unwrap();
    let state = fs::read_to_string(node.path("state")).unwrap();
    let (code, out, err) = run();
    assert!(code == 3 && out.is_empty() && err.contains("anchors.jsonl"), "{err}");
    assert_eq!(fs::read_to_string(node.path("state")).unwrap(), state);

    // No approval, one by nobody, an anchor that was changed, another key.
    let (code, _, err) = sign("state");
    assert!(code == 1 && err.contains("no signature"), "{err}");
    node.write("painted", &fs::read_to_string(node.path("approval")).unwrap().replacen("\"7\"", "\"8\"", 1));
    let (code, _, err) = sign("painted");
    assert!(code == 1 && err.contains("not signed by the authority"), "{err}");
    node.write("changed", &signed.replacen("\"head\":\"", "\"head\":\"1", 1));
    let (code, _, err) = anchor(&["check", &at("changed"), "--key", &at("bound.pem")]);
    assert!(code == 1 && err.contains("not signed by this key"), "{err}");
    assert_eq!(anchor(&["check", &at("anchor"), "--key", &at("a.pub")]).0, 1);
    // Another state: the TPM refuses. Twin: that state, approved.
    extend(8);
    let (code, out, err) = sign("approval");
    assert!(code == 1 && out.is_empty() && err.contains("not in the approved state"), "{err}");
    assert_eq!(anchor(&["state", "--pcrs", "7", "--tpm", &address, "--out", &at("state2")]).0, 0);
    assert_eq!(anchor(&["approve", &at("state2"), "--key", &at("a.key"), "--out", &at("approval2")]).0, 0);
    let (code, signed, err) = sign("approval2");
    assert_eq!(code, 0, "{err}");
    node.write("anchor2", &signed);
    assert_eq!(anchor(&["check", &at("anchor2"), "--key", &at("bound.pem")]).0, 0);
}
