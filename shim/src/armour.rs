//! What the long-lived process can do. Of root's capabilities it keeps those that its own work needs; the gate has them all
//! again, for it is a program that root executes. Once it serves, a seccomp filter (`profiles/seccomp/shim.json`) and a
//! Landlock domain close the rest: it executes nothing, makes no process, opens no network, reads procfs, cgroupfs and
//! containers' stdio alone, and writes what the table below says. The gate and the containers have none of it: they come
//! from the starter.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use caps::{CapSet, Capability};

use crate::sys::{self, Ruleset};

/// Why each: fifos and containerd's socket may belong to another user (`DAC_OVERRIDE`); processes of any user are ended
/// (`KILL`); which program a refused call came from (`SYS_PTRACE`, the starter's readlink of /proc/PID/exe); a gate gets the
/// OOM score back that the server's was raised from, and pipes stay large however many there are (`SYS_RESOURCE`).
const KEPT: [Capability; 4] =
    [Capability::CAP_DAC_OVERRIDE, Capability::CAP_KILL, Capability::CAP_SYS_PTRACE, Capability::CAP_SYS_RESOURCE];

/// Gives up all others, for good but for what an exec brings back. The bounding set stays: it is the gate's.
pub(crate) fn drop_capabilities() -> Result<()> {
    let permitted = caps::read(None, CapSet::Permitted).context("own capabilities")?;
    let kept: HashSet<Capability> = permitted.intersection(&KEPT.into()).copied().collect();
    // Effective first: it must never hold what permitted does not.
    for (set, to) in [(CapSet::Effective, &kept), (CapSet::Permitted, &kept), (CapSet::Inheritable, &HashSet::new())] {
        caps::set(None, set, to).with_context(|| format!("dropping capabilities ({set:?})"))?;
    }
    Ok(())
}

/// The newest Landlock ABI that is made use of. A newer kernel gives this much, an older one what it has.
const ABI: u32 = 6;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_DIR: u64 = 1 << 7;
const MAKE_REG: u64 = 1 << 8;
const TRUNCATE: u64 = 1 << 14;
const READ: u64 = READ_FILE | READ_DIR;
/// Those that a rule for what is no folder may hold.
const OF_FILES: u64 = WRITE_FILE | READ_FILE | TRUNCATE;
/// `LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET`. Signals are not scoped: containers, which are outside, are killed.
const ABSTRACT_SOCKETS: u64 = 1;

/// Where a client of containerd may have logs written; files are made there.
pub(crate) const LOGS: [&str; 3] = ["/tmp", "/var/log/pods", "/var/log/containers"];
/// Where containerd's clients make fifos, beside what is in containerd's own state folder.
const FIFOS: [&str; 2] = ["/run/containerd/fifo", "/run/docker/containerd"];
/// In that state folder: fifos of `ctr` and of the CRI plugin. Not the bundles: what another runtime will read is there.
const STATE_FIFOS: [&str; 3] = ["fifo", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"];
const BUNDLES: &str = "io.containerd.runtime.v2.task";

/// Of `start`, whose answer reaches the user: without Landlock the server would not come up.
pub(crate) fn check_kernel() -> Result<()> {
    if sys::landlock_abi() == 0 {
        bail!("the kernel has no Landlock, or it is switched off. Fix: name landlock in the kernel's lsm= parameter");
    }
    Ok(())
}

/// Confines this process for good. `socket` is its own, `bundle` that of the pod's first container.
pub(crate) fn confine(socket: &Path, bundle: &Path) -> Result<()> {
    for folder in FIFOS {
        make_as_clients_do(Path::new(folder)).with_context(|| folder.to_owned())?;
    }
    sys::no_new_privs().context("no_new_privs")?;
    restrict(sys::landlock_abi().min(ABI), &rules(socket, bundle)).context("Landlock")?;
    sys::install_filter(FILTER).context("the seccomp filter")
}

/// A rule needs its folder, and a client makes this one with its first fifo: for an exec that may be long after this.
fn make_as_clients_do(folder: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        // There is one, or the client's own folder is not there, and so no client.
        Err(e) if matches!(e.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => Ok(()),
        made => made,
    }
}

/// Paths, and what is allowed beneath each.
fn rules(socket: &Path, bundle: &Path) -> Vec<(PathBuf, u64)> {
    let mut rules: Vec<(PathBuf, u64)> = vec![
        ("/proc".into(), READ),
        ("/sys/fs/cgroup".into(), READ | WRITE_FILE | TRUNCATE),
        ("/dev/null".into(), READ_FILE | WRITE_FILE | TRUNCATE),
    ];
    rules.extend(socket.parent().map(|folder| (folder.into(), READ_DIR | REMOVE_FILE)));
    rules.extend(LOGS.map(|folder| (folder.into(), READ | WRITE_FILE | MAKE_DIR | MAKE_REG)));
    let state = bundle.ancestors().nth(2).filter(|folder| folder.ends_with(BUNDLES)).and_then(Path::parent);
    let of_state = state.into_iter().flat_map(|state| STATE_FIFOS.map(|name| state.join(name)));
    rules.extend(FIFOS.map(PathBuf::from).into_iter().chain(of_state).map(|folder| (folder, READ | WRITE_FILE)));
    rules
}

/// Everything that this ABI knows is handled; what is not in the rules is refused.
fn restrict(abi: u32, rules: &[(PathBuf, u64)]) -> io::Result<()> {
    let since = |number: u32, bits: u64| if abi >= number { bits } else { 0 };
    // EXECUTE to MAKE_SYM, then REFER, TRUNCATE and IOCTL_DEV.
    let fs = since(1, (1 << 13) - 1) | since(2, 1 << 13) | since(3, TRUNCATE) | since(5, 1 << 15);
    let ruleset = Ruleset::new(fs, since(4, 0b11), since(6, ABSTRACT_SOCKETS))?;
    for (path, access) in rules {
        let opened = File::options().read(true).custom_flags(libc::O_PATH).open(path);
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        match opened {
            // Less is allowed, never more.
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(e) => return Err(named(e)),
            Ok(file) => {
                let fits = if file.metadata().map_err(named)?.is_dir() { u64::MAX } else { OF_FILES };
                ruleset.allow(&OwnedFd::from(file), access & fits & fs).map_err(named)?;
            }
        }
    }
    ruleset.enforce()
}

/// Compiled by `build.rs`.
const FILTER: &[libc::sock_filter] = &include!(concat!(env!("OUT_DIR"), "/filter.rs"));

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;
    use std::process::Command;

    /// Calls that the armour closes, with arguments for which the kernel has another answer than EPERM or EACCES.
    const CLOSED: [(&str, libc::c_long, [usize; 3]); 22] = [
        ("execve", libc::SYS_execve, [0, 0, 0]),
        ("execveat", libc::SYS_execveat, [usize::MAX, 0, 0]),
        ("clone3", libc::SYS_clone3, [0, 0, 0]),
        ("unshare", libc::SYS_unshare, [0, 0, 0]),
        ("setns", libc::SYS_setns, [usize::MAX, 0, 0]),
        ("mount", libc::SYS_mount, [0, 0, 0]),
        ("bpf", libc::SYS_bpf, [usize::MAX, 0, 0]),
        ("ptrace", libc::SYS_ptrace, [usize::MAX, 0, 0]),
        ("keyctl", libc::SYS_keyctl, [usize::MAX, 0, 0]),
        ("finit_module", libc::SYS_finit_module, [usize::MAX, 0, 0]),
        ("memfd_create", libc::SYS_memfd_create, [0, 0, 0]),
        ("io_uring_setup", libc::SYS_io_uring_setup, [0, 0, 0]),
        ("process_vm_readv", libc::SYS_process_vm_readv, [usize::MAX, 0, 0]),
        ("prctl", libc::SYS_prctl, [usize::MAX, 0, 0]),
        ("seccomp", libc::SYS_seccomp, [usize::MAX, 0, 0]),
        ("bind", libc::SYS_bind, [usize::MAX, 0, 0]),
        ("listen", libc::SYS_listen, [usize::MAX, 0, 0]),
        ("socket(AF_INET)", libc::SYS_socket, [2, 1, 0]),
        ("socket(AF_NETLINK)", libc::SYS_socket, [16, 3, 0]),
        ("mmap(PROT_EXEC)", libc::SYS_mmap, [0, 0, 4]),
        ("ioctl(TIOCSTI)", libc::SYS_ioctl, [usize::MAX, 0x5412, 0]),
        ("renameat2", libc::SYS_renameat2, [usize::MAX, 0, usize::MAX]),
    ];

    #[test]
    fn the_folder_of_fifos_is_there_before_the_first_one() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let (client, folder) = (dir.path().join("client"), dir.path().join("client/fifo"));
        make_as_clients_do(&folder).unwrap();
        assert!(!folder.exists(), "nobody's folder");
        fs::create_dir(client).unwrap();
        for _ in 0..2 {
            make_as_clients_do(&folder).unwrap();
            assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        }
    }

    fn refused() -> Vec<&'static str> {
        let eperm = |call: &&(&str, libc::c_long, [usize; 3])| sys::try_call(call.1, call.2) == Some(libc::EPERM);
        CLOSED.iter().filter(eperm).map(|call| call.0).collect()
    }

    /// In a thread: it is threads that are confined.
    fn confined<T: Send>(bundle: &Path, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                confine(&bundle.join("sockets/s"), bundle).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }

    #[test]
    fn what_is_closed_is_refused_and_only_for_the_armour() {
        assert_eq!(refused(), Vec::<&str>::new());
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(confined(folder.path(), refused), CLOSED.map(|call| call.0));
        assert_eq!(refused(), Vec::<&str>::new());
    }

    #[test]
    fn files_are_read_and_written_where_the_table_says() {
        let inside = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir_in("/run").unwrap();
        for folder in [inside.path(), outside.path()] {
            fs::write(folder.join("there"), "x").unwrap();
        }
        let mut other = Command::new("/bin/sleep").arg("100").spawn().unwrap();
        let exe = format!("/proc/{}/exe", other.id());
        let try_all = || {
            let kind = |done: io::Result<()>| done.err().map(|e| e.raw_os_error().unwrap());
            let append = |path: &Path| File::options().append(true).open(path).map(drop);
            let (here, there) = (inside.path(), outside.path());
            [
                ("append to a log", kind(append(&here.join("there")))),
                ("make a log", kind(File::options().append(true).create(true).open(here.join("new")).map(drop))),
                ("make its folder", kind(fs::create_dir_all(here.join("folder")))),
                ("read procfs", kind(fs::read("/proc/self/stat").map(drop))),
                ("/dev/null", kind(append(Path::new("/dev/null")))),
                ("write elsewhere", kind(append(&there.join("there")))),
                ("make elsewhere", kind(File::options().append(true).create(true).open(there.join("new")).map(drop))),
                ("make a folder elsewhere", kind(fs::create_dir(there.join("folder")))),
                ("read elsewhere", kind(File::open("/etc/passwd").map(drop))),
                ("write procfs", kind(append(Path::new("/proc/self/comm")))),
                ("look at another's program", kind(fs::read_link(&exe).map(drop))),
                ("remove a log", kind(fs::remove_file(here.join("new")))),
            ]
        };
        let seen = confined(inside.path(), || {
            let seen = try_all();
            let pidfd = sys::pidfd_open(other.id()).unwrap();
            sys::pidfd_signal(pidfd.as_fd(), libc::SIGKILL).unwrap();
            seen
        });
        for (at, (what, errno)) in seen.into_iter().enumerate() {
            let fits = if at < 5 { errno.is_none() } else { errno == Some(libc::EACCES) };
            assert!(fits, "{what}: {errno:?}");
        }
        assert!(!other.wait().unwrap().success(), "it was killed");
        // Unconfined nothing of it is refused. (Not /proc/PID/exe: that one has ended.)
        fs::remove_dir(inside.path().join("folder")).unwrap();
        for (what, errno) in try_all() {
            assert!(errno.is_none() || what.starts_with("look"), "{what}: {errno:?}");
        }
    }

    #[test]
    fn each_abi_is_enough_and_none_is_not() {
        assert!(check_kernel().is_ok());
        for abi in 1..=sys::landlock_abi().min(ABI) {
            std::thread::scope(|scope| {
                let thread = scope.spawn(|| {
                    sys::no_new_privs().unwrap();
                    restrict(abi, &rules(Path::new("/run/s/x"), Path::new("/b"))).unwrap();
                    File::open("/etc/passwd").unwrap_err().raw_os_error()
                });
                assert_eq!(thread.join().unwrap(), Some(libc::EACCES), "{abi}");
            });
        }
    }

    #[test]
    fn the_bundles_of_containerd_are_not_among_what_is_written() {
        let bundle = Path::new("/run/containerd/io.containerd.runtime.v2.task/ns/id");
        let rules = rules(Path::new("/run/containerd/s/x"), bundle);
        let writes = |path: &str| {
            let of = |(beneath, access): &(PathBuf, u64)| Path::new(path).starts_with(beneath).then_some(*access);
            rules.iter().filter_map(of).any(|access| access & (WRITE_FILE | MAKE_REG) != 0)
        };
        for path in ["fifo/1/out", "io.containerd.grpc.v1.cri/containers/c/io/1/c-stdout"] {
            assert!(writes(&format!("/run/containerd/{path}")), "{path}");
        }
        for path in ["/run/containerd/io.containerd.runtime.v2.task/ns/id/config.json", "/run/containerd/s/x", "/etc/x"]
        {
            assert!(!writes(path), "{path}");
        }
        // A bundle that lies elsewhere says nothing of containerd's folder.
        assert!(super::rules(Path::new("/s/x"), Path::new("/a/b/c")).iter().all(|(path, _)| !path.starts_with("/a")));
    }
}
