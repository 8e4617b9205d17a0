//! A boot as an operator's: systemd is pid 1, and the units that are shipped load the label and attest before containerd.
use super::work::{World, one_start};
use super::{enrol, payload};
use crate::job::Outcome;
use anyhow::{Context, Result, ensure};
use nix::unistd::execv;
use stack::containerd::{Containerd, Version};
use stack::node::Node;
use stack::process::run;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

const UNITS: &str = "/etc/systemd/system";
const SHIPPED: [&str; 2] = ["boltseal-install.service", "boltseal-attest.service"];
const CONTAINERD: &str = "containerd.service";
const JOB: &str = "node-job.service";
const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";
const VERDICT: &str = "/run/boltseal/node.json";
/// Slow without hardware help, and nothing that this node needs. The tests run a registry of their own at that port; and the
/// checkout may lie below /tmp.
const MASKED: [&str; 25] = [
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "docker-registry.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "ldconfig.service",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-binfmt.service",
    "systemd-firstboot.service",
    "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service",
    "systemd-logind.service",
    "systemd-machine-id-commit.service",
    "systemd-networkd.service",
    "systemd-random-seed.service",
    "systemd-sysusers.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-tpm2-setup.service",
    "systemd-tpm2-setup-early.service",
    "systemd-update-done.service",
    "tmp.mount",
];

/// Puts programs, the enrolled node's disk and the units in place, and becomes systemd.
pub(super) fn become_it() -> Result<()> {
    let loaded = fs::read_to_string(PROFILES).context(PROFILES)?;
    ensure!(!loaded.contains("boltseal-default"), "the label is in the kernel before anything loaded it");
    stack::node::install()?;
    enrol::install()?;
    fs::write("/etc/machine-id", "b0175ea100000000000000000000b007\n")?;
    fs::write("/etc/hostname", "node\n")?;
    fs::create_dir_all("/etc/sysctl.d")?;
    fs::write("/etc/sysctl.d/10-node.conf", "kernel.kexec_load_disabled = 1\nkernel.printk_ratelimit = 0\n")?;
    fs::create_dir_all("/etc/tmpfiles.d")?;
    symlink("/dev/null", "/etc/tmpfiles.d/tmp.conf")?;
    for unit in MASKED {
        symlink("/dev/null", Path::new(UNITS).join(unit)).with_context(|| unit.to_owned())?;
    }
    for unit in SHIPPED {
        let shipped = stack::private::project().join("integration/systemd").join(unit);
        fs::copy(&shipped, Path::new(UNITS).join(unit)).with_context(|| shipped.display().to_string())?;
    }
    containerd()?;
    fs::write(Path::new(UNITS).join(JOB), job_unit()?)?;
    let words = ["enable", CONTAINERD, JOB];
    run(Command::new("systemctl").args(words).args(SHIPPED))?;
    symlink("/usr/lib/systemd/system/multi-user.target", Path::new(UNITS).join("default.target"))?;
    let program = CString::new("/usr/lib/systemd/systemd")?;
    let Err(error) = execv(&program, &[&program]);
    Err(error).context("systemd")
}

/// Debian's own unit, with the cached containerd and the configuration of the tests.
fn containerd() -> Result<()> {
    let folder = Version::V2_1.folder();
    let unit = folder.join("../lib/systemd/system").join(CONTAINERD);
    fs::copy(&unit, Path::new(UNITS).join(CONTAINERD)).with_context(|| unit.display().to_string())?;
    let images = stack::given::images(&payload().join("given"))?;
    let pause = images.get("pause").context("no image pause")?;
    fs::create_dir_all("/etc/containerd")?;
    fs::write("/etc/containerd/config.toml", Version::V2_1.config(&pause.name))?;
    let drop_in = Path::new(UNITS).join(format!("{CONTAINERD}.d"));
    fs::create_dir_all(&drop_in)?;
    let folder = folder.display();
    let text = format!(
        "[Service]\nExecStart=\nExecStart={folder}/containerd --config /etc/containerd/config.toml\n\
         Environment=PATH=/usr/local/bin:{folder}:/usr/sbin:/usr/bin:/sbin:/bin\n"
    );
    Ok(fs::write(drop_in.join("node.conf"), text)?)
}

/// Whatever becomes of the job, the machine ends with it.
fn job_unit() -> Result<String> {
    let own = std::env::current_exe()?;
    Ok(format!(
        "[Unit]\nDescription=The test node's job\nAfter={CONTAINERD} multi-user.target\nWants={CONTAINERD}\n\
         SuccessAction=poweroff-immediate\nFailureAction=poweroff-immediate\n\
         [Service]\nType=oneshot\nExecStart={} guest work\nTimeoutStartSec=1700\n\
         Environment=HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
         Environment={}={}\nStandardOutput=tty\nStandardError=tty\nTTYPath=/dev/console\n\
         [Install]\nWantedBy=multi-user.target\n",
        own.display(),
        stack::given::GIVEN,
        payload().join("given").display(),
    ))
}

/// The units did their part before containerd, and the first start under it needed no quote of its own.
pub(super) fn first_start(outcome: &mut Outcome) -> Result<()> {
    outcome.units = Some(units()?);
    let loaded = fs::read_to_string(PROFILES).context(PROFILES)?;
    ensure!(loaded.contains("boltseal-default (enforce)"), "boltseal-install.service loaded no label: {loaded}");
    let before = fs::read(VERDICT).context("boltseal-attest.service left no verdict")?;
    let scratch = Path::new("/var/tmp/first");
    fs::create_dir_all(scratch)?;
    let node = Node::make(scratch, false)?;
    let containerd = Containerd::of_the_machine(Version::V2_1, &node.work);
    let world = World::on(node, containerd)?;
    one_start(&world, "first", outcome)?;
    ensure!(fs::read(VERDICT)? == before, "the first start made a verdict of its own");
    drop(world);
    run(Command::new("systemctl").args(["stop", CONTAINERD])).map(drop)
}

/// When each unit ended or began, seconds since the kernel's start.
fn units() -> Result<String> {
    let mut told = Vec::new();
    let mut end_of_last = 0;
    for unit in SHIPPED {
        let facts = show(unit)?;
        let is = |name: &str, value: &str| facts.get(name).is_some_and(|found| found == value);
        let good = is("Result", "success") && is("ExecMainStatus", "0") && is("ActiveState", "active");
        ensure!(good, "{unit}: {facts:?}");
        let (start, end) =
            (time(&facts, "ExecMainStartTimestampMonotonic")?, time(&facts, "ExecMainExitTimestampMonotonic")?);
        ensure!(start >= end_of_last, "{unit} ran before its time: {facts:?}");
        end_of_last = end;
        told.push(format!("{unit} {}.{} s", end / 1_000_000, end / 100_000 % 10));
    }
    let facts = show(CONTAINERD)?;
    let start = time(&facts, "ExecMainStartTimestampMonotonic")?;
    ensure!(start >= end_of_last, "containerd started before the node was attested: {facts:?}");
    told.push(format!("then {CONTAINERD} {}.{} s", start / 1_000_000, start / 100_000 % 10));
    Ok(told.join(", "))
}

fn show(unit: &str) -> Result<BTreeMap<String, String>> {
    let said = run(Command::new("systemctl").args(["show", unit]))?;
    Ok(said.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
}

/// Microseconds; never 0.
fn time(facts: &BTreeMap<String, String>, name: &str) -> Result<u64> {
    let value: u64 = facts.get(name).with_context(|| format!("no {name}"))?.parse()?;
    ensure!(value > 0, "{name} is 0: {facts:?}");
    Ok(value)
}
