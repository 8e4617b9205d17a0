//! The disks beside the boot disk: the payload (what is ours: programs, tests, images) and the exchange (a tar archive
//! each way on a raw disk, read and written without a file system).
use anyhow::{Context, Result};
use stack::process::run;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

/// Room of the exchange disk: what the guest brings back is a few megabytes.
const EXCHANGE: u64 = 64 << 20;

/// An ext4 file system that holds a copy of `folder` and some room.
pub(crate) fn ext4(folder: &Path, disk: &Path) -> Result<()> {
    let used = run(Command::new("du").args(["-sm"]).arg(folder))?;
    let megabytes: u64 = used.split_whitespace().next().unwrap_or_default().parse().context("du")?;
    if disk.exists() {
        fs::remove_file(disk)?;
    }
    run(Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-m", "0", "-E", "lazy_itable_init=0", "-d"])
        .arg(folder)
        .arg(disk)
        .arg(format!("{}M", megabytes + megabytes / 4 + 64)))?;
    Ok(())
}

/// Writes `folder` as the exchange's content: on the host to a new image, in the guest to the disk itself.
pub(crate) fn write_exchange(folder: &Path, disk: &Path) -> Result<()> {
    let out = run(Command::new("mktemp").args(["-t", "exchange.XXXXXX"]))?;
    let archive = Path::new(out.trim());
    let written = (|| {
        run(Command::new("tar").arg("-cf").arg(archive).arg("-C").arg(folder).arg("."))?;
        let mut bytes = Vec::new();
        File::open(archive)?.read_to_end(&mut bytes)?;
        let mut file = File::options().create(true).truncate(false).write(true).open(disk)?;
        if file.metadata()?.is_file() {
            file.set_len(EXCHANGE)?;
        }
        file.write_all(&bytes).with_context(|| format!("{} bytes to {}", bytes.len(), disk.display()))?;
        file.sync_all()?;
        Ok(())
    })();
    fs::remove_file(archive)?;
    written
}

/// Unpacks the exchange's content.
pub(crate) fn read_exchange(disk: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    run(Command::new("tar").arg("-xf").arg(disk).arg("-C").arg(folder))?;
    Ok(())
}
