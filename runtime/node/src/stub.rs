//! What systemd-stub makes of a unified kernel image: the initrd that the kernel measures into PCR 9, and PCR 11.
//!
//! The stub puts the sections `.pcrsig`, `.pcrpkey`, `.osrel` and `.profile` into archives of their own below `/.extra` and hands
//! them on behind the initrd, microcode before it (systemd 257, `src/boot/efi/stub.c` and `cpio.c`). Nothing of that depends on
//! time or place, so it is told exactly, for the version whose boots were compared with it; other versions hand on other things.
//! What lies beside the image on its disk (credentials, extensions, add-ons) is handed on too and is not known here.
use crate::log::events::hash;
use crate::log::prove::extended;
use crate::{Error, pe};

/// Version of systemd whose stub was compared with this.
const VERSION: &str = "257";
/// Sections that change what is handed on, and are not told here.
const OTHERS: [&str; 3] = [".dtbauto", ".hwids", ".efifw"];
/// In this order, name and content, into PCR 11. `.pcrsig` signs the outcome and is left out.
const MEASURED: [&str; 11] =
    [".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".uname", ".sbat", ".pcrpkey", ".profile"];
/// Behind the initrd, in this order: section, file below `/.extra`.
const HANDED_ON: [(&str, &str); 4] = [
    (".pcrsig", "tpm2-pcr-signature.json"),
    (".pcrpkey", "tpm2-pcr-public-key.pem"),
    (".osrel", "os-release"),
    (".profile", "profile"),
];
const FOLDER: &str = ".extra";

/// Whether the image has sections that the stub hands on, so that its initrd is not `.initrd` alone.
///
/// # Errors
/// No PE image.
pub(crate) fn hands_on(image: &[u8]) -> Result<bool, Error> {
    let mut names = HANDED_ON.map(|(section, _)| section).into_iter().chain([".ucode"]);
    names.try_fold(false, |any, name| Ok(any || pe::count(image, name)? > 0))
}

/// Why nothing is told of this image's stub; None when it is one that was compared.
///
/// # Errors
/// No PE image.
pub(crate) fn unknown(image: &[u8]) -> Result<Option<String>, Error> {
    let magic = content(image, ".sdmagic")?.unwrap_or_default();
    let magic = String::from_utf8_lossy(magic);
    let version = magic.split_once("systemd-stub ").map(|(_, rest)| rest.trim_start_matches('v'));
    let version = version.and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()).unwrap_or_default();
    if version != VERSION {
        return Ok(Some(format!(
            "the stub of this image is not that of systemd {VERSION}, and others hand on other sections inside the initrd"
        )));
    }
    for name in OTHERS {
        if pe::count(image, name)? > 0 {
            return Ok(Some(format!("this image has a section {name}, of which the machine chooses a part")));
        }
    }
    let known = MEASURED.iter().chain(&[".pcrsig"]);
    for name in known {
        if pe::count(image, name)? > 1 {
            return Ok(Some(format!("this image has several sections {name}: which one counts is chosen at boot")));
        }
    }
    Ok(None)
}

/// SHA-256 of the initrd that the kernel finds; None when there is none.
///
/// # Errors
/// No PE image.
pub(crate) fn initrd(image: &[u8]) -> Result<Option<[u8; 32]>, Error> {
    let mut parts = Vec::new();
    for name in [".ucode", ".initrd"] {
        parts.extend(content(image, name)?.map(<[u8]>::to_vec));
    }
    for (section, file) in HANDED_ON {
        parts.extend(content(image, section)?.map(|bytes| archive(file, bytes)));
    }
    Ok(match parts.as_slice() {
        [] => None,
        [alone] => Some(hash(alone)),
        // Each begins at a multiple of four bytes, and so does what would come behind the last.
        several => {
            let mut all = Vec::new();
            for part in several {
                all.extend_from_slice(part);
                pad(&mut all);
            }
            Some(hash(&all))
        }
    })
}

/// PCR 11 as the stub leaves it, before systemd extends it with the phases of the boot.
///
/// # Errors
/// No PE image.
pub(crate) fn pcr_11(image: &[u8]) -> Result<[u8; 32], Error> {
    let mut value = [0; 32];
    for name in MEASURED {
        if let Some(bytes) = content(image, name)? {
            value = extended(&value, &hash(format!("{name}\0").as_bytes()));
            value = extended(&value, &hash(bytes));
        }
    }
    Ok(value)
}

/// An empty section is as good as none.
fn content<'a>(image: &'a [u8], name: &str) -> Result<Option<&'a [u8]>, Error> {
    Ok(pe::section(image, name)?.filter(|bytes| !bytes.is_empty()))
}

/// One file below `/.extra` as an archive (cpio, `newc`): the folder, the file, the trailer.
fn archive(name: &str, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    entry(&mut out, 1, 0o040_555, FOLDER, &[]);
    entry(&mut out, 2, 0o100_444, &format!("{FOLDER}/{name}"), content);
    let trailer = "TRAILER!!!";
    let fields = [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, trailer.len() + 1, 0];
    // systemd spells this one, and only this one, with capitals.
    out.extend_from_slice(header(fields).to_ascii_uppercase().as_bytes());
    out.extend_from_slice(trailer.as_bytes());
    out.push(0);
    pad(&mut out);
    out
}

fn entry(out: &mut Vec<u8>, inode: usize, mode: usize, name: &str, content: &[u8]) {
    out.extend_from_slice(header([inode, mode, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0]).as_bytes());
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(content);
    pad(out);
}

/// Magic and 13 fields: inode, mode, uid, gid, links, mtime, size, four of devices, length of the name, checksum.
fn header(fields: [usize; 13]) -> String {
    fields.iter().fold("070701".to_owned(), |text, field| format!("{text}{field:08x}"))
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pe::tests::image;

    const MAGIC: &[u8] = b"#### LoaderInfo: systemd-stub 257.13-1~deb13u1 ####";

    fn uki(sections: &[(&str, &[u8])]) -> Vec<u8> {
        image(&[&[(".sdmagic", MAGIC), (".linux", b"kernel")], sections].concat())
    }

    /// Byte for byte what the stub of a boot handed on.
    #[test]
    fn an_archive_is_a_folder_a_file_and_a_trailer() {
        let folder = "070701000000010000416d00000000000000000000000100000000000000000000000000000000000000000000000000000007\
            00000000.extra\0";
        let file = "070701000000020000812400000000000000000000000100000000000000080000000000000000000000000000000000000012\
            00000000.extra/os-release\0ID=test\n";
        let trailer = "07070100000000000000000000000000000000000000010000000000000000000000000000000000000000000000000000000B\
            00000000TRAILER!!!\0\0\0\0";
        let mut expected = folder.as_bytes().to_vec();
        pad(&mut expected);
        expected.extend_from_slice(file.as_bytes());
        pad(&mut expected);
        expected.extend_from_slice(trailer.as_bytes());
        assert_eq!(archive("os-release", b"ID=test\n"), expected);
        assert_eq!(archive("x", b"abc").len() % 4, 0);
    }

    #[test]
    fn what_is_handed_on_stands_behind_the_initrd_and_microcode_before_it() {
        let told = |sections: &[(&str, &[u8])]| initrd(&uki(sections)).unwrap();
        assert_eq!(told(&[]), None);
        assert_eq!(told(&[(".initrd", b"files")]), Some(hash(b"files")), "alone it stays as it is");
        assert_eq!(told(&[(".initrd", b"")]), None);
        let release = archive("os-release", b"ID=x");
        assert_eq!(told(&[(".osrel", b"ID=x")]), Some(hash(&release)));
        let several = [b"files\0\0\0".to_vec(), release.clone()].concat();
        assert_eq!(told(&[(".osrel", b"ID=x"), (".initrd", b"files")]), Some(hash(&several)));
        let all = [
            b"code".to_vec(),
            b"files\0\0\0".to_vec(),
            archive("tpm2-pcr-signature.json", b"{}"),
            archive("tpm2-pcr-public-key.pem", b"pem"),
            release,
            archive("profile", b"ID=p"),
        ];
        let sections: [(&str, &[u8]); 6] = [
            (".profile", b"ID=p"),
            (".osrel", b"ID=x"),
            (".pcrpkey", b"pem"),
            (".pcrsig", b"{}"),
            (".initrd", b"files"),
            (".ucode", b"code"),
        ];
        assert_eq!(told(&sections), Some(hash(&all.concat())));
    }

    #[test]
    fn pcr_11_is_names_and_contents_in_one_order() {
        let of = |parts: &[&[u8]]| parts.iter().fold([0; 32], |value, part| extended(&value, &hash(part)));
        let image = uki(&[(".pcrsig", b"{}"), (".cmdline", b"ro"), (".osrel", b"ID=x"), (".uname", b"")]);
        let expected = of(&[b".linux\0", b"kernel", b".osrel\0", b"ID=x", b".cmdline\0", b"ro"]);
        assert_eq!(pcr_11(&image).unwrap(), expected);
    }

    #[test]
    fn another_stub_and_a_choice_at_boot_are_unknown() {
        assert_eq!(unknown(&uki(&[(".osrel", b"x")])).unwrap(), None);
        for magic in [
            &b"#### LoaderInfo: systemd-stub 258.1-1 ####"[..],
            b"#### LoaderInfo: systemd-stub 2570 ####",
            b"",
            b"257",
        ] {
            let other = image(&[(".sdmagic", magic), (".linux", b"kernel")]);
            assert!(unknown(&other).unwrap().unwrap().contains("not that of systemd 257"));
        }
        assert!(unknown(&uki(&[(".hwids", b"x")])).unwrap().unwrap().contains(".hwids"));
        assert!(unknown(&uki(&[(".profile", b"1"), (".profile", b"2")])).unwrap().unwrap().contains("several"));
        assert!(hands_on(&uki(&[(".ucode", b"x")])).unwrap() && !hands_on(&uki(&[(".initrd", b"x")])).unwrap());
    }
}
