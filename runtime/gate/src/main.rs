//! The gate: one run per operation, milliseconds long, single-threaded, root.
//!
//! The shim starts it as `boltseal-runtime gate` with a socketpair as fd 3 and one request in it. It gathers evidence,
//! lets jailed workers parse what an author wrote, verifies what they propose, decides, records, seals, launches and
//! answers. It leaves nothing outside its root-only folders. Read `pipeline.rs` first.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests"))]

mod ahead;
mod break_glass;
mod bundle;
mod checked;
mod claim;
mod exec;
mod frame;
mod gather;
mod grant;
mod image;
mod inspect;
mod log;
mod node;
mod owner;
mod paths;
mod pipeline;
mod refuse;
mod remove;
mod scan;
mod sensitivity;
mod state;
mod sys;
mod trail;
mod update;
mod verity;

use anyhow::{Context, bail};
use boltseal_message::{Operation, Reply};

/// musl's allocator maps and unmaps for every larger buffer; a start is shorter than what that costs. Not for the tests: they
/// have threads, and a fork would find the heap taken for ever by one that it has not.
#[cfg_attr(not(test), global_allocator)]
#[cfg_attr(test, expect(dead_code, reason = "see above"))]
static HEAP: sys::Heap = sys::Heap::new();

fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("gate") => gate(),
        Some("inspect") => {
            sys::clear_environment();
            log::start()?;
            inspect::inspect(&std::env::args().skip(2).collect::<Vec<_>>())
        }
        Some("--version" | "-v" | "version") => {
            use std::io::Write;
            writeln!(std::io::stdout(), "boltseal-runtime {}", env!("CARGO_PKG_VERSION")).context("stdout")
        }
        _ => bail!("boltseal-runtime is run by containerd-shim-boltseal-v1. To look at a node use `boltseal doctor`."),
    }
}

/// One request, one answer. Whatever goes wrong in between is an answer too: the shim never guesses.
fn gate() -> anyhow::Result<()> {
    sys::clear_environment();
    log::start()?;
    let (mut channel, request, fds) = frame::receive().context("reading the request from fd 3")?;
    let outcome = match &request.operation {
        // A shim of the version before has nobody to listen.
        Operation::Create(create) => pipeline::create(&request, create, fds, channel.version),
        Operation::Exec(exec) => exec::exec(&request, exec, fds),
        Operation::Update { resources } => update::update(&request, resources),
        Operation::Delete { events } => remove::delete(&request, events),
        Operation::Record { events } => remove::record(&request, events),
    };
    let (reply, fds) = outcome.unwrap_or_else(|refusal| (Reply::Refused(refusal.into_message()), Vec::new()));
    frame::send(&mut channel, &reply, &fds).context("sending the reply")
}
