//! `make bench`: what a start costs with all gates on, beside Debian's containerd-shim-runc-v2 with runc, in one run on one
//! containerd, the two interleaved with pauses between. Figures and ratios on screen and in `target/bench.json`. It
//! measures; it is no test, and a busy machine shows in it.
#![deny(unsafe_code)]

mod filter;
mod image;
mod measure;
#[allow(unsafe_code, reason = "calls by number")]
mod sys;
mod table;

use anyhow::{Context, Result, ensure};
use measure::{Cost, Output, gate_cpu, one, shim_memory};
use serde_json::Value;
use stack::client::{BOLTSEAL, RUNC};
use stack::containerd::Version;
use stack::node::{Node, World, trail};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Between two runs: what one leaves to do (writeback, exits) shall not be the next one's cost.
const PAUSE: Duration = Duration::from_millis(250);
const WARM_UP: usize = 3;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("filter") {
        return match filter::report() {
            Ok(_) => ExitCode::SUCCESS,
            Err(error) => {
                println!("{error:#}");
                ExitCode::FAILURE
            }
        };
    }
    stack::private::machine(bench)
}

/// What the trail says of each start: sealing, the inspection from inside, the one from outside, and before them image and
/// owner, in microseconds.
fn confinement() -> Result<Vec<[f64; 4]>> {
    let cost = |record: &Value| -> Option<[f64; 4]> {
        let of = |name: &str| record.get("cost")?[name].as_f64();
        Some([of("seal_us")?, of("inside_us")?, of("outside_us")?, of("image_us")?])
    };
    let all: Vec<_> = trail()?.iter().filter_map(cost).collect();
    ensure!(!all.is_empty(), "no start in the trail tells its cost");
    Ok(all)
}

fn bench(scratch: &Path) -> Result<()> {
    let runs =
        std::env::args().nth(1).map_or(Ok(30), |word| word.parse()).context("usage: boltseal-bench [RUNS | filter]")?;
    let node = Node::make(scratch, false)?;
    node.enroll()?;
    for image in node.images.iter() {
        node.import(image)?;
    }
    let mut world = World::start(node, Version::V1_6)?;
    let cgroup = measure::cgroup_of_containerd(&world)?;

    let output = Output::make()?;
    let mut costs: [Vec<Cost>; 2] = [Vec::new(), Vec::new()];
    for run in 0..runs + WARM_UP {
        // Each comes first as often as the other.
        let order = if run % 2 == 0 { [0, 1] } else { [1, 0] };
        for which in order {
            world.runtime = if which == 0 { BOLTSEAL } else { RUNC };
            std::thread::sleep(PAUSE);
            let cost = one(&mut world, &output, &cgroup).with_context(|| world.runtime.to_owned())?;
            if let (true, Some(list)) = (run >= WARM_UP, costs.get_mut(which)) {
                list.push(cost);
            }
        }
    }
    world.runtime = BOLTSEAL;
    let ours = shim_memory(&mut world, &output)?;
    let gate = gate_cpu(&mut world, &output, runs)?;
    world.runtime = RUNC;
    let theirs = shim_memory(&mut world, &output)?;
    let [boltseal, runc] = &costs;
    let others = [("base filter", filter::report()?), ("image trust", image::report(&world.node)?)];
    table::report(boltseal, runc, &ours, &theirs, &gate, &confinement()?, others)
}
