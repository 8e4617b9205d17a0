//! Parts of the kernel that containers have no need for and that its vulnerabilities are mostly in.
use super::{Given, Seen, address, address_mut, any};
use crate::child::{Ended, run};
use crate::sys::{self, Args, call};
use nix::errno::Errno;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use std::fs;

fn made(number: libc::c_long, args: &Args) -> Result<(), Errno> {
    call(number, args).map(drop)
}

/// Full capabilities in a new user namespace: the surface of CVE-2022-0185, CVE-2023-0386, CVE-2024-1086.
pub(super) fn user_namespace(_: &Given) -> Seen {
    const NEWUSER: u64 = 0x1000_0000;
    const SIGCHLD: u64 = 17;
    // struct clone_args, first version: flags and, in its fifth place, the signal at the end.
    let clone3: [u64; 8] = [NEWUSER, 0, 0, 0, SIGCHLD, 0, 0, 0];
    let by = [
        ("clone", libc::SYS_clone, [NEWUSER | SIGCHLD, 0, 0, 0, 0, 0]),
        ("clone3", libc::SYS_clone3, [address(&clone3), 64, 0, 0, 0, 0]),
    ];
    let mut tried: Vec<(String, Result<(), Errno>)> = Vec::new();
    for (name, number, args) in by {
        let outcome = match call(number, &args) {
            Ok(0) => sys::exit_now(0),
            Ok(child) => waitpid(i32::try_from(child).ok().map(Pid::from_raw), None).map(drop),
            Err(errno) => Err(errno),
        };
        tried.push((name.into(), outcome));
    }
    tried.push(("unshare".into(), made(libc::SYS_unshare, &[NEWUSER, 0, 0, 0, 0, 0])));
    any(tried)
}

/// A file system of our own: CVE-2022-0185 and all of fs/namespace.c.
pub(super) fn mount(given: &Given) -> Seen {
    const NEWNS: u64 = 0x2_0000;
    const PRIVATE: u64 = 0x4_4000;
    let (kind, root) = (c"tmpfs", c"/");
    let at = std::ffi::CString::new(given.folders.first().map_or("/tmp", String::as_str)).map_err(|e| e.to_string())?;
    let pointer = |text: &std::ffi::CStr| u64::try_from(text.as_ptr().addr()).unwrap_or_default();
    let own = made(libc::SYS_unshare, &[NEWNS, 0, 0, 0, 0, 0])
        .and_then(|()| made(libc::SYS_mount, &[0, pointer(root), 0, PRIVATE, 0, 0]));
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines().count();
    let before = mounts();
    let by_path = made(libc::SYS_mount, &[pointer(kind), pointer(&at), pointer(kind), 0, 0, 0]).and_then(|()| {
        let more = mounts() > before;
        made(libc::SYS_umount2, &[pointer(&at), 0, 0, 0, 0, 0])?;
        if more { Ok(()) } else { Err(Errno::ENOENT) }
    });
    any([
        ("mount".into(), by_path),
        ("mount namespace".into(), own),
        ("fsopen".into(), made(libc::SYS_fsopen, &[pointer(kind), 0, 0, 0, 0, 0])),
        ("open_tree".into(), made(libc::SYS_open_tree, &[u64::MAX - 99, pointer(root), 1, 0, 0, 0])),
    ])
}

/// Of its own kind is enough to see that it could be another's.
pub(super) fn join_namespace(_: &Given) -> Seen {
    use std::os::fd::AsRawFd;
    any(["net", "uts", "ipc", "pid", "mnt", "cgroup"].map(|kind| {
        let joined = fs::File::open(format!("/proc/self/ns/{kind}")).map_err(|_| Errno::ENOENT).and_then(|file| {
            let fd = u64::try_from(file.as_raw_fd()).map_err(|_| Errno::EBADF)?;
            made(libc::SYS_setns, &[fd, 0, 0, 0, 0, 0])
        });
        (kind.to_owned(), joined)
    }))
}

/// The classic way out of a root folder begins so.
pub(super) fn change_root(_: &Given) -> Seen {
    any([("chroot".into(), nix::unistd::chroot("/proc"))])
}

/// "Shocker": files of the host by inode number, past the mount namespace.
pub(super) fn handle(_: &Given) -> Seen {
    use std::os::fd::AsRawFd;
    let root = fs::File::open("/").map_err(|error| error.to_string())?;
    let fd = u64::try_from(root.as_raw_fd()).map_err(|error| error.to_string())?;
    // struct file_handle: bytes, type, then the handle itself.
    let mut handle = [0_u32; 34];
    if let Some(size) = handle.first_mut() {
        *size = 128;
    }
    let mut mount = 0_u64;
    let name = u64::try_from(c"/etc".as_ptr().addr()).unwrap_or_default();
    call(libc::SYS_name_to_handle_at, &[fd, name, address_mut(&mut handle), address_mut(&mut mount), 0, 0])
        .map_err(|errno| format!("name_to_handle_at {errno:?}"))?;
    let opened = made(libc::SYS_open_by_handle_at, &[fd, address(&handle), 0x20_0000, 0, 0, 0]);
    any([("open_by_handle_at".into(), opened)])
}

/// Goes around every seccomp filter; CVE-2022-29582, CVE-2023-2598.
pub(super) fn io_uring(_: &Given) -> Seen {
    let mut params = [0_u64; 16];
    any([("io_uring_setup".into(), made(libc::SYS_io_uring_setup, &[1, address_mut(&mut params), 0, 0, 0, 0]))])
}

/// Holds the kernel up at a chosen place: what races are won with.
pub(super) fn userfaultfd(_: &Given) -> Seen {
    let flag = |flag| made(libc::SYS_userfaultfd, &[flag, 0, 0, 0, 0, 0]);
    any([("all faults".into(), flag(0)), ("faults of user mode".into(), flag(1))])
}

/// An array of one.
pub(super) fn bpf(_: &Given) -> Seen {
    // union bpf_attr for BPF_MAP_CREATE: type, key size, value size, entries.
    let mut attributes = [0_u32; 32];
    for (field, value) in attributes.iter_mut().zip([2, 4, 4, 1]) {
        *field = value;
    }
    any([("a map".into(), made(libc::SYS_bpf, &[0, address(&attributes), 128, 0, 0, 0]))])
}

/// The clock of this task.
pub(super) fn perf(_: &Given) -> Seen {
    // struct perf_event_attr: type (software), size, config (0: CPU clock), ... the flags in its sixth word exclude the kernel.
    let mut attributes = [0_u64; 16];
    for (field, value) in attributes.iter_mut().zip([1 | 128 << 32, 0, 0, 0, 0, 1 << 5 | 1 << 6]) {
        *field = value;
    }
    let minus = u64::MAX;
    any([("an event".into(), made(libc::SYS_perf_event_open, &[address(&attributes), 0, minus, minus, 0, 0]))])
}

/// Keyrings know no namespace but the user's.
pub(super) fn keyring(_: &Given) -> Seen {
    const PROCESS_KEYRING: u64 = (-2_i64).cast_unsigned();
    let pointer = |text: &std::ffi::CStr| u64::try_from(text.as_ptr().addr()).unwrap_or_default();
    let name = pointer(c"boltseal-probe");
    let added = made(libc::SYS_add_key, &[pointer(c"user"), name, name, 4, PROCESS_KEYRING, 0]);
    let found = made(libc::SYS_keyctl, &[0, PROCESS_KEYRING, 1, 0, 0, 0]);
    any([("add_key".into(), added), ("keyctl".into(), found)])
}

/// Whether the kernel looks at what it is asked to load: with a descriptor that is none it then says EBADF.
pub(super) fn module(_: &Given) -> Seen {
    let looked = match made(libc::SYS_finit_module, &[u64::MAX, 0, 0, 0, 0, 0]) {
        Err(Errno::EBADF) => Ok(()),
        other => other,
    };
    any([("finit_module looks at the file".into(), looked)])
}

/// With flags that nobody knows it then says EINVAL.
pub(super) fn kexec(_: &Given) -> Seen {
    const UNKNOWN: u64 = 0x8000_8000;
    let looked = match made(libc::SYS_kexec_load, &[0, 0, 0, UNKNOWN, 0, 0]) {
        Err(Errno::EINVAL) => Ok(()),
        other => other,
    };
    any([("kexec_load looks at its flags".into(), looked)])
}

/// Addresses of the kernel's, and what others do.
pub(super) fn log(_: &Given) -> Seen {
    let device = crate::kernel::shows("/dev/kmsg");
    any([
        ("syslog".into(), made(libc::SYS_syslog, &[10, 0, 0, 0, 0, 0])),
        ("/dev/kmsg".into(), if device { Ok(()) } else { Err(Errno::EACCES) }),
    ])
}

/// Segments of one's own: CVE-2015-5157 and kin.
#[cfg(target_arch = "x86_64")]
pub(super) fn descriptor_table(_: &Given) -> Seen {
    // struct user_desc: entry, base, limit, flags (32 bit, limit in pages).
    let descriptor = [0_u32, 0, 0xf_ffff, 0b1_0001];
    any([("modify_ldt".into(), made(libc::SYS_modify_ldt, &[1, address(&descriptor), 16, 0, 0, 0]))])
}

/// What the next program would be laid out with.
pub(super) fn personality(_: &Given) -> Seen {
    const NO_RANDOMIZE: u64 = 0x4_0000;
    const ASK: u64 = 0xffff_ffff;
    let outcome = made(libc::SYS_personality, &[NO_RANDOMIZE, 0, 0, 0, 0, 0]).and_then(|()| {
        let now = call(libc::SYS_personality, &[ASK, 0, 0, 0, 0, 0])?;
        if now & NO_RANDOMIZE == 0 { Err(Errno::EINVAL) } else { Ok(()) }
    });
    any([("personality".into(), outcome)])
}

/// The other table of system calls: socketcall(2) hides its arguments from filters there.
#[cfg(target_arch = "x86_64")]
pub(super) fn i386(_: &Given) -> Seen {
    let own = i64::from(nix::unistd::getpid().as_raw());
    // The numbers of a child of its own: where the kernel has no such entry, it is ended.
    let ended = run(|| {
        let pid = sys::getpid_i386();
        let own = i64::from(nix::unistd::getpid().as_raw());
        if pid == own { Vec::new() } else { format!("answers {pid}").into_bytes() }
    });
    match ended.map_err(|errno| errno.to_string())? {
        Ended::Said(said) if said.is_empty() => Ok(format!("int 0x80 of {own} answers")),
        Ended::Said(said) => Err(String::from_utf8_lossy(&said).into_owned()),
        other => Err(format!("{other:?}")),
    }
}
