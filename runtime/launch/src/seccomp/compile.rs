//! From a profile to what each call number answers, then to a program.
use super::profile::{Action, Arg, Op, Profile, Rule};
use super::tree;
use boltseal_profiles::{Arch, numbers};
use seccompiler::{BpfProgram, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule, sock_filter};
use std::collections::HashMap;

/// Longest program that the kernel takes.
const BPF_MAXINSNS: usize = 4096;

/// A profile cannot be installed as it is; the text says why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeccompError(pub String);

impl std::fmt::Display for SeccompError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SeccompError {}

/// A program ready to install.
#[derive(Debug, Clone)]
pub struct Compiled {
    pub program: BpfProgram,
    /// `SECCOMP_FILTER_FLAG_*` to install it with.
    pub flags: u64,
    /// Names that this architecture does not have or that are newer than our table. Such calls answer ENOSYS whatever
    /// the profile says, so leaving their rules out can only tighten.
    pub unknown: Vec<String>,
    /// Calls that are handed to the listener, ascending. Not empty: the filter is installed with one.
    pub traps: Vec<Trap>,
}

/// A call of the trip-wire: it is told to the listener, which refuses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trap {
    pub nr: u32,
    pub name: &'static str,
    /// What the listener answers.
    pub errno: u16,
    /// How many of its arguments tell what was tried: those that the filter looks at.
    pub args: u8,
}

/// What a profile may do and how it stands to the other filter.
pub(super) struct Reading<'a> {
    /// Names that may be handed to the listener; `None`: a pod's profile, which hands over nothing.
    pub(super) traps: Option<&'a dyn Fn(&str) -> bool>,
    /// Numbers that the base filter hands to the listener: an errno here would keep them from it.
    pub(super) yields: &'a [Trap],
}

/// One rule of one call, its names and action resolved: all conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    pub action: Action,
    pub args: Vec<Arg>,
}

/// What a call number answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Always(Action),
    /// Most restrictive first; the last word is the action for when none matches.
    Cases(Vec<Case>, Action),
}

/// Compiles an OCI profile (JSON) for one architecture.
///
/// # Errors
/// Not a profile; default action allow or log; notify, trace, a listener; an unknown flag; other architectures only;
/// an argument index above 5; a program longer than the kernel takes.
pub fn compile(json: &str, arch: Arch) -> Result<Compiled, SeccompError> {
    read(json, arch, &Reading { traps: None, yields: &[] })
}

/// The same for a pod's filter beside a base filter with a trip-wire. Of two filters an errno wins over the listener, so
/// that a call which this one refuses by errno and that one always hands over is left to that one: it is refused either way.
///
/// # Errors
/// As [`compile`].
pub fn compile_beside(json: &str, arch: Arch, base: &Compiled) -> Result<Compiled, SeccompError> {
    read(json, arch, &Reading { traps: None, yields: &base.traps })
}

/// Our own profile, in which `SCMP_ACT_NOTIFY` is the trip-wire for the calls that `traps` says; others of it get the errno.
///
/// # Errors
/// As [`compile`].
pub fn compile_own(json: &str, arch: Arch, traps: &dyn Fn(&str) -> bool) -> Result<Compiled, SeccompError> {
    read(json, arch, &Reading { traps: Some(traps), yields: &[] })
}

fn read(json: &str, arch: Arch, reading: &Reading<'_>) -> Result<Compiled, SeccompError> {
    let profile: Profile =
        serde_json::from_str(json).map_err(|e| SeccompError(format!("not an OCI seccomp profile: {e}")))?;
    check(&profile, arch, reading)?;
    let (mut answers, unknown) = answers(&profile, arch, reading)?;
    let traps = traps(&answers, arch);
    for trap in reading.yields {
        if let Some((_, answer)) = answers.iter_mut().find(|(nr, _)| *nr == trap.nr)
            && trap.args == 0
            && matches!(answer, Answer::Always(Action::Errno(_)))
        {
            *answer = Answer::Always(Action::Allow);
        }
    }
    let program = tree::program(&answers, arch, &leaf)?;
    if program.len() > BPF_MAXINSNS {
        return Err(SeccompError(format!(
            "the filter needs {} instructions, the kernel takes {BPF_MAXINSNS}",
            program.len()
        )));
    }
    Ok(Compiled { program, flags: flags(&profile)?, unknown, traps })
}

/// The calls that are handed over, always or by their arguments.
fn traps(answers: &Answers, arch: Arch) -> Vec<Trap> {
    let names: HashMap<u32, &'static str> = numbers(arch).map(|(name, nr)| (nr, name)).collect();
    let trap = |nr: &u32, errno, args| names.get(nr).copied().map(|name| Trap { nr: *nr, name, errno, args });
    let of = |(nr, answer): &(u32, Answer)| match answer {
        Answer::Always(Action::Notify(errno)) => trap(nr, *errno, 0),
        Answer::Always(_) => None,
        Answer::Cases(cases, last) => {
            let args = cases.iter().flat_map(|c| &c.args).map(|a| a.index + 1).max().unwrap_or(0);
            let all = cases.iter().map(|c| c.action).chain([*last]);
            all.into_iter().find_map(|a| if let Action::Notify(errno) = a { trap(nr, errno, args) } else { None })
        }
    };
    answers.iter().filter_map(of).collect()
}

pub(super) fn check(profile: &Profile, arch: Arch, reading: &Reading<'_>) -> Result<(), SeccompError> {
    let default = Action::parse(&profile.default_action, profile.default_errno_ret).map_err(SeccompError)?;
    let actions = profile.syscalls.iter().flatten().map(|rule| rule.action.as_str());
    if reading.traps.is_none() && actions.chain([profile.default_action.as_str()]).any(|a| a == "SCMP_ACT_NOTIFY") {
        return Err(SeccompError(
            "action SCMP_ACT_NOTIFY is not supported: a listener can let anything through".into(),
        ));
    }
    if default > Action::Errno(u16::MAX) {
        return Err(SeccompError(format!("default action {} lets everything through", profile.default_action)));
    }
    if profile.listener_path.as_deref().is_some_and(|p| !p.is_empty()) {
        return Err(SeccompError("listenerPath is not supported: a listener can let anything through".into()));
    }
    let native = match arch {
        Arch::X86_64 => "SCMP_ARCH_X86_64",
        Arch::Aarch64 => "SCMP_ARCH_AARCH64",
    };
    match &profile.architectures {
        // Foreign ABIs answer ENOSYS whether they are listed or not.
        Some(list) if !list.is_empty() && !list.iter().any(|a| a == native || a == "SCMP_ARCH_NATIVE") => {
            Err(SeccompError(format!("architectures lack {native}")))
        }
        _ => Ok(()),
    }
}

fn flags(profile: &Profile) -> Result<u64, SeccompError> {
    let mut bits = 0;
    for flag in profile.flags.iter().flatten() {
        match flag.as_str() {
            "SECCOMP_FILTER_FLAG_LOG" => bits |= libc::SECCOMP_FILTER_FLAG_LOG,
            // One thread only; and speculation stays mitigated.
            "SECCOMP_FILTER_FLAG_TSYNC" | "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => {}
            other => return Err(SeccompError(format!("flag {other} is not supported"))),
        }
    }
    Ok(bits)
}

/// Each number with its answer, ascending.
pub(super) type Answers = Vec<(u32, Answer)>;

/// What each number answers, and the names that have none.
pub(super) fn answers(
    profile: &Profile,
    arch: Arch,
    reading: &Reading<'_>,
) -> Result<(Answers, Vec<String>), SeccompError> {
    let default = Action::parse(&profile.default_action, profile.default_errno_ret).map_err(SeccompError)?;
    let by_name: HashMap<&str, u32> = numbers(arch).collect();
    let mut cases: HashMap<u32, Vec<Case>> = HashMap::new();
    let mut unknown = Vec::new();
    for rule in profile.syscalls.iter().flatten() {
        let split = split(rule)?;
        for name in &rule.names {
            match by_name.get(name.as_str()) {
                Some(number) => {
                    let split = split.iter().cloned().map(|case| armed(case, name, reading));
                    cases.entry(*number).or_default().extend(split);
                }
                None if [Arch::X86_64, Arch::Aarch64].iter().any(|a| boltseal_profiles::number(*a, name).is_some()) => {
                }
                None => unknown.push(name.clone()),
            }
        }
    }
    let mut all: Vec<(u32, Answer)> =
        by_name.values().map(|n| (*n, answer(cases.remove(n).unwrap_or_default(), default))).collect();
    all.sort_unstable_by_key(|(n, _)| *n);
    Ok((all, unknown))
}

/// A call of the trip-wire that is not armed is refused all the same.
fn armed(case: Case, name: &str, reading: &Reading<'_>) -> Case {
    match case.action {
        Action::Notify(errno) if !reading.traps.is_some_and(|traps| traps(name)) => {
            Case { action: Action::Errno(errno), ..case }
        }
        _ => case,
    }
}

/// The cases of one rule. Two conditions on the same argument are alternatives, as in the runtimes that profiles are
/// written for; all others must hold together.
pub(super) fn split(rule: &Rule) -> Result<Vec<Case>, SeccompError> {
    let action = Action::parse(&rule.action, rule.errno_ret).map_err(SeccompError)?;
    let args = rule.args.clone().unwrap_or_default();
    let mut seen = [false; 6];
    let mut twice = false;
    for arg in &args {
        let slot = seen.get_mut(usize::from(arg.index));
        let slot = slot.ok_or_else(|| SeccompError(format!("argument index {} is above 5", arg.index)))?;
        twice |= *slot;
        *slot = true;
    }
    let mut cases = match twice {
        true => args.into_iter().map(|arg| Case { action, args: vec![arg] }).collect(),
        false => vec![Case { action, args }],
    };
    // A masked argument never has bits outside of the mask; seccompiler would drop them from the value instead.
    cases.retain(|c| !c.args.iter().any(|a| a.op == Op::MaskedEq && a.value_two & !a.value != 0));
    Ok(cases)
}

/// Most restrictive first; what comes after an unconditional case can never be reached.
pub(super) fn answer(mut cases: Vec<Case>, default: Action) -> Answer {
    cases.sort_by_key(|c| c.action);
    let end = cases.iter().position(|c| c.args.is_empty());
    let last = end.and_then(|i| cases.get(i)).map_or(default, |c| c.action);
    cases.truncate(end.unwrap_or(cases.len()));
    // A case that answers as the end does adds nothing when it stands last.
    while cases.last().is_some_and(|c| c.action == last) {
        cases.pop();
    }
    if cases.is_empty() { Answer::Always(last) } else { Answer::Cases(cases, last) }
}

/// The code of a call with conditions: each case in turn, then the last word.
fn leaf(answer: &Answer) -> Result<BpfProgram, SeccompError> {
    let (cases, last) = match answer {
        Answer::Always(action) => return Ok(vec![tree::ret(action.ret())]),
        Answer::Cases(cases, last) => (cases, last),
    };
    let mut code: Vec<sock_filter> = Vec::new();
    for case in cases {
        let conditions: Result<Vec<_>, _> = case.args.iter().map(condition).collect();
        let rule = SeccompRule::new(conditions?).map_err(|e| SeccompError(e.to_string()))?;
        // Its first two instructions, a jump over a jump out, are for seccompiler's own chain of rules.
        code.extend(BpfProgram::from(rule).into_iter().skip(2));
        code.push(tree::ret(case.action.ret()));
    }
    code.push(tree::ret(last.ret()));
    Ok(code)
}

fn condition(arg: &Arg) -> Result<SeccompCondition, SeccompError> {
    let (op, value) = match arg.op {
        Op::Ne => (SeccompCmpOp::Ne, arg.value),
        Op::Lt => (SeccompCmpOp::Lt, arg.value),
        Op::Le => (SeccompCmpOp::Le, arg.value),
        Op::Eq => (SeccompCmpOp::Eq, arg.value),
        Op::Ge => (SeccompCmpOp::Ge, arg.value),
        Op::Gt => (SeccompCmpOp::Gt, arg.value),
        Op::MaskedEq => (SeccompCmpOp::MaskedEq(arg.value), arg.value_two),
    };
    SeccompCondition::new(arg.index, SeccompCmpArgLen::Qword, op, value).map_err(|e| SeccompError(e.to_string()))
}
