//! BS-NET-001: TCP ports bound and connected only where the policy grants and the pod declares. What is not granted is refused
//! at run time: by Landlock, and by programs on the cgroup, which also see what Landlock does not (a listener that names no
//! port, a connection that begins with its first data, other kinds of sockets).
use super::{CREATE, Ctx, Identity, Rule, TIMEOUT_ROW, UNKNOWN_ROW};
use crate::decide::enforced;
use crate::facts::Fact;
use crate::network::{ANNOTATION, Open, TCP_RIGHTS};
use crate::policy::Level;
use crate::text;
use crate::verdict::Finding;

pub(super) static RULE: Rule = Rule {
    id: "BS-NET-001",
    title: "TCP ports are bound and connected only where the policy grants and the pod declares",
    nist: "4.4.2",
    from: Level::Strict,
    misfit: "seal; refused at run time",
    doors: CREATE,
    reads: "ports, landlock, network_hooks, policy scope.bind, policy scope.connect, policy landlock.ports",
    predicate: "what is open is what the image's scope names in bind and connect, narrowed to what the annotation boltseal.dev/ports \
        declares; one that is not understood opens nothing. A list that the scope does not name is empty where this rule is enforced, and else does not confine. Landlock \
        (ABI 4; not with landlock.ports = false) and programs on the container's cgroup (cgroup v2) hold it, for execs too. A \
        sandbox image that the policy pins has nothing open where the rule is enforced. Holds without a look where nobody confines.",
    fix: "correct the annotation, or grant the port in the scope's bind or connect",
    conditions: &[
        ("beyond", "the annotation declares what the policy does not grant"),
        ("malformed", "the annotation is not understood"),
        ("no-landlock", "this kernel's Landlock knows no TCP rights"),
        ("no-hooks", "this node has no cgroup v2 to attach programs to"),
        ("ports", "sealed: only these TCP ports are open"),
        UNKNOWN_ROW,
        TIMEOUT_ROW,
    ],
    cves: &[],
    check,
};

/// What the permit opens. Beyond the grant nothing is, also where the rule only warns.
pub(crate) fn granted(ctx: &Ctx<'_>) -> Open {
    match declared(ctx) {
        Some(Ok(declared)) => grant(ctx).narrowed(&declared).0,
        // A pod that asks to be narrowed, in words that cannot be read, is: where this only warns, nothing is open to it.
        Some(Err(_)) => Open { bind: Some(Vec::new()), connect: Some(Vec::new()) },
        None => grant(ctx),
    }
}

/// The policy's word: the scope's lists; nothing at all where a rule is enforced and the scope names none.
fn grant(ctx: &Ctx<'_>) -> Open {
    let (bind, connect) = ctx.scope.map_or((None, None), |scope| (scope.bind.clone(), scope.connect.clone()));
    let closed = |rule: &Rule| enforced(ctx, rule).then(Vec::new);
    Open {
        bind: bind.or_else(|| enforced(ctx, &RULE).then(Vec::new)),
        connect: connect.or_else(|| closed(&super::net_002_destinations::RULE)),
    }
}

/// The pod's word; None where it says nothing. A pinned sandbox image serves any pod: what the pod says is about others.
fn declared(ctx: &Ctx<'_>) -> Option<Result<Open, Finding>> {
    if matches!(ctx.identity, Identity::Pinned(_)) {
        return None;
    }
    match &ctx.facts.ports {
        Fact::Absent => None,
        Fact::Is(annotation) => Some(Open::declared(annotation).map_err(|why| {
            let fact =
                format!("the annotation {ANNOTATION} is not understood: {}", text::shorten(&text::escape(&why), 160));
            RULE.deny_fix("malformed", fact, "write it as bind=8080, connect=10.0.0.0/8:443")
        })),
        Fact::Unknown(why) => Some(Err(RULE.unknown("what the pod declares", why))),
    }
}

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    let mut out = Vec::new();
    match declared(ctx) {
        Some(Ok(declared)) => {
            let (_, beyond) = grant(ctx).narrowed(&declared);
            if !beyond.is_empty() {
                out.push(RULE.deny("beyond", format!("the pod declares {}, which is not granted", text::list(beyond))));
            }
        }
        Some(Err(finding)) => out.push(finding),
        None => {}
    }
    let open = granted(ctx);
    if open == Open::default() {
        if out.is_empty() {
            out.push(RULE.pass("neither policy nor pod confines the network"));
        }
        return out;
    }
    match &ctx.facts.landlock {
        Fact::Is(abi) if *abi >= TCP_RIGHTS => {}
        Fact::Is(abi) => out.push(RULE.deny_fix(
            "no-landlock",
            format!("Landlock has ABI {abi}; TCP ports need {TCP_RIGHTS}"),
            "a kernel from 6.7 on, booted with lsm=landlock,..",
        )),
        Fact::Absent => out.push(RULE.unknown("Landlock's ABI", "nothing was observed")),
        Fact::Unknown(why) => out.push(RULE.unknown("Landlock's ABI", why)),
    }
    out.extend(hooks(ctx, &RULE));
    if out.is_empty() {
        out.push(RULE.sealed(
            "ports",
            format!(
                "binds {}; connects to {}{}",
                shown(open.bind_tcp()),
                shown(open.connect_tcp()),
                if ctx.policy.landlock.ports { "" } else { "; held by programs alone" }
            ),
        ));
    }
    out
}

/// Whether the node can hold the programs.
pub(super) fn hooks(ctx: &Ctx<'_>, rule: &Rule) -> Option<Finding> {
    let fix = "boot with cgroup v2 (systemd.unified_cgroup_hierarchy=1)";
    match &ctx.facts.network_hooks {
        Fact::Is(()) => None,
        Fact::Absent => Some(rule.deny_fix("no-hooks", "this node has no cgroup v2 that could confine sockets", fix)),
        Fact::Unknown(why) => Some(rule.unknown_fix("whether sockets can be confined", why, fix)),
    }
}

fn shown(ports: Option<Vec<u16>>) -> String {
    match ports {
        None => "any TCP port".into(),
        Some(ports) if ports.is_empty() => "no TCP port".into(),
        Some(ports) => format!("TCP {}", text::list(ports.iter().map(ToString::to_string))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcomes;
    use super::*;
    use crate::network::{Destination, Ports};
    use crate::policy::Mode;
    use crate::{Facts, Policy, Verdict, decide, fixture};

    type Lists<'a> = (Option<&'a [&'a str]>, Option<&'a [&'a str]>);

    fn case(level: Level, (bind, connect): Lists<'_>, annotation: Option<&str>) -> (Policy, Facts) {
        let (mut policy, mut facts) = (fixture::policy(), fixture::facts());
        policy.level = level;
        let ports = |list: &[&str]| list.iter().map(|p| Ports::try_from((*p).to_owned()).unwrap()).collect();
        let goals = |list: &[&str]| list.iter().map(|d| Destination::try_from((*d).to_owned()).unwrap()).collect();
        policy.scopes[0].bind = bind.map(ports);
        policy.scopes[0].connect = connect.map(goals);
        facts.ports = annotation.map_or(Fact::Absent, |text| Fact::Is(text.into()));
        (policy, facts)
    }

    /// What is open as `bind | connect`; `any` where nobody confines.
    fn opened(policy: &Policy, facts: &Facts) -> String {
        let Verdict::Allow(permit) = decide(policy, facts) else { return "denied".into() };
        let open = &permit.terms().network;
        let list = |items: Option<Vec<String>>| items.map_or("any".into(), |items| items.join(" "));
        let bind = open.bind.as_ref().map(|l| l.iter().map(ToString::to_string).collect());
        let connect = open.connect.as_ref().map(|l| l.iter().map(ToString::to_string).collect());
        format!("{} | {}", list(bind), list(connect))
    }

    #[test]
    fn truth_table() {
        use Level::{Restricted, Strict};
        let web: Lists<'_> = (Some(&["80", "8000-8010"]), Some(&["10.0.0.0/8:443"]));
        for (level, lists, annotation, expected, open) in [
            // Nobody confines.
            (Restricted, (None, None), None, "pass", "any | any"),
            // The level does.
            (Strict, (None, None), None, "seal ports", " | "),
            (Strict, (Some(&["80"][..]), None), None, "seal ports", "80 | "),
            // The scope does, at any level.
            (Restricted, web, None, "seal ports", "80 8000-8010 | 10.0.0.0/8:443"),
            (Restricted, (Some(&[][..]), None), None, "seal ports", " | any"),
            (Restricted, (None, Some(&["*:443"][..])), None, "seal ports", "any | *:443"),
            (Level::Observe, web, None, "seal ports", "80 8000-8010 | 10.0.0.0/8:443"),
            // The pod narrows.
            (Restricted, web, Some("bind=8005"), "seal ports", "8005 | "),
            (Restricted, web, Some("bind=80, connect=10.1.2.3:443"), "seal ports", "80 | 10.1.2.3:443"),
            (Restricted, web, Some(""), "seal ports", " | "),
            (Restricted, (None, None), Some("bind=80"), "seal ports", "80 | "),
            // It never widens; below the rule's level that is told, and not open.
            (Strict, web, Some("bind=81"), "deny beyond", "denied"),
            (Strict, web, Some("connect=10.0.0.1:80"), "deny beyond", "denied"),
            (Strict, web, Some("connect=11.0.0.1:443"), "deny beyond", "denied"),
            (Strict, (None, None), Some("bind=80"), "deny beyond", "denied"),
            (Restricted, web, Some("bind=80 bind=81"), "deny beyond", "80 | "),
            // What is not understood opens nothing.
            (Strict, web, Some("80"), "deny malformed", "denied"),
            (Restricted, web, Some("80"), "deny malformed", " | "),
            (Restricted, (None, None), Some("80"), "deny malformed", " | "),
        ] {
            let (policy, facts) = case(level, lists, annotation);
            assert_eq!(outcomes(&RULE, &policy, &facts).join("; "), expected, "{level:?} {lists:?} {annotation:?}");
            assert_eq!(opened(&policy, &facts), open, "{level:?} {lists:?} {annotation:?}");
        }
    }

    #[test]
    fn what_is_open_is_said_in_words() {
        for (ports, said) in [(None, "any TCP port"), (Some(vec![]), "no TCP port"), (Some(vec![80, 81]), "TCP 80, 81")]
        {
            assert_eq!(shown(ports), said);
        }
    }

    #[test]
    fn what_the_node_cannot_hold_denies_where_somebody_confines() {
        for (lists, level, expected) in [
            ((None, None), Level::Restricted, vec!["pass"]),
            ((None, None), Level::Strict, vec!["deny no-hooks", "deny no-landlock"]),
            ((Some(&[][..]), None), Level::Restricted, vec!["deny no-hooks", "deny no-landlock"]),
        ] {
            let (mut policy, mut facts) = case(level, lists, None);
            policy.landlock.abi = 3;
            facts.landlock = Fact::Is(3);
            facts.network_hooks = Fact::Absent;
            assert_eq!(outcomes(&RULE, &policy, &facts), expected, "{lists:?}");
        }
        let (policy, mut facts) = case(Level::Strict, (None, None), None);
        for (why, expected) in [("x", "deny unknown"), ("timeout", "deny timeout")] {
            facts.network_hooks = Fact::Unknown(why.into());
            assert_eq!(outcomes(&RULE, &policy, &facts), [expected]);
        }
        facts.network_hooks = Fact::Is(());
        facts.landlock = Fact::Unknown("x".into());
        assert_eq!(outcomes(&RULE, &policy, &facts), ["deny unknown"]);
        facts.landlock = Fact::Absent;
        assert_eq!(outcomes(&RULE, &policy, &facts), ["deny unknown"]);
    }

    #[test]
    fn an_unknown_annotation_denies_also_where_nobody_confines() {
        let (policy, mut facts) = case(Level::Restricted, (None, None), None);
        facts.ports = Fact::Unknown("x".into());
        assert_eq!(outcomes(&RULE, &policy, &facts), ["deny unknown"]);
    }

    /// A rule on `warn` closes nothing that nobody named; a list that is named confines all the same.
    #[test]
    fn modes() {
        let (mut policy, facts) = case(Level::Strict, (None, Some(&["*:443"])), None);
        policy.modes.insert("BS-NET-001".into(), Mode::Warn);
        policy.modes.insert("BS-NET-002".into(), Mode::Warn);
        assert_eq!(opened(&policy, &facts), "any | *:443");
        policy.scopes[0].modes.insert("BS-NET-001".into(), Mode::Enforce);
        assert_eq!(opened(&policy, &facts), " | *:443");
    }

    #[test]
    fn a_pinned_sandbox_has_nothing_open_and_is_not_asked() {
        let (mut policy, mut facts) = case(Level::Strict, (Some(&["80"]), None), Some("bind=9999"));
        policy.sandbox.digests = vec![fixture::digest('b')];
        if let Fact::Is(image) = &mut facts.image {
            image.signatures.clear();
        }
        assert_eq!(outcomes(&RULE, &policy, &facts), ["seal ports"]);
        assert_eq!(opened(&policy, &facts), " | ");
        policy.level = Level::Restricted;
        assert_eq!(opened(&policy, &facts), "any | any");
    }

    #[test]
    fn what_is_open_is_told() {
        let (mut policy, facts) = case(Level::Strict, (Some(&["80-84", "53/udp"]), Some(&["*:*"])), None);
        let found = (RULE.check)(&Ctx::new(&policy, &facts));
        assert_eq!(found[0].fact, "binds TCP 80, 81, 82 and 2 more; connects to any TCP port");
        policy.landlock.ports = false;
        let found = (RULE.check)(&Ctx::new(&policy, &facts));
        assert!(found[0].fact.ends_with("; held by programs alone"), "{}", found[0].fact);
    }
}
