//! BS-FSY-002: every bind source is the pod's own, or granted.
use super::{CREATE, Ctx, Rule, TIMEOUT_ROW, UNKNOWN_ROW};
use crate::facts::{Fact, Mount, Object, Origin};
use crate::policy::{AllowedMount, Level};
use crate::verdict::Finding;
use crate::{standard, text};

pub(super) static RULE: Rule = Rule {
    id: "BS-FSY-002",
    title: "Every bind source is made by CRI or kubelet for this pod's own ids, or allow-listed; the sensitive list is never writable",
    nist: "4.5.5",
    from: Level::Baseline,
    misfit: "deny",
    doors: CREATE,
    reads: "mounts[].{kind,writable,object}, policy mounts.sensitive, allowance mounts",
    predicate: "a bind's source is an object that CRI or kubelet made for this pod's own ids, or an allowance of the image names its \
        exact canonical path and covers its mode. What is, lies in or contains a path of the sensitive list is never writable (but for kubelet's folders \
        for drivers, by an allowance), and its sockets are never mounted. Other file systems are the standard ones or tmpfs.",
    fix: "use a pod volume, or grant the exact path by an [[allowance]]",
    conditions: &[
        ("host-folder", "a host folder or file that nothing grants"),
        ("sensitive", "a host path of the sensitive list"),
        ("sensitive-writable", "a host path of the sensitive list, writable or a socket: no allowance covers that"),
        ("driver-folder", "a folder of kubelet's for drivers' sockets, writable"),
        ("socket", "a socket of the host"),
        ("device", "a device node of the host"),
        ("kernel-filesystem", "a part of proc, sysfs, cgroup or the like"),
        ("hard-link", "a writable file that has other names"),
        ("mount-type", "a file system type that only the host may mount"),
        ("no-source", "the source does not exist"),
        UNKNOWN_ROW,
        TIMEOUT_ROW,
    ],
    cves: &[
        "CVE-2022-23648",
        "CVE-2021-43816",
        "CVE-2021-30465",
        "CVE-2024-45310",
        "CVE-2017-1002101",
        "CVE-2021-25741",
    ],
    check,
};

/// Types that may be mounted beside binds.
const TYPES: [&str; 7] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2"];

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    let mut out: Vec<Finding> = ctx.facts.mounts.iter().filter_map(|m| mount(ctx, m)).collect();
    if out.is_empty() {
        let binds = ctx.facts.mounts.iter().filter(|m| m.kind == "bind").count();
        out.push(RULE.pass(format!("{binds} binds, all of this pod's own")));
    }
    out
}

fn mount(ctx: &Ctx<'_>, m: &Mount) -> Option<Finding> {
    let at = text::show(&m.destination);
    if m.kind != "bind" {
        let standard = TYPES.contains(&m.kind.as_str())
            && (m.kind == "tmpfs"
                || standard::FRESH
                    .iter()
                    .any(|(fresh, _)| crate::pattern::normal(&m.destination).as_deref() == Some(fresh)));
        return (!standard).then(|| {
            RULE.deny_fix("mount-type", format!("a {} mount at {at}", text::show(&m.kind)), "mount a volume instead")
        });
    }
    match &m.object {
        Fact::Is(object) => bind(ctx, m, object),
        Fact::Absent => Some(RULE.deny_fix(
            "no-source",
            format!("{}, mounted at {at}, does not exist", text::show(&m.source)),
            "create it first",
        )),
        Fact::Unknown(why) => Some(RULE.unknown_fix(
            &format!("what {} (mounted at {at}) is", text::show(&m.source)),
            why,
            "mount something that can be resolved, or take it off",
        )),
    }
}

fn bind(ctx: &Ctx<'_>, m: &Mount, o: &Object) -> Option<Finding> {
    let what = format!("{} mounted at {}", named(m, o), text::show(&m.destination));
    let plain = matches!(o.kind.as_str(), "folder" | "file");
    if plain && o.origin != Origin::Host {
        return None;
    }
    // A socket answers whoever connects, read-only mount or not.
    let acts = m.writable || !plain;
    if let Some((path, how)) = o.touches.first() {
        let touched = format!("{what} {} {}", relation(how), text::show(path));
        if is_driver_folder(ctx, o) {
            return Some(granted(ctx, m, o, if acts { "driver-folder" } else { "sensitive" }, touched));
        }
        if acts {
            return Some(RULE.deny_fix("sensitive-writable", touched, "take the mount off; no allowance covers it"));
        }
        return Some(granted(ctx, m, o, "sensitive", touched));
    }
    if standard::KERNEL_FILESYSTEMS.contains(&o.fstype.as_str()) {
        return Some(RULE.deny_fix(
            "kernel-filesystem",
            format!("{what} is a part of {}", text::show(&o.fstype)),
            "take the mount off",
        ));
    }
    if o.kind == "file" && m.writable && o.links > 1 {
        return Some(RULE.deny_fix(
            "hard-link",
            format!("{what} is writable and has {} names", o.links),
            "mount a file with one name, or read-only",
        ));
    }
    let condition = match o.kind.as_str() {
        "folder" | "file" => "host-folder",
        "socket" | "fifo" => "socket",
        _ => "device",
    };
    Some(granted(ctx, m, o, condition, format!("{what} is a {} of the host", text::show(&o.kind))))
}

/// Sensitive for nothing but that it lies in kubelet's root, in a place that is made for other programs' sockets.
fn is_driver_folder(ctx: &Ctx<'_>, o: &Object) -> bool {
    let root = &ctx.policy.mounts.kubelet_root;
    let explained =
        |(path, how): &(String, String)| how == "inside" && (path == root || path == standard::KUBELET_ROOT);
    o.kind == "folder" && o.touches.iter().all(explained) && standard::is_driver_folder(root, &o.path)
}

fn granted(ctx: &Ctx<'_>, m: &Mount, o: &Object, condition: &str, fact: String) -> Finding {
    let covers = |a: &AllowedMount| grants(a, m, o);
    match ctx.allowed(|a| a.mounts.iter().any(covers)).filter(|_| condition != "device") {
        Some(by) => RULE.allowed(by, condition, fact),
        None => RULE.deny(condition, fact),
    }
}

/// The allowance names this very object, in this mode.
pub(super) fn grants(a: &AllowedMount, m: &Mount, o: &Object) -> bool {
    !o.path.is_empty() && a.source == o.path && (a.writable || !m.writable)
}

fn named(m: &Mount, o: &Object) -> String {
    if o.path.is_empty() || o.path == m.source {
        text::show(&m.source)
    } else {
        format!("{} ({})", text::show(&m.source), text::show(&o.path))
    }
}

fn relation(how: &str) -> &'static str {
    match how {
        "is" => "is",
        "contains" => "contains",
        _ => "lies in",
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

    fn binding(writable: bool, change: impl Fn(&mut Object)) -> Vec<String> {
        table(|f| {
            let mut m = fixture::bind("/data");
            m.writable = writable;
            if let Fact::Is(o) = &mut m.object {
                change(o);
            }
            f.mounts.push(m);
        })
    }

    #[test]
    fn truth_table() {
        let touch = |how: &str| vec![("/etc".to_owned(), how.to_owned())];
        assert_eq!(table(|_| {}), ["pass"]);
        for writable in [false, true] {
            assert_eq!(binding(writable, |_| {}), ["deny host-folder"]);
            for origin in [Origin::Cri("hosts".into()), Origin::Kubelet("empty-dir".into())] {
                assert_eq!(
                    binding(writable, |o| {
                        o.origin = origin.clone();
                        o.touches = touch("inside");
                    }),
                    ["pass"]
                );
                assert_eq!(
                    binding(writable, |o| {
                        o.origin = origin.clone();
                        o.kind = "socket".into();
                    }),
                    ["deny socket"]
                );
            }
            assert_eq!(binding(writable, |o| o.kind = "socket".into()), ["deny socket"]);
            assert_eq!(binding(writable, |o| o.kind = "block".into()), ["deny device"]);
            assert_eq!(binding(writable, |o| o.fstype = "proc".into()), ["deny kernel-filesystem"]);
            assert_eq!(
                binding(writable, |o| {
                    o.kind = "socket".into();
                    o.touches = touch("inside");
                }),
                ["deny sensitive-writable"]
            );
        }
        for how in ["is", "inside", "contains"] {
            assert_eq!(binding(false, |o| o.touches = touch(how)), ["deny sensitive"]);
            assert_eq!(binding(true, |o| o.touches = touch(how)), ["deny sensitive-writable"]);
        }
        assert_eq!(
            binding(true, |o| {
                o.kind = "file".into();
                o.links = 2;
            }),
            ["deny hard-link"]
        );
        for (writable, links) in [(false, 2), (true, 1)] {
            assert_eq!(
                binding(writable, |o| {
                    o.kind = "file".into();
                    o.links = links;
                }),
                ["deny host-folder"]
            );
        }
        for (object, expected) in [
            (Fact::Absent, "deny no-source"),
            (Fact::Unknown("x".into()), "deny unknown"),
            (Fact::Unknown("timeout".into()), "deny timeout"),
        ] {
            assert_eq!(
                table(|f| {
                    let mut m = fixture::bind("/data");
                    m.object = object.clone();
                    f.mounts.push(m);
                }),
                [expected]
            );
        }
    }

    /// What a person reads of a mount: its own name and what it really is, and how that touches what is sensitive.
    #[test]
    fn a_finding_says_which_mount_and_why() {
        let fact = |how: &str| {
            let mut facts = fixture::facts();
            let mut m = fixture::bind("/data");
            if let Fact::Is(o) = &mut m.object {
                o.touches = vec![("/etc".into(), how.into())];
                o.path = "/real".into();
            }
            facts.mounts.push(m);
            check(&Ctx::new(&fixture::policy(), &facts)).remove(0).fact
        };
        assert_eq!(fact("is"), "/srv/folder (/real) mounted at /data is /etc");
        assert_eq!(fact("contains"), "/srv/folder (/real) mounted at /data contains /etc");
        assert_eq!(fact("inside"), "/srv/folder (/real) mounted at /data lies in /etc");
        // One name is enough where there is but one.
        for path in ["/srv/folder", ""] {
            let mut m = fixture::bind("/data");
            let object = Object { path: path.into(), ..Object::default() };
            assert_eq!(named(&m, &object), "/srv/folder", "{path:?}");
            m.source = "/link".into();
            let shown = if path.is_empty() { "/link" } else { "/link (/srv/folder)" };
            assert_eq!(named(&m, &object), shown);
        }
        let none = check(&Ctx::new(&fixture::policy(), &fixture::facts())).remove(0).fact;
        assert_eq!(none, "0 binds, all of this pod's own");
    }

    #[test]
    fn an_allowance_names_one_object_and_its_mode() {
        let granted = |path: &str, writable: bool, sensitive: bool| {
            binding(writable, |o| {
                o.path = path.into();
                if sensitive {
                    o.touches = vec![("/etc".into(), "inside".into())];
                }
            })
        };
        assert_eq!(granted("/opt/readable", false, false), ["allowed test"]);
        assert_eq!(granted("/opt/readable", false, true), ["allowed test"]);
        assert_eq!(granted("/opt/readable", true, false), ["deny host-folder"]);
        assert_eq!(granted("/opt/readable/below", false, false), ["deny host-folder"]);
        assert_eq!(granted("/opt/writable", true, false), ["allowed test"]);
        assert_eq!(granted("/opt/writable", true, true), ["deny sensitive-writable"]);
        assert_eq!(
            binding(false, |o| {
                o.path = "/opt/readable".into();
                o.kind = "socket".into();
            }),
            ["allowed test"]
        );
        assert_eq!(
            binding(false, |o| {
                o.path = "/opt/readable".into();
                o.kind = "char".into();
            }),
            ["deny device"]
        );
    }

    #[test]
    fn kubelets_folders_for_drivers_are_writable_by_allowance_alone() {
        const OWN: &str = "/var/lib/kubelet/plugins/csi.demo.example";
        let table = |path: &str, grant: Option<bool>, change: &dyn Fn(&mut Object)| {
            let (mut policy, mut facts, mut allowance) = (fixture::policy(), fixture::facts(), fixture::allowance());
            let granted = grant.map(|writable| AllowedMount { source: path.into(), writable, idmap: false });
            allowance.mounts.extend(granted);
            policy.allowances = vec![allowance];
            let mut m = fixture::bind("/csi");
            m.writable = true;
            if let Fact::Is(o) = &mut m.object {
                o.path = path.into();
                o.touches = vec![("/var/lib/kubelet".into(), "inside".into())];
                change(o);
            }
            facts.mounts.push(m);
            outcomes(&RULE, &policy, &facts)
        };
        assert_eq!(table(OWN, Some(true), &|_| {}), ["allowed test"]);
        assert_eq!(table(OWN, Some(false), &|_| {}), ["deny driver-folder"]);
        assert_eq!(table(OWN, None, &|_| {}), ["deny driver-folder"]);
        let all_volumes = "/var/lib/kubelet/plugins/kubernetes.io";
        assert_eq!(table(all_volumes, Some(true), &|_| {}), ["deny sensitive-writable"]);
        let more = |o: &mut Object| o.touches.push(("/var/lib/containerd".into(), "contains".into()));
        assert_eq!(table(OWN, Some(true), &more), ["deny sensitive-writable"]);
        assert_eq!(table(OWN, Some(true), &|o| o.kind = "socket".into()), ["deny sensitive-writable"]);
        let contains = |o: &mut Object| o.touches[0].1 = "contains".into();
        assert_eq!(table(OWN, Some(true), &contains), ["deny sensitive-writable"]);
    }

    /// Where kubelet's root lies elsewhere it is sensitive by its own name, and by the usual one that stays on the list.
    #[test]
    fn kubelets_root_may_lie_elsewhere() {
        let table = |touches: &[&str]| {
            let (mut policy, mut facts, mut allowance) = (fixture::policy(), fixture::facts(), fixture::allowance());
            policy.mounts.kubelet_root = "/k".into();
            allowance.mounts.push(AllowedMount { source: "/k/plugins/csi".into(), writable: true, idmap: false });
            policy.allowances = vec![allowance];
            let mut m = fixture::bind("/csi");
            m.writable = true;
            if let Fact::Is(o) = &mut m.object {
                o.path = "/k/plugins/csi".into();
                o.touches = touches.iter().map(|path| ((*path).to_owned(), "inside".to_owned())).collect();
            }
            facts.mounts.push(m);
            outcomes(&RULE, &policy, &facts)
        };
        assert_eq!(table(&["/k"]), ["allowed test"]);
        assert_eq!(table(&["/k", standard::KUBELET_ROOT]), ["allowed test"]);
        assert_eq!(table(&["/k", "/etc"]), ["deny sensitive-writable"]);
    }

    #[test]
    fn only_standard_file_systems() {
        let mounting = |kind: &str, at: &str| {
            table(|f| {
                let mut m = fixture::tmpfs(at, None);
                m.kind = kind.into();
                f.mounts.push(m);
            })
        };
        assert_eq!(mounting("tmpfs", "/tmp"), ["pass"]);
        for kind in ["overlay", "nfs", "proc", "sysfs", "devpts", ""] {
            assert_eq!(mounting(kind, "/x"), ["deny mount-type"], "{kind}");
        }
        assert_eq!(mounting("proc", "/proc"), ["pass"]);
        assert_eq!(mounting("nfs", "/proc"), ["deny mount-type"]);
    }
}
