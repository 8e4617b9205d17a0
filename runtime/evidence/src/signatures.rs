//! Signature files of one image: found by the manifest's digest, named by their own content.
use crate::file::{Folder, Owner, Problem, sha256};
use std::path::{Path, PathBuf};

/// Most files that are looked at.
pub const MAX_FILES: usize = 16;
/// Bytes of the largest signature.
pub const MAX_FILE: u64 = 64 << 10;
/// Bytes of the largest file that may be an attestation.
pub const MAX_ATTESTATION: u64 = 1 << 20;
/// Bytes of all of an image's together; what does not fit is skipped, and smaller ones behind it are not.
pub const MAX_TOTAL: u64 = 4 << 20;
/// Ends of the names of files that a verifier knows.
const ENDS: [&str; 5] = [".sig.json", ".bundle.json", ".dsse.json", ".notation.jws", ".notation.cose"];
/// Most names that a folder may hold at all.
const MAX_NAMES: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureFile {
    /// sha256 of the content, hex, then `.sig.json` (cosign 2), `.bundle.json` (Sigstore bundle), `.notation.jws` or
    /// `.notation.cose`.
    pub name: String,
    pub bytes: Vec<u8>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signatures {
    pub files: Vec<SignatureFile>,
    /// Why each of the others was not read, for the message.
    pub skipped: Vec<String>,
    /// The folder, for the message.
    pub looked_in: PathBuf,
}

/// Reads the files in `<root>/sha256/<hex>/` for `digest` (`sha256:<hex>`). No folder is no file, not an error.
/// A file counts when it is regular, no link, root's, small, and named by the sha256 of its content.
///
/// # Errors
/// A digest of another form, or a folder that cannot be read or that others may write to.
pub fn files(root: &Path, digest: &str) -> Result<Signatures, Problem> {
    let hex = digest.strip_prefix("sha256:").filter(|hex| is_sha256(hex));
    let hex =
        hex.ok_or_else(|| Problem::new(root, format!("cannot hold signatures of {digest:?}"), "name a sha256 digest"))?;
    let looked_in = root.join("sha256").join(hex);
    let folder = match Folder::open(&looked_in, Owner::Root) {
        Err(problem) if problem.missing => return Ok(Signatures { looked_in, ..Signatures::default() }),
        other => other?,
    };
    let mut found = Signatures { looked_in, ..Signatures::default() };
    let mut left = MAX_TOTAL;
    for name in folder.names(MAX_NAMES)? {
        let skip = if found.files.len() == MAX_FILES {
            Some(format!("there are {MAX_FILES} before it"))
        } else if !stem(&name).is_some_and(is_sha256) {
            Some(format!("its name is not a sha256 with one of {}", ENDS.join(", ")))
        } else {
            match folder.read(&name, largest(&name).min(left), Owner::Root) {
                Ok((bytes, _)) if stem(&name) == Some(&sha256(&bytes)) => {
                    left = left.saturating_sub(bytes.len() as u64);
                    found.files.push(SignatureFile { name: name.clone(), bytes });
                    None
                }
                Ok(_) => Some("its name is not the sha256 of its content".to_owned()),
                Err(problem) => Some(problem.fact),
            }
        };
        if let Some(why) = skip {
            found.skipped.push(format!("{}: {why}", short(&name)));
        }
    }
    Ok(found)
}

fn largest(name: &str) -> u64 {
    if name.ends_with(".bundle.json") || name.ends_with(".dsse.json") { MAX_ATTESTATION } else { MAX_FILE }
}

/// The first digits of a name that is a digest, and its end: a finding has no room for all of it beside the reason.
fn short(name: &str) -> String {
    match stem(name).filter(|stem| is_sha256(stem)).and_then(|stem| Some((stem.get(..12)?, name.get(stem.len()..)?))) {
        Some((digits, end)) => format!("{digits}..{end}"),
        None => name.to_owned(),
    }
}

/// The name without the end that tells the format.
fn stem(name: &str) -> Option<&str> {
    ENDS.iter().find_map(|end| name.strip_suffix(end))
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn store() -> (tempfile::TempDir, String, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let hex = "ab".repeat(32);
        let folder = dir.path().join("sha256").join(&hex);
        fs::create_dir_all(&folder).unwrap();
        (dir, format!("sha256:{hex}"), folder)
    }

    #[test]
    fn reads_what_is_named_by_its_content() {
        let (dir, digest, folder) = store();
        let named = |bytes: &[u8]| format!("{}.sig.json", sha256(bytes));
        fs::write(folder.join(named(b"one")), "one").unwrap();
        fs::write(folder.join(named(b"two")), "changed").unwrap();
        fs::write(folder.join("README"), "x").unwrap();
        std::os::unix::fs::symlink(sha256(b"one"), folder.join(format!("{}.sig.json", "cd".repeat(32)))).unwrap();
        let big = vec![0; (64 << 10) + 1];
        fs::write(folder.join(named(&big)), &big).unwrap();
        let found = files(dir.path(), &digest).unwrap();
        assert_eq!(found.files, [SignatureFile { name: named(b"one"), bytes: b"one".to_vec() }]);
        assert_eq!(found.skipped.len(), 4, "{:?}", found.skipped);
        assert_eq!(found.looked_in, folder);
        let reasons = [
            "README: its name is not",
            "cdcdcdcdcdcd...sig.json: is a symbolic link",
            "...sig.json: its name is not the sha256",
            "...sig.json: ",
        ];
        for reason in reasons {
            assert!(found.skipped.iter().any(|line| line.contains(reason)), "{reason}: {:?}", found.skipped);
        }
    }

    #[test]
    fn no_folder_is_no_signature() {
        let (dir, _, _) = store();
        let found = files(dir.path(), &format!("sha256:{}", "00".repeat(32))).unwrap();
        assert!(found.files.is_empty() && found.skipped.is_empty());
    }

    #[test]
    fn attestations_may_be_large_and_all_together_not() {
        let (dir, digest, folder) = store();
        let put = |byte: u8, size: usize, end: &str| {
            let bytes = vec![byte; size];
            fs::write(folder.join(format!("{}{end}", sha256(&bytes))), bytes).unwrap();
        };
        put(1, 1 << 20, ".bundle.json");
        put(2, (1 << 20) + 1, ".bundle.json");
        put(3, 1 << 20, ".sig.json");
        let found = files(dir.path(), &digest).unwrap();
        assert_eq!((found.files.len(), found.skipped.len()), (1, 2), "{:?}", found.skipped);
        for byte in 4..8 {
            put(byte, 1 << 20, ".dsse.json");
        }
        put(8, 10, ".sig.json");
        let found = files(dir.path(), &digest).unwrap();
        let total: usize = found.files.iter().map(|file| file.bytes.len()).sum();
        assert!(total <= 4 << 20 && found.files.len() >= 4, "{total}");
    }

    #[test]
    fn at_most_sixteen() {
        let (dir, digest, folder) = store();
        for n in 0..20_u8 {
            fs::write(folder.join(format!("{}.bundle.json", sha256(&[n]))), [n]).unwrap();
        }
        let found = files(dir.path(), &digest).unwrap();
        assert_eq!((found.files.len(), found.skipped.len()), (16, 4));
    }

    #[test]
    fn digests_are_not_paths() {
        let (dir, _, _) = store();
        for bad in ["sha256:../../etc", "md5:00", "", &format!("sha256:{}", "AB".repeat(32))] {
            assert!(files(dir.path(), bad).is_err(), "{bad}");
        }
    }
}
