//! Landlock: read and execute below `/`, write where the table says, nothing else; a landlocked process cannot mount,
//! whatever its capabilities. TCP ports are bound and connected to where the table says, and where it lists programs nothing else is
//! executed. A hard requirement: a kernel without the demanded ABI starts nothing.
use crate::error::LaunchError;
use crate::programs::Programs;
use crate::sys;
use boltseal_profiles::{LANDLOCK_DEVICES, LANDLOCK_WRITE_FILE};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

/// The newest ABI that the landlock crate knows.
const NEWEST: u32 = 10;

/// Landlock ABI of this kernel, at most the newest that this build can enforce; 0 without Landlock.
#[must_use]
pub fn kernel_abi() -> u32 {
    sys::landlock_abi().min(NEWEST)
}

/// Restricts this thread for good. ABI 0 in the table: the policy asks for none.
///
/// TCP ports and programs are a hard requirement of their own: a table that names them is enforced or nothing runs. The kernel
/// keeps it from here on: no process of ours has to live for it.
///
/// No Signal scope: an exec is a sibling domain, and `kill 1` from it would fail. Character and block nodes are made
/// nowhere, not even on writable volumes.
///
/// What is listed comes back as it was found.
pub(crate) fn restrict(table: &boltseal_seal::Landlock) -> Result<Option<Programs>, LaunchError> {
    let programs = table.programs.as_deref().map(Programs::open).transpose()?;
    if table.abi == 0 {
        let confined =
            [("programs", programs.is_some()), ("TCP ports", table.bind.is_some() || table.connect.is_some())];
        return match confined.iter().find(|(_, confined)| *confined) {
            None => Ok(None),
            Some((what, _)) => {
                Err(LaunchError::Unsupported(format!("{what} are to be confined, and Landlock is not asked for")))
            }
        };
    }
    let number = i32::try_from(table.abi).ok().filter(|_| table.abi <= NEWEST);
    let abi =
        ABI::from(number.ok_or_else(|| LaunchError::Unsupported(format!("Landlock ABI {} is not known", table.abi)))?);
    let enforced = ruleset(table, programs.as_ref(), abi)
        .map_err(|e| LaunchError::Unsupported(format!("Landlock ABI {}: {e}", table.abi)))?;
    if enforced != RulesetStatus::FullyEnforced {
        return Err(LaunchError::Unsupported(format!(
            "Landlock ABI {} is not fully enforced by this kernel",
            table.abi
        )));
    }
    Ok(programs)
}

fn ruleset(
    table: &boltseal_seal::Landlock,
    programs: Option<&Programs>,
    abi: ABI,
) -> Result<RulesetStatus, Box<dyn std::error::Error>> {
    let mut rules =
        Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(AccessFs::from_all(abi))?;
    if table.abi >= 6 {
        // Abstract sockets know no namespace but the network's (CVE-2020-15257).
        rules = rules.scope(Scope::AbstractUnixSocket)?;
    }
    for (access, ports) in ports(table) {
        rules = if ports.is_some() { rules.handle_access(access)? } else { rules };
    }
    let mut made = rules.create()?;
    for (access, ports) in ports(table) {
        for port in ports.into_iter().flatten() {
            made = made.add_rule(NetPort::new(*port, access))?;
        }
    }
    // Rights add up from a file to the root: what `/` may, everything may.
    let everywhere = if programs.is_some() { AccessFs::ReadFile | AccessFs::ReadDir } else { AccessFs::from_read(abi) };
    made = made.add_rule(PathBeneath::new(sys::open_path(Path::new("/"), libc::O_DIRECTORY)?, everywhere))?;
    for fd in programs.into_iter().flat_map(Programs::opened) {
        made = made.add_rule(PathBeneath::new(fd, AccessFs::Execute))?;
    }
    let file = (AccessFs::WriteFile | AccessFs::Truncate | AccessFs::ReadFile) & AccessFs::from_all(abi);
    for path in LANDLOCK_WRITE_FILE {
        made = allow(made, path, file | AccessFs::ReadDir)?;
    }
    let volume = AccessFs::from_all(abi) & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::Execute);
    for path in LANDLOCK_DEVICES.iter().copied().chain(table.writable.iter().map(String::as_str)) {
        made = allow(made, path, volume)?;
    }
    Ok(made.restrict_self()?.ruleset)
}

/// What Landlock knows of the network; None where every port may be used.
fn ports(table: &boltseal_seal::Landlock) -> [(AccessNet, Option<&Vec<u16>>); 2] {
    [(AccessNet::BindTcp, table.bind.as_ref()), (AccessNet::ConnectTcp, table.connect.as_ref())]
}

/// A path that is not there, or that this user cannot even reach, gets no rule: less is granted, never more.
fn allow(
    made: RulesetCreated,
    path: &str,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, Box<dyn std::error::Error>> {
    let fd = match sys::open_path(Path::new(path), 0) {
        Ok(fd) => fd,
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EACCES | libc::ENOTDIR)) => return Ok(made),
        Err(e) => return Err(format!("{path}: {e}").into()),
    };
    let folder = sys::fstat(fd.as_raw_fd())?.st_mode & libc::S_IFMT == libc::S_IFDIR;
    let access = if folder { access } else { access & AccessFs::from_file(ABI::V10) };
    Ok(made.add_rule(PathBeneath::new(fd.as_fd(), access))?)
}
