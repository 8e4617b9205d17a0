//! Decides: (Policy, Facts) -> Verdict. Pure: no I/O, no clock, no randomness.
//!
//! It trusts nothing but its arguments. A fact that is `Unknown` denies; a rule never skips; `decide` evaluates every
//! rule and never stops at the first finding. A `Permit` is made in one place, here, and cannot be forged outside.
#![forbid(unsafe_code)]

pub mod facts;
pub mod policy;
mod decide;
pub mod rules;
mod verdict;

pub use decide::decide;
pub use facts::{Fact, Facts};
pub use policy::Policy;
pub use verdict::{Denial, Finding, Outcome, Permit, Terms, Verdict};
