//! What a pure cgroup v2 host needs beyond libcontainer's own manager: device rules (which it ignores there), a swap limit
//! of zero (which it takes for none), the two keys of `unified` that systemd's manager drops, paths that systemd does not
//! manage, and a look at whether the limits that keep a node alive are really in force.
use crate::error::LaunchError;
use crate::network::Ring;
use crate::{cgroup, device, network};
use boltseal_seal::{Label, Table};
use libcgroups::common::CgroupSetup;
use oci_spec::runtime::{Linux, LinuxResources};
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Where systemd says that it is the init of this host (sd_booted(3)).
const SYSTEMD_IS_HERE: &str = "/run/systemd/system";

/// Memory is limited in whole pages.
const PAGE: u64 = 4096;

pub(crate) fn is_unified() -> Result<bool, LaunchError> {
    Ok(matches!(cgroup::setup()?, CgroupSetup::Unified))
}

/// `slice:prefix:name` where systemd makes the scope: only there is it asked to.
pub(crate) fn is_managed(path: &str) -> Result<bool, LaunchError> {
    Ok(cgroup::is_systemd(path) && is_unified()? && Path::new(SYSTEMD_IS_HERE).is_dir())
}

/// The path as libcontainer must get it: the one that was sealed, or, where nobody manages slices, its folder.
pub(crate) fn manager_path(path: &str) -> Result<String, LaunchError> {
    Ok(if is_managed(path)? { path.to_owned() } else { cgroup::path_in_hierarchy(path) })
}

/// The sealed spec for libcontainer: the same bytes, but for a path that is not systemd's to make, and a mount of cgroup v2
/// under an SELinux label: libcontainer would give it that label, which the kernel refuses for a second view of one
/// hierarchy, and then bind the whole node's. What it is given instead is the container's own folder.
pub(crate) fn spec_for_libcontainer(json: &[u8], table: &Table) -> Result<Vec<u8>, LaunchError> {
    let path = table.cgroup_path.as_str();
    let moved = cgroup::is_systemd(path) && !is_managed(path)?;
    let labelled = matches!(table.label, Some(Label::Selinux(_))) && is_unified()?;
    if !moved && !labelled {
        return Ok(json.to_vec());
    }
    let failed = |e: serde_json::Error| LaunchError::Other(format!("the sealed spec: {e}"));
    let mut spec: serde_json::Value = serde_json::from_slice(json).map_err(failed)?;
    if moved {
        let place = spec.pointer_mut("/linux/cgroupsPath");
        let place = place.ok_or_else(|| LaunchError::Other("the sealed spec has no cgroupsPath".into()))?;
        *place = cgroup::path_in_hierarchy(path).into();
    }
    if labelled {
        bind_own_folder(&mut spec, &format!("/sys/fs/cgroup{}", cgroup::path_in_hierarchy(path)));
    }
    serde_json::to_vec(&spec).map_err(failed)
}

fn bind_own_folder(spec: &mut serde_json::Value, folder: &str) {
    let mounts = spec.get_mut("mounts").and_then(|m| m.as_array_mut()).into_iter().flatten();
    for mount in mounts.filter(|m| m.get("type").is_some_and(|t| t == "cgroup" || t == "cgroup2")) {
        let options = mount.get("options").and_then(|o| o.as_array()).cloned().unwrap_or_default();
        let options: Vec<_> = options.into_iter().chain(["bind".into()]).collect();
        for (key, value) in [("type", "bind".into()), ("source", folder.into()), ("options", options.into())] {
            if let Some(mount) = mount.as_object_mut() {
                mount.insert(key.into(), value);
            }
        }
    }
}

/// What could not be enforced is refused before anything is made.
pub(crate) fn supported(linux: &Linux) -> Result<(), LaunchError> {
    if is_unified()? {
        settings(linux.resources().as_ref().and_then(|r| r.unified().as_ref()))?;
        return program(linux).map(drop);
    }
    linux.resources().as_ref().map_or(Ok(()), only_on_v2)
}

/// Settings of v2 mean nothing to v1's controllers, which pass them over.
fn only_on_v2(resources: &LinuxResources) -> Result<(), LaunchError> {
    match resources.unified().iter().flatten().next() {
        Some((key, _)) => Err(LaunchError::Unsupported(format!("the setting {key} needs cgroup v2"))),
        None => Ok(()),
    }
}

fn program(linux: &Linux) -> Result<device::Program, LaunchError> {
    let rules = linux.resources().as_ref().and_then(|r| r.devices().as_deref()).unwrap_or_default();
    device::compile(rules)
}

/// Where v2 lies beside v1 and sockets are confined or watched: the container's folder there, with the programs in force, as the file that
/// a process joins it by. A socket stays with the cgroup that it was made in, so each process joins before it makes one.
pub(crate) fn make_beside(table: &Table) -> Result<Option<(File, Option<Ring>)>, LaunchError> {
    let Some(folder) = confined_beside(table)? else { return Ok(None) };
    std::fs::create_dir(&folder).map_err(LaunchError::io(format_args!("make the cgroup {}", folder.display())))?;
    let ring = network::enforce(table, &folder)?;
    Ok(Some((join(&folder)?, ring)))
}

/// The same for a process that comes later.
pub(crate) fn find_beside(table: &Table) -> Result<Option<File>, LaunchError> {
    confined_beside(table)?.map(|folder| join(&folder)).transpose()
}

fn confined_beside(table: &Table) -> Result<Option<PathBuf>, LaunchError> {
    if !network::is_held(table) || is_unified()? {
        return Ok(None);
    }
    let place = cgroup::beside(&table.cgroup_path)?;
    let place =
        place.ok_or_else(|| LaunchError::Unsupported("sockets are to be confined, without cgroup v2".into()))?;
    Ok(Some(place.1))
}

fn join(folder: &Path) -> Result<File, LaunchError> {
    let file = File::options().write(true).open(folder.join("cgroup.procs"));
    file.map_err(LaunchError::io(format_args!("open the cgroup {}", folder.display())))
}

/// The container's v2 folder while init is parked: the programs are attached, the limits are completed and seen.
/// On v1 its devices controller took the rules, and some that nobody sealed.
pub(crate) fn settle(table: &Table, linux: &Linux) -> Result<Option<Ring>, LaunchError> {
    let path = table.cgroup_path.as_str();
    if !is_unified()? {
        return settle_v1(path, linux).map(|()| None);
    }
    let folder = folder(path)?;
    device::enforce(&program(linux)?, &folder)?;
    let ring = network::enforce(table, &folder)?;
    linux.resources().as_ref().map_or(Ok(()), |resources| complete(&folder, resources))?;
    Ok(ring)
}

/// Without sealed rules the node has no controller that could hold them: BS-DEV-001 said so, and only warned.
fn settle_v1(path: &str, linux: &Linux) -> Result<(), LaunchError> {
    let rules = linux.resources().as_ref().and_then(|r| r.devices().as_deref()).unwrap_or_default();
    if rules.is_empty() {
        return Ok(());
    }
    let folder = devices_v1(path)?;
    let folder = folder.ok_or_else(|| LaunchError::Inspection(vec!["no cgroup holds the device rules".into()]))?;
    device::v1::only(rules, &folder)
}

fn devices_v1(path: &str) -> Result<Option<PathBuf>, LaunchError> {
    let mut folders = cgroup::folders(path)?.into_iter();
    let found = folders.find(|(names, _)| names.split(',').any(|name| name == "devices"));
    Ok(found.map(|(_, folder)| folder))
}

/// What an update by libcontainer's manager must not change: on v2 what systemd forgets when it sets other properties of the
/// scope, on v1 the device rules, to which libcgroups adds its own each time.
#[derive(Default)]
pub(crate) struct Kept {
    oom_group: Option<String>,
    v1_devices: Option<(PathBuf, String)>,
}

const OOM_GROUP: &str = "memory.oom.group";

/// Before libcontainer's manager sets new limits: what could not be set is refused.
pub(crate) fn before_update(path: &str, resources: &LinuxResources) -> Result<Kept, LaunchError> {
    if !is_unified()? {
        only_on_v2(resources)?;
        let folder = devices_v1(path)?;
        let list = folder.as_deref().map(device::v1::list).transpose()?;
        return Ok(Kept { v1_devices: folder.zip(list), ..Kept::default() });
    }
    settings(resources.unified().as_ref())?;
    if !is_managed(path)? {
        return Ok(Kept::default());
    }
    let text = std::fs::read_to_string(folder(path)?.join(OOM_GROUP)).map_err(LaunchError::io("read the OOM setting"));
    text.map(|text| Kept { oom_group: Some(text.trim_end().to_owned()), ..Kept::default() })
}

/// After it has set them.
pub(crate) fn updated(path: &str, resources: &LinuxResources, kept: &Kept) -> Result<(), LaunchError> {
    if let Some((folder, list)) = &kept.v1_devices {
        device::v1::as_before(list, folder)?;
    }
    if !is_unified()? {
        return Ok(());
    }
    let folder = folder(path)?;
    kept.oom_group.as_ref().map_or(Ok(()), |value| set(&folder, OOM_GROUP, value))?;
    complete(&folder, resources)
}

fn folder(path: &str) -> Result<PathBuf, LaunchError> {
    let found = cgroup::folders(path)?.into_iter().find(|(controllers, _)| controllers.is_empty());
    let (_, folder) = found.ok_or_else(|| LaunchError::Other(format!("the cgroup {path} is not there")))?;
    Ok(folder)
}

fn complete(folder: &Path, resources: &LinuxResources) -> Result<(), LaunchError> {
    let memory = resources.memory().unwrap_or_default();
    if let (Some(limit), Some(swap)) = (memory.limit().filter(|l| *l > 0), memory.swap().filter(|s| *s > 0)) {
        let more = swap.checked_sub(limit).filter(|more| *more >= 0);
        let more = more.ok_or_else(|| LaunchError::Other(format!("swap {swap} is below the memory limit {limit}")))?;
        set(folder, "memory.swap.max", &more.to_string())?;
    }
    for (key, value) in settings(resources.unified().as_ref())? {
        set(folder, key, value)?;
    }
    let lines = differences(folder, resources);
    if lines.is_empty() { Ok(()) } else { Err(LaunchError::Inspection(lines)) }
}

/// kubelet's two: an OOM kill takes the whole container, and swap has a limit. The seal lets no other key through.
fn settings(keys: Option<&HashMap<String, String>>) -> Result<Vec<(&str, &str)>, LaunchError> {
    let one = |(key, value): (&'_ String, &'_ String)| {
        let plain = match key.as_str() {
            "memory.oom.group" => matches!(value.as_str(), "0" | "1"),
            "memory.swap.max" => !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()),
            _ => false,
        };
        plain.then_some(()).ok_or_else(|| LaunchError::Unsupported(format!("the cgroup setting {key} = {value:?}")))
    };
    keys.into_iter().flatten().map(|pair| one(pair).map(|()| (pair.0.as_str(), pair.1.as_str()))).collect()
}

fn set(folder: &Path, file: &str, value: &str) -> Result<(), LaunchError> {
    // Not fs::write: it would ask the kernel to make a file that is not there.
    let write = || {
        let mut file = File::options().write(true).open(folder.join(file))?;
        std::io::Write::write_all(&mut file, value.as_bytes())
    };
    write().map_err(LaunchError::io(format_args!("set {file} to {value}")))
}

/// One line per limit that is not in force as asked. Tighter is no difference.
fn differences(folder: &Path, resources: &LinuxResources) -> Vec<String> {
    let text = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap_or_default().trim().to_owned();
    let mut lines = Vec::new();
    let mut limit = |file: &str, asked: Option<i64>, unit: u64| {
        let Some(asked) = asked.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0) else { return };
        let actual = text(file);
        if !actual.parse::<u64>().is_ok_and(|n| n <= asked && n >= asked / unit * unit) {
            lines.push(format!("{file} is {actual:?}, approved is {asked}"));
        }
    };
    limit("memory.max", resources.memory().and_then(|m| m.limit()), PAGE);
    limit("pids.max", resources.pids().map(|p| p.limit()), 1);
    if let Some(quota) = resources.cpu().as_ref().and_then(|c| c.quota()).filter(|q| *q > 0) {
        let actual = text("cpu.max");
        let period = resources.cpu().as_ref().and_then(|c| c.period()).unwrap_or(100_000);
        if !within(&actual, quota, period) {
            lines.push(format!("cpu.max is {actual:?}, approved is {quota}"));
        }
    }
    lines
}

/// `cpu.max` gives no more of a CPU than was approved. systemd rounds a quota down to whole microseconds per second.
fn within(actual: &str, quota: i64, period: u64) -> bool {
    let numbers = actual.split_once(' ').and_then(|(q, p)| Some((q.parse::<u128>().ok()?, p.parse::<u128>().ok()?)));
    let (Some((q, p)), Ok(quota)) = (numbers, u128::try_from(quota)) else { return false };
    q.checked_mul(u128::from(period)).zip(quota.checked_mul(p)).is_some_and(|(is, may)| q > 0 && is <= may)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;

    #[test]
    fn a_quota_is_a_share_of_a_period() {
        for (actual, quota, period) in
            [("20000 100000", 20_000, 100_000), ("9999 30000", 10_000, 30_000), ("1000 100000", 20_000, 100_000)]
        {
            assert!(within(actual, quota, period), "{actual}");
        }
        for (actual, quota, period) in [
            ("20000 1000", 20_000, 100_000),
            ("20001 100000", 20_000, 100_000),
            ("max 100000", 20_000, 100_000),
            ("", 1, 1),
            ("0 1", 1, 1),
        ] {
            assert!(!within(actual, quota, period), "{actual}");
        }
    }

    fn folder(files: &[(&str, &str)]) -> PathBuf {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("boltseal-cgroup2-{}-{next}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        files.iter().for_each(|(name, text)| fs::write(folder.join(name), text).unwrap());
        folder
    }

    fn resources(value: serde_json::Value) -> LinuxResources {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn swap_of_zero_is_a_limit() {
        let dir = folder(&[("memory.swap.max", "max\n"), ("memory.max", "8192\n"), ("memory.oom.group", "0\n")]);
        let asked = json!({"memory": {"limit": 8192, "swap": 8192}, "unified": {"memory.oom.group": "1"}});
        assert_eq!(complete(&dir, &resources(asked)), Ok(()));
        // A plain file keeps what the kernel's would replace: the first bytes are ours.
        assert_eq!(fs::read_to_string(dir.join("memory.swap.max")).unwrap(), "0ax\n");
        assert_eq!(fs::read_to_string(dir.join("memory.oom.group")).unwrap(), "1\n");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_limit_that_is_not_in_force_is_seen() {
        let all =
            json!({"memory": {"limit": 10_000}, "pids": {"limit": 5}, "cpu": {"quota": 20_000, "period": 100_000}});
        let good: [(&str, &str); 3] = [("memory.max", "8192\n"), ("pids.max", "5\n"), ("cpu.max", "20000 100000\n")];
        let dir = folder(&good);
        assert_eq!(differences(&dir, &resources(all.clone())), Vec::<String>::new());
        fs::remove_dir_all(dir).unwrap();
        for (at, wrong) in
            [(0, "max\n"), (0, "12288\n"), (0, "4096\n"), (1, "max\n"), (1, "6\n"), (2, "max 100000\n"), (2, "")]
        {
            let mut files = good;
            files[at].1 = wrong;
            let dir = folder(&files);
            assert_eq!(differences(&dir, &resources(all.clone())).len(), 1, "{files:?}");
            fs::remove_dir_all(dir).unwrap();
        }
    }

    #[test]
    fn other_settings_are_refused() {
        let dir = folder(&[("memory.high", "max\n"), ("memory.oom.group", "0\n")]);
        for (key, value) in [
            ("memory.high", "1"),
            ("memory.max", "max"),
            ("memory.oom.group", "2"),
            ("memory.swap.max", "max"),
            ("memory.swap.max", ""),
            ("../x", "1"),
        ] {
            let error = complete(&dir, &resources(json!({"unified": {key: value}}))).unwrap_err();
            assert!(matches!(error, LaunchError::Unsupported(_)), "{key}: {error}");
        }
        // A file that is not there is an error, and is not made.
        assert!(complete(&dir, &resources(json!({"unified": {"memory.swap.max": "0"}}))).is_err());
        assert!(!dir.join("memory.swap.max").exists());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_path_is_changed_only_where_nobody_manages_slices() {
        let json = br#"{"linux":{"cgroupsPath":"a-b.slice:cri:x"}}"#;
        let of =
            |path: &str| spec_for_libcontainer(json, &Table { cgroup_path: path.into(), ..Table::default() }).unwrap();
        assert_eq!(of("/a/b"), json);
        if is_managed("a-b.slice:cri:x").unwrap() {
            assert_eq!(of("a-b.slice:cri:x"), json);
        } else {
            assert_eq!(of("a-b.slice:cri:x"), br#"{"linux":{"cgroupsPath":"/a.slice/a-b.slice/cri-x.scope"}}"#);
        }
    }

    #[test]
    fn a_mount_of_cgroups_becomes_the_containers_own_folder() {
        let mut spec = json!({"mounts": [
            {"destination": "/proc", "type": "proc"},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid"]},
        ]});
        bind_own_folder(&mut spec, "/sys/fs/cgroup/a/b");
        let bound = json!({
            "destination": "/sys/fs/cgroup", "type": "bind", "source": "/sys/fs/cgroup/a/b", "options": ["ro", "nosuid", "bind"],
        });
        assert_eq!((&spec["mounts"][0]["type"], &spec["mounts"][1]), (&json!("proc"), &bound));
    }
}
