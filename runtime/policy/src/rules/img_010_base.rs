//! BS-IMG-010: the image is built on a base that the policy names.
use super::gates::{UNVERIFIED_ROW, names};
use super::{CREATE, Ctx, Identity, Rule};
use crate::decide::enforced;
use crate::facts::Fact;
use crate::policy::{Base, Level};
use crate::text;
use crate::verdict::Finding;

pub(super) static RULE: Rule = Rule {
    id: "BS-IMG-010",
    title: "The image is built on a base image that the policy names",
    nist: "4.1.2",
    from: Level::Strict,
    misfit: "deny",
    doors: CREATE,
    reads: "image.layers, policy image.base, scope.bases",
    predicate: "the lowest layers of the signed config, by diff_id, are all the layers of one of the policy's [[image.base]] in their order; \
        where the scope names `bases`, of one of those. A JDK or another runtime is a base like any other: its image's layers are named. \
        A pinned sandbox image needs none. Holds without a look where the policy names no base and the rule is not enforced.",
    fix: "build it on a named base, or add that base's diff_ids as an [[image.base]]",
    conditions: &[
        ("other-base", "the lowest layers are those of no base that it may have"),
        ("no-bases", "the rule is enforced, and the policy names no base that it may have"),
        UNVERIFIED_ROW,
    ],
    cves: &[],
    check,
};

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    vec![judge(ctx)]
}

fn judge(ctx: &Ctx<'_>) -> Finding {
    let all = &ctx.policy.image.bases;
    let of_scope = ctx.scope.and_then(|scope| scope.bases.as_ref());
    let asked = !all.is_empty() || ctx.policy.scopes.iter().any(|scope| scope.bases.is_some());
    if !asked && !enforced(ctx, &RULE) {
        return RULE.pass("the policy names no base image");
    }
    match &ctx.identity {
        Identity::Pinned(digest) => return RULE.pass(format!("{digest} is pinned by [sandbox]")),
        Identity::None(_) => {
            let fact = "the repository is not verified, nor which base it may have";
            return RULE.deny_fix("unverified", fact, "sign the image: see BS-IMG-001");
        }
        Identity::Signed(_) => {}
    }
    let Fact::Is(image) = &ctx.facts.image else {
        return RULE.deny_fix("unverified", "there is no image", "start it from an image: see BS-IMG-001");
    };
    let may: Vec<&Base> = all.iter().filter(|base| of_scope.is_none_or(|names| names.contains(&base.name))).collect();
    if may.is_empty() {
        return RULE.deny_fix("no-bases", "no base image is named that it may have", "add an [[image.base]]");
    }
    // Two bases may be stacked (a JDK on a distribution): the longest says most.
    let under = |base: &&&Base| !base.diff_ids.is_empty() && image.layers.starts_with(&base.diff_ids);
    match may.iter().filter(under).max_by_key(|base| (base.diff_ids.len(), &base.name)) {
        Some(base) => {
            let above = image.layers.len().saturating_sub(base.diff_ids.len());
            RULE.pass(format!("built on {}, with {above} of its own {}", text::show(&base.name), layers(above)))
        }
        None => {
            let known: Vec<String> = may.iter().map(|base| base.name.clone()).collect();
            let lowest = image.layers.first().map_or("none", String::as_str);
            RULE.deny("other-base", format!("the lowest layer is {}, not that of {}", short(lowest), names(&known)))
        }
    }
}

fn layers(count: usize) -> &'static str {
    if count == 1 { "layer" } else { "layers" }
}

fn short(digest: &str) -> String {
    text::shorten(&text::escape(digest), 21)
}

#[cfg(test)]
mod tests {
    use super::super::outcomes;
    use super::*;
    use crate::{Facts, Policy, fixture};

    fn base(name: &str, digits: &str) -> Base {
        Base { name: name.into(), diff_ids: digits.chars().map(fixture::digest).collect() }
    }

    /// The fixture's layers are 8 and 9.
    fn table(bases: &[(&str, &str)], scope: Option<&[&str]>, change: impl Fn(&mut Policy, &mut Facts)) -> String {
        let (mut policy, mut facts) = (fixture::policy(), fixture::facts());
        policy.image.bases = bases.iter().map(|(name, digits)| base(name, digits)).collect();
        policy.scopes[0].bases = scope.map(|names| names.iter().map(ToString::to_string).collect());
        change(&mut policy, &mut facts);
        outcomes(&RULE, &policy, &facts).join("; ")
    }

    #[test]
    fn truth_table() {
        let strict = |p: &mut Policy, _: &mut Facts| p.level = Level::Strict;
        for (bases, scope, at_restricted, at_strict) in [
            (&[][..], None, "pass", "deny no-bases"),
            (&[("debian", "8")], None, "pass", "pass"),
            (&[("whole", "89")], None, "pass", "pass"),
            // A prefix in order and in full; nothing in the middle.
            (&[("more", "897")], None, "deny other-base", "deny other-base"),
            (&[("turned", "98")], None, "deny other-base", "deny other-base"),
            (&[("upper", "9")], None, "deny other-base", "deny other-base"),
            (&[("none", "")], None, "deny other-base", "deny other-base"),
            (&[("upper", "9"), ("debian", "8")], None, "pass", "pass"),
            // What the scope names is all that it may have.
            (&[("debian", "8")], Some(&["debian"][..]), "pass", "pass"),
            (&[("debian", "8"), ("jdk", "7")], Some(&["jdk"]), "deny other-base", "deny other-base"),
            (&[("debian", "8")], Some(&["jdk"]), "deny no-bases", "deny no-bases"),
            (&[("debian", "8")], Some(&[]), "deny no-bases", "deny no-bases"),
        ] {
            assert_eq!(table(bases, scope, |_, _| {}), at_restricted, "{bases:?} {scope:?}");
            assert_eq!(table(bases, scope, strict), at_strict, "{bases:?} {scope:?}");
        }
    }

    #[test]
    fn whose_image_it_is_must_be_known() {
        let debian = &[("debian", "8")];
        assert_eq!(table(debian, None, |_, f| f.image = Fact::Unknown("x".into())), "deny unverified");
        assert_eq!(table(debian, None, |p, _| p.authorities.clear()), "deny unverified");
        let pinned = |p: &mut Policy, _: &mut Facts| p.sandbox.digests = vec![fixture::digest('a')];
        assert_eq!(table(&[("jdk", "7")], None, pinned), "pass");
    }

    #[test]
    fn the_longest_base_is_named() {
        let (mut policy, facts) = (fixture::policy(), fixture::facts());
        policy.image.bases = vec![base("debian", "8"), base("jdk", "89")];
        assert_eq!(judge(&Ctx::new(&policy, &facts)).fact, "built on jdk, with 0 of its own layers");
        policy.image.bases.pop();
        assert_eq!(judge(&Ctx::new(&policy, &facts)).fact, "built on debian, with 1 of its own layer");
    }
}
