//! Pays a wait in advance. The first write of a pid to a `cgroup.procs` of an idle machine waits 8 to 16 ms for an RCU
//! grace period (the kernel's thread-group lock, `cgroup_threadgroup_rwsem`); those that follow closely do not. A create
//! must write one, so a child writes its own pid to the cgroup that it is already in, while the gate still gathers.
//! It changes nothing, and nothing depends on it.
use crate::sys;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid};
use std::path::PathBuf;

/// The child that waits in our place. It is reaped when this is dropped.
#[derive(Debug)]
pub(crate) struct Ahead(Option<Pid>);

impl Drop for Ahead {
    /// Waits for the child. It ends by itself: the kernel lets every writer through.
    fn drop(&mut self) {
        if let Some(child) = self.0 {
            while waitpid(child, None) == Err(nix::Error::EINTR) {}
        }
    }
}

impl Ahead {
    pub(crate) fn start() -> Self {
        let Some(procs) = own_procs() else { return Self(None) };
        match sys::fork() {
            Ok(ForkResult::Child) => {
                let failed = std::fs::write(procs, "0").is_err();
                sys::exit_now(i32::from(failed))
            }
            Ok(ForkResult::Parent { child }) => Self(Some(child)),
            Err(_) => Self(None),
        }
    }
}

/// `cgroup.procs` of a cgroup that this process is in: a v1 hierarchy's, else the unified one's.
fn own_procs() -> Option<PathBuf> {
    let lines = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let parsed = lines.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let folders = parsed.map(|(controllers, path)| match controllers {
        "" => PathBuf::from(format!("/sys/fs/cgroup{path}")),
        named => PathBuf::from(format!("/sys/fs/cgroup/{}{path}", named.trim_start_matches("name="))),
    });
    folders.map(|folder| folder.join("cgroup.procs")).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_ahead_moves_nobody() {
        let cgroups = || std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let before = cgroups();
        let ahead = Ahead::start();
        assert!(ahead.0.is_some(), "this machine has no cgroup to write to: {before}");
        drop(ahead);
        assert_eq!(cgroups(), before);
    }
}
