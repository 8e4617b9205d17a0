//! The truth table. Each row is the same request with one fault, and the first has none.
use super::super::outcomes;
use super::*;
use crate::facts::{Bound, Hook, Namespace};
use crate::fixture;
use crate::policy::{AllowedMount, Policy};

const HOST: u32 = 131_072;
const SIZE: u32 = 65_536;

fn with(change: impl Fn(&mut Facts, &mut Policy)) -> Vec<String> {
    let (mut facts, mut policy) = (fixture::facts(), fixture::policy());
    fixture::in_user_namespace(&mut facts);
    change(&mut facts, &mut policy);
    outcomes(&RULE, &policy, &facts)
}

fn user(change: impl Fn(&mut UserNamespace)) -> Vec<String> {
    with(|f, _| change(f.user_namespace.as_mut().unwrap()))
}

fn ids(uids: &[(u32, u32, u32)], gids: &[(u32, u32, u32)]) -> Vec<String> {
    user(|u| u.ids = IdMaps { uids: uids.to_vec(), gids: gids.to_vec() })
}

#[test]
fn maps() {
    let good = [(0, HOST, SIZE)];
    assert_eq!(ids(&good, &good), ["pass"]);
    for (range, expected) in [
        ((0, 0, SIZE), "deny host-root"),
        ((0, 1, SIZE), "deny host-range"),
        ((0, 65_535, SIZE), "deny host-range"),
        ((0, 65_536, SIZE), "pass"),
        ((0, i32::MAX as u32 - SIZE + 1, SIZE), "pass"),
        ((0, i32::MAX as u32 - SIZE + 2, SIZE), "deny host-range"),
        ((0, u32::MAX, SIZE), "deny host-range"),
        ((0, HOST, 0), "deny size"),
        ((0, HOST, SIZE - 1), "deny size"),
        ((0, HOST, SIZE + 1), "deny size"),
        ((1, HOST, SIZE), "deny map-form"),
    ] {
        assert_eq!(ids(&[range], &[range]), [expected], "{range:?}");
    }
    assert_eq!(ids(&[(0, HOST, u32::MAX)], &[(0, HOST, u32::MAX)]), ["deny host-range", "deny size"]);
    assert_eq!(ids(&good, &[(0, HOST + SIZE, SIZE)]), ["deny map-form"], "users and groups apart");
    assert_eq!(ids(&good, &[(5, 0, SIZE)]), ["deny host-root"]);
    let two = [(0, HOST, SIZE), (SIZE, HOST + SIZE, SIZE)];
    assert_eq!(ids(&two, &two), ["deny map-form"]);
    for (uids, gids) in [(&[][..], &good[..]), (&good[..], &[][..]), (&[][..], &[][..])] {
        assert_eq!(ids(uids, gids), ["deny empty-map"]);
    }
}

#[test]
fn the_policy_bounds_the_range() {
    let range = |host: u32, size: u32| {
        with(move |f, p| {
            p.user_namespace.min_host_id = 1_000_000;
            p.user_namespace.max_size = 2 * SIZE;
            f.user_namespace.as_mut().unwrap().ids = fixture::id_maps(host, size);
        })
    };
    assert_eq!(range(1_000_000, 2 * SIZE), ["pass"]);
    assert_eq!(range(999_999, SIZE), ["deny host-range"]);
    assert_eq!(range(1_000_000, 2 * SIZE + 1), ["deny size"]);
}

#[test]
fn a_namespace_and_its_maps_come_together() {
    assert_eq!(outcomes(&RULE, &fixture::policy(), &fixture::facts()), ["pass"]);
    assert_eq!(with(|f, _| f.namespaces.listed.retain(|n| n.kind != "user")), ["deny no-namespace"]);
    assert_eq!(with(|f, _| f.user_namespace = None), ["deny empty-map"]);
}

#[test]
fn nobody_else_has_an_id_of_it() {
    assert_eq!(user(|u| u.overlaps = Fact::Is(vec!["k8s.io/other".into()])), ["deny overlap"]);
    assert_eq!(user(|u| u.overlaps = Fact::Absent), ["deny unknown"]);
    assert_eq!(user(|u| u.overlaps = Fact::Unknown("x".into())), ["deny unknown"]);
    assert_eq!(user(|u| u.overlaps = Fact::Unknown("timeout: x".into())), ["deny timeout"]);
}

#[test]
fn what_is_joined_has_the_ids_that_are_listed() {
    assert_eq!(user(|u| u.joined = Fact::Is(fixture::id_maps(HOST, SIZE))), ["pass"]);
    assert_eq!(user(|u| u.joined = Fact::Is(fixture::id_maps(HOST + 1, SIZE))), ["deny other-map"]);
    assert_eq!(user(|u| u.joined = Fact::Is(IdMaps::default())), ["deny other-map"]);
    assert_eq!(user(|u| u.joined = Fact::Unknown("x".into())), ["deny unknown"]);
}

fn layers(own: bool, of_layers: Option<IdMaps>) -> Vec<String> {
    let (mut facts, policy) = (fixture::facts(), fixture::policy());
    if own {
        fixture::in_user_namespace(&mut facts);
    }
    if let Fact::Is(rootfs) = &mut facts.rootfs {
        rootfs.idmap = of_layers;
    }
    outcomes(&RULE, &policy, &facts)
}

#[test]
fn the_layers_have_the_containers_ids() {
    assert_eq!(layers(true, Some(fixture::id_maps(HOST, SIZE))), ["pass"]);
    assert_eq!(layers(true, None), ["pass"], "the launch maps them all the same");
    assert_eq!(layers(true, Some(fixture::id_maps(HOST + SIZE, SIZE))), ["deny other-map"]);
    assert_eq!(layers(false, Some(fixture::id_maps(HOST, SIZE))), ["deny no-namespace"]);
}

/// The outcome for one mount.
fn mounted(own: bool, grant: Option<bool>, change: impl Fn(&mut Mount)) -> Vec<String> {
    let (mut facts, mut policy) = (fixture::facts(), fixture::policy());
    if own {
        fixture::in_user_namespace(&mut facts);
    }
    let mut m = fixture::bind("/data");
    m.idmap = Some(fixture::id_maps(HOST, SIZE));
    if let Fact::Is(object) = &mut m.object {
        object.origin = if grant.is_some() { Origin::Host } else { Origin::Kubelet("empty-dir".into()) };
    }
    change(&mut m);
    facts.mounts.push(m);
    if let Some(idmap) = grant {
        let mut allowance = fixture::allowance();
        allowance.mounts = vec![AllowedMount { source: "/srv/folder".into(), writable: true, idmap }];
        policy.allowances = vec![allowance];
    }
    outcomes(&RULE, &policy, &facts)
}

#[test]
fn mounts_are_idmapped_to_the_containers_ids_alone() {
    assert_eq!(mounted(true, None, |_| {}), ["pass"]);
    assert_eq!(mounted(true, None, |m| m.idmap = Some(IdMaps::default())), ["pass"], "the option alone");
    assert_eq!(mounted(true, None, |m| m.idmap = Some(fixture::id_maps(0, SIZE))), ["deny other-map"]);
    assert_eq!(mounted(true, None, |m| m.idmap.as_mut().unwrap().gids.clear()), ["deny other-map"]);
    assert_eq!(mounted(true, None, |m| m.kind = "tmpfs".into()), ["deny idmap-kind"]);
    assert_eq!(mounted(false, None, |_| {}), ["deny no-namespace"]);
    assert_eq!(mounted(false, None, |m| m.idmap = None), ["pass"]);
}

#[test]
fn a_hosts_folder_is_idmapped_by_a_grant_that_says_so() {
    assert_eq!(mounted(true, Some(true), |_| {}), ["allowed test"]);
    assert_eq!(mounted(true, Some(true), |m| m.writable = true), ["allowed test"]);
    assert_eq!(mounted(true, Some(false), |_| {}), ["deny idmap-grant"]);
    assert_eq!(mounted(true, Some(false), |m| m.idmap = None), ["pass"], "BS-FSY-002 has the rest");
    let elsewhere = |m: &mut Mount| {
        if let Fact::Is(object) = &mut m.object {
            object.path = "/srv/other".into();
        }
    };
    assert_eq!(mounted(true, Some(true), elsewhere), ["deny idmap-grant"]);
}

#[test]
fn the_process_has_ids_of_the_range() {
    type Set = fn(&mut Facts, u32);
    let ways: [Set; 3] =
        [|f, id| f.process.uid = id, |f, id| f.process.gid = id, |f, id| f.process.additional_gids = vec![0, id]];
    for set in ways {
        for (id, expected) in [(0, "pass"), (SIZE - 1, "pass"), (SIZE, "deny unmapped-id"), (HOST, "deny unmapped-id")]
        {
            assert_eq!(with(|f, _| set(f, id)), [expected]);
            let mut facts = fixture::facts();
            facts.door = Door::Exec;
            facts.bound = Fact::Is(Bound { user_namespace: true, user_ids: SIZE, ..Default::default() });
            set(&mut facts, id);
            assert_eq!(outcomes(&RULE, &fixture::policy(), &facts), [expected], "exec");
            // Without one every id is as good as another to this rule.
            facts.bound = Fact::Is(Bound::default());
            assert_eq!(outcomes(&RULE, &fixture::policy(), &facts), ["pass"], "exec");
        }
    }
}

#[test]
fn an_exec_believes_the_record_alone() {
    let mut facts = fixture::facts();
    facts.door = Door::Exec;
    fixture::in_user_namespace(&mut facts);
    facts.bound = Fact::Is(Bound { user_namespace: true, ..Default::default() });
    assert_eq!(outcomes(&RULE, &fixture::policy(), &facts), ["deny exec-outside"]);
    for no_record in [Fact::Absent, Fact::Unknown("x".into())] {
        facts.bound = no_record;
        assert_eq!(outcomes(&RULE, &fixture::policy(), &facts), ["deny unknown"]);
    }
}

#[test]
fn what_cannot_be_had_is_refused_by_name() {
    for kind in standard::NAMESPACES {
        let of_host = with(|f, _| f.namespaces.listed.retain(|n| n.kind != kind));
        assert_eq!(of_host, ["deny host-namespace"], "{kind}");
    }
    let shared = with(|f, _| f.namespaces.listed[0].origin = Fact::Is(NamespaceOrigin::Host));
    assert_eq!(shared, ["deny host-namespace"]);
    for (propagation, expected) in [("rprivate", "pass"), ("slave", "deny propagation"), ("rslave", "deny propagation")]
    {
        let found = with(|f, _| {
            let mut m = fixture::bind("/data");
            m.propagation = Some(propagation.into());
            f.mounts.push(m);
        });
        assert_eq!(found, [expected]);
    }
    for (stage, expected) in [("createContainer", "deny hook"), ("createRuntime", "pass")] {
        let found = with(|f, _| {
            f.hooks.push(Hook {
                stage: stage.into(),
                path: "/h".into(),
                args: Vec::new(),
                env: Vec::new(),
                digest: Fact::Absent,
                copy: String::new(),
            });
        });
        assert_eq!(found, [expected]);
    }
    assert_eq!(with(|f, _| f.label.lsm = Lsm::Selinux), ["deny selinux"]);
    assert_eq!(with(|f, _| f.label.lsm = Lsm::Neither), ["pass"]);
}

#[test]
fn only_a_namespace_of_ones_own_is_one() {
    for (origin, expected) in [
        (Fact::Is(NamespaceOrigin::New), true),
        (Fact::Is(NamespaceOrigin::OwnPod), true),
        (Fact::Is(NamespaceOrigin::Host), false),
        (Fact::Is(NamespaceOrigin::Foreign("x".into())), false),
        (Fact::Absent, false),
        (Fact::Unknown("x".into()), false),
    ] {
        let mut facts = fixture::facts();
        assert!(!has_own(&facts));
        facts.namespaces.listed.push(Namespace { kind: "user".into(), origin, path: String::new(), object: None });
        assert_eq!(has_own(&facts), expected);
    }
}

#[test]
fn a_mount_is_named_by_its_place() {
    let mut mount = fixture::facts().mounts[0].clone();
    mount.destination = "/data\n".into();
    assert_eq!(at(&mount), format!("the mount at {}", text::show("/data\n")));
}
