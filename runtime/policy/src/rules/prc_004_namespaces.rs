//! BS-PRC-004: each namespace is new or this pod's own.
use super::{CREATE, Ctx, Rule, TIMEOUT_ROW, UNKNOWN_ROW};
use crate::facts::{Fact, Facts, Namespace, NamespaceOrigin};
use crate::policy::Level;
use crate::verdict::Finding;
use crate::{standard, text};
use std::collections::BTreeSet;

pub(super) static RULE: Rule = Rule {
    id: "BS-PRC-004",
    title: "Each namespace is new, or this pod's own; never the host's, never another pod's",
    nist: "4.4.2, 4.5.2",
    from: Level::Baseline,
    misfit: "deny",
    doors: CREATE,
    reads: "namespaces.listed, subject.disagreements, process.capabilities, devices.allowed, root.masked, allowance host_namespaces",
    predicate: "pid, ipc, uts, mount, network are listed once, each new or this pod's own by nsfs (device, inode); user, time and \
        cgroup may be; a cgroup namespace is added. What annotations, containerd and our own record say of the pod agrees. The spec \
        is not that of a privileged container.",
    fix: "do not share the host's namespaces, or grant it by an [[allowance]]",
    conditions: &[
        ("host-namespace", "a namespace is the host's, or is not listed, which means the host's"),
        ("foreign-namespace", "a namespace is another pod's"),
        ("bad-namespace", "a kind is listed twice or is not known"),
        ("disagreement", "the sources disagree about which pod this is"),
        ("privileged", "all devices are allowed and capabilities or masked paths are lifted"),
        ("cgroup-added", "sealed: a cgroup namespace is added"),
        UNKNOWN_ROW,
        TIMEOUT_ROW,
    ],
    cves: &["CVE-2020-15257", "CVE-2026-53492"],
    check,
};

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    let listed = &ctx.facts.namespaces.listed;
    let mut out = Vec::new();
    let mut seen = BTreeSet::new();
    for namespace in listed {
        let known = standard::NAMESPACES.contains(&namespace.kind.as_str())
            || ["user", "time", "cgroup"].contains(&namespace.kind.as_str());
        if !known || !seen.insert(namespace.kind.as_str()) {
            let fact = format!("namespace \"{}\" is unknown or listed twice", text::show(&namespace.kind));
            out.push(RULE.deny_fix("bad-namespace", fact, "list each namespace kind once"));
        }
        out.extend(judge(ctx, namespace));
    }
    for kind in standard::NAMESPACES.iter().filter(|kind| !seen.contains(**kind)) {
        out.push(host(ctx, kind, ""));
    }
    if !ctx.facts.subject.disagreements.is_empty() {
        let fact = format!("which pod this is: {}", text::list(&ctx.facts.subject.disagreements));
        out.push(RULE.deny_fix(
            "disagreement",
            fact,
            "recreate the pod; annotations cannot move a container to another one",
        ));
    }
    if is_privileged(ctx.facts) {
        out.push(RULE.deny_fix(
            "privileged",
            "this is the spec of a privileged container",
            "take `privileged: true` off",
        ));
    }
    if !seen.contains("cgroup") {
        out.push(RULE.sealed("cgroup-added", "a cgroup namespace is added"));
    }
    if out.is_empty() {
        out.push(RULE.pass("every namespace is new or this pod's own"));
    }
    out
}

fn judge(ctx: &Ctx<'_>, n: &Namespace) -> Option<Finding> {
    let mut shown = format!("{} namespace", text::show(&n.kind));
    if !n.path.is_empty() {
        shown.push_str(&format!(" {}", text::show(&n.path)));
    }
    match &n.origin {
        Fact::Is(NamespaceOrigin::New | NamespaceOrigin::OwnPod) => None,
        Fact::Is(NamespaceOrigin::Host) => Some(host(ctx, &n.kind, &n.path)),
        Fact::Is(NamespaceOrigin::Foreign(of)) => {
            let fact = format!("{shown} is held by {}, of another pod", text::show(of));
            Some(RULE.deny_fix("foreign-namespace", fact, "join only namespaces of the container's own pod"))
        }
        Fact::Absent => Some(RULE.deny_fix(
            "bad-namespace",
            format!("{shown} does not exist"),
            "name a namespace that exists, or none for a new one",
        )),
        Fact::Unknown(why) => Some(RULE.unknown_fix(
            &format!("whose the {shown} is"),
            why,
            "recreate the pod; boltseal doctor checks the node",
        )),
    }
}

fn host(ctx: &Ctx<'_>, kind: &str, path: &str) -> Finding {
    let fact = match path {
        "" => format!("{kind} namespace is the host's"),
        path => format!("{} namespace is the host's ({})", text::show(kind), text::show(path)),
    };
    let grantable = ["network", "pid", "ipc", "uts"].contains(&kind);
    match ctx.allowed(|a| grantable && a.host_namespaces.contains(kind)) {
        Some(by) => RULE.allowed(by, "host-namespace", fact),
        None => RULE.deny("host-namespace", fact),
    }
}

/// CRI's `privileged` leaves these marks together: every device, and all capabilities or nothing masked.
fn is_privileged(facts: &Facts) -> bool {
    let every_device =
        facts.devices.allowed.iter().any(|d| d.major.is_none() && d.minor.is_none() && d.access.contains(['r', 'w']));
    let lifted = facts.root.masked.is_empty()
        || facts
            .process
            .capabilities
            .as_ref()
            .is_some_and(|c| c.bounding.contains("CAP_SYS_ADMIN") || c.effective.contains("CAP_SYS_ADMIN"));
    every_device && lifted
}

#[cfg(test)]
mod tests {
    use super::super::outcomes;
    use super::*;
    use crate::facts::DeviceRule;
    use crate::fixture;

    fn table(change: impl Fn(&mut Facts)) -> Vec<String> {
        let mut facts = fixture::facts();
        change(&mut facts);
        outcomes(&RULE, &fixture::policy(), &facts)
    }

    fn with(kind: &str, origin: Fact<NamespaceOrigin>) -> Vec<String> {
        table(|f| {
            f.namespaces.listed.retain(|n| n.kind != kind);
            f.namespaces.listed.push(Namespace {
                kind: kind.into(),
                origin: origin.clone(),
                path: "/proc/1/ns/x".into(),
                object: None,
            });
        })
    }

    #[test]
    fn truth_table() {
        assert_eq!(table(|_| {}), ["pass"]);
        for kind in ["pid", "ipc", "uts", "mount", "network"] {
            assert_eq!(table(|f| f.namespaces.listed.retain(|n| n.kind != kind)), ["deny host-namespace"], "{kind}");
            assert_eq!(with(kind, Fact::Is(NamespaceOrigin::OwnPod)), ["pass"]);
            assert_eq!(with(kind, Fact::Is(NamespaceOrigin::Host)), ["deny host-namespace"]);
            assert_eq!(with(kind, Fact::Is(NamespaceOrigin::Foreign("x".into()))), ["deny foreign-namespace"]);
            assert_eq!(with(kind, Fact::Absent), ["deny bad-namespace"]);
            assert_eq!(with(kind, Fact::Unknown("x".into())), ["deny unknown"]);
            assert_eq!(with(kind, Fact::Unknown("timeout: x".into())), ["deny timeout"]);
        }
        assert_eq!(table(|f| f.namespaces.listed.retain(|n| n.kind != "cgroup")), ["seal cgroup-added"]);
        assert_eq!(with("cgroup", Fact::Is(NamespaceOrigin::Host)), ["deny host-namespace"]);
        assert_eq!(with("user", Fact::Is(NamespaceOrigin::New)), ["pass"]);
        assert_eq!(with("user", Fact::Is(NamespaceOrigin::Host)), ["deny host-namespace"]);
        assert_eq!(with("moon", Fact::Is(NamespaceOrigin::New)), ["deny bad-namespace"]);
        assert_eq!(
            table(|f| {
                let n = f.namespaces.listed[0].clone();
                f.namespaces.listed.push(n);
            }),
            ["deny bad-namespace"]
        );
        assert_eq!(table(|f| f.subject.disagreements = vec!["pod uid".into()]), ["deny disagreement"]);
    }

    #[test]
    fn privileged_is_named() {
        let every = DeviceRule { kind: 'a', major: None, minor: None, access: "rwm".into() };
        assert_eq!(
            table(|f| {
                f.devices.allowed.push(every.clone());
                f.root.masked.clear();
            }),
            ["deny privileged"]
        );
        // With every device, to hold CAP_SYS_ADMIN is as much as to hide nothing.
        for bounding in [true, false] {
            let found = table(|f| {
                f.devices.allowed.push(every.clone());
                let c = f.process.capabilities.get_or_insert_default();
                *(if bounding { &mut c.bounding } else { &mut c.effective }) = fixture::set(&["CAP_SYS_ADMIN"]);
            });
            assert_eq!(found, ["deny privileged"]);
        }
        // Creating any node is what the runtimes' default list allows; it is no mark of privilege.
        let nodes = DeviceRule { kind: 'c', major: None, minor: None, access: "m".into() };
        assert_eq!(
            table(|f| {
                f.devices.allowed.push(nodes.clone());
                f.root.masked.clear();
            }),
            ["pass"]
        );
    }

    #[test]
    fn an_allowance_grants_by_kind() {
        let mut policy = fixture::policy();
        policy.allowances = vec![fixture::allowance()];
        let mut facts = fixture::facts();
        facts.namespaces.listed.retain(|n| n.kind != "network");
        assert_eq!(outcomes(&RULE, &policy, &facts), ["allowed test"]);
        facts.namespaces.listed.retain(|n| n.kind != "pid");
        assert_eq!(outcomes(&RULE, &policy, &facts), ["allowed test", "deny host-namespace"]);
    }
}
