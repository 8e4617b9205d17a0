//! bpf(2), called by ourselves for the five things that a device program needs (man 2 bpf; uapi linux/bpf.h).
use super::program::Instruction;
use crate::sys::owned;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const PROG_QUERY: libc::c_long = 16;
/// BPF_PROG_TYPE_CGROUP_DEVICE.
const PROGRAM_TYPE: u32 = 15;
/// BPF_CGROUP_DEVICE.
const ATTACH_TYPE: u32 = 6;
/// BPF_F_ALLOW_MULTI: beside others, all of which must allow.
const BESIDE_OTHERS: u32 = 2;
/// BPF_F_QUERY_EFFECTIVE: those of the ancestors too.
const EFFECTIVE: u32 = 1;
/// More programs on one cgroup than the kernel takes (BPF_CGROUP_MAX_PROGS is 64 on each level).
const MOST_PROGRAMS: usize = 1024;

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

pub(super) fn load(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let mut attributes = Load {
        program_type: PROGRAM_TYPE,
        count: u32::try_from(instructions.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?,
        instructions: address(instructions.as_ptr()),
        // No helper of the kernel is called, so any license does.
        license: address(c"Apache-2.0".as_ptr()),
        name: *b"boltseal_device\0",
        expected_attach_type: ATTACH_TYPE,
        ..Load::default()
    };
    call(PROG_LOAD, &mut attributes).and_then(owned)
}

/// On a cgroup folder. It stays after the descriptors are closed, until the cgroup is removed.
pub(super) fn attach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = Attach {
        target: number(cgroup),
        program: number(program),
        attach_type: ATTACH_TYPE,
        flags: BESIDE_OTHERS,
        replace: 0,
    };
    call(PROG_ATTACH, &mut attributes).map(drop)
}

/// The program's number in this kernel.
pub(super) fn id(program: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = Info::default();
    let length = u32::try_from(size_of::<Info>()).unwrap_or(0);
    let mut ask = AskInfo { object: number(program), length, info: address(&raw mut info) };
    call(OBJ_GET_INFO_BY_FD, &mut ask)?;
    // SAFETY: the kernel wrote to `info` through its address: read as memory, not as what the compiler remembers.
    Ok(unsafe { std::ptr::read_volatile(&raw const info.id) })
}

/// Numbers of the device programs in force on a cgroup, its ancestors' among them.
pub(super) fn in_force(cgroup: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut ids = vec![0_u32; MOST_PROGRAMS];
    let mut query = Query {
        target: number(cgroup),
        attach_type: ATTACH_TYPE,
        query_flags: EFFECTIVE,
        ids: address(ids.as_mut_ptr()),
        count: u32::try_from(ids.len()).unwrap_or(0),
        ..Query::default()
    };
    call(PROG_QUERY, &mut query)?;
    ids.truncate(usize::try_from(query.count).unwrap_or(0));
    Ok(ids)
}
