//! The listed programs, as the container's own root has them: what Landlock's rules hang on is what a path leads to here, not its
//! name. Looked for by the container's user after the root is its own, so that no link leads out of it, and in the image's mount
//! alone: a volume over a listed path, or a link in one, would let a pod's author say what the list means.
use crate::error::LaunchError;
use crate::program::Program;
use crate::sys;
use boltseal_seal::programs::Entry;
use oci_spec::runtime::Process;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

#[derive(Debug)]
pub(crate) struct Programs(Vec<Listed>);

#[derive(Debug)]
struct Listed {
    fd: OwnedFd,
    at: Place,
}

#[derive(Debug)]
enum Place {
    /// (device, inode)
    File(u64, u64),
    Folder(PathBuf),
}

impl Programs {
    /// Opens what is listed. A path that is not there is a mistake that only its writer can mend, unless it says that it may be
    /// missing. What this user cannot even reach it cannot execute either.
    pub(crate) fn open(list: &[String]) -> Result<Self, LaunchError> {
        let mut out = Vec::new();
        for entry in list.iter().map(|text| Entry::of(text)) {
            match open(entry) {
                Ok(listed) => out.push(listed),
                Err(Missing::NotThere) if entry.optional => {}
                Err(Missing::NotThere) => {
                    return Err(wrong(entry, &format!("is not in the image; \"-{}\" may be missing", entry.path)));
                }
                Err(Missing::Unreachable) => {}
                Err(Missing::Wrong(why)) => return Err(wrong(entry, &why)),
            }
        }
        Ok(Self(out))
    }

    pub(crate) fn opened(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(|listed| listed.fd.as_fd())
    }

    /// Says at once that the process's own program is none of them: the kernel would say so of its execve, without a name. What
    /// cannot be found is told when it is to run, as without a list.
    pub(crate) fn name(&self, process: &Process) -> Result<(), LaunchError> {
        let Ok(program) = Program::find(process) else { return Ok(()) };
        let real = std::fs::canonicalize(program.path()).map_err(LaunchError::io("resolve the program"))?;
        let found = std::fs::metadata(&real).map_err(LaunchError::io("stat the program"))?;
        let covers = |listed: &Listed| match &listed.at {
            Place::File(dev, ino) => (*dev, *ino) == (found.dev(), found.ino()),
            Place::Folder(folder) => real.starts_with(folder),
        };
        if self.0.iter().any(covers) {
            return Ok(());
        }
        Err(LaunchError::Exec(format!(
            "{:?} leads to {:?}, which the scope's `programs` do not list (BS-PRC-005)",
            program.path(),
            real
        )))
    }
}

enum Missing {
    NotThere,
    Unreachable,
    Wrong(String),
}

fn open(entry: Entry<'_>) -> Result<Listed, Missing> {
    let fd = sys::open_in_root(entry.path, if entry.folder { libc::O_DIRECTORY } else { 0 }).map_err(|e| {
        match e.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => Missing::NotThere,
            Some(libc::EACCES) => Missing::Unreachable,
            Some(libc::EXDEV) => Missing::Wrong("leads into a volume; what is listed lies in the image".into()),
            _ => Missing::Wrong(format!("cannot be opened: {e}")),
        }
    })?;
    let said = |e: std::io::Error| Missing::Wrong(format!("cannot be looked at: {e}"));
    let stat = sys::fstat(fd.as_raw_fd()).map_err(said)?;
    let at = match (stat.st_mode & libc::S_IFMT, entry.folder) {
        (libc::S_IFDIR, true) => Place::Folder(std::fs::canonicalize(entry.path).map_err(said)?),
        // Each name of it has an inode of its own in an overlay, made anew when memory is short: the rule would be lost.
        (libc::S_IFREG, false) if stat.st_nlink > 1 => {
            return Err(Missing::Wrong(format!(
                "is one of {} hard links, on which no rule lasts; list its folder, with a slash at its end",
                stat.st_nlink
            )));
        }
        (libc::S_IFREG, false) => Place::File(stat.st_dev, stat.st_ino),
        (libc::S_IFDIR, false) => {
            return Err(Missing::Wrong("is a folder; with a slash at its end all below it may run".into()));
        }
        _ => return Err(Missing::Wrong("is no regular file".into())),
    };
    Ok(Listed { fd, at })
}

fn wrong(entry: Entry<'_>, why: &str) -> LaunchError {
    LaunchError::Unsupported(format!("the scope's `programs` (BS-PRC-005): {:?} {why}", entry.path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::ProcessBuilder;

    fn programs(list: &[&str]) -> Result<Programs, String> {
        let list: Vec<String> = list.iter().map(ToString::to_string).collect();
        Programs::open(&list).map_err(|e| e.to_string())
    }

    fn named(list: &[&str], program: &str) -> Result<(), String> {
        let process = ProcessBuilder::default().args(vec![program.to_owned()]).build().unwrap();
        programs(list)?.name(&process).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_not_there_is_told_unless_it_may_be_missing() {
        for (list, expected) in [
            (&["/no/such"][..], "\"/no/such\" is not in the image; \"-/no/such\" may be missing"),
            (&["/bin/sh", "/bin/sh/x"], "is not in the image"),
            (&["/etc/passwd/"], "is not in the image"),
            (&["/etc"], "\"/etc\" is a folder; with a slash"),
            (&["-/etc"], "is a folder"),
            (&["/dev/null"], "leads into a volume"),
            (&["-/proc/self/exe"], "leads into a volume"),
        ] {
            let error = programs(list).unwrap_err();
            assert!(error.contains("BS-PRC-005") && error.contains(expected), "{error}");
        }
        assert_eq!(programs(&["-/no/such", "-/no/such/", "/bin/sh", "/etc/"]).unwrap().opened().count(), 2);
    }

    #[test]
    fn a_program_is_what_its_name_leads_to() {
        let real = std::fs::canonicalize("/bin/sh").unwrap();
        let real = real.to_str().unwrap();
        for list in [&["/bin/sh"][..], &[real], &["/bin/"], &["/usr/"]] {
            assert_eq!(named(list, "/bin/sh"), Ok(()), "{list:?}");
        }
        assert_eq!(named(&["/bin/cat"], "no-such-program"), Ok(()));
        for list in [&["/bin/cat"][..], &["/usr/lib/"], &[]] {
            let error = named(list, "/bin/sh").unwrap_err();
            assert!(error.contains("\"/bin/sh\" leads to") && error.contains("do not list"), "{error}");
        }
    }
}
