//! Whether an image's layers are to be scanned: a start never pays for what no policy asks, nor for an image that is refused
//! as it is.
use crate::decide::{enforced, mode, settle};
use crate::facts::Facts;
use crate::policy::Policy;
use crate::rules::{self, Ctx, Rule};
use crate::verdict::Outcome;

/// Rules that read the scan.
const READERS: [&str; 2] = ["BS-IMG-007", "BS-IMG-008"];
/// Rules that say which image it is.
const FIRST: [&str; 3] = ["BS-IMG-001", "BS-IMG-002", "BS-IMG-003"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// No policy asks.
    No,
    /// That rule refuses the image whatever its layers hold.
    Refused(String),
    Yes,
}

/// By the policy, and by what is known of the image and its root file system.
#[must_use]
pub fn wanted(policy: &Policy, facts: &Facts) -> Wanted {
    let ctx = Ctx::new(policy, facts);
    if !rules::all().iter().any(|rule| READERS.contains(&rule.id) && asked(&ctx, rule)) {
        return Wanted::No;
    }
    let first = rules::all().iter().filter(|rule| FIRST.contains(&rule.id) && rule.doors.contains(&facts.door));
    let refuses = |rule: &Rule| {
        (rule.check)(&ctx).into_iter().any(|finding| settle(&ctx, rule, finding).outcome == Outcome::Deny)
    };
    first.into_iter().find(|rule| refuses(rule)).map_or(Wanted::Yes, |rule| Wanted::Refused(rule.id.to_owned()))
}

/// The policy enforces the rule for this image, or names it to be told of what it finds.
pub(crate) fn asked(ctx: &Ctx<'_>, rule: &Rule) -> bool {
    mode(ctx, rule).is_some() || enforced(ctx, rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Fact;
    use crate::fixture;
    use crate::policy::{Level, Mode};
    use std::collections::BTreeMap;

    #[test]
    fn nobody_pays_for_what_no_policy_asks() {
        let facts = fixture::facts();
        let with = |change: &dyn Fn(&mut Policy)| {
            let mut policy = fixture::policy();
            change(&mut policy);
            wanted(&policy, &facts)
        };
        assert_eq!(with(&|_| {}), Wanted::No);
        assert_eq!(with(&|p| p.level = Level::Strict), Wanted::Yes);
        assert_eq!(with(&|p| p.scopes[0].level = Some(Level::Strict)), Wanted::Yes);
        for rule in READERS {
            for asks in [Mode::Enforce, Mode::Warn] {
                let named = || BTreeMap::from([(rule.to_owned(), asks)]);
                assert_eq!(with(&|p| p.modes = named()), Wanted::Yes, "{rule} {asks:?}");
                assert_eq!(with(&|p| p.scopes[0].modes = named()), Wanted::Yes, "{rule} {asks:?}");
            }
        }
        assert_eq!(with(&|p| p.modes = BTreeMap::from([("BS-IMG-003".into(), Mode::Enforce)])), Wanted::No);
        // The longest scope in force asks for less than the node.
        let looser = |p: &mut Policy| (p.level, p.scopes[0].level) = (Level::Strict, Some(Level::Baseline));
        assert_eq!(with(&looser), Wanted::No);
    }

    #[test]
    fn what_is_refused_as_it_is_is_not_scanned() {
        let mut policy = fixture::policy();
        policy.level = Level::Strict;
        let with = |policy: &Policy, change: &dyn Fn(&mut Facts)| {
            let mut facts = fixture::facts();
            change(&mut facts);
            wanted(policy, &facts)
        };
        assert_eq!(with(&policy, &|_| {}), Wanted::Yes);
        assert_eq!(with(&policy, &|f| f.image = Fact::Absent), Wanted::Refused("BS-IMG-001".into()));
        assert_eq!(with(&policy, &|f| f.rootfs = Fact::Absent), Wanted::Refused("BS-IMG-002".into()));
        let mut elsewhere = policy.clone();
        elsewhere.registries.allow.clear();
        assert_eq!(with(&elsewhere, &|_| {}), Wanted::Refused("BS-IMG-003".into()));
        // Who only warns of it wants to know the rest.
        elsewhere.modes.insert("BS-IMG-003".into(), Mode::Warn);
        assert_eq!(with(&elsewhere, &|_| {}), Wanted::Yes);
        policy.exceptions = vec![fixture::exception("BS-IMG-002", None)];
        assert_eq!(with(&policy, &|f| f.rootfs = Fact::Absent), Wanted::Yes);
    }
}
