//! Nodes that are made up: what gathering would find out about a spec there, and a policy.
use boltseal_evidence::spec::{self, ParsedSpec};
use boltseal_evidence::spec_facts::{SpecContext, facts_of_spec};
use boltseal_fuzz::start::Grant;
use boltseal_policy::facts::{Facts, Hook, Image, Lsm, Namespace, NamespaceOrigin, Object, Origin};
use boltseal_policy::policy::{Level, Mode, Policy};
use boltseal_policy::{Fact, fixture, network, rules};
use std::path::Path;
use std::sync::LazyLock;

pub(super) struct World {
    pub(super) name: &'static str,
    pub(super) policy: Policy,
    pub(super) lsm: Lsm,
    /// The same, said once more for the oracle.
    pub(super) grant: Grant,
}

const BUNDLE: &str = "/bundle";

/// Of pod `u1` with the sandbox `s1`.
const OWN: [(&str, &str); 5] = [
    ("/var/lib/kubelet/pods/u1/volumes/kubernetes.io~empty-dir/tmp", "folder"),
    ("/var/lib/kubelet/pods/u1/volumes/kubernetes.io~configmap/c", "folder"),
    ("/var/lib/kubelet/pods/u1/etc-hosts", "file"),
    ("/var/lib/kubelet/pods/u1/containers/app/1", "file"),
    ("/run/containerd/io.containerd.grpc.v1.cri/sandboxes/s1/resolv.conf", "file"),
];

/// What else there is: path, kind, the sensitive path that it touches.
const HOST: [(&str, &str, Option<&str>); 6] = [
    ("/opt/readable", "folder", None),
    ("/opt/writable", "folder", None),
    ("/etc", "folder", Some("/etc")),
    ("/run/containerd/containerd.sock", "socket", Some("/run")),
    ("/dev/vda", "block", Some("/dev")),
    ("/var/lib/kubelet/pods/u2/volumes/kubernetes.io~secret/s", "folder", Some("/var/lib/kubelet")),
];

const PLAIN: Grant = Grant {
    own: &[OWN[0].0, OWN[1].0, OWN[2].0, OWN[3].0, OWN[4].0],
    links: &[("/alias", "/etc")],
    own_namespaces: &[
        ("network", "/proc/4242/ns/net"),
        ("ipc", "/proc/4242/ns/ipc"),
        ("uts", "/proc/4242/ns/uts"),
        ("pid", "/proc/4242/ns/pid"),
    ],
    ..Grant::NOTHING
};

/// As the fixture's allowance has it.
const GRANTED: Grant = Grant {
    capabilities: &["NET_ADMIN"],
    mounts: &[("/opt/readable", false), ("/opt/writable", true)],
    devices: &[("/dev/fuse", "c", 10, 229)],
    sysctls: &["net.ipv4.ip_forward"],
    host_namespaces: &["network"],
    executable: &["/plugins"],
    hooks: &[("createRuntime", "/opt/hook")],
    ..PLAIN
};

pub(super) static ALL: LazyLock<[World; 4]> = LazyLock::new(|| {
    let plain = || {
        let mut policy = fixture::policy();
        policy.owner.patterns = vec![format!("*{}", PLAIN.owners)];
        policy
    };
    let mut granted = plain();
    granted.allowances = vec![fixture::allowance()];
    let strict = Policy { level: Level::Strict, ..plain() };
    let mut warned = plain();
    warned.level = Level::Baseline;
    let others = rules::all().iter().filter(|rule| rule.id != "BS-AUD-001");
    warned.modes = others.map(|rule| (rule.id.to_owned(), Mode::Warn)).collect();
    [
        World { name: "plain", policy: plain(), lsm: Lsm::AppArmor, grant: PLAIN },
        World { name: "granted", policy: granted, lsm: Lsm::AppArmor, grant: GRANTED },
        World { name: "strict", policy: strict, lsm: Lsm::Selinux, grant: Grant { device_rules: false, ..PLAIN } },
        World { name: "warned", policy: warned, lsm: Lsm::Neither, grant: Grant { enforced: false, ..PLAIN } },
    ]
});

impl World {
    /// What is known of a start with this config.json, and the spec.
    pub(super) fn facts(&self, config: &[u8]) -> Result<(Facts, ParsedSpec), String> {
        let parsed = spec::parse(config)?;
        let context = SpecContext {
            bundle: Path::new(BUNDLE),
            oom_score_floor: Some(0),
            seccomp_available: true,
            devices_enforced: self.grant.device_rules,
        };
        let of_spec = facts_of_spec(&parsed, &context);
        let mut facts = Facts {
            process: of_spec.process,
            hooks: of_spec.hooks,
            limits: of_spec.limits,
            sysctls: of_spec.sysctls,
            mounts: of_spec.mounts,
            root: of_spec.root,
            devices: of_spec.devices,
            seccomp: of_spec.seccomp,
            label: of_spec.label,
            namespaces: of_spec.namespaces,
            user_namespace: of_spec.user_namespace,
            foreign_fields: of_spec.foreign_fields,
            owner_token: Fact::Absent,
            owner_grant: Fact::Absent,
            break_glass: Default::default(),
            owner: parsed.annotation("boltseal.dev/owner").map_or(Fact::Absent, |o| Fact::Is(o.into())),
            sensitivity: parsed.annotation("boltseal.dev/sensitivity").map_or(Fact::Absent, |s| Fact::Is(s.into())),
            ports: network::named(|name| parsed.annotation(name), "app"),
            ..fixture::facts()
        };
        if let Fact::Is(image) = &mut facts.image {
            signed(image, &parsed);
        }
        facts.label.lsm = self.lsm.clone();
        facts.label.enforcing = self.lsm == Lsm::Selinux;
        let (listed, known) = match self.lsm {
            Lsm::Selinux => (facts.label.selinux.is_some(), "known"),
            _ => (facts.label.apparmor.as_deref() == Some("boltseal-default"), "enforce"),
        };
        facts.label.mode = listed.then(|| known.into());
        facts.label.default_mode = Some(known.into());
        facts.devices.host = [("/dev/fuse", ('c', 10, 229)), ("/dev/vda", ('b', 254, 0))]
            .map(|(path, device)| (path.to_owned(), device))
            .into();
        facts.namespaces.listed.iter_mut().filter(|n| !n.path.is_empty()).for_each(namespace);
        facts.hooks.iter_mut().for_each(hook);
        for mount in facts.mounts.iter_mut().filter(|m| m.kind == "bind") {
            mount.object = object(&mount.source);
        }
        Ok((facts, parsed))
    }
}

/// The image's config says what is asked for, but for a variable by which other code would run.
fn signed(image: &mut Image, parsed: &ParsedSpec) {
    let Some(process) = parsed.spec.process() else { return };
    let env = process.env().as_deref().unwrap_or_default();
    image.args = process.args().clone().unwrap_or_default();
    image.entrypoint.clone_from(&image.args);
    image.cwd = process.cwd().display().to_string();
    image.user = format!("{}:{}", process.user().uid(), process.user().gid());
    image.env = env.iter().filter(|v| !v.starts_with("LD_PRELOAD")).cloned().collect();
}

/// A process of the pod, one of another pod, and the node's first.
fn namespace(n: &mut Namespace) {
    let mut parts = n.path.split('/').skip(1);
    let (proc, pid, ns, kind) = (parts.next(), parts.next(), parts.next(), parts.next());
    let kind = kind.map(|kind| match kind {
        "net" => "network",
        "mnt" => "mount",
        other => other,
    });
    if !n.path.starts_with('/') || (proc, ns) != (Some("proc"), Some("ns")) || kind != Some(n.kind.as_str()) {
        n.origin = Fact::Unknown(format!("{:?} is no {} namespace", n.path, n.kind));
        return;
    }
    n.object = Some((4, 4_026_531_000));
    n.origin = match pid {
        Some("4242") => Fact::Is(NamespaceOrigin::OwnPod),
        Some("1" | "self") => Fact::Is(NamespaceOrigin::Host),
        Some("666") => Fact::Is(NamespaceOrigin::Foreign("c666".into())),
        _ => Fact::Absent,
    };
}

fn hook(h: &mut Hook) {
    if h.path == "/opt/hook" {
        h.digest = Fact::Is(fixture::digest('d'));
        h.copy = "/proc/self/fd/9".into();
    } else {
        h.digest = Fact::Absent;
    }
}

fn object(source: &str) -> Fact<Object> {
    let real = PLAIN.links.iter().find(|(name, _)| *name == source).map_or(source, |(_, real)| real);
    let own = OWN.iter().find(|(path, _)| *path == real);
    let of_host = HOST.iter().find(|(path, ..)| *path == real);
    let (kind, touches, origin) = match (own, of_host) {
        (Some((_, kind)), _) => (kind, Some("/var/lib/kubelet"), Origin::Kubelet("empty-dir".into())),
        (None, Some((_, kind, touches))) => (kind, *touches, Origin::Host),
        (None, None) => return Fact::Absent,
    };
    Fact::Is(Object {
        device: (8, 1),
        root: real.into(),
        fstype: "ext4".into(),
        kind: (*kind).into(),
        links: 1,
        path: real.into(),
        touches: touches.map(|path| (path.to_owned(), "inside".to_owned())).into_iter().collect(),
        origin,
    })
}
