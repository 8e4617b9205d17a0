//! What is changed on the disk of a good boot, and what must come of the starts: by their ids, for guest and host alike.
use crate::plan::BUNDLE;
use crate::trail::Trail;
use anyhow::{Result, ensure};

#[derive(Debug, Clone, Copy)]
pub(crate) enum Change {
    OlderPolicy,
    Program,
    /// An edit that nobody signed.
    Edited,
    /// The same, and no last good policy.
    EditedAlone,
}

#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) change: Change,
    /// Ids of the two containers.
    pub(crate) id: &'static str,
    pub(crate) twin: &'static str,
    /// The refused request names no owner, which the edited policy would only warn of.
    pub(crate) ownerless: bool,
    pub(crate) twin_before_undo: bool,
    rule: &'static str,
    says: &'static str,
}

pub(crate) const STEPS: [Step; 4] = [
    step(Change::OlderPolicy, "older", "older-twin", "version 1; this node takes"),
    step(Change::Program, "swapped", "swapped-twin", "/usr/local/bin/boltseal is not the one measured"),
    Step {
        ownerless: true,
        twin_before_undo: true,
        rule: "BS-OWN-001",
        ..step(Change::Edited, "edited", "edited-twin", "")
    },
    step(Change::EditedAlone, "alone", "alone-twin", "other files"),
];

const fn step(change: Change, id: &'static str, twin: &'static str, says: &'static str) -> Step {
    Step { change, id, twin, ownerless: false, twin_before_undo: false, rule: BUNDLE, says }
}

/// What the trail says of all of them, in one line; an error where it is not what it must be.
pub(crate) fn told(trail: &Trail, boot_id: &str) -> Result<String> {
    let (mut refused, mut started) = (0, 0);
    for step in &STEPS {
        let (fault, twin) = (trail.start(boot_id, step.id)?, trail.start(boot_id, step.twin)?);
        ensure!(fault.refused(&[step.rule], step.says), "{}: {fault:?}", step.id);
        ensure!(twin.started, "{}: {twin:?}", step.twin);
        // The policy that judged both is the last good one, and both records say so; nowhere else does one.
        for start in [&fault, &twin] {
            ensure!(start.last_good == step.twin_before_undo, "which policy judged {}: {start:?}", step.id);
        }
        refused += 1;
        started += usize::from(twin.started);
    }
    Ok(format!(
        "older policy put back, program swapped, policy edited with and without a last good one: {refused} refused, {started} twins started"
    ))
}
