//! The VM's first program, from the measured initrd: loads what the disks need, mounts them and becomes the guest.
#![forbid(unsafe_code)]

use anyhow::{Context, Result, bail};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::unistd::{chdir, chroot};
use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROOT: &str = "/root";

fn main() {
    if let Err(error) = run() {
        println!("init: {error:#}");
    }
    // Only an error comes here; the host sees the machine end without a result.
    let Err(error) = reboot(RebootMode::RB_POWER_OFF);
    println!("init: cannot power off: {error}");
}

fn run() -> Result<()> {
    for (kind, target) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
        fs::create_dir_all(target)?;
        mount(Some(kind), target, Some(kind), MsFlags::empty(), None::<&str>).with_context(|| target.to_owned())?;
    }
    let order = fs::read_to_string("/modules/order").context("/modules/order")?;
    for name in order.lines() {
        let file = File::open(Path::new("/modules").join(name)).with_context(|| name.to_owned())?;
        finit_module(&file, &CString::new("")?, ModuleInitFlags::empty()).with_context(|| name.to_owned())?;
    }
    disk("root", ROOT)?;
    let payload = project();
    let below_root = Path::new(ROOT).join(payload.strip_prefix("/")?);
    fs::create_dir_all(&below_root)?;
    disk("payload", &below_root.display().to_string())?;
    for folder in ["/dev", "/proc", "/sys"] {
        mount(Some(folder), format!("{ROOT}{folder}").as_str(), None::<&str>, MsFlags::MS_MOVE, None::<&str>)
            .with_context(|| format!("move {folder}"))?;
    }
    chdir(ROOT)?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).context("move the root")?;
    chroot(".")?;
    chdir("/")?;
    let console = || File::options().read(true).write(true).open("/dev/console");
    let error = Command::new(payload.join("node/boltseal-test-node"))
        .arg("guest")
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .stdin(Stdio::null())
        .stdout(console()?)
        .stderr(console()?)
        .exec();
    Err(error).context("the guest program")
}

/// Mounts the virtio disk of this serial number.
fn disk(serial: &str, target: &str) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        for entry in fs::read_dir("/sys/block")? {
            let path = entry?.path();
            let found = fs::read_to_string(path.join("serial")).is_ok_and(|text| text.trim() == serial);
            if let (true, Some(name)) = (found, path.file_name()) {
                let device = Path::new("/dev").join(name);
                return mount(Some(&device), target, Some("ext4"), MsFlags::empty(), None::<&str>)
                    .with_context(|| format!("{} on {target}", device.display()));
            }
        }
        if Instant::now() > end {
            bail!("no disk {serial}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Where the payload is mounted: the programs and tests look for each other at this path.
fn project() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own).to_path_buf()
}
