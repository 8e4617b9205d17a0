//! A sealed image (BS-IMG-002): its layers are verity devices. What is changed below them stops the container, or the read;
//! without its own sealed layers it does not start where the policy demands them; nothing of it stays behind.
mod looked;
mod measured;
mod merged;
mod pods;
mod removed;

use super::enrol::{self, LIB};
use super::payload;
use super::work::{World, in_time};
use crate::job::version;
use crate::sealed::{ANOTHER, FOREIGN, LAYOUT, MORE};
use anyhow::{Context, Result, ensure};
use stack::client::Status;
use stack::image;
use stack::process::run;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

const BLOCK: u64 = 4096;
/// Block of that file whose byte is changed.
const LATE: usize = 48;
const SLEEP: [&str; 2] = ["/bin/sleep", "600"];

/// Answers with what was seen, a line each.
pub(super) fn all(world: &World) -> Result<Vec<String>> {
    let mut seen = Vec::new();
    complete(world, "plain", &["/bin/true"])?;
    let unpacked = merged::listing(world, "layers")?;
    let own = signatures(world, "app")?;
    let before = listed(&own)?;
    import(LAYOUT)?;
    seen.push(measured::ratio(world, &own, &before)?);
    take_away(&own, &before)?;
    enrol::policy(version::SEALED)?;
    refused(world, "unsealed")?;

    // The very layers, named by a key that nobody asked for; then by the right key, in a statement of another image.
    import(FOREIGN)?;
    refused(world, "foreign")?;
    take_away(&own, &before)?;
    import(ANOTHER)?;
    let other = Path::new(LIB).join("sig/sha256").join(another()?);
    run(Command::new("sh").arg("-c").arg(format!("cp {}/*.dsse.json {}", other.display(), own.display())))?;
    refused(world, "another")?;
    take_away(&own, &before)?;

    import(LAYOUT)?;
    seen.push(starts(world)?);
    let blob = blob()?;
    seen.push(missing(world, &blob)?);
    seen.push(changed(world, &blob)?);
    seen.push(killed(world)?);
    for image in MORE {
        import(&of(image))?;
    }
    seen.extend(merged::all(world, &unpacked)?);
    seen.push(pods::all(world)?);
    seen.push(looked::link(world)?);
    enrol::policy(version::SCANNED)?;
    seen.push(looked::setuid(world)?);
    seen.push(looked::killed(world)?);
    seen.push(removed::all(world, &own, &before)?);
    Ok(seen)
}

/// Layout of a sealed image beside `app`.
fn of(image: &str) -> String {
    format!("{LAYOUT}-{image}")
}

fn import(layout: &str) -> Result<()> {
    let said = run(Command::new("boltseal").args(["sig", "import"]).arg(payload().join("given").join(layout)))?;
    println!("guest: {}", said.trim());
    Ok(())
}

fn signatures(world: &World, image: &str) -> Result<PathBuf> {
    Ok(Path::new(LIB).join("sig/sha256").join(world.node.images.get(image)?.hex()))
}

/// Digest of the image that [`ANOTHER`] is of.
fn another() -> Result<String> {
    let images = stack::given::images(&payload().join("given"))?;
    Ok(images.get("other").context("no image other")?.hex().to_owned())
}

fn listed(folder: &Path) -> Result<Vec<PathBuf>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
}

fn take_away(folder: &Path, before: &[PathBuf]) -> Result<()> {
    for path in listed(folder)?.into_iter().filter(|path| !before.contains(path)) {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// A layer of what a layout's seal said, the lowest first.
fn layer(layout: &str, number: usize) -> Result<serde_json::Value> {
    let text = fs::read_to_string(payload().join("given").join(layout).join("root_hash.json"))?;
    let value: serde_json::Value = serde_json::from_str(&text)?;
    Ok(value["sealed"][0]["layers"][number].clone())
}

fn file_of(layer: &serde_json::Value) -> Result<PathBuf> {
    let named = layer["blob"].as_str().context("no blob")?;
    Ok(Path::new(LIB).join("verity/sha256").join(named.trim_start_matches("sha256:")))
}

/// The one blob of the image's one layer: the others are of the other images.
fn blob() -> Result<PathBuf> {
    file_of(&layer(LAYOUT, 0)?)
}

fn hash_offset() -> Result<u64> {
    layer(LAYOUT, 0)?["hash_offset"].as_u64().context("no hash_offset")
}

fn complete(world: &World, id: &str, args: &[&str]) -> Result<String> {
    complete_of(world, id, "app", args)
}

fn complete_of(world: &World, id: &str, image: &str, args: &[&str]) -> Result<String> {
    let request = world.named(id, image, args)?;
    let ended = in_time(|| world.complete(&request)).map_err(|status| said(id, &status))?;
    ensure!(ended.status == 0, "{id} ended with {}: {}", ended.status, ended.output);
    Ok(ended.output)
}

fn said(id: &str, status: &Status) -> anyhow::Error {
    anyhow::anyhow!("{id}: {}", stack::cases::first_line(status))
}

/// By the policy, or by the launch: what containerd was told.
fn refused(world: &World, id: &str) -> Result<String> {
    refused_of(world, id, "app")
}

fn refused_of(world: &World, id: &str, image: &str) -> Result<String> {
    let request = world.named(id, image, &SLEEP)?;
    match in_time(|| world.run(&request)) {
        Ok(_) => {
            world.client.remove(&request)?;
            anyhow::bail!("{id} started")
        }
        Err(status) => {
            let said = stack::cases::first_line(&status);
            println!("guest: {id}: {said}");
            Ok(said)
        }
    }
}

/// Names of verity devices of ours, and loop devices with a file.
fn devices() -> Result<(Vec<String>, Vec<String>)> {
    let (mut verity, mut loops) = (Vec::new(), Vec::new());
    for entry in fs::read_dir("/sys/block")? {
        let path = entry?.path();
        if let Ok(name) = fs::read_to_string(path.join("dm/name")) {
            verity.push(name.trim().to_owned());
        }
        if let Ok(file) = fs::read_to_string(path.join("loop/backing_file")) {
            loops.push(file.trim().to_owned());
        }
    }
    Ok((verity, loops))
}

/// A device goes when the kernel comes to it, soon after the last mount.
fn nothing_left() -> Result<()> {
    let begun = Instant::now();
    loop {
        let (verity, loops) = devices()?;
        if verity.is_empty() && loops.is_empty() {
            return Ok(());
        }
        ensure!(begun.elapsed() < Duration::from_secs(10), "left behind: {verity:?}, {loops:?}");
        thread::sleep(Duration::from_millis(100));
    }
}

fn starts(world: &World) -> Result<String> {
    let (one, two) = (world.named("sealed", "app", &SLEEP)?, world.named("beside", "app", &SLEEP)?);
    in_time(|| world.run(&one)).map_err(|status| said("sealed", &status))?;
    let (verity, loops) = devices()?;
    ensure!(verity.len() == 1 && verity.iter().all(|name| name.starts_with("boltseal-")), "{verity:?}");
    in_time(|| world.run(&two)).map_err(|status| said("beside", &status))?;
    ensure!(devices()? == (verity, loops), "two containers of one layer have one device: {:?}", devices()?);
    world.client.remove(&one)?;
    let left = devices()?;
    ensure!(left.0.len() == 1, "the device of the other container is gone: {left:?}");
    world.client.remove(&two)?;
    nothing_left()?;
    Ok("two containers of one layer share a verity device, which goes with the last of them".into())
}

/// Not there, or not as long.
fn missing(world: &World, blob: &Path) -> Result<String> {
    let away = blob.with_extension("away");
    fs::rename(blob, &away)?;
    let tried = refused(world, "missing");
    fs::rename(&away, blob)?;
    tried?;
    let length = fs::metadata(blob)?.len();
    File::options().write(true).open(blob)?.set_len(length - BLOCK)?;
    refused(world, "short")?;
    import(LAYOUT)?;
    complete(world, "missing-twin", &["/bin/true"])?;
    Ok("a blob that is missing, or short: refused; put back: started".into())
}

/// Reads the file's beginning, then all of it.
fn reads() -> String {
    let file = image::LATE;
    format!("head -c 4096 {file} >/dev/null && echo begins; cat {file} >/dev/null; echo ended with $?")
}

/// Changes one byte, or puts it back. A loop device reads through the file's own cache, and what a device has read goes with it: nothing else
/// needs to be forgotten, least of all the programs of the node, which then do not answer in time.
fn flip(blob: &Path, at: u64) -> Result<()> {
    let file = File::options().read(true).write(true).open(blob)?;
    let mut byte = [0; 1];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ 1], at)?;
    Ok(file.sync_all()?)
}

/// Where a block of the file that is read late stands in the blob.
fn late(bytes: &[u8]) -> Result<u64> {
    let block = bytes.chunks(BLOCK as usize).position(|block| block == image::late(LATE)).context("no such block")?;
    Ok(block as u64 * BLOCK + 100)
}

/// One byte, where it is read first, or late.
fn changed(world: &World, blob: &Path) -> Result<String> {
    nothing_left()?;
    let bytes = fs::read(blob)?;
    let data = hash_offset()?;
    let elf = bytes.windows(4).position(|w| w == b"\x7fELF").context("no program in the layer")? as u64;
    ensure!(elf.is_multiple_of(BLOCK), "the program does not begin with a block");
    let flip = |at| flip(blob, at);

    // The program's own first block: init cannot be executed.
    flip(elf + 100)?;
    let said = refused(world, "data")?;
    nothing_left()?;
    flip(elf + 100)?;

    // A data block that no start comes to: the container runs, and its read of that block fails.
    let late = late(&bytes)?;
    flip(late)?;
    let read = complete(world, "reader", &["/bin/sh", "-c", &reads()])?;
    ensure!(read.contains("begins") && read.contains("ended with 1"), "the read: {read}");
    ensure!(read.contains("Input/output error"), "the read: {read}");
    nothing_left()?;
    flip(late)?;

    // The tree: its top block is behind the superblock, and every read goes through it.
    flip(data + BLOCK + 7)?;
    let tree = refused(world, "tree")?;
    ensure!(tree.contains("cannot be mounted"), "{tree}");
    nothing_left()?;
    flip(data + BLOCK + 7)?;
    let read = complete(world, "tree-twin", &["/bin/sh", "-c", &reads()])?;
    ensure!(read.contains("begins") && read.contains("ended with 0"), "the read: {read}");
    nothing_left()?;
    Ok(format!("one byte changed: of the program: {said}; of what is read later: an I/O error; of the tree: {tree}"))
}

/// The gate is killed as soon as there is a device.
fn killed(world: &World) -> Result<String> {
    killed_when(world, "killed", "app", || Ok(!devices()?.0.is_empty()))?;
    Ok("the gate killed as soon as there was a device: nothing is left".into())
}

/// The gate alone, as soon as that is so: its workers end with it.
fn killed_when(world: &World, id: &str, image: &str, when: fn() -> Result<bool>) -> Result<()> {
    let killer = thread::spawn(move || -> Result<bool> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(60) {
            if when()? {
                return Ok(kill_gate()? > 0);
            }
        }
        Ok(false)
    });
    let request = world.named(id, image, &SLEEP)?;
    let came = world.run(&request);
    let hit = killer.join().map_err(|_| anyhow::anyhow!("the killer failed"))??;
    world.client.remove(&request)?;
    nothing_left()?;
    ensure!(gates()?.is_empty(), "{id}: a worker is left: {:?}", gates()?);
    ensure!(hit && came.is_err(), "{id}: the gate was not killed in time: {hit}, {came:?}");
    Ok(())
}

/// Every process of the gate's program, and its parent.
fn gates() -> Result<Vec<(i32, i32)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let pid = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<i32>().ok());
        let Some(pid) = pid else { continue };
        // One that ended meanwhile, or has ended and is not reaped, is none.
        let stat = fs::read_to_string(path.join("stat")).unwrap_or_default();
        let Some((comm, rest)) = stat.rsplit_once(')') else { continue };
        let mut fields = rest.split_whitespace();
        let (state, parent) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        if comm.ends_with("(boltseal-runtim") && !matches!(state, "Z" | "X") {
            found.push((pid, parent.parse()?));
        }
    }
    Ok(found)
}

fn kill_gate() -> Result<usize> {
    let all = gates()?;
    let own = |(_, parent): &&(i32, i32)| !all.iter().any(|(pid, _)| pid == parent);
    let gates: Vec<_> = all.iter().filter(own).collect();
    for (pid, _) in &gates {
        run(Command::new("kill").args(["-9", &pid.to_string()]))?;
    }
    Ok(gates.len())
}
