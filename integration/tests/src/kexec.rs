//! A kernel that has kexec, where the real one has not: a filter answers both calls as such a kernel would.
//!
//! The test's own binary takes the gate's place, puts itself under the filter and becomes the gate.
use anyhow::{Context, Result, bail};
use seccompiler::{SeccompAction, SeccompFilter, TargetArch, apply_filter};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

const GATE: &str = "/usr/local/bin/boltseal-runtime";
const REAL: &str = "/usr/local/bin/boltseal-runtime.real";
const KEXEC_LOAD: i64 = if cfg!(target_arch = "aarch64") { 104 } else { 246 };
const KEXEC_FILE_LOAD: i64 = if cfg!(target_arch = "aarch64") { 294 } else { 320 };
const EINVAL: u32 = 22;

/// From now on the node's gate runs on such a kernel.
pub fn appears() -> Result<()> {
    fs::rename(GATE, REAL).context("the gate")?;
    fs::copy(std::env::current_exe()?, GATE).context("a gate under a filter")?;
    Ok(())
}

/// The kernel as it is again.
pub fn disappears() -> Result<()> {
    fs::rename(REAL, GATE).context("the gate")
}

/// Whether this process was started as the gate. It does not come back then, but on an error.
pub fn stand_in() -> Option<Result<()>> {
    stands_in().then(become_gate)
}

pub(crate) fn stands_in() -> bool {
    let name = std::env::args_os().next();
    name.is_some_and(|name| Path::new(&name).file_name().is_some_and(|name| name == "boltseal-runtime"))
}

fn become_gate() -> Result<()> {
    let rules: BTreeMap<i64, Vec<_>> = [KEXEC_LOAD, KEXEC_FILE_LOAD].map(|call| (call, Vec::new())).into();
    let arch = if cfg!(target_arch = "aarch64") { TargetArch::aarch64 } else { TargetArch::x86_64 };
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(EINVAL), arch)?;
    let program: seccompiler::BpfProgram = filter.try_into()?;
    apply_filter(&program)?;
    bail!(Command::new(REAL).arg0("boltseal-runtime").args(std::env::args_os().skip(1)).exec())
}
