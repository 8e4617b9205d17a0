//! The rows, by mechanism.
mod binary;
mod capabilities;
mod cgroup;
mod containerd;
mod descriptors;
mod dev;
mod kernel;
mod mounts;
mod namespaces;
mod proc;
mod races;
mod shim;

pub(crate) use binary::keep;
pub(crate) use races::PEER_STARTS;
pub(crate) use shim::{Noted, note};

use crate::row::{Ask, Row};
use serde_json::{Value, json};

/// A group of rows and what they have in common.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) rows: Vec<Row>,
}

pub(crate) fn all() -> Vec<Group> {
    let group = |name, rows| Group { name, rows };
    vec![
        group("the runtime's own binary", binary::rows()),
        group("a false /proc or /sys", proc::rows()),
        group("/dev of the image", dev::rows()),
        group("mounts", mounts::rows()),
        group("races", races::rows()),
        group("descriptors and working directories", descriptors::rows()),
        group("capabilities and users", capabilities::rows()),
        group("cgroups", cgroup::rows()),
        group("namespaces", namespaces::rows()),
        group("kernel surface", kernel::rows()),
        group("containerd's side", containerd::rows()),
        group("what stays behind the container", shim::rows()),
    ]
}

/// One more item of a list of the spec.
fn push(list: &mut Value, item: Value) {
    match list.as_array_mut() {
        Some(list) => list.push(item),
        None => *list = json!([item]),
    }
}

/// A bind mount of the granted volume, or of something in it.
fn bind(ask: &mut Ask, destination: &str, source: &str) {
    let mount = json!({ "destination": destination, "type": "bind", "source": source,
        "options": ["bind", "rw", "nosuid", "nodev", "noexec", "rprivate"] });
    push(&mut ask.request.spec["mounts"], mount);
}

/// The spec without the mount on that path.
fn without_mount(ask: &mut Ask, destination: &str) {
    if let Some(mounts) = ask.request.spec["mounts"].as_array_mut() {
        mounts.retain(|mount| mount["destination"] != destination);
    }
}

/// A process to run in the container: root, as the containers of all rows.
fn process(args: &[&str]) -> Value {
    let mut process = stack::spec::process(args);
    process["user"] = json!({ "uid": 0, "gid": 0 });
    process
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_row_has_a_name_of_its_own() {
        let groups = all();
        let rows: Vec<&Row> = groups.iter().flat_map(|group| &group.rows).collect();
        let names: BTreeSet<&str> = rows.iter().map(|row| row.test).collect();
        assert_eq!(names.len(), rows.len());
        assert!(rows.iter().all(|row| !row.ids.is_empty() && !row.mechanism.contains('|') && row.rounds > 0));
    }
}
