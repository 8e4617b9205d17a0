//! What the shim does when the gate refuses, breaks, hangs, or when what it judged no longer holds.

use std::fs;
use std::time::Instant;

use containerd_shim_protos::api::*;
use protobuf::well_known_types::any::Any;
use ttrpc::Code;

use crate::harness::*;

#[test]
fn a_refusal_reaches_the_caller_as_it_is() {
    isolated(async {
        let pod = Pod::new("").await;
        let text = "boltseal: denied by BS-IMG-001: no signature. Fix: cosign sign";
        for (round, (name, expected)) in [
            ("permission", Code::PERMISSION_DENIED),
            ("precondition", Code::FAILED_PRECONDITION),
            ("argument", Code::INVALID_ARGUMENT),
            ("unavailable", Code::UNAVAILABLE),
            ("notfound", Code::NOT_FOUND),
            ("exists", Code::ALREADY_EXISTS),
            ("internal", Code::INTERNAL),
        ]
        .into_iter()
        .enumerate()
        {
            let id = format!("c{round}");
            pod.place.bundle(&id, "pod", &format!("create refuse {name} {text}"));
            let error = pod.create(&id).await.unwrap_err();
            assert_eq!((code(&error), message(&error)), (expected, text.to_owned()));
            // The gate said that nothing is left: nothing is swept, and the id is unknown.
            assert_eq!(code(&pod.delete(&id, "").await.unwrap_err()), Code::NOT_FOUND);
        }
        assert!(pod.place.lines("operations").iter().all(|line| line.starts_with("create ")));
        assert_eq!(pod.topics(), Vec::<String>::new());
        pod.shut_down().await;
    });
}

#[test]
fn a_log_program_is_passed_on_and_refused() {
    isolated(async {
        let pod = Pod::new("").await;
        let mut request = pod.create_request("pod");
        request.stdout = "binary:///usr/bin/logger?tag=x".into();
        let error = pod.client.create(soon(), &request).await.unwrap_err();
        assert_eq!(code(&error), Code::PERMISSION_DENIED);
        assert!(message(&error).contains("binary:///usr/bin/logger?tag=x"), "{}", message(&error));
        pod.shut_down().await;
    });
}

#[test]
fn a_gate_that_breaks_is_named_and_swept_up_after() {
    isolated(async {
        let pod = Pod::new("").await;
        for order in ["crash", "garbage", "lie"] {
            pod.place.bundle(order, "pod", &format!("create {order}"));
            let error = pod.create(order).await.unwrap_err();
            assert_eq!(code(&error), Code::INTERNAL, "{order}");
            assert!(message(&error).starts_with("boltseal: the gate (boltseal-runtime) failed"), "{}", message(&error));
            assert!(pod.place.lines("operations").contains(&format!("delete {order}")), "{order}");
            assert_eq!(code(&pod.delete(order, "").await.unwrap_err()), Code::NOT_FOUND);
        }
        let crash = pod.create("crash").await.unwrap_err();
        assert!(
            message(&crash).contains("signal 6") && message(&crash).contains("told to crash"),
            "{}",
            message(&crash)
        );
        pod.shut_down().await;
    });
}

#[test]
fn a_gate_that_hangs_is_killed_in_time_and_holds_nobody_up() {
    isolated(async {
        let pod = Pod::new("").await;
        pod.place.bundle("stuck", "pod", "create hang");
        let request = pod.create_request("stuck");
        let context = ttrpc::context::with_duration(std::time::Duration::from_secs(5));
        let begun = Instant::now();
        let stuck = pod.client.create(context, &request);
        let others = async {
            pod.create("pod").await.unwrap();
            pod.start("pod", "").await.unwrap();
            pod.kill_and_delete("pod").await;
            begun.elapsed()
        };
        let (error, others) = tokio::join!(stuck, others);
        let error = error.unwrap_err();
        assert_eq!(code(&error), Code::UNAVAILABLE, "{}", message(&error));
        // The answer is the shim's own, before ttrpc gives up at 5 s; the other container never waited for it.
        assert!(others.as_millis() < 4000, "{others:?}");
        assert!(pod.place.lines("operations").contains(&"delete stuck".to_owned()));
        assert_eq!(children(pod.shim_pid), Vec::<u32>::new());
        pod.shut_down().await;
    });
}

#[test]
fn a_delete_ends_a_create_that_hangs() {
    isolated(async {
        let pod = Pod::new("create hang").await;
        let cancel = async {
            assert!(eventually(|| !pod.place.lines("operations").is_empty()).await);
            pod.delete("pod", "").await
        };
        let (created, deleted) = tokio::join!(pod.create("pod"), cancel);
        assert_eq!(code(&created.unwrap_err()), Code::INTERNAL);
        assert_eq!(code(&deleted.unwrap_err()), Code::NOT_FOUND);
        pod.shut_down().await;
    });
}

/// Of root's capabilities the server keeps four; the gate, which it runs, has what the tests have.
#[test]
fn the_server_keeps_little_of_root() {
    isolated(async {
        let pod = Pod::new("").await;
        pod.create("pod").await.unwrap();
        let sets = |process: &str| {
            let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
            let set = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                u64::from_str_radix(line.unwrap().trim(), 16).unwrap()
            };
            [set("CapInh:"), set("CapPrm:"), set("CapEff:"), set("CapBnd:"), set("CapAmb:")]
        };
        let (own, server) = (sets("self"), sets(&pod.shim_pid.to_string()));
        // DAC_OVERRIDE, KILL, SYS_PTRACE, SYS_RESOURCE, as far as there are any.
        let kept = own[1] & (1 << 1 | 1 << 5 | 1 << 19 | 1 << 24);
        assert_eq!(server, [0, kept, kept, own[3], 0], "{server:x?}");
        let gate = pod.place.lines("capabilities");
        assert_eq!(u64::from_str_radix(gate.first().unwrap(), 16).unwrap(), own[3], "all of the bounding set");
        pod.kill_and_delete("pod").await;
        pod.shut_down().await;
    });
}

/// What a gate says beside a good answer is in containerd's log.
#[test]
fn a_warning_of_the_gate_is_logged() {
    isolated(async {
        let place = Place::new();
        let bundle = place.bundle("pod", "pod", "warns process 7 cannot be reaped");
        // containerd makes this fifo and reads it.
        nix::unistd::mkfifo(&bundle.join("log"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut log = fs::File::options().read(true).write(true).open(bundle.join("log")).unwrap();
        let pod = Pod::at(place).await;
        pod.create("pod").await.unwrap();
        let mut line = [0; 512];
        let length = std::io::Read::read(&mut log, &mut line).unwrap();
        let line = String::from_utf8_lossy(&line[..length]).into_owned();
        assert_eq!(line, "boltseal-shim: pod: the gate: process 7 cannot be reaped\n");
        pod.kill("pod", "", 9, false).await.unwrap();
        pod.wait("pod", "").await.unwrap();
        pod.delete("pod", "").await.unwrap();
        pod.shut_down().await;
    });
}

/// Four gates at most work for execs; the others wait their turn, and hold up neither a kill nor another container.
#[test]
fn a_flood_of_execs_is_bounded() {
    isolated(async {
        let pod = Pod::new("exec hang").await;
        pod.create("pod").await.unwrap();
        pod.start("pod", "").await.unwrap();
        for n in 0..128 {
            pod.client.exec(soon(), &pod.exec_request("pod", &format!("e{n}"), &["/bin/busybox"])).await.unwrap();
        }
        let beyond = pod.client.exec(soon(), &pod.exec_request("pod", "e128", &["/bin/busybox"])).await.unwrap_err();
        assert_eq!(code(&beyond), Code::UNAVAILABLE);
        assert!(message(&beyond).contains("128 exec'd processes of this container were never deleted"));

        let start = |n: usize, seconds| {
            let (client, exec_id) = (pod.client.clone(), format!("e{n}"));
            let request = StartRequest { id: "pod".into(), exec_id, ..Default::default() };
            let context = ttrpc::context::with_duration(std::time::Duration::from_secs(seconds));
            async move { (request.exec_id.clone(), client.start(context, &request).await.unwrap_err()) }
        };
        let gates = || pod.place.lines("operations").iter().filter(|line| line.starts_with("exec ")).count();
        let mut flood = tokio::task::JoinSet::new();
        // The first are still at work when the time of those behind them is over.
        (0..4).for_each(|n| drop(flood.spawn(start(n, 8))));
        assert!(eventually(|| gates() == 4).await);
        (4..16).for_each(|n| drop(flood.spawn(start(n, 2))));
        pod.place.bundle("other", "pod", "");
        pod.create("other").await.unwrap();
        pod.start("other", "").await.unwrap();
        pod.kill_and_delete("other").await;
        let ended = flood.join_all().await;
        assert!(ended.iter().all(|(_, error)| code(error) == Code::UNAVAILABLE), "{ended:?}");
        let busy = |error| message(error).contains("4 processes of this pod are being started already");
        let waited: Vec<&String> = ended.iter().filter(|(_, error)| busy(error)).map(|(id, _)| id).collect();
        assert_eq!((waited.len(), gates()), (12, 4), "{ended:?}");
        // Who never had a turn can still be started.
        fs::write(pod.place.state().join("pod/gate"), "").unwrap();
        pod.start("pod", waited[0]).await.unwrap();
        pod.kill_and_delete("pod").await;
        pod.shut_down().await;
    });
}

/// What held when an exec began to wait for its turn need not hold any more.
#[test]
fn an_exec_that_waited_is_not_started_in_a_container_that_ended() {
    isolated(async {
        let pod = Pod::new("exec hang").await;
        pod.create("pod").await.unwrap();
        pod.start("pod", "").await.unwrap();
        let mut all = tokio::task::JoinSet::new();
        for n in 0..5 {
            let request = pod.exec_request("pod", &format!("e{n}"), &["/bin/busybox"]);
            pod.client.exec(soon(), &request).await.unwrap();
        }
        let start = |n: usize, seconds| {
            let request = StartRequest { id: "pod".into(), exec_id: format!("e{n}"), ..Default::default() };
            let (client, context) =
                (pod.client.clone(), ttrpc::context::with_duration(std::time::Duration::from_secs(seconds)));
            async move { client.start(context, &request).await.unwrap_err() }
        };
        (0..4).for_each(|n| drop(all.spawn(start(n, 3))));
        let gates = || pod.place.lines("operations").iter().filter(|line| line.starts_with("exec ")).count();
        assert!(eventually(|| gates() == 4).await);
        let last = start(4, 10);
        let (last, ()) = tokio::join!(last, async {
            pod.kill("pod", "", 9, false).await.unwrap();
            pod.wait("pod", "").await.unwrap();
        });
        assert_eq!(code(&last), Code::FAILED_PRECONDITION, "{}", message(&last));
        assert!(message(&last).contains("the container does not run"), "{}", message(&last));
        all.join_all().await;
        assert_eq!(gates(), 4);
        pod.delete("pod", "").await.unwrap();
        pod.shut_down().await;
    });
}

#[test]
fn an_exec_whose_gate_breaks_leaves_the_container_alone() {
    isolated(async {
        let pod = Pod::new("exec crash").await;
        let pid = pod.create("pod").await.unwrap();
        pod.start("pod", "").await.unwrap();
        let error = pod.exec("pod", "e", &["/bin/busybox", "true"]).await.unwrap_err();
        assert_eq!(code(&error), Code::INTERNAL);
        assert!(alive(pid));
        assert_eq!(pod.delete("pod", "e").await.unwrap().exit_status, 255);
        pod.kill_and_delete("pod").await;
        pod.shut_down().await;
    });
}

/// Start is refused: init is dead and the trail says why.
async fn refused_at_start(orders: &str, expected: Code, says: &str) {
    let pod = Pod::new(orders).await;
    let pid = pod.create("pod").await.unwrap();
    if let Some(policy) = orders.strip_prefix("policy ") {
        fs::write(policy, "changed").unwrap();
    }
    let error = pod.start("pod", "").await.unwrap_err();
    assert_eq!(code(&error), expected, "{}", message(&error));
    assert!(message(&error).lines().next().unwrap().contains(says), "{}", message(&error));
    assert!(!alive(pid));
    pod.delete("pod", "").await.unwrap();
    pod.wait_topics(&["create", "exit", "delete"]).await;
    let trail = pod.place.trail();
    assert!(trail[0].starts_with("pod/ aborted boltseal: ") && trail[0].contains(says), "{trail:?}");
    assert!(trail[1].starts_with("pod/ exited "), "{trail:?}");
    pod.shut_down().await;
}

#[test]
fn a_policy_that_changed_stops_the_start() {
    isolated(async {
        let folder = tempfile::tempdir().unwrap();
        let policy = folder.path().join("policy.toml");
        fs::write(&policy, "as judged").unwrap();
        let says = "denied by BS-NOD-004: policy changed between create and start. Fix: create the container again";
        refused_at_start(&format!("policy {}", policy.display()), Code::FAILED_PRECONDITION, says).await;
        // The twin: the same file, unchanged, starts.
        let pod = Pod::new(&format!("policy {}", policy.display())).await;
        pod.create("pod").await.unwrap();
        pod.start("pod", "").await.unwrap();
        pod.kill_and_delete("pod").await;
        pod.shut_down().await;
    });
}

#[test]
fn a_stale_permit_stops_the_start() {
    isolated(refused_at_start("expired", Code::FAILED_PRECONDITION, "the permit has expired"));
}

#[test]
fn a_program_that_is_not_there_fails_the_start() {
    isolated(refused_at_start("args /no/such/program", Code::INVALID_ARGUMENT, "No such file or directory"));
}

#[test]
fn an_init_that_ends_before_execve_never_counts_as_started() {
    isolated(async {
        refused_at_start("dies-before-exec", Code::FAILED_PRECONDITION, "ended before it called execve").await;
    });
}

#[test]
fn an_init_that_dies_parked_cannot_be_started() {
    isolated(async {
        let pod = Pod::new("init-dies-parked").await;
        pod.create("pod").await.unwrap();
        assert_eq!(pod.wait("pod", "").await.unwrap(), 137);
        assert_eq!(code(&pod.start("pod", "").await.unwrap_err()), Code::FAILED_PRECONDITION);
        pod.delete("pod", "").await.unwrap();
        pod.wait_topics(&["create", "exit", "delete"]).await;
        pod.shut_down().await;
    });
}

#[test]
fn an_init_with_fewer_filters_than_judged_is_killed() {
    isolated(refused_at_start("filters 2", Code::INTERNAL, "Seccomp_filters is Some(1), not 2"));
}

#[test]
fn an_init_without_its_label_is_killed() {
    isolated(refused_at_start("label boltseal-default (enforce)", Code::INTERNAL, "does not run as judged"));
}

#[test]
fn an_update_travels_to_the_gate() {
    isolated(async {
        let pod = Pod::new("").await;
        pod.create("pod").await.unwrap();
        let json = r#"{"memory":{"limit":1048576}}"#;
        let resources = Any { type_url: "r".into(), value: json.into(), ..Default::default() };
        let request = UpdateTaskRequest { id: "pod".into(), resources: Some(resources).into(), ..Default::default() };
        pod.client.update(soon(), &request).await.unwrap();
        assert_eq!(pod.place.lines("updates"), [json]);
        pod.delete("pod", "").await.unwrap();
        pod.shut_down().await;
    });
}

#[test]
fn a_delete_that_fails_can_be_tried_again() {
    isolated(async {
        let pod = Pod::new("delete refuse unavailable busy").await;
        pod.create("pod").await.unwrap();
        pod.start("pod", "").await.unwrap();
        pod.kill("pod", "", 9, false).await.unwrap();
        pod.wait("pod", "").await.unwrap();
        assert_eq!(code(&pod.delete("pod", "").await.unwrap_err()), Code::UNAVAILABLE);
        fs::write(pod.place.state().join("pod/gate"), "").unwrap();
        assert_eq!(pod.delete("pod", "").await.unwrap().exit_status, 137);
        assert!(
            eventually(|| pod.place.trail() == ["pod/ running", "pod/ exited 137"]).await,
            "{:?}",
            pod.place.trail()
        );
        pod.shut_down().await;
    });
}
