use super::super::super::outcomes;
use super::super::named as owner_named;
use super::*;
use crate::facts::{Facts, GrantedMount, Object};
use crate::fixture;
use crate::policy::Policy;

const NOW: u64 = 1_795_392_000;

/// A policy that asks for grants, and a pod with one: it passes.
pub(in super::super::super) fn world() -> (Policy, Facts) {
    let (mut policy, mut facts) = (fixture::policy(), fixture::facts());
    policy.owner.level = "grant".into();
    policy.owner.grant = Some(GrantRules {
        audiences: vec!["boltseal:prod".into(), "boltseal:node-7".into()],
        max_days: 30,
        authorities: vec![GrantAuthority {
            name: "people".into(),
            key: "people.pub".into(),
            issuer: "https://idp".into(),
            identities: vec!["*@corp.example".into()],
            namespaces: vec!["shop*".into()],
            amr: fixture::set(&["mfa"]),
            acr: fixture::set(&["gold", "silver"]),
            ..GrantAuthority::default()
        }],
    });
    facts.subject.pod_namespace = "shop".into();
    facts.subject.pod_name = "web-0".into();
    facts.subject.container_name = "web".into();
    // What the pod says of itself counts no more.
    facts.owner = Fact::Is("mallory@evil.example".into());
    facts.owner_grant = Fact::Is(OwnerGrant::Signed(Box::new(Grant {
        id: "0123456789ab".into(),
        by: fixture::set(&["people"]),
        issuer: "https://idp".into(),
        subject: "ann@corp.example".into(),
        audience: fixture::set(&["boltseal:prod"]),
        from: NOW - 60,
        until: NOW + 86_400,
        amr: fixture::set(&["mfa", "pwd"]),
        acr: "gold".into(),
        namespaces: fixture::set(&["shop"]),
        pods: vec!["db-*".into(), "web-*".into()],
        containers: vec![GrantedContainer {
            name: "web".into(),
            images: [facts.image.is().unwrap().manifest.clone()].into(),
            ..GrantedContainer::default()
        }],
    })));
    (policy, facts)
}

pub(in super::super::super) fn grant(facts: &mut Facts) -> &mut Grant {
    let Fact::Is(OwnerGrant::Signed(grant)) = &mut facts.owner_grant else { panic!("no grant") };
    grant
}

fn table(change: impl Fn(&mut Policy, &mut Facts)) -> String {
    let (mut policy, mut facts) = world();
    facts.mounts.retain(|mount| mount.kind != "bind");
    change(&mut policy, &mut facts);
    let said = outcomes(&RULE, &policy, &facts).concat();
    if said != "deny unknown" {
        let owner = owner_named(&policy, &facts);
        assert_eq!(owner.as_deref(), (said == "pass").then_some("ann@corp.example"), "{said}");
    }
    said
}

fn authority(policy: &mut Policy) -> &mut GrantAuthority {
    &mut policy.owner.grant.as_mut().unwrap().authorities[0]
}

#[test]
fn by_whom_for_whom_for_how_long() {
    assert_eq!(table(|_, _| {}), "pass");
    assert_eq!(table(|_, f| f.owner_grant = Fact::Absent), "deny no-grant");
    assert_eq!(table(|_, f| f.owner_grant = Fact::Unknown("x".into())), "deny unknown");
    assert_eq!(table(|_, f| f.owner_grant = Fact::Is(OwnerGrant::Refused("x".into()))), "deny grant");
    assert_eq!(table(|p, _| p.owner.patterns = vec!["*@other".into()]), "deny not-allowed");
    for subject in ["ann@evil.example", "a\n@corp.example", ""] {
        let said = table(|_, f| grant(f).subject = subject.into());
        assert!(said.starts_with("deny"), "{subject:?}: {said}");
    }
    let no = "deny grant";
    for (what, said) in [
        ("nobody", table(|_, f| grant(f).by.clear())),
        ("another authority", table(|_, f| grant(f).by = fixture::set(&["robots"]))),
        ("issuer", table(|_, f| grant(f).issuer = "https://other".into())),
        ("audience", table(|_, f| grant(f).audience = fixture::set(&["boltseal:test"]))),
        ("no audience", table(|_, f| grant(f).audience.clear())),
        ("expired", table(|_, f| grant(f).until = NOW)),
        ("not yet", table(|_, f| grant(f).from = NOW + 61)),
        ("too long", table(|_, f| grant(f).until = NOW - 60 + 30 * 86_400 + 1)),
        ("too long, from 0", table(|_, f| (grant(f).from, grant(f).until) = (0, u64::MAX))),
        ("no clock", table(|_, f| f.now = Fact::Unknown("x".into()))),
        ("amr", table(|_, f| grant(f).amr = fixture::set(&["pwd"]))),
        ("acr", table(|_, f| grant(f).acr = "bronze".into())),
        ("no acr", table(|_, f| grant(f).acr.clear())),
        ("window to come", table(|p, _| authority(p).from = Some("2026-11-24".into()))),
        ("window over", table(|p, _| authority(p).until = Some("2026-11-22".into()))),
        ("identity", table(|p, _| authority(p).identities = vec!["bob@*".into()])),
        ("namespace of the authority", table(|p, _| authority(p).namespaces = vec!["bank".into()])),
    ] {
        assert_eq!(said, no, "{what}");
    }
    for said in [
        table(|_, f| grant(f).until = NOW + 1),
        table(|_, f| grant(f).from = NOW + 60),
        table(|_, f| grant(f).until = NOW - 60 + 30 * 86_400),
        table(|_, f| grant(f).audience = fixture::set(&["boltseal:node-7", "x"])),
        table(|p, f| {
            authority(p).acr.clear();
            grant(f).acr.clear();
        }),
        table(|p, _| (authority(p).from, authority(p).until) = (Some("2026-11-23".into()), Some("2026-11-23".into()))),
    ] {
        assert_eq!(said, "pass");
    }
}

/// Of two authorities with one key, the one whose word it is counts: a rotation's windows overlap.
#[test]
fn one_authority_of_several_is_enough() {
    let two = |change: fn(&mut GrantAuthority)| {
        table(move |p, f| {
            let mut other = authority(p).clone();
            other.name = "older".into();
            change(&mut other);
            p.owner.grant.as_mut().unwrap().authorities.insert(0, other);
            grant(f).by.insert("older".into());
        })
    };
    assert_eq!(two(|a| a.until = Some("2026-01-01".into())), "pass");
    assert_eq!(two(|a| a.issuer = "https://other".into()), "pass");
    assert_eq!(two(|_| {}), "pass");
}

#[test]
fn for_this_pod_and_no_other() {
    let other = "deny other-pod";
    assert_eq!(table(|_, f| f.subject.pod_namespace = "shop-2".into()), other);
    assert_eq!(table(|_, f| grant(f).namespaces = fixture::set(&["shop", "bank"])), "pass");
    assert_eq!(table(|_, f| grant(f).namespaces.clear()), other);
    assert_eq!(table(|_, f| f.subject.pod_name = "cache-0".into()), other);
    assert_eq!(table(|_, f| f.subject.pod_name = "db-1".into()), "pass");
    assert_eq!(table(|_, f| grant(f).pods.clear()), other);
    let nowhere = |p: &mut Policy, f: &mut Facts| {
        authority(p).namespaces = vec!["*".into()];
        f.subject.pod_namespace.clear();
        grant(f).namespaces = fixture::set(&[""]);
    };
    assert_eq!(table(nowhere), other);
    let nameless = |_: &mut Policy, f: &mut Facts| {
        f.subject.pod_name.clear();
        grant(f).pods = vec!["*".into()];
    };
    assert_eq!(table(nameless), other);
}

#[test]
fn for_these_containers_and_images() {
    let no = "deny beyond-grant";
    assert_eq!(table(|_, f| f.subject.container_name = "debugger".into()), no);
    let nameless = |_: &mut Policy, f: &mut Facts| {
        f.subject.container_name.clear();
        grant(f).containers[0].name.clear();
    };
    assert_eq!(table(nameless), no);
    assert_eq!(table(|_, f| grant(f).containers[0].images = fixture::set(&[&fixture::digest('9')])), no);
    assert_eq!(table(|_, f| grant(f).containers[0].images.clear()), no);
    // The index that leads to it.
    let index = |_: &mut Policy, f: &mut Facts| {
        if let Fact::Is(image) = &mut f.image {
            image.target = fixture::digest('8');
        }
        grant(f).containers[0].images = fixture::set(&[&fixture::digest('8')]);
    };
    assert_eq!(table(index), "pass");
    assert_eq!(table(|_, f| f.image = Fact::Absent), "deny unknown");
    assert_eq!(table(|_, f| f.image = Fact::Unknown("x".into())), "deny unknown");
    // The sandbox runs nothing of the pod's: its grant is the pod's.
    let sandbox = |_: &mut Policy, f: &mut Facts| {
        f.subject.sandbox_id.clone_from(&f.subject.id);
        f.subject.container_name.clear();
    };
    assert_eq!(table(sandbox), "pass");
    assert_eq!(
        table(|p, f| {
            sandbox(p, f);
            f.subject.pod_namespace = "bank".into();
            authority(p).namespaces = vec!["*".into()];
        }),
        "deny other-pod"
    );
}

#[test]
fn for_these_mounts() {
    let with = |origin: Origin, source: &'static str, writable: bool, granted: &'static [GrantedMountOf]| {
        table(|_, f| {
            let object = Object { origin: origin.clone(), ..Object::default() };
            f.mounts.push(Mount {
                index: 9,
                destination: "/data".into(),
                kind: "bind".into(),
                source: source.into(),
                options: Vec::new(),
                unknown_options: Vec::new(),
                writable,
                propagation: None,
                object: Fact::Is(object),
                idmap: None,
            });
            grant(f).containers[0].mounts = granted.iter().map(|of| of()).collect();
        })
    };
    type GrantedMountOf = fn() -> GrantedMount;
    fn data() -> GrantedMount {
        GrantedMount { destination: "/data".into(), ..GrantedMount::default() }
    }
    fn read() -> GrantedMount {
        GrantedMount { readonly: true, ..data() }
    }
    fn host() -> GrantedMount {
        GrantedMount { host: Some("/srv/".into()), ..data() }
    }
    fn elsewhere() -> GrantedMount {
        GrantedMount { destination: "/data/x".into(), ..data() }
    }
    let volume = || Origin::Kubelet("empty-dir".into());
    let no = "deny beyond-grant";
    assert_eq!(with(volume(), "/k/v", true, &[]), no);
    assert_eq!(with(volume(), "/k/v", true, &[elsewhere]), no);
    assert_eq!(with(volume(), "/k/v", true, &[elsewhere, data]), "pass");
    assert_eq!(with(volume(), "/k/v", true, &[read]), no);
    assert_eq!(with(volume(), "/k/v", false, &[read]), "pass");
    assert_eq!(with(volume(), "/k/v", false, &[host]), no);
    // A folder of the host is granted by its path, never as a volume.
    assert_eq!(with(Origin::Host, "/srv", true, &[data]), no);
    assert_eq!(with(Origin::Host, "/srv", true, &[host]), "pass");
    assert_eq!(with(Origin::Host, "/srv/sub", true, &[host]), no);
    assert_eq!(with(Origin::Host, "/srv/../etc", true, &[host]), no);
    // What every container has.
    assert_eq!(with(Origin::Cri("hosts".into()), "/x", true, &[]), "pass");
    assert_eq!(with(Origin::Kubelet("termination-log".into()), "/x", true, &[]), "pass");
    assert_eq!(with(Origin::Kubelet("projected".into()), "/x", false, &[]), no);
    let account = |writable: bool| {
        table(move |_, f| {
            let object = Object { origin: Origin::Kubelet("projected".into()), ..Object::default() };
            f.mounts.push(Mount {
                index: 9,
                destination: ACCOUNT.into(),
                kind: "bind".into(),
                source: "/x".into(),
                options: Vec::new(),
                unknown_options: Vec::new(),
                writable,
                propagation: None,
                object: Fact::Is(object),
                idmap: None,
            });
        })
    };
    assert_eq!([account(false), account(true)], ["pass", no]);
}
