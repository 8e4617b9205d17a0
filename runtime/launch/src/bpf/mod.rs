//! bpf(2), called by ourselves for the six things that a program on a cgroup needs (man 2 bpf; uapi linux/bpf.h).
pub(crate) mod code;
#[cfg(test)]
pub(crate) mod interpreter;

use crate::error::LaunchError;
use crate::sys::owned;
use code::Instruction;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

const MAP_CREATE: libc::c_long = 0;
const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const PROG_QUERY: libc::c_long = 16;
/// BPF_F_ALLOW_MULTI: beside others, all of which must allow.
const BESIDE_OTHERS: u32 = 2;
/// BPF_F_QUERY_EFFECTIVE: those of the ancestors too.
const EFFECTIVE: u32 = 1;
/// More programs on one cgroup than the kernel takes (BPF_CGROUP_MAX_PROGS is 64 on each level).
const MOST_PROGRAMS: usize = 1024;

/// Where on a cgroup the kernel asks a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hook {
    /// BPF_PROG_TYPE_*.
    pub(crate) program_type: u32,
    /// BPF_CGROUP_*.
    pub(crate) attach_type: u32,
    /// For messages and `bpftool`; at most 15 bytes, letters, digits and `_`.
    pub(crate) name: &'static str,
}

/// Attaches a program to a cgroup folder and sees that it is in force there. It stays until the cgroup is removed.
///
/// # Errors
/// What the kernel says; nothing is attached then, or the caller removes the cgroup.
pub(crate) fn enforce(hook: Hook, program: &[Instruction], cgroup: &File, folder: &Path) -> Result<(), LaunchError> {
    let name = hook.name;
    let loaded = load(hook, program).map_err(LaunchError::io(format_args!("load the {name} program")))?;
    attach(hook, cgroup.as_fd(), loaded.as_fd()).map_err(LaunchError::io(format_args!("attach the {name} program")))?;
    let id = id(loaded.as_fd()).map_err(LaunchError::io(format_args!("ask for the {name} program's number")))?;
    let there = in_force(hook, cgroup.as_fd());
    if there.map_err(LaunchError::io(format_args!("list the cgroup's {name} programs")))?.contains(&id) {
        return Ok(());
    }
    Err(LaunchError::Inspection(vec![format!("the {name} program {id} is not in force on {}", folder.display())]))
}

#[repr(C)]
#[derive(Default)]
struct Load {
    program_type: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected_attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct Map {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    entries: u32,
    flags: u32,
    inner: u32,
    numa_node: u32,
    name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct Attach {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
    replace: u32,
}

#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Default)]
struct AskInfo {
    object: u32,
    length: u32,
    info: u64,
}

/// The head of bpf_prog_info; the kernel fills as much as it is given room for.
#[repr(C)]
#[derive(Default)]
struct Info {
    program_type: u32,
    id: u32,
}

fn call<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: a repr(C) part of union bpf_attr of exactly this size; what it points at outlives the call.
    let rc = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc) }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

fn address<T>(of: *const T) -> u64 {
    of.expose_provenance() as u64
}

/// A ring that programs write events to and one reader takes them from (BPF_MAP_TYPE_RINGBUF; Linux 5.8).
pub(crate) fn ring(name: &str, length: u32) -> io::Result<OwnedFd> {
    let mut attributes = Map { map_type: 27, entries: length, name: named(name), ..Map::default() };
    call(MAP_CREATE, &mut attributes).and_then(owned)
}

/// A value that programs write and whoever holds it may map (BPF_MAP_TYPE_ARRAY of one, BPF_F_MMAPABLE; Linux 5.5).
pub(crate) fn value(name: &str, length: u32) -> io::Result<OwnedFd> {
    let (array, may_be_mapped) = (2, 1 << 10);
    let mut attributes = Map {
        map_type: array,
        key_size: 4,
        value_size: length,
        entries: 1,
        flags: may_be_mapped,
        name: named(name),
        ..Map::default()
    };
    call(MAP_CREATE, &mut attributes).and_then(owned)
}

/// At most 15 bytes, letters, digits and `_`.
fn named(name: &str) -> [u8; 16] {
    let mut out = [0_u8; 16];
    out.iter_mut().take(15).zip(name.bytes()).for_each(|(to, from)| *to = from);
    out
}

pub(crate) fn load(hook: Hook, instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let mut attributes = Load {
        program_type: hook.program_type,
        count: u32::try_from(instructions.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?,
        instructions: address(instructions.as_ptr()),
        // No helper of the kernel's that asks for another license is called.
        license: address(c"Apache-2.0".as_ptr()),
        name: named(hook.name),
        expected_attach_type: hook.attach_type,
        ..Load::default()
    };
    call(PROG_LOAD, &mut attributes).and_then(owned)
}

/// On a cgroup folder. It stays after the descriptors are closed, until the cgroup is removed.
fn attach(hook: Hook, cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = Attach {
        target: number(cgroup),
        program: number(program),
        attach_type: hook.attach_type,
        flags: BESIDE_OTHERS,
        replace: 0,
    };
    call(PROG_ATTACH, &mut attributes).map(drop)
}

/// The program's number in this kernel.
fn id(program: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = Info::default();
    let length = u32::try_from(size_of::<Info>()).unwrap_or(0);
    let mut ask = AskInfo { object: number(program), length, info: address(&raw mut info) };
    call(OBJ_GET_INFO_BY_FD, &mut ask)?;
    // SAFETY: the kernel wrote to `info` through its address: read as memory, not as what the compiler remembers.
    Ok(unsafe { std::ptr::read_volatile(&raw const info.id) })
}

/// Numbers of the programs in force on a cgroup, its ancestors' among them.
pub(crate) fn in_force(hook: Hook, cgroup: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut ids = vec![0_u32; MOST_PROGRAMS];
    let mut query = Query {
        target: number(cgroup),
        attach_type: hook.attach_type,
        query_flags: EFFECTIVE,
        ids: address(ids.as_mut_ptr()),
        count: u32::try_from(ids.len()).unwrap_or(0),
        ..Query::default()
    };
    call(PROG_QUERY, &mut query)?;
    ids.truncate(usize::try_from(query.count).unwrap_or(0));
    Ok(ids)
}
