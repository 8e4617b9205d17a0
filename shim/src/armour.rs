//! What the long-lived process can do: of root's capabilities it keeps those that its own work needs. The gate has them all
//! again, for it is a program that root executes.
//!
//! No seccomp filter and no Landlock domain: both would be the gate's too, and through it every container's.

use std::collections::HashSet;

use anyhow::{Context as _, Result};
use caps::{CapSet, Capability};

/// Why each: fifos and containerd's socket may belong to another user (`DAC_OVERRIDE`); processes of any user are ended
/// (`KILL`); which program a refused call came from (`SYS_PTRACE`, readlink of /proc/PID/exe); a gate gets the OOM score
/// back that the server's was raised from (`SYS_RESOURCE`).
const KEPT: [Capability; 4] =
    [Capability::CAP_DAC_OVERRIDE, Capability::CAP_KILL, Capability::CAP_SYS_PTRACE, Capability::CAP_SYS_RESOURCE];

/// Gives up all others, for good but for what an exec brings back. The bounding set stays: it is the gate's.
pub(crate) fn drop_capabilities() -> Result<()> {
    let permitted = caps::read(None, CapSet::Permitted).context("own capabilities")?;
    let kept: HashSet<Capability> = permitted.intersection(&KEPT.into()).copied().collect();
    // Effective first: it must never hold what permitted does not.
    for (set, to) in [(CapSet::Effective, &kept), (CapSet::Permitted, &kept), (CapSet::Inheritable, &HashSet::new())] {
        caps::set(None, set, to).with_context(|| format!("dropping capabilities ({set:?})"))?;
    }
    Ok(())
}
