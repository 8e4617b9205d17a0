//! `boltseal audit` as a process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod common;

use boltseal_audit::{Anomaly, Class, Decision, Door, Entry, Event, Finding, Outcome, Trail, What, Who};
use common::{Node, golden};
use std::fs;

fn finding(rule: &str, outcome: Outcome, fact: &str) -> Finding {
    Finding { rule: rule.into(), outcome, by: String::new(), condition: "c".into(), fact: fact.into() }
}

/// One refused and one started pod, a refused exec, an exit; nine kinds of hostile text.
fn node() -> Node {
    let node = Node::new();
    let trail = Trail::open(&node.trail()).unwrap();
    let what = What {
        handler: "boltseal".into(),
        namespace: "shop".into(),
        pod: "cart-7".into(),
        container: "app".into(),
        id: "c1".into(),
        image: "registry.test/shop/cart:1".into(),
        ..What::default()
    };
    let refused = Entry {
        decision: Some(Decision::Deny),
        door: Some(Door::Create),
        who: Who { owner: "team-shop".into() },
        what: what.clone(),
        findings: vec![
            finding("BS-IMG-001", Outcome::Deny, "no signature by \"ci\""),
            finding("BS-OWN-001", Outcome::Pass, "team-shop"),
            finding("BS-PRC-003", Outcome::Deny, "uid 0"),
        ],
        ..Entry::default()
    };
    let evil = What {
        id: "x\n ✓ 2026-01-01T00:00:00Z  allowed".into(),
        image: "\x1b[2J\u{202e}evil".into(),
        ..What::default()
    };
    let exec = Entry {
        ev: Event::Exec,
        decision: Some(Decision::Deny),
        door: Some(Door::Exec),
        who: Who { owner: "\x07bell".into() },
        what: evil,
        findings: vec![finding("BS-PRC-002", Outcome::Deny, "more\rthan")],
        ..Entry::default()
    };
    let allowed = Entry {
        decision: Some(Decision::Allow),
        findings: vec![finding("BS-MAC-001", Outcome::Excepted, "none")],
        ..refused.clone()
    };
    trail.append(&refused).unwrap().sync.sync().unwrap();
    let of = trail.append(&allowed).unwrap().id;
    for (ev, status) in [(Event::Started, None), (Event::Running, None), (Event::Exited, Some(137))] {
        trail
            .append(&Entry { ev, status, of: of.clone(), what: what.clone(), ..Entry::default() })
            .unwrap()
            .sync
            .sync()
            .unwrap();
    }
    trail.append(&exec).unwrap().sync.sync().unwrap();
    trail
        .append(&Entry { decision: Some(Decision::Allow), what: what.clone(), ..Entry::default() })
        .unwrap()
        .sync
        .sync()
        .unwrap();
    node
}

/// What differs from run to run.
fn steady(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let mut words = Vec::new();
        for word in line.split(' ') {
            let bytes = word.as_bytes();
            let time = bytes.len() >= 20 && bytes.starts_with(b"20") && bytes.get(10) == Some(&b'T');
            let sum = word.len() > 64 && word.contains(':') && word.rsplit(':').next().is_some_and(|h| h.len() == 64);
            words.push(if time {
                "TIME"
            } else if sum {
                "SEQ:SUM"
            } else {
                word
            });
        }
        out.push_str(words.join(" ").trim_end());
        out.push('\n');
    }
    out
}

#[test]
fn lists_what_happened_and_nothing_forges_a_line() {
    let node = node();
    let (code, out, err) = node.run(&["audit", "list"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(out.lines().count(), 8);
    assert!(out.chars().all(|c| c == '\n' || !c.is_control()) && !out.contains('\u{202e}'), "{out}");
    golden("audit-list.txt", &steady(&out));
}

#[test]
fn an_anomaly_is_told_in_one_line() {
    let node = Node::new();
    let trail = Trail::open(&node.trail()).unwrap();
    let one = Anomaly {
        class: Class::Syscall,
        refused: true,
        what: "mount".into(),
        comm: "sh".into(),
        executable: "/bin/sh".into(),
        count: 1,
        port_scan: 0,
    };
    let many =
        Anomaly { what: "mount, bpf".into(), comm: String::new(), executable: String::new(), count: 12, ..one.clone() };
    let seen = Anomaly { class: Class::ProtectedFile, refused: false, what: "/etc/shadow\n".into(), ..one.clone() };
    for (anomaly, pid) in [(one, Some(7)), (many, None), (seen, None)] {
        let entry = Entry { ev: Event::Anomaly, anomaly: Some(anomaly), pid, ..Entry::default() };
        trail.append(&entry).unwrap().sync.sync().unwrap();
    }
    let (code, out, _) = node.run(&["audit", "list"]);
    assert_eq!(code, 0);
    let lines: Vec<&str> = out.lines().skip(1).collect();
    for (line, end) in lines.iter().zip([
        "  syscall refused: mount by sh (/bin/sh, pid 7)",
        "  syscall refused: mount, bpf, 12 times",
        "  protected file seen: /etc/shadow<U+000A> by sh (/bin/sh)",
    ]) {
        assert!(
            line.trim_start().starts_with('!') && line.contains(" anomaly ") && line.trim_end().ends_with(end),
            "{line}"
        );
    }
}

/// What was let be is no alarm, and has the same form; a port scan says so.
#[test]
fn the_network_is_told_in_one_line() {
    let node = Node::new();
    let trail = Trail::open(&node.trail()).unwrap();
    let seen = Anomaly {
        class: Class::Listener,
        refused: false,
        what: "tcp 0.0.0.0:80".into(),
        comm: "nc".into(),
        executable: "/bin/nc".into(),
        count: 1,
        port_scan: 0,
    };
    let scan = Anomaly {
        class: Class::Destination,
        refused: true,
        what: "udp 10.0.0.1:53".into(),
        port_scan: 20,
        ..seen.clone()
    };
    for entry in [
        Entry { ev: Event::Network, network: Some(seen), pid: Some(7), ..Entry::default() },
        Entry { ev: Event::Anomaly, anomaly: Some(scan), ..Entry::default() },
    ] {
        trail.append(&entry).unwrap().sync.sync().unwrap();
    }
    let (code, out, _) = node.run(&["audit", "list"]);
    assert_eq!(code, 0);
    for (line, (mark, event, end)) in out.lines().skip(1).zip([
        ('·', " network ", "  listener seen: tcp 0.0.0.0:80 by nc (/bin/nc, pid 7)"),
        (
            '!',
            " anomaly ",
            "  destination refused: udp 10.0.0.1:53 by nc (/bin/nc), port scan: 20 destinations within a minute",
        ),
    ]) {
        assert!(
            line.trim_start().starts_with(mark) && line.contains(event) && line.trim_end().ends_with(end),
            "{line}"
        );
    }
}

#[test]
fn filters() {
    let node = node();
    for (args, count) in [
        (&["--denied"][..], 2),
        (&["--rule", "BS-IMG-001"], 1),
        (&["--rule", "bs-prc-003", "--denied"], 1),
        (&["--rule", "BS-OWN-001"], 0),
        (&["--rule", "BS-MAC-001"], 1),
        (&["--owner", "team-shop"], 2),
        (&["--image", "shop/cart"], 6),
        (&["--since", "1h"], 7),
        (&["--since", "2999-01-01"], 0),
    ] {
        let mut all = vec!["-o", "json", "audit", "list"];
        all.extend(args);
        let (code, out, err) = node.run(&all);
        assert_eq!((code, err.as_str(), out.lines().count()), (0, "", count), "{args:?}");
        for line in out.lines() {
            let record: boltseal_audit::Record = serde_json::from_str(line).unwrap();
            assert!(record.seq >= 1);
        }
    }
    let (_, out, _) = node.run(&["audit", "list", "-o", "json", "--denied", "--rule", "BS-PRC-002"]);
    let record: boltseal_audit::Record = serde_json::from_str(out.trim()).unwrap();
    let (_, out, _) = node.run(&["audit", "list", "-o", "json", "--id", &record.id]);
    assert_eq!(out.lines().count(), 1);
}

#[test]
fn usage_errors_are_2() {
    let node = node();
    for args in [
        &["audit"][..],
        &["audit", "list", "--since", "soon"],
        &["audit", "list", "--colour"],
        &["audit", "verify", "--head", "7:xyz"],
        &["audit", "list", "-o", "yaml"],
        &["frobnicate"],
        &[],
    ] {
        let (code, out, err) = node.run(args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?} {err}");
        assert!(!err.is_empty(), "{args:?}");
    }
    assert_eq!(node.run(&["--help"]).0, 0);
    assert_eq!(node.run(&["--version"]).0, 0);
}

#[test]
fn verify_tells_whole_from_changed() {
    let node = node();
    let (code, out, err) = node.run(&["audit", "verify"]);
    assert_eq!((code, err.as_str()), (0, ""));
    golden("audit-verify.txt", &steady(&out));
    let (code, out, _) = node.run(&["audit", "verify", "-o", "json"]);
    assert_eq!(code, 0);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&report["records"], &report["refused"], &report["started"]), (&7.into(), &2.into(), &1.into()));
    let head = format!("{}:{}", report["head"]["seq"], report["head"]["sum"].as_str().unwrap());

    let (code, out, _) = node.run(&["audit", "verify", "--head", &head]);
    assert_eq!(code, 0);
    assert!(out.contains("it holds the kept head"), "{out}");

    let file = node.trail().join("audit-000000000001.jsonl");
    let whole = fs::read_to_string(&file).unwrap();
    // Cut: whole by itself, not against the head.
    let shorter: String = whole.lines().take(5).map(|l| format!("{l}\n")).collect();
    fs::write(&file, shorter).unwrap();
    assert_eq!(node.run(&["audit", "verify"]).0, 0);
    let (code, out, _) = node.run(&["audit", "verify", "--head", &head]);
    assert_eq!(code, 1);
    assert!(out.contains("cut or rewritten"), "{out}");
    // Changed.
    fs::write(&file, whole.replacen("team-shop", "team-show", 1)).unwrap();
    for form in ["table", "json"] {
        let (code, out, _) = node.run(&["-o", form, "audit", "verify"]);
        assert_eq!(code, 1, "{out}");
    }
    let (_, out, _) = node.run(&["audit", "verify"]);
    // A record's time of boot has more digits the longer the machine runs.
    let length = whole.lines().find(|line| line.contains("team-shop")).unwrap().len() + 1;
    golden("audit-damaged.txt", &steady(&out).replace(&format!("{length} bytes"), "N bytes"));
    // A line that is no record shows in the list too.
    let (code, _, err) = node.run(&["audit", "list"]);
    assert_eq!(code, 1);
    assert_eq!(err, "boltseal: 1 line is no record. Fix: look with `boltseal audit verify`\n");
}

#[test]
fn what_cannot_be_read_is_3() {
    let node = Node::new();
    assert_eq!(node.run(&["audit", "verify"]).0, 3, "an empty trail proves nothing");
    assert_eq!(node.run(&["audit", "list"]).0, 0);
    fs::remove_dir(node.trail()).unwrap();
    for command in ["list", "verify"] {
        for form in ["table", "json"] {
            let (code, _, err) = node.run(&["-o", form, "audit", command]);
            assert_eq!(code, 3);
            assert_eq!(
                err,
                "boltseal: audit folder: /var/log/boltseal is missing. Fix: install -d -m 0700 /var/log/boltseal\n"
            );
        }
    }
}

#[test]
fn a_reader_that_goes_away_gets_no_complaint() {
    let node = node();
    let (_, out, err) =
        node.shell("for i in 1 2 3; do \"$BIN\" audit list; done | head -n 1; \"$BIN\" audit list | true", &[]);
    assert_eq!((out.lines().count(), err.as_str()), (1, ""));
}

#[test]
fn colour_only_where_it_is_seen() {
    let mut node = node();
    let script = "exec script -qec \"$BIN audit verify\" /dev/null";
    let (_, out, _) = node.shell(script, &[]);
    assert!(out.contains("\x1b[32m✓\x1b[0m"), "{out:?}");
    node.env.push(("NO_COLOR", "1"));
    let (_, out, _) = node.shell(script, &[]);
    assert!(out.contains('✓') && !out.contains('\x1b'), "{out:?}");
}
