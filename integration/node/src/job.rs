//! What host and guest tell each other, over the exchange disk: a tar archive each way.
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Names within the archives.
pub(crate) const JOB: &str = "job.json";
pub(crate) const OUTCOME: &str = "outcome.json";
/// To the guest: files of the job. An enrolled node's disk is in there as `etc` and `lib`.
pub(crate) const GIVEN: &str = "given";
/// From the guest: files that the job made.
pub(crate) const MADE: &str = "made";
/// The trail, from the guest.
pub(crate) const TRAIL: &str = "trail";

/// Names within `given` and `made`.
pub(crate) mod file {
    pub(crate) const ETC: &str = "etc";
    pub(crate) const LIB: &str = "lib";
    pub(crate) const REQUEST: &str = "request.json";
    pub(crate) const APPROVAL: &str = "approval.json";
    pub(crate) const PROOF: &str = "proof.json";
    /// Who writes policies.
    pub(crate) const AUTHOR: &str = "author.pub";
    /// For the main job alone, which changes the policy as an operator would.
    pub(crate) const AUTHOR_KEY: &str = "author.key";
    /// Folder of signed policies, by version.
    pub(crate) const POLICIES: &str = "policies";
    /// Who approves states for anchors, the state, its approval, the bound key, what it signed.
    pub(crate) const AUTHORITY: &str = "authority.pub";
    pub(crate) const STATE: &str = "state.json";
    pub(crate) const APPROVED: &str = "approved.json";
    pub(crate) const BOUND: &str = "bound.pem";
    pub(crate) const ANCHOR: &str = "anchor.json";
}

/// Versions of the signed policy, in the order in which an operator would write them. `NOW` is in force.
pub(crate) mod version {
    pub(crate) const OLD: u64 = 1;
    pub(crate) const NOW: u64 = 2;
    /// BS-NOD-002 only warns: kexec may be open.
    pub(crate) const KEXEC: u64 = 3;
    /// The same without `node.cap` and `bundle.measured`.
    pub(crate) const OPEN: u64 = 4;
    /// The one in force, and workloads must be sealed.
    pub(crate) const SEALED: u64 = 5;
    /// The same, and none may hold a setuid file.
    pub(crate) const SCANNED: u64 = 6;
    /// The one in force, with the erofs snapshotter; then with these demands beside it.
    pub(crate) const EROFS: u64 = 7;
    pub(crate) const FSVERITY: u64 = 8;
    pub(crate) const LOCAL: u64 = 9;
    pub(crate) const LAST: u64 = LOCAL;
}

/// What the guest shall do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) what: What,
    /// Kernels to leave for by kexec, one after the other; in each there is a start.
    pub(crate) kexec: Vec<Leap>,
    /// systemd is pid 1, with the units that are shipped.
    pub(crate) systemd: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum What {
    /// First enrolment boot: `boltseal node enroll request`, and the key for anchors.
    Request,
    /// Second one, after the approval: `boltseal node enroll complete`.
    Complete,
    /// Third one: `boltseal policy trust`, then `apply` of each policy up to the one in force.
    Apply,
    /// One container start.
    Start,
    /// One container start, tampering, then the main job of the tests with these words.
    Job { words: Vec<String>, tamper: bool },
    /// One container start, then those of a sealed image.
    Sealed,
    /// One container start, then those whose layers have digests of the node's own.
    Levels,
}

/// What kexec loads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Leap {
    pub(crate) cmdline: String,
    /// Zeros behind the measured initrd.
    pub(crate) padding: usize,
}

/// What came of it. Whether something was started is not in here: that the trail says.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Why the guest could not do its job; a refused start is no such error.
    pub(crate) error: Option<String>,
    pub(crate) boot: Option<Boot>,
    /// What containerd answered to the start: nothing, or the refusal.
    pub(crate) refusal: Option<String>,
    /// Label of init and of an exec'd process, as they read it themselves.
    pub(crate) labels: Vec<String>,
    /// What `boltseal node anchor sign` said when it refused.
    pub(crate) no_anchor: Option<String>,
    /// What systemd says of the units.
    pub(crate) units: Option<String>,
    /// The tests' report.
    pub(crate) report: Vec<String>,
    pub(crate) passed: bool,
    /// What was seen of sealed images.
    pub(crate) sealed: Vec<String>,
    /// What was seen of layers with digests of the node's own.
    pub(crate) levels: Vec<String>,
    /// The kernels that were left by kexec, oldest first.
    pub(crate) left: Vec<Outcome>,
}

/// Facts of this boot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Boot {
    pub(crate) boot_id: String,
    pub(crate) kernel: String,
    pub(crate) cmdline: String,
    pub(crate) secure_boot: bool,
    pub(crate) lockdown: String,
    pub(crate) lsm: String,
    /// SHA-256 bank, hex.
    pub(crate) pcrs: BTreeMap<u32, String>,
    /// Seconds from the kernel's start to the guest's job, and to its end.
    pub(crate) ready: u64,
    pub(crate) end: u64,
}
