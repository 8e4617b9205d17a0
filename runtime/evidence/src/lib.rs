//! Gathers what is needed to decide. Reads only: it changes nothing on the node and starts nothing.
//!
//! Every failure is an error or a `Fact::Unknown(why)`, never a default that passes. What is returned is observation:
//! digests are computed by the caller over the bytes that this crate hands out, and nothing here is a verdict.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests"))]

pub mod bundle;
pub mod containerd;
pub mod cri;
pub mod file;
pub mod hooks;
pub mod host;
pub mod json;
pub mod mountinfo;
pub mod mounts;
pub mod namespaces;
mod origin;
mod overlay;
pub mod policy_files;
pub mod record;
pub mod rootfs;
mod sensitive;
pub mod signatures;
pub mod spec;
pub mod spec_facts;
mod spec_table;
