//! `boltseal node predict`: what the next boot measures, from its parts.
use super::policy::read_log;
use super::{LIMIT, hex, tpm_address};
use crate::screen::{Colour, Exit, Failure, Screen};
use boltseal_node::log::{BootPath, Events, Kernel, Known, apart};
use boltseal_node::predict::{self, Parts, Path as Way};
use clap::{Args, ValueEnum};
use ring::digest::{Context, SHA256};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Largest kernel or unified kernel image.
const MAX_KERNEL: u64 = 1 << 30;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How the next boot comes to its kernel; by default as this boot did, as far as its log tells
    #[arg(long, value_enum)]
    path: Option<BootWay>,
    /// The next command line, as it is given to the boot loader (or to QEMU's -append); by default this boot's
    #[arg(long, value_name = "TEXT")]
    cmdline: Option<String>,
    /// The next initrd
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// The next kernel, or unified kernel image
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// This boot's initrd (for GRUB)
    #[arg(long, value_name = "FILE")]
    now_initrd: Option<PathBuf>,
    /// This boot's kernel, or unified kernel image (for PCR 4)
    #[arg(long, value_name = "FILE")]
    now_kernel: Option<PathBuf>,
    /// Read this boot's event log from a file
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BootWay {
    /// QEMU's -kernel with OVMF
    Qemu,
    /// The firmware starts the kernel's own EFI stub
    EfiStub,
    /// A unified kernel image with systemd-stub
    Uki,
    Grub,
}

pub(crate) fn predict(options: &Options, screen: &mut Screen) -> Result<Exit, Failure> {
    let address = tpm_address(None);
    let kernel = Kernel { tpm: &address, deadline: Instant::now() + LIMIT };
    // A prediction from parts alone needs no log; one that was named must be there.
    let bytes = match read_log(options.log.as_deref(), &kernel) {
        Ok(bytes) => Some(bytes),
        Err(failure) if options.log.is_some() => return Err(failure),
        Err(_) => None,
    };
    let answer = bytes.as_ref().map(|bytes| apart(bytes, kernel.deadline)).transpose().map_err(Failure::undecided)?;
    let events = match (&bytes, &answer) {
        (Some(bytes), Some(answer)) => Some(Events::decode(bytes, answer).map_err(Failure::undecided)?),
        _ => None,
    };
    let way = way(options, events.as_ref())?;
    let line = || -> Result<String, Failure> {
        let bytes = kernel.command_line().map_err(Failure::undecided)?;
        let text = String::from_utf8(bytes).map_err(|_| Failure::undecided("/proc/cmdline is not UTF-8"))?;
        Ok(text.trim_end_matches('\n').to_owned())
    };
    let next = Parts {
        command_line: options.cmdline.clone().map_or_else(line, Ok)?,
        initrd: options.initrd.as_deref().map(digest).transpose()?,
        kernel: options.kernel.as_deref().map(read).transpose()?,
    };
    let now = Parts {
        command_line: line()?,
        initrd: options.now_initrd.as_deref().map(digest).transpose()?,
        kernel: options.now_kernel.as_deref().map(read).transpose()?,
    };
    let told = predict::predict(way, &next, events.as_ref().map(|events| (&now, events)))
        .map_err(|e| Failure::new(Exit::Undecided, e))?;
    if screen.json() {
        screen.document(&told)?;
        return Ok(Exit::Ok);
    }
    screen.line(&format!("# the next boot, by {}: {}", name(way), told.command_line))?;
    screen.line("[node.pcrs]")?;
    for (pcr, value) in &told.pcrs {
        screen.line(&format!("{pcr} = [\"{}\"]", hex(value)))?;
    }
    for (pcr, value) in &told.before_phases {
        screen.line(&format!("# {pcr}, before the phases of systemd's boot: {}", hex(value)))?;
    }
    for (pcr, why) in &told.unknown {
        screen.line(&format!("# {pcr}: {why}"))?;
    }
    if !told.images.is_empty() || !told.files.is_empty() {
        screen.line("[node.log]")?;
    }
    for (key, digests) in [("images", &told.images), ("files", &told.files)] {
        if !digests.is_empty() {
            let all: Vec<_> = digests.iter().map(|digest| format!("\"{}\"", hex(digest))).collect();
            screen.line(&format!("{key} = [{}]", all.join(", ")))?;
        }
    }
    if told.pcrs.is_empty() {
        screen.row('!', Colour::Doubt, "nothing could be told")?;
        return Ok(Exit::Undecided);
    }
    Ok(Exit::Ok)
}

fn way(options: &Options, events: Option<&Events<'_>>) -> Result<Way, Failure> {
    match (options.path, events.map(|events| Known(events).boot_path())) {
        (Some(BootWay::Qemu), _) => Ok(Way::Qemu),
        (Some(BootWay::EfiStub), _) | (None, Some(BootPath::EfiStub)) => Ok(Way::EfiStub),
        (Some(BootWay::Uki), _) | (None, Some(BootPath::Uki)) => Ok(Way::Uki),
        (Some(BootWay::Grub), _) | (None, Some(BootPath::Grub)) => Ok(Way::Grub),
        (None, Some(BootPath::Unknown) | None) => {
            Err(Failure::new(Exit::Usage, "this boot's log does not tell how it came to its kernel. Fix: --path"))
        }
    }
}

fn name(way: Way) -> &'static str {
    match way {
        Way::Qemu => "QEMU -kernel",
        Way::EfiStub => "the EFI stub",
        Way::Uki => "a unified kernel image",
        Way::Grub => "GRUB",
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |e: std::io::Error| Failure::undecided(format!("{}: {e}", path.display()));
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_KERNEL).read_to_end(&mut bytes)).map_err(failed)?;
    Ok(bytes)
}

fn digest(path: &Path) -> Result<[u8; 32], Failure> {
    let failed = |e: std::io::Error| Failure::undecided(format!("{}: {e}", path.display()));
    let mut file = File::open(path).map_err(failed)?;
    let (mut hash, mut buffer) = (Context::new(&SHA256), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => break,
            count => hash.update(buffer.get(..count).unwrap_or_default()),
        }
    }
    let mut out = [0; 32];
    out.copy_from_slice(hash.finish().as_ref());
    Ok(out)
}
