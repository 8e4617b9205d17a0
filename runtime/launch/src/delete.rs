//! Delete and update: what a later run does with the record of an earlier one. Neither needs the spec, a policy or
//! libcontainer's state to be whole.
use crate::cgroup;
use crate::error::LaunchError;
use crate::record::{Layout, Record};
use oci_spec::runtime::LinuxResources;
use std::path::Path;

/// Kills what is left in the container's cgroups, removes them and `<state>/launch`. Idempotent; under a second.
///
/// # Errors
/// A process that survives SIGKILL for 0.9 s (its cgroup stays), or a damaged record. Then it may be called again.
pub fn delete(state: &Path, id: &str) -> Result<(), LaunchError> {
    let layout = Layout::new(state);
    match Record::load(&layout)? {
        Some(record) if record.id != id => {
            Err(LaunchError::Other(format!("{} belongs to container {:?}", layout.top.display(), record.id)))
        }
        _ => delete_launch(state),
    }
}

pub(crate) fn delete_launch(state: &Path) -> Result<(), LaunchError> {
    let layout = Layout::new(state);
    if let Some(record) = Record::load(&layout)? {
        cgroup::remove(&record.cgroup_path)?;
    }
    unmount(&layout)?;
    match std::fs::remove_dir_all(&layout.top) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(LaunchError::io(format_args!("remove {}", layout.top.display()))(e))
        }
        _ => Ok(()),
    }
}

/// After a failed create this process still stands in the mount namespace that holds the root: nothing of an image may
/// be removed through it.
fn unmount(layout: &Layout) -> Result<(), LaunchError> {
    use nix::mount::{MntFlags, umount2};
    for path in [layout.rootfs(), layout.upper()] {
        loop {
            match umount2(&path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
                Ok(()) => {}
                // Not a mount point, or not there.
                Err(nix::Error::EINVAL | nix::Error::ENOENT) => break,
                Err(e) => return Err(LaunchError::errno(format_args!("unmount {}", path.display()))(e)),
            }
        }
    }
    Ok(())
}

/// Applies new limits to the container's cgroup. The caller has checked that none is removed.
///
/// # Errors
/// No such container; device rules (they are never changed); a limit that the kernel refuses.
pub fn update(state: &Path, id: &str, resources: &LinuxResources) -> Result<(), LaunchError> {
    let record = Record::load(&Layout::new(state))?.filter(|r| r.id == id);
    let record = record.ok_or_else(|| LaunchError::Other(format!("container {id:?} is not there")))?;
    cgroup::apply(&record.cgroup_path, &record.id, resources)
}
