//! The probe's only unsafe code: system calls by number, fork, the i386 entry, and the filter that asks.
use nix::errno::Errno;
use nix::unistd::ForkResult;
use std::sync::atomic::AtomicU32;

pub(crate) type Args = [u64; 6];

/// In the sixth argument of a call that shall be asked about and not made. No call of the table looks at it there.
pub(crate) const ASK: u64 = 0x626f_6c74_7365_616c;

/// A word that calls may be given the address of.
pub(crate) static WORD: AtomicU32 = AtomicU32::new(0x5eed);

/// A system call by its number. Only in a child of [`fork`] that reports what came back and ends: whatever the call does
/// to memory or descriptors is the child's own.
pub(crate) fn call(number: libc::c_long, args: &Args) -> Result<u64, Errno> {
    let [a, b, c, d, e, f] = *args;
    // SAFETY: by the contract above; the kernel answers EFAULT to addresses that are not the process's.
    let value = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    u64::try_from(value).map_err(|_| Errno::last())
}

/// Forks; the probe has one thread.
pub(crate) fn fork() -> nix::Result<ForkResult> {
    // SAFETY: one thread, so no lock is held by a thread that the child lacks.
    unsafe { nix::unistd::fork() }
}

/// Ends a forked child at once.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// getpid(2) through the i386 entry: what a filter says of the other table of calls.
#[cfg(target_arch = "x86_64")]
pub(crate) fn getpid_i386() -> i64 {
    let value: i64;
    // SAFETY: i386 call 20 takes no argument; the entry may spoil r8 to r11, and is declared to.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("rax") 20_i64 => value,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    value
}

/// A filter for this process that hands every call with [`ASK`] in it to a tracer. There is none, so such a call is not made
/// and answers ENOSYS; but of several filters the stricter one counts, and errno is stricter than trace: what a runtime's
/// filter refuses still answers as that filter says.
pub(crate) fn ask_from_now_on() -> Result<(), Errno> {
    const SIXTH: u32 = 16 + 5 * 8;
    let load = |offset: u32| libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: offset };
    let skip_unless = |value: u64, to: u8| libc::sock_filter {
        code: 0x15,
        jt: 0,
        jf: to,
        k: u32::try_from(value & 0xffff_ffff).unwrap_or_default(),
    };
    let answer = |value: u32| libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: value };
    let mut program = [
        load(SIXTH),
        skip_unless(ASK, 3),
        load(SIXTH + 4),
        skip_unless(ASK >> 32, 1),
        answer(libc::SECCOMP_RET_TRACE),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 6, filter: program.as_mut_ptr() };
    // SAFETY: plain integers.
    let rc = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1_u64, 0_u64, 0_u64, 0_u64) };
    Errno::result(rc)?;
    // SAFETY: the program is six instructions that outlive the call; the kernel copies and checks them.
    let rc = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    Errno::result(rc).map(drop)
}
