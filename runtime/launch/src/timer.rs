//! The deadline of a launch: libcontainer waits without one, so a timer interrupts its system calls (EINTR) until it
//! gives up. The timer is of this process only: clone does not inherit it, and execve forgets the handler.
use crate::error::LaunchError;
use std::time::{Duration, Instant};

pub(crate) struct Timer {
    deadline: Instant,
    before: libc::sigaction,
}

extern "C" fn interrupt(_: libc::c_int) {}

impl Timer {
    pub(crate) fn start(deadline: Instant) -> Result<Self, LaunchError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(LaunchError::TimedOut("the launch was about to begin".into()));
        }
        // SAFETY: sigaction is plain data; zero is an empty mask and no flags, above all no SA_RESTART.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = interrupt as *const () as usize;
        // SAFETY: as above.
        let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are to locals; the handler touches nothing.
        let rc = unsafe { libc::sigaction(libc::SIGALRM, &raw const action, &raw mut before) };
        if rc != 0 {
            return Err(LaunchError::io("set the deadline")(std::io::Error::last_os_error()));
        }
        let mut alarm = nix::sys::signal::SigSet::empty();
        alarm.add(nix::sys::signal::Signal::SIGALRM);
        alarm.thread_unblock().map_err(LaunchError::errno("set the deadline"))?;
        set(left, Duration::from_millis(20))?;
        Ok(Self { deadline, before })
    }

    pub(crate) fn passed(&self) -> bool {
        Instant::now() >= self.deadline
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if set(Duration::ZERO, Duration::ZERO).is_err() {
            tracing::warn!("the deadline's timer could not be stopped");
        }
        // SAFETY: `before` is what the kernel gave us.
        unsafe { libc::sigaction(libc::SIGALRM, &raw const self.before, std::ptr::null_mut()) };
    }
}

fn set(first: Duration, then: Duration) -> Result<(), LaunchError> {
    let value = |d: Duration| libc::timeval {
        tv_sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
        tv_usec: i64::from(d.subsec_micros()),
    };
    let timer = libc::itimerval { it_interval: value(then), it_value: value(first) };
    // SAFETY: setitimer(2) reads one itimerval and may be given no place for the old one.
    let rc = unsafe {
        libc::syscall(libc::SYS_setitimer, libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut::<libc::itimerval>())
    };
    if rc == 0 { Ok(()) } else { Err(LaunchError::io("set the deadline")(std::io::Error::last_os_error())) }
}
