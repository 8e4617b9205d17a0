//! The rules that a boot's own log would pass: what an operator starts a policy from, on a node that is known good.
use super::judge::certificate;
use super::shape::{SEPARATOR, TEXTS, grub_command_line, is_load_options, variable};
use super::{Proven, stub_digests};
use crate::hex;
use crate::log::events::hash;
use serde::Serialize;

/// A digest and what its event's label says of it. The label is not proven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Labelled {
    pub digest: String,
    pub label: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Draft {
    pub images: Vec<Labelled>,
    pub certificates: Vec<Labelled>,
    /// None: the log does not say.
    pub secure_boot: Option<bool>,
    pub files: Vec<Labelled>,
    /// Something that was measured vouches for /proc/cmdline.
    pub command_line_vouched: bool,
    pub command_line: String,
}

/// `command_line` is the content of /proc/cmdline.
#[must_use]
pub fn draft(log: &Proven<'_>, command_line: &[u8]) -> Draft {
    let text = String::from_utf8_lossy(command_line);
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let mut out = Draft { command_line: text.to_owned(), ..Draft::default() };
    let harmless: Vec<_> = TEXTS.iter().map(|text| hash(text)).collect();
    for event in log.of(4).filter(|e| !harmless.contains(&e.digest)) {
        push(&mut out.images, &event.digest, "image".into());
    }
    let mut before = true;
    for data in log.of(7).filter_map(|event| log.proven_data(event)) {
        if data == SEPARATOR {
            before = false;
        } else if let Some(variable) = variable(data) {
            if variable.name == "SecureBoot" {
                out.secure_boot = Some(out.secure_boot.unwrap_or(true) && variable.value == [1]);
            }
            if !before {
                push(&mut out.certificates, &certificate(&variable), variable.name.clone());
            }
        }
    }
    let lines = stub_digests(text);
    for event in log.of(9) {
        if lines.contains(&event.digest) {
            out.command_line_vouched = true;
        } else if !is_load_options(event, log.data(event)) {
            push(&mut out.files, &event.digest, label(log.data(event)));
        }
    }
    let measured = text.strip_prefix("BOOT_IMAGE=").unwrap_or(text).as_bytes();
    out.command_line_vouched |= log.of(8).any(|event| {
        grub_command_line(log.data(event)).is_some_and(|line| line == measured && hash(line) == event.digest)
    });
    out
}

fn push(list: &mut Vec<Labelled>, digest: &[u8; 32], label: String) {
    let digest = hex::encode(digest);
    if !list.iter().any(|known| known.digest == digest) {
        list.push(Labelled { digest, label });
    }
}

/// The readable part of an event's data.
fn label(data: &[u8]) -> String {
    let text = match data {
        // EV_EVENT_TAG: id, size, text.
        [_, _, _, 0x8f, _, _, 0, 0, text @ ..] => text,
        text => text,
    };
    String::from_utf8_lossy(text).chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::super::judge::tests::{Boot, CERTIFICATE, KERNEL, LINE};
    use super::super::{Events, LogRules, judge, parse::propose};
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_boot_passes_the_rules_that_are_drawn_from_it() {
        let log = Boot::default().log();
        let events = Events::decode(&log, &propose(&log)).unwrap();
        let quoted: BTreeMap<_, _> = events.replay().into_iter().filter(|(p, _)| [4, 7, 8, 9].contains(p)).collect();
        let proven = events.prove(&quoted).unwrap();
        let draft = draft(&proven, format!("{LINE}\n").as_bytes());
        assert_eq!(draft.images, [Labelled { digest: hex::encode(&KERNEL), label: "image".into() }]);
        assert_eq!(draft.certificates[0], Labelled { digest: hex::encode(&hash(CERTIFICATE)), label: "db".into() });
        assert_eq!((draft.secure_boot, draft.command_line_vouched), (Some(true), true));
        assert_eq!(draft.files[0].label, "Linux initrd");
        let read = |list: &[Labelled]| list.iter().map(|l| hex::decode32(&l.digest).unwrap()).collect::<Vec<_>>();
        let rules = LogRules {
            images: read(&draft.images),
            certificates: read(&draft.certificates),
            secure_boot: true,
            files: read(&draft.files),
            command_line_has: vec![],
            command_line_never: vec!["init=".into()],
        };
        assert_eq!(judge(&rules, &proven, LINE.as_bytes()), Vec::<String>::new());
    }
}
