//! The sealed set: every key of an OCI spec that boltseal understands, judges and carries over (BS-PRC-008).
//!
//! A key that is not in this table is foreign, wherever it stands. So is a key whose case differs: readers that ignore
//! case exist, and they would see another spec than we do. Source: OCI runtime-spec 1.3 `config.md`, `config-linux.md`.
use serde_json::Value;

/// What may stand at one place of the spec.
pub(crate) enum Shape {
    /// A string, number or boolean; oci-spec checks which.
    Leaf,
    /// An object with these keys and no other.
    Object(&'static [(&'static str, Shape)]),
    /// An array of these.
    List(&'static Shape),
    /// An object with any keys and leaves as values.
    Map,
    /// Known, but outside of the sealed set: foreign unless null, empty or false.
    Outside,
    /// A string that must be one of a fixed form.
    Form(fn(&str) -> bool),
}

use Shape::{Form, Leaf, List, Map, Object, Outside};

pub(crate) const SPEC: Shape = Object(&[
    ("ociVersion", Leaf),
    ("root", Object(&[("path", Leaf), ("readonly", Leaf)])),
    ("mounts", List(&MOUNT)),
    ("process", PROCESS),
    ("hostname", Leaf),
    ("domainname", Leaf),
    ("hooks", HOOKS),
    ("annotations", Map),
    ("linux", LINUX),
    ("solaris", Outside),
    ("windows", Outside),
    ("vm", Outside),
    ("zos", Outside),
    ("freebsd", Outside),
]);

const MOUNT: Shape = Object(&[
    // A destination that has to be normalised would be compared as another path than it is mounted on.
    ("destination", Form(is_plain_absolute)),
    ("type", Leaf),
    ("source", Leaf),
    ("options", List(&Leaf)),
    ("uidMappings", ID_MAPPINGS),
    ("gidMappings", ID_MAPPINGS),
]);

pub(crate) const PROCESS: Shape = Object(&[
    ("terminal", Leaf),
    ("consoleSize", Object(&[("height", Leaf), ("width", Leaf)])),
    (
        "user",
        Object(&[
            ("uid", Leaf),
            ("gid", Leaf),
            ("umask", Leaf),
            ("additionalGids", List(&Leaf)),
            ("username", Outside),
        ]),
    ),
    ("args", List(&Leaf)),
    ("commandLine", Outside),
    ("env", List(&Form(is_variable))),
    ("cwd", Form(is_folder)),
    (
        "capabilities",
        Object(&[
            ("bounding", List(&Leaf)),
            ("effective", List(&Leaf)),
            ("inheritable", List(&Leaf)),
            ("permitted", List(&Leaf)),
            ("ambient", List(&Leaf)),
        ]),
    ),
    ("rlimits", List(&Object(&[("type", Leaf), ("hard", Leaf), ("soft", Leaf)]))),
    ("noNewPrivileges", Leaf),
    ("apparmorProfile", Leaf),
    ("oomScoreAdj", Leaf),
    ("selinuxLabel", Leaf),
    ("ioPriority", Outside),
    ("scheduler", Outside),
    ("execCPUAffinity", Outside),
]);

const HOOK: Shape = List(&Object(&[("path", Leaf), ("args", List(&Leaf)), ("env", List(&Leaf)), ("timeout", Leaf)]));

const HOOKS: Shape = Object(&[
    ("prestart", HOOK),
    ("createRuntime", HOOK),
    ("createContainer", HOOK),
    ("startContainer", HOOK),
    ("poststart", HOOK),
    ("poststop", HOOK),
]);

const ID_MAPPINGS: Shape = List(&Object(&[("hostID", Leaf), ("containerID", Leaf), ("size", Leaf)]));

const LINUX: Shape = Object(&[
    ("uidMappings", ID_MAPPINGS),
    ("gidMappings", ID_MAPPINGS),
    ("sysctl", Map),
    ("resources", RESOURCES),
    ("cgroupsPath", Leaf),
    ("namespaces", List(&Object(&[("type", Leaf), ("path", Leaf)]))),
    (
        "devices",
        List(&Object(&[
            ("path", Form(is_plain_absolute)),
            ("type", Leaf),
            ("major", Leaf),
            ("minor", Leaf),
            ("fileMode", Leaf),
            ("uid", Leaf),
            ("gid", Leaf),
        ])),
    ),
    ("seccomp", SECCOMP),
    ("rootfsPropagation", Leaf),
    ("maskedPaths", List(&Leaf)),
    ("readonlyPaths", List(&Leaf)),
    ("mountLabel", Leaf),
    ("netDevices", Outside),
    ("intelRdt", Outside),
    ("memoryPolicy", Outside),
    ("personality", Outside),
    ("timeOffsets", Outside),
]);

pub(crate) const RESOURCES: Shape = Object(&[
    ("devices", List(&Object(&[("allow", Leaf), ("type", Leaf), ("major", Leaf), ("minor", Leaf), ("access", Leaf)]))),
    (
        "memory",
        Object(&[
            ("limit", Leaf),
            ("reservation", Leaf),
            ("swap", Leaf),
            ("swappiness", Leaf),
            ("kernel", Outside),
            ("kernelTCP", Outside),
            // True keeps a container alive at the cost of its node, or is read by nobody.
            ("disableOOMKiller", Outside),
            ("useHierarchy", Outside),
            ("checkBeforeUpdate", Outside),
        ]),
    ),
    (
        "cpu",
        Object(&[
            ("shares", Leaf),
            ("quota", Leaf),
            ("burst", Leaf),
            ("period", Leaf),
            ("cpus", Leaf),
            ("mems", Leaf),
            ("idle", Leaf),
            ("realtimeRuntime", Outside),
            ("realtimePeriod", Outside),
        ]),
    ),
    ("pids", Object(&[("limit", Leaf)])),
    ("hugepageLimits", List(&Object(&[("pageSize", Form(is_page_size)), ("limit", Leaf)]))),
    ("blockIO", BLOCK_IO),
    ("network", Outside),
    ("rdma", Outside),
    // What kubelet sets on every cgroup v2 node: an OOM kill takes the whole container, swap has a limit.
    ("unified", Object(&[("memory.oom.group", Form(is_switch)), ("memory.swap.max", Form(is_amount))])),
]);

/// Limits of disk throughput, by device.
const BLOCK_IO: Shape = Object(&[
    ("weight", Leaf),
    ("leafWeight", Outside),
    ("weightDevice", Outside),
    ("throttleReadBpsDevice", THROTTLE),
    ("throttleWriteBpsDevice", THROTTLE),
    ("throttleReadIOPSDevice", THROTTLE),
    ("throttleWriteIOPSDevice", THROTTLE),
]);

const THROTTLE: Shape = List(&Object(&[("major", Leaf), ("minor", Leaf), ("rate", Leaf)]));

const SECCOMP: Shape = Object(&[
    ("defaultAction", Form(is_no_notify)),
    ("defaultErrnoRet", Leaf),
    ("architectures", List(&Leaf)),
    ("flags", List(&Leaf)),
    ("listenerPath", Outside),
    ("listenerMetadata", Outside),
    (
        "syscalls",
        List(&Object(&[
            ("names", List(&Leaf)),
            ("action", Form(is_no_notify)),
            ("errnoRet", Leaf),
            ("args", List(&Object(&[("index", Leaf), ("value", Leaf), ("valueTwo", Leaf), ("op", Leaf)]))),
        ])),
    ),
]);

/// Absolute, and at no point of its way in /proc, where a folder may be an open descriptor (CVE-2024-21626).
fn is_folder(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('/') else { return false };
    let mut way: Vec<&str> = Vec::new();
    for part in rest.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(way.pop()),
            _ => way.push(part),
        }
        if way.first() == Some(&"proc") {
            return false;
        }
    }
    true
}

/// Absolute, and the same after normalisation but for one slash at the end.
fn is_plain_absolute(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('/') else { return false };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    rest.is_empty() || rest.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// `NAME=value`.
fn is_variable(text: &str) -> bool {
    text.split_once('=').is_some_and(|(name, _)| !name.is_empty())
}

fn is_switch(text: &str) -> bool {
    matches!(text, "0" | "1")
}

/// Bytes; `max`, which would lift a limit, is none.
fn is_amount(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// `2MB`, `1GB`: it becomes part of a file name.
fn is_page_size(text: &str) -> bool {
    let digits = text.strip_suffix("KB").or_else(|| text.strip_suffix("MB")).or_else(|| text.strip_suffix("GB"));
    digits.is_some_and(|d| !d.is_empty() && d.len() <= 8 && d.bytes().all(|b| b.is_ascii_digit()))
}

fn is_no_notify(text: &str) -> bool {
    text != "SCMP_ACT_NOTIFY"
}

/// Most paths that are listed; more are counted.
const MOST: usize = 64;

/// JSON paths of everything in `value` that `shape` does not know.
pub(crate) fn foreign(value: &Value, shape: &Shape, at: &str) -> Vec<String> {
    let mut found = Vec::new();
    walk(value, shape, at, &mut found);
    if found.len() > MOST {
        let more = found.len() - MOST;
        found.truncate(MOST);
        found.push(format!("and {more} more"));
    }
    found
}

fn walk(value: &Value, shape: &Shape, at: &str, found: &mut Vec<String>) {
    // Go writes null for a nil slice or pointer: every reader takes it as absent.
    let fits = match (shape, value) {
        (_, Value::Null) => true,
        (Outside, value) => is_empty(value),
        (Form(is), Value::String(text)) => is(text),
        (Leaf, value) => !value.is_object() && !value.is_array(),
        (Map, Value::Object(members)) => members.values().all(|v| !v.is_object() && !v.is_array()),
        (List(of), Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                walk(item, of, &format!("{at}[{index}]"), found);
            }
            true
        }
        (Object(known), Value::Object(members)) => {
            for (key, member) in members {
                let path = join(at, key);
                match known.iter().find(|(name, _)| name == key) {
                    Some((_, shape)) => walk(member, shape, &path, found),
                    None => found.push(path),
                }
            }
            true
        }
        (List(_) | Object(_) | Map | Form(_), _) => false,
    };
    if !fits {
        found.push(at.to_owned());
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) | Value::Number(_) => false,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

/// A key is text from outside: shortened, and quoted unless it is a plain name.
fn join(at: &str, key: &str) -> String {
    let plain = !key.is_empty() && key.len() <= 64 && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let short: String = key.chars().take(64).collect();
    match (at.is_empty(), plain) {
        (true, true) => short,
        (true, false) => format!("{short:?}"),
        (false, true) => format!("{at}.{short}"),
        (false, false) => format!("{at}.{short:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(value: &Value) -> Vec<String> {
        foreign(value, &SPEC, "")
    }

    #[test]
    fn known_keys_pass_and_any_other_is_named() {
        assert!(
            of(&json!({"ociVersion":"1.0.2","annotations":{"any.thing/x":"y"},"linux":{"sysctl":{"a.b":"1"}}}))
                .is_empty()
        );
        assert_eq!(of(&json!({"Linux":{}})), ["Linux"]);
        assert_eq!(
            of(&json!({"linux":{"seccomp":{"syscalls":[{}, {"comment":"x"}]}}})),
            ["linux.seccomp.syscalls[1].comment"]
        );
        assert_eq!(of(&json!({"process":{"a b":1}})), ["process.\"a b\""]);
        assert_eq!(of(&json!({"annotations":{"a":{}}})), ["annotations"]);
    }

    #[test]
    fn outside_of_the_sealed_set_unless_empty() {
        for (field, value) in [
            ("linux.intelRdt", json!({"linux":{"intelRdt":{"closID":"a"}}})),
            ("linux.netDevices", json!({"linux":{"netDevices":{"eth0":{}}}})),
            ("linux.resources.rdma", json!({"linux":{"resources":{"rdma":{"m":{}}}}})),
            ("linux.resources.unified.\"memory.high\"", json!({"linux":{"resources":{"unified":{"memory.high":"1"}}}})),
            (
                "linux.resources.unified.\"memory.oom.group\"",
                json!({"linux":{"resources":{"unified":{"memory.oom.group":"2"}}}}),
            ),
            (
                "linux.resources.unified.\"memory.swap.max\"",
                json!({"linux":{"resources":{"unified":{"memory.swap.max":"max"}}}}),
            ),
            (
                "linux.resources.unified.\"memory.swap.max\"",
                json!({"linux":{"resources":{"unified":{"memory.swap.max":""}}}}),
            ),
            (
                "linux.resources.unified.\"memory.swap.max\"",
                json!({"linux":{"resources":{"unified":{"memory.swap.max":0}}}}),
            ),
            (
                "linux.resources.blockIO.weightDevice",
                json!({"linux":{"resources":{"blockIO":{"weightDevice":[{"major":8}]}}}}),
            ),
            ("linux.memoryPolicy", json!({"linux":{"memoryPolicy":{"mode":"MPOL_BIND"}}})),
            ("linux.timeOffsets", json!({"linux":{"timeOffsets":{"monotonic":{"secs":1}}}})),
            ("linux.personality", json!({"linux":{"personality":{"domain":"LINUX32"}}})),
            ("linux.seccomp.listenerPath", json!({"linux":{"seccomp":{"listenerPath":"/s"}}})),
            ("linux.seccomp.defaultAction", json!({"linux":{"seccomp":{"defaultAction":"SCMP_ACT_NOTIFY"}}})),
            ("linux.resources.cpu.realtimePeriod", json!({"linux":{"resources":{"cpu":{"realtimePeriod":1}}}})),
            (
                "linux.resources.memory.disableOOMKiller",
                json!({"linux":{"resources":{"memory":{"disableOOMKiller":true}}}}),
            ),
            (
                "linux.resources.hugepageLimits[0].pageSize",
                json!({"linux":{"resources":{"hugepageLimits":[{"pageSize":"../x","limit":1}]}}}),
            ),
            ("mounts[0].uidMappings[0].x", json!({"mounts":[{"uidMappings":[{"hostID":1,"x":1}]}]})),
            ("mounts[0].destination", json!({"mounts":[{"destination":"/proc/../proc"}]})),
            ("process.scheduler", json!({"process":{"scheduler":{"policy":"SCHED_FIFO"}}})),
            ("process.ioPriority", json!({"process":{"ioPriority":{"class":"IOPRIO_CLASS_RT"}}})),
            ("process.execCPUAffinity", json!({"process":{"execCPUAffinity":{"initial":"0"}}})),
            ("process.cwd", json!({"process":{"cwd":"tmp"}})),
            ("process.cwd", json!({"process":{"cwd":"/proc/self/fd/7"}})),
            ("process.cwd", json!({"process":{"cwd":"//a/../proc/self/fd/7/../../../../etc"}})),
            ("process.env[0]", json!({"process":{"env":["LD_PRELOAD"]}})),
            ("vm", json!({"vm":{"kernel":{"path":"/k"}}})),
            ("windows", json!({"windows":{"layerFolders":["x"]}})),
        ] {
            assert_eq!(of(&value), [field], "{value}");
        }
        assert!(
            of(
                &json!({"linux":{"resources":{"unified":{},"rdma":null,"memory":{"disableOOMKiller":false}}},"vm":null})
            )
            .is_empty()
        );
    }

    #[test]
    fn folders_to_start_in() {
        for plain in ["/", "/a/", "/a/../b", "/a/proc", "/procs", "//srv/./x"] {
            assert!(of(&json!({"process":{"cwd":plain}})).is_empty(), "{plain}");
        }
    }

    #[test]
    fn a_flood_is_counted() {
        let many: serde_json::Map<String, Value> = (0..100).map(|n| (format!("k{n}"), Value::Null)).collect();
        let found = of(&Value::Object(many));
        assert_eq!((found.len(), found.last().unwrap().as_str()), (65, "and 36 more"));
    }
}
