//! What an operator sees of a node: the TPM now, and the kept verdict. Reads only; quotes nothing, repairs nothing.
use crate::cap::accepted;
use crate::channel::Address;
use crate::check::of_boot;
use crate::enroll::name_hex;
use crate::folder::Folder;
use crate::log::{BootPath, Events, Known, judge};
use crate::tpm::Tpm;
use crate::verdict::{self, Unfit, Verdict};
use crate::{Boot, Error, LogPolicy, NodePolicy, hex};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    pub software: bool,
    /// Name of the enrolled key, hex; empty when the policy's key is unusable.
    pub ak_name_hex: String,
    /// This TPM has the enrolled key. None when it could not be asked.
    pub ak_matches: Option<bool>,
    /// Four letters that the TPM says of itself.
    pub manufacturer: Option<String>,
    /// Boots and suspends that the TPM counted. Unsigned here.
    pub resets: Option<u32>,
    pub restarts: Option<u32>,
    /// The policy's PCRs: (value now in hex, accepted). Unsigned here: only a verdict is proof.
    pub pcrs: BTreeMap<u32, (String, bool)>,
    /// The event log, when the policy has rules on it: judged now against the values above.
    pub log: Option<LogSeen>,
    /// The kept verdict holds for this boot and this policy.
    pub verified: bool,
    /// Seconds that it lives on.
    pub expires_in: Option<u64>,
    /// What is wrong, one line each.
    pub problems: Vec<String>,
}

/// This boot's event log, as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogSeen {
    /// SHA-256 of its bytes, hex.
    pub digest: String,
    /// As its labels tell.
    pub boot_path: BootPath,
    /// It leads to the PCR values and every rule holds.
    pub good: bool,
}

/// Looks at the TPM and the kept verdict. Never hangs past `deadline`.
pub fn status(dir: &Path, policy: &NodePolicy<'_>, policy_digest: &str, boot: &Boot, deadline: Instant) -> Status {
    let mut status = Status::default();
    if let Err(error) = look_at_tpm(policy, deadline, &mut status) {
        status.problems.push(error.to_string());
    }
    match look_at_verdict(dir, policy, policy_digest, boot) {
        Ok(Some(kept)) => {
            status.verified = true;
            let end = kept.made_at / 1_000_000_000 + kept.ttl.min(policy.ttl.as_secs());
            status.expires_in = Some(end.saturating_sub(boot.boottime_ns / 1_000_000_000));
        }
        Ok(None) => status.problems.push("no node verdict is kept: the next start asks the TPM".into()),
        Err(unfit) => status.problems.push(format!("the kept node verdict does not hold: {unfit}")),
    }
    status
}

fn look_at_tpm(policy: &NodePolicy<'_>, deadline: Instant, status: &mut Status) -> Result<(), Error> {
    status.software = Address::parse(policy.tpm)?.software();
    let key = policy.key()?;
    status.ak_name_hex = name_hex(&key);
    let mut tpm = Tpm::open(policy.tpm, deadline)?;
    status.manufacturer = Some(tpm.manufacturer()?);
    let time = tpm.time()?;
    status.resets = Some(time.resets);
    status.restarts = Some(time.restarts);
    let judged = policy.log.as_ref().map(|log| log.rules.quoted()).unwrap_or_default();
    let values = tpm.pcrs(policy.pcrs.keys().chain(&judged).copied())?;
    if let Some(log) = &policy.log {
        match look_at_log(log, &values) {
            Ok((seen, problems)) => {
                status.log = Some(seen);
                status.problems.extend(problems);
            }
            Err(error) => status.problems.push(error.to_string()),
        }
    }
    for (pcr, value) in values {
        // Rules on the log judge it when a verdict is made.
        let accepted = policy.pcrs.get(&pcr).map_or(judged.contains(&pcr), |all| all.contains(&value));
        status.pcrs.insert(pcr, (hex::encode(&value), accepted));
        if !accepted {
            status.problems.push(format!("PCR {pcr} has a value that the node policy does not accept"));
        }
    }
    match tpm.with_key(&key, |_, _| Ok(())) {
        Ok(()) => status.ak_matches = Some(true),
        Err(error @ Error::Refused(_)) => {
            status.ak_matches = Some(false);
            return Err(error);
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

fn look_at_log(log: &LogPolicy<'_>, values: &BTreeMap<u32, [u8; 32]>) -> Result<(LogSeen, Vec<String>), Error> {
    let bytes = log.source.log()?;
    let answer = log.source.propose(&bytes)?;
    let events = Events::decode(&bytes, &answer)?;
    let (digest, boot_path) = (hex::encode(&events.digest()), Known(&events).boot_path());
    let problems = match events.prove(&of_boot(values)) {
        Ok(proven) => judge(&log.rules, &proven, &log.source.command_line()?),
        Err(error) => vec![error.to_string()],
    };
    Ok((LogSeen { digest, boot_path, good: problems.is_empty() }, problems))
}

fn look_at_verdict(
    dir: &Path,
    policy: &NodePolicy<'_>,
    policy_digest: &str,
    boot: &Boot,
) -> Result<Option<Verdict>, Unfit> {
    let key = policy.key()?;
    policy.valid(policy_digest)?;
    let judged = policy.log.as_ref().map(|log| log.rules.quoted());
    let pcrs = accepted(&policy.pcrs, policy.cap, boot);
    let expected = policy.expected(&key, &pcrs, judged.as_ref(), policy_digest, boot);
    let Some(bytes) = Folder::open(dir)?.read()? else {
        return Ok(None);
    };
    let verdict = verdict::parse(&bytes)?;
    verdict.verify(&expected).map(|()| Some(verdict))
}
