//! The system call that neither std nor nix has a safe form of.

/// Closes every fd from `first` on: what whoever started us left open.
pub(crate) fn close_from(first: u32) -> nix::Result<()> {
    // SAFETY: called at the beginning of the child, before it owns any fd beyond the standard ones.
    nix::errno::Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0_u32) }).map(drop)
}
