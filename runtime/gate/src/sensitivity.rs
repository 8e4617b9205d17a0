//! BS-NOD-003's facts: what the pod names, and what runs here. Two starts at once must not each see an empty node: where
//! the policy names levels, one create at a time looks, starts and leaves its record.
use crate::{paths, state};
use boltseal_evidence::record::Records;
use boltseal_message::Request;
use boltseal_policy::Fact;
use boltseal_policy::facts::Neighbour;
use boltseal_policy::policy::SensitivityRules;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

/// The annotation that names it.
pub(crate) const ANNOTATION: &str = "boltseal.dev/sensitivity";
/// Longest wait for the creates before this one: each takes some 30 ms.
const PATIENCE: Duration = Duration::from_secs(5);

/// No other create looks at what runs while this value lives.
#[must_use]
#[derive(Debug)]
pub(crate) struct Turn(File);

impl Drop for Turn {
    /// Also where a forked child still has a copy of the descriptor.
    fn drop(&mut self) {
        if let Err(e) = self.0.unlock() {
            tracing::warn!("the lock on sensitivities stays until this run ends: {e}");
        }
    }
}

/// Waits for this create's turn; None where the policy names no levels, for then no neighbour matters.
///
/// # Errors
/// It did not come in time, or there can be no lock: then what runs is unknown.
pub(crate) fn turn(rules: &SensitivityRules, deadline: Instant) -> Result<Option<Turn>, String> {
    if rules.levels.is_empty() {
        return Ok(None);
    }
    state::run_folder()?;
    // The folder itself is locked: no file of its own, so none to find in its place.
    let failed = |e: std::io::Error| format!("{}: {e}", paths::RUN);
    let folder = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_DIRECTORY).open(paths::RUN);
    let folder = folder.map_err(failed)?;
    let deadline = deadline.min(Instant::now() + PATIENCE);
    loop {
        match folder.try_lock() {
            Ok(()) => return Ok(Some(Turn(folder))),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
            Err(TryLockError::WouldBlock) => return Err("timeout: other creates on this node go on and on".into()),
            Err(TryLockError::Error(e)) => return Err(failed(e)),
        }
    }
}

pub(crate) fn named(annotation: Option<&str>) -> Fact<String> {
    annotation.map_or(Fact::Absent, |name| Fact::Is(name.to_owned()))
}

/// The others that run, by their own records.
pub(crate) fn neighbours(
    request: &Request,
    records: &Result<Records, String>,
    turn: &Result<Option<Turn>, String>,
) -> Fact<Vec<Neighbour>> {
    let records = match (records, turn) {
        (Ok(records), Ok(_)) => records,
        (Err(why), _) | (_, Err(why)) => return Fact::Unknown(why.clone()),
    };
    if let Some(why) = records.incomplete.first() {
        return Fact::Unknown(format!("{why} is half made: another start is under way, or one was killed"));
    }
    let others = records.records.iter().filter(|r| (&r.namespace, &r.id) != (&request.namespace, &request.id));
    let alive = others.filter(|r| r.alive());
    Fact::Is(
        alive
            .map(|r| Neighbour { id: format!("{}/{}", r.namespace, r.id), sensitivity: r.sensitivity.clone() })
            .collect(),
    )
}
