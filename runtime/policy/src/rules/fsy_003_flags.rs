//! BS-FSY-003: writable mounts are nosuid, nodev, noexec; propagation is private.
use super::{CREATE, Ctx, Rule};
use crate::facts::Mount;
use crate::policy::Level;
use crate::text;
use crate::verdict::Finding;

pub(super) static RULE: Rule = Rule {
    id: "BS-FSY-003",
    title: "Writable mounts nosuid, nodev, noexec; propagation private",
    nist: "4.1.3, 4.4.4",
    from: Level::Baseline,
    misfit: "seal; deny for propagation to or from the host",
    doors: CREATE,
    reads: "mounts[].{writable,options,propagation}, root.propagation, allowance exec_volumes, exec_memory, mounts",
    predicate: "every writable mount has nosuid, nodev and noexec (added; an allowance's exec_volumes keep exec); \
        files of memory are not executable (vm.memfd_noexec=2, where the kernel has it), but by an allowance's exec_memory; no mount is shared; \
        one is a slave only where an allowance names its source.",
    fix: "use mountPropagation: None",
    conditions: &[
        ("shared", "a mount or the root would propagate to the host"),
        ("slave", "a mount would receive the host's mounts, and no allowance names it"),
        ("flags", "sealed: nosuid, nodev, noexec are added"),
        ("exec-volume", "an allowance keeps a volume executable"),
        ("exec-memory", "an allowance keeps files of memory (memfd) executable"),
    ],
    cves: &["CVE-2021-30465", "CVE-2024-21626"],
    check,
};

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    let mut out = Vec::new();
    let root = ctx.facts.root.propagation.as_deref().unwrap_or("private");
    if !matches!(root, "private" | "rprivate" | "slave" | "rslave" | "unbindable" | "runbindable" | "") {
        out.push(RULE.deny("shared", format!("the root's propagation is {}", text::show(root))));
    }
    let mut added = Vec::new();
    for m in &ctx.facts.mounts {
        out.extend(propagation(ctx, m));
        if m.writable {
            let by = ctx.allowed(|a| {
                a.exec_volumes.iter().any(|v| crate::pattern::normal(&m.destination).as_deref() == Some(v))
            });
            if let Some(by) = by {
                out.push(RULE.allowed(by, "exec-volume", format!("{} stays executable", text::show(&m.destination))));
            }
            let wanted: &[&str] = if by.is_some() { &["nosuid", "nodev"] } else { &["nosuid", "nodev", "noexec"] };
            if wanted.iter().any(|flag| !m.options.iter().any(|o| o == flag)) && !is_fresh(m) {
                added.push(m.destination.as_str());
            }
        }
    }
    if let Some(by) = ctx.allowed(|a| a.exec_memory) {
        out.push(RULE.allowed(by, "exec-memory", "files of memory stay executable"));
    }
    if !added.is_empty() {
        out.push(RULE.sealed("flags", format!("nosuid, nodev, noexec on {}", text::list(&added))));
    }
    if out.is_empty() {
        out.push(RULE.pass("flags and propagation as they must be"));
    }
    out
}

/// The seal writes the system mounts itself, whatever the spec says of them.
fn is_fresh(m: &Mount) -> bool {
    m.kind != "bind" && crate::standard::FRESH.iter().any(|(at, _)| *at == m.destination)
}

fn propagation(ctx: &Ctx<'_>, m: &Mount) -> Option<Finding> {
    let how = m.propagation.as_deref().unwrap_or("private");
    let fact = format!("the mount at {} is {}", text::show(&m.destination), text::show(how));
    match how {
        "private" | "rprivate" | "unbindable" | "runbindable" | "" => None,
        "slave" | "rslave" => {
            let by = m
                .object
                .is()
                .and_then(|o| ctx.allowed(|a| a.mounts.iter().any(|g| super::fsy_002_binds::grants(g, m, o))));
            Some(match by {
                Some(by) => RULE.allowed(by, "slave", fact),
                None => {
                    RULE.deny_fix("slave", fact, "use mountPropagation: None, or grant the source by an [[allowance]]")
                }
            })
        }
        _ => Some(RULE.deny("shared", fact)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcomes;
    use super::*;
    use crate::facts::{Fact, Facts};
    use crate::fixture;

    fn table(change: impl Fn(&mut Facts)) -> Vec<String> {
        let mut policy = fixture::policy();
        policy.allowances = vec![crate::policy::Allowance { exec_memory: false, ..fixture::allowance() }];
        let mut facts = fixture::facts();
        change(&mut facts);
        outcomes(&RULE, &policy, &facts)
    }

    fn binding(change: impl Fn(&mut Mount)) -> Vec<String> {
        table(|f| {
            let mut m = fixture::bind("/data");
            change(&mut m);
            f.mounts.push(m);
        })
    }

    #[test]
    fn memory_that_stays_executable_is_told() {
        let mut policy = fixture::policy();
        policy.allowances = vec![fixture::allowance()];
        assert_eq!(outcomes(&RULE, &policy, &fixture::facts()), ["allowed test"]);
    }

    #[test]
    fn truth_table() {
        assert_eq!(table(|_| {}), ["pass"]);
        assert_eq!(binding(|_| {}), ["pass"]);
        assert_eq!(binding(|m| m.writable = true), ["seal flags"]);
        let all = || ["nosuid", "nodev", "noexec"].map(str::to_owned).to_vec();
        assert_eq!(
            binding(|m| {
                m.writable = true;
                m.options = all();
            }),
            ["pass"]
        );
        assert_eq!(
            binding(|m| {
                m.writable = true;
                m.options = all();
                m.destination = "/plugins".into();
            }),
            ["allowed test"]
        );
        assert_eq!(
            binding(|m| {
                m.writable = true;
                m.destination = "/plugins".into();
            }),
            ["allowed test", "seal flags"]
        );
        // The system mounts are ours whatever their flags; what only lies where they do is not.
        let bare = |kind: &str, at: &str| {
            table(|f| {
                f.mounts.retain(|m| m.destination != at);
                let mut m = fixture::tmpfs(at, None);
                m.kind = kind.into();
                m.options.clear();
                f.mounts.push(m);
            })
        };
        assert_eq!(bare("tmpfs", "/dev/shm"), ["pass"]);
        assert_eq!(bare("tmpfs", "/tmp"), ["seal flags"]);
        assert_eq!(bare("bind", "/dev/shm"), ["seal flags"]);
        for how in ["private", "rprivate", "unbindable", ""] {
            assert_eq!(binding(|m| m.propagation = Some(how.into())), ["pass"]);
        }
        for how in ["shared", "rshared", "moon"] {
            assert_eq!(binding(|m| m.propagation = Some(how.into())), ["deny shared"]);
            assert_eq!(table(|f| f.root.propagation = Some(how.into())), ["deny shared"]);
        }
        assert_eq!(binding(|m| m.propagation = Some("rslave".into())), ["deny slave"]);
        let granted = binding(|m| {
            m.propagation = Some("rslave".into());
            if let Fact::Is(o) = &mut m.object {
                o.path = "/opt/readable".into();
            }
        });
        assert_eq!(granted, ["allowed test"]);
        let unknown = binding(|m| {
            m.propagation = Some("slave".into());
            m.object = Fact::Unknown("x".into());
        });
        assert_eq!(unknown, ["deny slave"]);
    }
}
