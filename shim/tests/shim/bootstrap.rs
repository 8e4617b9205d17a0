//! `start`, `delete`, `-info` and `-v`, as containerd runs them.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use containerd_shim_protos::types::introspection::RuntimeInfo;
use protobuf::Message as _;

use crate::harness::*;

fn kill(pid: u32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[test]
fn concurrent_starts_of_one_pod_agree() {
    isolated(async {
        let pod = Pod::new("").await;
        let ids: Vec<String> = (0..8).map(|n| format!("c{n}")).collect();
        ids.iter().for_each(|id| drop(pod.place.bundle(id, "pod2", "")));
        let place = &pod.place;
        // The threads inherit this thread's mount namespace.
        let addresses: Vec<String> = std::thread::scope(|scope| {
            let starts: Vec<_> = ids.iter().map(|id| scope.spawn(move || place.start(id))).collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        assert!(addresses.iter().all(|address| *address == addresses[0] && *address != pod.address));
        let client = containerd_shim_protos::shim_async::Client::connect(&addresses[0]).await.unwrap();
        let client = containerd_shim_protos::shim_async::TaskClient::new(client);
        client.shutdown(soon(), &Default::default()).await.unwrap();
        assert!(eventually(|| !Path::new(addresses[0].strip_prefix("unix://").unwrap()).exists()).await);
        pod.shut_down().await;
    });
}

#[test]
fn a_stale_socket_is_replaced() {
    isolated(async {
        let pod = Pod::new("").await;
        kill(pod.shim_pid);
        assert!(eventually(|| !alive(pod.shim_pid)).await);
        assert!(Path::new(pod.address.strip_prefix("unix://").unwrap()).exists());
        assert_eq!(pod.place.start("pod"), pod.address);
        let client = containerd_shim_protos::shim_async::Client::connect(&pod.address).await.unwrap();
        let client = containerd_shim_protos::shim_async::TaskClient::new(client);
        client.shutdown(soon(), &Default::default()).await.unwrap();
        assert!(eventually(|| !Path::new(pod.address.strip_prefix("unix://").unwrap()).exists()).await);
    });
}

#[test]
fn bootstrap_params_get_a_bootstrap_result() {
    isolated(async {
        let pod = Pod::new("").await;
        let params = BootstrapParams {
            instance_id: "pod".into(),
            namespace: NAMESPACE.into(),
            containerd_ttrpc_address: pod.place.events_socket().to_str().unwrap().into(),
            ..Default::default()
        };
        let output = pod.place.run("pod", &params.write_to_bytes().unwrap(), &["start"]);
        assert!(output.status.success() && output.stderr.is_empty());
        let result = BootstrapResult::parse_from_bytes(&output.stdout).unwrap();
        assert_eq!((result.version, result.address, result.protocol), (2, pod.address.clone(), "ttrpc".into()));
        pod.shut_down().await;
    });
}

#[test]
fn an_fd_that_containerd_leaks_goes_no_further() {
    isolated(async {
        let zero = fs::File::open("/dev/zero").unwrap();
        nix::fcntl::fcntl(&zero, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
        let pod = Pod::new("").await;
        let pid = pod.create("pod").await.unwrap();
        drop(zero);
        for pid in [pod.shim_pid, pid] {
            let open: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd"))
                .unwrap()
                .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
                .collect();
            assert!(!open.is_empty() && !open.contains(&"/dev/zero".into()), "{open:?}");
        }
        pod.delete("pod", "").await.unwrap();
        pod.shut_down().await;
    });
}

#[test]
fn delete_is_quick_and_can_be_repeated() {
    isolated(async {
        let place = Place::new();
        place.bundle("gone", "gone", "");
        let mut quickest = Duration::MAX;
        for _ in 0..2 {
            let begun = Instant::now();
            let output = place.run("gone", b"", &["-bundle", place.state().join("gone").to_str().unwrap(), "delete"]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            quickest = quickest.min(begun.elapsed());
            let response = DeleteResponse::parse_from_bytes(&output.stdout).unwrap();
            assert_eq!(response.exit_status, 137);
            assert!(response.exited_at.seconds > 1_600_000_000);
        }
        assert!(quickest < Duration::from_secs(1), "{quickest:?}");
        assert_eq!(place.lines("operations"), ["delete gone", "delete gone"]);
    });
}

#[test]
fn delete_of_what_the_gate_has_forgotten_runs_no_gate() {
    isolated(async {
        let place = Place::new();
        place.bundle("gone", "gone", "delete crash");
        fs::remove_dir(gate_state("gone")).unwrap();
        let output = place.run("gone", b"", &["delete"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(DeleteResponse::parse_from_bytes(&output.stdout).unwrap().exit_status, 137);
        assert_eq!(place.lines("operations"), Vec::<String>::new());
    });
}

#[test]
fn delete_of_a_sandbox_whose_shim_is_gone_sweeps_the_pod() {
    isolated(async {
        let pod = Pod::new("").await;
        pod.place.bundle("app", "pod", "");
        pod.place.bundle("stranger", "stranger", "");
        let pids = [pod.create("pod").await.unwrap(), pod.create("app").await.unwrap()];
        pod.start("app", "").await.unwrap();
        // While the shim lives, `delete` of the sandbox touches the sandbox alone.
        kill(pod.shim_pid);
        assert!(eventually(|| !alive(pod.shim_pid)).await);
        let output = pod.place.run("pod", b"", &["delete"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(eventually(|| pids.iter().all(|pid| !alive(*pid))).await);
        let deletes: Vec<String> =
            pod.place.lines("operations").into_iter().filter(|line| line.starts_with("delete")).collect();
        assert_eq!(deletes, ["delete pod", "delete app"]);
        let socket = pod.address.strip_prefix("unix://").unwrap();
        assert!(!Path::new(socket).exists() && UnixStream::connect(socket).is_err());
    });
}

#[test]
fn a_parked_init_does_not_outlive_the_shim() {
    isolated(async {
        let pod = Pod::new("").await;
        let pid = pod.create("pod").await.unwrap();
        assert!(alive(pid));
        kill(pod.shim_pid);
        assert!(eventually(|| !alive(pid)).await);
    });
}

#[test]
fn delete_beside_a_living_shim_sweeps_nobody() {
    isolated(async {
        let pod = Pod::new("").await;
        pod.place.bundle("app", "pod", "");
        pod.create("app").await.unwrap();
        let output = pod.place.run("pod", b"", &["delete"]);
        assert!(output.status.success());
        assert!(!pod.place.lines("operations").contains(&"delete app".to_owned()));
        assert!(Path::new(pod.address.strip_prefix("unix://").unwrap()).exists());
        pod.delete("app", "").await.unwrap();
        pod.shut_down().await;
    });
}

#[test]
fn a_failed_delete_says_so() {
    isolated(async {
        let place = Place::new();
        place.bundle("c", "c", "delete crash");
        let output = place.run("c", b"", &["delete"]);
        assert!(!output.status.success() && output.stdout.is_empty());
        assert!(String::from_utf8_lossy(&output.stderr).contains("failed without an answer"));
    });
}

#[test]
fn info_and_version_answer_without_anything() {
    isolated(async {
        let place = Place::new();
        let bare = |arg: &str| {
            std::process::Command::new(place.folder.path().join("bin/containerd-shim-boltseal-v1"))
                .arg(arg)
                .env_clear()
                .output()
                .unwrap()
        };
        let info = RuntimeInfo::parse_from_bytes(&bare("-info").stdout).unwrap();
        assert_eq!(info.name, "io.containerd.boltseal.v1");
        for flag in ["-v", "-version"] {
            assert!(String::from_utf8(bare(flag).stdout).unwrap().starts_with("containerd-shim-boltseal-v1:\n"));
        }
        assert!(!bare("start").status.success());
    });
}

#[test]
fn a_missing_gate_is_named_by_start_of_the_server() {
    isolated(async {
        let place = Place::new();
        place.bundle("c", "c", "");
        fs::remove_file(place.folder.path().join("bin/boltseal-runtime")).unwrap();
        let output = place.run("c", b"", &["start"]);
        assert!(!output.status.success());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains("boltseal-runtime"), "{error}");
        assert!(fs::read_dir("/run/containerd/s").map_or(0, Iterator::count) == 0, "a socket is left");
    });
}
