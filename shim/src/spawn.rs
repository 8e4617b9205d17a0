//! Starting a program: by `posix_spawn`, which shares our memory until the exec and so copies none of it. The child has
//! stdio, one fd at [`sys::PASSED_FD`] and nothing else of ours, no signal blocked, and a process group of its own.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use crate::sys;

/// What a child is started with besides its program.
pub(crate) struct Child<'a> {
    /// The first is its own name.
    pub(crate) args: Vec<&'a OsStr>,
    /// `NAME=value`; all of its environment.
    pub(crate) environment: Vec<String>,
    /// Else /dev/null, as stdin and stdout always are.
    pub(crate) stderr: Option<BorrowedFd<'a>>,
    /// What it finds at [`sys::PASSED_FD`].
    pub(crate) passed: BorrowedFd<'a>,
}

/// The pid of the started program. It runs in our working folder.
///
/// # Errors
/// The kernel's, the exec's among them.
pub(crate) fn spawn(program: &Path, child: &Child<'_>) -> io::Result<u32> {
    // `std` and all that we use open everything close-on-exec; what somebody before us forgot to close is caught here.
    sys::close_on_exec_from(sys::PASSED_FD)?;
    let mut actions = PosixSpawnFileActions::init()?;
    actions.add_open(0, "/dev/null", OFlag::O_RDWR, Mode::empty())?;
    actions.add_dup2(0, 1)?;
    actions.add_dup2(child.stderr.map_or(0, |fd| fd.as_raw_fd()), 2)?;
    // Also right when it is that fd already: POSIX.1-2024 and musl clear close-on-exec then.
    actions.add_dup2(child.passed.as_fd().as_raw_fd(), sys::PASSED_FD)?;

    let mut attributes = PosixSpawnAttr::init()?;
    let flags = [
        PosixSpawnFlags::POSIX_SPAWN_SETPGROUP,
        PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK,
        PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF,
    ];
    attributes.set_flags(flags.into_iter().collect())?;
    attributes.set_pgroup(Pid::from_raw(0))?;
    // We block what we read from a signalfd. The gate would hand the mask on to a container that SIGTERM then never
    // reached.
    attributes.set_sigmask(&SigSet::empty())?;
    // Rust programs ignore it, and an ignored signal survives the exec.
    let mut default = SigSet::empty();
    default.add(Signal::SIGPIPE);
    attributes.set_sigdefault(&default)?;

    let args = child.args.iter().map(|arg| CString::new(arg.as_bytes())).collect::<Result<Vec<_>, _>>()?;
    let environment =
        child.environment.iter().map(|line| CString::new(line.as_str())).collect::<Result<Vec<_>, _>>()?;
    let pid = posix_spawn(program, &actions, &attributes, &args, &environment)?;
    Ok(pid.as_raw().cast_unsigned())
}
