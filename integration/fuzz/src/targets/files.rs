//! The trail, the node's files, the policy, and what containerd says.
use super::{outcome, text};
use boltseal_audit as audit;
use boltseal_evidence as evidence;
use boltseal_message as message;
use boltseal_node as node;
use boltseal_policy as policy;
use boltseal_trust::bundle::Signed;
use boltseal_trust::keyless::{Demands, Fulcio};
use boltseal_trust::{Key, Pin, digest};

const STRANGER: &str = include_str!("../../../../runtime/trust/tests/fixtures/keys/stranger.pub");

/// The line as it is, and with the sum that a forger would give it.
pub(super) fn audit_line(bytes: &[u8]) -> u64 {
    let body = bytes.rsplit(|byte| *byte == b',').next().map_or(bytes, |tail| &bytes[..bytes.len() - tail.len()]);
    let body = body.strip_suffix(b",").unwrap_or(body);
    let mut summed = body.to_vec();
    summed.extend_from_slice(format!(",\"sum\":\"{}\"}}", digest(body).hex()).as_bytes());
    let read = audit::parse_line(&summed);
    assert!(!matches!(read, Err(audit::BadLine::NoSum | audit::BadLine::WrongSum)), "the sum is written otherwise");
    outcome(&(audit::parse_line(bytes).map(|_| ()), read.map(|_| ())))
}

pub(super) fn audit_text(bytes: &[u8]) -> u64 {
    let Some(text) = text(bytes) else { return 0 };
    let shown = audit::clean(text, 200);
    assert!(!shown.chars().any(char::is_control), "{shown:?}");
    outcome(&(audit::Head::parse(text), audit::parse_since(text, 1_700_000_000)))
}

pub(super) fn node_reply(bytes: &[u8]) -> u64 {
    use node::reply;
    let parsed = node::wire::parse_reply(bytes).map(|_| ()).map_err(|e| e.to_string());
    let parts = [
        reply::primary(bytes).is_ok(),
        reply::public(bytes).is_ok(),
        reply::quote(bytes).is_ok(),
        reply::pcr_values(bytes).is_ok(),
        reply::time(bytes).is_ok(),
        reply::random(bytes).is_ok(),
        reply::property(bytes, 0x105).is_ok(),
        node::nv::counter_public(bytes).is_ok(),
        node::nv::count(bytes).is_ok(),
    ];
    outcome(&(parsed, parts))
}

pub(super) fn node_verdict(bytes: &[u8]) -> u64 {
    let read = node::verdict::parse(bytes);
    if let Ok(verdict) = &read {
        assert_eq!(verdict.bytes().ok().as_deref(), Some(bytes));
    }
    outcome(&read.map(|_| ()).map_err(|e| e.to_string()))
}

/// A policy's signature, or the pin of who signs: neither is both, and nobody signed these bytes with a key of ours.
pub(super) fn policy_signed(bytes: &[u8]) -> u64 {
    let (signed, pin) = (Signed::read(bytes), Pin::read(bytes));
    assert!(signed.is_err() || pin.is_none());
    if let Some(pin) = &pin {
        assert_eq!(pin.text().as_bytes(), bytes);
    }
    let verified = signed.as_ref().map(|signed| {
        let key = Key::from_spki_pem(STRANGER).unwrap_or_else(|e| panic!("{e}"));
        let verified = signed.verify(&signed.digest, &key);
        assert!(verified.is_err(), "nobody signed that");
        verified
    });
    outcome(&(verified, pin.is_some()))
}

/// Sigstore's own, beside the file.
const ROOT: &str = include_str!("../../../../runtime/keyless/tests/data/public-good.json");

/// Whatever another tool's policy becomes passes lint: it is well formed, its keys are there, and each scope's need can be met.
pub(super) fn import_policy(bytes: &[u8]) -> u64 {
    let read =
        |path: &str| if path.len().is_multiple_of(7) { Err("no such file".to_owned()) } else { Ok(STRANGER.into()) };
    let found = boltseal_import::import(bytes, read, |_| true, Some(ROOT.into()));
    if let Ok(found) = &found {
        let policy = policy::Policy::parse(&found.policy, &[]).unwrap_or_else(|e| panic!("{e:?} in {}", found.policy));
        let id = |authority: &policy::policy::Authority| {
            let file = if authority.key.is_empty() { &authority.trusted_root } else { &authority.key };
            let (_, pem) = found.keys.iter().find(|(name, _)| name == file)?;
            if authority.format == "keyless" {
                let demands = Demands { log: authority.log.unwrap_or(true), sct: authority.sct.unwrap_or(true) };
                return Fulcio::new(pem.as_bytes(), demands).ok().map(|_| pem.clone());
            }
            Some(Key::from_spki_pem(pem).ok()?.id().to_owned())
        };
        assert!(policy.authorities.iter().all(|a| id(a).is_some()), "{}", found.policy);
        assert_eq!(policy.unreachable(id), Vec::<String>::new(), "{}", found.policy);
        assert_eq!((policy.scopes.len(), policy.registries.allow.len()), (found.scopes, found.scopes));
    }
    outcome(&found.map(|found| (found.scopes, found.notes.iter().map(|n| n.kind).collect::<Vec<_>>())))
}

pub(super) fn policy_toml(bytes: &[u8]) -> u64 {
    let Some(text) = text(bytes) else { return 0 };
    // The part after a form feed is a drop-in.
    let read = match text.split_once('\u{c}') {
        Some((main, drop_in)) => policy::Policy::parse(main, &[("10-more.toml", drop_in)]),
        None => policy::Policy::parse(text, &[]),
    };
    outcome(&read.map(|_| ()))
}

/// A mount request: kind, source and target, then one option per line.
pub(super) fn evidence_rootfs(bytes: &[u8]) -> u64 {
    let Some(text) = text(bytes) else { return 0 };
    let mut lines = text.split('\n').map(str::to_owned);
    let mut next = || lines.next().unwrap_or_default();
    let (kind, source, target) = (next(), next(), next());
    let mount = message::Mount { kind, source, target, options: lines.collect() };
    let request = [mount];
    let (overlay, wrong) = evidence::rootfs::parse(&request);
    if wrong.is_empty() {
        assert_eq!((request[0].kind.as_str(), request[0].target.as_str()), ("overlay", ""));
        assert!(!overlay.lowers.is_empty());
        for folder in overlay.lowers.iter().chain([&overlay.upper, &overlay.work]) {
            assert!(folder.starts_with('/'), "{folder:?}");
            assert!(!folder.split('/').any(|part| part == ".."), "{folder:?}");
        }
        assert!(evidence::rootfs::same(&request, &request));
    }
    outcome(&wrong)
}

pub(super) fn evidence_cri(bytes: &[u8]) -> u64 {
    let mut outcomes = Vec::new();
    for kind in ["io.cri-containerd.container.metadata", "io.cri-containerd.sandbox.metadata"] {
        let any = prost_types::Any { type_url: "any".into(), value: bytes.to_vec() };
        let found = evidence::cri::metadata("c1", &[(kind.to_owned(), any)].into());
        if let Ok(Some(found)) = &found {
            assert_eq!(found.is_sandbox, kind.contains("sandbox"));
            assert!(!found.is_sandbox || found.sandbox_id == "c1");
        }
        outcomes.push(found.map(|_| ()));
    }
    outcome(&outcomes)
}

/// A pattern and a text, one line each.
pub(super) fn policy_pattern(bytes: &[u8]) -> u64 {
    use policy::pattern;
    let Some(text) = text(bytes) else { return 0 };
    let (first, second) = text.split_once('\n').unwrap_or((text, ""));
    let covers = pattern::covers(first, second);
    if covers {
        let rest = &second[first.strip_suffix('/').unwrap_or(first).len()..];
        assert!(rest.is_empty() || rest.starts_with('/'), "{first:?} covers {second:?}");
    }
    assert!(!first.is_empty() || !covers);
    let matches = pattern::matches(first, second);
    assert_eq!(matches && !first.contains('*'), first == second && !first.contains('*'));
    assert!(pattern::matches("*", second) && pattern::matches(&format!("{second}*"), second));
    if let Some(normal) = pattern::normal(first) {
        assert_eq!(pattern::normal(&normal).as_ref(), Some(&normal));
        assert!(pattern::within(&normal, "/"));
    }
    let shown = policy::text::show(first);
    assert!(!shown.chars().any(|c| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c)), "{shown:?}");
    outcome(&(covers, matches, pattern::normal(first).is_some(), pattern::is_repository(first), shown.len() / 8))
}

/// The annotation `boltseal.dev/ports`; before a form feed, what the policy grants in the same words.
pub(super) fn policy_network(bytes: &[u8]) -> u64 {
    use policy::network::{Destination, Open, Ports};
    let Some(text) = text(bytes) else { return 0 };
    let (grant, declared) = text.split_once('\u{c}').unwrap_or(("bind=80-90, connect=10.0.0.0/8:*", text));
    let (grant, declared) = (Open::declared(grant), Open::declared(declared));
    if let Ok(open) = &declared {
        for ports in open.bind.iter().flatten() {
            assert_eq!(Ports::try_from(ports.to_string()).as_ref(), Ok(ports));
        }
        for destination in open.connect.iter().flatten() {
            assert_eq!(Destination::try_from(destination.to_string()).as_ref(), Ok(destination));
        }
        assert!(open.bounds().is_empty());
    }
    if let (Ok(grant), Ok(declared)) = (&grant, &declared) {
        let (open, _) = grant.narrowed(declared);
        let granted = |d: &Destination| grant.connect.iter().flatten().any(|g| g.covers(d));
        assert!(open.connect.iter().flatten().all(granted), "{open:?}");
        assert!(open.bind.iter().flatten().all(|p| grant.bind.iter().flatten().any(|g| g.covers(p))), "{open:?}");
    }
    outcome(&(grant.map(|_| ()), declared.map(|_| ())))
}

/// A text in every place of an image's config, alone and with a token behind it.
pub(super) fn policy_secrets(bytes: &[u8]) -> u64 {
    use boltseal_policy::secrets::{Texts, find};
    const TOKEN: &str = "ghp_A1b2C3d4E5A1b2C3d4E5A1b2C3d4E5A1b2C3d4E5";
    let text = String::from_utf8_lossy(bytes).into_owned();
    let planted = format!("{text} {TOKEN}");
    let look = |text: &str| {
        let lines = [text.to_owned()];
        let labels = [("label".to_owned(), text.to_owned())];
        find(&Texts { env: &lines, labels: &labels, entrypoint: &lines, cmd: &lines, history: &lines })
    };
    let found = look(&planted);
    for place in ["cmd", "entrypoint", "env", "history", "label"] {
        assert!(found.iter().any(|secret| secret.place == place), "{place}: {planted:?}");
    }
    assert!(!format!("{found:?}").contains(TOKEN), "{found:?}");
    let found = look(&text);
    assert!(found.iter().all(|secret| secret.name.chars().count() <= 96));
    outcome(&found.into_iter().map(|secret| (secret.place, secret.kind)).collect::<Vec<_>>())
}
