//! BS-IMG-001: the image is signed by whom the policy names for its repository.
use super::{CREATE, Ctx, Identity, Rule, Signed, TIMEOUT_ROW, UNKNOWN_ROW};
use crate::facts::{Bound, Door, Fact, Facts, Image, Signature};
use crate::policy::{Authority, Closed, Level, Policy, Scope};
use crate::verdict::Finding;
use crate::{pattern, text};
use std::collections::{BTreeMap, BTreeSet};

pub(super) static RULE: Rule = Rule {
    id: "BS-IMG-001",
    title: "The image is signed by an authority that the policy names for its repository",
    nist: "4.1.5",
    from: Level::Baseline,
    misfit: "deny",
    doors: CREATE,
    reads: "image.{target,manifest,config,layers,signatures,rejected,args}, process.args, now, policy authority, scope, sandbox, image.deny_digests",
    predicate: "target or manifest is in [sandbox] and the arguments are the image's own; or verified signatures over target or \
        manifest, by as many keys as the longest matching scope needs, are by authorities that cover the signed repository (or are \
        pinned to exactly one, when the format signs none), that this scope names and whose dates take the signature. A denied digest \
        (index, manifest, config, or a layer's diff_id) never passes.",
    fix: "cosign sign --key .. the image, then boltseal sig import",
    conditions: &[
        ("unsigned", "no signature file was found for the image"),
        ("wrong-key", "a signature was found, but by no key of the policy"),
        ("other-digest", "a signature was found, but of another digest"),
        ("attestation", "an attestation was found where a signature is needed"),
        ("malformed", "a signature file was found that cannot be read"),
        ("store", "the image's folder of signatures cannot be read, holds too much, or others may write to it"),
        (
            "certificate",
            "a signature with certificates was found (notation, keyless), but they, what was signed beside the image, the log or the time do not hold",
        ),
        ("not-pinned", "the format signs no repository and the authority is not pinned to exactly one"),
        ("wrong-repository", "the authority may not sign for the signed repository"),
        ("no-scope", "no scope covers the verified repository"),
        ("wrong-authority", "the scope names other authorities"),
        ("too-few-signatures", "fewer keys signed than the scope needs"),
        ("not-yet-valid", "the authority's `from` has not come"),
        ("expired", "the authority's `until` is over"),
        (
            "no-signing-time",
            "the authority has a minimum signing time, and nobody trusted says when the signature was made",
        ),
        ("signed-too-early", "the signature was made before the authority's minimum signing time"),
        ("denied-digest", "the policy denies this digest"),
        ("no-image", "containerd has no image record for the container"),
        UNKNOWN_ROW,
        TIMEOUT_ROW,
    ],
    cves: &["CVE-2026-50195 (a restored checkpoint poisons a tag)"],
    check,
};

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    match &ctx.identity {
        // One for each, so that the record names all of them in full.
        Identity::Signed(signed) => {
            signed.by.iter().map(|(authority, format)| pass(signed, authority, format)).collect()
        }
        Identity::Pinned(digest) => {
            vec![RULE.pass(format!("{digest} is pinned by [sandbox] and runs its own arguments"))]
        }
        Identity::None(findings) => findings.clone(),
    }
}

fn pass(signed: &Signed, authority: &str, format: &str) -> Finding {
    let count = match signed.keys {
        (_, 1) => String::new(),
        (keys, need) => format!(", {keys} keys of {need}"),
    };
    let (repository, authority) = (text::show(&signed.repository), text::show(authority));
    RULE.pass(format!("{repository} signed by \"{authority}\" ({}){count}", told(format)))
}

/// Longest words on who signed that a finding has: an identity and its issuer are long, and what stands behind them counts.
const TOLD: usize = 460;

fn told(words: &str) -> String {
    text::shorten(&text::escape(words), TOLD)
}

/// Who the image is, once for all rules. Exec and Update go by what the container's own record says.
pub(super) fn identify(policy: &Policy, facts: &Facts) -> Identity {
    if facts.door != Door::Create {
        return facts.bound.is().and_then(recorded).map_or(Identity::None(Vec::new()), Identity::Signed);
    }
    match &facts.image {
        Fact::Is(image) => identify_image(policy, facts, image),
        Fact::Absent => Identity::None(vec![RULE.deny_fix(
            "no-image",
            "containerd has no image record for this container",
            "start it from an image",
        )]),
        Fact::Unknown(why) => Identity::None(vec![RULE.unknown_fix(
            "the image",
            why,
            "pull the image again; boltseal doctor checks containerd",
        )]),
    }
}

/// What the permit of its create said: counted then.
fn recorded(bound: &Bound) -> Option<Signed> {
    let (repository, first) = bound.repository.clone().zip(bound.authority.clone())?;
    let names = bound.authorities.iter().cloned().chain([first]);
    let by: BTreeMap<_, _> = names.map(|name| (name, "recorded at create".to_owned())).collect();
    Some(Signed { repository, by, keys: (1, 1) })
}

fn identify_image(policy: &Policy, facts: &Facts, image: &Image) -> Identity {
    let of_image = |d: &&String| **d == image.target || **d == image.manifest;
    if let Err(finding) = not_denied(&policy.image.deny_digests, "image.deny_digests", image) {
        return Identity::None(vec![*finding]);
    }
    if let Some(pinned) = policy.sandbox.digests.iter().find(of_image)
        && !image.args.is_empty()
        && image.args == facts.process.args
    {
        return Identity::Pinned(pinned.clone());
    }
    by_signatures(policy, facts, image)
}

/// Who signed it, whether it is pinned or not.
pub(super) fn by_signatures(policy: &Policy, facts: &Facts, image: &Image) -> Identity {
    let (mut good, mut bad) = (BTreeMap::<String, (&Scope, Vec<&Signature>)>::new(), Vec::new());
    for signature in &image.signatures {
        match judge(policy, &facts.now, image, signature) {
            Ok((repository, scope)) => good.entry(repository).or_insert((scope, Vec::new())).1.push(signature),
            Err(finding) => bad.push(*finding),
        }
    }
    let mut enough = Vec::new();
    for (repository, (scope, signatures)) in good {
        match count(repository, scope, &signatures) {
            Ok(signed) => enough.push(signed),
            Err(finding) => bad.push(*finding),
        }
    }
    // The name that containerd recorded only chooses among repositories that are all verified.
    let named = repository_of(&facts.subject.image_name);
    let at = enough.iter().position(|signed| signed.repository == named).unwrap_or(0);
    if at < enough.len() {
        return Identity::Signed(enough.swap_remove(at));
    }
    bad.extend(image.rejected.iter().map(|line| rejected(image, line)));
    if bad.is_empty() {
        bad.push(
            RULE.deny(
                "unsigned",
                format!("{} has no signature by {}", shown_name(facts, image), wanted(policy, facts)),
            ),
        );
    }
    Identity::None(bad)
}

/// Whether as many keys signed for the repository as its scope needs. A key counts once, whatever names it has and
/// however often it signed; one over the index and one over the manifest are both over what runs.
fn count(repository: String, scope: &Scope, signatures: &[&Signature]) -> Result<Signed, Box<Finding>> {
    let keys = signatures.iter().map(|s| s.key.as_str()).collect::<BTreeSet<_>>().len();
    // Of an authority's formats the first by name, whatever the order of the files.
    let said: BTreeSet<_> = signatures.iter().map(|s| (s.authority.clone(), s.format.clone())).collect();
    let by: BTreeMap<String, String> = said.into_iter().rev().collect();
    if keys >= scope.need {
        return Ok(Signed { repository, by, keys: (keys, scope.need) });
    }
    let fact = format!(
        "{keys} of {} needed keys signed ({}{}) {}",
        scope.need,
        text::list(by.keys().map(|name| format!("\"{name}\""))),
        if by.len() > keys { ", some with the same key" } else { "" },
        text::show(&repository),
    );
    let others = scope.authorities.iter().filter(|name| !by.contains_key(*name)).map(|name| format!("\"{name}\""));
    let fix = match text::list(others) {
        none if none.is_empty() => "give the scope an authority with a key of its own".to_owned(),
        others => format!("have {others} sign it too, then boltseal sig import"),
    };
    Err(RULE.deny_fix("too-few-signatures", fact, fix).into())
}

/// The verified repository of one signature with its scope, or why it does not count.
fn judge<'a>(
    policy: &'a Policy,
    now: &Fact<u64>,
    image: &Image,
    signature: &Signature,
) -> Result<(String, &'a Scope), Box<Finding>> {
    let name = text::show(&signature.authority);
    let Some(authority) = policy.authorities.iter().find(|a| a.name == signature.authority) else {
        return Err(RULE.deny("wrong-key", format!("the policy has no authority \"{name}\"")).into());
    };
    if signature.digest != image.target && signature.digest != image.manifest {
        return Err(RULE
            .deny(
                "other-digest",
                format!("\"{name}\" signed {}, not {}", text::show(&signature.digest), short(&image.target)),
            )
            .into());
    }
    in_time(authority, now, signature)?;
    let repository = match (&signature.repository, authority.repositories.as_slice()) {
        (Some(signed), _) => signed.clone(),
        (None, [only]) => only.trim_end_matches('/').to_owned(),
        (None, several) => {
            let fact = format!(
                "a {} names no repository, and \"{name}\" may sign for {}",
                text::show(&signature.format),
                several.len()
            );
            return Err(RULE
                .deny_fix("not-pinned", fact, "give the authority exactly one entry in `repositories`")
                .into());
        }
    };
    let shown = text::show(&repository);
    if !authority.repositories.iter().any(|prefix| pattern::covers(prefix, &repository)) {
        let fact = format!("\"{name}\" may not sign for {shown}");
        return Err(RULE
            .deny_fix(
                "wrong-repository",
                fact,
                "sign with that repository's key, or add it to the authority's `repositories`",
            )
            .into());
    }
    match super::scope_of(policy, &repository) {
        None => Err(RULE
            .deny_fix("no-scope", format!("no scope covers {shown}"), "add a [[scope]] for it that names the authority")
            .into()),
        Some(scope) if !scope.authorities.contains(&signature.authority) => {
            let fact = format!("scope {} does not name \"{name}\"", text::show(&scope.repository));
            Err(RULE.deny_fix("wrong-authority", fact, "sign with an authority of that scope").into())
        }
        Some(scope) => {
            // A wider scope's list holds for the narrower ones: what is revoked there is not brought back by a detail.
            for wider in policy.scopes.iter().filter(|s| pattern::covers(&s.repository, &repository)) {
                let list = format!("deny_digests of scope {}", text::show(&wider.repository));
                not_denied(&wider.deny_digests, &list, image)?;
            }
            Ok((repository, scope))
        }
    }
}

/// The authority's dates.
fn in_time(authority: &Authority, now: &Fact<u64>, signature: &Signature) -> Result<(), Box<Finding>> {
    let name = text::show(&authority.name);
    if authority.is_dated() {
        let now = match now {
            Fact::Is(now) => *now,
            Fact::Unknown(why) => return Err(RULE.unknown_fix("the time", why, "set the node's clock").into()),
            Fact::Absent => return Err(RULE.unknown_fix("the time", "no clock", "set the node's clock").into()),
        };
        let denied = match authority.closed(now) {
            None => None,
            Some(Closed::NotYet(from)) => Some((
                "not-yet-valid",
                format!("\"{name}\" counts from {from} on"),
                "sign with an authority that counts now, or wait",
            )),
            Some(Closed::Over(until)) => Some((
                "expired",
                format!("\"{name}\" counted until {until}"),
                "sign with the authority that followed it, or set another `until`",
            )),
        };
        if let Some((condition, fact, fix)) = denied {
            return Err(RULE.deny_fix(condition, fact, fix).into());
        }
    }
    if authority.takes(signature.signed_at) {
        return Ok(());
    }
    let least = text::show(authority.min_signing_time.as_deref().unwrap_or_default());
    let format = text::show(&signature.format);
    let (condition, fact) = match signature.signed_at {
        None => {
            ("no-signing-time", format!("\"{name}\" counts if signed since {least}; a {format} does not prove when"))
        }
        Some(_) => ("signed-too-early", format!("the {format} of \"{name}\" was made before {least}")),
    };
    Err(RULE.deny_fix(condition, fact, "sign with a new key, an authority of its own; end this one by `until`").into())
}

/// Neither what runs nor a part of it is on the list.
fn not_denied(list: &[String], name: &str, image: &Image) -> Result<(), Box<Finding>> {
    let own = [&image.target, &image.manifest, &image.config];
    let Some(denied) = list.iter().find(|digest| own.contains(digest) || image.layers.contains(digest)) else {
        return Ok(());
    };
    let what = if image.layers.contains(denied) { "layer " } else { "" };
    let fact = format!("{what}{denied} is in {name}");
    Err(RULE.deny_fix("denied-digest", fact, "use another image, or take the digest off the list").into())
}

fn rejected(image: &Image, line: &str) -> Finding {
    let known = ["wrong-key", "other-digest", "attestation", "malformed", "store", "certificate"];
    let (condition, rest) = match line.split_once(": ") {
        Some((head, rest)) if known.contains(&head) => (head, rest),
        _ => ("unsigned", line),
    };
    let fact = format!("{}: {}", short(&image.target), told(rest));
    if condition == "store" {
        let fix = "make the image's folder below /var/lib/boltseal/sig/sha256 root's alone, and empty it of all but signatures";
        return RULE.deny_fix(condition, fact, fix);
    }
    if condition == "certificate" {
        let fix = if rest.starts_with("keyless") {
            "cosign sign the image as somebody whom the policy names, then boltseal sig import"
        } else {
            "notation sign the image anew, then boltseal sig import"
        };
        return RULE.deny_fix(condition, fact, fix);
    }
    RULE.deny(condition, fact)
}

/// `name@sha256:12ab..` for the person who reads it.
fn shown_name(facts: &Facts, image: &Image) -> String {
    let name = text::show(repository_of(&facts.subject.image_name));
    if name.is_empty() { short(&image.target) } else { format!("{name}@{}", short(&image.target)) }
}

/// Whose signature would do, for the message only: by the name that containerd recorded.
fn wanted(policy: &Policy, facts: &Facts) -> String {
    match super::scope_of(policy, repository_of(&facts.subject.image_name)) {
        Some(scope) => {
            scope.authorities.iter().map(|a| format!("\"{}\"", text::show(a))).collect::<Vec<_>>().join(" or ")
        }
        None => "an authority of the policy".into(),
    }
}

fn short(digest: &str) -> String {
    text::shorten(&text::escape(digest), 21)
}

/// `ghcr.io/a/b:1@sha256:..` without tag and digest.
fn repository_of(reference: &str) -> &str {
    let name = reference.split('@').next().unwrap_or(reference);
    match name.rsplit_once(':') {
        Some((head, tag)) if !tag.contains('/') => head,
        _ => name,
    }
}

#[cfg(test)]
mod tests;
