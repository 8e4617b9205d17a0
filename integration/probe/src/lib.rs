//! What the probe says about one container, as JSON on its stdout, and the columns that are counted from it.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests"))]

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Everything that one run found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    pub process: Process,
    pub calls: Calls,
    pub paths: Paths,
    /// Device nodes that open, beside those that every container has.
    pub devices: Vec<String>,
    /// Files and folders of the kernel's that runtimes hide and that show something here.
    pub kernel_files: Vec<String>,
    /// Kinds of sockets that can be made: `family/type/protocol`, numbers.
    pub sockets: Vec<String>,
    pub primitives: Vec<Primitive>,
}

/// The process itself, as /proc/self shows it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Process {
    pub uid: u32,
    pub no_new_privs: bool,
    /// 0 none, 1 strict, 2 filter.
    pub seccomp: u32,
    pub seccomp_filters: u32,
    /// Of AppArmor or SELinux; empty where the kernel has neither.
    pub label: String,
    /// Numbers of the capabilities by set: CapInh, CapPrm, CapEff, CapBnd, CapAmb.
    pub capabilities: BTreeMap<String, Vec<u32>>,
    /// Kinds of namespaces whose inode is one that the host named as its own.
    pub host_namespaces: Vec<String>,
}

/// The system calls of our table, by name.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Calls {
    /// They get to code of the kernel's.
    pub reachable: BTreeSet<String>,
    /// A filter answers: name, and with what errno (or `killed`).
    pub refused: BTreeMap<String, String>,
    /// No filter answers, and the kernel says that it has none of that number.
    pub absent: BTreeSet<String>,
    /// Those of `reachable` that were not made: what they would do, or why.
    pub not_made: BTreeMap<String, String>,
    /// The filter was asked without making the calls; false where it could not be, and EPERM then counts as reachable.
    pub asked: bool,
    /// A call that the filter refuses when it is asked, and that answered something else when it was made. Must be empty.
    pub contradictions: Vec<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Paths {
    /// Folders in which a file could be made.
    pub writable: Vec<String>,
    /// Mounts from which programs run.
    pub executable: Vec<String>,
    /// Folders into which a program was written that then ran.
    pub both: Vec<String>,
}

/// One thing that escapes have been built on, tried.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Primitive {
    pub name: String,
    /// Its own success check held.
    pub open: bool,
    /// What was seen, or why not.
    pub said: String,
}

/// The counted columns: name, and how many. Fewer is better.
#[must_use]
pub fn columns(report: &Report) -> Vec<(&'static str, usize)> {
    let held: BTreeSet<u32> = report.process.capabilities.values().flatten().copied().collect();
    vec![
        ("system calls reachable", report.calls.reachable.len()),
        ("capabilities in any of five sets", held.len()),
        ("namespaces of the host", report.process.host_namespaces.len()),
        ("folders writable", report.paths.writable.len()),
        ("mounts executable", report.paths.executable.len()),
        ("paths writable and executable", report.paths.both.len()),
        ("devices beyond the usual", report.devices.len()),
        ("kernel files shown", report.kernel_files.len()),
        ("kinds of sockets", report.sockets.len()),
        ("escape primitives", report.primitives.iter().filter(|primitive| primitive.open).count()),
    ]
}
