//! What a start looks for in an image is looked for in the layers that run, not in what containerd unpacked under their name.
use super::{SLEEP, complete_of, killed_when, nothing_left, refused_of};
use crate::guest::work::World;
use anyhow::{Context, Result, ensure};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

const HELPER: &str = "bin/helper";
const SETUID: u32 = 0o4755;
const PLAIN: u32 = 0o755;

/// The folder that containerd unpacked the image's uppermost layer to.
fn unpacked(world: &World, image: &str) -> Result<PathBuf> {
    let request = world.named("unpacked", image, &SLEEP)?;
    let mounts = world.client.create_container(&request)?;
    world.client.remove(&request)?;
    let options = mounts.iter().flat_map(|mount| &mount.options);
    let lower = options.filter_map(|option| option.strip_prefix("lowerdir=")).next().context("no lowerdir")?;
    Ok(lower.split(':').next().unwrap_or_default().into())
}

/// The layer has a setuid file. Its folder on the disk says that it has none, and the other way round.
pub(super) fn setuid(world: &World) -> Result<String> {
    let (with, without) = (unpacked(world, "helper")?, unpacked(world, "app")?);
    let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).context("the unpacked file");
    mode(&with.join(HELPER), PLAIN)?;
    fs::copy(with.join(HELPER), without.join(HELPER))?;
    mode(&without.join(HELPER), SETUID)?;
    let said = refused_of(world, "setuid", "helper")?;
    nothing_left()?;
    for (id, from) in [("scanned", "fresh"), ("scanned-again", "cached")] {
        complete_of(world, id, "app", &["/bin/true"])?;
        let trail = stack::node::trail()?;
        let decision = trail.iter().find(|r| r["ev"] == "decision" && r["what"]["id"] == id).context("no decision")?;
        let scan = decision["findings"].as_array().into_iter().flatten().find(|f| f["rule"] == "BS-IMG-008");
        let fact = scan.context("no finding")?["fact"].to_string();
        ensure!(fact.contains(&format!("scan={from}")), "{id}: {fact}");
        nothing_left()?;
    }
    fs::remove_file(without.join(HELPER))?;
    mode(&with.join(HELPER), SETUID)?;
    Ok(format!(
        "a setuid file of a sealed layer, hidden in containerd's folder: {said}; one put into that folder alone: started"
    ))
}

/// `/dev` of the sealed layer is a link. Its folder on the disk says that it is a folder, and the other way round.
pub(super) fn link(world: &World) -> Result<String> {
    let (with, without) = (unpacked(world, "devlink")?.join("dev"), unpacked(world, "app")?.join("dev"));
    fs::remove_file(&with)?;
    fs::create_dir(&with)?;
    fs::remove_dir(&without)?;
    symlink("/tmp", &without)?;
    let said = refused_of(world, "link", "devlink")?;
    nothing_left()?;
    complete_of(world, "link-twin", "app", &["/bin/true"])?;
    fs::remove_file(&without)?;
    fs::create_dir(&without)?;
    nothing_left()?;
    Ok(format!(
        "/dev of a sealed layer is a link, and a folder in containerd's folder: {said}; the other way round: started"
    ))
}

/// The gate is killed while its worker has the layers mounted.
pub(super) fn killed(world: &World) -> Result<String> {
    killed_when(world, "killed-scan", "layered", || {
        // The worker's root is the overlay: of what else is mounted there its list shows nothing.
        let mounted = |(pid, _): &(i32, i32)| {
            fs::read_to_string(format!("/proc/{pid}/mountinfo")).is_ok_and(|text| text.contains("upperdir=/run/upper"))
        };
        let all = super::gates()?;
        let worker = |gate: &&(i32, i32)| all.iter().any(|(pid, _)| *pid == gate.1);
        Ok(all.iter().filter(worker).any(mounted))
    })?;
    Ok("the gate killed while the layers were scanned: neither device nor mount nor worker is left".into())
}
