//! Facts that the spec alone holds. Pure: what a bind source or a namespace path is, others find out (`mounts`,
//! `namespaces`); until then those facts are Unknown.
mod filter;
mod mount;
mod process;

use filter::unusable;
use mount::mount_facts;
use process::process_facts;

use crate::spec::{ParsedProcess, ParsedSpec};
use boltseal_policy::facts::{
    Device, DeviceRule, Devices, Fact, Hook, IdMaps, Label, Limits, Mount, Namespace, NamespaceOrigin, Namespaces,
    Process, Root, Seccomp, UserNamespace,
};
use oci_spec::runtime as oci;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What the spec is judged against.
#[derive(Debug, Clone)]
pub struct SpecContext<'a> {
    pub bundle: &'a Path,
    /// See `host::oom_score_floor`.
    pub oom_score_floor: Option<i32>,
    /// See `host::seccomp_available`.
    pub seccomp_available: bool,
    /// See `host::devices_enforced`.
    pub devices_enforced: bool,
}

/// The part of `Facts` that comes from the spec.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecFacts {
    pub process: Process,
    /// Digests are Unknown and there are no copies; see `hooks::read`.
    pub hooks: Vec<Hook>,
    /// Ancestors are not in it; see `host::ancestor_limits`.
    pub limits: Limits,
    pub sysctls: BTreeMap<String, String>,
    /// Objects are Unknown for binds and Absent for the rest; see `mounts::resolve`.
    pub mounts: Vec<Mount>,
    pub root: Root,
    pub devices: Devices,
    pub seccomp: Seccomp,
    /// What the spec names; the LSM part is `host::lsm`'s.
    pub label: Label,
    /// Origins are Unknown where a path is named; see `namespaces::resolve`.
    pub namespaces: Namespaces,
    /// Only its maps; see `namespaces::overlaps` and `namespaces::joined`.
    pub user_namespace: Option<UserNamespace>,
    /// Those of the parse, and those that need the context.
    pub foreign_fields: Vec<String>,
}

#[must_use]
pub fn facts_of_spec(parsed: &ParsedSpec, context: &SpecContext<'_>) -> SpecFacts {
    let spec = &parsed.spec;
    let mut facts = SpecFacts { foreign_fields: parsed.foreign_fields.clone(), ..SpecFacts::default() };
    facts.seccomp.available = context.seccomp_available;
    facts.devices.enforced = context.devices_enforced;
    if let Some(process) = spec.process() {
        facts.process = process_facts(process, context.oom_score_floor, "process.", &mut facts.foreign_fields);
        facts.label.apparmor = named(process.apparmor_profile().as_ref());
        facts.label.selinux = named(process.selinux_label().as_ref());
    }
    if let Some(hooks) = spec.hooks() {
        facts.hooks = hook_facts(hooks);
    }
    facts.mounts = list(spec.mounts()).iter().enumerate().map(|(index, m)| mount_facts(index, m)).collect();
    if let Some(root) = spec.root() {
        facts.root.readonly = root.readonly().unwrap_or(false);
        // Whatever it says, our own mount is what runs; another path would be one that nobody judged.
        if root.path() != Path::new("rootfs") && *root.path() != context.bundle.join("rootfs") {
            facts.foreign_fields.push("root.path".into());
        }
    }
    if let Some(linux) = spec.linux() {
        linux_facts(linux, &mut facts);
    }
    facts
}

/// Facts of an exec's Process, and the JSON paths that only show here.
#[must_use]
pub fn facts_of_process(parsed: &ParsedProcess, oom_score_floor: Option<i32>) -> (Process, Label, Vec<String>) {
    let mut foreign = parsed.foreign_fields.clone();
    let label = Label {
        apparmor: named(parsed.process.apparmor_profile().as_ref()),
        selinux: named(parsed.process.selinux_label().as_ref()),
        ..Label::default()
    };
    (process_facts(&parsed.process, oom_score_floor, "", &mut foreign), label, foreign)
}

fn hook_facts(hooks: &oci::Hooks) -> Vec<Hook> {
    #[allow(deprecated, reason = "a deprecated stage runs all the same")]
    let stages = [
        ("prestart", hooks.prestart()),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("startContainer", hooks.start_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ];
    let all = stages.into_iter().flat_map(|(stage, hooks)| list(hooks).iter().map(move |hook| (stage, hook)));
    all.map(|(stage, hook)| Hook {
        stage: stage.into(),
        path: hook.path().to_string_lossy().into_owned(),
        args: list(hook.args()).to_vec(),
        env: list(hook.env()).to_vec(),
        digest: Fact::Unknown("not read".into()),
        copy: String::new(),
    })
    .collect()
}

fn linux_facts(linux: &oci::Linux, facts: &mut SpecFacts) {
    facts.root.masked = list(linux.masked_paths()).to_vec();
    facts.root.readonly_paths = list(linux.readonly_paths()).to_vec();
    facts.root.propagation = named(linux.rootfs_propagation().as_ref());
    facts.sysctls = linux.sysctl().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    facts.devices.nodes = list(linux.devices())
        .iter()
        .map(|d| Device {
            path: d.path().to_string_lossy().into_owned(),
            kind: kind(d.typ()),
            major: d.major(),
            minor: d.minor(),
        })
        .collect();
    if let Some(resources) = linux.resources() {
        facts.limits = limits_of(resources);
        facts.devices.allowed = device_rules(resources);
    }
    if let Some(seccomp) = linux.seccomp() {
        facts.seccomp.present = true;
        facts.seccomp.unusable = unusable(seccomp);
    }
    let mut kinds = BTreeSet::new();
    for (index, namespace) in list(linux.namespaces()).iter().enumerate() {
        let fact = namespace_facts(namespace);
        if !kinds.insert(fact.kind.clone()) {
            facts.foreign_fields.push(format!("linux.namespaces[{index}] ({} twice)", fact.kind));
        }
        facts.namespaces.listed.push(fact);
    }
    let ids = maps(linux.uid_mappings(), linux.gid_mappings());
    if kinds.contains("user") || !ids.is_empty() {
        facts.user_namespace = Some(UserNamespace { ids, ..UserNamespace::default() });
    }
}

fn maps(uids: &Option<Vec<oci::LinuxIdMapping>>, gids: &Option<Vec<oci::LinuxIdMapping>>) -> IdMaps {
    let of = |maps: &Option<Vec<oci::LinuxIdMapping>>| {
        list(maps).iter().map(|m| (m.container_id(), m.host_id(), m.size())).collect()
    };
    IdMaps { uids: of(uids), gids: of(gids) }
}

fn namespace_facts(namespace: &oci::LinuxNamespace) -> Namespace {
    let kind = match namespace.typ() {
        oci::LinuxNamespaceType::Mount => "mount",
        oci::LinuxNamespaceType::Cgroup => "cgroup",
        oci::LinuxNamespaceType::Uts => "uts",
        oci::LinuxNamespaceType::Ipc => "ipc",
        oci::LinuxNamespaceType::User => "user",
        oci::LinuxNamespaceType::Pid => "pid",
        oci::LinuxNamespaceType::Network => "network",
        oci::LinuxNamespaceType::Time => "time",
    };
    let path = namespace.path().as_ref().map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
    let origin = if path.is_empty() {
        Fact::Is(NamespaceOrigin::New)
    } else {
        Fact::Unknown("the path was not resolved".into())
    };
    Namespace { kind: kind.into(), origin, path, object: None }
}

/// Limits of a spec's or an update's resources. Zero and less is no limit, as the kernel's drivers read it.
#[must_use]
pub fn limits_of(resources: &oci::LinuxResources) -> Limits {
    Limits {
        memory: resources.memory().as_ref().and_then(oci::LinuxMemory::limit).filter(|&n| n > 0),
        pids: resources.pids().as_ref().map(oci::LinuxPids::limit).filter(|&n| n > 0),
        ..Limits::default()
    }
}

/// Cgroup rules that allow something.
#[must_use]
pub fn device_rules(resources: &oci::LinuxResources) -> Vec<DeviceRule> {
    let allowed = list(resources.devices()).iter().filter(|rule| rule.allow());
    allowed
        .map(|rule| DeviceRule {
            kind: kind(rule.typ().unwrap_or_default()),
            major: rule.major().filter(|&n| n != -1),
            minor: rule.minor().filter(|&n| n != -1),
            // No access named is every access for some readers.
            access: rule.access().clone().filter(|a| !a.is_empty()).unwrap_or_else(|| "rwm".into()),
        })
        .collect()
}

fn kind(kind: oci::LinuxDeviceType) -> char {
    kind.as_str().chars().next().unwrap_or('a')
}

fn list<T>(field: &Option<Vec<T>>) -> &[T] {
    field.as_deref().unwrap_or_default()
}

fn named(text: Option<&String>) -> Option<String> {
    text.filter(|t| !t.is_empty()).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec;

    pub(super) fn facts(spec: &str) -> SpecFacts {
        let text = format!(
            r#"{{"ociVersion":"1.1.0","process":{{"user":{{"uid":5}},"cwd":"/",{}}},"root":{{"path":"rootfs","readonly":true}},{}}}"#,
            spec.split_once('|').unwrap().0,
            spec.split_once('|').unwrap().1
        );
        let parsed = spec::parse(text.as_bytes()).unwrap();
        let context = SpecContext {
            bundle: Path::new("/b"),
            oom_score_floor: Some(0),
            seccomp_available: true,
            devices_enforced: true,
        };
        facts_of_spec(&parsed, &context)
    }

    #[test]
    fn process() {
        let f = facts(
            r#""args":["a"],"env":["A=1","B="],"capabilities":{"bounding":["CAP_KILL","net_bind_service"]},
            "rlimits":[{"type":"RLIMIT_NOFILE","soft":1,"hard":2}],"noNewPrivileges":true|"linux":{}"#,
        );
        assert_eq!((f.process.uid, f.process.cwd.as_str()), (5, "/"));
        assert_eq!(f.process.env, ["A=1", "B="].map(boltseal_policy::facts::Variable::of));
        let caps = f.process.capabilities.unwrap();
        assert_eq!(caps.bounding, ["CAP_KILL", "CAP_NET_BIND_SERVICE"].map(String::from).into());
        assert!(caps.effective.is_empty());
        assert_eq!(f.process.rlimits["RLIMIT_NOFILE"], (1, 2));
        assert!(f.process.no_new_privileges && f.foreign_fields.is_empty());
        assert_eq!(facts(r#""args":[]|"linux":{}"#).process.capabilities, None);
        let twice = facts(r#""env":["A=1","A=2"]|"linux":{}"#);
        assert_eq!(twice.foreign_fields, ["process.env (a name twice)"]);
        assert_eq!((twice.process.search, f.process.search), (None, None));
        let path = facts(r#""env":["XPATH=/a","PATH=/b:/c"]|"linux":{}"#).process.search;
        assert_eq!(path.as_deref(), Some("/b:/c"));
    }

    #[test]
    fn limits_devices_and_namespaces() {
        let f = facts(
            r#""args":[]|"linux":{"resources":{"memory":{"limit":-1},"pids":{"limit":9},
            "devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":-1}]},
            "namespaces":[{"type":"pid"},{"type":"network","path":"/proc/1/ns/net"},{"type":"pid"}],
            "uidMappings":[{"containerID":0,"hostID":100000,"size":65536}],"rootfsPropagation":"rshared"}"#,
        );
        assert_eq!((f.limits.memory, f.limits.pids), (None, Some(9)));
        let rule = DeviceRule { kind: 'c', major: Some(1), minor: None, access: "rwm".into() };
        assert_eq!(f.devices.allowed, [rule]);
        assert_eq!(f.namespaces.listed[0].origin, Fact::Is(NamespaceOrigin::New));
        assert!(matches!(f.namespaces.listed[1].origin, Fact::Unknown(_)));
        assert_eq!(f.foreign_fields, ["linux.namespaces[2] (pid twice)"]);
        assert_eq!(f.user_namespace.unwrap().ids.uids, [(0, 100_000, 65536)]);
        assert_eq!(f.root.propagation.as_deref(), Some("rshared"));
    }

    #[test]
    fn another_root_is_foreign() {
        let text = r#"{"ociVersion":"1.1.0","process":{"user":{},"cwd":"/"},"root":{"path":"/b/rootfs"},"linux":{}}"#;
        let of = |text: &str, bundle: &str| {
            let context = SpecContext {
                bundle: Path::new(bundle),
                oom_score_floor: None,
                seccomp_available: true,
                devices_enforced: true,
            };
            facts_of_spec(&spec::parse(text.as_bytes()).unwrap(), &context).foreign_fields
        };
        assert!(of(text, "/b").is_empty());
        assert_eq!(of(text, "/other"), ["root.path"]);
    }

    #[test]
    fn hooks_of_every_stage() {
        let f = facts(
            r#""args":[]|"linux":{},"hooks":{"prestart":[{"path":"/h","args":["h"]}],"poststop":[{"path":"/p"}]}"#,
        );
        assert_eq!(f.hooks.iter().map(|h| h.stage.as_str()).collect::<Vec<_>>(), ["prestart", "poststop"]);
        assert!(matches!(f.hooks[0].digest, Fact::Unknown(_)));
    }
}
