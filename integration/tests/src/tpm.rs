//! swtpm as the node's TPM, with a boot measured into it: fixed values extended into the PCRs that firmware would use. Or
//! the machine's own, which only a reboot resets: there a case has a PCR for debugging to itself.
use crate::process::Daemon;
use anyhow::{Context, Result, bail};
use ring::digest::{SHA256, digest};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

pub const SOCKET: &str = "/run/swtpm/tpm.sock";
pub const DEVICE: &str = "/dev/tpmrm0";
/// PCRs that hold a measurement.
pub const MEASURED: [u32; 4] = [0, 4, 7, 9];
/// Anyone may reset this one, and nothing measures into it (TCG PC Client Platform, table of PCR attributes).
pub const DEBUG: u32 = 16;

#[derive(Debug)]
pub struct Tpm {
    /// None: the machine's own TPM, which nobody here started.
    daemon: Option<Daemon>,
}

impl Tpm {
    /// A software TPM that has just been through a boot.
    pub fn start(work: &Path) -> Result<Self> {
        let state = work.join("swtpm");
        fs::create_dir_all(&state)?;
        fs::create_dir_all("/run/swtpm")?;
        if Path::new(SOCKET).exists() {
            fs::remove_file(SOCKET)?;
        }
        let mut daemon = Daemon::start(
            "swtpm",
            Command::new("swtpm")
                .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
                .arg("--tpmstate")
                .arg(format!("dir={},mode=0600", state.display()))
                .args(["--ctrl", "type=unixio,path=/run/swtpm/control.sock"])
                .args(["--server", &format!("type=unixio,path={SOCKET}")]),
            &work.join("swtpm.log"),
        )?;
        // It is there a moment before anybody listens.
        daemon.wait_until(Duration::from_secs(10), || UnixStream::connect(SOCKET).is_ok())?;
        for pcr in MEASURED {
            extend(pcr, &measurement(pcr))?;
        }
        Ok(Self { daemon: Some(daemon) })
    }

    /// The machine's own, measured into by its firmware.
    pub fn device() -> Result<Self> {
        if !Path::new(DEVICE).exists() {
            bail!("this machine has no {DEVICE}");
        }
        Ok(Self { daemon: None })
    }

    /// A PCR has another value than the policy accepts.
    pub fn disturb(&self) -> Result<()> {
        match self.daemon {
            Some(_) => extend(4, &[7; 32]),
            None => extend_at(DEVICE, DEBUG, &[7; 32]),
        }
    }

    /// All PCRs as the policy accepts them.
    pub fn settle(&mut self, work: &Path) -> Result<()> {
        if self.daemon.is_none() {
            return settle_device();
        }
        self.stop()?;
        *self = Self::start(work)?;
        Ok(())
    }

    pub fn stop(&mut self) -> Result<()> {
        self.daemon.as_mut().context("the machine's own TPM cannot be stopped")?.stop()
    }
}

/// The machine's own, with that one PCR as its policy accepts it: see [`settled`].
pub fn settle_device() -> Result<()> {
    reset(DEVICE, DEBUG)?;
    extend_at(DEVICE, DEBUG, &measurement(DEBUG))
}

/// The value that [`settle_device`] leaves, hex: no policy accepts a PCR that nothing was measured into.
#[must_use]
pub fn settled() -> String {
    value(DEBUG)
}

fn measurement(pcr: u32) -> [u8; 32] {
    hash(format!("measured boot of the test node, PCR {pcr}").as_bytes())
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// The values that the node policy accepts.
#[must_use]
pub fn expected() -> BTreeMap<String, Vec<String>> {
    MEASURED.iter().map(|&pcr| (pcr.to_string(), vec![value(pcr)])).collect()
}

/// What one extend makes of a PCR that was zero, hex.
fn value(pcr: u32) -> String {
    hash(&[[0; 32], measurement(pcr)].concat()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Extends a PCR of the software TPM.
pub fn extend(pcr: u32, value: &[u8; 32]) -> Result<()> {
    extend_at(SOCKET, pcr, value)
}

/// TPM2_PCR_Extend of the SHA-256 bank (TPM 2.0 Library, Part 3, 22.2).
fn extend_at(tpm: &str, pcr: u32, value: &[u8; 32]) -> Result<()> {
    let mut digests = Vec::new();
    digests.extend(1_u32.to_be_bytes());
    digests.extend(0x000B_u16.to_be_bytes()); // TPM_ALG_SHA256
    digests.extend(value);
    command(tpm, "PCR_Extend", 0x0000_0182, pcr, &digests)
}

/// TPM2_PCR_Reset (Part 3, 22.8).
fn reset(tpm: &str, pcr: u32) -> Result<()> {
    command(tpm, "PCR_Reset", 0x0000_013D, pcr, &[])
}

/// A command on one PCR, with an empty password.
fn command(tpm: &str, name: &str, code: u32, pcr: u32, parameters: &[u8]) -> Result<()> {
    let mut body = Vec::new();
    body.extend(pcr.to_be_bytes());
    body.extend(9_u32.to_be_bytes()); // size of the authorisation
    body.extend(0x4000_0009_u32.to_be_bytes()); // TPM_RS_PW
    body.extend([0, 0, 0, 0, 0]); // nonce, attributes, hmac: all empty
    body.extend(parameters);
    let mut command = Vec::new();
    command.extend(0x8002_u16.to_be_bytes()); // TPM_ST_SESSIONS
    command.extend(u32::try_from(body.len() + 10)?.to_be_bytes());
    command.extend(code.to_be_bytes());
    command.extend(body);

    for _ in 0..50 {
        let reply = ask(tpm, &command).with_context(|| tpm.to_owned())?;
        let [_, _, _, _, _, _, a, b, c, d] = reply;
        match u32::from_be_bytes([a, b, c, d]) {
            0 => return Ok(()),
            // RETRY, YIELDED, TESTING: the TPM asks for the same command again.
            0x922 | 0x908 | 0x90A => std::thread::sleep(Duration::from_millis(20)),
            code => bail!("{name} answered {code:#x}"),
        }
    }
    bail!("{name}: the TPM keeps asking to try again")
}

/// The head of the reply: tag, size, code.
fn ask(tpm: &str, command: &[u8]) -> Result<[u8; 10]> {
    let mut header = [0; 10];
    if tpm == SOCKET {
        let mut stream = UnixStream::connect(tpm)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(command)?;
        stream.read_exact(&mut header)?;
    } else {
        let mut device = fs::File::options().read(true).write(true).open(tpm)?;
        device.write_all(command)?;
        device.read_exact(&mut header)?;
    }
    Ok(header)
}
