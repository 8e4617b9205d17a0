//! What the rules on an image's own word and on statements about it share: what the policy asks of it, and whose statements count.
use super::{Ctx, Identity, Rule, Signed};
use crate::facts::{Attestation, Fact, Image};
use crate::policy::{ImageRules, Policy, Scope};
use crate::verdict::Finding;
use crate::{pattern, text};
use std::collections::BTreeSet;

/// What is judged: the table in force, the image, and who signed it.
pub(super) struct Asked<'a, T> {
    pub(super) rules: &'a T,
    pub(super) image: &'a Image,
    pub(super) signed: &'a Signed,
}

/// The table of the scope in force, else the node's. Where neither asks, or the policy pins the image by its digest, the rule
/// has passed; without a verified repository nobody knows what its scope asks.
pub(super) fn asked<'a, T>(
    ctx: &'a Ctx<'_>,
    rule: &Rule,
    of_scope: impl Fn(&'a Scope) -> Option<&'a T>,
    of_node: impl Fn(&'a ImageRules) -> Option<&'a T>,
) -> Result<Asked<'a, T>, Box<Finding>> {
    let node = of_node(&ctx.policy.image);
    if node.is_none() && !ctx.policy.scopes.iter().any(|scope| of_scope(scope).is_some()) {
        return Err(rule.pass("the policy asks for nothing of the kind").into());
    }
    let signed = match &ctx.identity {
        Identity::Pinned(digest) => return Err(rule.pass(format!("{digest} is pinned by [sandbox]")).into()),
        Identity::None(_) => {
            let fact = "the repository is not verified, nor what the policy asks of it";
            return Err(rule.deny_fix("unverified", fact, "sign the image: see BS-IMG-001").into());
        }
        Identity::Signed(signed) => signed,
    };
    let Fact::Is(image) = &ctx.facts.image else {
        let fix = "start it from an image: see BS-IMG-001";
        return Err(rule.deny_fix("unverified", "there is no image", fix).into());
    };
    match ctx.scope.and_then(of_scope).or(node) {
        Some(rules) => Ok(Asked { rules, image, signed }),
        None => {
            let shown = text::show(&signed.repository);
            Err(rule.pass(format!("the policy asks for nothing of the kind of {shown}")).into())
        }
    }
}

pub(super) const UNVERIFIED_ROW: (&str, &str) = ("unverified", "no signature gives a repository to judge by");

/// Statements of these kinds by these authorities that count for the image, and why each other one by them does not.
pub(super) fn statements<'a, T>(
    ctx: &Ctx<'_>,
    asked: &Asked<'a, T>,
    authorities: &[String],
    kinds: &[&str],
) -> (Vec<&'a Attestation>, Vec<String>) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    let of_kind = |a: &&Attestation| kinds.contains(&a.predicate_type.as_str()) && authorities.contains(&a.authority);
    for statement in asked.image.attestations.iter().filter(of_kind) {
        match counts(ctx, asked, statement) {
            Ok(()) => good.push(statement),
            Err(why) => bad.push(format!("\"{}\" {why}", text::show(&statement.authority))),
        }
    }
    (good, bad)
}

fn counts<T>(ctx: &Ctx<'_>, asked: &Asked<'_, T>, statement: &Attestation) -> Result<(), String> {
    let Some(authority) = ctx.policy.authorities.iter().find(|a| a.name == statement.authority) else {
        return Err("is no authority of the policy".into());
    };
    if statement.digest != asked.image.target && statement.digest != asked.image.manifest {
        return Err("says it of another image".into());
    }
    let repository = &asked.signed.repository;
    if !authority.repositories.iter().any(|prefix| pattern::covers(prefix, repository)) {
        return Err(format!("has no say on {}", text::show(repository)));
    }
    if authority.is_dated() {
        match ctx.facts.now {
            Fact::Is(now) if authority.closed(now).is_none() => {}
            Fact::Is(_) => return Err("does not count at this time".into()),
            Fact::Absent | Fact::Unknown(_) => return Err("has dates, and the time is not known".into()),
        }
    }
    if authority.takes(None) { Ok(()) } else { Err("counts from a signing time on, which no statement proves".into()) }
}

/// Predicate types of the statements that some table of the policy asks for: what nobody asks for is not read.
#[must_use]
pub fn statements_asked(policy: &Policy) -> BTreeSet<&'static str> {
    let (image, scopes) = (&policy.image, &policy.scopes);
    let scan = image.vulnerabilities.is_some() || scopes.iter().any(|s| s.vulnerabilities.is_some());
    let bom = image.sbom.is_some() || scopes.iter().any(|s| s.sbom.is_some());
    let provenance = image.provenance.is_some() || scopes.iter().any(|s| s.provenance.is_some());
    let kinds = [
        (scan, &[super::img_005_scan::KIND][..]),
        (bom, &super::img_006_origin::BOMS[..]),
        (provenance, &super::img_006_origin::PROVENANCES[..]),
    ];
    kinds.into_iter().filter(|(asked, _)| *asked).flat_map(|(_, kinds)| kinds.iter().copied()).collect()
}

/// `"a" or "b"`.
pub(super) fn names(authorities: &[String]) -> String {
    let shown: Vec<String> = authorities.iter().take(3).map(|a| format!("\"{}\"", text::show(a))).collect();
    shown.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn what_is_asked_is_read() {
        let (mut policy, mut facts) = (fixture::policy(), fixture::facts());
        assert_eq!(statements_asked(&policy).len(), 0);
        fixture::gated(&mut policy, &mut facts);
        assert_eq!(statements_asked(&policy).len(), 5);
        let Fact::Is(image) = &facts.image else { panic!() };
        assert!(image.attestations.iter().all(|a| statements_asked(&policy).contains(a.predicate_type.as_str())));
        // A scope alone suffices.
        policy.scopes[0].sbom = policy.image.sbom.take();
        (policy.image.vulnerabilities, policy.image.provenance) = (None, None);
        assert_eq!(
            statements_asked(&policy).into_iter().collect::<Vec<_>>(),
            ["https://cyclonedx.org/bom", "https://spdx.dev/Document"]
        );
    }
}
