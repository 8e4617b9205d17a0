//! BS-OWN-001: somebody is accountable.
use super::{CREATE, Ctx, Rule, TIMEOUT_ROW, UNKNOWN_ROW};
use crate::facts::Fact;
use crate::policy::Level;
use crate::verdict::Finding;
use crate::{pattern, text};

pub(super) static RULE: Rule = Rule {
    id: "BS-OWN-001",
    title: "An owner is named and, by the policy's level, proven",
    nist: "4.4.5",
    from: Level::Baseline,
    misfit: "deny",
    doors: CREATE,
    reads: "owner, policy owner.{level,patterns}",
    predicate: "an owner is named (annotation boltseal.dev/owner), on one line, and matches a pattern of owner.patterns.",
    fix: "set the annotation boltseal.dev/owner to an owner of owner.patterns",
    conditions: &[
        ("missing", "no owner is named"),
        ("not-allowed", "the owner matches no pattern"),
        ("level", "the policy demands a proof that this version cannot check"),
        UNKNOWN_ROW,
        TIMEOUT_ROW,
    ],
    cves: &[],
    check,
};

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    let rules = &ctx.policy.owner;
    if rules.level != "annotation" {
        return vec![RULE.deny_fix(
            "level",
            format!("owner.level \"{}\" cannot be checked", text::show(&rules.level)),
            "set owner.level = \"annotation\"",
        )];
    }
    let finding = match &ctx.facts.owner {
        Fact::Unknown(why) => RULE.unknown("the owner", why),
        Fact::Absent => RULE.deny("missing", "no owner is named"),
        Fact::Is(owner) if owner.trim().is_empty() => RULE.deny("missing", "the owner is empty"),
        Fact::Is(owner)
            if owner.len() <= 256
                && !owner.contains(char::is_control)
                && rules.patterns.iter().any(|p| pattern::matches(p, owner)) =>
        {
            RULE.pass(format!("{} (annotation, unproven)", text::show(owner)))
        }
        Fact::Is(owner) => {
            RULE.deny("not-allowed", format!("owner \"{}\" matches no pattern of owner.patterns", text::show(owner)))
        }
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
        for (owner, expected) in [
            (Fact::Is("team-a@corp.example".to_owned()), "pass"),
            (Fact::Is("team-a@evil.example".to_owned()), "deny not-allowed"),
            (Fact::Is("x\n@corp.example".to_owned()), "deny not-allowed"),
            (Fact::Is("x".repeat(10_000_000) + "@corp.example"), "deny not-allowed"),
            (Fact::Is(" ".to_owned()), "deny missing"),
            (Fact::Absent, "deny missing"),
            (Fact::Unknown("x".into()), "deny unknown"),
            (Fact::Unknown("timeout: x".into()), "deny timeout"),
        ] {
            let mut facts = fixture::facts();
            facts.owner = owner;
            assert_eq!(outcomes(&RULE, &fixture::policy(), &facts), [expected]);
        }
        let mut policy = fixture::policy();
        policy.owner.patterns.clear();
        assert_eq!(outcomes(&RULE, &policy, &fixture::facts()), ["deny not-allowed"]);
        policy.owner.level = "proven".into();
        assert_eq!(outcomes(&RULE, &policy, &fixture::facts()), ["deny level"]);
    }
}
