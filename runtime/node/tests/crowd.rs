//! Many starts at once make one attestation between them: as threads, and as processes of their own.
//!
//! Has its own main: this program is also the process that each of the many is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod common;

use boltseal_node::{Boot, NodePolicy, check};
use common::{DIGEST, Node, Proxy, TTL, denied, passes, soon};
use std::process::{Command, ExitCode, Stdio};

const CROWD: usize = 20;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, role, dir, tpm, key, pcrs] = &arguments[..]
        && role == "one-start"
    {
        return one_start(dir, tpm, key, pcrs);
    }
    for (name, test) in [
        ("threads_share_one_quote", threads_share_one_quote as fn()),
        ("processes_share_one_quote", processes_share_one_quote),
        ("a_crowd_on_a_wrong_node_is_denied_to_the_last", a_crowd_on_a_wrong_node_is_denied_to_the_last),
    ] {
        test();
        println!("test {name} ... ok");
    }
    ExitCode::SUCCESS
}

fn one_start(dir: &str, tpm: &str, key: &str, pcrs: &str) -> ExitCode {
    let policy =
        NodePolicy { tpm, ak_spki_pem: key, pcrs: serde_json::from_str(pcrs).unwrap(), log: None, cap: None, ttl: TTL };
    let state = check(dir.as_ref(), &policy, DIGEST, &Boot::current().unwrap(), soon());
    println!("{} {:?}", if state.fresh { "asked" } else { "kept" }, state.problems);
    if state.verified { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn behind_a_proxy() -> (Node, Proxy) {
    let mut node = Node::new();
    let proxy = Proxy::new(&node.swtpm);
    node.tpm = proxy.server.address();
    (node, proxy)
}

fn threads_share_one_quote() {
    let (node, proxy) = behind_a_proxy();
    let states: Vec<_> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..CROWD).map(|_| scope.spawn(|| node.check())).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    states.iter().for_each(passes);
    assert_eq!(states.iter().filter(|s| s.fresh).count(), 1);
    assert_eq!(proxy.quotes(), 1);
}

fn processes_share_one_quote() {
    let (node, proxy) = behind_a_proxy();
    let outputs = crowd(&node);
    for (ok, said) in &outputs {
        assert!(ok, "{said}");
    }
    assert_eq!(outputs.iter().filter(|(_, said)| said.starts_with("asked")).count(), 1);
    assert_eq!(proxy.quotes(), 1);
    passes(&node.check());
}

/// Failures are not kept, so each of them asks, one after the other, and each is denied.
fn a_crowd_on_a_wrong_node_is_denied_to_the_last() {
    let (node, proxy) = behind_a_proxy();
    node.swtpm.extend(4, 0x66);
    for (ok, said) in &crowd(&node) {
        assert!(!ok && said.contains("PCR 4 is "), "{said}");
    }
    assert_eq!(proxy.quotes(), CROWD);
    denied(&node.check(), "PCR 4 is ");
}

/// (succeeded, what it printed) of each.
fn crowd(node: &Node) -> Vec<(bool, String)> {
    let all: Vec<_> = (0..CROWD)
        .map(|_| {
            Command::new(std::env::current_exe().unwrap())
                .arg("one-start")
                .arg(node.dir.path())
                .args([&node.tpm, &node.enrolment.ak_spki_pem])
                .arg(serde_json::to_string(&node.pcrs).unwrap())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    all.into_iter()
        .map(|one| one.wait_with_output().unwrap())
        .map(|out| (out.status.success(), String::from_utf8(out.stdout).unwrap()))
        .collect()
}
