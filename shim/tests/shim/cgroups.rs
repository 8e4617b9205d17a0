//! What the shim does through the container's cgroup, on whichever version this machine has: v1 with freezer and memory
//! controllers, or v2 alone.

use std::fs;

use containerd_shim_protos::api::*;
use containerd_shim_protos::cgroups::metrics::Metrics as V1;
use containerd_shim_protos::cgroups_v2::metrics::Metrics as V2;
use containerd_shim_protos::shim::oci::ProcessDetails;
use protobuf::Message as _;

use crate::harness::*;

#[test]
fn pids_stats_pause_and_kill_all() {
    isolated(async {
        let name = format!("boltseal-test-{}", std::process::id());
        let pod = Pod::new(&format!("cgroup {name}\nargs /bin/busybox sh sleep 1000 & sleep 1000")).await;
        let init = pod.create("pod").await.unwrap();
        pod.start("pod", "").await.unwrap();
        let exec = pod.exec("pod", "e", &["/bin/busybox", "sleep", "1000"]).await.unwrap();
        let request = PidsRequest { id: "pod".into(), ..Default::default() };
        let mut listed = Vec::new();
        for _ in 0..100 {
            listed = pod.client.pids(soon(), &request).await.unwrap().processes;
            if listed.len() == 3 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert!(listed.iter().any(|process| process.pid == init) && listed.len() == 3, "{listed:?}");
        let of_exec = listed.iter().find(|process| process.pid == exec).unwrap();
        assert_eq!(ProcessDetails::parse_from_bytes(&of_exec.info.value).unwrap().exec_id, "e");

        let request = StatsRequest { id: "pod".into(), ..Default::default() };
        let stats = pod.client.stats(soon(), &request).await.unwrap().stats.unwrap();
        let unified = fs::exists("/sys/fs/cgroup/cgroup.controllers").unwrap();
        if unified {
            assert_eq!(stats.type_url, "io.containerd.cgroups.v2.Metrics");
            let metrics = V2::parse_from_bytes(&stats.value).unwrap();
            assert!(metrics.memory.usage > 0 && metrics.cpu.usage_usec > 0 && metrics.pids.current == 3);
            for pressure in [&metrics.cpu.psi, &metrics.memory.psi, &metrics.io.psi] {
                assert!(pressure.some.is_some() && pressure.full.is_some(), "{metrics:?}");
            }
        } else {
            assert_eq!(stats.type_url, "io.containerd.cgroups.v1.Metrics");
            let metrics = V1::parse_from_bytes(&stats.value).unwrap();
            assert!(metrics.memory.usage.usage > 0 && metrics.cpu.usage.total > 0 && metrics.pids.current == 3);
        }

        let request = PauseRequest { id: "pod".into(), ..Default::default() };
        pod.client.pause(soon(), &request).await.unwrap();
        assert_eq!(pod.state("pod", "").await.unwrap().status.enum_value().unwrap(), Status::PAUSED);
        let (folder, file) = if unified { ("", "cgroup.events") } else { ("freezer/", "freezer.state") };
        let folder = format!("/sys/fs/cgroup/{folder}{name}");
        let state = || fs::read_to_string(format!("{folder}/{file}")).unwrap();
        assert!(state().contains(if unified { "frozen 1" } else { "FROZEN" }));
        let frozen = pod.exec("pod", "frozen", &["/bin/busybox", "true"]).await.unwrap_err();
        assert_eq!(code(&frozen), ttrpc::Code::FAILED_PRECONDITION);
        let request = ResumeRequest { id: "pod".into(), ..Default::default() };
        pod.client.resume(soon(), &request).await.unwrap();
        assert!(state().contains(if unified { "frozen 0" } else { "THAWED" }));
        let request = PauseRequest { id: "pod".into(), ..Default::default() };
        pod.client.pause(soon(), &request).await.unwrap();
        // Frozen as it is, it dies at once.
        pod.kill("pod", "", 9, true).await.unwrap();
        assert_eq!(pod.wait("pod", "").await.unwrap(), 137);
        assert_eq!(pod.wait("pod", "e").await.unwrap(), 137);
        pod.delete("pod", "").await.unwrap();
        assert!(!fs::exists(folder).unwrap());
        assert_eq!(children(pod.shim_pid), Vec::<u32>::new());
        pod.shut_down().await;
    });
}

#[test]
fn an_oom_is_told_before_the_exit_that_it_caused() {
    isolated(async {
        let name = format!("boltseal-test-oom-{}", std::process::id());
        let eater = "x=$(head -c 60000000 /dev/zero | tr '\\000' x); echo $x";
        let pod = Pod::new(&format!(
            "cgroup {name}\nmemory 8388608\nargs /bin/busybox sh exec /bin/busybox sh -c \"{eater}\""
        ))
        .await;
        pod.create("pod").await.unwrap();
        pod.start("pod", "").await.unwrap();
        assert_eq!(pod.wait("pod", "").await.unwrap(), 137);
        assert!(eventually(|| pod.topics().last().is_some_and(|topic| topic == "exit")).await);
        let topics = pod.topics();
        let at = |wanted: &str| topics.iter().position(|topic| topic == wanted).unwrap();
        assert!(at("start") < at("oom") && at("oom") < at("exit"), "{topics:?}");
        pod.delete("pod", "").await.unwrap();
        let trail = pod.place.trail();
        assert!(trail.contains(&"pod/ oom".to_owned()), "{trail:?}");
        pod.shut_down().await;
    });
}
