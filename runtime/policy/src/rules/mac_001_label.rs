//! BS-MAC-001: an allow-listed AppArmor profile or SELinux label is in force.
use super::{Ctx, PROCESSES, Rule, TIMEOUT_ROW, UNKNOWN_ROW};
use crate::facts::{Door, Fact, Lsm};
use crate::policy::Level;
use crate::verdict::Finding;
use crate::{standard, text};

pub(super) static RULE: Rule = Rule {
    id: "BS-MAC-001",
    title: "An allow-listed AppArmor profile in enforce mode, or SELinux label, is in force",
    nist: "4.4.3",
    from: Level::Restricted,
    misfit: "seal when none is named, deny otherwise",
    doors: PROCESSES,
    reads: "label.*, bound.label, policy label.{apparmor,selinux}",
    predicate: "AppArmor or SELinux is active; the profile or type that is named, or the policy's first when none is (or only CRI's \
        runtime default), is listed and enforced. An exec gets its container's.",
    fix: "name a profile of the policy's [label] lists, loaded in enforce mode",
    conditions: &[
        ("no-lsm", "neither AppArmor nor SELinux is active in this kernel"),
        ("unconfined", "the request asks to be unconfined"),
        ("unknown-profile", "the profile or type is not listed in the policy"),
        ("categories", "the level spans categories of more than one pod"),
        ("not-loaded", "the profile is not loaded in the kernel, or its policy does not know the label"),
        ("complain", "the profile only complains"),
        ("not-enforcing", "the LSM or the profile does not enforce"),
        ("other-lsm", "a label of the LSM that is not active is named"),
        ("differs", "an exec asks for another label than its container's"),
        ("injected", "sealed: the policy's default label is set"),
        UNKNOWN_ROW,
        TIMEOUT_ROW,
    ],
    cves: &["CVE-2019-16884", "CVE-2023-28642", "CVE-2025-52881"],
    check,
};

/// What the spec names: empty text and CRI's `RuntimeDefault` (which means the runtime's own) name nothing.
fn named<'a>(ctx: &Ctx<'a>) -> (Option<&'a str>, Option<&'a str>) {
    let l = &ctx.facts.label;
    let default =
        |name: &&str| *name == standard::CRI_DEFAULT_APPARMOR && !ctx.policy.label.apparmor.iter().any(|p| p == name);
    let apparmor = l.apparmor.as_deref().filter(|name| !name.is_empty() && !default(name));
    (apparmor, l.selinux.as_deref().filter(|name| !name.is_empty()))
}

fn container_label<'a>(ctx: &Ctx<'a>) -> Option<&'a str> {
    match ctx.facts.door {
        Door::Exec => ctx.facts.bound.is().map(|b| b.label.as_str()).filter(|l| !l.is_empty()),
        _ => None,
    }
}

/// The label to write: (AppArmor profile, SELinux context); none where there is no LSM or nothing that could be entered,
/// which only an exception or a warning lets start.
pub(crate) fn granted(ctx: &Ctx<'_>) -> (Option<String>, Option<String>) {
    let l = &ctx.facts.label;
    let (apparmor, selinux) = named(ctx);
    let exec = container_label(ctx).map(str::to_owned);
    match l.lsm {
        Lsm::AppArmor => {
            let create = match apparmor {
                Some("unconfined") => None,
                Some(name) => l.mode.is_some().then(|| name.to_owned()),
                None => ctx.policy.label.apparmor.first().filter(|_| l.default_mode.is_some()).cloned(),
            };
            (if ctx.facts.door == Door::Exec { exec } else { create }, None)
        }
        Lsm::Selinux => {
            let create = || match selinux {
                Some(label) => not_known(l.mode.as_deref()).is_none().then(|| label.to_owned()),
                None => {
                    let default = ctx.policy.label.selinux.first();
                    default.filter(|_| not_known(l.default_mode.as_deref()).is_none()).map(|kind| context(ctx, kind))
                }
            };
            (None, if ctx.facts.door == Door::Exec { exec } else { create() })
        }
        Lsm::Neither | Lsm::Unknown(_) => (None, None),
    }
}

/// A context of the type with two categories of the pod's own, so that pods do not share files.
fn context(ctx: &Ctx<'_>, kind: &str) -> String {
    let s = &ctx.facts.subject;
    let of = if s.sandbox_id.is_empty() { &s.id } else { &s.sandbox_id };
    let hash = of.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let (a, b) = ((hash >> 20) % 1024, (hash >> 40) % 1023);
    let b = if b >= a { b + 1 } else { b };
    format!("system_u:system_r:{kind}:s0:c{},c{}", a.min(b), a.max(b))
}

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    let l = &ctx.facts.label;
    if ctx.facts.door == Door::Exec {
        match &ctx.facts.bound {
            Fact::Is(_) => {}
            Fact::Absent => {
                return vec![RULE.unknown_fix(
                    "the container's label",
                    "it has no sealed record",
                    "recreate the container",
                )];
            }
            Fact::Unknown(why) => {
                return vec![RULE.unknown_fix("the container's label", why, "recreate the container")];
            }
        }
    }
    if l.lsm == Lsm::Neither {
        let no_lsm = RULE.deny_fix(
            "no-lsm",
            "neither AppArmor nor SELinux is active in this kernel",
            "boot with one of them, or add a dated [[exception]] for `no-lsm`",
        );
        return misnamed(ctx).into_iter().chain([no_lsm]).collect();
    }
    let finding = match &l.lsm {
        Lsm::Unknown(why) => RULE.unknown_fix("which LSM is active", why, "boltseal doctor shows what the kernel says"),
        Lsm::AppArmor => apparmor(ctx),
        Lsm::Selinux | Lsm::Neither => selinux(ctx),
    };
    vec![finding]
}

/// What no exception for `no-lsm` covers: to ask to be unconfined, or for a label that the policy does not list.
fn misnamed(ctx: &Ctx<'_>) -> Vec<Finding> {
    let (apparmor, selinux) = named(ctx);
    let apparmor = apparmor.and_then(|name| match name {
        "unconfined" => Some(RULE.deny("unconfined", "asks to be unconfined")),
        name if ctx.policy.label.apparmor.iter().any(|p| p == name) => None,
        name => {
            Some(RULE.deny("unknown-profile", format!("profile \"{}\" is not in label.apparmor", text::show(name))))
        }
    });
    apparmor.into_iter().chain(selinux.and_then(|label| misnamed_selinux(ctx, label))).collect()
}

fn misnamed_selinux(ctx: &Ctx<'_>, label: &str) -> Option<Finding> {
    match label.split(':').nth(2) {
        Some(kind) if label.split(':').count() >= 4 && ctx.policy.label.selinux.iter().any(|t| t == kind) => {
            let spans = !is_of_one_pod(label.splitn(4, ':').nth(3).unwrap_or_default());
            spans.then(|| RULE.deny("categories", format!("the level of \"{}\" spans categories", text::show(label))))
        }
        Some("unconfined_t" | "spc_t") => Some(RULE.deny("unconfined", format!("asks for {}", text::show(label)))),
        _ => {
            Some(RULE.deny("unknown-profile", format!("the type of \"{}\" is not in label.selinux", text::show(label))))
        }
    }
}

/// A level as a pod has it: at most two categories, no range of levels (`s0-s0:c5`) and no run of categories (`c0.c1023`),
/// which would hold those of other pods.
fn is_of_one_pod(level: &str) -> bool {
    let (sensitivity, categories) = level.split_once(':').unwrap_or((level, ""));
    let is = |text: &str, letter| {
        text.strip_prefix(letter).is_some_and(|n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    let mut categories = categories.split(',').filter(|_| level.contains(':'));
    is(sensitivity, 's') && categories.clone().count() <= 2 && categories.all(|c| is(c, 'c'))
}

fn apparmor(ctx: &Ctx<'_>) -> Finding {
    let l = &ctx.facts.label;
    let (name, other) = named(ctx);
    if let Some(other) = other {
        return RULE
            .deny("other-lsm", format!("an SELinux label is named ({}), AppArmor is active", text::show(other)));
    }
    let default = ctx.policy.label.apparmor.first().map(String::as_str);
    if ctx.facts.door == Door::Exec {
        return match (container_label(ctx), name) {
            (None, _) => RULE.deny("unconfined", "its container has no label"),
            (Some(label), Some(name)) if label != name => differs(name, label),
            (Some(label), _) if Some(label) == default => {
                mode(label, l.default_mode.as_deref()).unwrap_or_else(|| pass(label))
            }
            (Some(label), Some(_)) => mode(label, l.mode.as_deref()).unwrap_or_else(|| pass(label)),
            (Some(label), None) => pass(label),
        };
    }
    match (name, default) {
        (Some("unconfined"), _) => RULE.deny("unconfined", "asks to be unconfined"),
        (Some(name), _) if !ctx.policy.label.apparmor.iter().any(|p| p == name) => {
            RULE.deny("unknown-profile", format!("profile \"{}\" is not in label.apparmor", text::show(name)))
        }
        (Some(name), _) => mode(name, l.mode.as_deref()).unwrap_or_else(|| pass(name)),
        (None, Some(default)) => mode(default, l.default_mode.as_deref()).unwrap_or_else(|| {
            RULE.sealed("injected", format!("profile {} set; the request names none", text::show(default)))
        }),
        (None, None) => RULE.deny("unconfined", "no profile is named, and label.apparmor has no default"),
    }
}

/// Why a profile in that mode does not confine.
fn mode(name: &str, mode: Option<&str>) -> Option<Finding> {
    let name = text::show(name);
    match mode {
        Some("enforce" | "kill") => None,
        None => Some(RULE.deny("not-loaded", format!("profile \"{name}\" is not loaded in the kernel"))),
        Some("complain") => Some(RULE.deny("complain", format!("profile \"{name}\" only complains"))),
        Some(mode) => Some(RULE.deny("not-enforcing", format!("profile \"{name}\" is in mode {}", text::show(mode)))),
    }
}

fn selinux(ctx: &Ctx<'_>) -> Finding {
    let l = &ctx.facts.label;
    let (other, label) = named(ctx);
    if !l.enforcing {
        return RULE.deny_fix(
            "not-enforcing",
            "SELinux is active but permissive",
            "setenforce 1, and boot with enforcing=1",
        );
    }
    if let Some(other) = other {
        return RULE
            .deny("other-lsm", format!("an AppArmor profile is named ({}), SELinux is active", text::show(other)));
    }
    if ctx.facts.door == Door::Exec {
        return match (container_label(ctx), label) {
            (None, _) => RULE.deny("unconfined", "its container has no label"),
            (Some(has), Some(asked)) if has != asked => differs(asked, has),
            (Some(has), _) => pass(has),
        };
    }
    let unknown = |label: &str, why: &str| {
        let fix = "boltseal install adds boltseal_t; or load a policy that has the type";
        RULE.deny_fix("not-loaded", format!("label \"{}\" is {}", text::show(label), text::show(why)), fix)
    };
    match (label, ctx.policy.label.selinux.first()) {
        (Some(label), _) => misnamed_selinux(ctx, label)
            .or_else(|| not_known(l.mode.as_deref()).map(|why| unknown(label, why)))
            .unwrap_or_else(|| pass(label)),
        (None, Some(default)) => match not_known(l.default_mode.as_deref()) {
            Some(why) => unknown(&context(ctx, default), why),
            None => RULE.sealed("injected", format!("{} set; the request names no label", context(ctx, default))),
        },
        (None, None) => RULE.deny("unconfined", "no label is named, and label.selinux has no default"),
    }
}

/// Why the kernel's policy does not know an SELinux label; None when it does. One that was not asked about is the
/// launch's to refuse: the write of an unknown label fails.
fn not_known(mode: Option<&str>) -> Option<&str> {
    mode.filter(|mode| *mode != "known")
}

fn pass(label: &str) -> Finding {
    RULE.pass(format!("{} in force", text::show(label)))
}

fn differs(asked: &str, has: &str) -> Finding {
    let fact = format!("exec asks for label \"{}\", its container has \"{}\"", text::show(asked), text::show(has));
    RULE.deny_fix("differs", fact, "exec with the container's own label")
}

#[cfg(test)]
mod tests {
    use super::super::outcomes;
    use super::*;
    use crate::facts::{Bound, Facts, Label};
    use crate::fixture;
    use crate::policy::Policy;

    fn table(change: impl Fn(&mut Label)) -> (String, (Option<String>, Option<String>)) {
        let (policy, mut facts) = (fixture::policy(), fixture::facts());
        change(&mut facts.label);
        (outcomes(&RULE, &policy, &facts).remove(0), granted(&Ctx::new(&policy, &facts)))
    }

    fn named(apparmor: &str, mode: Option<&str>) -> (String, Option<String>) {
        let (outcome, (label, _)) = table(|l| {
            l.apparmor = Some(apparmor.into());
            l.mode = mode.map(str::to_owned);
        });
        (outcome, label)
    }

    #[test]
    fn truth_table_apparmor() {
        let default = Some("boltseal-default".to_owned());
        assert_eq!(named("boltseal-default", Some("enforce")), ("pass".into(), default.clone()));
        assert_eq!(named("boltseal-default", Some("kill")), ("pass".into(), default.clone()));
        assert_eq!(named("boltseal-default", Some("complain")), ("deny complain".into(), default.clone()));
        assert_eq!(named("boltseal-default", Some("unconfined")), ("deny not-enforcing".into(), default.clone()));
        assert_eq!(named("boltseal-default", None), ("deny not-loaded".into(), None));
        assert_eq!(named("other", Some("enforce")), ("deny unknown-profile".into(), Some("other".into())));
        assert_eq!(named("unconfined", Some("unconfined")), ("deny unconfined".into(), None));
        assert_eq!(named("", None), ("seal injected".into(), default.clone()));
        // CRI's runtime default means the runtime's own, and this runtime's is ours.
        assert_eq!(named("cri-containerd.apparmor.d", None), ("seal injected".into(), default));
        let (outcome, label) = table(|l| {
            l.apparmor = None;
            l.default_mode = Some("complain".into());
        });
        assert_eq!((outcome.as_str(), label.0.is_some()), ("deny complain", true));
        let (outcome, label) = table(|l| {
            l.apparmor = None;
            l.default_mode = None;
        });
        assert_eq!((outcome.as_str(), label.0), ("deny not-loaded", None));
        assert_eq!(table(|l| l.selinux = Some("a:b:container_t:s0".into())).0, "deny other-lsm");
    }

    #[test]
    fn truth_table_lsm() {
        assert_eq!(table(|l| l.lsm = Lsm::Neither), ("deny no-lsm".into(), (None, None)));
        assert_eq!(table(|l| l.lsm = Lsm::Unknown("x".into())), ("deny unknown".into(), (None, None)));
        assert_eq!(table(|l| *l = Label::default()).0, "deny no-lsm");
    }

    #[test]
    fn an_exception_for_no_lsm_does_not_cover_a_wrong_name() {
        let all = |change: fn(&mut Label)| {
            let mut facts = fixture::facts();
            facts.label = Label::default();
            change(&mut facts.label);
            outcomes(&RULE, &fixture::policy(), &facts)
        };
        assert_eq!(all(|l| l.apparmor = Some("unconfined".into())), ["deny no-lsm", "deny unconfined"]);
        assert_eq!(all(|l| l.apparmor = Some("other".into())), ["deny no-lsm", "deny unknown-profile"]);
        assert_eq!(all(|l| l.selinux = Some("a:b:spc_t:s0".into())), ["deny no-lsm", "deny unconfined"]);
        assert_eq!(all(|l| l.selinux = Some("a:b:other_t:s0".into())), ["deny no-lsm", "deny unknown-profile"]);
        assert_eq!(all(|l| l.apparmor = Some("boltseal-default".into())), ["deny no-lsm"]);
        assert_eq!(all(|_| {}), ["deny no-lsm"]);
    }

    #[test]
    fn truth_table_selinux() {
        let selinux = |label: Option<&str>, enforcing| {
            let (outcome, (_, label)) = table(|l| {
                *l = Label { lsm: Lsm::Selinux, selinux: label.map(str::to_owned), enforcing, ..Default::default() }
            });
            (outcome, label)
        };
        let good = "system_u:system_r:container_t:s0:c1,c2";
        assert_eq!(selinux(Some(good), true), ("pass".into(), Some(good.into())));
        assert_eq!(selinux(Some(good), false).0, "deny not-enforcing");
        assert_eq!(selinux(Some("a:b:spc_t:s0"), true).0, "deny unconfined");
        assert_eq!(selinux(Some("a:b:other_t:s0"), true).0, "deny unknown-profile");
        assert_eq!(selinux(Some("container_t"), true).0, "deny unknown-profile");
        assert_eq!(selinux(Some("a:b:container_t"), true).0, "deny unknown-profile");
        for (level, outcome) in [
            ("s0", "pass"),
            ("s0:c1", "pass"),
            ("s0:c1,c1023", "pass"),
            ("s0-s0:c0.c1023", "deny categories"),
            ("s0:c0.c1023", "deny categories"),
            ("s0:c1,c2,c3", "deny categories"),
            ("s0:c1,c2-s0:c3", "deny categories"),
            ("s0:", "deny categories"),
            ("", "deny categories"),
        ] {
            let label = format!("system_u:system_r:container_t:{level}");
            assert_eq!(selinux(Some(&label), true).0, outcome, "{level}");
        }
        for (named, asked) in [(Some(good), true), (None, false)] {
            for (mode, outcome) in [("known", None), ("not known to the kernel's policy", Some("deny not-loaded"))] {
                let (found, (_, label)) = table(|l| {
                    *l = Label {
                        lsm: Lsm::Selinux,
                        selinux: named.map(str::to_owned),
                        enforcing: true,
                        ..Default::default()
                    };
                    *(if asked { &mut l.mode } else { &mut l.default_mode }) = Some(mode.into());
                });
                let expected = outcome.unwrap_or(if asked { "pass" } else { "seal injected" });
                assert_eq!(found, expected, "{named:?} {mode}");
                assert_eq!((found.starts_with("deny"), label.is_none()), (outcome.is_some(), outcome.is_some()));
            }
        }
        let (outcome, label) = selinux(None, true);
        assert_eq!(outcome, "seal injected");
        assert!(label.unwrap().starts_with("system_u:system_r:boltseal_t:s0:c"));
    }

    /// Two categories of the pod's own: the same for all of its containers, and always written in order.
    #[test]
    fn an_injected_context_is_of_one_pod() {
        let of = |sandbox: &str, id: &str| {
            let (policy, mut facts) = (fixture::policy(), fixture::facts());
            facts.subject.sandbox_id = sandbox.into();
            facts.subject.id = id.into();
            context(&Ctx::new(&policy, &facts), "boltseal_t")
        };
        // FNV-1a, 64 bits: the second below the first, above it, and the same, which moves on by one.
        for (sandbox, level) in [("s1", "c821,c855"), ("s10", "c452,c830"), ("s76", "c453,c454")] {
            assert_eq!(of(sandbox, "c1"), format!("system_u:system_r:boltseal_t:s0:{level}"), "{sandbox}");
        }
        assert_eq!(of("", "s1"), of("s1", "other"));
    }

    #[test]
    fn an_exec_under_selinux_gets_its_containers_context() {
        let exec = |asked: Option<&str>, has: &str| {
            let (policy, mut facts): (Policy, Facts) = (fixture::policy(), fixture::facts());
            facts.door = Door::Exec;
            facts.label =
                Label { lsm: Lsm::Selinux, enforcing: true, selinux: asked.map(str::to_owned), ..Default::default() };
            facts.bound = Fact::Is(Bound { label: has.into(), ..Default::default() });
            (outcomes(&RULE, &policy, &facts).remove(0), granted(&Ctx::new(&policy, &facts)).1.unwrap_or_default())
        };
        let (own, other) = ("a:b:container_t:s0:c1,c2", "a:b:container_t:s0:c3,c4");
        assert_eq!(exec(None, own), ("pass".into(), own.into()));
        assert_eq!(exec(Some(own), own), ("pass".into(), own.into()));
        assert_eq!(exec(Some(other), own), ("deny differs".into(), own.into()));
        assert_eq!(exec(None, ""), ("deny unconfined".into(), String::new()));
    }

    /// A profile may have been switched to complain since its container was made.
    #[test]
    fn at_exec_the_profiles_mode_counts_again() {
        let exec = |asked: Option<&str>, has: &str, mode: &str, default_mode: &str| {
            let (mut policy, mut facts): (Policy, Facts) = (fixture::policy(), fixture::facts());
            policy.label.apparmor.push("other".into());
            facts.door = Door::Exec;
            facts.label.apparmor = asked.map(str::to_owned);
            (facts.label.mode, facts.label.default_mode) = (Some(mode.into()), Some(default_mode.into()));
            facts.bound = Fact::Is(Bound { label: has.into(), ..Default::default() });
            outcomes(&RULE, &policy, &facts).remove(0)
        };
        assert_eq!(exec(Some("boltseal-default"), "boltseal-default", "enforce", "enforce"), "pass");
        assert_eq!(exec(None, "boltseal-default", "enforce", "complain"), "deny complain");
        assert_eq!(exec(Some("other"), "other", "enforce", "complain"), "pass");
        assert_eq!(exec(Some("other"), "other", "complain", "enforce"), "deny complain");
        assert_eq!(exec(None, "other", "enforce", "complain"), "pass");
    }

    #[test]
    fn exec_gets_its_containers_label() {
        let exec = |asked: Option<&str>, has: &str| {
            let (policy, mut facts): (Policy, Facts) = (fixture::policy(), fixture::facts());
            facts.door = Door::Exec;
            facts.label.apparmor = asked.map(str::to_owned);
            facts.bound = Fact::Is(Bound { label: has.into(), ..Default::default() });
            (outcomes(&RULE, &policy, &facts).remove(0), granted(&Ctx::new(&policy, &facts)).0.unwrap_or_default())
        };
        let row = |outcome: &str, label: &str| (outcome.to_owned(), label.to_owned());
        assert_eq!(exec(None, "boltseal-default"), row("pass", "boltseal-default"));
        assert_eq!(exec(Some("cri-containerd.apparmor.d"), "boltseal-default"), row("pass", "boltseal-default"));
        assert_eq!(exec(Some("unconfined"), "boltseal-default"), row("deny differs", "boltseal-default"));
        assert_eq!(exec(Some("other"), "boltseal-default"), row("deny differs", "boltseal-default"));
        assert_eq!(exec(None, ""), row("deny unconfined", ""));
        let (policy, mut facts) = (fixture::policy(), fixture::facts());
        facts.door = Door::Exec;
        for bound in [Fact::Absent, Fact::Unknown("x".into())] {
            facts.bound = bound;
            assert_eq!(outcomes(&RULE, &policy, &facts), ["deny unknown"]);
        }
    }
}
