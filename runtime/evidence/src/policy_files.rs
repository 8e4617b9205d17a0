//! The policy bundle as bytes: `policy.toml`, `policy.d/*.toml`, `trust/*`, and what tells whether it has changed since.
use crate::file::{Folder, Owner, Problem};
use boltseal_message::FileStamp;
use ring::digest;
use std::path::Path;

/// Bytes of the largest file.
pub const MAX_FILE: u64 = 1 << 20;
/// Most files in all.
pub const MAX_FILES: usize = 256;
/// The bundle's signature, beside `policy.toml`.
pub const SIGNATURE: &str = "bundle.sig";
/// Whom this node takes policies from: in `/var/lib/boltseal`, outside what is signed.
pub const SIGNER: &str = "signer";
const MAX_SIGNATURE: u64 = 4096;

/// File, fact and fix; see [`Problem`].
pub type PolicyError = Problem;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyBundle {
    /// Name below the bundle's folder (`policy.toml`, `policy.d/x.toml`, `trust/k.pem`), content; sorted by name.
    pub files: Vec<(String, Vec<u8>)>,
    /// sha256, hex, over each file in order: name, a zero byte, length (8 bytes, big endian), content.
    pub digest: String,
    /// Content of `bundle.sig`, which is none of the files above; None when there is none.
    pub signature: Option<Vec<u8>>,
    /// Every file, and the folders: the bundle's own, `policy.d`, `trust`.
    pub stamps: Vec<FileStamp>,
}

/// The file `signer` in `dir` (`/var/lib/boltseal`): its bytes, and its stamp. None when this node pins no key.
///
/// # Errors
/// A key that others than root may have put there.
pub fn pinned(dir: &Path) -> Result<Option<(Vec<u8>, FileStamp)>, PolicyError> {
    let found = Folder::open(dir, Owner::Root).and_then(|folder| folder.read(SIGNER, MAX_SIGNATURE, Owner::Root));
    match found {
        Err(problem) if problem.missing => Ok(None),
        other => other.map(Some),
    }
}

impl PolicyBundle {
    /// The policy's text files in the order that they apply: `policy.toml`, then `policy.d` by name.
    ///
    /// # Errors
    /// A file that is not UTF-8.
    pub fn policy_texts(&self) -> Result<Vec<(&str, &str)>, PolicyError> {
        let policies = self.files.iter().filter(|(name, _)| name == "policy.toml");
        let more = self.files.iter().filter(|(name, _)| name.starts_with("policy.d/"));
        policies
            .chain(more)
            .map(|(name, bytes)| {
                let text = std::str::from_utf8(bytes)
                    .map_err(|e| Problem::new(Path::new(name), format!("is not UTF-8: {e}"), "write it as UTF-8"))?;
                Ok((name.as_str(), text))
            })
            .collect()
    }

    /// Content of `trust/<name>`.
    #[must_use]
    pub fn trust(&self, name: &str) -> Option<&[u8]> {
        let wanted = name.strip_prefix("trust/").unwrap_or(name);
        let found = self.files.iter().find(|(file, _)| file.strip_prefix("trust/") == Some(wanted));
        found.map(|(_, bytes)| bytes.as_slice())
    }
}

/// Reads the bundle in `dir` (`/etc/boltseal`). All of it belongs to root and nobody else may write to any of it, the
/// folders above included; nothing is reached through a link. `policy.d` and `trust` may be missing.
///
/// # Errors
/// The first file or folder that is missing, is something else, may be written to by others, is too large, changed
/// while it was read, or would be silently left out (a file in `policy.d` that does not end in `.toml`).
pub fn load(dir: &Path) -> Result<PolicyBundle, PolicyError> {
    load_of(dir, Owner::Root)
}

/// The same from where it is written, off the node: whoever owns it.
///
/// # Errors
/// As [`load`], but for who may write to it.
pub fn load_of(dir: &Path, owner: Owner) -> Result<PolicyBundle, PolicyError> {
    let root = Folder::open(dir, owner).map_err(|mut problem| {
        if problem.missing && problem.file == dir {
            problem.fix = "install a policy: `boltseal policy lint` checks it".into();
        }
        problem
    })?;
    let mut stamps = vec![root.stamp()?];
    let mut files = Vec::new();
    let (bytes, stamp) = root.read("policy.toml", MAX_FILE, owner).map_err(|mut problem| {
        if problem.missing {
            problem.fix = "install a policy there; without one nothing starts".into();
        }
        problem
    })?;
    files.push(("policy.toml".to_owned(), bytes));
    stamps.push(stamp);
    for (name, suffix) in [("policy.d", ".toml"), ("trust", "")] {
        let folder = match root.folder(Path::new(name)) {
            Err(problem) if problem.missing => continue,
            other => other?,
        };
        folder.check(owner, false)?;
        stamps.push(folder.stamp()?);
        for file in folder.names(MAX_FILES)? {
            if !file.ends_with(suffix) || file.starts_with('.') {
                let fact = format!(
                    "is not a {} file, so it would have no effect",
                    if suffix.is_empty() { "visible" } else { suffix }
                );
                return Err(Problem::new(&folder.path.join(&file), fact, "rename or remove it"));
            }
            if files.len() == MAX_FILES {
                return Err(Problem::new(
                    dir,
                    format!("holds more than {MAX_FILES} files"),
                    "remove what is not needed",
                ));
            }
            let (bytes, stamp) = folder.read(&file, MAX_FILE, owner)?;
            files.push((format!("{name}/{file}"), bytes));
            stamps.push(stamp);
        }
    }
    files.sort();
    let digest = digest_of(&files);
    let signature = match root.read(SIGNATURE, MAX_SIGNATURE, owner) {
        Err(problem) if problem.missing => None,
        other => {
            let (bytes, stamp) = other?;
            stamps.push(stamp);
            Some(bytes)
        }
    };
    Ok(PolicyBundle { files, digest, signature, stamps })
}

fn digest_of(files: &[(String, Vec<u8>)]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for (name, bytes) in files {
        context.update(name.as_bytes());
        context.update(&[0]);
        context.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(bytes);
    }
    crate::file::hex(context.finish().as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn bundle() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("policy.toml"), "version = 1\n").unwrap();
        fs::create_dir(dir.path().join("policy.d")).unwrap();
        fs::write(dir.path().join("policy.d/b.toml"), "b").unwrap();
        fs::write(dir.path().join("policy.d/a.toml"), "a").unwrap();
        fs::create_dir(dir.path().join("trust")).unwrap();
        fs::write(dir.path().join("trust/ci.pem"), "key").unwrap();
        dir
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn reads_all_of_it_in_order() {
        let dir = bundle();
        let found = load(dir.path()).unwrap();
        let texts = found.policy_texts().unwrap();
        assert_eq!(texts, [("policy.toml", "version = 1\n"), ("policy.d/a.toml", "a"), ("policy.d/b.toml", "b")]);
        assert_eq!(found.trust("ci.pem"), Some(b"key".as_slice()));
        assert_eq!(found.trust("../policy.toml"), None);
        assert_eq!(found.stamps.len(), 7);
        assert_eq!(load(dir.path()).unwrap(), found);
    }

    #[test]
    fn any_change_shows_in_digest_and_stamps() {
        let dir = bundle();
        let before = load(dir.path()).unwrap();
        fs::write(dir.path().join("trust/ci.pem"), "yek").unwrap();
        let after = load(dir.path()).unwrap();
        assert_ne!(before.digest, after.digest);
        assert_ne!(before.stamps, after.stamps);
        fs::write(dir.path().join("policy.d/c.toml"), "").unwrap();
        assert_ne!(load(dir.path()).unwrap().stamps, after.stamps);
    }

    #[test]
    fn the_signature_is_beside_what_it_signs() {
        let dir = bundle();
        let before = load(dir.path()).unwrap();
        assert_eq!(before.signature, None);
        fs::write(dir.path().join(SIGNATURE), "x").unwrap();
        let after = load(dir.path()).unwrap();
        assert_eq!((after.signature.as_deref(), &after.digest), (Some(b"x".as_slice()), &before.digest));
        assert_eq!(after.stamps.len(), before.stamps.len() + 1);
        mode(&dir.path().join(SIGNATURE), 0o666);
        assert!(load(dir.path()).unwrap_err().file.ends_with(SIGNATURE));
    }

    #[test]
    fn a_pinned_key_is_roots() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(pinned(&dir.path().join("none")), Ok(None));
        assert_eq!(pinned(dir.path()), Ok(None));
        fs::write(dir.path().join(SIGNER), "key").unwrap();
        assert_eq!(pinned(dir.path()).unwrap().unwrap().0, b"key");
        mode(&dir.path().join(SIGNER), 0o622);
        assert!(pinned(dir.path()).is_err());
        mode(&dir.path().join(SIGNER), 0o644);
        mode(dir.path(), 0o777);
        assert!(pinned(dir.path()).is_err());
        mode(dir.path(), 0o755);
        fs::remove_file(dir.path().join(SIGNER)).unwrap();
        symlink("/dev/null", dir.path().join(SIGNER)).unwrap();
        assert!(pinned(dir.path()).is_err());
    }

    #[test]
    fn the_digest_does_not_run_names_and_bytes_together() {
        let files = |n: &str, b: &str| vec![(n.to_owned(), b.as_bytes().to_vec())];
        assert_ne!(digest_of(&files("a", "bc")), digest_of(&files("ab", "c")));
    }

    #[test]
    fn each_fault_names_its_file() {
        type Fault = fn(&Path);
        let cases: [(&str, Fault); 9] = [
            ("policy.toml", |d| fs::remove_file(d.join("policy.toml")).unwrap()),
            ("policy.toml", |d| mode(&d.join("policy.toml"), 0o646)),
            ("policy.d", |d| mode(&d.join("policy.d"), 0o775)),
            ("ci.pem", |d| mode(&d.join("trust/ci.pem"), 0o660)),
            ("trust", |d| std::os::unix::fs::chown(d.join("trust"), Some(7), None).unwrap()),
            ("link.toml", |d| symlink("a.toml", d.join("policy.d/link.toml")).unwrap()),
            ("note.txt", |d| fs::write(d.join("policy.d/note.txt"), "").unwrap()),
            ("policy.toml", |d| fs::write(d.join("policy.toml"), vec![b'#'; (1 << 20) + 1]).unwrap()),
            ("dir.toml", |d| fs::create_dir(d.join("policy.d/dir.toml")).unwrap()),
        ];
        for (file, fault) in cases {
            let dir = bundle();
            fault(dir.path());
            let problem = load(dir.path()).unwrap_err();
            assert!(problem.file.ends_with(file), "{problem}");
            assert!(!problem.fix.is_empty());
        }
    }

    #[test]
    fn the_folder_itself_and_those_above_count() {
        let dir = bundle();
        mode(dir.path(), 0o757);
        assert!(load(dir.path()).is_err());
        mode(dir.path(), 0o755);
        assert!(load(Path::new("/nonexistent/boltseal")).unwrap_err().missing);
    }

    #[test]
    fn too_many_files() {
        let dir = bundle();
        for n in 0..MAX_FILES {
            fs::write(dir.path().join(format!("policy.d/{n}.toml")), "").unwrap();
        }
        assert!(load(dir.path()).unwrap_err().fact.contains("256"));
    }
}
