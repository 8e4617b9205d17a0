//! BS-IMG-007's and 008's fact: what the layers hold, where a policy asks. A start never pays for what none does.
use boltseal_launch::SealedMount;
use boltseal_policy::facts::{self, Facts, Scan};
use boltseal_policy::scan::{Wanted, wanted};
use boltseal_policy::{Fact, Policy};
use boltseal_scan::{CACHE, Device, Image, Limits, Progress, Source};
use std::path::Path;
use std::time::{Duration, Instant};

/// What a start needs after the scan: to record, launch and inspect.
const REST: Duration = Duration::from_secs(2);

/// After image and root file system are known: they say which layers, and whether anything but the layers refuses it.
pub(crate) fn fact(policy: &Policy, facts: &Facts, sealed: Option<&[SealedMount]>, deadline: Instant) -> Fact<Scan> {
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
    look(image, rootfs, sealed, deadline.checked_sub(REST).unwrap_or(deadline), &mut |_| {})
}

/// Looks at what would run: the sealed layers where these are what is mounted, else the snapshot's folders.
pub(crate) fn look(
    image: &facts::Image,
    rootfs: &facts::Rootfs,
    sealed: Option<&[SealedMount]>,
    deadline: Instant,
    progress: &mut dyn FnMut(Progress),
) -> Fact<Scan> {
    let devices: Vec<_> = sealed.unwrap_or_default().iter().map(device).collect();
    let layers = match (rootfs.verity.is(), sealed) {
        (None, None) => Source::Folders(&rootfs.lowers),
        (Some(_), Some(_)) => Source::Sealed(&devices),
        _ => return Fact::Unknown("the sealed layers are not those that the image has".into()),
    };
    let digests: Vec<_> = rootfs.checked.is().into_iter().flatten().map(|layer| layer.digest.clone()).collect();
    let image = Image { chain_id: &image.chain_id, integrity: &rootfs.integrity, layers, digests: &digests };
    boltseal_scan::scan(Path::new(CACHE), &image, &Limits::default(), deadline, progress)
        .map_or_else(Fact::Unknown, Fact::Is)
}

fn device(mount: &SealedMount) -> Device<'_> {
    Device { root_hash: &mount.layer().root_hash, device: mount.device(), root: mount.root() }
}
