//! One boot of the machine: QEMU without hardware help, firmware from the ovmf package, a software TPM of its own. It ends
//! by itself: the guest powers off, a wall limit kills it otherwise, and with this program it dies too.
use crate::cache;
use anyhow::{Context, Result, bail};
use stack::process::Daemon;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Firmware without the need for SMM, which costs seconds without hardware help. The keys are in the variables.
pub(crate) const FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
/// Secure Boot on, Debian's published test key.
pub(crate) const KEYS: &str = "/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd";
/// No keys: Secure Boot off.
pub(crate) const NO_KEYS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// The TPM's control socket, in the folder of the boot's log.
const SOCKET: &str = "tpm.sock";

/// What a boot takes.
#[derive(Debug)]
pub(crate) struct Machine<'a> {
    /// Template of the firmware's variables; the boot gets a copy.
    pub(crate) variables: &'a str,
    /// The TPM's state; the boot changes it.
    pub(crate) tpm: &'a Path,
    pub(crate) boot: &'a Path,
    pub(crate) payload: &'a Path,
    pub(crate) exchange: &'a Path,
    /// Folder of the console's log.
    pub(crate) log: &'a Path,
    pub(crate) limit: Duration,
}

/// The console's log of a boot.
pub(crate) fn console(log: &Path) -> PathBuf {
    log.join("console.log")
}

/// Boots it and waits for its end. Answers with how long it took.
pub(crate) fn boot(machine: &Machine<'_>) -> Result<Duration> {
    let start = Instant::now();
    let variables = machine.log.join("variables.fd");
    fs::copy(machine.variables, &variables).with_context(|| machine.variables.to_owned())?;
    // Relative, for both programs: the name of a socket has 107 bytes, and a checkout may lie deep.
    let socket = machine.log.join(SOCKET);
    let mut tpm = Daemon::start(
        "swtpm",
        Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "swtpm", "socket", "--tpm2", "--terminate", "--tpmstate"])
            .arg(format!("dir={}", machine.tpm.display()))
            .args(["--ctrl", &format!("type=unixio,path={SOCKET}")])
            .current_dir(machine.log),
        &machine.log.join("swtpm.log"),
    )?;
    let ended = tpm.wait_until(Duration::from_secs(10), || socket.exists()).and_then(|()| qemu(machine, &variables));
    tpm.stop()?;
    if socket.exists() {
        fs::remove_file(&socket)?;
    }
    fs::remove_file(variables)?;
    ended?;
    Ok(start.elapsed())
}

fn qemu(machine: &Machine<'_>, variables: &Path) -> Result<()> {
    let root = cache().join("root.ext4");
    let mut command = Command::new("setpriv");
    // One processor: two machines run beside each other, and under an emulator a second processor now and then runs into
    // the kernel's text while the first one patches it (an int3 that nobody expects, an oops before user space).
    command
        .args(["--pdeathsig", "KILL", "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot"])
        .args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "1", "-m", "2048"])
        .args(["-display", "none", "-monitor", "none", "-nic", "none"])
        .arg("-serial")
        .arg(format!("file:{}", console(machine.log).display()))
        .args(["-drive", &format!("if=pflash,format=raw,unit=0,readonly=on,file={FIRMWARE}")])
        .args(["-drive", &format!("if=pflash,format=raw,unit=1,file={}", variables.display())])
        .args(["-chardev", &format!("socket,id=tpm,path={SOCKET}")])
        .args(["-tpmdev", "emulator,id=tpm,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm"]);
    for (name, disk, more) in [
        ("boot", machine.boot, ",readonly=on"),
        // What the guest writes to these two is gone with it.
        ("root", root.as_path(), ",snapshot=on"),
        ("payload", machine.payload, ",snapshot=on"),
        ("exchange", machine.exchange, ",cache=unsafe"),
    ] {
        command.args(["-drive", &format!("if=none,id={name},format=raw,file={}{more}", disk.display())]);
        let first = if name == "boot" { ",bootindex=0" } else { "" };
        command.args(["-device", &format!("virtio-blk-pci,drive={name},serial={name}{first}")]);
    }
    let errors = machine.log.join("qemu.log");
    let mut child = command
        .current_dir(machine.log)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&errors)?)
        .spawn()
        .context("qemu-system-x86_64")?;
    let end = Instant::now() + machine.limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() > end {
            child.kill()?;
            child.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => {
            let said = fs::read_to_string(errors).unwrap_or_default();
            bail!("qemu ended with {:?} {:?}: {}", status.code(), status.signal(), said.trim())
        }
        None => bail!(
            "the machine did not end within {:?}; the console's last lines:\n{}",
            machine.limit,
            tail(machine.log)
        ),
    }
}

/// The last lines of the console.
pub(crate) fn tail(log: &Path) -> String {
    let bytes = fs::read(console(log)).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(25)..).unwrap_or_default().join("\n")
}
