//! The real shim, driven over ttrpc as containerd drives it, with a gate that hands out real processes and decides
//! nothing (`tests/fake-gate`). Needs root: each test has a mount namespace of its own with a tmpfs on /run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod armour;
mod bootstrap;
mod cgroups;
mod gate;
mod harness;
mod lifecycle;
mod stdio;
