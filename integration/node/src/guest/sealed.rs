//! A sealed image (BS-IMG-002): its layers are verity devices. What is changed below them stops the container, or the read;
//! without its own sealed layers it does not start where the policy demands them; nothing of it stays behind.
use super::enrol::{self, LIB};
use super::payload;
use super::work::World;
use crate::job::version;
use crate::sealed::{ANOTHER, FOREIGN, LAYOUT};
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
    enrol::policy(version::SEALED)?;
    refused(world, "unsealed")?;

    // The very layers, named by a key that nobody asked for; then by the right key, in a statement of another image.
    let own = signatures(world, "app")?;
    let before = listed(&own)?;
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
    Ok(seen)
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

/// The one blob of the image's one layer: the others are of the other image.
fn blob() -> Result<PathBuf> {
    let manifest = fs::read_to_string(payload().join("given").join(LAYOUT).join("root_hash.json"))?;
    let value: serde_json::Value = serde_json::from_str(&manifest)?;
    let named = value["sealed"][0]["layers"][0]["blob"].as_str().context("no blob")?.to_owned();
    Ok(Path::new(LIB).join("verity/sha256").join(named.trim_start_matches("sha256:")))
}

fn hash_offset() -> Result<u64> {
    let text = fs::read_to_string(payload().join("given").join(LAYOUT).join("root_hash.json"))?;
    let value: serde_json::Value = serde_json::from_str(&text)?;
    value["sealed"][0]["layers"][0]["hash_offset"].as_u64().context("no hash_offset")
}

fn complete(world: &World, id: &str, args: &[&str]) -> Result<String> {
    let request = world.named(id, "app", args)?;
    let ended = world.complete(&request).map_err(|status| said(id, &status))?;
    ensure!(ended.status == 0, "{id} ended with {}: {}", ended.status, ended.output);
    Ok(ended.output)
}

fn said(id: &str, status: &Status) -> anyhow::Error {
    anyhow::anyhow!("{id}: {}", stack::cases::first_line(status))
}

/// By the policy, or by the launch: what containerd was told.
fn refused(world: &World, id: &str) -> Result<String> {
    let request = world.named(id, "app", &SLEEP)?;
    match world.run(&request) {
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
    world.run(&one).map_err(|status| said("sealed", &status))?;
    let (verity, loops) = devices()?;
    ensure!(verity.len() == 1 && verity.iter().all(|name| name.starts_with("boltseal-")), "{verity:?}");
    world.run(&two).map_err(|status| said("beside", &status))?;
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

/// One byte, where it is read first, or late.
fn changed(world: &World, blob: &Path) -> Result<String> {
    let bytes = fs::read(blob)?;
    let data = hash_offset()?;
    let elf = bytes.windows(4).position(|w| w == b"\x7fELF").context("no program in the layer")? as u64;
    ensure!(elf.is_multiple_of(BLOCK), "the program does not begin with a block");
    let flip = |at: u64| -> Result<()> {
        let file = File::options().read(true).write(true).open(blob)?;
        let mut byte = [0; 1];
        file.read_exact_at(&mut byte, at)?;
        file.write_all_at(&[byte[0] ^ 1], at)?;
        Ok(file.sync_all()?)
    };
    let caches = || fs::write("/proc/sys/vm/drop_caches", "3");

    // The program's own first block: init cannot be executed.
    flip(elf + 100)?;
    caches()?;
    let said = refused(world, "data")?;
    nothing_left()?;
    flip(elf + 100)?;

    // A data block that no start comes to: the container runs, and its read of that block fails.
    let late = bytes.chunks(BLOCK as usize).position(|block| block == image::late(LATE)).context("no such block")?;
    let late = late as u64 * BLOCK + 100;
    flip(late)?;
    caches()?;
    let read = complete(world, "reader", &["/bin/sh", "-c", &reads()])?;
    ensure!(read.contains("begins") && read.contains("ended with 1"), "the read: {read}");
    ensure!(read.contains("Input/output error"), "the read: {read}");
    nothing_left()?;
    flip(late)?;

    // The tree: its top block is behind the superblock, and every read goes through it.
    flip(data + BLOCK + 7)?;
    caches()?;
    let tree = refused(world, "tree")?;
    ensure!(tree.contains("cannot be mounted"), "{tree}");
    nothing_left()?;
    flip(data + BLOCK + 7)?;
    caches()?;
    let read = complete(world, "tree-twin", &["/bin/sh", "-c", &reads()])?;
    ensure!(read.contains("begins") && read.contains("ended with 0"), "the read: {read}");
    nothing_left()?;
    Ok(format!("one byte changed: of the program: {said}; of what is read later: an I/O error; of the tree: {tree}"))
}

/// The gate is killed as soon as there is a device.
fn killed(world: &World) -> Result<String> {
    let killer = thread::spawn(|| -> Result<bool> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(30) {
            if !devices()?.0.is_empty() {
                return Ok(kill_gate()? > 0);
            }
        }
        Ok(false)
    });
    let request = world.named("killed", "app", &SLEEP)?;
    let came = world.run(&request);
    let hit = killer.join().map_err(|_| anyhow::anyhow!("the killer failed"))??;
    world.client.remove(&request)?;
    nothing_left()?;
    ensure!(hit && came.is_err(), "the gate was not killed in its launch: {hit}, {came:?}");
    Ok("the gate killed in its launch: nothing is left".into())
}

fn kill_gate() -> Result<u32> {
    let mut killed = 0;
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let pid = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<i32>().ok());
        let comm = fs::read_to_string(path.join("comm")).unwrap_or_default();
        if let Some(pid) = pid.filter(|_| comm.trim() == "boltseal-runtim") {
            run(Command::new("kill").args(["-9", &pid.to_string()]))?;
            killed += 1;
        }
    }
    Ok(killed)
}
