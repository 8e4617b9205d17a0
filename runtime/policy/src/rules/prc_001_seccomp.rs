//! BS-PRC-001: the base seccomp filter is installed; a pod's own filter only tightens.
use super::{Ctx, PROCESSES, Rule};
use crate::policy::Level;
use crate::text;
use crate::verdict::Finding;

pub(super) static RULE: Rule = Rule {
    id: "BS-PRC-001",
    title: "The base seccomp filter is installed (default deny, native ABI only); a pod's own filter only tightens",
    nist: "4.4.3",
    from: Level::Baseline,
    misfit: "seal",
    doors: PROCESSES,
    reads: "seccomp.{present,unusable,available}",
    predicate: "the kernel can install a filter; the base filter is always added; a pod's own filter, if any, can be installed after \
        it as it is.",
    fix: "use a default-deny filter of known names, native ABI, without notify or trace",
    conditions: &[
        ("unavailable", "the kernel cannot install a filter"),
        ("unusable-filter", "the pod's own filter cannot be installed as it is"),
        ("base-filter", "sealed: the spec names no filter, the base filter is added"),
    ],
    cves: &["CVE-2022-0185", "CVE-2022-0492", "CVE-2026-31431 (AF_ALG, 32-bit socketcall)"],
    check,
};

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    let s = &ctx.facts.seccomp;
    let mut out = Vec::new();
    if !s.available {
        out.push(RULE.deny_fix(
            "unavailable",
            "this kernel cannot install a seccomp filter",
            "use a kernel with CONFIG_SECCOMP_FILTER",
        ));
    }
    if !s.unusable.is_empty() {
        out.push(RULE.deny("unusable-filter", format!("the pod's own filter: {}", text::list(&s.unusable))));
    }
    if out.is_empty() {
        out.push(if s.present {
            RULE.pass("base filter, then the pod's own")
        } else {
            RULE.sealed("base-filter", "base filter added; the request names none")
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::outcomes;
    use super::*;
    use crate::facts::{Door, Seccomp};
    use crate::fixture;

    #[test]
    fn truth_table() {
        for (present, unusable, available, expected) in [
            (true, vec![], true, vec!["pass"]),
            (false, vec![], true, vec!["seal base-filter"]),
            (true, vec!["notify".to_owned()], true, vec!["deny unusable-filter"]),
            (true, vec![], false, vec!["deny unavailable"]),
            (true, vec!["x".to_owned()], false, vec!["deny unavailable", "deny unusable-filter"]),
        ] {
            let mut facts = fixture::facts();
            facts.seccomp = Seccomp { present, unusable, available };
            assert_eq!(outcomes(&RULE, &fixture::policy(), &facts), expected);
            facts.door = Door::Exec;
            assert_eq!(outcomes(&RULE, &fixture::policy(), &facts), expected);
        }
        // Nothing gathered denies.
        let mut facts = fixture::facts();
        facts.seccomp = Seccomp::default();
        assert_eq!(outcomes(&RULE, &fixture::policy(), &facts), ["deny unavailable"]);
    }
}
