//! BS-IMG-009: no secret stands in the clear in the image's config and history.
//!
//! A finding names the place, the variable and what it looks like, never what it is.
use super::gates::{UNVERIFIED_ROW, asked};
use super::{CREATE, Ctx, Rule, TIMEOUT_ROW, UNKNOWN_ROW};
use crate::facts::{Fact, Secret};
use crate::policy::Level;
use crate::verdict::Finding;
use crate::{pattern, text};

pub(super) static RULE: Rule = Rule {
    id: "BS-IMG-009",
    title: "No secret stands in the clear in the image's config and history",
    nist: "4.1.4",
    from: Level::Restricted,
    misfit: "deny",
    doors: CREATE,
    reads: "image.secrets, policy image.secrets, scope.secrets",
    predicate: "nothing in Env, labels, Entrypoint, Cmd and the history's created_by has the form of a known kind of secret (keys and tokens of \
        AWS, GitHub, GitLab, Slack, Stripe, Google, npm, Docker, a JWT, a private key, a password in a URL), and no variable or flag \
        that is named for one (TOKEN, PASSWORD, SECRET, API_KEY ..) has a value in the clear; a placeholder, a reference ($NAME) or a \
        path is none. Names that the policy lists in secrets.allow are let through. A secret that was written otherwise is not seen. \
        Holds without a look where the policy has no table of secrets.",
    fix: "take it out, build anew, hand it in at run time; replace what leaked",
    conditions: &[("secret", "something looks like a secret"), UNVERIFIED_ROW, UNKNOWN_ROW, TIMEOUT_ROW],
    cves: &[],
    check,
};

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    let asked = match asked(ctx, &RULE, |scope| scope.secrets.as_ref(), |image| image.secrets.as_ref()) {
        Ok(asked) => asked,
        Err(finding) => return vec![*finding],
    };
    let secrets = match &asked.image.secrets {
        Fact::Is(secrets) => secrets,
        Fact::Absent => return vec![RULE.unknown("what the config holds", "nobody looked")],
        Fact::Unknown(why) => return vec![RULE.unknown("what the config holds", why)],
    };
    let allow = &asked.rules.allow;
    let (allowed, left): (Vec<&Secret>, Vec<&Secret>) =
        secrets.iter().partition(|s| allow.iter().any(|name| pattern::matches(name, &s.name)));
    if !left.is_empty() {
        return left.into_iter().map(|s| RULE.deny("secret", shown(s))).collect();
    }
    vec![RULE.pass(match allowed.len() {
        0 => "nothing looks like a secret".to_owned(),
        _ => format!("only what secrets.allow names: {}", text::list(allowed.iter().map(|s| &s.name))),
    })]
}

fn shown(secret: &Secret) -> String {
    let (place, name, kind) = (text::show(&secret.place), text::show(&secret.name), text::show(&secret.kind));
    format!("{place} {name} holds {kind} in the clear")
}

#[cfg(test)]
mod tests {
    use super::super::outcomes;
    use super::*;
    use crate::policy::SecretRules;
    use crate::{Facts, Policy, fixture};

    fn secret(name: &str) -> Secret {
        Secret { place: "env".into(), name: name.into(), kind: "a GitHub token".into() }
    }

    fn table(secrets: Fact<Vec<Secret>>, allow: Option<&[&str]>, change: impl Fn(&mut Policy, &mut Facts)) -> String {
        let (mut policy, mut facts) = (fixture::policy(), fixture::facts());
        let names = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        policy.image.secrets = allow.map(|list| SecretRules { allow: names(list) });
        if let Fact::Is(image) = &mut facts.image {
            image.secrets = secrets;
        }
        change(&mut policy, &mut facts);
        outcomes(&RULE, &policy, &facts).join("; ")
    }

    #[test]
    fn truth_table() {
        for (secrets, allow, expected) in [
            (Fact::Is(vec![]), None, "pass"),
            (Fact::Is(vec![secret("GH")]), None, "pass"),
            (Fact::Unknown("x".into()), None, "pass"),
            (Fact::Is(vec![]), Some(&[][..]), "pass"),
            (Fact::Is(vec![secret("GH")]), Some(&[]), "deny secret"),
            (Fact::Is(vec![secret("GH")]), Some(&["GH"]), "pass"),
            (Fact::Is(vec![secret("GH")]), Some(&["G*"]), "pass"),
            (Fact::Is(vec![secret("GH"), secret("X")]), Some(&["GH"]), "deny secret"),
            (Fact::Is(vec![secret("GHX")]), Some(&["GH"]), "deny secret"),
            (Fact::Unknown("x".into()), Some(&[]), "deny unknown"),
            (Fact::Absent, Some(&["*"]), "deny unknown"),
        ] {
            assert_eq!(table(secrets.clone(), allow, |_, _| {}), expected, "{secrets:?} {allow:?}");
        }
    }

    #[test]
    fn each_is_named_and_none_is_shown() {
        let (mut policy, mut facts) = (fixture::policy(), fixture::facts());
        policy.scopes[0].secrets = Some(SecretRules::default());
        if let Fact::Is(image) = &mut facts.image {
            image.secrets = Fact::Is(vec![secret("GH"), Secret { place: "history".into(), ..secret("entry 3") }]);
        }
        let found: Vec<String> = check(&Ctx::new(&policy, &facts)).into_iter().map(|f| f.fact).collect();
        assert_eq!(
            found,
            ["env GH holds a GitHub token in the clear", "history entry 3 holds a GitHub token in the clear"]
        );
    }

    #[test]
    fn whose_image_it_is_must_be_known() {
        let none = || Fact::Is(Vec::new());
        assert_eq!(table(none(), Some(&[]), |_, f| f.image = Fact::Unknown("x".into())), "deny unverified");
        assert_eq!(table(none(), Some(&[]), |p, _| p.authorities.clear()), "deny unverified");
        let pinned = |p: &mut Policy, _: &mut Facts| p.sandbox.digests = vec![fixture::digest('a')];
        assert_eq!(table(Fact::Is(vec![secret("GH")]), Some(&[]), pinned), "pass");
    }
}
