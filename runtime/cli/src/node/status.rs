//! `boltseal node status`.
use super::{hex, key, look, not_enrolled};
use crate::policy::{Bad, load};
use crate::screen::{Colour, Exit, Failure, Screen};
use boltseal_node::{Boot, binding};

pub(crate) fn status(screen: &mut Screen) -> Result<Exit, Failure> {
    let loaded = load().map_err(Bad::failure)?;
    let Some(status) = look(&loaded)? else {
        return Err(not_enrolled());
    };
    let rules = &loaded.policy.node;
    let exit = if status.verified && status.problems.is_empty() { Exit::Ok } else { Exit::Findings };
    // What a verifier has to answer in this boot.
    let binding = key(&loaded).zip(Boot::current().ok()).and_then(|(key, boot)| binding(key, &boot).ok());
    let nonce = binding.map(|binding| hex(&binding.nonce));
    if screen.json() {
        let mut document = serde_json::to_value(&status).map_err(Failure::undecided)?;
        if let Some(map) = document.as_object_mut() {
            map.insert("enrolled".into(), rules.enrolled.as_str().into());
            map.insert("ear_nonce".into(), nonce.as_deref().into());
        }
        screen.document(&document)?;
        return Ok(exit);
    }
    let kind = if status.software { "software TPM" } else { "TPM" };
    screen.line(&format!("{kind} {}, made by {}", rules.tpm, status.manufacturer.as_deref().unwrap_or("?")))?;
    let (mark, colour, text) = match status.ak_matches {
        Some(true) => ('✓', Colour::Good, "this TPM has it"),
        Some(false) => ('✗', Colour::Bad, "this TPM does not have it"),
        None => ('?', Colour::Doubt, "the TPM could not be asked"),
    };
    screen.row(
        mark,
        colour,
        &format!("enrolled key {} ({}): {text}", status.ak_name_hex, enrolled(&rules.enrolled)),
    )?;
    for (pcr, (value, accepted)) in &status.pcrs {
        let (mark, colour) = if *accepted { ('✓', Colour::Good) } else { ('✗', Colour::Bad) };
        screen.row(mark, colour, &format!("PCR {pcr:2} {value}"))?;
    }
    if let Some(log) = &status.log {
        let (mark, colour) = if log.good { ('✓', Colour::Good) } else { ('✗', Colour::Bad) };
        screen.row(mark, colour, &format!("event log {}, booted by {:?}", log.digest, log.boot_path))?;
    }
    if let (Some(_), Some(nonce)) = (&rules.ear, &nonce) {
        screen.row('·', Colour::Dim, &format!("nonce for the verifier {nonce}"))?;
    }
    for problem in &status.problems {
        screen.row('!', Colour::Doubt, problem)?;
    }
    match (status.verified, status.expires_in) {
        (true, Some(seconds)) => {
            screen.row('✓', Colour::Good, &format!("attested for this boot and policy, for another {seconds} s"))?;
        }
        (true, None) => screen.row('✓', Colour::Good, "attested for this boot and policy")?,
        (false, _) => screen.row('✗', Colour::Bad, "not attested")?,
    }
    Ok(exit)
}

fn enrolled(how: &str) -> &str {
    match how {
        "certified" => "certified by the TPM's maker",
        "trust-on-first-use" => "trust on first use",
        _ => "how is not recorded",
    }
}
