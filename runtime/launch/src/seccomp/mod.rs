//! Seccomp: an OCI profile becomes a BPF program (a range tree over the call numbers, seccompiler's code for the
//! conditions on arguments), and the program is installed with our own seccomp(2) call.
//!
//! Meaning, whatever the profile says: a foreign ABI, x32 and every number that our table does not know answer ENOSYS;
//! of several rules that match, the most restrictive wins; no rule is the default action.
mod base;
mod compile;
mod install;
mod meaning;
pub mod profile;
mod tree;

#[cfg(test)]
mod interpreter;

pub use base::base;
pub use compile::{Answer, Case, Compiled, SeccompError, Trap, compile, compile_beside, compile_own};
pub(crate) use install::install;
pub use meaning::{Meaning, Relation, compare, meaning};

use boltseal_profiles::Arch;

/// A pod's own filter for this machine, beside that base filter.
///
/// # Errors
/// What cannot be installed as it is, in one line.
pub fn pod(json: &str, base: &Compiled) -> Result<Compiled, SeccompError> {
    compile_beside(json, native()?, base)
}

fn native() -> Result<Arch, SeccompError> {
    Arch::native().ok_or_else(|| SeccompError(format!("no system call table for {}", std::env::consts::ARCH)))
}
