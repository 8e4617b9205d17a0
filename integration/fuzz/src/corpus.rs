//! The seeds of each target and the place of what was found.
use crate::targets::Target;
use std::io;
use std::path::{Path, PathBuf};

/// `integration/fuzz/corpus/`.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// `target/fuzz/`: inputs that failed, and the one in work.
pub(crate) fn found() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/fuzz")
}

/// Seeds of a target, by name. A target without seeds is an error: it would test nothing.
pub(crate) fn load(target: &Target) -> io::Result<Vec<(String, Vec<u8>)>> {
    let folder = root().join(target.name);
    let told = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", folder.display()));
    let mut seeds = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(told)? {
        let entry = entry?;
        seeds.push((entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path())?));
    }
    seeds.sort();
    if seeds.is_empty() {
        return Err(told(io::Error::other("no seeds")));
    }
    Ok(seeds)
}

/// Keeps an input that failed.
pub(crate) fn keep(target: &Target, input: &[u8]) -> io::Result<PathBuf> {
    let folder = found().join("crashes").join(target.name);
    std::fs::create_dir_all(&folder)?;
    let path = folder.join(&boltseal_trust::digest(input).hex()[..16]);
    std::fs::write(&path, input)?;
    Ok(path)
}
