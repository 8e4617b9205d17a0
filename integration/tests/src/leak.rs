//! What a case may leave: nothing. Processes, mounts, cgroups, sockets, state folders and network namespaces of the
//! private machine, before and after.
use anyhow::{Result, bail};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot(BTreeSet<String>);

impl Snapshot {
    pub fn take() -> Result<Self> {
        let mut all = BTreeSet::new();
        processes(&mut all)?;
        for line in fs::read_to_string("/proc/self/mountinfo")?.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            if let (Some(root), Some(target)) = (fields.get(3), fields.get(4)) {
                all.insert(format!("mount {target} of {root}"));
            }
        }
        folders(Path::new("/sys/fs/cgroup"), "cgroup", &mut all, &|_| true)?;
        // Sockets by path; those of containerd's own event loop have none.
        for line in fs::read_to_string("/proc/net/unix")?.lines().skip(1) {
            if let Some(path) = line.split_whitespace().nth(7) {
                all.insert(format!("socket {path}"));
            }
        }
        for state in ["/run/boltseal", "/run/containerd", "/run/netns", "/run/runc", "/tmp"] {
            entries(Path::new(state), &mut all)?;
        }
        Ok(Self(all))
    }

    /// Fails with the list of what is there now and was not then. What takes a moment to go may take three seconds.
    pub fn compare(&self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(3);
        loop {
            let now = Self::take()?;
            let left: Vec<&String> = now.0.difference(&self.0).collect();
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > end {
                let list: Vec<&str> = left.iter().map(|item| item.as_str()).collect();
                bail!("left behind: {}", list.join("; "));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn processes(all: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        // Gone since the listing is as good as not there.
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let Ok(comm) = fs::read_to_string(entry.path().join("comm")) else { continue };
        // Threads of the kernel come and go by themselves.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // A test itself starts these anew.
        if !is_kernel_thread(&stat) && !["containerd", "swtpm"].contains(&comm.trim()) {
            all.insert(format!("process {name} {} {line}", comm.trim()));
        }
    }
    Ok(())
}

/// The flags of `/proc/<pid>/stat` (field 9, proc(5)) have PF_KTHREAD.
fn is_kernel_thread(stat: &str) -> bool {
    const PF_KTHREAD: u32 = 0x0020_0000;
    let flags = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(6)).and_then(|word| word.parse().ok());
    flags.is_some_and(|flags: u32| flags & PF_KTHREAD != 0)
}

fn folders(folder: &Path, what: &str, all: &mut BTreeSet<String>, keep: &dyn Fn(&Path) -> bool) -> Result<()> {
    let Ok(list) = fs::read_dir(folder) else { return Ok(()) };
    for entry in list {
        let Ok(entry) = entry else { continue };
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && keep(&path) {
            all.insert(format!("{what} {}", path.display()));
            folders(&path, what, all, keep)?;
        }
    }
    Ok(())
}

/// Every entry below, as far as this file system goes; an empty per-namespace folder is no leak of containerd's.
fn entries(folder: &Path, all: &mut BTreeSet<String>) -> Result<()> {
    let Ok(list) = fs::read_dir(folder) else { return Ok(()) };
    for entry in list {
        let Ok(entry) = entry else { continue };
        let path = entry.path();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let text = path.display().to_string();
        // The checkout itself may lie below /tmp.
        if text.contains("/rootfs/") || text == "/run/containerd/s" || path == crate::private::project() {
            continue;
        }
        if is_folder {
            entries(&path, all)?;
            if text.starts_with("/run/boltseal/") || fs::read_dir(&path).is_ok_and(|mut list| list.next().is_some()) {
                all.insert(format!("folder {text}"));
            }
        } else {
            // The node's verdict, not a container's state.
            if text != "/run/boltseal/node.json" {
                all.insert(format!("file {text}"));
            }
        }
    }
    Ok(())
}
