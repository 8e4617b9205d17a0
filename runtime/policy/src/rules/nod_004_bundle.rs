//! BS-NOD-004: the policy that judges is the one that its authors signed, not an older one; and it, its keys and the
//! programs are what was measured in this boot.
use super::{ALL, Ctx, Rule, TIMEOUT_ROW, UNKNOWN_ROW};
use crate::facts::{Bundle, Fact};
use crate::policy::{BundleRules, Level};
use crate::text;
use crate::verdict::{Finding, Outcome};

pub(super) static RULE: Rule = Rule {
    id: "BS-NOD-004",
    title: "The policy bundle is its authors', not rolled back, and as measured",
    nist: "4.3.5, 4.5.5",
    from: Level::Restricted,
    misfit: "deny",
    doors: ALL,
    reads: "bundle.*, policy bundle.{signed,measured}",
    predicate: "policy.toml, policy.d and trust were read whole, belong to root and are writable by nobody else, and are well formed. \
        Where this node pins a signing key (boltseal policy trust), bundle.sig is that key's signature over exactly these files \
        and a version that is not below the floor in the TPM. Where boltseal-attest measured in this boot, bundle, pinned key and \
        boltseal's programs are the measured ones. A node that pins no key, or measured nothing, asks for neither unless \
        bundle.signed or bundle.measured is true, and each record says so. A policy that is not known to be its authors' \
        cannot excuse itself: only unpinned, no-floor and not-measured can be warned of or excepted.",
    fix: "boltseal policy sign off the node, boltseal policy apply on it",
    conditions: &[
        ("not-measured", "the policy wants to be measured (bundle.measured), and nothing was measured in this boot"),
        ("unpinned", "the policy wants to be signed (bundle.signed), and this node pins no signing key"),
        ("no-floor", "this node pins a signing key and keeps no floor: an older signed bundle would be as good"),
        ("unsigned", "this node pins a signing key, and the bundle has no signature"),
        ("bad-signature", "the bundle's signature is by another key, over other files, or forged"),
        ("rolled-back", "the bundle is signed, and older than one that was in force on this node"),
        ("swapped", "the bundle, the pinned key or a program is not the one that was measured in this boot"),
        ("policy-unreadable", "the bundle is missing, malformed or writable by others"),
        ("last-good", "sealed: what lies in /etc/boltseal does not load, so that the last good bundle is in force"),
        UNKNOWN_ROW,
        TIMEOUT_ROW,
    ],
    cves: &[],
    check,
};

/// The finding says that the policy is not, or not known to be, its authors': it must not judge itself, so that no level,
/// mode or exception in it counts.
pub(crate) fn of_no_author(rule: &str, condition: &str) -> bool {
    rule == RULE.id && !["unpinned", "no-floor", "not-measured"].contains(&condition)
}

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    let bundle = match &ctx.facts.bundle {
        Fact::Is(bundle) => bundle,
        Fact::Absent => return vec![RULE.unknown("the policy bundle", "nothing was observed")],
        Fact::Unknown(why) => return vec![RULE.unknown("the policy bundle", why)],
    };
    let wanted = &ctx.policy.bundle;
    let parts = [Some(authors(bundle, wanted)), rollback(bundle), Some(measured(bundle, wanted))];
    let (passed, mut out): (Vec<_>, Vec<_>) =
        parts.into_iter().flatten().partition(|part| part.outcome == Outcome::Pass);
    if out.is_empty() {
        out.push(RULE.pass(passed.iter().map(|part| part.fact.as_str()).collect::<Vec<_>>().join("; ")));
    }
    if let Some(why) = &bundle.stale {
        let fact = format!("the last good bundle is in force; what lies in /etc/boltseal is not: {}", text::show(why));
        out.push(RULE.sealed("last-good", fact));
    }
    out
}

fn authors(bundle: &Bundle, wanted: &BundleRules) -> Finding {
    let digest = text::shorten(&text::escape(&bundle.digest), 14);
    let signer = match &bundle.signer {
        Fact::Is(id) => text::shorten(&text::escape(id), 14),
        Fact::Absent if wanted.signed => {
            return RULE.deny_fix(
                "unpinned",
                "the policy wants to be signed (bundle.signed), and this node pins no signing key",
                "boltseal policy trust KEY.pub",
            );
        }
        Fact::Absent => return RULE.pass(format!("bundle {digest} is root's alone; no signing key is pinned here")),
        Fact::Unknown(why) => return RULE.unknown("the pinned signing key", why),
    };
    match &bundle.signed {
        Fact::Is(version) => RULE.pass(format!("bundle {digest} is version {version}, signed by {signer}")),
        Fact::Absent => RULE.deny("unsigned", format!("the policy bundle has no signature by the pinned key {signer}")),
        Fact::Unknown(why) => RULE.deny("bad-signature", text::show(why)),
    }
}

/// Only where a key is pinned: without one nobody signs versions.
fn rollback(bundle: &Bundle) -> Option<Finding> {
    if bundle.signer == Fact::Absent {
        return None;
    }
    let finding = match (&bundle.floor, &bundle.signed) {
        (Fact::Is(floor), Fact::Is(version)) if version < floor => RULE.deny_fix(
            "rolled-back",
            format!("the policy bundle is version {version}; this node takes {floor} and above"),
            "boltseal policy apply the newest bundle",
        ),
        (Fact::Is(floor), _) => RULE.pass(format!("the floor is {floor}")),
        (Fact::Absent, _) => RULE.deny_fix(
            "no-floor",
            "this node keeps no floor: an older signed policy bundle would be as good",
            "boltseal policy trust KEY.pub --tpm .. --replace, or a dated [[exception]]",
        ),
        (Fact::Unknown(why), _) => {
            RULE.unknown_fix("the floor under the policy's version", why, "boltseal node status; see node.md")
        }
    };
    Some(finding)
}

fn measured(bundle: &Bundle, wanted: &BundleRules) -> Finding {
    match &bundle.measured {
        Fact::Is(differences) if differences.is_empty() => RULE.pass("it and the programs are as measured"),
        Fact::Is(differences) => {
            RULE.deny_fix("swapped", text::list(differences), "find out who changed it; after an upgrade, boot anew")
        }
        Fact::Absent if wanted.measured => RULE.deny_fix(
            "not-measured",
            "nothing was measured in this boot (bundle.measured)",
            "enable boltseal-attest.service",
        ),
        Fact::Absent => RULE.pass("nothing was measured in this boot"),
        Fact::Unknown(why) => {
            RULE.unknown_fix("what was measured in this boot", why, "boltseal node status; see node.md")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcomes;
    use super::*;
    use crate::facts::{Door, Facts};
    use crate::policy::Mode;
    use crate::{Policy, Verdict, decide, fixture};

    fn with(change: impl Fn(&mut Bundle)) -> Facts {
        let mut facts = fixture::facts();
        if let Fact::Is(bundle) = &mut facts.bundle {
            change(bundle);
        }
        facts
    }

    fn table(wanted: bool, change: impl Fn(&mut Bundle)) -> Vec<String> {
        let mut policy = fixture::policy();
        policy.bundle = BundleRules { signed: wanted, measured: wanted };
        outcomes(&RULE, &policy, &with(change)).into_iter().filter(|o| o != "pass").collect()
    }

    #[test]
    fn truth_table() {
        let none: [&str; 0] = [];
        let unknown = || "x".to_owned();
        for wanted in [false, true] {
            let table = |change: &dyn Fn(&mut Bundle)| table(wanted, change);
            assert_eq!(table(&|_| {}), none);
            assert_eq!(table(&|b| b.signed = Fact::Absent), ["deny unsigned"]);
            assert_eq!(table(&|b| b.signed = Fact::Unknown("forged".into())), ["deny bad-signature"]);
            assert_eq!(table(&|b| b.signer = Fact::Unknown(unknown())), ["deny unknown"]);
            assert_eq!(table(&|b| *b = Bundle::default()), ["deny unknown"]);
            // The floor.
            assert_eq!(table(&|b| b.floor = Fact::Is(6)), none);
            assert_eq!(table(&|b| b.floor = Fact::Is(8)), ["deny rolled-back"]);
            assert_eq!(table(&|b| b.floor = Fact::Absent), ["deny no-floor"]);
            assert_eq!(table(&|b| b.floor = Fact::Unknown(unknown())), ["deny unknown"]);
            assert_eq!(table(&|b| b.floor = Fact::Unknown("timeout".into())), ["deny timeout"]);
            assert_eq!(
                table(&|b| (b.signed, b.floor) = (Fact::Absent, Fact::Absent)),
                ["deny no-floor", "deny unsigned"]
            );
            // What was measured.
            assert_eq!(table(&|b| b.measured = Fact::Is(vec!["a".into(), "b".into()])), ["deny swapped"]);
            assert_eq!(table(&|b| b.measured = Fact::Unknown(unknown())), ["deny unknown"]);
            let unmeasured = if wanted { vec!["deny not-measured"] } else { vec![] };
            assert_eq!(table(&|b| b.measured = Fact::Absent), unmeasured);
            // Without a pinned key a signature says nothing, nor does a floor.
            for signed in [Fact::Is(7), Fact::Absent, Fact::Unknown(unknown())] {
                for floor in [Fact::Is(8), Fact::Absent, Fact::Unknown(unknown())] {
                    let expected = if wanted { vec!["deny unpinned"] } else { vec![] };
                    let unpinned = |b: &mut Bundle| {
                        (b.signer, b.signed, b.floor) = (Fact::Absent, signed.clone(), floor.clone());
                    };
                    assert_eq!(table(&unpinned), expected);
                }
            }
            assert_eq!(table(&|b| b.stale = Some("no policy.toml".into())), ["seal last-good"]);
        }
        for (bundle, expected) in [
            (Fact::Absent, "deny unknown"),
            (Fact::Unknown("x".into()), "deny unknown"),
            (Fact::Unknown("timeout".into()), "deny timeout"),
        ] {
            for door in [Door::Create, Door::Exec, Door::Update] {
                let mut facts = fixture::facts();
                (facts.bundle, facts.door) = (bundle.clone(), door);
                assert_eq!(outcomes(&RULE, &fixture::policy(), &facts), [expected]);
            }
        }
    }

    fn lax() -> Policy {
        let mut policy = fixture::policy();
        policy.level = Level::Observe;
        policy.modes.insert(RULE.id.into(), Mode::Warn);
        policy.exceptions.push(fixture::exception(RULE.id, None));
        policy.scopes[0].modes.insert(RULE.id.into(), Mode::Warn);
        policy.scopes[0].level = Some(Level::Observe);
        policy.bundle = BundleRules { signed: true, measured: true };
        policy
    }

    /// Who swaps the policy would write into it that nothing of this matters.
    #[test]
    fn a_policy_of_no_author_cannot_excuse_itself() {
        type Change = fn(&mut Bundle);
        let denied: [Change; 7] = [
            |b| b.signed = Fact::Absent,
            |b| b.signed = Fact::Unknown("forged".into()),
            |b| b.signer = Fact::Unknown("x".into()),
            |b| b.floor = Fact::Is(8),
            |b| b.floor = Fact::Unknown("timeout".into()),
            |b| b.measured = Fact::Is(vec!["policy".into()]),
            |b| b.measured = Fact::Unknown("x".into()),
        ];
        for (at, change) in denied.into_iter().enumerate() {
            assert!(matches!(decide(&lax(), &with(change)), Verdict::Deny(_)), "{at}");
        }
        for bundle in [Fact::Absent, Fact::Unknown("timeout".into())] {
            assert!(matches!(decide(&lax(), &Facts { bundle, ..fixture::facts() }), Verdict::Deny(_)));
        }
        // Its author may say what he does without.
        let allowed: [Change; 3] =
            [|b| b.signer = Fact::Absent, |b| b.floor = Fact::Absent, |b| b.measured = Fact::Absent];
        for (at, change) in allowed.into_iter().enumerate() {
            assert!(matches!(decide(&lax(), &with(change)), Verdict::Allow(_)), "{at}");
        }
    }

    /// A pass of what was not asked for does not read as if it had been verified.
    #[test]
    fn a_pass_says_what_was_checked() {
        let facts = |change: fn(&mut Bundle)| -> String {
            let found = check(&Ctx::new(&fixture::policy(), &with(change)));
            assert!(found.iter().all(|f| f.outcome == Outcome::Pass), "{found:?}");
            found.into_iter().map(|f| f.fact + "; ").collect()
        };
        let all = facts(|_| {});
        assert!(
            all.contains("is version 7, signed by 5555") && all.contains("floor is 7") && all.contains("as measured")
        );
        assert!(facts(|b| b.signer = Fact::Absent).contains("no signing key is pinned here"));
        assert!(facts(|b| b.measured = Fact::Absent).contains("nothing was measured in this boot"));
    }
}
