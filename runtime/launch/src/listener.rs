//! What the inside tells the gate when it is ready: how long its inspection took, and the listener of the base filter's
//! trip-wire, which is made when the filter is installed and on its way to the shim.
use crate::error::LaunchError;
use crate::seccomp::Trap;
use crate::sys;
use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// Who holds it is asked about every call in `traps`, by every process under the filter. When its last copy is closed,
/// the kernel answers ENOSYS.
#[derive(Debug)]
pub struct Listener {
    pub fd: OwnedFd,
    pub traps: Vec<Trap>,
}

/// After the inside said that it is ready, so it has been sent: how long its inspection took, and the listener of a filter
/// with traps.
pub(crate) fn taken(way: &OwnedFd, traps: Vec<Trap>) -> Result<(Duration, Option<Listener>), LaunchError> {
    let (inspection, fd) = take(way)?;
    match (traps.is_empty(), fd) {
        (true, None) => Ok((inspection, None)),
        (false, Some(fd)) => Ok((inspection, Some(Listener { fd, traps }))),
        (true, Some(_)) => Err(LaunchError::Other("a listener came of a seccomp filter without traps".into())),
        (false, None) => Err(LaunchError::Other("no listener of the seccomp filter came".into())),
    }
}

/// The way out: (the gate's end, the inside's end).
pub(crate) fn way_out() -> Result<(OwnedFd, OwnedFd), LaunchError> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .map_err(LaunchError::errno("make the socket of the listener"))
}

/// Inside: tells it, hands the listener out and keeps no copy.
pub(crate) fn hand_out(way: RawFd, inspection: Duration, listener: Option<OwnedFd>) -> Result<(), LaunchError> {
    let micros = u32::try_from(inspection.as_micros()).unwrap_or(u32::MAX).to_le_bytes();
    let fds: Vec<RawFd> = listener.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let rights = if fds.is_empty() { &[][..] } else { &rights[..] };
    sendmsg::<()>(way, &[IoSlice::new(&micros)], rights, MsgFlags::MSG_NOSIGNAL, None)
        .map(drop)
        .map_err(LaunchError::errno("tell the gate that the inside is ready"))
}

fn take(way: &OwnedFd) -> Result<(Duration, Option<OwnedFd>), LaunchError> {
    const WHAT: &str = "hear that the inside is ready";
    let mut space = cmsg_space!([RawFd; 1]);
    let (mut micros, flags) = ([0_u8; 4], MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT);
    let mut slices = [IoSliceMut::new(&mut micros)];
    let message =
        recvmsg::<()>(way.as_raw_fd(), &mut slices, Some(&mut space), flags).map_err(LaunchError::errno(WHAT))?;
    let (bytes, mut fds) = (message.bytes, Vec::new());
    for control in message.cmsgs().map_err(LaunchError::errno(WHAT))? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            fds.extend(raw);
        }
    }
    let fds: Result<Vec<_>, _> = fds.into_iter().map(|fd| sys::owned(libc::c_long::from(fd))).collect();
    let fd = fds.map_err(LaunchError::io(WHAT))?.pop();
    if bytes != micros.len() {
        return Err(LaunchError::Other("the inside has not said that it is ready".into()));
    }
    Ok((Duration::from_micros(u32::from_le_bytes(micros).into()), fd))
}
