//! BS-IMG-007's and 008's fact: what the layers hold, where a policy asks. A start never pays for what none does.
use boltseal_policy::facts::{Facts, Scan};
use boltseal_policy::scan::{Wanted, wanted};
use boltseal_policy::{Fact, Policy};
use boltseal_scan::{CACHE, Image, Limits};
use std::path::Path;
use std::time::{Duration, Instant};

/// What a start needs after the scan: to record, launch and inspect.
const REST: Duration = Duration::from_secs(2);

/// After image and root file system are known: they say which layers, and whether anything but the layers refuses it.
pub(crate) fn fact(policy: &Policy, facts: &Facts, deadline: Instant) -> Fact<Scan> {
    match wanted(policy, facts) {
        Wanted::No => return Fact::Absent,
        Wanted::Refused(rule) => return Fact::Unknown(format!("they are not scanned, {rule} refuses the image")),
        Wanted::Yes => {}
    }
    let (Fact::Is(image), Fact::Is(rootfs)) = (&facts.image, &facts.rootfs) else {
        return Fact::Unknown("the image or its root file system is not known".into());
    };
    // Where BS-IMG-002 only warns, these may be another image's layers: nothing is kept under this one's name.
    if image.chain_id != rootfs.parent || !rootfs.mounts_match || !rootfs.unknown_form.is_empty() {
        return Fact::Unknown("the layers are not the image's, see BS-IMG-002".into());
    }
    let image = Image { chain_id: &image.chain_id, integrity: &rootfs.integrity, lowers: &rootfs.lowers };
    let deadline = deadline.checked_sub(REST).unwrap_or(deadline);
    boltseal_scan::scan(Path::new(CACHE), &image, &Limits::default(), deadline, &mut |_| {})
        .map_or_else(Fact::Unknown, Fact::Is)
}
