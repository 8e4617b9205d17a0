//! Layers with digests of the node's own in the VM: what must come of each start, by the ids of the containers.
use crate::trail::Trail;
use anyhow::{Result, ensure};

const FILE: &str = "fsverity";
const DEVICE: &str = "dmverity-local";

/// Start at this level. Those with the same word have the same digest in their record, those with another one another.
const STARTED: [(&str, &str, &str); 10] = [
    ("file-undemanded", FILE, "made"),
    ("file", FILE, "made"),
    ("file-put-back", FILE, "made"),
    // Somebody replaced the file by another one with a digest: nothing but the record shows it.
    ("file-replaced", FILE, "other"),
    ("file-on-loop", FILE, "made"),
    ("file-reader", FILE, "made"),
    ("device", DEVICE, "device"),
    ("device-harmless-option", DEVICE, "device"),
    ("device-reader", DEVICE, "device"),
    ("device-mended", DEVICE, "device"),
];
/// Refused by BS-IMG-002, and what it says.
const REFUSED: [(&str, &str); 7] = [
    ("folders", "integrity is \"unpacked\", the policy demands \"fsverity\""),
    ("file-without", "layer 0: its file has no fs-verity digest"),
    ("loop-without", "layer 0: its file has no fs-verity digest"),
    ("file-too-weak", "integrity is \"fsverity\", the policy demands \"dmverity-local\""),
    ("device-ignores", "the option \"ignore_corruption\""),
    ("device-once", "the option \"check_at_most_once\""),
    ("device-differs", "has found blocks that differ"),
];

pub(crate) fn told(trail: &Trail, boot_id: &str) -> Result<String> {
    let mut digests: Vec<(&str, Vec<String>)> = Vec::new();
    for (id, level, word) in STARTED {
        let start = trail.start_in_time(boot_id, id)?;
        ensure!(
            start.started && start.integrity == level && start.layers.len() == 1,
            "{id}: {start:?}, expected {level}"
        );
        match digests.iter().find(|(known, _)| *known == word) {
            Some((_, digest)) => ensure!(*digest == start.layers, "{id}: {start:?}, expected {digest:?}"),
            None => {
                ensure!(
                    digests.iter().all(|(_, digest)| *digest != start.layers),
                    "{id}: {start:?} is no other digest"
                );
                digests.push((word, start.layers));
            }
        }
    }
    for (id, says) in REFUSED {
        let start = trail.start_in_time(boot_id, id)?;
        ensure!(start.refused(&["BS-IMG-002"], says), "{id}: {start:?}, expected {says:?}");
    }
    Ok(format!(
        "digests of the node's own: {} started at their level with {} digests, {} refused by BS-IMG-002",
        STARTED.len(),
        digests.len(),
        REFUSED.len()
    ))
}
