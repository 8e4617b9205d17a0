//! Tests: a small interpreter of the instructions that are used. A step that the kernel's verifier would refuse panics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
use super::code::{
    ADD, ADD_ATOMIC, ADD_VALUE, AND_VALUE, AND_WORD, CALL, EXIT, Instruction, JUMP, JUMP_IF, JUMP_IF_ABOVE,
    JUMP_IF_BELOW, JUMP_IF_BEYOND, JUMP_IF_NOT, JUMP_IF_WORD_NOT, LOAD_BYTE, LOAD_LONG, LOAD_WORD, MOVE, MOVE_VALUE,
    OF_MAP, OF_VALUE, SHIFT_LEFT, SHIFT_RIGHT, STORE_LONG, STORE_WORD, TO_BIG_ENDIAN, WIDE,
};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Something that a program may read: fields by their offset. What is not in it may not be read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Object(pub(crate) BTreeMap<i16, Value>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value {
    Number(u64),
    /// Another object of the machine's, by its place.
    Pointer(usize),
    /// A place in the packet; its length is one too.
    Packet(usize),
    /// A place on the stack, from its end, which is 0.
    Stack(i64),
    /// The ring.
    Map,
    /// A place in the counters, bytes.
    Counter(u64),
}

impl Object {
    pub(crate) fn of_words(words: &[u32]) -> Self {
        let offsets = (0_i16..).step_by(4);
        Self(offsets.zip(words.iter().map(|w| Value::Number(u64::from(*w)))).collect())
    }

    pub(crate) fn set(mut self, offset: i16, value: Value) -> Self {
        self.0.insert(offset, value);
        self
    }

    pub(crate) fn word(self, offset: i16, value: u32) -> Self {
        self.set(offset, Value::Number(u64::from(value)))
    }
}

#[derive(Debug)]
pub(crate) struct Machine {
    context: Object,
    pub(crate) objects: Vec<Object>,
    pub(crate) packet: Vec<u8>,
    /// What the ring took, and what found no room in it.
    pub(crate) told: RefCell<Vec<Vec<u8>>>,
    pub(crate) lost: RefCell<[u64; boltseal_message::KINDS]>,
    /// The ring takes nothing more, or holds so many bytes.
    pub(crate) full: bool,
    pub(crate) held: u64,
}

/// Who calls, when: what the helpers say here.
pub(crate) const CALLER: u32 = 4711;
pub(crate) const CALLERS_NAME: &[u8; 16] = b"caller\0\0\0\0\0\0\0\0\0\0";
pub(crate) const NOW: u64 = 1 << 40;

type Registers = [Option<Value>; 11];
/// Bytes that were written; the kernel's verifier lets no other be read.
type Stack = [Option<u8>; 512];

/// Longest run: no jump goes back, so a program ends within its own length.
const STEPS: usize = 1 << 16;
/// Where the context is among the pointers.
const CONTEXT: usize = usize::MAX;

impl Machine {
    pub(crate) fn new(context: Object) -> Self {
        Self {
            context,
            objects: Vec::new(),
            packet: Vec::new(),
            told: RefCell::default(),
            lost: RefCell::default(),
            full: false,
            held: 0,
        }
    }

    /// Runs a program as the kernel does: its answer.
    pub(crate) fn run(&self, program: &[Instruction]) -> u64 {
        let (mut r, mut pc, mut stack): (Registers, usize, Stack) = ([None; 11], 0, [None; 512]);
        (r[1], r[10]) = (Some(Value::Pointer(CONTEXT)), Some(Value::Stack(0)));
        for _ in 0..STEPS {
            let i = program[pc];
            let (to, from) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
            let immediate = i64::from(i.immediate).cast_unsigned();
            let number = |register: Option<Value>| match register.expect("a register is read before it is set") {
                Value::Number(n) => n,
                other => panic!("{other:?} is no number"),
            };
            pc += 1;
            let jumps = match i.code {
                LOAD_BYTE | LOAD_WORD | LOAD_LONG => {
                    r[to] = Some(self.load(r[from].expect("a pointer"), i.offset, i.code));
                    false
                }
                MOVE | MOVE_VALUE => {
                    r[to] = if i.code == MOVE { r[from] } else { Some(Value::Number(immediate)) };
                    false
                }
                ADD_VALUE => {
                    r[to] = Some(match r[to].unwrap() {
                        Value::Number(n) => Value::Number(n.wrapping_add(immediate)),
                        Value::Packet(at) => Value::Packet(at + usize::try_from(immediate).unwrap()),
                        Value::Stack(at) => Value::Stack(at + i64::from(i.immediate)),
                        other => panic!("{other:?} is moved"),
                    });
                    false
                }
                ADD => {
                    let Some(Value::Counter(at)) = r[to] else { panic!("{:?} is moved", r[to]) };
                    r[to] = Some(Value::Counter(at + number(r[from])));
                    false
                }
                STORE_WORD | STORE_LONG => {
                    let Some(Value::Stack(base)) = r[to] else { panic!("{:?} is written to", r[to]) };
                    let length = if i.code == STORE_WORD { 4 } else { 8 };
                    let at = base + i64::from(i.offset);
                    assert!(at % length == 0 && at + length <= 0, "{at}");
                    write(&mut stack, at, &number(r[from]).to_ne_bytes()[..usize::try_from(length).unwrap()]);
                    false
                }
                ADD_ATOMIC => {
                    let Some(Value::Counter(at)) = r[to] else { panic!("{:?} is counted in", r[to]) };
                    assert!(i.immediate == 0 && i.offset == 0 && at % 8 == 0);
                    self.lost.borrow_mut()[usize::try_from(at / 8).unwrap()] += number(r[from]);
                    false
                }
                WIDE => {
                    r[to] = Some(match u8::try_from(from).unwrap() {
                        OF_MAP => Value::Map,
                        OF_VALUE => Value::Counter(0),
                        other => panic!("a wide load of {other}"),
                    });
                    pc += 1;
                    false
                }
                CALL => {
                    r[0] = Some(Value::Number(self.call(i.immediate, &r, &mut stack)));
                    r[1..6].fill(None);
                    false
                }
                JUMP => true,
                AND_VALUE | AND_WORD | SHIFT_LEFT | SHIFT_RIGHT | TO_BIG_ENDIAN => {
                    let n = number(r[to]);
                    r[to] = Some(Value::Number(match i.code {
                        AND_VALUE => n & immediate,
                        AND_WORD => n & u64::from(i.immediate.cast_unsigned()),
                        SHIFT_RIGHT => n >> immediate,
                        SHIFT_LEFT => n << immediate,
                        _ => u64::from(u16::try_from(n & 0xffff).unwrap().to_be()),
                    }));
                    assert!(i.code != TO_BIG_ENDIAN || i.immediate == 16);
                    false
                }
                // The only thing that a pointer may be compared with: null.
                JUMP_IF_NOT if matches!(r[to], Some(Value::Pointer(_))) => {
                    assert_eq!(immediate, 0);
                    true
                }
                JUMP_IF => number(r[to]) == immediate,
                JUMP_IF_NOT => number(r[to]) != immediate,
                JUMP_IF_WORD_NOT => number(r[to]) & 0xffff_ffff != u64::from(i.immediate.cast_unsigned()),
                JUMP_IF_BELOW => number(r[to]) < immediate,
                JUMP_IF_ABOVE => number(r[to]) > immediate,
                JUMP_IF_BEYOND => match (r[to].unwrap(), r[from].unwrap()) {
                    (Value::Packet(a), Value::Packet(b)) => a > b,
                    other => panic!("{other:?} are compared"),
                },
                EXIT => return number(r[0]),
                other => panic!("operation {other:#x}"),
            };
            if jumps {
                pc += usize::try_from(i.offset).expect("no jump goes back");
            }
        }
        panic!("it does not end");
    }

    /// The helpers that `network::tell` calls.
    fn call(&self, helper: i32, r: &Registers, stack: &mut Stack) -> u64 {
        let failed = (-1_i64).cast_unsigned();
        match (helper, r[1], r[2], r[3], r[4]) {
            (14, ..) => u64::from(CALLER) << 32 | 9,
            (16, Some(Value::Stack(at)), Some(Value::Number(16)), ..) => {
                write(stack, at, CALLERS_NAME);
                0
            }
            (125, ..) => NOW,
            (134, Some(Value::Map), Some(Value::Number(0)), ..) => self.held,
            (130, Some(Value::Map), Some(Value::Stack(at)), Some(Value::Number(length)), Some(Value::Number(0))) => {
                let begin = usize::try_from(512 + at).unwrap();
                let bytes = &stack[begin..begin + usize::try_from(length).unwrap()];
                let bytes = bytes.iter().map(|b| b.expect("a byte is told before it is written")).collect();
                if self.full {
                    return failed;
                }
                self.told.borrow_mut().push(bytes);
                0
            }
            other => panic!("a call of {other:?}"),
        }
    }

    fn load(&self, from: Value, offset: i16, code: u8) -> Value {
        match from {
            Value::Pointer(which) => {
                let object = if which == CONTEXT { &self.context } else { &self.objects[which] };
                let value = *object.0.get(&offset).unwrap_or_else(|| panic!("offset {offset} cannot be read"));
                let narrow = code == LOAD_WORD && matches!(value, Value::Number(n) if n <= u64::from(u32::MAX));
                // The kernel makes pointers of `data` and `data_end`, which the context shows as words.
                assert!(narrow || matches!(value, Value::Packet(_)) == (code == LOAD_WORD), "{value:?} by {code:#x}");
                value
            }
            Value::Packet(at) => {
                assert_eq!(code, LOAD_BYTE, "only bytes of a packet are read");
                Value::Number(u64::from(self.packet[at + usize::try_from(offset).unwrap()]))
            }
            other => panic!("{other:?} is not read from"),
        }
    }
}

fn write(stack: &mut Stack, at: i64, bytes: &[u8]) {
    let begin = usize::try_from(512 + at).unwrap();
    for (to, from) in stack[begin..begin + bytes.len()].iter_mut().zip(bytes) {
        *to = Some(*from);
    }
}
