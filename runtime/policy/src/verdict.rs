//! The verdict, and the permit that only an allowing verdict holds.
use crate::Facts;
use crate::network::{Open, Watch};
use crate::policy::LandlockRules;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How one rule ended. `Pass` is never said of what was not checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Pass,
    /// Tightened to fit; `fact` says what.
    Sealed,
    /// An allowance let it through: its id.
    Allowed(String),
    /// A dated exception let it through: `owner, expires, reason`.
    Excepted(String),
    /// It would be denied, but the rule only warns here.
    Warn,
    Deny,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub rule: String,
    pub outcome: Outcome,
    /// Kebab-case name of the condition, stable; exceptions may name it.
    pub condition: String,
    /// What was seen, one line, with text from outside escaped and shortened.
    pub fact: String,
    /// What to do about it.
    pub fix: String,
}

/// What the seal may do: everything the policy granted to this request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Bounding, effective and permitted set; inheritable and ambient are always empty.
    pub capabilities: BTreeSet<String>,
    /// Limits to set, bytes and processes; None: leave it unset, an ancestor cgroup limits.
    pub memory: Option<u64>,
    pub pids: Option<u64>,
    /// Size of tmpfs mounts that name none, bytes.
    pub tmpfs_size: u64,
    /// Label to write: AppArmor profile or SELinux context; None only under an exception.
    pub apparmor: Option<String>,
    pub selinux: Option<String>,
    /// Destinations that may stay executable.
    pub exec_volumes: Vec<String>,
    /// Files of memory (memfd) are not executable in its pid namespace.
    pub memory_noexec: bool,
    /// Namespace kinds that may be the host's.
    pub host_namespaces: BTreeSet<String>,
    /// Device paths beside the standard ones.
    pub devices: Vec<String>,
    pub landlock: LandlockRules,
    /// What of the network is open, as far as this node can confine it.
    pub network: Open,
    /// The programs of the network are attached; without them only Landlock confines ports.
    pub network_hooks: bool,
    /// What the programs of the network tell; nothing without them.
    pub watch: Watch,
    /// The programs that may be executed, entries as the scope has them; None: all of the image.
    pub programs: Option<Vec<String>>,
    pub oom_score_adj: Option<i32>,
    pub sysctls: BTreeMap<String, String>,
    /// Calls whose refusal is told (the trip-wire).
    pub traps: BTreeSet<String>,
    /// The pod's own filter may be installed after the base filter.
    pub pod_seccomp: bool,
    /// The image's verified repository and the authorities that signed it; none for a pinned sandbox image.
    pub repository: Option<String>,
    pub authorities: BTreeSet<String>,
    /// Sensitivity of the container, for its record: a level, `*` beside everything, empty where nobody asks.
    pub sensitivity: String,
    /// The image is one of `[sandbox]`'s digests, started with its own arguments.
    pub sandbox: bool,
}

/// Proof that `decide` allowed. It cannot be made elsewhere and is taken by value.
///
/// ```compile_fail,E0451
/// let forged = boltseal_policy::Permit { findings: vec![], terms: todo!(), facts: todo!() };
/// ```
#[must_use]
#[derive(Debug)]
pub struct Permit {
    pub(crate) findings: Vec<Finding>,
    pub(crate) terms: Box<Terms>,
    pub(crate) facts: Box<Facts>,
}

impl Permit {
    /// What was judged: the seal builds for these facts and no others.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.terms
    }
}

#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Every finding, the denials first.
    pub findings: Vec<Finding>,
}

#[must_use]
#[derive(Debug)]
pub enum Verdict {
    Allow(Permit),
    Deny(Denial),
}
