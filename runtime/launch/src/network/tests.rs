//! What is open, read by hand, and the programs that are made of it, compared on all they know.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
mod tell;

use super::program::{
    BIND4, BIND6, CONNECT4, CONNECT6, CREATE, EGRESS, INGRESS, LISTEN, SEND4, SEND6, listens, programs,
};
use super::tell::Tells;
use crate::bpf::interpreter::{Machine, Object, Value};
use crate::bpf::{self, Hook};
use boltseal_seal::network::{Network, Open, Protocol, Watch};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

const TCP: u32 = 6;
const UDP: u32 = 17;

fn open(text: &str) -> Open {
    Open::declared(text).unwrap()
}

/// A program's answer; where a hook has none, nobody is asked.
fn ask(open: &Open, hook: Hook, machine: &Machine) -> bool {
    let all = programs(open, None);
    let found = all.iter().find(|(h, _)| *h == hook);
    found.is_none_or(|(_, program)| match machine.run(program) {
        0 => false,
        1 => true,
        other => panic!("the answer {other}"),
    })
}

/// The kernel's question at connect, bind or send.
fn question(address: IpAddr, port: u16, protocol: u32) -> Machine {
    let mut context = Object::default().word(24, u32::from(port.to_be())).word(36, protocol);
    match address {
        IpAddr::V4(a) => context = context.word(4, u32::from_ne_bytes(a.octets())),
        IpAddr::V6(a) => {
            for (word, at) in a.octets().chunks_exact(4).zip((8_i16..).step_by(4)) {
                context = context.word(at, u32::from_ne_bytes(word.try_into().unwrap()));
            }
        }
    }
    Machine::new(context)
}

fn reaches(open: &Open, address: &str, port: u16, protocol: u32) -> bool {
    let address: IpAddr = address.parse().unwrap();
    let machine = question(address, port, protocol);
    let hooks = if address.is_ipv4() { [CONNECT4, SEND4] } else { [CONNECT6, SEND6] };
    let [connect, send] = hooks.map(|hook| ask(open, hook, &machine));
    assert_eq!(connect, send, "{address}");
    connect
}

#[test]
fn destinations() {
    let all = open(
        "connect=10.0.0.0/8:443 connect=192.0.2.7:53/udp connect=172.16.0.0/12:8000-8010 connect=[fd00::/8]:5432 \
         connect=[2001:db8::1]:80 connect=*:123/udp connect=255.0.0.0/9:*",
    );
    for (address, port, protocol, expected) in [
        ("10.0.0.1", 443, TCP, true),
        ("10.255.255.255", 443, TCP, true),
        ("11.0.0.1", 443, TCP, false),
        ("9.255.255.255", 443, TCP, false),
        ("10.0.0.1", 444, TCP, false),
        ("10.0.0.1", 443, UDP, false),
        ("10.0.0.1", 0xbb01, TCP, false), // 443 with its bytes exchanged
        ("192.0.2.7", 53, UDP, true),
        ("192.0.2.7", 53, TCP, false),
        ("192.0.2.8", 53, UDP, false),
        ("172.31.255.255", 8000, TCP, true),
        ("172.31.255.255", 8010, TCP, true),
        ("172.31.255.255", 8011, TCP, false),
        ("172.31.255.255", 7999, TCP, false),
        ("172.32.0.0", 8000, TCP, false),
        ("fd12::1", 5432, TCP, true),
        ("fc00::1", 5432, TCP, false),
        ("2001:db8::1", 80, TCP, true),
        ("2001:db8::2", 80, TCP, false),
        ("2001:db8:0:1::1", 80, TCP, false),
        ("0.0.0.0", 443, TCP, false),
        ("::", 443, TCP, false),
        // Every address.
        ("203.0.113.9", 123, UDP, true),
        ("2001:db8::9", 123, UDP, true),
        ("::ffff:203.0.113.9", 123, UDP, true),
        ("203.0.113.9", 123, TCP, false),
        // High bits are no sign.
        ("255.127.255.255", 65535, TCP, true),
        ("255.128.0.0", 65535, TCP, false),
        // An IPv4 address in another dress is that address, and in no other dress.
        ("::ffff:10.0.0.1", 443, TCP, true),
        ("::ffff:11.0.0.1", 443, TCP, false),
        ("::10.0.0.1", 443, TCP, false),
        ("64:ff9b::10.0.0.1", 443, TCP, false),
        ("::ffff:0:10.0.0.1", 443, TCP, false),
        // Protocols that are none of ours.
        ("10.0.0.1", 443, 132, false),
        ("10.0.0.1", 443, 262, false),
        ("203.0.113.9", 123, 136, false),
    ] {
        assert_eq!(reaches(&all, address, port, protocol), expected, "{address} {port} {protocol}");
    }
}

/// A network of IPv6 never covers a mapped address, though it covers its number.
#[test]
fn a_mapped_address_is_none_of_ipv6() {
    let six = open("connect=[::/0]:443");
    assert!(reaches(&six, "2001:db8::1", 443, TCP));
    assert!(!reaches(&six, "::ffff:10.0.0.1", 443, TCP));
    assert!(!reaches(&six, "10.0.0.1", 443, TCP));
    let four = open("connect=0.0.0.0/0:443");
    assert!(reaches(&four, "::ffff:10.0.0.1", 443, TCP) && !reaches(&four, "::1", 443, TCP));
}

#[test]
fn nothing_granted_refuses_all() {
    let none = open("");
    for address in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0"] {
        for protocol in [TCP, UDP] {
            assert!(!reaches(&none, address, 80, protocol), "{address}");
        }
    }
    let local = |port, protocol| question("127.0.0.1".parse().unwrap(), port, protocol);
    assert!(!ask(&none, BIND4, &local(80, TCP)) && !ask(&none, BIND4, &local(0, TCP)));
    assert!(!ask(&none, BIND4, &local(80, UDP)));
    // The kernel's own choice is what a send would get.
    assert!(ask(&none, BIND4, &local(0, UDP)));
    assert!(programs(&Open::default(), None).is_empty());
}

#[test]
fn ports_that_are_bound() {
    let some = open("bind=80 bind=8000-8010 bind=53/udp");
    for hook in [BIND4, BIND6] {
        for (port, protocol, expected) in [
            (80, TCP, true),
            (81, TCP, false),
            (8010, TCP, true),
            (8011, TCP, false),
            (0, TCP, false),
            (53, UDP, true),
            (53, TCP, false),
            (80, UDP, false),
            (0, UDP, true),
            (80, 132, false),
            (0, 136, false),
        ] {
            let at = if hook == BIND4 { "0.0.0.0" } else { "::" };
            let machine = question(at.parse().unwrap(), port, protocol);
            assert_eq!(ask(&some, hook, &machine), expected, "{port} {protocol}");
        }
    }
    let any = open("bind=0");
    assert!(ask(&any, BIND6, &question("::".parse().unwrap(), 0, TCP)));
    assert!(!ask(&any, BIND6, &question("::".parse().unwrap(), 1, TCP)));
}

/// A socket of the packet's, as __sk_buff shows it: (state, port), or none.
fn arrives(open: &Open, sock: Option<(u32, u32)>) -> bool {
    let mut machine = Machine::new(Object::default().set(168, sock.map_or(Value::Number(0), |_| Value::Pointer(0))));
    machine.objects = sock.map(|(state, port)| Object::default().word(72, state).word(44, port)).into_iter().collect();
    ask(open, INGRESS, &machine)
}

#[test]
fn nobody_reaches_a_listener_that_named_no_port() {
    const ESTABLISHED: u32 = 1;
    const LISTEN: u32 = 10;
    let some = open("bind=80 bind=9000-9001 bind=53/udp");
    for (sock, expected) in [
        (None, true),
        (Some((ESTABLISHED, 40_000)), true),
        (Some((LISTEN, 80)), true),
        (Some((LISTEN, 9001)), true),
        (Some((LISTEN, 40_000)), false),
        (Some((LISTEN, 53)), false),
        // UDP sockets are "closed" or "established", never listening.
        (Some((7, 40_000)), true),
    ] {
        assert_eq!(arrives(&some, sock), expected, "{sock:?}");
    }
    assert!(!arrives(&open(""), Some((LISTEN, 40_000))));
    // Where the kernel may pick, any listener may be reached.
    assert!(arrives(&open("bind=0"), Some((LISTEN, 40_000))));
    assert!(arrives(&open("bind=*"), Some((LISTEN, 40_000))));
}

#[test]
fn kinds_of_sockets() {
    const STREAM: u32 = 1;
    const DATAGRAM: u32 = 2;
    const RAW: u32 = 3;
    for confined in ["bind=80", "connect=*:*", ""] {
        for (kind, protocol, expected) in [
            (STREAM, TCP, true),
            (DATAGRAM, UDP, true),
            // A raw socket of a protocol that is open is not that protocol.
            (RAW, TCP, false),
            (RAW, UDP, false),
            (RAW, 255, false),
            (DATAGRAM, TCP, false),
            (STREAM, UDP, false),
            (DATAGRAM, 1, false),
            (DATAGRAM, 58, false),
            (DATAGRAM, 136, false),
            (STREAM, 132, false),
            (5, 132, false),
            (STREAM, 256, false),
            (STREAM, 262, false),
            (STREAM, 0, false),
        ] {
            let machine = Machine::new(Object::default().word(8, kind).word(12, protocol));
            assert_eq!(ask(&open(confined), CREATE, &machine), expected, "{kind} {protocol}");
        }
    }
}

fn leaves(packet: &[u8]) -> bool {
    let mut machine = Machine::new(Object::default().set(76, Value::Packet(0)).set(80, Value::Packet(packet.len())));
    machine.packet = packet.to_vec();
    ask(&open(""), EGRESS, &machine)
}

#[test]
fn packets_without_a_route_of_their_own() {
    let v4 = |first: u8, protocol: u8| {
        let mut p = vec![0_u8; 60];
        (p[0], p[9]) = (first, protocol);
        p
    };
    let v6 = |next: u8, after: u8| {
        let mut p = vec![0_u8; 60];
        (p[0], p[6], p[40]) = (0x60, next, after);
        p
    };
    for (packet, expected) in [
        (v4(0x45, 6), true),
        (v4(0x45, 17), true),
        // Options: a source route, or anything.
        (v4(0x46, 6), false),
        (v4(0x47, 17), false),
        (v4(0x4f, 6), false),
        (v4(0x46, 2), true),
        (v6(6, 0), true),
        (v6(17, 0), true),
        (v6(58, 0), true),
        // Routing, destination options, fragments, another address family.
        (v6(43, 6), false),
        (v6(60, 6), false),
        (v6(44, 6), false),
        (v6(41, 6), false),
        (v6(0, 6), true),
        (v6(0, 58), true),
        (v6(0, 43), false),
        (v6(0, 17), false),
        (v4(0x55, 6), false),
        (v4(0x45, 6)[..20].to_vec(), true),
        (v4(0x45, 6)[..19].to_vec(), false),
        (v6(6, 0)[..40].to_vec(), false),
        (vec![], false),
    ] {
        assert_eq!(leaves(&packet), expected, "{packet:?}");
    }
}

/// The kernel's verifier takes what is generated, the largest too. Needs root, as every test that makes containers.
#[test]
fn the_kernel_takes_it() {
    let widest = |kind: &str| (0..128).map(|n| format!("{kind}={} ", entry(kind, n))).collect::<String>();
    let ring = super::ring().unwrap();
    let (events, lost) = (ring.events.as_raw_fd(), ring.lost.as_raw_fd());
    let watches = [(true, false), (false, true), (true, true)].map(|(told, flows)| Watch { told, flows, scan: 20 });
    let tells = watches.map(|watch| Tells { watch, events, lost, names_listeners: true });
    for text in
        [None, Some(String::new()), Some("bind=80 connect=*:*".into()), Some(widest("bind")), Some(widest("connect"))]
    {
        let open = text.as_deref().map(open).unwrap_or_default();
        for tells in [None].into_iter().chain(tells.iter().map(Some)) {
            for (hook, program) in programs(&open, tells) {
                bpf::load(hook, &program).unwrap_or_else(|e| panic!("{} {tells:?}: {e}", hook.name));
            }
        }
        // Both ways to tell of a listener; the first needs Linux 6.10.
        for names_listeners in [true, false] {
            let program = listens(open.bind.as_deref(), &Tells { names_listeners, ..tells[0] });
            bpf::load(LISTEN, &program).unwrap_or_else(|e| panic!("{} {names_listeners}: {e}", LISTEN.name));
        }
    }
    // The verifier is asked indeed: a program without its answer is refused.
    for (hook, program) in programs(&open("bind=80 connect=*:*"), None) {
        assert!(bpf::load(hook, &program[..program.len() - 2]).is_err(), "{}", hook.name);
    }
}

fn entry(kind: &str, n: usize) -> String {
    match (kind, n % 2) {
        ("bind", 0) => format!("{}-{}", 8 * n + 1, 8 * n + 7),
        ("bind", _) => format!("{n}/udp"),
        (_, 0) => format!("10.{n}.0.0/17:{}-{}", n + 1, n + 3),
        _ => format!("[2001:db8:{n}::/65]:{}-{}", n + 1, n + 3),
    }
}

/// What is open, read as a person reads it.
fn by_hand(open: &Open, address: IpAddr, port: u16, protocol: u32) -> bool {
    let plain = match address {
        IpAddr::V6(a) => a.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    };
    open.connect.iter().flatten().any(|d| {
        let of = if d.ports.protocol == Protocol::Tcp { TCP } else { UDP };
        let there = match (d.network, plain) {
            (Network::Any, _) => true,
            (Network::V4(a, n), IpAddr::V4(b)) => {
                n == 0 || a.to_bits() >> (32 - u32::from(n)) == b.to_bits() >> (32 - u32::from(n))
            }
            (Network::V6(a, n), IpAddr::V6(b)) => {
                n == 0 || a.to_bits() >> (128 - u32::from(n)) == b.to_bits() >> (128 - u32::from(n))
            }
            _ => false,
        };
        there && of == protocol && (d.ports.first..=d.ports.last).contains(&port)
    })
}

fn an_address() -> impl Strategy<Value = IpAddr> {
    let near = prop::sample::select(vec!["10.0.0.0", "10.0.0.1", "255.255.255.255", "128.0.0.0"]);
    let near6 =
        prop::sample::select(vec!["::", "::1", "fd00::1", "::ffff:10.0.0.1", "::ffff:255.255.255.255", "ffff::"]);
    prop_oneof![
        any::<u32>().prop_map(|n| IpAddr::V4(Ipv4Addr::from_bits(n))),
        any::<u128>().prop_map(|n| IpAddr::V6(Ipv6Addr::from_bits(n))),
        (near, 0_u32..4).prop_map(|(a, n)| {
            let a: Ipv4Addr = a.parse().unwrap();
            IpAddr::V4(Ipv4Addr::from_bits(a.to_bits() ^ n))
        }),
        (near6, 0_u128..4).prop_map(|(a, n)| {
            let a: Ipv6Addr = a.parse().unwrap();
            IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() ^ n))
        }),
    ]
}

fn a_destination() -> impl Strategy<Value = String> {
    let ports = prop::sample::select(vec!["443", "1-3", "53/udp", "*", "*/udp", "65535"]);
    (an_address(), 0_u8..=128, any::<bool>(), ports).prop_map(|(address, bits, every, ports)| match address {
        _ if every => format!("*:{ports}"),
        IpAddr::V4(a) => {
            let bits = u32::from(bits % 33);
            let a = Ipv4Addr::from_bits(a.to_bits() & u32::MAX.checked_shl(32 - bits).unwrap_or(0));
            format!("{a}/{bits}:{ports}")
        }
        IpAddr::V6(a) => {
            let a = Ipv6Addr::from_bits(a.to_bits() & u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0));
            match a.to_ipv4_mapped() {
                Some(a) => format!("{a}:{ports}"),
                None => format!("[{a}/{bits}]:{ports}"),
            }
        }
    })
}

proptest! {
    #[test]
    fn the_programs_and_what_is_open_agree(
        list in prop::collection::vec(a_destination(), 0..6),
        address in an_address(),
        port in prop::sample::select(vec![0_u16, 1, 2, 4, 53, 443, 444, 65535]),
        protocol in prop::sample::select(vec![TCP, UDP, 132]),
    ) {
        let text: String = list.iter().map(|d| format!("connect={d} ")).collect();
        let open = open(&text);
        let expected = by_hand(&open, address, port, protocol);
        prop_assert_eq!(reaches(&open, &address.to_string(), port, protocol), expected, "{} {}", text, address);
        // Telling changes no answer.
        let hook = if address.is_ipv4() { CONNECT4 } else { CONNECT6 };
        let machine = question(address, port, protocol);
        let program = programs(&open, Some(&tell::tells(true, true))).into_iter().find(|(h, _)| *h == hook).unwrap().1;
        prop_assert_eq!(machine.run(&program), u64::from(expected));
    }
}
