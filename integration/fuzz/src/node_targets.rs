//! Targets of the node's part: event logs, workers' answers on them, tokens.
#![allow(clippy::panic, reason = "a target panics when its property does not hold")]
use crate::targets::outcome;
use boltseal_node::log::{Events, Known, LogRules, judge, propose, words};

/// What firmware wrote: parsed, crossed, replayed and judged.
pub(crate) fn log(bytes: &[u8]) -> u64 {
    judged(bytes, &propose(bytes))
}

/// A worker's answer on a log that is there: whatever it says, spans stay inside and nothing is proven but digests.
pub(crate) fn log_answer(bytes: &[u8]) -> u64 {
    judged(&[0x5a; 4096], bytes)
}

fn judged(log: &[u8], answer: &[u8]) -> u64 {
    let events = match Events::decode(log, answer) {
        Ok(events) => events,
        Err(error) => return outcome(&error),
    };
    let quoted = events.replay();
    let path = Known(&events).boot_path();
    let mut off = quoted.clone();
    if let Some(value) = off.get_mut(&4) {
        value[0] ^= 1;
    }
    assert!(events.clone().prove(&off).is_err(), "a value that the log does not lead to was proven");
    let proven = events.prove(&quoted).unwrap_or_else(|e| panic!("its own replay does not prove it: {e}"));
    let rules = LogRules {
        images: vec![[0x44; 32]],
        certificates: vec![[1; 32]],
        secure_boot: true,
        files: vec![[0x99; 32]],
        command_line_has: vec!["ro".into()],
        command_line_never: vec!["init=".into()],
    };
    let problems = judge(&rules, &proven, b"root=/dev/vda1 ro\n");
    let clean = problems.iter().all(|line| !line.chars().any(char::is_control));
    assert!(clean, "{problems:?}");
    outcome(&(path, problems.first()))
}

/// Words hold no space that was not quoted, and none is empty.
pub(crate) fn command_line(bytes: &[u8]) -> u64 {
    let Ok(text) = std::str::from_utf8(bytes) else { return 0 };
    let words = words(text);
    assert!(words.iter().all(|word| !word.is_empty() && !word.contains('"')));
    assert!(text.contains('"') || words.iter().all(|word| !word.contains(' ')));
    outcome(&"x".repeat(words.len().min(40)))
}
