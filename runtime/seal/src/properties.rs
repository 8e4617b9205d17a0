//! What the seal never does, for any request: widen, differ from run to run, or change what is sealed already.
use crate::{Label, Sealed, Table, seal};
use boltseal_policy::facts::{Capabilities, Device, Facts, Hook, Lsm, Origin, Variable};
use boltseal_policy::policy::{Level, Mode};
use boltseal_policy::{Fact, Permit, Policy, Verdict, decide, fixture, rules, standard};
use oci_spec::runtime::{Capability, Spec};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

/// The fixture's policy with every rule but the trail's on `warn`: lets requests through that a rule would deny.
pub(crate) fn permissive() -> Policy {
    let mut p = fixture::policy();
    p.level = Level::Baseline;
    p.modes = rules::all().iter().filter(|r| r.id != "BS-AUD-001").map(|r| (r.id.to_owned(), Mode::Warn)).collect();
    p
}

pub(crate) fn permit_for(policy: &Policy, facts: &Facts) -> Permit {
    match decide(policy, facts) {
        Verdict::Allow(permit) => permit,
        Verdict::Deny(denial) => panic!("{}", denial.message("test")),
    }
}

/// Facts and the spec that they are of, sealed.
pub(crate) fn sealed(policy: &Policy, facts: &Facts) -> Result<Sealed, String> {
    seal(permit_for(policy, facts), spec_of(facts), facts)
}

/// Of which one is handed on.
fn environment() -> Vec<Variable> {
    ["A=1", "LISTEN_FDS=1"].map(Variable::of).to_vec()
}

/// A spec whose facts are these, and which asks beside them for all that the seal must leave out or tighten.
fn spec_of(f: &Facts) -> Spec {
    let p = &f.process;
    let sets = p.capabilities.as_ref().map(|c| json!({
        "bounding": c.bounding, "effective": c.effective, "inheritable": c.inheritable, "permitted": c.permitted, "ambient": c.ambient,
    }));
    let mounts: Vec<Value> = f
        .mounts
        .iter()
        .map(|m| json!({ "destination": m.destination, "type": m.kind, "source": m.source, "options": m.options }))
        .collect();
    let namespaces: Vec<Value> = f
        .namespaces
        .listed
        .iter()
        .map(|n| if n.path.is_empty() { json!({ "type": n.kind }) } else { json!({ "type": n.kind, "path": n.path }) })
        .collect();
    let devices: Vec<Value> = f
        .devices
        .nodes
        .iter()
        .map(|d| json!({ "path": d.path, "type": d.kind, "major": d.major, "minor": d.minor, "fileMode": 0o4777 }))
        .collect();
    let mut value = json!({
        "ociVersion": "1.1.0",
        "root": { "path": "/somewhere/else", "readonly": f.root.readonly },
        "process": {
            "terminal": p.terminal, "user": { "uid": p.uid, "gid": p.gid, "username": "root" }, "args": p.args, "cwd": p.cwd,
            "env": p.env.iter().map(|v| format!("{}=1", v.name)).collect::<Vec<_>>(), "noNewPrivileges": p.no_new_privileges,
            "apparmorProfile": "unconfined", "selinuxLabel": "x", "scheduler": { "policy": "SCHED_FIFO" },
        },
        "hostname": "h",
        "annotations": { "a": "b" },
        "mounts": mounts,
        "hooks": { "prestart": [{ "path": "/not/judged" }] },
        "linux": {
            "namespaces": namespaces, "devices": devices, "cgroupsPath": "/kubepods/c1",
            "resources": {
                "memory": { "limit": f.limits.memory }, "pids": f.limits.pids.map(|n| json!({ "limit": n })),
                "devices": [{ "allow": true, "access": "rwm" }], "unified": { "memory.max": "max" }, "rdma": { "mlx": {} },
            },
            "rootfsPropagation": "rshared", "mountLabel": "x", "intelRdt": { "closID": "x" }, "personality": { "domain": "LINUX32" },
            "netDevices": { "eth0": {} },
        },
    });
    if let Some(sets) = sets {
        value["process"]["capabilities"] = sets;
    }
    if f.seccomp.present {
        value["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_ALLOW" }] });
    }
    serde_json::from_value(value).unwrap()
}

/// The facts of a sealed spec, as far as the seal reads them: what a second sealing is given.
fn facts_of(sealed: &Sealed, before: &Facts) -> Facts {
    let mut f = before.clone();
    let process = sealed.spec.process().as_ref().unwrap();
    let set = |c: &Option<oci_spec::runtime::Capabilities>| {
        c.iter().flatten().map(|c: &Capability| format!("CAP_{c}")).collect::<BTreeSet<_>>()
    };
    let c = process.capabilities().as_ref().unwrap();
    f.process.capabilities = Some(Capabilities {
        bounding: set(c.bounding()),
        effective: set(c.effective()),
        permitted: set(c.permitted()),
        inheritable: set(c.inheritable()),
        ambient: set(c.ambient()),
    });
    f.process.env = process.env().iter().flatten().map(|entry| Variable::of(entry)).collect();
    f.process.no_new_privileges = true;
    f.process.oom_score_adj = process.oom_score_adj();
    let linux = sealed.spec.linux().as_ref().unwrap();
    f.root.readonly = true;
    f.root.masked = linux.masked_paths().clone().unwrap();
    f.root.readonly_paths = linux.readonly_paths().clone().unwrap();
    let resources = linux.resources().as_ref().unwrap();
    f.limits.memory = resources.memory().as_ref().and_then(|m| m.limit());
    f.limits.pids = resources.pids().as_ref().map(|p| p.limit());
    f.devices.nodes = linux
        .devices()
        .iter()
        .flatten()
        .map(|d| Device {
            path: d.path().display().to_string(),
            kind: d.typ().as_str().chars().next().unwrap(),
            major: d.major(),
            minor: d.minor(),
        })
        .collect();
    f.namespaces
        .listed
        .retain(|n| n.kind != "cgroup" && !matches!(n.origin, Fact::Is(boltseal_policy::facts::NamespaceOrigin::Host)));
    let cgroup = boltseal_policy::facts::Namespace {
        kind: "cgroup".into(),
        origin: Fact::Is(boltseal_policy::facts::NamespaceOrigin::New),
        path: String::new(),
        object: None,
    };
    f.namespaces.listed.push(cgroup);
    f.namespaces.listed.sort_by(|a, b| a.kind.cmp(&b.kind));
    f.hooks.iter_mut().for_each(|h| h.env.clear());
    let old = before.mounts.clone();
    f.mounts = sealed
        .spec
        .mounts()
        .iter()
        .flatten()
        .enumerate()
        .map(|(index, m)| {
            let at = m.destination().display().to_string();
            let options = m.options().clone().unwrap_or_default();
            let kind = m.typ().clone().unwrap();
            let was = old.iter().find(|o| {
                o.kind == "bind"
                    && kind == "bind"
                    && boltseal_policy::pattern::normal(&o.destination).as_deref() == Some(&at)
            });
            boltseal_policy::facts::Mount {
                index,
                kind,
                source: m.source().as_ref().unwrap().display().to_string(),
                unknown_options: vec![],
                writable: !options.iter().any(|o| o == "ro"),
                propagation: options.iter().find(|o| o.starts_with("rpriv") || *o == "rslave").cloned(),
                object: was.map_or(Fact::Absent, |o| o.object.clone()),
                options,
                destination: at,
                idmap: was.and_then(|o| o.idmap.clone()),
            }
        })
        .collect();
    f
}

fn requests() -> impl Strategy<Value = Facts> {
    let caps = prop::collection::btree_set(
        prop::sample::select(vec!["CAP_CHOWN", "CAP_KILL", "CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_NET_BIND_SERVICE"]),
        0..5,
    );
    let flags = prop::collection::vec(
        prop::sample::select(vec![
            "rw", "ro", "suid", "dev", "exec", "noexec", "noatime", "rbind", "size=1m", "size=0",
        ]),
        0..5,
    );
    let spots = prop::collection::vec(
        prop::sample::select(vec![
            "/data",
            "/data/x",
            "/tmp",
            "/dev/shm",
            "/dev/termination-log",
            "/var/run//secrets/",
        ]),
        0..4,
    );
    (prop::option::of(caps), flags, spots, any::<[bool; 8]>(), 0u32..3000).prop_map(|(caps, flags, spots, b, uid)| {
        let mut f = fixture::facts();
        f.process.uid = uid;
        f.process.capabilities = caps.map(|c| Capabilities {
            bounding: c.iter().map(ToString::to_string).collect(),
            ambient: c.iter().map(ToString::to_string).collect(),
            ..Default::default()
        });
        f.process.no_new_privileges = b[0];
        f.root.readonly = b[1];
        if b[2] {
            f.root.masked.truncate(3);
            f.root.readonly_paths.clear();
            f.root.masked.push("/proc/own".into());
        }
        if b[3] {
            f.limits.memory = None;
            f.limits.pids = Some(-1);
        }
        f.process.env = environment();
        f.seccomp.present = b[4];
        f.devices.enforced = b[5];
        if b[6] {
            f.namespaces.listed.retain(|n| n.kind != "network");
            f.devices.nodes.push(Device { path: "/dev/fuse".into(), kind: 'c', major: 10, minor: 229 });
            f.hooks.push(Hook {
                stage: "createRuntime".into(),
                path: "/opt/hook".into(),
                args: vec!["hook".into()],
                env: vec!["LD_PRELOAD=/x".into()],
                digest: Fact::Is(fixture::digest('d')),
                copy: "/proc/1/fd/9".into(),
            });
        }
        if b[7] {
            f.mounts.clear();
        }
        let mut taken = BTreeSet::new();
        for (at, bind) in spots.into_iter().filter(|s| taken.insert(*s)).zip([true, false, true, true]) {
            let mut m = if bind { fixture::bind(at) } else { fixture::tmpfs(at, None) };
            m.options = flags.iter().map(ToString::to_string).collect();
            m.writable = flags.iter().rev().find(|o| ["ro", "rw"].contains(o)) != Some(&"ro");
            if let Fact::Is(o) = &mut m.object {
                o.origin = Origin::Kubelet("empty-dir".into());
            }
            f.mounts.retain(|old| old.destination != at);
            f.mounts.push(m);
        }
        f
    })
}

fn asked(f: &Facts) -> BTreeSet<String> {
    f.process
        .capabilities
        .iter()
        .flat_map(|c| [&c.bounding, &c.effective, &c.permitted, &c.inheritable, &c.ambient])
        .flatten()
        .cloned()
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn sealing_is_deterministic(f in requests()) {
        let (a, b) = (sealed(&permissive(), &f).unwrap(), sealed(&permissive(), &f).unwrap());
        prop_assert_eq!(&a.json, &b.json);
        prop_assert_eq!((a.digest, a.table), (b.digest, b.table));
    }

    #[test]
    fn what_is_sealed_stays_as_it_is(f in requests()) {
        let once = sealed(&permissive(), &f).unwrap();
        let again = facts_of(&once, &f);
        let mut spec = once.spec.clone();
        if again.seccomp.present {
            // The filter travels in the table: a second sealing finds it where it finds it at first.
            let mut linux = spec.linux().clone().unwrap();
            linux.set_seccomp(serde_json::from_str(once.table.pod_seccomp.as_ref().unwrap()).unwrap());
            spec.set_linux(Some(linux));
        }
        let twice = seal(permit_for(&permissive(), &again), spec, &again).unwrap();
        prop_assert_eq!(String::from_utf8(once.json).unwrap(), String::from_utf8(twice.json).unwrap());
        prop_assert_eq!(once.table, twice.table);
    }

    #[test]
    fn nothing_is_widened(f in requests()) {
        let s = sealed(&permissive(), &f).unwrap();
        prop_assert!(s.table.capabilities.is_subset(&asked(&f)));
        prop_assert!(f.root.masked.iter().all(|m| s.table.masked.contains(m)));
        prop_assert!(standard::MASKED.iter().all(|m| s.table.masked.iter().any(|x| x == m)));
        prop_assert!(standard::READONLY.iter().all(|m| s.table.readonly.iter().any(|x| x == m)));
        let judged: Vec<_> = f.mounts.iter().filter(|m| m.kind == "bind").map(|m| boltseal_policy::pattern::normal(&m.destination).unwrap()).collect();
        for m in &s.table.mounts {
            let was = f.mounts.iter().find(|o| boltseal_policy::pattern::normal(&o.destination).as_deref() == Some(&m.destination));
            if m.source.is_some() {
                prop_assert!(judged.contains(&m.destination));
                prop_assert!(m.nosuid && m.nodev && (m.noexec || m.readonly));
            }
            if was.is_some_and(|w| !w.writable) {
                prop_assert!(m.readonly || m.source.is_none(), "{m:?}");
            }
        }
        prop_assert!(s.table.mounts[0].destination == "/" && s.table.mounts[0].readonly);
    }

    /// Everything dangerous that `spec_of` puts beside the facts is gone.
    #[test]
    fn what_nobody_judged_does_not_get_through(f in requests()) {
        let s = sealed(&permissive(), &f).unwrap();
        let text = String::from_utf8(s.json.clone()).unwrap();
        for gone in ["/not/judged", "unconfined", "selinuxLabel", "apparmorProfile", "seccomp", "LISTEN_FDS", "LD_PRELOAD", "annotations", "intelRdt", "rdma",
            "unified", "netDevices", "personality", "SCHED_FIFO", "username", "rshared", "mountLabel", "/somewhere/else", "null,", ":null"] {
            prop_assert!(!text.contains(gone), "{gone}: {text}");
        }
        let process = s.spec.process().as_ref().unwrap();
        let caps = process.capabilities().as_ref().unwrap();
        let empty = |set: &Option<oci_spec::runtime::Capabilities>| set.as_ref().is_some_and(|s| s.is_empty());
        prop_assert!(empty(caps.inheritable()) && empty(caps.ambient()) && caps.bounding().is_some() && caps.permitted().is_some() && caps.effective().is_some());
        prop_assert_eq!(process.no_new_privileges(), Some(true));
        prop_assert!(process.env().as_ref().unwrap().iter().any(|v| v == "HOME=/"));
        prop_assert_eq!(s.spec.root().as_ref().unwrap().path(), Path::new("rootfs"));
        prop_assert_eq!(s.spec.root().as_ref().unwrap().readonly(), Some(true));
        for (at, kind) in [("/proc", "proc"), ("/dev", "tmpfs"), ("/sys", "sysfs")] {
            let fresh = s.spec.mounts().iter().flatten().filter(|m| m.destination() == Path::new(at) && m.typ().as_deref() == Some(kind)).count();
            prop_assert_eq!(fresh, 1, "{}", at);
        }
        prop_assert_eq!(s.spec.mounts().as_ref().unwrap().len() + 1, s.table.mounts.len());
    }
}

/// What of the network is open comes from the permit alone, each lock as far as the node has it.
#[test]
fn the_network_is_what_the_permit_opens() {
    use boltseal_policy::network::{Open, Ports, Watch};
    use boltseal_policy::policy::Watched;
    let mut policy = permissive();
    policy.scopes[0].bind = Some(vec![Ports::try_from("8080".to_owned()).unwrap()]);
    let with = |policy: &Policy, change: &dyn Fn(&mut Facts)| {
        let mut facts = fixture::facts();
        facts.ports = Fact::Is("bind=8080, bind=9090, connect=10.0.0.0/8:443".into());
        change(&mut facts);
        sealed(policy, &facts).unwrap().table
    };
    let table = with(&policy, &|_| {});
    // Port 9090 is declared and not granted: the rule only warns here, and it is not open all the same.
    let open = Open::declared("bind=8080, connect=10.0.0.0/8:443").unwrap();
    assert_eq!(table.network, open);
    assert_eq!((table.landlock.bind, table.landlock.connect), (Some(vec![8080]), Some(vec![443])));
    let told = Watch { told: true, flows: false, scan: 20 };
    assert_eq!(table.watch, told);
    assert_eq!(with(&policy, &|f| f.network_hooks = Fact::Absent).watch, Watch::default());
    let mut alone = policy.clone();
    alone.landlock.ports = false;
    // Left to the programs where there are any.
    let table = with(&alone, &|_| {});
    assert_eq!((table.network, table.landlock.bind, table.landlock.connect), (open.clone(), None, None));
    let table = with(&alone, &|f| f.network_hooks = Fact::Absent);
    assert_eq!((table.network, table.landlock.bind), (Open::default(), Some(vec![8080])));
    let table = with(&policy, &|f| f.network_hooks = Fact::Absent);
    assert_eq!((table.network, table.landlock.bind), (Open::default(), Some(vec![8080])));
    let table = with(&policy, &|f| f.landlock = Fact::Is(3));
    assert_eq!((table.network, table.landlock.bind, table.landlock.connect), (open, None, None));
    policy.scopes[0].bind = None;
    let unconfined = |policy: &Policy| with(policy, &|f| f.ports = Fact::Absent).watch;
    assert_eq!(unconfined(&policy), Watch::default());
    policy.anomalies.flows = Watched::All(true);
    assert_eq!(unconfined(&policy), Watch { told: false, flows: true, scan: 20 });
    policy.anomalies.network = Watched::All(true);
    assert_eq!(unconfined(&policy), Watch { told: true, flows: true, scan: 20 });
    let table = with(&policy, &|f| f.ports = Fact::Absent);
    assert_eq!((table.network, table.landlock.bind, table.landlock.connect), (Open::default(), None, None));
}

/// The list of the scope is in the table as it stands, and nothing but the image brings programs beside it.
#[test]
fn listed_programs_are_the_images_alone() {
    let mut policy = permissive();
    policy.allowances = vec![fixture::allowance()];
    let with = |policy: &Policy, change: &dyn Fn(&mut Facts)| {
        let mut facts = fixture::facts();
        facts.mounts.extend([fixture::bind("/data"), fixture::bind("/plugins")]);
        change(&mut facts);
        sealed(policy, &facts).unwrap().table
    };
    let noexec = |table: &Table, at: &str| table.mounts.iter().find(|m| m.destination == at).unwrap().noexec;
    let table = with(&policy, &|_| {});
    assert_eq!(table.landlock.programs, None);
    assert!(!noexec(&table, "/data") && !noexec(&table, "/plugins"), "read-only volumes bring programs");
    let list = vec!["/app".to_owned(), "-/lib/".to_owned()];
    policy.scopes[0].programs = Some(list.clone());
    let table = with(&policy, &|_| {});
    assert_eq!(table.landlock.programs, Some(list.clone()));
    assert!(noexec(&table, "/data") && !noexec(&table, "/plugins") && !noexec(&table, "/"));
    assert_eq!(with(&policy, &|f| f.landlock = Fact::Is(1)).landlock.programs, Some(list));
    // What only warned is not promised, and what needs no Landlock stays.
    for none in [Fact::Is(0), Fact::Absent, Fact::Unknown("x".into())] {
        let table = with(&policy, &|f| f.landlock = none.clone());
        assert_eq!(table.landlock.programs, None);
        assert!(noexec(&table, "/data"));
    }
}

/// A table of a version that knew no lists.
#[test]
fn a_table_without_a_list_confines_no_programs() {
    let table = sealed(&fixture::policy(), &fixture::facts()).unwrap().table;
    let text = serde_json::to_string(&table).unwrap();
    assert!(!text.contains("programs"), "{text}");
    assert_eq!(serde_json::from_str::<Table>(&text).unwrap(), table);
}

#[test]
fn the_permit_is_for_its_facts_and_its_spec() {
    let (policy, facts) = (fixture::policy(), fixture::facts());
    let mut other = facts.clone();
    other.process.uid = 1001;
    assert!(seal(permit_for(&policy, &facts), spec_of(&facts), &other).is_err());
    assert!(seal(permit_for(&policy, &facts), spec_of(&other), &facts).is_err());
    // What a spec does not show is compared too: the permit was given to one owner's request.
    other = facts.clone();
    other.owner = Fact::Is("team-b@corp.example".into());
    assert!(seal(permit_for(&policy, &facts), spec_of(&facts), &other).is_err());
    let mut more = facts.clone();
    more.mounts.push(fixture::tmpfs("/x", None));
    assert!(seal(permit_for(&policy, &facts), spec_of(&more), &facts).is_err());
    let mut exec = facts.clone();
    exec.door = boltseal_policy::facts::Door::Update;
    assert!(seal(permit_for(&policy, &exec), spec_of(&exec), &exec).is_err());
    assert!(sealed(&policy, &facts).is_ok());
}

/// A spec that agrees with its facts in all but one field of a granted device.
#[test]
fn a_granted_device_is_the_one_that_was_judged() {
    let device = || Device { path: "/dev/fuse".into(), kind: 'c', major: 10, minor: 229 };
    let mut facts = fixture::facts();
    facts.devices.nodes.push(device());
    assert!(sealed(&permissive(), &facts).is_ok());
    for other in [
        Device { path: "/dev/kvm".into(), ..device() },
        Device { kind: 'b', ..device() },
        Device { major: 8, ..device() },
        Device { minor: 0, ..device() },
    ] {
        let mut asked = facts.clone();
        asked.devices.nodes = vec![other.clone()];
        let why = seal(permit_for(&permissive(), &facts), spec_of(&asked), &facts).unwrap_err();
        assert!(why.contains("devices are not those"), "{other:?}: {why}");
    }
}

#[test]
fn the_table_has_the_label_that_was_granted() {
    let label = |change: fn(&mut Facts)| {
        let mut facts = fixture::facts();
        change(&mut facts);
        sealed(&permissive(), &facts).unwrap().table.label
    };
    assert_eq!(label(|_| {}), Some(Label::AppArmor("boltseal-default".into())));
    let selinux = label(|f| {
        f.label = boltseal_policy::facts::Label { lsm: Lsm::Selinux, enforcing: true, ..Default::default() };
        f.label.selinux = Some("system_u:system_r:container_t:s0:c1,c2".into());
        f.label.mode = Some("known".into());
    });
    assert_eq!(selinux, Some(Label::Selinux("system_u:system_r:container_t:s0:c1,c2".into())));
    assert_eq!(label(|f| f.label = boltseal_policy::facts::Label { lsm: Lsm::Neither, ..Default::default() }), None);
}

/// In the host's uts namespace a host name would rename the host.
#[test]
fn a_container_names_no_host_but_its_own() {
    assert_eq!(sealed(&permissive(), &fixture::facts()).unwrap().spec.hostname().as_deref(), Some("h"));
    let mut facts = fixture::facts();
    facts.namespaces.listed.retain(|n| n.kind != "uts");
    assert_eq!(sealed(&permissive(), &facts).unwrap().spec.hostname().as_deref(), None);
}

#[test]
fn a_hook_runs_from_its_copy_or_not_at_all() {
    let mut facts = fixture::facts();
    facts.hooks.push(Hook {
        stage: "createRuntime".into(),
        path: "/opt/hook".into(),
        args: vec!["hook".into()],
        env: vec!["LD_PRELOAD=/x".into()],
        digest: Fact::Is(fixture::digest('d')),
        copy: "/proc/1/fd/9".into(),
    });
    let spec = sealed(&permissive(), &facts).unwrap().spec;
    let hook = spec.hooks().as_ref().unwrap().create_runtime().as_ref().unwrap()[0].clone();
    assert_eq!((hook.path().to_str(), hook.env().as_deref()), (Some("/proc/1/fd/9"), Some(&[][..])));
    facts.hooks[0].copy.clear();
    assert!(sealed(&permissive(), &facts).unwrap_err().contains("no copy"));
}

/// The whole of a sealed spec, for the eye.
#[test]
fn the_sealed_fixture() {
    let mut facts = fixture::facts();
    facts.process.env = environment();
    let s = sealed(&fixture::policy(), &facts).unwrap();
    let pretty: Value = serde_json::from_slice(&s.json).unwrap();
    insta::assert_snapshot!(serde_json::to_string_pretty(&pretty).unwrap());
}
