//! What of the kernel's own shows: devices that open, files that runtimes hide, kinds of sockets.
use crate::child::{Ended, run};
use crate::sys;
use nix::errno::Errno;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Every container has these.
const USUAL: [&str; 9] = ["null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "pts"];

/// Devices whose mere opening does something.
const NOT_OPENED: [&str; 2] = ["watchdog", "tape"];

pub(crate) fn devices() -> Vec<String> {
    let mut found = Vec::new();
    nodes(Path::new("/dev"), &mut found);
    found
}

fn nodes(folder: &Path, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let Ok(kind) = entry.file_type() else { continue };
        let spared = USUAL.contains(&name.as_str()) || NOT_OPENED.iter().any(|word| name.starts_with(word));
        if kind.is_dir() && !spared {
            nodes(&path, found);
        } else if (kind.is_char_device() || kind.is_block_device()) && !spared && opens(&path) {
            found.push(path.display().to_string());
        }
    }
}

fn opens(path: &Path) -> bool {
    let open = |write: bool| {
        File::options().read(true).write(write).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).is_ok()
    };
    open(true) || open(false)
}

/// Places that a runtime hides, or should: CIS's and the runtimes' own lists, and the kernel's windows for debugging.
const HIDDEN: [&str; 24] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/latency_stats",
    "/proc/pagetypeinfo",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/slabinfo",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/vmallocinfo",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/bpf",
    "/sys/fs/pstore",
    "/sys/kernel/debug",
    "/sys/kernel/security",
    "/sys/kernel/tracing",
    "/sys/kernel/vmcoreinfo",
];

pub(crate) fn files() -> Vec<String> {
    HIDDEN.into_iter().filter(|path| shows(path)).map(str::to_owned).collect()
}

/// A file with a byte in it, a folder with an entry.
pub(crate) fn shows(path: &str) -> bool {
    if Path::new(path).is_dir() {
        return fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
    }
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    file.is_ok_and(|mut file| file.read(&mut [0]).is_ok_and(|count| count == 1))
}

pub(crate) const NETLINK: u64 = 16;

/// Kinds of sockets that can be made: each family with each type, netlink with each of its protocols.
pub(crate) fn sockets() -> Vec<String> {
    let mut kinds: Vec<[u64; 3]> = Vec::new();
    for family in (0..46).filter(|family| *family != NETLINK) {
        kinds.extend([1, 2, 3, 5].map(|kind| [family, kind, 0]));
    }
    kinds.extend((0..23).map(|protocol| [NETLINK, 3, protocol]));
    // Raw IP, and every frame.
    kinds.extend([[2, 3, 1], [10, 3, 58], [17, 3, 0x300]]);
    kinds.into_iter().filter(|kind| socket(*kind).is_ok()).map(|[f, t, p]| format!("{f}/{t}/{p}")).collect()
}

/// Makes the socket, in a child.
pub(crate) fn socket([family, kind, protocol]: [u64; 3]) -> Result<(), Errno> {
    let ended = run(|| match sys::call(libc::SYS_socket, &[family, kind, protocol, 0, 0, 0]) {
        Ok(_) => Vec::new(),
        Err(errno) => (errno as i32).to_le_bytes().to_vec(),
    })?;
    match ended {
        Ended::Said(said) if said.is_empty() => Ok(()),
        Ended::Said(said) => {
            Err(<[u8; 4]>::try_from(said.as_slice())
                .map_or(Errno::EIO, |code| Errno::from_raw(i32::from_le_bytes(code))))
        }
        Ended::Killed(_) | Ended::Stuck => Err(Errno::EIO),
    }
}
