//! What the programs tell, compared with what they answer.
use super::*;
use crate::bpf::interpreter::{CALLER, NOW};
use boltseal_message::{Kind, Seen};

pub(super) fn tells(told: bool, flows: bool) -> Tells {
    Tells { watch: Watch { told, flows, scan: 20 }, events: 3, lost: 4, names_listeners: true }
}

/// A program's answer and what it tells; None where there is no such program.
fn heard(open: &Open, tells: &Tells, hook: Hook, machine: &Machine) -> Option<(u64, Vec<Seen>)> {
    let all = programs(open, Some(tells));
    let (_, program) = all.iter().find(|(h, _)| *h == hook)?;
    let answer = machine.run(program);
    let told = machine.told.borrow().iter().map(|bytes| Seen::decode(bytes).unwrap()).collect();
    Some((answer, told))
}

fn seen(kind: Kind, udp: bool, address: &str, port: u16) -> Seen {
    let address = match address.parse().unwrap() {
        IpAddr::V4(a) => a.to_ipv6_mapped(),
        IpAddr::V6(a) => a,
    };
    Seen { kind, udp, port, address, pid: CALLER, comm: "caller".into(), at_boot_ns: NOW }
}

#[test]
fn what_is_refused_is_told_and_what_flows_where_it_is_asked_for() {
    let some = open("connect=10.0.0.0/8:443 connect=[fd00::/8]:53/udp");
    for (address, port, protocol, allowed) in [
        ("10.1.2.3", 443, TCP, true),
        ("11.1.2.3", 443, TCP, false),
        ("10.1.2.3", 443, UDP, false),
        ("fd00::7", 53, UDP, true),
        ("fc00::7", 53, UDP, false),
        ("::ffff:10.1.2.3", 443, TCP, true),
        ("::ffff:11.1.2.3", 443, TCP, false),
        ("255.255.255.255", 65_535, UDP, false),
    ] {
        let goal: IpAddr = address.parse().unwrap();
        for hook in if goal.is_ipv4() { [CONNECT4, SEND4] } else { [CONNECT6, SEND6] } {
            let refused = (!allowed).then(|| seen(Kind::Destination, protocol == UDP, address, port));
            let flow = allowed.then(|| seen(Kind::Flow, protocol == UDP, address, port));
            for (told, flows) in [(true, false), (false, true), (true, true)] {
                let expected = refused.iter().filter(|_| told).chain(flow.iter().filter(|_| flows)).cloned().collect();
                let heard = heard(&some, &tells(told, flows), hook, &question(goal, port, protocol));
                assert_eq!(heard, Some((u64::from(allowed), expected)), "{address} {port} {protocol} {told} {flows}");
            }
        }
    }
    // Nothing is confined: nobody is asked about a destination but for flows, and then everything is let through.
    let machine = || question("11.1.2.3".parse().unwrap(), 443, TCP);
    assert_eq!(heard(&Open::default(), &tells(true, false), CONNECT4, &machine()), None);
    let flow = vec![seen(Kind::Flow, false, "11.1.2.3", 443)];
    assert_eq!(heard(&Open::default(), &tells(false, true), CONNECT4, &machine()), Some((1, flow)));
}

#[test]
fn a_bind_is_told_when_it_is_refused_or_gives_a_udp_socket_a_name() {
    let some = open("bind=80 bind=53/udp");
    for (port, protocol, answer, unconfined, kind) in [
        (80, TCP, 1, 1, None),
        (81, TCP, 0, 1, Some(Kind::Bind)),
        (0, TCP, 0, 1, Some(Kind::Bind)),
        (53, UDP, 1, 1, Some(Kind::Listener)),
        (54, UDP, 0, 1, Some(Kind::Bind)),
        (0, UDP, 1, 1, None),
    ] {
        for (hook, at) in [(BIND4, "0.0.0.0"), (BIND4, "127.0.0.1"), (BIND6, "::"), (BIND6, "::ffff:127.0.0.1")] {
            let machine = || question(at.parse().unwrap(), port, protocol);
            let told = kind.map(|kind| seen(kind, protocol == UDP, at, port)).into_iter().collect();
            assert_eq!(heard(&some, &tells(true, false), hook, &machine()), Some((answer, told)), "{port} {protocol}");
            // Flows alone say nothing of it.
            assert_eq!(heard(&some, &tells(false, true), hook, &machine()), Some((answer, Vec::new())));
            let listener = (protocol == UDP && port != 0).then(|| seen(Kind::Listener, true, at, port));
            let free = heard(&Open::default(), &tells(true, false), hook, &machine());
            assert_eq!(free, Some((unconfined, listener.into_iter().collect())));
        }
    }
}

/// The kernel's word on a TCP socket: operation, family, own address and port.
fn becomes(operation: u32, address: IpAddr, port: u16) -> Machine {
    let context = Object::default().word(0, operation).word(68, u32::from(port));
    Machine::new(match address {
        IpAddr::V4(a) => context.word(20, 2).word(28, u32::from_ne_bytes(a.octets())),
        IpAddr::V6(a) => {
            let words = a.octets();
            let words = words.chunks_exact(4).zip((48_i16..).step_by(4));
            words.fold(context.word(20, 10), |c, (word, at)| c.word(at, u32::from_ne_bytes(word.try_into().unwrap())))
        }
    })
}

#[test]
fn every_listener_is_told_and_whether_anybody_reaches_it() {
    const LISTEN_CALLED: u32 = 11;
    for (grant, port, kind) in [
        (None, 40_000, Kind::Listener),
        (Some("bind=80 bind=9000-9001"), 80, Kind::Listener),
        (Some("bind=80 bind=9000-9001"), 9001, Kind::Listener),
        (Some("bind=80 bind=9000-9001"), 40_000, Kind::Unreachable),
        (Some("bind=80/udp"), 80, Kind::Unreachable),
        (Some(""), 80, Kind::Unreachable),
        (Some("bind=0"), 40_000, Kind::Listener),
        (Some("bind=*"), 40_000, Kind::Listener),
    ] {
        let open = grant.map(open).unwrap_or_default();
        for address in ["0.0.0.0", "127.0.0.1", "::", "::1", "::ffff:10.0.0.1"] {
            for names_listeners in [true, false] {
                let program = listens(open.bind.as_deref(), &Tells { names_listeners, ..tells(true, false) });
                let machine = becomes(LISTEN_CALLED, address.parse().unwrap(), port);
                assert_eq!(machine.run(&program), 1);
                let pid = if names_listeners { CALLER } else { 0 };
                let expected = Seen { pid, comm: String::new(), ..seen(kind, false, address, port) };
                let told: Vec<_> = machine.told.borrow().iter().map(|b| Seen::decode(b).unwrap()).collect();
                assert_eq!(told, [expected], "{grant:?}");
                // Connections, retransmissions and all else.
                for operation in (0..20).filter(|n| *n != LISTEN_CALLED) {
                    let machine = becomes(operation, address.parse().unwrap(), port);
                    assert_eq!((machine.run(&program), machine.told.borrow().len()), (1, 0));
                }
            }
        }
    }
}

#[test]
fn a_full_ring_changes_no_answer_and_what_finds_no_room_is_counted_by_its_kind() {
    let some = open("connect=10.0.0.1:443 bind=53/udp");
    let full = |mut machine: Machine| {
        machine.full = true;
        machine
    };
    let to = |address: &str| full(question(address.parse().unwrap(), 443, TCP));
    for (hook, machine, kind) in [
        (CONNECT4, to("10.0.0.1"), Kind::Flow),
        (CONNECT4, to("10.0.0.2"), Kind::Destination),
        (BIND4, full(question("0.0.0.0".parse().unwrap(), 80, TCP)), Kind::Bind),
        (BIND4, full(question("0.0.0.0".parse().unwrap(), 53, UDP)), Kind::Listener),
    ] {
        let answer = u64::from(!kind.refused());
        assert_eq!(heard(&some, &tells(true, true), hook, &machine), Some((answer, Vec::new())));
        let expected = Kind::ALL.map(|k| u64::from(k == kind));
        assert_eq!(*machine.lost.borrow(), expected);
    }
    // What flows leaves room for what is refused.
    for (held, flows) in [(boltseal_message::RING_LEN / 2, true), (boltseal_message::RING_LEN / 2 + 1, false)] {
        for (address, kind) in [("10.0.0.1", Kind::Flow), ("10.0.0.2", Kind::Destination)] {
            let mut machine = question(address.parse().unwrap(), 443, TCP);
            machine.held = u64::from(held);
            let told = heard(&some, &tells(true, true), CONNECT4, &machine).unwrap().1.len();
            assert_eq!(told == 1, flows || kind == Kind::Destination, "{held} {address}");
            assert_eq!(machine.lost.borrow().iter().sum::<u64>(), u64::from(told == 0));
        }
    }
}
