//! From sealed rules to BPF instructions. The context that the kernel hands over (uapi `bpf_cgroup_dev_ctx`): access and
//! type in one word (access << 16 | type), major, minor.
use crate::bpf::code::{
    AND_VALUE, ANSWER, CONTEXT, Instruction, JUMP_IF_NOT, MOVE, SHIFT_RIGHT, answer, block, leave, load_word, with,
};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use std::collections::BTreeMap;

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

/// Registers of ours.
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
    let mut out = vec![
        load_word(KIND, CONTEXT, 0),
        with(MOVE, ACCESS, KIND, 0, 0),
        with(AND_VALUE, KIND, 0, 0, 0xffff),
        with(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        load_word(MAJOR, CONTEXT, 4),
        load_word(MINOR, CONTEXT, 8),
    ];
    for ((kind, major, minor), allowed) in devices {
        let mut tests = vec![leave(JUMP_IF_NOT, KIND, *kind), leave(JUMP_IF_NOT, MAJOR, *major)];
        tests.extend(minor.map(|minor| leave(JUMP_IF_NOT, MINOR, minor)));
        if *allowed != ALL {
            // Nothing may be asked that is not allowed. The answer's register is free until it is given.
            tests.push(with(MOVE, ANSWER, ACCESS, 0, 0));
            tests.push(with(AND_VALUE, ANSWER, 0, 0, ALL & !allowed));
            tests.push(leave(JUMP_IF_NOT, ANSWER, 0));
        }
        tests.extend(answer(1));
        out.extend(block(tests));
    }
    out.extend(answer(0));
    out
}
