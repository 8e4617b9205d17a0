//! Create, start, exec, kill, wait, delete, and the order in which containerd hears of them.

use std::fs;
use std::time::Duration;

use containerd_shim_protos::api::*;
use protobuf::Message as _;
use ttrpc::Code;

use crate::harness::*;

#[test]
fn a_container_lives_and_is_told_in_order() {
    isolated(async {
        let pod = Pod::new("args /bin/busybox sh exit 7").await;
        let pid = pod.create("pod").await.unwrap();
        assert!(alive(pid));
        assert_eq!(pod.state("pod", "").await.unwrap().status.enum_value().unwrap(), Status::CREATED);
        assert_eq!(code(&pod.create("pod").await.unwrap_err()), Code::ALREADY_EXISTS);
        assert_eq!(pod.start("pod", "").await.unwrap(), pid);
        assert_eq!(code(&pod.start("pod", "").await.unwrap_err()), Code::FAILED_PRECONDITION);
        assert_eq!(pod.wait("pod", "").await.unwrap(), 7);
        let state = pod.state("pod", "").await.unwrap();
        assert_eq!((state.status.enum_value().unwrap(), state.exit_status, state.pid), (Status::STOPPED, 7, pid));
        assert_eq!(code(&pod.kill("pod", "", 15, false).await.unwrap_err()), Code::NOT_FOUND);
        let deleted = pod.delete("pod", "").await.unwrap();
        assert_eq!((deleted.pid, deleted.exit_status), (pid, 7));
        assert_eq!(code(&pod.delete("pod", "").await.unwrap_err()), Code::NOT_FOUND);
        pod.wait_topics(&["create", "start", "exit", "delete"]).await;
        assert_eq!(pod.exits(), [("pod".into(), 7)]);
        assert!(eventually(|| pod.place.trail() == ["pod/ running", "pod/ exited 7"]).await, "{:?}", pod.place.trail());
        pod.shut_down().await;
    });
}

#[test]
fn the_shim_is_killed_by_oom_before_containerd_and_its_containers_inherit_containerds_score() {
    isolated(async {
        let score = |pid: &str| -> i32 {
            fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim().parse().unwrap()
        };
        let ours = score("self");
        let pod = Pod::new("").await;
        let pid = pod.create("pod").await.unwrap();
        assert_eq!(score(&pod.shim_pid.to_string()), (ours + 1).min(1000));
        assert_eq!(score(&pid.to_string()), ours);
        pod.delete("pod", "").await.unwrap();
        pod.shut_down().await;
    });
}

#[test]
fn a_short_life_ends_with_its_own_status_every_time() {
    isolated(async {
        let pod = Pod::new("args /bin/busybox true").await;
        for round in 0..20 {
            let id = format!("c{round}");
            pod.place.bundle(&id, "pod", &format!("args /bin/busybox sh exit {round}"));
            pod.create(&id).await.unwrap();
            pod.start(&id, "").await.unwrap();
            assert_eq!(pod.wait(&id, "").await.unwrap(), round);
            pod.delete(&id, "").await.unwrap();
        }
        let expected = ["create", "start", "exit", "delete"].repeat(20);
        pod.wait_topics(&expected).await;
        pod.shut_down().await;
    });
}

#[test]
fn a_killed_process_tells_its_signal() {
    isolated(async {
        let pod = Pod::new("").await;
        // SIGRTMIN+3 too: the C library's SIGRTMIN is not the kernel's.
        for (round, signal) in [15, 9, 37].into_iter().enumerate() {
            let id = format!("c{round}");
            pod.place.bundle(&id, "pod", "");
            pod.create(&id).await.unwrap();
            pod.start(&id, "").await.unwrap();
            assert_eq!(code(&pod.delete(&id, "").await.unwrap_err()), Code::FAILED_PRECONDITION);
            pod.kill(&id, "", signal, false).await.unwrap();
            assert_eq!(pod.wait(&id, "").await.unwrap(), 128 + signal);
            pod.delete(&id, "").await.unwrap();
        }
        assert_eq!(code(&pod.kill("nobody", "", 9, false).await.unwrap_err()), Code::NOT_FOUND);
        assert_eq!(code(&pod.kill("nobody", "", 900, false).await.unwrap_err()), Code::NOT_FOUND);
        pod.shut_down().await;
    });
}

#[test]
fn a_parked_container_can_be_deleted() {
    isolated(async {
        let pod = Pod::new("").await;
        let pid = pod.create("pod").await.unwrap();
        let deleted = pod.delete("pod", "").await.unwrap();
        assert_eq!(deleted.exit_status, 137);
        assert!(!alive(pid));
        pod.wait_topics(&["create", "exit", "delete"]).await;
        pod.shut_down().await;
    });
}

#[test]
fn execs_run_beside_init() {
    isolated(async {
        let pod = Pod::new("").await;
        pod.create("pod").await.unwrap();
        // Asked for before init runs, but not startable yet.
        let early = pod.exec("pod", "early", &["/bin/busybox", "true"]).await.unwrap_err();
        assert_eq!(code(&early), Code::FAILED_PRECONDITION);
        pod.delete("pod", "early").await.unwrap();
        pod.start("pod", "").await.unwrap();
        let pid = pod.exec("pod", "e1", &["/bin/busybox", "sh", "-c", "exit 5"]).await.unwrap();
        assert!(pid > 0);
        assert_eq!(pod.wait("pod", "e1").await.unwrap(), 5);
        let again = pod.exec("pod", "e1", &["/bin/busybox", "true"]).await.unwrap_err();
        assert_eq!(code(&again), Code::ALREADY_EXISTS);
        assert_eq!(pod.delete("pod", "e1").await.unwrap().exit_status, 5);
        pod.exec("pod", "e2", &["/bin/busybox", "sleep", "1000"]).await.unwrap();
        pod.kill("pod", "e2", 9, false).await.unwrap();
        assert_eq!(pod.wait("pod", "e2").await.unwrap(), 137);
        pod.wait_topics(&[
            "create",
            "exec-added",
            "start",
            "exec-added",
            "exec-started",
            "exit",
            "exec-added",
            "exec-started",
            "exit",
        ])
        .await;
        pod.kill_and_delete("pod").await;
        assert!(
            eventually(|| pod.place.trail().contains(&"pod/e1 exited 5".to_owned())).await,
            "{:?}",
            pod.place.trail()
        );
        pod.shut_down().await;
    });
}

#[test]
fn many_execs_lose_no_exit() {
    isolated(async {
        let pod = Pod::new("").await;
        pod.create("pod").await.unwrap();
        pod.start("pod", "").await.unwrap();
        let pod_ref = &pod;
        let run = |round: u32| async move {
            let id = format!("e{round}");
            pod_ref.exec("pod", &id, &["/bin/busybox", "sh", "-c", &format!("exit {round}")]).await.unwrap();
            assert_eq!(pod_ref.wait("pod", &id).await.unwrap(), round);
            pod_ref.delete("pod", &id).await.unwrap();
        };
        let mut tasks: Vec<_> = (0..40).map(|round| Box::pin(run(round))).collect();
        // All at once, on this one thread.
        std::future::poll_fn(|context| {
            tasks.retain_mut(|task| task.as_mut().poll(context).is_pending());
            if tasks.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
        drop(tasks);
        assert!(eventually(|| pod.exits().len() == 40).await, "{}", pod.exits().len());
        assert!(pod.exits().iter().all(|(id, status)| *id == format!("e{status}")));
        pod.kill_and_delete("pod").await;
        assert_eq!(children(pod.shim_pid), Vec::<u32>::new());
        pod.shut_down().await;
    });
}

#[test]
fn no_exec_starts_after_init_and_its_exit_is_last() {
    isolated(async {
        let pod = Pod::new(&format!("shared\ncgroup boltseal-test-last-{}", std::process::id())).await;
        pod.create("pod").await.unwrap();
        pod.start("pod", "").await.unwrap();
        pod.exec("pod", "left", &["/bin/busybox", "sleep", "1000"]).await.unwrap();
        pod.kill("pod", "", 9, false).await.unwrap();
        pod.wait_topics(&["create", "start", "exec-added", "exec-started", "exit", "exit"]).await;
        assert_eq!(pod.exits(), [("left".into(), 137), ("pod".into(), 137)]);
        let late = pod.client.exec(soon(), &pod.exec_request("pod", "late", &["/bin/busybox", "true"])).await;
        assert_eq!(code(&late.unwrap_err()), Code::FAILED_PRECONDITION);
        pod.delete("pod", "").await.unwrap();
        pod.shut_down().await;
    });
}

#[test]
fn containers_of_a_pod_share_one_shim() {
    isolated(async {
        let pod = Pod::new("").await;
        pod.place.bundle("app", "pod", "");
        pod.place.bundle("alone", "alone", "");
        assert_eq!(pod.place.start("app"), pod.address);
        assert_eq!(fs::read_to_string(pod.place.state().join("app/address")).unwrap(), pod.address);
        pod.create("pod").await.unwrap();
        pod.create("app").await.unwrap();
        let request = ShutdownRequest { id: "app".into(), now: true, ..Default::default() };
        pod.client.shutdown(soon(), &request).await.unwrap();
        pod.delete("pod", "").await.unwrap();
        assert!(alive(pod.shim_pid), "a shim that still has a container ended");
        pod.delete("app", "").await.unwrap();
        pod.shut_down().await;
    });
}

#[test]
fn events_wait_for_a_containerd_that_is_away() {
    isolated(async {
        let mut pod = Pod::new("args /bin/busybox sh exit 3").await;
        pod.create("pod").await.unwrap();
        pod.wait_topics(&["create"]).await;
        pod.stop_events().await;
        pod.start("pod", "").await.unwrap();
        assert_eq!(pod.wait("pod", "").await.unwrap(), 3);
        pod.delete("pod", "").await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(pod.topics(), ["create"]);
        pod.start_events().await;
        pod.wait_topics(&["create", "start", "exit", "delete"]).await;
        pod.shut_down().await;
    });
}

#[test]
fn both_task_services_answer_and_unknown_methods_say_so() {
    isolated(async {
        let pod = Pod::new("").await;
        let payload = ConnectRequest { id: "pod".into(), ..Default::default() }.write_to_bytes().unwrap();
        let ask = |service: &str, method: &str| {
            let mut request = ttrpc::Request::new();
            request.set_service(service.into());
            request.set_method(method.into());
            request.set_timeout_nano(PATIENCE.as_nanos() as i64);
            request.set_payload(payload.clone());
            pod.raw.request(request)
        };
        for service in ["containerd.task.v2.Task", "containerd.task.v3.Task"] {
            let answer = ConnectResponse::parse_from_bytes(&ask(service, "Connect").await.unwrap().payload).unwrap();
            assert_eq!((answer.shim_pid, answer.task_pid), (pod.shim_pid, 0));
            assert_eq!(code(&ask(service, "ReOpenLog").await.unwrap_err()), Code::UNIMPLEMENTED);
            assert_eq!(code(&ask(service, "Checkpoint").await.unwrap_err()), Code::UNIMPLEMENTED);
        }
        pod.shut_down().await;
    });
}

#[test]
fn the_resident_shim_is_small_and_has_one_thread() {
    isolated(async {
        let pod = Pod::new("").await;
        pod.create("pod").await.unwrap();
        pod.start("pod", "").await.unwrap();
        let status = fs::read_to_string(format!("/proc/{}/status", pod.shim_pid)).unwrap();
        assert!(status.contains("\nThreads:\t1\n"), "{status}");
        // What it wrote itself; the text is the same file for all shims (and far bigger in this debug build).
        let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.strip_suffix("kB")).unwrap();
        let anonymous: u32 = anonymous.trim().parse().unwrap();
        assert!(anonymous <= 640, "{anonymous} KiB of its own");
        let fds = || fs::read_dir(format!("/proc/{}/fd", pod.shim_pid)).unwrap().count();
        let before = fds();
        for round in 0..10 {
            let id = format!("e{round}");
            pod.exec("pod", &id, &["/bin/busybox", "true"]).await.unwrap();
            pod.wait("pod", &id).await.unwrap();
            pod.delete("pod", &id).await.unwrap();
        }
        assert!(eventually(|| fds() <= before).await, "{} fds, {before} before", fds());
        pod.kill_and_delete("pod").await;
        pod.shut_down().await;
    });
}
