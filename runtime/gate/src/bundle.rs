//! The policy bundle of a request: what lies in /etc/boltseal, or the last good one where that does not load.
use crate::{paths, state};
use boltseal_evidence::bundle::{self, LAST_GOOD};
use boltseal_evidence::policy_files::{self, PolicyBundle};
use boltseal_message::FileStamp;
use boltseal_node::measured::{self, Log, Now};
use boltseal_node::{Boot, Error, Floor};
use boltseal_policy::facts::Bundle;
use boltseal_policy::{Fact, Policy};
use boltseal_trust::Pin;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest wait for a TPM in the way of a start.
const TPM_TIME: Duration = Duration::from_secs(5);

/// A bundle that is well formed, and what is known of it. Whether it may judge is BS-NOD-004's to say.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) rules: Policy,
    pub(crate) files: PolicyBundle,
    pub(crate) fact: Bundle,
    /// The bundle's files and folders, and the pin.
    pub(crate) stamps: Vec<FileStamp>,
    /// What was measured of boltseal in this boot: the node's quote must show it.
    pub(crate) measured: Option<Log>,
}

/// Where this node pins a key and what lies in /etc/boltseal is not a sound bundle of that key, the last one that
/// `boltseal policy apply` put in force judges, if it is still sound: a half-copied policy stops nothing, and the record
/// says so. What does not help is judged as it is.
///
/// # Errors
/// A pin or a bundle that is missing, malformed, or writable by others: file, fact and fix.
pub(crate) fn load() -> Result<Loaded, String> {
    let (pin, stamp) = bundle::pinned(Path::new(paths::LIB))?.unzip();
    let floor = floor(pin.as_ref());
    let read = |dir: &Path| read(dir, pin.as_ref(), stamp.as_ref(), &floor);
    let first = read(Path::new(paths::POLICY));
    let mut loaded = match &pin {
        None => first?,
        Some(_) => {
            let last = || read(&Path::new(paths::LIB).join(LAST_GOOD));
            bundle::in_force(first, last, |loaded| &mut loaded.fact)?
        }
    };
    let pin = pin.map(|pin| pin.id());
    let now = Now { signer: pin.as_deref(), bundle: &loaded.fact.digest };
    (loaded.fact.measured, loaded.measured) = match log() {
        Ok(None) => (Fact::Absent, None),
        Ok(Some(log)) => {
            let mut differences = log.differences(now);
            differences.extend(log.runs().err());
            (Fact::Is(differences), Some(log))
        }
        Err(why) => (Fact::Unknown(why), None),
    };
    Ok(loaded)
}

fn log() -> Result<Option<Log>, String> {
    let boot = Boot::current().map_err(|e| format!("this boot has no identity: {e}"))?;
    measured::read(Path::new(paths::RUN), &boot).map_err(|e| e.to_string())
}

fn read(dir: &Path, pin: Option<&Pin>, stamp: Option<&FileStamp>, floor: &Fact<u64>) -> Result<Loaded, String> {
    let files = policy_files::load(dir).map_err(|e| e.to_string())?;
    let texts = files.policy_texts().map_err(|e| e.to_string())?;
    let (main, drop_ins) = texts.split_first().ok_or("the bundle has no policy.toml")?;
    let rules = Policy::parse(main.1, drop_ins).map_err(|problems| problems.join("; "))?;
    let problems = rules.validate();
    if !problems.is_empty() {
        return Err(problems.join("; "));
    }
    let fact = bundle::fact(pin, floor.clone(), &files);
    let stamps = files.stamps.iter().chain(stamp).cloned().collect();
    Ok(Loaded { rules, files, fact, stamps, measured: None })
}

/// The lowest version that this node still takes.
fn floor(pin: Option<&Pin>) -> Fact<u64> {
    let Some((pin, kept)) = pin.and_then(|pin| pin.floor.as_ref().map(|kept| (pin, kept))) else {
        return Fact::Absent;
    };
    if let Err(why) = state::run_folder() {
        return Fact::Unknown(why);
    }
    let floor = Floor { dir: Path::new(paths::RUN), tpm: &kept.tpm, base: kept.base, pin: &pin.id() };
    match Boot::current().and_then(|boot| floor.read(&boot, Instant::now() + TPM_TIME)) {
        Ok(version) => Fact::Is(version),
        Err(e @ Error::Deadline(_)) => Fact::Unknown(format!("timeout: {e}")),
        Err(e) => Fact::Unknown(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    /// The policy crate knows nothing of TPMs, and the node crate nothing of policies.
    #[test]
    fn both_speak_of_one_pcr() {
        assert_eq!(boltseal_node::measured::PCR, boltseal_policy::standard::MEASURED_PCR);
    }
}
