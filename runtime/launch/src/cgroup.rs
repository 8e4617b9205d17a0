//! The container's cgroup folders, v1 and v2: found, inspected, emptied and removed by our own hand; limits are
//! applied by libcontainer's manager.
use crate::error::LaunchError;
use crate::{cgroup2, mountinfo, sys};
use libcgroups::common::{
    CgroupConfig, CgroupManager, CgroupSetup, ControllerOpt, create_cgroup_manager, get_cgroup_setup,
};
use oci_spec::runtime::LinuxResources;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long removal waits for killed processes to be gone.
const PATIENCE: Duration = Duration::from_millis(900);
/// The v1 controllers that libcgroups puts a process in; name=systemd, misc and rdma are not among them.
const CONTROLLERS: &[&str] = &[
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "hugetlb",
    "memory",
    "pids",
    "perf_event",
    "blkio",
    "net_prio",
    "net_cls",
    "freezer",
];

/// `cgroupsPath` as systemd names it, `slice:prefix:name`.
pub(crate) fn is_systemd(path: &str) -> bool {
    path.split(':').count() == 3
}

/// The path below the root of each hierarchy.
pub(crate) fn path_in_hierarchy(path: &str) -> String {
    let mut parts = path.split(':');
    let (Some(slice), Some(prefix), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
        return format!("/{}", path.trim_matches('/'));
    };
    let slice = if slice.is_empty() { "system.slice" } else { slice };
    // a-b.slice lies in a.slice (systemd.slice(5)).
    let stem = slice.strip_suffix(".slice").unwrap_or(slice);
    // `-.slice` is the root itself.
    let stem = if stem == "-" { "" } else { stem };
    let mut folder = String::new();
    for (i, _) in stem.match_indices('-').chain((!stem.is_empty()).then_some((stem.len(), ""))) {
        folder = format!("{folder}/{}.slice", stem.get(..i).unwrap_or_default());
    }
    let scope = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}-{name}") };
    if scope.ends_with(".slice") { format!("{folder}/{scope}") } else { format!("{folder}/{scope}.scope") }
}

/// Where each hierarchy is mounted: (controllers, empty for v2; folder). Looked up once in a run, which is shorter than
/// anything that could mount another.
fn hierarchies() -> Result<&'static [(String, PathBuf)], LaunchError> {
    static FOUND: OnceLock<Vec<(String, PathBuf)>> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(found);
    }
    let text = sys::read_kernel("/proc/self/mountinfo").map_err(LaunchError::io("read mountinfo"))?;
    let mut all: Vec<(String, PathBuf)> = Vec::new();
    for entry in mountinfo::parse(&text).map_err(LaunchError::Other)? {
        let controllers = match entry.fstype.as_str() {
            "cgroup2" => String::new(),
            "cgroup" => {
                let known = |o: &&str| CONTROLLERS.contains(o) || o.starts_with("name=");
                entry.super_options.split(',').filter(known).collect::<Vec<_>>().join(",")
            }
            _ => continue,
        };
        if entry.fstype == "cgroup" && controllers.is_empty() {
            continue;
        }
        if !all.iter().any(|(c, _)| *c == controllers) {
            all.push((controllers, PathBuf::from(entry.point)));
        }
    }
    Ok(FOUND.get_or_init(|| all))
}

/// The container's folders that exist: (controllers, empty for v2; absolute path on the host).
pub(crate) fn folders(cgroup_path: &str) -> Result<Vec<(String, PathBuf)>, LaunchError> {
    let below = path_in_hierarchy(cgroup_path);
    let below = below.trim_start_matches('/');
    if below.is_empty() || below.split('/').any(|p| p == ".." || p == ".") {
        return Err(LaunchError::Other(format!("cgroup path {cgroup_path:?} is no folder of its own")));
    }
    let beside = beside(cgroup_path)?;
    let place = |c: &String, mount: &PathBuf| match &beside {
        Some((_, folder)) if c.is_empty() => folder.clone(),
        _ => mount.join(below),
    };
    let all = hierarchies()?.iter().map(|(c, mount)| (c.clone(), place(c, mount)));
    Ok(all.filter(|(_, folder)| folder.is_dir()).collect())
}

/// Where cgroup v2 is mounted; None where it is not.
pub(crate) fn unified_mount() -> Result<Option<PathBuf>, LaunchError> {
    Ok(hierarchies()?.iter().find(|(controllers, _)| controllers.is_empty()).map(|(_, mount)| mount.clone()))
}

/// The container's folder in a v2 hierarchy that lies beside v1's, for programs on its sockets: (path, folder on the host).
/// libcontainer makes none there. It lies at the top, under a name of its own: nobody makes or removes the folders of slices
/// and pods in that hierarchy. None where v2 is alone, or not there.
pub(crate) fn beside(cgroup_path: &str) -> Result<Option<(String, PathBuf)>, LaunchError> {
    if matches!(setup()?, CgroupSetup::Unified) {
        return Ok(None);
    }
    let name = format!("boltseal{}", path_in_hierarchy(cgroup_path).replace(':', "::").replace('/', ":"));
    Ok(unified_mount()?.map(|mount| (format!("/{name}"), mount.join(name))))
}

/// /proc/PID/cgroup as (controllers -> path).
pub(crate) fn of(pid: &str) -> Result<BTreeMap<String, String>, LaunchError> {
    let text =
        sys::read_kernel(format!("/proc/{pid}/cgroup")).map_err(LaunchError::io("read the process's cgroups"))?;
    let line = |l: &str| {
        let mut fields = l.splitn(3, ':').skip(1);
        Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
    };
    Ok(text.lines().filter_map(line).collect())
}

/// Each hierarchy that limits shows the container's own path, and so does v2 beside v1 where sockets are `confined`; the others
/// are where the gate was.
pub(crate) fn differences(pid: u32, cgroup_path: &str, confined: bool) -> Result<Vec<String>, LaunchError> {
    let wanted = path_in_hierarchy(cgroup_path);
    let beside = beside(cgroup_path)?.filter(|_| confined);
    let unified = matches!(setup()?, CgroupSetup::Unified);
    let gate = of("self")?;
    let mut lines = Vec::new();
    for (controllers, path) in of(&pid.to_string())? {
        if let Some((own, _)) = beside.as_ref().filter(|_| controllers.is_empty()) {
            if *own != path {
                lines.push(format!("cgroup v2 is {path}, where sockets are confined is {own}"));
            }
            continue;
        }
        let limits = match unified {
            true => controllers.is_empty(),
            false => controllers.split(',').any(|c| CONTROLLERS.contains(&c)),
        };
        if limits && path != wanted {
            lines.push(format!("cgroup {controllers:?} is {path}, approved is {wanted}"));
        } else if !limits && path != wanted && gate.get(&controllers) != Some(&path) {
            lines.push(format!("cgroup {controllers:?} is {path}, the gate's is {:?}", gate.get(&controllers)));
        }
    }
    Ok(lines)
}

pub(crate) fn setup() -> Result<CgroupSetup, LaunchError> {
    get_cgroup_setup().map_err(|e| LaunchError::Other(format!("cannot tell cgroup v1 from v2: {e}")))
}

/// New limits, by the code that set the first ones.
pub(crate) fn apply(cgroup_path: &str, id: &str, resources: &LinuxResources) -> Result<(), LaunchError> {
    if resources.devices().as_ref().is_some_and(|d| !d.is_empty()) {
        return Err(LaunchError::Unsupported("device rules cannot be changed by an update".into()));
    }
    let kept = cgroup2::before_update(cgroup_path, resources)?;
    let failed = |e: &dyn std::fmt::Display| LaunchError::Other(format!("cannot apply the new limits: {e}"));
    let config = CgroupConfig {
        cgroup_path: cgroup2::manager_path(cgroup_path)?.into(),
        systemd_cgroup: cgroup2::is_managed(cgroup_path)?,
        container_name: id.to_owned(),
    };
    let manager = create_cgroup_manager(config).map_err(|e| failed(&e))?;
    let options = ControllerOpt { resources, disable_oom_killer: false, oom_score_adj: None, freezer_state: None };
    manager.apply(&options).map_err(|e| failed(&e))?;
    cgroup2::updated(cgroup_path, resources, &kept)
}

/// Kills everything in the container's cgroups and removes them. Nothing there is success.
pub(crate) fn remove(cgroup_path: &str) -> Result<(), LaunchError> {
    let until = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(200);
    loop {
        let left = folders(cgroup_path)?;
        let mut blocked = None;
        for (_, folder) in &left {
            // An empty one goes at once; the kernel keeps one that has processes or folders.
            if std::fs::remove_dir(folder).is_ok() {
                continue;
            }
            kill(folder)?;
            if let Err(e) = remove_tree(folder) {
                blocked = Some(format!("cannot remove the cgroup {}: {e}", folder.display()));
            }
        }
        let Some(why) = blocked else { return Ok(()) };
        if Instant::now() >= until {
            return Err(LaunchError::Other(why));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Whether a process is in the container's cgroups or below them.
pub(crate) fn populated(cgroup_path: &str) -> Result<bool, LaunchError> {
    for (_, folder) in folders(cgroup_path)? {
        if holds(&folder)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn holds(folder: &Path) -> Result<bool, LaunchError> {
    if !processes(folder)?.is_empty() {
        return Ok(true);
    }
    for child in children(folder) {
        if holds(&child)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn kill(folder: &Path) -> Result<(), LaunchError> {
    for child in children(folder) {
        kill(&child)?;
    }
    // A frozen v1 cgroup keeps even SIGKILL waiting.
    ignore_absent(std::fs::write(folder.join("freezer.state"), "THAWED"))?;
    if std::fs::write(folder.join("cgroup.kill"), "1").is_ok() {
        return Ok(());
    }
    let before = processes(folder)?;
    let pinned: Vec<_> = before.iter().filter_map(|pid| Some((*pid, sys::pidfd_open(*pid).ok()?))).collect();
    if pinned.is_empty() {
        return Ok(());
    }
    // Still listed after it was pinned: the number means the same process.
    let after = processes(folder)?;
    for (pid, pidfd) in pinned.iter().filter(|(pid, _)| after.contains(pid)) {
        match sys::pidfd_kill(pidfd.as_fd()) {
            Ok(()) => {}
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {}
            Err(e) => return Err(LaunchError::io(format_args!("kill process {pid}"))(e)),
        }
    }
    Ok(())
}

fn ignore_absent(result: io::Result<()>) -> Result<(), LaunchError> {
    match result {
        Err(e) if !matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::EACCES | libc::EPERM)) => {
            Err(LaunchError::io("thaw the cgroup")(e))
        }
        _ => Ok(()),
    }
}

fn processes(folder: &Path) -> Result<Vec<u32>, LaunchError> {
    match sys::read_kernel(folder.join("cgroup.procs")) {
        Ok(text) => Ok(text.lines().filter_map(|l| l.parse().ok()).collect()),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP)) => Ok(Vec::new()),
        Err(e) => Err(LaunchError::io("list the cgroup's processes")(e)),
    }
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

fn remove_tree(folder: &Path) -> io::Result<()> {
    for child in children(folder) {
        remove_tree(&child)?;
    }
    match std::fs::remove_dir(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_both_drivers() {
        assert_eq!(path_in_hierarchy("/k8s.io/abc"), "/k8s.io/abc");
        assert_eq!(path_in_hierarchy("k8s.io/abc/"), "/k8s.io/abc");
        assert_eq!(path_in_hierarchy("a-b.slice:cri:x1"), "/a.slice/a-b.slice/cri-x1.scope");
        assert_eq!(path_in_hierarchy(":cri:x1"), "/system.slice/cri-x1.scope");
        assert_eq!(path_in_hierarchy("-.slice:cri:x1"), "/cri-x1.scope");
        assert!(is_systemd("a.slice:cri:x") && !is_systemd("/a/b"));
        if let Some((path, folder)) = beside("/k8s.io/a:b").unwrap() {
            assert_eq!((path.as_str(), folder.ends_with("boltseal:k8s.io:a::b")), ("/boltseal:k8s.io:a::b", true));
        }
    }

    #[test]
    fn the_root_is_never_the_containers() {
        for path in ["", "/", "/a/../..", "../x"] {
            assert!(folders(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn removing_what_is_not_there_is_success() {
        assert_eq!(remove("/boltseal-no-such-cgroup/x"), Ok(()));
    }
}
