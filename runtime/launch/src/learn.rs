//! Learning: which calls a program makes, told by the kernel. For a run outside of the boltseal handler, under a runtime that
//! hands a filter's listener to a socket (`listenerPath`; runc and crun do). Its filter is the base filter with "notify" in
//! place of "allow": what the base closes is closed in that run too, and what it leaves open is seen here and let go on.
//!
//! Letting a call go on is no decision, for its arguments can change in between. So no start under boltseal takes a filter
//! with a listener, and nothing that matters should run in such a run.
use crate::seccomp::profile::{Action, Arg, Op, Profile};
use crate::sys;
use boltseal_profiles::{Arch, number};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::sockopt::SockType;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, getsockopt, recvmsg};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

/// Bytes of the container's state, which comes with a listener.
const MAX_STATE: usize = 64 << 10;
/// How long a runtime may take to send it.
const STATE: Duration = Duration::from_secs(10);

/// What was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Learned {
    /// Index of a rule of the profile -> names of calls that it let through.
    pub used: BTreeMap<usize, BTreeSet<String>>,
    pub ports: BTreeSet<Port>,
    /// Processes that were listened to: a container's init, and each exec.
    pub processes: usize,
}

/// A port that was bound or connected to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// `bind` or `connect`.
    pub what: &'static str,
    /// `tcp`, `udp`, or `other`.
    pub protocol: &'static str,
    pub address: IpAddr,
    pub port: u16,
}

/// Listens until all that was listened to has ended, or SIGINT or SIGTERM comes. `profile`: the rules whose use is told.
///
/// # Errors
/// A profile that does not parse, a socket that does not answer any more.
pub fn learn(listener: &UnixListener, profile: &str, arch: Arch) -> io::Result<Learned> {
    let rules = Rules::of(profile, arch).map_err(io::Error::other)?;
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGINT);
    ends.add(Signal::SIGTERM);
    ends.thread_block()?;
    let signals = SignalFd::with_flags(&ends, SfdFlags::SFD_CLOEXEC)?;
    let mut learned = Learned::default();
    let mut open: Vec<OwnedFd> = Vec::new();
    loop {
        let fixed = [listener.as_fd(), signals.as_fd()];
        let mut wait: Vec<PollFd<'_>> = fixed
            .into_iter()
            .chain(open.iter().map(AsFd::as_fd))
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        match poll(&mut wait, PollTimeout::NONE) {
            Err(nix::Error::EINTR) => continue,
            other => other?,
        };
        let ready: Vec<PollFlags> = wait.iter().map(|p| p.revents().unwrap_or(PollFlags::POLLERR)).collect();
        let (Some(joins), Some(end)) = (ready.first(), ready.get(1)) else { return Ok(learned) };
        for (fd, events) in open.iter().zip(ready.iter().skip(2)) {
            if events.contains(PollFlags::POLLIN) {
                rules.answer(fd, &mut learned)?;
            }
        }
        // Nobody is left whom a filter without news is of.
        let gone = |events: &PollFlags| !events.contains(PollFlags::POLLIN) && !events.is_empty();
        let mut states = ready.iter().skip(2);
        open.retain(|_| !states.next().is_some_and(gone));
        if joins.contains(PollFlags::POLLIN) {
            let (stream, _) = listener.accept()?;
            open.extend(received(&stream)?);
            learned.processes += 1;
        }
        if !end.is_empty() || (open.is_empty() && learned.processes > 0) {
            return Ok(learned);
        }
    }
}

/// The listener that a runtime sends beside its container's state; the state itself is of no interest.
fn received(stream: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    stream.set_read_timeout(Some(STATE))?;
    let mut state = vec![0; MAX_STATE];
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; 8]);
    let mut parts = [IoSliceMut::new(&mut state)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let mut fds = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(list) = part {
            for fd in list {
                fds.push(sys::owned(fd.into())?);
            }
        }
    }
    Ok(fds)
}

/// The rules of a profile that let calls through.
struct Rules {
    /// Index in the profile, numbers, conditions.
    list: Vec<(usize, BTreeMap<u32, String>, Vec<Arg>)>,
    bind: Option<u32>,
    connect: Option<u32>,
    sendto: Option<u32>,
}

impl Rules {
    fn of(profile: &str, arch: Arch) -> Result<Self, String> {
        let profile: Profile = serde_json::from_str(profile).map_err(|e| e.to_string())?;
        let mut list = Vec::new();
        for (index, rule) in profile.syscalls.into_iter().flatten().enumerate() {
            if Action::parse(&rule.action, rule.errno_ret)? == Action::Allow {
                let numbers = rule.names.into_iter().filter_map(|name| Some((number(arch, &name)?, name))).collect();
                list.push((index, numbers, rule.args.unwrap_or_default()));
            }
        }
        let of = |name| number(arch, name);
        Ok(Self { list, bind: of("bind"), connect: of("connect"), sendto: of("sendto") })
    }

    /// Takes one call, notes it and lets it go on. A process that is gone by now is none to be answered.
    fn answer(&self, listener: &OwnedFd, learned: &mut Learned) -> io::Result<()> {
        let Some(call) = sys::notified(listener.as_fd())? else { return Ok(()) };
        let nr = u32::try_from(call.nr).ok();
        for (index, numbers, conditions) in &self.list {
            if let Some(name) = nr.and_then(|nr| numbers.get(&nr))
                && conditions.iter().all(|c| holds(c, &call.args))
            {
                learned.used.entry(*index).or_default().insert(name.clone());
            }
        }
        let [fd, first, second, _, fifth, sixth] = call.args;
        let port = match nr {
            nr if nr == self.bind => seen("bind", call.pid, fd, first, second),
            nr if nr == self.connect => seen("connect", call.pid, fd, first, second),
            nr if nr == self.sendto && fifth != 0 => seen("connect", call.pid, fd, fifth, sixth),
            _ => None,
        };
        learned.ports.extend(port);
        sys::go_on(listener.as_fd(), call.id)
    }
}

fn holds(arg: &Arg, args: &[u64; 6]) -> bool {
    let Some(value) = args.get(usize::from(arg.index)) else { return false };
    match arg.op {
        Op::Ne => *value != arg.value,
        Op::Lt => *value < arg.value,
        Op::Le => *value <= arg.value,
        Op::Eq => *value == arg.value,
        Op::Ge => *value >= arg.value,
        Op::Gt => *value > arg.value,
        Op::MaskedEq => value & arg.value == arg.value_two,
    }
}

/// The address at `at`, of `len` bytes, in the memory of `pid`, for its descriptor `fd`. None for what is no IP address, and
/// for what cannot be read any more.
fn seen(what: &'static str, pid: u32, fd: u64, at: u64, len: u64) -> Option<Port> {
    let mut bytes = vec![0; usize::try_from(len).ok()?.min(28)];
    std::fs::File::open(format!("/proc/{pid}/mem")).ok()?.read_exact_at(&mut bytes, at).ok()?;
    let (address, port) = parse(&bytes)?;
    Some(Port { what, protocol: protocol(pid, fd).unwrap_or("other"), address, port })
}

/// struct sockaddr_in and sockaddr_in6.
fn parse(bytes: &[u8]) -> Option<(IpAddr, u16)> {
    let family = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?);
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    let address = match i32::from(family) {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(4..8)?).ok()?)),
        libc::AF_INET6 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(8..24)?).ok()?)),
        _ => return None,
    };
    Some((address.to_canonical(), port))
}

fn protocol(pid: u32, fd: u64) -> Option<&'static str> {
    // A thread's id names no process of its own.
    let status = sys::read_kernel(format!("/proc/{pid}/status")).ok()?;
    let process = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()?;
    let pidfd = sys::pidfd_open(process).ok()?;
    let socket = sys::pidfd_getfd(pidfd.as_fd(), i32::try_from(fd).ok()?).ok()?;
    Some(match getsockopt(&socket, SockType).ok()? {
        nix::sys::socket::SockType::Stream => "tcp",
        nix::sys::socket::SockType::Datagram => "udp",
        _ => "other",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let v4 = [2, 0, 0x1f, 0x90, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(parse(&v4), Some((Ipv4Addr::LOCALHOST.into(), 8080)));
        let mut v6 = [0; 28];
        v6[..4].copy_from_slice(&[10, 0, 0, 80]);
        assert_eq!(parse(&v6), Some((Ipv6Addr::UNSPECIFIED.into(), 80)));
        v6[18..24].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 1]);
        assert_eq!(parse(&v6), Some((Ipv4Addr::new(10, 0, 0, 1).into(), 80)));
        for bad in [&v4[..7], &v6[..23], &[1, 0, b'/'], &[]] {
            assert_eq!(parse(bad), None);
        }
    }

    #[test]
    fn conditions() {
        let arg = |op, value, value_two| Arg { index: 1, value, value_two, op };
        let holds = |arg, value| holds(&arg, &[0, value, 0, 0, 0, 0]);
        for (op, below, same, above) in [
            (Op::Ne, true, false, true),
            (Op::Lt, true, false, false),
            (Op::Le, true, true, false),
            (Op::Eq, false, true, false),
            (Op::Ge, false, true, true),
            (Op::Gt, false, false, true),
        ] {
            assert_eq!([4, 5, 6].map(|v| holds(arg(op, 5, 0), v)), [below, same, above], "{op:?}");
        }
        assert!(holds(arg(Op::MaskedEq, 0xf0, 0x10), 0x1f) && !holds(arg(Op::MaskedEq, 0xf0, 0x10), 0x2f));
    }
}
