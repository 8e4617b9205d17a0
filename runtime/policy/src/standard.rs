//! Lists that rules and seal share: what runtimes give by default, and what every container gets.

/// The pod's annotation that names its owner (BS-OWN-001 at level `annotation`).
pub const OWNER_ANNOTATION: &str = "boltseal.dev/owner";
/// The projected volume that holds the owner's token (at level `pod-token`), and its file there. No container needs to mount it.
pub const TOKEN_VOLUME: &str = "boltseal-owner";
pub const TOKEN_FILE: &str = "token";

/// PCR that `boltseal node attest` measures boltseal itself into (BS-NOD-004).
pub const MEASURED_PCR: u32 = 13;

/// The capabilities that container runtimes give when nobody asks. Within them a request is tightened, beyond them
/// it is denied (BS-PRC-002).
pub const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Refused system calls that nothing well-behaved makes: the base filter's trip-wire, as `profiles/seccomp/base.json` has
/// it. Of `clone` only a new user namespace, of `socket` only AF_ALG and AF_VSOCK.
pub const TRIP_WIRE: [&str; 45] = [
    "acct",
    "add_key",
    "bpf",
    "clock_settime",
    "clone",
    "delete_module",
    "fanotify_init",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "init_module",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "modify_ldt",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_by_handle_at",
    "open_tree",
    "open_tree_attr",
    "perf_event_open",
    "pidfd_getfd",
    "pivot_root",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "request_key",
    "setns",
    "settimeofday",
    "socket",
    "swapoff",
    "swapon",
    "syslog",
    "umount2",
    "unshare",
    "userfaultfd",
];

/// Paths hidden in every container: the union of what containerd, podman and Kubernetes hide.
pub const MASKED: [&str; 12] = [
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

/// Paths that are read-only in every container.
pub const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Character devices that every container has: path, major, minor (None: every minor).
pub const DEVICES: [(&str, i64, Option<i64>); 9] = [
    ("/dev/null", 1, Some(3)),
    ("/dev/zero", 1, Some(5)),
    ("/dev/full", 1, Some(7)),
    ("/dev/random", 1, Some(8)),
    ("/dev/urandom", 1, Some(9)),
    ("/dev/tty", 5, Some(0)),
    ("/dev/console", 5, Some(1)),
    ("/dev/ptmx", 5, Some(2)),
    ("/dev/pts", 136, None),
];

/// Fresh file systems of every container: destination and type.
pub const FRESH: [(&str, &str); 7] = [
    ("/proc", "proc"),
    ("/dev", "tmpfs"),
    ("/dev/pts", "devpts"),
    ("/dev/shm", "tmpfs"),
    ("/dev/mqueue", "mqueue"),
    ("/sys", "sysfs"),
    ("/sys/fs/cgroup", "cgroup"),
];

/// Namespaces that a container must have, OCI names; `cgroup` is added by the seal.
pub const NAMESPACES: [&str; 5] = ["pid", "ipc", "uts", "mount", "network"];

/// The sysctls that Kubernetes calls safe: namespaced, and harmless to other pods.
pub const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Host paths whose contents are worth a node. CIS Docker 5.6's folders, secrets and state of the orchestrator, sockets
/// that hand out containers, and our own. Always in force; a policy only adds.
pub const SENSITIVE: [&str; 46] = [
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/opt/cni",
    "/opt/containerd",
    "/proc",
    "/root",
    "/run",
    "/run/boltseal",
    "/run/containerd",
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/docker.sock",
    "/run/podman/podman.sock",
    "/run/systemd/private",
    "/run/dbus/system_bus_socket",
    "/sbin",
    "/sys",
    "/sys/fs/bpf",
    "/sys/fs/cgroup",
    "/sys/kernel/debug",
    "/sys/kernel/security",
    "/sys/kernel/tracing",
    "/usr",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/var/lib/boltseal",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/dbus",
    "/var/lib/docker",
    "/var/lib/dpkg",
    "/var/lib/etcd",
    "/var/lib/kubelet",
    "/var/lib/rpm",
    "/var/lib/systemd",
    "/var/log",
    "/var/run",
    "/var/spool/cron",
];

/// kubelet's root folder where nobody chose another.
pub const KUBELET_ROOT: &str = "/var/lib/kubelet";

/// A folder where kubelet meets drivers over sockets: `plugins_registry`, `device-plugins`, or one driver's own in `plugins`.
/// Not `plugins` itself, and not kubelet's own in it, where the volumes of all pods are staged.
#[must_use]
pub fn is_driver_folder(kubelet_root: &str, path: &str) -> bool {
    let rest = path.strip_prefix(kubelet_root.trim_end_matches('/')).and_then(|rest| rest.strip_prefix('/'));
    match rest {
        Some("plugins_registry" | "device-plugins") => true,
        Some(rest) => rest
            .strip_prefix("plugins/")
            .is_some_and(|driver| !matches!(driver, "" | "." | ".." | "kubernetes.io") && !driver.contains('/')),
        None => false,
    }
}

/// File systems that are the kernel's own windows; binding from one is never harmless.
pub const KERNEL_FILESYSTEMS: [&str; 17] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "mqueue",
    "proc",
    "pstore",
    "securityfs",
    "sysfs",
    "tracefs",
];

/// The name that CRI writes for `RuntimeDefault`: it asks for the runtime's own profile, which here is ours.
pub const CRI_DEFAULT_APPARMOR: &str = "cri-containerd.apparmor.d";

/// Ids that a user namespace has at least: all that 16 bits name, `nobody` and devpts's group among them.
pub const LEAST_IDS: u32 = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn driver_folders() {
        let root = "/var/lib/kubelet";
        for path in ["plugins_registry", "device-plugins", "plugins/csi.demo.example"] {
            assert!(is_driver_folder(root, &format!("{root}/{path}")), "{path}");
            assert!(is_driver_folder("/k/", &format!("/k/{path}")), "{path}");
        }
        for path in [
            "",
            "/plugins",
            "/plugins/",
            "/plugins/kubernetes.io",
            "/plugins/kubernetes.io/csi",
            "/plugins/a/b",
            "/plugins/..",
            "/plugins_registry/",
            "/plugins_registry/x",
            "/pods",
            "/pods/plugins/x",
            "-old/plugins/x",
        ] {
            assert!(!is_driver_folder(root, &format!("{root}{path}")), "{path}");
        }
        assert!(!is_driver_folder(root, "/etc/plugins/x"));
    }
}
