//! The mandatory label, on whichever module this kernel has. Without one, that a label starts nothing is what there is
//! to show; the test node boots with AppArmor and with SELinux and runs the same scenarios.
use super::{contains, execute, inspection, process, running};
use crate::lab::{Lab, start, wait};
use boltseal_launch::{LaunchError, delete};
use boltseal_seal::Label;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

#[derive(Clone, Copy, PartialEq)]
enum Module {
    AppArmor,
    Selinux,
    Neither,
}

fn module() -> Module {
    let says = |path: &str, text: &str| fs::read_to_string(path).is_ok_and(|t| t.trim_end() == text);
    if says("/sys/module/apparmor/parameters/enabled", "Y") {
        Module::AppArmor
    } else if Path::new("/sys/fs/selinux/enforce").exists() {
        assert!(says("/sys/fs/selinux/enforce", "1"), "SELinux must enforce here");
        Module::Selinux
    } else {
        Module::Neither
    }
}

const PROFILE: &str = "boltseal-default";
const CONTEXT: &str = "system_u:system_r:boltseal_t:s0:c1,c2";
const FILES: &str = "system_u:object_r:boltseal_file_t:s0:c1,c2";

/// One write takes a profile whole.
fn load(blob: &[u8]) {
    let mut file = fs::File::options().write(true).open("/sys/kernel/security/apparmor/.replace").unwrap();
    assert_eq!(file.write(blob).unwrap(), blob.len());
}

fn mode(name: &str) -> Option<String> {
    let list = fs::read_to_string("/sys/kernel/security/apparmor/profiles").unwrap();
    list.lines().find_map(|l| Some(l.strip_prefix(name)?.strip_prefix(" (")?.strip_suffix(')')?.to_owned()))
}

/// Our profile in complain mode, under another name of the same length or its own: the mode is the second number after
/// `flags`.
fn complaining(name: &str) -> Vec<u8> {
    assert_eq!(name.len(), PROFILE.len());
    let mut blob = boltseal_profiles::apparmor_compiled().to_vec();
    let find = |blob: &[u8], text: &[u8]| blob.windows(text.len()).position(|w| w == text).unwrap();
    let at = find(&blob, PROFILE.as_bytes());
    blob[at..at + name.len()].copy_from_slice(name.as_bytes());
    let mode = find(&blob, b"\x04\x06\x00flags\x00") + 9 + 1 + 5 + 1;
    assert_eq!(blob[mode..mode + 4], [0; 4], "enforce");
    blob[mode] = 1;
    blob
}

/// The label of this kernel's module, ready to be entered.
fn label(lab: &mut Lab) -> Option<Label> {
    let label = match module() {
        Module::AppArmor => {
            load(boltseal_profiles::apparmor_compiled());
            assert_eq!(mode(PROFILE).as_deref(), Some("enforce"));
            Label::AppArmor(PROFILE.into())
        }
        Module::Selinux => {
            lab.spec["linux"]["mountLabel"] = FILES.into();
            relabel(&lab.volume, FILES);
            Label::Selinux(CONTEXT.into())
        }
        Module::Neither => return None,
    };
    lab.table.label = Some(label.clone());
    Some(label)
}

/// Every scenario runs under the label of this kernel's module, as every container of a node does.
pub fn enter(lab: &mut Lab) {
    label(lab);
}

/// What attr/current shows of the scenario's container.
pub(super) fn shown(lab: &Lab) -> String {
    match &lab.table.label {
        Some(Label::AppArmor(name)) => format!("{name} (enforce)"),
        Some(Label::Selinux(context)) => context.clone(),
        None => String::new(),
    }
}

/// A file of the host that every container may read, as kubelet's relabelling makes it.
pub(super) fn share(path: &Path) {
    if module() == Module::Selinux {
        relabel(path, "system_u:object_r:boltseal_file_t:s0");
    }
}

pub(super) fn unknown(mut lab: Lab) {
    let of_selinux = || Label::Selinux("system_u:system_r:no_such_t:s0:c1,c2".into());
    for label in [Label::AppArmor("no-such-profile".into()), of_selinux()] {
        lab.table.label = Some(label);
        let error = lab.refused();
        assert!(matches!(error, LaunchError::Unsupported(_) | LaunchError::Inspection(_)), "{error:?}");
        contains(&error.to_string(), "no");
    }
    if module() == Module::Neither {
        for label in [Label::AppArmor(PROFILE.into()), Label::Selinux(CONTEXT.into())] {
            lab.table.label = Some(label);
            contains(&lab.refused().to_string(), "boltseal");
        }
    }
}

/// In force on init and exec alike, and what it forbids is forbidden and seen; the twin without it may.
pub(super) fn in_force(mut lab: Lab) {
    if label(&mut lab).is_none() {
        return unknown(lab);
    }
    // Without an audit daemon denials go to the kernel's log, ten in five seconds, unless it is told otherwise.
    let limit = "/proc/sys/kernel/printk_ratelimit";
    let before = fs::read_to_string(limit).unwrap();
    fs::write(limit, "0").unwrap();
    let shown = shown(&lab);
    if module() == Module::Selinux {
        relabel(Path::new("/etc/hostname"), "system_u:object_r:etc_t:s0");
    }
    // A file of the kernel that the masks leave open here: only the label can forbid it.
    lab.spec["linux"]["maskedPaths"] = serde_json::json!(["/proc/kcore"]);
    lab.table.masked = vec!["/proc/kcore".into()];
    // SELinux: a file of the host that nobody labelled for containers.
    let forbidden = if module() == Module::AppArmor { "/proc/acpi/wakeup" } else { "/var/secrets/hosts" };
    let script = format!(
        "cat /proc/self/attr/current; echo; cat {forbidden} > /dev/null && echo read it; touch /data/own && echo wrote; sleep 100"
    );
    lab.spec["process"]["args"] = serde_json::json!(["/bin/sh", "-c", script]);
    let (parked, mut output) = lab.create();
    let parked = parked.unwrap();
    let known = (parked.pid, parked.start_time);
    assert_eq!(parked.expected_label, shown);
    assert_eq!(start(parked), "");
    let mut begin = Vec::new();
    while !String::from_utf8_lossy(&begin).contains("wrote") {
        let mut some = [0; 4096];
        let count = output.read(&mut some).unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&begin));
        begin.extend_from_slice(&some[..count]);
    }
    let begin = String::from_utf8_lossy(&begin).replace('\0', "");
    contains(&begin, &shown);
    contains(&begin, &format!("{forbidden}': Permission denied"));
    assert!(!begin.contains("read it"), "{begin}");
    let (result, mut output) = execute(&lab, known, &process(&["sh", "-c", &script.replace("; sleep 100", "")], 1000));
    let execed = result.unwrap();
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(wait(execed.pid), 0, "{text}");
    contains(&text, &shown);
    contains(&text, "Permission denied");
    contains(&text, "wrote");
    assert!(!text.contains("read it"), "{text}");
    // Denials are seen.
    let (what, which) = match module() {
        Module::AppArmor => ("apparmor=\"DENIED\"", forbidden),
        _ => ("avc:  denied", "comm=\"cat\""),
    };
    let log = kernel_log();
    let line = log.lines().find(|l| l.contains(what) && l.contains(which));
    let who = if module() == Module::AppArmor { PROFILE } else { CONTEXT };
    fs::write(limit, before).unwrap();
    contains(line.unwrap_or_else(|| panic!("no denial of {forbidden} in the kernel's log: {log}")), who);
    delete(&lab.state, &lab.name, None).unwrap();
    wait(known.0);
    lab.nothing_left();
    {
        lab.table.label = None;
        lab.spec["linux"]["mountLabel"] = serde_json::Value::Null;
        lab.spec["process"]["args"] =
            serde_json::json!(["/bin/sh", "-c", format!("cat {forbidden} > /dev/null && echo read it")]);
        let (_, text, _) = lab.run();
        contains(&text, "read it");
    }
}

/// SELinux: two pods' categories. A container cannot touch what another's volume holds; with its own label it may.
pub(super) fn categories(mut lab: Lab) {
    if module() != Module::Selinux {
        return unknown(lab);
    }
    label(&mut lab);
    fs::write(lab.volume.join("theirs"), "secret\n").unwrap();
    relabel(&lab.volume.join("theirs"), FILES);
    let (_, text, _) = lab.sh("cat /data/theirs; touch /data/mine && echo wrote").run();
    contains(&text, "secret\nwrote\n");
    let other = |label: &str| label.replace("c1,c2", "c3,c4");
    lab.table.label = Some(Label::Selinux(other(CONTEXT)));
    lab.spec["linux"]["mountLabel"] = other(FILES).into();
    let (_, text, _) = lab.sh("cat /data/theirs; touch /data/mine2 && echo wrote; cat /proc/self/attr/current").run();
    contains(&text, &other(CONTEXT));
    assert!(!text.contains("secret") && !text.contains("wrote"), "{text}");
    // The files of its own mounts are not enough: as another's, the program itself cannot be run.
    lab.spec["linux"]["mountLabel"] = FILES.into();
    let (code, _, status) = lab.sh("true").run();
    assert_ne!(code, 0, "{status}");
}

fn relabel(path: &Path, label: &str) {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: path and name end in NUL, the value is `label.len()` bytes.
    let rc =
        unsafe { libc::setxattr(path.as_ptr(), c"security.selinux".as_ptr(), label.as_ptr().cast(), label.len(), 0) };
    assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
}

/// A profile of the kernel that only complains passes the write, and shows when it is read back.
pub(super) fn complains(mut lab: Lab) {
    if module() != Module::AppArmor {
        return unknown(lab);
    }
    load(&complaining("boltseal-lenient"));
    assert_eq!(mode("boltseal-lenient").as_deref(), Some("complain"));
    lab.table.label = Some(Label::AppArmor("boltseal-lenient".into()));
    contains(&inspection(lab.refused()), "boltseal-lenient (complain)");
}

/// Between create and start, and between start and exec: the profile under the approved name is exchanged or taken away.
pub(super) fn changed_while_parked(mut lab: Lab) {
    match module() {
        Module::Neither => return unknown(lab),
        Module::Selinux => return permissive_while_parked(lab),
        Module::AppArmor => {}
    }
    let remove = || fs::write("/sys/kernel/security/apparmor/.remove", PROFILE).unwrap();
    for (change, shows) in [(true, "(complain)"), (false, "unconfined")] {
        let exchange = || if change { load(&complaining(PROFILE)) } else { remove() };
        label(&mut lab);
        let (parked, _) = lab.sh("touch /data/ran").create();
        let parked = parked.unwrap();
        let pid = parked.pid;
        exchange();
        contains(&start(parked), shows);
        assert_ne!(wait(pid), 0);
        assert!(!lab.volume.join("ran").exists());
        delete(&lab.state, &lab.name, None).unwrap();
        lab.nothing_left();
        // A running container, and then an exec into it.
        label(&mut lab);
        let known = running(&mut lab);
        exchange();
        let (result, _) = execute(&lab, known, &process(&["touch", "/data/ran"], 1000));
        let error = result.map(|e| e.pid).unwrap_err();
        assert!(matches!(error, LaunchError::Inspection(_)), "{error:?}");
        assert!(!lab.volume.join("ran").exists());
        delete(&lab.state, &lab.name, None).unwrap();
        wait(known.0);
        lab.nothing_left();
    }
    label(&mut lab);
}

fn permissive_while_parked(mut lab: Lab) {
    let enforce = |on: &str| fs::write("/sys/fs/selinux/enforce", on).unwrap();
    label(&mut lab);
    let (parked, _) = lab.sh("touch /data/ran").create();
    let parked = parked.unwrap();
    let pid = parked.pid;
    enforce("0");
    let said = start(parked);
    enforce("1");
    contains(&said, "SELinux is permissive");
    assert_ne!(wait(pid), 0);
    assert!(!lab.volume.join("ran").exists());
    delete(&lab.state, &lab.name, None).unwrap();
    lab.nothing_left();
    let known = running(&mut lab);
    enforce("0");
    let (result, _) = execute(&lab, known, &process(&["touch", "/data/ran"], 1000));
    enforce("1");
    contains(&inspection(result.map(|e| e.pid).unwrap_err()), "SELinux is permissive");
    // The twin, enforcing.
    let (result, _) = execute(&lab, known, &process(&["touch", "/data/ran"], 1000));
    assert_eq!(wait(result.unwrap().pid), 0);
    delete(&lab.state, &lab.name, None).unwrap();
    wait(known.0);
    lab.nothing_left();
}

fn kernel_log() -> String {
    let mut log = fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg").unwrap();
    let mut all = Vec::new();
    let mut record = [0; 8192];
    // One record a read; the end is "would block", and a record that was overwritten meanwhile is passed over.
    loop {
        match log.read(&mut record) {
            Ok(0) => break,
            Ok(count) => all.extend_from_slice(&record[..count]),
            Err(e) if e.raw_os_error() == Some(libc::EPIPE) => {}
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}
