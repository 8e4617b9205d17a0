//! Arguments for every system call that can do no harm, whoever makes it.
//!
//! Minus one in all six places is a descriptor that is not open (EBADF), an address that nobody has (EFAULT), flags that do
//! not exist (EINVAL): nearly every call looks at one of them before it does anything. The exceptions are here.
use crate::sys::{Args, WORD};

const BAD: u64 = u64::MAX;
/// No process has this id: above the kernel's largest, 4194304.
const NOBODY: u64 = 0x7fff_fff0;

/// Calls that are not made, and what they would do. Whether they are reachable says the filter alone.
pub(crate) fn not_made(name: &str) -> Option<&'static str> {
    Some(match name {
        "exit" | "exit_group" => "ends the caller",
        "fork" | "vfork" => "takes no argument that could be wrong",
        "pause" => "waits for ever",
        "rt_sigreturn" => "takes its registers from the stack",
        "sync" => "makes the whole machine write",
        _ => return None,
    })
}

/// Calls that the kernel does not show to filters at all (its seccomp.c, since 6.13): made, but not asked about.
pub(crate) fn past_filters(name: &str) -> bool {
    matches!(name, "uretprobe" | "uprobe")
}

/// What the call is made with.
pub(crate) fn arguments(name: &str) -> Args {
    let word = u64::try_from(WORD.as_ptr().addr()).unwrap_or(BAD);
    match name {
        // An unknown operation answers ENOSYS, as a call that is not there: FUTEX_WAKE, private, nobody.
        "futex" => [word, 129, 0, 0, 0, 0],
        // The same: read nothing.
        "modify_ldt" => [0, 0, 0, 0, 0, 0],
        // CLONE_SIGHAND without CLONE_VM.
        "clone" => [0x800, 0, 0, 0, 0, 0],
        // A size of zero.
        "clone3" => [0, 0, 0, 0, 0, 0],
        // Signal 0 to nobody.
        "kill" | "tkill" => [NOBODY, 0, BAD, BAD, BAD, BAD],
        "tgkill" => [NOBODY, NOBODY, 0, BAD, BAD, BAD],
        // A key that nobody made, and not to be made.
        "msgget" => [0x5eed, 0, BAD, BAD, BAD, BAD],
        // Only to be read.
        "personality" => [0xffff_ffff, BAD, BAD, BAD, BAD, BAD],
        "socket" => [2, 2, 0, BAD, BAD, BAD],
        _ => [BAD; 6],
    }
}

/// What the filter is asked about: filters let some calls through with some arguments only. None of these is made.
pub(crate) fn questions(name: &str) -> Vec<Args> {
    let mut all = vec![arguments(name), [0; 6], [1; 6], [BAD; 6]];
    match name {
        "socket" => all.extend((0..46).map(|family| [family, 1, 0, 0, 0, 0])),
        "clone" => all.extend([[17, 0, 0, 0, 0, 0], [0x003d_0f00, 0, 0, 0, 0, 0]]),
        "personality" => all.extend([[8, 0, 0, 0, 0, 0], [0xffff_ffff, 0, 0, 0, 0, 0]]),
        // The mode of a fifo.
        "mknod" => all.push([0, 0o010_600, 0, 0, 0, 0]),
        "mknodat" => all.push([0, 0, 0o010_600, 0, 0, 0]),
        _ => {}
    }
    all
}
