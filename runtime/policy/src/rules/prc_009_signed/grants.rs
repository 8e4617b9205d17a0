//! What an owner's grant covers, and what it does not.
use super::super::outcomes;
use super::super::own_001_owner::grants::{grant, world};
use super::*;
use crate::facts::Facts;
use crate::fixture;
use crate::policy::Policy;

fn table(change: impl Fn(&mut Policy, &mut Facts, &mut GrantedContainer)) -> String {
    let (mut policy, mut facts) = world();
    facts.mounts.retain(|mount| mount.kind != "bind");
    let mut container = grant(&mut facts).containers.remove(0);
    change(&mut policy, &mut facts, &mut container);
    if facts.owner_grant.is().is_some() {
        grant(&mut facts).containers.push(container);
    }
    outcomes(&RULE, &policy, &facts).join(" ")
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn granted(list: &[&str]) -> Option<Vec<Option<String>>> {
    Some(list.iter().map(|word| (*word != "?").then(|| (*word).to_owned())).collect())
}

const BY: &str = "allowed grant 0123456789ab";

/// Kubernetes: `command`, `args`, both, over Entrypoint /app and Cmd a.
#[test]
fn commands() {
    let run = |command: Option<&[&str]>, args: Option<&[&str]>, ours: &[&str]| {
        table(|_, f, c| {
            if let Fact::Is(image) = &mut f.image {
                (image.entrypoint, image.args) = (words(&["/app"]), words(&["/app", "a"]));
            }
            f.process.args = words(ours);
            (c.command, c.args) = (command.and_then(granted), args.and_then(granted));
        })
    };
    for (command, args, ours, expected) in [
        (None, None, &["/app", "a"][..], "pass"),
        (None, None, &["/app", "b"], "deny args"),
        (None, Some(&["b"][..]), &["/app", "b"], BY),
        (None, Some(&["b"]), &["/app", "b", "c"], "deny args"),
        (None, Some(&["b"]), &["/app"], "deny args"),
        (Some(&["/sh"][..]), None, &["/sh"], BY),
        (Some(&["/sh"]), None, &["/sh", "a"], "deny command"),
        (Some(&["/sh"]), Some(&["-c", "x"]), &["/sh", "-c", "x"], BY),
        (Some(&["/sh"]), Some(&["-c", "?"]), &["/sh", "-c", "y"], BY),
        (Some(&["/sh"]), Some(&["-c", "?"]), &["/sh", "-c"], "deny command"),
        (Some(&[]), Some(&["b"]), &["/app", "b"], BY),
        (Some(&["/sh"]), Some(&[]), &["/sh"], BY),
        // A grant of nothing runs nothing.
        (Some(&[]), Some(&[]), &[], "deny command"),
        // What the image says by itself needs no grant, and a pattern is a word.
        (Some(&["/sh"]), None, &["/app", "a"], "pass"),
        (Some(&["*"]), None, &["/sh"], "deny command"),
    ] {
        assert_eq!(run(command, args, ours), expected, "{command:?} {args:?} {ours:?}");
    }
}

#[test]
fn environment() {
    let env = |signed: &[&str], ours: &[&str], granted: &[&str]| {
        table(|_, f, c| {
            if let Fact::Is(image) = &mut f.image {
                image.env = words(signed);
            }
            f.process.env = ours.iter().map(|entry| Variable::of(entry)).collect();
            c.env = fixture::set(granted);
        })
    };
    assert_eq!(env(&[], &["A=1"], &["A"]), BY);
    assert_eq!(env(&["A=0"], &["A=1"], &["A"]), BY);
    assert_eq!(env(&[], &["A=1", "B=2"], &["A"]), "allowed grant 0123456789ab deny env");
    // Nobody takes a variable away, and none that loads code comes in.
    assert_eq!(env(&["A=0"], &[], &["A"]), "deny env");
    assert_eq!(env(&[], &["LD_PRELOAD=/x"], &["LD_PRELOAD"]), "deny loader");
    assert_eq!(env(&[], &["BASH_ENV=/x", "A=1"], &["BASH_ENV", "A"]), "allowed grant 0123456789ab deny loader");
}

#[test]
fn folder_and_user() {
    let folder = |ours: &'static str, granted: Option<&'static str>| {
        table(move |_, f, c| (f.process.cwd, c.cwd) = (ours.into(), granted.map(str::to_owned)))
    };
    assert_eq!([folder("/work", Some("/work")), folder("/work", Some("/work/"))], [BY, BY]);
    for (ours, granted) in [("/work", None), ("/work", Some("/")), ("/work", Some("/*")), ("x", Some("x"))] {
        assert_eq!(folder(ours, granted), "deny cwd", "{ours} {granted:?}");
    }
    let user = |uid: u32, granted: Option<&'static str>| {
        table(move |_, f, c| (f.process.uid, f.process.gid, c.user) = (uid, 7, granted.map(str::to_owned)))
    };
    assert_eq!(user(77, Some("77:7")), BY);
    for granted in [None, Some("77"), Some("77:*"), Some("78:7"), Some("")] {
        assert_eq!(user(77, granted), "deny user", "{granted:?}");
    }
}

/// A grant that does not hold covers nothing: each way that BS-OWN-001 refuses it.
#[test]
fn a_grant_that_does_not_hold_covers_nothing() {
    let with = |change: &dyn Fn(&mut Policy, &mut Facts)| {
        table(|p, f, c| {
            f.process.cwd = "/work".into();
            c.cwd = Some("/work".into());
            change(p, f);
        })
    };
    assert_eq!(with(&|_, _| {}), BY);
    type Change = fn(&mut Policy, &mut Facts);
    let bad: [Change; 7] = [
        |_, f| grant(f).until = 0,
        |_, f| grant(f).by.clear(),
        |_, f| f.subject.pod_namespace = "bank".into(),
        |_, f| f.subject.container_name = "other".into(),
        |p, _| p.owner.patterns.clear(),
        |p, _| p.owner.level = "annotation".into(),
        |_, f| f.owner_grant = Fact::Absent,
    ];
    for (number, change) in bad.iter().enumerate() {
        assert_eq!(with(change), "deny cwd", "{number}");
    }
    // The sandbox is nobody's container.
    let sandbox = |_: &mut Policy, f: &mut Facts| f.subject.sandbox_id.clone_from(&f.subject.id);
    assert_eq!(with(&sandbox), "deny cwd");
    // An allowance speaks first, where there is one.
    let allowed = with(&|p, f| {
        p.allowances = vec![fixture::allowance()];
        f.process.cwd = "/work/x".into();
    });
    assert_eq!(allowed, "allowed test");
}
