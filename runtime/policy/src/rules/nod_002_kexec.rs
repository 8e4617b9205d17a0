//! BS-NOD-002: no other kernel can be started past the measured boot.
use super::{Ctx, PROCESSES, Rule, TIMEOUT_ROW, UNKNOWN_ROW};
use crate::facts::Fact;
use crate::policy::Level;
use crate::text;
use crate::verdict::Finding;

pub(super) static RULE: Rule = Rule {
    id: "BS-NOD-002",
    title: "kexec disabled or not in the kernel",
    nist: "4.6",
    from: Level::Restricted,
    misfit: "deny",
    doors: PROCESSES,
    reads: "kexec.*",
    predicate: "both kexec calls answer ENOSYS, or kernel.kexec_load_disabled is 1: kexec keeps every PCR, so a kernel that was never \
        measured could follow. Lockdown is not enough: it still loads any kernel signed by a key of the firmware's.",
    fix: "sysctl kernel.kexec_load_disabled=1 at boot",
    conditions: &[("kexec", "a kernel can be loaded with kexec"), UNKNOWN_ROW, TIMEOUT_ROW],
    cves: &[],
    check,
};

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    let finding = match &ctx.facts.kexec {
        Fact::Is(k) if k.absent => RULE.pass("kexec is not in this kernel"),
        Fact::Is(k) if k.load_disabled => RULE.pass("kexec_load_disabled is 1"),
        Fact::Is(k) => {
            RULE.deny("kexec", format!("kexec can load a kernel; lockdown is \"{}\"", text::show(&k.lockdown)))
        }
        Fact::Absent => RULE.unknown("kexec", "nothing was observed"),
        Fact::Unknown(why) => RULE.unknown("kexec", why),
    };
    vec![finding]
}

#[cfg(test)]
mod tests {
    use super::super::outcomes;
    use super::*;
    use crate::facts::Kexec;
    use crate::fixture;

    #[test]
    fn truth_table() {
        let kexec = |absent, load_disabled, lockdown: &str| {
            Fact::Is(Kexec { absent, load_disabled, lockdown: lockdown.into() })
        };
        for (fact, expected) in [
            (kexec(false, false, "none"), "deny kexec"),
            (kexec(false, false, ""), "deny kexec"),
            (kexec(true, false, "none"), "pass"),
            (kexec(false, true, "integrity"), "pass"),
            (kexec(false, false, "integrity"), "deny kexec"),
            (kexec(false, false, "confidentiality"), "deny kexec"),
            (Fact::Absent, "deny unknown"),
            (Fact::Unknown("x".into()), "deny unknown"),
            (Fact::Unknown("timeout".into()), "deny timeout"),
        ] {
            let mut facts = fixture::facts();
            facts.kexec = fact;
            assert_eq!(outcomes(&RULE, &fixture::policy(), &facts), [expected]);
        }
    }
}
