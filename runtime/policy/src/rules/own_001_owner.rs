//! BS-OWN-001: somebody is accountable.
mod grant;
mod system;
pub(super) use grant::container as granted_container;
#[cfg(test)]
pub(super) use grant::tests as grants;

use super::{CREATE, Ctx, Rule, TIMEOUT_ROW, UNKNOWN_ROW};
use crate::facts::{BoundToken, Fact, Facts, OwnerToken};
use crate::policy::{Level, Policy};
use crate::verdict::Finding;
use crate::{pattern, text};

pub(super) static RULE: Rule = Rule {
    id: "BS-OWN-001",
    title: "An owner is named and, by the policy's level, proven",
    nist: "4.4.5",
    from: Level::Baseline,
    misfit: "deny",
    doors: CREATE,
    reads: "owner, owner_token, owner_grant, subject, image, mounts, policy owner.{level,patterns,token,grant,system}",
    predicate: "an owner is named, on one line, and matches a pattern of owner.patterns: the annotation boltseal.dev/owner (level annotation), or the service account \
                of a token that the cluster bound to this pod, its namespace and this node (level pod-token), or whom an authority of owner.grant \
                signed a grant for that is in force and names this audience, namespace, pod, container, image and each of its mounts (level grant). \
                A pod that owner.system lists by namespace and image has the owner that the policy names.",
    fix: "set the annotation boltseal.dev/owner to an owner of owner.patterns",
    conditions: &[
        ("missing", "no owner is named"),
        ("not-allowed", "the owner matches no pattern"),
        ("no-token", "the pod has no token that proves its owner"),
        ("token", "the pod's token proves nothing: its signature, issuer, audience or time do not hold"),
        ("other-pod", "the token or the grant is for another pod, namespace or node"),
        ("no-grant", "the pod has no grant of its owner"),
        (
            "grant",
            "the pod's grant counts for nothing: its signature, authority, issuer, audience, time or authentication do not hold",
        ),
        ("beyond-grant", "the grant names no such container, or another image, or not that mount"),
        ("level", "the policy demands a proof that this version cannot check"),
        UNKNOWN_ROW,
        TIMEOUT_ROW,
    ],
    cves: &[],
    check,
};

const FIX_TOKEN: &str = "give the pod a projected volume boltseal-owner with a serviceAccountToken of the audience owner.token.audience at the path token";

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    if let Some(system) = system::of(ctx) {
        let fact = format!("{} (system pod of {})", text::show(&system.owner), text::show(&system.namespace));
        return vec![RULE.allowed_by(&format!("system {}", system.id), "system", fact)];
    }
    let finding = match ctx.policy.owner.level.as_str() {
        "annotation" => annotation(ctx),
        "pod-token" => token(ctx),
        "grant" => grant::check(ctx),
        other => RULE.deny_fix(
            "level",
            format!("owner.level \"{}\" cannot be checked", text::show(other)),
            "set owner.level = \"annotation\", \"pod-token\" or \"grant\"",
        ),
    };
    vec![finding]
}

fn annotation(ctx: &Ctx<'_>) -> Finding {
    match &ctx.facts.owner {
        Fact::Unknown(why) => RULE.unknown("the owner", why),
        Fact::Absent => RULE.deny("missing", "no owner is named"),
        Fact::Is(owner) if owner.trim().is_empty() => RULE.deny("missing", "the owner is empty"),
        Fact::Is(owner) if is_allowed(ctx, owner) => RULE.pass(format!("{} (annotation, unproven)", text::show(owner))),
        Fact::Is(owner) => {
            RULE.deny("not-allowed", format!("owner \"{}\" matches no pattern of owner.patterns", text::show(owner)))
        }
    }
}

fn token(ctx: &Ctx<'_>) -> Finding {
    match &ctx.facts.owner_token {
        Fact::Unknown(why) => RULE.unknown("the pod's token", why),
        Fact::Absent => RULE.deny_fix("no-token", "the pod has no token in a volume boltseal-owner", FIX_TOKEN),
        Fact::Is(OwnerToken::Refused(why)) => {
            RULE.deny_fix("token", format!("the pod's token: {}", text::show(why)), FIX_TOKEN)
        }
        Fact::Is(OwnerToken::Bound(token)) => match unbound(ctx, token) {
            Some(fact) => RULE.deny_fix("other-pod", fact, "let kubelet project the token of this very pod"),
            None if is_allowed(ctx, &token.subject) => RULE.pass(format!("{} (pod token)", text::show(&token.subject))),
            None => RULE.deny_fix(
                "not-allowed",
                format!("owner \"{}\" matches no pattern of owner.patterns", text::show(&token.subject)),
                "name its service account in owner.patterns, or run the pod as one that is named",
            ),
        },
    }
}

/// The owner that the policy or a grant that holds names, for the record; None where neither does.
#[must_use]
pub fn named(policy: &Policy, facts: &Facts) -> Option<String> {
    let ctx = Ctx::new(policy, facts);
    let system = system::of(&ctx).map(|system| system.owner.clone());
    system.or_else(|| grant::holds(&ctx).ok().map(|grant| grant.subject.clone()))
}

/// What of the token is not this pod, where and as it runs.
fn unbound(ctx: &Ctx<'_>, token: &BoundToken) -> Option<String> {
    let subject = &ctx.facts.subject;
    let configured = ctx.policy.owner.token.as_ref().map_or("", |rules| rules.node.as_str());
    let here = if configured.is_empty() { token.here.as_str() } else { configured };
    let Some(node) = &token.node else {
        return Some("the pod's token names no node: the cluster is older than Kubernetes 1.32".into());
    };
    let pairs = [
        ("pod", &token.pod_uid, subject.pod_uid.as_str()),
        ("namespace", &token.namespace, subject.pod_namespace.as_str()),
        ("node", node, here),
    ];
    pairs.into_iter().find(|(_, said, is)| is.is_empty() || said != is).map(|(what, said, is)| {
        format!("the pod's token is of {what} \"{}\", this is \"{}\"", text::show(said), text::show(is))
    })
}

fn is_allowed(ctx: &Ctx<'_>, owner: &str) -> bool {
    let patterns = &ctx.policy.owner.patterns;
    owner.len() <= 256 && !owner.contains(char::is_control) && patterns.iter().any(|p| pattern::matches(p, owner))
}

#[cfg(test)]
mod tests {
    use super::super::outcomes;
    use super::*;
    use crate::fixture;
    use crate::policy::TokenRules;

    #[test]
    fn truth_table() {
        for (owner, expected) in [
            (Fact::Is("team-a@corp.example".to_owned()), "pass"),
            (Fact::Is("team-a@evil.example".to_owned()), "deny not-allowed"),
            (Fact::Is("x\n@corp.example".to_owned()), "deny not-allowed"),
            (Fact::Is("x".repeat(256 - 13) + "@corp.example"), "pass"),
            (Fact::Is("x".repeat(256 - 12) + "@corp.example"), "deny not-allowed"),
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

    fn with_token(change: impl Fn(&mut Policy, &mut Facts, &mut BoundToken)) -> String {
        let (mut policy, mut facts) = (fixture::policy(), fixture::facts());
        policy.owner.level = "pod-token".into();
        policy.owner.patterns = vec!["system:serviceaccount:shop:*".into()];
        policy.owner.token = Some(TokenRules::default());
        // What the pod says of itself counts no more.
        facts.owner = Fact::Is("mallory@evil.example".into());
        facts.subject.pod_namespace = "shop".into();
        facts.subject.pod_uid = "u-1".into();
        let mut token = BoundToken {
            subject: "system:serviceaccount:shop:web".into(),
            namespace: "shop".into(),
            pod_uid: "u-1".into(),
            node: Some("node-1".into()),
            here: "node-1".into(),
        };
        change(&mut policy, &mut facts, &mut token);
        if facts.owner_token == Fact::Absent {
            facts.owner_token = Fact::Is(OwnerToken::Bound(token));
        }
        outcomes(&RULE, &policy, &facts).concat()
    }

    #[test]
    fn a_token_proves_the_owner_of_one_pod() {
        assert_eq!(with_token(|_, _, _| {}), "pass");
        let other = "deny other-pod";
        assert_eq!(with_token(|_, _, t| t.pod_uid = "u-2".into()), other);
        assert_eq!(with_token(|_, _, t| t.namespace = "bank".into()), other);
        assert_eq!(with_token(|_, _, t| t.node = Some("node-2".into())), other);
        assert_eq!(with_token(|_, _, t| t.node = None), other);
        // Without Kubernetes there is no pod, and nothing that an empty name could be equal to.
        assert_eq!(with_token(|_, f, t| (f.subject.pod_uid, t.pod_uid) = Default::default()), other);
        assert_eq!(with_token(|_, f, t| (f.subject.pod_namespace, t.namespace) = Default::default()), other);
        assert_eq!(with_token(|_, _, t| (t.node, t.here) = (Some(String::new()), String::new())), other);
        // The policy's name of this node wins over its host name.
        let named = |name: &'static str| {
            move |p: &mut Policy, _: &mut Facts, _: &mut BoundToken| {
                p.owner.token = Some(TokenRules { node: name.into(), ..Default::default() });
            }
        };
        assert_eq!(with_token(named("node-1")), "pass");
        assert_eq!(with_token(named("node-2")), other);
        assert_eq!(with_token(|p, _, _| p.owner.patterns = vec!["*@corp.example".into()]), "deny not-allowed");
        assert_eq!(with_token(|_, _, t| t.subject = "system:serviceaccount:shopx:web".into()), "deny not-allowed");
    }

    #[test]
    fn no_token_is_no_owner() {
        let (mut policy, mut facts) = (fixture::policy(), fixture::facts());
        policy.owner.level = "pod-token".into();
        assert_eq!(outcomes(&RULE, &policy, &facts), ["deny no-token"]);
        facts.owner_token = Fact::Is(OwnerToken::Refused("the token has expired".into()));
        assert_eq!(outcomes(&RULE, &policy, &facts), ["deny token"]);
        facts.owner_token = Fact::Unknown("x".into());
        assert_eq!(outcomes(&RULE, &policy, &facts), ["deny unknown"]);
        facts.owner_token = Fact::Unknown("timeout: x".into());
        assert_eq!(outcomes(&RULE, &policy, &facts), ["deny timeout"]);
    }
}
