//! The registry of rules, one file per rule with its truth table at the bottom.
//!
//! A rule's check looks at the facts and says what it found, without knowing levels, modes or exceptions: `decide` turns
//! a `Deny` into `Excepted` or `Warn` where the policy says so. A check that rules on a door gives at least one finding.
mod aud_001_trail;
mod dev_001_devices;
mod fsy_001_rootfs;
mod fsy_002_binds;
mod fsy_003_flags;
mod gates;
mod img_001_signature;
mod img_002_rootfs;
mod img_003_registry;
mod img_004_age;
mod img_005_scan;
mod img_006_origin;
mod img_007_programs;
mod img_008_privileges;
mod img_009_secrets;
mod img_010_base;
mod mac_001_label;
mod net_001_ports;
mod net_002_destinations;
mod nod_001_attested;
mod nod_002_kexec;
mod nod_003_sensitivity;
mod nod_004_bundle;
mod own_001_owner;
mod prc_001_seccomp;
mod prc_002_capabilities;
mod prc_003_root;
mod prc_004_namespaces;
mod prc_005_programs;
mod prc_006_limits;
pub(crate) mod prc_007_sysctls;
mod prc_008_fields;
mod prc_009_signed;
mod prc_010_user_namespace;

use crate::facts::{Door, Facts};
use crate::policy::{Allowance, Level, Policy, Scope};
use crate::verdict::{Finding, Outcome};
use crate::{pattern, text};
use std::collections::BTreeMap;

pub use gates::statements_asked;
pub use img_002_rootfs::sealed;
pub(crate) use img_007_programs::listed as found_in_layers;
pub(crate) use mac_001_label::granted as granted_label;

/// The rule on scans, for the lint.
pub(crate) const SCAN: &str = "BS-IMG-005";
pub(crate) use net_001_ports::granted as granted_network;
pub(crate) use nod_003_sensitivity::granted as granted_sensitivity;
pub(crate) use nod_004_bundle::of_no_author;
pub use own_001_owner::named as owner_named;
pub(crate) use prc_002_capabilities::kept as kept_capabilities;
pub(crate) use prc_005_programs::RUN as HOOK_STAGES;
pub(crate) use prc_006_limits::{filled as filled_limits, oom_score};
pub(crate) use prc_009_signed::MORE as MORE_ARGUMENTS;

/// One rule: what a person reads about it, and the function that checks it.
#[derive(Debug)]
pub struct Rule {
    /// Stable, never reused.
    pub id: &'static str,
    /// What holds when it passes.
    pub title: &'static str,
    /// Sections of NIST SP 800-190.
    pub nist: &'static str,
    /// Enforced from this level on; below it a denial is a warning.
    pub from: Level,
    /// What happens to a request that does not fit: `deny`, `seal` or both.
    pub misfit: &'static str,
    /// Doors that it rules on; on others it says nothing.
    pub doors: &'static [Door],
    /// Facts that it reads.
    pub reads: &'static str,
    /// The exact predicate, in words.
    pub predicate: &'static str,
    /// The remedy.
    pub fix: &'static str,
    /// Names of its conditions and what each means; exceptions name them.
    pub conditions: &'static [(&'static str, &'static str)],
    /// Attacks that it answers.
    pub cves: &'static [&'static str],
    pub check: fn(&Ctx<'_>) -> Vec<Finding>,
}

static ALL_RULES: &[&Rule] = &[
    &img_001_signature::RULE,
    &img_002_rootfs::RULE,
    &img_003_registry::RULE,
    &img_004_age::RULE,
    &img_005_scan::RULE,
    &img_006_origin::RULE,
    &img_007_programs::RULE,
    &img_008_privileges::RULE,
    &img_009_secrets::RULE,
    &img_010_base::RULE,
    &prc_001_seccomp::RULE,
    &prc_002_capabilities::RULE,
    &prc_003_root::RULE,
    &prc_004_namespaces::RULE,
    &prc_005_programs::RULE,
    &prc_006_limits::RULE,
    &prc_007_sysctls::RULE,
    &prc_008_fields::RULE,
    &prc_009_signed::RULE,
    &prc_010_user_namespace::RULE,
    &mac_001_label::RULE,
    &fsy_001_rootfs::RULE,
    &fsy_002_binds::RULE,
    &fsy_003_flags::RULE,
    &dev_001_devices::RULE,
    &net_001_ports::RULE,
    &net_002_destinations::RULE,
    &own_001_owner::RULE,
    &nod_001_attested::RULE,
    &nod_002_kexec::RULE,
    &nod_003_sensitivity::RULE,
    &nod_004_bundle::RULE,
    &aud_001_trail::RULE,
];

/// Every rule of this version, in the order of findings.
#[must_use]
pub fn all() -> &'static [&'static Rule] {
    ALL_RULES
}

/// Conditions of a rule that are enforced from another level on than the rule itself.
#[must_use]
pub fn earlier(rule: &Rule) -> &'static [(&'static str, Level)] {
    if rule.id == prc_009_signed::RULE.id { prc_009_signed::EARLIER } else { &[] }
}

#[must_use]
pub fn find(id: &str) -> Option<&'static Rule> {
    all().iter().copied().find(|r| r.id == id)
}

/// Doors of a rule on the container itself.
const CREATE: &[Door] = &[Door::Create];
/// Doors of a rule on any new process.
const PROCESSES: &[Door] = &[Door::Create, Door::Exec];
/// Doors of a rule on everything.
const ALL: &[Door] = &[Door::Create, Door::Exec, Door::Update];

/// What every check sees: policy, facts, and what the image rule established once for all.
#[derive(Debug)]
pub struct Ctx<'a> {
    pub policy: &'a Policy,
    pub facts: &'a Facts,
    /// The verified identity of the image, or why there is none.
    pub identity: Identity,
    /// Allowances of that identity, by id.
    pub allowances: Vec<&'a Allowance>,
    /// The scope in force: the longest that covers the verified repository.
    pub scope: Option<&'a Scope>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    Signed(Signed),
    /// One of the policy's sandbox digests, started with its own arguments.
    Pinned(String),
    /// None: what BS-IMG-001 says about it.
    None(Vec<Finding>),
}

/// Signed for one repository by as many keys as its scope demands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    pub repository: String,
    /// Every authority whose signature counted, with the format of one.
    pub by: BTreeMap<String, String>,
    /// How many keys these are, and how many were needed.
    pub keys: (usize, usize),
}

impl<'a> Ctx<'a> {
    #[must_use]
    pub fn new(policy: &'a Policy, facts: &'a Facts) -> Self {
        let identity = img_001_signature::identify(policy, facts);
        let (mut allowances, mut scope) = (Vec::new(), None);
        if let Identity::Signed(Signed { repository, by, .. }) = &identity {
            scope = scope_of(policy, repository);
            // Whoever else signed takes nothing away: an allowance asks for its own authority, and the scope for how many.
            allowances = policy
                .allowances
                .iter()
                .filter(|a| by.contains_key(&a.authority) && pattern::covers(&a.repository, repository))
                .collect();
            allowances.sort_by(|a, b| a.id.cmp(&b.id));
        }
        Self { policy, facts, identity, allowances, scope }
    }

    #[must_use]
    pub fn repository(&self) -> Option<&str> {
        match &self.identity {
            Identity::Signed(signed) => Some(&signed.repository),
            Identity::Pinned(_) | Identity::None(_) => None,
        }
    }

    /// The first allowance of this image that `grants`, by id.
    fn allowed(&self, grants: impl Fn(&Allowance) -> bool) -> Option<&'a Allowance> {
        self.allowances.iter().copied().find(|a| grants(a))
    }
}

fn scope_of<'a>(policy: &'a Policy, repository: &str) -> Option<&'a Scope> {
    policy
        .scopes
        .iter()
        .filter(|s| pattern::covers(&s.repository, repository))
        .max_by_key(|s| s.repository.trim_end_matches('/').len())
}

impl Rule {
    fn finding(&self, outcome: Outcome, condition: &str, fact: String, fix: &str) -> Finding {
        Finding { rule: self.id.into(), outcome, condition: condition.into(), fact, fix: fix.into() }
    }

    fn pass(&self, fact: impl Into<String>) -> Finding {
        self.finding(Outcome::Pass, "met", fact.into(), "")
    }

    fn sealed(&self, condition: &str, fact: impl Into<String>) -> Finding {
        self.finding(Outcome::Sealed, condition, fact.into(), "")
    }

    fn allowed(&self, by: &Allowance, condition: &str, fact: impl Into<String>) -> Finding {
        self.finding(Outcome::Allowed(by.id.clone()), condition, fact.into(), "")
    }

    /// Let through by what is no allowance: a grant, a list of the policy.
    fn allowed_by(&self, id: &str, condition: &str, fact: impl Into<String>) -> Finding {
        self.finding(Outcome::Allowed(text::show(id)), condition, fact.into(), "")
    }

    fn deny(&self, condition: &str, fact: impl Into<String>) -> Finding {
        self.finding(Outcome::Deny, condition, fact.into(), self.fix)
    }

    fn deny_fix(&self, condition: &str, fact: impl Into<String>, fix: impl AsRef<str>) -> Finding {
        self.finding(Outcome::Deny, condition, fact.into(), fix.as_ref())
    }

    /// A fact that could not be gathered; the rule's own remedy is that of the fact.
    fn unknown(&self, what: &str, why: &str) -> Finding {
        self.unknown_fix(what, why, self.fix)
    }

    /// A fact that could not be gathered.
    fn unknown_fix(&self, what: &str, why: &str, fix: &str) -> Finding {
        let (condition, fix) = if why.starts_with("timeout") {
            (TIMEOUT, "try again; boltseal doctor shows what does not answer")
        } else {
            (UNKNOWN, fix)
        };
        self.finding(Outcome::Deny, condition, format!("{what} is unknown: {}", text::show(why)), fix)
    }
}

/// Condition of a denial for want of a fact.
pub(crate) const UNKNOWN: &str = "unknown";
/// Condition of a denial for want of a fact that did not come in time.
pub(crate) const TIMEOUT: &str = "timeout";
const UNKNOWN_ROW: (&str, &str) = (UNKNOWN, "the fact could not be gathered");
const TIMEOUT_ROW: (&str, &str) = (TIMEOUT, "the fact did not come in time");

/// A truth table's helper: the outcomes of one rule, as `condition` or `condition:outcome`.
#[cfg(test)]
fn outcomes(rule: &Rule, policy: &Policy, facts: &Facts) -> Vec<String> {
    let mut out: Vec<String> = (rule.check)(&Ctx::new(policy, facts))
        .iter()
        .map(|f| {
            assert_eq!(f.rule, rule.id);
            assert!(!f.fact.is_empty() && !f.fact.contains('\n'), "{f:?}");
            match &f.outcome {
                Outcome::Pass => "pass".to_owned(),
                Outcome::Sealed => format!("seal {}", f.condition),
                Outcome::Allowed(id) => format!("allowed {id}"),
                Outcome::Deny => {
                    assert!(!f.fix.is_empty(), "{f:?}");
                    assert!(
                        rule.conditions.iter().any(|(name, _)| *name == f.condition),
                        "{} is not listed",
                        f.condition
                    );
                    format!("deny {}", f.condition)
                }
                other => panic!("a check never says {other:?}"),
            }
        })
        .collect();
    out.sort();
    out.dedup();
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_registry_is_complete_and_documented() {
        let ids: BTreeSet<_> = all().iter().map(|r| r.id).collect();
        assert_eq!(ids.len(), all().len());
        for r in all() {
            for part in [r.id, r.title, r.nist, r.misfit, r.reads, r.predicate, r.fix] {
                assert!(!part.is_empty(), "{}", r.id);
            }
            assert!(!r.doors.is_empty() && !r.conditions.is_empty(), "{}", r.id);
            assert!(r.fix.chars().count() <= 90, "{}: the fix must fit the first line", r.id);
            for (name, meaning) in r.conditions {
                assert!(
                    !meaning.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'),
                    "{} {name}",
                    r.id
                );
            }
            assert_eq!(find(r.id).map(|f| f.id), Some(r.id));
        }
        assert!(find("BS-XXX-001").is_none());
    }
}
