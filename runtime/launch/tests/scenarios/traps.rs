//! The trip-wire: calls that the base filter refuses are told to who holds the listener, and refused whoever holds it.
use super::{contains, execute, process, running};
use crate::lab::{Lab, start, wait};
use boltseal_launch::{Listener, delete};
use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::thread::{JoinHandle, spawn};

const TRIES: &str = "/bin/busybox unshare -U true; /bin/busybox dmesg; /bin/busybox hostname x; echo end";

fn arm(lab: &mut Lab) {
    lab.table.traps = ["unshare", "syslog"].map(str::to_owned).into();
}

/// Waits for a call; `None`: nobody is under the filter any more.
fn waiting(listener: &Listener) -> Option<()> {
    let mut poll = libc::pollfd { fd: listener.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd that outlives the call.
    assert!(unsafe { libc::poll(&raw mut poll, 1, 20_000) } == 1, "nothing came");
    (poll.revents & libc::POLLIN != 0).then_some(())
}

/// The shim's part: the names of all calls until the last process has ended.
fn answer(listener: Listener) -> JoinHandle<Vec<&'static str>> {
    spawn(move || {
        let mut told = Vec::new();
        while waiting(&listener).is_some() {
            // SAFETY: plain integers.
            let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
            let fd = listener.fd.as_raw_fd();
            // SAFETY: the struct is the request's and outlives the call.
            let received = unsafe { libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) };
            assert_eq!(received, 0);
            let nr = u32::try_from(call.data.nr).unwrap();
            let trap = listener.traps.iter().find(|t| t.nr == nr).expect("a call of the table");
            told.push(trap.name);
            let answer = libc::seccomp_notif_resp { id: call.id, val: 0, error: -i32::from(trap.errno), flags: 0 };
            // SAFETY: as above.
            unsafe { libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const answer) };
        }
        // dmesg asks twice.
        told.dedup();
        told
    })
}

/// Runs to the end with this listener: (output, exit code).
fn finish(lab: &Lab, parked: boltseal_launch::Parked, mut output: fs::File) -> (String, i32) {
    let pid = parked.pid;
    assert_eq!(start(parked), "");
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    let code = wait(pid);
    delete(&lab.state, &lab.name, None).unwrap();
    lab.nothing_left();
    (text, code)
}

pub fn told_and_refused(mut lab: Lab) {
    arm(&mut lab);
    let (parked, output) = lab.sh(TRIES).create();
    let mut parked = parked.unwrap();
    assert_eq!(parked.seccomp_filters, 1);
    let listener = parked.listener.take().expect("a listener");
    assert_eq!(listener.traps.iter().map(|t| t.name).collect::<Vec<_>>(), ["syslog", "unshare"]);
    let told = answer(listener);
    let (text, code) = finish(&lab, parked, output);
    // sethostname is refused as well, and not of the trip-wire.
    for part in ["unshare(0x10000000): Operation not permitted", "klogctl: Operation not permitted", "sethostname: Op"]
    {
        contains(&text, part);
    }
    assert!(text.ends_with("end\n") && code == 0, "{text}");
    assert_eq!(told.join().unwrap(), ["unshare", "syslog"]);
}

pub fn not_armed(mut lab: Lab) {
    let (parked, output) = lab.sh(TRIES).create();
    let parked = parked.unwrap();
    assert!(parked.listener.is_none());
    let (text, code) = finish(&lab, parked, output);
    contains(&text, "unshare(0x10000000): Operation not permitted");
    assert!(text.ends_with("end\n") && code == 0, "{text}");
}

/// The shim died: refused all the same, and nothing else happens to the container.
pub fn nobody_listens(mut lab: Lab) {
    arm(&mut lab);
    let (parked, output) = lab.sh(TRIES).create();
    let mut parked = parked.unwrap();
    drop(parked.listener.take());
    let (text, code) = finish(&lab, parked, output);
    contains(&text, "unshare(0x10000000): Function not implemented");
    contains(&text, "klogctl: Function not implemented");
    assert!(text.ends_with("end\n") && code == 0, "{text}");
}

/// The shim dies while a call waits for it.
pub fn dies_while_a_call_waits(mut lab: Lab) {
    arm(&mut lab);
    let (parked, output) = lab.sh(TRIES).create();
    let mut parked = parked.unwrap();
    let listener = parked.listener.take().expect("a listener");
    let dies = spawn(move || waiting(&listener).expect("a call"));
    let (text, code) = finish(&lab, parked, output);
    dies.join().unwrap();
    contains(&text, "unshare(0x10000000): Function not implemented");
    assert!(text.ends_with("end\n") && code == 0, "{text}");
}

/// An exec'd process has a filter, and a listener, of its own.
pub fn exec_is_told(mut lab: Lab) {
    arm(&mut lab);
    let known = running(&mut lab);
    let (result, mut output) = execute(&lab, known, &process(&["sh", "-c", TRIES], 1000));
    let mut execed = result.unwrap();
    assert_eq!(execed.seccomp_filters, 1);
    let told = answer(execed.listener.take().expect("a listener"));
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(wait(execed.pid), 0);
    contains(&text, "unshare(0x10000000): Operation not permitted");
    assert_eq!(told.join().unwrap(), ["unshare", "syslog"]);
    delete(&lab.state, &lab.name, None).unwrap();
    wait(known.0);
    delete(&lab.state, &lab.name, None).unwrap();
    lab.nothing_left();
}

/// A pod's filter that refuses by errno would answer before the listener hears of it.
pub fn beside_a_pods_filter(mut lab: Lab) {
    let base: serde_json::Value = serde_json::from_str(boltseal_profiles::base_seccomp()).unwrap();
    let rules = base["syscalls"].as_array().unwrap().iter().filter(|r| r["action"] == "SCMP_ACT_ALLOW");
    let names: Vec<_> = rules.flat_map(|r| r["names"].as_array().unwrap().clone()).collect();
    let profile = serde_json::json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 77,
        "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}]});
    lab.table.pod_seccomp = Some(profile.to_string());
    arm(&mut lab);
    let (parked, output) = lab.sh(TRIES).create();
    let mut parked = parked.unwrap();
    assert_eq!(parked.seccomp_filters, 2);
    let told = answer(parked.listener.take().expect("a listener"));
    let (text, _) = finish(&lab, parked, output);
    contains(&text, "unshare(0x10000000): Operation not permitted");
    // What is not of the trip-wire has the pod's own answer (EBADFD).
    contains(&text, "sethostname: File descriptor in bad state");
    assert_eq!(told.join().unwrap(), ["unshare", "syslog"]);
}

const MEMORY: &str = "cat /proc/sys/vm/memfd_noexec";

/// Files of memory are not executable in there, and as before on the host.
pub fn memory_is_not_executable(mut lab: Lab) {
    let host = fs::read_to_string("/proc/sys/vm/memfd_noexec").unwrap();
    lab.table.memory_noexec = true;
    let (code, text, _) = lab.sh(MEMORY).run();
    assert_eq!((code, text.as_str()), (0, "2\n"));
    assert_eq!(fs::read_to_string("/proc/sys/vm/memfd_noexec").unwrap(), host);
    let known = running(&mut lab);
    let (result, mut output) = execute(&lab, known, &process(&["sh", "-c", MEMORY], 1000));
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert_eq!((wait(result.unwrap().pid), text.as_str()), (0, "2\n"));
    delete(&lab.state, &lab.name, None).unwrap();
    wait(known.0);
    delete(&lab.state, &lab.name, None).unwrap();
    lab.nothing_left();
    lab.table.memory_noexec = false;
    let (code, text, _) = lab.sh(MEMORY).run();
    assert_eq!((code, text), (0, host));
}
