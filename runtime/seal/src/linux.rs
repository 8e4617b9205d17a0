//! The Linux part: namespaces, cgroup and limits, devices, paths that are hidden or read-only, sysctls.
use crate::{ApprovedNamespace, Input};
use boltseal_policy::facts::{Fact, Namespace, NamespaceOrigin, UserNamespace};
use boltseal_policy::{pattern, standard};
use oci_spec::runtime::{Linux, LinuxBlockIo, LinuxResources, LinuxThrottleDevice};
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub(crate) struct Built {
    pub(crate) json: Value,
    pub(crate) masked: Vec<String>,
    pub(crate) readonly: Vec<String>,
    pub(crate) namespaces: Vec<ApprovedNamespace>,
    pub(crate) cgroup_path: String,
    pub(crate) user_ids: Option<(u32, u32)>,
}

/// Nodes that every container gets, with the mode that they have on a host: libcontainer's own default for them, 066, shuts
/// root without CAP_DAC_OVERRIDE out.
const NODES: [(&str, i64, i64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

pub(crate) fn build(input: &Input<'_>, slave: bool) -> Result<Built, String> {
    let linux = input.spec.linux().as_ref().ok_or("the spec has no linux part")?;
    let (masked, readonly) = (
        paths(&standard::MASKED, &input.facts.root.masked),
        paths(&standard::READONLY, &input.facts.root.readonly_paths),
    );
    let (listed, namespaces) = namespaces(input)?;
    let cgroup_path = cgroup_path(linux, &input.facts.subject.id)?;
    let user_ids = user_ids(input.facts.user_namespace.as_ref(), &namespaces)?;
    let json = json!({
        "namespaces": listed,
        "uidMappings": user_ids.map(mappings),
        "gidMappings": user_ids.map(mappings),
        "sysctl": input.terms.sysctls,
        "cgroupsPath": cgroup_path,
        "resources": resources(input, linux),
        "devices": devices(input, linux)?,
        // libcontainer knows no `rprivate`; it applies either recursively.
        "rootfsPropagation": if slave { "slave" } else { "private" },
        "maskedPaths": masked,
        "readonlyPaths": readonly,
        "mountLabel": input.terms.selinux.as_ref().map(|process| mount_label(process, linux)),
    });
    Ok(Built { json, masked, readonly, namespaces, cgroup_path, user_ids })
}

/// SELinux: the label of the files that are mounted for the container. The spec's own where it is of the process's own
/// categories; else, and where a label was injected, the file type that goes with the domain (`x_t` and `x_file_t`).
fn mount_label(process: &str, linux: &Linux) -> String {
    let parts = |label: &str| {
        let mut parts = label.splitn(4, ':').map(str::to_owned);
        Some((parts.next()?, parts.next()?, parts.next()?, parts.next()?))
    };
    let plain = |label: &str| label.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:.,-".contains(&b));
    let level = parts(process).map(|(.., level)| level).unwrap_or_default();
    let given = linux.mount_label().as_deref().filter(|label| plain(label)).and_then(parts);
    match given.filter(|(_, role, kind, of)| role == "object_r" && kind.ends_with("_file_t") && *of == level) {
        Some((user, role, kind, level)) => format!("{user}:{role}:{kind}:{level}"),
        None => {
            let kind = parts(process).map(|(_, _, kind, _)| kind).unwrap_or_default();
            format!("system_u:object_r:{}_file_t:{level}", kind.strip_suffix("_t").unwrap_or(&kind))
        }
    }
}

/// The standard ones and what the spec adds to them.
fn paths(standard: &[&str], more: &[String]) -> Vec<String> {
    let more = more.iter().filter_map(|p| pattern::normal(p)).filter(|p| p != "/");
    let all: BTreeSet<String> = standard.iter().map(ToString::to_string).chain(more).collect();
    all.into_iter().collect()
}

/// What is not listed is the host's, which only a grant lets come this far; a cgroup namespace is always a new one.
fn namespaces(input: &Input<'_>) -> Result<(Vec<Value>, Vec<ApprovedNamespace>), String> {
    let mut all = vec![(json!({ "type": "cgroup" }), ApprovedNamespace { kind: "cgroup".into(), object: None })];
    for n in input.facts.namespaces.listed.iter().filter(|n| n.kind != "cgroup") {
        all.extend(namespace(n)?);
    }
    all.sort_by(|(_, a), (_, b)| a.kind.cmp(&b.kind));
    if all.windows(2).any(|pair| matches!(pair, [(_, a), (_, b)] if a.kind == b.kind)) {
        return Err("a namespace kind is listed twice".into());
    }
    Ok(all.into_iter().unzip())
}

fn namespace(n: &Namespace) -> Result<Option<(Value, ApprovedNamespace)>, String> {
    let approved = |object| ApprovedNamespace { kind: n.kind.clone(), object };
    match (&n.origin, n.object) {
        (Fact::Is(NamespaceOrigin::New), _) => Ok(Some((json!({ "type": n.kind }), approved(None)))),
        (Fact::Is(NamespaceOrigin::Host), _) => Ok(None),
        (Fact::Is(NamespaceOrigin::OwnPod | NamespaceOrigin::Foreign(_)), Some(object)) if n.path.starts_with('/') => {
            Ok(Some((json!({ "type": n.kind, "path": n.path }), approved(Some(object)))))
        }
        _ => Err(format!("which {} namespace {:?} is, is unknown", n.kind, n.path)),
    }
}

fn mappings((host, size): (u32, u32)) -> Value {
    json!([{ "containerID": 0, "hostID": host, "size": size }])
}

/// Maps and the namespace that they are for, or neither: what a rule that only warns let through is not made.
fn user_ids(user: Option<&UserNamespace>, namespaces: &[ApprovedNamespace]) -> Result<Option<(u32, u32)>, String> {
    match (user, namespaces.iter().any(|n| n.kind == "user")) {
        (None, false) => Ok(None),
        (Some(user), true) => {
            user.ids.range().map(Some).ok_or_else(|| {
                "a user namespace is made of one range from 0 on, the same for users and groups".to_owned()
            })
        }
        _ => Err("ids are mapped without a user namespace, or it has no maps".into()),
    }
}

/// Absolute below the cgroup root, or systemd's `slice:prefix:name`.
fn cgroup_path(linux: &Linux, id: &str) -> Result<String, String> {
    let given = linux.cgroups_path().as_ref().map(|p| p.to_string_lossy().into_owned()).filter(|p| !p.is_empty());
    let path = given.unwrap_or_else(|| format!("/boltseal/{id}"));
    let plain = |part: &str| !part.is_empty() && !part.contains(['/', '\0', '\n']) && part != "." && part != "..";
    let parts: Vec<&str> = path.split(':').collect();
    let systemd = matches!(parts.as_slice(), [slice, prefix, name] if plain(slice) && slice.ends_with(".slice") && plain(name) && (prefix.is_empty() || plain(prefix)));
    let absolute = pattern::normal(&path).is_some_and(|p| p == path && p != "/");
    if systemd || absolute {
        Ok(path)
    } else {
        Err(format!("linux.cgroupsPath {path:?} must be an absolute path, or slice:prefix:name"))
    }
}

/// Values that limit; zero, negative and the kernel's maxima limit nothing.
fn limit(asked: Option<i64>, none: i64, fill: Option<u64>) -> Option<u64> {
    fill.or_else(|| asked.filter(|n| (1..none).contains(n)).and_then(|n| u64::try_from(n).ok()))
}

fn resources(input: &Input<'_>, linux: &Linux) -> Value {
    let empty = LinuxResources::default();
    let r = linux.resources().as_ref().unwrap_or(&empty);
    let memory = r.memory().unwrap_or_default();
    let memory_limit = limit(memory.limit(), 1 << 62, input.terms.memory);
    let swap =
        memory.swap().filter(|s| *s > 0 && memory_limit.is_some_and(|m| u64::try_from(*s).is_ok_and(|s| s >= m)));
    let memory = json!({ "limit": memory_limit, "reservation": memory.reservation(), "swap": swap, "swappiness": memory.swappiness() });
    let cpu = r.cpu().as_ref().map(|c| {
        json!({
            "shares": c.shares(), "quota": c.quota(), "burst": c.burst(), "period": c.period(),
            "cpus": c.cpus(), "mems": c.mems(), "idle": c.idle(),
        })
    });
    let huge = r
        .hugepage_limits()
        .as_ref()
        .map(|h| h.iter().map(|h| json!({ "pageSize": h.page_size(), "limit": h.limit() })).collect::<Vec<_>>());
    json!({
        "memory": memory.as_object().is_some_and(|m| m.values().any(|v| !v.is_null())).then_some(memory),
        "pids": limit(r.pids().map(|p| p.limit()), 4_194_304, input.terms.pids).map(|n| json!({ "limit": n })),
        "cpu": cpu,
        "hugepageLimits": huge,
        "blockIO": r.block_io().as_ref().map(block_io),
        "unified": unified(r),
        "devices": device_rules(input),
    })
}

/// Throughput of disks can only be limited here; a rate of zero would be no limit to some and a standstill to others.
fn block_io(io: &LinuxBlockIo) -> Value {
    let list = |given: &Option<Vec<LinuxThrottleDevice>>| {
        let one = |d: &LinuxThrottleDevice| json!({ "major": d.major(), "minor": d.minor(), "rate": d.rate() });
        given.as_ref().map(|all| all.iter().filter(|d| d.rate() > 0).map(one).collect::<Vec<_>>())
    };
    json!({
        "weight": io.weight(),
        "throttleReadBpsDevice": list(io.throttle_read_bps_device()),
        "throttleWriteBpsDevice": list(io.throttle_write_bps_device()),
        "throttleReadIOPSDevice": list(io.throttle_read_iops_device()),
        "throttleWriteIOPSDevice": list(io.throttle_write_iops_device()),
    })
}

/// kubelet's two keys on cgroup v2, in the forms that only limit.
fn unified(r: &LinuxResources) -> Option<Value> {
    let asked = r.unified().as_ref()?;
    let amount = |text: &&String| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let group = asked.get("memory.oom.group").filter(|text| matches!(text.as_str(), "0" | "1"));
    let swap = asked.get("memory.swap.max").filter(amount);
    (group.is_some() || swap.is_some()).then(|| json!({ "memory.oom.group": group, "memory.swap.max": swap }))
}

/// Deny all, then the standard devices and what was granted. Where the cgroup does not enforce rules there are none: nodes
/// cannot be made there without CAP_MKNOD, and mounts are nodev (BS-DEV-001).
fn device_rules(input: &Input<'_>) -> Option<Vec<Value>> {
    if !input.facts.devices.enforced {
        return None;
    }
    let mut rules = vec![json!({ "allow": false, "type": "a", "access": "rwm" })];
    for (_, major, minor) in standard::DEVICES {
        rules.push(json!({ "allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm" }));
    }
    for d in input.facts.devices.nodes.iter().filter(|d| input.terms.devices.contains(&d.path)) {
        rules.push(json!({ "allow": true, "type": d.kind, "major": d.major, "minor": d.minor, "access": "rwm" }));
    }
    Some(rules)
}

fn devices(input: &Input<'_>, linux: &Linux) -> Result<Vec<Value>, String> {
    let mut out: Vec<Value> = NODES
        .iter()
        .map(|(path, major, minor)| json!({ "path": path, "type": "c", "major": major, "minor": minor, "fileMode": 0o666, "uid": 0, "gid": 0 }))
        .collect();
    let asked = linux.devices().as_deref().unwrap_or_default();
    for (d, node) in asked.iter().zip(&input.facts.devices.nodes).filter(|(_, n)| input.terms.devices.contains(&n.path))
    {
        if d.path().as_os_str() != node.path.as_str()
            || (d.major(), d.minor()) != (node.major, node.minor)
            || d.typ().as_str() != node.kind.to_string()
        {
            return Err("the spec's devices are not those that were judged".into());
        }
        out.push(json!({
            "path": node.path, "type": node.kind, "major": node.major, "minor": node.minor,
            "fileMode": d.file_mode().unwrap_or(0o660) & 0o777, "uid": d.uid(), "gid": d.gid(),
        }));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::properties::{permissive, sealed};
    use boltseal_policy::facts::{Device, Facts};
    use boltseal_policy::{Terms, fixture};

    fn with(change: impl Fn(&mut Facts)) -> crate::Sealed {
        let mut facts = fixture::facts();
        change(&mut facts);
        sealed(&permissive(), &facts).unwrap()
    }

    fn kinds(sealed: &crate::Sealed) -> Vec<(String, Option<(u64, u64)>)> {
        sealed.table.namespaces.iter().map(|n| (n.kind.clone(), n.object)).collect()
    }

    #[test]
    fn a_cgroup_namespace_is_added_and_a_granted_host_one_left_out() {
        let s = with(|f| f.namespaces.listed.retain(|n| n.kind != "cgroup" && n.kind != "network"));
        let got: Vec<String> = kinds(&s).into_iter().map(|(k, _)| k).collect();
        assert_eq!(got, ["cgroup", "ipc", "mount", "pid", "uts"]);
    }

    #[test]
    fn a_pods_namespace_is_joined_by_path_and_checked_by_object() {
        let s = with(|f| {
            f.namespaces.listed[0].origin = Fact::Is(NamespaceOrigin::OwnPod);
            f.namespaces.listed[0].path = "/proc/7/ns/pid".into();
            f.namespaces.listed[0].object = Some((4, 99));
        });
        assert!(kinds(&s).contains(&("pid".into(), Some((4, 99)))));
        assert!(String::from_utf8(s.json).unwrap().contains(r#"{"path":"/proc/7/ns/pid","type":"pid"}"#));
        // Without an object there is nothing to compare with, and a path that is none would mean a new one.
        for (object, path) in
            [(None, ""), (None, "/proc/7/ns/pid"), (Some((4, 99)), ""), (Some((4, 99)), "proc/7/ns/pid")]
        {
            let mut facts = fixture::facts();
            facts.namespaces.listed[0].origin = Fact::Is(NamespaceOrigin::OwnPod);
            facts.namespaces.listed[0].object = object;
            facts.namespaces.listed[0].path = path.into();
            assert!(sealed(&permissive(), &facts).is_err(), "{object:?} {path}");
        }
    }

    /// One that is granted is left out, by its path too: nothing is joined for it.
    #[test]
    fn the_hosts_namespace_is_named_nowhere() {
        let s = with(|f| {
            f.namespaces.listed[0].origin = Fact::Is(NamespaceOrigin::Host);
            f.namespaces.listed[0].path = "/proc/1/ns/pid".into();
        });
        assert!(!kinds(&s).iter().any(|(kind, _)| kind == "pid"), "{:?}", kinds(&s));
        assert!(!String::from_utf8(s.json).unwrap().contains("/proc/1/ns"));
    }

    #[test]
    fn swap_is_limited_beside_memory_and_never_alone() {
        let with = |default: Option<u64>, memory: Option<i64>, swap: i64| {
            let facts = Facts {
                limits: boltseal_policy::facts::Limits { memory, pids: Some(9), ..Default::default() },
                ..fixture::facts()
            };
            let spec = serde_json::from_value(json!({ "ociVersion": "1.0.2" })).unwrap();
            let asked: Linux =
                serde_json::from_value(json!({ "resources": { "memory": { "limit": memory, "swap": swap } } }))
                    .unwrap();
            let terms = Terms {
                memory: default,
                pids: None,
                ..crate::properties::permit_for(&permissive(), &facts).terms().clone()
            };
            resources(&Input { spec: &spec, facts: &facts, terms: &terms }, &asked)["memory"]["swap"].clone()
        };
        // An ancestor limits it: the policy sets nothing.
        let swap = |memory, swap| with(None, memory, swap);
        assert_eq!(swap(Some(1000), 1000), json!(1000));
        assert_eq!(swap(Some(1000), 2000), json!(2000));
        for (memory, asked) in [(Some(1000), 999), (Some(1000), 0), (Some(1000), -1), (None, 2000), (Some(-1), 2000)] {
            assert_eq!(swap(memory, asked), Value::Null, "{memory:?} {asked}");
        }
        // Nor would a default of nothing make a swap of nothing a limit.
        assert_eq!(with(Some(0), None, 0), Value::Null);
        assert_eq!(with(Some(1000), Some(10), 1000), json!(1000));
        assert_eq!(with(Some(1000), Some(10), 10), Value::Null);
    }

    #[test]
    fn limits_are_filled_and_never_lifted() {
        assert_eq!(limit(Some(5), 10, None), Some(5));
        for nothing in [None, Some(0), Some(-1), Some(10), Some(i64::MAX)] {
            assert_eq!(limit(nothing, 10, None), None);
            assert_eq!(limit(nothing, 10, Some(7)), Some(7));
        }
        let s = with(|f| {
            f.limits.memory = None;
            f.limits.pids = None;
        });
        let text = String::from_utf8(s.json).unwrap();
        assert!(
            text.contains(r#""memory":{"limit":536870912}"#) && text.contains(r#""pids":{"limit":1024}"#),
            "{text}"
        );
    }

    #[test]
    fn devices_are_denied_first() {
        let text = String::from_utf8(with(|_| {}).json).unwrap();
        assert!(text.contains(r#""devices":[{"access":"rwm","allow":false,"type":"a"},{"access":"rwm","allow":true,"major":1,"minor":3,"type":"c"}"#));
        let text = String::from_utf8(
            with(|f| f.devices.nodes.push(Device { path: "/dev/fuse".into(), kind: 'c', major: 10, minor: 229 })).json,
        )
        .unwrap();
        assert_eq!(text.matches(r#""major":10,"minor":229"#).count(), 2);
        let text = String::from_utf8(with(|f| f.devices.enforced = false).json).unwrap();
        assert!(!text.contains("allow"));
    }

    #[test]
    fn files_get_the_categories_of_their_process() {
        let label = |process: &str, given: Option<&str>| {
            let linux: Linux = serde_json::from_value(json!({ "mountLabel": given })).unwrap();
            mount_label(process, &linux)
        };
        let own = "system_u:object_r:boltseal_file_t:s0:c1,c2";
        assert_eq!(label("system_u:system_r:boltseal_t:s0:c1,c2", None), own);
        let process = "system_u:system_r:container_t:s0:c1,c2";
        let files = "system_u:object_r:container_file_t:s0:c1,c2";
        assert_eq!(label(process, None), files);
        assert_eq!(
            label(process, Some("unconfined_u:object_r:container_ro_file_t:s0:c1,c2")),
            "unconfined_u:object_r:container_ro_file_t:s0:c1,c2"
        );
        for other in [
            "system_u:object_r:container_file_t:s0:c3,c4",
            "system_u:object_r:container_file_t:s0",
            "system_u:object_r:etc_t:s0:c1,c2",
            "system_u:system_r:container_file_t:s0:c1,c2",
            "x\",uid=0,context=\"system_u:object_r:container_file_t:s0:c1,c2",
            "x",
            "",
        ] {
            assert_eq!(label(process, Some(other)), files, "{other}");
        }
    }

    #[test]
    fn only_settings_that_limit_are_carried_over() {
        let resources = |value: Value| -> LinuxResources { serde_json::from_value(value).unwrap() };
        let kept = |value: Value| unified(&resources(json!({ "unified": value })));
        let both = json!({ "memory.oom.group": "1", "memory.swap.max": "0" });
        assert_eq!(kept(both.clone()), Some(both));
        assert_eq!(kept(json!({ "memory.max": "max", "memory.swap.max": "max", "memory.oom.group": "x" })), None);
        assert_eq!(
            kept(json!({ "memory.high": "1", "memory.oom.group": "0" })),
            Some(json!({ "memory.oom.group": "0", "memory.swap.max": null }))
        );
        let limits = json!([{ "major": 8, "minor": 0, "rate": 1024 }, { "major": 8, "minor": 1, "rate": 0 }]);
        let asked = resources(json!({ "blockIO": {
            "weight": 100, "leafWeight": 5, "throttleReadBpsDevice": limits, "throttleWriteIOPSDevice": limits,
        }}));
        let one = json!([{ "major": 8, "minor": 0, "rate": 1024 }]);
        let sealed = block_io(asked.block_io().as_ref().unwrap());
        assert_eq!((&sealed["throttleReadBpsDevice"], &sealed["throttleWriteIOPSDevice"]), (&one, &one));
        assert_eq!((&sealed["weight"], sealed.get("leafWeight")), (&json!(100), None));
    }

    #[test]
    fn user_namespaces_carry_their_maps() {
        let s = with(fixture::in_user_namespace);
        let text = String::from_utf8(s.json).unwrap();
        for map in ["uidMappings", "gidMappings"] {
            assert!(text.contains(&format!(r#""{map}":[{{"containerID":0,"hostID":131072,"size":65536}}]"#)), "{text}");
        }
        assert_eq!(s.table.user_ids, Some((131_072, 65_536)));
        assert!(s.table.namespaces.contains(&ApprovedNamespace { kind: "user".into(), object: None }));
        assert_eq!(with(|_| {}).table.user_ids, None);
    }

    #[test]
    fn a_user_namespace_and_its_maps_are_sealed_together() {
        let fails = |change: fn(&mut Facts)| {
            let mut facts = fixture::facts();
            fixture::in_user_namespace(&mut facts);
            change(&mut facts);
            sealed(&permissive(), &facts).unwrap_err()
        };
        assert!(fails(|f| f.namespaces.listed.retain(|n| n.kind != "user")).contains("without a user namespace"));
        assert!(fails(|f| f.user_namespace = None).contains("no maps"));
        assert!(fails(|f| f.user_namespace.as_mut().unwrap().ids.gids = vec![(0, 1, 1)]).contains("one range"));
    }

    #[test]
    fn cgroup_paths() {
        let path = |p: &str| {
            let linux: Linux = serde_json::from_value(json!({ "cgroupsPath": p })).unwrap();
            cgroup_path(&linux, "c1")
        };
        assert_eq!(path("").unwrap(), "/boltseal/c1");
        assert_eq!(path("/kubepods/pod1/c1").unwrap(), "/kubepods/pod1/c1");
        for good in ["kubepods-a.slice:cri-containerd:c1", "x.slice::c1"] {
            assert_eq!(path(good).unwrap(), good);
        }
        for bad in [
            "/",
            "a/b",
            "/a/../b",
            "/a//b",
            "x:y",
            "../x.slice:a:b",
            "x.slice:a:..",
            "x.slice:a:.",
            "x.slice:a:",
            "x.slice:..:c1",
            "x:a:c1",
            "x.slice:a:b:c",
        ] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }
}
