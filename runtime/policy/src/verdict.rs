//! The verdict, and the permit that only an allowing verdict holds.
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
    /// The ceiling for all five capability sets.
    pub capabilities: BTreeSet<String>,
    pub memory: u64,
    pub pids: u64,
    pub tmpfs_size: u64,
    /// Label to write: AppArmor profile or SELinux context; None only under an exception.
    pub apparmor: Option<String>,
    pub selinux: Option<String>,
    /// Destinations that may stay executable.
    pub exec_volumes: Vec<String>,
    /// Namespace kinds that may be the host's.
    pub host_namespaces: BTreeSet<String>,
    /// Device paths beside the standard ones.
    pub devices: Vec<String>,
    pub landlock: LandlockRules,
    pub oom_score_adj: Option<i32>,
    pub sysctls: BTreeMap<String, String>,
}

/// Proof that `decide` allowed. It cannot be made elsewhere and is taken by value.
///
/// ```compile_fail
/// let forged = boltseal_policy::Permit { findings: vec![], terms: todo!() };
/// ```
#[must_use]
#[derive(Debug)]
pub struct Permit {
    pub(crate) findings: Vec<Finding>,
    pub(crate) terms: Terms,
}

impl Permit {
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
