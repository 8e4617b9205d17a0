//! BS-PRC-005: nothing but the container's own program is run.
use super::{Ctx, PROCESSES, Rule};
use crate::facts::{Door, Fact, Hook};
use crate::policy::Level;
use crate::text;
use crate::verdict::Finding;

pub(super) static RULE: Rule = Rule {
    id: "BS-PRC-005",
    title: "No hooks (but by allowance), no restore, no log programs",
    nist: "4.4.3",
    from: Level::Baseline,
    misfit: "deny",
    doors: PROCESSES,
    reads: "hooks, restore, log_programs, allowance hooks",
    predicate: "each hook is of a stage that runs (prestart, createRuntime, createContainer) and granted by stage, path, file \
        digest and exact arguments, with an empty environment; what runs is a copy of exactly the bytes of that digest. No \
        checkpoint is named; stdio names no program.",
    fix: "remove it; a hook can be granted by an [[allowance]] (path, digest, args)",
    conditions: &[
        ("hook", "a hook that no allowance grants"),
        ("restore", "a checkpoint to restore from is named"),
        ("log-program", "stdio names a program or an unknown scheme"),
    ],
    cves: &["CVE-2025-23266", "CVE-2024-0132", "CVE-2026-53488", "CVE-2026-53492", "CVE-2026-53489"],
    check,
};

/// Stages whose hooks run: between the making of the container and its last inspection.
pub(crate) const RUN: [&str; 3] = ["prestart", "createRuntime", "createContainer"];

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    let mut out: Vec<Finding> = Vec::new();
    if ctx.facts.door == Door::Create {
        out.extend(ctx.facts.hooks.iter().map(|h| judge(ctx, h)));
        if ctx.facts.restore {
            out.push(RULE.deny_fix(
                "restore",
                "a checkpoint to restore from is named",
                "start the image instead; restore is not supported",
            ));
        }
    }
    if !ctx.facts.log_programs.is_empty() {
        let fact = format!("stdio names a program: {}", text::list(&ctx.facts.log_programs));
        out.push(RULE.deny_fix("log-program", fact, "log to a fifo or a file:// path"));
    }
    if out.is_empty() {
        out.push(RULE.pass("no hook, no checkpoint, no log program"));
    }
    out
}

fn judge(ctx: &Ctx<'_>, hook: &Hook) -> Finding {
    let what = format!("{} hook {}", text::show(&hook.stage), text::show(&hook.path));
    if !RUN.contains(&hook.stage.as_str()) {
        let fact = format!("{what}: hooks of this stage are never run here");
        return RULE.deny_fix("hook", fact, "use prestart, createRuntime or createContainer, or remove it");
    }
    let digest = match &hook.digest {
        Fact::Is(digest) => digest.as_str(),
        Fact::Absent => return RULE.deny("hook", format!("{what} does not exist")),
        Fact::Unknown(why) => return RULE.deny("hook", format!("{what}: its digest is unknown: {}", text::show(why))),
    };
    let by = ctx.allowed(|a| {
        hook.env.is_empty()
            && a.hooks
                .iter()
                .any(|h| h.stage == hook.stage && h.path == hook.path && h.digest == digest && h.args == hook.args)
    });
    match by {
        Some(by) => RULE.allowed(by, "hook", what),
        None => RULE.deny("hook", format!("{what} is granted by no allowance")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcomes;
    use super::*;
    use crate::facts::Facts;
    use crate::fixture;

    fn table(change: impl Fn(&mut Facts)) -> Vec<String> {
        let mut policy = fixture::policy();
        policy.allowances = vec![fixture::allowance()];
        let mut facts = fixture::facts();
        change(&mut facts);
        outcomes(&RULE, &policy, &facts)
    }

    fn hook(change: impl Fn(&mut Hook)) -> Vec<String> {
        table(|f| {
            let granted = &fixture::allowance().hooks[0];
            let mut hook = Hook {
                stage: granted.stage.clone(),
                path: granted.path.clone(),
                args: granted.args.clone(),
                env: Vec::new(),
                digest: Fact::Is(granted.digest.clone()),
                copy: String::new(),
            };
            change(&mut hook);
            f.hooks.push(hook);
        })
    }

    #[test]
    fn truth_table() {
        assert_eq!(table(|_| {}), ["pass"]);
        assert_eq!(hook(|_| {}), ["allowed test"]);
        assert_eq!(hook(|h| h.stage = "prestart".into()), ["deny hook"]);
        for never_run in ["startContainer", "poststart", "poststop", "x"] {
            assert_eq!(hook(|h| h.stage = never_run.into()), ["deny hook"]);
        }
        assert_eq!(hook(|h| h.path = "/bin/sh".into()), ["deny hook"]);
        assert_eq!(hook(|h| h.args.push("x".into())), ["deny hook"]);
        assert_eq!(hook(|h| h.env.push("LD_PRELOAD=/x".into())), ["deny hook"]);
        assert_eq!(hook(|h| h.digest = Fact::Is(fixture::digest('0'))), ["deny hook"]);
        assert_eq!(hook(|h| h.digest = Fact::Absent), ["deny hook"]);
        assert_eq!(hook(|h| h.digest = Fact::Unknown("x".into())), ["deny hook"]);
        assert_eq!(table(|f| f.restore = true), ["deny restore"]);
        assert_eq!(table(|f| f.log_programs = vec!["binary:///bin/touch".into()]), ["deny log-program"]);
        let exec = table(|f| {
            f.door = Door::Exec;
            f.log_programs = vec!["binary:///bin/touch".into()];
        });
        assert_eq!(exec, ["deny log-program"]);
    }
}
