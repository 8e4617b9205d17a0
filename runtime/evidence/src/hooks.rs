//! Hooks: what each file holds, in a copy of our own. The digest is of the copy, and the copy is what runs, so that a file
//! that changes after it was judged changes nothing.
use crate::file::{Folder, Owner, Problem, sha256};
use boltseal_policy::facts::{Fact, Hook};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// More hooks than that are not looked at.
const MAX_HOOKS: usize = 16;
/// Bytes of all hooks of one request.
const MAX_BYTES: u64 = 64 << 20;
/// Says that the copy is to be executed (memfd_create(2), since Linux 6.3; a kernel without it needs no word).
const MFD_EXEC: u32 = 0x10;

/// Reads each hook's file into memory that nobody can change any more. Fills `digest` (`sha256:<hex>`) and `copy`; a file
/// that is not root's, a link, missing, or beyond 16 hooks or 64 MiB in all is Unknown and has no copy. The copies last as
/// long as what is returned, in this process.
#[must_use]
pub fn read(hooks: &mut [Hook]) -> Vec<OwnedFd> {
    let (mut copies, mut room) = (Vec::new(), MAX_BYTES);
    for (index, hook) in hooks.iter_mut().enumerate() {
        let copied = if index < MAX_HOOKS {
            bytes(Path::new(&hook.path), room).map_err(|problem| problem.to_string())
        } else {
            Err(format!("it is one of more than {MAX_HOOKS} hooks"))
        };
        let copied = copied.and_then(|bytes| copy(&bytes).map(|fd| (bytes, fd)));
        match copied {
            Ok((bytes, fd)) => {
                room = room.saturating_sub(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
                hook.digest = Fact::Is(format!("sha256:{}", sha256(&bytes)));
                // By our pid: libcontainer also runs hooks in processes of which `self` would be another.
                hook.copy = format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
                copies.push(fd);
            }
            Err(why) => (hook.digest, hook.copy) = (Fact::Unknown(why), String::new()),
        }
    }
    copies
}

fn bytes(path: &Path, room: u64) -> Result<Vec<u8>, Problem> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let folder = Folder::open(path.parent().unwrap_or(path), Owner::Root)?;
    folder.read(name, room, Owner::Root).map(|(bytes, _)| bytes)
}

fn copy(bytes: &[u8]) -> Result<OwnedFd, String> {
    let failed = |e: &dyn std::fmt::Display| format!("it cannot be copied: {e}");
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let made = match memfd_create(c"hook", flags | MFdFlags::from_bits_retain(MFD_EXEC)) {
        Err(nix::Error::EINVAL) => memfd_create(c"hook", flags),
        other => other,
    };
    let mut file = File::from(made.map_err(|e| failed(&e))?);
    file.write_all(bytes).map_err(|e| failed(&e))?;
    let all = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(all)).map_err(|e| failed(&e))?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::Command;

    fn hook(path: &Path) -> Hook {
        Hook {
            stage: "prestart".into(),
            path: path.to_str().unwrap().into(),
            args: vec![],
            env: vec![],
            digest: Fact::default(),
            copy: String::new(),
        }
    }

    #[test]
    fn the_copy_is_what_was_hashed_whatever_becomes_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("h");
        let good = "#!/bin/sh\nexit 7\n";
        fs::write(&path, good).unwrap();
        let mut hooks = [hook(&path), hook(&dir.path().join("none"))];
        let copies = read(&mut hooks);
        fs::write(&path, "#!/bin/sh\nexit 8\n").unwrap();
        assert_eq!(hooks[0].digest, Fact::Is(format!("sha256:{}", sha256(good.as_bytes()))));
        assert_eq!(fs::read_to_string(&hooks[0].copy).unwrap(), good);
        assert_eq!(Command::new(&hooks[0].copy).status().unwrap().code(), Some(7));
        assert!(fs::write(&hooks[0].copy, "x").is_err());
        // Neither other bytes in their place, nor more, nor less; and nobody takes a seal off.
        let mut open = File::options().write(true).open(&hooks[0].copy).unwrap();
        assert!(open.write_all(b"x").is_err());
        let length = u64::try_from(good.len()).unwrap();
        assert!(open.set_len(length + 1).is_err() && open.set_len(length - 1).is_err());
        assert!(fcntl(&open, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_GROW)).is_err());
        assert!(matches!(hooks[1].digest, Fact::Unknown(_)));
        assert_eq!((hooks[1].copy.as_str(), copies.len()), ("", 1));
    }

    #[test]
    fn hooks_are_bounded_in_number_and_size() {
        let dir = tempfile::tempdir().unwrap();
        let (small, big) = (dir.path().join("small"), dir.path().join("big"));
        fs::write(&small, "x").unwrap();
        File::create(&big).unwrap().set_len(MAX_BYTES).unwrap();
        let mut hooks = vec![hook(&small); MAX_HOOKS + 1];
        assert_eq!(read(&mut hooks).len(), MAX_HOOKS);
        assert!(matches!(&hooks[MAX_HOOKS].digest, Fact::Unknown(why) if why.contains("16 hooks")));
        let mut hooks = [hook(&small), hook(&big), hook(&small)];
        assert_eq!(read(&mut hooks).len(), 2);
        assert!(matches!(hooks[1].digest, Fact::Unknown(_)));
    }
}
