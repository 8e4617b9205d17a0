//! The node's part of a start: a TPM 2.0 client, quotes, and the verdict on this boot (BS-NOD-001).
//!
//! [`check`] is what a start calls. It reads the verdict file and verifies it anew against the enrolled key: no TPM
//! command while the file is good. Only the first start of a boot (or after the time to live) asks the TPM for a quote.
//!
//! Read `check.rs` first, then `verdict.rs` (what the file proves) and `quote.rs` (what a quote proves). `tpm.rs`,
//! `wire.rs`, `reply.rs` and `channel.rs` are the client, each with a deadline on everything.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests"))]

mod boot;
pub mod bound;
mod cap;
mod chain;
mod channel;
mod check;
mod credential;
mod ek;
mod enroll;
mod error;
mod floor;
mod folder;
mod hex;
pub mod key;
pub mod log;
pub mod measured;
pub mod nv;
pub mod parties;
mod pe;
pub mod predict;
pub mod quote;
pub mod reply;
mod status;
mod stub;
pub mod text;
mod token;
pub mod tpm;
pub mod verdict;
pub mod wire;

pub use boot::Boot;
pub use chain::Makers;
pub use check::{LogPolicy, NodePolicy, NodeState, check, is_software};
pub use enroll::{Enrolment, enroll};
pub use error::Error;
pub use floor::Floor;
pub use status::{LogSeen, Status, status};
pub use token::{Binding, TokenPolicy, binding, check_token};
