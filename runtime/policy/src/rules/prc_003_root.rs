//! BS-PRC-003: uid 0 of the initial user namespace is not used.
use super::prc_010_user_namespace::has_own;
use super::{Ctx, PROCESSES, Rule};
use crate::facts::{Door, IdMaps};
use crate::policy::Level;
use crate::verdict::Finding;

pub(super) static RULE: Rule = Rule {
    id: "BS-PRC-003",
    title: "uid 0 of the initial user namespace is not used",
    nist: "4.1.2",
    from: Level::Restricted,
    misfit: "deny",
    doors: PROCESSES,
    reads: "process.uid, namespaces.listed, user_namespace.ids, bound.user_namespace",
    predicate: "the uid is neither 0 without a user namespace of the pod's own that maps it to another, nor above 2147483647.",
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
        _ => has_own(ctx.facts) && ctx.facts.user_namespace.as_ref().is_some_and(|u| is_another(uid, &u.ids)),
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

/// A map that leaves 0 at 0, which only a warning of BS-PRC-010 lets come this far, changes nothing.
fn is_another(uid: u32, ids: &IdMaps) -> bool {
    let of = ids.uids.iter().find(|(inside, _, size)| uid >= *inside && uid - inside < *size);
    of.is_some_and(|(inside, host, _)| host.checked_add(uid - inside).is_some_and(|outside| outside != 0))
}

#[cfg(test)]
mod tests {
    use super::super::outcomes;
    use super::*;
    use crate::facts::{Bound, Fact};
    use crate::fixture;

    #[test]
    fn truth_table() {
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
            if namespace {
                fixture::in_user_namespace(&mut facts);
            }
            assert_eq!(outcomes(&RULE, &fixture::policy(), &facts), [expected]);
            // At exec only the container's record counts.
            facts.door = Door::Exec;
            fixture::in_user_namespace(&mut facts);
            facts.bound = Fact::Is(Bound { user_namespace: namespace, ..Default::default() });
            assert_eq!(outcomes(&RULE, &fixture::policy(), &facts), [expected]);
        }
        let mut facts = fixture::facts();
        facts.door = Door::Exec;
        facts.process.uid = 0;
        facts.bound = Fact::Unknown("x".into());
        assert_eq!(outcomes(&RULE, &fixture::policy(), &facts), ["deny root"]);
    }

    #[test]
    fn an_id_is_another_where_its_range_leads_elsewhere() {
        for (uid, map, another) in [
            (5, (3, 100, 3), true),
            (3, (3, 100, 3), true),
            (6, (3, 100, 3), false),
            (2, (3, 100, 3), false),
            (3, (3, 0, 3), false),
            (4, (3, 0, 3), true),
            (0, (0, 0, 10), false),
            (u32::MAX, (0, 1, u32::MAX), false),
        ] {
            assert_eq!(is_another(uid, &IdMaps { uids: vec![map], gids: Vec::new() }), another, "{uid} {map:?}");
        }
    }

    /// Where BS-PRC-010 only warns, the map itself is looked at.
    #[test]
    fn a_map_that_changes_nothing_is_no_user_namespace() {
        let outcome = |change: fn(&mut crate::facts::Facts)| {
            let mut facts = fixture::facts();
            facts.process.uid = 0;
            fixture::in_user_namespace(&mut facts);
            change(&mut facts);
            outcomes(&RULE, &fixture::policy(), &facts)
        };
        assert_eq!(outcome(|_| {}), ["pass"]);
        assert_eq!(outcome(|f| f.user_namespace.as_mut().unwrap().ids = fixture::id_maps(0, 65_536)), ["deny root"]);
        assert_eq!(outcome(|f| f.user_namespace.as_mut().unwrap().ids.uids = vec![(1, 1, 9)]), ["deny root"]);
        assert_eq!(outcome(|f| f.namespaces.listed.retain(|n| n.kind != "user")), ["deny root"]);
        assert_eq!(outcome(|f| f.user_namespace = None), ["deny root"]);
    }
}
