//! BS-IMG-001: the image is signed by whom the policy names for its repository.
use super::{CREATE, Ctx, Identity, Rule, TIMEOUT_ROW, UNKNOWN_ROW};
use crate::facts::{Door, Fact, Facts, Image, Signature};
use crate::policy::{Level, Policy};
use crate::verdict::Finding;
use crate::{pattern, text};

pub(super) static RULE: Rule = Rule {
    id: "BS-IMG-001",
    title: "The image is signed by an authority that the policy names for its repository",
    nist: "4.1.5",
    from: Level::Baseline,
    misfit: "deny",
    doors: CREATE,
    reads: "image.{target,manifest,signatures,rejected,args}, process.args, policy authority, scope, sandbox, image.deny_digests",
    predicate: "target or manifest is in [sandbox] and the arguments are the image's own; or a verified signature over target or \
        manifest is by an authority that covers the signed repository (or is pinned to exactly one, when the format signs none) and \
        that the longest matching scope names. A denied digest never passes.",
    fix: "cosign sign --key .. the image, then boltseal sig import",
    conditions: &[
        ("unsigned", "no signature file was found for the image"),
        ("wrong-key", "a signature was found, but by no key of the policy"),
        ("other-digest", "a signature was found, but of another digest"),
        ("attestation", "an attestation was found where a signature is needed"),
        ("malformed", "a signature file was found that cannot be read"),
        ("certificate", "a notation signature was found, but its certificates or signed attributes do not hold"),
        ("not-pinned", "the format signs no repository and the authority is not pinned to exactly one"),
        ("wrong-repository", "the authority may not sign for the signed repository"),
        ("no-scope", "no scope covers the verified repository"),
        ("wrong-authority", "the scope names other authorities"),
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
        Identity::Signed { repository, authority, format } => {
            let fact =
                format!("{} signed by \"{}\" ({})", text::show(repository), text::show(authority), text::show(format));
            vec![RULE.pass(fact)]
        }
        Identity::Pinned(digest) => {
            vec![RULE.pass(format!("{digest} is pinned by [sandbox] and runs its own arguments"))]
        }
        Identity::None(findings) => findings.clone(),
    }
}

/// Who the image is, once for all rules. Exec and Update go by what the container's own record says.
pub(super) fn identify(policy: &Policy, facts: &Facts) -> Identity {
    if facts.door != Door::Create {
        let bound = facts.bound.is();
        return match bound.and_then(|b| b.repository.clone().zip(b.authority.clone())) {
            Some((repository, authority)) => {
                Identity::Signed { repository, authority, format: "recorded at create".into() }
            }
            None => Identity::None(Vec::new()),
        };
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

fn identify_image(policy: &Policy, facts: &Facts, image: &Image) -> Identity {
    let of_image = |d: &&String| **d == image.target || **d == image.manifest;
    if let Some(denied) = policy.image.deny_digests.iter().find(|d| of_image(d) || **d == image.config) {
        let fact = format!("{denied} is in image.deny_digests");
        return Identity::None(vec![RULE.deny_fix(
            "denied-digest",
            fact,
            "use another image, or take the digest off the list",
        )]);
    }
    if let Some(pinned) = policy.sandbox.digests.iter().find(of_image)
        && !image.args.is_empty()
        && image.args == facts.process.args
    {
        return Identity::Pinned(pinned.clone());
    }
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for signature in &image.signatures {
        match judge(policy, image, signature) {
            Ok(repository) => good.push((repository, signature)),
            Err(finding) => bad.push(*finding),
        }
    }
    // The name that containerd recorded only chooses among repositories that are all verified.
    let named = |r: &str| repository_of(&facts.subject.image_name) == r;
    good.sort_by(|(a, s), (b, t)| {
        (!named(a), a, &s.authority, &s.format).cmp(&(!named(b), b, &t.authority, &t.format))
    });
    if let Some((repository, signature)) = good.into_iter().next() {
        return Identity::Signed {
            repository,
            authority: signature.authority.clone(),
            format: signature.format.clone(),
        };
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

/// The verified repository of one signature, or why it does not count.
fn judge(policy: &Policy, image: &Image, signature: &Signature) -> Result<String, Box<Finding>> {
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
        Some(_) => Ok(repository),
    }
}

fn rejected(image: &Image, line: &str) -> Finding {
    let known = ["wrong-key", "other-digest", "attestation", "malformed", "certificate"];
    let (condition, rest) = match line.split_once(": ") {
        Some((head, rest)) if known.contains(&head) => (head, rest),
        _ => ("unsigned", line),
    };
    let fact = format!("{}: {}", short(&image.target), text::show(rest));
    if condition == "certificate" {
        return RULE.deny_fix(condition, fact, "notation sign the image anew, then boltseal sig import");
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
mod tests {
    use super::super::outcomes;
    use super::*;
    use crate::fixture;
    use crate::policy::Scope;

    fn table(change: impl Fn(&mut Policy, &mut Facts)) -> Vec<String> {
        let (mut policy, mut facts) = (fixture::policy(), fixture::facts());
        change(&mut policy, &mut facts);
        outcomes(&RULE, &policy, &facts)
    }

    fn with_image(change: impl Fn(&mut Image)) -> Vec<String> {
        table(|_, f| {
            if let Fact::Is(image) = &mut f.image {
                change(image);
            }
        })
    }

    #[test]
    fn truth_table() {
        assert_eq!(table(|_, _| {}), ["pass"]);
        assert_eq!(table(|_, f| f.image = Fact::Unknown("x".into())), ["deny unknown"]);
        assert_eq!(table(|_, f| f.image = Fact::Unknown("timeout: containerd".into())), ["deny timeout"]);
        assert_eq!(table(|_, f| f.image = Fact::Absent), ["deny no-image"]);
        assert_eq!(with_image(|i| i.signatures.clear()), ["deny unsigned"]);
        assert_eq!(with_image(|i| i.signatures[0].authority = "other".into()), ["deny wrong-key"]);
        assert_eq!(with_image(|i| i.signatures[0].digest = fixture::digest('f')), ["deny other-digest"]);
        assert_eq!(with_image(|i| i.signatures[0].repository = None), ["pass"]);
        assert_eq!(with_image(|i| i.signatures[0].repository = Some("docker.io/x".into())), ["deny wrong-repository"]);
        assert_eq!(with_image(|i| i.signatures[0].digest = i.manifest.clone()), ["pass"]);
        for (line, expected) in [
            ("attestation: cosign.sigstore.dev/attestation/v1 is no signature", "deny attestation"),
            ("certificate: notation: the leaf has expired", "deny certificate"),
            ("wrong-key: sha256:ab", "deny wrong-key"),
            ("other-digest: sha256:ab", "deny other-digest"),
            ("malformed: no JSON", "deny malformed"),
            ("something else", "deny unsigned"),
            ("something: else", "deny unsigned"),
        ] {
            let got = with_image(|i| {
                i.signatures.clear();
                i.rejected = vec![line.into()];
            });
            assert_eq!(got, [expected]);
        }
    }

    #[test]
    fn the_policy_side() {
        assert_eq!(table(|p, _| p.scopes.clear()), ["deny no-scope"]);
        assert_eq!(table(|p, _| p.scopes[0].authorities = vec!["x".into()]), ["deny wrong-authority"]);
        assert_eq!(table(|p, _| p.image.deny_digests = vec![fixture::digest('a')]), ["deny denied-digest"]);
        assert_eq!(table(|p, _| p.image.deny_digests = vec![fixture::digest('c')]), ["deny denied-digest"]);
        assert_eq!(table(|p, _| p.authorities.clear()), ["deny wrong-key"]);
        // The longest scope decides, and a wider one that names the authority does not help.
        let narrow = Scope {
            repository: "ghcr.io/corp/app".into(),
            authorities: vec!["x".into()],
            level: None,
            modes: Default::default(),
            sensitivity: String::new(),
            bind: None,
            connect: None,
            programs: None,
        };
        assert_eq!(table(|p, _| p.scopes.push(narrow.clone())), ["deny wrong-authority"]);
        let unpinned = |p: &mut Policy, f: &mut Facts| {
            p.authorities[0].repositories.push("quay.io/corp".into());
            if let Fact::Is(image) = &mut f.image {
                image.signatures[0].repository = None;
            }
        };
        assert_eq!(table(unpinned), ["deny not-pinned"]);
    }

    #[test]
    fn a_sandbox_is_a_pinned_digest_with_its_own_arguments() {
        let pin = |p: &mut Policy, f: &mut Facts| {
            p.sandbox.digests = vec![fixture::digest('b')];
            if let Fact::Is(image) = &mut f.image {
                image.signatures.clear();
            }
        };
        assert_eq!(table(pin), ["pass"]);
        assert_eq!(
            table(|p, f| {
                pin(p, f);
                f.process.args = vec!["sh".into()];
            }),
            ["deny unsigned"]
        );
        assert_eq!(
            table(|p, f| {
                pin(p, f);
                p.image.deny_digests = vec![fixture::digest('b')];
            }),
            ["deny denied-digest"]
        );
    }

    #[test]
    fn one_good_signature_suffices_in_any_order() {
        let two = |reverse: bool| {
            with_image(move |i| {
                let mut other = i.signatures[0].clone();
                other.authority = "other".into();
                i.signatures.push(other);
                i.rejected = vec!["malformed: x".into()];
                if reverse {
                    i.signatures.reverse();
                }
            })
        };
        assert_eq!(two(false), ["pass"]);
        assert_eq!(two(true), ["pass"]);
    }

    /// The name in containerd's record chooses among what is verified, and proves nothing by itself.
    #[test]
    fn of_several_repositories_the_recorded_name_chooses() {
        let chosen = |image_name: &str, reverse: bool| {
            let (policy, mut facts) = (fixture::policy(), fixture::facts());
            facts.subject.image_name = image_name.into();
            if let Fact::Is(image) = &mut facts.image {
                let mut other = image.signatures[0].clone();
                other.repository = Some("ghcr.io/corp/zed".into());
                image.signatures.push(other);
                if reverse {
                    image.signatures.reverse();
                }
            }
            Ctx::new(&policy, &facts).repository().map(str::to_owned)
        };
        for reverse in [false, true] {
            assert_eq!(chosen("ghcr.io/corp/app:1", reverse).as_deref(), Some("ghcr.io/corp/app"));
            assert_eq!(chosen("ghcr.io/corp/zed:1", reverse).as_deref(), Some("ghcr.io/corp/zed"));
            assert_eq!(chosen("docker.io/library/nginx", reverse).as_deref(), Some("ghcr.io/corp/app"));
        }
    }

    #[test]
    fn references() {
        for (reference, expected) in [
            ("ghcr.io/a/b:1", "ghcr.io/a/b"),
            ("localhost:5000/a", "localhost:5000/a"),
            ("localhost:5000/a:1@sha256:ab", "localhost:5000/a"),
            ("", ""),
        ] {
            assert_eq!(repository_of(reference), expected);
        }
    }
}
