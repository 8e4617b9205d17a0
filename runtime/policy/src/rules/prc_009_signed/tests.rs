use super::super::outcomes;
use super::*;
use crate::facts::Facts;
use crate::policy::Mode;
use crate::verdict::{Outcome, Verdict};
use crate::{Policy, decide, fixture};

fn table(change: impl Fn(&mut Policy, &mut Facts)) -> Vec<String> {
    let (mut policy, mut facts) = (fixture::policy(), fixture::facts());
    change(&mut policy, &mut facts);
    outcomes(&RULE, &policy, &facts)
}

fn granted(change: impl Fn(&mut Facts)) -> Vec<String> {
    table(|p, f| {
        p.allowances = vec![fixture::allowance()];
        change(f);
    })
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn image(f: &mut Facts, change: impl Fn(&mut Image)) {
    if let Fact::Is(image) = &mut f.image {
        change(image);
    }
}

fn env(f: &mut Facts, signed: &[&str], ours: &[&str]) {
    image(f, |i| i.env = words(signed));
    f.process.env = ours.iter().map(|entry| Variable::of(entry)).collect();
}

#[test]
fn what_is_not_known_or_not_signed_is_nobodys_word() {
    assert_eq!(table(|_, _| {}), ["pass"]);
    assert_eq!(table(|_, f| f.image = Fact::Absent), ["deny unknown"]);
    assert_eq!(table(|_, f| f.image = Fact::Unknown("x".into())), ["deny unknown"]);
    assert_eq!(table(|_, f| f.image = Fact::Unknown("timeout: x".into())), ["deny timeout"]);
    assert_eq!(table(|_, f| image(f, |i| i.signatures.clear())), ["deny unsigned"]);
    // Its own loader variable is no better for that, and no worse.
    let unsigned = |ours: &'static str| {
        table(move |_, f| {
            env(f, &["LD_PRELOAD=/a"], &[ours]);
            image(f, |i| i.signatures.clear());
        })
    };
    assert_eq!(unsigned("LD_PRELOAD=/a"), ["deny unsigned"]);
    assert_eq!(unsigned("LD_PRELOAD=/b"), ["deny loader", "deny unsigned"]);
}

/// Kubernetes: nothing, `args`, `command`, both; by Entrypoint and Cmd of the config.
#[test]
fn command_and_args() {
    let run = |entrypoint: &[&str], cmd: &[&str], ours: &[&str]| {
        table(|_, f| {
            image(f, |i| {
                i.entrypoint = words(entrypoint);
                i.args = words(&[entrypoint, cmd].concat());
            });
            f.process.args = words(ours);
        })
        .join(" ")
    };
    for (entrypoint, cmd, ours, expected) in [
        (&["/app"][..], &["a"][..], &["/app", "a"][..], "pass"),
        (&["/app"], &[], &["/app"], "pass"),
        (&[], &["/app", "a"], &["/app", "a"], "pass"),
        (&["/app", "a"], &["b"], &["/app", "a", "b"], "pass"),
        (&["/app"], &["a"], &["/app", "b"], "deny args"),
        (&["/app"], &["a"], &["/app", "a", "b"], "deny args"),
        // `command` names the Entrypoint itself, and Cmd is dropped.
        (&["/app"], &["a"], &["/app"], "deny args"),
        (&["/app", "a"], &["b"], &["/app", "b"], "deny command"),
        (&["/app"], &["a"], &["/bin/sh", "a"], "deny command"),
        (&["/app"], &["a"], &["a"], "deny command"),
        (&["/app"], &["a"], &[], "deny command"),
        // Without an Entrypoint the program itself is Cmd's.
        (&[], &["/app"], &["/bin/sh"], "deny command"),
        (&[], &["/app"], &["/app", "a"], "deny command"),
        // A config that names nothing signs nothing.
        (&[], &[], &["/app"], "deny command"),
        (&[], &[], &[], "deny command"),
        // One empty word is no Entrypoint.
        (&[""], &["/app"], &["/app"], "pass"),
        (&[""], &["/app"], &["", "/app"], "deny command"),
        (&[""], &["/app"], &["/app", "a"], "deny command"),
        (&["", "x"], &["/app"], &["", "x", "/app"], "pass"),
    ] {
        assert_eq!(run(entrypoint, cmd, ours), expected, "{entrypoint:?} {cmd:?} {ours:?}");
    }
}

#[test]
fn commands_by_allowance() {
    for (args, expected) in [
        (&["/app", "--port=80"][..], "allowed test"),
        (&["/app", "--port=80", "x"], "deny args"),
        (&["/app", "--host=80"], "deny args"),
        (&["/bin/tool"], "allowed test"),
        (&["/bin/tool", "a", "b"], "allowed test"),
        (&["/bin/tools", "a"], "deny command"),
        (&[], "deny command"),
    ] {
        assert_eq!(granted(|f| f.process.args = words(args)), [expected], "{args:?}");
    }
    let is = |granted: &[&str], args: &[&str]| is_command(&words(granted), &words(args));
    assert!(is(&["..."], &["x"]) && is(&["*", "b"], &["a", "b"]) && is(&["a", "..."], &["a"]));
    assert!(!is(&["a", "b"], &["a"]) && !is(&["a", "b", "..."], &["a"]) && !is(&["a", "..."], &["b", "c"]));
    // The word stands for more at the end alone.
    assert!(!is(&["...", "b"], &["a", "b"]));
}

#[test]
fn variables_by_name_and_value() {
    let run = |signed: &[&str], ours: &[&str]| table(|_, f| env(f, signed, ours)).join(" ");
    for (signed, ours, expected) in [
        (&["A=1", "B=2"][..], &["B=2", "A=1"][..], "pass"),
        (&["A=1"], &["A=2"], "deny env"),
        (&["A=1"], &[], "deny env"),
        (&[], &["A=1"], "deny env"),
        (&["A=1"], &["A=1", "A=2"], "deny env"),
        // Of a name that the config has twice the last counts.
        (&["A=1", "A=2"], &["A=2"], "pass"),
        (&["A=1", "A=2"], &["A=1"], "deny env"),
        // What kubelet and containerd put in, but not where the config says something else.
        (&[], &["HOSTNAME=web-0", "KUBERNETES_SERVICE_HOST=10.0.0.1", "TERM=xterm"], "pass"),
        (&[], &["KUBERNETES_SERVICE_HOST=evil.example"], "deny env"),
        (&["HOME=/app"], &["HOME=/root"], "deny env"),
        (&["HOME=/app"], &["HOME=/app"], "pass"),
    ] {
        assert_eq!(run(signed, ours), expected, "{signed:?} {ours:?}");
    }
    for (signed, ours, expected) in [
        (&[][..], &["LOG_LEVEL=debug"][..], "allowed test"),
        (&["LOG_LEVEL=info"], &["LOG_LEVEL=debug"], "allowed test"),
        (&["LOG_LEVEL=info"], &[], "allowed test"),
        (&[], &["LOG_LEVEL=debug", "B=1"], "allowed test deny env"),
    ] {
        assert_eq!(granted(|f| env(f, signed, ours)).join(" "), expected, "{signed:?} {ours:?}");
    }
}

/// Only the signed config itself may set them: no allowance, at no door.
#[test]
fn loader_variables() {
    for door in [Door::Create, Door::Exec] {
        let run = |signed: &[&str], ours: &[&str]| {
            granted(|f| {
                f.door = door;
                env(f, signed, ours);
            })
            .join(" ")
        };
        for (signed, ours, expected) in [
            (&[][..], &["LD_PRELOAD=/x"][..], "deny loader"),
            (&["LD_PRELOAD=/x"], &["LD_PRELOAD=/x"], "pass"),
            (&["LD_PRELOAD=/x"], &["LD_PRELOAD=/y"], "deny loader"),
            (&["LD_PRELOAD=/x"], &["LD_PRELOAD=/x", "LD_PRELOAD=/y"], "deny loader"),
            (&["LD_PRELOAD=/x"], &["LD_PRELOAD=/y", "LD_PRELOAD=/x"], "deny loader"),
            (&[], &["JAVA_TOOL_OPTIONS=-javaagent:/x", "NODE_OPTIONS=-r /x"], "deny loader"),
        ] {
            assert_eq!(run(signed, ours), expected, "{door:?} {signed:?} {ours:?}");
        }
    }
    // What nobody can compare with is not the config's.
    let unknown = |door: Door| {
        table(move |_, f| {
            f.door = door;
            env(f, &[], &["LD_PRELOAD=/x"]);
            f.image = Fact::Unknown("x".into());
        })
    };
    assert_eq!(unknown(Door::Exec), ["deny unverified"]);
    assert_eq!(unknown(Door::Create), ["deny unknown", "deny unverified"]);
}

/// An exec has a command of its own, and its container's environment.
#[test]
fn of_an_exec_loaders_alone_are_asked() {
    let exec = |f: &mut Facts| {
        f.door = Door::Exec;
        f.process.args = words(&["/bin/sh"]);
        f.process.cwd = "/data".into();
        f.process.uid = 7;
        env(f, &[], &["A=1", "ENV=production"]);
    };
    assert_eq!(table(|_, f| exec(f)), ["pass"]);
    assert_eq!(
        table(|_, f| {
            exec(f);
            f.process.env.push(Variable::of("ENV=/data/rc"));
        }),
        ["deny loader"]
    );
}

#[test]
fn folders() {
    let run = |signed: &str, ours: &str| {
        granted(|f| {
            image(f, |i| i.cwd = signed.into());
            f.process.cwd = ours.into();
        })
        .join(" ")
    };
    for (signed, ours, expected) in [
        ("", "/", "pass"),
        ("/", "/", "pass"),
        ("/srv", "/srv", "pass"),
        ("/srv/", "/srv", "pass"),
        ("/srv", "/", "deny cwd"),
        ("", "/srv", "deny cwd"),
        ("/srv", "/work/a", "allowed test"),
        ("/srv", "/work/../etc", "deny cwd"),
        ("srv", "srv", "deny cwd"),
        ("/a/../b", "/a/../b", "deny cwd"),
    ] {
        assert_eq!(run(signed, ours), expected, "{signed} {ours}");
    }
}

#[test]
fn users() {
    let run = |signed: &str, uid: u32, gid: u32| {
        granted(|f| {
            image(f, |i| i.user = signed.into());
            (f.process.uid, f.process.gid) = (uid, gid);
        })
        .join(" ")
    };
    for (signed, uid, gid, expected) in [
        ("1000:1000", 1000, 1000, "pass"),
        ("", 0, 0, "pass"),
        ("", 1000, 1000, "deny user"),
        ("1000:1000", 1001, 1000, "deny user"),
        ("1000:1000", 1000, 0, "deny user"),
        ("1000:1000", 2000, 0, "allowed test"),
        ("app", 2000, 0, "allowed test"),
        ("1000", 1000, 1000, "deny user-name"),
        ("app", 1000, 1000, "deny user-name"),
        ("app:1000", 1000, 1000, "deny user-name"),
        ("1000:app", 1000, 1000, "deny user-name"),
        ("01000:1000", 1000, 1000, "deny user-name"),
        ("1000:1000:1", 1000, 1000, "deny user-name"),
        ("4294967296:0", 0, 0, "deny user-name"),
    ] {
        assert_eq!(run(signed, uid, gid), expected, "{signed} {uid}:{gid}");
    }
}

/// The sandbox of a pod runs as the pod's user; a container, and what is of no pod, does not.
#[test]
fn a_sandbox_runs_as_its_pods_user() {
    let run = |is_pod: bool, sandbox: &str| {
        table(|_, f| {
            f.subject.is_pod = is_pod;
            f.subject.sandbox_id = sandbox.into();
            f.process.uid = 7;
        })
    };
    assert_eq!(run(true, "c1"), ["pass"]);
    assert_eq!(run(true, "s1"), ["deny user"]);
    assert_eq!(run(false, "c1"), ["deny user"]);
    let all = table(|_, f| {
        f.subject.sandbox_id = "c1".into();
        f.process.args = words(&["/bin/sh"]);
        f.process.cwd = "/data".into();
        env(f, &[], &["A=1"]);
    });
    assert_eq!(all, ["deny command", "deny cwd", "deny env"]);
}

/// What a person reads, and who would read it in the trail: names, places and counts, no value.
#[test]
fn facts_and_fixes() {
    let found = |change: &dyn Fn(&mut Facts)| {
        let (mut policy, mut facts) = (fixture::policy(), fixture::facts());
        policy.allowances = vec![fixture::allowance()];
        change(&mut facts);
        let found = (RULE.check)(&Ctx::new(&policy, &facts));
        found.iter().map(|f| format!("{}. Fix: {}", f.fact, f.fix)).collect::<Vec<_>>().join("\n")
    };
    let usual = RULE.fix;
    assert_eq!(
        found(&|f| f.process.args = words(&["/app", "s3cret"])),
        format!("other arguments than the signed ones, from argument 1 on. Fix: {usual}")
    );
    assert_eq!(
        found(&|f| f.process.args = words(&["s3cret"])),
        format!("another command than the signed one, from argument 0 on. Fix: {usual}")
    );
    assert_eq!(
        found(&|f| env(f, &["GONE=1"], &["B=s3cret", "A=s3cret"])),
        format!("not as the signed config has it: A, B, GONE. Fix: {usual}")
    );
    assert_eq!(
        found(&|f| env(f, &[], &["LOG_B=s3cret", "LOG_A=s3cret"])),
        "not as the signed config has it: LOG_A, LOG_B. Fix: "
    );
    assert_eq!(
        found(&|f| env(f, &[], &["LD_PRELOAD=s3cret"])),
        "LD_PRELOAD can load code, and no signed config sets it so. Fix: take it away, or set it in the image (ENV) and sign that"
    );
    assert_eq!(
        found(&|f| image(f, |i| i.user = "app".into())),
        "runs as 1000:1000; the signed user is \"app\", without both numbers. \
         Fix: name USER as uid:gid in the image, or grant users by an [[allowance]]"
    );
    assert_eq!(
        found(&|f| {
            image(f, |i| i.user = "app".into());
            f.process.uid = 2000;
        }),
        "runs as 2000:1000; the signed user is \"app\", without both numbers. Fix: "
    );
    assert_eq!(
        found(&|f| f.process.cwd = "/data".into()),
        format!("works in /data, not in the signed /. Fix: {usual}")
    );
    assert_eq!(found(&|f| f.process.gid = 1), format!("runs as 1000:1, not as the signed 1000:1000. Fix: {usual}"));
}

#[test]
fn loaders_are_refused_from_baseline_and_the_rest_from_strict() {
    let ends = |level: Level, mode: Option<Mode>, change: &dyn Fn(&mut Facts)| {
        let (mut policy, mut facts) = (fixture::policy(), fixture::facts());
        policy.level = level;
        policy.modes.extend(mode.map(|m| (RULE.id.to_owned(), m)));
        change(&mut facts);
        let findings = match decide(&policy, &facts) {
            Verdict::Allow(permit) => permit.findings().to_vec(),
            Verdict::Deny(denial) => denial.findings,
        };
        let ours: Vec<_> = findings.into_iter().filter(|f| f.rule == RULE.id).map(|f| f.outcome).collect();
        ours.contains(&Outcome::Deny)
    };
    let loader = |f: &mut Facts| f.process.env.push(Variable::of("LD_PRELOAD=/x"));
    let unverified = |f: &mut Facts| {
        loader(f);
        f.image = Fact::Absent;
    };
    let other = |f: &mut Facts| f.process.args.push("x".into());
    for (level, mode, first, second) in [
        (Level::Observe, None, false, false),
        (Level::Baseline, None, true, false),
        (Level::Restricted, None, true, false),
        (Level::Strict, None, true, true),
        (Level::Strict, Some(Mode::Warn), false, false),
        (Level::Observe, Some(Mode::Enforce), true, true),
    ] {
        assert_eq!((ends(level, mode, &loader), ends(level, mode, &other)), (first, second), "{level:?} {mode:?}");
        assert_eq!(ends(level, mode, &unverified), first, "{level:?} {mode:?}");
    }
}
