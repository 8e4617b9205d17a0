//! What host and guest tell each other, over the exchange disk: a tar archive each way.
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Names within the archives.
pub(crate) const JOB: &str = "job.json";
pub(crate) const OUTCOME: &str = "outcome.json";

/// What the guest shall do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) what: What,
    /// Do it, then load the payload's kernel with this command line by kexec and do it there again: that one counts.
    pub(crate) kexec: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum What {
    /// `boltseal node enroll`, and nothing else.
    Enrol,
    /// One container start.
    Start,
    /// One container start, then the main job of the tests with these words.
    Job(Vec<String>),
}

/// What came of it. Whether something was started is not in here: that the trail says.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Why the guest could not do its job; a refused start is no such error.
    pub(crate) error: Option<String>,
    pub(crate) boot: Option<Boot>,
    /// `boltseal node enroll -o json`.
    pub(crate) enrolment: Option<serde_json::Value>,
    /// What containerd answered to the start: nothing, or the refusal.
    pub(crate) refusal: Option<String>,
    /// Label of init and of an exec'd process, as they read it themselves.
    pub(crate) labels: Vec<String>,
    /// The tests' report.
    pub(crate) report: Vec<String>,
    pub(crate) passed: bool,
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
