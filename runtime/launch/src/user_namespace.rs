//! The container's user namespace. It is made, or joined, here and not by libcontainer: the layers and volumes are seen through
//! it before libcontainer starts, libcontainer takes one that is named by a path for no reason to ask systemd for cgroups,
//! and what is joined is the very object that was looked at.
use crate::error::LaunchError;
use crate::place::Place;
use crate::{rootfs, sys};
use boltseal_seal::{Label, Table};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use serde_json::Value;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

#[derive(Debug)]
pub(crate) struct UserNamespace {
    file: File,
    /// nsfs (device, inode).
    pub(crate) object: (u64, u64),
    /// What of the host is its root.
    pub(crate) root: u32,
    pub(crate) place: Place,
}

impl AsFd for UserNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Device nodes that libcontainer always makes; in a user namespace it binds the host's.
const DEFAULT_DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/full", "/dev/tty", "/dev/urandom", "/dev/random"];

/// What BS-PRC-010 refuses, and only warned of.
pub(crate) fn supported(spec: &Spec, table: &Table) -> Result<(), LaunchError> {
    let unsupported = |what: &str| Err(LaunchError::Unsupported(format!("{what} in a user namespace")));
    if matches!(table.label, Some(Label::Selinux(_))) {
        return unsupported("an SELinux label");
    }
    if spec.mounts().iter().flatten().any(rootfs::is_slave) {
        return unsupported("a volume that receives the host's mounts");
    }
    if spec.hooks().as_ref().is_some_and(|h| h.create_container().as_ref().is_some_and(|h| !h.is_empty())) {
        return unsupported("a createContainer hook");
    }
    Ok(())
}

/// That of the sealed container; None without one.
pub(crate) fn of(spec: &Spec, table: &Table) -> Result<Option<UserNamespace>, LaunchError> {
    let sealed = |line: &str| Err(LaunchError::Inspection(vec![line.to_owned()]));
    let approved = table.namespaces.iter().find(|n| n.kind == "user");
    let listed = namespaces(spec).find(|n| n.typ() == LinuxNamespaceType::User);
    let (approved, listed, ids) = match (approved, listed, table.user_ids) {
        (None, None, None) => return Ok(None),
        (Some(approved), Some(listed), Some(ids)) => (approved, listed, ids),
        _ => return sealed("a user namespace, its ids and the approved table do not go together"),
    };
    let found = match (approved.object, listed.path()) {
        (None, None) => make(spec, ids)?,
        (Some(object), Some(path)) => join(spec, path, object, ids)?,
        _ => return sealed("the user namespace is to be joined or new, and was approved as the other"),
    };
    owns(&found, spec)?;
    Ok(Some(found))
}

pub(crate) fn namespaces(spec: &Spec) -> impl Iterator<Item = &oci_spec::runtime::LinuxNamespace> {
    spec.linux().as_ref().and_then(|l| l.namespaces().as_deref()).unwrap_or_default().iter()
}

/// A new one lives as long as its descriptor: the child that it is made in only stands still while its maps are written.
fn make(spec: &Spec, (host, size): (u32, u32)) -> Result<UserNamespace, LaunchError> {
    let (wait, keep) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(LaunchError::errno("make a pipe"))?;
    let child = sys::fork_in_user_namespace(wait.as_fd(), keep.as_fd()).map_err(|e| match e.raw_os_error() {
        Some(libc::EINVAL | libc::ENOSPC | libc::EUSERS | libc::EPERM) => LaunchError::Unsupported(format!(
            "a user namespace cannot be made ({e}). Fix: sysctl user.max_user_namespaces, or take hostUsers: false away"
        )),
        _ => LaunchError::io("make a user namespace")(e),
    })?;
    let written = write_maps(child, host, size);
    drop(keep);
    let reaped = waitpid(Pid::from_raw(child), None).map_err(LaunchError::errno("reap the user namespace's child"));
    let file = written?;
    reaped?;
    opened(spec, file, host)
}

fn write_maps(child: libc::pid_t, host: u32, size: u32) -> Result<File, LaunchError> {
    for map in ["uid_map", "gid_map"] {
        let text = format!("0 {host} {size}\n");
        std::fs::write(format!("/proc/{child}/{map}"), text).map_err(|e| {
            LaunchError::Unsupported(format!(
                "the user namespace's {map} of {size} ids from the host's {host} on is none for the kernel ({e}). Fix: give the pod a range that \
                 exists"
            ))
        })?;
    }
    File::open(format!("/proc/{child}/ns/user")).map_err(LaunchError::io("open the new user namespace"))
}

fn join(spec: &Spec, path: &Path, object: (u64, u64), (host, _): (u32, u32)) -> Result<UserNamespace, LaunchError> {
    let file = File::open(path).map_err(LaunchError::io(format_args!("open the user namespace {}", path.display())))?;
    let found = opened(spec, file, host)?;
    if found.object != object {
        return Err(LaunchError::Inspection(vec![format!(
            "the user namespace {} is {}:{}, approved is {}:{}",
            path.display(),
            found.object.0,
            found.object.1,
            object.0,
            object.1
        )]));
    }
    Ok(found)
}

fn opened(spec: &Spec, file: File, root: u32) -> Result<UserNamespace, LaunchError> {
    let meta = file.metadata().map_err(LaunchError::io("stat the user namespace"))?;
    Ok(UserNamespace { object: (meta.dev(), meta.ino()), root, file, place: Place::of(spec) })
}

/// Root of a user namespace enters only namespaces that belong to it.
fn owns(user: &UserNamespace, spec: &Spec) -> Result<(), LaunchError> {
    for other in namespaces(spec).filter(|n| n.typ() != LinuxNamespaceType::User) {
        let Some(path) = other.path() else { continue };
        let failed = |e| LaunchError::io(format_args!("look at the namespace {}", path.display()))(e);
        let owner = File::open(path)
            .and_then(|file| sys::owner_of_namespace(file.as_fd()))
            .and_then(|owner| File::from(owner).metadata())
            .map_err(failed)?;
        if (owner.dev(), owner.ino()) != user.object {
            return Err(LaunchError::Unsupported(format!(
                "the {} namespace {} belongs to another user namespace than the container's. Fix: let containerd 2 make both \
                 (hostUsers: false), or list a new one",
                other.typ(),
                path.display()
            )));
        }
    }
    Ok(())
}

/// The table for this launch: a user namespace that was made for it is that very object.
pub(crate) fn exact(table: &Table, user: Option<&UserNamespace>) -> Table {
    let mut table = table.clone();
    for namespace in table.namespaces.iter_mut().filter(|n| n.kind == "user") {
        namespace.object = user.map(|user| user.object);
    }
    table
}

/// The user that the process runs as, as the host counts.
pub(crate) fn owner(table: &Table) -> (u32, u32) {
    let first = table.user_ids.map_or(0, |(first, _)| first);
    (first.saturating_add(table.uid), first.saturating_add(table.gid))
}

/// See [`crate::inspect::Mounts`].
pub(crate) fn bound_devices(spec: &Spec, user_namespace: bool) -> Vec<String> {
    if !user_namespace {
        return Vec::new();
    }
    let own = spec.linux().as_ref().and_then(|l| l.devices().as_ref()).into_iter().flatten();
    let own = own.map(|d| d.path().display().to_string());
    DEFAULT_DEVICES.iter().map(|d| (*d).to_owned()).chain(own).collect()
}

/// The sealed spec as libcontainer gets it: the user namespace by descriptor, root and bind sources where its root reaches them.
pub(crate) fn spec_for_libcontainer(json: &[u8], user: &UserNamespace) -> Result<Vec<u8>, LaunchError> {
    let failed = |e: serde_json::Error| LaunchError::Other(format!("the sealed spec: {e}"));
    let mut spec: Value = serde_json::from_slice(json).map_err(failed)?;
    let missing = || LaunchError::Other("the sealed spec lacks a part that a user namespace needs".into());
    let linux = spec.get_mut("linux").and_then(Value::as_object_mut).ok_or_else(missing)?;
    linux.remove("uidMappings");
    linux.remove("gidMappings");
    let listed = linux.get_mut("namespaces").and_then(Value::as_array_mut).ok_or_else(missing)?;
    for namespace in listed.iter_mut().filter(|n| n.get("type").is_some_and(|t| t == "user")) {
        let path = format!("/proc/self/fd/{}", user.file.as_raw_fd());
        namespace.as_object_mut().ok_or_else(missing)?.insert("path".into(), path.into());
    }
    *spec.pointer_mut("/root/path").ok_or_else(missing)? = user.place.root().display().to_string().into();
    let mounts = spec.get_mut("mounts").and_then(Value::as_array_mut).ok_or_else(missing)?;
    for (index, mount) in mounts.iter_mut().enumerate() {
        if let (Some(source), Some(mount)) = (user.place.bind(index), mount.as_object_mut()) {
            mount.insert("source".into(), source.display().to_string().into());
        }
    }
    serde_json::to_vec(&spec).map_err(failed)
}
