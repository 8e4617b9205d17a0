//! A list of programs (BS-PRC-005), held by Landlock: what it lets run and what not, by init, its children and an exec.
use super::{contains, execute, process, running};
use crate::lab::{Lab, start, wait};
use boltseal_launch::{LaunchError, delete};
use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

/// A second program that is no other name of the first, a script, and what makes a program known by two names.
fn image(lab: &mut Lab, list: &[&str]) {
    let at = |name: &str| lab.layer.join(name);
    fs::create_dir_all(at("opt/tools")).unwrap();
    for other in ["bin/busybox.other", "opt/tools/busybox.tool"] {
        fs::copy("/bin/busybox", at(other)).unwrap();
    }
    fs::copy("/bin/busybox", at("bin/busybox.twin")).unwrap();
    fs::hard_link(at("bin/busybox.twin"), at("bin/busybox.too")).unwrap();
    symlink("busybox.other", at("bin/alias")).unwrap();
    fs::write(at("bin/script"), "#!/bin/busybox.other sh\necho scripted\n").unwrap();
    fs::set_permissions(at("bin/script"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("/data/away", at("bin/away")).unwrap();
    symlink("/proc/self/exe", at("bin/own")).unwrap();
    listed(lab, list);
}

fn listed(lab: &mut Lab, list: &[&str]) {
    lab.table.landlock.programs = Some(list.iter().map(ToString::to_string).collect());
}

/// What each of the programs says of itself, to whoever asks.
const TRY: &str = "for p in /bin/busybox /bin/busybox.other /bin/busybox.twin /opt/tools/busybox.tool; do $p echo ran $p; done; /bin/script";

/// (the programs that ran, all that was said).
fn ran(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("ran ").or((line == "scripted").then_some("script"))).collect()
}

/// The same without a list runs all; with one each name of what is listed, and nothing else.
pub fn only_what_is_listed_runs(mut lab: Lab) {
    image(&mut lab, &[]);
    lab.table.landlock.programs = None;
    let all = ["/bin/busybox", "/bin/busybox.other", "/bin/busybox.twin", "/opt/tools/busybox.tool", "script"];
    let (code, text, said) = lab.sh(TRY).run();
    assert_eq!((code, ran(&text), said.as_str()), (0, all.to_vec(), ""), "{text}");
    for (list, expected) in [
        (&["/bin/sh"][..], &["/bin/busybox"][..]),
        (&["/bin/busybox", "-/no/such"], &["/bin/busybox"]),
        (&["/bin/sh", "/opt/"], &["/bin/busybox", "/opt/tools/busybox.tool"]),
        // By another name, which leads to it.
        (&["/bin/sh", "/bin/alias"], &["/bin/busybox", "/bin/busybox.other"]),
        // The interpreter alone runs no script, nor the script alone.
        (&["/bin/sh", "/bin/script"], &["/bin/busybox"]),
        (&["/bin/sh", "/bin/script", "/bin/busybox.other"], &["/bin/busybox", "/bin/busybox.other", "script"]),
        (&["/bin/"], &["/bin/busybox", "/bin/busybox.other", "/bin/busybox.twin", "script"]),
    ] {
        listed(&mut lab, list);
        let (_, text, said) = lab.run();
        assert_eq!((ran(&text), said.as_str()), (expected.to_vec(), ""), "{list:?}: {text}");
        if !expected.contains(&"/opt/tools/busybox.tool") {
            contains(&text, "/opt/tools/busybox.tool: Permission denied");
        }
    }
}

/// The process's own program, and what the list itself names.
pub fn refused_by_name(mut lab: Lab) {
    image(&mut lab, &["/bin/busybox.other"]);
    let LaunchError::Exec(text) = lab.sh("true").refused() else { panic!("another error") };
    contains(&text, "\"/bin/sh\" leads to \"/bin/busybox\", which the scope's `programs` do not list");
    // Looked for in PATH.
    let LaunchError::Exec(text) = lab.args(&["busybox", "true"]).refused() else { panic!("another error") };
    contains(&text, "\"/bin/busybox\" leads to \"/bin/busybox\"");
    assert_eq!(lab.args(&["busybox.other", "true"]).run().0, 0);
    symlink("/bin/busybox.other", lab.volume.join("away")).unwrap();
    for (entry, expected) in [
        ("/bin/nginx", "\"/bin/nginx\" is not in the image; \"-/bin/nginx\" may be missing"),
        ("/bin", "\"/bin\" is a folder"),
        ("/bin/busybox.other/", "\"/bin/busybox.other/\" is not in the image"),
        // A volume, or a link in it, says nothing about what may run.
        ("/data/", "\"/data/\" leads into a volume"),
        ("/data/away", "leads into a volume"),
        ("-/bin/away", "leads into a volume"),
        ("/bin/own", "leads into a volume"),
        ("/bin/busybox.too", "\"/bin/busybox.too\" is one of 2 hard links"),
    ] {
        listed(&mut lab, &["/bin/busybox.other", entry]);
        let LaunchError::Unsupported(text) = lab.refused() else { panic!("another error") };
        contains(&text, expected);
    }
    listed(&mut lab, &["/bin/busybox.other", "-/bin/nginx", "-/bin/busybox.other/"]);
    assert_eq!(lab.run().0, 0);
}

/// A program whose interpreter is not listed: the kernel says no, and the error says what is missing.
pub fn interpreter(mut lab: Lab) {
    image(&mut lab, &["/bin/script"]);
    let (code, _, said) = lab.args(&["/bin/script"]).run();
    assert_eq!(code, 126);
    contains(&said, "\"/bin/script\": permission denied: only the scope's `programs`");
    contains(&said, "`#!` line");
    listed(&mut lab, &["/bin/script", "/bin/busybox.other"]);
    let (code, text, said) = lab.run();
    assert_eq!((code, text.as_str(), said.as_str()), (0, "scripted\n", ""));
}

/// Nobody supervises: whoever made the container has no part in it, and what was handed out is closed.
pub fn holds_alone(mut lab: Lab) {
    image(&mut lab, &["/bin/sh"]);
    let script = format!("read go < /data/go; {TRY}; cat /proc/self/status | grep -c Seccomp:");
    nix::unistd::mkfifo(&lab.volume.join("go"), nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    fs::set_permissions(lab.volume.join("go"), fs::Permissions::from_mode(0o666)).unwrap();
    let (parked, mut output) = lab.sh(&script).create();
    let parked = parked.unwrap();
    let pid = parked.pid;
    // Everything of the launch is dropped here: pidfd, release, exec-status pipe; the gate's part ended with create.
    assert_eq!(start(parked), "");
    std::thread::sleep(Duration::from_millis(100));
    fs::write(lab.volume.join("go"), "go\n").unwrap();
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(wait(pid), 0, "{text}");
    assert_eq!(ran(&text), ["/bin/busybox"], "{text}");
    contains(&text, "/bin/busybox.other: Permission denied");
    delete(&lab.state, &lab.name, None).unwrap();
    lab.nothing_left();
}

/// An exec is confined as its container, children included, and refused by name.
pub fn exec(mut lab: Lab) {
    image(&mut lab, &["/bin/sh"]);
    let known = running(&mut lab);
    let (result, mut output) = execute(&lab, known, &process(&["sh", "-c", TRY], 1000));
    let pid = result.unwrap().pid;
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    wait(pid);
    assert_eq!(ran(&text), ["/bin/busybox"], "{text}");
    contains(&text, "/bin/busybox.other: Permission denied");
    let (result, _) = execute(&lab, known, &process(&["/bin/busybox.other", "true"], 1000));
    let LaunchError::Exec(text) = result.map(|e| e.pid).unwrap_err() else { panic!("another error") };
    contains(&text, "\"/bin/busybox.other\" leads to \"/bin/busybox.other\", which the scope's `programs`");
    delete(&lab.state, &lab.name, None).unwrap();
    wait(known.0);
    lab.nothing_left();
}

/// A list that Landlock is not asked to hold is no list.
pub fn without_landlock(mut lab: Lab) {
    image(&mut lab, &["/bin/sh"]);
    lab.table.landlock.abi = 0;
    assert!(
        matches!(lab.sh("true").refused(), LaunchError::Unsupported(t) if t.contains("programs are to be confined"))
    );
    lab.table.landlock.abi = 1;
    let (code, text, _) = lab.sh("/bin/busybox.other true").run();
    assert_eq!(code, 126, "{text}");
}
