//! What a bind source is: the object on its file system, not the path that names it.
//!
//! The same folder has many names: symlinks, bind mounts, an overlay with it as a lower layer. So every path is turned
//! into keys (file system, path in it), and keys are compared in both directions with those of the sensitive list.
//! Between this and the mount by libcontainer the path may change; inspection compares what was mounted with what was
//! judged.
use crate::mountinfo::{Entry, Table, mount_id};
use crate::sensitive::{Key, Sensitive, within};
use crate::{origin, overlay};
use boltseal_policy::facts::{Fact, Mount, Object};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat, lstat};
use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Component, Path, PathBuf};

/// File systems that are a view of the kernel or of another program. A bind of one is a touch of its own, named
/// `fstype:<type>`.
const VIEWS: &[&str] = &[
    "proc",
    "sysfs",
    "cgroup",
    "cgroup2",
    "devtmpfs",
    "devpts",
    "securityfs",
    "debugfs",
    "tracefs",
    "bpf",
    "configfs",
    "efivarfs",
    "pstore",
    "selinuxfs",
    "smackfs",
    "fusectl",
    "binfmt_misc",
    "nsfs",
    "resctrl",
    "autofs",
    "rpc_pipefs",
    "nfsd",
    "hugetlbfs",
    "mqueue",
    "aufs",
    "ecryptfs",
    "shiftfs",
];
/// Overlays on overlays, and layers in all, that are followed.
const MAX_DEPTH: usize = 16;
const MAX_KEYS: usize = 1024;

/// Where the sensitive paths and the folders of CRI and kubelet are, and whose pod it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct MountContext<'a> {
    /// The policy's `mounts.sensitive`: absolute paths. Of `/` only the root itself counts, not all that is in it.
    pub sensitive: &'a [String],
    pub kubelet_root: &'a str,
    pub containerd_root: &'a str,
    pub containerd_state: &'a str,
    /// From our own records and containerd's, never from annotations; empty when there is none.
    pub sandbox_id: &'a str,
    pub pod_uid: &'a str,
    pub container_id: &'a str,
    pub container_name: &'a str,
}

/// Fills in what the source of each bind is; the other mounts keep what they have. A source that does not exist is
/// Absent, what cannot be found out is Unknown.
pub fn resolve(mounts: &mut [Mount], context: &MountContext<'_>) {
    let mut binds = mounts.iter_mut().filter(|m| m.kind == "bind").peekable();
    if binds.peek().is_none() {
        return;
    }
    let resolver = match Resolver::new(context) {
        Ok(resolver) => resolver,
        Err(why) => return binds.for_each(|mount| mount.object = Fact::Unknown(why.clone())),
    };
    let mut judged = Vec::new();
    for mount in binds {
        let (fact, id) = resolver.fact(&mount.source);
        mount.object = fact;
        judged.extend(id.map(|id| (mount, id)));
    }
    // A mount id is given out again: what was judged by the table is only true if the table still says so.
    let now = Table::read();
    for (mount, id) in judged {
        let same = now.as_ref().map(|now| now.by_id(id) == resolver.table.by_id(id));
        match same {
            Ok(true) => {}
            Ok(false) => mount.object = Fact::Unknown("its mount changed while it was examined".into()),
            Err(why) => mount.object = Fact::Unknown(why.clone()),
        }
    }
}

/// A path as the kernel resolves it now.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    pub(crate) key: Key,
    /// Without links.
    pub(crate) canonical: PathBuf,
    pub(crate) fstype: String,
    pub(crate) kind: &'static str,
    pub(crate) links: u64,
    /// Mount id.
    mount: u64,
}

/// The mount table and the sensitive list, resolved once for all sources of a request.
pub(crate) struct Resolver<'a> {
    pub(crate) table: Table,
    pub(crate) context: &'a MountContext<'a>,
    sensitive: Vec<Sensitive>,
}

impl<'a> Resolver<'a> {
    pub(crate) fn new(context: &'a MountContext<'a>) -> Result<Self, String> {
        let mut resolver = Self { table: Table::read()?, context, sensitive: Vec::new() };
        let resolved: Result<_, _> = context.sensitive.iter().map(|name| resolver.sensitive(name)).collect();
        resolver.sensitive = resolved?;
        Ok(resolver)
    }

    /// Where a path of the sensitive list really is.
    pub(crate) fn sensitive_path(&self, name: &str) -> Option<&Path> {
        self.sensitive.iter().find(|s| s.name == name).map(|s| s.canonical.as_path())
    }

    /// The object, and the id of the mount that it is on.
    fn fact(&self, source: &str) -> (Fact<Object>, Option<u64>) {
        match self.resolve(Path::new(source)) {
            Ok(resolved) => {
                let id = resolved.mount;
                (self.object(source, resolved).map_or_else(Fact::Unknown, Fact::Is), Some(id))
            }
            Err(Unresolved::Missing(_)) => (Fact::Absent, None),
            Err(Unresolved::Other(why)) => (Fact::Unknown(why), None),
        }
    }

    /// The object that a bind source names.
    fn object(&self, source: &str, resolved: Resolved) -> Result<Object, String> {
        let touches = self.touches(&resolved)?;
        let origin = origin::of(self, Path::new(source), &resolved, &touches)?;
        Ok(Object {
            device: resolved.key.device,
            root: resolved.key.path.to_string_lossy().into_owned(),
            fstype: resolved.fstype,
            kind: resolved.kind.into(),
            links: resolved.links,
            path: resolved.canonical.to_string_lossy().into_owned(),
            touches: touches.into_iter().collect(),
            origin,
        })
    }

    /// Follows links as libcontainer will, and says where that leads.
    pub(crate) fn resolve(&self, path: &Path) -> Result<Resolved, Unresolved> {
        if !path.is_absolute() {
            return Err(Unresolved::Other(format!("{} is not an absolute path", path.display())));
        }
        let other = |what: &str| Unresolved::Other(format!("{}: {what}", path.display()));
        let fd = match open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Err(Unresolved::Missing(path.to_owned())),
            other_result => other_result.map_err(|e| other(e.desc()))?,
        };
        let number = fd.as_raw_fd();
        let canonical = std::fs::read_link(format!("/proc/self/fd/{number}")).map_err(|e| other(&e.to_string()))?;
        let stat = fstat(&fd).map_err(|e| other(e.desc()))?;
        // What /proc shows of a removed or unreachable file is no path that leads to it.
        let there = lstat(&canonical).ok().filter(|found| (found.st_dev, found.st_ino) == (stat.st_dev, stat.st_ino));
        if !canonical.is_absolute() || there.is_none() {
            return Err(other("has no path of its own (removed, or not below this root)"));
        }
        let id = mount_id(fd.as_fd()).map_err(|e| other(&e))?;
        let entry = self.table.by_id(id).ok_or_else(|| other("its mount is not in the mount table"))?;
        let key = key(entry, &canonical).ok_or_else(|| other("it is not below its mount"))?;
        let kind = match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFDIR => "folder",
            SFlag::S_IFREG => "file",
            SFlag::S_IFSOCK => "socket",
            SFlag::S_IFBLK => "block",
            SFlag::S_IFCHR => "char",
            SFlag::S_IFIFO => "fifo",
            _ => return Err(other("is of an unknown type")),
        };
        #[allow(clippy::useless_conversion, reason = "the width of st_nlink differs between machines")]
        let links = u64::from(stat.st_nlink);
        Ok(Resolved { key, canonical, fstype: entry.fstype.clone(), kind, links, mount: id })
    }

    /// All (sensitive path, relation) of a source, its layers and the mounts below it.
    fn touches(&self, source: &Resolved) -> Result<BTreeSet<(String, String)>, String> {
        let mut found = BTreeSet::new();
        let mut touch = |name: &str, relation: &str| {
            found.insert((name.to_owned(), relation.to_owned()));
        };
        if is_view(&source.fstype) {
            touch(&format!("fstype:{}", source.fstype), "is");
        }
        let keys = self.layers(&source.key)?;
        let mut below = BTreeSet::new();
        if source.kind == "folder" {
            for entry in self.table.tree(source.mount, &source.canonical) {
                if is_view(&entry.fstype) {
                    touch(&format!("fstype:{}", entry.fstype), "contains");
                }
                match self.layers(&root_of(entry)) {
                    Ok(keys) => below.extend(keys),
                    // It cannot be ruled out, so it counts.
                    Err(_) => touch("fstype:overlay", "contains"),
                }
            }
        }
        for sensitive in &self.sensitive {
            let relations = keys.iter().filter_map(|key| sensitive.relation(key));
            let by_path = sensitive.relation_of_path(&source.canonical);
            for relation in relations.chain(by_path) {
                touch(&sensitive.name, relation);
            }
            if below.iter().any(|key| sensitive.relation(key).is_some()) {
                touch(&sensitive.name, "contains");
            }
        }
        Ok(found)
    }

    fn sensitive(&self, name: &str) -> Result<Sensitive, String> {
        let path = Path::new(name);
        let plain = path.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
        if !path.is_absolute() || !plain || name.contains(['*', '?']) {
            return Err(format!("the policy's sensitive path {name:?} is not a plain absolute path"));
        }
        let (resolved, rest) = self.nearest(path)?;
        let join = |base: &Path| if rest.as_os_str().is_empty() { base.to_owned() } else { base.join(&rest) };
        let key = Key { device: resolved.key.device, path: join(&resolved.key.path) };
        let canonical = join(&resolved.canonical);
        // A layer of our own root that cannot be seen from here can be the source of no bind either.
        let keys = self.layers(&key).unwrap_or_else(|_| vec![key]);
        let below = if canonical == Path::new("/") { Vec::new() } else { self.own_below(&canonical) };
        Ok(Sensitive { name: name.to_owned(), canonical, keys, below })
    }

    /// The deepest folder of `path` that exists, and the rest: what will be made there later is sensitive too.
    fn nearest(&self, path: &Path) -> Result<(Resolved, PathBuf), String> {
        let mut base = path;
        loop {
            match self.resolve(base) {
                Ok(resolved) => {
                    // Rebuilt from its parts: no slash at the end.
                    let rest = path.strip_prefix(base).unwrap_or(Path::new("")).components().collect();
                    return Ok((resolved, rest));
                }
                Err(Unresolved::Missing(_)) => base = base.parent().ok_or("there is no root folder")?,
                Err(Unresolved::Other(why)) => return Err(format!("the sensitive path {why}")),
            }
        }
    }

    /// File systems that live below `path`: not those whose larger part is mounted elsewhere too, of which only a bind is here.
    fn own_below(&self, path: &Path) -> Vec<Key> {
        let is_part = |entry: &Entry| {
            self.table.entries.iter().any(|other| {
                other.device == entry.device
                    && other.root != entry.root
                    && within(&entry.root, &other.root)
                    && !within(&other.point, path)
            })
        };
        self.table.below(path).filter(|entry| !is_part(entry)).map(root_of).collect()
    }

    /// The key itself and, when it is on an overlay, the same place in each of its layers, their layers too.
    pub(crate) fn layers(&self, key: &Key) -> Result<Vec<Key>, String> {
        let mut found = Vec::new();
        self.add_layers(key, &mut found, 0)?;
        Ok(found)
    }

    fn add_layers(&self, key: &Key, found: &mut Vec<Key>, depth: usize) -> Result<(), String> {
        if found.contains(key) {
            return Ok(());
        }
        if depth > MAX_DEPTH || found.len() > MAX_KEYS {
            return Err("overlays that lie on each other too deeply".into());
        }
        found.push(key.clone());
        let Some(entry) = self.table.entries.iter().find(|e| e.device == key.device && e.fstype == "overlay") else {
            return Ok(());
        };
        let inner = key.path.strip_prefix("/").unwrap_or(&key.path);
        let is_root = self.table.entries.iter().any(|e| e.device == key.device && e.point == Path::new("/"));
        for (folder, joins) in overlay::folders(entry) {
            match self.resolve(&folder) {
                Ok(layer) => {
                    let path = if joins && !inner.as_os_str().is_empty() {
                        layer.key.path.join(inner)
                    } else {
                        layer.key.path
                    };
                    self.add_layers(&Key { device: layer.key.device, path }, found, depth + 1)?;
                }
                // The root itself is an overlay whose layers are out of sight, as on a node that is a container.
                Err(_) if is_root => {}
                Err(why) => {
                    return Err(format!("a layer of the overlay on {} is out of sight: {why}", entry.point.display()));
                }
            }
        }
        Ok(())
    }
}

/// Why a path leads to no object.
#[derive(Debug)]
pub(crate) enum Unresolved {
    Missing(PathBuf),
    Other(String),
}

impl std::fmt::Display for Unresolved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing(path) => write!(f, "{} does not exist", path.display()),
            Self::Other(why) => f.write_str(why),
        }
    }
}

fn is_view(fstype: &str) -> bool {
    VIEWS.contains(&fstype) || fstype.starts_with("fuse")
}

fn root_of(entry: &Entry) -> Key {
    Key { device: entry.device, path: entry.root.clone() }
}

/// Where `canonical`, which lies on `entry`, is on its file system.
fn key(entry: &Entry, canonical: &Path) -> Option<Key> {
    if entry.deleted {
        return None;
    }
    let inner = canonical.strip_prefix(&entry.point).ok()?;
    let path = if inner.as_os_str().is_empty() { entry.root.clone() } else { entry.root.join(inner) };
    Some(Key { device: entry.device, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_resolved_is_unknown() {
        let list = ["/etc".to_owned()];
        let context = MountContext { sensitive: &list, ..MountContext::default() };
        let resolver = Resolver::new(&context).unwrap();
        for bad in ["relative", "", "/proc/self/ns/net"] {
            assert!(matches!(resolver.fact(bad).0, Fact::Unknown(_)), "{bad}");
        }
        assert_eq!(resolver.fact("/nonexistent/x").0, Fact::Absent);
        for bad in ["etc", "/a/../b", "/dev/sd*"] {
            let list = [bad.to_owned()];
            assert!(Resolver::new(&MountContext { sensitive: &list, ..MountContext::default() }).is_err(), "{bad}");
        }
    }

    /// What each kind of file is called: rules tell a socket from a folder by it.
    #[test]
    fn kinds_are_told_apart_and_nothing_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let _listener = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        std::fs::write(path("file"), "").unwrap();
        std::fs::create_dir(path("folder")).unwrap();
        let own = MountContext::default();
        let resolver = Resolver::new(&own).unwrap();
        let kind = |path: &Path| resolver.resolve(path).unwrap().kind;
        for name in ["socket", "file", "folder"] {
            assert_eq!(kind(&path(name)), name);
        }
        assert_eq!(kind(Path::new("/dev/null")), "char");
        nix::unistd::mkfifo(&path("fifo"), Mode::S_IRUSR).unwrap();
        // Opened for reading, it would wait for someone who writes.
        assert_eq!(kind(&path("fifo")), "fifo");
        nix::sys::stat::mknod(&path("block"), SFlag::S_IFBLK, Mode::S_IRUSR, 0x700).unwrap();
        assert_eq!(kind(&path("block")), "block");
    }

    #[test]
    fn a_removed_file_is_unknown_whatever_has_its_name_now() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let file = std::fs::File::create(&path).unwrap();
        let source = format!("/proc/self/fd/{}", file.as_raw_fd());
        let context = MountContext::default();
        let resolver = Resolver::new(&context).unwrap();
        assert!(resolver.fact(&source).0.is().is_some());
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(resolver.fact(&source).0, Fact::Unknown(_)));
        std::fs::write(dir.path().join("x (deleted)"), "").unwrap();
        assert!(matches!(resolver.fact(&source).0, Fact::Unknown(_)));
    }

    /// A resolver that sees one more file system: an overlay with these options, on device 9:9.
    fn with_overlay<'a>(context: &'a MountContext<'a>, point: &str, options: &str) -> Resolver<'a> {
        let mut resolver = Resolver::new(context).unwrap();
        let line = format!("999999 1 9:9 / {point} rw - overlay o {options}");
        resolver.table.entries.push(crate::mountinfo::parse_line(line.as_bytes()).unwrap());
        resolver
    }

    fn in_overlay(path: &str) -> Key {
        Key { device: (9, 9), path: path.into() }
    }

    #[test]
    fn a_place_in_an_overlay_is_that_place_in_each_layer() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["l", "u", "w"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let at = dir.path().display();
        let context = MountContext::default();
        let resolver = with_overlay(&context, "/o", &format!("lowerdir={at}/l,upperdir={at}/u,workdir={at}/w"));
        let real = |name: &str| resolver.resolve(&dir.path().join(name)).unwrap().key.path.display().to_string();
        let found = |path: &str| {
            let keys = resolver.layers(&in_overlay(path)).unwrap();
            keys.iter().map(|key| key.path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(found("/"), ["/".into(), real("l"), real("u"), real("w")]);
        // Nothing of the overlay is at its name in the work folder.
        assert_eq!(found("/x"), ["/x".into(), real("l") + "/x", real("u") + "/x", real("w")]);
    }

    #[test]
    fn layers_out_of_sight_are_an_error_but_for_those_of_our_own_root() {
        let context = MountContext::default();
        let why = with_overlay(&context, "/o", "lowerdir=/none/such").layers(&in_overlay("/")).unwrap_err();
        assert!(why.contains("on /o") && why.contains("/none/such does not exist"), "{why}");
        let root = with_overlay(&context, "/", "lowerdir=/none/such");
        assert_eq!(root.layers(&in_overlay("/")), Ok(vec![in_overlay("/")]));
    }

    #[test]
    fn layers_are_bounded_in_depth_and_number() {
        let dir = tempfile::tempdir().unwrap();
        let context = MountContext::default();
        // Each layer lies in the overlay itself, one folder deeper: it has no end.
        let mut resolver = Resolver::new(&context).unwrap();
        let key = resolver.resolve(dir.path()).unwrap().key;
        let line =
            format!("999999 1 {}:{} / /o rw - overlay o lowerdir={}", key.device.0, key.device.1, dir.path().display());
        resolver.table.entries.insert(0, crate::mountinfo::parse_line(line.as_bytes()).unwrap());
        let mut found = Vec::new();
        assert!(resolver.add_layers(&key, &mut found, 0).unwrap_err().contains("too deeply"));
        assert_eq!(found.len(), MAX_DEPTH + 1);
        // Beside each other.
        let layers: Vec<String> = (0..=MAX_KEYS).map(|n| format!("{}/{n}", dir.path().display())).collect();
        layers.iter().for_each(|layer| std::fs::create_dir(layer).unwrap());
        let of = |count: usize| {
            let options = format!("lowerdir={}", layers[..count].join(":"));
            with_overlay(&context, "/o", &options).layers(&in_overlay("/")).map(|keys| keys.len())
        };
        assert_eq!(of(MAX_KEYS), Ok(MAX_KEYS + 1));
        assert!(of(MAX_KEYS + 1).unwrap_err().contains("too deeply"));
    }

    #[test]
    fn missing_sensitive_paths_count_where_they_would_be() {
        let dir = tempfile::tempdir().unwrap();
        let list = [dir.path().join("later/deep").to_str().unwrap().to_owned()];
        let context = MountContext { sensitive: &list, ..MountContext::default() };
        let fact = Resolver::new(&context).unwrap().fact(dir.path().to_str().unwrap()).0;
        assert_eq!(fact.is().unwrap().touches, [(list[0].clone(), "contains".to_owned())]);
    }
}
