//! Figures for the node check: `measure TPM` against a fresh software TPM, whose PCRs 0, 4, 7 and 9 it extends itself.
//!
//! Prints one line each: enrolment, first attestation of a boot and a start on a kept verdict, with accepted values alone and with rules on
//! an event log of 60 events. Build it in release.
#![forbid(unsafe_code)]
use boltseal_node::log::{LogRules, LogSource, propose};
use boltseal_node::tpm::Tpm;
use boltseal_node::{Boot, Error, LogPolicy, NodePolicy, check, enroll};
use ring::digest::{SHA256, digest};
use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

const FIRST: usize = 50;
const KEPT: usize = 500;
const EVENTS: usize = 60;
const LINE: &str = "root=/dev/vda1 lockdown=integrity";

fn main() -> Result<(), Error> {
    let io = |e: std::io::Error| Error::Io("a folder for the verdict".into(), e.to_string());
    let address = std::env::args().nth(1).unwrap_or_else(|| "/dev/tpmrm0".into());
    let soon = || Instant::now() + Duration::from_secs(60);
    let boot = measure(&mut Tpm::open(&address, soon())?)?;
    let begun = Instant::now();
    let enrolment = enroll(&address, soon())?;
    println!(
        "enrol                  {:>7} us ({}, kept: {:?})",
        begun.elapsed().as_micros(),
        enrolment.manufacturer,
        enrolment.ak_handle
    );

    let dir = std::env::temp_dir().join(format!("node-measure-{}", std::process::id()));
    std::fs::create_dir(&dir).map_err(io)?;
    std::fs::set_permissions(&dir, Permissions::from_mode(0o700)).map_err(io)?;
    let values = |wanted: &[u32]| -> BTreeMap<u32, Vec<[u8; 32]>> {
        let all = enrolment.pcrs.iter().filter(|(pcr, _)| wanted.contains(pcr));
        all.map(|(pcr, value)| (*pcr, vec![*value])).collect()
    };
    let rules = LogRules {
        images: boot.images.clone(),
        files: vec![[0x99; 32]],
        command_line_has: vec!["lockdown=integrity".into()],
        command_line_never: vec!["init=".into()],
        ..LogRules::default()
    };
    for (name, pcrs, log) in
        [("values", values(&[0, 4, 7, 9]), None), ("log   ", values(&[0, 7]), Some(LogPolicy { rules, source: &boot }))]
    {
        let policy = NodePolicy {
            tpm: &address,
            ak_spki_pem: &enrolment.ak_spki_pem,
            pcrs,
            log,
            cap: None,
            ttl: Duration::from_secs(3600),
        };
        let mut all = [Vec::new(), Vec::new()];
        for round in 0..FIRST + KEPT {
            let fresh = round < FIRST;
            if fresh && dir.join("node.json").exists() {
                std::fs::remove_file(dir.join("node.json")).map_err(io)?;
            }
            let state = check(&dir, &policy, "sha256:00", &Boot::current()?, soon());
            if !state.verified || state.fresh != fresh {
                return Err(Error::Refused(format!("{state:?}")));
            }
            all[usize::from(!fresh)].push(state.microseconds);
        }
        for (kind, mut times) in ["attest      ", "kept verdict"].into_iter().zip(all) {
            times.sort_unstable();
            let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
            println!("{name} {kind}    {:>7} us median, {} us p95, {} runs", at(50), at(95), times.len());
        }
    }
    std::fs::remove_dir_all(&dir).map_err(io)
}

/// A boot of many images, as firmware writes it.
#[derive(Debug)]
struct Synthetic {
    log: Vec<u8>,
    images: Vec<[u8; 32]>,
}

fn measure(tpm: &mut Tpm) -> Result<Synthetic, Error> {
    let mut event = b"Spec ID Event03\0".to_vec();
    event.extend([0, 0, 0, 0, 0, 2, 0, 2, 1, 0, 0, 0, 0x0b, 0, 32, 0, 0]);
    let mut log = vec![0, 0, 0, 0, 3, 0, 0, 0];
    log.extend([0; 20]);
    log.extend(u32::try_from(event.len()).unwrap_or(0).to_le_bytes());
    log.extend(event);
    let images: Vec<[u8; 32]> = (0..EVENTS - 4).map(|n| hash(&n.to_le_bytes())).collect();
    let line: Vec<u8> = LINE.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    let rest = [(0, [0x10; 32]), (7, [0x17; 32]), (9, hash(&line)), (9, [0x99; 32])];
    for (pcr, value) in images.iter().map(|image| (4, *image)).chain(rest) {
        tpm.extend(pcr, &value)?;
        for number in [pcr, 0x8000_0003, 1] {
            log.extend(number.to_le_bytes());
        }
        log.extend([0x0b, 0]);
        log.extend(value);
        log.extend(200_u32.to_le_bytes());
        log.extend([0; 200]);
    }
    Ok(Synthetic { log, images })
}

impl LogSource for Synthetic {
    fn log(&self) -> Result<Vec<u8>, Error> {
        Ok(self.log.clone())
    }

    fn propose(&self, log: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(propose(log))
    }

    fn command_line(&self) -> Result<Vec<u8>, Error> {
        Ok(format!("{LINE}\n").into_bytes())
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}
