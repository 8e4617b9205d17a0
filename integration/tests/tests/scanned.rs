//! Layers are scanned once for an image, however often it starts, and not at all where no policy asks.
use crate::Report;
use anyhow::{Context, Result, ensure};
use stack::containerd::Version;
use stack::node::World;
use stack::since::Since;

/// Starts of one image.
const STARTS: usize = 200;
const CACHE: &str = "/var/lib/boltseal/scan/sha256";

pub(crate) fn all(world: &mut World, version: Version, report: &mut Report, name: &impl Fn(&str) -> String) {
    let mut check = |what: &str, run: fn(&mut World) -> Result<String>| report.clean(&name(what), world, run);
    check("scanned: where no policy asks, no layer is looked at", unasked);
    check("scanned: what cannot be kept is used, and scanned again", unkept);
    if version == Version::V2_1 {
        check("scanned: 200 starts of one image scan its layers once", once);
    }
}

fn start(world: &mut World) -> Result<()> {
    let request = world.request("bare", &stack::cases::layers::ALONE)?;
    let ended = world.complete(&request)?;
    ensure!(ended.status == 0, "{ended:?}");
    Ok(())
}

fn asked(world: &mut World) -> Result<()> {
    let mut policy = world.node.policy.clone();
    policy.enforce("BS-IMG-007")?;
    policy.write()?;
    world.undo_later(|world| world.node.policy.write());
    Ok(())
}

/// What decisions since then say of the scan.
fn said(before: &Since) -> Result<Vec<String>> {
    let records = before.records()?;
    let facts = records.iter().filter(|r| r["decision"] == "allow").filter_map(|r| {
        let found = r["findings"].as_array()?.iter().find(|f| f["rule"] == "BS-IMG-007")?;
        Some(found["fact"].as_str()?.to_owned())
    });
    Ok(facts.collect())
}

fn count(facts: &[String], from: &str) -> usize {
    facts.iter().filter(|fact| fact.ends_with(&format!("scan={from}"))).count()
}

fn forget() -> Result<()> {
    match std::fs::remove_dir_all(CACHE) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).context(CACHE),
        _ => Ok(()),
    }
}

fn once(world: &mut World) -> Result<String> {
    forget()?;
    asked(world)?;
    let before = Since::now()?;
    for _ in 0..STARTS {
        start(world)?;
    }
    let facts = said(&before)?;
    let counted = (facts.len(), count(&facts, "fresh"), count(&facts, "cached"));
    ensure!(counted == (STARTS, 1, STARTS - 1), "starts, fresh, cached: {counted:?}");
    Ok(format!("{} starts, {} scan", counted.0, counted.1))
}

fn unasked(world: &mut World) -> Result<String> {
    forget()?;
    let before = Since::now()?;
    start(world)?;
    let facts = said(&before)?;
    ensure!(facts == ["no policy asks what its layers hold"], "{facts:?}");
    ensure!(!std::path::Path::new(CACHE).exists(), "{CACHE} was made");
    Ok(String::new())
}

fn unkept(world: &mut World) -> Result<String> {
    forget()?;
    asked(world)?;
    // A file in the folder's place: as little can be kept as on a full disk.
    std::fs::create_dir_all(CACHE.trim_end_matches("/sha256"))?;
    std::fs::write(CACHE, "")?;
    world.undo_later(|_| std::fs::remove_file(CACHE).context(CACHE));
    let before = Since::now()?;
    start(world)?;
    start(world)?;
    let facts = said(&before)?;
    ensure!(count(&facts, "fresh") == 2, "{facts:?}");
    Ok(String::new())
}
