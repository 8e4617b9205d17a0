//! From sealed rules to BPF instructions. The context that the kernel hands over (uapi `bpf_cgroup_dev_ctx`): access and
//! type in one word (access << 16 | type), major, minor.
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use std::collections::BTreeMap;

/// One instruction of eBPF as the kernel takes it (uapi `bpf_insn`; both registers share a byte, destination low).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) code: u8,
    pub(crate) registers: u8,
    pub(crate) offset: i16,
    pub(crate) immediate: i32,
}

/// A program that allows what its rules allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program(Vec<Instruction>);

// uapi: BPF_DEVCG_DEV_*, BPF_DEVCG_ACC_*.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;
const ALL: i32 = MKNOD | READ | WRITE;

// Operations (uapi linux/bpf.h): class | size or source | mode or operation.
pub(super) const LOAD_WORD: u8 = 0x61; // LDX | W | MEM
pub(super) const MOVE: u8 = 0xbf; // ALU64 | X | MOV
pub(super) const MOVE_VALUE: u8 = 0xb7; // ALU64 | K | MOV
pub(super) const AND_VALUE: u8 = 0x57; // ALU64 | K | AND
pub(super) const SHIFT_RIGHT: u8 = 0x77; // ALU64 | K | RSH
pub(super) const JUMP_IF_NOT: u8 = 0x55; // JMP | K | JNE
pub(super) const EXIT: u8 = 0x95; // JMP | EXIT

/// Registers: 0 the answer, 1 the context, 2 to 5 ours.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// Most devices of one container; far below what the kernel takes.
const MOST: usize = 512;

/// What is allowed of one device: (type, major, minor or every one).
type Device = (i32, i32, Option<i32>);

impl Program {
    pub(crate) fn instructions(&self) -> &[Instruction] {
        &self.0
    }

    /// # Errors
    /// Anything but: one rule that denies every device every access, then rules that allow devices by their major number.
    pub(crate) fn of(rules: &[LinuxDeviceCgroup]) -> Result<Self, String> {
        let (first, rest) = rules.split_first().ok_or("there are none, and without them every device would be open")?;
        let everything = matches!(first.typ(), None | Some(LinuxDeviceType::A));
        let numbers = number(first.major())?.is_none() && number(first.minor())?.is_none();
        if first.allow() || !everything || !numbers || accesses(first)? != ALL {
            return Err("the first does not deny every device".into());
        }
        let mut devices: BTreeMap<Device, i32> = BTreeMap::new();
        for rule in rest {
            if !rule.allow() {
                return Err("a device is denied after others were allowed".into());
            }
            let kind = match rule.typ() {
                Some(LinuxDeviceType::B) => BLOCK,
                Some(LinuxDeviceType::C | LinuxDeviceType::U) => CHARACTER,
                other => return Err(format!("type {other:?} is no device")),
            };
            let major = number(rule.major())?.ok_or("every major number would be allowed")?;
            *devices.entry((kind, major, number(rule.minor())?)).or_default() |= accesses(rule)?;
        }
        if devices.len() > MOST {
            return Err(format!("{} devices, at most {MOST} are taken", devices.len()));
        }
        Ok(Self(assemble(&devices)))
    }
}

/// A device number; -1 is OCI's other way to say every one.
fn number(given: Option<i64>) -> Result<Option<i32>, String> {
    match given {
        None | Some(-1) => Ok(None),
        // MINORBITS is 20 and MAJORBITS 12 (linux/kdev_t.h).
        Some(n) if (0..1 << 20).contains(&n) => i32::try_from(n).map(Some).map_err(|e| e.to_string()),
        Some(n) => Err(format!("{n} is no device number")),
    }
}

fn accesses(rule: &LinuxDeviceCgroup) -> Result<i32, String> {
    let text = rule.access().as_deref().unwrap_or_default();
    text.chars().try_fold(0, |all, letter| match letter {
        'r' => Ok(all | READ),
        'w' => Ok(all | WRITE),
        'm' => Ok(all | MKNOD),
        other => Err(format!("access {other:?} is not known")),
    })
}

fn assemble(devices: &BTreeMap<Device, i32>) -> Vec<Instruction> {
    let with =
        |code, to: u8, from: u8, offset, immediate| Instruction { code, registers: from << 4 | to, offset, immediate };
    let mut out = vec![
        with(LOAD_WORD, KIND, CONTEXT, 0, 0),
        with(MOVE, ACCESS, KIND, 0, 0),
        with(AND_VALUE, KIND, 0, 0, 0xffff),
        with(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        with(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        with(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for ((kind, major, minor), allowed) in devices {
        // Each test leaves the block when it fails; how far that is shows once the block is whole.
        let mut block = vec![with(JUMP_IF_NOT, KIND, 0, 0, *kind), with(JUMP_IF_NOT, MAJOR, 0, 0, *major)];
        block.extend(minor.map(|minor| with(JUMP_IF_NOT, MINOR, 0, 0, minor)));
        if *allowed != ALL {
            // Nothing may be asked that is not allowed. The answer's register is free until it is given.
            block.push(with(MOVE, ANSWER, ACCESS, 0, 0));
            block.push(with(AND_VALUE, ANSWER, 0, 0, ALL & !allowed));
            block.push(with(JUMP_IF_NOT, ANSWER, 0, 0, 0));
        }
        block.push(with(MOVE_VALUE, ANSWER, 0, 0, 1));
        block.push(with(EXIT, 0, 0, 0, 0));
        let length = block.len();
        for (at, instruction) in block.iter_mut().enumerate().filter(|(_, i)| i.code == JUMP_IF_NOT) {
            instruction.offset = i16::try_from(length - at - 1).unwrap_or(i16::MAX);
        }
        out.extend(block);
    }
    out.push(with(MOVE_VALUE, ANSWER, 0, 0, 0));
    out.push(with(EXIT, 0, 0, 0, 0));
    out
}
