//! BS-IMG-003: the verified repository lies in an allow-listed registry.
use super::{CREATE, Ctx, Identity, Rule, Signed};
use crate::policy::Level;
use crate::verdict::Finding;
use crate::{pattern, text};

pub(super) static RULE: Rule = Rule {
    id: "BS-IMG-003",
    title: "Registry and repository are allow-listed",
    nist: "4.1.5, 4.2.1",
    from: Level::Baseline,
    misfit: "deny",
    doors: CREATE,
    reads: "the repository that BS-IMG-001 verified, policy registries.allow",
    predicate: "a prefix of registries.allow covers the verified repository; a pinned sandbox image needs none. The name that \
        containerd recorded is text and does not count.",
    fix: "add the registry or repository to registries.allow, or use an allowed one",
    conditions: &[
        ("not-allowed", "no prefix covers the verified repository"),
        ("unverified", "no signature gives a repository to judge"),
    ],
    cves: &[],
    check,
};

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    let finding = match &ctx.identity {
        Identity::Pinned(digest) => RULE.pass(format!("{digest} is pinned by [sandbox]")),
        Identity::Signed(Signed { repository, .. }) => {
            let shown = text::show(repository);
            match ctx.policy.registries.allow.iter().find(|prefix| pattern::covers(prefix, repository)) {
                Some(prefix) => RULE.pass(format!("{shown} is covered by {}", text::show(prefix))),
                None => RULE.deny("not-allowed", format!("{shown} is in no registry of registries.allow")),
            }
        }
        Identity::None(_) => {
            RULE.deny_fix("unverified", "the repository is not verified", "sign the image: see BS-IMG-001")
        }
    };
    vec![finding]
}

#[cfg(test)]
mod tests {
    use super::super::outcomes;
    use super::*;
    use crate::facts::Fact;
    use crate::fixture;

    #[test]
    fn truth_table() {
        let (policy, facts) = (fixture::policy(), fixture::facts());
        assert_eq!(outcomes(&RULE, &policy, &facts), ["pass"]);
        for allow in [vec![], vec!["quay.io".to_owned()], vec!["ghcr.io/cor".to_owned()]] {
            let mut policy = fixture::policy();
            policy.registries.allow = allow;
            assert_eq!(outcomes(&RULE, &policy, &facts), ["deny not-allowed"]);
        }
        for image in [Fact::Absent, Fact::Unknown("x".into())] {
            let mut facts = fixture::facts();
            facts.image = image;
            assert_eq!(outcomes(&RULE, &policy, &facts), ["deny unverified"]);
        }
        let mut policy = fixture::policy();
        policy.sandbox.digests = vec![fixture::digest('a')];
        policy.registries.allow.clear();
        assert_eq!(outcomes(&RULE, &policy, &facts), ["pass"]);
    }
}
