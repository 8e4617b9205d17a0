//! The profiles as data: seccomp, AppArmor, SELinux, Landlock. The files beside this crate are the source; this
//! embeds them and, in its tests, checks that each parses and names only what the kernel has.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests"))]

mod syscalls;

pub use syscalls::{Arch, number, numbers};

/// The filter that every container gets: OCI LinuxSeccomp as JSON, with a `comment` per group.
#[must_use]
pub fn base_seccomp() -> &'static str {
    include_str!("../seccomp/base.json")
}

/// The filter of the shim itself, in the same form.
#[must_use]
pub fn shim_seccomp() -> &'static str {
    include_str!("../seccomp/shim.json")
}

/// Source of the AppArmor profile `boltseal-default`.
#[must_use]
pub fn apparmor_profile() -> &'static str {
    include_str!("../apparmor/boltseal-default")
}

/// The same profile as the kernel takes it, by one write to `/sys/kernel/security/apparmor/.replace`. Compiled with
/// the features of `abi/3.0` (Linux 4.19 and later); made by `apparmor/compile.sh`.
#[must_use]
pub fn apparmor_compiled() -> &'static [u8] {
    include_bytes!("../apparmor/boltseal-default.bin")
}

/// Name of that profile.
pub const APPARMOR: &str = "boltseal-default";

/// Source (CIL) of the SELinux domain `boltseal_t`.
#[must_use]
pub fn selinux_module() -> &'static str {
    include_str!("../selinux/boltseal.cil")
}

/// The policy that an installation starts with: nothing is allowed until it is filled in.
#[must_use]
pub fn default_policy() -> &'static str {
    include_str!("../policy/default.toml")
}

/// Paths whose files every container may write, but make none: `/proc`.
pub const LANDLOCK_WRITE_FILE: &[&str] = &["/proc"];

/// Nodes and folders of the container's own `/dev` that every container may write, as far as they are there.
pub const LANDLOCK_DEVICES: &[&str] = &[
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/ptmx",
    "/dev/pts",
    "/dev/console",
    "/dev/shm",
    "/dev/mqueue",
];

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::collections::BTreeSet;

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Profile {
        default_action: String,
        syscalls: Vec<Rule>,
    }

    #[derive(Deserialize)]
    struct Rule {
        action: String,
        comment: String,
        names: Vec<String>,
        #[serde(default)]
        args: Vec<serde_json::Value>,
    }

    fn base() -> Profile {
        serde_json::from_str(base_seccomp()).expect("base.json parses")
    }

    fn opened() -> impl Iterator<Item = Rule> {
        base().syscalls.into_iter().filter(|r| r.action == "SCMP_ACT_ALLOW")
    }

    #[test]
    fn every_name_of_the_base_filter_is_known_and_every_group_says_why() {
        let profile = base();
        assert_eq!(profile.default_action, "SCMP_ACT_ERRNO");
        for rule in &profile.syscalls {
            assert!(rule.comment.len() > 5, "{:?} has no reason", rule.names);
            for name in &rule.names {
                assert!(number(Arch::X86_64, name).or(number(Arch::Aarch64, name)).is_some(), "{name} is unknown");
            }
        }
    }

    /// The probe's bound is 230 reachable ones; uretprobe and uprobe, which the kernel shows to no filter, are among them.
    #[test]
    fn few_calls_are_open() {
        let open: BTreeSet<String> = opened().flat_map(|r| r.names).collect();
        for arch in [Arch::X86_64, Arch::Aarch64] {
            let count = open.iter().filter(|name| number(arch, name).is_some()).count();
            assert!(count <= 228, "{arch:?}: {count}");
        }
    }

    /// `shim/build.rs` refuses what it does not know; what must not be among them is here.
    #[test]
    fn the_shim_makes_no_process_and_few_calls() {
        let profile: Profile = serde_json::from_str(shim_seccomp()).expect("shim.json parses");
        assert_eq!(profile.default_action, "SCMP_ACT_ERRNO");
        let open: BTreeSet<&str> = profile.syscalls.iter().flat_map(|rule| &rule.names).map(String::as_str).collect();
        assert!(open.len() <= 85, "{}", open.len());
        for name in [
            "execve",
            "execveat",
            "fork",
            "vfork",
            "clone",
            "clone3",
            "unshare",
            "setns",
            "mount",
            "bpf",
            "ptrace",
            "keyctl",
            "prctl",
            "seccomp",
            "memfd_create",
            "process_vm_readv",
            "pidfd_getfd",
            "io_uring_setup",
            "bind",
            "listen",
            "mknod",
            "rename",
            "link",
            "symlink",
            "chmod",
            "chown",
            "setuid",
            "capset",
            "finit_module",
        ] {
            assert!(!open.contains(name), "{name}");
        }
        for rule in &profile.syscalls {
            assert!(rule.comment.len() > 5, "{:?} has no reason", rule.names);
            let bounded = ["socket", "socketpair", "ioctl", "mmap", "mprotect"];
            assert!(rule.names.iter().all(|name| rule.args.is_empty() != bounded.contains(&name.as_str())));
        }
    }

    #[test]
    fn closed_calls_stay_closed() {
        let open: BTreeSet<String> = opened().filter(|r| r.args.is_empty()).flat_map(|r| r.names).collect();
        for name in [
            "socket",
            "clone",
            "personality",
            "io_uring_setup",
            "io_uring_enter",
            "userfaultfd",
            "keyctl",
            "add_key",
            "request_key",
            "bpf",
            "perf_event_open",
            "mount",
            "umount2",
            "fsopen",
            "fsmount",
            "fsconfig",
            "fspick",
            "move_mount",
            "open_tree",
            "open_tree_attr",
            "mount_setattr",
            "pivot_root",
            "unshare",
            "setns",
            "ptrace",
            "process_vm_readv",
            "process_vm_writev",
            "pidfd_getfd",
            "open_by_handle_at",
            "name_to_handle_at",
            "kexec_load",
            "kexec_file_load",
            "init_module",
            "finit_module",
            "delete_module",
            "reboot",
            "swapon",
            "syslog",
            "settimeofday",
            "clock_settime",
            "modify_ldt",
            "iopl",
            "ioperm",
            "quotactl",
            "acct",
            "vmsplice",
            "tee",
            "execveat",
            "process_madvise",
            "mincore",
            "msgsnd",
            "mq_open",
            "setxattr",
            "chroot",
        ] {
            assert!(!open.contains(name), "{name} is open without a condition");
        }
    }

    #[test]
    fn the_landlock_file_and_the_constants_agree() {
        #[derive(Deserialize)]
        struct File {
            write_file: Vec<String>,
            devices: Vec<String>,
        }
        let file: File = serde_json::from_str(include_str!("../landlock/base.json")).expect("parses");
        assert_eq!(file.write_file, LANDLOCK_WRITE_FILE);
        assert_eq!(file.devices, LANDLOCK_DEVICES);
    }

    #[test]
    fn the_default_policy_has_no_exception() {
        let active = default_policy().lines().filter(|l| !l.trim_start().starts_with('#'));
        assert!(active.clone().any(|l| l == "version = 1"));
        assert_eq!(active.filter(|l| l.contains("exception") || l.contains("allowance")).count(), 0);
    }

    #[test]
    fn the_apparmor_profile_is_whole() {
        let text = apparmor_profile();
        assert_eq!(text.matches("\nprofile boltseal-default ").count(), 1);
        assert!(!text.contains("complain") && !text.contains("unconfined)"));
        let mut lines = text.lines().filter(|l| !l.trim_start().starts_with('#') && !l.trim().is_empty());
        assert!(lines.all(|l| l.ends_with(',') || l.ends_with('{') || l == "}"), "a rule without its comma");
        for line in text.lines().map(str::trim).filter(|l| !l.starts_with('#') && l.contains("deny ")) {
            assert!(line.starts_with("audit deny "), "a denial that nobody sees: {line}");
        }
        for rule in [
            "audit deny mount,",
            "audit deny umount,",
            "audit deny network alg,",
            "audit deny /proc/{sys,",
            "audit deny /sys/** wkl,",
            "audit deny /sys/kernel/{security,debug,tracing}/** rwklx,",
        ] {
            assert!(text.contains(rule), "{rule}");
        }
        for mediated in ["ptrace", "signal (send,receive)"] {
            assert!(text.contains(&format!("  {mediated}")), "{mediated}");
        }
        assert!(text.lines().filter(|l| l.contains("ptrace (")).all(|l| l.ends_with("peer=boltseal-default,")));
    }

    /// The compiled form is of this source: compile.sh notes both digests.
    #[test]
    fn the_compiled_profile_is_of_this_source() {
        let hex = |bytes: &[u8]| -> String {
            let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
            digest.as_ref().iter().map(|b| format!("{b:02x}")).collect()
        };
        let noted = include_str!("../apparmor/boltseal-default.sum");
        let expected = format!(
            "{}  boltseal-default\n{}  boltseal-default.bin\n",
            hex(apparmor_profile().as_bytes()),
            hex(apparmor_compiled())
        );
        assert_eq!(noted, expected, "the source changed: run profiles/apparmor/compile.sh");
    }

    /// Its head as the kernel unpacks it: version, name, flags; the second number after `flags` is the mode, 0 enforces.
    #[test]
    fn the_compiled_profile_enforces_under_its_name() {
        let blob = apparmor_compiled();
        let head = [&b"\x04\x08\x00version\x00\x02"[..], &[]].concat();
        assert!(blob.starts_with(&head));
        let name = [&b"\x04\x08\x00profile\x00\x07\x05\x11\x00"[..], APPARMOR.as_bytes(), b"\0"].concat();
        assert_eq!(blob.windows(name.len()).filter(|w| *w == name).count(), 1);
        let flags = b"\x04\x06\x00flags\x00\x07\x02\x00\x00\x00\x00\x02\x00\x00\x00\x00\x02\x00\x00\x00\x00\x08";
        assert_eq!(blob.windows(flags.len()).filter(|w| w == flags).count(), 1, "no hat, enforce, no blanket audit");
    }

    #[test]
    fn the_selinux_module_is_balanced() {
        let mut depth = 0_i32;
        for line in selinux_module().lines().filter(|l| !l.starts_with(';')) {
            for c in line.chars() {
                depth += match c {
                    '(' => 1,
                    ')' => -1,
                    _ => 0,
                };
                assert!(depth >= 0, "{line}");
            }
            assert_eq!(depth, 0, "{line}");
        }
        assert!(selinux_module().contains("(typeattributeset mcs_constrained_type (boltseal_t))"));
        assert!(!selinux_module().contains("typepermissive"));
    }
}
