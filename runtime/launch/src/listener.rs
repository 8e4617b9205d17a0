//! The listener of the base filter's trip-wire: made inside when the filter is installed, on its way to the shim.
use crate::error::LaunchError;
use crate::seccomp::Trap;
use crate::sys;
use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Who holds it is asked about every call in `traps`, by every process under the filter. When its last copy is closed,
/// the kernel answers ENOSYS.
#[derive(Debug)]
pub struct Listener {
    pub fd: OwnedFd,
    pub traps: Vec<Trap>,
}

impl Listener {
    /// The one that the inside handed out, if the filter has traps.
    pub(crate) fn taken(way: &OwnedFd, traps: Vec<Trap>) -> Result<Option<Self>, LaunchError> {
        if traps.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self { fd: take(way)?, traps }))
    }
}

/// The way out: (the gate's end, the inside's end).
pub(crate) fn way_out() -> Result<(OwnedFd, OwnedFd), LaunchError> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .map_err(LaunchError::errno("make the socket of the listener"))
}

/// Inside: hands the listener out and keeps no copy.
pub(crate) fn hand_out(way: RawFd, listener: OwnedFd) -> Result<(), LaunchError> {
    let fds = [listener.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(way, &[IoSlice::new(b"l")], &rights, MsgFlags::MSG_NOSIGNAL, None)
        .map(drop)
        .map_err(LaunchError::errno("hand out the listener of the seccomp filter"))
}

/// In the gate, after the inside said that it is ready: it has been sent.
fn take(way: &OwnedFd) -> Result<OwnedFd, LaunchError> {
    let failed = LaunchError::errno("take the listener of the seccomp filter");
    let mut space = cmsg_space!([RawFd; 1]);
    let (mut byte, flags) = ([0_u8; 1], MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT);
    let mut slices = [IoSliceMut::new(&mut byte)];
    let message = match recvmsg::<()>(way.as_raw_fd(), &mut slices, Some(&mut space), flags) {
        Ok(message) => message,
        Err(e) => return Err(failed(e)),
    };
    let mut fds = Vec::new();
    for control in message.cmsgs().map_err(LaunchError::errno("take the listener of the seccomp filter"))? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            fds.extend(raw);
        }
    }
    match fds.as_slice() {
        [fd] => sys::owned(libc::c_long::from(*fd)).map_err(LaunchError::io("take the listener of the seccomp filter")),
        _ => Err(LaunchError::Other("no listener of the seccomp filter came".into())),
    }
}
