//! The trail: every decision as one hash-chained JSON line, in a folder of `audit-<first seq>.jsonl` files.
//!
//! What the chain shows: a change, a swap, an insertion or a removal of anything but the tail. What it cannot show by
//! itself: that the newest records were cut off, or that root wrote the whole trail anew. Both need a copy of the head
//! (`seq:sum`, printed by `boltseal audit verify`) that is kept elsewhere; [`verify`] compares with one when given.
//!
//! Writers are short-lived processes: each append locks the folder, repairs a torn tail, writes once and unlocks; the
//! sync is a step of its own ([`SyncHandle`]), so that many writers share one flush. Never fork while an append runs:
//! the child would hold the lock on.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests"))]

mod clock;
mod error;
mod folder;
mod line;
mod list;
mod record;
mod tail;
mod text;
mod trail;
mod verify;

#[cfg(test)]
mod tests;

pub use clock::{parse_since, rfc3339};
pub use error::TrailError;
pub use line::{BadLine, MAX_LINE, parse_line};
pub use list::{Filter, list};
pub use record::{Anomaly, Class, Cost, Decision, Door, Entry, Event, Finding, Outcome, Record, What, Who};
pub use text::clean;
pub use trail::{Appended, SyncHandle, Trail};
pub use verify::{Head, Problem, Report, Unfinished, verify};
