//! What libcontainer is given as 0, 1, 2: the shim's descriptors, or /dev/null; never the gate's own.
use crate::error::LaunchError;
use crate::executor::{Stdio, identity};
use crate::sys;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// linux/magic.h
const PIPEFS_MAGIC: libc::c_ulong = 0x5049_5045;

#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) fds: [OwnedFd; 3],
    pub(crate) expected: [Stdio; 3],
}

/// With a terminal all three are the container's own. Pipes are given to `owner` (uid, gid), the user that the process runs
/// as: programs open /dev/stdout and /dev/stderr anew to log there, and a pipe opens for its owner alone.
pub(crate) fn streams(
    passed: [Option<OwnedFd>; 3],
    terminal: bool,
    owner: Option<(u32, u32)>,
) -> Result<Streams, LaunchError> {
    for (fd, (uid, gid)) in passed.iter().flatten().filter_map(|fd| Some((fd, owner?))) {
        let kind = sys::fstat(fd.as_raw_fd()).map_err(LaunchError::io("stat the passed stdio"))?.st_mode & libc::S_IFMT;
        // Only what the shim made for this process: a named pipe on a disk keeps its owner.
        if kind == libc::S_IFIFO && is_anonymous(fd) {
            std::os::unix::fs::fchown(fd, Some(uid), Some(gid)).map_err(LaunchError::io("give stdio to its user"))?;
        }
    }
    let [stdin, stdout, stderr] = passed;
    let (a, b, c) = (one(stdin, terminal)?, one(stdout, terminal)?, one(stderr, terminal)?);
    Ok(Streams { fds: [a.0, b.0, c.0], expected: [a.1, b.1, c.1] })
}

fn is_anonymous(fd: &OwnedFd) -> bool {
    nix::sys::statfs::fstatfs(fd).is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::FsType(PIPEFS_MAGIC))
}

fn one(passed: Option<OwnedFd>, terminal: bool) -> Result<(OwnedFd, Stdio), LaunchError> {
    let (fd, expected) = match passed {
        Some(fd) => {
            let expected = identity(&fd)?;
            (fd, expected)
        }
        None => {
            let null = std::fs::File::options().read(true).write(true).open("/dev/null");
            (null.map_err(LaunchError::io("open /dev/null"))?.into(), Stdio::Null)
        }
    };
    // Above 2: libcontainer dups onto 0, 1, 2 and closes what it was given.
    let high = sys::dup_high(fd.as_fd()).map_err(LaunchError::io("hand on stdio"))?;
    Ok((high, if terminal { Stdio::Terminal } else { expected }))
}
