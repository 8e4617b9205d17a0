//! The container's own folder below /run/boltseal: `<address hash>/<namespace>/<id>/`, root-only.
//!
//! `container.json` is the record that later requests are bounded by; `table.json` and `image.json` hold what the
//! container was sealed to. Each is written whole and renamed into place, so a reader sees all of it or none. `lock` is
//! held by the one run that makes or clears the folder; see `claim`.
use crate::refuse::{Refused, Result};
use boltseal_evidence::record::{self, ContainerRecord};
use boltseal_message::{Code, Request};
use boltseal_policy::facts::Image;
use boltseal_seal::Table;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes of the largest file that is read back.
const MAX_FILE: u64 = 4 << 20;

/// Where this request's container lives, its names checked.
pub(crate) fn folder(request: &Request) -> Result<PathBuf> {
    check_name("container id", &request.id)?;
    check_name("containerd namespace", &request.namespace)?;
    Ok(record::state_root(&request.address).join(&request.namespace).join(&request.id))
}

/// Makes /run/boltseal, root's alone, when this boot has none yet.
pub(crate) fn run_folder() -> std::result::Result<(), String> {
    match DirBuilder::new().mode(0o700).create(crate::paths::RUN) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(format!("{} cannot be made: {e}", crate::paths::RUN))
        }
        _ => Ok(()),
    }
}

/// containerd's own identifier syntax (pkg/identifiers), which also keeps a name inside its folder.
pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    let rest = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if first && rest && name.len() <= 128 {
        return Ok(());
    }
    Err(Refused::malformed(format!("the {what} {name:?} is not an identifier of containerd")))
}

/// Writes what later requests are bounded by.
pub(crate) fn save(folder: &Path, record: &ContainerRecord, table: &Table, image: &Image) -> Result<()> {
    write(folder, "table.json", table)?;
    write(folder, "image.json", image)?;
    write(folder, "container.json", record)
}

pub(crate) fn table(folder: &Path) -> Result<Table> {
    read(folder, "table.json")
}

pub(crate) fn image(folder: &Path) -> Result<Image> {
    read(folder, "image.json")
}

fn write<T: serde::Serialize>(folder: &Path, name: &str, value: &T) -> Result<()> {
    let failed = |e: String| Refused::internal(format!("{} cannot be written: {e}", folder.join(name).display()));
    let bytes = serde_json::to_vec(value).map_err(|e| failed(e.to_string()))?;
    let temporary = folder.join(format!("{name}.new"));
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(&bytes))
        .and_then(|()| std::fs::rename(&temporary, folder.join(name)));
    written.map_err(|e| failed(e.to_string()))
}

fn read<T: serde::de::DeserializeOwned>(folder: &Path, name: &str) -> Result<T> {
    let path = folder.join(name);
    let failed = |e: String| {
        Refused::because(
            Code::FailedPrecondition,
            format!("the container's own record {} is unusable: {e}", path.display()),
        )
    };
    let mut bytes = Vec::new();
    File::open(&path)
        .and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes))
        .map_err(|e| failed(e.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|e| failed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_folder() {
        for good in ["c1", "a.b_c-d", "0"] {
            assert!(check_name("id", good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "../x", "-a", "a b", "a\0", &"a".repeat(129)] {
            assert!(check_name("id", bad).is_err(), "{bad:?}");
        }
    }
}
