//! Where files can be made, where programs run from, and where both: each tried.
use crate::program;
use probe::Paths;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Folders looked into, all in all.
const MOST: usize = 20_000;

pub(crate) fn look() -> Result<Paths, String> {
    let mounts = mounts()?;
    let mut folders: BTreeSet<PathBuf> = mounts.iter().map(|mount| mount.at.clone()).filter(|at| at.is_dir()).collect();
    walk(Path::new("/"), &mut folders);
    let mut paths = Paths::default();
    for folder in folders {
        let Some(name) = folder.to_str() else { continue };
        match try_folder(&folder) {
            Tried::Nothing => {}
            Tried::Written => paths.writable.push(name.into()),
            Tried::Ran => {
                paths.writable.push(name.into());
                paths.both.push(name.into());
            }
        }
    }
    let runs = mounts.into_iter().filter(|mount| mount.executable && mount.at.is_dir() && !mount.is_mask());
    paths.executable = runs.map(|mount| mount.at.display().to_string()).collect::<BTreeSet<_>>().into_iter().collect();
    Ok(paths)
}

struct Mount {
    at: PathBuf,
    /// Its options lack noexec.
    executable: bool,
    readonly: bool,
}

impl Mount {
    /// What hides a folder: nothing is in it, and nothing can be put there.
    fn is_mask(&self) -> bool {
        self.readonly && fs::read_dir(&self.at).is_ok_and(|mut entries| entries.next().is_none())
    }
}

/// Of proc_pid_mountinfo(5): field 5 is the place, field 6 the mount's own options. Kernel windows hold no programs.
fn mounts() -> Result<Vec<Mount>, String> {
    let text = fs::read_to_string("/proc/self/mountinfo").map_err(|error| format!("mountinfo: {error}"))?;
    Ok(text.lines().filter_map(mount).collect())
}

fn mount(line: &str) -> Option<Mount> {
    let fields: Vec<&str> = line.split(' ').collect();
    let (at, options) = (fields.get(4)?, fields.get(5)?);
    let kind = line.split_once(" - ")?.1.split(' ').next()?;
    let window = ["proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue"].contains(&kind);
    let has = |name: &str| options.split(',').any(|option| option == name);
    Some(Mount { at: at.into(), executable: !window && !has("noexec"), readonly: has("ro") })
}

fn walk(folder: &Path, found: &mut BTreeSet<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let inside = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let window = ["/proc", "/sys"].iter().any(|window| path == Path::new(window));
        if inside && !window && found.len() < MOST {
            found.insert(path.clone());
            walk(&path, found);
        }
    }
}

enum Tried {
    Nothing,
    /// A file could be made.
    Written,
    /// A program could be written, and it ran.
    Ran,
}

fn try_folder(folder: &Path) -> Tried {
    let path = folder.join(format!("boltseal-probe-{}", std::process::id()));
    let Ok(mut file) = File::options().write(true).create_new(true).mode(0o700).open(&path) else {
        return Tried::Nothing;
    };
    let written = file.write_all(&program::bytes());
    drop(file);
    let ran = written.is_ok() && path.to_str().is_some_and(|path| program::runs(path).is_ok());
    match (fs::remove_file(&path), ran) {
        (_, true) => Tried::Ran,
        (Ok(()) | Err(_), false) => Tried::Written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_mountinfo() {
        let line = "36 35 98:0 / /dev/shm rw,nosuid,nodev,noexec master:1 - tmpfs shm rw";
        let shm = mount(line).unwrap();
        assert!(shm.at == Path::new("/dev/shm") && !shm.executable);
        assert!(mount(&line.replace(",noexec", "")).unwrap().executable);
        assert!(!mount("36 35 98:0 / /proc rw - proc proc rw").unwrap().executable);
        assert!(mount("36 35 98:0").is_none());
    }

    #[test]
    fn a_folder_is_what_it_is() {
        assert!(matches!(try_folder(Path::new("/tmp")), Tried::Ran));
        assert!(matches!(try_folder(Path::new("/proc")), Tried::Nothing));
    }
}
