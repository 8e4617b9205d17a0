//! Compares what the kernel shows of a process with the approved table. The same code runs inside (on /proc/self,
//! after everything is set up) and outside (on /proc/PID, while init is parked): one line per difference.
use crate::mountinfo::{self, Entry};
use crate::rootfs::Resolved;
use crate::sys;
use boltseal_seal::{ApprovedNamespace, Table};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// OCI name of a namespace and its link in /proc/PID/ns.
pub(crate) const NAMESPACES: &[(&str, &str)] = &[
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
    ("user", "user"),
    ("time", "time"),
];

/// OCI name -> nsfs (device, inode).
pub(crate) type Objects = BTreeMap<String, (u64, u64)>;

/// The namespaces of a process; a kind that this kernel lacks is left out.
pub(crate) fn objects(proc: &Path) -> Result<Objects, String> {
    let mut all = Objects::new();
    for (kind, link) in NAMESPACES {
        match sys::object(&proc.join("ns").join(link)) {
            Ok(object) => {
                all.insert((*kind).to_owned(), object);
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(format!("namespace {kind} cannot be read: {e}")),
        }
    }
    Ok(all)
}

/// Each approved namespace is the approved object, or any but the host's; every other kind is the gate's own.
pub(crate) fn namespaces(actual: &Objects, host: &Objects, approved: &[ApprovedNamespace]) -> Vec<String> {
    let mut lines = Vec::new();
    for (kind, object) in actual {
        let is_host = host.get(kind) == Some(object);
        match approved.iter().find(|a| a.kind == *kind).map(|a| a.object) {
            Some(Some(expected)) if expected != *object => {
                lines.push(format!(
                    "namespace {kind} is {}:{}, approved is {}:{}",
                    object.0, object.1, expected.0, expected.1
                ));
            }
            Some(None) if is_host => lines.push(format!("namespace {kind} is the host's")),
            None if !is_host => lines.push(format!("namespace {kind} is not the host's and was not approved")),
            _ => {}
        }
    }
    for wanted in approved.iter().filter(|a| !actual.contains_key(&a.kind)) {
        lines.push(format!("namespace {} was approved and is not there", wanted.kind));
    }
    lines
}

/// What /proc/PID/status says.
#[derive(Debug, Default)]
pub(crate) struct Status {
    fields: BTreeMap<String, String>,
}

impl Status {
    pub(crate) fn read(proc: &Path) -> Result<Self, String> {
        let text = sys::read_kernel(proc.join("status")).map_err(|e| format!("status cannot be read: {e}"))?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let pair = |line: &str| line.split_once(':').map(|(k, v)| (k.to_owned(), v.trim().to_owned()));
        Self { fields: text.lines().filter_map(pair).collect() }
    }

    fn get(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    pub(crate) fn number(&self, name: &str) -> Option<u32> {
        self.get(name).parse().ok()
    }

    fn ids(&self, name: &str) -> Option<Vec<u32>> {
        self.get(name).split_whitespace().map(|n| n.parse().ok()).collect()
    }
}

/// How ids inside look from where the status is read: (inside, outside, count) of uid_map; empty is the same.
pub(crate) type IdMap = Vec<(u32, u32, u32)>;

/// Capabilities, ids, no_new_privs. `ids`: maps of uids and gids.
pub(crate) fn credentials(status: &Status, table: &Table, maps: (&IdMap, &IdMap)) -> Vec<String> {
    let mut lines = Vec::new();
    let mut expect = |what: &str, actual: String, expected: String| {
        if actual != expected {
            lines.push(format!("{what} is {actual}, approved is {expected}"));
        }
    };
    expect("NoNewPrivs", status.get("NoNewPrivs").to_owned(), "1".to_owned());
    let mask = match capability_mask(table) {
        Ok(mask) => mask,
        Err(line) => return vec![line],
    };
    for (set, expected) in [("CapEff", mask), ("CapPrm", mask), ("CapBnd", mask), ("CapInh", 0), ("CapAmb", 0)] {
        expect(set, status.get(set).to_owned(), format!("{expected:016x}"));
    }
    let outside = |map: &IdMap, id: u32| {
        let range = map.iter().find(|(inside, _, count)| id >= *inside && id - inside < *count);
        match range {
            Some((inside, host, _)) => Some(host + (id - inside)),
            None if map.is_empty() => Some(id),
            None => None,
        }
    };
    let quad = |id: Option<u32>| id.map(|i| vec![i; 4]);
    expect("Uid", format!("{:?}", status.ids("Uid")), format!("{:?}", quad(outside(maps.0, table.uid))));
    expect("Gid", format!("{:?}", status.ids("Gid")), format!("{:?}", quad(outside(maps.1, table.gid))));
    let sorted = |ids: Option<Vec<u32>>| {
        ids.map(|mut ids| {
            ids.sort_unstable();
            ids.dedup();
            ids
        })
    };
    let groups = table.additional_gids.iter().map(|g| outside(maps.1, *g)).collect();
    expect("Groups", format!("{:?}", sorted(status.ids("Groups"))), format!("{:?}", sorted(groups)));
    lines
}

/// The maps of a process's user namespace, as its parent counts: exactly what was approved. Where none was, the namespace itself
/// is the host's, and the object says so.
pub(crate) fn id_maps(proc: &Path, approved: Option<(u32, u32)>) -> Vec<String> {
    let Some((host, size)) = approved else { return Vec::new() };
    let one = |file: &str| match sys::read_kernel(proc.join(file)) {
        Ok(text) => {
            let actual: Vec<&str> = text.split_whitespace().collect();
            let fits = actual == ["0", &host.to_string(), &size.to_string()];
            (!fits).then(|| format!("{file} is {:?}, approved is 0 {host} {size}", text.trim()))
        }
        Err(e) => Some(format!("{file} cannot be read: {e}")),
    };
    ["uid_map", "gid_map"].iter().filter_map(|file| one(file)).collect()
}

fn capability_mask(table: &Table) -> Result<u64, String> {
    let bit = |name: &String| {
        let full = if name.starts_with("CAP_") { name.clone() } else { format!("CAP_{name}") };
        caps::Capability::from_str(&full)
            .map(|c| c.bitmask())
            .map_err(|_| format!("the approved capability {name} is not known"))
    };
    table.capabilities.iter().map(bit).try_fold(0, |mask, bit| Ok(mask | bit?))
}

/// What `mounts` compares with.
pub(crate) struct Mounts<'a> {
    pub(crate) approved: &'a [Resolved],
    pub(crate) masked: &'a [String],
    pub(crate) readonly: &'a [String],
    /// libcontainer binds the terminal on /dev/console.
    pub(crate) console: bool,
    /// In a user namespace libcontainer binds the host's device nodes; names below /dev.
    pub(crate) bound_devices: &'a [String],
    /// An exec comes later: what the host has mounted since below a receiving volume is not the container's doing.
    pub(crate) later: bool,
    /// The container's root as seen from here: `/`, or `/proc/PID/root`.
    pub(crate) root: PathBuf,
}

/// Compares /proc/PID/mountinfo. Beside the approved mounts libcontainer makes: a read-only tmpfs over a masked folder,
/// its /dev/null over a masked file, a read-only bind over each read-only path, /dev/console for a terminal, one mount
/// per controller below a cgroup v1 mount, device nodes in a user namespace. Anything else is a difference.
pub(crate) fn mounts(proc: &Path, expected: &Mounts<'_>) -> Vec<String> {
    let text = match sys::read_kernel(proc.join("mountinfo")) {
        Ok(text) => text,
        Err(e) => return vec![format!("mountinfo cannot be read: {e}")],
    };
    match mountinfo::parse(&text) {
        Ok(entries) => compare(entries, expected),
        Err(line) => vec![line],
    }
}

fn compare(entries: Vec<Entry>, expected: &Mounts<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut left = entries;
    let take =
        |left: &mut Vec<Entry>, fits: &dyn Fn(&Entry) -> bool| left.iter().position(fits).map(|i| left.remove(i));
    let exists = |path: &str| expected.root.join(path.trim_start_matches('/')).symlink_metadata().is_ok();

    for approved in expected.approved {
        match take(&mut left, &|e| e.point == approved.point) {
            Some(entry) => {
                lines.extend(one(&entry, approved));
                lines.extend(foreign_cgroup(&entry, expected));
            }
            None => lines.push(format!("mount {} was approved and is not there", approved.point)),
        }
    }
    for path in expected.masked {
        match take(&mut left, &|e| e.point == *path && is_mask(e)) {
            Some(entry) if entry.shared => lines.push(format!("mask {path} is shared with other namespaces")),
            Some(_) => {}
            None if exists(path) => lines.push(format!("{path} is not masked")),
            None => {}
        }
    }
    for path in expected.readonly {
        match take(&mut left, &|e| e.point == *path && e.readonly) {
            Some(entry) if entry.shared => lines.push(format!("read-only path {path} is shared with other namespaces")),
            Some(_) => {}
            None if exists(path) => lines.push(format!("{path} is not read-only")),
            None => {}
        }
    }
    if expected.console {
        take(&mut left, &|e| e.point == "/dev/console" && e.fstype == "devpts" && !e.shared);
    }
    for device in expected.bound_devices {
        let node = format!("/{}", device.trim_start_matches("/dev/"));
        take(&mut left, &|e| e.point == *device && e.fstype == "devtmpfs" && e.root == node && !e.shared);
    }
    left.retain(|entry| {
        let below = |m: &&Resolved| entry.point.starts_with(&format!("{}/", m.point));
        let cgroup = expected.approved.iter().filter(below).find(|m| m.approved.fstype.as_deref() == Some("cgroup"));
        match cgroup {
            Some(parent) if entry.fstype.starts_with("cgroup") && !entry.shared => {
                lines.extend(flags(entry, parent));
                false
            }
            _ => !(expected.later && expected.approved.iter().filter(below).any(|m| m.slave)),
        }
    });
    lines.extend(left.iter().map(|e| format!("mount {} ({} {}) was not approved", e.point, e.fstype, e.root)));
    lines
}

/// cgroup v2 as seen from its own namespace begins at the container. Where libcontainer cannot mount it (SELinux's label is
/// one reason) it binds what it takes for the container's folder, which is the whole node's.
fn foreign_cgroup(entry: &Entry, expected: &Mounts<'_>) -> Option<String> {
    let inside = expected.root == Path::new("/");
    (inside && entry.fstype == "cgroup2" && entry.root != "/")
        .then(|| format!("mount {} shows the cgroup {}, approved is the container's own", entry.point, entry.root))
}

/// A mask hides: an empty read-only tmpfs over a folder, the container's or the host's null device over a file.
fn is_mask(entry: &Entry) -> bool {
    let folder = entry.fstype == "tmpfs" && entry.readonly && entry.root == "/";
    let file = matches!(entry.fstype.as_str(), "tmpfs" | "devtmpfs") && entry.root == "/null";
    folder || file
}

fn one(entry: &Entry, resolved: &Resolved) -> Vec<String> {
    let approved = &resolved.approved;
    let mut lines = Vec::new();
    let point = &resolved.point;
    match (&approved.fstype, &approved.source) {
        (None, None) => lines.push(format!("mount {point} has nothing approved to be compared with")),
        (fstype, source) => {
            // "cgroup" is a tmpfs with one mount per controller on v1, and cgroup2 on v2.
            let fits = |f: &String| {
                entry.fstype == *f || (f == "cgroup" && matches!(entry.fstype.as_str(), "tmpfs" | "cgroup2"))
            };
            if fstype.as_ref().is_some_and(|f| !fits(f)) {
                lines.push(format!(
                    "mount {point} is a {}, approved is {}",
                    entry.fstype,
                    fstype.as_deref().unwrap_or_default()
                ));
            }
            if source.as_ref().is_some_and(|(device, root)| *device != entry.device || *root != entry.root) {
                lines.push(format!(
                    "mount {point} shows {}:{} {}, approved is {source:?}",
                    entry.device.0, entry.device.1, entry.root
                ));
            }
        }
    }
    if resolved.device.is_some_and(|d| d != entry.device) {
        lines.push(format!("mount {point} is another file system ({}:{})", entry.device.0, entry.device.1));
    }
    // The table cannot tell v1, which libcontainer mounts writable, from v2: that one is read-only whatever it says.
    if entry.fstype == "cgroup2" && !entry.readonly {
        lines.push(format!("mount {point} of cgroup v2 is not read-only"));
    }
    if entry.slave && !resolved.slave {
        lines.push(format!("mount {point} receives mounts from the host"));
    }
    lines.extend(flags(entry, resolved));
    lines
}

/// Stricter than approved is no difference.
fn flags(entry: &Entry, resolved: &Resolved) -> Vec<String> {
    let approved = &resolved.approved;
    let missing = |wanted: bool, there: bool, name: &str| {
        (wanted && !there).then(|| format!("mount {} is not {name}", entry.point))
    };
    [
        missing(approved.readonly, entry.readonly, "read-only"),
        missing(approved.nosuid, entry.nosuid, "nosuid"),
        missing(approved.nodev, entry.nodev, "nodev"),
        missing(approved.noexec, entry.noexec, "noexec"),
        missing(approved.idmapped, entry.idmapped, "idmapped"),
        entry.shared.then(|| format!("mount {} is shared with other namespaces", entry.point)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use boltseal_seal::ApprovedMount;

    const INFO: &str = "\
1 0 0:50 / / ro,nosuid,nodev,relatime - overlay overlay rw
2 1 0:51 / /proc rw,nosuid,nodev,noexec - proc proc rw
3 1 0:52 / /dev rw,nosuid - tmpfs tmpfs rw
4 1 8:1 /vol/1 /data rw,nosuid,nodev,noexec - ext4 /dev/sda1 rw
5 2 0:51 /sys /proc/sys ro,nosuid,nodev,noexec - proc proc rw
6 2 0:52 /null /proc/version rw,nosuid - tmpfs tmpfs rw
";

    fn resolved(point: &str, fstype: Option<&str>, source: Option<((u32, u32), &str)>) -> Resolved {
        let approved = ApprovedMount {
            destination: point.into(),
            fstype: fstype.map(Into::into),
            source: source.map(|(d, p)| (d, p.to_owned())),
            readonly: point == "/",
            nosuid: true,
            nodev: point != "/dev",
            noexec: point == "/data",
            idmapped: false,
        };
        Resolved { point: point.into(), approved, slave: false, device: None }
    }

    fn approved() -> Vec<Resolved> {
        vec![
            resolved("/", Some("overlay"), None),
            resolved("/proc", Some("proc"), None),
            resolved("/dev", Some("tmpfs"), None),
            resolved("/data", None, Some(((8, 1), "/vol/1"))),
        ]
    }

    fn differences(info: &str, approved: &[Resolved]) -> Vec<String> {
        let (masked, readonly) = (vec!["/proc/version".to_owned()], vec!["/proc/sys".to_owned()]);
        let expected = Mounts {
            approved,
            masked: &masked,
            readonly: &readonly,
            console: false,
            bound_devices: &[],
            later: false,
            root: "/".into(),
        };
        compare(mountinfo::parse(info).unwrap(), &expected)
    }

    #[test]
    fn what_was_approved_passes() {
        assert_eq!(differences(INFO, &approved()), Vec::<String>::new());
    }

    #[test]
    fn each_difference_is_one_line() {
        for (from, to, part) in [
            ("0:50 / / ro,", "0:50 / / rw,", "mount / is not read-only"),
            ("/ /proc rw,nosuid,", "/ /proc rw,", "mount /proc is not nosuid"),
            ("8:1 /vol/1 /data", "8:2 /vol/1 /data", "mount /data shows 8:2 /vol/1"),
            ("8:1 /vol/1 /data", "8:1 /vol/2 /data", "mount /data shows 8:1 /vol/2"),
            ("noexec - ext4", "noexec shared:3 - ext4", "mount /data is shared"),
            ("noexec - ext4", "noexec master:3 - ext4", "mount /data receives mounts"),
            ("nodev,noexec - ext4", "nodev - ext4", "mount /data is not noexec"),
            ("- tmpfs tmpfs rw\n4", "- ext4 /dev/sdb rw\n4", "mount /dev is a ext4"),
            ("/sys /proc/sys ro", "/sys /proc/sys rw", "/proc/sys is not read-only"),
            ("/null /proc/version", "/zero /proc/version", "/proc/version is not masked"),
            ("6 2 ", "7 1 8:1 /etc /host rw - ext4 /dev/sda1 rw\n6 2 ", "mount /host (ext4 /etc) was not approved"),
            (
                "4 1 8:1 /vol/1 /data rw,nosuid,nodev,noexec - ext4 /dev/sda1 rw\n",
                "",
                "mount /data was approved and is not there",
            ),
        ] {
            let changed = INFO.replacen(from, to, 1);
            assert_ne!(changed, INFO, "{from}");
            let lines = differences(&changed, &approved());
            assert!(lines.iter().any(|l| l.contains(part)), "{part}: {lines:?}");
        }
    }

    #[test]
    fn a_mount_with_nothing_to_compare_fails() {
        let mut table = approved();
        table[3].approved.source = None;
        assert!(differences(INFO, &table)[0].contains("nothing approved"));
    }

    #[test]
    fn cgroup_v2_is_read_only_whatever_was_approved() {
        let with =
            |options: &str| format!("{INFO}7 1 0:26 / /sys/fs/cgroup {options},nosuid,nodev - cgroup2 cgroup rw\n");
        let mut table = approved();
        table.push(resolved("/sys/fs/cgroup", Some("cgroup"), None));
        assert_eq!(differences(&with("ro"), &table), Vec::<String>::new());
        assert_eq!(differences(&with("rw"), &table), ["mount /sys/fs/cgroup of cgroup v2 is not read-only"]);
        let nodes = with("ro").replace("0:26 / /sys", "0:26 /../.. /sys");
        let line = "mount /sys/fs/cgroup shows the cgroup /../.., approved is the container's own";
        assert_eq!(differences(&nodes, &table), [line]);
    }

    #[test]
    fn namespaces_of_host_and_others() {
        let all = |n: u64| -> Objects { [("pid".to_owned(), (4, n)), ("network".to_owned(), (4, n + 1))].into() };
        let approve = |kind: &str, object| ApprovedNamespace { kind: kind.into(), object };
        let both = [approve("pid", None), approve("network", Some((4, 11)))];
        assert!(namespaces(&all(10), &all(1), &both).is_empty());
        assert_eq!(namespaces(&all(1), &all(1), &both).len(), 2, "host pid, wrong network");
        assert_eq!(
            namespaces(&all(10), &all(1), &both[..1]),
            ["namespace network is not the host's and was not approved"]
        );
        let lost =
            namespaces(&all(10), &all(1), &[approve("pid", None), approve("network", None), approve("uts", None)]);
        assert_eq!(lost, ["namespace uts was approved and is not there"]);
    }

    #[test]
    fn credentials_line_by_line() {
        let table = Table { capabilities: ["CAP_CHOWN".to_owned()].into(), uid: 5, gid: 6, ..Table::default() };
        let status = "NoNewPrivs:\t1\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000001\nCapEff:\t0000000000000001\n\
                      CapBnd:\t0000000000000001\nCapAmb:\t0000000000000000\nUid:\t5\t5\t5\t5\nGid:\t6\t6\t6\t6\nGroups:\t \n";
        let none = (&IdMap::new(), &IdMap::new());
        assert_eq!(credentials(&Status::parse(status), &table, none), Vec::<String>::new());
        for (from, to) in [
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0"),
            ("CapBnd:\t0000000000000001", "CapBnd:\t0000000000000003"),
            ("CapAmb:\t0000000000000000", "CapAmb:\t0000000000000001"),
            ("Uid:\t5\t5", "Uid:\t5\t0"),
            ("Groups:\t ", "Groups:\t0 "),
            ("CapEff:", "Gone:"),
        ] {
            assert_eq!(credentials(&Status::parse(&status.replacen(from, to, 1)), &table, none).len(), 1, "{to}");
        }
        let map = vec![(0, 100_000, 65_536)];
        assert_eq!(
            credentials(
                &Status::parse(&status.replace("\t5", "\t100005").replace("\t6", "\t100006")),
                &table,
                (&map, &map)
            ),
            Vec::<String>::new()
        );
    }

    #[test]
    fn the_maps_are_exactly_the_approved_range() {
        let proc = std::env::temp_dir().join(format!("boltseal-id-maps-{}", std::process::id()));
        std::fs::create_dir_all(&proc).unwrap();
        let write = |file: &str, text: &str| std::fs::write(proc.join(file), text).unwrap();
        let good = "         0     131072      65536\n";
        write("gid_map", good);
        for (text, fits) in [
            (good, true),
            ("         0          0 4294967295\n", false),
            ("         0     131072      65535\n", false),
            ("         1     131072      65536\n", false),
            ("", false),
            ("0 131072 65536\n65536 0 1\n", false),
        ] {
            write("uid_map", text);
            assert_eq!(id_maps(&proc, Some((131_072, 65_536))).is_empty(), fits, "{text:?}");
        }
        write("uid_map", good);
        std::fs::remove_file(proc.join("gid_map")).unwrap();
        assert!(id_maps(&proc, Some((131_072, 65_536)))[0].starts_with("gid_map cannot be read"));
        std::fs::remove_dir_all(&proc).unwrap();
        assert_eq!(id_maps(&proc, None), Vec::<String>::new(), "without a user namespace nothing is read");
    }

    #[test]
    fn a_mount_is_idmapped_where_that_was_approved() {
        let mut approved = approved();
        approved[3].approved.idmapped = true;
        assert_eq!(differences(INFO, &approved), ["mount /data is not idmapped"]);
        let idmapped = INFO.replace("/data rw,", "/data rw,idmapped,");
        assert_eq!(differences(&idmapped, &approved), Vec::<String>::new());
    }
}
