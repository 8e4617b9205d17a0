//! What the fuzzer shares with the integration tests: specs that were bent, and an oracle on what comes of them.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, reason = "tests"))]

pub mod random;
pub mod start;
