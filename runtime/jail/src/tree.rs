//! A worker that looks at files: it enters a tree of its own first, and is locked in there.
//!
//! It may open, list and read what lies below its root and nothing else: whoever gives it the tree made that its root. Of root's
//! rights it keeps the one to read whatever the modes say. Network, children, writing, other calls: as of every worker.
use crate::{Worker, close_others, filter, locked};
use nix::sys::signal::Signal;
use std::os::fd::OwnedFd;
use std::time::Instant;

/// What is said of a worker that did not end in time.
pub const LATE: &str = "the worker took too long";
/// Folders that it may hold open at a time.
const FILES: u64 = 512;
/// Longest part of what it tells.
const MAX_PART: usize = 1 << 20;

const PROGRESS: u8 = 0;
const ANSWER: u8 = 1;
const FAILED: u8 = 2;

/// Tells whoever waits how far it is.
pub type Tell<'a> = &'a mut dyn FnMut(&[u8]);

/// What a worker needs to look at files, beside what every one has. `fcntl`: with debug assertions std looks at each fd that it
/// closes.
const CALLS: [libc::c_long; 11] = [
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_getdents64,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fgetxattr,
    libc::SYS_lgetxattr,
    libc::SYS_readlinkat,
    libc::SYS_fchdir,
    libc::SYS_pread64,
    libc::SYS_fcntl,
];

/// Has a worker `enter` a tree and do `work` there; its answer is whatever it wrote, bounded. `progress` gets what it tells
/// meanwhile.
///
/// `enter` runs in the child with all rights of the caller and makes the tree its root; nothing of the image is read before the
/// worker is locked in.
///
/// # Errors
/// [`LATE`], or a sentence: why it did not enter, or how it ended.
pub fn look(
    enter: impl FnOnce() -> Result<(), String>,
    work: impl FnOnce(Tell<'_>) -> Vec<u8>,
    deadline: Instant,
    progress: &mut dyn FnMut(&[u8]),
) -> Result<Vec<u8>, String> {
    let filter = filter(&CALLS).map_err(|e| format!("the worker's filter does not build: {e}"))?;
    let seconds = deadline.saturating_duration_since(Instant::now()).as_secs() + 1;
    let keep = caps::CapsHashSet::from([caps::Capability::CAP_DAC_READ_SEARCH]);
    let worker = Worker::fork(None, |socket| {
        if nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).is_err() {
            return 2;
        }
        let entered = enter().and_then(|()| {
            close_others(socket).map_err(|e| format!("closing what it inherits: {e}"))?;
            locked(&filter, seconds, FILES, &keep).map_err(|e| format!("locking it in: {e}"))
        });
        if let Err(why) = entered {
            return i32::from(!say(socket, FAILED, why.as_bytes()));
        }
        let mut heard = true;
        let answer = work(&mut |part| heard = heard && say(socket, PROGRESS, part));
        i32::from(!(heard && say(socket, ANSWER, &answer)))
    })?;
    loop {
        match part(&worker, deadline) {
            Ok((PROGRESS, bytes)) => progress(&bytes),
            Ok((ANSWER, bytes)) => return Ok(bytes),
            Ok((_, bytes)) => return Err(String::from_utf8_lossy(&bytes).chars().take(512).collect()),
            Err(Some(late)) => return Err(late),
            Err(None) => return Err(worker.end()),
        }
    }
}

fn part(worker: &Worker, deadline: Instant) -> Result<(u8, Vec<u8>), Option<String>> {
    let mut head = [0; 5];
    worker.hear(&mut head, deadline)?;
    let [kind, length @ ..] = head;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_PART {
        return Err(Some(format!("the worker wants to write more than {MAX_PART} bytes")));
    }
    let mut bytes = vec![0; length];
    worker.hear(&mut bytes, deadline)?;
    Ok((kind, bytes))
}

fn say(socket: &OwnedFd, kind: u8, bytes: &[u8]) -> bool {
    let Ok(length) = u32::try_from(bytes.len()) else { return false };
    let mut message = Vec::with_capacity(bytes.len() + 5);
    message.push(kind);
    message.extend_from_slice(&length.to_le_bytes());
    message.extend_from_slice(bytes);
    crate::written(socket, &message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{AT_FDCWD, OFlag, openat};
    use nix::sys::stat::Mode;
    use std::time::Duration;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    /// Root of its own: a folder with a file that its owner alone may read.
    fn tree() -> tempfile::TempDir {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "inside").unwrap();
        std::fs::set_permissions(dir.path().join("secret"), std::fs::Permissions::from_mode(0o400)).unwrap();
        dir
    }

    fn read(path: &str) -> nix::Result<Vec<u8>> {
        let fd = openat(AT_FDCWD, path, OFlag::O_RDONLY, Mode::empty())?;
        let mut bytes = vec![0; 64];
        let length = nix::unistd::read(&fd, &mut bytes)?;
        bytes.truncate(length);
        Ok(bytes)
    }

    fn inside(dir: &tempfile::TempDir) -> impl FnOnce() -> Result<(), String> {
        let path = dir.path().to_owned();
        move || nix::unistd::chroot(&path).and_then(|()| nix::unistd::chdir("/")).map_err(|e| e.to_string())
    }

    #[test]
    fn it_reads_what_lies_below_its_root_whatever_the_modes() {
        let dir = tree();
        let looked = |path: &'static str| {
            look(inside(&dir), move |_| read(path).unwrap_or_default(), soon(), &mut |_| {}).unwrap()
        };
        assert_eq!(looked("/secret"), b"inside");
        assert_eq!(looked("/../../../secret"), b"inside");
        assert_eq!(looked("/etc/passwd"), b"");
    }

    #[test]
    fn it_tells_how_far_it_is() {
        let mut told = Vec::new();
        let work = |tell: Tell<'_>| {
            tell(b"1");
            tell(b"2");
            b"done".to_vec()
        };
        assert_eq!(look(|| Ok(()), work, soon(), &mut |part| told.push(part.to_vec())).unwrap(), b"done");
        assert_eq!(told, [b"1", b"2"]);
    }

    #[test]
    fn it_does_nothing_else() {
        let dir = tree();
        let opens = |flags: OFlag| openat(AT_FDCWD, "/secret", flags, Mode::empty()).is_ok();
        let tries: [&dyn Fn() -> bool; 8] = [
            &|| std::net::TcpListener::bind("127.0.0.1:0").is_ok(),
            &|| std::process::Command::new("/bin/true").status().is_ok(),
            &|| nix::unistd::chroot("/").is_ok(),
            &|| std::fs::remove_file("/secret").is_ok(),
            &|| nix::sys::signal::kill(nix::unistd::getppid(), None).is_ok(),
            &|| opens(OFlag::O_WRONLY),
            &|| opens(OFlag::O_RDWR),
            &|| opens(OFlag::O_RDONLY | OFlag::O_CREAT),
        ];
        for act in tries {
            let done = look(inside(&dir), move |_| vec![u8::from(act())], soon(), &mut |_| {});
            assert!(done.as_ref().is_err_and(|why| why.contains("SIGSYS")), "{done:?}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn it_ends_with_its_time_and_says_why_it_did_not_begin() {
        let begun = Instant::now();
        let endless = |_: Tell<'_>| loop {
            std::hint::spin_loop();
        };
        let late = look(|| Ok(()), endless, begun + Duration::from_millis(200), &mut |_| {});
        assert_eq!(late, Err(LATE.to_owned()));
        assert!(begun.elapsed() < Duration::from_secs(2));
        assert_eq!(look(|| Err("no tree".into()), |_| vec![], soon(), &mut |_| {}), Err("no tree".into()));
        let flood = |_: Tell<'_>| vec![0; MAX_PART + 1];
        assert!(look(|| Ok(()), flood, soon(), &mut |_| {}).unwrap_err().contains("more than"));
    }
}
