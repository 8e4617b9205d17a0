//! The rules of `[node.log]` on proven events. Every rule looks at digests, or at data that hashes to them.
//!
//! Types and labels come from whoever wrote the log, so no rule believes one: images of PCR 4 and files of PCR 9 are all
//! digests there that nothing else explains, and what follows the separator of PCR 7 is an authority whatever it is called.
use super::shape::{
    GLOBAL, SEPARATOR, TEXTS, Variable, command_line_digest, grub_command_line, is_load_options, utf16, variable,
};
use super::{Event, Proven, words};
use crate::hex;
use crate::log::events::hash;
use std::collections::BTreeSet;

/// PCRs that every policy with log rules covers, by values or by rules: loader and kernel, Secure Boot, initrd and command line.
pub(crate) const COVERED: [u32; 3] = [4, 7, 9];
/// PCRs that rules look into: these, and GRUB's command line.
pub(crate) const JUDGED: [u32; 4] = [4, 7, 8, 9];
/// Secure Boot's own variables, measured before the separator of PCR 7.
const CONFIG: [&str; 10] =
    ["SecureBoot", "PK", "KEK", "db", "dbx", "dbt", "dbr", "SetupMode", "AuditMode", "DeployedMode"];

/// `[node.log]`. An empty list is a rule that is not set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogRules {
    /// Authenticode SHA-256 of every image that may be loaded (PCR 4).
    pub images: Vec<[u8; 32]>,
    /// SHA-256 of the DER of every certificate that may have verified an image (PCR 7, after the separator).
    pub certificates: Vec<[u8; 32]>,
    /// Secure Boot must be on (PCR 7).
    pub secure_boot: bool,
    /// SHA-256 of the initrd, and of all that a boot loader measures beside it (PCR 9).
    pub files: Vec<[u8; 32]>,
    /// Words that the kernel command line must have.
    pub command_line_has: Vec<String>,
    /// Text that it must not contain anywhere. `-` and `_` are the same, as they are to the kernel.
    pub command_line_never: Vec<String>,
}

impl LogRules {
    /// PCRs whose every event these rules judge: they need no accepted values.
    pub fn covers(&self) -> BTreeSet<u32> {
        [
            (4, !self.images.is_empty()),
            (7, self.secure_boot && !self.certificates.is_empty()),
            (9, !self.files.is_empty() && self.judges_command_line()),
        ]
        .into_iter()
        .filter_map(|(pcr, covered)| covered.then_some(pcr))
        .collect()
    }

    /// PCRs that have to be quoted for these rules beside those with accepted values. GRUB measures the text of its
    /// command line into PCR 8.
    pub fn quoted(&self) -> BTreeSet<u32> {
        let mut all = self.covers();
        all.extend(self.judges_command_line().then_some(8));
        all
    }

    fn judges_command_line(&self) -> bool {
        !self.command_line_has.is_empty() || !self.command_line_never.is_empty()
    }
}

/// All that does not hold, one line each. `command_line` is the content of `/proc/cmdline`.
pub fn judge(rules: &LogRules, log: &Proven<'_>, command_line: &[u8]) -> Vec<String> {
    let mut problems = Vec::new();
    images(rules, log, &mut problems);
    secure_boot(rules, log, &mut problems);
    let text = std::str::from_utf8(command_line).map(|text| text.strip_suffix('\n').unwrap_or(text));
    match text {
        Ok(text) => {
            files(rules, log, text, &mut problems);
            if rules.judges_command_line() {
                vouched(log, text, &mut problems);
                has_and_never(rules, text, &mut problems);
            }
        }
        Err(_) => problems.push("the kernel command line is not UTF-8: no rule can judge it".into()),
    }
    problems
}

fn images(rules: &LogRules, log: &Proven<'_>, problems: &mut Vec<String>) {
    if rules.images.is_empty() {
        return;
    }
    let harmless: Vec<_> = TEXTS.iter().map(|text| hash(text)).collect();
    let mut good = 0;
    for event in log.of(4).filter(|e| !harmless.contains(&e.digest)) {
        if rules.images.contains(&event.digest) {
            good += 1;
        } else {
            problems.push(format!(
                "PCR 4: an image with the Authenticode digest {} was loaded, which node.log.images does not list. Fix: boot the enrolled loader and kernel, or list it",
                hex::encode(&event.digest)
            ));
        }
    }
    if good == 0 && problems.is_empty() {
        problems.push("PCR 4: no listed image was measured: this boot did not measure its kernel".into());
    }
}

fn secure_boot(rules: &LogRules, log: &Proven<'_>, problems: &mut Vec<String>) {
    if !rules.secure_boot && rules.certificates.is_empty() {
        return;
    }
    let (mut before, mut on) = (true, None);
    for event in log.of(7) {
        let Some(data) = log.proven_data(event) else {
            problems.push("PCR 7: the data of an event does not match its digest: what was measured is unknown".into());
            continue;
        };
        if data == SEPARATOR {
            before = false;
            continue;
        }
        let Some(variable) = variable(data) else {
            problems.push(format!(
                "PCR 7: an event that is no EFI variable: {}. Fix: turn the firmware's debug modes off",
                shown(data)
            ));
            continue;
        };
        if variable.name == "SecureBoot" && variable.guid == GLOBAL {
            on = Some(on.unwrap_or(true) && variable.value == [1]);
        }
        if before {
            if !CONFIG.contains(&variable.name.as_str()) {
                problems.push(format!(
                    "PCR 7: the variable {} before the separator is none of Secure Boot's",
                    variable.name
                ));
            }
        } else if !rules.certificates.is_empty() && !authority(rules, &variable) {
            problems.push(format!(
                "PCR 7: an image was verified by {} of {}, which node.log.certificates does not list. Fix: take that key out of the firmware, or list it",
                hex::encode(&certificate(&variable)),
                variable.name
            ));
        }
    }
    if rules.secure_boot && on != Some(true) {
        let fact = if on.is_none() { "the log does not say that Secure Boot is on" } else { "Secure Boot is off" };
        problems.push(format!("PCR 7: {fact}. Fix: turn Secure Boot on in the firmware"));
    }
    if before && !rules.certificates.is_empty() {
        problems.push("PCR 7: no separator ends the firmware's part".into());
    }
}

fn authority(rules: &LogRules, variable: &Variable<'_>) -> bool {
    [hash(variable.value), certificate(variable)].iter().any(|digest| rules.certificates.contains(digest))
}

/// An EFI_SIGNATURE_DATA is its owner's GUID and the certificate; shim measures some certificates bare.
pub(crate) fn certificate(variable: &Variable<'_>) -> [u8; 32] {
    match variable.value.split_at_checked(16) {
        Some((_, der @ [0x30, ..])) if !variable.value.starts_with(&[0x30, 0x82]) => hash(der),
        _ => hash(variable.value),
    }
}

fn files(rules: &LogRules, log: &Proven<'_>, text: &str, problems: &mut Vec<String>) {
    if rules.files.is_empty() {
        return;
    }
    let lines = stub_digests(text);
    let before = problems.len();
    for event in log.of(9).filter(|e| !lines.contains(&e.digest) && !rules.files.contains(&e.digest)) {
        problems.push(format!(
            "PCR 9: {} was measured, which is neither this command line nor listed in node.log.files. Fix: boot the enrolled initrd and command line, or list it",
            hex::encode(&event.digest)
        ));
    }
    // The EFI stub measures no initrd that `initrd=` on the command line names.
    if problems.len() == before && !log.of(9).any(|event| rules.files.contains(&event.digest)) {
        problems.push(
            "PCR 9: no file of node.log.files was measured: this boot did not measure its initrd. Fix: hand the initrd over by a UKI, systemd-boot or GRUB, not by initrd= on the command line"
                .into(),
        );
    }
}

/// The EFI stub measures what it was handed, mostly with the zero at its end.
pub(crate) fn stub_digests(text: &str) -> [[u8; 32]; 2] {
    [command_line_digest(text), hash(&utf16(text, false))]
}

/// The text in /proc/cmdline is what was measured: after kexec it is not.
fn vouched(log: &Proven<'_>, text: &str, problems: &mut Vec<String>) {
    let stub = stub_digests(text);
    let by_stub = log.of(9).any(|e| stub.contains(&e.digest));
    let other = log.of(9).any(|e| is_load_options(e, log.data(e)) && !stub.contains(&e.digest));
    let grub: Vec<bool> = log.of(8).filter_map(|event| by_grub(log, event, text)).collect();
    if other || grub.contains(&false) {
        problems.push("PCR 8 or 9: another command line was measured than /proc/cmdline has: the running kernel is not the one that was booted, or the log's text does not match its digest. Fix: reboot".into());
    } else if !by_stub && grub.is_empty() {
        problems.push("PCR 8 and 9: nothing that was measured vouches for /proc/cmdline. Fix: boot a kernel with an EFI stub (Linux 5.17 or later), or GRUB 2.04 or later".into());
    }
}

/// None: not a command line of GRUB's. GRUB leaves `BOOT_IMAGE=` out of what it measures.
fn by_grub(log: &Proven<'_>, event: &Event, text: &str) -> Option<bool> {
    let measured = grub_command_line(log.data(event))?;
    let proven = hash(measured) == event.digest;
    Some(proven && [text, text.strip_prefix("BOOT_IMAGE=").unwrap_or(text)].iter().any(|t| t.as_bytes() == measured))
}

fn has_and_never(rules: &LogRules, text: &str, problems: &mut Vec<String>) {
    let words = words(text);
    for wanted in &rules.command_line_has {
        if !words.contains(wanted) {
            problems.push(format!("the kernel command line lacks {wanted:?} (node.log.command_line_has)"));
            continue;
        }
        // The kernel goes by the last of two.
        let name = |word: &str| word.split_once('=').map(|(name, _)| flat(name));
        if let Some(name) = name(wanted).as_ref()
            && words.iter().any(|word| word != wanted && word.split_once('=').is_some_and(|(n, _)| flat(n) == *name))
        {
            problems.push(format!("the kernel command line has {wanted:?} and another value of the same parameter"));
        }
    }
    for unwanted in &rules.command_line_never {
        if flat(text).contains(&flat(unwanted)) {
            problems.push(format!("the kernel command line contains {unwanted:?} (node.log.command_line_never)"));
        }
    }
}

/// To the kernel, `-` and `_` in a parameter's name are the same.
fn flat(text: &str) -> String {
    text.replace('-', "_")
}

fn shown(data: &[u8]) -> String {
    String::from_utf8_lossy(data).chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(60).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::Events;
    use super::super::parse::{propose, tests::Written};
    use super::super::shape::tests::written as var;
    use super::*;
    use std::collections::BTreeMap;

    pub(crate) const LINE: &str = "root=/dev/vda1 lockdown=integrity console=ttyS0 initrd=initrd";
    pub(crate) const KERNEL: [u8; 32] = [0x44; 32];
    const INITRD: [u8; 32] = [0x99; 32];
    pub(crate) const CERTIFICATE: &[u8] = &[0x30, 0x82, 1, 2, 3];
    const OPTIONS: &[u8] = b"\xed\x22\x3b\x8f\x1a\0\0\0LOADED_IMAGE::LoadOptions\0";

    /// A boot through the EFI stub with Secure Boot on, in the order that OVMF and Linux measure.
    pub(crate) struct Boot {
        line: String,
        kernel: [u8; 32],
        initrd: [u8; 32],
        secure_boot: u8,
        certificate: Vec<u8>,
        action: Option<&'static [u8]>,
    }

    impl Default for Boot {
        fn default() -> Self {
            let certificate = [&[7; 16][..], CERTIFICATE].concat();
            Self { line: LINE.into(), kernel: KERNEL, initrd: INITRD, secure_boot: 1, certificate, action: None }
        }
    }

    impl Boot {
        pub(crate) fn log(&self) -> Vec<u8> {
            let mut log = Written::new().said(7, 0x8000_0001, &var(&GLOBAL, "SecureBoot", &[self.secure_boot]));
            for name in ["PK", "KEK", "db", "dbx"] {
                log = log.said(7, 0x8000_0001, &var(&GLOBAL, name, b"list"));
            }
            if let Some(action) = self.action {
                log = log.said(7, 0x8000_0007, action);
            }
            log.said(4, 0x8000_0007, TEXTS[0])
                .said(4, 4, &[0; 4])
                .said(7, 4, &[0; 4])
                .said(7, 0x8000_00e0, &var(&[9; 16], "db", &self.certificate))
                .event(4, 0x8000_0003, self.kernel, b"path of the image")
                .event(9, 6, command_line_digest(&self.line), OPTIONS)
                .event(9, 6, self.initrd, b"\x8f\0\0\0\x0d\0\0\0Linux initrd\0")
                .0
        }
    }

    fn rules() -> LogRules {
        LogRules {
            images: vec![[1; 32], KERNEL],
            certificates: vec![hash(CERTIFICATE)],
            secure_boot: true,
            files: vec![INITRD],
            command_line_has: vec!["lockdown=integrity".into()],
            command_line_never: vec!["init=".into(), "module.sig_enforce=0".into()],
        }
    }

    fn found(rules: &LogRules, log: &[u8], line: &str) -> Vec<String> {
        let events = Events::decode(log, &propose(log)).unwrap();
        let quoted: BTreeMap<_, _> = events.replay().into_iter().filter(|(p, _)| [4, 7, 8, 9].contains(p)).collect();
        judge(rules, &events.prove(&quoted).unwrap(), format!("{line}\n").as_bytes())
    }

    #[track_caller]
    fn says(boot: &Boot, text: &str) {
        let problems = found(&rules(), &boot.log(), &boot.line);
        assert!(problems.len() == 1 && problems[0].contains(text), "{text}: {problems:?}");
    }

    #[test]
    fn truth_table() {
        // "init=" stands in "initrd=initrd" nowhere: the rule is about text, not about words.
        assert_eq!(found(&rules(), &Boot::default().log(), LINE), Vec::<String>::new());
        says(&Boot { kernel: [5; 32], ..Boot::default() }, "Authenticode digest 0505");
        says(&Boot { initrd: [5; 32], ..Boot::default() }, "PCR 9: 0505");
        // An initrd that nobody measured: nothing but the command line.
        says(&Boot { initrd: command_line_digest(LINE), ..Boot::default() }, "did not measure its initrd");
        says(&Boot { secure_boot: 0, ..Boot::default() }, "Secure Boot is off");
        says(&Boot { certificate: [&[7; 16][..], &[0x30, 0x82, 9]].concat(), ..Boot::default() }, "was verified by");
        says(&Boot { action: Some(b"UEFI Debug Mode"), ..Boot::default() }, "no EFI variable: UEFI Debug Mode");
        says(&Boot { line: LINE.replace("lockdown=integrity", ""), ..Boot::default() }, "lacks \"lockdown=integrity\"");
        says(&Boot { line: format!("{LINE} init=/bin/sh"), ..Boot::default() }, "contains \"init=\"");
        says(&Boot { line: format!("{LINE} lockdown=none"), ..Boot::default() }, "another value");
        says(&Boot { line: format!("{LINE} rdinit=/x"), ..Boot::default() }, "contains \"init=\"");
        says(&Boot { line: format!("{LINE} module.sig-enforce=0"), ..Boot::default() }, "sig_enforce");
        says(&Boot { line: LINE.replace("lockdown", "-- lockdown"), ..Boot::default() }, "lacks");
        says(
            &Boot { line: LINE.replace("lockdown=integrity", "x=\"a lockdown=integrity b\""), ..Boot::default() },
            "lacks",
        );
    }

    /// After kexec the log is the old boot's and /proc/cmdline the new one's.
    #[test]
    fn a_command_line_that_was_not_measured_is_refused() {
        let problems = found(&rules(), &Boot::default().log(), &format!("{LINE} evil=1"));
        assert!(problems.iter().any(|p| p.contains("another command line")), "{problems:?}");
        let unmeasured = LogRules { files: vec![], ..rules() };
        let problems = found(&unmeasured, &Written::new().event(4, 1, KERNEL, b"").0, LINE);
        assert!(problems.iter().any(|p| p.contains("nothing that was measured vouches")), "{problems:?}");
    }

    #[test]
    fn text_that_does_not_match_its_digest_is_refused() {
        let log = Boot::default().log();
        let on = var(&GLOBAL, "SecureBoot", &[1]);
        let at = log.windows(on.len()).position(|window| window == on).unwrap();
        // The variable's own byte, any byte of its name, a certificate.
        for change in [at + on.len() - 1, at + 40] {
            let mut bad = log.clone();
            bad[change] ^= 1;
            let problems = found(&rules(), &bad, LINE);
            assert!(problems.iter().any(|p| p.contains("does not match its digest")), "{problems:?}");
        }
        // GRUB's command line, painted over.
        let grub = |text: &[u8], painted: &[u8]| {
            Written::new().event(8, 13, hash(text), &[b"kernel_cmdline: ", painted, &[0]].concat()).0
        };
        let rules = LogRules { command_line_has: vec!["ro".into()], ..LogRules::default() };
        assert_eq!(
            found(&rules, &grub(b"/vmlinuz ro", b"/vmlinuz ro"), "BOOT_IMAGE=/vmlinuz ro"),
            Vec::<String>::new()
        );
        let problems = found(&rules, &grub(b"/vmlinuz rw", b"/vmlinuz ro"), "BOOT_IMAGE=/vmlinuz ro");
        assert!(problems[0].contains("another command line was measured"), "{problems:?}");
        let problems = found(&rules, &grub(b"/vmlinuz ro", b"/vmlinuz ro"), "BOOT_IMAGE=/vmlinuz ro quiet");
        assert!(problems[0].contains("another command line was measured"), "{problems:?}");
    }

    /// Types and labels are the log writer's: changing them must not hide what was measured.
    #[test]
    fn no_label_hides_a_digest() {
        let bad = Boot { secure_boot: 0, kernel: [5; 32], initrd: [6; 32], ..Boot::default() };
        let log = bad.log();
        let honest = found(&rules(), &log, LINE).len();
        assert_eq!(honest, 3);
        let events = Events::decode(&log, &propose(&log)).unwrap();
        for index in 0..events.list.len() {
            for kind in [1, 4, 6, 13, 0x8000_0001, 0x8000_0003, 0x8000_0007, 0x8000_00e0] {
                let mut events = events.clone();
                events.list[index].kind = kind;
                let quoted: BTreeMap<_, _> =
                    events.replay().into_iter().filter(|(p, _)| [4, 7, 8, 9].contains(p)).collect();
                let problems = judge(&rules(), &events.prove(&quoted).unwrap(), LINE.as_bytes());
                assert!(problems.len() >= honest, "{index} {kind:x}: {problems:?}");
            }
        }
    }

    #[test]
    fn rules_cover_a_pcr_only_when_they_judge_all_of_it() {
        assert_eq!(rules().covers(), BTreeSet::from([4, 7, 9]));
        assert_eq!(rules().quoted(), BTreeSet::from([4, 7, 8, 9]));
        assert_eq!(LogRules { certificates: vec![], ..rules() }.covers(), BTreeSet::from([4, 9]));
        assert_eq!(LogRules { secure_boot: false, images: vec![], ..rules() }.covers(), BTreeSet::from([9]));
        let mute = LogRules { command_line_has: vec![], command_line_never: vec![], ..rules() };
        assert_eq!(mute.covers(), BTreeSet::from([4, 7]));
        assert!(LogRules::default().quoted().is_empty());
    }
}
