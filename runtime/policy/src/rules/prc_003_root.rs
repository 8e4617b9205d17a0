//! BS-PRC-003: uid 0 of the initial user namespace is not used.
use super::{Ctx, PROCESSES, Rule};
use crate::facts::Door;
use crate::policy::Level;
use crate::verdict::Finding;

pub(super) static RULE: Rule = Rule {
    id: "BS-PRC-003",
    title: "uid 0 of the initial user namespace is not used",
    nist: "4.1.2",
    from: Level::Restricted,
    misfit: "deny",
    doors: PROCESSES,
    reads: "process.uid, user_namespace, bound.user_namespace",
    predicate: "the uid is neither 0 without a user namespace, nor above 2147483647.",
    fix: "set runAsUser to another uid (or USER in the image), or hostUsers: false",
    conditions: &[
        ("root", "uid 0 without a user namespace"),
        ("uid-range", "a uid above 2147483647, which readers take for another one"),
    ],
    cves: &["CVE-2024-40635", "CVE-2019-5736", "CVE-2026-30892"],
    check,
};

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    let uid = ctx.facts.process.uid;
    let mapped = match ctx.facts.door {
        // What an exec joins is what its container has; what it says of itself does not count.
        Door::Exec => ctx.facts.bound.is().is_some_and(|b| b.user_namespace),
        _ => ctx.facts.user_namespace.is_some(),
    };
    let finding = if uid > i32::MAX as u32 {
        RULE.deny_fix("uid-range", format!("runs as uid {uid}"), "set runAsUser to a uid from 1 to 2147483647")
    } else if uid == 0 && !mapped {
        RULE.deny("root", "runs as uid 0 without a user namespace")
    } else {
        RULE.pass(format!("uid {uid}{}", if mapped { " in a user namespace" } else { "" }))
    };
    vec![finding]
}

#[cfg(test)]
mod tests {
    use super::super::outcomes;
    use super::*;
    use crate::facts::{Bound, Fact, UserNamespace};
    use crate::fixture;

    #[test]
    fn truth_table() {
        let map = || UserNamespace {
            uids: vec![(0, 100_000, 65_536)],
            gids: vec![(0, 100_000, 65_536)],
            overlaps: Vec::new(),
        };
        for (uid, namespace, expected) in [
            (1000, false, "pass"),
            (1000, true, "pass"),
            (0, false, "deny root"),
            (0, true, "pass"),
            (i32::MAX as u32, false, "pass"),
            (1 << 31, false, "deny uid-range"),
            (u32::MAX, true, "deny uid-range"),
        ] {
            let mut facts = fixture::facts();
            facts.process.uid = uid;
            facts.user_namespace = namespace.then(map);
            assert_eq!(outcomes(&RULE, &fixture::policy(), &facts), [expected]);
            // At exec only the container's record counts.
            facts.door = Door::Exec;
            facts.user_namespace = Some(map());
            facts.bound = Fact::Is(Bound { user_namespace: namespace, ..Default::default() });
            assert_eq!(outcomes(&RULE, &fixture::policy(), &facts), [expected]);
        }
        let mut facts = fixture::facts();
        facts.door = Door::Exec;
        facts.process.uid = 0;
        facts.bound = Fact::Unknown("x".into());
        assert_eq!(outcomes(&RULE, &fixture::policy(), &facts), ["deny root"]);
    }
}
