//! BS-DEV-001: only allow-listed devices, enforced by the cgroup.
use super::{CREATE, Ctx, Rule};
use crate::facts::{Device, DeviceRule};
use crate::policy::Level;
use crate::verdict::Finding;
use crate::{pattern, standard, text};

pub(super) static RULE: Rule = Rule {
    id: "BS-DEV-001",
    title: "Only allow-listed devices, enforced by the cgroup",
    nist: "4.4.3",
    from: Level::Baseline,
    misfit: "deny; what the runtimes' own default list allows beyond need is sealed away",
    doors: CREATE,
    reads: "devices.*, process.capabilities, policy devices.allow, allowance devices",
    predicate: "each device is a standard one, or listed in devices.allow or granted and the one that the node itself has by that \
        name; each cgroup rule that allows reading or writing \
        is of such a device. Where the cgroup does not enforce yet, no device beyond the standard ones and no CAP_MKNOD.",
    fix: "list the device in devices.allow, or grant it by an [[allowance]]",
    conditions: &[
        ("device", "a device that is neither standard nor allowed"),
        ("device-rule", "a cgroup rule for a device that is not asked for"),
        ("all-devices", "a cgroup rule that allows every device"),
        ("not-enforced", "this node's cgroup does not enforce device rules yet"),
        ("mknod-rule", "sealed: rules that allow making nodes, and containerd's for /dev/net/tun, are left out"),
    ],
    cves: &["CVE-2026-53492 (device annotations)", "CVE-2022-0492"],
    check,
};

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    let d = &ctx.facts.devices;
    let mut out: Vec<Finding> = d.nodes.iter().filter_map(|n| node(ctx, n)).collect();
    let mut left_out = 0;
    for rule in &d.allowed {
        if let Some(finding) = judge(ctx, rule, &mut left_out) {
            out.push(finding);
        }
    }
    if !d.enforced {
        out.extend(unenforced(ctx));
    }
    if left_out > 0 {
        out.push(RULE.sealed("mknod-rule", format!("{left_out} cgroup rules of the default list left out")));
    }
    if out.is_empty() {
        out.push(RULE.pass(if d.enforced {
            "standard devices only, enforced by the cgroup"
        } else {
            "standard devices only; no CAP_MKNOD, mounts are nodev"
        }));
    }
    out
}

fn is_standard(kind: char, major: i64, minor: i64) -> bool {
    kind == 'c' && standard::DEVICES.iter().any(|(_, ma, mi)| *ma == major && mi.is_none_or(|mi| mi == minor))
}

/// The path and the numbers must both be the standard ones: /dev/null that is another device is no /dev/null.
fn is_standard_node(n: &Device) -> bool {
    n.kind == 'c'
        && standard::DEVICES.iter().any(|(path, ma, mi)| {
            *ma == n.major
                && match mi {
                    Some(mi) => *path == n.path && *mi == n.minor,
                    None => n.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')),
                }
        })
}

fn node(ctx: &Ctx<'_>, n: &Device) -> Option<Finding> {
    let fact = format!("{} ({} {}:{})", text::show(&n.path), n.kind.escape_default(), n.major, n.minor);
    if is_standard_node(n) {
        return None;
    }
    let taken = standard::DEVICES.iter().any(|(path, _, _)| *path == n.path);
    let below_dev = n.path.starts_with("/dev/") && pattern::normal(&n.path).as_deref() == Some(&n.path);
    if taken || !below_dev {
        return Some(RULE.deny_fix(
            "device",
            format!("{fact} stands in for another or is outside /dev"),
            "create devices below /dev, by their own names",
        ));
    }
    let by = ctx.allowed(|a| a.devices.contains(&n.path));
    if !ctx.policy.devices.allow.contains(&n.path) && by.is_none() {
        return Some(RULE.deny("device", format!("{fact} is not allowed")));
    }
    // A list names paths: what it means is the node's own device there.
    match ctx.facts.devices.host.get(&n.path) {
        Some(own) if *own == (n.kind, n.major, n.minor) => {}
        Some((kind, major, minor)) => {
            return Some(RULE.deny_fix(
                "device",
                format!("{fact} stands in for the node's own ({} {major}:{minor})", kind.escape_default()),
                "give the device by its own name",
            ));
        }
        None => {
            let fix = "give the device by the name that the node has for it";
            return Some(RULE.deny_fix("device", format!("{fact} is no device of the node's by that name"), fix));
        }
    }
    by.map(|by| RULE.allowed(by, "device", fact))
}

fn judge(ctx: &Ctx<'_>, rule: &DeviceRule, left_out: &mut usize) -> Option<Finding> {
    let uses = rule.access.contains(['r', 'w']);
    let of_node = |n: &Device| n.kind == rule.kind && Some(n.major) == rule.major && Some(n.minor) == rule.minor;
    let shown = || {
        let number = |n: Option<i64>| n.map_or("*".into(), |n| n.to_string());
        format!(
            "cgroup rule {} {}:{} {}",
            rule.kind.escape_default(),
            number(rule.major),
            number(rule.minor),
            text::show(&rule.access)
        )
    };
    match (rule.major, rule.minor) {
        _ if !uses => *left_out += 1,
        (Some(major), Some(minor)) if is_standard(rule.kind, major, minor) => {}
        (Some(136), None) if rule.kind == 'c' => {}
        // containerd's default list has /dev/net/tun without giving the device.
        (Some(10), Some(200)) if rule.kind == 'c' && !ctx.facts.devices.nodes.iter().any(of_node) => *left_out += 1,
        (Some(_), Some(_)) if ctx.facts.devices.nodes.iter().any(of_node) => {}
        (None, _) => {
            return Some(RULE.deny_fix(
                "all-devices",
                format!("{} allows every device", shown()),
                "take `privileged` off",
            ));
        }
        _ => {
            return Some(RULE.deny_fix(
                "device-rule",
                format!("{} is of no device that is asked for", shown()),
                "allow single devices, by their numbers",
            ));
        }
    }
    None
}

fn unenforced(ctx: &Ctx<'_>) -> Vec<Finding> {
    let fix = "boot with cgroup v2 alone, or with the devices controller of v1; or ask for no device";
    let mut out = Vec::new();
    if ctx.facts.devices.nodes.iter().any(|n| !is_standard_node(n)) {
        out.push(RULE.deny_fix(
            "not-enforced",
            "a device is asked for, and this node's cgroup enforces no device rules",
            fix,
        ));
    }
    if super::kept_capabilities(ctx).contains("CAP_MKNOD") {
        out.push(RULE.deny_fix(
            "not-enforced",
            "CAP_MKNOD stays, and this node's cgroup enforces no device rules",
            fix,
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::outcomes;
    use super::*;
    use crate::facts::Facts;
    use crate::fixture;
    use crate::policy::Policy;

    fn table(change: impl Fn(&mut Policy, &mut Facts)) -> Vec<String> {
        let mut policy = fixture::policy();
        policy.allowances = vec![fixture::allowance()];
        let mut facts = fixture::facts();
        change(&mut policy, &mut facts);
        outcomes(&RULE, &policy, &facts)
    }

    fn having(path: &str, kind: char, major: i64, minor: i64) -> Vec<String> {
        table(|_, f| {
            f.devices.host.insert("/dev/fuse".into(), ('c', 10, 229));
            f.devices.nodes.push(Device { path: path.into(), kind, major, minor });
        })
    }

    fn ruled(kind: char, major: Option<i64>, minor: Option<i64>, access: &str) -> Vec<String> {
        table(|_, f| f.devices.allowed.push(DeviceRule { kind, major, minor, access: access.into() }))
    }

    #[test]
    fn truth_table_nodes() {
        assert_eq!(table(|_, _| {}), ["pass"]);
        assert_eq!(having("/dev/null", 'c', 1, 3), ["pass"]);
        assert_eq!(having("/dev/null", 'b', 8, 0), ["deny device"]);
        assert_eq!(having("/dev/null", 'c', 1, 1), ["deny device"]);
        assert_eq!(having("/dev/pts/0", 'c', 136, 0), ["pass"]);
        assert_eq!(having("/dev/sda", 'b', 8, 0), ["deny device"]);
        assert_eq!(having("/dev/fuse", 'c', 10, 229), ["allowed test"]);
        // A granted name with the numbers of a disk, and one that the node has not.
        assert_eq!(having("/dev/fuse", 'b', 8, 0), ["deny device"]);
        assert_eq!(
            table(|_, f| {
                f.devices.nodes.push(Device { path: "/dev/fuse".into(), kind: 'c', major: 10, minor: 229 });
            }),
            ["deny device"]
        );
        assert_eq!(having("/etc/null", 'c', 1, 3), ["deny device"]);
        assert_eq!(having("/dev/../etc/x", 'c', 1, 3), ["deny device"]);
        assert_eq!(
            table(|p, f| {
                p.devices.allow = vec!["/dev/kvm".into()];
                f.devices.host.insert("/dev/kvm".into(), ('c', 10, 232));
                f.devices.nodes.push(Device { path: "/dev/kvm".into(), kind: 'c', major: 10, minor: 232 });
            }),
            ["pass"]
        );
        // No list makes another device stand in for a standard one, or a device of one outside of /dev.
        for path in ["/dev/null", "/etc/x", "/dev/../etc/x", "/dev//x"] {
            assert_eq!(
                table(|p, f| {
                    p.devices.allow = vec![path.into()];
                    f.devices.host.insert(path.into(), ('b', 8, 0));
                    f.devices.nodes.push(Device { path: path.into(), kind: 'b', major: 8, minor: 0 });
                }),
                ["deny device"],
                "{path}"
            );
        }
    }

    /// A rule is of a device that is asked for only by all of its numbers.
    #[test]
    fn a_rule_goes_with_its_device() {
        let both = |path: &'static str, of: (char, i64, i64), kind: char, major: i64, minor: i64| {
            table(|p, f| {
                p.devices.allow = vec![path.into()];
                f.devices.host.insert(path.into(), of);
                f.devices.nodes.push(Device { path: path.into(), kind: of.0, major: of.1, minor: of.2 });
                f.devices.allowed.push(DeviceRule {
                    kind,
                    major: Some(major),
                    minor: Some(minor),
                    access: "rw".into(),
                });
            })
        };
        let kvm = ('c', 10, 232);
        assert_eq!(both("/dev/kvm", kvm, 'c', 10, 232), ["pass"]);
        for (kind, major, minor) in [('b', 10, 232), ('c', 11, 232), ('c', 10, 233)] {
            assert_eq!(both("/dev/kvm", kvm, kind, major, minor), ["deny device-rule"], "{kind} {major}:{minor}");
        }
        // Who has the device needs its rule; the default list's is left out only where nobody has.
        let tun = ('c', 10, 200);
        assert_eq!(both("/dev/net/tun", tun, 'c', 10, 200), ["pass"]);
        assert_eq!(both("/dev/kvm", kvm, 'c', 10, 200), ["seal mknod-rule"]);
    }

    #[test]
    fn truth_table_rules() {
        assert_eq!(ruled('c', Some(1), Some(3), "rwm"), ["pass"]);
        assert_eq!(ruled('c', Some(136), None, "rwm"), ["pass"]);
        assert_eq!(ruled('b', Some(1), Some(3), "rwm"), ["deny device-rule"]);
        assert_eq!(ruled('c', Some(1), Some(1), "rwm"), ["deny device-rule"]);
        assert_eq!(ruled('b', Some(136), None, "rwm"), ["deny device-rule"]);
        assert_eq!(ruled('b', Some(10), Some(200), "rwm"), ["deny device-rule"]);
        assert_eq!(ruled('c', None, None, "m"), ["seal mknod-rule"]);
        assert_eq!(ruled('c', Some(10), Some(200), "rwm"), ["seal mknod-rule"]);
        assert_eq!(ruled('a', None, None, "rwm"), ["deny all-devices"]);
        assert_eq!(ruled('b', None, None, "r"), ["deny all-devices"]);
        assert_eq!(ruled('c', Some(10), None, "rw"), ["deny device-rule"]);
        assert_eq!(ruled('c', Some(10), Some(232), "rw"), ["deny device-rule"]);
    }

    #[test]
    fn what_is_not_enforced_is_refused() {
        assert_eq!(table(|_, f| f.devices.enforced = false), ["pass"]);
        assert_eq!(
            table(|_, f| {
                f.devices.enforced = false;
                f.devices.host.insert("/dev/fuse".into(), ('c', 10, 229));
                f.devices.nodes.push(Device { path: "/dev/fuse".into(), kind: 'c', major: 10, minor: 229 });
            }),
            ["allowed test", "deny not-enforced"]
        );
        assert_eq!(
            table(|p, f| {
                p.process.capabilities = fixture::set(&["CAP_MKNOD"]);
                f.devices.enforced = false;
                f.process.capabilities =
                    Some(crate::facts::Capabilities { bounding: fixture::set(&["CAP_MKNOD"]), ..Default::default() });
            }),
            ["deny not-enforced"]
        );
    }
}
