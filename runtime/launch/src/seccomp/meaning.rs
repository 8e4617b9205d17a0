//! What a profile means, call by call, for people who write one: the same answers that are compiled, as values to compare
//! and to print.
use super::compile::{Answer, Case, Reading, SeccompError, answer, answers, check, split};
use super::profile::{Action, Arg, Op, Profile};
use boltseal_profiles::{Arch, numbers};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A profile as this architecture understands it.
#[derive(Debug, Clone)]
pub struct Meaning {
    /// Every call of the architecture, with what it answers.
    pub calls: BTreeMap<&'static str, Answer>,
    pub default: Action,
    /// Names that no architecture has.
    pub unknown: Vec<String>,
    /// ABIs that the profile lists beside the native one.
    pub foreign: Vec<String>,
    /// Names in rules that change nothing: they answer as the default does, or say again what another rule said.
    pub redundant: BTreeSet<String>,
}

/// How `b` compares with `a`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    Same,
    /// Whatever the arguments, `b` lets through at most what `a` does.
    Tighter,
    Looser,
    /// Neither can be told.
    Other,
}

/// Reads a profile (JSON) as an installation would.
///
/// # Errors
/// What cannot be installed as it is, in one line.
pub fn meaning(json: &str, arch: Arch) -> Result<Meaning, SeccompError> {
    let mut profile: Profile =
        serde_json::from_str(json).map_err(|e| SeccompError(format!("not an OCI seccomp profile: {e}")))?;
    // The trip-wire of our own profile refuses as its default does; another profile may hand nothing over.
    if json == boltseal_profiles::base_seccomp() {
        profile.syscalls.iter_mut().for_each(|rules| rules.retain(|rule| rule.action != "SCMP_ACT_NOTIFY"));
    }
    let reading = Reading { traps: None, yields: &[] };
    check(&profile, arch, &reading)?;
    let (list, unknown) = answers(&profile, arch, &reading)?;
    let by_number: BTreeMap<u32, &'static str> = numbers(arch).map(|(name, number)| (number, name)).collect();
    let calls: BTreeMap<_, _> =
        list.into_iter().filter_map(|(number, answer)| Some((*by_number.get(&number)?, answer))).collect();
    let native = match arch {
        Arch::X86_64 => "SCMP_ARCH_X86_64",
        Arch::Aarch64 => "SCMP_ARCH_AARCH64",
    };
    let listed = profile.architectures.iter().flatten();
    let foreign = listed.filter(|a| *a != native && *a != "SCMP_ARCH_NATIVE").cloned().collect();
    let default = Action::parse(&profile.default_action, profile.default_errno_ret).map_err(SeccompError)?;
    let redundant = redundant(&profile, arch, default)?;
    Ok(Meaning { calls, default, unknown, foreign, redundant })
}

/// A name is redundant when one of the rules that name it could leave it out.
fn redundant(profile: &Profile, arch: Arch, default: Action) -> Result<BTreeSet<String>, SeccompError> {
    let mut by_name: BTreeMap<&str, Vec<Vec<Case>>> = BTreeMap::new();
    for rule in profile.syscalls.iter().flatten() {
        let cases = split(rule)?;
        for name in rule.names.iter().filter(|name| boltseal_profiles::number(arch, name).is_some()) {
            by_name.entry(name).or_default().push(cases.clone());
        }
    }
    let without = |rules: &[Vec<Case>], left_out: Option<usize>| {
        let kept = rules.iter().enumerate().filter(|(at, _)| Some(*at) != left_out);
        answer(kept.flat_map(|(_, cases)| cases.clone()).collect(), default)
    };
    let says_nothing =
        |rules: &[Vec<Case>]| (0..rules.len()).any(|at| without(rules, Some(at)) == without(rules, None));
    Ok(by_name.iter().filter(|(_, rules)| says_nothing(rules)).map(|(name, _)| (*name).to_owned()).collect())
}

/// How `b` compares with `a`.
#[must_use]
pub fn compare(a: &Answer, b: &Answer) -> Relation {
    let (a_set, b_set) = (allowing(a), allowing(b));
    if a == b {
        Relation::Same
    } else if most(b) <= least(a)
        || matches!((&a_set, &b_set), (Some((x, p)), Some((y, q))) if p == q && y.is_subset(x))
    {
        Relation::Tighter
    } else if most(a) <= least(b)
        || matches!((&a_set, &b_set), (Some((x, p)), Some((y, q))) if p == q && x.is_subset(y))
    {
        Relation::Looser
    } else {
        Relation::Other
    }
}

fn least(answer: &Answer) -> Action {
    match answer {
        Answer::Always(action) => *action,
        Answer::Cases(cases, last) => cases.iter().map(|c| c.action).fold(*last, Action::min),
    }
}

fn most(answer: &Answer) -> Action {
    match answer {
        Answer::Always(action) => *action,
        Answer::Cases(cases, last) => cases.iter().map(|c| c.action).fold(*last, Action::max),
    }
}

/// The conditions of an answer that only ever allows under conditions, and what it answers otherwise.
fn allowing(answer: &Answer) -> Option<(BTreeSet<String>, Action)> {
    match answer {
        Answer::Always(action) if *action < Action::Log => Some((BTreeSet::new(), *action)),
        Answer::Cases(cases, last) if *last < Action::Log && cases.iter().all(|c| c.action == Action::Allow) => {
            Some((cases.iter().map(conditions).collect(), *last))
        }
        _ => None,
    }
}

fn conditions(case: &Case) -> String {
    case.args.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillProcess => f.write_str("kill the process"),
            Self::KillThread => f.write_str("kill the thread"),
            Self::Trap => f.write_str("SIGSYS"),
            // The trip-wire refuses with it too, once it has told.
            Self::Errno(number) | Self::Notify(number) => match i32::from(*number) {
                libc::EPERM => f.write_str("EPERM"),
                libc::ENOSYS => f.write_str("ENOSYS"),
                other => write!(f, "errno {other}"),
            },
            Self::Log => f.write_str("log and allow"),
            Self::Allow => f.write_str("allow"),
        }
    }
}

impl fmt::Display for Arg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.op {
            Op::Ne => "!=",
            Op::Lt => "<",
            Op::Le => "<=",
            Op::Eq => "==",
            Op::Ge => ">=",
            Op::Gt => ">",
            Op::MaskedEq => return write!(f, "arg{} & {:#x} == {:#x}", self.index, self.value, self.value_two),
        };
        write!(f, "arg{} {sign} {:#x}", self.index, self.value)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always(action) => action.fmt(f),
            Self::Cases(cases, last) => {
                for case in cases {
                    write!(f, "{} if {}, ", case.action, conditions(case))?;
                }
                write!(f, "else {last}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rules: &str) -> Meaning {
        let text = format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{rules}]}}"#);
        meaning(&text, Arch::X86_64).unwrap()
    }

    fn rule(names: &str, action: &str, more: &str) -> String {
        format!(r#"{{"names":[{names}],"action":"SCMP_ACT_{action}"{more}}}"#)
    }

    const UNIX: &str = r#","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]"#;
    const INET: &str = r#","args":[{"index":0,"value":2,"op":"SCMP_CMP_EQ"}]"#;

    #[test]
    fn relations() {
        let socket = |list: &[(&str, &str)]| {
            let rules: Vec<String> = list.iter().map(|(action, more)| rule("\"socket\"", action, more)).collect();
            of(&rules.join(",")).calls.remove("socket").unwrap()
        };
        let (none, all) = (socket(&[]), socket(&[("ALLOW", "")]));
        let (unix, inet) = (socket(&[("ALLOW", UNIX)]), socket(&[("ALLOW", INET)]));
        let both = socket(&[("ALLOW", UNIX), ("ALLOW", INET)]);
        let but = socket(&[("ALLOW", ""), ("ERRNO", UNIX)]);
        for (a, b, expected) in [
            (&none, &none, Relation::Same),
            (&none, &all, Relation::Looser),
            (&all, &none, Relation::Tighter),
            (&none, &unix, Relation::Looser),
            (&all, &unix, Relation::Tighter),
            (&both, &unix, Relation::Tighter),
            (&unix, &both, Relation::Looser),
            (&unix, &inet, Relation::Other),
            (&all, &but, Relation::Tighter),
            (&unix, &but, Relation::Other),
        ] {
            assert_eq!(compare(a, b), expected, "{a} / {b}");
        }
        assert_eq!(both.to_string(), "allow if arg0 == 0x1, allow if arg0 == 0x2, else EPERM");
    }

    #[test]
    fn what_says_nothing_new_is_redundant() {
        let names = |rules: &[String]| of(&rules.join(",")).redundant.into_iter().collect::<Vec<_>>();
        assert_eq!(names(&[rule("\"read\",\"write\"", "ALLOW", "")]), Vec::<String>::new());
        assert_eq!(names(&[rule("\"read\"", "ALLOW", ""), rule("\"read\"", "ALLOW", "")]), ["read"]);
        assert_eq!(names(&[rule("\"read\"", "ERRNO", "")]), ["read"]);
        assert_eq!(names(&[rule("\"socket\"", "ALLOW", ""), rule("\"socket\"", "ALLOW", UNIX)]), ["socket"]);
        assert_eq!(
            names(&[rule("\"socket\"", "ALLOW", UNIX), rule("\"socket\"", "ALLOW", INET)]),
            Vec::<String>::new()
        );
        // Among these the strict rule decides, and only the other says nothing.
        assert_eq!(names(&[rule("\"read\"", "ERRNO", ""), rule("\"read\"", "ALLOW", "")]), ["read"]);
        // It takes something back, and so it says something.
        assert_eq!(names(&[rule("\"socket\"", "ALLOW", ""), rule("\"socket\"", "ERRNO", UNIX)]), Vec::<String>::new());
    }

    #[test]
    fn the_base_filter_has_nothing_to_complain_about() {
        let base = meaning(boltseal_profiles::base_seccomp(), Arch::X86_64).unwrap();
        assert!(base.unknown.is_empty() && base.foreign.is_empty(), "{:?} {:?}", base.unknown, base.foreign);
        assert!(base.redundant.is_empty(), "{:?}", base.redundant);
    }
}
