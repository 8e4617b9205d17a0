//! `containerd-shim-boltseal-v1`: the process that stays with a pod. It speaks ttrpc, owns stdio, pidfds and cgroup
//! files, and runs the gate for all that needs a decision (DESIGN sections 1 and 3). It holds no policy.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")
)]

mod anomalies;
mod armour;
mod cgroup;
mod copy;
mod create;
mod delete;
mod events;
mod exec;
mod flags;
mod info;
mod network;
mod process;
mod reap;
mod release;
mod remove;
mod runtime;
mod scan;
mod serve;
mod spawn;
mod start;
mod starter;
mod stats;
mod stdio;
mod sys;
mod task;
mod trail;
mod traps;

use std::io::Write;
use std::process::ExitCode;

use flags::{Action, Flags};

/// musl's allocator maps and unmaps for every larger buffer.
#[global_allocator]
static HEAP: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    match run() {
        Ok(output) => match std::io::stdout().write_all(&output) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => {
            // containerd shows this to whoever asked for the container.
            match writeln!(std::io::stderr(), "{}: {error:#}", info::BINARY) {
                Ok(()) | Err(_) => ExitCode::FAILURE,
            }
        }
    }
}

/// What goes to stdout. Nothing may go to stderr on success: containerd glues it to the address.
fn run() -> anyhow::Result<Vec<u8>> {
    let flags = Flags::parse(std::env::args().skip(1))?;
    if flags.version {
        return Ok(info::version().into_bytes());
    }
    if flags.info {
        return info::info();
    }
    match flags.action {
        Some(Action::Start) => start::start(&flags),
        Some(Action::Delete) => delete::delete(&flags),
        Some(Action::Serve) => serve::serve(&flags).map(|()| Vec::new()),
        None => anyhow::bail!("no action: expected start, delete, -info or -v"),
    }
}
