//! Why the trail did not take a record. Each of these denies a start by BS-AUD-001.
use std::fmt;
use std::io;

#[derive(Debug)]
#[non_exhaustive]
pub enum TrailError {
    /// The folder is missing, not root's, open to others, or on a file system that forgets.
    Folder(String),
    /// Another writer held the lock for the whole deadline.
    Locked,
    /// Too little room is left: what remains is kept for denials.
    NoRoom(String),
    /// The newest file has no readable last record; an operator must look.
    Damaged(String),
    /// The record does not fit into a line even after shortening.
    TooLong(usize),
    /// A system call failed: what was tried, and the error.
    Io(&'static str, io::Error),
}

impl TrailError {
    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io(what, error)
    }
    pub(crate) fn sys(what: &'static str) -> impl FnOnce(nix::errno::Errno) -> Self {
        move |errno| Self::Io(what, errno.into())
    }
}

impl fmt::Display for TrailError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(why) => write!(f, "audit folder: {why}"),
            Self::Locked => write!(f, "audit folder: another writer held the lock for 2 s (a stopped process?)"),
            Self::NoRoom(why) => {
                write!(f, "audit folder: {why}; what is left is kept for denials. Fix: free disk space")
            }
            Self::Damaged(why) => {
                write!(f, "audit trail: {why}. Fix: look with `boltseal audit verify`, then move the files away")
            }
            Self::TooLong(bytes) => write!(f, "audit record of {bytes} bytes is longer than a line may be"),
            Self::Io(what, error) => write!(f, "audit trail: {what}: {error}"),
        }
    }
}

impl std::error::Error for TrailError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, error) => Some(error),
            _ => None,
        }
    }
}
