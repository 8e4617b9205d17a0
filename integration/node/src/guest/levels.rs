//! Layers that the kernel compares with digests of this node's own (BS-IMG-002): files with fs-verity, as containerd's erofs
//! snapshotter makes them, and verity devices that are mounted in their place.
use super::enrol;
use super::work::{World, in_time};
use crate::job::version;
use anyhow::{Context, Result, bail, ensure};
use stack::client::{Client, Request};
use stack::containerd::{SOCKET, Version};
use stack::image;
use stack::node::{NAMESPACE, Node};
use stack::process::run;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A disk of its own for the snapshotter: a file system whose files can have fs-verity, and whose bytes can be changed below it.
const DISK: &str = "/var/tmp/erofs.img";
const ROOT: &str = "/var/lib/erofs";
const MAPPED: &str = "layer";
const BLOCK: usize = 4096;
/// Block of the late file whose byte is changed.
const LATE: usize = 48;
const SLEEP: [&str; 2] = ["/bin/sleep", "600"];

/// Answers with what was seen, a line each.
pub(super) fn all(scratch: &Path) -> Result<Vec<String>> {
    sh("modprobe -a erofs dm_verity")?;
    fs::create_dir_all(ROOT)?;
    fs::create_dir_all(scratch)?;
    sh(&format!("truncate -s 192M {DISK} && mkfs.ext4 -q -b 4096 -O verity {DISK} && mount -o loop {DISK} {ROOT}"))?;
    let mut world = World::start(Node::make(scratch, false)?, Version::V2_1)?;
    let seen = cases(&mut world)?;
    drop(world.end()?);
    Ok(seen)
}

fn cases(world: &mut World) -> Result<Vec<String>> {
    let config = world.node.work.join("containerd.toml");
    let more =
        format!("[plugins.'io.containerd.snapshotter.v1.erofs']\n  root_path = '{ROOT}'\n  enable_fsverity = true\n");
    File::options().append(true).open(config)?.write_all(more.as_bytes())?;
    world.containerd.restart()?;
    world.client = Client::new(SOCKET, NAMESPACE)?;
    enrol::policy(version::EROFS)?;
    let app = world.node.images.get("app")?.name.clone();
    let words = ["images", "pull", "--plain-http", "--local", "--snapshotter", "erofs", &app];
    run(world.containerd.ctr(NAMESPACE).args(words))?;

    let mut seen = Vec::new();
    let layer = Layer::find()?;
    starts(world, "file-undemanded")?;
    enrol::policy(version::FSVERITY)?;
    seen.push(files(world, &layer)?);
    seen.push(loops(world, &layer)?);
    seen.push(below_a_file(world, &layer)?);
    enrol::policy(version::LOCAL)?;
    refused(world, "file-too-weak", "erofs")?;
    seen.push(devices(world, &layer)?);
    Ok(seen)
}

/// The image's one layer in the snapshotter's folder.
struct Layer {
    blob: PathBuf,
    folder: PathBuf,
}

impl Layer {
    fn find() -> Result<Self> {
        let mut found = Vec::new();
        for entry in fs::read_dir(Path::new(ROOT).join("snapshots"))? {
            let blob = entry?.path().join("layer.erofs");
            if blob.exists() {
                found.push(blob);
            }
        }
        let [blob] = found.as_slice() else { bail!("not one layer: {found:?}") };
        Ok(Self { blob: blob.clone(), folder: blob.with_file_name("fs") })
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.blob.with_file_name(name)
    }

    /// Unmounts what is there; containerd mounts the file itself for the next container, unless somebody did before.
    fn mount(&self, words: &str) -> Result<()> {
        let folder = self.folder.display();
        sh(&format!("if mountpoint -q {folder}; then umount {folder}; fi"))?;
        if words.is_empty() { Ok(()) } else { sh(&format!("mount -t erofs -o ro {words} {folder}")) }
    }

    /// Another file under the layer's name, for as long as `work` takes.
    fn replaced(&self, by: &Path, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let (blob, away) = (self.blob.display(), self.beside("away"));
        self.mount("")?;
        // containerd makes it immutable, which says nothing to who writes to the disk.
        sh(&format!("chattr -i {blob} && mv {blob} {} && mv {} {blob}", away.display(), by.display()))?;
        let done = work();
        self.mount("")?;
        sh(&format!("mv -f {} {blob}", away.display()))?;
        done
    }
}

fn sh(script: &str) -> Result<()> {
    run(Command::new("sh").args(["-ec", script])).map(|_| ())
}

fn said(script: &str) -> Result<String> {
    Ok(run(Command::new("sh").args(["-ec", script]))?.trim().to_owned())
}

fn request(world: &World, id: &str, snapshotter: &str, args: &[&str]) -> Result<Request> {
    Ok(Request { snapshotter: snapshotter.into(), ..world.named(id, "app", args)? })
}

fn complete(world: &World, id: &str, args: &[&str]) -> Result<String> {
    let request = request(world, id, "erofs", args)?;
    let ended = in_time(|| world.complete(&request))
        .map_err(|status| anyhow::anyhow!("{id}: {}", stack::cases::first_line(&status)))?;
    ensure!(ended.status == 0, "{id} ended with {}: {}", ended.status, ended.output);
    Ok(ended.output)
}

fn starts(world: &World, id: &str) -> Result<()> {
    complete(world, id, &["/bin/true"]).map(|_| ())
}

fn refused(world: &World, id: &str, snapshotter: &str) -> Result<String> {
    let request = request(world, id, snapshotter, &SLEEP)?;
    match in_time(|| world.run(&request)) {
        Ok(_) => {
            world.client.remove(&request)?;
            bail!("{id} started")
        }
        Err(status) => {
            let said = stack::cases::first_line(&status);
            println!("guest: {id}: {said}");
            Ok(said)
        }
    }
}

/// Reads the file's beginning, then all of it.
fn reads(world: &World, id: &str) -> Result<String> {
    let file = image::LATE;
    let script = format!("head -c 4096 {file} >/dev/null && echo begins; cat {file} >/dev/null; echo ended with $?");
    complete(world, id, &["/bin/sh", "-c", &script])
}

fn is_an_error(read: &str) -> Result<()> {
    let expected = ["begins", "ended with 1", "Input/output error"];
    ensure!(expected.iter().all(|words| read.contains(words)), "the read: {read}");
    Ok(())
}

/// Changes one byte of the late block wherever the file has it; twice is as it was.
fn flip(path: &Path) -> Result<()> {
    let bytes = fs::read(path)?;
    let late = image::late(LATE);
    let places: Vec<usize> =
        bytes.chunks(BLOCK).enumerate().filter(|(_, b)| b.get(1..) == late.get(1..)).map(|(n, _)| n).collect();
    ensure!(!places.is_empty(), "no such block in {}", path.display());
    let file = File::options().write(true).open(path)?;
    for place in places {
        let byte = bytes.get(place * BLOCK).context("no byte")?;
        file.write_all_at(&[byte ^ 1], (place * BLOCK) as u64)?;
    }
    file.sync_all()?;
    drop(bytes);
    Ok(fs::write("/proc/sys/vm/drop_caches", "3")?)
}

/// As containerd made it, without a digest, and with another one.
fn files(world: &World, layer: &Layer) -> Result<String> {
    starts(world, "file")?;
    let measured = said(&format!("fsverity measure {}", layer.blob.display()))?;
    let digest = measured.split(' ').next().context("no digest")?.to_owned();
    recorded("file", &digest)?;
    refused(world, "folders", "overlayfs")?;

    let copy = layer.beside("copy");
    fs::copy(&layer.blob, &copy)?;
    layer.replaced(&copy, || refused(world, "file-without", "erofs").map(|_| ()))?;
    starts(world, "file-put-back")?;

    // Another byte, and a digest of it: the node itself made no other promise.
    fs::copy(&layer.blob, &copy)?;
    flip(&copy)?;
    sh(&format!("fsverity enable {}", copy.display()))?;
    layer.replaced(&copy, || starts(world, "file-replaced"))?;
    Ok(format!(
        "a file with fs-verity {digest}, which the record has; without it refused; another one starts with another digest"
    ))
}

/// On a kernel without mounts of files, containerd takes a loop device.
fn loops(world: &World, layer: &Layer) -> Result<String> {
    let blob = layer.blob.display();
    layer.mount(&format!("-o loop {blob}"))?;
    starts(world, "file-on-loop")?;
    let copy = layer.beside("copy");
    fs::copy(&layer.blob, &copy)?;
    layer.mount(&format!("-o loop {}", copy.display()))?;
    refused(world, "loop-without", "erofs")?;
    layer.mount("")?;
    fs::remove_file(copy)?;
    Ok("on a loop device of that file: started; of a copy without a digest: refused".into())
}

/// The disk below the file system, as somebody who has it changes it. containerd's own mount, which is of the file and of no device,
/// is read beside it.
fn below_a_file(world: &World, layer: &Layer) -> Result<String> {
    sh("sync")?;
    flip(Path::new(DISK))?;
    is_an_error(&reads(world, "file-reader")?)?;
    fs::write("/proc/sys/vm/drop_caches", "3")?;
    let theirs = fs::read(layer.folder.join(image::LATE.trim_start_matches('/')));
    flip(Path::new(DISK))?;
    let block = |bytes: &[u8]| bytes.chunks(BLOCK).nth(LATE).map(<[u8]>::to_vec).unwrap_or_default();
    let theirs = match theirs {
        Err(e) => e.to_string(),
        Ok(bytes) if block(&bytes).iter().all(|byte| *byte == 0) => "zeroes, and no error".into(),
        Ok(bytes) => format!("{:?} and no error", String::from_utf8_lossy(block(&bytes).get(..8).unwrap_or_default())),
    };
    Ok(format!(
        "one byte changed on the disk below fs-verity: an I/O error to who reads it (by containerd's mount of the file: {theirs})"
    ))
}

/// Verity devices of the node's own, mounted in the layer's place.
fn devices(world: &World, layer: &Layer) -> Result<String> {
    let (data, tree) = (PathBuf::from("/var/tmp/layer.data"), "/var/tmp/layer.tree");
    fs::copy(&layer.blob, &data)?;
    let format = format!("veritysetup format {} {tree} | sed -n 's/^Root hash:[[:space:]]*//p'", data.display());
    let root = said(&format)?;
    let open = |option: &str| sh(&format!("veritysetup open {option} {} {MAPPED} {tree} {root}", data.display()));
    let close = || -> Result<()> {
        layer.mount("")?;
        sh(&format!("veritysetup close {MAPPED}"))
    };
    let with = |option: &str, work: &dyn Fn() -> Result<()>| -> Result<()> {
        layer.mount("")?;
        open(option)?;
        layer.mount(&format!("/dev/mapper/{MAPPED}"))?;
        work()?;
        close()
    };
    let start = |id: &'static str| move || starts(world, id);
    let no_start = |id: &'static str| move || refused(world, id, "erofs").map(|_| ());
    with("", &start("device"))?;
    recorded("device", &format!("sha256:{root}"))?;
    with("--ignore-corruption", &no_start("device-ignores"))?;
    with("--check-at-most-once", &no_start("device-once"))?;
    with("--ignore-zero-blocks", &start("device-harmless-option"))?;
    flip(&data)?;
    with("", &|| {
        is_an_error(&reads(world, "device-reader")?)?;
        no_start("device-differs")()
    })?;
    flip(&data)?;
    with("", &start("device-mended"))?;
    Ok(format!(
        "a verity device with the root hash {root}, which the record has; with an option that lets a byte pass, or a block that differs: refused"
    ))
}

/// The trail's record of that start has this digest of its one layer.
fn recorded(id: &str, digest: &str) -> Result<()> {
    let trail = stack::node::trail()?;
    let started = trail.iter().find(|record| record["ev"] == "started" && record["what"]["id"] == id);
    let layers = &started.with_context(|| format!("no record of {id}"))?["layers"];
    ensure!(*layers == serde_json::json!([digest]), "{id}: the record has {layers}, the tool says {digest}");
    Ok(())
}
