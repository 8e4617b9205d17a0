//! What is measured of boltseal itself, on a software TPM.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
mod common;

use boltseal_node::Boot;
use boltseal_node::measured::{self, Log, Now, PCR};
use common::{Node, closed_folder, denied, measure, passes, put, soon};
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

const OTHER_BOOT: &str = "0f5dbb6c-31f6-4c0e-8b6a-5f6f0a7d9b11";

struct Case {
    node: Node,
    programs: Vec<PathBuf>,
    _bin: TempDir,
}

impl Case {
    fn new() -> Self {
        let (node, bin) = (Node::new(), closed_folder());
        let programs: Vec<_> = ["gate", "shim"].map(|name| bin.path().join(name)).into();
        programs.iter().for_each(|path| fs::write(path, path.to_str().unwrap()).unwrap());
        Self { node, programs, _bin: bin }
    }

    fn measure(&self, now: Now<'_>) -> Result<Log, String> {
        let (dir, tpm) = (self.node.dir.path(), &self.node.tpm);
        measured::measure(dir, tpm, &self.programs, now, &self.node.boot, soon()).map_err(|e| e.to_string())
    }

    fn pcr(&self) -> [u8; 32] {
        self.node.swtpm.open().pcrs([PCR]).unwrap()[&PCR]
    }

    fn kept(&self) -> Log {
        measured::read(self.node.dir.path(), &self.node.boot).unwrap().unwrap()
    }

    fn note(&self) -> PathBuf {
        self.node.dir.path().join("measured")
    }
}

const ONE: Now<'static> = Now { signer: Some("key"), bundle: "one" };
const TWO: Now<'static> = Now { signer: Some("key"), bundle: "two" };

#[test]
fn what_is_measured_is_what_the_pcr_shows_and_what_is_compared() {
    let case = Case::new();
    assert_eq!(measured::read(case.node.dir.path(), &case.node.boot), Ok(None));
    let log = case.measure(ONE).unwrap();
    assert_eq!((case.pcr(), &case.kept()), (log.value(), &log));
    assert_eq!(log.differences(ONE), Vec::<String>::new());
    // Once more is no event; a new bundle is one, and the old one is then not in force.
    assert_eq!(case.measure(ONE).unwrap().value(), case.pcr());
    let before = case.pcr();
    let log = case.measure(TWO).unwrap();
    assert_ne!(case.pcr(), before);
    assert_eq!(case.pcr(), log.value());
    assert_eq!(case.kept().differences(TWO), Vec::<String>::new());
    assert_eq!(case.kept().differences(ONE), ["the policy bundle is not the one measured in this boot"]);
    for signer in [None, Some("none"), Some("other")] {
        let now = Now { signer, bundle: "two" };
        assert_eq!(case.kept().differences(now), ["the pinned signing key is not the one measured in this boot"]);
        assert!(case.measure(now).unwrap_err().contains("boot anew"));
    }
}

#[test]
fn a_program_that_was_touched_is_hashed_and_one_that_was_changed_is_told() {
    let case = Case::new();
    let log = case.measure(ONE).unwrap();
    let (gate, text) = (&case.programs[0], fs::read(&case.programs[0]).unwrap());
    // The same bytes in another file.
    fs::remove_file(gate).unwrap();
    fs::write(gate, &text).unwrap();
    assert_eq!(log.differences(ONE), Vec::<String>::new());
    fs::write(gate, "other").unwrap();
    assert_eq!(log.differences(ONE), [format!("{} is not the one measured in this boot", gate.display())]);
    assert!(case.measure(TWO).unwrap_err().contains("is not the one measured"));
    fs::remove_file(gate).unwrap();
    std::os::unix::fs::symlink(&case.programs[1], gate).unwrap();
    assert_eq!(log.differences(ONE).len(), 1);
    fs::remove_file(gate).unwrap();
    assert_eq!(log.differences(ONE).len(), 1);
    // This test is not one of the programs.
    assert!(log.runs().is_err());
}

#[test]
fn the_program_that_asks_is_known_by_its_stamp() {
    let mut case = Case::new();
    case.programs.push(std::env::current_exe().unwrap());
    case.measure(ONE).unwrap().runs().unwrap();
}

/// A note is worth nothing without the quote.
#[test]
fn the_quote_must_show_what_the_note_leads_to() {
    let mut case = Case::new();
    let log = case.measure(ONE).unwrap();
    case.node.pcrs.insert(PCR, vec![log.value()]);
    passes(&case.node.check());
    // Root measures something else on top and writes a note without the first event.
    let forged = fs::read_to_string(case.note()).unwrap().replace("bundle one", "bundle two");
    case.node.swtpm.extend(PCR, 7);
    put(&case.note(), forged.as_bytes());
    fs::remove_file(case.node.file()).unwrap();
    case.node.pcrs.insert(PCR, vec![case.kept().value()]);
    denied(&case.node.check(), "PCR 13");
    assert!(case.measure(ONE).unwrap_err().contains("another program extended it"));
}

#[test]
fn a_boot_is_measured_from_zero_and_a_note_is_of_its_boot() {
    let mut case = Case::new();
    case.measure(ONE).unwrap();
    let other = Boot { boot_id: OTHER_BOOT.into(), ..case.node.boot.clone() };
    assert_eq!(measured::read(case.node.dir.path(), &other), Ok(None));
    // Without its note, or with one of another boot, what is in the PCR is nobody's.
    let note = fs::read(case.note()).unwrap();
    fs::remove_file(case.note()).unwrap();
    assert!(case.measure(ONE).unwrap_err().contains("the note of it is gone"));
    case.node.swtpm = std::mem::replace(&mut case.node.swtpm, common::Swtpm::start()).reboot();
    measure(&case.node.swtpm);
    case.node.tpm = case.node.swtpm.address();
    case.node.boot = other;
    put(&case.note(), &note);
    assert_eq!(case.measure(TWO).unwrap().value(), case.pcr());
}

#[test]
fn a_run_that_was_killed_is_taken_up() {
    let case = Case::new();
    case.measure(ONE).unwrap();
    // Noted, and extended or not.
    for (extended, bundle) in [(false, "two"), (true, "three")] {
        let text = fs::read_to_string(case.note()).unwrap() + &format!("bundle {bundle}\n");
        put(&case.node.dir.path().join("measured.next"), text.as_bytes());
        if extended {
            let event = ring::digest::digest(
                &ring::digest::SHA256,
                format!("boltseal-measured 1\nbundle {bundle}\n").as_bytes(),
            );
            case.node.swtpm.open().extend(PCR, event.as_ref().try_into().unwrap()).unwrap();
        }
        let log = case.measure(Now { signer: Some("key"), bundle }).unwrap();
        assert_eq!(log.value(), case.pcr(), "{bundle}");
        assert_eq!(case.kept(), log);
    }
}

#[test]
fn only_our_own_note_is_one() {
    let case = Case::new();
    case.measure(ONE).unwrap();
    let good = fs::read_to_string(case.note()).unwrap();
    let read = || measured::read(case.node.dir.path(), &case.node.boot);
    for bad in [
        String::new(),
        good.trim_end().into(),
        good.clone() + "more x\n",
        good.clone() + "\n",
        good.replace("boltseal-measured 1", "boltseal-measured 2"),
        good.replace("bundle one\n", ""),
        good.lines().filter(|l| !l.starts_with("program")).map(|l| format!("{l}\n")).collect(),
        good.clone() + &"bundle x\n".repeat(10_000),
    ] {
        put(&case.note(), bad.as_bytes());
        assert!(read().is_err(), "{bad:.200}");
    }
    put(&case.note(), good.as_bytes());
    assert!(read().unwrap().is_some());
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(case.note(), fs::Permissions::from_mode(0o604)).unwrap();
    assert!(read().unwrap_err().to_string().contains("root's alone"));
    fs::remove_file(case.note()).unwrap();
    std::os::unix::fs::symlink("/dev/zero", case.note()).unwrap();
    assert!(read().is_err());
}
