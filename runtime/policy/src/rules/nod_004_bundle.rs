//! BS-NOD-004: the policy that judges is the one that its authors signed.
use super::{ALL, Ctx, Rule, TIMEOUT_ROW, UNKNOWN_ROW};
use crate::facts::{Bundle, Fact};
use crate::policy::Level;
use crate::text;
use crate::verdict::Finding;

pub(super) static RULE: Rule = Rule {
    id: "BS-NOD-004",
    title: "The policy bundle is whole, root's alone and, where a signing key is pinned, signed",
    nist: "4.3.5, 4.5.5",
    from: Level::Restricted,
    misfit: "deny",
    doors: ALL,
    reads: "bundle.*, policy bundle.signed",
    predicate: "policy.toml, policy.d and trust were read whole, belong to root and are writable by nobody else, and are well formed; \
        and where this node pins a signing key (/var/lib/boltseal/signer.pub), bundle.sig is that key's signature over exactly \
        these files. A node that pins no key asks for no signature, unless bundle.signed is true, and each record says so. \
        Only the condition unpinned can be warned of or excepted: a policy of no known author would excuse itself.",
    fix: "boltseal policy sign off the node, boltseal policy apply on it",
    conditions: &[
        ("unpinned", "the policy wants to be signed (bundle.signed), and this node pins no signing key"),
        ("unsigned", "this node pins a signing key, and the bundle has no signature"),
        ("bad-signature", "the bundle's signature is by another key, over other files, or forged"),
        ("policy-unreadable", "the bundle is missing, malformed or writable by others"),
        UNKNOWN_ROW,
        TIMEOUT_ROW,
    ],
    cves: &[],
    check,
};

/// The finding says that the policy is not, or not known to be, its authors': it must not judge itself, so that no level,
/// mode or exception in it counts.
pub(crate) fn of_no_author(rule: &str, condition: &str) -> bool {
    rule == RULE.id && condition != "unpinned"
}

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    let finding = match &ctx.facts.bundle {
        Fact::Is(bundle) => judge(bundle, ctx.policy.bundle.signed),
        Fact::Absent => RULE.unknown("the policy bundle", "nothing was observed"),
        Fact::Unknown(why) => RULE.unknown("the policy bundle", why),
    };
    vec![finding]
}

fn judge(bundle: &Bundle, wanted: bool) -> Finding {
    let digest = text::shorten(&text::escape(&bundle.digest), 14);
    let signer = match &bundle.signer {
        Fact::Is(id) => text::shorten(&text::escape(id), 14),
        Fact::Absent if wanted => {
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

#[cfg(test)]
mod tests {
    use super::super::outcomes;
    use super::*;
    use crate::facts::{Door, Facts};
    use crate::policy::Mode;
    use crate::{Verdict, decide, fixture};

    fn with(change: impl Fn(&mut Bundle)) -> Facts {
        let mut facts = fixture::facts();
        if let Fact::Is(bundle) = &mut facts.bundle {
            change(bundle);
        }
        facts
    }

    fn table(wanted: bool, change: impl Fn(&mut Bundle)) -> Vec<String> {
        let mut policy = fixture::policy();
        policy.bundle.signed = wanted;
        outcomes(&RULE, &policy, &with(change))
    }

    #[test]
    fn truth_table() {
        for wanted in [false, true] {
            assert_eq!(table(wanted, |_| {}), ["pass"]);
            assert_eq!(table(wanted, |b| b.signed = Fact::Absent), ["deny unsigned"]);
            assert_eq!(table(wanted, |b| b.signed = Fact::Unknown("forged".into())), ["deny bad-signature"]);
            assert_eq!(table(wanted, |b| b.signer = Fact::Unknown("x".into())), ["deny unknown"]);
            assert_eq!(table(wanted, |b| *b = Bundle::default()), ["deny unknown"]);
            // Without a pinned key a signature says nothing, so its state does not matter.
            for signed in [Fact::Is(7), Fact::Absent, Fact::Unknown("x".into())] {
                let expected = if wanted { "deny unpinned" } else { "pass" };
                assert_eq!(table(wanted, |b| (b.signer, b.signed) = (Fact::Absent, signed.clone())), [expected]);
            }
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

    /// Who swaps the policy would write into it that nothing of this matters.
    #[test]
    fn a_policy_of_no_author_cannot_excuse_itself() {
        let mut policy = fixture::policy();
        policy.level = Level::Observe;
        policy.modes.insert(RULE.id.into(), Mode::Warn);
        policy.exceptions.push(fixture::exception(RULE.id, None));
        policy.scopes[0].modes.insert(RULE.id.into(), Mode::Warn);
        policy.scopes[0].level = Some(Level::Observe);
        for signed in [Fact::Absent, Fact::Unknown("forged".into())] {
            let facts = with(|b| b.signed = signed.clone());
            assert!(matches!(decide(&policy, &facts), Verdict::Deny(_)), "{signed:?}");
        }
        for bundle in [Fact::Absent, Fact::Unknown("timeout".into())] {
            assert!(matches!(decide(&policy, &Facts { bundle, ..fixture::facts() }), Verdict::Deny(_)));
        }
        // Its author may: signed, it says of itself what it wants.
        policy.bundle.signed = true;
        assert!(matches!(decide(&policy, &with(|b| b.signer = Fact::Absent)), Verdict::Allow(_)));
        assert!(matches!(decide(&policy, &with(|_| {})), Verdict::Allow(_)));
    }

    /// A pass of a node that pins no key does not read as if something had been verified.
    #[test]
    fn a_pass_says_whether_anything_was_signed() {
        let fact = |signer: Fact<String>| {
            check(&Ctx::new(&fixture::policy(), &with(|b| b.signer = signer.clone()))).remove(0).fact
        };
        assert!(fact(Fact::Absent).ends_with("no signing key is pinned here"));
        assert!(fact(Fact::Is("5".repeat(64))).contains("is version 7, signed by 5555"));
    }
}
