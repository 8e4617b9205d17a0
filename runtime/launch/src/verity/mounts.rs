//! The file systems of sealed layers, mounted nowhere: made once, before a start is decided, so that what is looked at then is what
//! the launch puts below the container's root.
use super::{SealedLayer, device, fs, locked};
use crate::error::LaunchError;
use crate::sys as calls;
use std::fmt::Display;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

/// A layer's device and its file system, which no mount namespace has yet. Both go with whoever holds them last.
#[derive(Debug)]
pub struct SealedMount {
    layer: SealedLayer,
    device: OwnedFd,
    root: OwnedFd,
}

impl SealedMount {
    #[must_use]
    pub fn layer(&self) -> &SealedLayer {
        &self.layer
    }

    /// Open for reading: another mount of the same is made from it.
    #[must_use]
    pub fn device(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    /// The folder that is the layer.
    #[must_use]
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// Sets each layer up. In the order given.
///
/// # Errors
/// Which one cannot be, and why; nothing is left then.
pub fn set_up(layers: &[SealedLayer], deadline: Instant) -> Result<Vec<SealedMount>, LaunchError> {
    let failed = |layer: &SealedLayer, e: &dyn Display| {
        LaunchError::Other(format!("sealed layer {} cannot be mounted: {e}", layer.short()))
    };
    let devices = {
        let (control, _lock) = locked(Some(deadline.saturating_duration_since(Instant::now())))?;
        let one = |layer: &SealedLayer| device(&control, layer).map_err(|e| failed(layer, &e));
        layers.iter().map(one).collect::<Result<Vec<_>, _>>()?
    };
    let one = |(layer, device): (&SealedLayer, OwnedFd)| {
        let root = fs::erofs(device.as_fd()).map_err(|e| failed(layer, &e))?;
        Ok(SealedMount { layer: layer.clone(), device, root })
    };
    layers.iter().zip(devices).map(one).collect()
}

/// Puts each below `at`, in the mount namespace of this process, and opens its root there: an overlay takes no folder that is
/// mounted nowhere. In the order given.
pub(crate) fn attached(layers: &[SealedMount], at: &Path) -> Result<Vec<OwnedFd>, LaunchError> {
    let one = |(index, mount): (usize, &SealedMount)| {
        let point = at.join(format!("layer-{index}"));
        let failed = |e| LaunchError::io(format_args!("put the sealed layer {} in place", mount.layer.short()))(e);
        let open = || calls::open_path(&point, libc::O_DIRECTORY | libc::O_NOFOLLOW);
        std::fs::create_dir(&point)
            .and_then(|()| open())
            .map_err(failed)
            .and_then(|onto| calls::move_mount(mount.root(), onto.as_fd()).and_then(|()| open()).map_err(failed))
    };
    layers.iter().enumerate().map(one).collect()
}
