//! What a process takes from itself for good: Landlock and seccomp, by the kernel's own calls.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use nix::errno::Errno;

/// `LANDLOCK_CREATE_RULESET_VERSION`: no ruleset, but the ABI.
const VERSION: u32 = 1;
/// `LANDLOCK_RULE_PATH_BENEATH`.
const PATH_BENEATH: u32 = 1;

/// struct landlock_ruleset_attr. An older kernel takes the longer one as long as it holds zeroes where that kernel ends.
#[repr(C)]
struct RulesetAttr {
    fs: u64,
    net: u64,
    scoped: u64,
}

/// struct landlock_path_beneath_attr.
#[repr(C, packed)]
struct PathBeneath {
    access: u64,
    parent: RawFd,
}

/// The kernel's Landlock ABI; 0: there is none, or it is switched off.
pub(crate) fn landlock_abi() -> u32 {
    // SAFETY: with this flag the kernel takes no pointer and makes no ruleset.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, VERSION) };
    u32::try_from(abi).unwrap_or(0)
}

/// A Landlock domain to be.
#[derive(Debug)]
pub(crate) struct Ruleset(OwnedFd);

impl Ruleset {
    /// Nothing of these is allowed.
    pub(crate) fn new(fs: u64, net: u64, scoped: u64) -> io::Result<Self> {
        let attr = RulesetAttr { fs, net, scoped };
        let size = size_of::<RulesetAttr>();
        // SAFETY: reads one struct of that size, which outlives the call.
        let fd = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attr, size, 0_u32) };
        let fd = RawFd::try_from(Errno::result(fd)?).map_err(io::Error::other)?;
        // SAFETY: the kernel just gave us this fd, and nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// But beneath this one.
    pub(crate) fn allow(&self, beneath: &OwnedFd, access: u64) -> io::Result<()> {
        let rule = PathBeneath { access, parent: beneath.as_raw_fd() };
        let ruleset = self.0.as_raw_fd();
        // SAFETY: reads one struct of the rule's kind, which outlives the call.
        let added =
            unsafe { libc::syscall(libc::SYS_landlock_add_rule, ruleset, PATH_BENEATH, &raw const rule, 0_u32) };
        Errno::result(added)?;
        Ok(())
    }

    /// For this thread, for good.
    pub(crate) fn enforce(self) -> io::Result<()> {
        // SAFETY: integers.
        Errno::result(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.0.as_raw_fd(), 0_u32) })?;
        Ok(())
    }
}

/// No exec gives anything any more.
pub(crate) fn no_new_privs() -> io::Result<()> {
    // SAFETY: integers.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    Ok(())
}

/// Installs a filter on this thread. What it refuses is logged by the kernel.
pub(crate) fn install_filter(filter: &[libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(filter.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_LOG);
    // SAFETY: the program and its instructions outlive the call; the kernel copies and checks them.
    Errno::result(unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) })?;
    Ok(())
}

/// The errno of a call that is meant to fail; its other arguments are 0.
#[cfg(test)]
pub(crate) fn try_call(nr: libc::c_long, [first, second, third]: [usize; 3]) -> Option<i32> {
    // SAFETY: the tests' calls have no valid pointer, and no fd that is open, among their arguments.
    Errno::result(unsafe { libc::syscall(nr, first, second, third, 0, 0, 0) }).err().map(|e| e as i32)
}
