//! What the data of events looks like: EFI variables, known texts, command lines; and which way the node booted.
use super::events::hash;
use super::{Event, Events};

/// EV_IPL: systemd-stub and GRUB use it.
const IPL: u32 = 0x0d;
/// EV_EVENT_TAG: the kernel's EFI stub.
const TAG: u32 = 6;
const LOAD_OPTIONS: &[u8] = b"LOADED_IMAGE::LoadOptions";
const GRUB: &[u8] = b"kernel_cmdline: ";

/// Data that firmware measures between the images of PCR 4 and that says nothing of what is loaded.
pub(crate) const TEXTS: [&[u8]; 5] = [
    b"Calling EFI Application from Boot Option",
    b"Returning from EFI Application from Boot Option",
    b"BOOT ATTEMPTS OMITTED",
    &[0; 4],
    &[0xff, 0xff, 0xff, 0xff],
];

/// The end of the firmware's own part of a PCR.
pub(crate) const SEPARATOR: [u8; 4] = [0; 4];

/// A UEFI_VARIABLE_DATA (profile, section 10.2.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable<'a> {
    pub(crate) guid: [u8; 16],
    pub(crate) name: String,
    pub(crate) value: &'a [u8],
}

/// EFI_GLOBAL_VARIABLE, as it stands in memory.
pub(crate) const GLOBAL: [u8; 16] =
    [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c];

pub(crate) fn variable(data: &[u8]) -> Option<Variable<'_>> {
    let (guid, rest) = data.split_first_chunk::<16>()?;
    let (characters, rest) = rest.split_first_chunk::<8>()?;
    let (size, rest) = rest.split_first_chunk::<8>()?;
    let characters = usize::try_from(u64::from_le_bytes(*characters)).ok().filter(|n| *n <= 256)?;
    let size = usize::try_from(u64::from_le_bytes(*size)).ok()?;
    let (name, value) = rest.split_at_checked(characters * 2)?;
    let name: Vec<u16> = name.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    let name = String::from_utf16(&name).ok().filter(|name| name.chars().all(|c| c.is_ascii_graphic()))?;
    (value.len() == size).then_some(Variable { guid: *guid, name, value })
}

/// What the kernel's EFI stub measures for a command line: UTF-16, little-endian, ended by a zero character.
pub(crate) fn command_line_digest(text: &str) -> [u8; 32] {
    hash(&utf16(text, true))
}

pub(crate) fn utf16(text: &str, zero: bool) -> Vec<u8> {
    text.encode_utf16().chain(zero.then_some(0)).flat_map(u16::to_le_bytes).collect()
}

/// What GRUB says that it started the kernel with; None when the event is something else.
pub(crate) fn grub_command_line(data: &[u8]) -> Option<&[u8]> {
    data.strip_prefix(GRUB).map(|text| text.strip_suffix(&[0]).unwrap_or(text))
}

/// The event is labelled as the EFI stub's command line.
pub(crate) fn is_load_options(event: &Event, data: &[u8]) -> bool {
    event.kind == TAG && data.get(8..).is_some_and(|label| label.starts_with(LOAD_OPTIONS))
}

/// systemd-stub names the sections that it measures in UTF-16; older ones in ASCII.
fn is_section(data: &[u8], name: &str) -> bool {
    data == utf16(name, true) || data.strip_suffix(&[0]).unwrap_or(data) == name.as_bytes()
}

/// How this boot came to its kernel, as far as labels tell. For an operator's eyes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootPath {
    /// The firmware (or QEMU's -kernel) starts the kernel's own EFI stub.
    EfiStub,
    /// systemd-stub: a unified kernel image.
    Uki,
    Grub,
    Unknown,
}

/// What labels tell of a log, not proven.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a, 'b>(pub &'b Events<'a>);

impl Known<'_, '_> {
    pub fn boot_path(&self) -> BootPath {
        let data = |event: &Event| self.0.log.get(event.data.clone()).unwrap_or_default();
        let any = |test: &dyn Fn(&Event, &[u8]) -> bool| self.0.list.iter().any(|e| test(e, data(e)));
        if any(&|e, d| e.pcr == 8 && grub_command_line(d).is_some()) {
            BootPath::Grub
        } else if any(&|e, d| e.pcr == 11 && e.kind == IPL && is_section(d, ".linux")) {
            BootPath::Uki
        } else if any(&|e, d| e.pcr == 9 && is_load_options(e, d)) {
            BootPath::EfiStub
        } else {
            BootPath::Unknown
        }
    }
}

/// A command line's words as the kernel splits them: a double quote takes spaces in; what follows `--` is init's.
pub fn words(text: &str) -> Vec<String> {
    let (mut all, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            c if c.is_ascii_whitespace() && !quoted => {
                if !word.is_empty() {
                    all.push(std::mem::take(&mut word));
                }
            }
            c => word.push(c),
        }
    }
    if !word.is_empty() {
        all.push(word);
    }
    let end = all.iter().position(|word| word == "--").unwrap_or(all.len());
    all.truncate(end);
    all
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::parse::{propose, tests::Written};
    use super::*;

    pub(crate) fn written(guid: &[u8; 16], name: &str, value: &[u8]) -> Vec<u8> {
        let mut out = guid.to_vec();
        out.extend((name.len() as u64).to_le_bytes());
        out.extend((value.len() as u64).to_le_bytes());
        out.extend(utf16(name, false));
        out.extend(value);
        out
    }

    #[test]
    fn variables_are_read_to_their_last_byte() {
        let good = written(&GLOBAL, "SecureBoot", &[1]);
        let read = variable(&good).unwrap();
        assert_eq!((read.guid, read.name.as_str(), read.value), (GLOBAL, "SecureBoot", &[1_u8][..]));
        for end in 0..good.len() {
            assert_eq!(variable(&good[..end]), None);
        }
        assert_eq!(variable(&[&good[..], &[0]].concat()), None);
        let mut huge = good.clone();
        huge[16..24].fill(0xff);
        assert_eq!(variable(&huge), None);
        assert_eq!(variable(&written(&GLOBAL, "a\nb", &[1])), None);
    }

    /// The value is what OVMF and Linux 6.12 measured for this line (a VM, PCR 9's first event).
    #[test]
    fn a_command_line_is_hashed_as_utf_16() {
        assert_eq!(utf16("aä", true), [b'a', 0, 0xe4, 0, 0, 0]);
        assert_eq!(command_line_digest("x"), hash(&[b'x', 0, 0, 0]));
    }

    #[test]
    fn words_are_the_kernels() {
        assert_eq!(words("a  b=1\tc=\"d e\" "), ["a", "b=1", "c=d e"]);
        assert_eq!(words("a -- init=/x"), ["a"]);
        assert_eq!(words("a --b"), ["a", "--b"]);
        assert!(words("").is_empty());
    }

    #[test]
    fn the_way_of_the_boot_shows_in_labels() {
        let path = |log: Written| Known(&Events::decode(&log.0, &propose(&log.0)).unwrap()).boot_path();
        let label = |text: &[u8]| [&[0x8f, 0, 0, 0, 1, 0, 0, 0][..], text].concat();
        assert_eq!(path(Written::new()), BootPath::Unknown);
        assert_eq!(
            path(Written::new().event(9, 6, [1; 32], &label(b"LOADED_IMAGE::LoadOptions\0"))),
            BootPath::EfiStub
        );
        assert_eq!(path(Written::new().event(11, 13, [1; 32], b".linux\0")), BootPath::Uki);
        assert_eq!(path(Written::new().event(11, 13, [1; 32], &utf16(".linux", true))), BootPath::Uki);
        assert_eq!(path(Written::new().event(8, 13, [1; 32], b"kernel_cmdline: /vmlinuz\0")), BootPath::Grub);
    }
}
