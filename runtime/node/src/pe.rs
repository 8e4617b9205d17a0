//! A PE/COFF image: its Authenticode digest, which firmware measures into PCR 4, and the sections of a unified kernel image.
//!
//! Windows Authenticode Portable Executable Signature Format, "Calculating the PE Image Hash".
use crate::Error;
use ring::digest::{Context, SHA256};
use std::ops::Range;

const WHAT: &str = "PE image";
const MAX_SECTIONS: usize = 96;

/// The headers' places, all inside the file.
struct Layout<'a> {
    file: &'a [u8],
    checksum: usize,
    certificate_entry: usize,
    headers: usize,
    certificates: usize,
    sections: Vec<Section>,
}

struct Section {
    name: [u8; 8],
    virtual_size: usize,
    raw: Range<usize>,
}

/// SHA-256 over the image without its checksum and its signatures.
///
/// # Errors
/// When it is no PE image.
pub(crate) fn authenticode(file: &[u8]) -> Result<[u8; 32], Error> {
    let layout = layout(file)?;
    let mut hash = Context::new(&SHA256);
    let mut put = |range: Range<usize>| -> Result<(), Error> {
        hash.update(file.get(range).ok_or(Error::Malformed(WHAT, "it ends too early"))?);
        Ok(())
    };
    put(0..layout.checksum)?;
    put(layout.checksum + 4..layout.certificate_entry)?;
    put(layout.certificate_entry + 8..layout.headers)?;
    let mut ranges: Vec<_> = layout.sections.iter().map(|s| s.raw.clone()).filter(|raw| !raw.is_empty()).collect();
    ranges.sort_by_key(|range| range.start);
    let mut hashed = layout.headers;
    for range in ranges {
        hashed += range.len();
        put(range)?;
    }
    let end =
        file.len().checked_sub(layout.certificates).ok_or(Error::Malformed(WHAT, "its signatures are too large"))?;
    if end > hashed {
        put(hashed..end)?;
    }
    let mut out = [0; 32];
    out.copy_from_slice(hash.finish().as_ref());
    Ok(out)
}

/// The content of a section, such as `.cmdline` or `.initrd`; None when there is none, or more than one.
///
/// # Errors
/// When it is no PE image.
pub(crate) fn section<'a>(file: &'a [u8], name: &str) -> Result<Option<&'a [u8]>, Error> {
    let layout = layout(file)?;
    let mut found = layout.sections.iter().filter(|s| s.is(name));
    let (Some(section), None) = (found.next(), found.next()) else { return Ok(None) };
    let raw = layout.file.get(section.raw.clone()).unwrap_or_default();
    Ok(Some(raw.get(..section.virtual_size.min(raw.len())).unwrap_or_default()))
}

/// How many sections of that name there are.
///
/// # Errors
/// When it is no PE image.
pub(crate) fn count(file: &[u8], name: &str) -> Result<usize, Error> {
    Ok(layout(file)?.sections.iter().filter(|s| s.is(name)).count())
}

impl Section {
    fn is(&self, name: &str) -> bool {
        let (text, rest) = self.name.split_at(name.len().min(8));
        text == name.as_bytes() && rest.iter().all(|byte| *byte == 0)
    }
}

fn layout(file: &[u8]) -> Result<Layout<'_>, Error> {
    let short = Error::Malformed(WHAT, "it ends too early");
    let u16_at = |at: usize| {
        let bytes = file.get(at..at.saturating_add(2)).and_then(|b| b.try_into().ok());
        bytes.map(|b| usize::from(u16::from_le_bytes(b))).ok_or(short.clone())
    };
    let u32_at = |at: usize| {
        let bytes = file.get(at..at.saturating_add(4)).and_then(|b| b.try_into().ok());
        bytes.map(|b| u32::from_le_bytes(b) as usize).ok_or(short.clone())
    };
    let start = u32_at(0x3c)?;
    if !file.starts_with(b"MZ") || file.get(start..start.saturating_add(4)) != Some(b"PE\0\0") {
        return Err(Error::Malformed(WHAT, "no PE header: is the kernel built with an EFI stub?"));
    }
    let optional = start + 24;
    let (directories, entry) = match u16_at(optional)? {
        0x10b => (92, 128),
        0x20b => (108, 144),
        _ => return Err(Error::Malformed(WHAT, "neither PE32 nor PE32+")),
    };
    if u32_at(optional + directories)? < 5 {
        return Err(Error::Malformed(WHAT, "no place for signatures"));
    }
    let certificate_entry = optional + entry;
    let (headers, certificates) = (u32_at(optional + 60)?, u32_at(certificate_entry + 4)?);
    let count = u16_at(start + 6)?;
    if headers < certificate_entry + 8 || headers > file.len() || count > MAX_SECTIONS {
        return Err(Error::Malformed(WHAT, "headers of an odd size"));
    }
    let table = optional + u16_at(start + 20)?;
    let mut sections = Vec::new();
    for at in (0..count).map(|n| table + n * 40) {
        let mut name = [0; 8];
        name.copy_from_slice(file.get(at..at + 8).ok_or(short.clone())?);
        let (size, pointer) = (u32_at(at + 16)?, u32_at(at + 20)?);
        let end = pointer.saturating_add(size);
        if end > file.len() {
            return Err(Error::Malformed(WHAT, "a section outside of it"));
        }
        sections.push(Section { name, virtual_size: u32_at(at + 8)?, raw: pointer..end });
    }
    Ok(Layout { file, checksum: optional + 64, certificate_entry, headers, certificates, sections })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A PE32+ image with these sections, each padded to 16 bytes.
    pub(crate) fn image(sections: &[(&str, &[u8])]) -> Vec<u8> {
        let (start, optional, headers) = (0x40, 0x58, 0x400);
        let mut out = vec![0; headers];
        out[..2].copy_from_slice(b"MZ");
        out[0x3c] = start as u8;
        out[start..start + 4].copy_from_slice(b"PE\0\0");
        out[start + 6] = sections.len() as u8;
        out[start + 20] = 0xf0;
        out[optional..optional + 2].copy_from_slice(&[0x0b, 2]);
        out[optional + 60..optional + 64].copy_from_slice(&(headers as u32).to_le_bytes());
        out[optional + 64..optional + 68].copy_from_slice(b"SUMM");
        out[optional + 108] = 16;
        for (n, (name, content)) in sections.iter().enumerate() {
            let at = optional + 0xf0 + n * 40;
            let (raw, size) = (out.len(), content.len().next_multiple_of(16));
            out[at..at + name.len()].copy_from_slice(name.as_bytes());
            out[at + 8..at + 12].copy_from_slice(&(content.len() as u32).to_le_bytes());
            out[at + 16..at + 20].copy_from_slice(&(size as u32).to_le_bytes());
            out[at + 20..at + 24].copy_from_slice(&(raw as u32).to_le_bytes());
            out.extend(*content);
            out.resize(raw + size, 0);
        }
        out
    }

    #[test]
    fn checksum_and_signatures_are_left_out_and_nothing_else() {
        let good = image(&[(".text", b"code"), (".cmdline", b"ro quiet")]);
        let digest = authenticode(&good).unwrap();
        let (checksum, entry) = (0x58 + 64, 0x58 + 144);
        for at in 0..good.len() {
            let mut changed = good.clone();
            changed[at] ^= 1;
            let left_out = (checksum..checksum + 4).contains(&at) || (entry..entry + 8).contains(&at);
            match authenticode(&changed) {
                Ok(other) => assert_eq!(other == digest, left_out, "byte {at}"),
                // A size of signatures that the file does not have.
                Err(_) => assert!(!left_out || at >= entry + 4, "byte {at}"),
            }
        }
        let mut signed = good.clone();
        let signature = [0xaa; 24];
        signed[entry..entry + 4].copy_from_slice(&(good.len() as u32).to_le_bytes());
        signed[entry + 4] = signature.len() as u8;
        signed.extend(signature);
        assert_eq!(authenticode(&signed), Ok(digest));
        assert_ne!(authenticode(&[&good[..], b"tail"].concat()), Ok(digest));
    }

    #[test]
    fn sections_are_found_by_their_whole_name() {
        let file = image(&[(".linux", b"kernel"), (".initrd", b"files")]);
        assert_eq!(section(&file, ".initrd"), Ok(Some(&b"files"[..])));
        assert_eq!(section(&file, ".init"), Ok(None));
        assert_eq!(section(&image(&[(".a", b"1"), (".a", b"2")]), ".a"), Ok(None));
    }

    #[test]
    fn what_is_no_image_is_told() {
        let good = image(&[(".text", b"code")]);
        for end in 0..good.len() {
            assert!(authenticode(&good[..end]).is_err(), "{end}");
        }
        assert!(authenticode(&[0xff; 0x400]).is_err());
        assert!(authenticode(b"\x7fELF").unwrap_err().to_string().contains("ends too early"));
    }
}
