//! Instructions of eBPF and how they are put together (uapi linux/bpf.h, Documentation/bpf/standardization).

/// One instruction as the kernel takes it (uapi `bpf_insn`; both registers share a byte, destination low).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) code: u8,
    pub(crate) registers: u8,
    pub(crate) offset: i16,
    pub(crate) immediate: i32,
}

// Operations: class | size or source | mode or operation.
pub(crate) const LOAD_BYTE: u8 = 0x71; // LDX | B | MEM
pub(crate) const LOAD_WORD: u8 = 0x61; // LDX | W | MEM
pub(crate) const LOAD_LONG: u8 = 0x79; // LDX | DW | MEM
pub(crate) const MOVE: u8 = 0xbf; // ALU64 | X | MOV
pub(crate) const MOVE_VALUE: u8 = 0xb7; // ALU64 | K | MOV
pub(crate) const ADD_VALUE: u8 = 0x07; // ALU64 | K | ADD
pub(crate) const AND_VALUE: u8 = 0x57; // ALU64 | K | AND
pub(crate) const AND_WORD: u8 = 0x54; // ALU | K | AND
pub(crate) const SHIFT_RIGHT: u8 = 0x77; // ALU64 | K | RSH
pub(crate) const TO_BIG_ENDIAN: u8 = 0xdc; // ALU | X | END: the immediate says how many bits
pub(crate) const JUMP_IF: u8 = 0x15; // JMP | K | JEQ
pub(crate) const JUMP_IF_NOT: u8 = 0x55; // JMP | K | JNE
pub(crate) const JUMP_IF_WORD_NOT: u8 = 0x56; // JMP32 | K | JNE
pub(crate) const JUMP_IF_BELOW: u8 = 0xa5; // JMP | K | JLT
pub(crate) const JUMP_IF_ABOVE: u8 = 0x25; // JMP | K | JGT
pub(crate) const JUMP_IF_BEYOND: u8 = 0x2d; // JMP | X | JGT
pub(crate) const JUMP: u8 = 0x05; // JMP | JA
pub(crate) const CALL: u8 = 0x85; // JMP | CALL: the immediate is the helper's number
pub(crate) const EXIT: u8 = 0x95; // JMP | EXIT
pub(crate) const STORE_WORD: u8 = 0x63; // STX | W | MEM
pub(crate) const STORE_LONG: u8 = 0x7b; // STX | DW | MEM
pub(crate) const ADD_ATOMIC: u8 = 0xdb; // STX | DW | ATOMIC, and an immediate of 0: ADD
pub(crate) const ADD: u8 = 0x0f; // ALU64 | X | ADD
pub(crate) const SHIFT_LEFT: u8 = 0x67; // ALU64 | K | LSH
pub(crate) const WIDE: u8 = 0x18; // LD | DW | IMM: of two instructions, a number of 64 bits or what `from` says

/// What a wide load names: a map by its descriptor, or a place in the only value of such a map.
pub(crate) const OF_MAP: u8 = 1;
pub(crate) const OF_VALUE: u8 = 2;

/// Registers: 0 the answer, 1 the context, 2 to 9 ours, 10 the stack's end. A call takes 1 to 5 and leaves none of them.
pub(crate) const ANSWER: u8 = 0;
pub(crate) const CONTEXT: u8 = 1;
pub(crate) const STACK: u8 = 10;

/// A jump whose way is not known yet: [`block`] fills in how far its end is.
const TO_THE_END: i16 = i16::MIN;

pub(crate) const fn with(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: from << 4 | to, offset, immediate }
}

pub(crate) const fn load_word(to: u8, from: u8, offset: i16) -> Instruction {
    with(LOAD_WORD, to, from, offset, 0)
}

pub(crate) const fn call(helper: i32) -> Instruction {
    with(CALL, 0, 0, 0, helper)
}

/// Loads a map, or a place in its value.
pub(crate) const fn wide(to: u8, what: u8, map: i32) -> [Instruction; 2] {
    [with(WIDE, to, what, 0, map), with(0, 0, 0, 0, 0)]
}

/// Leaves the block when the register compares so with the value.
pub(crate) const fn leave(code: u8, register: u8, value: i32) -> Instruction {
    with(code, register, 0, TO_THE_END, value)
}

/// The program ends with this answer.
pub(crate) const fn answer(value: i32) -> [Instruction; 2] {
    [with(MOVE_VALUE, ANSWER, 0, 0, value), with(EXIT, 0, 0, 0, 0)]
}

/// Tests, and what follows when none of them left: their jumps go behind its end.
pub(crate) fn block(mut block: Vec<Instruction>) -> Vec<Instruction> {
    let length = block.len();
    for (at, instruction) in block.iter_mut().enumerate().filter(|(_, i)| i.offset == TO_THE_END) {
        instruction.offset = i16::try_from(length - at - 1).unwrap_or(i16::MAX);
    }
    block
}
