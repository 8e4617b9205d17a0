//! The lowest policy version that this node still takes, for a start: from a note of this boot, else from the TPM.
//!
//! The note `/run/boltseal/floor` spares the TPM a command per start. It is as good as the folder: root's alone, on a tmpfs.
//! Who is root after the boot could write another; who puts back an older bundle on the disk could not.
use crate::folder::Folder;
use crate::{Boot, Error, nv};
use nix::fcntl::OFlag;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Instant;

const NOTE: &str = "floor";
const MAX_NOTE: u64 = 512;

/// Where a node keeps the floor.
#[derive(Debug, Clone, Copy)]
pub struct Floor<'a> {
    /// Root's own folder of mode 0700 on a tmpfs (`/run/boltseal`).
    pub dir: &'a Path,
    /// `/dev/tpmrm0`, or `unix:/absolute/path` of a software TPM.
    pub tpm: &'a str,
    /// Where the counter stood for version 0.
    pub base: u64,
    /// What pinned the base: a note for another pin does not count.
    pub pin: &'a str,
}

impl Floor<'_> {
    /// The lowest version that is still taken.
    ///
    /// # Errors
    /// No note and no TPM, or one without our counter; a note that boltseal did not write.
    pub fn read(&self, boot: &Boot, deadline: Instant) -> Result<u64, Error> {
        if let Some(count) = self.noted(boot)? {
            return self.version(count);
        }
        // Under the lock, and looked at again: a note must not go back behind one that `raise` wrote meanwhile.
        let _lock = Folder::open(self.dir)?.lock(deadline)?;
        if let Some(count) = self.noted(boot)? {
            return self.version(count);
        }
        let count = nv::read(self.tpm, deadline)?.ok_or_else(nv::lost)?;
        let version = self.version(count)?;
        self.note(boot, count)?;
        Ok(version)
    }

    /// Makes `version` the lowest that is taken, unless a higher one is already; says which is.
    ///
    /// # Errors
    /// As [`Floor::read`], and as [`nv::raise`].
    pub fn raise(&self, version: u64, boot: &Boot, deadline: Instant) -> Result<u64, Error> {
        let _lock = Folder::open(self.dir)?.lock(deadline)?;
        let count = nv::raise(self.tpm, self.base.saturating_add(version), deadline)?;
        self.note(boot, count)?;
        self.version(count)
    }

    fn version(&self, count: u64) -> Result<u64, Error> {
        count.checked_sub(self.base).ok_or_else(|| {
            Error::refused(
                "the TPM's counter stands below where it was when the policy's key was pinned: it is another TPM",
            )
        })
    }

    fn noted(&self, boot: &Boot) -> Result<Option<u64>, Error> {
        Folder::open(self.dir)?;
        let path = self.dir.join(NOTE);
        let shown = path.display();
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = match OpenOptions::new().read(true).custom_flags(flags.bits()).open(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|e| Error::io(shown.to_string(), e))?,
        };
        let meta = file.metadata().map_err(|e| Error::io(shown.to_string(), e))?;
        if !meta.is_file() || meta.uid() != 0 || meta.mode() & 0o077 != 0 {
            return Err(Error::refused(format!(
                "{shown} is not a file of root's alone. Fix: find out who made it, then remove it"
            )));
        }
        let mut text = String::new();
        if file.take(MAX_NOTE).read_to_string(&mut text).is_err() {
            return Ok(None);
        }
        // What does not read is asked again.
        let count = text.strip_prefix(&self.head(boot)).and_then(|rest| rest.strip_suffix('\n')?.parse().ok());
        Ok(count.filter(|count| self.spelled(boot, *count) == text))
    }

    fn note(&self, boot: &Boot, count: u64) -> Result<(), Error> {
        let (path, next) = (self.dir.join(NOTE), self.dir.join(format!("{NOTE}.{}", std::process::id())));
        let failed = |e: std::io::Error| Error::io(path.display().to_string(), e);
        match std::fs::remove_file(&next) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&next).map_err(failed)?;
        file.write_all(self.spelled(boot, count).as_bytes()).map_err(failed)?;
        std::fs::rename(&next, &path).map_err(failed)
    }

    fn head(&self, boot: &Boot) -> String {
        format!("boltseal-floor 1\nboot {}\npin {}\ncount ", boot.boot_id, self.pin)
    }

    fn spelled(&self, boot: &Boot, count: u64) -> String {
        format!("{}{count}\n", self.head(boot))
    }
}
