//! The facts of a bundle, gathered by the same code as a start's. What only containerd or a start can say is Unknown.
use super::Chosen;
use crate::doctor::kernel::has_landlock;
use crate::node;
use crate::paths::{RUN, TRAIL};
use crate::screen::Failure;
use boltseal_audit::Trail;
use boltseal_evidence::spec::ParsedSpec;
use boltseal_evidence::{hooks, host, mountinfo, mounts, namespaces, record, spec_facts};
use boltseal_policy::facts::{Bundle, Door, Facts, Neighbour, Node, Subject};
use boltseal_policy::standard::OWNER_ANNOTATION;
use boltseal_policy::{Fact, Policy, network};
use std::path::Path;

const SENSITIVITY: &str = "boltseal.dev/sensitivity";
const OFFLINE: &str = "a start asks containerd for it; offline it is not known";

pub(crate) fn gather(bundle: &Path, parsed: &ParsedSpec, chosen: &Chosen) -> Result<Facts, Failure> {
    let policy = chosen.policy();
    let table = mountinfo::Table::read().map_err(Failure::undecided)?;
    let cgroups = host::Cgroups::of(&table);
    let context = spec_facts::SpecContext {
        bundle,
        oom_score_floor: host::oom_score_floor().map_err(Failure::undecided)?,
        seccomp_available: host::seccomp_available(),
        devices_enforced: cgroups.devices_enforced(),
    };
    let spec = spec_facts::facts_of_spec(parsed, &context);
    let (now, audit) = trail(policy);
    let mut facts = Facts {
        door: Door::Create,
        now,
        subject: subject(parsed),
        image: Fact::Unknown(OFFLINE.into()),
        rootfs: Fact::Unknown(OFFLINE.into()),
        scan: Fact::Unknown(OFFLINE.into()),
        process: spec.process,
        bound: Fact::Absent,
        namespaces: spec.namespaces,
        user_namespace: spec.user_namespace,
        hooks: spec.hooks,
        restore: false,
        log_programs: Vec::new(),
        limits: spec.limits,
        sysctls: spec.sysctls,
        foreign_fields: spec.foreign_fields,
        mounts: spec.mounts,
        root: spec.root,
        devices: spec.devices,
        seccomp: spec.seccomp,
        label: spec.label,
        owner_token: Fact::Absent,
        owner_grant: Fact::Absent,
        break_glass: Default::default(),
        owner: parsed
            .annotation(OWNER_ANNOTATION)
            .filter(|owner| !owner.is_empty())
            .map_or(Fact::Absent, |owner| Fact::Is(owner.to_owned())),
        node: node_fact(chosen),
        bundle: bundle_fact(chosen),
        sensitivity: parsed.annotation(SENSITIVITY).map_or(Fact::Absent, |name| Fact::Is(name.to_owned())),
        neighbours: neighbours(),
        ports: network::named(
            |name| parsed.annotation(name),
            parsed.annotation("io.kubernetes.cri.container-name").unwrap_or_default(),
        ),
        // Whether the kernel takes programs there, a start asks.
        network_hooks: cgroups.v2.as_ref().map_or(Fact::Absent, |_| Fact::Is(())),
        kexec: host::kexec(Fact::Is(node::kexec_is_absent())),
        landlock: Fact::Is(
            (1..=policy.landlock.abi.max(network::TCP_RIGHTS)).rev().find(|abi| has_landlock(*abi)).unwrap_or(0),
        ),
        audit,
    };
    host::label(&mut facts.label, policy.label.apparmor.first().map(String::as_str));
    host::selinux_types(&mut facts.label, policy.label.selinux.first().map(String::as_str));
    host::device_nodes(&mut facts.devices);
    // Only their digests are wanted here.
    drop(hooks::read(&mut facts.hooks));
    let path = parsed.spec.linux().as_ref().and_then(|l| l.cgroups_path().clone()).unwrap_or_default();
    if let Err(why) = cgroups.ancestor_limits(&path.to_string_lossy(), &mut facts.limits) {
        facts.foreign_fields.push(format!("linux.cgroupsPath ({why})"));
    }
    ours(&mut facts, parsed);
    mounts::resolve(
        &mut facts.mounts,
        &mounts::MountContext {
            sensitive: &policy.mounts.sensitive,
            kubelet_root: &policy.mounts.kubelet_root,
            containerd_root: &policy.mounts.containerd_root,
            containerd_state: &policy.mounts.containerd_state,
            // A start takes these from containerd and its own records; here the annotations have to do.
            sandbox_id: &facts.subject.sandbox_id,
            pod_uid: &facts.subject.pod_uid,
            container_id: "",
            container_name: &facts.subject.container_name,
        },
    );
    Ok(facts)
}

fn trail(policy: &Policy) -> (Fact<u64>, Fact<()>) {
    let last = Trail::open(Path::new(TRAIL)).and_then(|trail| trail.can_append().and_then(|()| trail.last_time()));
    match last {
        Ok(last) => (host::now(last, policy.signed_at), Fact::Is(())),
        Err(error) => (Fact::Unknown(error.to_string()), Fact::Unknown(error.to_string())),
    }
}

fn subject(parsed: &ParsedSpec) -> Subject {
    let text = |name: &str| parsed.annotation(name).unwrap_or_default().to_owned();
    let sandbox_id = text("io.kubernetes.cri.sandbox-id");
    Subject {
        id: "check".into(),
        image_name: text("io.kubernetes.cri.image-name"),
        pod_namespace: text("io.kubernetes.cri.sandbox-namespace"),
        pod_name: text("io.kubernetes.cri.sandbox-name"),
        pod_uid: text("io.kubernetes.cri.sandbox-uid"),
        container_name: text("io.kubernetes.cri.container-name"),
        is_pod: !sandbox_id.is_empty(),
        sandbox_id,
        ..Subject::default()
    }
}

/// The origin of each namespace that the spec names by a path, by our own records of the containers that run.
fn ours(facts: &mut Facts, parsed: &ParsedSpec) {
    let records = match record::load_node(Path::new(RUN)) {
        Ok(records) => records,
        Err(problem) => {
            facts.subject.disagreements.push(problem.to_string());
            return;
        }
    };
    let sandbox = parsed.annotation("io.kubernetes.cri.container-type") == Some("sandbox");
    let context = namespaces::NamespaceContext {
        records: &records,
        namespace: "k8s.io",
        id: "",
        sandbox_id: &facts.subject.sandbox_id,
        is_sandbox: sandbox,
        cri_netns: None,
        cri_userns: None,
    };
    namespaces::resolve(&mut facts.namespaces, &context);
    if let Some(user) = &mut facts.user_namespace {
        user.joined = namespaces::joined(&facts.namespaces, &context);
        user.overlaps = Fact::Is(namespaces::overlaps(&user.ids, &context));
    }
}

/// What runs now, the container itself among it if it is running.
fn neighbours() -> Fact<Vec<Neighbour>> {
    match record::load_node(Path::new(RUN)) {
        Err(problem) => Fact::Unknown(problem.to_string()),
        Ok(records) => match records.incomplete.first() {
            Some(folder) => Fact::Unknown(format!("{} has no record yet", folder.display())),
            None => Fact::Is(
                records
                    .records
                    .iter()
                    .filter(|r| r.alive())
                    .map(|r| Neighbour { id: format!("{}/{}", r.namespace, r.id), sensitivity: r.sensitivity.clone() })
                    .collect(),
            ),
        },
    }
}

fn bundle_fact(chosen: &Chosen) -> Fact<Bundle> {
    match chosen {
        Chosen::Other(_) => Fact::Unknown("a start is judged by the bundle in force, not by this policy".into()),
        Chosen::InForce(loaded) => match crate::policy_sign::standing(&loaded.bundle) {
            Ok(found) => Fact::Is(found),
            Err(why) => Fact::Unknown(why),
        },
    }
}

/// The kept verdict, verified anew. No quote is asked for: that is a start's to do.
fn node_fact(chosen: &Chosen) -> Fact<Node> {
    let Chosen::InForce(loaded) = chosen else {
        return Fact::Unknown("the node is attested under the policy in force, not under this one".into());
    };
    match node::look(loaded) {
        Err(failure) => Fact::Unknown(failure.text),
        Ok(None) => Fact::Absent,
        Ok(Some(status)) => Fact::Is(Node {
            tpm: if status.software { "software".into() } else { "hardware".into() },
            verified: status.verified,
            wrong_pcrs: status
                .pcrs
                .iter()
                .filter(|(_, (_, accepted))| !accepted)
                .map(|(pcr, (value, _))| (*pcr, value.clone()))
                .collect(),
            problems: status.problems,
            notes: Vec::new(),
        }),
    }
}
