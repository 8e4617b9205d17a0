//! Files and folders put in place in one step each, so that a reader sees the old one or the new one, whole.
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A file with these bytes and this mode, on disk when this returns.
pub(crate) fn put(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let next = folder.join(format!(".{name}.{}", std::process::id()));
    gone(fs::remove_file(&next))?;
    write(&next, bytes, mode)?;
    fs::rename(&next, path)?;
    sync(folder)
}

/// A folder that holds exactly these files (name below it, bytes), root's, in the place of the one at `path`. One rename:
/// at no time is there neither or half of one.
pub(crate) fn put_folder(path: &Path, files: &[(String, Vec<u8>)]) -> io::Result<()> {
    let next = staging(path);
    stage(&next, files)?;
    swap(&next, path)
}

/// Where the folder for `path` is made: beside it, for a rename stays on one file system.
pub(crate) fn staging(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.next"))
}

/// Makes the folder anew and puts it on disk.
pub(crate) fn stage(next: &Path, files: &[(String, Vec<u8>)]) -> io::Result<()> {
    gone(fs::remove_dir_all(next))?;
    let make = |path: &Path| DirBuilder::new().mode(0o755).create(path);
    make(next)?;
    let mut folders = vec![next.to_path_buf()];
    for (name, bytes) in files {
        let at = next.join(name);
        let folder = at.parent().unwrap_or(next);
        if !folders.iter().any(|made| made == folder) {
            make(folder)?;
            folders.push(folder.to_path_buf());
        }
        write(&at, bytes, 0o644)?;
    }
    folders.iter().try_for_each(|folder| sync(folder))
}

/// Puts the staged folder in the place of the old one, and takes the old one away.
pub(crate) fn swap(next: &Path, path: &Path) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    if path.symlink_metadata().is_ok() {
        renameat_with(CWD, next, CWD, path, RenameFlags::EXCHANGE)?;
        sync(parent)?;
        // From here on the new one is in force; what is left of the old one bothers nobody.
        return gone(fs::remove_dir_all(next));
    }
    fs::rename(next, path)?;
    sync(parent)
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    // Whatever the umask of who asks.
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn files(names: &[&str]) -> Vec<(String, Vec<u8>)> {
        names.iter().map(|name| ((*name).to_owned(), name.as_bytes().to_vec())).collect()
    }

    #[test]
    fn a_folder_takes_the_place_of_another_whole() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("boltseal");
        put_folder(&at, &files(&["policy.toml", "trust/a", "policy.d/x.toml"])).unwrap();
        fs::write(dir.path().join(".boltseal.next"), "in the way").unwrap_or_default();
        fs::remove_file(dir.path().join(".boltseal.next")).unwrap_or_default();
        // What a killed run left.
        fs::create_dir_all(dir.path().join(".boltseal.next/trust")).unwrap();
        put_folder(&at, &files(&["policy.toml", "trust/b"])).unwrap();
        assert_eq!(fs::read(at.join("trust/b")).unwrap(), b"trust/b");
        assert!(!at.join("trust/a").exists() && !at.join("policy.d").exists());
        assert!(!dir.path().join(".boltseal.next").exists());
        let mode = |name: &str| fs::metadata(at.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("."), mode("trust"), mode("trust/b")), (0o755, 0o755, 0o644));
    }

    #[test]
    fn a_file_takes_the_place_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("signer");
        put(&at, b"one", 0o644).unwrap();
        put(&at, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&at).unwrap(), b"two");
        assert_eq!(fs::metadata(&at).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
