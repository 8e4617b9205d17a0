//! Code that is not of the image, and privilege that comes with a file.
use super::{Given, Seen};
use crate::program;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{Uid, getuid, setuid};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;

/// What malware does that leaves no file: a program in memory, run from there.
pub(super) fn from_memory(_: &Given) -> Seen {
    // Without MFD_CLOEXEC: a child executes it.
    let fd = memfd_create("boltseal-probe", MFdFlags::empty()).map_err(|errno| format!("memfd_create {errno:?}"))?;
    let mut file = File::from(fd);
    file.write_all(&program::bytes()).map_err(|error| error.to_string())?;
    // One that is open for writing is busy.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let reader = File::open(&path).map_err(|error| error.to_string())?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), reader.as_raw_fd());
    drop(file);
    program::runs(&path).map(|()| "a memory file ran".into())
}

/// A set-uid program of root's makes root of somebody else.
pub(super) fn set_uid(given: &Given) -> Seen {
    const NOBODY: u32 = 65532;
    if getuid().is_root() {
        setuid(Uid::from_raw(NOBODY)).map_err(|errno| errno.to_string())?;
    }
    match program::execute(&given.set_uid, &[given.set_uid.as_str(), "euid"])? {
        code if code == i32::from(crate::SET_UID) => Ok("it ran as root".into()),
        code => Err(format!("it ended with {code}")),
    }
}
