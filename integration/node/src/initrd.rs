//! The initrd: our own init and the few modules between it and its disks, as an uncompressed cpio archive. The same input
//! makes the same bytes: PCR 9 is their digest.
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// ext4 asks for its checksum by another name than the module has.
const WANTED: [&str; 3] = ["virtio_blk", "crc32c_generic", "ext4"];

/// `init` must be static; `kernel` is the folder with `modules`.
pub(crate) fn build(init: &Path, kernel: &Path) -> Result<Vec<u8>> {
    let mut archive = Cpio::default();
    for folder in ["modules", "dev", "proc", "sys", "root"] {
        archive.folder(folder);
    }
    let mut order = Vec::new();
    let modules = kernel.join("modules");
    let index = fs::read_to_string(modules.join("modules.dep")).context("modules.dep")?;
    let mut seen = BTreeSet::new();
    for wanted in WANTED {
        let line = index.lines().find(|line| line.split(':').next().is_some_and(|path| name(path) == wanted));
        let (own, needs) = line.and_then(|line| line.split_once(':')).with_context(|| format!("no module {wanted}"))?;
        // What is needed first stands last.
        for path in needs.split_whitespace().rev().chain([own]) {
            if seen.insert(path.to_owned()) {
                let file = format!("{}.ko", name(path));
                archive.file(&format!("modules/{file}"), &module(&modules.join(path))?, 0o644);
                order.push(file);
            }
        }
    }
    archive.file("modules/order", order.join("\n").as_bytes(), 0o644);
    archive.file("init", &fs::read(init).with_context(|| init.display().to_string())?, 0o755);
    Ok(archive.end())
}

fn name(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file)
}

/// Unpacked: init hands it to the kernel as it is.
fn module(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_some_and(|extension| extension == "xz") {
        let out = Command::new("xz").args(["--decompress", "--stdout"]).arg(path).output().context("xz")?;
        ensure!(out.status.success(), "xz cannot unpack {}", path.display());
        return Ok(out.stdout);
    }
    fs::read(path).with_context(|| path.display().to_string())
}

/// A cpio archive in the "new ASCII" form (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Debug, Default)]
struct Cpio {
    bytes: Vec<u8>,
    inode: u32,
}

impl Cpio {
    fn folder(&mut self, path: &str) {
        self.entry(path, &[], 0o040_755);
    }

    fn file(&mut self, path: &str, bytes: &[u8], mode: u32) {
        self.entry(path, bytes, 0o100_000 | mode);
    }

    fn entry(&mut self, path: &str, bytes: &[u8], mode: u32) {
        self.inode += 1;
        let fields =
            [self.inode, mode, 0, 0, 1, 0, length(bytes), 0, 0, 0, 0, length(path.as_bytes()).saturating_add(1), 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08X}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.pad(4);
        self.bytes.extend(bytes);
        self.pad(4);
    }

    fn end(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", &[], 0);
        self.pad(512);
        self.bytes
    }

    fn pad(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_that_cpio_reads() {
        let mut archive = Cpio::default();
        archive.folder("a");
        archive.file("a/b", b"hello", 0o644);
        let bytes = archive.end();
        let file = std::env::temp_dir().join(format!("boltseal-cpio-{}", std::process::id()));
        fs::write(&file, &bytes).unwrap();
        let out = Command::new("sh").arg("-c").arg(format!("cpio -tv <{}", file.display())).output().unwrap();
        fs::remove_file(file).unwrap();
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{out:?}");
        assert!(said.contains("drwxr-xr-x") && said.contains(" 5 ") && said.contains("a/b"), "{said}");
    }

    #[test]
    fn module_names() {
        assert_eq!(name("kernel/fs/ext4/ext4.ko.xz"), "ext4");
    }
}
