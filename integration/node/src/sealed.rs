//! A sealed image in the VM: what is done to it, and what must come of it, by the ids of the containers, for guest and host alike.
use crate::trail::Trail;
use anyhow::{Result, ensure};

/// Folders beside the images: layouts sealed by the policy's authority, by another key, and of another image.
pub(crate) const LAYOUT: &str = "sealed";
pub(crate) const FOREIGN: &str = "sealed-foreign";
pub(crate) const ANOTHER: &str = "sealed-another";
/// Authority that may seal: its key in `keys/`.
pub(crate) const AUTHORITY: &str = "sealer";

/// Start at this level, and say so.
const STARTED: [(&str, &str); 6] = [
    ("plain", "unpacked"),
    ("sealed", "dmverity-signed"),
    ("beside", "dmverity-signed"),
    ("reader", "dmverity-signed"),
    ("missing-twin", "dmverity-signed"),
    ("tree-twin", "dmverity-signed"),
];
/// Refused by BS-IMG-002, and what it says.
const REFUSED: [(&str, &str); 5] = [
    ("unsealed", "integrity is \"unpacked\", the policy demands \"dmverity-signed\""),
    ("foreign", "integrity is \"unpacked\""),
    ("another", "integrity is \"unpacked\""),
    ("missing", "does not exist"),
    ("short", "bytes, signed are"),
];

pub(crate) fn told(trail: &Trail, boot_id: &str) -> Result<String> {
    for (id, level) in STARTED {
        let start = trail.start(boot_id, id)?;
        ensure!(start.started && start.integrity == level, "{id}: {start:?}, expected {level}");
    }
    for (id, says) in REFUSED {
        let start = trail.start(boot_id, id)?;
        ensure!(start.refused(&["BS-IMG-002"], says), "{id}: {start:?}, expected {says:?}");
    }
    Ok(format!("sealed layers: {} started at their level, {} refused by BS-IMG-002", STARTED.len(), REFUSED.len()))
}
