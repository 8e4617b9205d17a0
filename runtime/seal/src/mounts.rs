//! The mounts, and what inspection will compare them with.
use crate::{ApprovedMount, Input};
use boltseal_policy::facts::{Fact, Mount};
use boltseal_policy::{Terms, pattern};
use serde_json::{Value, json};

/// Options of fresh system mounts; the spec's own options for them count only where [`kept`] says so.
const PROC: &[&str] = &["nosuid", "noexec", "nodev"];
const DEV: &[&str] = &["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"];
const PTS: &[&str] = &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
const SHM: &[&str] = &["nosuid", "noexec", "nodev", "mode=1777"];
const MQUEUE: &[&str] = &["nosuid", "noexec", "nodev"];
const SYS: &[&str] = &["nosuid", "noexec", "nodev", "ro"];
const CGROUP: &[&str] = &["nosuid", "noexec", "nodev", "relatime", "ro"];

/// Size of /dev/shm when the spec names none.
const SHM_SIZE: &str = "size=65536k";

/// Options that neither open nor close anything.
const HARMLESS: [&str; 6] = ["noatime", "nodiratime", "relatime", "strictatime", "sync", "dirsync"];

/// The spec's mounts in their order, with the three that every container needs before them when they are missing, and
/// the same in the table's form with the root first.
pub(crate) fn build(input: &Input<'_>) -> Result<(Vec<Value>, Vec<ApprovedMount>), String> {
    let mut approved = vec![ApprovedMount {
        destination: "/".into(),
        fstype: Some("overlay".into()),
        source: None,
        readonly: true,
        nosuid: true,
        nodev: true,
        noexec: false,
        idmapped: false,
    }];
    let mut mounts = Vec::new();
    let mut add = |(mount, entry): (Value, ApprovedMount)| {
        mounts.push(mount);
        approved.push(entry);
    };
    let given = |at: &str, kind: &str| input.facts.mounts.iter().any(|m| is_at(m, at) && m.kind == kind);
    for (at, kind, options) in [("/proc", "proc", PROC), ("/dev", "tmpfs", DEV), ("/sys", "sysfs", SYS)] {
        if !given(at, kind) {
            add(fresh(at, kind, options, Vec::new()));
        }
    }
    for mount in &input.facts.mounts {
        add(one(input, mount)?);
    }
    Ok((mounts, approved))
}

fn is_at(m: &Mount, at: &str) -> bool {
    pattern::normal(&m.destination).as_deref() == Some(at)
}

fn one(input: &Input<'_>, m: &Mount) -> Result<(Value, ApprovedMount), String> {
    let at = pattern::normal(&m.destination)
        .ok_or_else(|| format!("mount destination {:?} is not a plain absolute path", m.destination))?;
    Ok(match (at.as_str(), m.kind.as_str()) {
        (_, "bind") => return bind(input, m, &at),
        ("/proc", "proc") => fresh(&at, "proc", PROC, kept(m, &["hidepid", "subset"])),
        ("/dev", "tmpfs") => fresh(&at, "tmpfs", DEV, Vec::new()),
        ("/dev/pts", "devpts") => fresh(&at, "devpts", PTS, kept(m, &["uid", "gid", "max"])),
        ("/dev/shm", "tmpfs") => fresh(&at, "tmpfs", SHM, vec![size(m).unwrap_or_else(|| SHM_SIZE.into())]),
        ("/dev/mqueue", "mqueue") => fresh(&at, "mqueue", MQUEUE, Vec::new()),
        ("/sys", "sysfs") => fresh(&at, "sysfs", SYS, Vec::new()),
        ("/sys/fs/cgroup", "cgroup" | "cgroup2") => cgroup(&at, input.facts.devices.enforced),
        (_, "tmpfs") => tmpfs(input.terms, m, &at),
        (_, kind) => return Err(format!("a mount of type {kind:?} at {at} cannot be sealed")),
    })
}

fn fresh(at: &str, kind: &str, options: &[&str], more: Vec<String>) -> (Value, ApprovedMount) {
    let options: Vec<String> = options.iter().map(ToString::to_string).chain(more).collect();
    entry(at, kind, kind, options, None)
}

/// libcontainer drops `ro` where cgroup v1 is: where it may be (`enforced`), the table must not promise it. What stands in
/// for it there: the files are the host root's, and Landlock lets nothing below be written. On v2 the launch demands it.
fn cgroup(at: &str, enforced: bool) -> (Value, ApprovedMount) {
    let (mount, approved) = fresh(at, "cgroup", CGROUP, Vec::new());
    (mount, ApprovedMount { readonly: !enforced, ..approved })
}

/// Data options of the spec that are passed on, by name.
fn kept(m: &Mount, names: &[&str]) -> Vec<String> {
    let is_kept = |o: &&String| o.split_once('=').is_some_and(|(name, value)| names.contains(&name) && is_one(value));
    m.options.iter().filter(is_kept).cloned().collect()
}

/// The last `size=` of the spec that limits.
fn size(m: &Mount) -> Option<String> {
    let limits = |s: &str| is_one(s) && s.bytes().any(|b| (b'1'..=b'9').contains(&b));
    m.options.iter().rev().find(|o| o.strip_prefix("size=").is_some_and(limits)).cloned()
}

/// A value that brings no other option with it: the kernel takes options apart at commas.
fn is_one(value: &str) -> bool {
    value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'%')
}

fn harmless(m: &Mount) -> impl Iterator<Item = String> + '_ {
    m.options.iter().filter(|o| HARMLESS.contains(&o.as_str())).cloned()
}

fn has(m: &Mount, option: &str) -> bool {
    m.options.iter().any(|o| o == option)
}

/// nosuid and nodev always; noexec where it is writable, unless an allowance keeps it executable, and where asked. Where
/// programs are listed nothing but the image brings any: what lies over a listed path, or below a listed folder, is not the list's.
fn flags(terms: &Terms, m: &Mount, at: &str) -> Vec<String> {
    let mut out = vec!["nosuid".to_owned(), "nodev".to_owned()];
    let stays_executable = terms.exec_volumes.iter().any(|v| v == at);
    if ((m.writable || terms.programs.is_some()) && !stays_executable) || has(m, "noexec") || has(m, "rnoexec") {
        out.push("noexec".into());
    }
    if !m.writable {
        out.push("ro".into());
    }
    out
}

fn tmpfs(terms: &Terms, m: &Mount, at: &str) -> (Value, ApprovedMount) {
    let mut options = flags(terms, m, at);
    options.extend(harmless(m));
    options.extend(kept(m, &["mode", "uid", "gid", "nr_inodes"]));
    options.push(size(m).unwrap_or_else(|| format!("size={}", terms.tmpfs_size)));
    entry(at, "tmpfs", "tmpfs", options, None)
}

/// Not recursive unless it is to receive the host's mounts: what lies mounted below the source was not judged.
fn bind(input: &Input<'_>, m: &Mount, at: &str) -> Result<(Value, ApprovedMount), String> {
    let object = match &m.object {
        Fact::Is(object) => object,
        Fact::Absent => return Err(format!("{:?}, mounted at {at}, does not exist", m.source)),
        Fact::Unknown(why) => return Err(format!("what {:?}, mounted at {at}, is, is unknown: {why}", m.source)),
    };
    let slave = matches!(m.propagation.as_deref(), Some("slave" | "rslave"));
    let mut options: Vec<String> =
        if slave { vec!["rbind".into(), "rslave".into()] } else { vec!["bind".into(), "rprivate".into()] };
    options.extend(flags(input.terms, m, at));
    if slave && !m.writable {
        options.push("rro".into());
    }
    options.extend(harmless(m));
    // The canonical path was judged, and by it the object that inspection will look for.
    let source = if object.path.is_empty() { &m.source } else { &object.path };
    let (mount, approved) = entry(at, "bind", source, options, Some((object.device, object.root.clone())));
    // The launch does it: libcontainer refuses a mount with mappings.
    Ok((mount, ApprovedMount { idmapped: is_idmapped(input, m)?, ..approved }))
}

/// Only to the ids of the container's own user namespace, and only where they are understood.
fn is_idmapped(input: &Input<'_>, m: &Mount) -> Result<bool, String> {
    match (&m.idmap, &input.facts.user_namespace) {
        (None, _) => Ok(false),
        (Some(ids), Some(user)) if ids.is_empty() || *ids == user.ids => Ok(true),
        _ => Err(format!("the mount at {} cannot be idmapped to other ids than the container's", m.destination)),
    }
}

fn entry(
    at: &str,
    kind: &str,
    source: &str,
    mut options: Vec<String>,
    object: Option<((u32, u32), String)>,
) -> (Value, ApprovedMount) {
    let mut seen = std::collections::BTreeSet::new();
    options.retain(|o| seen.insert(o.clone()));
    let is = |name: &str| options.iter().any(|o| o == name);
    let approved = ApprovedMount {
        destination: at.into(),
        fstype: object.is_none().then(|| kind.to_owned()),
        source: object,
        readonly: is("ro"),
        nosuid: is("nosuid"),
        nodev: is("nodev"),
        noexec: is("noexec"),
        idmapped: false,
    };
    (json!({ "destination": at, "type": kind, "source": source, "options": options }), approved)
}

/// Whether a mount receives the host's mounts.
pub(crate) fn has_slave(mounts: &[Value]) -> bool {
    mounts.iter().filter_map(|m| m.get("options").and_then(Value::as_array)).flatten().any(|o| o == "rslave")
}

/// Where Landlock lets the container write beside the usual nodes of /dev, which launch adds itself: writable volumes, and
/// granted devices.
pub(crate) fn writable(approved: &[ApprovedMount], terms: &Terms) -> Vec<String> {
    let system = ["/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup"];
    let volumes = approved
        .iter()
        .filter(|m| !m.readonly && !system.contains(&m.destination.as_str()))
        .map(|m| m.destination.clone());
    let mut out: Vec<String> = volumes.chain(terms.devices.iter().cloned()).collect();
    out.sort();
    out.dedup();
    out
}

#[cfg(test)]
mod tests {
    use crate::properties::{permissive, sealed};
    use boltseal_policy::facts::{Facts, IdMaps, Origin};
    use boltseal_policy::fixture;

    /// The options that a change of the facts' mounts gives, by destination.
    fn options(change: impl Fn(&mut Facts)) -> Result<Vec<(String, String)>, String> {
        let mut facts = fixture::facts();
        change(&mut facts);
        let sealed = sealed(&permissive(), &facts)?;
        let mounts = sealed.spec.mounts().clone().unwrap_or_default();
        Ok(mounts
            .iter()
            .map(|m| (m.destination().display().to_string(), m.options().clone().unwrap_or_default().join(",")))
            .collect())
    }

    fn of(at: &str, change: impl Fn(&mut Facts)) -> String {
        options(change).unwrap().into_iter().find(|(d, _)| d == at).unwrap().1
    }

    #[test]
    fn system_mounts_are_ours_whatever_the_spec_says() {
        let before = options(|_| {}).unwrap();
        let opened = options(|f| {
            for m in &mut f.mounts {
                m.options = ["rw", "suid", "dev", "exec", "mode=777", "size=0"].map(str::to_owned).to_vec();
                m.writable = true;
            }
        });
        assert_eq!(before, opened.unwrap());
        let without = options(|f| f.mounts.clear()).unwrap();
        assert_eq!(without.iter().map(|(d, _)| d.as_str()).collect::<Vec<_>>(), ["/proc", "/dev", "/sys"]);
        assert!(of("/sys", |_| {}).contains("ro"));
        // The tmpfs on /dev/shm is none on /dev.
        for (at, kind) in [("/proc", "proc"), ("/dev", "tmpfs"), ("/sys", "sysfs")] {
            let mut facts = fixture::facts();
            facts.mounts.retain(|m| m.destination != at);
            let spec = sealed(&permissive(), &facts).unwrap().spec;
            let fresh =
                |m: &oci_spec::runtime::Mount| m.destination().to_str() == Some(at) && m.typ().as_deref() == Some(kind);
            assert!(spec.mounts().iter().flatten().any(fresh), "{at}");
        }
    }

    #[test]
    fn cgroups_are_never_landlocks_to_write() {
        for v1 in [true, false] {
            let mut facts = fixture::facts();
            facts.devices.enforced = v1;
            let mut m = fixture::tmpfs("/sys/fs/cgroup", None);
            m.kind = "cgroup".into();
            facts.mounts.push(m);
            let table = sealed(&permissive(), &facts).unwrap().table;
            assert_eq!(table.mounts.last().unwrap().readonly, !v1);
            assert_eq!(table.landlock.writable, ["/dev/mqueue", "/dev/shm"]);
        }
    }

    #[test]
    fn binds_are_not_recursive_and_lose_what_they_do_not_need() {
        let bind = |writable: bool, options: &[&str], propagation: Option<&str>| {
            of("/data", |f| {
                let mut m = fixture::bind("/data");
                m.writable = writable;
                m.options = options.iter().map(ToString::to_string).collect();
                m.propagation = propagation.map(str::to_owned);
                f.mounts.push(m);
            })
        };
        assert_eq!(bind(true, &["rbind", "rw", "exec", "suid", "dev"], None), "bind,rprivate,nosuid,nodev,noexec");
        assert_eq!(bind(false, &["rbind", "ro", "noatime"], Some("rprivate")), "bind,rprivate,nosuid,nodev,ro,noatime");
        assert_eq!(bind(false, &["rbind", "rro", "rnoexec"], None), "bind,rprivate,nosuid,nodev,noexec,ro");
        assert_eq!(bind(false, &["rbind", "ro"], Some("rslave")), "rbind,rslave,nosuid,nodev,ro,rro");
        assert_eq!(bind(true, &["rbind"], Some("rshared")), "bind,rprivate,nosuid,nodev,noexec");
    }

    /// Data options that narrow, or say whose it is, come through; each at its own place only.
    #[test]
    fn data_options_are_kept_by_name() {
        let given = |at: &'static str, options: &'static [&'static str]| {
            of(at, |f| {
                let mount = f.mounts.iter_mut().find(|m| m.destination == at).unwrap();
                mount.options = options.iter().map(ToString::to_string).collect();
            })
        };
        assert_eq!(given("/proc", &["hidepid=2", "gid=5"]), "nosuid,noexec,nodev,hidepid=2");
        let pts = "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5,max=7";
        assert_eq!(given("/dev/pts", &["gid=5", "max=7", "mode=0666", "ptmxmode=0777"]), pts);
        let tmpfs = of("/tmp", |f| {
            let mut m = fixture::tmpfs("/tmp", Some("size=1m"));
            m.options.extend(["mode=1777", "uid=7", "nr_inodes=50%", "nr_blocks=1"].map(str::to_owned));
            f.mounts.push(m);
        });
        assert_eq!(tmpfs, "nosuid,nodev,noexec,mode=1777,uid=7,nr_inodes=50%,size=1m");
    }

    /// Only where a mount receives the node's does the root, and then nothing goes back.
    #[test]
    fn the_root_receives_mounts_only_with_a_volume_that_does() {
        for (propagation, root) in
            [(None, "private"), (Some("rprivate"), "private"), (Some("rslave"), "slave"), (Some("slave"), "slave")]
        {
            let mut facts = fixture::facts();
            let mut m = fixture::bind("/data");
            m.propagation = propagation.map(str::to_owned);
            facts.mounts.push(m);
            let spec = sealed(&permissive(), &facts).unwrap().spec;
            assert_eq!(spec.linux().as_ref().unwrap().rootfs_propagation().as_deref(), Some(root), "{propagation:?}");
        }
    }

    #[test]
    fn tmpfs_is_limited() {
        let tmpfs = |size: Option<&'static str>| of("/tmp", move |f| f.mounts.push(fixture::tmpfs("/tmp", size)));
        assert_eq!(tmpfs(None), "nosuid,nodev,noexec,size=67108864");
        assert_eq!(tmpfs(Some("size=0")), "nosuid,nodev,noexec,size=67108864");
        assert_eq!(tmpfs(Some("size=1m")), "nosuid,nodev,noexec,size=1m");
        assert_eq!(tmpfs(Some("size=0,nr_inodes=1")), "nosuid,nodev,noexec,size=67108864");
        assert_eq!(tmpfs(Some("mode=755,context=x")), "nosuid,nodev,noexec,size=67108864");
    }

    #[test]
    fn exec_volumes_stay_executable_by_allowance_alone() {
        let mut policy = fixture::policy();
        policy.allowances = vec![fixture::allowance()];
        let mut facts = fixture::facts();
        for at in ["/plugins", "/other"] {
            let mut m = fixture::bind(at);
            m.writable = true;
            if let boltseal_policy::Fact::Is(o) = &mut m.object {
                o.origin = Origin::Kubelet("empty-dir".into());
            }
            facts.mounts.push(m);
        }
        let table = sealed(&policy, &facts).unwrap().table;
        let noexec = |at: &str| table.mounts.iter().find(|m| m.destination == at).unwrap().noexec;
        assert!(!noexec("/plugins") && noexec("/other"));
        assert_eq!(table.landlock.writable, ["/dev/mqueue", "/dev/shm", "/other", "/plugins"]);
    }

    #[test]
    fn only_the_containers_own_ids_are_mapped_to() {
        let idmapped = |own: bool, idmap: Option<IdMaps>| {
            let mut facts = fixture::facts();
            if own {
                fixture::in_user_namespace(&mut facts);
            }
            let mut m = fixture::bind("/data");
            m.idmap = idmap;
            facts.mounts.push(m);
            let sealed = sealed(&permissive(), &facts)?;
            assert!(!String::from_utf8(sealed.json).unwrap().contains("idmap"));
            Ok::<_, String>(sealed.table.mounts.last().unwrap().idmapped)
        };
        let own = fixture::id_maps(131_072, 65_536);
        assert_eq!(idmapped(true, None), Ok(false));
        assert_eq!(idmapped(true, Some(own.clone())), Ok(true));
        assert_eq!(idmapped(true, Some(IdMaps::default())), Ok(true));
        assert!(idmapped(true, Some(fixture::id_maps(0, 65_536))).is_err());
        assert!(idmapped(false, Some(own)).is_err());
    }

    #[test]
    fn what_cannot_be_built_is_an_error() {
        let kind = options(|f| {
            let mut m = fixture::tmpfs("/x", None);
            m.kind = "overlay".into();
            f.mounts.push(m);
        });
        assert!(kind.unwrap_err().contains("cannot be sealed"));
        let unknown = options(|f| {
            let mut m = fixture::bind("/x");
            m.object = boltseal_policy::Fact::Unknown("x".into());
            f.mounts.push(m);
        });
        assert!(unknown.unwrap_err().contains("is unknown"));
        assert!(options(|f| f.mounts.push(fixture::tmpfs("/a/../b", None))).is_err());
    }
}
