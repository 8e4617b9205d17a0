//! A grant: what an owner signed for is what runs, where and as long as it says.
//!
//! It narrows here (container, image, mounts), and covers what BS-PRC-009 would refuse. It loosens nothing else.
use super::super::{Ctx, Finding};
use super::{RULE, is_allowed};
use crate::facts::{Fact, Grant, GrantedContainer, Image, Mount, Origin, OwnerGrant};
use crate::policy::{Closed, GrantAuthority, GrantRules};
use crate::{pattern, text};

const FIX: &str = "boltseal grant generate, sign; annotate the pod";
/// Seconds that clocks may differ.
const SKEW: u64 = 60;
const DAY: u64 = 86_400;
/// Where Kubernetes mounts a pod's own account, of which no manifest speaks.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Why a grant does not hold: condition, fact.
type Refusal = (&'static str, String);

pub(super) fn check(ctx: &Ctx<'_>) -> Finding {
    match (&ctx.facts.owner_grant, holds(ctx)) {
        (Fact::Unknown(why), _) => RULE.unknown_fix("the pod's grant", why, FIX),
        (Fact::Absent, _) => RULE.deny_fix("no-grant", "the pod has no annotation boltseal.dev/owner-grant", FIX),
        (Fact::Is(_), Ok(grant)) if ctx.facts.image.is().is_none() && !is_sandbox(ctx) => {
            let why = match &ctx.facts.image {
                Fact::Unknown(why) => why,
                Fact::Absent | Fact::Is(_) => "no image",
            };
            RULE.unknown_fix(&format!("the image that grant {} is for", grant.id), why, "see BS-IMG-001")
        }
        (Fact::Is(_), Ok(grant)) => {
            let by = text::list(&grant.by);
            RULE.pass(format!("{} (grant {} by {by})", text::show(&grant.subject), grant.id))
        }
        (Fact::Is(_), Err((condition, fact))) => RULE.deny_fix(condition, fact, FIX),
    }
}

/// The grant, if all of it holds for this container, now.
pub(super) fn holds<'a>(ctx: &Ctx<'a>) -> Result<&'a Grant, Refusal> {
    let (grant, rules) = match (&ctx.facts.owner_grant, &ctx.policy.owner.grant) {
        (Fact::Is(OwnerGrant::Signed(grant)), Some(rules)) if ctx.policy.owner.level == "grant" => (&**grant, rules),
        (Fact::Is(OwnerGrant::Refused(why)), Some(_)) => {
            return Err(("grant", format!("the pod's grant: {}", text::show(why))));
        }
        _ => return Err(("no-grant", "there is none".into())),
    };
    said(ctx, grant, rules).map_err(|why| ("grant", format!("grant {}: {why}", grant.id)))?;
    here(ctx, grant).map_err(|why| ("other-pod", format!("grant {} is {why}", grant.id)))?;
    if !is_allowed(ctx, &grant.subject) {
        let owner = text::show(&grant.subject);
        return Err((
            "not-allowed",
            format!("owner \"{owner}\" of grant {} matches no pattern of owner.patterns", grant.id),
        ));
    }
    if !is_sandbox(ctx) {
        beyond(ctx, grant).map_err(|why| ("beyond-grant", format!("grant {} {why}", grant.id)))?;
    }
    Ok(grant)
}

/// What a grant that holds says of this container; None where there is no such grant, or it is the sandbox.
pub(in super::super) fn container<'a>(ctx: &Ctx<'a>) -> Option<(&'a Grant, &'a GrantedContainer)> {
    let grant = holds(ctx).ok().filter(|_| !is_sandbox(ctx) && ctx.facts.image.is().is_some())?;
    named(ctx, grant).map(|container| (grant, container))
}

fn is_sandbox(ctx: &Ctx<'_>) -> bool {
    let subject = &ctx.facts.subject;
    subject.is_pod && subject.sandbox_id == subject.id
}

/// By whom, for whom, for how long.
fn said(ctx: &Ctx<'_>, grant: &Grant, rules: &GrantRules) -> Result<(), String> {
    let Fact::Is(now) = ctx.facts.now else { return Err("the time is not known, so it may have expired".into()) };
    if !rules.audiences.iter().any(|audience| grant.audience.contains(audience)) {
        return Err(format!("it is for {}, not for owner.grant.audiences", text::list(&grant.audience)));
    }
    if now >= grant.until {
        return Err("it has expired".into());
    }
    if grant.from > now.saturating_add(SKEW) {
        return Err("it is not valid yet".into());
    }
    if grant.until.saturating_sub(grant.from) > rules.max_days.saturating_mul(DAY) {
        return Err(format!("it lives for more than owner.grant.max_days, {}", rules.max_days));
    }
    let mut why = "none of owner.grant.authority signed it".to_owned();
    for authority in rules.authorities.iter().filter(|a| grant.by.contains(&a.name)) {
        match vouches(authority, grant, now, &ctx.facts.subject.pod_namespace) {
            Ok(()) => return Ok(()),
            Err(because) => why = format!("authority {}: {because}", text::show(&authority.name)),
        }
    }
    Err(why)
}

fn vouches(authority: &GrantAuthority, grant: &Grant, now: u64, namespace: &str) -> Result<(), String> {
    match authority.closed(now) {
        Some(Closed::NotYet(from)) => return Err(format!("its grants count from {from} on")),
        Some(Closed::Over(until)) => return Err(format!("its grants counted until {until}")),
        None => {}
    }
    if grant.issuer != authority.issuer {
        return Err("its `iss` is another issuer's".into());
    }
    if !authority.identities.iter().any(|p| pattern::matches(p, &grant.subject)) {
        return Err(format!("it does not speak for {}", text::show(&grant.subject)));
    }
    if !authority.namespaces.iter().any(|p| pattern::matches(p, namespace)) {
        return Err(format!("it grants nothing in namespace \"{}\"", text::show(namespace)));
    }
    if let Some(method) = authority.amr.iter().find(|method| !grant.amr.contains(*method)) {
        return Err(format!("who signed in did not do so with {} (`amr`)", text::show(method)));
    }
    if !authority.acr.is_empty() && !authority.acr.contains(&grant.acr) {
        return Err(format!("`acr` is \"{}\"", text::show(&grant.acr)));
    }
    Ok(())
}

/// What is empty is equal to nothing: outside of a pod no grant holds.
fn here(ctx: &Ctx<'_>, grant: &Grant) -> Result<(), String> {
    let subject = &ctx.facts.subject;
    if subject.pod_namespace.is_empty() || !grant.namespaces.contains(&subject.pod_namespace) {
        let (granted, is) = (text::list(&grant.namespaces), text::show(&subject.pod_namespace));
        return Err(format!("for namespace {granted}, this is \"{is}\""));
    }
    if subject.pod_name.is_empty() || !grant.pods.iter().any(|p| pattern::matches(p, &subject.pod_name)) {
        return Err(format!("for pods {}, this is \"{}\"", text::list(&grant.pods), text::show(&subject.pod_name)));
    }
    Ok(())
}

fn named<'a>(ctx: &Ctx<'_>, grant: &'a Grant) -> Option<&'a GrantedContainer> {
    let name = &ctx.facts.subject.container_name;
    grant.containers.iter().find(|c| !name.is_empty() && c.name == *name)
}

fn beyond(ctx: &Ctx<'_>, grant: &Grant) -> Result<(), String> {
    let Some(container) = named(ctx, grant) else {
        return Err(format!("names no container \"{}\"", text::show(&ctx.facts.subject.container_name)));
    };
    // An image that is not known is `check`'s to tell.
    let is = |image: &Image| container.images.contains(&image.target) || container.images.contains(&image.manifest);
    if let Some(image) = ctx.facts.image.is().filter(|image| !is(image)) {
        return Err(format!("is for other images than {}", image.manifest));
    }
    let beside = ctx.facts.mounts.iter().filter(|mount| mount.kind == "bind" && !is_given(mount));
    match beside.filter(|mount| !is_granted(container, mount)).map(|mount| &mount.destination).next() {
        Some(destination) => Err(format!("grants no such mount at {}", text::show(destination))),
        None => Ok(()),
    }
}

/// What CRI and kubelet give to every container, and no manifest names.
fn is_given(mount: &Mount) -> bool {
    match mount.object.is().map(|object| &object.origin) {
        Some(Origin::Cri(_)) => true,
        Some(Origin::Kubelet(kind)) => match kind.as_str() {
            "etc-hosts" | "termination-log" => true,
            "projected" => pattern::normal(&mount.destination).as_deref() == Some(ACCOUNT) && !mount.writable,
            _ => false,
        },
        Some(Origin::Host) | None => false,
    }
}

fn is_granted(container: &GrantedContainer, mount: &Mount) -> bool {
    let of_host = mount.object.is().is_none_or(|object| object.origin == Origin::Host);
    container.mounts.iter().any(|granted| {
        let host = match &granted.host {
            Some(host) => pattern::normal(host).is_some() && pattern::normal(host) == pattern::normal(&mount.source),
            // A volume of the cluster: kubelet mounts it below the pod's own folder.
            None => !of_host,
        };
        pattern::normal(&granted.destination).is_some()
            && pattern::normal(&granted.destination) == pattern::normal(&mount.destination)
            && !(granted.readonly && mount.writable)
            && host
    })
}

#[cfg(test)]
pub(in super::super) mod tests;
