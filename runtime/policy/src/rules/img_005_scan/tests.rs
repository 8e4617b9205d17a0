//! The truth table of BS-IMG-005.
use super::super::outcomes;
use super::*;
use crate::policy::{AgeRules, AgeSource};
use crate::{Facts, Policy, fixture};
use Severity::{Critical, High, Low, Medium, Unknown};

/// Now is 2026-11-23; the fixture's scan is of the 22nd, by the scanner's own key, and found nothing.
fn table(change: impl Fn(&mut Policy, &mut Facts)) -> String {
    let (mut policy, mut facts) = (fixture::policy(), fixture::facts());
    fixture::gated(&mut policy, &mut facts);
    change(&mut policy, &mut facts);
    outcomes(&RULE, &policy, &facts).join("; ")
}

fn rules(policy: &mut Policy) -> &mut ScanRules {
    policy.image.vulnerabilities.as_mut().unwrap()
}

fn statement(facts: &mut Facts) -> &mut Attestation {
    let Fact::Is(image) = &mut facts.image else { panic!() };
    image.attestations.iter_mut().find(|a| a.predicate_type == KIND).unwrap()
}

fn scan(facts: &mut Facts) -> &mut Report {
    let Fact::Is(Said::Scan(scan)) = &mut statement(facts).says else { panic!() };
    scan
}

fn finds(facts: &mut Facts, found: &[(&str, Severity)]) {
    let scan = scan(facts);
    scan.found = found.iter().map(|(id, severity)| ((*id).to_owned(), *severity)).collect();
    for (_, severity) in found {
        *scan.counts.entry(*severity).or_default() += 1;
    }
}

#[test]
fn whose_scan_it_is() {
    assert_eq!(table(|_, _| {}), "pass");
    assert_eq!(table(|p, _| p.image.vulnerabilities = None), "pass");
    assert_eq!(table(|_, f| statement(f).predicate_type = "https://spdx.dev/Document".into()), "deny no-scan");
    assert_eq!(table(|_, f| statement(f).authority = "ci".into()), "deny no-scan");
    assert_eq!(table(|p, _| rules(p).authorities = vec!["ci".into()]), "deny no-scan");
    assert_eq!(table(|p, _| p.authorities.retain(|a| a.name != "scanner")), "deny no-scan");
    assert_eq!(table(|_, f| statement(f).digest = fixture::digest('d')), "deny no-scan");
    assert_eq!(table(|_, f| statement(f).digest = fixture::digest('b')), "pass");
    assert_eq!(table(|_, f| statement(f).key = "1".repeat(64)), "deny build-key");
    // Of one trusted root, another authority is somebody else.
    let keyless = |p: &mut Policy, f: &mut Facts| {
        statement(f).key = "1".repeat(64);
        p.authorities.iter_mut().for_each(|a| a.format = "keyless".into());
    };
    assert_eq!(table(keyless), "pass");
    let others_alone = |p: &mut Policy, f: &mut Facts| {
        keyless(p, f);
        p.authorities.iter_mut().filter(|a| a.name == "scanner").for_each(|a| a.format.clear());
    };
    assert_eq!(table(others_alone), "deny build-key");
    let same = |p: &mut Policy, f: &mut Facts| {
        keyless(p, f);
        p.scopes[0].authorities.push("scanner".into());
        let Fact::Is(image) = &mut f.image else { panic!() };
        let mut signature = image.signatures[0].clone();
        signature.authority = "scanner".into();
        image.signatures.push(signature);
    };
    assert_eq!(table(same), "deny build-key");
    let scanner = |p: &mut Policy, change: &dyn Fn(&mut crate::policy::Authority)| {
        change(p.authorities.iter_mut().find(|a| a.name == "scanner").unwrap());
    };
    assert_eq!(table(|p, _| scanner(p, &|a| a.repositories = vec!["ghcr.io/other".into()])), "deny no-scan");
    assert_eq!(table(|p, _| scanner(p, &|a| a.until = Some("2026-11-22".into()))), "deny no-scan");
    assert_eq!(table(|p, _| scanner(p, &|a| a.until = Some("2026-11-23".into()))), "pass");
    assert_eq!(table(|p, _| scanner(p, &|a| a.min_signing_time = Some("2026-01-01".into()))), "deny no-scan");
}

#[test]
fn what_cannot_be_read_denies() {
    for says in [Fact::Unknown("unknown schema".into()), Fact::Absent, Fact::Is(Said::Bom(Default::default()))] {
        assert_eq!(table(|_, f| statement(f).says = says.clone()), "deny unreadable", "{says:?}");
    }
    for text in ["", "yesterday", "2026-11-22"] {
        assert_eq!(table(|_, f| scan(f).finished = text.into()), "deny unreadable", "{text}");
    }
    // Of several reasons the one that says most.
    let both = |f: &mut Facts| {
        let mut other = statement(f).clone();
        other.key = "1".repeat(64);
        statement(f).says = Fact::Absent;
        let Fact::Is(image) = &mut f.image else { panic!() };
        image.attestations.push(other);
    };
    assert_eq!(table(|_, f| both(f)), "deny unreadable");
    // Beside one that can, it does no harm.
    let beside = |f: &mut Facts| {
        let mut other = statement(f).clone();
        other.says = Fact::Unknown("x".into());
        let Fact::Is(image) = &mut f.image else { panic!() };
        image.attestations.insert(0, other);
    };
    assert_eq!(table(|_, f| beside(f)), "pass");
}

#[test]
fn dates() {
    for (finished, days, expected) in [
        ("2026-11-22T00:00:00Z", 1, "pass"),
        ("2026-11-21T23:59:59Z", 1, "deny stale"),
        ("2026-11-23T00:01:00Z", 1, "pass"),
        ("2026-11-23T00:01:01Z", 1, "deny future"),
        ("1970-01-01T00:00:00Z", 7, "deny stale"),
    ] {
        let found = table(|p, f| {
            rules(p).max_days = days;
            scan(f).finished = finished.into();
        });
        assert_eq!(found, expected, "{finished}");
    }
    assert_eq!(table(|_, f| f.now = Fact::Unknown("clock".into())), "deny unknown");
    assert_eq!(table(|_, f| f.now = Fact::Unknown("timeout".into())), "deny timeout");
}

#[test]
fn severities() {
    for (found, bound, expected) in [
        (&[("CVE-1", Low)][..], Low, "pass"),
        (&[("CVE-1", Medium)], Low, "deny vulnerable"),
        (&[("CVE-1", Severity::Negligible)], Severity::None, "deny vulnerable"),
        (&[("CVE-1", Critical)], Critical, "pass"),
        (&[("CVE-1", Critical)], High, "deny vulnerable"),
        // What the scanner does not know is as bad as critical.
        (&[("CVE-1", Unknown)], High, "deny vulnerable"),
        (&[("CVE-1", Unknown)], Critical, "pass"),
        (&[("CVE-1", Low), ("CVE-2", High), ("CVE-3", Low)], Medium, "deny vulnerable"),
    ] {
        let said = table(|p, f| {
            rules(p).max_severity = bound;
            finds(f, found);
        });
        assert_eq!(said, expected, "{found:?} {bound:?}");
    }
    // A report too long to be listed is not made good by what is listed.
    let longer = |p: &mut Policy, f: &mut Facts| {
        rules(p).max_severity = High;
        scan(f).counts.insert(Critical, 1);
    };
    assert_eq!(table(longer), "deny vulnerable");
}

#[test]
fn what_is_tolerated_runs_out() {
    let with = |id: &str, expires: &str| {
        table(|p, f| {
            finds(f, &[("CVE-1", Critical)]);
            rules(p).except = vec![Tolerated {
                id: id.into(),
                owner: "ops".into(),
                reason: "not reachable".into(),
                expires: expires.into(),
            }];
        })
    };
    for (id, expires, expected) in [
        ("CVE-1", "2026-11-23", "pass"),
        ("CVE-1", "2026-11-22", "deny vulnerable"),
        ("CVE-1", "never", "deny vulnerable"),
        ("CVE-2", "2027-01-01", "deny vulnerable"),
        ("CVE-*", "2027-01-01", "deny vulnerable"),
    ] {
        assert_eq!(with(id, expires), expected, "{id} {expires}");
    }
}

/// A record says what was let through, and of nothing else that it was.
#[test]
fn what_is_tolerated_is_told() {
    for (found, told) in [(&[("CVE-1", Critical)][..], true), (&[], false)] {
        let (mut policy, mut facts) = (fixture::policy(), fixture::facts());
        fixture::gated(&mut policy, &mut facts);
        finds(&mut facts, found);
        let except = |id: &str| Tolerated {
            id: id.into(),
            owner: "ops".into(),
            reason: "not reachable".into(),
            expires: "2027-01-01".into(),
        };
        rules(&mut policy).except = vec![except("CVE-1"), except("CVE-2")];
        let [finding] = &check(&Ctx::new(&policy, &facts))[..] else { panic!() };
        assert_eq!(finding.fact.ends_with("; tolerated: CVE-1"), told, "{}", finding.fact);
        assert_eq!(finding.fact.contains("tolerated"), told, "{}", finding.fact);
        let counted = if told { "trust=jailed): 1 critical" } else { "trust=jailed): nothing found" };
        assert!(finding.fact.contains(counted) && !finding.fact.contains(" 0 "), "{}", finding.fact);
    }
}

/// The newest of one authority replaces its older ones; of two authorities both must hold.
#[test]
fn of_several_scans() {
    let second = |authority: &str, finished: &str, found: &[(&str, Severity)]| {
        table(|p, f| {
            rules(p).authorities.push("other".into());
            let mut other = p.authorities.iter().find(|a| a.name == "scanner").unwrap().clone();
            other.name = "other".into();
            p.authorities.push(other);
            let mut copy = fixture::facts();
            fixture::gated(&mut fixture::policy(), &mut copy);
            finds(&mut copy, found);
            scan(&mut copy).finished = finished.into();
            let mut statement = statement(&mut copy).clone();
            statement.authority = authority.into();
            let Fact::Is(image) = &mut f.image else { panic!() };
            image.attestations.push(statement);
        })
    };
    assert_eq!(second("scanner", "2026-11-21T00:00:00Z", &[("CVE-1", Critical)]), "pass");
    assert_eq!(second("scanner", "2026-11-22T12:00:00Z", &[("CVE-1", Critical)]), "deny vulnerable");
    assert_eq!(second("other", "2026-11-21T00:00:00Z", &[("CVE-1", Critical)]), "deny vulnerable; pass");
    assert_eq!(second("other", "2026-11-22T00:00:00Z", &[]), "pass");
}

#[test]
fn an_image_is_as_old_as_its_newest_scan_where_the_policy_says_so() {
    let age = |days: u64, change: &dyn Fn(&mut Policy, &mut Facts)| {
        let (mut policy, mut facts) = (fixture::policy(), fixture::facts());
        fixture::gated(&mut policy, &mut facts);
        policy.image.age = Some(AgeRules { max_days: days, source: AgeSource::Scan });
        change(&mut policy, &mut facts);
        outcomes(&super::super::img_004_age::RULE, &policy, &facts).join("; ")
    };
    assert_eq!(age(1, &|_, _| {}), "pass");
    assert_eq!(age(0, &|_, _| {}), "deny too-old");
    assert_eq!(age(1, &|_, f| statement(f).says = Fact::Absent), "deny no-scan");
    assert_eq!(age(1, &|p, _| p.image.vulnerabilities = None), "deny no-scan");
}
