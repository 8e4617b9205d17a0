//! Which requests must never be allowed, seen from the request: what a reader of the README would say. It need not know
//! all of them; each that it knows must be refused.
use super::fields::{Field, SPEC};
use super::{Grant, at, list, members, text, within, words};
use serde_json::Value;

/// Capabilities that runtimes give to everybody: they may be asked for, and are dropped.
const COMMON: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Fields that nothing carries over: a request that means one is refused.
const NEVER: [&str; 26] = [
    "process.user.username",
    "process.commandLine",
    "process.ioPriority",
    "process.scheduler",
    "process.execCPUAffinity",
    "linux.timeOffsets",
    "linux.netDevices",
    "linux.intelRdt",
    "linux.memoryPolicy",
    "linux.personality",
    "linux.seccomp.listenerPath",
    "linux.seccomp.listenerMetadata",
    "linux.resources.network",
    "linux.resources.rdma",
    "linux.resources.cpu.realtimeRuntime",
    "linux.resources.cpu.realtimePeriod",
    "linux.resources.memory.kernel",
    "linux.resources.memory.kernelTCP",
    "linux.resources.memory.disableOOMKiller",
    "linux.resources.blockIO.leafWeight",
    "linux.resources.blockIO.weightDevice",
    "solaris",
    "windows",
    "vm",
    "zos",
    "freebsd",
];

/// sysctls that Kubernetes calls safe.
const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Why this request must be refused; empty where nothing is known against it.
#[must_use]
pub fn against(asked: &Value, grant: &Grant) -> Vec<String> {
    let mut why = Vec::new();
    unknown_keys(asked, &SPEC, "", &mut why);
    for way in NEVER {
        if at(asked, way).is_some_and(means_something) {
            why.push(format!("{way} is set"));
        }
    }
    process(asked, grant, &mut why);
    namespaces(asked, grant, &mut why);
    mounts(asked, grant, &mut why);
    devices(asked, grant, &mut why);
    others(asked, grant, &mut why);
    why
}

pub(super) fn is_common(name: &str) -> bool {
    COMMON.contains(&name)
}

pub(super) fn is_safe(sysctl: &str) -> bool {
    SAFE.contains(&sysctl)
}

/// `CAP_SYS_ADMIN`, `sys_admin`: one capability.
pub(super) fn capability(name: &str) -> String {
    let upper = name.to_uppercase();
    upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned()
}

fn means_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    }
}

/// A key that the specification does not know, or knows in another spelling.
fn unknown_keys(value: &Value, field: &Field, way: &str, why: &mut Vec<String>) {
    match (field, value) {
        (Field::Object(known), Value::Object(found)) => {
            for (key, member) in found {
                match known.iter().find(|(name, _)| name == key) {
                    Some((_, field)) => unknown_keys(member, field, &format!("{way}.{key}"), why),
                    None => why.push(format!("nobody knows {way}.{key}")),
                }
            }
        }
        (Field::List(of, _), Value::Array(items)) => items.iter().for_each(|item| unknown_keys(item, of, way, why)),
        _ => {}
    }
}

fn process(asked: &Value, grant: &Grant, why: &mut Vec<String>) {
    let uid = at(asked, "process.user.uid").and_then(Value::as_u64);
    let mapped = list(asked, "linux.namespaces").iter().any(|n| text(n, "type") == "user")
        || !list(asked, "linux.uidMappings").is_empty()
        || !list(asked, "linux.gidMappings").is_empty();
    if uid.unwrap_or(0) == 0 && !mapped {
        why.push("root of the node".into());
    }
    if uid.is_some_and(|uid| uid > 0x7fff_ffff) {
        why.push("a uid that readers take for another one".into());
    }
    for set in ["bounding", "effective", "inheritable", "permitted", "ambient"] {
        for name in words(asked, &format!("process.capabilities.{set}")) {
            let name = capability(name);
            if !is_common(&name) && !grant.capabilities.contains(&name.as_str()) {
                why.push(format!("{set} capability {name}"));
            }
        }
    }
    let env = words(asked, "process.env");
    if env.iter().any(|v| v.starts_with("LD_PRELOAD=")) {
        why.push("a variable loads other code".into());
    }
    if env.iter().any(|v| v.find('=').is_none_or(|end| end == 0)) {
        why.push("a variable without a name or a value".into());
    }
    if !text(asked, "process.cwd").starts_with('/') {
        why.push("a working folder that is relative".into());
    }
    let profile = text(asked, "process.apparmorProfile");
    if !["", "cri-containerd.apparmor.d"].contains(&profile) && !grant.apparmor.contains(&profile) {
        why.push(format!("AppArmor profile {profile}"));
    }
    let label = text(asked, "process.selinuxLabel");
    let of_kind = label.split(':').nth(2).is_some_and(|kind| grant.selinux.contains(&kind));
    if !label.is_empty() && (!of_kind || label.contains("s0-s0") || label.contains('.')) {
        why.push(format!("SELinux label {label}"));
    }
}

fn namespaces(asked: &Value, grant: &Grant, why: &mut Vec<String>) {
    let listed = list(asked, "linux.namespaces");
    for kind in ["pid", "ipc", "uts", "mount", "network"] {
        if !listed.iter().any(|n| text(n, "type") == kind) && !grant.host_namespaces.contains(&kind) {
            why.push(format!("the node's {kind} namespace"));
        }
    }
    for (index, n) in listed.iter().enumerate() {
        let (kind, path) = (text(n, "type"), text(n, "path"));
        if !path.is_empty() && !grant.own_namespaces.contains(&(kind, path)) {
            let of_host = path.starts_with("/proc/1/") || path.starts_with("/proc/self/");
            if !(of_host && grant.host_namespaces.contains(&kind)) {
                why.push(format!("the {kind} namespace {path}"));
            }
        }
        if listed.iter().take(index).any(|other| text(other, "type") == kind) {
            why.push(format!("two {kind} namespaces"));
        }
    }
    for map in ["uidMappings", "gidMappings"] {
        let of_root = |m: &Value| at(m, "hostID").and_then(Value::as_u64) == Some(0);
        if list(asked, &format!("linux.{map}")).iter().any(of_root) {
            why.push(format!("{map} hold the node's root"));
        }
    }
}

fn mounts(asked: &Value, grant: &Grant, why: &mut Vec<String>) {
    for m in list(asked, "mounts") {
        let (to, kind, source, options) =
            (text(m, "destination"), text(m, "type"), text(m, "source"), words(m, "options"));
        let bind = kind == "bind" || options.iter().any(|o| ["bind", "rbind"].contains(o));
        let plain = to.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(to);
        if !to.starts_with('/') || to.split('/').any(|part| part == "..") {
            why.push(format!("a mount on {to:?}"));
        }
        // Whoever reads them: the last of these counts, and the one that goes deeper over the other.
        let last = |pair: [&str; 2]| options.iter().rev().find(|o| pair.contains(o)).copied();
        let readonly = last(["rro", "rrw"]).map_or(last(["ro", "rw"]) == Some("ro"), |deep| deep == "rro");
        if bind && !grant.covers(source, !readonly) {
            why.push(format!("{source} of the node at {to}"));
        }
        let own = bind && grant.own.contains(&grant.real(source));
        let usual = [
            ("/proc", "proc"),
            ("/dev", "tmpfs"),
            ("/dev/pts", "devpts"),
            ("/dev/shm", "tmpfs"),
            ("/dev/mqueue", "mqueue"),
            ("/sys", "sysfs"),
            ("/sys/fs/cgroup", "cgroup"),
            ("/sys/fs/cgroup", "cgroup2"),
        ];
        let is_usual = !bind && usual.contains(&(plain, kind));
        if plain == "/" || (["/proc", "/sys", "/dev"].iter().any(|s| within(plain, s)) && !is_usual && !own) {
            why.push(format!("a {kind} mount on {to}"));
        }
        if !bind && kind != "tmpfs" && !is_usual {
            why.push(format!("a mount of type {kind:?} at {to}"));
        }
        if options.iter().any(|o| ["shared", "rshared"].contains(o)) && last_propagation(&options).contains("shared") {
            why.push(format!("the mount at {to} shares with the node"));
        }
        if options
            .iter()
            .any(|o| ["remount", "idmap", "ridmap", "mand"].contains(o) || o.contains(',') || o.starts_with("lowerdir"))
        {
            why.push(format!("options {options:?} at {to}"));
        }
    }
    if ["shared", "rshared"].contains(&text(asked, "linux.rootfsPropagation")) {
        why.push("the root shares its mounts with the node".into());
    }
}

fn last_propagation<'a>(options: &[&'a str]) -> &'a str {
    let all = ["private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable"];
    options.iter().rev().find(|o| all.contains(o)).copied().unwrap_or_default()
}

fn devices(asked: &Value, grant: &Grant, why: &mut Vec<String>) {
    for d in list(asked, "linux.devices") {
        let number = |key: &str| at(d, key).and_then(Value::as_i64).unwrap_or_default();
        let this = (text(d, "path"), text(d, "type"), number("major"), number("minor"));
        let granted = grant.devices.contains(&this) && grant.device_rules;
        if !is_usual_device(this) && !granted {
            why.push(format!("device {this:?}"));
        }
    }
    for rule in list(asked, "linux.resources.devices") {
        let access = text(rule, "access");
        let uses = access.is_empty() || access.contains(['r', 'w']);
        let every = at(rule, "major").and_then(Value::as_i64).is_none_or(|n| n == -1);
        if at(rule, "allow") == Some(&Value::Bool(true)) && uses && every {
            why.push("every device".into());
        }
    }
}

pub(super) fn is_usual_device((path, kind, major, minor): (&str, &str, i64, i64)) -> bool {
    let usual = [
        ("/dev/null", 1, 3),
        ("/dev/zero", 1, 5),
        ("/dev/full", 1, 7),
        ("/dev/random", 1, 8),
        ("/dev/urandom", 1, 9),
        ("/dev/tty", 5, 0),
        ("/dev/console", 5, 1),
        ("/dev/ptmx", 5, 2),
    ];
    // `u` is a character device too.
    ["c", "u"].contains(&kind)
        && (usual.contains(&(path, major, minor)) || (major == 136 && path.starts_with("/dev/pts/")))
}

fn others(asked: &Value, grant: &Grant, why: &mut Vec<String>) {
    for (stage, hooks) in members(asked, "hooks") {
        for hook in hooks.as_array().into_iter().flatten() {
            if !grant.hooks.contains(&(stage, text(hook, "path"))) {
                why.push(format!("{stage} hook {}", text(hook, "path")));
            }
        }
    }
    for (name, value) in members(asked, "linux.sysctl") {
        if !is_safe(name) && !grant.sysctls.contains(&name.as_str()) {
            why.push(format!("sysctl {name}"));
        }
        if value.as_str().is_some_and(|v| v.is_empty() || v.contains(['\n', '\0'])) {
            why.push(format!("sysctl {name} of two lines"));
        }
    }
    if ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE"]
        .contains(&text(asked, "linux.seccomp.defaultAction"))
    {
        why.push("a seccomp filter that lets through what it does not name".into());
    }
    if list(asked, "linux.seccomp.syscalls")
        .iter()
        .any(|s| ["SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE"].contains(&text(s, "action")))
    {
        why.push("a seccomp filter that asks somebody else".into());
    }
    let owner = at(asked, "annotations").and_then(|a| a.get("boltseal.dev/owner")).and_then(Value::as_str);
    if !owner.is_some_and(|owner| owner.ends_with(grant.owners)) {
        why.push("no owner that the policy knows".into());
    }
    let root = text(asked, "root.path");
    if root != "rootfs" && root != grant.rootfs {
        why.push(format!("another root: {root:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Each part of it has something to say; the whole is tried on the code by the target `start_spec`.
    #[test]
    fn it_speaks() {
        let good: Value = serde_json::from_str(include_str!("../../corpus/start_spec/plain.json")).unwrap();
        assert_eq!(against(&good, &Grant::NOTHING), [""; 0]);
        let with = |way: &str, value: Value| {
            let mut bad = good.clone();
            *bad.pointer_mut(way).unwrap() = value;
            against(&bad, &Grant::NOTHING)
        };
        for (way, value) in [
            ("/process/user/uid", json!(0)),
            ("/process/user/uid", json!(1_u64 << 31)),
            ("/process/cwd", json!("x")),
            ("/process/env", json!(["=x"])),
            ("/process/env", json!(["LD_PRELOAD=/x.so"])),
            ("/process/capabilities/bounding", json!(["sys_admin"])),
            ("/root/path", json!("/")),
            ("/annotations", json!({})),
            ("/linux/namespaces", json!([])),
            ("/linux/namespaces/0", json!({ "type": "pid", "path": "/proc/1/ns/pid" })),
            ("/linux/resources/devices", json!([{ "allow": true }])),
            ("/mounts/0/type", json!("sysfs")),
            ("/mounts/0/destination", json!("/")),
            ("/mounts/6/type", json!("bind")),
            ("/mounts/6/options", json!(["rshared"])),
            ("/mounts/6/options", json!(["lowerdir=/etc"])),
        ] {
            assert_ne!(with(way, value), [""; 0], "{way}");
        }
    }
}
