//! Tests: a small interpreter of the instructions that are used. A step that the kernel's verifier would refuse panics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
use super::code::{
    ADD_VALUE, AND_VALUE, AND_WORD, EXIT, Instruction, JUMP_IF, JUMP_IF_ABOVE, JUMP_IF_BELOW, JUMP_IF_BEYOND,
    JUMP_IF_NOT, JUMP_IF_WORD_NOT, LOAD_BYTE, LOAD_LONG, LOAD_WORD, MOVE, MOVE_VALUE, SHIFT_RIGHT, TO_BIG_ENDIAN,
};
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
}

/// Longest run: no jump goes back, so a program ends within its own length.
const STEPS: usize = 1 << 16;
/// Where the context is among the pointers.
const CONTEXT: usize = usize::MAX;

impl Machine {
    pub(crate) fn new(context: Object) -> Self {
        Self { context, objects: Vec::new(), packet: Vec::new() }
    }

    /// Runs a program as the kernel does: its answer.
    pub(crate) fn run(&self, program: &[Instruction]) -> u64 {
        let (mut r, mut pc) = ([None; 11], 0_usize);
        r[1] = Some(Value::Pointer(CONTEXT));
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
                        Value::Pointer(_) => panic!("a pointer is moved"),
                    });
                    false
                }
                AND_VALUE | AND_WORD | SHIFT_RIGHT | TO_BIG_ENDIAN => {
                    let n = number(r[to]);
                    r[to] = Some(Value::Number(match i.code {
                        AND_VALUE => n & immediate,
                        AND_WORD => n & u64::from(i.immediate.cast_unsigned()),
                        SHIFT_RIGHT => n >> immediate,
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
            Value::Number(n) => panic!("{n} is no pointer"),
        }
    }
}
