//! swtpm as the node's TPM, with a boot measured into it: fixed values extended into the PCRs that firmware would use.
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

    pub fn stop(&mut self) -> Result<()> {
        self.daemon.as_mut().context("the machine's own TPM cannot be stopped")?.stop()
    }
}

fn measurement(pcr: u32) -> [u8; 32] {
    hash(format!("measured boot of the test node, PCR {pcr}").as_bytes())
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// The values that the node policy accepts: what one extend makes of a PCR that was zero.
#[must_use]
pub fn expected() -> BTreeMap<String, Vec<String>> {
    MEASURED
        .iter()
        .map(|&pcr| {
            let value = hash(&[[0; 32], measurement(pcr)].concat());
            (pcr.to_string(), vec![value.iter().map(|byte| format!("{byte:02x}")).collect()])
        })
        .collect()
}

/// TPM2_PCR_Extend of the SHA-256 bank with an empty password (TPM 2.0 Library, Part 3, 22.2).
pub fn extend(pcr: u32, value: &[u8; 32]) -> Result<()> {
    let mut body = Vec::new();
    body.extend(pcr.to_be_bytes());
    body.extend(9_u32.to_be_bytes()); // size of the authorisation
    body.extend(0x4000_0009_u32.to_be_bytes()); // TPM_RS_PW
    body.extend([0, 0, 0, 0, 0]); // nonce, attributes, hmac: all empty
    body.extend(1_u32.to_be_bytes());
    body.extend(0x000B_u16.to_be_bytes()); // TPM_ALG_SHA256
    body.extend(value);
    let mut command = Vec::new();
    command.extend(0x8002_u16.to_be_bytes()); // TPM_ST_SESSIONS
    command.extend(u32::try_from(body.len() + 10)?.to_be_bytes());
    command.extend(0x0000_0182_u32.to_be_bytes()); // TPM_CC_PCR_Extend
    command.extend(body);

    for _ in 0..50 {
        let mut stream = UnixStream::connect(SOCKET).context(SOCKET)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(&command)?;
        let mut header = [0; 10];
        stream.read_exact(&mut header)?;
        let [_, _, _, _, _, _, a, b, c, d] = header;
        match u32::from_be_bytes([a, b, c, d]) {
            0 => return Ok(()),
            // RETRY, YIELDED, TESTING: the TPM asks for the same command again.
            0x922 | 0x908 | 0x90A => std::thread::sleep(Duration::from_millis(20)),
            code => bail!("PCR_Extend answered {code:#x}"),
        }
    }
    bail!("PCR_Extend: the TPM keeps asking to try again")
}
