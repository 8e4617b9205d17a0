//! What is wrong in the OCI spec, beside mounts.
use super::Case;
use super::image::bend_policy;
use crate::client::{Code, Request};
use crate::node::World;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs;

/// A fault of the spec alone.
macro_rules! spec {
    ($name:literal, $rule:literal, $says:literal, |$spec:ident| $bend:expr) => {
        Case::new($name, $rule, $says, |_, request| {
            let $spec = &mut request.spec;
            $bend;
            Ok(())
        })
    };
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        spec!("a capability beyond the default set", "BS-PRC-002", "CAP_SYS_ADMIN", |spec| {
            for set in ["bounding", "effective", "permitted"] {
                push(&mut spec["process"]["capabilities"][set], json!("CAP_SYS_ADMIN"));
            }
        }),
        spec!("an ambient capability beyond the default set", "BS-PRC-002", "CAP_NET_ADMIN", |spec| {
            for set in ["bounding", "permitted", "inheritable", "ambient"] {
                push(&mut spec["process"]["capabilities"][set], json!("CAP_NET_ADMIN"));
            }
        }),
        spec!("privileged: every capability, every device, nothing masked", "BS-PRC-002", "CAP_", |spec| {
            let every: Vec<String> = EVERY_CAPABILITY.iter().map(|name| format!("CAP_{name}")).collect();
            for set in ["bounding", "effective", "permitted", "inheritable"] {
                spec["process"]["capabilities"][set] = json!(every);
            }
            spec["process"]["noNewPrivileges"] = json!(false);
            spec["linux"]["resources"]["devices"] = json!([{ "allow": true, "access": "rwm" }]);
            spec["linux"]["maskedPaths"] = Value::Null;
            spec["linux"]["readonlyPaths"] = Value::Null;
            spec["root"]["readonly"] = json!(false);
        }),
        spec!("root of the node", "BS-PRC-003", "0", |spec| {
            spec["process"]["user"] = json!({ "uid": 0, "gid": 0 });
        }),
        spec!("host network namespace", "BS-PRC-004", "network", |spec| remove_namespace(spec, "network")),
        spec!("host process namespace", "BS-PRC-004", "pid", |spec| remove_namespace(spec, "pid")),
        spec!("host namespace by its path", "BS-PRC-004", "ipc", |spec| {
            set_namespace(spec, "ipc", "/proc/1/ns/ipc");
        }),
        Case::new("namespace of a process outside the pod", "BS-PRC-004", "network", |world, request| {
            foreign_namespace(world, request)
        }),
        spec!("hook", "BS-PRC-005", "hook", |spec| {
            spec["hooks"] = json!({ "prestart": [{ "path": "/usr/bin/busybox", "args": ["busybox", "true"] }] });
        }),
        Case::new("log program", "BS-PRC-005", "binary", |_, request| {
            request.stdout = "binary:///bin/busybox?sh=-c".into();
            request.stderr = request.stdout.clone();
            Ok(())
        }),
        spec!("sysctl of the node", "BS-PRC-007", "kernel.core_pattern", |spec| {
            spec["linux"]["sysctl"] = json!({ "kernel.core_pattern": "|/bin/evil" });
        }),
        spec!("a field outside the sealed set: rdma", "BS-PRC-008", "rdma", |spec| {
            spec["linux"]["resources"]["rdma"] = json!({ "mlx5_1": { "hcaHandles": 3 } });
        }),
        spec!("a filter that hands calls to a listener", "BS-PRC-001", "listener", |spec| {
            spec["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ERRNO", "listenerPath": "/run/evil.sock",
                "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [] });
        }),
        spec!("a field that no version of the specification knows", "BS-PRC-008", "frobnicate", |spec| {
            spec["linux"]["frobnicate"] = json!(true);
        }),
        spec!("a mount option with another one behind a comma", "BS-PRC-008", "nr_inodes", |spec| {
            push(
                &mut spec["mounts"],
                json!({ "destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["size=0,nr_inodes=1"] }),
            );
        }),
        spec!("real-time limits", "BS-PRC-008", "realtime", |spec| {
            spec["linux"]["resources"]["cpu"]["realtimeRuntime"] = json!(950_000);
        }),
        Case::new("annotation of ten megabytes", "", "", |_, request| {
            request.spec["annotations"]["big"] = json!("x".repeat(10 << 20));
            Ok(())
        })
        .code(Code::InvalidArgument),
        spec!("unconfined", "BS-MAC-001", "unconfined", |spec| {
            spec["process"]["apparmorProfile"] = json!("unconfined");
        }),
        spec!("AppArmor profile that is not on the list", "BS-MAC-001", "made-up", |spec| {
            spec["process"]["apparmorProfile"] = json!("made-up");
        }),
        spec!("SELinux type that is not on the list", "BS-MAC-001", "spc_t", |spec| {
            spec["process"]["selinuxLabel"] = json!("system_u:system_r:spc_t:s0");
        }),
        spec!("SELinux label with the categories of every pod", "BS-MAC-001", "categories", |spec| {
            spec["process"]["selinuxLabel"] = json!("system_u:system_r:boltseal_t:s0-s0:c0.c1023");
        }),
        spec!("device of the node", "BS-DEV-001", "/dev/vda", |spec| {
            spec["linux"]["devices"] = json!([{ "path": "/dev/vda", "type": "b", "major": 254, "minor": 0 }]);
            push(
                &mut spec["linux"]["resources"]["devices"],
                json!({ "allow": true, "type": "b", "major": 254, "minor": 0, "access": "rwm" }),
            );
        }),
        Case::new(
            "an allowed device's name with another one's numbers",
            "BS-DEV-001",
            "stands in",
            |world, request| {
                bend_policy(world, "devices.allow", vec!["/dev/fuse".to_owned()])?;
                device(request, "b", 254, 0)
            },
        )
        .mend(|world, request| {
            bend_policy(world, "devices.allow", vec!["/dev/fuse".to_owned()])?;
            device(request, "c", 10, 229)
        }),
        spec!("every device", "BS-DEV-001", "", |spec| {
            push(&mut spec["linux"]["resources"]["devices"], json!({ "allow": true, "access": "rwm" }));
        }),
        spec!("no owner", "BS-OWN-001", "owner", |spec| {
            spec["annotations"] = json!({});
        }),
        spec!("owner that no pattern covers", "BS-OWN-001", "mallory", |spec| {
            spec["annotations"] = json!({ "boltseal.dev/owner": "mallory@evil.example" });
        }),
    ]
}

const EVERY_CAPABILITY: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// /dev/fuse, with these numbers.
fn device(request: &mut Request, kind: &str, major: i64, minor: i64) -> Result<()> {
    request.spec["linux"]["devices"] = json!([{ "path": "/dev/fuse", "type": kind, "major": major, "minor": minor }]);
    push(
        &mut request.spec["linux"]["resources"]["devices"],
        json!({ "allow": true, "type": kind, "major": major, "minor": minor, "access": "rwm" }),
    );
    Ok(())
}

fn push(list: &mut Value, item: Value) {
    match list.as_array_mut() {
        Some(list) => list.push(item),
        None => *list = json!([item]),
    }
}

fn remove_namespace(spec: &mut Value, kind: &str) {
    if let Some(list) = spec["linux"]["namespaces"].as_array_mut() {
        list.retain(|namespace| namespace["type"] != kind);
    }
}

fn set_namespace(spec: &mut Value, kind: &str, path: &str) {
    remove_namespace(spec, kind);
    push(&mut spec["linux"]["namespaces"], json!({ "type": kind, "path": path }));
}

/// The network namespace of another container that boltseal runs.
fn foreign_namespace(world: &mut World, request: &mut Request) -> Result<()> {
    let other = world.request("app", &["/bin/sleep", "600"])?;
    let pid = world.run(&other).context("the other container")?;
    set_namespace(&mut request.spec, "network", &format!("/proc/{pid}/ns/net"));
    fs::write(world.node.work.join("foreign"), &other.id)?;
    world.undo_later(|world| {
        let id = fs::read_to_string(world.node.work.join("foreign"))?;
        let mut other = world.request("app", &[])?;
        other.id.clone_from(&id);
        other.key = id;
        world.client.remove(&other).context("the other container")
    });
    Ok(())
}
