//! What must be true of the container: compared with the kernel's view from inside and from outside.
use boltseal_policy::network::{Open, Watch};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// In the order of the spec, the root first. Masked and read-only paths are listed apart.
    pub mounts: Vec<ApprovedMount>,
    pub masked: Vec<String>,
    pub readonly: Vec<String>,
    /// Names, for bounding, effective and permitted; inheritable and ambient are empty.
    pub capabilities: BTreeSet<String>,
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
    pub cwd: String,
    pub namespaces: Vec<ApprovedNamespace>,
    /// (first id of the host, count): what the user namespace maps 0 and on to, for users and groups alike. None without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_ids: Option<(u32, u32)>,
    pub label: Option<Label>,
    pub landlock: Landlock,
    /// What of the network is open, held by programs on the cgroup: see `runtime/launch/src/network`.
    #[serde(default)]
    pub network: Open,
    /// What those programs tell.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub watch: Watch,
    /// The pod's own filter, OCI LinuxSeccomp as JSON; installed after the base filter.
    pub pod_seccomp: Option<String>,
    pub cgroup_path: String,
    pub terminal: bool,
    /// Calls of the base filter's trip-wire that are armed. A table of a version without one has none.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub traps: BTreeSet<String>,
    /// Files of memory are not executable in its pid namespace, where the kernel can see to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub memory_noexec: bool,
}

fn is_nothing(watch: &Watch) -> bool {
    !watch.any()
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovedMount {
    pub destination: String,
    /// As /proc/self/mountinfo names it (`overlay`, `proc`, `tmpfs`, ...); None for a bind, whose source decides.
    pub fstype: Option<String>,
    /// For a bind: (major, minor) and path in that file system.
    pub source: Option<((u32, u32), String)>,
    pub readonly: bool,
    pub nosuid: bool,
    pub nodev: bool,
    pub noexec: bool,
    /// For a bind: seen through the container's user namespace, in which root is the owner of root's files.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub idmapped: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovedNamespace {
    /// OCI name.
    pub kind: String,
    /// nsfs (device, inode) to be in; None: any but the host's.
    pub object: Option<(u64, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    AppArmor(String),
    Selinux(String),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Landlock {
    /// Least ABI; the ruleset is a hard requirement.
    pub abi: u32,
    /// Folders and files below which writing is allowed: declared writable volumes and granted devices. The usual nodes of
    /// /dev are not in it: `boltseal_profiles::LANDLOCK_DEVICES` has them.
    pub writable: Vec<String>,
    /// TCP ports that may be bound; None: every one. Needs ABI 4.
    #[serde(default)]
    pub bind: Option<Vec<u16>>,
    /// TCP ports that may be connected to.
    #[serde(default)]
    pub connect: Option<Vec<u16>>,
    /// Programs and folders that may be executed, as `boltseal_policy::programs` reads them; None: all of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub programs: Option<Vec<String>>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_is_watched_comes_back_from_the_file_and_nothing_is_not_written() {
        for (told, flows) in [(true, false), (false, true), (true, true), (false, false)] {
            let table = Table { watch: Watch { told, flows, scan: 0 }, ..Table::default() };
            let text = serde_json::to_string(&table).unwrap();
            assert_eq!(text.contains("\"watch\""), told || flows, "{text}");
            assert_eq!(serde_json::from_str::<Table>(&text).unwrap(), table);
        }
    }
}
