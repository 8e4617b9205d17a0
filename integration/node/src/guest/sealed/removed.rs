//! `boltseal sig gc` and sealed layers: what no statement names goes, but not what a container that runs reads from.
use super::{SLEEP, blob, file_of, in_time, layer, nothing_left, of, said, take_away};
use crate::guest::work::World;
use crate::sealed::ANOTHER;
use anyhow::{Result, ensure};
use serde_json::Value;
use stack::process::run;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

fn gc(more: &[&str]) -> Result<Value> {
    let words = ["sig", "gc", "--grace", "0s", "-o", "json"];
    let said = run(Command::new("boltseal").args(words).args(more))?;
    Ok(serde_json::from_str::<Value>(&said)?["sealed"].clone())
}

pub(super) fn all(world: &World, own: &Path, before: &[PathBuf]) -> Result<String> {
    let (own_blob, other, layered) = (blob()?, file_of(&layer(ANOTHER, 0)?)?, file_of(&layer(&of("layered"), 3)?)?);
    let request = world.named("collected", "app", &SLEEP)?;
    in_time(|| world.run(&request)).map_err(|status| said("collected", &status))?;
    take_away(own, before)?;
    // The times in question are whole seconds.
    thread::sleep(Duration::from_secs(2));
    let would = gc(&["--dry-run"])?;
    ensure!(would["in_use"] == 1 && own_blob.exists() && other.exists() && layered.exists(), "{would}");
    // containerd has no image `other`: its statement goes, and what that alone names.
    let first = gc(&[])?;
    ensure!(first == would && own_blob.exists() && !other.exists() && layered.exists(), "{first}, announced {would}");
    world.client.remove(&request)?;
    nothing_left()?;
    let second = gc(&[])?;
    ensure!(second["in_use"] == 0 && !own_blob.exists() && layered.exists(), "{second}");
    ensure!(second["named"].as_u64() > Some(0), "{second}");
    Ok("gc: a layer of a container that runs stays, and goes after it; one that a statement names stays".into())
}
