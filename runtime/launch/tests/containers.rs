//! Real containers, as root. Each scenario is a process of its own (create and exec want a single-threaded caller);
//! `cargo test --test containers -- NAME` runs those whose name contains NAME.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_debug_implementations,
    unreachable_pub,
    reason = "tests"
)]

mod lab;
mod probe;
mod scenarios;

use lab::Lab;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use std::path::PathBuf;
use std::time::Instant;

fn main() {
    if probe::ran() {
        return;
    }
    assert!(nix::unistd::geteuid().is_root(), "these tests make containers: run them as root");
    let wanted = std::env::args().skip(1).find(|a| !a.starts_with('-')).unwrap_or_default();
    let top = PathBuf::from(format!("/tmp/boltseal-launch-{}", std::process::id()));
    let cgroup = format!("/boltseal-test-{}", std::process::id());
    std::fs::create_dir(&top).unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut failed = 0_usize;
    let mut ran = 0_usize;
    for (name, scenario) in scenarios::ALL.iter().filter(|(n, _)| n.contains(&wanted)) {
        ran += 1;
        let begun = Instant::now();
        let ok = alone(&top, &cgroup, name, *scenario);
        println!("test {name} ... {} ({} ms)", if ok { "ok" } else { "FAILED" }, begun.elapsed().as_millis());
        failed += usize::from(!ok);
    }
    for folder in lab::cgroups(&cgroup) {
        for left in std::fs::read_dir(&folder).unwrap().filter_map(Result::ok).filter(|e| e.path().is_dir()) {
            println!("left behind: {}", left.path().display());
            failed += 1;
            lab::end_all(&left.path());
        }
        if let Err(e) = std::fs::remove_dir(&folder) {
            println!("{}: {e}", folder.display());
        }
    }
    std::fs::remove_dir(&top).unwrap();
    assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts, "mounts are left on the host");
    println!("\ntest result: {} of {ran} passed, {failed} failed or left something behind", ran - failed.min(ran));
    assert!(ran > 0, "no scenario is named {wanted:?}");
    std::process::exit(i32::from(failed > 0));
}

fn alone(top: &std::path::Path, cgroup: &str, name: &str, scenario: fn(Lab)) -> bool {
    // SAFETY: this process has one thread.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => patient(child),
        ForkResult::Child => {
            let result = std::panic::catch_unwind(|| {
                let mut lab = Lab::new(top.to_owned(), cgroup, name);
                scenarios::enter_label(&mut lab);
                scenario(lab);
            });
            std::process::exit(i32::from(result.is_err()));
        }
    }
}

/// A scenario that hangs is killed after 30 s.
fn patient(child: nix::unistd::Pid) -> bool {
    for _ in 0..3000 {
        match waitpid(child, Some(nix::sys::wait::WaitPidFlag::WNOHANG)).unwrap() {
            WaitStatus::StillAlive => std::thread::sleep(std::time::Duration::from_millis(10)),
            ended => return matches!(ended, WaitStatus::Exited(_, 0)),
        }
    }
    nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL).unwrap();
    waitpid(child, None).unwrap();
    println!("hung");
    false
}
