//! The gate's only unsafe code: the channel, fork for the child that waits ahead, the environment, the probe of kexec's calls, whose a
//! namespace is, and the heap.
use dlmalloc::Dlmalloc;
use nix::unistd::ForkResult;
use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The socketpair that the shim leaves for us.
pub(crate) const CHANNEL: RawFd = 3;

/// Takes ownership of the channel. Called once, at start.
pub(crate) fn take_channel() -> OwnedFd {
    // SAFETY: fd 3 is the shim's socketpair by contract; nothing else in this process owns it, and this runs once.
    unsafe { OwnedFd::from_raw_fd(CHANNEL) }
}

/// Forks. The gate is single-threaded, so the child may go on using the heap.
pub(crate) fn fork() -> nix::Result<ForkResult> {
    // SAFETY: the gate has one thread, so no lock is held by a thread that the child lacks.
    unsafe { nix::unistd::fork() }
}

/// Ends a forked child at once, without running anything of the parent's.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Nothing of the caller's environment reaches libcontainer (it would honour LISTEN_FDS) or the container.
pub(crate) fn clear_environment() {
    let names: Vec<_> = std::env::vars_os().map(|(name, _)| name).collect();
    for name in names {
        // SAFETY: the gate has one thread, and nobody holds a pointer into the environment.
        unsafe { std::env::remove_var(name) }
    }
}

/// Bit 15 is no flag of either call, bit 31 no architecture: both refuse before they look at, load or unload anything.
const UNKNOWN_FLAGS: u64 = 0x8000_8000;

/// Whether neither kexec call is in this kernel: both answer ENOSYS to arguments that load nothing.
/// `kexec_load` with an unknown flag and `kexec_file_load` with bad fds fail with EINVAL, EPERM or EBADF where they exist.
pub(crate) fn kexec_is_absent() -> bool {
    let absent = |outcome: libc::c_long| outcome == -1 && nix::errno::Errno::last() == nix::errno::Errno::ENOSYS;
    // SAFETY: no pointer is passed; the flags are unknown, so the kernel refuses before it looks at anything.
    let load = unsafe { libc::syscall(libc::SYS_kexec_load, 0_u64, 0_u64, 0_u64, UNKNOWN_FLAGS) };
    let load = absent(load);
    // SAFETY: both fds are -1 and the length is 0: nothing is read.
    let file = unsafe { libc::syscall(libc::SYS_kexec_file_load, -1_i64, -1_i64, 0_u64, 0_u64, UNKNOWN_FLAGS) };
    load && absent(file)
}

/// nsfs (device, inode) of the user namespace that a namespace belongs to (ioctl_nsfs(2)); None where that cannot be had, so that
/// nothing is taken for it.
pub(crate) fn user_namespace_of(path: &str) -> Option<(u64, u64)> {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;
    const NS_GET_USERNS: libc::Ioctl = 0xb701;
    let namespace = std::fs::File::open(path).ok()?;
    // SAFETY: an ioctl without an argument; a new descriptor or -1 comes back.
    let fd = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS) };
    if fd < 0 {
        return None;
    }
    let meta = std::fs::File::from(own(fd)).metadata().ok()?;
    Some((meta.dev(), meta.ino()))
}

/// Owns an fd that the kernel has just put into this process.
pub(crate) fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the caller got this number from the kernel just now, so it is open and nobody else's.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// dlmalloc without its mutex: one thread, so the flag is never found taken, and a fork finds it free.
#[derive(Debug)]
pub(crate) struct Heap {
    taken: AtomicBool,
    heap: UnsafeCell<Dlmalloc>,
}

// SAFETY: the heap is only touched between taking the flag and giving it back.
unsafe impl Sync for Heap {}

impl Heap {
    pub(crate) const fn new() -> Self {
        Self { taken: AtomicBool::new(false), heap: UnsafeCell::new(Dlmalloc::new()) }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Dlmalloc) -> T) -> T {
        while self.taken.swap(true, Ordering::Acquire) {
            std::hint::spin_loop();
        }
        // SAFETY: the flag is ours, so nobody else has a reference; dlmalloc calls nothing of ours.
        let done = work(unsafe { &mut *self.heap.get() });
        self.taken.store(false, Ordering::Release);
        done
    }
}

// SAFETY: dlmalloc keeps GlobalAlloc's contract for each of these, and is reached by one at a time (`with`).
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's layout has a size and a power of two as alignment.
        self.with(|heap| unsafe { heap.malloc(layout.size(), layout.align()) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        self.with(|heap| unsafe { heap.calloc(layout.size(), layout.align()) })
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller got it from here with this layout.
        self.with(|heap| unsafe { heap.free(pointer, layout.size(), layout.align()) });
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller got it from here with this layout; the new size is not zero.
        self.with(|heap| unsafe { heap.realloc(pointer, layout.size(), layout.align(), size) })
    }
}
