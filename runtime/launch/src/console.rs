//! The terminal: libcontainer opens it in the container's own devpts and sends the master over a socket that we bind.
use crate::error::LaunchError;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub(crate) struct Console {
    listener: UnixListener,
    path: PathBuf,
}

impl Console {
    /// Binds `<dir>/console`; the path may be longer than a socket address.
    pub(crate) fn bind(dir: &Path) -> Result<Self, LaunchError> {
        let folder = std::fs::File::open(dir).map_err(LaunchError::io("open the launch folder"))?;
        let path = dir.join("console");
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(LaunchError::io("bind the console socket")(e));
            }
            _ => {}
        }
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/console", folder.as_raw_fd()))
            .map_err(LaunchError::io("bind the console socket"))?;
        listener.set_nonblocking(true).map_err(LaunchError::io("bind the console socket"))?;
        Ok(Self { listener, path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The master, which was sent before libcontainer came back.
    pub(crate) fn receive(self) -> Result<OwnedFd, LaunchError> {
        let (stream, _) = self.listener.accept().map_err(LaunchError::io("receive the console"))?;
        stream.set_nonblocking(true).map_err(LaunchError::io("receive the console"))?;
        let mut byte = [0_u8; 64];
        let mut space = nix::cmsg_space!([i32; 1]);
        let mut parts = [IoSliceMut::new(&mut byte)];
        let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)
            .map_err(LaunchError::errno("receive the console"))?;
        for control in message.cmsgs().map_err(LaunchError::errno("receive the console"))? {
            if let ControlMessageOwned::ScmRights(fds) = control
                && let Some(fd) = fds.first()
            {
                // SAFETY: the kernel just installed this descriptor for us; room was for one.
                return Ok(unsafe { OwnedFd::from_raw_fd(*fd) });
            }
        }
        Err(LaunchError::Other("libcontainer sent no console".into()))
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_file(&self.path) {
            tracing::debug!("console socket: {e}");
        }
    }
}
