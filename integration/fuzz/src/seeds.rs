//! Seeds that our own encoders write: made anew when a format changes (`boltseal-fuzz seed`). The others in `corpus/`
//! come from real tools (runtime/trust/tests/fixtures/*.sh, `runc spec`, /proc) or are written by hand.
use crate::corpus;
use boltseal_audit::{Cost, Decision, Door, Entry, Event as AuditEvent, Finding, Outcome, Trail, What, Who};
use boltseal_message::{
    Anomaly, Class, Code, Create, Created, Event, EventKind, Exec, Expected, FileStamp, Mount, Operation, Refusal,
    Reply, Request, Stdio, Trap,
};
use boltseal_node::quote::Clock;
use boltseal_node::verdict::Verdict;
use boltseal_trust::keyless::{Demands, Fulcio};
use boltseal_trust::notation::Notary;
use boltseal_trust::{Malformed, Proposal, SignatureProposal, Source, encode_answer, import_layout, propose};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// Writes them below `corpus/`.
pub(crate) fn write() -> io::Result<bool> {
    trust()?;
    messages()?;
    audit()?;
    scan()?;
    node()?;
    crate::node_seeds::write()?;
    println!("seeds written below {}", corpus::root().display());
    Ok(true)
}

pub(crate) fn put(target: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let folder = corpus::root().join(target);
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join(name), bytes)
}

fn scan() -> io::Result<()> {
    use boltseal_policy::facts::FoundKind;
    use boltseal_scan::answer::{Answer, Seen, encode};
    let seen = |kind, path: &[u8], note: &str| Seen { kind, path: path.into(), note: note.into() };
    let found = vec![
        seen(FoundKind::Shell, b"/bin/sh", "-> busybox"),
        seen(FoundKind::Setuid, b"/usr/bin/a b\n", "mode 4755"),
        seen(FoundKind::FileCapability, b"/usr/bin/ping", "permitted 0x2000, effective"),
    ];
    let answer = encode(&Ok(Answer { entries: 1234, bytes: 5_678_901, found, more: [2, 0, 0, 0, 1] }));
    put("scan_answer", "found", &answer)?;
    put("scan_answer", "failed", &encode(&Err("/a/b cannot be opened: Permission denied (os error 13)".into())))?;
    let chain = format!("sha256:{}", "a".repeat(64));
    let kept = [format!("boltseal-scan 1 x\n{chain}\nunpacked\n2049:17,2049:18\n").as_bytes(), &answer].concat();
    put("scan_cached", "kept", &kept)?;
    for (name, words) in
        [("v2", &[0x0200_0001_u32, 0x2000, 0, 0, 0][..]), ("v3", &[0x0300_0001, 0x2000, 1, 0, 0, 1000])]
    {
        put("scan_capability", name, &words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>())?;
    }
    put("scan_peek", "busybox", b"\x7fELF BusyBox v1.35.0 BusyBox is copyrighted by many authors between 1998-2015.")?;
    put("scan_peek", "toybox", b"\x7fELF usage: toybox [--long] (see https://landley.net/toybox)")
}

fn trust() -> io::Result<()> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runtime/trust/tests/fixtures");
    for (file, targets) in [
        ("image/app.index.json", &["trust_index", "trust_target"][..]),
        ("image/app.manifest.json", &["trust_manifest", "trust_target"]),
        ("image/docker.manifest.json", &["trust_manifest"]),
        ("image/app.config.json", &["trust_config", "trust_bind"]),
        ("image/docker.config.json", &["trust_config"]),
        ("keys/signer.pub", &["trust_key"]),
        ("keys/stranger.pub", &["trust_key"]),
    ] {
        let bytes = std::fs::read(fixtures.join(file))?;
        let name = match file {
            "image/app.config.json" => "app.json",
            other => other.rsplit('/').next().unwrap_or(other),
        };
        for target in targets {
            put(target, name, &bytes)?;
        }
        let source = match targets {
            ["trust_index", ..] => Source::Index,
            ["trust_manifest", ..] => Source::Manifest,
            ["trust_config", ..] => Source::Config,
            _ => continue,
        };
        put("trust_answer", name, &encode_answer(&propose(source, &bytes)))?;
    }
    put("trust_answer", "refusal", &encode_answer(&propose(Source::Index, b"{").map_err(|e: Malformed| e)))?;
    for layout in [
        "cosign2",
        "cosign2-annotated",
        "cosign2-identity",
        "cosign2-index",
        "cosign2-other",
        "cosign2-stranger",
        "cosign3",
        "cosign3-annotated",
        "cosign3-index",
        "cosign3-other",
        "cosign3-stranger",
    ] {
        let folder = fixtures.join("layouts").join(layout);
        let index = std::fs::read(folder.join("index.json"))?;
        let found = import_layout(
            |digest| {
                let blob = std::fs::read(folder.join("blobs").join(digest.replace(':', "/")))?;
                if layout == "cosign2" || layout == "cosign3" {
                    put("trust_layout", &format!("{layout}-{}", &digest[7..15]), &blob)?;
                }
                io::Result::Ok(blob)
            },
            &index,
        );
        if layout == "cosign2" || layout == "cosign3" {
            put("trust_layout", layout, &index)?;
        }
        for file in found.map_err(io::Error::other)?.files {
            let (target, source) = if file.name.ends_with(".sig.json") {
                ("trust_sig", Source::CosignSignature)
            } else {
                ("trust_bundle", Source::SigstoreBundle)
            };
            put(target, &format!("real-{layout}"), &file.bytes)?;
            put("trust_answer", &format!("real-{layout}"), &encode_answer(&propose(source, &file.bytes)))?;
        }
    }
    for name in ["p384", "rsa2048", "ed25519"] {
        put("trust_key", &format!("{name}.pub"), &std::fs::read(fixtures.join(format!("algorithms/{name}.pub")))?)?;
        for (end, target, source) in
            [("sig", "trust_sig", Source::CosignSignature), ("bundle", "trust_bundle", Source::SigstoreBundle)]
        {
            let bytes = std::fs::read(fixtures.join(format!("algorithms/{name}.{end}.json")))?;
            put(target, &format!("real-{name}"), &bytes)?;
            put("trust_answer", &format!("real-{name}-{end}"), &encode_answer(&propose(source, &bytes)))?;
        }
    }
    notation(&fixtures.join("notation"))?;
    keyless(&fixtures.join("../../../keyless/tests/data"))?;
    for entry in std::fs::read_dir(fixtures.join("layouts/cosign2-attest/blobs/sha256"))? {
        let blob = std::fs::read(entry?.path())?;
        if propose(Source::Dsse, &blob).is_ok() {
            put("trust_dsse", "attestation", &blob)?;
        }
    }
    for entry in std::fs::read_dir(fixtures.join("layouts/cosign3-attest/blobs/sha256"))? {
        let blob = std::fs::read(entry?.path())?;
        if propose(Source::SigstoreBundle, &blob).is_ok() {
            put("trust_bundle", "attestation", &blob)?;
            put("trust_answer", "attestation", &encode_answer(&propose(Source::SigstoreBundle, &blob)))?;
        }
    }
    Ok(())
}

fn keyless(data: &Path) -> io::Result<()> {
    for (root, bundle) in [("public-good.json", "rekor-v1.json"), ("staging.json", "rekor-v2.json")] {
        let (trusted, file) = (std::fs::read(data.join(root))?, std::fs::read(data.join(bundle))?);
        put("keyless_root", root, &trusted)?;
        put("keyless_bundle", bundle, &file)?;
        put("trust_bundle", bundle, &file)?;
        let answer = propose(Source::SigstoreBundle, &file);
        put("trust_answer", bundle, &encode_answer(&answer))?;
        let Ok(Proposal::Signature(proposal)) = answer else { continue };
        let fulcio = Fulcio::new(&trusted, Demands { log: true, sct: true }).map_err(io::Error::other)?;
        let certified = fulcio.verify_attestation(&proposal, &proposal.digest());
        let certified = certified.map_err(|why| io::Error::other(why.to_string()))?;
        put("keyless_judge", bundle, &fulcio.question(&certified, &file, &proposal.digest()))?;
    }
    Ok(())
}

fn notation(fixtures: &Path) -> io::Result<()> {
    let root = std::fs::read(fixtures.join("root.pem"))?;
    put("trust_roots", "root.pem", &root)?;
    let notary = Notary::new(&String::from_utf8_lossy(&root), &["*".into()], false).map_err(io::Error::other)?;
    for name in ["p256.jws", "p256.cose", "rsa3072.jws", "rsa3072.cose"] {
        let bytes = std::fs::read(fixtures.join(name))?;
        let (target, source) = if name.ends_with(".jws") {
            ("trust_notation", Source::NotationJws)
        } else {
            ("trust_cose", Source::NotationCose)
        };
        put(target, &format!("real-{name}"), &bytes)?;
        let answer = propose(source, &bytes);
        put("trust_answer", &format!("real-{name}"), &encode_answer(&answer))?;
        if let Ok(Proposal::Signature(SignatureProposal::Notation(proposal))) = &answer {
            put("trust_appraise", name, &notary.question(proposal, Some(1_798_761_600)))?;
        }
    }
    Ok(())
}

fn messages() -> io::Result<()> {
    let event = |kind| Event { id: "c1".into(), exec_id: String::new(), at_ns: 1_700_000_000_000_000_000, kind };
    let stdio = Stdio {
        terminal: true,
        stdin: "/run/in".into(),
        stdout: "/run/out".into(),
        stderr: String::new(),
        fds: [true, false, true],
    };
    let operations = [
        (
            "create",
            Operation::Create(Create {
                rootfs: vec![Mount {
                    kind: "overlay".into(),
                    source: "overlay".into(),
                    target: String::new(),
                    options: vec!["lowerdir=/a:/b".into(), "upperdir=/u".into(), "workdir=/w".into()],
                }],
                stdio: stdio.clone(),
                options: ("containerd.runc.v1.Options".into(), vec![1, 2, 3]),
                checkpoint: String::new(),
                parent_checkpoint: String::new(),
            }),
        ),
        (
            "exec",
            Operation::Exec(Exec { exec_id: "e1".into(), stdio, process: br#"{"args":["sh"],"cwd":"/"}"#.to_vec() }),
        ),
        ("update", Operation::Update { resources: br#"{"memory":{"limit":1048576}}"#.to_vec() }),
        (
            "delete",
            Operation::Delete {
                events: vec![event(EventKind::Exited { pid: 7, status: 137 }), event(EventKind::OutOfMemory)],
            },
        ),
        (
            "record",
            Operation::Record {
                events: vec![
                    event(EventKind::Running { pid: 7 }),
                    event(EventKind::Aborted { reason: "a reason".into() }),
                    event(EventKind::LogDropped { bytes: 9 }),
                    event(EventKind::Anomaly(Anomaly {
                        class: Class::Syscall,
                        refused: true,
                        pid: 7,
                        comm: "sh".into(),
                        executable: "/bin/sh".into(),
                        what: "mount".into(),
                        count: 1,
                        port_scan: 0,
                    })),
                    event(EventKind::Network(Anomaly {
                        class: Class::Listener,
                        refused: false,
                        pid: 7,
                        comm: "nc".into(),
                        executable: "/bin/nc".into(),
                        what: "tcp 0.0.0.0:80".into(),
                        count: 1,
                        port_scan: 0,
                    })),
                ],
            },
        ),
    ];
    for (name, operation) in operations {
        let request = Request {
            namespace: "k8s.io".into(),
            address: "/run/containerd/containerd.sock".into(),
            id: "c1".into(),
            bundle: "/run/bundle".into(),
            deadline_ms: 2000,
            operation,
        };
        put("message_request", name, &request.encode())?;
    }
    for (name, kind, protocol, address) in [
        ("destination", 1_u32, 6_u32, Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped()),
        ("bind", 2, 6, Ipv6Addr::UNSPECIFIED),
        ("listener", 3, 17, Ipv6Addr::LOCALHOST),
        ("unreachable", 4, 6, Ipv4Addr::UNSPECIFIED.to_ipv6_mapped()),
        ("flow", 5, 17, Ipv6Addr::LOCALHOST),
    ] {
        let mut event: Vec<u8> = [kind, protocol, 443, 7].into_iter().flat_map(u32::to_ne_bytes).collect();
        event.extend(address.octets());
        event.extend(b"nc\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        event.extend(1_u64.to_ne_bytes());
        put("message_seen", name, &event)?;
    }
    let replies = [
        (
            "refused",
            Reply::Refused(Refusal {
                code: Code::PermissionDenied,
                message: "boltseal: denied by BS-IMG-001: ..".into(),
            }),
        ),
        (
            "created",
            Reply::Created(Created {
                pid: 42,
                terminal: false,
                not_after_boottime_ns: 99,
                policy_files: vec![FileStamp {
                    path: "/etc/boltseal/policy.toml".into(),
                    device: 1,
                    inode: 2,
                    size: 3,
                    mtime_ns: 4,
                    ctime_ns: -5,
                }],
                expected: Expected { seccomp_filters: 2, label: "boltseal-default (enforce)".into() },
                cgroups: vec![
                    ("memory".into(), "/sys/fs/cgroup/memory/c1".into()),
                    (String::new(), "/sys/fs/cgroup/unified/c1".into()),
                ],
                shared_pid_namespace: false,
                traps: vec![Trap { nr: 165, name: "mount".into(), errno: 1, args: 0 }],
                scan: 20,
            }),
        ),
        ("execed", Reply::Execed { pid: 43, traps: Vec::new() }),
        ("done", Reply::Done),
    ];
    for (name, reply) in replies {
        put("message_reply", name, &reply.encode())?;
    }
    Ok(())
}

/// A real trail's lines.
fn audit() -> io::Result<()> {
    let folder = corpus::found().join("trail");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    let trail = Trail::open(&folder).map_err(io::Error::other)?;
    let decision = Entry {
        ev: AuditEvent::Decision,
        door: Some(Door::Create),
        decision: Some(Decision::Deny),
        who: Who { owner: "ops@corp".into() },
        what: What { id: "c1".into(), image: "ghcr.io/corp/app:v1".into(), ..What::default() },
        level: "restricted".into(),
        findings: vec![Finding {
            rule: "BS-IMG-001".into(),
            outcome: Outcome::Pass,
            by: String::new(),
            condition: "unsigned".into(),
            fact: "no signature by \"ci@corp\"".into(),
        }],
        ms: Some(7),
        ..Entry::default()
    };
    let cost = Some(Cost { image_us: 3000, seal_us: 90, inside_us: 400, outside_us: 300 });
    let started = Entry { ev: AuditEvent::Started, cost, pid: Some(7), ..Entry::default() };
    let exited = Entry { ev: AuditEvent::Exited, pid: Some(7), status: Some(137), ..Entry::default() };
    for entry in [decision, started, exited] {
        drop(trail.append(&entry).map_err(io::Error::other)?);
    }
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(&folder)? {
        let bytes = std::fs::read(entry?.path())?;
        lines.extend(bytes.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"{")).map(<[u8]>::to_vec));
    }
    for (n, line) in lines.iter().enumerate() {
        put("audit_line", &format!("line-{n}"), line)?;
    }
    std::fs::remove_dir_all(&folder)?;
    for (name, text) in [
        ("head", format!("12:{}", "ab".repeat(32))),
        ("since", "2026-01-02T03:04:05Z".into()),
        ("age", "36h".into()),
        ("text", "a\u{1b}[31m\u{202e}b\n".into()),
    ] {
        put("audit_text", name, text.as_bytes())?;
    }
    Ok(())
}

/// What a TPM 2.0 answers (TCG TPM 2.0 Library, parts 2 and 3), by hand.
fn node() -> io::Result<()> {
    let mut attest = Vec::new();
    attest.extend_from_slice(&0xff54_4347_u32.to_be_bytes());
    attest.extend_from_slice(&0x8018_u16.to_be_bytes());
    sized(&mut attest, &[0x11; 34]);
    sized(&mut attest, &[0x22; 32]);
    attest.extend_from_slice(&[0; 16]);
    attest.push(1);
    attest.extend_from_slice(&[0; 8]);
    selection(&mut attest);
    sized(&mut attest, &[0x33; 32]);
    put("node_attest", "quote", &attest)?;

    let mut signature = vec![0, 0x18, 0, 0x0b];
    sized(&mut signature, &[0x44; 32]);
    sized(&mut signature, &[0x55; 31]);
    put("node_signature", "ecdsa", &signature)?;

    let mut public = vec![0, 0x23, 0, 0x0b, 0, 5, 4, 0x72, 0, 0, 0, 0x10, 0, 0x18, 0, 0x0b, 0, 3, 0, 0x10];
    sized(&mut public, &[0x66; 32]);
    sized(&mut public, &[0x77; 32]);
    put("node_public", "p256", &public)?;

    let mut quote = Vec::new();
    sized(&mut quote, &attest);
    quote.extend_from_slice(&signature);
    put("node_reply", "quote", &quote)?;
    let mut read_public = Vec::new();
    for part in [&public[..], &[1; 34], &[2; 34]] {
        sized(&mut read_public, part);
    }
    put("node_reply", "read-public", &read_public)?;
    let mut values = vec![0, 0, 0, 9];
    selection(&mut values);
    values.extend_from_slice(&2_u32.to_be_bytes());
    sized(&mut values, &[0x88; 32]);
    sized(&mut values, &[0x99; 32]);
    put("node_reply", "pcr-values", &values)?;
    let mut whole = vec![0x80, 1];
    whole.extend_from_slice(&(10 + u32::try_from(values.len()).unwrap_or(0)).to_be_bytes());
    whole.extend_from_slice(&[0; 4]);
    whole.extend_from_slice(&values);
    put("node_reply", "whole", &whole)?;

    let verdict = Verdict {
        version: 2,
        boot_id: "a1b2c3d4-0000-4000-8000-000000000000".into(),
        policy: "00".repeat(32),
        made_at: 5,
        ttl: 3600,
        salt: [7; 32],
        pcrs: [(0, [1; 32]), (7, [2; 32])].into(),
        clock: Clock { milliseconds: 1, resets: 2, restarts: 3, safe: true, firmware: 4 },
        log: None,
        attest: "AAAA".into(),
        signature: "AAAA".into(),
    };
    put("node_verdict", "verdict.json", &verdict.bytes().map_err(io::Error::other)?)
}

fn sized(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// SHA-256 bank, PCRs 0 and 7.
fn selection(out: &mut Vec<u8>) {
    out.extend_from_slice(&1_u32.to_be_bytes());
    out.extend_from_slice(&[0, 0x0b, 3, 0x81, 0, 0]);
}
