//! Where a launch keeps its files, and the record that lets a later run find what an earlier one made.
use crate::error::LaunchError;
use crate::rootfs::Resolved;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// `<state>/launch/`: everything that this crate makes on disk; delete removes it whole.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) top: PathBuf,
}

impl Layout {
    pub(crate) fn new(state: &Path) -> Self {
        Self { top: state.join("launch") }
    }

    /// The bundle that libcontainer reads: our own, never containerd's.
    pub(crate) fn bundle(&self) -> PathBuf {
        self.top.join("bundle")
    }

    /// An empty folder on the host; the container's root is mounted on it in the gate's mount namespace only.
    pub(crate) fn rootfs(&self) -> PathBuf {
        self.bundle().join("rootfs")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.bundle().join("config.json")
    }

    /// libcontainer's own state.
    pub(crate) fn libcontainer(&self) -> PathBuf {
        self.top.join("lc")
    }

    /// The tmpfs with the empty upper and work folders, in the gate's mount namespace only.
    pub(crate) fn upper(&self) -> PathBuf {
        self.top.join("upper")
    }

    pub(crate) fn pid_file(&self) -> PathBuf {
        self.top.join("pid")
    }

    pub(crate) fn record(&self) -> PathBuf {
        self.top.join("record.json")
    }
}

/// What a later exec, update or delete must know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) version: u32,
    pub(crate) id: String,
    /// `linux.cgroupsPath` of the sealed spec.
    pub(crate) cgroup_path: String,
    /// 0 until init is there.
    pub(crate) pid: u32,
    pub(crate) start_time: u64,
    pub(crate) mounts: Vec<Resolved>,
    pub(crate) console: bool,
    pub(crate) user_namespace: bool,
    /// Device nodes of the host that libcontainer binds there; one of a version before has none, and no exec either.
    #[serde(default)]
    pub(crate) bound_devices: Vec<String>,
    /// Names of the devices of its layers.
    #[serde(default)]
    pub(crate) sealed: Vec<String>,
}

pub(crate) const RECORD_VERSION: u32 = 1;

impl Record {
    /// Replaces the record in one step.
    pub(crate) fn save(&self, layout: &Layout) -> Result<(), LaunchError> {
        let json =
            serde_json::to_vec(self).map_err(|e| LaunchError::Other(format!("cannot write the launch record: {e}")))?;
        let fresh = layout.top.join("record.new");
        write_private(&fresh, &json)?;
        std::fs::rename(&fresh, layout.record()).map_err(LaunchError::io("write the launch record"))
    }

    /// None when there is none: nothing was launched, or it is gone.
    pub(crate) fn load(layout: &Layout) -> Result<Option<Self>, LaunchError> {
        let Some(bytes) = read_private(&layout.record()).map_err(LaunchError::io("read the launch record"))? else {
            return Ok(None);
        };
        let record: Self = serde_json::from_slice(&bytes)
            .map_err(|e| LaunchError::Other(format!("the launch record is damaged: {e}")))?;
        if record.version != RECORD_VERSION {
            return Err(LaunchError::Unsupported(format!(
                "launch record of version {}, this is {RECORD_VERSION}",
                record.version
            )));
        }
        Ok(Some(record))
    }
}

/// Largest file that is read back, bytes.
const MAX_FILE: u64 = 16 << 20;

/// The bytes of a plain file; None when there is none. Nothing that lies in its place is followed or waited for.
pub(crate) fn read_private(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut options = std::fs::OpenOptions::new();
    let file = match options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other(format!("{} is no plain file", path.display())));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// A new file of mode 0600, or the old one emptied.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), LaunchError> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let write = || options.open(path)?.write_all(bytes);
    write().map_err(LaunchError::io(format_args!("write {}", path.display())))
}
