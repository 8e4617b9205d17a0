//! What a program tells beside its answer: one event in a ring, of the form that `boltseal_message::Seen` reads. Telling changes no
//! answer. When nobody takes events any more, the ring is full and the rest is counted; what is refused stays refused.
use super::program::{PORT, PROTOCOL, UDP, WORDS};
use crate::bpf::code::{
    ADD, ADD_ATOMIC, ADD_VALUE, ANSWER, EXIT, Instruction, JUMP, JUMP_IF, JUMP_IF_ABOVE, JUMP_IF_NOT, MOVE, MOVE_VALUE,
    OF_MAP, OF_VALUE, SHIFT_LEFT, SHIFT_RIGHT, STACK, STORE_LONG, STORE_WORD, block, call, leave, wide, with,
};
use boltseal_message::{At, EVENT_LEN, Kind, RING_LEN};
use boltseal_seal::network::Watch;
use std::os::fd::RawFd;

/// What is told, and the maps that it goes to: see [`super::Ring`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tells {
    pub(crate) watch: Watch,
    pub(crate) events: RawFd,
    pub(crate) lost: RawFd,
    /// This kernel names the caller of `listen` (Linux 6.10); elsewhere a listener is nobody's.
    pub(crate) names_listeners: bool,
}

// Helpers (uapi linux/bpf.h); none of them asks for a license.
const CURRENT_PID: i32 = 14;
const CURRENT_NAME: i32 = 16;
const TIME_SINCE_BOOT: i32 = 125;
const RING_OUTPUT: i32 = 130;
const RING_QUERY: i32 = 134;

// Registers that a call leaves alone. The verdict lies where `program` has its scratch.
const VERDICT: u8 = 8;
const KIND: u8 = 9;

/// Where the event begins on the stack.
const EVENT: i16 = -(EVENT_LEN as i16);

const fn place(at: At) -> i16 {
    EVENT + at as i16
}

/// A bind that is refused, and a UDP socket that gets a port by name: one of the kernel's choice is what a first send brings as well.
pub(super) fn binds(body: Vec<Instruction>, tells: Option<&Tells>) -> Vec<Instruction> {
    let Some(tells) = tells else { return body };
    let by_name = [leave(JUMP_IF, ANSWER, 0), leave(JUMP_IF_NOT, PROTOCOL, UDP), leave(JUMP_IF, PORT, 0)];
    let kinds = [kind(&[leave(JUMP_IF_NOT, ANSWER, 0)], Kind::Bind), kind(&by_name, Kind::Listener)];
    telling(body, &kinds.concat(), tells, true)
}

/// A connect or a datagram: refused, let through, or both.
pub(super) fn destinations(body: Vec<Instruction>, refused: Option<&Tells>, flows: Option<&Tells>) -> Vec<Instruction> {
    let Some(tells) = refused.or(flows) else { return body };
    let mut kinds = Vec::new();
    kinds.extend(refused.map(|_| kind(&[leave(JUMP_IF_NOT, ANSWER, 0)], Kind::Destination)));
    kinds.extend(flows.map(|_| kind(&[leave(JUMP_IF, ANSWER, 0)], Kind::Flow)));
    telling(body, &kinds.concat(), tells, true)
}

/// A listener. Nothing is asked here: the answer of `body` says whether anybody reaches it, and is not given.
pub(super) fn listeners(body: Vec<Instruction>, tells: &Tells) -> Vec<Instruction> {
    let mut kinds = kind(&[leave(JUMP_IF, ANSWER, 0)], Kind::Listener);
    kinds.extend(kind(&[leave(JUMP_IF_NOT, ANSWER, 0)], Kind::Unreachable));
    kinds.push(with(MOVE_VALUE, VERDICT, 0, 0, 1));
    telling(body, &kinds, tells, false)
}

/// The event is of this kind when no test leaves.
fn kind(tests: &[Instruction], kind: Kind) -> Vec<Instruction> {
    block([tests, &[with(MOVE_VALUE, KIND, 0, 0, kind as i32)]].concat())
}

/// `body`, whose answers now lead to its end. There `kinds` finds the kind of the event, if there is one, and then it is made.
fn telling(body: Vec<Instruction>, kinds: &[Instruction], tells: &Tells, names: bool) -> Vec<Instruction> {
    let mut out = answers_lead_to_the_end(body);
    out.push(with(MOVE, VERDICT, ANSWER, 0, 0));
    out.push(with(MOVE_VALUE, KIND, 0, 0, 0));
    out.extend_from_slice(kinds);
    let mut tell = vec![leave(JUMP_IF, KIND, 0)];
    tell.extend(event(tells, names));
    tell.extend(send(tells));
    // 0: it is in the ring.
    tell.push(leave(JUMP_IF, ANSWER, 0));
    tell.extend(count(tells));
    out.extend(block(tell));
    out.push(with(MOVE, ANSWER, VERDICT, 0, 0));
    out.push(with(EXIT, 0, 0, 0, 0));
    out
}

fn answers_lead_to_the_end(mut body: Vec<Instruction>) -> Vec<Instruction> {
    let length = body.len();
    for (at, instruction) in body.iter_mut().enumerate().filter(|(_, i)| i.code == EXIT) {
        *instruction = with(JUMP, 0, 0, i16::try_from(length - at - 1).unwrap_or(i16::MAX), 0);
    }
    body
}

/// The event on the stack; `names`: the caller is known here on every kernel.
fn event(tells: &Tells, names: bool) -> Vec<Instruction> {
    let mut out = vec![
        with(STORE_WORD, STACK, KIND, place(At::Kind), 0),
        with(STORE_WORD, STACK, PROTOCOL, place(At::Protocol), 0),
        with(STORE_WORD, STACK, PORT, place(At::Port), 0),
    ];
    out.extend((0..4).map(|n| with(STORE_WORD, STACK, WORDS + n, place(At::Address) + i16::from(n) * 4, 0)));
    if names || tells.names_listeners {
        out.extend([call(CURRENT_PID), with(SHIFT_RIGHT, ANSWER, 0, 0, 32)]);
    } else {
        out.push(with(MOVE_VALUE, ANSWER, 0, 0, 0));
    }
    out.push(with(STORE_WORD, STACK, ANSWER, place(At::Process), 0));
    if names {
        out.extend([
            with(MOVE, 1, STACK, 0, 0),
            with(ADD_VALUE, 1, 0, 0, i32::from(place(At::Name))),
            with(MOVE_VALUE, 2, 0, 0, 16),
            call(CURRENT_NAME),
        ]);
    } else {
        out.push(with(MOVE_VALUE, ANSWER, 0, 0, 0));
        out.extend([0, 8].map(|more| with(STORE_LONG, STACK, ANSWER, place(At::Name) + more, 0)));
    }
    out.extend([call(TIME_SINCE_BOOT), with(STORE_LONG, STACK, ANSWER, place(At::Time), 0)]);
    out
}

/// Sends it; leaves 0 when it was.
fn send(tells: &Tells) -> Vec<Instruction> {
    let map = wide(1, OF_MAP, tells.events);
    let mut out = Vec::new();
    if tells.watch.flows {
        // What is let through takes no more than half of the ring: it cannot keep out what is refused.
        let mut full = vec![leave(JUMP_IF_NOT, KIND, Kind::Flow as i32)];
        full.extend(map);
        full.extend([with(MOVE_VALUE, 2, 0, 0, 0), call(RING_QUERY)]);
        out.push(with(MOVE_VALUE, ANSWER, 0, 0, 0));
        out.extend(block(full));
        out.push(leave(JUMP_IF_ABOVE, ANSWER, HALF));
    }
    out.extend(map);
    out.extend([
        with(MOVE, 2, STACK, 0, 0),
        with(ADD_VALUE, 2, 0, 0, i32::from(EVENT)),
        with(MOVE_VALUE, 3, 0, 0, i32::from(-EVENT)),
        with(MOVE_VALUE, 4, 0, 0, 0),
        call(RING_OUTPUT),
    ]);
    block(out)
}

const HALF: i32 = RING_LEN as i32 / 2;

/// One more of its kind found no room.
fn count(tells: &Tells) -> Vec<Instruction> {
    let mut out = wide(1, OF_VALUE, tells.lost).to_vec();
    out.extend([
        with(ADD_VALUE, KIND, 0, 0, -1),
        with(SHIFT_LEFT, KIND, 0, 0, 3),
        with(ADD, 1, KIND, 0, 0),
        with(MOVE_VALUE, 2, 0, 0, 1),
        with(ADD_ATOMIC, 1, 2, 0, 0),
    ]);
    out
}
