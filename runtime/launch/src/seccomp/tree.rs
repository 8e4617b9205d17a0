//! The dispatcher: a binary tree of "number >= k" over runs of numbers that answer alike. The kernel walks a program
//! once per call number when it is installed, so depth counts: about eight steps here, hundreds in a chain.
use super::compile::{Answer, SeccompError};
use super::profile::Action;
use boltseal_profiles::Arch;
use seccompiler::{BpfProgram, sock_filter};

const LD_W_ABS: u16 = 0x20;
const JMP_JA: u16 = 0x05;
const JMP_JEQ_K: u16 = 0x15;
const JMP_JGE_K: u16 = 0x35;
const RET_K: u16 = 0x06;
/// Offsets in struct seccomp_data.
const NR: u32 = 0;
const ARCH: u32 = 4;

pub(super) const ENOSYS: Action = Action::Errno(38);

/// `AUDIT_ARCH_*` of uapi/linux/audit.h.
#[must_use]
pub(super) fn audit_arch(arch: Arch) -> u32 {
    match arch {
        Arch::X86_64 => 0xC000_003E,
        Arch::Aarch64 => 0xC000_00B7,
    }
}

pub(super) fn ret(value: u32) -> sock_filter {
    insn(RET_K, 0, 0, value)
}

fn insn(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

type Leaf<'a> = &'a dyn Fn(&Answer) -> Result<BpfProgram, SeccompError>;

/// The whole program. `answers` in ascending order of numbers; gaps, all after the last and x32 answer ENOSYS.
pub(super) fn program(answers: &[(u32, Answer)], arch: Arch, leaf: Leaf<'_>) -> Result<BpfProgram, SeccompError> {
    let mut code = vec![
        insn(LD_W_ABS, 0, 0, ARCH),
        insn(JMP_JEQ_K, 1, 0, audit_arch(arch)),
        ret(ENOSYS.ret()),
        insn(LD_W_ABS, 0, 0, NR),
    ];
    code.extend(subtree(&runs(answers), leaf)?);
    Ok(code)
}

/// Maximal runs of numbers with the same answer: (first number, answer). The first starts at 0, the last has no end.
fn runs(answers: &[(u32, Answer)]) -> Vec<(u32, Answer)> {
    let mut runs: Vec<(u32, Answer)> = vec![(0, Answer::Always(ENOSYS))];
    let mut push = |from: u32, answer: Answer| match runs.last_mut() {
        Some((_, last)) if *last == answer => {}
        Some(last) if last.0 == from => last.1 = answer,
        _ => runs.push((from, answer)),
    };
    let mut next = 0;
    for (number, answer) in answers {
        if *number > next {
            push(next, Answer::Always(ENOSYS));
        }
        push(*number, answer.clone());
        next = number + 1;
    }
    push(next, Answer::Always(ENOSYS));
    runs
}

fn subtree(runs: &[(u32, Answer)], leaf: Leaf<'_>) -> Result<BpfProgram, SeccompError> {
    let (left, right) = match runs {
        [] => return Ok(vec![ret(ENOSYS.ret())]),
        [(_, answer)] => return leaf(answer),
        _ => runs.split_at(runs.len() / 2),
    };
    let pivot = right.first().map_or(0, |(from, _)| *from);
    let low = subtree(left, leaf)?;
    let high = subtree(right, leaf)?;
    let mut code = Vec::with_capacity(2 + low.len() + high.len());
    match u8::try_from(low.len()) {
        Ok(distance) => code.push(insn(JMP_JGE_K, distance, 0, pivot)),
        // A conditional jump reaches 255 instructions, an unconditional one any distance.
        Err(_) => {
            let distance = u32::try_from(low.len()).map_err(|_| SeccompError("the filter is too long".into()))?;
            code.push(insn(JMP_JGE_K, 0, 1, pivot));
            code.push(insn(JMP_JA, 0, 0, distance));
        }
    }
    code.extend(low);
    code.extend(high);
    Ok(code)
}
