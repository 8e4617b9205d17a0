//! The one place where a request is decided, and the only one that makes a [`Permit`].
use crate::policy::{Level, Mode};
use crate::rules::{self, Ctx, Rule};
use crate::verdict::{Denial, Finding, Outcome, Permit, Verdict};
use crate::{Fact, Facts, Policy, break_glass, date, pattern, terms};

/// Evaluates every rule that rules on the request's door and never stops at the first finding.
///
/// A denial becomes `Excepted` by a dated exception that is in force, or `Warn` where the rule's mode is `warn` or the
/// level in force (the scope's, else the node's) lies below the rule's; a mode speaks before the level, a scope's before
/// the node's. What no exception covers, a break-glass file of enough keys may. BS-AUD-001 is touched by none of these, nor is a policy that its authors did not sign (BS-NOD-004): it would
/// excuse itself. A warned request starts as it asked; tightening stays.
pub fn decide(policy: &Policy, facts: &Facts) -> Verdict {
    let ctx = Ctx::new(policy, facts);
    let mut findings = Vec::new();
    for rule in rules::all().iter().filter(|r| r.doors.contains(&facts.door)) {
        let mut found = (rule.check)(&ctx);
        if found.is_empty() {
            found.push(silent(rule));
        }
        found.sort_by(|a, b| (&a.condition, &a.fact).cmp(&(&b.condition, &b.fact)));
        found.dedup();
        findings.extend(found.into_iter().map(|f| settle(&ctx, rule, f)));
    }
    if findings.iter().any(|f| f.outcome == Outcome::Deny) {
        // Denials first; of them the trail's, from which others may only follow (no time, so no exception).
        findings.sort_by_key(|f| (f.outcome != Outcome::Deny, f.rule != "BS-AUD-001"));
        Verdict::Deny(Denial { findings })
    } else {
        Verdict::Allow(Permit { findings, terms: Box::new(terms::terms(&ctx)), facts: Box::new(facts.clone()) })
    }
}

/// A check that says nothing is a defect of the check: it denies.
fn silent(rule: &Rule) -> Finding {
    Finding {
        rule: rule.id.into(),
        outcome: Outcome::Deny,
        condition: rules::UNKNOWN.into(),
        fact: "the rule gave no finding".into(),
        fix: "report this as a defect of boltseal".into(),
    }
}

pub(crate) fn settle(ctx: &Ctx<'_>, rule: &Rule, mut finding: Finding) -> Finding {
    let absolute = rule.id == "BS-AUD-001" || rules::of_no_author(rule.id, &finding.condition);
    if finding.outcome != Outcome::Deny || absolute {
        return finding;
    }
    let earlier = rules::earlier(rule).iter().find(|(condition, _)| *condition == finding.condition);
    if !in_force(ctx, rule, earlier.map_or(rule.from, |(_, from)| *from)) {
        finding.outcome = Outcome::Warn;
    } else if let Some(by) = exception(ctx, rule, &finding.condition) {
        finding.outcome = Outcome::Excepted(by);
    } else if let Some(by) = break_glass::lifts(ctx, rule.id, &finding.condition) {
        finding.outcome = Outcome::Excepted(by);
    }
    finding
}

/// BS-NOD-001 holds here, if need be by a dated exception, and does not merely warn.
pub(crate) fn is_attested(ctx: &Ctx<'_>) -> bool {
    rules::find("BS-NOD-001").is_some_and(|rule| {
        let found = (rule.check)(ctx);
        // Nothing of this rule is lifted by break-glass, so that the one does not ask the other for ever.
        !found.is_empty()
            && found
                .into_iter()
                .all(|finding| !matches!(settle(ctx, rule, finding).outcome, Outcome::Deny | Outcome::Warn))
    })
}

/// A denial of this rule denies: by its mode, else by the level in force.
pub(crate) fn enforced(ctx: &Ctx<'_>, rule: &Rule) -> bool {
    in_force(ctx, rule, rule.from)
}

/// The mode that the policy names for it, a scope's before the node's.
pub(crate) fn mode(ctx: &Ctx<'_>, rule: &Rule) -> Option<Mode> {
    ctx.scope.and_then(|s| s.modes.get(rule.id)).or_else(|| ctx.policy.modes.get(rule.id)).copied()
}

fn in_force(ctx: &Ctx<'_>, rule: &Rule, from: Level) -> bool {
    let level: Level = ctx.scope.and_then(|s| s.level).unwrap_or(ctx.policy.level);
    match mode(ctx, rule) {
        Some(Mode::Enforce) => true,
        Some(Mode::Warn) => false,
        None => level >= from,
    }
}

/// The first exception in force for that condition, as `owner, expires, reason`. Without a known time none is.
fn exception(ctx: &Ctx<'_>, rule: &Rule, condition: &str) -> Option<String> {
    let Fact::Is(now) = ctx.facts.now else { return None };
    let e = ctx.policy.exceptions.iter().find(|e| {
        e.rule == rule.id
            && e.condition.as_deref().is_none_or(|c| c == condition)
            && (e.scope == "*" || ctx.repository().is_some_and(|r| pattern::covers(&e.scope, r)))
            && date::end_of(&e.expires).is_some_and(|end| now < end)
    })?;
    Some(format!(
        "{}, {}, {}",
        crate::text::show(&e.owner),
        crate::text::show(&e.expires),
        crate::text::show(&e.reason)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Bound, Device, Door, Lsm, NamespaceOrigin};
    use crate::fixture;

    fn outcome(verdict: &Verdict, rule: &str) -> Vec<Outcome> {
        let findings = match verdict {
            Verdict::Allow(p) => &p.findings,
            Verdict::Deny(d) => &d.findings,
        };
        findings.iter().filter(|f| f.rule == rule).map(|f| f.outcome.clone()).collect()
    }

    fn allowed(policy: &Policy, facts: &Facts) -> bool {
        matches!(decide(policy, facts), Verdict::Allow(_))
    }

    #[test]
    fn the_fixture_is_allowed_and_every_rule_spoke() {
        let Verdict::Allow(permit) = decide(&fixture::policy(), &fixture::facts()) else { panic!("denied") };
        for rule in rules::all() {
            assert!(permit.findings.iter().any(|f| f.rule == rule.id), "{}", rule.id);
        }
        assert_eq!(permit.terms.repository.as_deref(), Some("ghcr.io/corp/app"));
        assert_eq!(permit.terms.authorities, fixture::set(&["ci"]));
        assert_eq!(permit.facts(), &fixture::facts());
    }

    /// Who reads a denial reads its first line: what denies, and of that the trail, from which the rest may follow.
    #[test]
    fn denials_come_first_and_the_trails_before_all() {
        let mut facts = fixture::facts();
        facts.process.uid = 0;
        facts.owner = Fact::Absent;
        let first = |facts: &Facts, count: usize| {
            let Verdict::Deny(denial) = decide(&fixture::policy(), facts) else { panic!("allowed") };
            let (denied, rest) = denial.findings.split_at(count);
            assert!(
                denied.iter().all(|f| f.outcome == Outcome::Deny) && rest.iter().all(|f| f.outcome != Outcome::Deny)
            );
            denied.iter().map(|f| f.rule.clone()).collect::<Vec<_>>()
        };
        assert_eq!(first(&facts, 2), ["BS-PRC-003", "BS-OWN-001"]);
        facts.audit = Fact::Unknown("full".into());
        assert_eq!(first(&facts, 3), ["BS-AUD-001", "BS-PRC-003", "BS-OWN-001"]);
    }

    #[test]
    fn the_terms_name_what_was_granted_and_nothing_else() {
        let mut policy = fixture::policy();
        policy.level = Level::Observe;
        let terms = |change: &dyn Fn(&mut Facts)| {
            let mut facts = fixture::facts();
            change(&mut facts);
            let Verdict::Allow(permit) = decide(&policy, &facts) else { panic!("denied") };
            permit.terms().clone()
        };
        // A namespace is the host's when it is not listed, and when it is listed and that is what it is.
        assert_eq!(terms(&|_| {}).host_namespaces, fixture::set(&[]));
        assert_eq!(
            terms(&|f| f.namespaces.listed.retain(|n| n.kind != "network")).host_namespaces,
            fixture::set(&["network"])
        );
        let listed = |origin: NamespaceOrigin| {
            terms(&|f: &mut Facts| {
                f.namespaces
                    .listed
                    .iter_mut()
                    .filter(|n| n.kind == "pid")
                    .for_each(|n| n.origin = Fact::Is(origin.clone()));
            })
        };
        assert_eq!(listed(NamespaceOrigin::Host).host_namespaces, fixture::set(&["pid"]));
        assert_eq!(listed(NamespaceOrigin::OwnPod).host_namespaces, fixture::set(&[]));
        // Programs are asked for only where the node can hold them.
        let hooks = |fact: Fact<()>| terms(&|f: &mut Facts| f.network_hooks = fact.clone()).network_hooks;
        assert!(hooks(Fact::Is(())) && !hooks(Fact::Absent) && !hooks(Fact::Unknown("x".into())));
        // The usual nodes are everybody's.
        let device = |path: &str, minor| Device { path: path.into(), kind: 'c', major: 1, minor };
        let devices = terms(&|f| f.devices.nodes = vec![device("/dev/null", 3), device("/dev/fuse", 229)]).devices;
        assert_eq!(devices, ["/dev/fuse"]);
        for (present, unusable, expected) in [(true, false, true), (true, true, false), (false, false, false)] {
            let filter = terms(&|f| {
                f.seccomp.present = present;
                f.seccomp.unusable = unusable.then(|| "x".to_owned()).into_iter().collect();
            });
            assert_eq!(filter.pod_seccomp, expected, "{present} {unusable}");
        }
    }

    #[test]
    fn the_terms_ask_for_the_landlock_that_is_there() {
        for (wanted, has, expected) in [
            (6, Fact::Is(6), 6),
            (6, Fact::Is(3), 3),
            (3, Fact::Is(6), 3),
            (6, Fact::Absent, 0),
            (6, Fact::Unknown("x".into()), 0),
        ] {
            let mut policy = fixture::policy();
            (policy.level, policy.landlock.abi) = (Level::Observe, wanted);
            let facts = Facts { landlock: has, ..fixture::facts() };
            let Verdict::Allow(permit) = decide(&policy, &facts) else { panic!("denied") };
            assert_eq!(permit.terms().landlock.abi, expected, "{wanted}");
        }
    }

    #[test]
    fn what_is_watched_is_what_the_policy_says_of_those_who_are_confined() {
        use crate::network::{Ports, Watch};
        use crate::policy::{Watched, Whose};
        let watch = |network, flows, confined: bool, hooks: Fact<()>| {
            let mut policy = fixture::policy();
            policy.level = Level::Observe;
            (policy.anomalies.network, policy.anomalies.flows) = (network, flows);
            policy.scopes[0].bind = confined.then(|| vec![Ports::try_from("80".to_owned()).unwrap()]);
            let facts = Facts { network_hooks: hooks, ..fixture::facts() };
            let Verdict::Allow(permit) = decide(&policy, &facts) else { panic!("denied") };
            permit.terms().watch
        };
        let (all, none, of) = (Watched::All(true), Watched::All(false), Watched::Of(Whose::Confined));
        let is = |told, flows| Watch { told, flows, scan: fixture::policy().anomalies.port_scan };
        assert_ne!(is(false, false).scan, 0);
        for confined in [false, true] {
            assert_eq!(watch(all, none, confined, Fact::Is(())), is(true, false));
            assert_eq!(watch(none, all, confined, Fact::Is(())), is(false, true));
            assert_eq!(watch(none, none, confined, Fact::Is(())), Watch::default());
            let told = if confined { is(true, true) } else { Watch::default() };
            assert_eq!(watch(of, of, confined, Fact::Is(())), told);
            for hooks in [Fact::Absent, Fact::Unknown("x".into())] {
                assert_eq!(watch(all, all, confined, hooks), Watch::default());
            }
        }
    }

    /// Files of memory are closed but where an allowance opens them, and in the node's own pid namespace, which stays as it is.
    #[test]
    fn files_of_memory_are_closed_where_nothing_opens_them() {
        let memory_noexec = |allowances: Vec<crate::policy::Allowance>, host_pid: bool| {
            let policy = Policy { level: Level::Observe, allowances, ..fixture::policy() };
            let mut facts = fixture::facts();
            facts.namespaces.listed.retain(|n| !host_pid || n.kind != "pid");
            let Verdict::Allow(permit) = decide(&policy, &facts) else { panic!("denied") };
            permit.terms().memory_noexec
        };
        let opens = |exec_memory| vec![crate::policy::Allowance { exec_memory, ..fixture::allowance() }];
        for (allowances, host_pid, expected) in [
            (vec![], false, true),
            (opens(false), false, true),
            (opens(true), false, false),
            (vec![], true, false),
            (opens(true), true, false),
        ] {
            assert_eq!(memory_noexec(allowances.clone(), host_pid), expected, "{allowances:?} {host_pid}");
        }
    }

    #[test]
    fn the_default_policy_starts_nothing() {
        let Verdict::Deny(denial) = decide(&Policy::default(), &fixture::facts()) else { panic!("allowed") };
        for rule in ["BS-IMG-001", "BS-OWN-001", "BS-NOD-001"] {
            assert!(denial.findings.iter().any(|f| f.rule == rule && f.outcome == Outcome::Deny), "{rule}");
        }
    }

    #[test]
    fn a_mode_speaks_before_the_level_and_a_scope_before_the_node() {
        let (mut policy, mut facts) = (fixture::policy(), fixture::facts());
        facts.process.uid = 0;
        assert!(!allowed(&policy, &facts));
        policy.level = Level::Baseline;
        assert_eq!(outcome(&decide(&policy, &facts), "BS-PRC-003"), [Outcome::Warn]);
        policy.modes.insert("BS-PRC-003".into(), Mode::Enforce);
        assert!(!allowed(&policy, &facts));
        policy.scopes[0].modes.insert("BS-PRC-003".into(), Mode::Warn);
        assert!(allowed(&policy, &facts));
        policy.scopes[0].modes.clear();
        policy.modes.clear();
        policy.scopes[0].level = Some(Level::Strict);
        assert!(!allowed(&policy, &facts));
    }

    #[test]
    fn observe_enforces_the_trail_alone() {
        let (mut policy, mut facts) = (Policy { level: Level::Observe, ..Policy::default() }, fixture::facts());
        facts.process.uid = 0;
        facts.node = Fact::Absent;
        assert!(allowed(&policy, &facts));
        policy.modes.insert("BS-AUD-001".into(), Mode::Warn);
        policy.exceptions.push(fixture::exception("BS-AUD-001", None));
        facts.audit = Fact::Unknown("full".into());
        assert_eq!(outcome(&decide(&policy, &facts), "BS-AUD-001"), [Outcome::Deny]);
    }

    #[test]
    fn exceptions_are_dated_scoped_and_of_one_condition() {
        let mut facts = fixture::facts();
        facts.label.lsm = Lsm::Neither;
        let with = |change: &dyn Fn(&mut crate::policy::Exception), now: Fact<u64>| {
            let mut policy = fixture::policy();
            let mut e = fixture::exception("BS-MAC-001", Some("no-lsm"));
            change(&mut e);
            policy.exceptions.push(e);
            allowed(&policy, &Facts { now, ..facts.clone() })
        };
        let today = || facts.now.clone();
        assert!(with(&|_| {}, today()));
        assert!(with(&|e| e.scope = "ghcr.io/corp".into(), today()));
        assert!(with(&|e| e.condition = None, today()));
        assert!(!with(&|e| e.scope = "ghcr.io/other".into(), today()));
        assert!(!with(&|e| e.condition = Some("complain".into()), today()));
        assert!(!with(&|e| e.rule = "BS-DEV-001".into(), today()));
        assert!(!with(&|e| e.expires = "2026-11-22".into(), today()));
        assert!(!with(&|e| e.expires = "never".into(), today()));
        assert!(!with(&|_| {}, Fact::Unknown("clock went back".into())));
        assert!(!with(&|_| {}, Fact::Absent));
        // It is shown with who, until when, and why; and never as a pass.
        let mut policy = fixture::policy();
        policy.exceptions.push(fixture::exception("BS-MAC-001", Some("no-lsm")));
        assert_eq!(
            outcome(&decide(&policy, &facts), "BS-MAC-001"),
            [Outcome::Excepted("ops@corp.example, 2026-12-31, test".into())]
        );
    }

    #[test]
    fn a_scope_counts_only_with_a_verified_repository() {
        let (mut policy, mut facts) = (fixture::policy(), fixture::facts());
        policy.scopes[0].level = Some(Level::Observe);
        facts.process.uid = 0;
        assert!(allowed(&policy, &facts));
        facts.image = Fact::Absent;
        assert!(!allowed(&policy, &facts));
    }

    #[test]
    fn exec_and_update_meet_their_own_rules() {
        let (policy, mut facts) = (fixture::policy(), fixture::facts());
        facts.bound = Fact::Is(Bound { label: "boltseal-default".into(), uid: 1000, ..Default::default() });
        facts.image = Fact::Unknown("not gathered".into());
        facts.rootfs = Fact::Unknown("not gathered".into());
        facts.namespaces.listed.clear();
        for (door, expected) in [
            (
                Door::Exec,
                "BS-PRC-001 BS-PRC-002 BS-PRC-003 BS-PRC-005 BS-PRC-006 BS-PRC-008 BS-PRC-009 BS-PRC-010 BS-MAC-001 BS-NOD-001 BS-NOD-002 BS-NOD-004 BS-AUD-001",
            ),
            (Door::Update, "BS-PRC-006 BS-PRC-008 BS-NOD-004 BS-AUD-001"),
        ] {
            facts.door = door;
            let Verdict::Allow(permit) = decide(&policy, &facts) else { panic!("denied") };
            let rules: Vec<_> = permit.findings.iter().map(|f| f.rule.as_str()).collect();
            assert_eq!(rules.join(" "), expected);
            // Only a create makes namespaces: what a later request does not list grants nothing.
            assert!(permit.terms.host_namespaces.is_empty());
        }
    }
}
