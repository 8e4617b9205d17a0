//! The container's cgroup folders as the gate named them: who is in it, freeze, kill, the OOM killer's visits.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::Signal;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::stdio::read_small;
use crate::sys;

/// How deep groups within the container's group are looked at.
const MAX_DEPTH: usize = 16;
const STEP: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Default)]
pub(crate) struct Cgroup {
    /// (controllers, folder): no controllers is the v2 hierarchy.
    folders: Vec<(String, PathBuf)>,
}

impl Cgroup {
    pub(crate) fn new(folders: &[(String, String)]) -> Self {
        Self { folders: folders.iter().map(|(names, path)| (names.clone(), path.into())).collect() }
    }

    pub(crate) fn v1(&self, controller: &str) -> Option<&Path> {
        let holds = |names: &str| names.split(',').any(|name| name == controller);
        self.folders.iter().find(|(names, _)| holds(names)).map(|(_, path)| path.as_path())
    }

    pub(crate) fn v2(&self) -> Option<&Path> {
        self.folders.iter().find(|(names, _)| names.is_empty()).map(|(_, path)| path.as_path())
    }

    fn any(&self) -> Option<&Path> {
        let known = ["pids", "freezer", "memory", "cpu"].iter().find_map(|name| self.v1(name));
        known.or_else(|| self.v2()).or_else(|| self.folders.first().map(|(_, path)| path.as_path()))
    }

    /// Every process in the group and in the groups below it.
    pub(crate) fn pids(&self) -> io::Result<Vec<u32>> {
        let mut pids = Vec::new();
        if let Some(folder) = self.any() {
            collect_pids(folder, MAX_DEPTH, &mut pids)?;
        }
        Ok(pids)
    }

    /// Stops or resumes every process, and waits until that is so.
    pub(crate) async fn freeze(&self, frozen: bool) -> io::Result<()> {
        let (file, value, state, wanted) = if let Some(folder) = self.v1("freezer") {
            let value = if frozen { "FROZEN" } else { "THAWED" };
            (folder.join("freezer.state"), value, folder.join("freezer.state"), value)
        } else if let Some(folder) = self.v2() {
            let (value, wanted) = if frozen { ("1", "frozen 1") } else { ("0", "frozen 0") };
            (folder.join("cgroup.freeze"), value, folder.join("cgroup.events"), wanted)
        } else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the container has no freezer cgroup"));
        };
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            // v1 may need more than one try while processes fork.
            fs::write(&file, value)?;
            if read_small(&state)?.lines().any(|line| line == wanted) {
                return Ok(());
            }
            if tokio::time::Instant::now() > deadline {
                if frozen {
                    fs::write(&file, if value == "1" { "0" } else { "THAWED" })?;
                }
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the cgroup did not freeze or thaw in time"));
            }
            tokio::time::sleep(STEP).await;
        }
    }

    /// Signals every process. SIGKILL is repeated until the group is empty, at most two seconds.
    pub(crate) async fn signal(&self, signal: i32) -> io::Result<()> {
        if signal != Signal::SIGKILL as i32 {
            return self.signal_once(signal);
        }
        if let Some(kill) = self.v2().map(|folder| folder.join("cgroup.kill")).filter(|file| file.exists()) {
            fs::write(kill, "1")?;
        }
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            match self.pids() {
                Ok(pids) if !pids.is_empty() => {}
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(e) => return Err(e),
            }
            if tokio::time::Instant::now() > deadline {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "processes of the cgroup survive SIGKILL"));
            }
            // Where there is a v1 freezer nobody can fork or vanish between the list and the signal.
            let frozen = self.v1("freezer").is_some() && self.freeze(true).await.is_ok();
            let sent = self.signal_once(signal);
            if frozen {
                self.freeze(false).await?;
            }
            sent?;
            tokio::time::sleep(STEP).await;
        }
    }

    fn signal_once(&self, signal: i32) -> io::Result<()> {
        for pid in self.pids()? {
            use std::os::fd::AsFd as _;
            // A pid may have ended since; that is no failure.
            let gone = |e: &io::Error| e.raw_os_error() == Some(Errno::ESRCH as i32);
            match sys::pidfd_open(pid).and_then(|pidfd| sys::pidfd_signal(pidfd.as_fd(), signal)) {
                Err(e) if !gone(&e) => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    /// How many processes the OOM killer took.
    pub(crate) fn oom_kills(&self) -> u64 {
        let file = match (self.v1("memory"), self.v2()) {
            (Some(folder), _) => folder.join("memory.oom_control"),
            (None, Some(folder)) => folder.join("memory.events"),
            (None, None) => return 0,
        };
        read_small(file).map_or(0, |text| keyed(&text, "oom_kill").unwrap_or(0))
    }

    /// An fd that becomes readable when the OOM killer may have come. None: there is no memory controller to ask.
    pub(crate) fn oom_watch(&self) -> io::Result<Option<OomWatch>> {
        if let Some(folder) = self.v1("memory") {
            let control = fs::File::open(folder.join("memory.oom_control"))?;
            let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
            let order = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
            fs::write(folder.join("cgroup.event_control"), order)?;
            let event: OwnedFd = event.into();
            return Ok(Some(OomWatch(sys::asynchronous(event, Interest::READABLE)?)));
        }
        let Some(events) = self.v2().map(|folder| folder.join("memory.events")).filter(|file| file.exists()) else {
            return Ok(None);
        };
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        inotify.add_watch(&events, AddWatchFlags::IN_MODIFY)?;
        let inotify: OwnedFd = inotify.into();
        Ok(Some(OomWatch(sys::asynchronous(inotify, Interest::READABLE)?)))
    }
}

/// See [`Cgroup::oom_watch`].
#[derive(Debug)]
pub(crate) struct OomWatch(AsyncFd<OwnedFd>);

impl OomWatch {
    pub(crate) async fn visited(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let mut buffer = [0; 4096];
            if let Ok(read) = ready.try_io(|fd| Ok(nix::unistd::read(fd.get_ref(), &mut buffer)?)) {
                read?;
                return Ok(());
            }
        }
    }
}

/// The number after `key` in lines of `key number`.
pub(crate) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

fn collect_pids(folder: &Path, depth: usize, pids: &mut Vec<u32>) -> io::Result<()> {
    pids.extend(read_small(folder.join("cgroup.procs"))?.lines().filter_map(|line| line.parse::<u32>().ok()));
    if depth == 0 {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            match collect_pids(&entry.path(), depth - 1, pids) {
                // Removed while we looked.
                Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ENODEV) => {}
                other => other?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_is_found_among_those_mounted_together() {
        let cgroup = Cgroup::new(&[("cpu,cpuacct".into(), "/c".into()), (String::new(), "/u".into())]);
        assert_eq!(cgroup.v1("cpuacct"), Some(Path::new("/c")));
        assert_eq!(cgroup.v1("cpuset"), None);
        assert_eq!(cgroup.v2(), Some(Path::new("/u")));
    }

    #[test]
    fn a_key_is_matched_whole() {
        assert_eq!(keyed("oom 3\noom_kill 7\n", "oom_kill"), Some(7));
        assert_eq!(keyed("oom 3\noom_kill 7\n", "oom"), Some(3));
        assert_eq!(keyed("oom_kill x", "oom_kill"), None);
    }

    /// A cgroup v2 folder of the real kernel, with two processes, one of them in a group below.
    struct Real {
        folder: PathBuf,
        children: Vec<std::process::Child>,
    }

    impl Real {
        fn new(name: &str) -> Self {
            let mut top = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new).into_iter();
            let top = top.find(|top| top.join("cgroup.controllers").exists()).expect("cgroup v2 is mounted");
            let folder = top.join(format!("boltseal-shim-{name}-{}", std::process::id()));
            fs::create_dir_all(folder.join("below")).unwrap();
            let child = |folder: &Path| {
                let child = std::process::Command::new("/bin/sleep").arg("100").spawn().unwrap();
                fs::write(folder.join("cgroup.procs"), child.id().to_string()).unwrap();
                child
            };
            let children = vec![child(&folder), child(&folder.join("below"))];
            Self { folder, children }
        }

        fn cgroup(&self) -> Cgroup {
            Cgroup::new(&[(String::new(), self.folder.to_str().unwrap().into())])
        }

        fn frozen(&self) -> bool {
            fs::read_to_string(self.folder.join("cgroup.events")).unwrap().contains("frozen 1")
        }
    }

    impl Drop for Real {
        fn drop(&mut self) {
            for child in &mut self.children {
                child.kill().unwrap();
                child.wait().unwrap();
            }
            fs::remove_dir(self.folder.join("below")).unwrap();
            fs::remove_dir(&self.folder).unwrap();
        }
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn v2_freezes_thaws_and_kills_what_lies_below_too() {
        let mut real = Real::new("freeze");
        let cgroup = real.cgroup();
        let mut pids: Vec<u32> = real.children.iter().map(std::process::Child::id).collect();
        pids.sort_unstable();
        let mut listed = cgroup.pids().unwrap();
        listed.sort_unstable();
        assert_eq!(listed, pids);
        run(async {
            cgroup.freeze(true).await.unwrap();
            assert!(real.frozen());
            cgroup.freeze(false).await.unwrap();
            assert!(!real.frozen());
            // Frozen as they are, they die at once.
            cgroup.freeze(true).await.unwrap();
            cgroup.signal(Signal::SIGKILL as i32).await.unwrap();
        });
        for child in &mut real.children {
            use std::os::unix::process::ExitStatusExt as _;
            assert_eq!(child.wait().unwrap().signal(), Some(Signal::SIGKILL as i32));
        }
    }

    #[test]
    fn v2_statistics_are_of_the_group() {
        use containerd_shim_protos::cgroups_v2::metrics::Metrics;
        use protobuf::Message as _;
        let real = Real::new("stats");
        let any = crate::stats::stats(&real.cgroup()).unwrap();
        assert_eq!(any.type_url, "io.containerd.cgroups.v2.Metrics");
        let metrics = Metrics::parse_from_bytes(&any.value).unwrap();
        assert!(metrics.cpu.usage_usec < 60_000_000, "the group's, not the machine's");
        // The kernel keeps pressure for every group where it keeps it at all.
        let kept = fs::read_to_string(real.folder.join("cpu.pressure")).is_ok_and(|text| text.starts_with("some"));
        assert_eq!(metrics.cpu.psi.is_some(), kept);
    }

    #[test]
    fn pids_of_groups_below_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("below")).unwrap();
        fs::write(folder.path().join("cgroup.procs"), "1\n2\n").unwrap();
        fs::write(folder.path().join("below/cgroup.procs"), "3\n").unwrap();
        let cgroup = Cgroup::new(&[("pids".into(), folder.path().to_str().unwrap().into())]);
        assert_eq!(cgroup.pids().unwrap(), [1, 2, 3]);
    }
}
