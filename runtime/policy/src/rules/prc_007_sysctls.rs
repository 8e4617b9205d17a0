//! BS-PRC-007: only safe, namespaced sysctls are set.
use super::{CREATE, Ctx, Rule};
use crate::facts::{Fact, Facts, NamespaceOrigin};
use crate::policy::Level;
use crate::text;
use crate::verdict::Finding;

pub(super) static RULE: Rule = Rule {
    id: "BS-PRC-007",
    title: "sysctls only from the safe namespaced list",
    nist: "4.4.3",
    from: Level::Baseline,
    misfit: "deny",
    doors: CREATE,
    reads: "sysctls, namespaces.listed, policy process.sysctls, allowance sysctls",
    predicate: "each sysctl is listed in process.sysctls or granted by an allowance, belongs to a namespace (net.*, kernel.shm*, \
        kernel.msg*, kernel.sem, fs.mqueue.*) and that namespace is not the host's.",
    fix: "remove it, or list it in process.sysctls (namespaced ones only)",
    conditions: &[
        ("not-listed", "neither listed nor granted"),
        ("host-sysctl", "it would change the host"),
        ("bad-value", "the value is not one line of printable text"),
    ],
    cves: &["CVE-2022-0811"],
    check,
};

/// OCI kind of the namespace that holds the sysctl; None when the whole host shares it.
fn namespace_of(name: &str) -> Option<&'static str> {
    let plain = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && name.split('.').all(|p| !p.is_empty());
    if !plain {
        return None;
    }
    let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."];
    if name.starts_with("net.") {
        Some("network")
    } else if name == "kernel.sem" || ipc.iter().any(|p| name.starts_with(p)) {
        Some("ipc")
    } else {
        None
    }
}

pub(crate) fn is_namespaced(name: &str) -> bool {
    namespace_of(name).is_some()
}

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    let mut out: Vec<Finding> = ctx.facts.sysctls.iter().filter_map(|(name, value)| judge(ctx, name, value)).collect();
    if out.is_empty() {
        out.push(RULE.pass(format!("{} sysctls, all safe", ctx.facts.sysctls.len())));
    }
    out
}

fn judge(ctx: &Ctx<'_>, name: &str, value: &str) -> Option<Finding> {
    let shown = text::show(name);
    let own = namespace_of(name).is_some_and(|kind| is_own(ctx.facts, kind));
    if !own {
        return Some(RULE.deny("host-sysctl", format!("{shown} belongs to the host")));
    }
    if value.is_empty() || value.len() > 256 || !value.bytes().all(|b| b == b' ' || b == b'\t' || b.is_ascii_graphic())
    {
        return Some(RULE.deny_fix(
            "bad-value",
            format!("{shown} has the value \"{}\"", text::show(value)),
            "give it one printable line",
        ));
    }
    if ctx.policy.process.sysctls.contains(name) {
        return None;
    }
    Some(match ctx.allowed(|a| a.sysctls.contains(name)) {
        Some(by) => RULE.allowed(by, "not-listed", shown),
        None => RULE.deny("not-listed", format!("{shown} is not in process.sysctls")),
    })
}

fn is_own(facts: &Facts, kind: &str) -> bool {
    facts
        .namespaces
        .listed
        .iter()
        .any(|n| n.kind == kind && matches!(n.origin, Fact::Is(NamespaceOrigin::New | NamespaceOrigin::OwnPod)))
}

#[cfg(test)]
mod tests {
    use super::super::outcomes;
    use super::*;
    use crate::fixture;

    fn table(name: &str, value: &str, change: impl Fn(&mut Facts)) -> Vec<String> {
        let mut policy = fixture::policy();
        policy.allowances = vec![fixture::allowance()];
        let mut facts = fixture::facts();
        facts.sysctls.insert(name.into(), value.into());
        change(&mut facts);
        outcomes(&RULE, &policy, &facts)
    }

    #[test]
    fn truth_table() {
        assert_eq!(outcomes(&RULE, &fixture::policy(), &fixture::facts()), ["pass"]);
        assert_eq!(table("net.ipv4.ip_unprivileged_port_start", "0", |_| {}), ["pass"]);
        assert_eq!(table("net.ipv4.ip_forward", "1", |_| {}), ["allowed test"]);
        assert_eq!(table("net.ipv4.conf.all.route_localnet", "1", |_| {}), ["deny not-listed"]);
        assert_eq!(table("kernel.core_pattern", "|/x", |_| {}), ["deny host-sysctl"]);
        assert_eq!(table("kernel.shm_rmid_forced", "1", |_| {}), ["pass"]);
        assert_eq!(table("kernel.shm_rmid_forced", "1+kernel.core_pattern=|/x\n", |_| {}), ["deny bad-value"]);
        for (value, expected) in [
            ("32768 60999".to_owned(), "pass"),
            ("32768\t60999".to_owned(), "pass"),
            ("1".repeat(256), "pass"),
            ("1".repeat(257), "deny bad-value"),
            (String::new(), "deny bad-value"),
        ] {
            assert_eq!(table("net.ipv4.ip_local_port_range", &value, |_| {}), [expected], "{value:?}");
        }
        for trick in ["net/ipv4/ip_forward", "net..x", "net.../kernel/core_pattern", "", "net.\0"] {
            assert_eq!(table(trick, "1", |_| {}), ["deny host-sysctl"], "{trick}");
        }
        let host = |f: &mut Facts| f.namespaces.listed.retain(|n| n.kind != "network");
        assert_eq!(table("net.ipv4.tcp_syncookies", "1", host), ["deny host-sysctl"]);
        let unknown = |f: &mut Facts| f.namespaces.listed.iter_mut().for_each(|n| n.origin = Fact::Unknown("x".into()));
        assert_eq!(table("net.ipv4.tcp_syncookies", "1", unknown), ["deny host-sysctl"]);
    }
}
