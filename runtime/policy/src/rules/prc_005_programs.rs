//! BS-PRC-005: nothing but the container's own program is run.
use super::{Ctx, PROCESSES, Rule, TIMEOUT_ROW, UNKNOWN_ROW};
use crate::facts::{Door, Fact, Hook};
use crate::policy::Level;
use crate::verdict::Finding;
use crate::{programs, text};

pub(super) static RULE: Rule = Rule {
    id: "BS-PRC-005",
    title: "No hooks (but by allowance), no restore, no log programs; only listed programs, where a scope lists them",
    nist: "4.4.3",
    from: Level::Baseline,
    misfit: "seal, deny",
    doors: PROCESSES,
    reads: "hooks, restore, log_programs, process.args, process.cwd, process.search, landlock, allowance hooks, policy scope.programs",
    predicate: "each hook is of a stage that runs (prestart, createRuntime, createContainer) and granted by stage, path, file \
        digest and exact arguments, with an empty environment; what runs is a copy of exactly the bytes of that digest. No \
        checkpoint is named; stdio names no program. Where the image's scope has a list `programs`, the process's first argument, \
        looked for as execvp does (a name without a slash in the PATH of its own environment), is on it by that name, for an exec too; and \
        Landlock's right to execute is given to what the listed paths lead to in the image, and to nothing else, for every process \
        of the container. What a sealed list does not name does not run where the rule only warns, either.",
    fix: "remove it; a hook can be granted by an [[allowance]] (path, digest, args)",
    conditions: &[
        ("hook", "a hook that no allowance grants"),
        ("restore", "a checkpoint to restore from is named"),
        ("log-program", "stdio names a program or an unknown scheme"),
        ("program", "the program that is to run is not on the scope's list"),
        ("no-landlock", "this kernel has no Landlock that could hold the list"),
        ("programs", "sealed: only these programs run"),
        UNKNOWN_ROW,
        TIMEOUT_ROW,
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
    out.extend(ctx.scope.and_then(|scope| scope.programs.as_ref()).map(|list| listed(ctx, list)));
    if out.is_empty() {
        out.push(RULE.pass("no hook, no checkpoint, no log program"));
    }
    out
}

fn listed(ctx: &Ctx<'_>, list: &[String]) -> Finding {
    let name = text::show(ctx.facts.process.args.first().map_or("", String::as_str));
    if !programs::names(list, &ctx.facts.process) {
        let fact = format!("the program \"{name}\" is not on the scope's list of {}", list.len());
        return RULE.deny_fix("program", fact, "add its path to `programs` of the [[scope]], or start what is listed");
    }
    if ctx.facts.door == Door::Exec {
        // What holds it is what the container was sealed to.
        return RULE.pass(format!("the program \"{name}\" is on the scope's list"));
    }
    match &ctx.facts.landlock {
        Fact::Is(1..) => RULE.sealed("programs", format!("only these run: {}", text::list(list))),
        Fact::Is(0) | Fact::Absent => RULE.deny_fix(
            "no-landlock",
            "this kernel has no Landlock, which holds the list of programs",
            "a kernel from 5.13 on, booted with lsm=landlock,..",
        ),
        Fact::Unknown(why) => RULE.unknown_fix("Landlock's ABI", why, "boltseal doctor shows what this node lacks"),
    }
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

    /// `door program`, with this list.
    fn program(list: &[&str], change: impl Fn(&mut Facts)) -> Vec<String> {
        let (mut policy, mut facts) = (fixture::policy(), fixture::facts());
        policy.scopes[0].programs = Some(list.iter().map(ToString::to_string).collect());
        change(&mut facts);
        outcomes(&RULE, &policy, &facts)
    }

    fn exec(facts: &mut Facts) {
        facts.door = Door::Exec;
        facts.bound = Fact::Is(crate::facts::Bound {
            repository: Some("ghcr.io/corp/app".into()),
            authority: Some("ci".into()),
            ..Default::default()
        });
    }

    #[test]
    fn truth_table_of_lists() {
        let sealed = ["seal programs"];
        let runs = |program: &'static str| move |f: &mut Facts| f.process.args = vec![program.into()];
        assert_eq!(program(&["/app"], |_| {}), sealed);
        assert_eq!(program(&["/other", "-/app"], |_| {}), sealed);
        assert_eq!(program(&["/other"], |_| {}), ["deny program"]);
        assert_eq!(program(&[], |_| {}), ["deny program"]);
        assert_eq!(program(&["/app"], runs("/app2")), ["deny program"]);
        assert_eq!(program(&["/opt/"], runs("/opt/x/app")), sealed);
        assert_eq!(program(&["/app"], |f| f.process.args.clear()), ["deny program"]);
        // PATH is the environment's own.
        assert_eq!(program(&["/usr/bin/app"], runs("app")), sealed);
        let elsewhere = |f: &mut Facts| {
            f.process.args = vec!["app".into()];
            f.process.search = Some("/opt".into());
        };
        assert_eq!(program(&["/usr/bin/app"], elsewhere), ["deny program"]);
        // A folder of its own is where a relative name begins.
        let relative = |f: &mut Facts| {
            f.process.args = vec!["bin/app".into()];
            f.process.cwd = "/srv".into();
        };
        assert_eq!(program(&["/srv/bin/app"], relative), sealed);
        // What holds it.
        assert_eq!(program(&["/app"], |f| f.landlock = Fact::Is(1)), sealed);
        assert_eq!(program(&["/app"], |f| f.landlock = Fact::Is(0)), ["deny no-landlock"]);
        assert_eq!(program(&["/app"], |f| f.landlock = Fact::Absent), ["deny no-landlock"]);
        assert_eq!(program(&["/app"], |f| f.landlock = Fact::Unknown("x".into())), ["deny unknown"]);
        assert_eq!(program(&["/app"], |f| f.landlock = Fact::Unknown("timeout".into())), ["deny timeout"]);
        // An exec: what was sealed holds it, whatever the kernel is asked for now.
        assert_eq!(program(&["/app"], exec), ["pass"]);
        let other = |f: &mut Facts| {
            exec(f);
            f.process.args = vec!["/bin/sh".into()];
        };
        assert_eq!(program(&["/app"], other), ["deny program"]);
        let no_landlock = |f: &mut Facts| {
            exec(f);
            f.landlock = Fact::Is(0);
        };
        assert_eq!(program(&["/app"], no_landlock), ["pass"]);
        // Other faults are told beside it.
        assert_eq!(program(&["/app"], |f| f.restore = true), ["deny restore", "seal programs"]);
    }

    /// A scope without a list, and the longest scope alone: nobody else's list counts.
    #[test]
    fn no_list_names_nothing() {
        let (mut policy, facts) = (fixture::policy(), fixture::facts());
        assert_eq!(outcomes(&RULE, &policy, &facts), ["pass"]);
        let mut narrow = policy.scopes[0].clone();
        narrow.repository = "ghcr.io/corp/app".into();
        policy.scopes[0].programs = Some(vec!["/other".into()]);
        policy.scopes.push(narrow);
        assert_eq!(outcomes(&RULE, &policy, &facts), ["pass"]);
    }

    /// What is told of is what is sealed; where the rule only warns the list stays.
    #[test]
    fn the_terms_have_the_list_of_the_scope() {
        use crate::{Verdict, decide};
        let (mut policy, facts) = (fixture::policy(), fixture::facts());
        let granted = |policy: &crate::Policy| match decide(policy, &facts) {
            Verdict::Allow(permit) => permit.terms().programs.clone(),
            Verdict::Deny(denial) => panic!("{denial:?}"),
        };
        assert_eq!(granted(&policy), None);
        let list = vec!["/app".to_owned(), "-/lib/".to_owned()];
        policy.scopes[0].programs = Some(list.clone());
        assert_eq!(granted(&policy), Some(list));
        let other = vec!["/other".to_owned()];
        policy.scopes[0].programs = Some(other.clone());
        assert!(matches!(decide(&policy, &facts), Verdict::Deny(_)));
        policy.modes.insert(RULE.id.into(), crate::policy::Mode::Warn);
        assert_eq!(granted(&policy), Some(other));
    }
}
