//! SELinux: the label of the container's own mounts, said mount by mount. libcontainer would give `linux.mountLabel` to every
//! mount but proc and sysfs; the kernel takes it only where the file system is made by that mount. A message queue's is made
//! with its ipc namespace, cgroup2's is one for the machine: there another label is "same superblock, different security
//! settings", and nothing starts.
use crate::error::LaunchError;
use serde_json::Value;

/// File systems that each mount makes anew.
const OWN: [&str; 3] = ["tmpfs", "ramfs", "devpts"];

/// The sealed spec as libcontainer gets it: without `mountLabel`, with a `context` option where it can be had.
pub(crate) fn by_mount(json: Vec<u8>) -> Result<Vec<u8>, LaunchError> {
    let failed = |e: serde_json::Error| LaunchError::Other(format!("the sealed spec: {e}"));
    let mut spec: Value = serde_json::from_slice(&json).map_err(failed)?;
    let linux = spec.get_mut("linux").and_then(Value::as_object_mut);
    let Some(Value::String(label)) = linux.and_then(|linux| linux.remove("mountLabel")) else { return Ok(json) };
    for mount in spec.get_mut("mounts").and_then(Value::as_array_mut).into_iter().flatten() {
        if mount.get("type").and_then(Value::as_str).is_some_and(|kind| OWN.contains(&kind))
            && let Some(mount) = mount.as_object_mut()
        {
            let options = mount.entry("options").or_insert_with(|| Value::Array(Vec::new()));
            let bad = || LaunchError::Other("the sealed spec: options of a mount are no list".into());
            options.as_array_mut().ok_or_else(bad)?.push(format!("context={label}").into());
        }
    }
    serde_json::to_vec(&spec).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_where_the_mount_makes_the_file_system() {
        let label = "system_u:object_r:boltseal_file_t:s0:c1,c2";
        let spec = json!({ "linux": { "mountLabel": label, "cgroupsPath": "/a" }, "mounts": [
            { "destination": "/dev", "type": "tmpfs", "options": ["nosuid"] },
            { "destination": "/run", "type": "tmpfs" },
            { "destination": "/dev/mqueue", "type": "mqueue", "options": ["nosuid"] },
            { "destination": "/proc", "type": "proc" },
            { "destination": "/data", "type": "bind", "source": "/data", "options": ["bind"] },
        ] });
        let changed: Value = serde_json::from_slice(&by_mount(serde_json::to_vec(&spec).unwrap()).unwrap()).unwrap();
        let context = format!("context={label}");
        assert_eq!(changed["linux"], json!({ "cgroupsPath": "/a" }));
        assert_eq!(changed["mounts"][0]["options"], json!(["nosuid", context]));
        assert_eq!(changed["mounts"][1]["options"], json!([context]));
        for untouched in 2..5 {
            assert_eq!(changed["mounts"][untouched], spec["mounts"][untouched]);
        }
    }

    #[test]
    fn without_a_label_the_bytes_are_the_same() {
        let json = br#"{ "linux": {}, "mounts": [{ "type": "tmpfs" }] }"#.to_vec();
        assert_eq!(by_mount(json.clone()).unwrap(), json);
    }
}
