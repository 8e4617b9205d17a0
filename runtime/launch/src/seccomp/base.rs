//! The base filter as `build.rs` compiled it.
use super::{Compiled, SeccompError, Trap, compile_own, native};
use seccompiler::sock_filter;

/// A program as it stands in this one: (code, jt, jf, k) of each instruction.
struct Ready {
    flags: u64,
    code: &'static [(u16, u8, u8, u32)],
    traps: &'static [Trap],
}

include!(concat!(env!("OUT_DIR"), "/base.rs"));

impl Ready {
    fn compiled(&self) -> Compiled {
        let instruction = |&(code, jt, jf, k): &_| sock_filter { code, jt, jf, k };
        Compiled {
            program: self.code.iter().map(instruction).collect(),
            flags: self.flags,
            unknown: Vec::new(),
            traps: self.traps.to_vec(),
        }
    }
}

/// The base filter for this machine, with a trip-wire for the calls that `traps` says.
///
/// # Errors
/// An architecture without a table; anything else would have failed the build.
pub fn base(traps: &dyn Fn(&str) -> bool) -> Result<Compiled, SeccompError> {
    if let Some(ready) = ready(traps) {
        return Ok(ready.compiled());
    }
    compile_own(boltseal_profiles::base_seccomp(), native()?, traps)
}

/// The one with exactly these traps, if it was compiled.
fn ready(traps: &dyn Fn(&str) -> bool) -> Option<&'static Ready> {
    let all = ALL.as_ref()?;
    let wanted = all.traps.iter().filter(|trap| traps(trap.name)).count();
    if wanted == all.traps.len() {
        return Some(all);
    }
    NONE.as_ref().filter(|_| wanted == 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_was_compiled_is_what_would_be() {
        let first = ALL.as_ref().unwrap().traps[0].name;
        let wires: [&dyn Fn(&str) -> bool; 4] = [&|_| false, &|_| true, &|name| name == first, &|name| name != first];
        for (number, traps) in wires.into_iter().enumerate() {
            let (made, now) =
                (base(traps).unwrap(), compile_own(boltseal_profiles::base_seccomp(), native().unwrap(), traps));
            let now = now.unwrap();
            assert_eq!(made.program, now.program);
            assert_eq!((made.flags, &made.unknown, &made.traps), (now.flags, &now.unknown, &now.traps));
            assert_eq!(ready(traps).is_some(), number < 2, "the fast way is for all and for nothing");
        }
        assert!(!ALL.as_ref().unwrap().traps.is_empty() && NONE.as_ref().unwrap().traps.is_empty());
    }
}
