use super::*;
use crate::facts::BreakGlasses;
use crate::policy::{Level, Mode};
use crate::{Outcome, Verdict, decide, fixture};
use std::collections::BTreeMap;

const NOW: u64 = 1_795_392_000;

/// A pod whose owner is missing, and two of three keys that let it through here.
fn world() -> (Policy, Facts) {
    let (mut policy, mut facts) = (fixture::policy(), fixture::facts());
    policy.break_glass.keys = vec!["a.pub".into(), "b.pub".into(), "c.pub".into()];
    policy.break_glass.need = 2;
    facts.owner = Fact::Absent;
    facts.break_glass = BreakGlasses {
        found: vec![BreakGlass {
            id: "0123456789ab".into(),
            keys: fixture::set(&["aaaaaaaaaaaa", "bbbbbbbbbbbb"]),
            nodes: fixture::set(&["node-key"]),
            rules: BTreeMap::from([("BS-OWN-001".into(), fixture::set(&["missing"]))]),
            from: NOW - 60,
            until: NOW + 3600,
            reason: "the identity provider is down".into(),
        }],
        node: Some("node-key".into()),
        refused: Vec::new(),
    };
    (policy, facts)
}

fn allowed(change: impl Fn(&mut Policy, &mut Facts)) -> bool {
    let (mut policy, mut facts) = world();
    change(&mut policy, &mut facts);
    let allowed = matches!(decide(&policy, &facts), Verdict::Allow(_));
    assert!(!allowed || !in_force(&policy, &facts).is_empty());
    allowed
}

fn one(facts: &mut Facts) -> &mut BreakGlass {
    &mut facts.break_glass.found[0]
}

#[test]
fn a_record_says_who_let_it_through_until_when_and_why() {
    let (policy, facts) = world();
    let Verdict::Allow(permit) = decide(&policy, &facts) else { panic!("denied") };
    let found = permit.findings().iter().find(|f| f.rule == "BS-OWN-001").unwrap();
    let by = "break-glass 0123456789ab by aaaaaaaa and bbbbbbbb, until 2026-11-23T01:00:00Z";
    assert_eq!(found.outcome, Outcome::Excepted(by.into()));
    assert_eq!(in_force(&policy, &facts), [format!("{by}: the identity provider is down")]);
}

#[test]
fn enough_keys_this_node_and_now() {
    assert!(allowed(|_, _| {}));
    for (what, refused) in [
        ("one key", allowed(|_, f| drop(one(f).keys.pop_first()))),
        ("another node", allowed(|_, f| one(f).nodes = fixture::set(&["other"]))),
        ("no enrolled key", allowed(|_, f| f.break_glass.node = None)),
        ("not attested", allowed(|_, f| f.node = Fact::Unknown("x".into()))),
        ("no TPM", allowed(|_, f| f.node = Fact::Absent)),
        ("not yet", allowed(|_, f| one(f).from = NOW + 1)),
        ("over", allowed(|_, f| one(f).until = NOW)),
        ("no clock", allowed(|_, f| f.now = Fact::Unknown("x".into()))),
        ("longer than four hours", allowed(|_, f| one(f).until = NOW - 60 + 4 * 3600 + 1)),
        (
            "longer than the policy's",
            allowed(|p, f| {
                p.break_glass.max_hours = 1;
                one(f).until = NOW + 3600;
            }),
        ),
        (
            "the policy's hours are not above four",
            allowed(|p, f| {
                p.break_glass.max_hours = 24;
                one(f).until = NOW + 5 * 3600;
            }),
        ),
        ("the end before the beginning", allowed(|_, f| (one(f).from, one(f).until) = (NOW, NOW - 1))),
        ("no keys in the policy", allowed(|p, _| p.break_glass.keys.clear())),
        (
            "another rule",
            allowed(|_, f| one(f).rules = BTreeMap::from([("BS-IMG-003".into(), fixture::set(&["missing"]))])),
        ),
        (
            "another condition",
            allowed(|_, f| one(f).rules = BTreeMap::from([("BS-OWN-001".into(), fixture::set(&["unknown"]))])),
        ),
        ("nothing there", allowed(|_, f| f.break_glass.found.clear())),
    ] {
        assert!(!refused, "{what}");
    }
    // A file that nobody's keys speak for is not shown either.
    let (mut policy, facts) = world();
    policy.break_glass.keys.clear();
    assert!(in_force(&policy, &facts).is_empty());
    assert!(allowed(|_, f| one(f).until = NOW - 60 + 4 * 3600));
    assert!(allowed(|p, f| {
        p.break_glass.need = 3;
        one(f).keys.insert("cccc".into());
    }));
    // A node on which BS-NOD-001 only warns is not attested; one with a dated exception for its software TPM is.
    let software = |p: &mut Policy, f: &mut Facts| {
        if let Fact::Is(node) = &mut f.node {
            node.tpm = "software".into();
        }
        p.exceptions.push(fixture::exception("BS-NOD-001", Some("software-tpm")));
    };
    assert!(allowed(software));
    assert!(!allowed(|p, f| {
        software(p, f);
        p.exceptions.clear();
        p.modes.insert("BS-NOD-001".into(), Mode::Warn);
    }));
    assert!(!allowed(|p, f| {
        software(p, f);
        p.exceptions.clear();
        one(f).rules.insert("BS-NOD-001".into(), fixture::set(&["software-tpm"]));
    }));
}

/// Whatever is signed: the trail, the base filter, privileges, the node itself, the sensitive list, an unsigned policy.
#[test]
fn some_things_nobody_lets_through() {
    let (mut policy, mut facts) = world();
    policy.level = Level::Strict;
    for rule in rules::all() {
        let conditions = rule.conditions.iter().map(|(name, _)| (*name).to_owned()).collect();
        one(&mut facts).rules.insert(rule.id.into(), conditions);
    }
    let ctx = Ctx::new(&policy, &facts);
    let mut kept = Vec::new();
    for rule in rules::all() {
        for (condition, _) in rule.conditions {
            if lifts(&ctx, rule.id, condition).is_none() {
                assert!(never(rule.id, condition), "{} {condition}", rule.id);
                kept.push(format!("{} {condition}", rule.id));
            }
        }
    }
    for rule in ["BS-AUD-001", "BS-PRC-001", "BS-PRC-002", "BS-NOD-001"] {
        let all = rules::find(rule).unwrap().conditions.len();
        assert_eq!(kept.iter().filter(|line| line.starts_with(rule)).count(), all, "{rule}");
    }
    for line in ["BS-FSY-002 sensitive", "BS-FSY-002 sensitive-writable", "BS-NOD-004 policy-unsigned"] {
        let known = kept.iter().any(|kept| kept == line);
        assert!(known || line.starts_with("BS-NOD-004"), "{line}: {kept:?}");
    }
    assert!(kept.iter().any(|line| line.starts_with("BS-NOD-004")), "{kept:?}");
    assert!(!kept.iter().any(|line| line == "BS-FSY-002 host-folder"));
}
