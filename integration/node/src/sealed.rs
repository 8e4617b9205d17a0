//! A sealed image in the VM: what is done to it, and what must come of it, by the ids of the containers, for guest and host alike.
use crate::trail::Trail;
use anyhow::{Result, ensure};

/// Folders beside the images: layouts sealed by the policy's authority (the image's name behind a dash), by another key, and of another image.
pub(crate) const LAYOUT: &str = "sealed";
pub(crate) const FOREIGN: &str = "sealed-foreign";
pub(crate) const ANOTHER: &str = "sealed-another";
/// Authority that may seal: its key in `keys/`.
pub(crate) const AUTHORITY: &str = "sealer";
/// Other images that are sealed: several layers, a setuid file, `/dev` a link.
pub(crate) const MORE: [&str; 3] = ["layered", "helper", "devlink"];
/// What a refusal says that only came of a time limit: the start is tried again.
pub(crate) const TIMEOUT: &str = "timeout: ";
/// Starts of each kind that are measured.
pub(crate) const MEASURED: usize = 10;

/// Start at this level, and say so.
const STARTED: [(&str, &str); 15] = [
    ("plain", "unpacked"),
    ("layers", "unpacked"),
    ("sealed", "dmverity-signed"),
    ("beside", "dmverity-signed"),
    ("reader", "dmverity-signed"),
    ("missing-twin", "dmverity-signed"),
    ("tree-twin", "dmverity-signed"),
    ("layers-sealed", "dmverity-signed"),
    ("layer-twin", "dmverity-signed"),
    ("users", "dmverity-signed"),
    ("entered", "dmverity-signed"),
    ("scanned", "dmverity-signed"),
    ("scanned-again", "dmverity-signed"),
    ("link-twin", "dmverity-signed"),
    ("collected", "dmverity-signed"),
];
/// Refused by that rule, and what it says.
const REFUSED: [(&str, &str, &str); 9] = [
    ("unsealed", IMAGE, "integrity is \"unpacked\", the policy demands \"dmverity-signed\""),
    ("foreign", IMAGE, "integrity is \"unpacked\""),
    ("another", IMAGE, "integrity is \"unpacked\""),
    ("missing", IMAGE, "does not exist"),
    ("short", IMAGE, "bytes, signed are"),
    ("tree", IMAGE, "cannot be mounted"),
    ("layer", IMAGE, "does not exist"),
    // What lies in containerd's folders says the opposite of each.
    ("link", IMAGE, "/dev"),
    ("setuid", "BS-IMG-008", "/bin/helper"),
];
const IMAGE: &str = "BS-IMG-002";

pub(crate) fn told(trail: &Trail, boot_id: &str) -> Result<String> {
    for (id, level) in STARTED {
        let start = trail.start_in_time(boot_id, id)?;
        ensure!(start.started && start.integrity == level, "{id}: {start:?}, expected {level}");
    }
    for kind in ["unsealed", "alone", "shared"] {
        for turn in 0..MEASURED {
            let level = if kind == "unsealed" { "unpacked" } else { "dmverity-signed" };
            let start = trail.start_in_time(boot_id, &format!("{kind}-{turn}"))?;
            ensure!(start.started && start.integrity == level, "{kind}-{turn}: {start:?}, expected {level}");
        }
    }
    for (id, rule, says) in REFUSED {
        let start = trail.start_in_time(boot_id, id)?;
        ensure!(start.refused(&[rule], says), "{id}: {start:?}, expected {says:?}");
    }
    let (started, refused) = (STARTED.len(), REFUSED.len());
    Ok(format!("sealed layers: {started} started at their level, {refused} refused by BS-IMG-002 and BS-IMG-008"))
}
