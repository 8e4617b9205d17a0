//! Mutates what comes from outside and feeds it to every parser of the project.
//!
//! `boltseal-fuzz replay` runs each file of `corpus/<target>/`. `boltseal-fuzz run --seconds N` mutates them for N
//! seconds in all. Stable Rust, in-process: the input of a panic is saved and the exit code is not 0 (with
//! panic=abort the first panic is the last); an input that takes longer than ten seconds, overflows the stack or asks
//! for more than a GiB ends the process and is left in `target/fuzz/current`. Beside "no panic", most targets hold a
//! property: see `targets`. A build with overflow checks and debug assertions (the dev profile) sees more.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]
// `minute` is this file as a test without harness, which leaves the tests out and not what they use.
#![cfg_attr(test, allow(dead_code, unused_imports, reason = "see above"))]

mod corpus;
mod mutate;
mod node_seeds;
mod node_targets;
mod run;
mod seeds;
mod targets;

use std::process::ExitCode;

const USAGE: &str = "usage: boltseal-fuzz replay [TARGET]
       boltseal-fuzz run --seconds N [--seed N] [--target TARGET]
       boltseal-fuzz seed      make anew the seeds that our own encoders write
       boltseal-fuzz list";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["replay"] => run::replay(None),
        ["replay", target] => run::replay(Some(target)),
        ["run", options @ ..] => match Options::read(options) {
            Some(options) => run::run(&options),
            None => return usage(),
        },
        ["seed"] => seeds::write(),
        ["list"] => {
            for target in targets::ALL {
                println!("{:20} {}", target.name, target.holds);
            }
            Ok(true)
        }
        _ => return usage(),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("boltseal-fuzz: {error}");
            ExitCode::from(3)
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

/// Of `run`.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    seconds: u64,
    seed: u64,
    target: Option<String>,
}

impl Options {
    fn read(args: &[&str]) -> Option<Self> {
        let mut options = Self { seconds: 0, seed: 1, target: None };
        for pair in args.chunks(2) {
            match pair {
                ["--seconds", n] => options.seconds = n.parse().ok()?,
                ["--seed", n] => options.seed = n.parse().ok()?,
                ["--target", name] => options.target = Some((*name).to_owned()),
                _ => return None,
            }
        }
        (options.seconds > 0).then_some(options)
    }
}
