//! `boltseal policy lint`, and loading for the commands that need a policy.
use crate::doctor::{self, State};
use crate::paths::{LIB, POLICY};
use crate::policy_sign;
use crate::screen::{Colour, Exit, Failure, Screen, count, talk};
use boltseal_evidence::bundle;
use boltseal_evidence::file::Owner;
use boltseal_evidence::policy_files::{self, PolicyBundle};
use boltseal_policy::facts::Bundle;
use boltseal_policy::policy::{AgeSource, Authority, Closed, Level};
use boltseal_policy::{Fact, Policy};
use boltseal_trust::grant::Keys;
use boltseal_trust::keyless::{Demands, Fulcio};
use boltseal_trust::notation::Notary;
use boltseal_trust::{Key, KeyError};
use ring::agreement::{ECDH_P256, ECDH_P384, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use ring::rand::SystemRandom;
use serde_json::json;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) bundle: PolicyBundle,
    pub(crate) policy: Policy,
    /// What BS-NOD-004 knows of it; only of what is in force.
    pub(crate) fact: Bundle,
}

/// Every problem, one line each.
#[derive(Debug)]
pub(crate) struct Bad(pub(crate) Vec<String>);

impl Bad {
    pub(crate) fn failure(self) -> Failure {
        let more = if self.0.len() > 1 {
            format!(" (+{} more). Fix: see `boltseal policy lint`", self.0.len() - 1)
        } else {
            String::new()
        };
        Failure::new(Exit::BadPolicy, format!("bad policy: {}{more}", self.0.first().map_or("", String::as_str)))
    }
}

/// The bundle in force, as a start would take it: what lies in /etc/boltseal, or the last good one where that does not
/// load and a key is pinned.
pub(crate) fn load() -> Result<Loaded, Bad> {
    let read = |dir: &Path| {
        let loaded = load_of(dir, Owner::Root).map_err(|bad| bad.0.join("; "))?;
        Ok(Loaded { fact: policy_sign::standing(&loaded.bundle)?, ..loaded })
    };
    let pinned = bundle::pinned(Path::new(LIB)).map_err(|why| Bad(vec![why]))?.is_some();
    if !pinned {
        return load_of(Path::new(POLICY), Owner::Root);
    }
    let last = || read(&Path::new(LIB).join(bundle::LAST_GOOD));
    let found = bundle::in_force(read(Path::new(POLICY)), last, |loaded| &mut loaded.fact);
    let loaded = found.map_err(|why| Bad(vec![why]))?;
    if let Some(why) = &loaded.fact.stale {
        talk(&format!("the last good policy is in force; what lies in {POLICY} is not: {why}"));
    }
    Ok(loaded)
}

/// The same for a folder that need not be root's: where a policy is written, before a node takes it.
pub(crate) fn load_of(dir: &Path, owner: Owner) -> Result<Loaded, Bad> {
    let loaded = read(dir, owner)?;
    let problems = keys(&loaded.policy, &loaded.bundle);
    if problems.is_empty() { Ok(loaded) } else { Err(Bad(problems)) }
}

/// The same for a policy whose node key is about to be made.
pub(crate) fn load_without_keys(dir: &Path) -> Result<Loaded, Bad> {
    read(dir, Owner::Root)
}

fn read(dir: &Path, owner: Owner) -> Result<Loaded, Bad> {
    let bundle = policy_files::load_of(dir, owner).map_err(|problem| Bad(vec![problem.to_string()]))?;
    let texts = bundle.policy_texts().map_err(|problem| Bad(vec![problem.to_string()]))?;
    let parsed = match texts.split_first() {
        Some(((_, main), drop_ins)) => Policy::parse(main, drop_ins),
        None => Err(vec![format!("{}: no policy.toml", dir.display())]),
    };
    Ok(Loaded { policy: parsed.map_err(Bad)?, bundle, fact: Bundle::default() })
}

/// Keys that the policy names and the bundle does not hold, or that are no keys.
fn keys(policy: &Policy, bundle: &PolicyBundle) -> Vec<String> {
    type Read = fn(&str) -> Result<Key, KeyError>;
    let (any, p256): (Read, Read) = (Key::from_spki_pem, Key::p256_from_spki_pem);
    let of = |format: &'static str| policy.authorities.iter().filter(move |a| a.format == format);
    let (rooted, keyed) = (of("notation"), of(""));
    let named = keyed.map(|a| (format!("authority \"{}\"", a.name), &a.key, any));
    let node = Some(&policy.node.attestation_key)
        .filter(|key| !key.is_empty())
        .map(|key| ("node.attestation_key".to_owned(), key, p256));
    let mut problems = Vec::new();
    for (who, file, read) in named.chain(node) {
        let Some(bytes) = bundle.trust(file) else {
            problems.push(format!("{who}: trust/{file} is missing"));
            continue;
        };
        let key =
            std::str::from_utf8(bytes).map_err(|e| e.to_string()).and_then(|pem| read(pem).map_err(|e| e.to_string()));
        match key {
            Err(why) => problems.push(format!("{who}: trust/{file}: {why}")),
            Ok(key) if !on_curve(&key) => {
                problems.push(format!("{who}: trust/{file}: a point that is not on its curve: it verifies nothing"));
            }
            Ok(_) => {}
        }
    }
    for a in rooted {
        let read = |bytes: &[u8]| {
            let pem = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
            Notary::new(pem, &a.identities, a.signing_authority)
        };
        let found = bundle.trust(&a.roots).ok_or_else(|| "is missing".to_owned()).and_then(read);
        if let Err(why) = found {
            problems.push(format!("authority \"{}\": trust/{}: {why}", a.name, a.roots));
        }
    }
    for a in of("keyless") {
        let read = |bytes: &[u8]| Fulcio::new(bytes, demands(a)).map(drop);
        let found = bundle.trust(&a.trusted_root).ok_or_else(|| "is missing".to_owned()).and_then(read);
        if let Err(why) = found {
            problems.push(format!("authority \"{}\": trust/{}: {why}", a.name, a.trusted_root));
        }
        if !cfg!(feature = "keyless") {
            problems.push(format!(
                "authority \"{}\": this boltseal was built without `keyless`, and its gate starts nothing under such a policy. \
                 Fix: make build FEATURES=keyless",
                a.name
            ));
        }
    }
    if problems.is_empty() {
        let key = |pem: &[u8]| Key::from_spki_pem(std::str::from_utf8(pem).ok()?).ok();
        // Whom roots certify has keys that nobody knows beforehand: they count as one.
        problems = policy.unreachable(|a| match a.format.as_str() {
            "" => Some(key(bundle.trust(&a.key)?)?.id().to_owned()),
            _ => Some(format!("roots {}{}", a.roots, a.trusted_root)),
        });
    }
    let ear = policy.node.ear.as_ref().map(|ear| ("node.ear.jwks", &ear.jwks));
    let token = policy.owner.token.as_ref().map(|token| ("owner.token.jwks", &token.jwks));
    for (key, file) in ear.into_iter().chain(token) {
        match bundle.trust(file).map(boltseal_trust::jws::Jwks::parse) {
            None => problems.push(format!("{key}: trust/{file} is missing")),
            Some(Err(why)) => problems.push(format!("{key}: trust/{file}: {why}")),
            Some(Ok(_)) => {}
        }
    }
    problems.extend(grantors(policy, bundle).err());
    for file in &policy.break_glass.keys {
        let pem = bundle.trust(file).and_then(|bytes| std::str::from_utf8(bytes).ok());
        match pem.map(Key::from_spki_pem) {
            None => problems.push(format!("break_glass.keys: trust/{file} is missing, or no text")),
            Some(Err(why)) => problems.push(format!("break_glass.keys: trust/{file}: {why}")),
            Some(Ok(key)) if !on_curve(&key) => {
                problems.push(format!("break_glass.keys: trust/{file}: a point that is not on its curve"));
            }
            Some(Ok(_)) => {}
        }
    }
    problems
}

/// What must stand beside a keyless certificate.
fn demands(authority: &Authority) -> Demands {
    Demands { log: authority.log.unwrap_or(true), sct: authority.sct.unwrap_or(true) }
}

/// What the policy's grants are verified by.
pub(crate) fn grantors(policy: &Policy, bundle: &PolicyBundle) -> Result<Vec<(String, Keys)>, String> {
    let authorities = policy.owner.grant.iter().flat_map(|grant| &grant.authorities);
    authorities
        .map(|a| {
            let file = || format!("owner.grant.authority \"{}\": trust/{}", a.name, a.file());
            let bytes = bundle.trust(a.file()).ok_or_else(|| format!("{} is missing", file()))?;
            let keys = if a.key.is_empty() {
                Keys::from_jwks(bytes)
            } else {
                std::str::from_utf8(bytes).map_err(|e| e.to_string()).and_then(Keys::from_pem)
            };
            keys.map(|keys| (a.name.clone(), keys)).map_err(|why| format!("{}: {why}", file()))
        })
        .collect()
}

/// Whether an EC key's point lies on its curve. `ring` says so of a point that it agrees on a secret with; a start does
/// not ask, for such a key verifies nothing there. Of the other kinds nothing like it can be asked.
pub(crate) fn on_curve(key: &Key) -> bool {
    let Some(point) = key.ec_point() else { return true };
    let curve = if point.len() == 65 { &ECDH_P256 } else { &ECDH_P384 };
    EphemeralPrivateKey::generate(curve, &SystemRandom::new())
        .and_then(|own| agree_ephemeral(own, &UnparsedPublicKey::new(curve, point), |_| ()))
        .is_ok()
}

/// What is well formed and yet starts nothing, or proves less than one may think.
fn hints(policy: &Policy, bundle: &PolicyBundle) -> Vec<String> {
    let hashed = policy.authorities.iter().any(|authority| {
        let pem = bundle.trust(&authority.key).and_then(|bytes| std::str::from_utf8(bytes).ok());
        pem.and_then(|pem| Key::from_spki_pem(pem).ok()).is_some_and(|key| !key.signs_bundles())
    });
    let strict = policy.level >= Level::Baseline;
    let attested = policy.level >= Level::Restricted;
    let by_token = policy.node.ear.as_ref().is_some_and(|ear| ear.instead);
    [
        (policy.level == Level::Observe, "level observe enforces BS-AUD-001 alone: everything else only warns"),
        (strict && policy.authorities.is_empty(), "no [[authority]]: nobody can sign an image (BS-IMG-001)"),
        (
            hashed,
            "an authority's key is Ed25519: sign with cosign 2, for cosign 3 signs with Ed25519ph, which does not verify (BS-IMG-001)",
        ),
        (strict && policy.scopes.is_empty(), "no [[scope]]: no repository has an authority (BS-IMG-001)"),
        (
            strict && policy.registries.allow.is_empty(),
            "registries.allow is empty: no registry is allowed (BS-IMG-003)",
        ),
        (
            policy.level >= Level::Strict && policy.image.bases.is_empty(),
            "no [[image.base]]: no image is built on a base that is named (BS-IMG-010)",
        ),
        (
            policy.image.age.iter().chain(policy.scopes.iter().filter_map(|s| s.age.as_ref())).any(|age| age.source == AgeSource::Timestamp) && !policy.authorities.iter().any(|a| a.format == "keyless"),
            "an age is taken from a timestamp, which keyless signatures alone have, and no authority is keyless: it denies every image (BS-IMG-004)",
        ),
        (
            strict && policy.owner.patterns.is_empty(),
            "owner.patterns is empty: nobody can own a container (BS-OWN-001)",
        ),
        (
            attested && policy.node.attestation_key.is_empty(),
            "no key is enrolled: see `boltseal node enroll` (BS-NOD-001)",
        ),
        (
            attested && policy.node.pcrs.is_empty() && policy.node.log.is_none() && !by_token,
            "node.pcrs is empty and there is no node.log: no state of the node is accepted (BS-NOD-001)",
        ),
        (
            attested && policy.node.enrolled == "trust-on-first-use",
            "the node's key was trusted on first use: nothing proves that it lives in a genuine TPM (BS-NOD-001)",
        ),
    ]
    .into_iter()
    .filter(|(holds, _)| *holds)
    .map(|(_, hint)| hint.to_owned())
    .chain(policy.authorities.iter().filter_map(dated))
    .collect()
}

/// An authority whose signatures do not count today, or not any more by what they are.
fn dated(authority: &Authority) -> Option<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let why = match authority.closed(now) {
        Some(Closed::NotYet(from)) => format!("counts from {from} on, not yet"),
        Some(Closed::Over(until)) => format!("counted until {until}: it is over"),
        None if !authority.takes(None) => {
            "has a minimum signing time, which no signature of cosign with a key meets: none of it counts".to_owned()
        }
        None => return None,
    };
    Some(format!("authority \"{}\" {why} (BS-IMG-001)", authority.name))
}

/// Whose the policy in force is, and what would judge in its place.
fn standing(files: &PolicyBundle, screen: &mut Screen) -> Result<(), Failure> {
    let found = match policy_sign::standing(files) {
        Ok(found) => found,
        Err(why) => return screen.row('✗', Colour::Bad, &why),
    };
    match (found.signer, found.signed, found.floor) {
        (Fact::Absent, ..) => screen.row('·', Colour::Dim, "not signed: this node pins no key (boltseal policy trust)"),
        (_, Fact::Is(version), Fact::Is(floor)) if version < floor => {
            screen.row('✗', Colour::Bad, &format!("version {version} is below the floor, {floor}: it is not in force"))
        }
        (_, Fact::Is(version), Fact::Is(floor)) => {
            screen.row('✓', Colour::Good, &format!("version {version}, signed by the pinned key; the floor is {floor}"))
        }
        (_, Fact::Is(version), Fact::Absent) => {
            screen.row('!', Colour::Doubt, &format!("version {version}, signed by the pinned key; no floor is kept"))
        }
        (_, Fact::Is(_), Fact::Unknown(why)) => screen.row('✗', Colour::Bad, &format!("the floor is unknown: {why}")),
        (_, Fact::Absent, _) => {
            screen.row('✗', Colour::Bad, "not signed, although this node pins a key: it is not in force")
        }
        (_, Fact::Unknown(why), _) => screen.row('✗', Colour::Bad, &format!("{why}: it is not in force")),
    }
}

pub(crate) fn lint(dir: Option<&Path>, screen: &mut Screen) -> Result<Exit, Failure> {
    // The loader walks from the root, to see who may write to each folder on the way.
    let dir = std::path::absolute(dir.unwrap_or(Path::new(POLICY))).map_err(Failure::undecided)?;
    let loaded = match load_of(&dir, Owner::Root) {
        Ok(loaded) => loaded,
        Err(Bad(problems)) => {
            if screen.json() {
                screen.document(&json!({ "ok": false, "problems": problems }))?;
            } else {
                for problem in &problems {
                    screen.row('✗', Colour::Bad, problem)?;
                }
                screen.line(&format!("{}: this policy starts nothing", count(problems.len(), "problem")))?;
            }
            return Ok(Exit::BadPolicy);
        }
    };
    // A rule that this node cannot enforce denies every start.
    let node = doctor::rules(&loaded.policy);
    let lacking = node.iter().filter(|c| c.state != State::Ok);
    let exit = if node.iter().any(|c| c.state == State::Fail) { Exit::Findings } else { Exit::Ok };
    let policy = &loaded.policy;
    if screen.json() {
        let lacking: Vec<_> = lacking.collect();
        screen.document(&json!({ "ok": true, "digest": loaded.bundle.digest, "level": policy.level, "problems": [], "hints": hints(policy, &loaded.bundle), "node": lacking }))?;
        return Ok(exit);
    }
    let level = crate::explain::level(policy.level);
    let counts = [
        (policy.authorities.len(), "authority"),
        (policy.scopes.len(), "scope"),
        (policy.allowances.len(), "allowance"),
        (policy.exceptions.len(), "exception"),
    ];
    let counts: Vec<String> = counts.iter().map(|(n, what)| count(*n, what)).collect();
    screen.row(
        '✓',
        Colour::Good,
        &format!(
            "{}, digest {}, level {level}, {}",
            count(loaded.bundle.files.len(), "file"),
            loaded.bundle.digest,
            counts.join(", ")
        ),
    )?;
    if dir == Path::new(POLICY) {
        standing(&loaded.bundle, screen)?;
    }
    for hint in hints(policy, &loaded.bundle) {
        screen.row('!', Colour::Doubt, &hint)?;
    }
    for (rule, mode) in &policy.modes {
        screen.row('·', Colour::Dim, &format!("{rule} is set to {}", format!("{mode:?}").to_lowercase()))?;
    }
    for e in &policy.exceptions {
        let condition = e.condition.as_deref().unwrap_or("every condition");
        screen.row(
            '!',
            Colour::Doubt,
            &format!(
                "{} ({condition}) is excepted for {} until {}: {} ({})",
                e.rule, e.scope, e.expires, e.reason, e.owner
            ),
        )?;
    }
    for check in lacking {
        let (mark, colour) = if check.state == State::Fail { ('✗', Colour::Bad) } else { ('!', Colour::Doubt) };
        screen.row(mark, colour, &format!("this node, {}: {}", check.name, check.fact))?;
    }
    if exit == Exit::Findings {
        screen.line("the policy is well formed, but this node cannot enforce all of it: what it cannot enforce denies every start")?;
    }
    Ok(exit)
}
