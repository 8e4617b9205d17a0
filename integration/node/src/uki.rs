//! One signed EFI program of kernel, command line and initrd, and the boot disk that holds it.
//!
//! systemd's stub carries them as PE sections (UAPI.5, Unified Kernel Image). It hands the command line on as load
//! options and the initrd by the EFI protocol of Linux, so that the kernel measures both into PCR 9; the firmware measures
//! the whole program into PCR 4, the stub its sections into PCR 11.
use anyhow::{Context, Result, bail, ensure};
use stack::process::run;
use std::fs;
use std::path::Path;
use std::process::Command;

const KEY: &str = "/usr/share/ovmf/PkKek-1-snakeoil.key";
const CERTIFICATE: &str = "/usr/share/ovmf/PkKek-1-snakeoil.pem";
/// Of Debian's test key, published with it (its README.Debian).
const PASSWORD: &str = "snakeoil";

/// What is measured of a boot's software.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) kernel: Vec<u8>,
    pub(crate) cmdline: String,
    pub(crate) initrd: Vec<u8>,
}

/// Makes the signed program.
pub(crate) fn program(stub: &Path, parts: &Parts, work: &Path, signed: &Path) -> Result<()> {
    let stub = fs::read(stub).with_context(|| stub.display().to_string())?;
    // With .osrel, as ukify makes them: the stub hands it on inside the initrd, and PCR 9 shows it.
    let sections: [(&str, &[u8]); 4] = [
        (".osrel", b"ID=boltseal-test-node\n"),
        (".cmdline", parts.cmdline.as_bytes()),
        (".initrd", &parts.initrd),
        (".linux", &parts.kernel),
    ];
    let unsigned = work.join("unsigned.efi");
    fs::write(&unsigned, append(stub, &sections)?)?;
    sign(&unsigned, signed, work)?;
    Ok(fs::remove_file(unsigned)?)
}

/// Writes the boot disk: one FAT file system with the program at the path that firmware tries by itself.
pub(crate) fn boot_disk(program: &Path, disk: &Path) -> Result<()> {
    let megabytes = fs::metadata(program)?.len().div_ceil(1 << 20) + 8;
    let file = fs::File::create(disk)?;
    file.set_len(megabytes << 20)?;
    run(Command::new("mkfs.fat").args(["-i", "b0175ea1"]).arg(disk))?;
    let at = disk.display().to_string();
    run(Command::new("mmd").args(["-i", &at, "::/EFI", "::/EFI/BOOT"]))?;
    run(Command::new("mcopy").args(["-i", &at]).arg(program).arg("::/EFI/BOOT/BOOTX64.EFI")).map(|_| ())
}

/// Signs a kernel with that key alone: kexec of a locked-down kernel looks at the first signature only, Debian's own.
pub(crate) fn sign_kernel(kernel: &Path, signed: &Path, work: &Path) -> Result<()> {
    let bare = work.join("vmlinuz.bare");
    fs::copy(kernel, &bare)?;
    run(Command::new("sbattach").arg("--remove").arg(&bare))?;
    sign(&bare, signed, work)?;
    Ok(fs::remove_file(bare)?)
}

/// Signs an EFI program with Debian's test key, which the firmware's test variables trust.
fn sign(program: &Path, signed: &Path, work: &Path) -> Result<()> {
    // sbsign asks for a password on a terminal: it gets the key without one.
    let key = work.join("signing.key");
    run(Command::new("openssl").args(["rsa", "-in", KEY, "-passin", &format!("pass:{PASSWORD}"), "-out"]).arg(&key))?;
    let done = run(Command::new("sbsign")
        .arg("--key")
        .arg(&key)
        .args(["--cert", CERTIFICATE, "--output"])
        .arg(signed)
        .arg(program));
    fs::remove_file(key)?;
    done.map(|_| ())
}

/// Appends sections to a PE32+ program (Microsoft, PE Format: COFF file header, section table).
fn append(mut pe: Vec<u8>, sections: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let header = usize::try_from(u32_at(&pe, 0x3c)?)?;
    ensure!(pe.get(header..header + 4) == Some(b"PE\0\0".as_slice()), "the stub is no PE file");
    let count = usize::from(u16_at(&pe, header + 6)?);
    let optional = header + 24;
    ensure!(u16_at(&pe, optional)? == 0x20b, "the stub is not PE32+");
    let table = optional + usize::from(u16_at(&pe, header + 20)?);
    let section_alignment = u32_at(&pe, optional + 32)?;
    let file_alignment = u32_at(&pe, optional + 36)?;
    let headers = usize::try_from(u32_at(&pe, optional + 60)?)?;
    if table + (count + sections.len()) * 40 > headers {
        bail!("no room for {} more sections in the stub's headers", sections.len());
    }
    let mut address = u32_at(&pe, optional + 56)?;
    for (index, (name, bytes)) in sections.iter().enumerate() {
        let size = u32::try_from(bytes.len())?;
        let raw = size.next_multiple_of(file_alignment);
        pe.resize(pe.len().next_multiple_of(usize::try_from(file_alignment)?), 0);
        let offset = u32::try_from(pe.len())?;
        pe.extend(*bytes);
        pe.resize(usize::try_from(offset + raw)?, 0);
        let mut entry = [0; 40];
        let (label, rest) = entry.split_at_mut(8);
        label.get_mut(..name.len()).context("a section name of more than 8 letters")?.copy_from_slice(name.as_bytes());
        // Initialised data, readable.
        for (at, value) in [(0, size), (4, address), (8, raw), (12, offset), (28, 0x4000_0040)] {
            put(rest, at, value)?;
        }
        let at = table + (count + index) * 40;
        pe.get_mut(at..at + 40).context("section table")?.copy_from_slice(&entry);
        address = (address + size).next_multiple_of(section_alignment);
    }
    put(&mut pe, optional + 56, address)?;
    let total = u16::try_from(count + sections.len())?;
    pe.get_mut(header + 6..header + 8).context("header")?.copy_from_slice(&total.to_le_bytes());
    Ok(pe)
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16> {
    let bytes = bytes.get(at..at + 2).context("the stub is cut")?;
    Ok(u16::from_le_bytes(bytes.try_into()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    let bytes = bytes.get(at..at + 4).context("the stub is cut")?;
    Ok(u32::from_le_bytes(bytes.try_into()?))
}

fn put(bytes: &mut [u8], at: usize, value: u32) -> Result<()> {
    bytes.get_mut(at..at + 4).context("out of the file")?.copy_from_slice(&value.to_le_bytes());
    Ok(())
}
