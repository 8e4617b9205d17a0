//! The frame on fd 3: bytes by `boltseal-message`, fds by SCM_RIGHTS beside its first byte.
use crate::sys;
use anyhow::{Context, bail, ensure};
use boltseal_message::{FrameHeader, HEADER_LEN, MAX_FRAME, Reply, Request};
use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// Most fds that one frame may carry.
const MAX_FDS: usize = 8;

/// Where the answer goes, and the version that who waits for it speaks.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: File,
    pub(crate) version: u16,
}

/// Reads the one request of this run.
pub(crate) fn receive() -> anyhow::Result<(Channel, Request, Vec<OwnedFd>)> {
    let channel = File::from(sys::take_channel());
    nix::fcntl::fcntl(&channel, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    let mut header = [0_u8; HEADER_LEN];
    let (read, fds) = receive_first(channel.as_fd(), &mut header)?;
    let mut reader = &channel;
    let rest = header.get_mut(read..).context("header")?;
    reader.read_exact(rest).context("the header is cut")?;
    let FrameHeader { version, body_len: length, .. } =
        FrameHeader::parse(&header).map_err(|e| anyhow::anyhow!("{e:?}"))?;
    ensure!(length <= MAX_FRAME, "a frame of {length} bytes is over the limit of {MAX_FRAME}");
    let mut frame = Vec::with_capacity(HEADER_LEN + length);
    frame.extend_from_slice(&header);
    (&mut reader).take(length as u64).read_to_end(&mut frame)?;
    ensure!(frame.len() == HEADER_LEN + length, "the frame is cut");
    let request = Request::decode(&frame).map_err(|e| anyhow::anyhow!("{e:?}"))?;
    Ok((Channel { socket: channel, version }, request, fds))
}

fn receive_first(channel: BorrowedFd<'_>, header: &mut [u8]) -> anyhow::Result<(usize, Vec<OwnedFd>)> {
    let mut space = cmsg_space!([RawFd; MAX_FDS]);
    let mut slices = [IoSliceMut::new(header)];
    let message = recvmsg::<()>(channel.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = control {
            fds.extend(received.into_iter().map(sys::own));
        }
    }
    ensure!(!message.flags.contains(MsgFlags::MSG_CTRUNC), "more than {MAX_FDS} fds came with the request");
    if message.bytes == 0 {
        bail!("the shim closed the channel without a request");
    }
    Ok((message.bytes, fds))
}

/// Sends the answer with its fds.
pub(crate) fn send(channel: &mut Channel, reply: &Reply, fds: &[OwnedFd]) -> anyhow::Result<()> {
    let bytes = reply.encode_as(channel.version);
    let channel = &mut channel.socket;
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let control = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &control[..0] } else { &control[..] };
    let sent = sendmsg::<()>(channel.as_raw_fd(), &[IoSlice::new(&bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?;
    channel.write_all(bytes.get(sent..).context("sent more than there was")?)?;
    Ok(())
}
