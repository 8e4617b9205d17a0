//! BS-NOD-003's facts: what the pod names, and what runs here. Two starts at once must not each see an empty node, nor free ids
//! of the host (BS-PRC-010): where the policy names levels, and where a user namespace is asked for, one create at a time looks,
//! starts and leaves its record.
use crate::{claim, paths, state};
use boltseal_evidence::record::{self, Records};
use boltseal_message::Request;
use boltseal_policy::Fact;
use boltseal_policy::facts::{Namespaces, Neighbour};
use boltseal_policy::policy::SensitivityRules;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// The annotation that names it.
pub(crate) const ANNOTATION: &str = "boltseal.dev/sensitivity";
/// Longest wait for the creates before this one: each takes some 30 ms.
const PATIENCE: Duration = Duration::from_secs(5);

/// No other create looks at what runs while this value lives.
#[must_use]
#[derive(Debug)]
pub(crate) struct Turn(File);

impl Drop for Turn {
    /// Also where a forked child still has a copy of the descriptor.
    fn drop(&mut self) {
        if let Err(e) = self.0.unlock() {
            tracing::warn!("the lock on sensitivities stays until this run ends: {e}");
        }
    }
}

/// Waits for this create's turn; None where the policy names no levels and the container has no user namespace, for then no
/// neighbour matters.
///
/// # Errors
/// It did not come in time, or there can be no lock: then what runs is unknown.
pub(crate) fn turn(
    rules: &SensitivityRules,
    namespaces: &Namespaces,
    deadline: Instant,
) -> Result<Option<Turn>, String> {
    if rules.levels.is_empty() && !namespaces.listed.iter().any(|n| n.kind == "user") {
        return Ok(None);
    }
    state::run_folder()?;
    // The folder itself is locked: no file of its own, so none to find in its place.
    let failed = |e: std::io::Error| format!("{}: {e}", paths::RUN);
    let folder = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_DIRECTORY).open(paths::RUN);
    let folder = folder.map_err(failed)?;
    let deadline = deadline.min(Instant::now() + PATIENCE);
    loop {
        match folder.try_lock() {
            Ok(()) => return Ok(Some(Turn(folder))),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
            Err(TryLockError::WouldBlock) => return Err("timeout: other creates on this node go on and on".into()),
            Err(TryLockError::Error(e)) => return Err(failed(e)),
        }
    }
}

/// A folder without a record of whose container nothing runs: its create was killed, or never came to launching it.
fn empty(folder: &Path) -> Result<(), String> {
    if claim::is_held(folder) {
        return Err("is half made: another start is under way".into());
    }
    // It may have ended, or gone, since the records were listed.
    match record::load(folder) {
        Err(problem) if problem.missing => {}
        _ => return Err("changes at this moment".into()),
    }
    let left = "was left by a start that was killed. Fix: delete that container";
    match boltseal_launch::runs(folder) {
        Ok(false) => Ok(()),
        Ok(true) => Err(format!("has no record, but something of it runs: it {left}")),
        Err(e) => Err(format!("has no record, and whether something of it runs cannot be told ({e}): it {left}")),
    }
}

/// Whether nobody takes ids of the host who has no record yet: whoever makes a user namespace takes a turn, so what is half made
/// now has none, or is what a killed create left.
pub(crate) fn ids_are_recorded(records: &Records, turn: &Result<Option<Turn>, String>) -> Result<(), String> {
    match turn {
        Ok(Some(_)) => {}
        Ok(None) => return Err("other creates were not held up".into()),
        Err(why) => return Err(why.clone()),
    }
    for folder in &records.incomplete {
        let may = boltseal_launch::may_have_ids(folder);
        if may.map_err(|e| format!("{}: whose ids it has cannot be told: {e}", folder.display()))? {
            empty(folder).map_err(|why| format!("{} {why}", folder.display()))?;
        }
    }
    Ok(())
}

pub(crate) fn named(annotation: Option<&str>) -> Fact<String> {
    annotation.map_or(Fact::Absent, |name| Fact::Is(name.to_owned()))
}

/// The others that run, by their own records.
pub(crate) fn neighbours(
    request: &Request,
    records: &Result<Records, String>,
    turn: &Result<Option<Turn>, String>,
) -> Fact<Vec<Neighbour>> {
    let records = match (records, turn) {
        (Ok(records), Ok(_)) => records,
        (Err(why), _) | (_, Err(why)) => return Fact::Unknown(why.clone()),
    };
    for folder in &records.incomplete {
        if let Err(why) = empty(folder) {
            return Fact::Unknown(format!("{} {why}", folder.display()));
        }
    }
    let others = records.records.iter().filter(|r| (&r.namespace, &r.id) != (&request.namespace, &request.id));
    let alive = others.filter(|r| r.alive());
    Fact::Is(
        alive
            .map(|r| Neighbour { id: format!("{}/{}", r.namespace, r.id), sensitivity: r.sensitivity.clone() })
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use boltseal_message::Operation;
    use std::fs;
    use std::path::PathBuf;
    use std::process::{Child, Command};

    struct Sleeper(Child);

    impl Sleeper {
        fn new() -> Self {
            Self(Command::new("sleep").arg("600").spawn().unwrap())
        }

        fn start_time(&self) -> u64 {
            record::start_time(&fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap()).unwrap()
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    /// What a create on a node with levels sees of a folder without a record.
    fn seen(folder: &Path) -> Result<Vec<Neighbour>, String> {
        let request = Request {
            namespace: "ns".into(),
            address: "/run/c.sock".into(),
            id: "new".into(),
            bundle: "/b".into(),
            deadline_ms: 1,
            operation: Operation::Record { events: Vec::new() },
        };
        let records = Records { records: Vec::new(), incomplete: vec![folder.to_owned()] };
        match neighbours(&request, &Ok(records), &Ok(None)) {
            Fact::Is(others) => Ok(others),
            Fact::Unknown(why) => Err(why),
            Fact::Absent => panic!("absent"),
        }
    }

    /// Ids that a folder without a record may hold count until nothing of it can run.
    #[test]
    fn ids_of_what_is_half_made() {
        let (_top, folder) = half_made();
        let records = Records { records: Vec::new(), incomplete: vec![folder.clone()] };
        let lock = File::open("/dev/null").unwrap();
        let look = || ids_are_recorded(&records, &Ok(Some(Turn(lock.try_clone().unwrap()))));
        let sleeper = Sleeper::new();
        drop(claim::make(&folder, "c1").unwrap());
        assert_eq!(look(), Ok(()), "before its launch");
        launched(&folder, sleeper.0.id(), sleeper.start_time(), "/boltseal-no-such-cgroup/c1");
        assert_eq!(look(), Ok(()), "without a user namespace");
        let record = folder.join("launch/record.json");
        let text = fs::read_to_string(&record).unwrap().replace("\"user_namespace\":false", "\"user_namespace\":true");
        fs::write(&record, &text).unwrap();
        assert!(look().unwrap_err().contains("something of it runs"));
        drop(sleeper);
        assert_eq!(look(), Ok(()), "its init has ended");
        fs::write(&record, "{").unwrap();
        assert!(look().unwrap_err().contains("cannot be told"));
        for nobody in [Ok(None), Err("timeout".to_owned())] {
            assert!(ids_are_recorded(&Records::default(), &nobody).is_err());
        }
    }

    fn half_made() -> (tempfile::TempDir, PathBuf) {
        let top = tempfile::tempdir().unwrap();
        let folder = top.path().join("ns/c1");
        (top, folder)
    }

    fn write(folder: &Path, name: &str, text: &str) {
        fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
        fs::write(folder.join(name), text).unwrap();
    }

    fn launched(folder: &Path, pid: u32, start_time: u64, cgroup: &str) {
        let text = format!(
            "{{\"version\":1,\"id\":\"c1\",\"cgroup_path\":\"{cgroup}\",\"pid\":{pid},\"start_time\":{start_time},\"mounts\":[],\"console\":false,\"user_namespace\":false}}"
        );
        write(folder, "launch/record.json", &text);
    }

    #[test]
    fn a_folder_that_a_killed_create_left_is_nobody() {
        let (_top, folder) = half_made();
        let claim = claim::make(&folder, "c1").unwrap();
        assert!(seen(&folder).unwrap_err().contains("another start is under way"));
        drop(claim);
        assert_eq!(seen(&folder), Ok(vec![]));
        // Looking took nothing from anybody.
        drop(claim::make(&folder, "c1").unwrap());
        // Before its launch, before its init, after its end, and gone meanwhile.
        write(&folder, "launch/bundle/config.json", "{}");
        assert_eq!(seen(&folder), Ok(vec![]));
        launched(&folder, 0, 0, "/boltseal-no-such-cgroup/c1");
        assert_eq!(seen(&folder), Ok(vec![]));
        launched(&folder, std::process::id(), 1, "/boltseal-no-such-cgroup/c1");
        assert_eq!(seen(&folder), Ok(vec![]));
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(seen(&folder), Ok(vec![]));
    }

    #[test]
    fn a_folder_of_what_runs_or_may_run_is_unknown() {
        let (_top, folder) = half_made();
        let sleeper = Sleeper::new();
        drop(claim::make(&folder, "c1").unwrap());
        launched(&folder, sleeper.0.id(), sleeper.start_time(), "/boltseal-no-such-cgroup/c1");
        assert!(seen(&folder).unwrap_err().contains("something of it runs"));
        launched(&folder, sleeper.0.id(), sleeper.start_time() + 1, "/boltseal-no-such-cgroup/c1");
        assert_eq!(seen(&folder), Ok(vec![]), "the number is another process's");
        for damage in ["", "{", "null"] {
            write(&folder, "launch/record.json", damage);
            assert!(seen(&folder).unwrap_err().contains("cannot be told"), "{damage:?}");
        }
        fs::remove_file(folder.join("launch/record.json")).unwrap();
        assert_eq!(seen(&folder), Ok(vec![]));
        write(&folder, "launch/lc/c1/state.json", "{}");
        assert!(seen(&folder).unwrap_err().contains("cannot be told"));
        launched(&folder, 0, 0, "/");
        assert!(seen(&folder).unwrap_err().contains("cannot be told"));
    }

    /// No init any more, or none yet; what is in its cgroup or below it counts.
    #[test]
    fn what_is_left_in_its_cgroup_counts() {
        let (_top, folder) = half_made();
        drop(claim::make(&folder, "c1").unwrap());
        let name = format!("boltseal-half-made-{}", std::process::id());
        launched(&folder, 0, 0, &format!("/{name}"));
        let v1 = Path::new("/sys/fs/cgroup/pids");
        let parent = if v1.is_dir() { v1 } else { Path::new("/sys/fs/cgroup") };
        let below = parent.join(&name).join("below");
        fs::create_dir_all(&below).unwrap();
        assert_eq!(seen(&folder), Ok(vec![]), "an empty cgroup");
        let sleeper = Sleeper::new();
        fs::write(below.join("cgroup.procs"), sleeper.0.id().to_string()).unwrap();
        let found = seen(&folder);
        drop(sleeper);
        let emptied = seen(&folder);
        fs::remove_dir(&below).unwrap();
        fs::remove_dir(parent.join(&name)).unwrap();
        assert!(found.unwrap_err().contains("something of it runs"));
        assert_eq!(emptied, Ok(vec![]));
    }
}
