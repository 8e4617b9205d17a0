//! BS-AUD-001: the trail takes the record.
use super::{ALL, Ctx, Rule, TIMEOUT_ROW, UNKNOWN_ROW};
use crate::facts::Fact;
use crate::policy::Level;
use crate::verdict::Finding;

pub(super) static RULE: Rule = Rule {
    id: "BS-AUD-001",
    title: "The trail takes the record",
    nist: "4.4.5",
    from: Level::Observe,
    misfit: "deny",
    doors: ALL,
    reads: "audit",
    predicate: "a record can be appended now. No level, mode, allowance or exception touches this rule.",
    fix: "free space in /var/log/boltseal, then boltseal audit verify",
    conditions: &[("no-trail", "there is no trail to append to"), UNKNOWN_ROW, TIMEOUT_ROW],
    cves: &[],
    check,
};

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    let finding = match &ctx.facts.audit {
        Fact::Is(()) => RULE.pass("the trail takes the record"),
        Fact::Absent => RULE.deny("no-trail", "there is no audit trail to append to"),
        Fact::Unknown(why) => RULE.unknown("whether the audit trail takes the record", why),
    };
    vec![finding]
}

#[cfg(test)]
mod tests {
    use super::super::outcomes;
    use super::*;
    use crate::fixture;

    #[test]
    fn truth_table() {
        for (audit, expected) in [
            (Fact::Is(()), "pass"),
            (Fact::Absent, "deny no-trail"),
            (Fact::Unknown("no space left on device".into()), "deny unknown"),
            (Fact::Unknown("timeout".into()), "deny timeout"),
        ] {
            let mut facts = fixture::facts();
            facts.audit = audit;
            assert_eq!(outcomes(&RULE, &fixture::policy(), &facts), [expected]);
        }
    }
}
