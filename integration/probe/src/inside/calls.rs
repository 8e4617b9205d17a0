//! Which system calls get to the kernel's code.
//!
//! Each number is asked about (see [`sys::ask_from_now_on`]: never made, and a filter's own answer is told from the
//! kernel's), then made once with harmless arguments, each time in a child of its own. The second step tells what the kernel has
//! none of (ENOSYS), and contradicts the first where that should be wrong.
use crate::child::{Ended, run};
use crate::{harmless, sys};
use boltseal_profiles::{Arch, numbers};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use probe::Calls;

/// What came of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Errno(Errno),
    /// A filter ended the caller.
    Ended,
    /// It succeeded, or did not come back: the kernel took it.
    Taken,
}

pub(crate) fn look() -> Result<Calls, String> {
    let arch = Arch::native().ok_or("no table of system calls for this machine")?;
    let asking = asking_works()?;
    let mut calls = Calls { asked: asking, ..Calls::default() };
    for (name, number) in numbers(arch) {
        let ask_it = asking && !harmless::past_filters(name);
        let filter = if ask_it { Some(ask(name, number)?) } else { None };
        let made = match harmless::not_made(name) {
            None => Some(make(name, number)?),
            Some(_) => None,
        };
        sort(&mut calls, name, filter, made);
    }
    Ok(calls)
}

/// One call into its place. `filter` is what it answered when it was asked: ENOSYS when no filter has an answer of its own,
/// or when that answer is ENOSYS.
fn sort(calls: &mut Calls, name: &str, filter: Option<Answer>, made: Option<Answer>) {
    let absent = Answer::Errno(Errno::ENOSYS);
    match (filter, made) {
        (Some(answer), made) if answer != absent => {
            if made.is_some_and(|made| made != answer) {
                calls.contradictions.push(format!("{name}: {answer:?} when asked, {made:?} when made"));
            }
            calls.refused.insert(name.into(), word(answer));
        }
        (_, Some(Answer::Ended)) => {
            calls.refused.insert(name.into(), word(Answer::Ended));
        }
        (_, Some(made)) if made == absent => {
            calls.absent.insert(name.into());
        }
        (_, made) => {
            if made.is_none() {
                calls.not_made.insert(name.into(), harmless::not_made(name).unwrap_or_default().into());
            }
            calls.reachable.insert(name.into());
        }
    }
}

fn word(answer: Answer) -> String {
    match answer {
        Answer::Errno(errno) => format!("{errno:?}"),
        Answer::Ended => "killed".into(),
        Answer::Taken => "taken".into(),
    }
}

/// Whether a call with the mark in it is not made, and one without it is.
fn asking_works() -> Result<bool, String> {
    let ended = run(|| {
        let works = sys::ask_from_now_on().is_ok()
            && sys::call(libc::SYS_getppid, &[0, 0, 0, 0, 0, sys::ASK]) == Err(Errno::ENOSYS)
            && sys::call(libc::SYS_getppid, &[0; 6]).is_ok();
        vec![u8::from(works)]
    });
    Ok(matches!(ended.map_err(|errno| format!("a child: {errno}"))?, Ended::Said(said) if said == [1]))
}

/// What the filter says, with the arguments that get furthest.
fn ask(name: &str, number: u32) -> Result<Answer, String> {
    let questions = harmless::questions(name);
    in_child(name, || {
        sys::ask_from_now_on().map_err(|errno| format!("{errno:?}")).map(|()| {
            let mut last = Err(Errno::ENOSYS);
            for [a, b, c, d, e, _] in questions {
                last = sys::call(number.into(), &[a, b, c, d, e, sys::ASK]);
                if matches!(last, Ok(_) | Err(Errno::ENOSYS)) {
                    break;
                }
            }
            last
        })
    })
}

fn make(name: &str, number: u32) -> Result<Answer, String> {
    let args = harmless::arguments(name);
    in_child(name, || Ok(sys::call(number.into(), &args)))
}

fn in_child(name: &str, work: impl FnOnce() -> Result<Result<u64, Errno>, String>) -> Result<Answer, String> {
    let ended = run(|| match work() {
        Ok(Ok(_)) => Vec::new(),
        Ok(Err(errno)) => (errno as i32).to_le_bytes().to_vec(),
        Err(why) => why.into_bytes(),
    });
    match ended.map_err(|errno| format!("a child for {name}: {errno}"))? {
        Ended::Said(said) if said.is_empty() => Ok(Answer::Taken),
        Ended::Said(said) => match <[u8; 4]>::try_from(said.as_slice()) {
            Ok(bytes) => Ok(Answer::Errno(Errno::from_raw(i32::from_le_bytes(bytes)))),
            Err(_) => Err(format!("{name}: {}", String::from_utf8_lossy(&said))),
        },
        Ended::Killed(Signal::SIGSYS) => Ok(Answer::Ended),
        Ended::Killed(_) | Ended::Stuck => Ok(Answer::Taken),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
    use std::collections::BTreeMap;

    /// asked, made -> contradicts, reachable, refused, absent
    #[test]
    fn every_pair_has_its_place() {
        use Answer::{Ended, Taken};
        let (perm, sys, fault) =
            (Answer::Errno(Errno::EPERM), Answer::Errno(Errno::ENOSYS), Answer::Errno(Errno::EFAULT));
        for (asked, made, expected) in [
            (Some(perm), Some(perm), [0, 0, 1, 0]),
            (Some(perm), None, [0, 0, 1, 0]),
            (Some(perm), Some(fault), [1, 0, 1, 0]),
            (Some(perm), Some(Taken), [1, 0, 1, 0]),
            (Some(Ended), Some(Ended), [0, 0, 1, 0]),
            (Some(Ended), Some(perm), [1, 0, 1, 0]),
            (Some(sys), Some(sys), [0, 0, 0, 1]),
            (Some(sys), Some(perm), [0, 1, 0, 0]),
            (Some(sys), Some(fault), [0, 1, 0, 0]),
            (Some(sys), Some(Taken), [0, 1, 0, 0]),
            (Some(sys), None, [0, 1, 0, 0]),
            // It was made although it was only asked about: the probe does not know what it sees.
            (Some(Taken), Some(fault), [1, 0, 1, 0]),
            (None, Some(perm), [0, 1, 0, 0]),
            (None, Some(sys), [0, 0, 0, 1]),
            (None, Some(Ended), [0, 0, 1, 0]),
            (None, None, [0, 1, 0, 0]),
        ] {
            let mut calls = Calls::default();
            sort(&mut calls, "exit", asked, made);
            let found = [calls.contradictions.len(), calls.reachable.len(), calls.refused.len(), calls.absent.len()];
            assert_eq!(found, expected, "{asked:?} {made:?}");
        }
    }

    /// Under a filter that answers EPERM to the calls of that list, what `look` finds. In a thread, whose filter ends with it.
    fn under(refused: &'static [&str]) -> Calls {
        let thread = std::thread::spawn(move || {
            let rules: BTreeMap<i64, _> = numbers(Arch::native().unwrap())
                .filter(|(name, _)| refused.contains(name))
                .map(|(_, number)| (number.into(), vec![]))
                .collect();
            let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
            let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(1), arch).unwrap();
            seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
            look().unwrap()
        });
        thread.join().unwrap()
    }

    /// swapoff and reboot are calls to which the kernel itself says EPERM when one may not.
    #[test]
    fn a_filters_eperm_is_told_from_the_kernels() {
        let free = under(&[]);
        assert!(free.asked && free.contradictions.is_empty() && free.refused.is_empty(), "{free:?}");
        assert!(free.reachable.contains("swapoff") && free.reachable.contains("reboot"));
        let mut filtered = under(&["swapoff", "pause"]);
        assert!(filtered.asked && filtered.contradictions.is_empty(), "{filtered:?}");
        assert_eq!(filtered.refused.keys().map(String::as_str).collect::<Vec<_>>(), ["pause", "swapoff"]);
        filtered.reachable.extend(filtered.refused.into_keys());
        assert_eq!(filtered.reachable, free.reachable);
    }
}
