//! BS-FSY-001: the root is read-only, /dev, /proc and /sys are fresh and covered by nothing.
use super::{CREATE, Ctx, Rule, TIMEOUT_ROW, UNKNOWN_ROW};
use crate::facts::{Fact, Mount, Origin};
use crate::policy::Level;
use crate::verdict::Finding;
use crate::{pattern, standard, text};

pub(super) static RULE: Rule = Rule {
    id: "BS-FSY-001",
    title: "Rootfs read-only; fresh /dev, /proc, /sys; masked and read-only paths complete; tmpfs limited in size",
    nist: "4.4.4",
    from: Level::Baseline,
    misfit: "seal; deny for a mount over /proc, /sys, /dev or /",
    doors: CREATE,
    reads: "root.{readonly,masked,readonly_paths}, mounts[].{destination,kind,options,object.origin}, landlock",
    predicate: "the root is read-only; /proc is proc, /dev tmpfs, /sys sysfs (read-only), added when missing; every standard masked and \
        read-only path is listed, added when missing; a tmpfs without size gets the policy's; nothing else is mounted at or below \
        /proc, /sys, /dev or at /, but this pod's own volumes below /dev; Landlock keeps writes to the writable mounts, at landlock.abi or newer.",
    fix: "mount it elsewhere, outside /proc, /sys and /dev",
    conditions: &[
        ("covers-system", "a mount at or below /proc, /sys, /dev, or at /"),
        ("destination", "a mount destination that is not an absolute plain path"),
        ("landlock", "the kernel's Landlock is older than the policy's landlock.abi"),
        ("readonly-root", "sealed: the root becomes read-only"),
        ("fresh-mounts", "sealed: fresh system mounts are added or made read-only"),
        ("masked-paths", "sealed: masked or read-only paths are completed"),
        ("tmpfs-size", "sealed: a tmpfs gets a size"),
        UNKNOWN_ROW,
        TIMEOUT_ROW,
    ],
    cves: &["CVE-2019-19921", "CVE-2023-28642", "CVE-2025-31133", "CVE-2025-52565", "CVE-2025-62161", "CVE-2026-47766"],
    check,
};

/// Nodes and links of /dev that nothing may stand in for.
const DEV_NAMES: [&str; 5] = ["/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/core"];

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    let (root, mounts) = (&ctx.facts.root, &ctx.facts.mounts);
    let mut out: Vec<Finding> = mounts.iter().filter_map(covers).collect();
    out.extend(landlock(ctx));
    if !root.readonly {
        out.push(RULE.sealed("readonly-root", "the root is made read-only"));
    }
    let has = |at: &str, kind: &str| {
        mounts.iter().any(|m| pattern::normal(&m.destination).as_deref() == Some(at) && m.kind == kind)
    };
    let mut fresh: Vec<&str> = [("/proc", "proc"), ("/dev", "tmpfs"), ("/sys", "sysfs")]
        .iter()
        .filter(|(at, kind)| !has(at, kind))
        .map(|(at, _)| *at)
        .collect();
    if mounts.iter().any(|m| m.writable && matches!(m.kind.as_str(), "sysfs" | "cgroup" | "cgroup2")) {
        fresh.push("/sys read-only");
    }
    if !fresh.is_empty() {
        out.push(RULE.sealed("fresh-mounts", format!("added: {}", fresh.join(", "))));
    }
    let missing = |standard: &[&str], has: &[String]| standard.iter().filter(|p| !has.iter().any(|h| h == *p)).count();
    let paths = missing(&standard::MASKED, &root.masked) + missing(&standard::READONLY, &root.readonly_paths);
    if paths > 0 {
        out.push(RULE.sealed("masked-paths", format!("{paths} masked or read-only paths added")));
    }
    for m in mounts.iter().filter(|m| m.kind == "tmpfs" && !m.options.iter().any(|o| is_size(o))) {
        if pattern::normal(&m.destination).as_deref() != Some("/dev") {
            out.push(RULE.sealed(
                "tmpfs-size",
                format!("{} limited to {} bytes", text::show(&m.destination), ctx.policy.mounts.tmpfs_size),
            ));
        }
    }
    if out.is_empty() {
        out.push(RULE.pass("read-only root, fresh system mounts"));
    }
    out
}

/// Writes are kept to the declared volumes by Landlock too: a kernel that cannot do what the policy asks starts nothing.
fn landlock(ctx: &Ctx<'_>) -> Option<Finding> {
    let least = ctx.policy.landlock.abi;
    let old = |has: u32| {
        let fact = format!("the kernel's Landlock ABI is {has}, landlock.abi demands {least}");
        RULE.deny_fix("landlock", fact, "boot a newer kernel with lsm=landlock,.., or lower landlock.abi")
    };
    match &ctx.facts.landlock {
        Fact::Is(has) => (*has < least).then(|| old(*has)),
        Fact::Absent => (least > 0).then(|| old(0)),
        Fact::Unknown(why) => Some(RULE.unknown("the kernel's Landlock ABI", why)),
    }
}

/// `size=` with a number that limits; `size=0` means none.
pub(crate) fn is_size(option: &str) -> bool {
    // A comma would begin another option.
    let limits = |size: &str| size.bytes().any(|b| (b'1'..=b'9').contains(&b)) && !size.contains(',');
    option.strip_prefix("size=").is_some_and(limits)
}

fn covers(m: &Mount) -> Option<Finding> {
    let shown = text::show(&m.destination);
    let Some(at) = pattern::normal(&m.destination) else {
        return Some(RULE.deny_fix(
            "destination",
            format!("mount destination \"{shown}\" is not a plain absolute path"),
            "give an absolute path without `..`",
        ));
    };
    if standard::FRESH
        .iter()
        .any(|(fresh, kind)| *fresh == at && (*kind == m.kind || (*kind == "cgroup" && m.kind == "cgroup2")))
    {
        return None;
    }
    let system = ["/proc", "/sys", "/dev"].iter().any(|s| pattern::within(&at, s));
    if at != "/" && !system {
        return None;
    }
    let of_pod = m.kind == "bind" && m.object.is().is_some_and(|o| o.origin != Origin::Host);
    let plain_dev = at.starts_with("/dev/")
        && !DEV_NAMES.contains(&at.as_str())
        && !pattern::within(&at, "/dev/pts")
        && !standard::DEVICES.iter().any(|(path, _, _)| *path == at);
    if of_pod && plain_dev {
        return None;
    }
    Some(RULE.deny("covers-system", format!("a {} mount at {shown}", text::show(&m.kind))))
}

#[cfg(test)]
mod tests {
    use super::super::outcomes;
    use super::*;
    use crate::facts::{Fact, Facts, Object};
    use crate::fixture;

    fn table(change: impl Fn(&mut Facts)) -> Vec<String> {
        let mut facts = fixture::facts();
        change(&mut facts);
        outcomes(&RULE, &fixture::policy(), &facts)
    }

    fn mounting(kind: &str, at: &str, origin: Origin) -> Vec<String> {
        table(|f| {
            let mut m = fixture::bind(at);
            m.kind = kind.into();
            m.object = Fact::Is(Object { origin: origin.clone(), ..Default::default() });
            m.options.push("size=64k".into());
            f.mounts.push(m);
        })
    }

    #[test]
    fn truth_table_seal() {
        assert_eq!(table(|_| {}), ["pass"]);
        assert_eq!(table(|f| f.root.readonly = false), ["seal readonly-root"]);
        assert_eq!(table(|f| f.root.masked.clear()), ["seal masked-paths"]);
        assert_eq!(table(|f| f.root.readonly_paths.clear()), ["seal masked-paths"]);
        assert_eq!(table(|f| drop(f.root.masked.pop())), ["seal masked-paths"]);
        assert_eq!(table(|f| drop(f.root.readonly_paths.pop())), ["seal masked-paths"]);
        for at in ["/proc", "/dev", "/sys"] {
            assert_eq!(table(|f| f.mounts.retain(|m| m.destination != at)), ["seal fresh-mounts"]);
        }
        assert_eq!(
            table(|f| f.mounts.iter_mut().filter(|m| m.kind == "sysfs").for_each(|m| m.writable = true)),
            ["seal fresh-mounts"]
        );
        for size in [None, Some("size=0"), Some("size=0k"), Some("size=")] {
            let got = table(|f| f.mounts.push(fixture::tmpfs("/tmp", size)));
            assert_eq!(got, ["seal tmpfs-size"]);
        }
        assert_eq!(table(|f| f.mounts.push(fixture::tmpfs("/tmp", Some("size=10m")))), ["pass"]);
    }

    #[test]
    fn truth_table_landlock() {
        // The fixture's policy demands what the default does.
        let least = fixture::policy().landlock.abi;
        assert!(least > 0);
        for (abi, want) in [
            (Fact::Is(least), "pass"),
            (Fact::Is(least + 1), "pass"),
            (Fact::Is(least - 1), "deny landlock"),
            (Fact::Is(0), "deny landlock"),
            (Fact::Absent, "deny landlock"),
            (Fact::Unknown("x".into()), "deny unknown"),
        ] {
            assert_eq!(table(|f| f.landlock = abi.clone()), [want], "{abi:?}");
        }
        let mut policy = fixture::policy();
        policy.landlock.abi = 0;
        let facts = Facts { landlock: Fact::Absent, ..fixture::facts() };
        assert_eq!(outcomes(&RULE, &policy, &facts), ["pass"], "a policy that asks for none");
    }

    #[test]
    fn truth_table_deny() {
        for at in [
            "/",
            "/proc",
            "/proc/sys",
            "//proc///self/attr/",
            "/sys",
            "/sys/fs/cgroup",
            "/dev",
            "/dev/null",
            "/dev/pts/0",
            "/dev/console",
            "/dev/fd",
        ] {
            for origin in [Origin::Host, Origin::Kubelet("empty-dir".into())] {
                assert!(mounting("bind", at, origin).contains(&"deny covers-system".to_owned()), "{at}");
            }
        }
        assert_eq!(mounting("bind", "/dev/shm", Origin::Host), ["deny covers-system"]);
        assert_eq!(mounting("bind", "/dev/shm", Origin::Cri("shm".into())), ["pass"]);
        assert_eq!(mounting("bind", "/dev/termination-log", Origin::Kubelet("termination-log".into())), ["pass"]);
        assert_eq!(mounting("tmpfs", "/proc/self", Origin::Host), ["deny covers-system"]);
        assert_eq!(mounting("tmpfs", "/dev/x", Origin::Kubelet("empty-dir".into())), ["deny covers-system"]);
        assert_eq!(mounting("proc", "/data", Origin::Host), ["pass"]);
        // Both versions of the one, at its own place alone.
        for kind in ["cgroup", "cgroup2"] {
            assert_eq!(mounting(kind, "/sys/fs/cgroup", Origin::Host), ["pass"]);
            assert_eq!(mounting(kind, "/proc", Origin::Host), ["deny covers-system"]);
        }
        for at in ["data", "/a/../proc", ""] {
            assert_eq!(mounting("bind", at, Origin::Host), ["deny destination"], "{at}");
        }
    }
}
