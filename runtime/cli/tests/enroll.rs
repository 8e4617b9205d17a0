//! `boltseal node enroll request|approve|complete|confirm` with a software TPM that a local maker certified.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod common;

use common::Node;
use std::fs;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A software TPM below `name` in the node's folder, made by a maker of its own.
struct Tpm(Child);

impl Drop for Tpm {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        self.0.wait().map(drop).unwrap_or_default();
    }
}

fn certified(node: &Node, name: &str) -> (Tpm, String) {
    let dir = node.path(name);
    fs::create_dir_all(dir.join("state")).unwrap();
    let d = dir.display().to_string();
    let ca =
        format!("statedir = {d}\nsigningkey = {d}/signkey.pem\nissuercert = {d}/issuer.pem\ncertserial = {d}/serial\n");
    fs::write(dir.join("ca.conf"), ca).unwrap();
    fs::write(dir.join("ca.options"), "--platform-manufacturer t\n--platform-version 1\n--platform-model t\n").unwrap();
    let setup = format!(
        "create_certs_tool=/usr/bin/swtpm_localca\ncreate_certs_tool_config={d}/ca.conf\ncreate_certs_tool_options={d}/ca.options\nactive_pcr_banks = sha256\n"
    );
    fs::write(dir.join("setup.conf"), setup).unwrap();
    let made = Command::new("swtpm_setup")
        .args(["--tpm2", "--createek", "--create-ek-cert", "--config", &format!("{d}/setup.conf")])
        .args(["--tpmstate", &format!("{d}/state")])
        .output()
        .expect("swtpm_setup is installed");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
    let child = Command::new("swtpm")
        .args(["socket", "--tpm2", "--flags", "startup-clear", "--tpmstate", &format!("dir={d}/state")])
        .args(["--server", &format!("type=unixio,path={d}/tpm"), "--ctrl", &format!("type=unixio,path={d}/control")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let tpm = Tpm(child);
    let end = Instant::now() + Duration::from_secs(20);
    while UnixStream::connect(dir.join("tpm")).is_err() {
        assert!(Instant::now() < end, "swtpm did not start");
        std::thread::sleep(Duration::from_millis(5));
    }
    let address = format!("unix:{d}/tpm");
    let mut client = boltseal_node::tpm::Tpm::open(&address, end).unwrap();
    client.extend(7, &[7; 32]).unwrap();
    (tpm, address)
}

#[test]
fn two_parties_enrol_a_node_by_files() {
    let node = Node::new();
    let (_tpm, address) = certified(&node, "a");
    let (_other, elsewhere) = certified(&node, "b");
    let at = |name: &str| node.path(name).display().to_string();
    let (roots, between) = (at("a/swtpm-localca-rootca-cert.pem"), at("a/issuer.pem"));
    fs::create_dir(node.path("out")).unwrap();
    let (code, _, err) =
        node.run(&["node", "enroll", "request", "--node", "rack1-n1", "--tpm", &address, "--out", &at("r1")]);
    assert_eq!(code, 0, "{err}");
    let again = node.run(&["node", "enroll", "request", "--node", "rack1-n1", "--tpm", &address, "--out", &at("r1")]);
    assert!(again.0 == 3 && again.2.contains("not there yet"), "{again:?}");
    node.run(&["node", "enroll", "request", "--node", "rack1-n2", "--tpm", &elsewhere, "--out", &at("r2")]);
    node.run(&["node", "enroll", "request", "--node", "rack2-n1", "--tpm", &address, "--out", &at("r3")]);

    // Off the node: one batch; another maker's TPM and a name outside the pattern are refused, the rest is approved.
    let files = [at("r1"), at("r2"), at("r3")];
    let mut args = vec!["node", "enroll", "approve", "--ek-roots", &roots, "--ek-intermediates", &between];
    let out = at("out");
    args.extend(["--node", "rack1-*", "--out", &out]);
    args.extend(files.iter().map(String::as_str));
    let (code, said, err) = node.run(&args);
    assert_eq!(code, 1, "{said}{err}");
    assert!(said.contains("✓ rack1-n1: endorsement certificate"), "{said}");
    assert!(said.contains("r2: the TPM's endorsement certificate does not lead to a given root"), "{said}");
    assert!(said.contains("r3: its name \"rack2-n1\" does not match"), "{said}");
    assert!(!node.path("out/rack1-n2.approval.json").exists() && !node.path("out/rack2-n1.approval.json").exists());
    assert_eq!(node.run(&["node", "enroll", "approve", "--ek-roots", &at("r1"), "--out", &out, &at("r1")]).0, 2);

    // On the node, with its own TPM and with another.
    let (approval, proof) = (at("out/rack1-n1.approval.json"), at("proof"));
    let (code, _, err) = node.run(&["node", "enroll", "complete", &approval, "--tpm", &elsewhere, "--out", &proof]);
    assert!(code == 1 && err.contains("another attestation key"), "{err}");
    assert!(!node.path("proof").exists());
    let (code, _, err) = node.run(&["node", "enroll", "complete", &approval, "--tpm", &address, "--out", &proof]);
    assert_eq!(code, 0, "{err}");

    // Off the node again: the key, and a policy that says how it came.
    let pending = at("out/rack1-n1.pending.json");
    let key = at("rack1-n1.pem");
    let (code, part, err) =
        node.run(&["node", "enroll", "confirm", &pending, &proof, "--pcrs", "7", "--write-key", &key]);
    assert_eq!(code, 0, "{err}");
    assert!(part.contains("enrolled = \"certified\"") && part.contains("attestation_key = \"rack1-n1.pem\""), "{part}");
    let policy = boltseal_policy::Policy::parse(&format!("version = 1\n{part}"), &[]).unwrap();
    assert_eq!((policy.validate(), policy.node.pcrs.len()), (vec![], 1));
    assert!(fs::read_to_string(&key).unwrap().starts_with("-----BEGIN PUBLIC KEY-----"));
    // A proof of which one digit was changed.
    let text = fs::read_to_string(&proof).unwrap();
    let start = text.find("\"proof\":\"").unwrap() + 9;
    let digit = if text[start..].starts_with('0') { "1" } else { "0" };
    fs::write(node.path("bad"), format!("{}{digit}{}", &text[..start], &text[start + 1..])).unwrap();
    let (code, _, err) = node.run(&["node", "enroll", "confirm", &pending, &at("bad")]);
    assert!(code == 1 && err.contains("the proof is wrong"), "{err}");
    assert_eq!(node.run(&["node", "enroll", "confirm", &pending, &pending]).0, 3, "not a proof at all");
}
