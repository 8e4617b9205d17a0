//! The probe: a static program that says, from inside of a container, what can still be done there.
//!
//!   boltseal-probe score [--host KIND=INODE,..] [--folder PATH]..     everything, as JSON
//!   boltseal-probe calls | primitives                                 a part of it
//!
//! `--folder`: where files may be made for the primitives that need one (in a container they are looked for), `--set-uid`: a
//! copy of this program that belongs to root and has the set-uid bit.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests"))]

mod calls;
mod child;
mod harmless;
mod kernel;
mod paths;
mod primitives;
mod process;
mod program;
mod sys;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use probe::Report;
use std::collections::BTreeMap;
use std::process::ExitCode;

/// Processes of this user at one time: a guard, the probe never needs more than a few.
const PROCESSES: u64 = 512;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "euid") {
        // What the set-uid copy says.
        return ExitCode::from(if nix::unistd::geteuid().is_root() { SET_UID } else { 1 });
    }
    match look(&words) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("boltseal-probe: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Exit code of the set-uid copy when it is root.
pub(crate) const SET_UID: u8 = 43;

fn look(words: &[String]) -> Result<String, String> {
    // Before anything of our own is open.
    let inherited = primitives::inherited()?;
    let (what, options) = words.split_first().ok_or("usage: boltseal-probe score|calls|primitives [OPTION]..")?;
    let mut host = BTreeMap::new();
    let mut given = primitives::Given { inherited, ..primitives::Given::default() };
    for pair in options.chunks(2) {
        match pair {
            [name, value] if name == "--host" => host = namespaces(value)?,
            [name, value] if name == "--folder" => given.folders.push(value.clone()),
            [name, value] if name == "--set-uid" => given.set_uid = value.clone(),
            other => return Err(format!("{other:?} is no option")),
        }
    }
    let (_, most) = getrlimit(Resource::RLIMIT_NPROC).map_err(|errno| format!("RLIMIT_NPROC: {errno}"))?;
    let guard = most.min(PROCESSES);
    setrlimit(Resource::RLIMIT_NPROC, guard, guard).map_err(|errno| format!("RLIMIT_NPROC: {errno}"))?;
    let mut report = Report::default();
    let all = what == "score";
    if all || what == "calls" {
        report.calls = calls::look()?;
    }
    if all {
        report.process = process::look(&host)?;
        report.paths = paths::look()?;
        report.devices = kernel::devices();
        report.kernel_files = kernel::files();
        report.sockets = kernel::sockets();
        given.folders.extend(report.paths.writable.iter().cloned());
    }
    if all || what == "primitives" {
        report.primitives = primitives::all(&given);
    }
    serde_json::to_string(&report).map_err(|error| error.to_string())
}

/// `kind=inode,kind=inode`
fn namespaces(text: &str) -> Result<BTreeMap<String, u64>, String> {
    let one = |pair: &str| {
        let (kind, inode) = pair.split_once('=')?;
        Some((kind.to_owned(), inode.parse().ok()?))
    };
    text.split(',').map(|pair| one(pair).ok_or_else(|| format!("{pair:?} is no KIND=INODE"))).collect()
}
