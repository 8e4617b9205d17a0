//! BS-NOD-003: what a workload is trusted with fits the node, and nothing of another sensitivity runs beside it.
use super::{CREATE, Ctx, Identity, Rule, TIMEOUT_ROW, UNKNOWN_ROW};
use crate::facts::Fact;
use crate::policy::{Level, NEUTRAL};
use crate::text;
use crate::verdict::Finding;

pub(super) static RULE: Rule = Rule {
    id: "BS-NOD-003",
    title: "The workload's sensitivity fits the node, and none other runs there",
    nist: "4.3.4",
    from: Level::Restricted,
    misfit: "deny",
    doors: CREATE,
    reads: "sensitivity, neighbours, policy sensitivity.*, policy scope.sensitivity",
    predicate: "the sensitivity of a container is what the policy's scope says of its image, else what the pod's annotation \
        boltseal.dev/sensitivity names, else sensitivity.default; the two do not disagree; it is one of sensitivity.levels of this \
        node; and every container that runs here has the same. The scope's \"*\" is for what runs beside everything (network \
        and log agents): it mixes with all, unless its pod names a sensitivity. Holds without a look where the policy names no \
        levels and the pod none.",
    fix: "run it on a node of that sensitivity: label the nodes, and let the pod select them",
    conditions: &[
        ("mixed", "a container of another sensitivity runs on this node"),
        ("unfit", "the sensitivity is none that this node may run"),
        ("unlabelled", "nothing says what the sensitivity is"),
        ("disagrees", "the pod's annotation and the policy's scope name two"),
        UNKNOWN_ROW,
        TIMEOUT_ROW,
    ],
    cves: &[],
    check,
};

/// What a container is trusted with.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sensitivity {
    Named(String),
    /// It runs beside everything.
    Neutral,
    /// Neither policy nor pod asks.
    Unasked,
    Unlabelled,
    /// (annotation, scope)
    Disagrees(String, String),
    Unknown(String),
}

/// What the container's own record keeps of it; `*` beside everything, empty where nobody asked.
pub(crate) fn granted(ctx: &Ctx<'_>) -> String {
    match sensitivity(ctx) {
        // Only the policy says that something runs beside everything.
        Sensitivity::Named(name) | Sensitivity::Disagrees(name, _) if name == NEUTRAL => String::new(),
        Sensitivity::Named(name) => name,
        Sensitivity::Neutral => NEUTRAL.into(),
        // Here only where the rule warns or is excepted: the pod's own word, which others then are compared with.
        Sensitivity::Disagrees(annotation, _) => annotation,
        Sensitivity::Unasked | Sensitivity::Unlabelled | Sensitivity::Unknown(_) => String::new(),
    }
}

fn sensitivity(ctx: &Ctx<'_>) -> Sensitivity {
    let rules = &ctx.policy.sensitivity;
    let scope = ctx.scope.map(|scope| scope.sensitivity.as_str()).filter(|name| !name.is_empty());
    let annotation = match &ctx.facts.sensitivity {
        Fact::Is(name) => Some(name.as_str()),
        Fact::Absent => None,
        Fact::Unknown(why) => return Sensitivity::Unknown(why.clone()),
    };
    match (annotation, scope) {
        (Some(annotation), Some(scope)) if scope != NEUTRAL && scope != annotation => {
            Sensitivity::Disagrees(annotation.into(), scope.into())
        }
        (Some(name), _) => Sensitivity::Named(name.into()),
        (None, Some(NEUTRAL)) => Sensitivity::Neutral,
        (None, Some(name)) => Sensitivity::Named(name.into()),
        // The policy names this sandbox image by digest, for any pod.
        (None, None) if matches!(ctx.identity, Identity::Pinned(_)) => Sensitivity::Neutral,
        (None, None) if !rules.default.is_empty() => Sensitivity::Named(rules.default.clone()),
        (None, None) if rules.levels.is_empty() => Sensitivity::Unasked,
        (None, None) => Sensitivity::Unlabelled,
    }
}

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    let levels = &ctx.policy.sensitivity.levels;
    let name = match sensitivity(ctx) {
        Sensitivity::Named(name) => name,
        Sensitivity::Neutral => return vec![RULE.pass("it runs beside every sensitivity")],
        Sensitivity::Unasked => return vec![RULE.pass("neither policy nor pod names a sensitivity")],
        Sensitivity::Unlabelled => {
            let fact = "the pod names no sensitivity, and the policy no default";
            return vec![RULE.deny_fix("unlabelled", fact, "annotate the pod: boltseal.dev/sensitivity")];
        }
        Sensitivity::Disagrees(annotation, scope) => {
            let (annotation, scope) = (text::show(&annotation), text::show(&scope));
            let fact = format!("the pod says \"{annotation}\", the policy's scope of this image \"{scope}\"");
            return vec![RULE.deny_fix("disagrees", fact, "correct the annotation boltseal.dev/sensitivity")];
        }
        Sensitivity::Unknown(why) => return vec![RULE.unknown("the pod's sensitivity", &why)],
    };
    let mut out = Vec::new();
    let shown = text::show(&name);
    if !levels.contains(&name) {
        let here = if levels.is_empty() { "none".into() } else { text::list(levels) };
        out.push(RULE.deny("unfit", format!("\"{shown}\" does not run on this node, which takes {here}")));
    }
    out.extend(beside(ctx, &name));
    if out.is_empty() {
        out.push(RULE.pass(format!("\"{shown}\", and nothing else runs here")));
    }
    out
}

/// A container that was started before anybody asked for sensitivities is of another one: nobody knows which.
fn beside(ctx: &Ctx<'_>, name: &str) -> Option<Finding> {
    let neighbours = match &ctx.facts.neighbours {
        Fact::Is(neighbours) => neighbours,
        Fact::Absent => return Some(RULE.unknown("what runs on this node", "nothing was observed")),
        Fact::Unknown(why) => return Some(RULE.unknown("what runs on this node", why)),
    };
    let others = || neighbours.iter().filter(|n| n.sensitivity != name && n.sensitivity != NEUTRAL);
    let first = others().next()?;
    let theirs = if first.sensitivity.is_empty() { "no sensitivity" } else { &first.sensitivity };
    let more = if others().count() > 1 { format!(" (+{} more)", others().count() - 1) } else { String::new() };
    Some(RULE.deny(
        "mixed",
        format!("\"{}\" beside {}, which has {}{more}", text::show(name), text::show(&first.id), text::show(theirs)),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::outcomes;
    use super::*;
    use crate::facts::Neighbour;
    use crate::{Policy, Verdict, decide, fixture};

    /// Levels of the node, default, scope's, annotation, what runs -> outcome.
    fn table(levels: &[&str], default: &str, scope: &str, annotation: Option<&str>, beside: &[&str]) -> String {
        let (policy, facts) = case(levels, default, scope, annotation, beside);
        outcomes(&RULE, &policy, &facts).join("; ")
    }

    fn case(
        levels: &[&str],
        default: &str,
        scope: &str,
        annotation: Option<&str>,
        beside: &[&str],
    ) -> (Policy, crate::Facts) {
        let (mut policy, mut facts) = (fixture::policy(), fixture::facts());
        policy.sensitivity.levels = levels.iter().map(ToString::to_string).collect();
        policy.sensitivity.default = default.into();
        policy.scopes[0].sensitivity = scope.into();
        facts.sensitivity = annotation.map_or(Fact::Absent, |name| Fact::Is(name.into()));
        let neighbour = |name: &&str| Neighbour { id: "other".into(), sensitivity: (*name).to_owned() };
        facts.neighbours = Fact::Is(beside.iter().map(neighbour).collect());
        (policy, facts)
    }

    #[test]
    fn truth_table() {
        let both = ["low", "high"];
        for (levels, default, scope, annotation, beside, expected) in [
            // Nobody asks.
            (&[][..], "", "", None, &[][..], "pass"),
            (&[], "", "", None, &["low", ""], "pass"),
            // A pod asks, and this node says nothing of levels.
            (&[], "", "", Some("high"), &[], "deny unfit"),
            // The node's levels.
            (&["low"], "", "", Some("low"), &[], "pass"),
            (&["low"], "", "", Some("high"), &[], "deny unfit"),
            (&["low"], "", "", Some(""), &[], "deny unfit"),
            (&["low"], "", "", None, &[], "deny unlabelled"),
            (&["low"], "low", "", None, &[], "pass"),
            (&["low"], "low", "", Some("high"), &[], "deny unfit"),
            // The policy's word on an image.
            (&both, "", "high", None, &[], "pass"),
            (&both, "", "high", Some("high"), &[], "pass"),
            (&both, "", "high", Some("low"), &[], "deny disagrees"),
            (&["low"], "low", "high", None, &[], "deny unfit"),
            // What runs already.
            (&both, "", "", Some("low"), &["low", "low"], "pass"),
            (&both, "", "", Some("low"), &["low", "high"], "deny mixed"),
            (&both, "", "", Some("high"), &["low"], "deny mixed"),
            (&both, "low", "", None, &["high"], "deny mixed"),
            (&both, "", "", Some("low"), &[""], "deny mixed"),
            (&["low"], "", "", Some("high"), &["low"], "deny mixed; deny unfit"),
            // What runs beside everything.
            (&both, "", "*", None, &["low"], "pass"),
            (&both, "", "", Some("high"), &["*"], "pass"),
            (&both, "", "*", Some("high"), &["low"], "deny mixed"),
            // Only the policy says that.
            (&both, "", "", Some("*"), &[], "deny unfit"),
        ] {
            let found = table(levels, default, scope, annotation, beside);
            assert_eq!(found, expected, "{levels:?} {default:?} {scope:?} {annotation:?} {beside:?}");
        }
    }

    #[test]
    fn of_many_neighbours_one_is_named() {
        let fact = |beside: &[&str]| {
            let (policy, facts) = case(&["low", "high"], "", "", Some("low"), beside);
            check(&Ctx::new(&policy, &facts)).remove(0).fact
        };
        assert_eq!(fact(&["high"]), "\"low\" beside other, which has high");
        assert_eq!(fact(&["low", ""]), "\"low\" beside other, which has no sensitivity");
        assert_eq!(fact(&["high", "high", "high", "low"]), "\"low\" beside other, which has high (+2 more)");
    }

    #[test]
    fn the_unknown_denies_where_somebody_asks() {
        let (policy, mut facts) = case(&["low"], "", "", Some("low"), &[]);
        for (why, expected) in [("x", "deny unknown"), ("timeout", "deny timeout")] {
            facts.neighbours = Fact::Unknown(why.into());
            assert_eq!(outcomes(&RULE, &policy, &facts), [expected]);
        }
        facts.neighbours = Fact::Absent;
        assert_eq!(outcomes(&RULE, &policy, &facts), ["deny unknown"]);
        facts.sensitivity = Fact::Unknown("x".into());
        assert_eq!(outcomes(&RULE, &policy, &facts), ["deny unknown"]);
    }

    #[test]
    fn a_pinned_sandbox_serves_any_pod_and_says_so_of_itself() {
        let (mut policy, mut facts) = case(&["low", "high"], "", "", None, &["high"]);
        policy.sandbox.digests = vec![fixture::digest('b')];
        if let Fact::Is(image) = &mut facts.image {
            image.signatures.clear();
        }
        assert_eq!(outcomes(&RULE, &policy, &facts), ["pass"]);
        assert_eq!(granted(&Ctx::new(&policy, &facts)), "*");
        facts.sensitivity = Fact::Is("low".into());
        assert_eq!(outcomes(&RULE, &policy, &facts), ["deny mixed"]);
    }

    #[test]
    fn the_record_keeps_what_was_judged() {
        for (scope, annotation, expected) in [
            ("", None, "low"),
            ("", Some("high"), "high"),
            ("high", None, "high"),
            ("*", None, "*"),
            ("*", Some("low"), "low"),
        ] {
            let (policy, facts) = case(&["low", "high"], "low", scope, annotation, &[]);
            let Verdict::Allow(permit) = decide(&policy, &facts) else { panic!("{scope} {annotation:?}") };
            assert_eq!(permit.terms().sensitivity, expected);
        }
        let (policy, facts) = case(&[], "", "", None, &[]);
        assert_eq!(granted(&Ctx::new(&policy, &facts)), "");
        // With the rule on warn: a pod's own `*` makes nobody its neighbour's equal.
        for scope in ["", "high"] {
            let (mut policy, facts) = case(&["low", "high"], "", scope, Some("*"), &[]);
            policy.modes.insert("BS-NOD-003".into(), crate::policy::Mode::Warn);
            let Verdict::Allow(permit) = decide(&policy, &facts) else { panic!("{scope}") };
            assert_eq!(permit.terms().sensitivity, "");
        }
    }
}
