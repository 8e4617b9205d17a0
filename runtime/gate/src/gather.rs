//! Gathers the facts of a request: the one place that asks containerd, the files and the kernel, in this order.
//! What cannot be had becomes `Unknown` and denies; it never becomes a default.
use crate::image::{self, NoProof, Signer};
use crate::refuse::{Refused, Result, single};
use crate::sensitivity::{self, Turn};
use crate::trail::{Book, bare};
use crate::worker::Jail;
use crate::{bundle, node, paths, state, sys};
use boltseal_evidence::containerd::{self, Client, Container};
use boltseal_evidence::record::{self, ContainerRecord, Records};
use boltseal_evidence::{hooks, host, mountinfo, mounts, namespaces, rootfs, spec, spec_facts};
use boltseal_launch::Parked;
use boltseal_message::{Code, Create, Exec, FileStamp, Request, Stdio};
use boltseal_node::measured::Log;
use boltseal_policy::facts::{Bound, Bundle, Door, Facts, Rootfs, Subject};
use boltseal_policy::{Fact, Policy};
use boltseal_seal::{Label, Sealed};
use boltseal_trust::Key;
use oci_spec::runtime::{LinuxResources, Process, Spec};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// The annotation that names the owner.
const OWNER: &str = "boltseal.dev/owner";
/// CRI's annotations: they narrow and are compared, they prove nothing.
const CRI: [(&str, &str); 4] = [
    ("io.kubernetes.cri.sandbox-id", "sandbox id"),
    ("io.kubernetes.cri.sandbox-namespace", "pod namespace"),
    ("io.kubernetes.cri.sandbox-name", "pod name"),
    ("io.kubernetes.cri.sandbox-uid", "pod uid"),
];

/// The policy bundle in force.
#[derive(Debug)]
pub(crate) struct InForce {
    pub(crate) rules: Policy,
    pub(crate) digest: String,
    pub(crate) stamps: Vec<FileStamp>,
    signers: Vec<Signer>,
    node_key: Option<Vec<u8>>,
    node_jwks: Option<Vec<u8>>,
    bundle: Bundle,
    measured: Option<Log>,
}

/// Everything that a create is decided and sealed from.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub(crate) facts: Facts,
    pub(crate) spec: Spec,
    /// A status that says more than the rule's own.
    pub(crate) code: Option<Code>,
    /// Held until the container has its record.
    pub(crate) turn: Option<Turn>,
    /// Copies of the hooks' files, which the facts name: they last as long as this.
    pub(crate) hooks: Vec<OwnedFd>,
}

/// Loads the bundle. One that is missing, malformed or writable by others denies everything, recorded as BS-NOD-004.
pub(crate) fn policy(request: &Request, book: &mut Book, door: Door, exec_id: &str) -> Result<InForce> {
    load_policy()
        .map_err(|why| {
            let fix = "repair the bundle and run `boltseal policy lint`";
            let denial = single("BS-NOD-004", "policy-unreadable", why, fix);
            book.refuse(bare(request, door, exec_id), denial, Some(Code::FailedPrecondition))
        })
        .inspect(|policy| {
            book.policy.clone_from(&policy.digest);
            book.level = format!("{:?}", policy.rules.level).to_lowercase();
        })
}

fn load_policy() -> std::result::Result<InForce, String> {
    let bundle::Loaded { rules, files, fact, stamps, measured } = bundle::load()?;
    let mut signers = Vec::new();
    for authority in &rules.authorities {
        let file = || format!("trust/{} of authority \"{}\"", authority.key, authority.name);
        let pem = files.trust(&authority.key).ok_or_else(|| format!("{} is missing", file()))?;
        let pem = std::str::from_utf8(pem).map_err(|e| format!("{}: {e}", file()))?;
        let key = Key::from_spki_pem(pem).map_err(|e| format!("{}: {}", file(), e.0))?;
        signers.push(Signer { authority: authority.name.clone(), key });
    }
    let node_key = Some(&rules.node.attestation_key).filter(|name| !name.is_empty());
    let node_key = match node_key {
        None => None,
        Some(name) => Some(files.trust(name).ok_or_else(|| format!("trust/{name} of [node] is missing"))?.to_vec()),
    };
    let node_jwks = rules.node.ear.as_ref().and_then(|ear| files.trust(&ear.jwks)).map(<[u8]>::to_vec);
    Ok(InForce { digest: files.digest, stamps, rules, signers, node_key, node_jwks, bundle: fact, measured })
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
    facts.seccomp = of_spec.seccomp;
    facts.label = of_spec.label;
    facts.namespaces = of_spec.namespaces;
    facts.user_namespace = of_spec.user_namespace;
    facts.foreign_fields = of_spec.foreign_fields;
    facts.restore = !create.checkpoint.is_empty() || !create.parent_checkpoint.is_empty();
    facts.log_programs = log_programs(&create.stdio);
    host::label(&mut facts.label, policy.rules.label.apparmor.first().map(String::as_str));
    host::selinux_types(&mut facts.label, policy.rules.label.selinux.first().map(String::as_str));
    facts.owner = owner(parsed.annotation(OWNER));

    let turn = sensitivity::turn(&policy.rules.sensitivity, deadline);
    let records = record::load_node(Path::new(paths::RUN)).map_err(|e| e.to_string());
    facts.sensitivity = sensitivity::named(parsed.annotation(sensitivity::ANNOTATION));
    facts.neighbours = sensitivity::neighbours(request, &records, &turn);
    facts.subject = subject(request, &parsed);
    let netns = containerd_facts(request, create, policy, &records, &mut facts, deadline);
    ours(request, netns.as_deref(), &records, &mut facts);
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
    Ok(Gathered { facts, spec: parsed.spec, code: None, hooks, turn: turn.ok().flatten() })
}

/// The facts of an exec: bounded by the container's own record, without containerd.
pub(crate) fn exec(
    request: &Request,
    folder: &Path,
    exec: &Exec,
    book: &mut Book,
    policy: &InForce,
) -> Result<(Facts, Process, ContainerRecord)> {
    let record = running(request, folder)?;
    let parsed = spec::parse_process(&exec.process).map_err(|why| {
        let denial = single(
            "BS-PRC-008",
            "unreadable-spec",
            format!("the exec's process: {why}"),
            "send a complete OCI process of at most 1 MiB",
        );
        book.refuse(bare(request, Door::Exec, &exec.exec_id), denial, Some(Code::InvalidArgument))
    })?;
    let mut facts = common(Door::Exec, book, policy);
    recorded(&mut facts, &record, folder)?;
    facts.subject.exec_id.clone_from(&exec.exec_id);
    let (process, label, foreign) = spec_facts::facts_of_process(&parsed, floor()?);
    facts.process = process;
    facts.label = label;
    facts.foreign_fields = foreign;
    facts.log_programs = log_programs(&exec.stdio);
    host::label(&mut facts.label, policy.rules.label.apparmor.first().map(String::as_str));
    host::selinux_types(&mut facts.label, policy.rules.label.selinux.first().map(String::as_str));
    facts.seccomp.available = host::seccomp_available();
    Ok((facts, parsed.process, record))
}

/// The facts of an update.
pub(crate) fn update(
    request: &Request,
    folder: &Path,
    resources: &[u8],
    book: &Book,
    policy: &InForce,
) -> Result<(Facts, LinuxResources)> {
    let record = running(request, folder)?;
    let parsed = spec::parse_resources(resources).map_err(|why| {
        let denial = single(
            "BS-PRC-008",
            "unreadable-spec",
            format!("the update's resources: {why}"),
            "send OCI LinuxResources",
        );
        book.refuse(bare(request, Door::Update, ""), denial, Some(Code::InvalidArgument))
    })?;
    let mut facts = common(Door::Update, book, policy);
    recorded(&mut facts, &record, folder)?;
    facts.limits = spec_facts::limits_of(&parsed.resources);
    facts.devices.allowed = spec_facts::device_rules(&parsed.resources);
    let cgroups = cgroups()?;
    facts.devices.enforced = cgroups.devices_enforced();
    facts.foreign_fields = parsed.foreign_fields;
    cgroups.ancestor_limits(&record.cgroup_path, &mut facts.limits).map_err(Refused::internal)?;
    facts.limits.removed = lifted(&parsed.resources);
    Ok((facts, parsed.resources))
}

/// What every door asks: the trail, the clock, the node.
fn common(door: Door, book: &Book, policy: &InForce) -> Facts {
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
        sensitivity: Fact::Absent,
        neighbours: Fact::Absent,
    }
}

fn cgroups() -> Result<host::Cgroups> {
    let table = mountinfo::Table::read().map_err(Refused::internal)?;
    Ok(host::Cgroups::of(&table))
}

fn floor() -> Result<Option<i32>> {
    host::oom_score_floor().map_err(Refused::internal)
}

fn owner(annotation: Option<&str>) -> Fact<String> {
    match annotation {
        None | Some("") => Fact::Absent,
        Some(owner) => Fact::Is(owner.to_owned()),
    }
}

/// What the annotations say; containerd's record and ours have the last word.
fn subject(request: &Request, parsed: &spec::ParsedSpec) -> Subject {
    let text = |name: &str| parsed.annotation(name).unwrap_or_default().to_owned();
    Subject {
        containerd_namespace: request.namespace.clone(),
        id: request.id.clone(),
        sandbox_id: text(CRI[0].0),
        pod_namespace: text(CRI[1].0),
        pod_name: text(CRI[2].0),
        pod_uid: text(CRI[3].0),
        container_name: text("io.kubernetes.cri.container-name"),
        ..Subject::default()
    }
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
                .and_then(|jail| image::prove(&client, &jail, &container, &snapshot.parent, &policy.signers))
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

/// Takes away what only annotations say: from here on a pod's ids are those that a record vouches for, also where the
/// disagreement itself merely warns. Otherwise a claim would make another pod's volumes look like its own.
fn unclaim(subject: &mut Subject) -> Subject {
    let claimed = subject.clone();
    *subject = Subject {
        containerd_namespace: claimed.containerd_namespace.clone(),
        id: claimed.id.clone(),
        image_name: claimed.image_name.clone(),
        ..Subject::default()
    };
    claimed
}

/// Which pod it belongs to, by containerd's CRI metadata and our own record of the sandbox. An annotation that says
/// otherwise is a disagreement and denies.
fn pod(request: &Request, container: &Container, records: &std::result::Result<Records, String>, facts: &mut Facts) {
    let claimed = unclaim(&mut facts.subject);
    let subject = &mut facts.subject;
    let Some(cri) = &container.cri else {
        if !claimed.sandbox_id.is_empty() || !claimed.pod_uid.is_empty() {
            subject.disagreements.push("the annotations name a pod, containerd's record does not".into());
        }
        return;
    };
    subject.is_pod = true;
    subject.sandbox_id.clone_from(&cri.sandbox_id);
    if !cri.container_name.is_empty() {
        subject.container_name.clone_from(&cri.container_name);
    }
    if let Some(pod) = &cri.pod {
        (subject.pod_namespace, subject.pod_name, subject.pod_uid) =
            (pod.namespace.clone(), pod.name.clone(), pod.uid.clone());
    } else {
        match records.as_ref().map(|all| all.get(&request.namespace, &cri.sandbox_id)) {
            Ok(Some(sandbox)) if sandbox.is_sandbox && sandbox.alive() => {
                subject.pod_namespace.clone_from(&sandbox.pod_namespace);
                subject.pod_name.clone_from(&sandbox.pod_name);
                subject.pod_uid.clone_from(&sandbox.pod_uid);
            }
            Ok(_) => subject.disagreements.push(format!("its sandbox {} does not run under boltseal", cri.sandbox_id)),
            Err(why) => subject.disagreements.push(why.clone()),
        }
    }
    let ours = [&subject.sandbox_id, &subject.pod_namespace, &subject.pod_name, &subject.pod_uid];
    let theirs = [&claimed.sandbox_id, &claimed.pod_namespace, &claimed.pod_name, &claimed.pod_uid];
    let mut lines = Vec::new();
    for ((ours, theirs), (_, what)) in ours.into_iter().zip(theirs).zip(CRI) {
        if !theirs.is_empty() && ours != theirs {
            lines.push(format!("{what}: the annotation says {theirs:?}, the record {ours:?}"));
        }
    }
    subject.disagreements.extend(lines);
}

/// What our own records say: whose each namespace is, and whether a user namespace overlaps another pod's.
fn ours(request: &Request, netns: Option<&str>, records: &std::result::Result<Records, String>, facts: &mut Facts) {
    let records = match records {
        Ok(records) => records,
        Err(why) => {
            facts.subject.disagreements.push(why.clone());
            return;
        }
    };
    let subject = &facts.subject;
    let context = namespaces::NamespaceContext {
        records,
        namespace: &request.namespace,
        id: &request.id,
        sandbox_id: &subject.sandbox_id,
        is_sandbox: subject.is_pod && subject.sandbox_id == request.id,
        cri_netns: netns,
    };
    namespaces::resolve(&mut facts.namespaces, &context);
    if let Some(user) = &mut facts.user_namespace {
        user.overlaps = namespaces::overlaps(user, &context);
    }
}

fn running(request: &Request, folder: &Path) -> Result<ContainerRecord> {
    let record = record::load(folder)
        .map_err(|e| Refused::because(Code::NotFound, format!("the container {} has no record: {e}", request.id)))?;
    if record.alive() {
        return Ok(record);
    }
    Err(Refused::because(Code::FailedPrecondition, format!("the container {} does not run", request.id)))
}

/// What the container's own record adds to the facts of an exec or an update.
fn recorded(facts: &mut Facts, record: &ContainerRecord, folder: &Path) -> Result<()> {
    facts.image = Fact::Is(state::image(folder)?);
    facts.bound = Fact::Is(record.bound.clone());
    facts.owner = if record.owner.is_empty() { Fact::Absent } else { Fact::Is(record.owner.clone()) };
    facts.subject = Subject {
        containerd_namespace: record.namespace.clone(),
        id: record.id.clone(),
        image_name: record.image.clone(),
        pod_namespace: record.pod_namespace.clone(),
        pod_name: record.pod_name.clone(),
        pod_uid: record.pod_uid.clone(),
        container_name: record.container_name.clone(),
        sandbox_id: record.sandbox_id.clone(),
        is_pod: !record.sandbox_id.is_empty(),
        ..Subject::default()
    };
    Ok(())
}

/// Limits that the update would lift: a limit once set may change, not go.
fn lifted(resources: &LinuxResources) -> Vec<String> {
    let mut out = Vec::new();
    if resources.memory().as_ref().and_then(|m| m.limit()).is_some_and(|limit| limit <= 0) {
        out.push("memory.limit".into());
    }
    if resources.pids().as_ref().map(oci_spec::runtime::LinuxPids::limit).is_some_and(|limit| limit <= 0) {
        out.push("pids.limit".into());
    }
    out
}

/// stdio that would run a program, or whose scheme nobody knows.
fn log_programs(stdio: &Stdio) -> Vec<String> {
    let uris = [&stdio.stdin, &stdio.stdout, &stdio.stderr];
    let foreign = |uri: &&&String| uri.contains("://") && !uri.starts_with("file://") && !uri.starts_with("fifo://");
    uris.iter().filter(foreign).map(|uri| (*uri).clone()).collect()
}

/// The record that later requests are bounded by.
pub(crate) fn record(
    request: &Request,
    facts: &Facts,
    terms: &boltseal_policy::Terms,
    sealed: &Sealed,
    parked: &Parked,
    decision: &str,
) -> ContainerRecord {
    let subject = &facts.subject;
    let image = facts.image.is();
    ContainerRecord {
        version: record::VERSION,
        id: request.id.clone(),
        namespace: request.namespace.clone(),
        sandbox_id: subject.sandbox_id.clone(),
        is_sandbox: subject.is_pod && subject.sandbox_id == request.id,
        pod_namespace: subject.pod_namespace.clone(),
        pod_name: subject.pod_name.clone(),
        pod_uid: subject.pod_uid.clone(),
        container_name: subject.container_name.clone(),
        pid: parked.pid,
        start_time: parked.start_time,
        cgroup_path: sealed.table.cgroup_path.clone(),
        cgroups: parked.cgroups.clone(),
        namespaces: parked.namespaces.clone(),
        user_ns_ranges: facts
            .user_namespace
            .iter()
            .flat_map(|u| u.uids.iter().map(|(_, host, size)| (*host, *size)))
            .collect(),
        bound: Bound {
            capabilities: sealed.table.capabilities.clone(),
            label: match &sealed.table.label {
                None => String::new(),
                Some(Label::AppArmor(name) | Label::Selinux(name)) => name.clone(),
            },
            user_namespace: facts.user_namespace.is_some(),
            uid: sealed.table.uid,
            repository: terms.repository.clone(),
            authority: terms.authority.clone(),
        },
        owner: facts.owner.is().cloned().unwrap_or_default(),
        image: subject.image_name.clone(),
        digest: image.map(|i| i.manifest.clone()).unwrap_or_default(),
        repository: terms.repository.clone().unwrap_or_default(),
        integrity: facts.rootfs.is().map(|rootfs| rootfs.integrity.clone()).unwrap_or_default(),
        sensitivity: terms.sensitivity.clone(),
        decision: decision.into(),
    }
}

pub(crate) fn boottime_ns() -> Result<u64> {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
        .map_err(|e| Refused::internal(format!("CLOCK_BOOTTIME: {e}")))?;
    let time = Duration::from(time);
    u64::try_from(time.as_nanos()).map_err(|_| Refused::internal("CLOCK_BOOTTIME is beyond its range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_of_an_annotation_does_not_outlive_the_records() {
        let mut subject = Subject {
            id: "c1".into(),
            containerd_namespace: "k8s.io".into(),
            sandbox_id: "victim".into(),
            pod_uid: "victim-uid".into(),
            pod_namespace: "prod".into(),
            pod_name: "db".into(),
            container_name: "x".into(),
            ..Subject::default()
        };
        let claimed = unclaim(&mut subject);
        assert_eq!((claimed.sandbox_id.as_str(), claimed.pod_uid.as_str()), ("victim", "victim-uid"));
        let kept = Subject { id: "c1".into(), containerd_namespace: "k8s.io".into(), ..Subject::default() };
        assert_eq!(subject, kept);
    }
}
