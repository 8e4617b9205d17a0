//! Break-glass: what several people together may let through for hours, and what nobody may.
use crate::decide;
use crate::facts::{BreakGlass, Fact, Facts};
use crate::rules::{self, Ctx};
use crate::{Policy, text};
use std::collections::BTreeSet;

/// Whatever a file or a policy says: four hours.
pub const MAX_HOURS: u64 = 4;
const HOUR: u64 = 3600;

/// Rules of which nothing is let through: the trail, the base filter, privileges, and what says that this is the node.
const NEVER: [&str; 4] = ["BS-AUD-001", "BS-PRC-001", "BS-PRC-002", "BS-NOD-001"];

/// Whether that condition of that rule is out of everybody's reach.
#[must_use]
pub fn never(rule: &str, condition: &str) -> bool {
    NEVER.contains(&rule)
        || rule == "BS-FSY-002" && condition.starts_with("sensitive")
        || rules::of_no_author(rule, condition)
}

/// Every one that is in force, as `break-glass ID by KEYS, until TIME: REASON`. A record shows them whether they were used or not.
#[must_use]
pub fn in_force(policy: &Policy, facts: &Facts) -> Vec<String> {
    let ctx = Ctx::new(policy, facts);
    holding(&ctx).into_iter().map(|one| format!("{}: {}", shown(one), text::show(&one.reason))).collect()
}

/// What lets that denial through.
pub(crate) fn lifts(ctx: &Ctx<'_>, rule: &str, condition: &str) -> Option<String> {
    if ctx.policy.break_glass.keys.is_empty() || never(rule, condition) {
        return None;
    }
    let lists = |one: &&BreakGlass| one.rules.get(rule).is_some_and(|conditions| conditions.contains(condition));
    holding(ctx).into_iter().find(lists).map(shown)
}

fn holding<'a>(ctx: &Ctx<'a>) -> Vec<&'a BreakGlass> {
    let (rules, glass) = (&ctx.policy.break_glass, &ctx.facts.break_glass);
    // Without a clock nothing ends, so nothing begins; a node that is not attested is nobody's.
    let (Fact::Is(now), Some(node)) = (&ctx.facts.now, &glass.node) else { return Vec::new() };
    if rules.keys.is_empty() || glass.found.is_empty() || !decide::is_attested(ctx) {
        return Vec::new();
    }
    let longest = rules.max_hours.min(MAX_HOURS) * HOUR;
    let holds = |one: &&BreakGlass| {
        one.keys.len() >= rules.need
            && one.nodes.contains(node)
            && one.from <= *now
            && *now < one.until
            && one.until - one.from <= longest
    };
    glass.found.iter().filter(holds).collect()
}

fn shown(one: &BreakGlass) -> String {
    let keys: BTreeSet<&str> = one.keys.iter().map(|key| key.get(..8).unwrap_or(key)).collect();
    let keys: Vec<&str> = keys.into_iter().collect();
    format!("break-glass {} by {}, until {}", text::show(&one.id), keys.join(" and "), crate::date::written(one.until))
}

#[cfg(test)]
mod tests;
