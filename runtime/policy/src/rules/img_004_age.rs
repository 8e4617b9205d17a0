//! BS-IMG-004: the image is not older than the policy takes.
use super::gates::{Asked, UNVERIFIED_ROW, asked};
use super::{CREATE, Ctx, Rule, TIMEOUT_ROW, UNKNOWN_ROW};
use crate::facts::Fact;
use crate::policy::{AgeRules, AgeSource, Level};
use crate::verdict::Finding;
use crate::{date, text};

/// Clocks of two machines, seconds.
pub(super) const LEEWAY: u64 = 60;
pub(super) const DAY: u64 = 86_400;

pub(super) static RULE: Rule = Rule {
    id: "BS-IMG-004",
    title: "The image is not older than the policy takes",
    nist: "4.2.2",
    from: Level::Restricted,
    misfit: "deny",
    doors: CREATE,
    reads: "image.{created,signatures,attestations}, now, policy image.age, scope.age",
    predicate: "what the policy's source names lies at most max_days before now, and not after it (a minute of leeway): `created` is the \
        date of the signed config; `scan` is when the scan finished that counts for image.vulnerabilities; `timestamp` is the earliest \
        time of a counted signature that somebody trusted with the time shows. A reproducible build's date of 1970 is as old as it says. \
        A pinned sandbox image is not asked. Holds without a look where the policy has no age.",
    fix: "build and sign the image anew",
    conditions: &[
        ("too-old", "it is older than max_days"),
        ("future", "its date lies ahead: a clock is wrong, or somebody lies"),
        ("no-date", "the config has no date, or none that can be read"),
        ("no-scan", "no scan counts whose date could be taken"),
        ("no-timestamp", "nobody trusted with the time says when it was signed"),
        UNVERIFIED_ROW,
        UNKNOWN_ROW,
        TIMEOUT_ROW,
    ],
    cves: &[],
    check,
};

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    vec![judge(ctx).unwrap_or_else(|finding| *finding)]
}

fn judge(ctx: &Ctx<'_>) -> Result<Finding, Box<Finding>> {
    let asked = asked(ctx, &RULE, |scope| scope.age.as_ref(), |image| image.age.as_ref())?;
    let (what, at, fix) = moment(ctx, &asked)?;
    let now = now(ctx, &RULE)?;
    let day = date::day(at);
    if at > now.saturating_add(LEEWAY) {
        return Err(RULE
            .deny_fix("future", format!("{what} {day}, which lies ahead"), "set the clock right; build anew")
            .into());
    }
    let (age, most) = (now.saturating_sub(at), asked.rules.max_days);
    let fact = format!("{what} {day}, {} days ago; the policy takes {most}", age / DAY);
    if age > most.saturating_mul(DAY) {
        return Err(RULE.deny_fix("too-old", fact, fix).into());
    }
    Ok(RULE.pass(fact))
}

/// The time, for rules that cannot do without.
pub(super) fn now(ctx: &Ctx<'_>, rule: &Rule) -> Result<u64, Box<Finding>> {
    match &ctx.facts.now {
        Fact::Is(now) => Ok(*now),
        Fact::Absent => Err(rule.unknown_fix("the time", "no clock", "set the node's clock").into()),
        Fact::Unknown(why) => Err(rule.unknown_fix("the time", why, "set the node's clock").into()),
    }
}

/// What happened when, and what makes it younger.
fn moment(ctx: &Ctx<'_>, asked: &Asked<'_, AgeRules>) -> Result<(&'static str, u64, &'static str), Box<Finding>> {
    let image = asked.image;
    match asked.rules.source {
        AgeSource::Created => {
            let fact = match image.created.as_str() {
                "" => "the image's config has no date".to_owned(),
                text => match date::instant(text) {
                    Some(at) => return Ok(("created", at, RULE.fix)),
                    None => format!("the image's config has \"{}\" as its date", text::show(text)),
                },
            };
            Err(RULE.deny_fix("no-date", fact, "build it with a tool that sets `created`").into())
        }
        AgeSource::Scan => {
            let found = super::img_005_scan::newest(ctx);
            let at = found.ok_or_else(|| {
                RULE.deny_fix("no-scan", "no scan counts for this image", "scan it, attest that: see BS-IMG-005")
            })?;
            Ok(("scanned", at, "scan it anew and attest that"))
        }
        AgeSource::Timestamp => {
            let counted = image.signatures.iter().filter(|s| asked.signed.by.contains_key(&s.authority));
            let at = counted.filter_map(|s| s.signed_at).min().ok_or_else(|| {
                let fact = "nobody trusted with the time says when it was signed";
                RULE.deny_fix("no-timestamp", fact, "set image.age.source to created or scan")
            })?;
            Ok(("signed", at, RULE.fix))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcomes;
    use super::*;
    use crate::{Facts, Policy, fixture};

    /// Now is 2026-11-23, the fixture's image is of 2026-11-01.
    fn table(days: u64, source: AgeSource, change: impl Fn(&mut Policy, &mut Facts)) -> String {
        let (mut policy, mut facts) = (fixture::policy(), fixture::facts());
        policy.image.age = Some(AgeRules { max_days: days, source });
        change(&mut policy, &mut facts);
        outcomes(&RULE, &policy, &facts).join("; ")
    }

    fn created(text: &str) -> impl Fn(&mut Policy, &mut Facts) {
        move |_, f| {
            if let Fact::Is(image) = &mut f.image {
                image.created = text.into();
            }
        }
    }

    #[test]
    fn truth_table() {
        for (text, days, expected) in [
            ("2026-11-01T00:00:00Z", 22, "pass"),
            ("2026-11-01T00:00:00Z", 21, "deny too-old"),
            ("2026-10-31T23:59:59Z", 22, "deny too-old"),
            ("2026-11-23T00:00:00.999Z", 0, "pass"),
            ("2026-11-23T00:01:00Z", 0, "pass"),
            ("2026-11-23T00:01:01Z", 0, "deny future"),
            ("2099-01-01T00:00:00Z", 90, "deny future"),
            // SOURCE_DATE_EPOCH=0, and Go's zero time.
            ("1970-01-01T00:00:00Z", 90, "deny too-old"),
            ("0001-01-01T00:00:00Z", 20_000, "deny too-old"),
            ("1970-01-01T00:00:00Z", u64::MAX, "pass"),
            ("", 90, "deny no-date"),
            ("yesterday", 90, "deny no-date"),
            ("2026-11-01", 90, "deny no-date"),
        ] {
            assert_eq!(table(days, AgeSource::Created, created(text)), expected, "{text} {days}");
        }
    }

    #[test]
    fn a_time_that_nobody_knows_denies() {
        let of = |now: Fact<u64>| table(90, AgeSource::Created, move |_, f| f.now = now.clone());
        assert_eq!(of(Fact::Unknown("clock went back".into())), "deny unknown");
        assert_eq!(of(Fact::Absent), "deny unknown");
    }

    #[test]
    fn only_a_trusted_time_is_a_timestamp() {
        let signed = |at: Option<u64>| {
            table(1, AgeSource::Timestamp, move |_, f| {
                if let Fact::Is(image) = &mut f.image {
                    image.signatures[0].signed_at = at;
                }
            })
        };
        assert_eq!(signed(None), "deny no-timestamp");
        assert_eq!(signed(Some(1_795_392_000 - DAY)), "pass");
        assert_eq!(signed(Some(1_795_392_000 - DAY - 1)), "deny too-old");
        assert_eq!(signed(Some(1_795_392_000 + LEEWAY + 1)), "deny future");
        // A signature that does not count says nothing, and of two times the earlier counts.
        let two = |authority: &str| {
            table(1, AgeSource::Timestamp, |_, f| {
                if let Fact::Is(image) = &mut f.image {
                    image.signatures[0].signed_at = Some(1_795_392_000);
                    let mut other = image.signatures[0].clone();
                    (other.authority, other.signed_at) = (authority.into(), Some(1));
                    image.signatures.push(other);
                }
            })
        };
        assert_eq!((two("ci").as_str(), two("stranger").as_str()), ("deny too-old", "pass"));
    }

    #[test]
    fn the_scopes_table_stands_in_the_nodes_place() {
        let scope = |days: u64| Some(AgeRules { max_days: days, source: AgeSource::Created });
        assert_eq!(table(1, AgeSource::Created, |p, _| p.scopes[0].age = scope(90)), "pass");
        assert_eq!(table(90, AgeSource::Created, |p, _| p.scopes[0].age = scope(1)), "deny too-old");
        let alone = |p: &mut Policy, _: &mut Facts| {
            p.image.age = None;
            p.scopes[0].age = scope(1);
        };
        assert_eq!(table(90, AgeSource::Created, alone), "deny too-old");
        assert_eq!(outcomes(&RULE, &fixture::policy(), &fixture::facts()), ["pass"]);
    }

    #[test]
    fn whose_image_it_is_must_be_known() {
        let of = |change: &dyn Fn(&mut Policy, &mut Facts)| table(90, AgeSource::Created, change);
        assert_eq!(of(&|_, f| f.image = Fact::Unknown("x".into())), "deny unverified");
        assert_eq!(of(&|_, f| f.image = Fact::Absent), "deny unverified");
        assert_eq!(of(&|p, _| p.authorities.clear()), "deny unverified");
        assert_eq!(table(1, AgeSource::Created, |p, _| p.sandbox.digests = vec![fixture::digest('a')]), "pass");
    }
}
