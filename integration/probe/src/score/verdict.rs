//! What boltseal promises of these columns, as a pure function: the list of what is missed.
use crate::control::Control;
use crate::runtimes::Run;
use anyhow::Result;
use probe::{Report, columns};
use std::collections::BTreeSet;

/// Bounds of boltseal's own columns.
const BOUNDS: [(&str, usize); 3] =
    [("system calls reachable", 230), ("paths writable and executable", 0), ("escape primitives", 0)];

/// Peers that boltseal is to be below of.
const PEERS: [&str; 2] = ["runc", "crun"];

/// The checks that must succeed outside of a container for the column to mean anything.
const LEAST_LIVE: usize = 24;

pub(crate) fn judge(control: &Control, runs: &[Run]) -> Result<Vec<String>> {
    let mut misses = Vec::new();
    for run in runs {
        match &run.report {
            Ok(report) => misses.extend(sound(run.name, report)),
            Err(why) => misses.push(format!("{} did not run: {why}", run.name)),
        }
    }
    let live = control.primitives.iter().filter(|primitive| primitive.open).count();
    if live < LEAST_LIVE {
        misses.push(format!("only {live} of the primitives succeed outside of a container"));
    }
    let of = |name: &str| runs.iter().find(|run| run.name == name).and_then(|run| run.report.as_ref().ok());
    let Some(ours) = of("boltseal") else { return Ok(misses) };
    for peer in PEERS {
        if let Some(theirs) = of(peer) {
            misses.extend(above(peer, &columns(ours), &columns(theirs)));
        }
    }
    misses.extend(bounds(&columns(ours)));
    misses.extend(as_written(ours, control)?);
    Ok(misses)
}

/// Whether the probe could see what it says.
fn sound(name: &str, report: &Report) -> Vec<String> {
    let mut misses = report.calls.contradictions.iter().map(|line| format!("{name}: {line}")).collect::<Vec<_>>();
    if !report.calls.asked && name != "runsc" {
        misses.push(format!("{name}: its filter could not be asked"));
    }
    misses
}

/// Below in every column; where a peer has nothing, nothing.
fn above(peer: &str, ours: &[(&'static str, usize)], theirs: &[(&'static str, usize)]) -> Vec<String> {
    let pairs = ours.iter().zip(theirs).filter(|((_, ours), (_, theirs))| ours >= theirs && *ours > 0);
    pairs.map(|((name, ours), (_, theirs))| format!("{name}: {ours}, not below {peer}'s {theirs}")).collect()
}

fn bounds(ours: &[(&'static str, usize)]) -> Vec<String> {
    let bound = |name: &str| BOUNDS.iter().find(|(bounded, _)| *bounded == name).map(|(_, most)| *most);
    let over =
        ours.iter().filter_map(|(name, count)| bound(name).filter(|most| count > most).map(|most| (name, count, most)));
    over.map(|(name, count, most)| format!("{name}: {count}, at most {most}")).collect()
}

/// What the probe reaches is what the base filter lets through, as far as this kernel has it: neither more nor less.
fn as_written(ours: &Report, control: &Control) -> Result<Vec<String>> {
    let profile: serde_json::Value = serde_json::from_str(boltseal_profiles::base_seccomp())?;
    let rules = profile["syscalls"].as_array().into_iter().flatten();
    let allowed = rules.filter(|rule| rule["action"] == "SCMP_ACT_ALLOW").flat_map(|rule| rule["names"].as_array());
    let written: BTreeSet<&str> = allowed
        .flatten()
        .filter_map(|name| name.as_str())
        .filter(|name| !control.calls.absent.contains(*name))
        .collect();
    // What no filter is shown no profile can close.
    let shown = |name: &&str| !["uretprobe", "uprobe"].contains(name);
    let reached: BTreeSet<&str> = ours.calls.reachable.iter().map(String::as_str).filter(shown).collect();
    let more = reached.difference(&written).map(|name| format!("{name} is reachable, and base.json does not open it"));
    let less = written.difference(&reached).map(|name| format!("{name} is not reachable, and base.json opens it"));
    Ok(more.chain(less).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_is_not_below_but_nothing_is_nothing() {
        let row = |count| vec![("a column", count)];
        for (ours, theirs, fits) in
            [(0, 0, true), (0, 1, true), (1, 2, true), (1, 1, false), (2, 1, false), (1, 0, false)]
        {
            assert_eq!(above("runc", &row(ours), &row(theirs)).is_empty(), fits, "{ours} {theirs}");
        }
    }

    #[test]
    fn bounds_bite_where_they_are_named() {
        assert!(bounds(&[("system calls reachable", 230), ("kinds of sockets", 900)]).is_empty());
        assert_eq!(bounds(&[("system calls reachable", 231)]).len(), 1);
        assert_eq!(bounds(&[("paths writable and executable", 1), ("escape primitives", 1)]).len(), 2);
        let names: Vec<&str> = columns(&Report::default()).iter().map(|(name, _)| *name).collect();
        assert!(BOUNDS.iter().all(|(name, _)| names.contains(name)));
    }

    fn control() -> Control {
        let open = |name: usize| probe::Primitive { name: name.to_string(), open: true, said: String::new() };
        Control { primitives: (0..LEAST_LIVE).map(open).collect(), calls: probe::Calls::default() }
    }

    #[test]
    fn who_did_not_run_or_could_not_look_is_no_pass() {
        let run = |name, report| Run { name, how: String::new(), report };
        let mut blind = Report::default();
        blind.calls.contradictions.push("read: odd".into());
        let misses = judge(&control(), &[run("runsc", Err("no".into())), run("runc", Ok(blind))]).unwrap();
        assert_eq!(misses, ["runsc did not run: no", "runc: read: odd", "runc: its filter could not be asked"]);
        let mut few = control();
        few.primitives.pop();
        assert_eq!(judge(&few, &[]).unwrap().len(), 1);
    }

    #[test]
    fn what_is_reached_and_what_is_written_must_agree() {
        let profile: serde_json::Value = serde_json::from_str(boltseal_profiles::base_seccomp()).unwrap();
        let mut ours = Report::default();
        let rules = profile["syscalls"].as_array().unwrap().iter().filter(|rule| rule["action"] == "SCMP_ACT_ALLOW");
        let names = rules.flat_map(|rule| rule["names"].as_array().unwrap());
        ours.calls.reachable = names.map(|name| name.as_str().unwrap().to_owned()).collect();
        assert!(as_written(&ours, &control()).unwrap().is_empty());
        ours.calls.reachable.insert("bpf".into());
        ours.calls.reachable.remove("read");
        assert_eq!(as_written(&ours, &control()).unwrap().len(), 2);
    }
}
