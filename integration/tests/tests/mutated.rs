//! Specs with one to four fields changed by chance, taken to real starts: each is refused, or runs as it must whatever was
//! changed. What must be is said by the fuzzer's oracle (`integration/fuzz/src/start`), which shares no code with what decides.
use crate::Report;
use anyhow::{Context, Result, ensure};
use boltseal_fuzz::random::Random;
use boltseal_fuzz::start::bend::bend;
use boltseal_fuzz::start::running::{HIDDEN, Seen, wrongs};
use boltseal_fuzz::start::{Grant, demands};
use serde_json::Value;
use stack::client::Status;
use stack::node::World;
use stack::since::Since;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The same ones each time. Every other has one change alone, so that many start.
const SEEDS: std::ops::Range<u64> = 0..128;

/// CAP_NET_BIND_SERVICE, the one that the policy leaves.
const LEFT: u64 = 1 << 10;

/// What the policy of these tests grants.
const GRANT: Grant = Grant { capabilities: &["NET_BIND_SERVICE"], ..Grant::NOTHING };

pub(crate) fn all(world: &mut World, report: &mut Report, name: &dyn Fn(&str) -> String) {
    report.clean(&name("mutated specs: refused, or confined as every other"), world, mutated);
}

#[derive(Debug, Default)]
struct Count {
    compared: usize,
    ended: usize,
    /// Made, and what they were to run could not be: a folder or a program that is not there.
    unstarted: usize,
    refused: usize,
}

fn mutated(world: &mut World) -> Result<String> {
    let before = Since::now()?;
    let mut count = Count::default();
    for seed in SEEDS {
        let mut request = world.request("app", &["/bin/sleep", "600"])?;
        let mut random = Random(seed);
        let count_of = if seed.is_multiple_of(2) { 1 } else { 2 + random.below(3) };
        let (spec, changes) = bend(&mut random, &request.spec, count_of);
        request.spec = spec;
        one(world, &request, &mut count).with_context(|| format!("seed {seed}: {}", changes.join("; ")))?;
    }
    let new = before.records()?;
    // The twin of them all; and containerd clears away with a good one what it left of those that it took for no spec.
    let good = world.request("app", &["/bin/true"])?;
    ensure!(world.complete(&good)?.status == 0, "the good spec does not start any more");
    let ids = |is: &dyn Fn(&Value) -> bool, key: &str| -> BTreeSet<String> {
        new.iter().filter(|record| is(record)).map(|record| record[key].to_string()).collect()
    };
    let (started, aborted) = (ids(&|r| r["ev"] == "started", "of"), ids(&|r| r["ev"] == "aborted", "of"));
    let (denied, allowed) = (ids(&|r| r["decision"] == "deny", "id").len(), ids(&|r| r["decision"] == "allow", "id"));
    let known = count.compared + count.ended + count.unstarted;
    ensure!(started.len() == known, "{} started, {known} known: {count:?}", started.len());
    // One that was made and could not be started has both ends.
    ensure!(allowed == started.union(&aborted).cloned().collect(), "{allowed:?}: {started:?}, {aborted:?}");
    let failed = aborted.difference(&started).count();
    // What containerd itself takes for no spec comes to nobody's ears; whatever came to ours is in the trail.
    ensure!(denied > 0 && denied + failed <= count.refused, "{denied} denied, {failed} failed: {count:?}");
    ensure!(count.compared > 0, "none ran long enough to be looked at");
    Ok(format!(
        "{} started, {} of them compared; {denied} denied, {failed} failed in the launch, {} refused before",
        started.len(),
        count.compared,
        count.refused - denied - failed
    ))
}

fn one(world: &World, request: &stack::client::Request, count: &mut Count) -> Result<()> {
    let pid = match world.create(request) {
        Ok(pid) => pid,
        Err(status) => {
            count.refused += 1;
            return refused(&status);
        }
    };
    let looked = match world.client.start(&request.id, "") {
        Err(status) => refused(&status).map(|()| count.unstarted += 1),
        Ok(_) => {
            look(pid, &request.spec).map(|there| *(if there { &mut count.compared } else { &mut count.ended }) += 1)
        }
    };
    world.client.remove(request).context("cannot be removed")?;
    looked
}

/// In words for a person, whoever says them.
fn refused(status: &Status) -> Result<()> {
    ensure!(!status.message().is_empty() && !status.message().contains("panic"), "{status}");
    Ok(())
}

/// It may start, and is what every container is. False when it ended too soon to be looked at.
fn look(pid: u32, spec: &Value) -> Result<bool> {
    let against = demands::against(spec, &GRANT);
    ensure!(against.is_empty(), "it started although {against:?}");
    let Some(seen) = seen(pid)? else { return Ok(false) };
    let uid = spec["process"]["user"]["uid"].as_u64().unwrap_or(0);
    let wrong = wrongs(&seen, uid, LEFT);
    ensure!(wrong.is_empty(), "{wrong:?}");
    Ok(true)
}

fn seen(pid: u32) -> Result<Option<Seen>> {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}"));
    let (Ok(status), Ok(mountinfo)) = (read("status"), read("mountinfo")) else { return Ok(None) };
    // A zombie has no mounts any more.
    if status.lines().any(|line| line.starts_with("State:") && line.contains(['Z', 'X'])) || mountinfo.is_empty() {
        return Ok(None);
    }
    let mut namespaces = Vec::new();
    for entry in fs::read_dir("/proc/self/ns")? {
        let kind = entry?.file_name().to_string_lossy().into_owned();
        let link = |of: &str| fs::read_link(format!("/proc/{of}/ns/{kind}"));
        let Ok(own) = link(&pid.to_string()) else { return Ok(None) };
        // The tests' own, and the node's where it can be seen.
        for node in [link("self"), link("1")].into_iter().flatten() {
            namespaces.push((kind.clone(), own.display().to_string(), node.display().to_string()));
        }
    }
    let to_hide = HIDDEN.iter().filter(|path| Path::new(path).exists()).map(ToString::to_string).collect();
    Ok(Some(Seen { status, mountinfo, to_hide, namespaces }))
}
