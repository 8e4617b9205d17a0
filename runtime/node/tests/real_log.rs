//! A log that OVMF, systemd-stub and Linux 6.12 wrote: a UKI with Secure Boot on, and the PCR values that its TPM had.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
use boltseal_node::log::{BootPath, Draft, Events, Known, LogRules, draft, judge, propose};
use boltseal_node::predict::{Parts, Path, efi_stub_pcr9, predict};
use std::collections::BTreeMap;

const LOG: &[u8] = include_bytes!("fixtures/uki-secure-boot.log");
const LINE: &str = "console=ttyS0 panic=-1 quiet lsm=landlock,lockdown,yama,integrity,apparmor,bpf";
/// As /sys/class/tpm/tpm0/pcr-sha256 showed them in that boot.
const PCRS: [(u32, &str); 8] = [
    (0, "1119fe2cc2550e9294b01a6355bfeb7ac1507139f07c0afec49f6644002acca9"),
    (1, "86a297bf5f89b24202ec2f7a1e2c7bf46b6f5060ff85cdb326c0a8f302027a62"),
    (2, "3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969"),
    (4, "014b937c9a8e4bd7c78c17d1fbf647a0c19aa9f02bcf2eabd8086ed109c0240f"),
    (5, "a5ceb755d043f32431d63e39f5161464620a3437280494b5850dc1b47cc074e0"),
    (7, "02a4f904010ebddfb1ce765622af8d48ac2408422e220ad4eed1e1856407f704"),
    (8, "0000000000000000000000000000000000000000000000000000000000000000"),
    (9, "dd265eb2515dbbae0cedc6303055126f8fb9a7354a4f496279ef88da37774068"),
];

fn bytes(hex: &str) -> [u8; 32] {
    std::array::from_fn(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap())
}

fn quoted() -> BTreeMap<u32, [u8; 32]> {
    PCRS.iter().map(|(pcr, hex)| (*pcr, bytes(hex))).collect()
}

fn drawn() -> Draft {
    let answer = propose(LOG);
    draft(&Events::decode(LOG, &answer).unwrap().prove(&quoted()).unwrap(), LINE.as_bytes())
}

#[test]
fn it_replays_to_what_the_tpm_had() {
    let answer = propose(LOG);
    let events = Events::decode(LOG, &answer).unwrap();
    let replayed = events.replay();
    for (pcr, value) in quoted() {
        assert_eq!(replayed[&pcr], value, "PCR {pcr}");
    }
    assert!(matches!(Known(&events).boot_path(), BootPath::Uki));
    assert!(events.prove(&quoted()).is_ok());
}

#[test]
fn the_rules_that_it_gives_hold_for_it_and_for_no_other_line() {
    let drawn = drawn();
    assert_eq!((drawn.secure_boot, drawn.command_line_vouched), (Some(true), true));
    assert_eq!((drawn.images.len(), drawn.certificates.len(), drawn.files.len()), (1, 1, 1));
    let read = |list: &[boltseal_node::log::Labelled]| list.iter().map(|l| bytes(&l.digest)).collect::<Vec<_>>();
    let rules = LogRules {
        images: read(&drawn.images),
        certificates: read(&drawn.certificates),
        secure_boot: true,
        files: read(&drawn.files),
        command_line_has: vec!["panic=-1".into()],
        command_line_never: vec!["init=".into()],
    };
    let answer = propose(LOG);
    let proven = || Events::decode(LOG, &answer).unwrap().prove(&quoted()).unwrap();
    assert_eq!(judge(&rules, &proven(), format!("{LINE}\n").as_bytes()), Vec::<String>::new());
    let other = judge(&rules, &proven(), format!("{LINE} init=/bin/sh\n").as_bytes());
    assert!(other.iter().any(|p| p.contains("another command line")), "{other:?}");
    for empty in [
        LogRules { images: vec![[1; 32]], ..rules.clone() },
        LogRules { certificates: vec![[1; 32]], ..rules.clone() },
        LogRules { files: vec![[1; 32]], ..rules.clone() },
    ] {
        assert_eq!(judge(&empty, &proven(), LINE.as_bytes()).len(), 1);
    }
}

/// Any byte changed: what is then still proven has the same rules' outcome, or is refused.
#[test]
fn no_changed_byte_makes_it_say_something_else() {
    let drawn = drawn();
    for at in (0..LOG.len()).step_by(7) {
        let mut log = LOG.to_vec();
        log[at] ^= 1;
        let answer = propose(&log);
        let Ok(Ok(proven)) = Events::decode(&log, &answer).map(|events| events.prove(&quoted())) else { continue };
        let again = draft(&proven, LINE.as_bytes());
        let digests = |list: &[boltseal_node::log::Labelled]| list.iter().map(|l| l.digest.clone()).collect::<Vec<_>>();
        assert_eq!(digests(&again.images), digests(&drawn.images), "byte {at}");
        assert_eq!(digests(&again.files), digests(&drawn.files), "byte {at}");
        // Text that no longer matches its digest is not looked at: something may be missing, nothing may be added.
        assert!(again.certificates.is_empty() || again.certificates == drawn.certificates, "byte {at}");
        assert!(again.secure_boot != Some(false), "byte {at}");
    }
}

#[test]
fn pcr_9_is_predicted_from_its_parts() {
    let drawn = drawn();
    let initrd = Some(bytes(&drawn.files[0].digest));
    assert_eq!(efi_stub_pcr9(LINE, initrd), quoted()[&9]);
    let parts = Parts { command_line: LINE.into(), initrd, kernel: None };
    assert_eq!(predict(Path::EfiStub, &parts, None).unwrap().pcrs[&9], quoted()[&9]);
}

/// A log that is read on another machine: its command line is not this one's, and is no file either.
#[test]
fn another_machines_command_line_is_no_file() {
    let answer = propose(LOG);
    let proven = Events::decode(LOG, &answer).unwrap().prove(&quoted()).unwrap();
    let drawn = draft(&proven, b"root=/dev/sda1\n");
    assert!(!drawn.command_line_vouched);
    assert_eq!(drawn.files.iter().map(|f| f.label.as_str()).collect::<Vec<_>>(), ["Linux initrd"]);
}
