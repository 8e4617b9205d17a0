//! BS-PRC-008: no OCI field outside the sealed set.
use super::{ALL, Ctx, Rule};
use crate::policy::Level;
use crate::text;
use crate::verdict::Finding;

pub(super) static RULE: Rule = Rule {
    id: "BS-PRC-008",
    title: "No OCI field outside the sealed set",
    nist: "4.4.3",
    from: Level::Baseline,
    misfit: "deny",
    doors: ALL,
    reads: "foreign_fields, mounts[].unknown_options",
    predicate: "every field of the request is one that the seal knows and sets, and every mount option one that it knows. What a \
        reader would drop or misread is not passed on in silence.",
    fix: "remove the field or option from the request",
    conditions: &[
        ("foreign-field", "a field that the seal does not know"),
        ("mount-option", "a mount option that the seal does not know"),
    ],
    cves: &["CVE-2026-53492 (device annotations)"],
    check,
};

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    let mut out = Vec::new();
    if !ctx.facts.foreign_fields.is_empty() {
        out.push(
            RULE.deny("foreign-field", format!("not in the sealed set: {}", text::list(&ctx.facts.foreign_fields))),
        );
    }
    for mount in ctx.facts.mounts.iter().filter(|m| !m.unknown_options.is_empty()) {
        let fact =
            format!("mount {}: unknown option {}", text::show(&mount.destination), text::list(&mount.unknown_options));
        out.push(RULE.deny("mount-option", fact));
    }
    if out.is_empty() {
        out.push(RULE.pass("every field is of the sealed set"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::outcomes;
    use super::*;
    use crate::facts::Door;
    use crate::fixture;

    #[test]
    fn truth_table() {
        for door in [Door::Create, Door::Exec, Door::Update] {
            let mut facts = fixture::facts();
            facts.door = door;
            assert_eq!(outcomes(&RULE, &fixture::policy(), &facts), ["pass"]);
            facts.foreign_fields = vec!["linux.intelRdt".into()];
            assert_eq!(outcomes(&RULE, &fixture::policy(), &facts), ["deny foreign-field"]);
        }
        let mut facts = fixture::facts();
        facts.mounts[0].unknown_options = vec!["nosymfollowx".into()];
        assert_eq!(outcomes(&RULE, &fixture::policy(), &facts), ["deny mount-option"]);
    }
}
