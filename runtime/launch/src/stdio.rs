//! What libcontainer is given as 0, 1, 2: the shim's descriptors, or /dev/null; never the gate's own.
use crate::error::LaunchError;
use crate::executor::{Stdio, identity};
use crate::sys;
use std::os::fd::{AsFd, OwnedFd};

#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) fds: [OwnedFd; 3],
    pub(crate) expected: [Stdio; 3],
}

/// With a terminal all three are the container's own.
pub(crate) fn streams(passed: [Option<OwnedFd>; 3], terminal: bool) -> Result<Streams, LaunchError> {
    let [stdin, stdout, stderr] = passed;
    let (a, b, c) = (one(stdin, terminal)?, one(stdout, terminal)?, one(stderr, terminal)?);
    Ok(Streams { fds: [a.0, b.0, c.0], expected: [a.1, b.1, c.1] })
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
