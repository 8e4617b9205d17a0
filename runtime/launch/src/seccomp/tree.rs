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
    let mut backwards = Backwards { code: Vec::new(), leaf };
    let start = backwards.subtree(&runs(answers))?;
    backwards.go_to(start)?;
    let mut code = vec![
        insn(LD_W_ABS, 0, 0, ARCH),
        insn(JMP_JEQ_K, 1, 0, audit_arch(arch)),
        ret(ENOSYS.ret()),
        insn(LD_W_ABS, 0, 0, NR),
    ];
    code.extend(backwards.code.into_iter().rev());
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

/// A program that is written from its end, for jumps go forwards only: what both ways of a comparison lead to is there
/// before it, and an answer that is within reach is not written again.
struct Backwards<'a> {
    /// The last instruction first. A place in the program is its distance from the end.
    code: Vec<sock_filter>,
    leaf: Leaf<'a>,
}

/// How far a conditional jump reaches.
const REACH: usize = 255;

impl Backwards<'_> {
    /// Writes what tells these runs apart. Answers with the place where it begins.
    fn subtree(&mut self, runs: &[(u32, Answer)]) -> Result<usize, SeccompError> {
        let (left, right) = match runs {
            [] => return self.answer(&Answer::Always(ENOSYS)),
            [(_, answer)] => return self.answer(answer),
            _ => runs.split_at(runs.len() / 2),
        };
        let pivot = right.first().map_or(0, |(from, _)| *from);
        let high = self.subtree(right)?;
        let low = self.subtree(left)?;
        // The jump to what lies farther away comes first, so that it stands next to the comparison.
        let (high, low) = (self.within_reach(high, 1)?, self.within_reach(low, 0)?);
        let (jt, jf) = (self.distance(high)?, self.distance(low)?);
        Ok(self.push(insn(JMP_JGE_K, jt, jf, pivot)))
    }

    fn answer(&mut self, answer: &Answer) -> Result<usize, SeccompError> {
        let code = (self.leaf)(answer)?;
        if let [only] = code.as_slice() {
            // Half the reach: the other half is for what is written between it and whoever jumps there.
            let near = self.code.iter().rev().take(REACH / 2).position(|written| written == only);
            if let Some(back) = near {
                return Ok(self.code.len() - 1 - back);
            }
        }
        self.code.extend(code.into_iter().rev());
        Ok(self.code.len() - 1)
    }

    fn push(&mut self, instruction: sock_filter) -> usize {
        self.code.push(instruction);
        self.code.len() - 1
    }

    /// Instructions between the next one to be written and this place.
    fn distance(&self, place: usize) -> Result<u8, SeccompError> {
        u8::try_from(self.code.len() - 1 - place).map_err(|_| SeccompError("a jump of the filter is too long".into()))
    }

    /// The place, or one that leads there, from where a conditional jump can be written after `more` instructions.
    fn within_reach(&mut self, place: usize, more: usize) -> Result<usize, SeccompError> {
        let distance = self.code.len() - 1 - place;
        if distance + more <= REACH {
            return Ok(place);
        }
        let far = u32::try_from(distance).map_err(|_| SeccompError("the filter is too long".into()))?;
        Ok(self.push(insn(JMP_JA, 0, 0, far)))
    }

    /// What is written next runs into this place.
    fn go_to(&mut self, place: usize) -> Result<(), SeccompError> {
        if place + 1 == self.code.len() {
            return Ok(());
        }
        let distance = u32::try_from(self.code.len() - 1 - place);
        self.push(insn(JMP_JA, 0, 0, distance.map_err(|_| SeccompError("the filter is too long".into()))?));
        Ok(())
    }
}
