//! Is this node attested for this boot? What every start asks.
//!
//! ```text
//! node.json there and holds -> verified, no TPM command
//! otherwise: lock, look again, quote, verify, keep
//! ```
//! A verdict that does not hold is never patched up: a new one is made, or the start is told why not. Failures are not
//! kept: the next start asks again.
use crate::channel::Address;
use crate::folder::{Folder, Lock};
use crate::key::AttestationKey;
use crate::quote::{mismatch, selection, verify};
use crate::tpm::Tpm;
use crate::verdict::{self, Expected, Unfit, Verdict};
use crate::{Boot, Error};
use ring::rand::{SecureRandom, SystemRandom};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest that an attestation takes; a discrete TPM needs under one second.
const ATTEST_LIMIT: Duration = Duration::from_secs(5);
/// Attempts when a PCR is extended between reading it and quoting it.
const ATTEMPTS: usize = 3;

/// The node part of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePolicy<'a> {
    /// `/dev/tpmrm0`, or `unix:/absolute/path` of a software TPM.
    pub tpm: &'a str,
    /// The enrolled key, PEM SubjectPublicKeyInfo.
    pub ak_spki_pem: &'a str,
    /// Accepted values of each PCR of the SHA-256 bank; at least one PCR, at least one value each.
    pub pcrs: BTreeMap<u32, Vec<[u8; 32]>>,
    /// How long a verdict lives, on CLOCK_BOOTTIME, in whole seconds.
    pub ttl: Duration,
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
            state.problems = wrong.iter().map(|(pcr, value)| wrong_pcr(policy, *pcr, value)).collect();
            state.wrong_pcrs = wrong;
        }
        Err(unfit) => state.problems.push(unfit.to_string()),
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
    // Time goes on while this runs: another start's verdict may be younger than `boot`.
    let now = || Boot { boottime_ns: boot.boottime_ns.saturating_add(nanos(begun)), ..boot.clone() };
    let look = |folder: &Folder| {
        let boot = now();
        let expected = expected(policy, &key, policy_digest, &boot);
        Ok::<_, Error>(folder.read()?.map(|bytes| verdict::parse(&bytes).map_err(Unfit::from)?.verify(&expected)))
    };
    let folder = Folder::open(dir)?;
    if look(&folder)? == Some(Ok(())) {
        return Ok(());
    }
    let deadline = deadline.min(Instant::now() + ATTEST_LIMIT);
    let lock = folder.lock(deadline)?;
    match look(&folder)? {
        Some(Ok(())) => return Ok(()),
        Some(Err(why)) => state.notes.push(format!("the kept node verdict was not used: {why}")),
        None => {}
    }
    state.fresh = true;
    let boot = now();
    attest(&folder, &lock, policy.tpm, &expected(policy, &key, policy_digest, &boot), deadline, state)
}

/// Asks the TPM, verifies what it says by the same code that verifies the file, and keeps it when it holds.
fn attest(
    folder: &Folder,
    lock: &Lock,
    tpm: &str,
    expected: &Expected<'_>,
    deadline: Instant,
    state: &mut NodeState,
) -> Result<(), Unfit> {
    let mut salt = [0; 32];
    SystemRandom::new().fill(&mut salt).map_err(|_| Error::io("a random salt", "the kernel gave none"))?;
    let nonce = verdict::nonce(expected, &salt, expected.boot.boottime_ns, expected.ttl.as_secs());
    let mut tpm = Tpm::open(tpm, deadline)?;
    let (quote, values, clock) = tpm.with_key(expected.key, |tpm, handle| {
        let mut attempt = 1;
        loop {
            let values = tpm.pcrs(expected.pcrs.keys().copied())?;
            let quote = tpm.quote(handle, &nonce, expected.pcrs.keys().copied())?;
            match verify(&quote, expected.key, &nonce, &values) {
                Err(error) if error == mismatch() && attempt < ATTEMPTS => attempt += 1,
                result => return result.map(|attest| (quote, values, attest.clock)),
            }
        }
    })?;
    let verdict = Verdict::new(expected, salt, values, clock, &quote);
    verdict.verify(expected)?;
    // The node is attested; only the next start will have to ask the TPM again.
    if let Err(error) = verdict.bytes().and_then(|bytes| folder.write(lock, &bytes)) {
        state.notes.push(format!("the node verdict was not kept: {error}"));
    }
    Ok(())
}

fn expected<'a>(
    policy: &'a NodePolicy<'_>,
    key: &'a AttestationKey,
    policy_digest: &'a str,
    boot: &'a Boot,
) -> Expected<'a> {
    Expected { key, pcrs: &policy.pcrs, ttl: policy.ttl, policy_digest, boot }
}

fn nanos(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn wrong_pcr(policy: &NodePolicy<'_>, pcr: u32, value: &str) -> String {
    let accepted = policy.pcrs.get(&pcr).map_or(0, Vec::len);
    format!(
        "PCR {pcr} is {value}, not one of the {accepted} that the node policy accepts. Fix: boot the kernel, initrd, command line and firmware that were enrolled, or accept this value in [node.pcrs]"
    )
}

impl NodePolicy<'_> {
    pub(crate) fn key(&self) -> Result<AttestationKey, Error> {
        AttestationKey::from_pem(self.ak_spki_pem)
            .map_err(|e| Error::refused(format!("the enrolled key is unusable: {e}. Fix: boltseal node enroll")))
    }

    pub(crate) fn valid(&self, policy_digest: &str) -> Result<(), Error> {
        selection(self.pcrs.keys().copied())?;
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
