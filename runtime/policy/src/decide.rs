//! Placeholder: every request is denied until the rules are here.
use crate::{Denial, Facts, Policy, Verdict};

/// Evaluates every rule.
pub fn decide(_policy: &Policy, _facts: &Facts) -> Verdict {
    Verdict::Deny(Denial { findings: Vec::new() })
}
