//! What the server took from itself, that nobody else has less for it, and what is left when its starter is killed.

use std::fs;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ttrpc::Code;

use crate::harness::*;

/// `Seccomp`, `Seccomp_filters` and `NoNewPrivs` of a process.
fn confinement(pid: u32) -> [u32; 3] {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    ["Seccomp:", "Seccomp_filters:", "NoNewPrivs:"].map(|name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse().unwrap()
    })
}

#[test]
fn the_server_is_confined_and_neither_gate_nor_container_is_for_it() {
    isolated(async {
        let pod = Pod::new("").await;
        let init = pod.create("pod").await.unwrap();
        pod.start("pod", "").await.unwrap();
        let exec = pod.exec("pod", "e", &["/bin/busybox", "sleep", "100"]).await.unwrap();
        let own = confinement(std::process::id());
        assert_eq!(confinement(pod.shim_pid), [2, own[1] + 1, 1]);
        assert_eq!(confinement(starter(pod.shim_pid)), own);
        // One filter each, that of the fake gate.
        let there = || [confinement(init), confinement(exec)] == [[2, own[1] + 1, 1]; 2];
        assert!(eventually(there).await, "{:?} {:?}", confinement(init), confinement(exec));
        let gates = pod.place.lines("confined");
        assert!(
            gates.len() >= 2 && gates.iter().all(|seen| *seen == own.map(|n| n.to_string()).join(" ")),
            "{gates:?}"
        );
        // What a gate leaves is the server's child, not the starter's.
        let parent = |pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse::<u32>().ok())
        };
        assert_eq!([parent(init), parent(exec)], [Some(pod.shim_pid); 2]);
        pod.kill_and_delete("pod").await;
        pod.shut_down().await;
    });
}

#[test]
fn the_starter_is_small_and_ends_with_the_server() {
    isolated(async {
        let pod = Pod::new("").await;
        pod.create("pod").await.unwrap();
        let starter = starter(pod.shim_pid);
        let rollup = fs::read_to_string(format!("/proc/{starter}/smaps_rollup")).unwrap();
        let dirty = rollup.lines().find_map(|line| line.strip_prefix("Private_Dirty:")?.strip_suffix("kB")).unwrap();
        let dirty: u32 = dirty.trim().parse().unwrap();
        assert!(dirty <= 256, "{dirty} KiB of its own");
        // Stdio, the server's socket, the gate; a gate that has ended is let go of at once.
        let open = || fs::read_dir(format!("/proc/{starter}/fd")).unwrap().count();
        assert!(eventually(|| open() == 5).await, "{}", open());
        kill(Pid::from_raw(pod.shim_pid as i32), Signal::SIGKILL).unwrap();
        assert!(eventually(|| !alive(starter)).await);
    });
}

/// Its twins are all the other tests: with a starter the same requests start.
#[test]
fn without_a_starter_nothing_new_starts_and_what_runs_can_be_killed_and_deleted() {
    isolated(async {
        let pod = Pod::new("").await;
        for id in ["app", "late"] {
            pod.place.bundle(id, "pod", "");
        }
        pod.create("pod").await.unwrap();
        pod.start("pod", "").await.unwrap();
        let app = pod.create("app").await.unwrap();
        pod.start("app", "").await.unwrap();
        let starter = starter(pod.shim_pid);
        kill(Pid::from_raw(starter as i32), Signal::SIGKILL).unwrap();
        assert!(eventually(|| !Path::new(&format!("/proc/{starter}")).exists()).await, "a zombie is left");
        let refused =
            [pod.create("late").await.unwrap_err(), pod.exec("app", "e", &["/bin/busybox", "true"]).await.unwrap_err()];
        for error in refused {
            assert_eq!(code(&error), Code::FAILED_PRECONDITION);
            let text = message(&error);
            assert!(text.contains("starter of this pod's gates has ended") && text.contains("Fix: delete"), "{text}");
        }
        // What runs goes on, and ends as it always does.
        assert!(alive(app) && pod.state("app", "").await.unwrap().pid == app);
        pod.kill("app", "", 9, false).await.unwrap();
        assert_eq!(pod.wait("app", "").await.unwrap(), 137);
        assert_eq!(pod.delete("app", "").await.unwrap().exit_status, 137);
        // The last one's Delete ends the server, and containerd calls `shim delete`, which removes them all.
        pod.kill("pod", "", 9, false).await.unwrap();
        pod.wait("pod", "").await.unwrap();
        let error = pod.delete("pod", "").await.unwrap_err();
        assert!(message(&error).contains("Fix: delete again"), "{}", message(&error));
        assert!(eventually(|| !alive(pod.shim_pid)).await);
        let output = pod.place.run("pod", b"", &["delete"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let operations = pod.place.lines("operations");
        assert!(
            ["delete pod", "delete app"].iter().all(|done| operations.contains(&(*done).to_owned())),
            "{operations:?}"
        );
    });
}

#[test]
fn a_log_outside_of_the_folders_for_logs_is_refused_by_name() {
    isolated(async {
        let pod = Pod::new("").await;
        fs::create_dir("/run/elsewhere").unwrap();
        let mut request = pod.create_request("pod");
        request.stdout = "file:///run/elsewhere/log".into();
        let error = pod.client.create(soon(), &request).await.unwrap_err();
        assert_eq!(code(&error), Code::INVALID_ARGUMENT);
        let text = message(&error);
        assert!(text.contains("/run/elsewhere/log: ") && text.contains("/var/log/pods"), "{text}");
        assert_eq!(fs::read_dir("/run/elsewhere").unwrap().count(), 0);
        // The same log where logs may be.
        request.stdout = format!("file://{}", pod.place.folder.path().join("log").display());
        pod.client.create(soon(), &request).await.unwrap();
        pod.delete("pod", "").await.unwrap();
        pod.shut_down().await;
    });
}
