//! Properties that hold for every policy and request, not for chosen rows.
use crate::facts::{
    Bound, Device, DeviceRule, Door, Fact, Facts, Hook, Lsm, Namespace, NamespaceOrigin, Object, Origin, UserNamespace,
    Variable,
};
use crate::policy::{Level, Mode};
use crate::verdict::{Finding, Outcome};
use crate::{Denial, Policy, Verdict, decide, fixture, rules};
use proptest::prelude::*;

/// A change that makes a request worse (asks for more, or is known less), by number.
fn worsen(f: &mut Facts, which: u8) {
    let unknown = || "not gathered".to_owned();
    match which % 52 {
        0 => f.image = Fact::Unknown(unknown()),
        1 => f.image = Fact::Absent,
        2 => f.rootfs = Fact::Unknown(unknown()),
        3 => f.owner = Fact::Unknown(unknown()),
        4 => f.owner = Fact::Absent,
        5 => f.node = Fact::Unknown(unknown()),
        6 => f.node = Fact::Absent,
        7 => f.kexec = Fact::Unknown(unknown()),
        8 => f.audit = Fact::Unknown(unknown()),
        9 => f.label.lsm = Lsm::Unknown(unknown()),
        10 => f.label.lsm = Lsm::Neither,
        11 => f.label.apparmor = Some("unconfined".into()),
        12 => f.label.mode = Some("complain".into()),
        13 => f.process.uid = 0,
        14 => f.process.capabilities.get_or_insert_default().ambient.extend(fixture::set(&["CAP_SYS_ADMIN"])),
        15 => f.process.capabilities.get_or_insert_default().bounding.extend(fixture::set(&["CAP_NET_ADMIN"])),
        16 => f.namespaces.listed.retain(|n| n.kind != "network"),
        17 => f.namespaces.listed.iter_mut().take(2).for_each(|n| n.origin = Fact::Unknown(unknown())),
        18 => f.namespaces.listed.push(Namespace {
            kind: "ipc".into(),
            origin: Fact::Is(NamespaceOrigin::Foreign("x".into())),
            path: "/x".into(),
            object: None,
        }),
        19 => f.hooks.push(Hook {
            stage: "prestart".into(),
            path: "/x".into(),
            args: vec![],
            env: vec![],
            digest: Fact::Unknown(unknown()),
            copy: String::new(),
        }),
        20 => f.restore = true,
        21 => f.log_programs.push("binary:///x".into()),
        22 => f.limits.removed.push("memory".into()),
        23 => {
            f.sysctls.insert("kernel.core_pattern".into(), "x".into());
        }
        24 => f.foreign_fields.push("linux.rdma".into()),
        25 => f.mounts.push(fixture::bind("/data")),
        26 => {
            let mut m = fixture::bind("/unknown");
            m.object = Fact::Unknown(unknown());
            f.mounts.push(m);
        }
        27 => {
            let mut m = fixture::bind("/etc-of-host");
            m.object = Fact::Is(Object {
                touches: vec![("/etc".into(), "is".into())],
                origin: Origin::Host,
                kind: "folder".into(),
                ..Default::default()
            });
            f.mounts.push(m);
        }
        28 => f.mounts.push(fixture::bind("/proc/x")),
        29 => f.root.propagation = Some("rshared".into()),
        30 => f.devices.nodes.push(Device { path: "/dev/sda".into(), kind: 'b', major: 8, minor: 0 }),
        31 => f.devices.allowed.push(DeviceRule { kind: 'a', major: None, minor: None, access: "rwm".into() }),
        32 => f.seccomp.unusable.push("notify".into()),
        33 => f.bundle = Fact::Unknown(unknown()),
        34 => {
            if let Fact::Is(b) = &mut f.bundle {
                b.signed = Fact::Absent;
            }
        }
        35 => {
            if let Fact::Is(b) = &mut f.bundle {
                b.floor = Fact::Is(8);
                b.measured = Fact::Is(vec!["a program".into()]);
            }
        }
        36 => f.sensitivity = Fact::Is("unheard of".into()),
        37 => f.neighbours = Fact::Is(vec![crate::facts::Neighbour { id: "x".into(), sensitivity: "y".into() }]),
        38 => f.ports = Fact::Is("connect=192.0.2.1:443".into()),
        39 => f.ports = Fact::Is("everything".into()),
        40 => f.network_hooks = Fact::Absent,
        41 => f.landlock = Fact::Is(0),
        42 => f.process.args.push("--evil".into()),
        43 => f.process.env.push(Variable::of("LD_PRELOAD=/x")),
        44 => f.process.env.push(Variable::of("A=1")),
        45 => f.scan = Fact::Unknown(unknown()),
        46 => {
            if let Fact::Is(scan) = &mut f.scan {
                scan.more = [1; 5];
            }
        }
        47 => f.process.cwd = "/data".into(),
        48..=50 => {
            if let Fact::Is(image) = &mut f.image {
                match which % 52 {
                    48 => image.created = "1970-01-01T00:00:00Z".into(),
                    49 => image.secrets = Fact::Unknown(unknown()),
                    _ => image.attestations.clear(),
                }
            }
        }
        _ => {
            f.user_namespace = Some(UserNamespace { ids: fixture::id_maps(0, 1), ..Default::default() });
        }
    }
}

/// The facts of which every rule reads at least one, all unknown.
fn forget(f: &mut Facts) {
    let why = || "not gathered".to_owned();
    f.image = Fact::Unknown(why());
    f.rootfs = Fact::Unknown(why());
    f.scan = Fact::Unknown(why());
    f.owner = Fact::Unknown(why());
    f.node = Fact::Unknown(why());
    f.bundle = Fact::Unknown(why());
    f.sensitivity = Fact::Unknown(why());
    f.ports = Fact::Unknown(why());
    f.network_hooks = Fact::Unknown(why());
    f.kexec = Fact::Unknown(why());
    f.audit = Fact::Unknown(why());
    f.bound = Fact::Unknown(why());
    f.label.lsm = Lsm::Unknown(why());
    f.namespaces.listed.iter_mut().for_each(|n| n.origin = Fact::Unknown(why()));
}

/// A change that makes a policy stricter.
fn restrict(p: &mut Policy, which: u8) {
    match which % 17 {
        0 => p.level = Level::Strict,
        1 => p.modes.clear(),
        2 => p.exceptions.clear(),
        3 => p.allowances.clear(),
        4 => p.registries.allow.clear(),
        5 => p.process.capabilities.clear(),
        6 => p.process.sysctls.clear(),
        7 => p.owner.patterns.clear(),
        8 => p.bundle.signed = true,
        9 => p.sensitivity.levels = vec!["only".into()],
        10 => p.scopes[0].bind = Some(vec![]),
        11 => p.scopes[0].connect = Some(vec![]),
        12 => p.scopes[0].programs = Some(vec!["/bin/true".into()]),
        13 => p.scopes[0].bases = Some(vec![]),
        14 => p.image.age.iter_mut().for_each(|age| age.max_days = 1),
        15 => p.image.provenance.iter_mut().for_each(|rules| rules.builders.clear()),
        _ => p.devices.allow.clear(),
    }
}

fn a_policy() -> impl Strategy<Value = Policy> {
    let levels = prop::sample::select(vec![Level::Observe, Level::Baseline, Level::Restricted, Level::Strict]);
    let ids: Vec<&str> = rules::all().iter().map(|r| r.id).collect();
    let warned = prop::collection::btree_set(prop::sample::select(ids.clone()), 0..8);
    let excepted = prop::collection::btree_set(prop::sample::select(ids), 0..8);
    (levels, warned, excepted, any::<bool>()).prop_map(|(level, warned, excepted, allowance)| {
        let mut p = fixture::policy();
        p.level = level;
        p.modes = warned.into_iter().map(|id| (id.to_owned(), Mode::Warn)).collect();
        p.exceptions = excepted.into_iter().map(|id| fixture::exception(id, None)).collect();
        if allowance {
            p.allowances.push(fixture::allowance());
        }
        fixture::gated(&mut p, &mut fixture::facts());
        p
    })
}

fn some_facts() -> impl Strategy<Value = Facts> {
    let doors = prop::sample::select(vec![Door::Create, Door::Exec, Door::Update]);
    (doors, prop::collection::vec(any::<u8>(), 0..4)).prop_map(|(door, changes)| {
        let mut f = fixture::facts();
        fixture::gated(&mut fixture::policy(), &mut f);
        f.door = door;
        f.bound = Fact::Is(Bound {
            label: "boltseal-default".into(),
            uid: 1000,
            repository: Some("ghcr.io/corp/app".into()),
            authority: Some("ci".into()),
            ..Default::default()
        });
        changes.into_iter().for_each(|c| worsen(&mut f, c));
        f
    })
}

fn findings(verdict: &Verdict) -> Vec<Finding> {
    match verdict {
        Verdict::Allow(p) => p.findings().to_vec(),
        Verdict::Deny(Denial { findings }) => findings.clone(),
    }
}

fn allows(policy: &Policy, facts: &Facts) -> bool {
    matches!(decide(policy, facts), Verdict::Allow(_))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn decide_is_total_and_deterministic(p in a_policy(), f in some_facts()) {
        prop_assert_eq!(findings(&decide(&p, &f)), findings(&decide(&p, &f)));
    }

    #[test]
    fn a_permit_holds_no_denial_and_a_denial_at_least_one(p in a_policy(), f in some_facts()) {
        let denied = |v: &Verdict| findings(v).iter().any(|x| x.outcome == Outcome::Deny);
        let verdict = decide(&p, &f);
        prop_assert_eq!(denied(&verdict), matches!(verdict, Verdict::Deny(_)));
    }

    #[test]
    fn every_rule_of_the_door_speaks(p in a_policy(), f in some_facts()) {
        let found = findings(&decide(&p, &f));
        for rule in rules::all() {
            prop_assert_eq!(rule.doors.contains(&f.door), found.iter().any(|x| x.rule == rule.id), "{}", rule.id);
        }
    }

    /// No exception, no mode: what is not known is refused at every level that enforces.
    #[test]
    fn the_unknown_is_never_allowed(mut p in a_policy(), mut f in some_facts()) {
        forget(&mut f);
        prop_assert!(!allows(&p, &f));
        p.modes.clear();
        p.exceptions.clear();
        let verdict = decide(&p, &f);
        for x in findings(&verdict).iter().filter(|x| x.outcome == Outcome::Pass) {
            let reads_only_plain_facts = x.rule.starts_with("BS-PRC-") || x.rule.starts_with("BS-FSY-") || x.rule == "BS-DEV-001";
            // Nobody asks for a scan there.
            let unasked = p.level < Level::Strict && (x.rule == "BS-IMG-007" || x.rule == "BS-IMG-008");
            prop_assert!(unasked || reads_only_plain_facts && x.rule != "BS-PRC-004", "{:?}", x);
        }
    }

    #[test]
    fn a_worse_request_is_never_allowed_where_a_better_was_not(p in a_policy(), f in some_facts(), which in any::<u8>()) {
        let mut worse = f.clone();
        worsen(&mut worse, which);
        prop_assert!(allows(&p, &f) || !allows(&p, &worse), "{}", which % 52);
    }

    #[test]
    fn a_stricter_policy_never_allows_what_a_laxer_did_not(p in a_policy(), f in some_facts(), which in any::<u8>()) {
        let mut stricter = p.clone();
        restrict(&mut stricter, which);
        prop_assert!(allows(&p, &f) || !allows(&stricter, &f));
    }

    #[test]
    fn order_does_not_matter(mut p in a_policy(), mut f in some_facts()) {
        let before = findings(&decide(&p, &f));
        f.mounts.reverse();
        f.namespaces.listed.reverse();
        f.devices.nodes.reverse();
        f.devices.allowed.reverse();
        f.hooks.reverse();
        p.authorities.reverse();
        p.scopes.reverse();
        p.allowances.reverse();
        prop_assert_eq!(before, findings(&decide(&p, &f)));
    }

    /// The trail is outside every setting.
    #[test]
    fn nothing_starts_without_the_trail(p in a_policy(), mut f in some_facts()) {
        f.audit = Fact::Absent;
        prop_assert!(!allows(&p, &f));
    }

    /// Whatever a policy file says, reading it ends, and what it gives is a policy that validates.
    #[test]
    fn reading_a_policy_is_total(text in "(?s).{0,200}", key in "[a-z_.\\[\\]\" =0-9\n]{0,120}") {
        for main in [text, format!("version = 1\n{key}")] {
            if let Ok(policy) = Policy::parse(&main, &[("x.toml", &key)]) {
                prop_assert!(policy.validate().is_empty());
            }
        }
    }
}
