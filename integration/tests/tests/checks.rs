//! Checks that several parts share.
use anyhow::{Context, Result, ensure};
use stack::process::run;
use std::process::Command;

/// `/proc/self/status` of a process in a container: filter, no_new_privs and bounded capabilities.
pub(crate) fn confined(status: &str) -> Result<()> {
    confined_as(status, 65532)
}

/// The same for another user.
pub(crate) fn confined_as(status: &str, uid: u32) -> Result<()> {
    let field = |name: &str| -> Result<&str> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim).with_context(|| format!("no {name} in {status}"))
    };
    ensure!(field("Seccomp")? == "2", "Seccomp: {}", field("Seccomp")?);
    ensure!(field("Seccomp_filters")?.parse::<u32>()? >= 1, "no filter");
    ensure!(field("NoNewPrivs")? == "1", "NoNewPrivs: {}", field("NoNewPrivs")?);
    // The policy leaves CAP_NET_BIND_SERVICE (bit 10) of the default set.
    let allowed = 1_u64 << 10;
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let bits = u64::from_str_radix(field(set)?, 16)?;
        ensure!(bits & !allowed == 0, "{set}: {bits:#x}");
    }
    for set in ["CapInh", "CapAmb"] {
        ensure!(u64::from_str_radix(field(set)?, 16)? == 0, "{set} is not empty");
    }
    ensure!(field("Uid")?.split_whitespace().all(|id| id == uid.to_string()), "Uid: {}", field("Uid")?);
    Ok(())
}

pub(crate) fn trail_verifies() -> Result<String> {
    run(Command::new("boltseal").args(["audit", "verify"]))
        .map(|text| text.lines().next().unwrap_or_default().to_owned())
}
