//! What locks the child in, before it reads a byte from the network. It came here by exec as another user, without a
//! capability; what is left is two files to resolve names by, sockets of the internet, and the pipe to its parent.
use crate::sys;
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus,
};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

/// All memory, bytes.
const MEMORY: u64 = 512 << 20;
/// Processor time, seconds: longer than containerd waits for all of it.
const CPU: u64 = 10;
/// What names are resolved by, links followed.
const FILES: [&str; 3] = ["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf"];
const DNS: u16 = 53;

/// The parent's end ours; nothing inherited stays open.
pub(crate) fn begin() -> Result<(), String> {
    let failed = |e: nix::Error| format!("the fetcher's jail: {e}");
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(failed)?;
    nix::sys::prctl::set_dumpable(false).map_err(failed)?;
    sys::close_from(3).map_err(failed)
}

/// Everything else. `ports`: the TCP ports that may be connected to.
pub(crate) fn lock(ports: &[u16]) -> Result<(), String> {
    let failed = |e: nix::Error| format!("the fetcher's jail: {e}");
    if nix::unistd::getuid().is_root() || nix::unistd::geteuid().is_root() {
        return Err("the fetcher's jail: still root".into());
    }
    for (what, most) in [
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_FSIZE, 0),
        (Resource::RLIMIT_CPU, CPU),
        (Resource::RLIMIT_AS, MEMORY),
        (Resource::RLIMIT_NOFILE, 32),
        (Resource::RLIMIT_NPROC, 0),
    ] {
        setrlimit(what, most, most).map_err(failed)?;
    }
    for set in [caps::CapSet::Ambient, caps::CapSet::Inheritable, caps::CapSet::Effective, caps::CapSet::Permitted] {
        caps::clear(None, set).map_err(|e| format!("the fetcher's jail: {e}"))?;
    }
    nix::sys::prctl::set_no_new_privs().map_err(failed)?;
    landlocked(ports)?;
    let filter = filter().map_err(|e| format!("the fetcher's filter: {e}"))?;
    seccompiler::apply_filter(&filter).map_err(|e| format!("the fetcher's filter: {e}"))
}

/// Files are a hard requirement; ports need Linux 6.7, and below it the filter and the user are what holds.
fn landlocked(ports: &[u16]) -> Result<(), String> {
    let build = || -> Result<RulesetStatus, Box<dyn std::error::Error>> {
        let mut rules = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(ABI::V3))?
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessNet::BindTcp | AccessNet::ConnectTcp)?
            .create()?;
        for file in FILES {
            let Ok(file) = PathFd::new(file) else { continue };
            rules = rules.add_rule(PathBeneath::new(file, AccessFs::ReadFile))?;
        }
        for port in ports.iter().copied().chain([DNS]) {
            rules = rules.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
        }
        Ok(rules.restrict_self()?.ruleset)
    };
    match build() {
        Ok(RulesetStatus::NotEnforced) => Err("the fetcher's jail: this kernel has no Landlock".into()),
        Ok(_) => Ok(()),
        Err(e) => Err(format!("the fetcher's jail: Landlock: {e}")),
    }
}

/// Sockets of the internet, reading and writing, memory that is never executable. No process, no program, no other file.
fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let word = |value: libc::c_int| u64::try_from(value).unwrap_or(u64::MAX);
    let executable = word(libc::PROT_EXEC);
    let not_executable = SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(executable), 0)?;
    let family =
        |family| SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, word(family)).map(|c| vec![c]);
    let read_only = |argument| {
        let writing = word(libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC);
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(writing), 0).map(|c| vec![c])
    };
    let allowed = [
        libc::SYS_read,
        libc::SYS_readv,
        libc::SYS_write,
        libc::SYS_writev,
        libc::SYS_close,
        libc::SYS_fstat,
        libc::SYS_newfstatat,
        libc::SYS_statx,
        libc::SYS_lseek,
        libc::SYS_fcntl,
        libc::SYS_ioctl,
        libc::SYS_connect,
        libc::SYS_bind,
        libc::SYS_sendto,
        libc::SYS_sendmsg,
        libc::SYS_sendmmsg,
        libc::SYS_recvfrom,
        libc::SYS_recvmsg,
        libc::SYS_getsockopt,
        libc::SYS_setsockopt,
        libc::SYS_getsockname,
        libc::SYS_getpeername,
        libc::SYS_shutdown,
        libc::SYS_ppoll,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_brk,
        libc::SYS_madvise,
        libc::SYS_getrandom,
        libc::SYS_clock_gettime,
        libc::SYS_futex,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_getpid,
        libc::SYS_gettid,
        libc::SYS_nanosleep,
        libc::SYS_clock_nanosleep,
        libc::SYS_restart_syscall,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];
    let mut rules: BTreeMap<_, _> = allowed.into_iter().map(|number| (number, Vec::new())).collect();
    for number in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(number, vec![SeccompRule::new(vec![not_executable.clone()])?]);
    }
    rules.insert(
        libc::SYS_socket,
        vec![SeccompRule::new(family(libc::AF_INET)?)?, SeccompRule::new(family(libc::AF_INET6)?)?],
    );
    rules.insert(libc::SYS_openat, vec![SeccompRule::new(read_only(2)?)?]);
    #[cfg(target_arch = "x86_64")]
    {
        rules.insert(libc::SYS_open, vec![SeccompRule::new(read_only(1)?)?]);
        rules.insert(libc::SYS_poll, Vec::new());
        rules.insert(libc::SYS_stat, Vec::new());
    }
    let arch = if cfg!(target_arch = "aarch64") { TargetArch::aarch64 } else { TargetArch::x86_64 };
    SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, arch)?.try_into()
}
