//! Files and devices that reach the host. What is opened for writing is never written.
use super::{Given, Seen, any};
use crate::sys::call;
use nix::errno::Errno;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

fn number(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

fn opens_for_writing(path: &Path) -> Result<(), Errno> {
    let opened = File::options().write(true).custom_flags(libc::O_NONBLOCK).open(path);
    opened.map(drop).map_err(|error| number(&error))
}

fn writing(path: &str) -> Seen {
    any([(path.to_owned(), opens_for_writing(Path::new(path)))])
}

/// Mount points of cgroup file systems.
fn cgroups() -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let is_cgroup = |line: &&str| line.contains(" - cgroup");
    text.lines().filter(is_cgroup).filter_map(|line| line.split(' ').nth(4).map(PathBuf::from)).collect()
}

/// A group of our own, made and removed: limits and devices would be ours to set.
pub(super) fn cgroup(_: &Given) -> Seen {
    any(cgroups().into_iter().map(|mount| {
        let own = mount.join("boltseal-probe");
        let made = fs::create_dir(&own).and_then(|()| fs::remove_dir(&own));
        (own.display().to_string(), made.map_err(|error| number(&error)))
    }))
}

/// CVE-2022-0492: a program that the host runs as root when a group is empty.
pub(super) fn release_agent(_: &Given) -> Seen {
    any(cgroups().into_iter().map(|mount| {
        let file = mount.join("release_agent");
        (file.display().to_string(), opens_for_writing(&file))
    }))
}

/// A program that the host runs as root when one crashes.
pub(super) fn core_pattern(_: &Given) -> Seen {
    writing("/proc/sys/kernel/core_pattern")
}

pub(super) fn sysrq(_: &Given) -> Seen {
    writing("/proc/sysrq-trigger")
}

/// Any setting of the kernel's.
pub(super) fn sysctl(_: &Given) -> Seen {
    let mut open = vec![PathBuf::from("/proc/sys")];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(path);
            } else if opens_for_writing(&path).is_ok() {
                return Ok(path.display().to_string());
            }
        }
    }
    Err("no file below /proc/sys opens for writing".into())
}

/// Reads one byte.
fn reads(path: &Path) -> Result<(), Errno> {
    let mut file =
        File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(|error| number(&error))?;
    match file.read(&mut [0]).map_err(|error| number(&error))? {
        1 => Ok(()),
        _ => Err(Errno::ENODATA),
    }
}

/// A device node made where files can be made, read, removed.
fn node(folder: &str, kind: libc::mode_t, major: u32, minor: u32) -> (String, Result<(), Errno>) {
    let path = format!("{folder}/boltseal-probe-node");
    let made = CString::new(path.as_str()).map_err(|_| Errno::EINVAL).and_then(|text| {
        let pointer = u64::try_from(text.as_ptr().addr()).unwrap_or_default();
        call(libc::SYS_mknod, &[pointer, u64::from(kind | 0o600), libc::makedev(major, minor), 0, 0, 0])
    });
    let read = made.and_then(|_| {
        let read = reads(Path::new(&path));
        nix::unistd::unlink(path.as_str()).and(read)
    });
    (format!("{folder}: {major}:{minor}"), read)
}

pub(super) fn memory(given: &Given) -> Seen {
    let there = ["/dev/mem", "/dev/kmem", "/dev/port", "/proc/kcore"];
    let nodes = given.folders.iter().map(|folder| node(folder, libc::S_IFCHR, 1, 1));
    any(there.into_iter().map(|path| (path.to_owned(), reads(Path::new(path)))).chain(nodes))
}

/// A disk of the host's, by any node that is there or can be made.
pub(super) fn block(given: &Given) -> Seen {
    let text = fs::read_to_string("/proc/partitions").map_err(|error| error.to_string())?;
    let disk = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some((major, minor, words.nth(1)?.to_owned()))
    };
    let disks: Vec<(u32, u32, String)> = text.lines().filter_map(disk).collect();
    any(disks.iter().flat_map(|(major, minor, name)| {
        let there = PathBuf::from("/dev").join(name);
        let existing = (there.display().to_string(), reads(&there));
        let made = given.folders.iter().map(|folder| node(folder, libc::S_IFBLK, *major, *minor));
        std::iter::once(existing).chain(made)
    }))
}
