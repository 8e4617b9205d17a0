//! `boltseal grant`: an owner's grants, made where the owner is and looked at where they count.
pub(crate) mod break_glass;
mod key;

use crate::args::GrantCommand;
use crate::policy::{self, Bad, grantors};
use crate::screen::{Colour, Exit, Failure, Screen, talk};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use boltseal_evidence::file::Owner;
use boltseal_import::{Asked, MAX_FILE, workloads};
use boltseal_policy::pattern;
use boltseal_trust::Json;
use boltseal_trust::dsse::{self, Envelope};
use boltseal_trust::grant::{CLAIM, DSSE_TYPE, Grant, JWS_TYPE, MAX_GRANT, read as read_claims};
use key::Private;
use serde_json::{Value, json};
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

const ANNOTATION: &str = "boltseal.dev/owner-grant";
const DAY: u64 = 86_400;

pub(crate) fn run(command: &GrantCommand, screen: &mut Screen) -> Result<Exit, Failure> {
    match command {
        GrantCommand::Generate { .. } => generate(command, screen),
        GrantCommand::Sign { file, key, break_glass: true, .. } => break_glass::sign(file, key, screen),
        GrantCommand::Sign { file, key, envelope, annotation, .. } => sign(file, key, *envelope, *annotation, screen),
        GrantCommand::Request { node, rule, hours, reason } => break_glass::request(node, rule, *hours, reason, screen),
        GrantCommand::Install { file } => break_glass::install(file, screen),
        GrantCommand::Verify { file, policy } => verify(file, policy.as_deref(), screen),
    }
}

/// Reads a file, or stdin for `-`.
fn read(path: &Path, max: usize) -> Result<Vec<u8>, Failure> {
    let failed = |e: io::Error| Failure::undecided(format!("{}: {e}", path.display()));
    let mut bytes = Vec::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    if path == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut bytes).map_err(failed)?;
    } else {
        fs::File::open(path).map_err(failed)?.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    }
    if bytes.len() > max {
        return Err(Failure::undecided(format!("{}: larger than {max} bytes", path.display())));
    }
    Ok(bytes)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default()
}

/// One line per workload: the claims to sign.
fn generate(command: &GrantCommand, screen: &mut Screen) -> Result<Exit, Failure> {
    let GrantCommand::Generate { file, namespace, image, issuer, subject, audience, days, amr, acr } = command else {
        return Err(Failure::undecided("not generate"));
    };
    let mut asked = Asked { namespace: namespace.clone(), ..Asked::default() };
    for one in image {
        let Some((name, digest)) = one.split_once('=') else {
            return Err(Failure::new(
                Exit::Usage,
                format!("--image {one}: IMAGE=sha256:<hex>, as the manifest names it"),
            ));
        };
        asked.digests.insert(name.to_owned(), digest.to_owned());
    }
    let bytes = read(file, MAX_FILE)?;
    let found = workloads(&bytes, &asked).map_err(|why| Failure::undecided(format!("{}: {why}", file.display())))?;
    let from = now();
    let mut noted = false;
    for workload in found {
        let mut claims = json!({
            "iss": issuer, "sub": subject, "aud": audience,
            "iat": from, "nbf": from, "exp": from.saturating_add(days.saturating_mul(DAY)),
            CLAIM: workload.claim,
        });
        if !amr.is_empty() {
            claims["amr"] = json!(amr);
        }
        if let Some(acr) = acr {
            claims["acr"] = json!(acr);
        }
        screen.line(&claims.to_string())?;
        for note in workload.notes {
            noted = true;
            talk(&format!("{}: {note}", workload.name));
        }
    }
    Ok(if noted { Exit::Findings } else { Exit::Ok })
}

/// One line per grant, in the order of the claims.
fn sign(file: &Path, key: &Path, envelope: bool, annotation: bool, screen: &mut Screen) -> Result<Exit, Failure> {
    let private = Private::read(key)?;
    let bytes = read(file, MAX_FILE)?;
    let text = std::str::from_utf8(&bytes).map_err(|e| Failure::undecided(format!("{}: {e}", file.display())))?;
    let mut any = false;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let bad = |why: String| Failure::new(Exit::Findings, format!("{}: {why}", file.display()));
        let claims: Json = serde_json::from_str(line).map_err(|e| bad(format!("claims: {e}")))?;
        read_claims(&claims).map_err(|why| bad(why.0))?;
        let grant = if envelope {
            let mut made = Envelope { payload_type: DSSE_TYPE.into(), payload: line.trim().into(), signatures: vec![] };
            made.signatures.push(private.sign_der(&made.message())?);
            made.json().trim_end().to_owned()
        } else {
            let head = json!({ "alg": private.alg(), "typ": JWS_TYPE }).to_string();
            let message = [head.as_str(), line.trim()].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
            let signature = private.sign_fixed(message.as_bytes())?;
            format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
        };
        if grant.len() > MAX_GRANT {
            return Err(bad(format!("the grant is longer than {MAX_GRANT} bytes: grant fewer containers at once")));
        }
        any = true;
        if screen.json() {
            screen.document(&json!({ ANNOTATION: grant }))?;
        } else if annotation {
            screen.line("metadata:")?;
            screen.line("  annotations:")?;
            // A single quote does not occur in either form.
            screen.line(&format!("    {ANNOTATION}: '{grant}'"))?;
        } else {
            screen.line(&grant)?;
        }
    }
    if any { Ok(Exit::Ok) } else { Err(Failure::undecided(format!("{}: no claims to sign", file.display()))) }
}

/// By a policy's authorities: whether it would count, and for which containers.
fn verify(file: &Path, dir: Option<&Path>, screen: &mut Screen) -> Result<Exit, Failure> {
    let loaded = match dir {
        None => policy::load(),
        Some(dir) => policy::load_of(&std::path::absolute(dir).map_err(Failure::undecided)?, Owner::Any),
    }
    .map_err(Bad::failure)?;
    let rules = loaded.policy.owner.grant.as_ref();
    let Some(rules) = rules else { return Err(Failure::new(Exit::BadPolicy, "the policy has no [owner.grant]")) };
    let keys = grantors(&loaded.policy, &loaded.bundle).map_err(|why| Failure::new(Exit::BadPolicy, why))?;
    let bytes = read(file, MAX_GRANT)?;
    let bad = |why: &str| Failure::new(Exit::Findings, format!("{}: {why}", file.display()));
    let text = std::str::from_utf8(&bytes).map_err(|e| bad(&e.to_string()))?.trim();
    let envelope = text.starts_with('{').then(|| dsse::propose(text.as_bytes())).transpose();
    let envelope = envelope.map_err(|e| bad(e.reason()))?;
    let (mut problems, mut by, mut claims) = (Vec::new(), Vec::new(), None);
    for (name, keys) in &keys {
        match envelope.as_ref().map_or_else(|| keys.token(text), |envelope| keys.envelope(envelope)) {
            Ok(said) => {
                by.push(name.clone());
                claims = Some(said);
            }
            Err(why) => problems.push(format!("authority {name}: {why}")),
        }
    }
    let Some(claims) = claims else { return Err(bad(&problems.join("; "))) };
    let grant = read_claims(&claims).map_err(|why| bad(&why.0))?;
    let problems = problems_of(&grant, &by, &loaded.policy, rules);
    if screen.json() {
        let containers: Vec<Value> =
            grant.containers.iter().map(|c| json!({ "name": c.name, "images": c.images })).collect();
        screen.document(&json!({
            "owner": grant.subject, "by": by, "namespaces": grant.namespaces, "pods": grant.pods, "until": grant.until,
            "containers": containers, "problems": problems,
        }))?;
    } else {
        let namespaces: Vec<&str> = grant.namespaces.iter().map(String::as_str).collect();
        let of = format!("{} for {} in {}", grant.subject, grant.pods.join(", "), namespaces.join(", "));
        screen.row('✓', Colour::Good, &format!("{of}, signed by {}", by.join(", ")))?;
        for container in &grant.containers {
            let images: Vec<&str> = container.images.iter().map(String::as_str).collect();
            if images.is_empty() {
                screen.row('✗', Colour::Bad, &format!("container {}: no image, so it is refused", container.name))?;
            } else {
                screen.row('✓', Colour::Good, &format!("container {}: {}", container.name, images.join(", ")))?;
            }
        }
        for problem in &problems {
            screen.row('✗', Colour::Bad, problem)?;
        }
    }
    let imageless = grant.containers.iter().any(|container| container.images.is_empty());
    Ok(if problems.is_empty() && !imageless { Exit::Ok } else { Exit::Findings })
}

/// What of it does not hold under the policy, as far as that can be told without a pod.
fn problems_of(
    grant: &Grant,
    by: &[String],
    policy: &boltseal_policy::Policy,
    rules: &boltseal_policy::policy::GrantRules,
) -> Vec<String> {
    let mut out = Vec::new();
    let now = now();
    if now >= grant.until {
        out.push("it has expired".into());
    } else if grant.from > now.saturating_add(60) {
        out.push("it is not valid yet".into());
    }
    if grant.until.saturating_sub(grant.from) > rules.max_days.saturating_mul(DAY) {
        out.push(format!("it lives for more than owner.grant.max_days, {}", rules.max_days));
    }
    if !rules.audiences.iter().any(|audience| grant.audience.contains(audience)) {
        out.push("its `aud` is none of owner.grant.audiences".into());
    }
    let any = |patterns: &[String], text: &str| patterns.iter().any(|p| pattern::matches(p, text));
    if !any(&policy.owner.patterns, &grant.subject) {
        out.push("its `sub` matches no pattern of owner.patterns".into());
    }
    let vouches = rules.authorities.iter().filter(|a| by.contains(&a.name)).any(|a| {
        a.closed(now).is_none()
            && a.issuer == grant.issuer
            && any(&a.identities, &grant.subject)
            && grant.namespaces.iter().all(|namespace| any(&a.namespaces, namespace))
            && a.amr.is_subset(&grant.amr)
            && (a.acr.is_empty() || a.acr.contains(&grant.acr))
    });
    if !vouches {
        out.push("who signed it may not vouch for it: window, `iss`, `sub`, namespace, `amr` or `acr`".into());
    }
    out
}
