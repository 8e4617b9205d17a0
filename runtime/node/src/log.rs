//! The event log of a measured boot: what firmware, boot loader and kernel say that they put into the PCRs.
//!
//! ```text
//! parse     bytes -> events                  in a jailed worker: an attacker before the boot wrote them
//! prove     events -> replay == quote        fixed code; the worker and the log are not believed
//! judge     proven events + rules -> problems
//! ```
//! Only digests are proven. Text and labels in the log are not, so a rule either looks at the digest alone, or at bytes
//! whose digest it has computed itself. Format: TCG PC Client Platform Firmware Profile 1.06, section 10.
mod draft;
pub(crate) mod events;
mod judge;
pub(crate) mod parse;
pub(crate) mod prove;
pub(crate) mod shape;

pub use draft::{Draft, Labelled, draft};
pub use events::{Event, Events};
pub(crate) use judge::stub_digests;
pub(crate) use judge::{COVERED, JUDGED};
pub use judge::{LogRules, judge};
pub use parse::propose;
pub use prove::Proven;
pub use shape::{BootPath, Known, words};

use crate::Error;
use boltseal_jail::{Jail, Parse};
use std::fmt::Debug;
use std::time::Instant;

/// Longest log that is read, bytes. A server's is 20 to 200 KB.
pub const MAX_LOG: usize = 2 << 20;
/// Most events that are taken from one.
pub const MAX_EVENTS: usize = 8192;

/// Where an attestation has its log from.
pub trait LogSource: Debug {
    /// The log's bytes; one byte above [`MAX_LOG`] at most.
    fn log(&self) -> Result<Vec<u8>, Error>;
    /// Takes them apart: [`apart`].
    fn propose(&self, log: &[u8]) -> Result<Vec<u8>, Error>;
    /// `/proc/cmdline`.
    fn command_line(&self) -> Result<Vec<u8>, Error>;
}

/// Runs [`propose`] in a jailed worker. What comes back is not believed: [`Events::decode`], [`Events::prove`].
///
/// # Errors
/// The worker was killed or took too long.
pub fn apart(log: &[u8], deadline: Instant) -> Result<Vec<u8>, Error> {
    let told = Jail::new(deadline).and_then(|jail| jail.parse(|_, log| propose(log), 0, log));
    told.map_err(|why| Error::Refused(format!("the event log could not be taken apart: {why}")))
}

/// The log of the kernel's own TPM.
#[derive(Debug, Clone, Copy)]
pub struct Kernel<'a> {
    /// The TPM's address in the policy.
    pub tpm: &'a str,
    /// For taking it apart.
    pub deadline: Instant,
}

impl Kernel<'_> {
    /// # Errors
    /// A software TPM has no log; or the kernel shows none.
    pub fn log(&self) -> Result<Vec<u8>, Error> {
        let number = self.tpm.strip_prefix("/dev/tpmrm").ok_or_else(|| {
            Error::refused(
                "a software TPM has no event log. Fix: name accepted values in [node.pcrs] and leave out [node.log]",
            )
        })?;
        let path = format!("/sys/kernel/security/tpm{number}/binary_bios_measurements");
        read(&path, MAX_LOG).map_err(|e| {
            Error::refused(format!("the event log cannot be read: {e}. Fix: mount -t securityfs none /sys/kernel/security; the firmware must hand a log on"))
        })
    }

    /// # Errors
    /// When /proc is not there.
    pub fn command_line(&self) -> Result<Vec<u8>, Error> {
        read("/proc/cmdline", 64 << 10)
    }
}

impl LogSource for Kernel<'_> {
    fn log(&self) -> Result<Vec<u8>, Error> {
        Kernel::log(self)
    }

    fn propose(&self, log: &[u8]) -> Result<Vec<u8>, Error> {
        apart(log, self.deadline)
    }

    fn command_line(&self) -> Result<Vec<u8>, Error> {
        Kernel::command_line(self)
    }
}

/// At most one byte more than `limit`.
fn read(path: &str, limit: usize) -> Result<Vec<u8>, Error> {
    use std::io::Read;
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
    Ok(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::time::Duration;

    fn kernel(tpm: &str) -> Kernel<'_> {
        Kernel { tpm, deadline: Instant::now() + Duration::from_secs(5) }
    }

    /// A worker takes a log apart, also one that is none; whatever kills it is told.
    #[test]
    fn a_log_is_taken_apart_in_a_jail() {
        let source = kernel("/dev/tpmrm0");
        let told = |log: &[u8]| source.propose(log).unwrap();
        assert_eq!(told(b"junk"), propose(b"junk"));
        assert_eq!(told(&vec![0; 3 << 20]), propose(&vec![0; 3 << 20]));
        let late = Kernel { deadline: Instant::now(), ..source };
        assert!(late.propose(b"junk").unwrap_err().to_string().contains("could not be taken apart"));
    }

    #[test]
    fn a_software_tpm_has_no_log() {
        let error = kernel("unix:/run/tpm").log().unwrap_err().to_string();
        assert!(error.contains("software TPM has no event log"), "{error}");
        let error = kernel("/dev/tpmrm999").log().unwrap_err().to_string();
        assert!(error.contains("/sys/kernel/security/tpm999/") && error.contains("Fix:"), "{error}");
        assert!(!kernel("").command_line().unwrap().is_empty());
    }
}
