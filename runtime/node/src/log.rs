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
use std::fmt::Debug;

/// Longest log that is read, bytes. A server's is 20 to 200 KB.
pub const MAX_LOG: usize = 2 << 20;
/// Most events that are taken from one.
pub const MAX_EVENTS: usize = 8192;

/// Where an attestation has its log from.
pub trait LogSource: Debug {
    /// The log's bytes; one byte above [`MAX_LOG`] at most.
    fn log(&self) -> Result<Vec<u8>, Error>;
    /// Runs [`propose`] on them, in a jail where there is one.
    fn propose(&self, log: &[u8]) -> Result<Vec<u8>, Error>;
    /// `/proc/cmdline`.
    fn command_line(&self) -> Result<Vec<u8>, Error>;
}

/// The log of the kernel's own TPM.
#[derive(Debug, Clone, Copy)]
pub struct Kernel<'a> {
    /// The TPM's address in the policy.
    pub tpm: &'a str,
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

/// Takes the log apart in this process. For an operator's commands; a start does it in a jail.
impl LogSource for Kernel<'_> {
    fn log(&self) -> Result<Vec<u8>, Error> {
        Kernel::log(self)
    }

    fn propose(&self, log: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(propose(log))
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

    #[test]
    fn a_software_tpm_has_no_log() {
        let error = Kernel { tpm: "unix:/run/tpm" }.log().unwrap_err().to_string();
        assert!(error.contains("software TPM has no event log"), "{error}");
        let error = Kernel { tpm: "/dev/tpmrm999" }.log().unwrap_err().to_string();
        assert!(error.contains("/sys/kernel/security/tpm999/") && error.contains("Fix:"), "{error}");
        assert!(!Kernel { tpm: "" }.command_line().unwrap().is_empty());
    }
}
