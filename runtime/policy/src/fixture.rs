//! A policy and facts that pass every rule, for tests here and in crates that need a permit (feature `fixture`).
use crate::facts::{
    Attestation, Bom, Bundle, Capabilities, Devices, Door, Fact, Facts, IdMaps, Image, Kexec, Label, Limits, Lsm,
    Mount, Namespace, NamespaceOrigin, Namespaces, Node, Object, Process, Provenance, Report, Root, Rootfs, Said, Scan,
    Seccomp, Severity, Signature, Subject, UserNamespace,
};
use crate::policy::{
    AgeRules, AgeSource, Allowance, AllowedHook, AllowedMount, Authority, Base, BomRules, Exception, Policy,
    ProvenanceRules, ScanRules, Scope, SecretRules,
};
use crate::standard;
use std::collections::{BTreeMap, BTreeSet};

/// `sha256:` and 64 times the digit.
#[must_use]
pub fn digest(digit: char) -> String {
    format!("sha256:{}", digit.to_string().repeat(64))
}

#[must_use]
pub fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

/// Level `restricted`, one authority, one scope, no allowance, no exception.
#[must_use]
pub fn policy() -> Policy {
    let mut p = Policy::default();
    p.registries.allow = vec!["ghcr.io/corp".into()];
    p.authorities = vec![Authority {
        name: "ci".into(),
        key: "ci.pub".into(),
        repositories: vec!["ghcr.io/corp".into()],
        ..Authority::default()
    }];
    p.scopes =
        vec![Scope { repository: "ghcr.io/corp".into(), authorities: vec!["ci".into()], need: 1, ..Scope::default() }];
    // Asked of everything at level strict.
    p.image.bases = vec![Base { name: "debian".into(), diff_ids: vec![digest('8')] }];
    p.owner.patterns = vec!["*@corp.example".into()];
    p.node.attestation_key = "ak.pub".into();
    p.node.pcrs = BTreeMap::from([("7".to_owned(), vec!["a".repeat(64)])]);
    p
}

/// One of each thing that an allowance can grant, for the fixture's image: id `test`.
#[must_use]
pub fn allowance() -> Allowance {
    Allowance {
        id: "test".into(),
        authority: "ci".into(),
        repository: "ghcr.io/corp/app".into(),
        capabilities: set(&["CAP_NET_ADMIN"]),
        mounts: vec![
            AllowedMount { source: "/opt/readable".into(), writable: false, idmap: false },
            AllowedMount { source: "/opt/writable".into(), writable: true, idmap: false },
        ],
        devices: vec!["/dev/fuse".into()],
        sysctls: set(&["net.ipv4.ip_forward"]),
        host_namespaces: set(&["network"]),
        exec_volumes: vec!["/plugins".into()],
        exec_memory: true,
        hooks: vec![AllowedHook {
            stage: "createRuntime".into(),
            path: "/opt/hook".into(),
            digest: digest('d'),
            args: vec!["hook".into()],
        }],
        args: vec![vec!["/app".into(), "--port=*".into()], vec!["/bin/tool".into(), "...".into()]],
        env: vec!["LOG_*".into(), "LD_*".into()],
        cwd: vec!["/work/*".into()],
        users: vec!["2000:*".into()],
    }
}

/// An exception for the whole node that ends with 2026.
#[must_use]
pub fn exception(rule: &str, condition: Option<&str>) -> Exception {
    Exception {
        rule: rule.into(),
        condition: condition.map(str::to_owned),
        scope: "*".into(),
        owner: "ops@corp.example".into(),
        reason: "test".into(),
        expires: "2026-12-31".into(),
    }
}

/// A create request that passes every rule of [`policy`].
#[must_use]
pub fn facts() -> Facts {
    Facts {
        door: Door::Create,
        // 2026-11-23.
        now: Fact::Is(1_795_392_000),
        subject: Subject {
            id: "c1".into(),
            image_name: "ghcr.io/corp/app:1".into(),
            sandbox_id: "s1".into(),
            is_pod: true,
            ..Default::default()
        },
        image: Fact::Is(image()),
        rootfs: Fact::Is(Rootfs {
            snapshotter: "overlayfs".into(),
            parent: digest('e'),
            active: true,
            mounts_match: true,
            lowers: vec!["/var/lib/containerd/1/fs".into()],
            upper_empty: Fact::Is(true),
            integrity: "unpacked".into(),
            verity: Fact::Absent,
            ..Default::default()
        }),
        scan: Fact::Is(Scan { entries: 12, bytes: 3456, ..Scan::default() }),
        process: Process {
            args: vec!["/app".into()],
            cwd: "/".into(),
            uid: 1000,
            gid: 1000,
            capabilities: Some(Capabilities::default()),
            no_new_privileges: true,
            ..Default::default()
        },
        bound: Fact::Absent,
        namespaces: Namespaces { listed: ["pid", "ipc", "uts", "mount", "network", "cgroup"].map(namespace).to_vec() },
        user_namespace: None,
        hooks: Vec::new(),
        restore: false,
        log_programs: Vec::new(),
        limits: Limits { memory: Some(1 << 28), pids: Some(100), ..Default::default() },
        sysctls: BTreeMap::new(),
        foreign_fields: Vec::new(),
        mounts: mounts(),
        root: Root {
            readonly: true,
            masked: standard::MASKED.iter().map(ToString::to_string).collect(),
            readonly_paths: standard::READONLY.iter().map(ToString::to_string).collect(),
            propagation: None,
        },
        devices: Devices { enforced: true, ..Default::default() },
        seccomp: Seccomp { present: true, unusable: Vec::new(), available: true },
        label: Label {
            apparmor: Some("boltseal-default".into()),
            lsm: Lsm::AppArmor,
            mode: Some("enforce".into()),
            default_mode: Some("enforce".into()),
            ..Default::default()
        },
        owner: Fact::Is("team-a@corp.example".into()),
        owner_token: Fact::Absent,
        owner_grant: Fact::Absent,
        break_glass: Default::default(),
        node: Fact::Is(Node { tpm: "hardware".into(), verified: true, ..Default::default() }),
        bundle: Fact::Is(Bundle {
            digest: "b".repeat(64),
            signer: Fact::Is("5".repeat(64)),
            signed: Fact::Is(7),
            floor: Fact::Is(7),
            stale: None,
            measured: Fact::Is(Vec::new()),
        }),
        kexec: Fact::Is(Kexec { load_disabled: true, ..Default::default() }),
        sensitivity: Fact::Absent,
        neighbours: Fact::Is(Vec::new()),
        ports: Fact::Absent,
        network_hooks: Fact::Is(()),
        landlock: Fact::Is(6),
        audit: Fact::Is(()),
    }
}

fn image() -> Image {
    Image {
        target: digest('a'),
        manifest: digest('b'),
        config: digest('c'),
        chain_id: digest('e'),
        layers: vec![digest('8'), digest('9')],
        signatures: vec![Signature {
            authority: "ci".into(),
            key: "1".repeat(64),
            format: "cosign-signature".into(),
            repository: Some("ghcr.io/corp/app".into()),
            digest: digest('a'),
            signed_at: None,
        }],
        args: vec!["/app".into()],
        entrypoint: vec!["/app".into()],
        user: "1000:1000".into(),
        created: "2026-11-01T00:00:00Z".into(),
        secrets: Fact::Is(Vec::new()),
        ..Default::default()
    }
}

/// Has the policy ask for everything that an image can show, and the request show it.
pub fn gated(policy: &mut Policy, facts: &mut Facts) {
    let ci = || vec!["ci".to_owned()];
    policy.authorities.push(Authority {
        name: "scanner".into(),
        key: "scanner.pub".into(),
        repositories: vec!["ghcr.io/corp".into()],
        ..Authority::default()
    });
    policy.image.age = Some(AgeRules { max_days: 90, source: AgeSource::Created });
    policy.image.vulnerabilities = Some(ScanRules {
        max_days: 7,
        max_severity: Severity::Medium,
        authorities: vec!["scanner".into()],
        except: Vec::new(),
    });
    policy.image.sbom = Some(BomRules { authorities: ci() });
    policy.image.provenance = Some(ProvenanceRules {
        authorities: ci(),
        builders: vec!["https://ci.corp.example/*".into()],
        build_types: vec!["https://ci.corp.example/build".into()],
    });
    policy.image.secrets = Some(SecretRules::default());
    let statement = |authority: &str, key: char, kind: &str, says: Said| Attestation {
        authority: authority.into(),
        key: key.to_string().repeat(64),
        predicate_type: kind.into(),
        digest: digest('a'),
        statement: digest('5'),
        says: Fact::Is(says),
    };
    if let Fact::Is(image) = &mut facts.image {
        image.attestations = vec![
            statement(
                "scanner",
                '2',
                "https://cosign.sigstore.dev/attestation/vuln/v1",
                Said::Scan(Report {
                    scanner: "trivy".into(),
                    finished: "2026-11-22T00:00:00Z".into(),
                    ..Report::default()
                }),
            ),
            statement("ci", '1', "https://spdx.dev/Document", Said::Bom(Bom { format: "SPDX".into(), packages: 3 })),
            statement(
                "ci",
                '1',
                "https://slsa.dev/provenance/v1",
                Said::Provenance(Provenance {
                    builder: "https://ci.corp.example/runner".into(),
                    build_type: "https://ci.corp.example/build".into(),
                }),
            ),
        ];
    }
}

/// The maps of a user namespace: one range of `size` ids from `host` on.
#[must_use]
pub fn id_maps(host: u32, size: u32) -> IdMaps {
    IdMaps { uids: vec![(0, host, size)], gids: vec![(0, host, size)] }
}

/// Makes of a request one with a new user namespace of the host's ids from 131072 on.
pub fn in_user_namespace(facts: &mut Facts) {
    facts.namespaces.listed.push(namespace("user"));
    facts.user_namespace =
        Some(UserNamespace { ids: id_maps(131_072, 65_536), joined: Fact::Absent, overlaps: Fact::Is(Vec::new()) });
}

fn namespace(kind: &str) -> Namespace {
    Namespace { kind: kind.into(), origin: Fact::Is(NamespaceOrigin::New), path: String::new(), object: None }
}

/// The fresh system mounts, as containerd's default spec has them.
#[must_use]
pub fn mounts() -> Vec<Mount> {
    let all = [
        ("/proc", "proc"),
        ("/dev", "tmpfs"),
        ("/dev/pts", "devpts"),
        ("/dev/shm", "tmpfs"),
        ("/dev/mqueue", "mqueue"),
        ("/sys", "sysfs"),
    ];
    all.iter()
        .enumerate()
        .map(|(index, (at, kind))| Mount {
            index,
            destination: (*at).into(),
            kind: (*kind).into(),
            source: (*kind).into(),
            options: ["nosuid", "nodev", "noexec", "size=65536k"].map(str::to_owned).to_vec(),
            unknown_options: Vec::new(),
            writable: *kind != "sysfs",
            propagation: None,
            object: Fact::Absent,
            idmap: None,
        })
        .collect()
}

/// A read-only bind of a harmless-looking host folder that nothing grants.
#[must_use]
pub fn bind(destination: &str) -> Mount {
    Mount {
        index: 0,
        destination: destination.into(),
        kind: "bind".into(),
        source: "/srv/folder".into(),
        options: vec!["rbind".into(), "ro".into()],
        unknown_options: Vec::new(),
        writable: false,
        propagation: None,
        object: Fact::Is(Object {
            device: (8, 1),
            root: "/srv/folder".into(),
            fstype: "ext4".into(),
            kind: "folder".into(),
            links: 2,
            path: "/srv/folder".into(),
            ..Default::default()
        }),
        idmap: None,
    }
}

/// A tmpfs with all flags.
#[must_use]
pub fn tmpfs(destination: &str, size: Option<&str>) -> Mount {
    let mut options = ["nosuid", "nodev", "noexec"].map(str::to_owned).to_vec();
    options.extend(size.map(str::to_owned));
    Mount {
        index: 0,
        destination: destination.into(),
        kind: "tmpfs".into(),
        source: "tmpfs".into(),
        options,
        unknown_options: Vec::new(),
        writable: true,
        propagation: None,
        object: Fact::Absent,
        idmap: None,
    }
}
