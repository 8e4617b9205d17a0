//! Sockets that lead to the host, or to parts of the kernel that few look after.
use super::{Given, Seen, any};
use crate::kernel::{NETLINK, socket};
use crate::sys::call;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

const ALG: u64 = 38;
const VSOCK: u64 = 40;
const PACKET: u64 = 17;

/// "Copy Fail" (CVE-2026-31431): the kernel's own cryptography, bound to an algorithm.
pub(super) fn alg(_: &Given) -> Seen {
    let bound = call(libc::SYS_socket, &[ALG, 5, 0, 0, 0, 0]).and_then(|fd| {
        // struct sockaddr_alg: family, type, two numbers, name.
        let mut address = [0_u8; 88];
        for (at, text) in [(0, b"\x26\0".as_slice()), (2, b"hash"), (24, b"sha256")] {
            for (to, byte) in address.iter_mut().skip(at).zip(text) {
                *to = *byte;
            }
        }
        call(libc::SYS_bind, &[fd, super::address(&address), 88, 0, 0, 0]).map(drop)
    });
    any([("bound to sha256".into(), bound)])
}

/// The hypervisor's side; knows no network namespace.
pub(super) fn vsock(_: &Given) -> Seen {
    any([("AF_VSOCK".into(), socket([VSOCK, 1, 0]))])
}

/// CVE-2024-1086 and a dozen others in nf_tables.
pub(super) fn netfilter(_: &Given) -> Seen {
    any([("NETLINK_NETFILTER".into(), socket([NETLINK, 3, 12]))])
}

pub(super) fn raw(_: &Given) -> Seen {
    any([("ICMP".into(), socket([2, 3, 1])), ("ICMPv6".into(), socket([10, 3, 58]))])
}

/// CVE-2017-7308, CVE-2020-14386.
pub(super) fn packet(_: &Given) -> Seen {
    any([("AF_PACKET".into(), socket([PACKET, 3, 0x300]))])
}

/// Families beside unix, internet, netlink, and those above: each was a hole once (X.25, TIPC, CAN, RDS, LLC ..).
pub(super) fn rare(_: &Given) -> Seen {
    let common = [0, 1, 2, 10, NETLINK, PACKET, ALG, VSOCK];
    let families = (0..46).filter(|family| !common.contains(family));
    let found: Vec<String> = families
        .filter(|family| [1, 2, 3, 5].iter().any(|kind| socket([*family, *kind, 0]).is_ok()))
        .map(|family| family.to_string())
        .collect();
    if found.is_empty() { Err("none of 38 families".into()) } else { Ok(format!("families {}", found.join(" "))) }
}

const ENGINES: [&str; 8] = [
    "/run/containerd/containerd.sock",
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/run/crio/crio.sock",
    "/run/podman/podman.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/cri-dockerd.sock",
    "/run/systemd/private",
];

/// Who can talk to it owns the node.
pub(super) fn engine(_: &Given) -> Seen {
    any(ENGINES.map(|path| {
        let connected = UnixStream::connect(path).map(drop);
        (path.to_owned(), connected.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))))
    }))
}

/// CVE-2020-15257: abstract sockets are the network namespace's.
pub(super) fn shim(_: &Given) -> Seen {
    let text = std::fs::read_to_string("/proc/net/unix").map_err(|error| error.to_string())?;
    let names = text.lines().filter_map(|line| line.split_once('@').map(|(_, name)| name));
    let shims = names.filter(|name| ["containerd-shim", "boltseal"].iter().any(|word| name.contains(word)));
    any(shims.map(|name| (name.to_owned(), connect_abstract(name))))
}

fn connect_abstract(name: &str) -> Result<(), Errno> {
    let fd = nix::sys::socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    connect(fd.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?)
}
