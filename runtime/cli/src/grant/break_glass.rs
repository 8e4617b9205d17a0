//! Break-glass files: asked for, signed by one key after the other, and put in place where they count.
use super::key::Private;
use super::{now, read};
use crate::paths::{BREAK_GLASS, POLICY};
use crate::policy::{self, Bad};
use crate::policy_files::put;
use crate::screen::{Colour, Exit, Failure, Screen, talk};
use boltseal_evidence::policy_files::PolicyBundle;
use boltseal_policy::{MAX_HOURS, Policy, never_lifted, rules};
use boltseal_trust::Key;
use boltseal_trust::break_glass::{BreakGlass, DSSE_TYPE, read as read_payload};
use boltseal_trust::dsse::{self, Envelope, MAX_ENVELOPE};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Prints what is to be signed.
pub(super) fn request(
    nodes: &[String],
    asked: &[String],
    hours: u64,
    reason: &str,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let usage = |text: String| Failure::new(Exit::Usage, text);
    let mut by_rule: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for one in asked {
        let Some((id, condition)) = one.split_once('=') else {
            return Err(usage(format!("--rule {one}: RULE=CONDITION, such as BS-OWN-001=missing")));
        };
        let Some(rule) = rules::find(id) else { return Err(usage(format!("--rule {one}: no such rule"))) };
        if !rule.conditions.iter().any(|(name, _)| *name == condition) {
            return Err(usage(format!("--rule {one}: {id} has no such condition. Fix: boltseal explain {id}")));
        }
        if never_lifted(id, condition) {
            return Err(usage(format!("--rule {one}: nobody lets that through, however many sign")));
        }
        by_rule.entry(rule.id).or_default().insert(condition);
    }
    if !(1..=MAX_HOURS).contains(&hours) {
        return Err(usage(format!("--hours {hours}: from 1 to {MAX_HOURS}")));
    }
    let from = now();
    let text = json!({
        "version": 1, "nodes": nodes, "rules": by_rule, "from": from, "until": from + hours * 3600, "reason": reason,
    })
    .to_string();
    read_payload(text.as_bytes()).map_err(|why| usage(why.0))?;
    screen.line(&text)?;
    Ok(Exit::Ok)
}

/// Prints the file with one signature more; the first one makes an envelope of a request.
pub(super) fn sign(file: &Path, key: &Path, screen: &mut Screen) -> Result<Exit, Failure> {
    let private = Private::read(key)?;
    let bytes = read(file, MAX_ENVELOPE)?;
    let bad = |why: &str| Failure::new(Exit::Findings, format!("{}: {why}", file.display()));
    let mut envelope = match dsse::propose(&bytes) {
        Ok(envelope) => envelope,
        Err(_) => Envelope { payload_type: DSSE_TYPE.into(), payload: bytes.trim_ascii().to_vec(), signatures: vec![] },
    };
    if envelope.payload_type != DSSE_TYPE {
        return Err(bad("an envelope of something else"));
    }
    // Who signs sees what.
    let said = read_payload(&envelope.payload).map_err(|why| bad(&why.0))?;
    for line in lines(&said) {
        talk(&line);
    }
    let signature = private.sign_der(&envelope.message())?;
    envelope.signatures.push(signature);
    screen.line(envelope.json().trim_end())?;
    Ok(Exit::Ok)
}

/// Copies a file that counts under this node's policy into the root-only folder.
pub(super) fn install(file: &Path, screen: &mut Screen) -> Result<Exit, Failure> {
    let loaded = policy::load().map_err(Bad::failure)?;
    let bytes = read(file, MAX_ENVELOPE)?;
    let (said, signers) = look(&bytes, &loaded.policy, &loaded.bundle)
        .map_err(|why| Failure::new(Exit::Findings, format!("{}: {why}", file.display())))?;
    let problems = problems(&said, &signers, &loaded.policy, &loaded.bundle);
    if !problems.is_empty() {
        return Err(Failure::new(Exit::Findings, format!("{}: {}", file.display(), problems.join("; "))));
    }
    let made = DirBuilder::new().mode(0o700).create(BREAK_GLASS);
    made.or_else(|e| if e.kind() == ErrorKind::AlreadyExists { Ok(()) } else { Err(e) })
        .map_err(|e| Failure::undecided(format!("{BREAK_GLASS}: {e}")))?;
    let at = Path::new(BREAK_GLASS).join(format!("{}.json", said.id));
    put(&at, &bytes, 0o600).map_err(|e| Failure::undecided(format!("{}: {e}", at.display())))?;
    for line in lines(&said) {
        screen.row('!', Colour::Doubt, &line)?;
    }
    talk(&format!("in force from now on; to end it before its time: rm {}", at.display()));
    Ok(Exit::Ok)
}

/// What a file says, and which of the policy's keys signed it.
pub(crate) fn look(
    bytes: &[u8],
    policy: &Policy,
    bundle: &PolicyBundle,
) -> Result<(BreakGlass, BTreeSet<String>), String> {
    let envelope = dsse::propose(bytes).map_err(|e| e.reason().to_owned())?;
    let mut keys = Vec::new();
    for name in &policy.break_glass.keys {
        let pem = bundle.trust(name).and_then(|bytes| std::str::from_utf8(bytes).ok());
        keys.push(pem.and_then(|pem| Key::from_spki_pem(pem).ok()).ok_or_else(|| format!("trust/{name} is no key"))?);
    }
    let signers = envelope.signers(&keys);
    if envelope.payload_type != DSSE_TYPE {
        return Err("an envelope of something else".into());
    }
    Ok((read_payload(&envelope.payload).map_err(|e| e.0)?, signers))
}

/// Why it does not count here and now.
pub(crate) fn problems(
    said: &BreakGlass,
    signers: &BTreeSet<String>,
    policy: &Policy,
    bundle: &PolicyBundle,
) -> Vec<String> {
    let (rules, mut out) = (&policy.break_glass, Vec::new());
    if rules.keys.is_empty() {
        out.push("the policy has no [break_glass]".into());
    } else if signers.len() < rules.need {
        out.push(format!("{} of {} keys signed it", signers.len(), rules.need));
    }
    let key = bundle.trust(&policy.node.attestation_key).and_then(|bytes| std::str::from_utf8(bytes).ok());
    match key.and_then(|pem| Key::from_spki_pem(pem).ok()) {
        None => out.push(format!("this node has no enrolled key, in {POLICY}: it takes none")),
        Some(key) if !said.nodes.contains(key.id()) => out.push(format!("it is not for this node, {}", key.id())),
        Some(_) => {}
    }
    let now = now();
    if now >= said.until {
        out.push("it is over".into());
    } else if now < said.from {
        out.push("it has not begun".into());
    }
    if said.until.saturating_sub(said.from) > rules.max_hours.min(MAX_HOURS) * 3600 {
        out.push(format!("it lasts longer than {} hours", rules.max_hours.min(MAX_HOURS)));
    }
    out
}

pub(crate) fn lines(said: &BreakGlass) -> Vec<String> {
    let minutes = said.until.saturating_sub(said.from) / 60;
    let mut out =
        vec![format!("break-glass {}, {minutes} minutes: {}", said.id, boltseal_policy::text::show(&said.reason))];
    for (rule, conditions) in &said.rules {
        let conditions: Vec<&str> = conditions.iter().map(String::as_str).collect();
        out.push(format!("  lets {} {} through", boltseal_policy::text::show(rule), conditions.join(", ")));
    }
    out.extend(said.nodes.iter().map(|node| format!("  on node {node}")));
    out
}
