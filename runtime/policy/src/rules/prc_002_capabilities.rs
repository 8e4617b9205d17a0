//! BS-PRC-002: capabilities are bounded in all five sets, and execve gains none.
use super::{Ctx, PROCESSES, Rule, TIMEOUT_ROW, UNKNOWN_ROW};
use crate::facts::{Capabilities, Door, Fact};
use crate::policy::Level;
use crate::verdict::Finding;
use crate::{standard, text};
use std::collections::BTreeSet;

pub(super) static RULE: Rule = Rule {
    id: "BS-PRC-002",
    title: "no_new_privs; capabilities bounded in all five sets",
    nist: "4.4.3",
    from: Level::Baseline,
    misfit: "seal within the runtimes' default set, deny beyond it",
    doors: PROCESSES,
    reads: "process.{capabilities,no_new_privileges}, bound.capabilities, policy process.capabilities, allowance capabilities",
    predicate: "every capability in any set is of the runtimes' default 14, or granted by an allowance (for exec: is the container's). \
        Of the default set only process.capabilities and grants stay, the others are dropped. A spec without capabilities gets none. \
        Inheritable and ambient become empty, no_new_privs true.",
    fix: "drop it (securityContext.capabilities), or grant it by an [[allowance]]",
    conditions: &[
        ("beyond-default", "a capability beyond the runtimes' default set is asked for"),
        ("exceeds-container", "an exec asks for a capability that its container has not"),
        ("dropped", "sealed: a capability of the default set is dropped"),
        ("none", "sealed: no capabilities named, which libcontainer reads as all"),
        ("new-privileges", "sealed: no_new_privs is set"),
        UNKNOWN_ROW,
        TIMEOUT_ROW,
    ],
    cves: &["CVE-2022-24769", "CVE-2022-29162", "CVE-2022-27650", "CVE-2025-27612", "CVE-2022-0492"],
    check,
};

fn asked(capabilities: Option<&Capabilities>) -> BTreeSet<&str> {
    capabilities
        .into_iter()
        .flat_map(|c| [&c.bounding, &c.effective, &c.inheritable, &c.permitted, &c.ambient])
        .flatten()
        .map(String::as_str)
        .collect()
}

fn is_default(name: &str) -> bool {
    standard::DEFAULT_CAPABILITIES.contains(&name)
}

/// What policy, grant or container lets a process keep.
fn ceiling(ctx: &Ctx<'_>, name: &str) -> bool {
    match ctx.facts.door {
        Door::Exec => ctx.facts.bound.is().is_some_and(|b| b.capabilities.contains(name)),
        _ => ctx.policy.process.capabilities.contains(name) || ctx.allowed(|a| a.capabilities.contains(name)).is_some(),
    }
}

/// The set that the process gets, if the verdict is to allow: what it asked for without what is dropped. What was asked
/// beyond the default set is in it: had no grant, exception or warning let it through, there would be no permit.
pub(crate) fn kept(ctx: &Ctx<'_>) -> BTreeSet<String> {
    asked(ctx.facts.process.capabilities.as_ref())
        .into_iter()
        .filter(|name| !is_default(name) || ceiling(ctx, name))
        .map(str::to_owned)
        .collect()
}

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    let mut out = Vec::new();
    if let (Door::Exec, Fact::Unknown(why)) = (ctx.facts.door, &ctx.facts.bound) {
        out.push(RULE.unknown_fix("what the container was sealed to", why, "recreate the container"));
    }
    if ctx.facts.door == Door::Exec && ctx.facts.bound == Fact::Absent {
        out.push(RULE.unknown_fix(
            "what the container was sealed to",
            "it has no sealed record",
            "recreate the container",
        ));
    }
    let asked = asked(ctx.facts.process.capabilities.as_ref());
    let (mut beyond, mut dropped) = (Vec::new(), Vec::new());
    for name in asked {
        if ceiling(ctx, name) {
            if let Some(by) = ctx.allowed(|a| a.capabilities.contains(name)).filter(|_| ctx.facts.door == Door::Create)
            {
                out.push(RULE.allowed(by, "beyond-default", text::show(name)));
            }
        } else if is_default(name) {
            dropped.push(name);
        } else {
            beyond.push(name);
        }
    }
    if !beyond.is_empty() {
        let names = text::list(&beyond);
        out.push(match ctx.facts.door {
            Door::Exec => RULE.deny_fix(
                "exceeds-container",
                format!("exec asks for {names}, which its container has not"),
                "exec without it",
            ),
            _ => RULE.deny("beyond-default", format!("asks for {names}, beyond the runtimes' default set")),
        });
    }
    if !dropped.is_empty() {
        out.push(RULE.sealed("dropped", format!("dropped {}", dropped.join(" "))));
    }
    if ctx.facts.process.capabilities.is_none() {
        out.push(RULE.sealed("none", "no capabilities named: it gets none"));
    }
    if !ctx.facts.process.no_new_privileges {
        out.push(RULE.sealed("new-privileges", "no_new_privs set"));
    }
    if out.is_empty() {
        out.push(RULE.pass("no_new_privs, capabilities within the ceiling"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::outcomes;
    use super::*;
    use crate::facts::{Bound, Facts};
    use crate::fixture;
    use crate::policy::Policy;

    fn asking(facts: &mut Facts, names: &[&str]) {
        facts.process.capabilities = Some(Capabilities { ambient: fixture::set(names), ..Default::default() });
    }

    fn table(change: impl Fn(&mut Policy, &mut Facts)) -> (Vec<String>, Vec<String>) {
        let (mut policy, mut facts) = (fixture::policy(), fixture::facts());
        change(&mut policy, &mut facts);
        (outcomes(&RULE, &policy, &facts), kept(&Ctx::new(&policy, &facts)).into_iter().collect())
    }

    fn row(outcome: &[&str], kept: &[&str]) -> (Vec<String>, Vec<String>) {
        (outcome.iter().map(ToString::to_string).collect(), kept.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn truth_table() {
        assert_eq!(table(|_, _| {}), row(&["pass"], &[]));
        assert_eq!(table(|_, f| f.process.capabilities = None), row(&["seal none"], &[]));
        assert_eq!(table(|_, f| f.process.no_new_privileges = false), row(&["seal new-privileges"], &[]));
        assert_eq!(table(|_, f| asking(f, &["CAP_CHOWN"])), row(&["seal dropped"], &[]));
        assert_eq!(table(|_, f| asking(f, &["CAP_SYS_ADMIN"])), row(&["deny beyond-default"], &["CAP_SYS_ADMIN"]));
        assert_eq!(table(|_, f| asking(f, &["cap_chown"])), row(&["deny beyond-default"], &["cap_chown"]));
        let keep = |p: &mut Policy, f: &mut Facts| {
            p.process.capabilities = fixture::set(&["CAP_CHOWN"]);
            asking(f, &["CAP_CHOWN", "CAP_KILL"]);
        };
        assert_eq!(table(keep), row(&["seal dropped"], &["CAP_CHOWN"]));
        let grant = |p: &mut Policy, f: &mut Facts| {
            p.allowances = vec![fixture::allowance()];
            asking(f, &["CAP_NET_ADMIN"]);
        };
        assert_eq!(table(grant), row(&["allowed test"], &["CAP_NET_ADMIN"]));
        let of_another = |p: &mut Policy, f: &mut Facts| {
            grant(p, f);
            p.allowances[0].repository = "ghcr.io/corp/other".into();
        };
        assert_eq!(table(of_another), row(&["deny beyond-default"], &["CAP_NET_ADMIN"]));
        let by_another = |p: &mut Policy, f: &mut Facts| {
            grant(p, f);
            p.allowances[0].authority = "other".into();
        };
        assert_eq!(table(by_another), row(&["deny beyond-default"], &["CAP_NET_ADMIN"]));
    }

    #[test]
    fn exec_is_bounded_by_its_container() {
        let exec = |names: &'static [&'static str], has: &'static [&'static str]| {
            table(move |p, f| {
                // What the policy would grant at create does not count any more.
                p.process.capabilities = fixture::set(&["CAP_CHOWN"]);
                f.door = Door::Exec;
                f.bound = Fact::Is(Bound { capabilities: fixture::set(has), ..Default::default() });
                asking(f, names);
            })
        };
        assert_eq!(exec(&["CAP_NET_ADMIN"], &["CAP_NET_ADMIN"]), row(&["pass"], &["CAP_NET_ADMIN"]));
        assert_eq!(exec(&["CAP_NET_ADMIN"], &[]), row(&["deny exceeds-container"], &["CAP_NET_ADMIN"]));
        assert_eq!(exec(&["CAP_CHOWN"], &[]), row(&["seal dropped"], &[]));
        for bound in [Fact::Absent, Fact::Unknown("x".into())] {
            let (outcome, _) = table(|_, f| {
                f.door = Door::Exec;
                f.bound = bound.clone();
            });
            assert_eq!(outcome, ["deny unknown"]);
        }
    }

    #[test]
    fn every_set_counts() {
        for at in 0..5 {
            let (outcome, _) = table(|_, f| {
                let mut c = Capabilities::default();
                let set = match at {
                    0 => &mut c.bounding,
                    1 => &mut c.effective,
                    2 => &mut c.inheritable,
                    3 => &mut c.permitted,
                    _ => &mut c.ambient,
                };
                *set = fixture::set(&["CAP_SYS_PTRACE"]);
                f.process.capabilities = Some(c);
            });
            assert_eq!(outcome, ["deny beyond-default"]);
        }
    }
}
