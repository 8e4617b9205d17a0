//! What the kernel must show of a container's first process, whatever its spec was.

/// `/proc/<pid>/...` of it, and the namespaces of the node beside its own.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub status: String,
    pub mountinfo: String,
    /// Of [`HIDDEN`], what this kernel has.
    pub to_hide: Vec<String>,
    /// Kind as in `/proc/<pid>/ns`, its link, the link of one that it must not be.
    pub namespaces: Vec<(String, String, String)>,
}

/// Bits of capabilities that the policy leaves.
pub type Capabilities = u64;

/// What no container sees.
pub const HIDDEN: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Mounts that may be written to and hold devices: the container's own /dev and its terminals.
const DEV: [&str; 2] = ["/dev", "/dev/pts"];

/// What is wrong. `uid`: what the spec names.
#[must_use]
pub fn wrongs(seen: &Seen, uid: u64, may_have: Capabilities) -> Vec<String> {
    let mut wrong = status(&seen.status, uid, may_have);
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "uts"] {
        let mut all = seen.namespaces.iter().filter(|(name, ..)| name == kind).peekable();
        if all.peek().is_none() {
            wrong.push(format!("the {kind} namespace cannot be seen"));
        }
        let shared = |(_, own, node): &&(String, String, String)| own == node || !own.starts_with(&format!("{kind}:["));
        wrong.extend(all.filter(shared).map(|(_, own, _)| format!("the node's {kind} namespace: {own}")));
    }
    wrong.extend(mounts(seen));
    wrong
}

fn status(status: &str, uid: u64, may_have: Capabilities) -> Vec<String> {
    let mut wrong = Vec::new();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim).unwrap_or_default()
    };
    let mut must = |right: bool, name: &str| {
        if !right {
            wrong.push(format!("{name}: {:?}", field(name)));
        }
    };
    must(field("Seccomp") == "2", "Seccomp");
    must(field("Seccomp_filters").parse().is_ok_and(|count: u32| count >= 1), "Seccomp_filters");
    must(field("NoNewPrivs") == "1", "NoNewPrivs");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let left = if ["CapInh", "CapAmb"].contains(&set) { 0 } else { may_have };
        must(u64::from_str_radix(field(set), 16).is_ok_and(|bits| bits & !left == 0), set);
    }
    let ids: Vec<&str> = field("Uid").split_whitespace().collect();
    must(uid != 0 && ids.len() == 4 && ids.iter().all(|id| *id == uid.to_string()), "Uid");
    wrong
}

fn mounts(seen: &Seen) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in seen.mountinfo.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let Some(dash) = fields.iter().position(|f| *f == "-") else {
            wrong.push(format!("a line that is none: {line}"));
            continue;
        };
        let [_, _, _, root, at, flags, ..] = fields.as_slice() else { continue };
        let kind = fields.get(dash + 1).copied().unwrap_or_default();
        let flags: Vec<&str> = flags.split(',').collect();
        let mut must = |right: bool, what: &str| {
            if !right {
                wrong.push(format!("{what}: {line}"));
            }
        };
        count += 1;
        // An empty file system that stays empty, over a folder that is hidden.
        let hides = kind == "tmpfs" && flags.contains(&"ro") && HIDDEN.contains(at);
        must(flags.contains(&"nosuid") || hides, "setuid programs");
        let is_null = *root == "/null" || at.starts_with("/dev/");
        must(flags.contains(&"nodev") || DEV.contains(at) || is_null || hides, "devices");
        must(flags.contains(&"ro") || flags.contains(&"noexec"), "written programs");
        must(!fields.get(6..dash).unwrap_or_default().iter().any(|tag| tag.starts_with("shared:")), "shared");
        must(*at != "/" || (kind == "overlay" && flags.contains(&"ro")), "the root");
        let usual = ["overlay", "proc", "tmpfs", "devpts", "mqueue", "sysfs", "cgroup", "cgroup2", "devtmpfs"];
        must(usual.contains(&kind), "a file system of the node");
    }
    if count < 5 {
        wrong.push(format!("only {count} mounts"));
    }
    for path in &seen.to_hide {
        if !seen.mountinfo.contains(&format!(" {path} ")) {
            wrong.push(format!("{path} is not hidden"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Uid:\t7\t7\t7\t7\nCapInh:\t0\nCapPrm:\t0\nCapEff:\t0\nCapBnd:\t400\nCapAmb:\t0\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";

    fn seen() -> Seen {
        let line = |at: &str, flags: &str, kind: &str| format!("1 2 0:3 / {at} {flags} - {kind} x rw\n");
        let mountinfo = [
            line("/", "ro,nosuid,nodev", "overlay"),
            line("/proc", "rw,nosuid,nodev,noexec", "proc"),
            line("/proc/kcore", "rw,nosuid,nodev,noexec", "tmpfs"),
            line("/proc/keys", "rw,nosuid,nodev,noexec", "tmpfs"),
            line("/sys/firmware", "ro", "tmpfs"),
            line("/dev", "rw,nosuid,noexec", "tmpfs"),
        ];
        let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "uts"];
        let namespaces = kinds.map(|k| (k.to_owned(), format!("{k}:[2]"), format!("{k}:[1]"))).to_vec();
        let to_hide = vec!["/proc/kcore".to_owned(), "/sys/firmware".to_owned()];
        Seen { status: STATUS.into(), mountinfo: mountinfo.concat(), to_hide, namespaces }
    }

    #[test]
    fn it_sees_each_fault() {
        assert_eq!(wrongs(&seen(), 7, 1 << 10), [""; 0]);
        assert_eq!(wrongs(&seen(), 8, 1 << 10).len(), 1);
        assert_eq!(wrongs(&seen(), 7, 0), ["CapBnd: \"400\""]);
        for (from, to) in [
            ("Seccomp:\t2", "Seccomp:\t0"),
            ("filters:\t1", "filters:\t0"),
            ("Privs:\t1", "Privs:\t0"),
            ("CapAmb:\t0", "CapAmb:\t400"),
            ("Uid:\t7\t7", "Uid:\t7\t0"),
        ] {
            let seen = Seen { status: STATUS.replace(from, to), ..seen() };
            assert_eq!(wrongs(&seen, 7, 1 << 10).len(), 1, "{to}");
        }
        for (from, to) in [
            ("ro,nosuid,nodev - overlay", "rw,nosuid,nodev,noexec - overlay"),
            ("/ / ro,nosuid", "/ / ro"),
            ("nodev,noexec - proc", "noexec - proc"),
            ("nodev,noexec - proc", "nodev - proc"),
            ("noexec - proc", "noexec shared:1 - proc"),
            ("- proc", "- ext4"),
            ("/proc/kcore", "/proc/other"),
            ("/sys/firmware ro", "/sys/firmware rw,noexec"),
            ("/sys/firmware ro", "/sys/other ro"),
        ] {
            let seen = Seen { mountinfo: seen().mountinfo.replacen(from, to, 1), ..seen() };
            assert!(!wrongs(&seen, 7, 1 << 10).is_empty(), "{to}");
        }
        let mut same = seen();
        same.namespaces[3].1 = "net:[1]".into();
        assert_eq!(wrongs(&same, 7, 1 << 10).len(), 1);
        same.namespaces.remove(3);
        assert_eq!(wrongs(&same, 7, 1 << 10).len(), 1);
    }
}
