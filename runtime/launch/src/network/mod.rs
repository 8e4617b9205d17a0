//! What of the network is open (BS-NET-001, BS-NET-002): BPF programs of our own on the container's cgroup v2 folder, which the
//! kernel asks at socket, bind, connect and send, and per packet. They are of the cgroup in which a socket was made, so they hold
//! for every process of the container and end with its cgroup. Landlock holds TCP ports beside them: see `landlock`.
//! Where it is asked for they tell what they refuse, what listens and what flows (`tell`).
mod program;
mod tell;
#[cfg(test)]
mod tests;

use crate::error::LaunchError;
use crate::{bpf, cgroup};
use boltseal_message::{KINDS, RING_LEN};
use boltseal_seal::Table;
use boltseal_seal::network::Open;
use program::LISTEN;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use tell::Tells;

/// Whether programs can be attached to a container's cgroup here: false without cgroup v2.
///
/// # Errors
/// One line: cgroup v2 is there, and the kernel does not tell of programs on it.
pub fn hooks() -> Result<bool, String> {
    let Some(top) = cgroup::unified_mount().map_err(|e| e.to_string())? else { return Ok(false) };
    let folder = File::open(&top).map_err(|e| format!("{}: {e}", top.display()))?;
    match bpf::in_force(program::CONNECT4, folder.as_fd()) {
        Ok(_) => Ok(true),
        Err(e) => Err(format!("this kernel tells of no programs on a cgroup: {e}")),
    }
}

/// Where events of the programs arrive: whoever holds it takes them. When its last copy outside of the programs is closed they go
/// on refusing, and nobody hears of it.
#[derive(Debug)]
pub struct Ring {
    /// BPF_MAP_TYPE_RINGBUF, `boltseal_message::RING_LEN` bytes.
    pub events: OwnedFd,
    /// Counters of what found no room, one for each kind of event.
    pub lost: OwnedFd,
}

/// Something is confined or watched: programs are on the container's cgroup.
pub(crate) fn is_held(table: &Table) -> bool {
    table.network != Open::default() || table.watch.any()
}

/// Attaches the programs to the container's folder, and sees each in force there.
pub(crate) fn enforce(table: &Table, folder: &Path) -> Result<Option<Ring>, LaunchError> {
    if !is_held(table) {
        return Ok(None);
    }
    let cgroup = File::open(folder).map_err(LaunchError::io(format_args!("open the cgroup {}", folder.display())))?;
    let ring = table.watch.any().then(ring).transpose()?;
    let tells = ring.as_ref().map(|ring| Tells {
        watch: table.watch,
        events: ring.events.as_raw_fd(),
        lost: ring.lost.as_raw_fd(),
        names_listeners: true,
    });
    for (hook, program) in program::programs(&table.network, tells.as_ref()) {
        bpf::enforce(hook, &program, &cgroup, folder)?;
    }
    for tells in tells.iter().filter(|t| t.watch.told) {
        let listens =
            |names| program::listens(table.network.bind.as_deref(), &Tells { names_listeners: names, ..*tells });
        let named = bpf::enforce(LISTEN, &listens(true), &cgroup, folder);
        // A kernel before 6.10 does not say there who called.
        named.or_else(|_| bpf::enforce(LISTEN, &listens(false), &cgroup, folder))?;
    }
    Ok(ring)
}

fn ring() -> Result<Ring, LaunchError> {
    let length = u32::try_from(KINDS * size_of::<u64>()).unwrap_or(u32::MAX);
    Ok(Ring {
        events: bpf::ring("net_events", RING_LEN).map_err(LaunchError::io("make the ring of the network's events"))?,
        lost: bpf::value("net_lost", length).map_err(LaunchError::io("make the counters of the network's events"))?,
    })
}
