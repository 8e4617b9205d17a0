//! What the node's own files say: time, kexec, security modules, cgroups.
use crate::file::kernel;
use crate::mountinfo::Table;
use boltseal_policy::facts::{Devices, Fact, Kexec, Label, Limits, Lsm};
use nix::time::{ClockId, clock_gettime};
use std::path::{Path, PathBuf};

/// Bytes of the largest file of the kernel's that is read here: the list of AppArmor profiles.
const CAP: u64 = 1 << 20;

/// The kernel's random id of this boot.
///
/// # Errors
/// When it cannot be read or is no UUID.
pub fn boot_id() -> Result<String, String> {
    let text = kernel(Path::new("/proc/sys/kernel/random/boot_id"), 128).map_err(|e| e.to_string())?;
    let id = text.trim_end();
    let form = id.len() == 36 && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    if form { Ok(id.to_owned()) } else { Err(format!("the boot id {id:?} is no UUID")) }
}

/// CLOCK_BOOTTIME, nanoseconds.
///
/// # Errors
/// When the clock cannot be read.
pub fn boottime_ns() -> Result<u64, String> {
    nanoseconds(ClockId::CLOCK_BOOTTIME)
}

/// Wall clock, nanoseconds since the epoch.
///
/// # Errors
/// When the clock cannot be read or stands before the epoch.
pub fn realtime_ns() -> Result<u64, String> {
    nanoseconds(ClockId::CLOCK_REALTIME)
}

fn nanoseconds(clock: ClockId) -> Result<u64, String> {
    let time = clock_gettime(clock).map_err(|e| format!("{clock:?}: {}", e.desc()))?;
    let parts = (u64::try_from(time.tv_sec()), u64::try_from(time.tv_nsec()));
    let (Ok(seconds), Ok(nanos)) = parts else { return Err(format!("{clock:?} is negative")) };
    seconds
        .checked_mul(1_000_000_000)
        .and_then(|n| n.checked_add(nanos))
        .ok_or_else(|| format!("{clock:?} is out of range"))
}

/// The wall clock in seconds, unless it went back: it is never before the trail's last record (`last_record`, seconds)
/// or the policy's signing time.
#[must_use]
pub fn now(last_record: Option<u64>, signed_at: u64) -> Fact<u64> {
    match realtime_ns() {
        Ok(ns) => judge_now(ns / 1_000_000_000, last_record, signed_at),
        Err(why) => Fact::Unknown(why),
    }
}

fn judge_now(now: u64, last_record: Option<u64>, signed_at: u64) -> Fact<u64> {
    if now < signed_at {
        Fact::Unknown(format!("the clock ({now}) is before the policy's signing time ({signed_at})"))
    } else if last_record.is_some_and(|last| now < last) {
        Fact::Unknown(format!(
            "the clock ({now}) is before the trail's last record ({})",
            last_record.unwrap_or_default()
        ))
    } else {
        Fact::Is(now)
    }
}

/// What files say about kexec. Whether the calls are in the kernel at all, a probe must tell: `absent` is its answer
/// (both calls ENOSYS).
#[must_use]
pub fn kexec(absent: Fact<bool>) -> Fact<Kexec> {
    let absent = match absent {
        Fact::Is(absent) => absent,
        Fact::Absent => false,
        Fact::Unknown(why) => return Fact::Unknown(why),
    };
    let disabled = optional(Path::new("/proc/sys/kernel/kexec_load_disabled"));
    let lockdown = optional(Path::new("/sys/kernel/security/lockdown"));
    match (disabled, lockdown) {
        (Ok(disabled), Ok(lockdown)) => Fact::Is(Kexec {
            absent,
            load_disabled: disabled.is_some_and(|text| text.trim_end() == "1"),
            // No file: no lockdown module, or securityfs is not mounted; either way none that could be shown.
            lockdown: lockdown.as_deref().and_then(chosen).unwrap_or("none").to_owned(),
        }),
        (Err(why), _) | (_, Err(why)) => Fact::Unknown(why),
    }
}

/// The choice in `none [integrity] confidentiality`.
fn chosen(text: &str) -> Option<&str> {
    text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(choice, _)| choice)
}

/// Which security module is in force, and the modes of the profile that the spec names and of the policy's default.
/// Fills `lsm`, `mode`, `default_mode` and `enforcing` of `label`.
pub fn label(label: &mut Label, default_apparmor: Option<&str>) {
    label.lsm = lsm();
    if label.lsm == Lsm::AppArmor {
        // An unreadable list leaves the modes at None: not known to be loaded.
        let profiles = optional(Path::new("/sys/kernel/security/apparmor/profiles")).ok().flatten().unwrap_or_default();
        label.mode = label.apparmor.as_deref().and_then(|name| mode(&profiles, name));
        label.default_mode = default_apparmor.and_then(|name| mode(&profiles, name));
    }
    label.enforcing = optional(Path::new("/sys/fs/selinux/enforce"))
        .is_ok_and(|text| text.as_deref().map(str::trim_end) == Some("1"));
}

/// SELinux: whether the kernel's policy knows the label that the spec names, and the policy's default type. `mode` and
/// `default_mode` become [`KNOWN`] or say why not.
pub fn selinux_types(label: &mut Label, default_type: Option<&str>) {
    if label.lsm != Lsm::Selinux {
        return;
    }
    let at = Path::new("/sys/fs/selinux/context");
    label.mode = label.selinux.as_deref().map(|context| knows(at, context));
    // Any two categories do: the type is what may be missing.
    label.default_mode = default_type.map(|kind| knows(at, &format!("system_u:system_r:{kind}:s0:c0,c1")));
}

/// See [`selinux_types`].
pub const KNOWN: &str = "known";

/// The kernel takes a context that its policy knows and refuses any other (selinuxfs, `context`).
fn knows(at: &Path, context: &str) -> String {
    let written = std::fs::File::options().write(true).open(at).and_then(|mut file| {
        let count = std::io::Write::write(&mut file, context.as_bytes())?;
        if count == context.len() { Ok(()) } else { Err(std::io::ErrorKind::WriteZero.into()) }
    });
    match written {
        Ok(()) => KNOWN.into(),
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => "not known to the kernel's policy".into(),
        Err(e) => format!("not to be asked of the kernel: {e}"),
    }
}

fn lsm() -> Lsm {
    let read = || -> Result<Lsm, String> {
        let apparmor = optional(Path::new("/sys/module/apparmor/parameters/enabled"))?;
        if apparmor.as_deref().map(str::trim_end) == Some("Y") {
            return Ok(Lsm::AppArmor);
        }
        if optional(Path::new("/sys/fs/selinux/enforce"))?.is_some() {
            return Ok(Lsm::Selinux);
        }
        // SELinux in the kernel with selinuxfs not mounted: no label could be checked, so this is no "neither".
        match optional(Path::new("/sys/kernel/security/lsm"))? {
            Some(list) if list.trim_end().split(',').any(|m| m == "selinux") => {
                Err("SELinux is in the kernel, but selinuxfs is not mounted".into())
            }
            Some(list) if list.trim_end().split(',').any(|m| m == "apparmor") => {
                Err("AppArmor is in the kernel, but says nothing about itself".into())
            }
            Some(_) => Ok(Lsm::Neither),
            None if Path::new("/sys/kernel").is_dir() => Ok(Lsm::Neither),
            None => Err("sysfs is not mounted".into()),
        }
    };
    read().unwrap_or_else(Lsm::Unknown)
}

/// Mode of a profile in the kernel's list: lines of `name (mode)`; a name may hold blanks and parentheses.
#[must_use]
pub fn mode(profiles: &str, name: &str) -> Option<String> {
    let line = profiles.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" (")?.strip_suffix(')'));
    line.filter(|mode| !mode.contains(['(', ' '])).map(str::to_owned)
}

/// This kernel can install seccomp filters that return an errno and kill.
#[must_use]
pub fn seccomp_available() -> bool {
    let actions = kernel(Path::new("/proc/sys/kernel/seccomp/actions_avail"), 4096).unwrap_or_default();
    ["kill_process", "errno", "allow"].iter().all(|wanted| actions.split_ascii_whitespace().any(|a| a == *wanted))
}

/// Lowest oom_score_adj that a process started from here may have: None with CAP_SYS_RESOURCE, else our own, which is
/// at or above what the kernel remembers as the least.
///
/// # Errors
/// When /proc cannot be read.
pub fn oom_score_floor() -> Result<Option<i32>, String> {
    const SYS_RESOURCE: u32 = 24;
    let status = kernel(Path::new("/proc/self/status"), 64 << 10).map_err(|e| e.to_string())?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective =
        effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).ok_or("no CapEff in /proc/self/status")?;
    if effective & (1 << SYS_RESOURCE) != 0 {
        return Ok(None);
    }
    let own = kernel(Path::new("/proc/self/oom_score_adj"), 64).map_err(|e| e.to_string())?;
    own.trim().parse().map(Some).map_err(|e| format!("/proc/self/oom_score_adj: {e}"))
}

/// Where cgroups are mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cgroups {
    /// v1: (controller, mount point), one each.
    pub v1: Vec<(String, PathBuf)>,
    pub v2: Option<PathBuf>,
}

impl Cgroups {
    #[must_use]
    pub fn of(table: &Table) -> Self {
        const CONTROLLERS: &[&str] = &["memory", "pids", "devices", "cpu", "cpuacct", "cpuset", "blkio", "freezer"];
        let mut found = Self::default();
        for entry in table.entries.iter().filter(|e| e.root == Path::new("/")) {
            if entry.fstype == "cgroup2" {
                found.v2.get_or_insert_with(|| entry.point.clone());
            }
            for (name, _) in entry.data.iter().filter(|_| entry.fstype == "cgroup") {
                if CONTROLLERS.contains(&name.as_str()) && found.v1(name).is_none() {
                    found.v1.push((name.clone(), entry.point.clone()));
                }
            }
        }
        found
    }

    #[must_use]
    pub fn v1(&self, controller: &str) -> Option<&Path> {
        self.v1.iter().find(|(name, _)| name == controller).map(|(_, point)| point.as_path())
    }

    /// Device rules are enforced: by v1's `devices`, or, where there is only v2, by the launch's own program.
    #[must_use]
    pub fn devices_enforced(&self) -> bool {
        self.v1("devices").is_some() || self.unified()
    }

    /// There is only v2, where everybody looks for it: libcontainer uses it then.
    #[must_use]
    pub fn unified(&self) -> bool {
        self.v1.is_empty() && self.v2.as_deref() == Some(Path::new("/sys/fs/cgroup"))
    }

    /// Sets the least limits in force on the folders above `cgroups_path`, below the root; v1 first, else v2. A folder
    /// that does not exist yet limits nothing.
    ///
    /// # Errors
    /// A path that is not plain, or a limit that cannot be read.
    pub fn ancestor_limits(&self, cgroups_path: &str, limits: &mut Limits) -> Result<(), String> {
        let parents = ancestors(cgroups_path)?;
        let least = |v1: &str, v1_file: &str, v2_file: &str| -> Result<Option<u64>, String> {
            let (base, name) = match (self.v1(v1), &self.v2) {
                (Some(point), _) => (point, v1_file),
                (None, Some(point)) => (point.as_path(), v2_file),
                (None, None) => return Ok(None),
            };
            let mut least = None;
            for parent in &parents {
                let text = optional(&base.join(parent).join(name))?;
                let limit = text.as_deref().map(limit).transpose()?.flatten();
                least = least.into_iter().chain(limit).min();
            }
            Ok(least)
        };
        limits.ancestor_memory = least("memory", "memory.limit_in_bytes", "memory.max")?;
        limits.ancestor_pids = least("pids", "pids.max", "pids.max")?;
        Ok(())
    }
}

/// A limit as the kernel prints it; None is none. v1 shows "no limit" as the largest number of pages.
fn limit(text: &str) -> Result<Option<u64>, String> {
    match text.trim_end() {
        "max" => Ok(None),
        number => {
            let n: u64 = number.parse().map_err(|_| format!("the limit {number:?} is no number"))?;
            Ok((n < 1 << 60).then_some(n))
        }
    }
}

/// Folders above a cgroupsPath, relative to the controller's root, the outermost first. Both forms are understood:
/// `/kubepods/burstable/pod1/c1`, and systemd's `slice:prefix:name`.
///
/// # Errors
/// A path with `.` or `..`, or a slice of the wrong form.
pub fn ancestors(cgroups_path: &str) -> Result<Vec<PathBuf>, String> {
    let wrong = || format!("the cgroupsPath {cgroups_path:?} is not plain");
    let parts: Vec<String> = if let [slice, _, _] = cgroups_path.split(':').collect::<Vec<_>>().as_slice() {
        let slice = if slice.is_empty() { "system.slice" } else { slice };
        let name = slice.strip_suffix(".slice").filter(|n| !n.is_empty() && !n.contains('/')).ok_or_else(wrong)?;
        // `a-b-c.slice` lies in `a-b.slice` lies in `a.slice`; `-.slice` is the root itself.
        let pieces: Vec<&str> = name.split('-').collect();
        if name == "-" {
            Vec::new()
        } else if pieces.iter().any(|p| p.is_empty()) {
            return Err(wrong());
        } else {
            (1..=pieces.len()).filter_map(|n| pieces.get(..n)).map(|p| format!("{}.slice", p.join("-"))).collect()
        }
    } else {
        let all: Vec<&str> = cgroups_path.split('/').filter(|p| !p.is_empty()).collect();
        if all.iter().any(|p| matches!(*p, "." | "..")) {
            return Err(wrong());
        }
        all.split_last().map(|(_, parents)| parents.iter().map(|&p| p.to_owned()).collect()).unwrap_or_default()
    };
    let mut path = PathBuf::new();
    Ok(parts
        .iter()
        .map(|part| {
            path.push(part);
            path.clone()
        })
        .collect())
}

/// Fills in what the node itself has at the paths of the devices. Links are followed: what counts is what is there.
pub fn device_nodes(devices: &mut Devices) {
    use nix::sys::stat::{SFlag, major, minor, stat};
    let own = |path: &str| {
        let found = stat(path).ok()?;
        let kind = match SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFCHR => 'c',
            SFlag::S_IFBLK => 'b',
            _ => return None,
        };
        let number = |n: u64| i64::try_from(n).ok();
        Some((kind, number(major(found.st_rdev))?, number(minor(found.st_rdev))?))
    };
    devices.host = devices.nodes.iter().filter_map(|n| Some((n.path.clone(), own(&n.path)?))).collect();
}

/// A file that may be missing.
fn optional(path: &Path) -> Result<Option<String>, String> {
    match kernel(path, CAP) {
        Ok(text) => Ok(Some(text)),
        Err(problem) if problem.missing => Ok(None),
        Err(problem) => Err(problem.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_node() {
        assert_eq!(boot_id().unwrap().len(), 36);
        assert!(boottime_ns().unwrap() > 0);
        assert!(realtime_ns().unwrap() > 1_700_000_000_000_000_000);
        assert!(seccomp_available());
        assert!(oom_score_floor().is_ok());
        assert!(kexec(Fact::Is(true)).is().is_some_and(|k| k.absent));
        assert_eq!(kexec(Fact::Unknown("x".into())), Fact::Unknown("x".into()));
    }

    #[test]
    fn a_clock_that_went_back_is_unknown() {
        assert_eq!(judge_now(10, Some(10), 10), Fact::Is(10));
        assert!(matches!(judge_now(10, Some(11), 0), Fact::Unknown(_)));
        assert!(matches!(judge_now(10, None, 11), Fact::Unknown(_)));
    }

    #[test]
    fn choices_and_modes() {
        assert_eq!(chosen("none [integrity] confidentiality\n"), Some("integrity"));
        assert_eq!(chosen("none\n"), None);
        let list = "a (complain)\nboltseal-default (enforce)\nboltseal-default//child (kill)\na b (x) (enforce)\n";
        assert_eq!(mode(list, "boltseal-default").as_deref(), Some("enforce"));
        assert_eq!(mode(list, "boltseal").as_deref(), None);
        assert_eq!(mode(list, "a").as_deref(), Some("complain"));
        assert_eq!(mode(list, "a b (x)").as_deref(), Some("enforce"));
        assert_eq!(mode(list, "a b"), None);
    }

    #[test]
    fn parents_of_a_cgroup() {
        let of = |path| ancestors(path).unwrap().iter().map(|p| p.to_str().unwrap().to_owned()).collect::<Vec<_>>();
        assert_eq!(of("/kubepods/pod1/c"), ["kubepods", "kubepods/pod1"]);
        assert_eq!(of("/c"), [""; 0]);
        assert_eq!(
            of("kubepods-burstable-pod1.slice:cri:c"),
            [
                "kubepods.slice",
                "kubepods.slice/kubepods-burstable.slice",
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice"
            ]
        );
        assert_eq!(of(":cri:c"), ["system.slice"]);
        for bad in ["/a/../b/c", "a--b.slice:x:y", "/x.slice:a:b", "a.service:x:y"] {
            assert!(ancestors(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn least_limit_of_the_parents() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let file = dir.path().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        };
        write("memory.max", "1\n");
        write("a/memory.max", "4096\n");
        write("a/b/memory.max", "max\n");
        write("a/b/pids.max", "7\n");
        write("a/b/c/pids.max", "1\n");
        let cgroups = Cgroups { v1: vec![], v2: Some(dir.path().to_owned()) };
        let mut limits = Limits::default();
        cgroups.ancestor_limits("/a/b/c", &mut limits).unwrap();
        assert_eq!((limits.ancestor_memory, limits.ancestor_pids), (Some(4096), Some(7)));
        write("a/memory.max", "lots\n");
        assert!(cgroups.ancestor_limits("/a/b/c", &mut limits).is_err());
        assert_eq!(limit("9223372036854771712\n"), Ok(None));
        let v1 = Cgroups { v1: vec![("memory".into(), dir.path().to_owned())], v2: None };
        write("a/memory.limit_in_bytes", "5\n");
        v1.ancestor_limits("/a/b/c", &mut limits).unwrap();
        assert_eq!((limits.ancestor_memory, limits.ancestor_pids), (Some(5), None));
        assert!(!v1.devices_enforced());
    }

    #[test]
    fn a_context_is_known_when_the_kernel_takes_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("context");
        assert!(knows(&at, "u:r:t:s0").starts_with("not to be asked"));
        std::fs::write(&at, "").unwrap();
        assert_eq!(knows(&at, "u:r:t:s0"), KNOWN);
        assert_eq!(std::fs::read_to_string(&at).unwrap(), "u:r:t:s0");
        let mut other = Label { lsm: Lsm::AppArmor, mode: Some("enforce".into()), ..Default::default() };
        selinux_types(&mut other, Some("boltseal_t"));
        assert_eq!((other.mode.as_deref(), other.default_mode), (Some("enforce"), None));
    }

    #[test]
    fn device_rules_hold_on_v1_devices_and_on_pure_v2() {
        let enforced = |v1: &[&str], v2: Option<&str>| {
            let v1 = v1.iter().map(|name| ((*name).to_owned(), PathBuf::from("/sys/fs/cgroup/x"))).collect();
            Cgroups { v1, v2: v2.map(PathBuf::from) }.devices_enforced()
        };
        assert!(enforced(&["memory", "devices"], Some("/sys/fs/cgroup/unified")));
        assert!(enforced(&[], Some("/sys/fs/cgroup")));
        assert!(!enforced(&["memory"], Some("/sys/fs/cgroup")));
        assert!(!enforced(&[], Some("/sys/fs/cgroup/unified")), "libcontainer takes this for v1");
        assert!(!enforced(&[], None));
    }

    #[test]
    fn devices_are_those_of_the_node() {
        use boltseal_policy::facts::Device;
        let node = |path: &str| Device { path: path.into(), kind: 'b', major: 8, minor: 0 };
        let nodes = ["/dev/null", "/dev/null/x", "/etc", "/dev/no-such-device"].map(node).into();
        let mut devices = Devices { nodes, ..Devices::default() };
        device_nodes(&mut devices);
        assert_eq!(devices.host, [("/dev/null".to_owned(), ('c', 1, 3))].into());
    }
}
