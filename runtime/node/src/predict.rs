//! What the PCRs will be after the next boot, without booting: from the parts of the next kernel, and this boot's log.
//!
//! | path | PCR 9 | PCR 4 |
//! |---|---|---|
//! | QEMU `-kernel` | command line with ` initrd=initrd`, initrd | not: QEMU writes the initrd's size and place into the kernel that is measured |
//! | EFI stub | command line, initrd | this boot's, the kernel's digest exchanged |
//! | UKI | the sections `.cmdline` and `.initrd`, with what systemd-stub hands on beside it | this boot's, the image's digests exchanged |
//! | GRUB | this boot's, digests of kernel, initrd and command line exchanged | the same |
use crate::log::prove::extended;
use crate::log::shape::{command_line_digest, utf16};
use crate::log::{Events, events::hash};
use crate::{Error, hex, pe, stub};
use serde::Serialize;
use std::collections::BTreeMap;

/// How the next boot comes to its kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    Qemu,
    EfiStub,
    Uki,
    Grub,
}

/// Parts of a boot. Digests of files are SHA-256 over all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts {
    /// As given to the boot loader; for QEMU, to `-append`.
    pub command_line: String,
    pub initrd: Option<[u8; 32]>,
    /// The kernel's file, or the unified kernel image.
    pub kernel: Option<Vec<u8>>,
}

/// Predicted PCRs, and why others are not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Prediction {
    pub boot_path: Path,
    /// The command line as it is measured and will stand in /proc/cmdline.
    pub command_line: String,
    #[serde(with = "hex::digests")]
    pub pcrs: BTreeMap<u32, [u8; 32]>,
    /// PCRs that systemd extends further while it boots (`systemd-pcrphase`), as they are before it does.
    #[serde(with = "hex::digests", skip_serializing_if = "BTreeMap::is_empty")]
    pub before_phases: BTreeMap<u32, [u8; 32]>,
    /// For `node.log.images`.
    #[serde(serialize_with = "list")]
    pub images: Vec<[u8; 32]>,
    /// For `node.log.files`.
    #[serde(serialize_with = "list")]
    pub files: Vec<[u8; 32]>,
    /// PCRs that this cannot tell, and why.
    pub unknown: BTreeMap<u32, String>,
}

fn list<S: serde::Serializer>(digests: &[[u8; 32]], out: S) -> Result<S::Ok, S::Error> {
    out.collect_seq(digests.iter().map(|digest| hex::encode(digest)))
}

/// PCR 9 as the kernel's EFI stub leaves it: the command line, then the initrd, and nothing before them.
#[must_use]
pub fn efi_stub_pcr9(command_line: &str, initrd: Option<[u8; 32]>) -> [u8; 32] {
    let line = extended(&[0; 32], &command_line_digest(command_line));
    initrd.map_or(line, |digest| extended(&line, &digest))
}

/// Predicts the boot of `next`. `now` are the parts of this boot and its log, where they are known.
///
/// # Errors
/// A part that is missing or is not what the path needs; for GRUB, a part of this boot that its log does not hold.
pub fn predict(path: Path, next: &Parts, now: Option<(&Parts, &Events<'_>)>) -> Result<Prediction, Error> {
    let mut out = Prediction {
        boot_path: path,
        command_line: next.command_line.clone(),
        pcrs: BTreeMap::new(),
        before_phases: BTreeMap::new(),
        images: Vec::new(),
        files: next.initrd.into_iter().collect(),
        unknown: BTreeMap::new(),
    };
    match path {
        Path::Qemu => {
            if next.initrd.is_some() {
                out.command_line.push_str(" initrd=initrd");
            }
            out.pcrs.insert(9, efi_stub_pcr9(&out.command_line, next.initrd));
            let why = "QEMU writes the initrd's size and place into the kernel before the firmware measures it: boot once and take the value from the log";
            out.unknown.insert(4, why.into());
        }
        Path::EfiStub => {
            out.pcrs.insert(9, efi_stub_pcr9(&out.command_line, next.initrd));
            kernel_of_pcr_4(next, now, &mut out)?;
        }
        Path::Uki => uki(next, now, &mut out)?,
        Path::Grub => {
            let (now, log) =
                now.ok_or(Error::refused("GRUB measures every file that it reads: PCR 9 is told from this boot's log alone. Fix: run this on the node, or name its log"))?;
            grub(next, now, log, &mut out)?;
        }
    }
    Ok(out)
}

fn uki(next: &Parts, now: Option<(&Parts, &Events<'_>)>, out: &mut Prediction) -> Result<(), Error> {
    let image = next.kernel.as_deref().ok_or(Error::refused("a unified kernel image is needed. Fix: name its file"))?;
    let text = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).map_err(|_| Error::Malformed("section .cmdline", "not UTF-8"))?;
        Ok::<_, Error>(text.trim_end_matches(['\0', '\n', ' ']).to_owned())
    };
    if let Some(line) = pe::section(image, ".cmdline")? {
        out.command_line = text(line)?;
    }
    let why = stub::unknown(image)?;
    if let (Some(why), true) = (&why, stub::hands_on(image)?) {
        out.files.clear();
        out.unknown.insert(9, format!("{why}: boot once and take the value from the log"));
    } else {
        let initrd = stub::initrd(image)?;
        out.files = initrd.into_iter().collect();
        out.pcrs.insert(9, efi_stub_pcr9(&out.command_line, initrd));
    }
    if why.is_none() {
        out.before_phases.insert(11, stub::pcr_11(image)?);
    }
    kernel_of_pcr_4(next, now, out)
}

/// PCR 4 of this boot with the kernel exchanged; a UKI's inner kernel too, where this boot's stub had it measured.
fn kernel_of_pcr_4(next: &Parts, now: Option<(&Parts, &Events<'_>)>, out: &mut Prediction) -> Result<(), Error> {
    let Some(new) = &next.kernel else {
        out.unknown.insert(4, "no kernel was named".into());
        return Ok(());
    };
    out.images.push(pe::authenticode(new)?);
    let inner = |file: &[u8]| -> Result<Option<[u8; 32]>, Error> {
        pe::section(file, ".linux")?.map(pe::authenticode).transpose()
    };
    let Some((Parts { kernel: Some(old), .. }, log)) = now else {
        out.unknown.insert(
            4,
            "the log and the kernel of this boot were not named: what is loaded before the kernel is unknown".into(),
        );
        return Ok(());
    };
    let mut swaps = vec![(pe::authenticode(old)?, pe::authenticode(new)?)];
    if let (Some(old), Some(new)) = (inner(old)?, inner(new)?)
        && log.has(4, &old)
    {
        swaps.push((old, new));
        out.images.push(new);
    }
    exchange(log, 4, &swaps, out)
}

fn grub(next: &Parts, now: &Parts, log: &Events<'_>, out: &mut Prediction) -> Result<(), Error> {
    let mut swaps = Vec::new();
    if let (Some(old), Some(new)) = (now.initrd, next.initrd) {
        swaps.push((old, new));
    }
    if let (Some(old), Some(new)) = (&now.kernel, &next.kernel) {
        swaps.push((hash(old), hash(new)));
    }
    // The kernel's own stub measures the line too, when GRUB starts it as an EFI program.
    let lines = |parts: &Parts| [command_line_digest(&parts.command_line), hash(&utf16(&parts.command_line, false))];
    let stub = lines(now).into_iter().zip(lines(next)).find(|(old, _)| log.has(9, old));
    swaps.extend(stub);
    if swaps.is_empty() {
        return Err(Error::refused(
            "nothing to exchange was named. Fix: name this boot's and the next one's initrd or kernel",
        ));
    }
    exchange(log, 9, &swaps, out)?;
    out.files = log.list.iter().filter(|e| e.pcr == 9).map(|e| swapped(&swaps, &e.digest)).collect();
    out.files.sort_unstable();
    out.files.dedup();
    match (&now.kernel, &next.kernel) {
        // GRUB's own images stay; the kernel is loaded as an image in newer ones alone.
        (Some(old), Some(new)) => {
            let (old, new) = (pe::authenticode(old)?, pe::authenticode(new)?);
            let swaps = if log.has(4, &old) { vec![(old, new)] } else { Vec::new() };
            out.images.push(new);
            exchange(log, 4, &swaps, out)
        }
        _ => {
            out.unknown.insert(4, "no kernels were named".into());
            Ok(())
        }
    }
}

fn exchange(log: &Events<'_>, pcr: u32, swaps: &[([u8; 32], [u8; 32])], out: &mut Prediction) -> Result<(), Error> {
    if let Some((missing, _)) = swaps.iter().find(|(old, _)| !log.has(pcr, old)) {
        return Err(Error::refused(format!(
            "this boot's log has no {} in PCR {pcr}: what was named as this boot's is not what it booted",
            hex::encode(missing)
        )));
    }
    out.pcrs.insert(pcr, log.value_with(pcr, |digest| swapped(swaps, digest)));
    Ok(())
}

fn swapped(swaps: &[([u8; 32], [u8; 32])], digest: &[u8; 32]) -> [u8; 32] {
    swaps.iter().find(|(old, _)| old == digest).map_or(*digest, |(_, new)| *new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::parse::{propose, tests::Written};
    use crate::pe::tests::image;

    fn parts(line: &str, initrd: u8, kernel: &[u8]) -> Parts {
        Parts { command_line: line.into(), initrd: Some([initrd; 32]), kernel: Some(kernel.to_vec()) }
    }

    fn booted(parts: &Parts, extra: [u8; 32]) -> Vec<u8> {
        let kernel = pe::authenticode(parts.kernel.as_ref().unwrap()).unwrap();
        Written::new()
            .said(4, 0x8000_0007, b"Calling EFI Application from Boot Option")
            .event(4, 0x8000_0003, extra, b"loader")
            .event(4, 0x8000_0003, kernel, b"kernel")
            .event(9, 6, command_line_digest(&parts.command_line), b"LoadOptions")
            .event(9, 6, parts.initrd.unwrap(), b"initrd")
            .0
    }

    fn events(log: &[u8]) -> Events<'_> {
        Events::decode(log, &propose(log)).unwrap()
    }

    /// What a boot measures is what was predicted from the boot before it.
    #[test]
    fn an_efi_stub_boot_is_predicted_from_the_one_before() {
        let (now, next) = (parts("a", 1, &image(&[(".text", b"old")])), parts("b c", 2, &image(&[(".text", b"new")])));
        let (before, after) = (booted(&now, [9; 32]), booted(&next, [9; 32]));
        let told = predict(Path::EfiStub, &next, Some((&now, &events(&before)))).unwrap();
        let measured = events(&after).replay();
        assert_eq!((told.pcrs[&9], told.pcrs[&4]), (measured[&9], measured[&4]));
        assert_eq!(told.images, [pe::authenticode(next.kernel.as_ref().unwrap()).unwrap()]);
        // Without the log, PCR 9 alone; with another kernel than the one that was booted, an error.
        let told = predict(Path::EfiStub, &next, None).unwrap();
        assert!(told.pcrs[&9] == measured[&9] && told.unknown.contains_key(&4));
        let error = predict(Path::EfiStub, &next, Some((&next, &events(&before)))).unwrap_err().to_string();
        assert!(error.contains("is not what it booted"), "{error}");
    }

    #[test]
    fn qemu_appends_the_initrd_and_pcr_4_is_not_told() {
        let next = parts("console=ttyS0", 7, b"");
        let told = predict(Path::Qemu, &next, None).unwrap();
        assert_eq!(told.command_line, "console=ttyS0 initrd=initrd");
        assert_eq!(told.pcrs[&9], efi_stub_pcr9("console=ttyS0 initrd=initrd", Some([7; 32])));
        assert!(told.unknown[&4].contains("QEMU"));
        let bare = predict(Path::Qemu, &Parts { initrd: None, ..next }, None).unwrap();
        assert_eq!(bare.pcrs[&9], efi_stub_pcr9("console=ttyS0", None));
    }

    #[test]
    fn a_uki_carries_its_parts() {
        let inner = |code: &[u8]| image(&[(".text", code)]);
        let uki =
            |line: &[u8], code: &[u8]| image(&[(".linux", &inner(code)), (".cmdline", line), (".initrd", b"files")]);
        let (old, new) = (uki(b"ro\n", b"old"), uki(b"ro x\0\n", b"new"));
        let digest = |file: &[u8]| pe::authenticode(file).unwrap();
        let log = Written::new().event(4, 1, digest(&old), b"").event(4, 1, digest(&inner(b"old")), b"").0;
        let (now, next) =
            (Parts { kernel: Some(old), ..Parts::default() }, Parts { kernel: Some(new.clone()), ..Parts::default() });
        let told = predict(Path::Uki, &next, Some((&now, &events(&log)))).unwrap();
        assert_eq!(told.command_line, "ro x");
        assert_eq!(told.pcrs[&9], efi_stub_pcr9("ro x", Some(hash(b"files"))));
        let after = Written::new().event(4, 1, digest(&new), b"").event(4, 1, digest(&inner(b"new")), b"").0;
        assert_eq!(told.pcrs[&4], events(&after).replay()[&4]);
        // What an unknown stub hands on is not told.
        for name in [".osrel", ".pcrsig", ".pcrpkey", ".profile", ".ucode"] {
            let more = image(&[(".linux", &inner(b"x")), (".initrd", b"files"), (name, b"{}")]);
            let told = predict(Path::Uki, &Parts { kernel: Some(more), ..Parts::default() }, None).unwrap();
            assert!(told.unknown[&9].contains("not that of systemd") && !told.pcrs.contains_key(&9), "{name}");
        }
        assert!(predict(Path::Uki, &Parts::default(), None).is_err());
    }

    #[test]
    fn grub_is_told_from_this_boots_log() {
        let (old, new) = (image(&[(".text", b"old")]), image(&[(".text", b"new")]));
        let log = |kernel: &[u8], initrd: [u8; 32], line: &str| {
            Written::new()
                .event(9, 13, [3; 32], b"(hd0,gpt2)/grub/x86_64-efi/tpm.mod")
                .event(9, 13, hash(kernel), b"(hd0,gpt2)/vmlinuz")
                .event(9, 13, initrd, b"(hd0,gpt2)/initrd.img")
                .event(9, 6, command_line_digest(line), b"LoadOptions")
                .event(4, 1, [4; 32], b"grub")
                .0
        };
        let (now, next) = (parts("a", 1, &old), parts("b", 2, &new));
        let (before, after) = (log(&old, [1; 32], "a"), log(&new, [2; 32], "b"));
        let told = predict(Path::Grub, &next, Some((&now, &events(&before)))).unwrap();
        let measured = events(&after).replay();
        assert_eq!((told.pcrs[&9], told.pcrs[&4]), (measured[&9], measured[&4]));
        assert!(told.files.contains(&[3; 32]) && told.files.contains(&[2; 32]) && !told.files.contains(&[1; 32]));
        assert!(predict(Path::Grub, &next, None).is_err());
        assert!(predict(Path::Grub, &next, Some((&parts("a", 9, &old), &events(&before)))).is_err());
    }
}
