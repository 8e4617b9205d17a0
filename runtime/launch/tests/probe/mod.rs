//! What a container may try on the network: this very test program, run inside under the name `probe`. Each argument is a step
//! `what=address`; each answer is a line `what=address: ok`, or the error's number.
use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Flags of uapi that libc lacks.
const IP_OPTIONS: i32 = 4;
const MPTCP: i32 = 262;

/// Runs the steps when this program was started as the probe.
pub fn ran() -> bool {
    let mut words = std::env::args();
    if words.next().is_none_or(|name| !name.ends_with("/probe")) {
        return false;
    }
    for word in words {
        let (step, goal) = word.split_once('=').unwrap_or((&word, ""));
        if step == "many-udp" {
            println!("{word}: {} refused", many(goal));
            continue;
        }
        match attempt(step, goal) {
            Ok(()) => println!("{word}: ok"),
            Err(e) => println!("{word}: {}", e.raw_os_error().unwrap_or(-1)),
        }
    }
    true
}

fn attempt(step: &str, goal: &str) -> io::Result<()> {
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    match step {
        "tcp" => connect(&stream(address(goal))?, address(goal)),
        "udp" => send(&datagram(address(goal))?, address(goal), 0),
        "udp-connect" => connect(&datagram(address(goal))?, address(goal)),
        // An IPv4 address through a socket of IPv6, not mapped.
        "udp-other" => send(&socket(libc::AF_INET6, libc::SOCK_DGRAM, 0)?, address(goal), 0),
        "fastopen" => send(&stream(address(goal))?, address(goal), libc::MSG_FASTOPEN),
        "unspec" | "unspec-tcp" => after_unspec(step, goal.split_once(',').unwrap()),
        "bind-tcp" => bind(&stream(address(goal))?, address(goal)),
        "bind-udp" => bind(&datagram(address(goal))?, address(goal)),
        "mptcp" => socket(libc::AF_INET, libc::SOCK_STREAM, MPTCP).map(drop),
        "ping" => socket(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP).map(drop),
        "raw" => socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_UDP).map(drop),
        "route-option" => by_option(address(goal)),
        "route-message" => by_message(address(goal)),
        "route-six" => by_header(address(goal)),
        "listen" => listen(),
        "listen-at" => listen_at(Some(address(goal))),
        "listen-anywhere" => listen_at(None),
        other => panic!("the step {other}"),
    }
}

fn done(rc: libc::c_long) -> io::Result<()> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: three integers.
    let fd = unsafe { libc::socket(family, kind, protocol) };
    done(libc::c_long::from(fd))?;
    // SAFETY: the kernel just made it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn family(address: SocketAddr) -> i32 {
    if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }
}

fn stream(address: SocketAddr) -> io::Result<OwnedFd> {
    socket(family(address), libc::SOCK_STREAM, 0)
}

fn datagram(address: SocketAddr) -> io::Result<OwnedFd> {
    socket(family(address), libc::SOCK_DGRAM, 0)
}

/// The address as the kernel takes it, and its length.
fn raw(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: plain integers.
    let mut storage: libc::sockaddr_storage = unsafe { zeroed() };
    let at = &raw mut storage;
    let length = match address {
        SocketAddr::V4(a) => {
            let sin = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: a.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(a.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: a storage holds every address.
            unsafe { at.cast::<libc::sockaddr_in>().write(sin) };
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(a) => {
            let sin6 = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: a.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: a.ip().octets() },
                sin6_scope_id: 0,
            };
            // SAFETY: as above.
            unsafe { at.cast::<libc::sockaddr_in6>().write(sin6) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, length as libc::socklen_t)
}

fn connect(fd: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let (storage, length) = raw(address);
    // SAFETY: the address outlives the call.
    done(unsafe { libc::connect(fd.as_raw_fd(), (&raw const storage).cast(), length) }.into())
}

fn bind(fd: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let (storage, length) = raw(address);
    // SAFETY: the address outlives the call.
    done(unsafe { libc::bind(fd.as_raw_fd(), (&raw const storage).cast(), length) }.into())
}

fn send(fd: &OwnedFd, address: SocketAddr, flags: i32) -> io::Result<()> {
    let (storage, length) = raw(address);
    // SAFETY: bytes and address outlive the call.
    let rc =
        unsafe { libc::sendto(fd.as_raw_fd(), b"x".as_ptr().cast(), 1, flags, (&raw const storage).cast(), length) };
    done(rc as libc::c_long)
}

/// Connected to what is open, let go by AF_UNSPEC, then to what is not.
fn after_unspec(step: &str, (first, second): (&str, &str)) -> io::Result<()> {
    let (first, second) = (first.parse().unwrap(), second.parse().unwrap());
    let fd = if step == "unspec" { datagram(first)? } else { stream(first)? };
    connect(&fd, first)?;
    // SAFETY: plain integers.
    let mut nobody: libc::sockaddr = unsafe { zeroed() };
    nobody.sa_family = libc::AF_UNSPEC as u16;
    // SAFETY: the address outlives the call.
    done(unsafe { libc::connect(fd.as_raw_fd(), &raw const nobody, size_of::<libc::sockaddr>() as u32) }.into())?;
    if step == "unspec" { send(&fd, second, 0) } else { connect(&fd, second) }
}

/// A loose source route by way of 127.0.0.9 (RFC 791): the packet is addressed to that, not to where it is sent.
fn loose_route() -> [u8; 8] {
    let [a, b, c, d] = Ipv4Addr::new(127, 0, 0, 9).octets();
    [131, 7, 4, a, b, c, d, 0]
}

fn option(fd: &OwnedFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    // SAFETY: the value outlives the call.
    done(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), value.len() as u32) }.into())
}

fn by_option(goal: SocketAddr) -> io::Result<()> {
    let fd = datagram(goal)?;
    option(&fd, libc::IPPROTO_IP, IP_OPTIONS, &loose_route())?;
    send(&fd, goal, 0)
}

/// The same route in a control message of the one send.
fn by_message(goal: SocketAddr) -> io::Result<()> {
    const IP_RETOPTS: i32 = 7;
    let fd = datagram(goal)?;
    let (mut storage, length) = raw(goal);
    let mut byte = *b"x";
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut control = [0_u64; 8];
    // SAFETY: plain integers and pointers.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_name = (&raw mut storage).cast();
    message.msg_namelen = length;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: a number from a number.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(8) } as _;
    // SAFETY: the control buffer holds one message of 8 bytes.
    let head = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: as above.
    let head = unsafe { &mut *head };
    head.cmsg_level = libc::IPPROTO_IP;
    head.cmsg_type = IP_RETOPTS;
    // SAFETY: a number from a number.
    head.cmsg_len = unsafe { libc::CMSG_LEN(8) } as _;
    // SAFETY: as above.
    let data = unsafe { libc::CMSG_DATA(head) };
    // SAFETY: eight bytes fit.
    unsafe { data.cast::<[u8; 8]>().write(loose_route()) };
    // SAFETY: everything outlives the call.
    done(unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const message, 0) } as libc::c_long)
}

/// A segment routing header (RFC 8754) by way of ::9: the packet is addressed to that.
fn by_header(goal: SocketAddr) -> io::Result<()> {
    let SocketAddr::V6(address) = goal else { panic!("{goal}") };
    let fd = datagram(goal)?;
    // Next header, length in 8 bytes, type 4, one segment left, last entry, flags, tag; then the segments, the last one first.
    let mut header = vec![0_u8, 4, 4, 1, 1, 0, 0, 0];
    header.extend(address.ip().octets());
    header.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    option(&fd, libc::IPPROTO_IPV6, libc::IPV6_RTHDR, &header)?;
    send(&fd, goal, 0)
}

/// A listener that names no port: told, and held for whoever may reach it.
fn listen() -> io::Result<()> {
    let fd = socket(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    // SAFETY: two integers.
    done(unsafe { libc::listen(fd.as_raw_fd(), 1) }.into())?;
    let listener = std::net::TcpListener::from(fd);
    println!("port {}", listener.local_addr()?.port());
    listener.accept().map(drop)
}

/// Listens for a moment, on a port of the kernel's choice where none is named.
fn listen_at(address: Option<SocketAddr>) -> io::Result<()> {
    let fd = match address {
        Some(address) => stream(address)?,
        None => socket(libc::AF_INET, libc::SOCK_STREAM, 0)?,
    };
    address.map_or(Ok(()), |address| bind(&fd, address))?;
    // SAFETY: two integers.
    done(unsafe { libc::listen(fd.as_raw_fd(), 1) }.into())
}

/// `ADDRESS,COUNT`: how many of so many datagrams were refused.
fn many(goal: &str) -> usize {
    let (address, count) = goal.split_once(',').unwrap();
    let (address, count): (SocketAddr, u32) = (address.parse().unwrap(), count.parse().unwrap());
    let fd = datagram(address).unwrap();
    (0..count).filter(|_| send(&fd, address, 0).is_err_and(|e| e.raw_os_error() == Some(libc::EPERM))).count()
}
