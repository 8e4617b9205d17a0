//! What a node's own start-up would do: file systems, security module, network, name.
use super::payload;
use crate::job::{Boot, Leap};
use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use stack::process::run;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const FLAGS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);
const SECURITY: &str = "/sys/kernel/security";
const SELINUX: &str = "/sys/fs/selinux";
const SECURE_BOOT: &str = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// What it takes to read the job.
pub(super) fn first_mounts() -> Result<()> {
    file_system("tmpfs", "/run", FLAGS, "mode=0755")?;
    file_system("securityfs", SECURITY, FLAGS, "")
}

/// The rest of what systemd would make.
pub(super) fn mounts() -> Result<()> {
    for (kind, target, options) in [
        ("tmpfs", "/dev/shm", "mode=1777"),
        ("cgroup2", "/sys/fs/cgroup", ""),
        ("efivarfs", "/sys/firmware/efi/efivars", ""),
    ] {
        file_system(kind, target, FLAGS, options)?;
    }
    file_system("devpts", "/dev/pts", MsFlags::MS_NOSUID, "mode=0620,gid=5,ptmxmode=0666")?;
    // As systemd leaves it: mounts propagate, so that a runtime has something to make private.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SHARED, None::<&str>)
        .context("make / shared")?;
    nix::unistd::sethostname("node")?;
    // Every denial of the security module is to be seen in what is brought back.
    fs::write("/proc/sys/kernel/printk_ratelimit", "0").context("printk_ratelimit")?;
    // Their nodes in /dev come with them; the kernel asks for the rest itself.
    run(Command::new("modprobe").args(["-a", "loop", "dm_mod"]))?;
    run(Command::new("ip").args(["link", "set", "lo", "up"])).map(|_| ())
}

fn file_system(kind: &str, target: &str, flags: MsFlags, options: &str) -> Result<()> {
    fs::create_dir_all(target)?;
    mount(Some(kind), target, Some(kind), flags, Some(options)).with_context(|| format!("{kind} on {target}"))
}

/// Loads the profile or policy of the security module that this kernel runs.
pub(super) fn security_module(payload: &Path) -> Result<()> {
    let active = lsm()?;
    if active.split(',').any(|name| name == "apparmor") {
        let profile = stack::private::project().join("profiles/apparmor/boltseal-default.bin");
        let profile = fs::read(profile).context("the compiled profile")?;
        return fs::write(Path::new(SECURITY).join("apparmor/.replace"), profile).context("load the AppArmor profile");
    }
    if active.split(',').any(|name| name == "selinux") {
        mount(Some("selinuxfs"), SELINUX, Some("selinuxfs"), MsFlags::empty(), None::<&str>).context("selinuxfs")?;
        let policy = fs::read(payload.join("selinux.policy")).context("the SELinux policy")?;
        fs::write(Path::new(SELINUX).join("load"), policy).context("load the SELinux policy")?;
        return enforce(true);
    }
    bail!("neither AppArmor nor SELinux: {active}")
}

/// SELinux: whether what is denied is prevented, or only told.
pub(super) fn enforce(on: bool) -> Result<()> {
    fs::write(Path::new(SELINUX).join("enforce"), if on { "1" } else { "0" }).context("enforce")
}

pub(super) fn is_selinux() -> bool {
    Path::new(SELINUX).join("enforce").exists()
}

fn lsm() -> Result<String> {
    fs::read_to_string(Path::new(SECURITY).join("lsm")).context("list of security modules")
}

/// kexec off until the next boot.
pub(super) fn close_kexec() -> Result<()> {
    fs::write("/proc/sys/kernel/kexec_load_disabled", "1").context("kexec_load_disabled")
}

/// Leaves for another kernel; comes back only on failure.
pub(super) fn kexec(leap: &Leap) -> Result<()> {
    let mut initrd = fs::read(payload().join("initrd"))?;
    initrd.resize(initrd.len() + leap.padding, 0);
    let padded = Path::new("/run/initrd");
    fs::write(padded, initrd)?;
    run(Command::new("kexec")
        .args(["--kexec-file-syscall", "--load"])
        .arg(payload().join("vmlinuz"))
        .arg(format!("--initrd={}", padded.display()))
        .arg(format!("--command-line={}", leap.cmdline)))?;
    println!("guest: into the other kernel");
    nix::unistd::sync();
    run(Command::new("kexec").arg("--exec"))?;
    bail!("kexec came back")
}

/// The disk of this serial number.
pub(super) fn disk(serial: &str) -> Result<PathBuf> {
    for entry in fs::read_dir("/sys/block")? {
        let path = entry?.path();
        if fs::read_to_string(path.join("serial")).is_ok_and(|text| text.trim() == serial) {
            return Ok(Path::new("/dev").join(path.file_name().context("a disk without a name")?));
        }
    }
    bail!("no disk {serial}")
}

pub(super) fn facts() -> Result<Boot> {
    let text =
        |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).with_context(|| path.to_owned());
    let mut pcrs = BTreeMap::new();
    for index in 0..16 {
        pcrs.insert(index, text(&format!("/sys/class/tpm/tpm0/pcr-sha256/{index}"))?.to_lowercase());
    }
    let lockdown = text("/sys/kernel/security/lockdown")?;
    let marked = lockdown.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("", |(word, _)| word);
    Ok(Boot {
        boot_id: text("/proc/sys/kernel/random/boot_id")?,
        kernel: text("/proc/sys/kernel/osrelease")?,
        cmdline: text("/proc/cmdline")?,
        // Four bytes of attributes, then the value (UEFI, 8.2).
        secure_boot: fs::read(SECURE_BOOT).is_ok_and(|bytes| bytes.get(4) == Some(&1)),
        lockdown: marked.to_owned(),
        lsm: lsm()?,
        pcrs,
        ready: uptime()?,
        end: 0,
    })
}

/// Seconds since the kernel started.
pub(super) fn uptime() -> Result<u64> {
    let text = fs::read_to_string("/proc/uptime")?;
    text.split('.').next().unwrap_or_default().parse().context("/proc/uptime")
}
