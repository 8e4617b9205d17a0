//! `boltseal-fetch`: as containerd's image verifier, and by hand.
#![forbid(unsafe_code)]

use boltseal_fetch::parent::{CHILD, Outcome, fetch};
use boltseal_fetch::{child, shown};
use boltseal_trust::Digest;
use std::io::{Write, stderr, stdout};
use std::process::ExitCode;

const USAGE: &str = "usage: boltseal-fetch REGISTRY/REPOSITORY@sha256:DIGEST\n       \
    boltseal-fetch -name REF -digest sha256:DIGEST -stdin-media-type TYPE   (containerd's image verifier)\n       \
    boltseal-fetch version";
const REFUSED: u8 = 1;
const BAD_USAGE: u8 = 2;
const UNDECIDED: u8 = 3;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [CHILD] => child::main(),
        ["version" | "--version"] => say(&format!("boltseal-fetch {}", env!("CARGO_PKG_VERSION")), ExitCode::SUCCESS),
        [image] if !image.starts_with('-') => match image.split_once('@') {
            Some((name, digest)) => by_hand(name, digest),
            None => usage(),
        },
        words => match flags(words) {
            Some((name, digest)) => verifier(name, digest),
            None => usage(),
        },
    }
}

/// containerd's flags, each with its value behind it. The descriptor on stdin says no more than they do: it is not read.
fn flags<'a>(words: &[&'a str]) -> Option<(&'a str, &'a str)> {
    let (mut name, mut digest) = (None, None);
    for pair in words.chunks(2) {
        let [flag, value] = pair else { return None };
        match flag.trim_start_matches('-') {
            "name" => name = Some(*value),
            "digest" => digest = Some(*value),
            "stdin-media-type" => {}
            _ => return None,
        }
    }
    Some((name?, digest?))
}

/// stdout is the reason, which containerd logs and hands to who pulls.
fn verifier(name: &str, digest: &str) -> ExitCode {
    match outcome(name, digest) {
        Ok(outcome) => {
            let code = if outcome.allow { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) };
            say(&format!("boltseal: {}", outcome.reason), code)
        }
        Err(why) => say(&format!("boltseal: {why}"), ExitCode::from(REFUSED)),
    }
}

fn by_hand(name: &str, digest: &str) -> ExitCode {
    match outcome(name, digest) {
        Ok(outcome) => {
            let notes: String = outcome.notes.iter().map(|note| format!("boltseal-fetch: {note}\n")).collect();
            let code = match (outcome.allow, outcome.whole) {
                (false, _) => REFUSED,
                (true, false) => UNDECIDED,
                (true, true) => 0,
            };
            if stderr().write_all(notes.as_bytes()).is_err() {
                return ExitCode::from(UNDECIDED);
            }
            say(&outcome.reason, ExitCode::from(code))
        }
        Err(why) => {
            eprintln!("boltseal-fetch: {why}");
            ExitCode::from(UNDECIDED)
        }
    }
}

fn outcome(name: &str, digest: &str) -> Result<Outcome, String> {
    let image: Digest = digest.parse().map_err(|_| format!("{} is no sha256 digest", shown(digest)))?;
    fetch(name, &image)
}

fn say(text: &str, code: ExitCode) -> ExitCode {
    match writeln!(stdout(), "{text}") {
        Ok(()) => code,
        Err(_) => ExitCode::from(UNDECIDED),
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(BAD_USAGE)
}
