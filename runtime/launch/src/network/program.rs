//! From what is open to BPF instructions, one program per hook. 1 allows, 0 refuses (EPERM to the caller, or the packet is dropped).
//! What is told of that beside it is in `tell`.
//! The kernel hands over: uapi `bpf_sock_addr` at connect, bind and send, `bpf_sock` at socket(2), `__sk_buff` per packet.
use super::tell::{self, Tells};
use crate::bpf::Hook;
use crate::bpf::code::{
    ADD_VALUE, AND_WORD, CONTEXT, Instruction, JUMP, JUMP_IF, JUMP_IF_ABOVE, JUMP_IF_BELOW, JUMP_IF_BEYOND,
    JUMP_IF_NOT, JUMP_IF_WORD_NOT, LOAD_BYTE, LOAD_LONG, MOVE, MOVE_VALUE, SHIFT_RIGHT, TO_BIG_ENDIAN, answer, block,
    leave, load_word, with,
};
use boltseal_seal::network::{Destination, Network, Open, Ports, Protocol};

const fn hook(program_type: u32, attach_type: u32, name: &'static str) -> Hook {
    Hook { program_type, attach_type, name }
}

// uapi linux/bpf.h: BPF_PROG_TYPE_CGROUP_{SKB,SOCK,SOCK_ADDR} and BPF_CGROUP_*.
pub(crate) const INGRESS: Hook = hook(8, 0, "net_in");
pub(crate) const EGRESS: Hook = hook(8, 1, "net_out");
pub(crate) const CREATE: Hook = hook(9, 2, "net_socket");
pub(crate) const BIND4: Hook = hook(18, 8, "net_bind4");
pub(crate) const BIND6: Hook = hook(18, 9, "net_bind6");
pub(crate) const CONNECT4: Hook = hook(18, 10, "net_connect4");
pub(crate) const CONNECT6: Hook = hook(18, 11, "net_connect6");
pub(crate) const SEND4: Hook = hook(18, 14, "net_send4");
pub(crate) const SEND6: Hook = hook(18, 15, "net_send6");
/// BPF_PROG_TYPE_SOCK_OPS: told of what becomes of a TCP socket, asked nothing.
pub(crate) const LISTEN: Hook = hook(13, 3, "net_listen");

// Fields of bpf_sock_addr.
const USER_IP4: i16 = 4;
const USER_IP6: i16 = 8;
const USER_PORT: i16 = 24;
const ADDR_PROTOCOL: i16 = 36;
// Of bpf_sock_ops.
const OPERATION: i16 = 0;
const FAMILY: i16 = 20;
const LOCAL_IP4: i16 = 28;
const LOCAL_IP6: i16 = 48;
const LOCAL_PORT: i16 = 68;
// Of bpf_sock.
const SOCK_TYPE: i16 = 8;
const SOCK_PROTOCOL: i16 = 12;
const SOCK_PORT: i16 = 44;
const SOCK_STATE: i16 = 72;
// Of __sk_buff.
const DATA: i16 = 76;
const DATA_END: i16 = 80;
const SOCK: i16 = 168;

/// BPF_TCP_LISTEN.
const LISTENS: i32 = 10;
/// BPF_SOCK_OPS_TCP_LISTEN_CB: `listen` was called, and its caller is who runs.
const BEGINS_TO_LISTEN: i32 = 11;
const TCP: i32 = libc::IPPROTO_TCP;
pub(super) const UDP: i32 = libc::IPPROTO_UDP;
const IGMP: i32 = libc::IPPROTO_IGMP;
const ICMPV6: i32 = libc::IPPROTO_ICMPV6;

// Registers of ours; the four words of an IPv6 address follow the first, and an IPv4 address is the last of them.
pub(super) const PROTOCOL: u8 = 2;
pub(super) const PORT: u8 = 3;
pub(super) const WORDS: u8 = 4;
const IP4: u8 = 7;
const SCRATCH: u8 = 8;

/// The programs that leave only this open, and tell what is to be told; none where nothing is confined and nothing is told. What
/// only tells of listeners is in [`listens`].
pub(crate) fn programs(open: &Open, tells: Option<&Tells>) -> Vec<(Hook, Vec<Instruction>)> {
    let mut all = Vec::new();
    if open.bind.is_some() || open.connect.is_some() {
        all.push((CREATE, sockets()));
    }
    let bound = tells.filter(|t| t.watch.told);
    if open.bind.is_some() || bound.is_some() {
        for (hook, six) in [(BIND4, false), (BIND6, true)] {
            all.push((hook, tell::binds(ports(open.bind.as_deref(), six), bound)));
        }
    }
    all.extend(open.bind.as_deref().and_then(listeners).map(|program| (INGRESS, program)));
    let flows = tells.filter(|t| t.watch.flows);
    if open.connect.is_some() || flows.is_some() {
        let refused = bound.filter(|_| open.connect.is_some());
        for (hook, six) in [(CONNECT4, false), (SEND4, false), (CONNECT6, true), (SEND6, true)] {
            let body = destinations(open.connect.as_deref(), six);
            all.push((hook, tell::destinations(body, refused, flows)));
        }
    }
    if open.connect.is_some() {
        all.push((EGRESS, plain_packets()));
    }
    all
}

/// Streams of TCP and datagrams of UDP. Other kinds (SCTP, MPTCP, SMC, UDP-Lite, ICMP) would pass by the hooks or by Landlock, and
/// a raw socket of either protocol by all of them.
fn sockets() -> Vec<Instruction> {
    let mut out = vec![load_word(PROTOCOL, CONTEXT, SOCK_PROTOCOL), load_word(SCRATCH, CONTEXT, SOCK_TYPE)];
    for (kind, protocol) in [(libc::SOCK_STREAM, TCP), (libc::SOCK_DGRAM, UDP)] {
        out.extend(when(&[leave(JUMP_IF_NOT, SCRATCH, kind), leave(JUMP_IF_NOT, PROTOCOL, protocol)]));
    }
    out.extend(answer(0));
    out
}

/// Ports that are bound by name. A UDP socket gets a port of the kernel's choice by its first send as well, so that asking for one
/// is no more.
fn ports(open: Option<&[Ports]>, six: bool) -> Vec<Instruction> {
    let mut out = asked(six);
    let Some(open) = open else {
        out.extend(answer(1));
        return out;
    };
    out.extend(when(&[leave(JUMP_IF_NOT, PROTOCOL, UDP), leave(JUMP_IF_NOT, PORT, 0)]));
    open.iter().for_each(|ports| out.extend(when(&fits(ports))));
    out.extend(answer(0));
    out
}

/// `listen` without `bind` takes a port that no hook is asked about: nobody reaches a listener whose port is not open. None where
/// the kernel may pick one.
fn listeners(open: &[Ports]) -> Option<Vec<Instruction>> {
    if tcp(open).any(|p| p.first == 0) {
        return None;
    }
    let mut out = vec![with(LOAD_LONG, SCRATCH, CONTEXT, SOCK, 0)];
    out.extend(when(&[leave(JUMP_IF_NOT, SCRATCH, 0)]));
    out.push(load_word(PORT, SCRATCH, SOCK_STATE));
    out.extend(when(&[leave(JUMP_IF, PORT, LISTENS)]));
    out.push(load_word(PORT, SCRATCH, SOCK_PORT));
    tcp(open).for_each(|ports| out.extend(when(&in_range(ports))));
    out.extend(answer(0));
    Some(out)
}

fn tcp(open: &[Ports]) -> impl Iterator<Item = &Ports> {
    open.iter().filter(|p| p.protocol == Protocol::Tcp)
}

/// A listener, as the kernel tells of it: reachable, or not. Whatever else becomes of a socket is let pass.
pub(crate) fn listens(open: Option<&[Ports]>, tells: &Tells) -> Vec<Instruction> {
    let mut out = vec![load_word(SCRATCH, CONTEXT, OPERATION)];
    out.extend(when(&[leave(JUMP_IF, SCRATCH, BEGINS_TO_LISTEN)]));
    let mut body = vec![
        with(MOVE_VALUE, PROTOCOL, 0, 0, TCP),
        load_word(PORT, CONTEXT, LOCAL_PORT),
        load_word(SCRATCH, CONTEXT, FAMILY),
    ];
    let mut six = vec![leave(JUMP_IF_NOT, SCRATCH, libc::AF_INET6)];
    six.extend((0..4).map(|n| load_word(WORDS + n, CONTEXT, LOCAL_IP6 + i16::from(n) * 4)));
    let mut four = mapped_address(LOCAL_IP4);
    six.push(with(JUMP, 0, 0, i16::try_from(four.len()).unwrap_or(0), 0));
    body.extend(block(six));
    body.append(&mut four);
    // Where any listener may be reached, no packet is looked at.
    match open.filter(|open| listeners(open).is_some()) {
        None => body.extend(answer(1)),
        Some(open) => {
            tcp(open).for_each(|ports| body.extend(when(&in_range(ports))));
            body.extend(answer(0));
        }
    }
    out.extend(tell::listeners(body, tells));
    out
}

/// Where something may go; everywhere where nothing is named.
fn destinations(open: Option<&[Destination]>, six: bool) -> Vec<Instruction> {
    let mut out = asked(six);
    match open {
        None => out.extend(answer(1)),
        Some(open) if six => out.extend(ipv6(open)),
        Some(open) => out.extend(ipv4(open)),
    }
    out
}

/// `::ffff:a.b.c.d` is a.b.c.d: the kernel asks here, and sends IPv4.
fn ipv6(open: &[Destination]) -> Vec<Instruction> {
    let mut out = Vec::new();
    let mut mapped = vec![
        leave(JUMP_IF_WORD_NOT, WORDS, 0),
        leave(JUMP_IF_WORD_NOT, WORDS + 1, 0),
        leave(JUMP_IF_WORD_NOT, WORDS + 2, MAPPED),
    ];
    mapped.extend(ipv4(open));
    out.extend(block(mapped));
    for destination in open {
        let mut tests = fits(&destination.ports);
        match destination.network {
            Network::Any => {}
            Network::V4(..) => continue,
            Network::V6(address, bits) => {
                let words = address.octets();
                let words = words.chunks_exact(4).zip(0_u8..);
                for (word, n) in words {
                    let bits = bits.saturating_sub(32 * n).min(32);
                    tests.extend(within(WORDS + n, word, bits));
                }
            }
        }
        out.extend(when(&tests));
    }
    out.extend(answer(0));
    out
}

fn ipv4(open: &[Destination]) -> Vec<Instruction> {
    let mut out = Vec::new();
    for destination in open {
        let mut tests = fits(&destination.ports);
        match destination.network {
            Network::Any => {}
            Network::V6(..) => continue,
            Network::V4(address, bits) => tests.extend(within(IP4, &address.octets(), bits)),
        }
        out.extend(when(&tests));
    }
    out.extend(answer(0));
    out
}

/// Packets as TCP and UDP make them. A source route, which a socket option or a control message adds, would send them by way of an
/// address that nobody was asked about (IPv4 options, IPv6 routing headers). What the kernel says of its own (IGMP, MLD) and large
/// TCP segments (a jumbo header) pass.
fn plain_packets() -> Vec<Instruction> {
    const START: u8 = 2;
    const END: u8 = 3;
    const AT: u8 = 4;
    const BYTE: u8 = 5;
    let byte = |offset| with(LOAD_BYTE, BYTE, START, offset, 0);
    let within = |length| {
        let mut tests = vec![with(MOVE, AT, START, 0, 0), with(ADD_VALUE, AT, 0, 0, length)];
        tests.push(Instruction { registers: END << 4 | AT, ..leave(JUMP_IF_BEYOND, 0, 0) });
        tests
    };
    let mut v4 = within(20);
    v4.push(byte(0));
    // Five words of header: no options.
    v4.extend(when(&[leave(JUMP_IF_NOT, BYTE, 0x45)]));
    v4.extend(when(&[leave(JUMP_IF_NOT, BYTE, 0x46), byte(9), leave(JUMP_IF_NOT, BYTE, IGMP)]));
    let mut v6 = within(41);
    v6.extend([byte(0), with(SHIFT_RIGHT, BYTE, 0, 0, 4), leave(JUMP_IF_NOT, BYTE, 6), byte(6)]);
    for next in [TCP, UDP, ICMPV6] {
        v6.extend(when(&[leave(JUMP_IF_NOT, BYTE, next)]));
    }
    v6.extend([leave(JUMP_IF_NOT, BYTE, libc::IPPROTO_HOPOPTS), byte(40)]);
    for next in [TCP, ICMPV6] {
        v6.extend(when(&[leave(JUMP_IF_NOT, BYTE, next)]));
    }
    let mut out = vec![load_word(START, CONTEXT, DATA), load_word(END, CONTEXT, DATA_END)];
    out.extend(block(v4));
    out.extend(block(v6));
    out.extend(answer(0));
    out
}

/// Protocol, port and address of what is asked.
fn asked(six: bool) -> Vec<Instruction> {
    let mut out = vec![
        load_word(PROTOCOL, CONTEXT, ADDR_PROTOCOL),
        load_word(PORT, CONTEXT, USER_PORT),
        with(TO_BIG_ENDIAN, PORT, 0, 0, 16),
    ];
    match six {
        true => out.extend((0..4).map(|n| load_word(WORDS + n, CONTEXT, USER_IP6 + i16::from(n) * 4))),
        false => out.extend(mapped_address(USER_IP4)),
    }
    out
}

/// The third word of a mapped address.
const MAPPED: i32 = 0xffff_u32.to_be().cast_signed();

/// An IPv4 address in its mapped form, which is how events tell it.
fn mapped_address(offset: i16) -> Vec<Instruction> {
    let constant = |n: u8, value| with(MOVE_VALUE, WORDS + n, 0, 0, value);
    vec![constant(0, 0), constant(1, 0), constant(2, MAPPED), load_word(IP4, CONTEXT, offset)]
}

/// Allowed when no test leaves.
fn when(tests: &[Instruction]) -> Vec<Instruction> {
    block([tests, &answer(1)].concat())
}

fn fits(ports: &Ports) -> Vec<Instruction> {
    let protocol = if ports.protocol == Protocol::Tcp { TCP } else { UDP };
    [&[leave(JUMP_IF_NOT, PROTOCOL, protocol)], in_range(ports).as_slice()].concat()
}

fn in_range(ports: &Ports) -> Vec<Instruction> {
    let (first, last) = (i32::from(ports.first), i32::from(ports.last));
    if ports.every() {
        return Vec::new();
    }
    if first == last {
        return vec![leave(JUMP_IF_NOT, PORT, first)];
    }
    vec![leave(JUMP_IF_BELOW, PORT, first), leave(JUMP_IF_ABOVE, PORT, last)]
}

/// The register's word begins with these bits of `word`, both in the order of the network.
fn within(register: u8, word: &[u8], bits: u8) -> Vec<Instruction> {
    let bytes = <[u8; 4]>::try_from(word).unwrap_or_default();
    let value = u32::from_ne_bytes(bytes).cast_signed();
    match bits {
        0 => Vec::new(),
        32 => vec![leave(JUMP_IF_WORD_NOT, register, value)],
        _ => {
            let mask = (u32::MAX << (32 - u32::from(bits))).to_be().cast_signed();
            vec![
                with(MOVE, SCRATCH, register, 0, 0),
                with(AND_WORD, SCRATCH, 0, 0, mask),
                leave(JUMP_IF_WORD_NOT, SCRATCH, value),
            ]
        }
    }
}
