//! BS-PRC-010: a user namespace's host range is nobody else's.
use super::{Ctx, PROCESSES, Rule};
use crate::facts::Door;
use crate::policy::Level;
use crate::text;
use crate::verdict::Finding;

pub(super) static RULE: Rule = Rule {
    id: "BS-PRC-010",
    title: "A user namespace's host range excludes 0 and overlaps no other pod's",
    nist: "4.5.2",
    from: Level::Baseline,
    misfit: "deny",
    doors: PROCESSES,
    reads: "user_namespace, bound.user_namespace",
    predicate: "each mapped host range begins above 0, ends within 32 bits and overlaps no other pod's; an exec joins its container's \
        user namespace.",
    fix: "give the pod a host range of its own, above 0",
    conditions: &[
        ("host-root", "host id 0 is mapped"),
        ("empty-map", "the user namespace has no mapping, or one that does not fit"),
        ("overlap", "another pod has ids of the range"),
        ("exec-outside", "the exec would run outside its container's user namespace"),
    ],
    cves: &[],
    check,
};

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    if ctx.facts.door == Door::Exec {
        let needs = ctx.facts.bound.is().is_some_and(|b| b.user_namespace);
        return vec![if needs && ctx.facts.user_namespace.is_none() {
            RULE.deny_fix(
                "exec-outside",
                "exec would not join its container's user namespace",
                "exec is not possible in this container yet",
            )
        } else {
            RULE.pass("no way out of a user namespace")
        }];
    }
    let Some(map) = &ctx.facts.user_namespace else {
        return vec![RULE.pass("no user namespace is asked for")];
    };
    let mut out = Vec::new();
    for (what, ranges) in [("uid", &map.uids), ("gid", &map.gids)] {
        if ranges.is_empty()
            || ranges.iter().any(|(inside, host, size)| {
                *size == 0 || host.checked_add(*size).is_none() || inside.checked_add(*size).is_none()
            })
        {
            out.push(RULE.deny("empty-map", format!("the {what} map is empty or does not fit")));
        }
        if ranges.iter().any(|(_, host, _)| *host == 0) {
            out.push(RULE.deny("host-root", format!("the {what} map includes the host's 0")));
        }
    }
    if !map.overlaps.is_empty() {
        out.push(RULE.deny("overlap", format!("ids are also those of {}", text::list(&map.overlaps))));
    }
    if out.is_empty() {
        out.push(RULE.pass("the host range is the pod's own"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::outcomes;
    use super::*;
    use crate::facts::{Bound, Fact, UserNamespace};
    use crate::fixture;

    #[test]
    fn truth_table() {
        let good = vec![(0, 100_000, 65_536)];
        for (uids, gids, overlaps, expected) in [
            (good.clone(), good.clone(), vec![], vec!["pass"]),
            (vec![(0, 0, 1)], good.clone(), vec![], vec!["deny host-root"]),
            (good.clone(), vec![(5, 0, 1)], vec![], vec!["deny host-root"]),
            (vec![], good.clone(), vec![], vec!["deny empty-map"]),
            (vec![(0, 1, 0)], good.clone(), vec![], vec!["deny empty-map"]),
            (vec![(0, u32::MAX, 2)], good.clone(), vec![], vec!["deny empty-map"]),
            (good.clone(), good.clone(), vec!["other".to_owned()], vec!["deny overlap"]),
        ] {
            let mut facts = fixture::facts();
            facts.user_namespace = Some(UserNamespace { uids, gids, overlaps });
            assert_eq!(outcomes(&RULE, &fixture::policy(), &facts), expected);
        }
        assert_eq!(outcomes(&RULE, &fixture::policy(), &fixture::facts()), ["pass"]);
    }

    #[test]
    fn exec_does_not_escape() {
        let mut facts = fixture::facts();
        facts.door = Door::Exec;
        facts.bound = Fact::Is(Bound { user_namespace: true, ..Default::default() });
        assert_eq!(outcomes(&RULE, &fixture::policy(), &facts), ["deny exec-outside"]);
        facts.user_namespace = Some(UserNamespace { uids: vec![(0, 1, 1)], gids: vec![(0, 1, 1)], overlaps: vec![] });
        assert_eq!(outcomes(&RULE, &fixture::policy(), &facts), ["pass"]);
    }
}
