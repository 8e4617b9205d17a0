//! The whole way of a start that is pure: parse, facts, decide, seal, on nodes that are made up (`world`), held against an
//! oracle that shares no code with it (`boltseal_fuzz::start`).
mod world;

use super::outcome;
use boltseal_evidence::spec;
use boltseal_fuzz::random::Random;
use boltseal_fuzz::start::bend::bend;
use boltseal_fuzz::start::demands::against;
use boltseal_fuzz::start::sealed::{filter_wrongs, wrongs};
use boltseal_policy::{Outcome, Verdict, decide};
use boltseal_seal::{Label, Sealed, seal};
use serde_json::{Value, json};
use world::{ALL, World};

/// A spec with one to four fields changed; what is no JSON starts over from nothing.
pub(super) fn mutate(random: &mut Random, input: &[u8], _: &[u8]) -> Vec<u8> {
    let good: Value = serde_json::from_slice(input).unwrap_or(Value::Null);
    let count = 1 + random.below(4);
    bend(random, &good, count).0.to_string().into_bytes()
}

/// A config.json.
pub(super) fn run(bytes: &[u8]) -> u64 {
    let asked: Value = match spec::parse(bytes) {
        Ok(_) => serde_json::from_slice(bytes).unwrap_or_else(|e| panic!("another parser does not read it: {e}")),
        Err(why) => return outcome(&why),
    };
    let ends: Vec<String> = ALL.iter().map(|world| start(world, bytes, &asked)).collect();
    outcome(&ends)
}

/// How it ended on this node, in few words.
fn start(world: &World, bytes: &[u8], asked: &Value) -> String {
    let at = world.name;
    let (facts, parsed) = world.facts(bytes).unwrap_or_else(|e| panic!("read once and not twice: {e}"));
    let permit = match decide(&world.policy, &facts) {
        Verdict::Allow(permit) => permit,
        Verdict::Deny(denial) => {
            let rules = denial.findings.iter().filter(|f| f.outcome == Outcome::Deny);
            return rules.map(|f| format!("{} {},", f.rule, f.condition)).collect();
        }
    };
    if world.grant.enforced {
        let why = against(asked, &world.grant);
        assert!(why.is_empty(), "{at}: allowed although {why:?}: {asked}");
    }
    let sealed = match seal(permit, parsed.spec, &facts) {
        Ok(sealed) => sealed,
        Err(why) => return format!("not sealed: {why}"),
    };
    let found: Value = serde_json::from_slice(&sealed.json).unwrap_or_else(|e| panic!("{at}: no JSON: {e}"));
    let wrong = wrongs(&found, asked, &world.grant);
    assert!(wrong.is_empty(), "{at}: {wrong:?}: {asked} became {found}");
    table(world, &sealed, &found);
    if sealed.spec.hooks().is_none() {
        again(world, &sealed, &found);
    }
    "sealed".into()
}

/// What inspection will compare the kernel's view with says the same as what libcontainer reads.
fn table(world: &World, sealed: &Sealed, found: &Value) {
    let (at, t) = (world.name, &sealed.table);
    assert_eq!(sealed.digest, boltseal_trust::digest(&sealed.json).hex(), "{at}");
    let p = &found["process"];
    let user = json!({ "uid": t.uid, "gid": t.gid, "additionalGids": t.additional_gids });
    for key in ["uid", "gid", "additionalGids"] {
        assert_eq!(p["user"][key], user[key], "{at}: {key}");
    }
    assert_eq!((&p["cwd"], &p["terminal"]), (&json!(t.cwd), &json!(t.terminal)), "{at}");
    for set in ["bounding", "effective", "permitted"] {
        assert_eq!(p["capabilities"][set], json!(t.capabilities), "{at}: {set}");
    }
    let linux = &found["linux"];
    assert_eq!((&linux["maskedPaths"], &linux["readonlyPaths"]), (&json!(t.masked), &json!(t.readonly)), "{at}");
    assert_eq!(linux["cgroupsPath"], json!(t.cgroup_path), "{at}");
    let kinds = |list: &Value| list.as_array().into_iter().flatten().map(|n| n["type"].clone()).collect::<Vec<_>>();
    let listed: Vec<Value> = t.namespaces.iter().map(|n| json!(n.kind)).collect();
    assert_eq!(kinds(&linux["namespaces"]), listed, "{at}");
    let mounts = found["mounts"].as_array().map(Vec::as_slice).unwrap_or_default();
    assert_eq!(mounts.len() + 1, t.mounts.len(), "{at}: the root, then each mount");
    assert!(t.mounts[0].destination == "/" && t.mounts[0].readonly && t.mounts[0].nosuid, "{at}: {:?}", t.mounts[0]);
    for (m, entry) in mounts.iter().zip(&t.mounts[1..]) {
        let has = |flag: &str| m["options"].as_array().is_some_and(|o| o.iter().any(|o| o == flag));
        let flags = (entry.nosuid, entry.nodev, entry.noexec);
        assert_eq!(flags, (has("nosuid"), has("nodev"), has("noexec")), "{at}: {m}");
        // libcontainer drops `ro` of a v1 cgroup mount.
        assert!(entry.readonly == has("ro") || m["type"] == "cgroup", "{at}: {m}");
        assert_eq!(
            (&m["destination"], entry.source.is_some()),
            (&json!(entry.destination), m["type"] == "bind"),
            "{at}"
        );
        let written = !entry.readonly && entry.source.is_some();
        assert!(!written || t.landlock.writable.contains(&entry.destination), "{at}: Landlock closes {m}");
        // Of two on one place only the upper one shows, and Landlock knows places.
        let below = t.mounts.iter().any(|e| e.destination == entry.destination && !e.readonly);
        let opened = t.landlock.writable.contains(&entry.destination);
        assert!(!has("ro") || !opened || below, "{at}: Landlock opens {m}");
    }
    let labelled = matches!(
        (&t.label, &world.lsm),
        (Some(Label::AppArmor(_)), boltseal_policy::facts::Lsm::AppArmor)
            | (Some(Label::Selinux(_)), boltseal_policy::facts::Lsm::Selinux)
    );
    assert!(labelled || !world.grant.enforced, "{at}: label {:?}", t.label);
    if let Some(filter) = &t.pod_seccomp {
        let filter: Value = serde_json::from_str(filter).unwrap_or_else(|e| panic!("{at}: no filter: {e}"));
        assert!(!world.grant.enforced || filter_wrongs(&filter).is_empty(), "{at}: {:?}", filter_wrongs(&filter));
    }
}

/// What is sealed is allowed again and stays as it is: nothing of it has to be tightened. Label and filter travel in the table.
fn again(world: &World, sealed: &Sealed, found: &Value) {
    let at = world.name;
    let mut asked = found.clone();
    asked["annotations"] = json!({ "boltseal.dev/owner": format!("team{}", world.grant.owners) });
    match &sealed.table.label {
        Some(Label::AppArmor(name)) => asked["process"]["apparmorProfile"] = json!(name),
        Some(Label::Selinux(name)) => asked["process"]["selinuxLabel"] = json!(name),
        None => {}
    }
    if let Some(filter) = &sealed.table.pod_seccomp {
        asked["linux"]["seccomp"] = serde_json::from_str(filter).unwrap_or_else(|e| panic!("{at}: no filter: {e}"));
    }
    let (facts, parsed) =
        world.facts(asked.to_string().as_bytes()).unwrap_or_else(|e| panic!("{at}: what is sealed is not read: {e}"));
    let permit = match decide(&world.policy, &facts) {
        Verdict::Allow(permit) => permit,
        Verdict::Deny(denial) => panic!("{at}: what is sealed is refused: {}: {asked}", denial.message("x")),
    };
    let twice = seal(permit, parsed.spec, &facts).unwrap_or_else(|e| panic!("{at}: what is sealed is not sealed: {e}"));
    let (once, twice) = (String::from_utf8_lossy(&sealed.json), String::from_utf8_lossy(&twice.json));
    assert_eq!(once, twice, "{at}: sealed once more it is another");
}

#[cfg(test)]
mod tests {
    use super::*;
    use boltseal_fuzz::start::bend::PLACES;

    fn seeds() -> Vec<Value> {
        super::super::seeds("start_spec").map(|(_, bytes)| serde_json::from_slice(bytes).unwrap()).collect()
    }

    /// The one that has something of everything.
    fn pod() -> Value {
        seeds().into_iter().find(|spec| spec["hostname"] == "web-0").unwrap()
    }

    /// Each choice of each field of the specification, alone, on a good spec: the oracle holds, some start and some do not.
    #[test]
    fn every_field_alone() {
        let (mut random, mut sealed, mut refused, mut failed) = (Random(1), 0, 0, Vec::new());
        let good = pod();
        for place in PLACES.iter() {
            for choice in 0..place.choices() {
                let mut spec = good.clone();
                let how = place.change(&mut random, choice, &mut spec);
                let bytes = spec.to_string().into_bytes();
                let alone = || spec::parse(&bytes).is_ok() && start(&ALL[0], &bytes, &spec) == "sealed";
                match std::panic::catch_unwind(alone) {
                    Ok(true) => sealed += 1,
                    Ok(false) => refused += 1,
                    Err(_) => failed.push(how),
                }
            }
        }
        assert!(failed.is_empty(), "{failed:#?}");
        assert!(sealed > 200 && refused > 500, "{sealed} sealed, {refused} refused");
    }

    /// The twin of all that is refused: the seeds themselves start, each on a node that grants what it asks for.
    #[test]
    fn good_specs_start() {
        for good in seeds() {
            let bytes = good.to_string().into_bytes();
            let ends: Vec<String> = ALL.iter().map(|world| start(world, &bytes, &good)).collect();
            assert!(ends.contains(&"sealed".to_owned()), "{ends:?}: {good}");
        }
    }

    /// An oracle that sees nothing would be content too: each fault, put into a sealed spec, is named.
    #[test]
    fn the_oracle_sees_each_fault() {
        let world = &ALL[0];
        let good = pod();
        let (facts, parsed) = world.facts(good.to_string().as_bytes()).unwrap();
        let Verdict::Allow(permit) = decide(&world.policy, &facts) else { panic!("refused") };
        let sealed: Value = serde_json::from_slice(&seal(permit, parsed.spec, &facts).unwrap().json).unwrap();
        assert_eq!(wrongs(&sealed, &good, &world.grant), [""; 0]);
        let mount = |to: &str| {
            let all = sealed["mounts"].as_array().unwrap();
            format!("/mounts/{}", all.iter().position(|m| m["destination"] == to).unwrap())
        };
        let faults = [
            ("/root".into(), json!({ "path": "rootfs", "readonly": false })),
            ("/root/path".into(), json!("/")),
            ("/annotations".into(), json!({})),
            ("/process/noNewPrivileges".into(), json!(false)),
            ("/process/apparmorProfile".into(), json!("unconfined")),
            ("/process/user/uid".into(), json!(0)),
            ("/process/args".into(), json!(["/bin/sh"])),
            ("/process/env".into(), json!(["HOME=/", "LISTEN_FDS=1"])),
            ("/process/env".into(), json!(["A=1"])),
            ("/process/capabilities/ambient".into(), json!(["CAP_KILL"])),
            ("/process/capabilities/bounding".into(), json!(["CAP_KILL"])),
            ("/process/capabilities/effective".into(), json!(["CAP_SYS_ADMIN"])),
            ("/process/capabilities/permitted".into(), Value::Null),
            ("/linux/namespaces".into(), json!([])),
            ("/linux/namespaces/0/path".into(), json!("/proc/1/ns/cgroup")),
            ("/linux/seccomp".into(), json!({})),
            ("/linux/maskedPaths".into(), json!(["/proc/kcore"])),
            ("/linux/readonlyPaths".into(), json!([])),
            ("/linux/rootfsPropagation".into(), json!("rshared")),
            ("/linux/sysctl".into(), json!({ "kernel.core_pattern": "|/x" })),
            ("/linux/devices/0/path".into(), json!("/dev/vda")),
            ("/linux/devices/0/fileMode".into(), json!(0o4777)),
            ("/linux/resources/devices".into(), json!([{ "allow": true, "access": "rwm" }])),
            ("/linux/resources/devices/1/major".into(), json!(8)),
            ("/linux/resources/memory/limit".into(), json!(-1)),
            ("/linux/resources/pids".into(), json!({})),
            ("/linux/resources/unified".into(), json!({ "memory.max": "max" })),
            ("/linux/cgroupsPath".into(), json!("/a/../..")),
            ("/linux/uidMappings".into(), json!([{ "containerID": 0, "hostID": 0, "size": 1 }])),
            ("/hooks".into(), json!({ "prestart": [{ "path": "/proc/self/fd/9", "env": [] }] })),
            (mount("/proc") + "/type", json!("tmpfs")),
            (mount("/proc") + "/options", json!(["nosuid", "nodev"])),
            (mount("/sys") + "/options", json!(["nosuid", "nodev", "noexec"])),
            (mount("/run") + "/options", json!(["nosuid", "nodev", "noexec"])),
            (mount("/run") + "/destination", json!("/run/../proc")),
            (mount("/data") + "/options", json!(["bind", "rprivate", "nosuid", "nodev"])),
            (mount("/data") + "/options", json!(["bind", "rprivate", "nodev", "noexec"])),
            (mount("/data") + "/options", json!(["rbind", "rslave", "nosuid", "nodev", "noexec"])),
            (mount("/data") + "/options", json!(["bind", "rshared", "nosuid", "nodev", "noexec"])),
            (mount("/data") + "/source", json!("/etc")),
            (mount("/data") + "/destination", json!("/sys/kernel")),
        ];
        for (way, fault) in faults {
            let mut bad = sealed.clone();
            let (parent, key) = way.rsplit_once('/').unwrap();
            let parent = bad.pointer_mut(parent).unwrap();
            match key.parse::<usize>() {
                Ok(index) if parent.is_array() => parent[index] = fault.clone(),
                _ => parent[key] = fault.clone(),
            }
            assert_ne!(wrongs(&bad, &good, &world.grant), [""; 0], "{way} = {fault}");
        }
        let filter = |value: Value| filter_wrongs(&value).len();
        assert_eq!(filter(json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{ "names": ["read"] }] })), 0);
        for bad in [
            json!({ "defaultAction": "SCMP_ACT_ALLOW" }),
            json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_NOTIFY" }] }),
            json!({ "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_ARM"] }),
            json!({ "defaultAction": "SCMP_ACT_ERRNO", "flags": ["SECCOMP_FILTER_FLAG_SPEC_ALLOW"] }),
            json!({ "defaultAction": "SCMP_ACT_ERRNO", "listenerPath": "/x" }),
        ] {
            assert_eq!(filter(bad.clone()), 1, "{bad}");
        }
    }
}
