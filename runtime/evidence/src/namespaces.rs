//! Whose namespace a path names: by the nsfs object (device, inode) behind it, never by the path.
//!
//! A path is opened with O_PATH, which follows the links of /proc/<pid>/ns as setns will, but opens no device, waits for
//! no fifo and starts nothing; what comes out counts only when it is a file of nsfs and of the named kind.
use crate::mountinfo::{Table, mount_id};
use crate::record::{ContainerRecord, Records};
use boltseal_policy::facts::{Fact, IdMaps, Namespace, NamespaceOrigin, Namespaces};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

/// Who asks, and who else is on the node.
#[derive(Debug, Clone, Copy)]
pub struct NamespaceContext<'a> {
    /// Records of the whole node (`record::load_node`).
    pub records: &'a Records,
    /// containerd namespace and id of the container.
    pub namespace: &'a str,
    pub id: &'a str,
    /// Empty outside of a pod; its own id for a sandbox.
    pub sandbox_id: &'a str,
    pub is_sandbox: bool,
    /// The network namespace that CRI's own metadata names for this sandbox (`cri::Metadata::netns`); None when there
    /// is no CRI.
    pub cri_netns: Option<&'a str>,
    /// The user namespace that owns it: CRI makes that one too, for a pod with a user namespace (containerd 2).
    pub cri_userns: Option<(u64, u64)>,
}

/// Finds out the origin of each namespace that the spec names by a path. One that does not exist is Absent.
pub fn resolve(namespaces: &mut Namespaces, context: &NamespaceContext<'_>) {
    for namespace in namespaces.listed.iter_mut().filter(|n| !n.path.is_empty()) {
        match object(&namespace.path, &namespace.kind) {
            Ok(found) => {
                namespace.object = Some(found);
                namespace.origin = origin(namespace, found, context);
            }
            Err(_) if is_missing(&namespace.path) => namespace.origin = Fact::Absent,
            Err(why) => namespace.origin = Fact::Unknown(why),
        }
    }
}

fn is_missing(path: &str) -> bool {
    std::fs::metadata(path).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound)
}

/// nsfs (device, inode) of a path, which must be of the OCI kind named.
///
/// # Errors
/// No such file, no namespace, or one of another kind.
pub fn object(path: &str, kind: &str) -> Result<(u64, u64), String> {
    let wrong = |what: String| format!("the {kind} namespace path {path:?} {what}");
    if !path.starts_with('/') {
        return Err(wrong("is not absolute".into()));
    }
    let proc = proc_name(kind).ok_or_else(|| wrong("is of an unknown kind".into()))?;
    let fd = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|e| wrong(format!("cannot be opened: {}", e.desc())))?;
    let fs = fstatfs(&fd).map_err(|e| wrong(format!("cannot be examined: {}", e.desc())))?;
    if fs.filesystem_type() != NSFS_MAGIC {
        return Err(wrong("is no namespace".into()));
    }
    let stat = fstat(&fd).map_err(|e| wrong(format!("cannot be examined: {}", e.desc())))?;
    let name = nsfs_name(fd.as_fd()).map_err(&wrong)?;
    if name != format!("{proc}:[{}]", stat.st_ino) {
        return Err(wrong(format!("is another namespace: {name}")));
    }
    Ok((stat.st_dev, stat.st_ino))
}

/// `net:[4026531840]`: what /proc shows of an nsfs file, directly or as the root of the mount that pins it.
fn nsfs_name(fd: BorrowedFd<'_>) -> Result<String, String> {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
        .map_err(|e| format!("cannot be examined: {e}"))?;
    if !link.is_absolute() {
        return Ok(link.to_string_lossy().into_owned());
    }
    let id = mount_id(fd)?;
    let table = Table::read()?;
    let entry = table.by_id(id).ok_or("is on no known mount")?;
    Ok(entry.root.to_string_lossy().into_owned())
}

fn origin(namespace: &Namespace, object: (u64, u64), context: &NamespaceContext<'_>) -> Fact<NamespaceOrigin> {
    match is_host(&namespace.kind, object) {
        Ok(true) => return Fact::Is(NamespaceOrigin::Host),
        Ok(false) => {}
        Err(why) => return Fact::Unknown(why),
    }
    let held = |record: &&ContainerRecord| record.namespaces.iter().any(|(k, o)| *k == namespace.kind && *o == object);
    // A dead container's inode may have been given to another namespace.
    let holders: Vec<_> = context.records.records.iter().filter(held).filter(|r| r.alive()).collect();
    if let Some(other) = holders.iter().find(|r| !is_same_pod(r, context)) {
        return Fact::Is(NamespaceOrigin::Foreign(format!("{}/{}", other.namespace, other.id)));
    }
    if !holders.is_empty() {
        return Fact::Is(NamespaceOrigin::OwnPod);
    }
    if context.is_sandbox && namespace.kind == "network" {
        return match context.cri_netns {
            Some(own) if own != namespace.path => {
                Fact::Unknown(format!("CRI made {own:?} for this sandbox, the spec names {:?}", namespace.path))
            }
            _ => Fact::Is(NamespaceOrigin::OwnPod),
        };
    }
    if context.is_sandbox && namespace.kind == "user" && context.cri_userns == Some(object) {
        return Fact::Is(NamespaceOrigin::OwnPod);
    }
    Fact::Unknown(format!(
        "no container that boltseal started holds the {} namespace {:?}",
        namespace.kind, namespace.path
    ))
}

/// The host's namespace: that of pid 1 or of the kernel's threads, or the one that we run in.
fn is_host(kind: &str, found: (u64, u64)) -> Result<bool, String> {
    let proc = proc_name(kind).ok_or_else(|| format!("the namespace kind {kind:?} is unknown"))?;
    let of = |process: &str| object(&format!("/proc/{process}/ns/{proc}"), kind);
    // Some nodes hide pid 1 from root (its capabilities exceed ours); kthreadd lives in the initial namespaces as well.
    let host = match of("1") {
        Ok(host) => host,
        Err(_) if is_kthreadd() => of("2")?,
        Err(why) => return Err(why),
    };
    Ok(host == found || of("self")? == found)
}

/// Pid 2 is the kernel's own: named so and without a parent, which no other process can have.
fn is_kthreadd() -> bool {
    let stat = crate::file::kernel(Path::new("/proc/2/stat"), 4096).unwrap_or_default();
    stat.strip_prefix("2 (kthreadd) ").and_then(|rest| rest.split(' ').nth(1)) == Some("0")
}

fn is_same_pod(record: &ContainerRecord, context: &NamespaceContext<'_>) -> bool {
    let is_pod = !context.sandbox_id.is_empty() && !context.is_sandbox;
    is_pod && record.namespace == context.namespace && record.sandbox_id == context.sandbox_id
}

/// The name below /proc/<pid>/ns of an OCI kind.
#[must_use]
pub fn proc_name(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "pid" => "pid",
        "network" => "net",
        "mount" => "mnt",
        "ipc" => "ipc",
        "uts" => "uts",
        "user" => "user",
        "cgroup" => "cgroup",
        "time" => "time",
        _ => return None,
    })
}

/// What the kernel shows of the user namespace that is joined, by a live container of this pod in it. Absent: none is joined, or
/// no process is in it yet.
#[must_use]
pub fn joined(namespaces: &Namespaces, context: &NamespaceContext<'_>) -> Fact<IdMaps> {
    let Some(object) = namespaces.listed.iter().find(|n| n.kind == "user").and_then(|n| n.object) else {
        return Fact::Absent;
    };
    let holds = |r: &&ContainerRecord| r.namespaces.iter().any(|(k, o)| k == "user" && *o == object);
    let mut own = context.records.records.iter().filter(|r| is_same_pod(r, context) && r.alive());
    match own.find(holds) {
        None => Fact::Absent,
        Some(record) => maps_of(record.pid, object).map_or_else(Fact::Unknown, Fact::Is),
    }
}

/// The maps of a process's user namespace, which must be `object` before and after they are read.
fn maps_of(pid: u32, object: (u64, u64)) -> Result<IdMaps, String> {
    let same = || match self::object(&format!("/proc/{pid}/ns/user"), "user")? {
        found if found == object => Ok(()),
        _ => Err(format!("process {pid} is in another user namespace")),
    };
    let read = |file: &str| {
        let text = crate::file::kernel(Path::new(&format!("/proc/{pid}/{file}")), 4096).map_err(|e| e.to_string())?;
        id_map(&text).ok_or_else(|| format!("{file} of process {pid} is not understood"))
    };
    same()?;
    let maps = IdMaps { uids: read("uid_map")?, gids: read("gid_map")? };
    same()?;
    Ok(maps)
}

/// Lines of `inside outside count` (user_namespaces(7)).
fn id_map(text: &str) -> Option<Vec<(u32, u32, u32)>> {
    let line = |line: &str| match line.split_ascii_whitespace().collect::<Vec<_>>().as_slice() {
        [inside, outside, count] => Some((inside.parse().ok()?, outside.parse().ok()?, count.parse().ok()?)),
        _ => None,
    };
    text.lines().map(line).collect()
}

/// Ids of live containers of other pods whose host ids overlap with those of `ids`. Ranges that wrap are an overlap
/// with everything: `invalid range`.
#[must_use]
pub fn overlaps(ids: &IdMaps, context: &NamespaceContext<'_>) -> Vec<String> {
    let ranges: Vec<(u32, u32)> = ids.uids.iter().chain(&ids.gids).map(|&(_, host, size)| (host, size)).collect();
    let mut found = Vec::new();
    if ranges.iter().any(|&(host, size)| host.checked_add(size).is_none()) {
        found.push("invalid range".to_owned());
    }
    for record in context.records.records.iter().filter(|r| !r.user_ns_ranges.is_empty()) {
        let is_self = record.namespace == context.namespace && record.id == context.id;
        let meets = |&(a, n): &(u32, u32)| {
            record
                .user_ns_ranges
                .iter()
                .any(|&(b, m)| n > 0 && m > 0 && a < b.saturating_add(m) && b < a.saturating_add(n))
        };
        if !is_self && !is_same_pod(record, context) && ranges.iter().any(meets) && record.alive() {
            found.push(format!("{}/{}", record.namespace, record.id));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::start_time;

    /// A record of a live container (this process) that holds `objects`.
    fn holder(id: &str, sandbox: &str, objects: &[(&str, (u64, u64))]) -> ContainerRecord {
        ContainerRecord {
            id: id.into(),
            namespace: "k8s.io".into(),
            sandbox_id: sandbox.into(),
            pid: std::process::id(),
            start_time: start_time(&std::fs::read_to_string("/proc/self/stat").unwrap()).unwrap(),
            namespaces: objects.iter().map(|&(k, o)| (k.to_owned(), o)).collect(),
            user_ns_ranges: vec![(100_000, 65_536)],
            ..ContainerRecord::default()
        }
    }

    fn named(kind: &str, path: &str) -> Namespace {
        Namespace { kind: kind.into(), origin: Fact::default(), path: path.into(), object: None }
    }

    fn origin_of(
        object: (u64, u64),
        records: &Records,
        sandbox_id: &str,
        is_sandbox: bool,
        cri: Option<&str>,
    ) -> Fact<NamespaceOrigin> {
        let context = NamespaceContext {
            records,
            namespace: "k8s.io",
            id: "c9",
            sandbox_id,
            is_sandbox,
            cri_netns: cri,
            cri_userns: None,
        };
        origin(&named("network", "/run/netns/x"), object, &context)
    }

    #[test]
    fn the_hosts_own() {
        let records = Records::default();
        let context = NamespaceContext {
            records: &records,
            namespace: "n",
            id: "c",
            sandbox_id: "",
            is_sandbox: true,
            cri_netns: None,
            cri_userns: None,
        };
        for kind in ["pid", "network", "mount", "ipc", "uts", "user", "cgroup"] {
            let path = format!("/proc/self/ns/{}", proc_name(kind).unwrap());
            let mut all = Namespaces { listed: vec![named(kind, &path)] };
            resolve(&mut all, &context);
            assert_eq!(all.listed[0].origin, Fact::Is(NamespaceOrigin::Host), "{kind}");
            assert!(all.listed[0].object.is_some());
        }
    }

    #[test]
    fn only_namespaces_of_the_kind_count() {
        for (path, kind) in [
            ("/etc/passwd", "network"),
            ("/proc/self/ns/pid", "network"),
            ("/proc/self/ns/none", "network"),
            ("proc/self/ns/net", "network"),
            ("/proc/self/ns/net", "odd"),
        ] {
            assert!(object(path, kind).is_err(), "{path}");
        }
        assert!(object("/proc/self/ns/net", "network").is_ok());
    }

    #[test]
    fn by_who_holds_it() {
        let there = (4, 17);
        let of = |record: ContainerRecord| Records { records: vec![record], incomplete: vec![] };
        let own = of(holder("s1", "s1", &[("network", there)]));
        assert_eq!(origin_of(there, &own, "s1", false, None), Fact::Is(NamespaceOrigin::OwnPod));
        let other = Fact::Is(NamespaceOrigin::Foreign("k8s.io/s1".into()));
        assert_eq!(origin_of(there, &own, "s2", false, None), other);
        assert_eq!(origin_of(there, &own, "", false, None), other);
        assert_eq!(origin_of(there, &own, "c9", true, None), other, "a sandbox shares with nobody");
        assert!(matches!(origin_of(there, &Records::default(), "s1", false, None), Fact::Unknown(_)));
        let mut dead = holder("s1", "s1", &[("network", there)]);
        dead.start_time += 1;
        assert!(matches!(origin_of(there, &of(dead), "s1", false, None), Fact::Unknown(_)));
        let wrong_kind = of(holder("s1", "s1", &[("ipc", there)]));
        assert!(matches!(origin_of(there, &wrong_kind, "s1", false, None), Fact::Unknown(_)));
    }

    #[test]
    fn a_sandbox_gets_the_one_that_cri_made() {
        let free = Records::default();
        let own = Fact::Is(NamespaceOrigin::OwnPod);
        assert_eq!(origin_of((4, 17), &free, "c9", true, Some("/run/netns/x")), own);
        assert_eq!(origin_of((4, 17), &free, "c9", true, None), own);
        assert!(matches!(origin_of((4, 17), &free, "c9", true, Some("/run/netns/y")), Fact::Unknown(_)));
    }

    /// The user namespace of the network namespace that CRI made for this sandbox, and no other.
    #[test]
    fn a_sandbox_gets_the_user_namespace_that_cri_made() {
        let there = (4, 17);
        let of = |records: &Records, is_sandbox: bool, cri_userns: Option<(u64, u64)>| {
            let context = NamespaceContext {
                records,
                namespace: "k8s.io",
                id: "c9",
                sandbox_id: "c9",
                is_sandbox,
                cri_netns: Some("/run/netns/x"),
                cri_userns,
            };
            origin(&named("user", "/run/pinned/user"), there, &context)
        };
        let free = Records::default();
        assert_eq!(of(&free, true, Some(there)), Fact::Is(NamespaceOrigin::OwnPod));
        for (is_sandbox, made) in [(true, None), (true, Some((4, 18))), (false, Some(there))] {
            assert!(matches!(of(&free, is_sandbox, made), Fact::Unknown(_)), "{is_sandbox} {made:?}");
        }
        let held = Records { records: vec![holder("s1", "s1", &[("user", there)])], incomplete: vec![] };
        assert_eq!(of(&held, true, Some(there)), Fact::Is(NamespaceOrigin::Foreign("k8s.io/s1".into())));
    }

    fn context_of<'a>(records: &'a Records, sandbox_id: &'a str) -> NamespaceContext<'a> {
        NamespaceContext {
            records,
            namespace: "k8s.io",
            id: "c9",
            sandbox_id,
            is_sandbox: false,
            cri_netns: None,
            cri_userns: None,
        }
    }

    #[test]
    fn what_the_kernel_shows_of_the_namespace_that_is_joined() {
        let own = object("/proc/self/ns/user", "user").unwrap();
        let records = Records { records: vec![holder("s1", "s1", &[("user", own)])], incomplete: vec![] };
        let listed = |object| {
            let mut user = named("user", "/proc/1/ns/user");
            user.object = object;
            Namespaces { listed: vec![user] }
        };
        let shown = id_map(&std::fs::read_to_string("/proc/self/uid_map").unwrap()).unwrap();
        match joined(&listed(Some(own)), &context_of(&records, "s1")) {
            Fact::Is(maps) => assert_eq!(maps.uids, shown),
            other => panic!("{other:?}"),
        }
        for (object, sandbox) in [(None, "s1"), (Some((4, 17)), "s1"), (Some(own), "s2"), (Some(own), "")] {
            assert_eq!(joined(&listed(object), &context_of(&records, sandbox)), Fact::Absent);
        }
        // The record is wrong about where the process is.
        let wrong = Records { records: vec![holder("s1", "s1", &[("user", (4, 17))])], incomplete: vec![] };
        assert!(matches!(joined(&listed(Some((4, 17))), &context_of(&wrong, "s1")), Fact::Unknown(_)));
        assert_eq!(id_map("         0     131072      65536\n"), Some(vec![(0, 131_072, 65_536)]));
        for odd in ["0 1", "0 1 2 3", "a 1 2", "0 1 4294967296"] {
            assert_eq!(id_map(odd), None, "{odd}");
        }
    }

    #[test]
    fn ranges_of_other_pods() {
        let records = Records { records: vec![holder("s1", "s1", &[])], incomplete: vec![] };
        let of = |host: u32, size: u32, sandbox: &str| {
            let ids = IdMaps { uids: vec![(0, host, size)], gids: vec![] };
            overlaps(&ids, &context_of(&records, sandbox))
        };
        assert_eq!(of(165_535, 10, "s2"), ["k8s.io/s1"]);
        assert!(of(165_536, 10, "s2").is_empty());
        assert!(of(100_000, 65_536, "s1").is_empty());
        assert_eq!(of(u32::MAX, 2, "s2"), ["invalid range"]);
    }
}
