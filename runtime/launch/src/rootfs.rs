//! The container's root: verified lower layers and our own empty upper, mounted in the gate's own mount namespace, and
//! every mount point made before libcontainer looks for it. Nothing here is seen from the host's namespace.
use crate::create::Rootfs;
use crate::error::LaunchError;
use crate::record::Layout;
use crate::user_namespace::UserNamespace;
use crate::{sys, verity};
use boltseal_seal::{ApprovedMount, Label, Table};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use oci_spec::runtime::{Mount, Spec};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The upper of a read-only root holds mount points only; of a writable one, what the container may lose.
const UPPER_READONLY: &str = "size=1m,nr_inodes=4k,mode=0700";
const UPPER_WRITABLE: &str = "size=64m,mode=0700";
/// As many symbolic links as the kernel follows.
const MAX_LINKS: u32 = 40;

/// An approved mount and where it really lands: image paths may be symbolic links (`/var/run` -> `/run`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resolved {
    pub(crate) point: String,
    pub(crate) approved: ApprovedMount,
    /// The spec asks to receive mounts from the host (`rslave`).
    pub(crate) slave: bool,
    /// (major, minor) of the overlay, for the root only.
    pub(crate) device: Option<(u32, u32)>,
}

/// Leaves the host's mount namespace and mounts the root at `layout.rootfs()`, or where root of its user namespace reaches it.
pub(crate) fn prepare(
    image: &Rootfs<'_>,
    spec: &Spec,
    table: &Table,
    layout: &Layout,
    user: Option<&UserNamespace>,
) -> Result<Vec<Resolved>, LaunchError> {
    let pairs = pair(spec, table)?;
    leave_host_namespace(spec)?;
    keep_private(spec)?;
    if let Some(user) = user {
        user.place.make()?;
        user.place.sources(spec, &table.mounts, user.as_fd())?;
    }
    let readonly = spec.root().as_ref().and_then(|r| r.readonly()).unwrap_or(false);
    let at = user.map_or_else(|| layout.rootfs(), |user| user.place.root());
    overlay(image, readonly, &context(spec, table)?, layout, &at, user)?;

    let root = open_dir(&at)?;
    let maker = Maker { owner: user.map(|user| user.root) };
    for name in ["dev", "proc", "sys"] {
        maker.real_folder(root.as_fd(), name)?;
    }
    let stat = sys::fstat(root.as_raw_fd()).map_err(LaunchError::io("stat the root"))?;
    let approved = table.mounts.first().cloned().unwrap_or_default();
    let device = Some((libc::major(stat.st_dev), libc::minor(stat.st_dev)));
    let mut resolved = vec![Resolved { point: "/".into(), approved, slave: false, device }];
    for (mount, approved) in pairs {
        let point = maker.mount_point(root.as_fd(), mount, &resolved)?;
        guard(&point, mount)?;
        resolved.push(Resolved { point, approved, slave: is_slave(mount), device: None });
    }
    Ok(resolved)
}

/// The table names the root first and then the spec's mounts in their order; anything else was sealed wrongly.
fn pair<'a>(spec: &'a Spec, table: &Table) -> Result<Vec<(&'a Mount, ApprovedMount)>, LaunchError> {
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let mut approved = table.mounts.iter();
    let mut lines = Vec::new();
    if approved.next().is_none_or(|m| m.destination != "/") {
        lines.push("the approved table does not begin with the root".to_owned());
    }
    if approved.len() != mounts.len() {
        lines.push(format!("the spec has {} mounts, the approved table {}", mounts.len(), approved.len()));
    }
    let pairs: Vec<_> = mounts.iter().zip(approved.cloned()).collect();
    for (mount, approved) in &pairs {
        if mount.destination() != Path::new(&approved.destination) {
            lines.push(format!(
                "mount {} stands in the spec where {} was approved",
                mount.destination().display(),
                approved.destination
            ));
        }
    }
    // libcontainer makes nodes and links below /dev by path: without a fresh /dev it would write into the image.
    for (destination, kind) in [("/dev", "tmpfs"), ("/proc", "proc")] {
        let fresh =
            mounts.iter().any(|m| m.destination() == Path::new(destination) && m.typ().as_deref() == Some(kind));
        if !fresh {
            lines.push(format!("no fresh {kind} on {destination}"));
        }
    }
    if lines.is_empty() { Ok(pairs) } else { Err(LaunchError::Inspection(lines)) }
}

pub(crate) fn is_slave(mount: &Mount) -> bool {
    mount.options().iter().flatten().any(|o| o == "rslave" || o == "slave")
}

/// A slave of the host when a volume shall receive the host's mounts; else private, so that nothing travels either way.
fn leave_host_namespace(spec: &Spec) -> Result<(), LaunchError> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(LaunchError::errno("make a mount namespace"))?;
    let slave = spec.mounts().iter().flatten().any(is_slave);
    let kind = if slave { MsFlags::MS_SLAVE } else { MsFlags::MS_PRIVATE };
    mount(None::<&str>, "/", None::<&str>, kind | MsFlags::MS_REC, None::<&str>)
        .map_err(LaunchError::errno("separate the mount namespace from the host's"))
}

/// Where one volume receives the host's mounts, every bind would: libcontainer applies no propagation to a single mount. So the
/// others are bound from a private mount over their own source, which nobody sees but this namespace.
fn keep_private(spec: &Spec) -> Result<(), LaunchError> {
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    if !mounts.iter().any(is_slave) {
        return Ok(());
    }
    for mount in mounts.iter().filter(|m| is_bind(m) && !is_slave(m)) {
        let Some(source) = mount.source() else { continue };
        let failed = |e| LaunchError::errno(format_args!("keep {} private", source.display()))(e);
        nix::mount::mount(Some(source), source, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(failed)?;
        nix::mount::mount(None::<&str>, source, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>).map_err(failed)?;
    }
    Ok(())
}

pub(crate) fn is_bind(mount: &Mount) -> bool {
    mount.typ().as_deref() == Some("bind") || mount.options().iter().flatten().any(|o| o == "bind" || o == "rbind")
}

/// SELinux: what every file of the container's own mounts is labelled, as a mount option; libcontainer gives it to those
/// that it makes. An image brings no labels, and the process may only run files of its own type.
fn context(spec: &Spec, table: &Table) -> Result<String, LaunchError> {
    let label = spec.linux().as_ref().and_then(|l| l.mount_label().as_deref());
    match (&table.label, label) {
        (Some(Label::Selinux(_)), Some(label)) if !label.contains(['"', '\n', '\0']) => {
            Ok(format!(",context=\"{label}\""))
        }
        (Some(Label::Selinux(_)), Some(_)) => Err(LaunchError::Other("the mount label has a quote in it".into())),
        _ => Ok(String::new()),
    }
}

fn overlay(
    image: &Rootfs<'_>,
    readonly: bool,
    context: &str,
    layout: &Layout,
    on: &Path,
    user: Option<&UserNamespace>,
) -> Result<(), LaunchError> {
    let lowers = image.lowers;
    if image.sealed.map_or(lowers.len(), <[_]>::len) == 0 {
        return Err(LaunchError::Other("the image has no layers".into()));
    }
    let size = if readonly { UPPER_READONLY } else { UPPER_WRITABLE };
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let at = layout.upper();
    let size = format!("{size}{context}");
    mount(Some("tmpfs"), &at, Some("tmpfs"), flags, Some(size.as_str()))
        .map_err(LaunchError::errno("mount the upper layer"))?;
    for name in ["upper", "work"] {
        std::fs::create_dir(at.join(name)).map_err(LaunchError::io("make the upper layer"))?;
    }
    // The root of the container is the upper folder: like an image's, and not ours to hide.
    set_mode(&at.join("upper"), 0o755)?;
    // Layers go in by descriptor: the object that was opened is mounted, and long lists of layers fit the page.
    let mut layers: Vec<OwnedFd> = match (image.sealed, image.checked) {
        (Some(sealed), _) => verity::attached(sealed, &at)?,
        (None, Some(checked)) => verity::opened(checked, &at)?,
        (None, None) => lowers.iter().map(|l| open_dir(Path::new(l))).collect::<Result<_, _>>()?,
    };
    if let Some(user) = user {
        layers = user.place.layers(&layers, user.as_fd())?;
        std::os::unix::fs::chown(at.join("upper"), Some(user.root), Some(user.root))
            .map_err(LaunchError::io("give the upper layer to its root"))?;
    }
    let names: Vec<String> = layers.iter().map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd())).collect();
    let (upper, work) = (open_dir(&at.join("upper"))?, open_dir(&at.join("work"))?);
    let data = format!(
        "lowerdir={},upperdir=/proc/self/fd/{},workdir=/proc/self/fd/{}{context}",
        names.join(":"),
        upper.as_raw_fd(),
        work.as_raw_fd()
    );
    if data.len() >= 4096 {
        return Err(LaunchError::Unsupported(format!("{} layers are more than one overlay mount takes", layers.len())));
    }
    mount(Some("overlay"), on, Some("overlay"), flags, Some(data.as_str()))
        .map_err(LaunchError::errno("mount the root"))
}

fn set_mode(path: &Path, mode: u32) -> Result<(), LaunchError> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(LaunchError::io("make the upper layer"))
}

fn open_dir(path: &Path) -> Result<OwnedFd, LaunchError> {
    let opened = sys::open_path(path, libc::O_DIRECTORY | libc::O_NOFOLLOW);
    opened.map_err(LaunchError::io(format_args!("open the folder {}", path.display())))
}

/// Only the known mounts lie in the kernel's own trees (CVE-2019-19921, CVE-2025-52881: a false /proc).
fn guard(point: &str, mount: &Mount) -> Result<(), LaunchError> {
    let kind = mount.typ().as_deref().unwrap_or_default();
    let expected = match point {
        "/" => false,
        "/proc" => kind == "proc",
        "/sys" => kind == "sysfs",
        "/sys/fs/cgroup" => matches!(kind, "cgroup" | "cgroup2"),
        _ => !point.starts_with("/proc/") && !point.starts_with("/sys/"),
    };
    if expected {
        return Ok(());
    }
    Err(LaunchError::Inspection(vec![format!("a mount of type {kind:?} may not lie on {point}")]))
}

/// Makes what is missing in the root, as its own root's.
struct Maker {
    owner: Option<u32>,
}

impl Maker {
    /// `/dev`, `/proc`, `/sys` of the image: absent (then made) or a real folder. libcontainer follows a link there and
    /// would write on the host (the class of CVE-2026-41579).
    fn real_folder(&self, root: BorrowedFd<'_>, name: &str) -> Result<(), LaunchError> {
        match sys::open_beneath(root, name, libc::O_DIRECTORY) {
            Ok(_) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.folder(root, name),
            Err(e) => Err(LaunchError::Inspection(vec![format!("/{name} of the image is not a real folder: {e}")])),
        }
    }

    fn folder(&self, dir: BorrowedFd<'_>, name: &str) -> Result<(), LaunchError> {
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o755);
        nix::sys::stat::mkdirat(dir, name, mode)
            .map_err(LaunchError::errno(format_args!("make the mount point {name}")))?;
        self.give(dir, name)
    }

    fn file(&self, dir: BorrowedFd<'_>, name: &str) -> Result<(), LaunchError> {
        use nix::fcntl::{OFlag, openat};
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_WRONLY;
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o644);
        openat(dir, name, flags, mode).map_err(LaunchError::errno(format_args!("make the mount point {name}")))?;
        self.give(dir, name)
    }

    fn give(&self, dir: BorrowedFd<'_>, name: &str) -> Result<(), LaunchError> {
        let Some(owner) = self.owner else { return Ok(()) };
        let (uid, gid) = (nix::unistd::Uid::from_raw(owner), nix::unistd::Gid::from_raw(owner));
        nix::unistd::fchownat(dir, name, Some(uid), Some(gid), nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(LaunchError::errno(format_args!("give away the mount point {name}")))
    }

    /// Where a destination lands inside the root; what is missing on the way is made, beneath the root, by descriptor.
    /// Below an earlier mount the names are taken as they are: libcontainer makes them there, and inspection compares.
    fn mount_point(&self, root: BorrowedFd<'_>, mount: &Mount, earlier: &[Resolved]) -> Result<String, LaunchError> {
        let destination = mount.destination().to_str().filter(|d| d.starts_with('/'));
        let bad =
            |why: &str| LaunchError::Inspection(vec![format!("mount point {}: {why}", mount.destination().display())]);
        let destination = destination.ok_or_else(|| bad("not an absolute path"))?;
        let wants_file = is_file_bind(mount)?;
        let mut todo: VecDeque<String> = parts(destination);
        let mut stack: Vec<(String, OwnedFd)> = Vec::new();
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            if name == ".." {
                stack.pop();
                continue;
            }
            let dir = stack.last().map_or(root, |(_, fd)| fd.as_fd());
            let here = format!("{}/{name}", path_of(&stack));
            if earlier.iter().any(|m| m.point == here) {
                if todo.iter().any(|n| n == "..") {
                    return Err(bad("leads out of another mount"));
                }
                return Ok(todo.iter().fold(here, |path, n| format!("{path}/{n}")));
            }
            match look(dir, &name) {
                Ok(Found::Link(target)) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(bad("too many symbolic links"));
                    }
                    if target.starts_with('/') {
                        stack.clear();
                    }
                    for part in parts(&target).into_iter().rev() {
                        todo.push_front(part);
                    }
                }
                Ok(Found::Folder(fd)) if !(todo.is_empty() && wants_file) => stack.push((name, fd)),
                Ok(Found::Other) if todo.is_empty() && wants_file => return Ok(here),
                Ok(_) => return Err(bad("the image has something else there")),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    if todo.is_empty() && wants_file {
                        self.file(dir, &name)?;
                        return Ok(here);
                    }
                    self.folder(dir, &name)?;
                    todo.push_front(name);
                }
                Err(e) => return Err(bad(&e.to_string())),
            }
        }
        let path = path_of(&stack);
        Ok(if path.is_empty() { "/".to_owned() } else { path })
    }
}

fn parts(path: &str) -> VecDeque<String> {
    path.split('/').filter(|p| !p.is_empty() && *p != ".").map(str::to_owned).collect()
}

fn path_of(stack: &[(String, OwnedFd)]) -> String {
    stack.iter().fold(String::new(), |path, (name, _)| format!("{path}/{name}"))
}

enum Found {
    Folder(OwnedFd),
    Link(String),
    Other,
}

fn look(dir: BorrowedFd<'_>, name: &str) -> io::Result<Found> {
    use nix::fcntl::{OFlag, openat, readlinkat};
    let fd = openat(dir, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty())?;
    match sys::fstat(fd.as_raw_fd())?.st_mode & libc::S_IFMT {
        libc::S_IFDIR => Ok(Found::Folder(fd)),
        libc::S_IFLNK => {
            let target = readlinkat(&fd, "")?.into_string();
            Ok(Found::Link(target.map_err(|_| io::Error::other("a symbolic link that is not UTF-8"))?))
        }
        _ => Ok(Found::Other),
    }
}

/// A bind of anything but a folder needs a file to be mounted on.
fn is_file_bind(mount: &Mount) -> Result<bool, LaunchError> {
    let Some(source) = mount.source().as_ref().filter(|_| is_bind(mount)) else { return Ok(false) };
    let meta = std::fs::metadata(source)
        .map_err(LaunchError::io(format_args!("stat the mount source {}", source.display())))?;
    Ok(meta.mode() & libc::S_IFMT != libc::S_IFDIR)
}
