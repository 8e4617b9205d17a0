//! Delete and update: what a later run does with the record of an earlier one. Neither needs the spec, a policy or
//! libcontainer's state to be whole.
use crate::cgroup;
use crate::error::LaunchError;
use crate::record::{Layout, Record, read_private};
use crate::{sys, verity};
use oci_spec::runtime::{LinuxResources, Spec};
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

/// How often a folder is emptied that somebody else still fills, and the time between.
const TRIES: u32 = 30;
const PAUSE: Duration = Duration::from_millis(10);

/// What a delete could do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// Nothing of the container is left.
    Whole,
    /// Its files are gone; nothing that can be read tells which cgroup was its own, so that what may still run in it was not
    /// ended.
    Blind,
}

/// Kills what is left in the container's cgroups, removes them and `<state>/launch`. Idempotent; under a second.
/// A record of the launch that cannot be used is no obstacle: then our copy of the sealed spec tells the cgroup, else
/// `cgroup_path`, which the caller knows from elsewhere.
///
/// # Errors
/// A process that survives SIGKILL for 0.9 s: its cgroup stays, and this may be called again.
pub fn delete(state: &Path, id: &str, cgroup_path: Option<&str>) -> Result<Deleted, LaunchError> {
    clear(&Layout::new(state), Some(id), cgroup_path)
}

pub(crate) fn delete_launch(state: &Path) -> Result<Deleted, LaunchError> {
    clear(&Layout::new(state), None, None)
}

/// `id` is None for a launch that this run made.
fn clear(layout: &Layout, id: Option<&str>, elsewhere: Option<&str>) -> Result<Deleted, LaunchError> {
    // Without a record, a run may have been killed before it came to write one.
    let had_devices = Record::load(layout).ok().flatten().is_none_or(|record| !record.sealed.is_empty());
    let deleted = clear_folder(layout, id, elsewhere);
    if had_devices {
        verity::sweep();
    }
    deleted
}

fn clear_folder(layout: &Layout, id: Option<&str>, elsewhere: Option<&str>) -> Result<Deleted, LaunchError> {
    let cannot = || LaunchError::io(format!("remove {}", layout.top.display()));
    let is_folder = match std::fs::symlink_metadata(&layout.top) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Deleted::Whole),
        found => found.map_err(cannot())?.is_dir(),
    };
    // Nothing behind a link is ours to believe or to unmount.
    let own = if is_folder { cgroup_path(layout, id) } else { None };
    let usable = |path: &String| cgroup::folders(path).is_ok();
    let deleted = match own.or_else(|| elsewhere.map(str::to_owned)).filter(usable) {
        Some(path) => cgroup::remove(&path).map(|()| Deleted::Whole)?,
        None if is_folder && never_launched(layout) => Deleted::Whole,
        None => Deleted::Blind,
    };
    let removed = if is_folder { remove(layout)? } else { std::fs::remove_file(&layout.top) };
    match removed {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(cannot()(e)),
        _ => Ok(deleted),
    }
}

/// Another run, a create that is being ended or a second delete, may still put something in while its folder is emptied.
fn remove(layout: &Layout) -> Result<std::io::Result<()>, LaunchError> {
    for _ in 1..TRIES {
        unmount(layout)?;
        match std::fs::remove_dir_all(&layout.top) {
            Err(e) if e.kind() == ErrorKind::DirectoryNotEmpty => std::thread::sleep(PAUSE),
            removed => return Ok(removed),
        }
    }
    unmount(layout)?;
    Ok(std::fs::remove_dir_all(&layout.top))
}

/// Whether something runs, or may, of a launch in `state` that no create holds any more.
///
/// # Errors
/// It cannot be told: a record that is damaged or gone, a cgroup that cannot be looked into.
pub fn runs(state: &Path) -> Result<bool, LaunchError> {
    let layout = Layout::new(state);
    if std::fs::symlink_metadata(&layout.top).is_err_and(|e| e.kind() == ErrorKind::NotFound) {
        return Ok(false);
    }
    match Record::load(&layout)? {
        Some(record) => {
            let init = || record.pid != 0 && sys::start_time(record.pid).is_ok_and(|time| time == record.start_time);
            Ok(init() || cgroup::populated(&record.cgroup_path)?)
        }
        None if never_launched(&layout) => Ok(false),
        None => Err(LaunchError::Other("there is no record of its launch".into())),
    }
}

/// Whether a launch in `state` may have a user namespace, and with it ids of the host. The record that says so is written before
/// anything is made.
///
/// # Errors
/// It cannot be told.
pub fn may_have_ids(state: &Path) -> Result<bool, LaunchError> {
    let layout = Layout::new(state);
    match Record::load(&layout)? {
        Some(record) => Ok(record.user_namespace),
        None if never_launched(&layout) => Ok(false),
        None => Err(LaunchError::Other("there is no record of its launch".into())),
    }
}

/// By the record of the launch; where that cannot be used, by the sealed spec beside it.
fn cgroup_path(layout: &Layout, id: Option<&str>) -> Option<String> {
    match Record::load(layout) {
        Ok(Some(record)) if id.is_none_or(|id| record.id == id) => Some(record.cgroup_path),
        // All that lies here is another container's.
        Ok(Some(_)) => None,
        Ok(None) | Err(_) => {
            let spec: Spec = serde_json::from_slice(&read_private(&layout.config()).ok()??).ok()?;
            Some(spec.linux().as_ref()?.cgroups_path().as_ref()?.to_str()?.to_owned())
        }
    }
}

/// The record is written before libcontainer is called: without one, and without libcontainer's state, nothing ran.
fn never_launched(layout: &Layout) -> bool {
    let none = |path: &Path| std::fs::symlink_metadata(path).is_err_and(|e| e.kind() == ErrorKind::NotFound);
    let empty = |path: &Path| std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    none(&layout.record()) && (none(&layout.libcontainer()) || empty(&layout.libcontainer()))
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
                Err(nix::Error::EINVAL | nix::Error::ENOENT | nix::Error::ENOTDIR) => break,
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Instant;

    /// As a create does that a delete overtakes.
    #[test]
    fn a_folder_that_is_filled_while_it_is_emptied_goes() {
        let state = std::env::temp_dir().join(format!("boltseal-filled-{}", std::process::id()));
        let layout = Layout::new(&state);
        fs::create_dir_all(layout.top.join("bundle")).unwrap();
        let folder = layout.top.clone();
        let filler = std::thread::spawn(move || {
            let (begun, mut number) = (Instant::now(), 0);
            while begun.elapsed() < Duration::from_millis(100) {
                number += 1;
                // It is gone between two of them; then nobody makes it anew.
                if fs::write(folder.join(number.to_string()), "").is_err() {
                    break;
                }
            }
        });
        remove(&layout).unwrap().unwrap();
        filler.join().unwrap();
        assert!(!layout.top.exists());
        fs::remove_dir_all(state).unwrap();
    }
}
