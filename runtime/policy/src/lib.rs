//! Decides: (Policy, Facts) -> Verdict. Pure: no I/O, no clock, no randomness.
//!
//! It trusts nothing but its arguments. A fact that is `Unknown` denies; a rule never skips; `decide` evaluates every
//! rule and never stops at the first finding. A `Permit` is made in one place, here, and cannot be forged outside.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests"))]

mod break_glass;
mod date;
mod decide;
pub mod facts;
#[cfg(any(test, feature = "fixture"))]
pub mod fixture;
mod message;
pub mod network;
pub mod pattern;
pub mod policy;
pub mod programs;
#[cfg(test)]
mod properties;
pub mod rules;
pub mod scan;
pub mod secrets;
pub mod standard;
mod terms;
pub mod text;
mod variable;
mod verdict;

pub use break_glass::{MAX_HOURS, in_force as break_glass, never as never_lifted};
pub use decide::decide;
pub use facts::{Fact, Facts};
pub use message::Class;
pub use policy::Policy;
pub use rules::sealed;
pub use variable::names_loader;
pub use verdict::{Denial, Finding, Outcome, Permit, Terms, Verdict};
