//! Launches: a sealed spec becomes a container that is shown to be what was approved.
//!
//! [`create`] mounts the root in the calling process's own mount namespace, lets libcontainer make the container from
//! our own bundle folder, and parks init: everything that can be checked is checked from inside (before init says that
//! it is ready), Landlock and the base filter are installed, then the same table is compared from outside. Writing
//! [`RELEASE`] to [`Parked::release`] and shutting the writing side lets it go; anything else ends it.
//!
//! The caller is root, **single-threaded** and short-lived: `create` and `exec` empty its environment and groups, change
//! its mount namespace, umask, `oom_score_adj` and SIGALRM, and make it undumpable. All unsafe code of the runtime but two small files
//! is here.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")
)]

mod bpf;
mod cgroup;
mod cgroup2;
mod console;
mod create;
mod delete;
mod device;
mod error;
mod exec;
mod executor;
mod inspect;
mod join;
mod label;
mod landlock;
pub mod learn;
mod listener;
mod memfd;
mod mount_label;
mod mountinfo;
mod network;
mod outside;
mod place;
mod program;
mod programs;
mod record;
mod rootfs;
pub mod seccomp;
mod stdio;
mod sys;
mod timer;
mod user_namespace;
mod verity;

pub use create::{CreateRequest, Parked, Rootfs, create};
pub use delete::{Deleted, delete, may_have_ids, runs, update};
pub use error::LaunchError;
pub use exec::{ExecRequest, Execed, exec};
pub use listener::Listener;

pub use landlock::kernel_abi as landlock_abi;
pub use network::{Ring, hooks as network_hooks};
pub use verity::{
    CheckedBy, CheckedLayer, SealedLayer, SealedMount, checked_layer, fsverity_support, set_up as set_up_sealed,
    verity_support,
};

/// What the shim writes to [`Parked::release`], followed by the end of the stream (`shutdown(Write)`).
pub const RELEASE: &[u8] = executor::RELEASE;

/// Where the root of the sealed spec must point: `root.path` is either this name, relative to the bundle, or the
/// absolute path of [`rootfs_path`].
pub const ROOTFS_NAME: &str = "rootfs";

/// Absolute path of the container's root below a state folder.
#[must_use]
pub fn rootfs_path(state: &std::path::Path) -> std::path::PathBuf {
    record::Layout::new(state).rootfs()
}
