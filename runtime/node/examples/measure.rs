//! Figures for the node check: `measure TPM` against a TPM whose PCRs 0, 4, 7 and 9 hold something.
//!
//! Prints one line each: enrolment, first attestation of a boot, a start on a kept verdict. Build it in release.
#![forbid(unsafe_code)]
use boltseal_node::{Boot, Error, NodePolicy, check, enroll, status};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

const FIRST: usize = 50;
const KEPT: usize = 500;

fn main() -> Result<(), Error> {
    let io = |e: std::io::Error| Error::Io("a folder for the verdict".into(), e.to_string());
    let tpm = std::env::args().nth(1).unwrap_or_else(|| "/dev/tpmrm0".into());
    let soon = || Instant::now() + Duration::from_secs(60);
    let begun = Instant::now();
    let enrolment = enroll(&tpm, soon())?;
    println!(
        "enrol        {:>9} us ({}, kept: {:?})",
        begun.elapsed().as_micros(),
        enrolment.manufacturer,
        enrolment.ak_handle
    );

    let dir = std::env::temp_dir().join(format!("node-measure-{}", std::process::id()));
    std::fs::create_dir(&dir).map_err(io)?;
    std::fs::set_permissions(&dir, Permissions::from_mode(0o700)).map_err(io)?;
    let pcrs = enrolment.pcrs.iter().filter(|(pcr, _)| [0, 4, 7, 9].contains(*pcr));
    let policy = NodePolicy {
        tpm: &tpm,
        ak_spki_pem: &enrolment.ak_spki_pem,
        pcrs: pcrs.map(|(pcr, value)| (*pcr, vec![*value])).collect(),
        log: None,
        ttl: Duration::from_secs(3600),
    };
    let mut all = [Vec::new(), Vec::new()];
    for round in 0..FIRST + KEPT {
        let fresh = round < FIRST;
        if fresh && round > 0 {
            std::fs::remove_file(dir.join("node.json")).map_err(io)?;
        }
        let state = check(&dir, &policy, "sha256:00", &Boot::current()?, soon());
        if !state.verified || state.fresh != fresh {
            return Err(Error::Refused(format!("{state:?}")));
        }
        all[usize::from(!fresh)].push(state.microseconds);
    }
    for (name, mut times) in ["attest       ", "kept verdict "].into_iter().zip(all) {
        times.sort_unstable();
        let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
        println!("{name}{:>9} us median, {} us p95, {} runs", at(50), at(95), times.len());
    }
    let seen = status(&dir, &policy, "sha256:00", &Boot::current()?, soon());
    println!("{seen:?}");
    std::fs::remove_dir_all(&dir).map_err(io)
}
