//! The gate's own sealed record of each container: `container.json` in `/run/boltseal/<address hash>/<ns>/<id>/`.
//!
//! The gate writes it, root alone can read or write it, and later requests are bounded by it.
use crate::file::{Folder, Owner, Problem, sha256};
use boltseal_policy::facts::Bound;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Version of the form below.
pub const VERSION: u32 = 1;
pub const FILE: &str = "container.json";
const MAX_FILE: u64 = 1 << 20;
const MAX_CONTAINERS: usize = 4096;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerRecord {
    pub version: u32,
    pub id: String,
    /// containerd namespace.
    pub namespace: String,
    /// The pod's sandbox: its own id for a sandbox, empty outside of a pod.
    pub sandbox_id: String,
    pub is_sandbox: bool,
    pub pod_namespace: String,
    pub pod_name: String,
    pub pod_uid: String,
    pub container_name: String,
    pub pid: u32,
    /// Field 22 of /proc/<pid>/stat: clock ticks since boot.
    pub start_time: u64,
    /// The spec's cgroupsPath.
    pub cgroup_path: String,
    /// (controllers, `""` for v2; absolute path on the host)
    pub cgroups: Vec<(String, String)>,
    /// (OCI name, nsfs (device, inode)) of the running init.
    pub namespaces: Vec<(String, (u64, u64))>,
    /// (first host id, count) of the user namespace's maps; empty without one.
    pub user_ns_ranges: Vec<(u32, u32)>,
    pub bound: Bound,
    pub owner: String,
    /// Image name, text only.
    pub image: String,
    pub digest: String,
    pub repository: String,
    /// How well the bytes that run are bound to the signature: `unpacked`, ...
    pub integrity: String,
    /// What it is trusted with, as its permit says: a level, `*` beside everything, empty where nobody asked. Left out when
    /// empty, so that a gate of the version before still reads the record.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sensitivity: String,
    /// Id of the decision in the trail.
    pub decision: String,
}

impl ContainerRecord {
    /// Whether the init that was recorded is still there. A doubt counts as alive.
    #[must_use]
    pub fn alive(&self) -> bool {
        match crate::file::kernel(&PathBuf::from(format!("/proc/{}/stat", self.pid)), 4096) {
            Ok(stat) => start_time(&stat).is_none_or(|found| found == self.start_time),
            Err(problem) => !problem.missing,
        }
    }
}

/// Field 22 of a line of /proc/<pid>/stat; the name in field 2 may hold anything, so it is cut at the last `)`.
#[must_use]
pub fn start_time(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Folder of the containers of the containerd at `address`.
#[must_use]
pub fn state_root(address: &str) -> PathBuf {
    let digest = sha256(address.as_bytes());
    Path::new("/run/boltseal").join(digest.get(..16).unwrap_or(&digest))
}

/// All containers below a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Records {
    pub records: Vec<ContainerRecord>,
    /// Folders without a record: another gate is about to make that container, or one was killed meanwhile.
    pub incomplete: Vec<PathBuf>,
}

impl Records {
    #[must_use]
    pub fn get(&self, namespace: &str, id: &str) -> Option<&ContainerRecord> {
        self.records.iter().find(|r| r.namespace == namespace && r.id == id)
    }
}

/// Reads the record in `dir` (`.../<ns>/<id>`).
///
/// # Errors
/// Missing, not root's own, malformed, of an unknown version, or of another container than the folder's name says.
pub fn load(dir: &Path) -> Result<ContainerRecord, Problem> {
    read(&private(dir)?)
}

/// Reads all records below `root` (see [`state_root`]): `<root>/<ns>/<id>/`. No folder is no record.
///
/// # Errors
/// The first record or folder that is unusable: what cannot be read cannot be ruled out.
pub fn load_all(root: &Path) -> Result<Records, Problem> {
    let mut found = Records::default();
    let root = match private(root) {
        Err(problem) if problem.missing => return Ok(found),
        other => other?,
    };
    for namespace in root.names(MAX_CONTAINERS)? {
        let containers = root.folder(Path::new(&namespace))?;
        for id in containers.names(MAX_CONTAINERS)? {
            // A container may be deleted between the listing and the reading.
            let folder = match containers.folder(Path::new(&id)) {
                Err(problem) if problem.missing => continue,
                other => other?,
            };
            match read(&folder) {
                Ok(record) => found.records.push(record),
                Err(problem) if problem.missing => found.incomplete.push(folder.path),
                Err(problem) => return Err(problem),
            }
        }
    }
    Ok(found)
}

/// Reads the records of every containerd on the node: `<run>/<address hash>/<ns>/<id>/`.
///
/// # Errors
/// As [`load_all`].
pub fn load_node(run: &Path) -> Result<Records, Problem> {
    let mut found = Records::default();
    let folder = match private(run) {
        Err(problem) if problem.missing => return Ok(found),
        other => other?,
    };
    for name in folder.names(MAX_CONTAINERS)? {
        let is_hash = name.len() == 16 && name.bytes().all(|b| b.is_ascii_hexdigit());
        if is_hash {
            let more = load_all(&run.join(&name))?;
            found.records.extend(more.records);
            found.incomplete.extend(more.incomplete);
        }
    }
    Ok(found)
}

/// A folder that is root's, on a path that only root can change.
fn private(path: &Path) -> Result<Folder, Problem> {
    Folder::open(path, Owner::Root)
}

fn read(folder: &Folder) -> Result<ContainerRecord, Problem> {
    let path = folder.path.join(FILE);
    let (bytes, _) = folder.read(FILE, MAX_FILE, Owner::RootPrivate)?;
    let malformed = |why: String| Problem::new(&path, format!("is malformed: {why}"), "delete the container");
    // The derived reader refuses a field that appears twice and one that it does not know.
    let record: ContainerRecord = serde_json::from_slice(&bytes).map_err(|e| malformed(e.to_string()))?;
    if record.version != VERSION {
        return Err(malformed(format!("version {}, not {VERSION}", record.version)));
    }
    let named = |path: Option<&Path>, name: &str| path.and_then(Path::file_name).is_some_and(|n| n == name);
    if !named(Some(&folder.path), &record.id) || !named(folder.path.parent(), &record.namespace) {
        return Err(malformed(format!("it is the record of {}/{}", record.namespace, record.id)));
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn sample(namespace: &str, id: &str) -> ContainerRecord {
        ContainerRecord {
            version: VERSION,
            id: id.into(),
            namespace: namespace.into(),
            namespaces: vec![("network".into(), (4, 17))],
            ..ContainerRecord::default()
        }
    }

    fn save(root: &Path, record: &ContainerRecord) -> PathBuf {
        let dir = root.join(&record.namespace).join(&record.id);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(FILE), serde_json::to_vec(record).unwrap()).unwrap();
        fs::set_permissions(dir.join(FILE), fs::Permissions::from_mode(0o600)).unwrap();
        dir
    }

    #[test]
    fn what_is_written_is_read() {
        let root = tempfile::tempdir().unwrap();
        let record = sample("k8s.io", "c1");
        let dir = save(root.path(), &record);
        assert_eq!(load(&dir).unwrap(), record);
        fs::create_dir(root.path().join("k8s.io/c2")).unwrap();
        let all = load_all(root.path()).unwrap();
        assert_eq!(all.get("k8s.io", "c1"), Some(&record));
        assert_eq!(all.incomplete, [root.path().join("k8s.io/c2")]);
        assert_eq!(load_all(Path::new("/nonexistent")).unwrap(), Records::default());
    }

    #[test]
    fn what_is_not_sure_is_refused() {
        let cases: [fn(&Path); 6] = [
            |f| fs::set_permissions(f, fs::Permissions::from_mode(0o604)).unwrap(),
            |f| fs::write(f, "{\"version\":1").unwrap(),
            |f| fs::write(f, fs::read_to_string(f).unwrap().replace("\"version\":1", "\"version\":9")).unwrap(),
            |f| fs::write(f, fs::read_to_string(f).unwrap().replace("\"c1\"", "\"c9\"")).unwrap(),
            |f| fs::write(f, fs::read_to_string(f).unwrap().replacen('{', "{\"extra\":1,", 1)).unwrap(),
            |f| fs::write(f, fs::read_to_string(f).unwrap().replacen('{', "{\"owner\":\"a\",", 1)).unwrap(),
        ];
        for fault in cases {
            let root = tempfile::tempdir().unwrap();
            let dir = save(root.path(), &sample("k8s.io", "c1"));
            fault(&dir.join(FILE));
            assert!(load(&dir).is_err());
            assert!(load_all(root.path()).is_err());
        }
    }

    #[test]
    fn alive_is_pid_and_start_time() {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let mut record =
            ContainerRecord { pid: std::process::id(), start_time: start_time(&stat).unwrap(), ..sample("n", "c") };
        assert!(record.alive());
        record.start_time += 1;
        assert!(!record.alive());
        record.pid = u32::MAX;
        assert!(!record.alive());
        assert_eq!(start_time("1 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20"), Some(777));
    }

    #[test]
    fn the_root_is_named_by_the_address() {
        let a = state_root("/run/containerd/containerd.sock");
        assert_eq!(a.parent().unwrap(), Path::new("/run/boltseal"));
        assert_eq!(a.file_name().unwrap().len(), 16);
        assert_ne!(a, state_root("/run/other.sock"));
    }
}
