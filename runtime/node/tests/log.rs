//! A software TPM whose PCRs hold what an event log says, and each way in which the two do not fit, with its twin.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod common;

use boltseal_node::log::{BootPath, LogRules, LogSource, propose};
use boltseal_node::{Error, LogPolicy, NodePolicy, NodeState, check, enroll, status};
use common::{Node, Swtpm, denied, passes, soon};
use ring::digest::{SHA256, digest};
use std::collections::BTreeMap;
use std::sync::Mutex;

const LINE: &str = "root=/dev/vda1 lockdown=integrity";

fn hash(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().unwrap()
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// Firmware and kernel: they extend the TPM and write the log.
struct Firmware {
    swtpm: Swtpm,
    log: Vec<u8>,
}

impl Firmware {
    fn new() -> Self {
        let mut event = b"Spec ID Event03\0".to_vec();
        event.extend([0, 0, 0, 0, 0, 2, 0, 2, 1, 0, 0, 0, 0x0b, 0, 32, 0, 0]);
        let mut log = vec![0, 0, 0, 0, 3, 0, 0, 0];
        log.extend([0; 20]);
        log.extend((event.len() as u32).to_le_bytes());
        log.extend(event);
        Self { swtpm: Swtpm::start(), log }
    }

    fn measure(&mut self, pcr: u32, kind: u32, value: [u8; 32], data: &[u8]) {
        self.swtpm.open().extend(pcr, &value).unwrap();
        self.write(pcr, kind, value, data);
    }

    fn write(&mut self, pcr: u32, kind: u32, value: [u8; 32], data: &[u8]) {
        for number in [pcr, kind, 1] {
            self.log.extend(number.to_le_bytes());
        }
        self.log.extend([0x0b, 0]);
        self.log.extend(value);
        self.log.extend((data.len() as u32).to_le_bytes());
        self.log.extend(data);
    }

    fn boot(mut self, line: &str, kernel: [u8; 32]) -> Booted {
        let secure_boot = variable("SecureBoot", &[1]);
        self.measure(0, 1, [0x10; 32], b"firmware");
        self.measure(7, 0x8000_0001, hash(&secure_boot), &secure_boot);
        self.measure(4, 4, hash(&[0; 4]), &[0; 4]);
        self.measure(7, 4, hash(&[0; 4]), &[0; 4]);
        self.measure(4, 0x8000_0003, kernel, b"where it lay");
        self.measure(9, 6, hash(&utf16(line)), b"\xed\x22\x3b\x8f\x1a\0\0\0LOADED_IMAGE::LoadOptions\0");
        self.measure(9, 6, [0x99; 32], b"\x8f\0\0\0\x0d\0\0\0Linux initrd\0");
        let enrolment = enroll(&self.swtpm.address(), soon()).unwrap();
        let mut node = Node::new();
        (node.tpm, node.enrolment, node.swtpm) = (self.swtpm.address(), enrolment, self.swtpm);
        node.pcrs = BTreeMap::from([(7, vec![node.enrolment.pcrs[&7]])]);
        let source = Source { log: Mutex::new(self.log), line: Mutex::new(line.into()), lie: Mutex::new(None) };
        let rules = LogRules {
            images: vec![[0x44; 32]],
            secure_boot: true,
            files: vec![[0x99; 32]],
            command_line_has: vec!["lockdown=integrity".into()],
            command_line_never: vec!["init=".into()],
            ..LogRules::default()
        };
        Booted { node, source, rules }
    }
}

fn variable(name: &str, value: &[u8]) -> Vec<u8> {
    let mut out = vec![0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c];
    out.extend((name.len() as u64).to_le_bytes());
    out.extend((value.len() as u64).to_le_bytes());
    out.extend(name.encode_utf16().flat_map(u16::to_le_bytes));
    out.extend(value);
    out
}

#[derive(Debug)]
struct Source {
    log: Mutex<Vec<u8>>,
    line: Mutex<String>,
    /// What a worker that lies answers.
    lie: Mutex<Option<Vec<u8>>>,
}

impl LogSource for Source {
    fn log(&self) -> Result<Vec<u8>, Error> {
        Ok(self.log.lock().unwrap().clone())
    }

    fn propose(&self, log: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.lie.lock().unwrap().clone().unwrap_or_else(|| propose(log)))
    }

    fn command_line(&self) -> Result<Vec<u8>, Error> {
        Ok(format!("{}\n", self.line.lock().unwrap()).into_bytes())
    }
}

struct Booted {
    node: Node,
    source: Source,
    rules: LogRules,
}

impl Booted {
    fn good() -> Self {
        Firmware::new().boot(LINE, [0x44; 32])
    }

    fn check(&self) -> NodeState {
        let log = LogPolicy { rules: self.rules.clone(), source: &self.source };
        let policy = NodePolicy { log: Some(log), ..self.node.policy() };
        check(self.node.dir.path(), &policy, &self.node.digest, &self.node.boot, soon())
    }

    fn anew(&self) -> NodeState {
        std::fs::remove_file(self.node.file()).unwrap_or_default();
        self.check()
    }

    #[track_caller]
    fn with_log(&self, log: Vec<u8>, said: &str) {
        let good = std::mem::replace(&mut *self.source.log.lock().unwrap(), log);
        denied(&self.anew(), said);
        assert!(!self.node.file().exists());
        *self.source.log.lock().unwrap() = good;
        passes(&self.anew());
    }
}

#[test]
fn a_log_that_leads_to_the_quote_is_judged_once_per_boot() {
    let booted = Booted::good();
    let first = booted.check();
    passes(&first);
    assert!(first.fresh);
    let text = std::fs::read_to_string(booted.node.file()).unwrap();
    let digest: String = hash(&booted.source.log().unwrap()).iter().map(|b| format!("{b:02x}")).collect();
    assert!(text.contains(&format!("\"log\":\"{digest}\"")), "{text}");
    assert!(text.contains("\"4\":") && text.contains("\"8\":") && text.contains("\"9\":"), "{text}");
    // The next start needs neither TPM nor log.
    booted.source.log.lock().unwrap().clear();
    let second = booted.check();
    passes(&second);
    assert!(!second.fresh);
    denied(&booted.anew(), "malformed event log");
}

#[test]
fn status_shows_what_the_log_says_now() {
    let booted = Booted::good();
    let look = |booted: &Booted| {
        let log = LogPolicy { rules: booted.rules.clone(), source: &booted.source };
        let policy = NodePolicy { log: Some(log), ..booted.node.policy() };
        status(booted.node.dir.path(), &policy, &booted.node.digest, &booted.node.boot, soon())
    };
    passes(&booted.check());
    let seen = look(&booted);
    assert!(seen.verified && seen.problems.is_empty() && seen.log.as_ref().unwrap().good, "{seen:?}");
    assert_eq!(seen.log.unwrap().boot_path, BootPath::EfiStub);
    assert!([4, 7, 8, 9].iter().all(|pcr| seen.pcrs[pcr].1), "{:?}", seen.pcrs);
    *booted.source.line.lock().unwrap() = "root=/dev/sda1".into();
    let seen = look(&booted);
    assert!(seen.verified && !seen.log.as_ref().unwrap().good, "the verdict still holds: {seen:?}");
    assert!(seen.problems.iter().any(|p| p.contains("another command line")), "{seen:?}");
    booted.source.log.lock().unwrap().pop();
    let seen = look(&booted);
    assert!(seen.log.is_none() && seen.problems[0].contains("event log"), "{seen:?}");
}

#[test]
fn a_log_that_is_cut_padded_or_huge_denies() {
    let booted = Booted::good();
    passes(&booted.check());
    let log = booted.source.log().unwrap();
    booted.with_log(log[..log.len() - 1].to_vec(), "middle of an event");
    // The last event is gone, and nothing but that.
    let last = b"\x8f\0\0\0\x0d\0\0\0Linux initrd\0".len() + 4 + 32 + 2 + 12;
    booted.with_log(log[..log.len() - last].to_vec(), "leads PCR 9 to");
    booted.with_log([&log[..], &[0; 64]].concat(), "without a SHA-256 digest");
    booted.with_log([&log[..], &log[45..]].concat(), "event log");
    booted.with_log(vec![0x5a; 100 << 20], "larger than 2 MiB");
    booted.with_log(Vec::new(), "middle of an event");
}

#[test]
fn a_log_that_tells_another_boot_denies() {
    let booted = Booted::good();
    let log = booted.source.log().unwrap();
    // Any byte of it, changed: what is still accepted has the true digests in the PCRs that were quoted.
    let quoted = |log: &[u8]| -> Vec<Vec<u8>> {
        let records = propose(log)[1..].chunks(48).map(|r| [&r[..4], &r[8..40]].concat()).collect::<Vec<_>>();
        records.into_iter().filter(|r| [4, 7, 8, 9].contains(&r[3])).collect()
    };
    for at in (0..log.len()).step_by(3) {
        let mut bad = log.clone();
        bad[at] ^= 0x20;
        *booted.source.log.lock().unwrap() = bad.clone();
        if booted.anew().verified {
            assert_eq!(quoted(&log), quoted(&bad), "byte {at}");
        }
    }
    *booted.source.log.lock().unwrap() = log.clone();
    passes(&booted.anew());
    // The text of a variable that is not what was hashed.
    let secure_boot = variable("SecureBoot", &[1]);
    let start = log.windows(secure_boot.len()).position(|w| w == secure_boot).unwrap();
    let mut painted = log.clone();
    painted[start + secure_boot.len() - 1] = 2;
    booted.with_log(painted, "does not match its digest");
}

#[test]
fn each_rule_denies_the_boot_that_breaks_it() {
    for (line, kernel, said) in [
        ("root=/dev/vda1", [0x44; 32], "lacks \"lockdown=integrity\""),
        ("root=/dev/vda1 lockdown=integrity init=/bin/sh", [0x44; 32], "contains \"init=\""),
        (LINE, [0x45; 32], "Authenticode digest 4545"),
    ] {
        let booted = Firmware::new().boot(line, kernel);
        let state = booted.check();
        denied(&state, said);
        assert!(state.problems.len() == 1 && !booted.node.file().exists(), "{state:?}");
    }
    // Another command line than the measured one, as after kexec.
    let booted = Booted::good();
    passes(&booted.check());
    *booted.source.line.lock().unwrap() = format!("{LINE} evil=1");
    passes(&booted.check());
    denied(&booted.anew(), "another command line was measured");
    // A PCR that moves after the boot, and is in no log, is a matter of its value alone.
    let mut booted = Booted::good();
    booted.node.swtpm.extend(14, 0x77);
    let moved = booted.node.swtpm.open().pcrs([14]).unwrap()[&14];
    booted.node.pcrs.insert(14, vec![moved]);
    passes(&booted.check());
    booted.node.swtpm.extend(14, 0x78);
    denied(&booted.anew(), "PCR 14 is ");
    // A wrong value does not hide the rule that the log breaks as well.
    *booted.source.line.lock().unwrap() = format!("{LINE} evil=1");
    let both = booted.anew();
    denied(&both, "PCR 14 is ");
    denied(&both, "another command line was measured");
    assert!(both.wrong_pcrs.len() == 1 && !booted.node.file().exists(), "{both:?}");
    // A PCR with accepted values keeps to them.
    let mut booted = Booted::good();
    booted.node.pcrs.insert(7, vec![[1; 32]]);
    denied(&booted.check(), "PCR 7 is ");
    booted.node.pcrs.clear();
    denied(&booted.check(), "covers PCR 7 by neither");
}

/// Whatever a worker answers: the events it names lead to the quoted values, or nothing is attested.
#[test]
fn a_worker_is_not_believed() {
    let booted = Firmware::new().boot(LINE, [0x45; 32]);
    let log = booted.source.log().unwrap();
    let honest = propose(&log);
    let evil = honest.windows(32).position(|w| w == [0x45; 32]).unwrap();
    let mut painted = honest.clone();
    painted[evil..evil + 32].fill(0x44);
    let mut relabelled = honest.clone();
    relabelled[evil - 4..evil].copy_from_slice(&3_u32.to_be_bytes());
    let mut moved = honest.clone();
    moved[evil - 5] = 5;
    for (lie, said) in [
        (painted, "leads PCR 4 to"),
        (relabelled, "leads PCR 4 to"),
        (moved, "leads PCR 4 to"),
        (b"L".to_vec(), "leads PCR 4 to"),
        (b"".to_vec(), "neither events nor an error"),
        (honest, "Authenticode digest 4545"),
    ] {
        *booted.source.lie.lock().unwrap() = Some(lie);
        denied(&booted.anew(), said);
    }
    let mut accepting = booted;
    accepting.rules.images.push([0x45; 32]);
    passes(&accepting.anew());
}

/// A verdict that a policy without log rules made is none for one with them, and the other way round.
#[test]
fn a_verdict_without_its_log_is_not_used() {
    let booted = Booted::good();
    let mut plain = Node::new();
    passes(&booted.check());
    let kept = std::fs::read(booted.node.file()).unwrap();
    let text = String::from_utf8(kept).unwrap();
    let start = text.find("\"log\":").unwrap();
    let without = format!("{}{}", &text[..start], &text[start + 6 + 66 + 1..]);
    booted.node.put(without.as_bytes());
    let state = booted.check();
    passes(&state);
    assert!(state.fresh && state.notes[0].contains("event log was judged"), "{state:?}");
    let other = text.replacen(&text[start + 7..start + 9], "zz", 1).replacen("zz", "00", 1);
    booted.node.put(other.as_bytes());
    let state = booted.check();
    passes(&state);
    assert!(state.fresh || other == text, "{state:?}");
    plain.put(text.as_bytes());
    plain.ttl = common::TTL;
    let state = plain.check();
    passes(&state);
    assert!(state.fresh && !state.notes.is_empty());
}
