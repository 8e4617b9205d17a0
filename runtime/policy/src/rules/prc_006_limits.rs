//! BS-PRC-006: memory and pids are limited.
use super::{Ctx, Rule};
use crate::facts::{Door, Limits};
use crate::policy::Level;
use crate::text;
use crate::verdict::Finding;

pub(super) static RULE: Rule = Rule {
    id: "BS-PRC-006",
    title: "Memory and pids limits are in force on it or an ancestor; absent ones get the policy's defaults",
    nist: "4.4.3",
    from: Level::Restricted,
    misfit: "seal; deny for an update that removes one",
    doors: &[Door::Create, Door::Exec, Door::Update],
    reads: "limits.*, process.{oom_score_adj,oom_score_floor}, policy limits",
    predicate: "the spec, or a cgroup between it and the root, limits memory and pids; what neither limits gets the policy's default. \
        An oom_score_adj below what may be set is raised to that. An update lifts no limit, nor sets one \
        so large that it limits nothing.",
    fix: "keep memory and pids limits in the update",
    conditions: &[
        ("limit-removed", "an update would lift a limit"),
        ("memory-default", "sealed: the policy's memory limit is set"),
        ("pids-default", "sealed: the policy's pids limit is set"),
        ("oom-score", "sealed: oom_score_adj is raised to the lowest that may be set"),
    ],
    cves: &[],
    check,
};

/// A memory limit from here on (bytes) or a pids limit from here on is none: the kernel's own maxima.
const NO_MEMORY_LIMIT: i64 = 1 << 62;
const NO_PIDS_LIMIT: i64 = 4_194_304;

/// Limits to set: the policy's where nothing limits; None where the spec or an ancestor does.
pub(crate) fn filled(ctx: &Ctx<'_>) -> (Option<u64>, Option<u64>) {
    let l = &ctx.facts.limits;
    let has = |own: Option<i64>, none: i64, ancestor: Option<u64>| {
        own.is_some_and(|v| v > 0 && v < none) || ancestor.is_some()
    };
    (
        (!has(l.memory, NO_MEMORY_LIMIT, l.ancestor_memory)).then_some(ctx.policy.limits.memory),
        (!has(l.pids, NO_PIDS_LIMIT, l.ancestor_pids)).then_some(ctx.policy.limits.pids),
    )
}

/// What an update would lift: what it removes, and a number so large that it limits nothing.
fn lifted(limits: &Limits) -> Vec<String> {
    let mut out = limits.removed.clone();
    for (name, value, none) in
        [("memory.limit", limits.memory, NO_MEMORY_LIMIT), ("pids.limit", limits.pids, NO_PIDS_LIMIT)]
    {
        if let Some(value) = value.filter(|value| *value >= none) {
            out.push(format!("{name} ({value} limits nothing)"));
        }
    }
    out
}

/// The oom_score_adj to set.
pub(crate) fn oom_score(ctx: &Ctx<'_>) -> Option<i32> {
    let p = &ctx.facts.process;
    match (p.oom_score_adj, p.oom_score_floor) {
        (Some(asked), Some(floor)) => Some(asked.max(floor)),
        (asked, _) => asked,
    }
}

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    let mut out = Vec::new();
    match ctx.facts.door {
        Door::Update => {
            let removed = lifted(&ctx.facts.limits);
            if !removed.is_empty() {
                out.push(RULE.deny("limit-removed", format!("the update would lift {}", text::list(&removed))));
            }
        }
        Door::Create => {
            let (memory, pids) = filled(ctx);
            if let Some(bytes) = memory {
                out.push(RULE.sealed("memory-default", format!("memory limited to {bytes} bytes")));
            }
            if let Some(count) = pids {
                out.push(RULE.sealed("pids-default", format!("pids limited to {count}")));
            }
        }
        // An exec'd process is born into its container's limited cgroup.
        Door::Exec => {}
    }
    if ctx.facts.door != Door::Update
        && let (Some(asked), Some(set)) = (ctx.facts.process.oom_score_adj, oom_score(ctx))
        && asked != set
    {
        out.push(
            RULE.sealed("oom-score", format!("oom_score_adj {asked} raised to {set}, the lowest that may be set here")),
        );
    }
    if out.is_empty() {
        out.push(RULE.pass(match ctx.facts.door {
            Door::Create => "memory and pids are limited",
            Door::Exec => "it is born into its container's cgroup",
            Door::Update => "the update lifts no limit",
        }));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::outcomes;
    use super::*;
    use crate::fixture;

    #[test]
    fn truth_table() {
        let limits = |memory, pids, ancestor_memory, ancestor_pids| Limits {
            memory,
            pids,
            ancestor_memory,
            ancestor_pids,
            removed: Vec::new(),
        };
        for (limits, expected) in [
            (limits(Some(1 << 30), Some(10), None, None), vec!["pass"]),
            (limits(None, None, Some(1), Some(1)), vec!["pass"]),
            (limits(None, Some(10), None, None), vec!["seal memory-default"]),
            (limits(Some(0), Some(10), None, None), vec!["seal memory-default"]),
            (limits(Some(-1), Some(10), None, None), vec!["seal memory-default"]),
            (limits(Some(i64::MAX), Some(10), None, None), vec!["seal memory-default"]),
            (limits(Some(1), None, None, None), vec!["seal pids-default"]),
            (limits(Some(NO_MEMORY_LIMIT - 1), Some(NO_PIDS_LIMIT - 1), None, None), vec!["pass"]),
            (
                limits(Some(NO_MEMORY_LIMIT), Some(NO_PIDS_LIMIT), None, None),
                vec!["seal memory-default", "seal pids-default"],
            ),
            (limits(Some(1), Some(i64::MAX), None, None), vec!["seal pids-default"]),
            (limits(None, None, None, None), vec!["seal memory-default", "seal pids-default"]),
        ] {
            let mut facts = fixture::facts();
            facts.limits = limits;
            assert_eq!(outcomes(&RULE, &fixture::policy(), &facts), expected);
        }
    }

    #[test]
    fn an_update_lifts_nothing() {
        let mut facts = fixture::facts();
        facts.door = Door::Update;
        facts.limits = Limits::default();
        assert_eq!(outcomes(&RULE, &fixture::policy(), &facts), ["pass"]);
        facts.limits.removed = vec!["memory".into()];
        assert_eq!(outcomes(&RULE, &fixture::policy(), &facts), ["deny limit-removed"]);
        // A number so large that it limits nothing lifts as well.
        for (memory, pids, expected) in [
            (Some(1 << 30), Some(100), "pass"),
            (Some(NO_MEMORY_LIMIT - 1), Some(NO_PIDS_LIMIT - 1), "pass"),
            (Some(i64::MAX), None, "deny limit-removed"),
            (Some(NO_MEMORY_LIMIT), None, "deny limit-removed"),
            (None, Some(NO_PIDS_LIMIT), "deny limit-removed"),
        ] {
            facts.limits = Limits { memory, pids, ..Limits::default() };
            assert_eq!(outcomes(&RULE, &fixture::policy(), &facts), [expected], "{memory:?} {pids:?}");
        }
    }

    #[test]
    fn oom_scores_are_raised_never_lowered() {
        for (asked, floor, set, expected) in [
            (None, Some(0), None, "pass"),
            (Some(-998), Some(0), Some(0), "seal oom-score"),
            (Some(500), Some(0), Some(500), "pass"),
            (Some(-998), None, Some(-998), "pass"),
        ] {
            let mut facts = fixture::facts();
            facts.process.oom_score_adj = asked;
            facts.process.oom_score_floor = floor;
            let policy = fixture::policy();
            assert_eq!(outcomes(&RULE, &policy, &facts), [expected]);
            assert_eq!(oom_score(&Ctx::new(&policy, &facts)), set);
        }
    }
}
