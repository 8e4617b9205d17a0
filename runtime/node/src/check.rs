//! Is this node attested for this boot? What every start asks.
//!
//! ```text
//! node.json there and holds -> verified, no TPM command
//! otherwise: lock, look again, quote, verify, keep
//! ```
//! A verdict that does not hold is never patched up: a new one is made, or the start is told why not. Failures are not
//! kept: the next start asks again.
use crate::cap;
use crate::channel::Address;
use crate::folder::{Folder, Lock};
use crate::key::AttestationKey;
use crate::log::{COVERED, Events, JUDGED, LogRules, LogSource, judge};
use crate::quote::{mismatch, selection, verify};
use crate::tpm::Tpm;
use crate::verdict::{self, Expected, Unfit, Verdict};
use crate::{Boot, Error};
use ring::rand::{SecureRandom, SystemRandom};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

/// Attempts when a PCR is extended between reading it and quoting it.
const ATTEMPTS: usize = 3;

/// The node part of a policy.
#[derive(Debug, Clone)]
pub struct NodePolicy<'a> {
    /// `/dev/tpmrm0`, or `unix:/absolute/path` of a software TPM.
    pub tpm: &'a str,
    /// The enrolled key, PEM SubjectPublicKeyInfo.
    pub ak_spki_pem: &'a str,
    /// Accepted values of each PCR of the SHA-256 bank; at least one PCR, at least one value each.
    pub pcrs: BTreeMap<u32, Vec<[u8; 32]>>,
    /// Rules on the event log; together with the values they cover PCRs 4, 7 and 9.
    pub log: Option<LogPolicy<'a>>,
    /// A PCR that the first verdict of a boot extends, so that no kernel that kexec starts is attested.
    pub cap: Option<u32>,
    /// How long a verdict lives, on CLOCK_BOOTTIME, in whole seconds.
    pub ttl: Duration,
}

/// Rules on the event log, and where the log comes from.
#[derive(Debug, Clone)]
pub struct LogPolicy<'a> {
    pub rules: LogRules,
    pub source: &'a dyn LogSource,
}

/// What is known of this node now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeState {
    /// The TPM is a program at a socket, not a kernel device.
    pub software: bool,
    /// A quote by the enrolled key, of this boot and this policy, with accepted PCR values, was verified for this start.
    pub verified: bool,
    /// Why not, one line each. Empty when verified.
    pub problems: Vec<String>,
    /// PCRs whose quoted value the policy does not accept: (index, value in hex).
    pub wrong_pcrs: Vec<(u32, String)>,
    /// The TPM was asked now.
    pub fresh: bool,
    /// For the record, also when verified: why the kept verdict was not used, or the new one not kept.
    pub notes: Vec<String>,
    /// How long all of it took.
    pub microseconds: u64,
}

/// Checks the node for one start. `dir` is root's own folder of mode 0700 on a tmpfs (`/run/boltseal`);
/// `policy_digest` is over the whole policy that is in force, this node part included; `boot` was read just now.
///
/// Never hangs past `deadline`, never panics, and says verified only after verifying a quote in this very call.
pub fn check(dir: &Path, policy: &NodePolicy<'_>, policy_digest: &str, boot: &Boot, deadline: Instant) -> NodeState {
    let begun = Instant::now();
    let mut state = NodeState::default();
    match run(dir, policy, policy_digest, boot, begun, deadline, &mut state) {
        Ok(()) => state.verified = true,
        Err(Unfit::WrongPcrs(wrong)) => {
            let told = wrong.iter().map(|(pcr, value)| wrong_pcr(policy, *pcr, value));
            state.problems.splice(0..0, told);
            state.wrong_pcrs = wrong;
        }
        Err(unfit) => state.problems.extend(unfit.lines()),
    }
    state.microseconds = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    state
}

fn run(
    dir: &Path,
    policy: &NodePolicy<'_>,
    policy_digest: &str,
    boot: &Boot,
    begun: Instant,
    deadline: Instant,
    state: &mut NodeState,
) -> Result<(), Unfit> {
    state.software = Address::parse(policy.tpm)?.software();
    let key = policy.key()?;
    policy.valid(policy_digest)?;
    boot.valid()?;
    let judged = policy.log.as_ref().map(|log| log.rules.quoted());
    let pcrs = cap::accepted(&policy.pcrs, policy.cap, boot);
    // Time goes on while this runs: another start's verdict may be younger than `boot`.
    let now = || Boot { boottime_ns: boot.boottime_ns.saturating_add(nanos(begun)), ..boot.clone() };
    let look = |folder: &Folder| {
        let boot = now();
        let expected = policy.expected(&key, &pcrs, judged.as_ref(), policy_digest, &boot);
        Ok::<_, Error>(folder.read()?.map(|bytes| verdict::parse(&bytes).map_err(Unfit::from)?.verify(&expected)))
    };
    let folder = Folder::open(dir)?;
    if look(&folder)? == Some(Ok(())) {
        return Ok(());
    }
    let lock = folder.lock(deadline)?;
    match look(&folder)? {
        Some(Ok(())) => return Ok(()),
        Some(Err(why)) => state.notes.push(format!("the kept node verdict was not used: {why}")),
        None => {}
    }
    state.fresh = true;
    let boot = now();
    let expected = policy.expected(&key, &pcrs, judged.as_ref(), policy_digest, &boot);
    attest(&folder, &lock, policy, &expected, deadline, state)
}

/// Asks the TPM, verifies what it says by the same code that verifies the file, and keeps it when it holds.
fn attest(
    folder: &Folder,
    lock: &Lock,
    policy: &NodePolicy<'_>,
    expected: &Expected<'_>,
    deadline: Instant,
    state: &mut NodeState,
) -> Result<(), Unfit> {
    let mut salt = [0; 32];
    SystemRandom::new().fill(&mut salt).map_err(|_| Error::io("a random salt", "the kernel gave none"))?;
    // The log does not change after the boot; the PCRs that are quoted below must be what it leads to.
    let log = policy.log.as_ref().map(|log| log.source.log()).transpose()?;
    let answer = match (&policy.log, &log) {
        (Some(policy), Some(log)) if log.len() <= crate::log::MAX_LOG => policy.source.propose(log)?,
        _ => Vec::new(),
    };
    let events = log.as_ref().map(|log| Events::decode(log, &answer)).transpose()?;
    let log_digest = events.as_ref().map(Events::digest);
    let made_at = expected.boot.boottime_ns;
    let nonce = verdict::nonce(expected, log_digest.as_ref(), &salt, made_at, expected.ttl.as_secs());
    let mut tpm = Tpm::open(policy.tpm, deadline)?;
    let wanted = expected.quoted();
    let (quote, values, clock) = tpm.with_key(expected.key, |tpm, handle| {
        let mut attempt = 1;
        loop {
            let values = tpm.pcrs(wanted.iter().copied())?;
            let quote = tpm.quote(handle, &nonce, wanted.iter().copied())?;
            match verify(&quote, expected.key, &nonce, &values) {
                Err(error) if error == mismatch() && attempt < ATTEMPTS => attempt += 1,
                result => return result.map(|attest| (quote, values, attest.clock)),
            }
        }
    })?;
    let verdict = Verdict::new(expected, salt, values, clock, log_digest, &quote);
    let log = || judged(policy, events, &verdict);
    match verdict.verify(expected) {
        Ok(()) => log()?,
        // A wrong value does not hide what the log says: whoever looks for the reason sees both.
        Err(Unfit::WrongPcrs(wrong)) => {
            state.problems.extend(log().err().map(Unfit::lines).unwrap_or_default());
            return Err(Unfit::WrongPcrs(wrong));
        }
        Err(unfit) => return Err(unfit),
    }
    if let Some(pcr) = policy.cap.filter(|pcr| verdict.pcrs.get(pcr) == Some(&cap::OPEN)) {
        tpm.extend(pcr, &cap::digest(expected.boot))?;
    }
    // The node is attested; only the next start will have to ask the TPM again.
    if let Err(error) = verdict.bytes().and_then(|bytes| folder.write(lock, &bytes)) {
        state.notes.push(format!("the node verdict was not kept: {error}"));
    }
    Ok(())
}

/// What the rules on the event log say to the values that are quoted.
fn judged(policy: &NodePolicy<'_>, events: Option<Events<'_>>, verdict: &Verdict) -> Result<(), Unfit> {
    let (Some(policy), Some(events)) = (&policy.log, events) else { return Ok(()) };
    let proven = events.prove(&of_boot(&verdict.pcrs))?;
    let problems = judge(&policy.rules, &proven, &policy.source.command_line()?);
    if problems.is_empty() { Ok(()) } else { Err(Unfit::Log(problems)) }
}

/// The PCRs that rules look into. Others have accepted values, and may move after the boot.
pub(crate) fn of_boot(values: &BTreeMap<u32, [u8; 32]>) -> BTreeMap<u32, [u8; 32]> {
    values.iter().filter(|(pcr, _)| JUDGED.contains(pcr)).map(|(pcr, value)| (*pcr, *value)).collect()
}

fn nanos(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn wrong_pcr(policy: &NodePolicy<'_>, pcr: u32, value: &str) -> String {
    if policy.cap == Some(pcr) {
        return format!(
            "PCR {pcr} (node.cap) is {value}, neither clear nor capped in this boot: this kernel was started by kexec, or something else extends that PCR. Fix: reboot"
        );
    }
    let accepted = policy.pcrs.get(&pcr).map_or(0, Vec::len);
    format!(
        "PCR {pcr} is {value}, not one of the {accepted} that the node policy accepts. Fix: boot the kernel, initrd, command line and firmware that were enrolled, or accept this value in [node.pcrs]"
    )
}

/// The TPM at this address is a program at a socket, not a kernel device.
///
/// # Errors
/// An address that is neither.
pub fn is_software(tpm: &str) -> Result<bool, Error> {
    Ok(Address::parse(tpm)?.software())
}

impl NodePolicy<'_> {
    pub(crate) fn key(&self) -> Result<AttestationKey, Error> {
        AttestationKey::from_pem(self.ak_spki_pem)
            .map_err(|e| Error::refused(format!("the enrolled key is unusable: {e}. Fix: boltseal node enroll")))
    }

    pub(crate) fn expected<'b>(
        &'b self,
        key: &'b AttestationKey,
        pcrs: &'b BTreeMap<u32, Vec<[u8; 32]>>,
        judged: Option<&'b BTreeSet<u32>>,
        policy_digest: &'b str,
        boot: &'b Boot,
    ) -> Expected<'b> {
        Expected { key, pcrs, judged, ttl: self.ttl, policy_digest, boot }
    }

    pub(crate) fn valid(&self, policy_digest: &str) -> Result<(), Error> {
        let judged = self.log.as_ref().map(|log| log.rules.covers()).unwrap_or_default();
        selection(self.pcrs.keys().chain(&judged).copied())?;
        let covered = |pcr| self.pcrs.contains_key(pcr) || judged.contains(pcr);
        if self.log.is_some()
            && let Some(pcr) = COVERED.iter().find(|pcr| !covered(pcr))
        {
            return Err(Error::refused(format!(
                "the node policy has rules on the event log but covers PCR {pcr} by neither values nor rules. Fix: boltseal node policy prints both"
            )));
        }
        cap::valid(self.cap, &self.pcrs)?;
        if let Some((pcr, _)) = self.pcrs.iter().find(|(_, values)| values.is_empty()) {
            return Err(Error::refused(format!("the node policy accepts no value of PCR {pcr}")));
        }
        if self.ttl.as_secs() == 0 {
            return Err(Error::refused("the node policy's ttl is 0. Fix: ttl = 86400"));
        }
        if !(1..=128).contains(&policy_digest.len()) || !policy_digest.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::refused("the policy has no digest to bind the node verdict to"));
        }
        Ok(())
    }
}
