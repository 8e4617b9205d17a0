//! `boltseal node attest`: the verdict on this boot, made before anything starts.
use super::{key, node_policy, not_enrolled, token};
use crate::paths::{RUN, run_folder};
use crate::policy::{Bad, load};
use crate::policy_measured;
use crate::screen::{Colour, Exit, Failure, Screen, talk};
use boltseal_node::log::Kernel;
use boltseal_node::{Boot, check};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) fn attest(wait: Duration, screen: &mut Screen) -> Result<Exit, Failure> {
    let loaded = load().map_err(Bad::failure)?;
    let rules = &loaded.policy.node;
    let key = key(&loaded).ok_or_else(not_enrolled)?;
    let boot = Boot::current().map_err(Failure::undecided)?;
    let instead = rules.ear.as_ref().filter(|ear| ear.instead);
    if instead.is_none() && rules.pcrs.is_empty() && rules.log.is_none() {
        let text = "the policy names neither PCR values nor rules on the event log. Fix: boltseal node policy";
        return Err(Failure::new(Exit::Findings, text));
    }
    run_folder()?;
    let deadline = Instant::now() + wait;
    if instead.is_none() || loaded.policy.bundle.measured {
        appears(&rules.tpm, deadline);
    }
    if loaded.policy.bundle.measured {
        policy_measured::measure(&loaded, deadline)?;
    }
    if let Some(ear) = instead {
        return by_token(token(&loaded, ear, key, &boot), screen);
    }
    let source = Kernel { tpm: &rules.tpm, deadline };
    let policy = node_policy(rules, key, &source)?;
    let mut state = check(Path::new(RUN), &policy, &loaded.bundle.digest, &boot, deadline);
    if let Some(Err(why)) = rules.ear.as_ref().map(|ear| token(&loaded, ear, key, &boot)) {
        state.verified = false;
        state.problems.push(why);
    }
    for note in &state.notes {
        talk(note);
    }
    let exit = if state.verified { Exit::Ok } else { Exit::Findings };
    if screen.json() {
        let pcrs: Vec<_> = state.wrong_pcrs.iter().map(|(pcr, value)| json!({ "pcr": pcr, "value": value })).collect();
        screen.document(&json!({
            "verified": state.verified, "fresh": state.fresh, "software": state.software,
            "problems": state.problems, "wrong_pcrs": pcrs, "notes": state.notes, "microseconds": state.microseconds,
        }))?;
        return Ok(exit);
    }
    for problem in &state.problems {
        screen.row('✗', Colour::Bad, problem)?;
    }
    if state.verified {
        let how = if state.fresh { "a quote was made" } else { "the kept verdict holds" };
        let kind = if state.software { ", by a software TPM" } else { "" };
        screen.row(
            '✓',
            Colour::Good,
            &format!("attested for this boot and policy{kind}: {how}, {} ms", state.microseconds / 1000),
        )?;
    } else {
        screen.row('✗', Colour::Bad, "not attested: BS-NOD-001 denies every start that it is enforced for")?;
    }
    Ok(exit)
}

/// The verifier's word stands for the local policy: nothing is asked of the TPM.
fn by_token(token: Result<(), String>, screen: &mut Screen) -> Result<Exit, Failure> {
    let exit = if token.is_ok() { Exit::Ok } else { Exit::Findings };
    if screen.json() {
        let problems: Vec<_> = token.as_ref().err().into_iter().collect();
        screen.document(&json!({ "verified": token.is_ok(), "problems": problems, "token": true }))?;
        return Ok(exit);
    }
    match token {
        Ok(()) => screen.row('✓', Colour::Good, "attested for this boot by the verifier's token")?,
        Err(why) => screen.row('✗', Colour::Bad, &why)?,
    }
    Ok(exit)
}

/// Early in a boot the TPM's driver may still be on its way. What does not come is told by the check.
fn appears(address: &str, deadline: Instant) {
    let path = Path::new(address.strip_prefix("unix:").unwrap_or(address));
    while !path.exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
    }
}
