//! Gathers the facts of a request: the one place that asks containerd, the files and the kernel, in this order.
//! What cannot be had becomes `Unknown` and denies; it never becomes a default.
mod pod;
mod policy;
mod record;
mod running;

pub(crate) use policy::{InForce, load_policy as policy_in_force, policy};
pub(crate) use record::record;
pub(crate) use running::{exec, update};

use pod::{ours, pod, subject, unclaim};

use crate::image::{self, NoProof};
use crate::refuse::{Refused, Result, single};
use crate::sensitivity::{self, Turn};
use crate::trail::{Book, bare};
use crate::{break_glass, checked, grant, node, owner, paths, scan, sys, verity};
use boltseal_evidence::containerd::{self, Client};
use boltseal_evidence::record::{Records, load_node};
use boltseal_evidence::{hooks, host, mountinfo, mounts, rootfs, spec, spec_facts};
use boltseal_jail::{Jail, Parse};
use boltseal_launch::SealedMount;
use boltseal_message::{Code, Create, Request, Stdio};
use boltseal_policy::Fact;
use boltseal_policy::facts::{Door, Facts, Rootfs, Subject};
use boltseal_policy::network;
use boltseal_policy::standard::OWNER_ANNOTATION;
use oci_spec::runtime::Spec;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest that the workers of break-glass files may take together.
const BREAK_GLASS_TIME: Duration = Duration::from_secs(1);

/// Everything that a create is decided and sealed from.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub(crate) facts: Facts,
    pub(crate) spec: Spec,
    /// A status that says more than the rule's own.
    pub(crate) code: Option<Code>,
    /// Held until the container has its record.
    pub(crate) turn: Option<Turn>,
    /// What image and owner took, containerd's records among it.
    pub(crate) image: Duration,
    /// Copies of the hooks' files, which the facts name: they last as long as this.
    pub(crate) hooks: Vec<OwnedFd>,
    /// The layers of a sealed image, which the launch mounts. They go with this, and with whoever has them mounted.
    pub(crate) sealed: Option<Vec<SealedMount>>,
}

/// The facts of a create.
pub(crate) fn create(
    request: &Request,
    create: &Create,
    book: &mut Book,
    policy: &InForce,
    deadline: Instant,
) -> Result<Gathered> {
    let bundle = Path::new(&request.bundle);
    let parsed = spec::read_config(bundle).and_then(|bytes| spec::parse(&bytes)).map_err(|why| {
        let denial = single(
            "BS-PRC-008",
            "unreadable-spec",
            format!("config.json: {why}"),
            "send a complete OCI spec of at most 1 MiB",
        );
        book.refuse(bare(request, Door::Create, ""), denial, Some(Code::InvalidArgument))
    })?;
    let cgroups = cgroups()?;
    let context = spec_facts::SpecContext {
        bundle,
        oom_score_floor: floor()?,
        seccomp_available: host::seccomp_available(),
        devices_enforced: cgroups.devices_enforced(),
    };
    let of_spec = spec_facts::facts_of_spec(&parsed, &context);
    let mut facts = common(Door::Create, book, policy);
    facts.process = of_spec.process;
    facts.hooks = of_spec.hooks;
    facts.limits = of_spec.limits;
    facts.sysctls = of_spec.sysctls;
    facts.mounts = of_spec.mounts;
    facts.root = of_spec.root;
    facts.devices = of_spec.devices;
    host::device_nodes(&mut facts.devices);
    facts.seccomp = of_spec.seccomp;
    facts.label = of_spec.label;
    facts.namespaces = of_spec.namespaces;
    facts.user_namespace = of_spec.user_namespace;
    facts.foreign_fields = of_spec.foreign_fields;
    facts.restore = !create.checkpoint.is_empty() || !create.parent_checkpoint.is_empty();
    facts.log_programs = log_programs(&create.stdio);
    host::label(&mut facts.label, policy.rules.label.apparmor.first().map(String::as_str));
    host::selinux_types(&mut facts.label, policy.rules.label.selinux.first().map(String::as_str));

    let turn = sensitivity::turn(&policy.rules.sensitivity, &facts.namespaces, deadline);
    let records = load_node(Path::new(paths::RUN)).map_err(|e| e.to_string());
    facts.sensitivity = sensitivity::named(parsed.annotation(sensitivity::ANNOTATION));
    facts.neighbours = sensitivity::neighbours(request, &records, &turn);
    facts.subject = subject(request, &parsed);
    let begun = Instant::now();
    let netns = containerd_facts(request, create, policy, &records, &mut facts, deadline);
    let sealed = verity::gather(&policy.rules, &mut facts, deadline);
    checked::gather(&mut facts);
    facts.scan = scan::fact(&policy.rules, &facts, sealed.as_deref(), deadline);
    let (of_pod, jwks) = (&facts.subject, policy.owner_jwks.as_deref());
    facts.owner_token = owner::token(&policy.rules.owner, jwks, &policy.rules.mounts.kubelet_root, of_pod, &facts.now);
    let environment = parsed.spec.process().as_ref().and_then(|process| process.env().as_deref()).unwrap_or_default();
    let carried = parsed.annotation(grant::ANNOTATION);
    facts.owner_grant = grant::fact(&policy.rules.owner, &policy.grantors, carried, environment, || {
        Jail::new(deadline).map(|jail| Box::new(jail) as Box<dyn Parse>)
    });
    let image = begun.elapsed();
    facts.ports = network::named(|name| parsed.annotation(name), &facts.subject.container_name);
    facts.network_hooks = match boltseal_launch::network_hooks() {
        Ok(true) => Fact::Is(()),
        Ok(false) => Fact::Absent,
        Err(why) => Fact::Unknown(why),
    };
    ours(request, netns.as_deref(), &records, &turn, &mut facts);
    let hooks = hooks::read(&mut facts.hooks);
    let path = parsed.spec.linux().as_ref().and_then(|l| l.cgroups_path().clone()).unwrap_or_default();
    if let Err(why) = cgroups.ancestor_limits(&path.to_string_lossy(), &mut facts.limits) {
        facts.foreign_fields.push(format!("linux.cgroupsPath ({why})"));
    }
    mounts::resolve(
        &mut facts.mounts,
        &mounts::MountContext {
            sensitive: &policy.rules.mounts.sensitive,
            kubelet_root: &policy.rules.mounts.kubelet_root,
            containerd_root: &policy.rules.mounts.containerd_root,
            containerd_state: &policy.rules.mounts.containerd_state,
            sandbox_id: &facts.subject.sandbox_id,
            pod_uid: &facts.subject.pod_uid,
            container_id: &request.id,
            container_name: &facts.subject.container_name,
        },
    );
    // Last of all: a grant speaks of mounts.
    let named = owner::named(parsed.annotation(OWNER_ANNOTATION));
    facts.owner = owner::owner(&policy.rules, named, &facts);
    Ok(Gathered { facts, spec: parsed.spec, code: None, hooks, sealed, turn: turn.ok().flatten(), image })
}

/// What every door asks: the trail, the clock, the node.
pub(crate) fn common(door: Door, book: &Book, policy: &InForce) -> Facts {
    let now = match book.last_time() {
        Ok(last) => host::now(last, policy.rules.signed_at),
        Err(why) => Fact::Unknown(why),
    };
    let given = node::Given {
        key: policy.node_key.as_deref(),
        jwks: policy.node_jwks.as_deref(),
        policy_digest: &policy.digest,
        measured: policy.measured.as_ref(),
        now: &now,
    };
    Facts {
        door,
        node: node::fact(&policy.rules.node, &given),
        now,
        landlock: Fact::Is(boltseal_launch::landlock_abi()),
        audit: book.ready(),
        bundle: Fact::Is(policy.bundle.clone()),
        kexec: host::kexec(Fact::Is(sys::kexec_is_absent())),
        subject: Subject::default(),
        image: Fact::default(),
        rootfs: Fact::default(),
        scan: Fact::Absent,
        process: Default::default(),
        bound: Fact::Absent,
        namespaces: Default::default(),
        user_namespace: None,
        hooks: Vec::new(),
        restore: false,
        log_programs: Vec::new(),
        limits: Default::default(),
        sysctls: Default::default(),
        foreign_fields: Vec::new(),
        mounts: Vec::new(),
        root: Default::default(),
        devices: Default::default(),
        seccomp: Default::default(),
        label: Default::default(),
        owner: Fact::Absent,
        owner_token: Fact::Absent,
        owner_grant: Fact::Absent,
        break_glass: break_glass::gather(&policy.break_glass, policy.node_key.as_deref(), || {
            Jail::new(Instant::now() + BREAK_GLASS_TIME).map(|jail| Box::new(jail) as Box<dyn Parse>)
        }),
        sensitivity: Fact::Absent,
        neighbours: Fact::Absent,
        ports: Fact::Absent,
        network_hooks: Fact::Absent,
    }
}

fn cgroups() -> Result<host::Cgroups> {
    let table = mountinfo::Table::read().map_err(Refused::internal)?;
    Ok(host::Cgroups::of(&table))
}

fn floor() -> Result<Option<i32>> {
    host::oom_score_floor().map_err(Refused::internal)
}

/// containerd's records: the container, its image, its snapshot. One connection, two seconds in all. Returns the network
/// namespace that CRI made for this sandbox.
fn containerd_facts(
    request: &Request,
    create: &Create,
    policy: &InForce,
    records: &std::result::Result<Records, String>,
    facts: &mut Facts,
    deadline: Instant,
) -> Option<String> {
    let deadline = deadline.min(Instant::now() + containerd::CAP);
    let asked = Client::connect(&request.address, &request.namespace, deadline)
        .and_then(|client| client.container(&request.id).map(|container| (client, container)));
    let (client, container) = match asked {
        Ok(both) => both,
        Err(error) => {
            unclaim(&mut facts.subject);
            facts.image = NoProof::Containerd(error.clone()).fact();
            facts.rootfs = NoProof::Containerd(error).fact();
            return None;
        }
    };
    facts.subject.image_name.clone_from(&container.image);
    pod(request, &container, records, facts);
    match client.snapshot(&container.snapshotter, &container.snapshot_key) {
        Ok(snapshot) => {
            facts.image = Jail::new(deadline)
                .map_err(NoProof::Why)
                .and_then(|jail| {
                    let signed = image::Signed {
                        jail: &jail,
                        signers: &policy.signers,
                        now: facts.now.is().copied(),
                        reads: boltseal_policy::rules::statements_asked(&policy.rules),
                    };
                    image::prove(&client, &signed, &container, &snapshot.parent)
                })
                .map_or_else(NoProof::fact, Fact::Is);
            facts.rootfs = Fact::Is(rootfs::rootfs_facts(&create.rootfs, &container.snapshotter, &snapshot));
        }
        Err(error) => {
            facts.image = NoProof::Containerd(error.clone()).fact();
            facts.rootfs = NoProof::Containerd(error).fact::<Rootfs>();
        }
    }
    container.cri.filter(|cri| cri.is_sandbox).map(|cri| cri.netns)
}

/// stdio that would run a program, or whose scheme nobody knows.
fn log_programs(stdio: &Stdio) -> Vec<String> {
    let uris = [&stdio.stdin, &stdio.stdout, &stdio.stderr];
    let foreign = |uri: &&&String| uri.contains("://") && !uri.starts_with("file://") && !uri.starts_with("fifo://");
    uris.iter().filter(foreign).map(|uri| (*uri).clone()).collect()
}

pub(crate) fn boottime_ns() -> Result<u64> {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
        .map_err(|e| Refused::internal(format!("CLOCK_BOOTTIME: {e}")))?;
    let time = Duration::from(time);
    u64::try_from(time.as_nanos()).map_err(|_| Refused::internal("CLOCK_BOOTTIME is beyond its range"))
}
