//! BS-IMG-005: somebody scanned the image, lately, and found nothing that is worse than the policy takes.
use super::gates::{Asked, UNVERIFIED_ROW, asked, names, statements};
use super::img_004_age::{DAY, LEEWAY, now};
use super::{CREATE, Ctx, Rule, TIMEOUT_ROW, UNKNOWN_ROW};
use crate::facts::{Attestation, Fact, Report, Said, Severity, Signature};
use crate::policy::{Level, ScanRules, Tolerated};
use crate::verdict::Finding;
use crate::{date, text};
use std::collections::BTreeMap;

/// Predicate type of `cosign attest --type vuln`.
pub(super) const KIND: &str = "https://cosign.sigstore.dev/attestation/vuln/v1";

pub(super) static RULE: Rule = Rule {
    id: "BS-IMG-005",
    title: "A fresh signed scan found no vulnerability worse than the policy takes",
    nist: "4.1.1, 4.1.3",
    from: Level::Restricted,
    misfit: "deny",
    doors: CREATE,
    reads: "image.{attestations,signatures}, now, policy image.vulnerabilities, scope.vulnerabilities, authority",
    predicate: "an attestation of type https://cosign.sigstore.dev/attestation/vuln/v1 over target or manifest, by an authority that the policy \
        names for scans, for this repository, with a key that does not sign the image, finished at most max_days ago, and none ahead; its \
        result is trivy's or grype's JSON; every vulnerability worse than max_severity is tolerated by id until a date that has not \
        passed. Of each authority the newest scan speaks, and all of them must hold. An unknown severity is as bad as critical. Neither schema tells of \
        malware, so no policy can ask for it. What a statement says is read by a jailed worker (trust=jailed). Holds without \
        a look where the policy has no table of vulnerabilities.",
    fix: "scan it anew, cosign attest --type vuln, then boltseal sig import",
    conditions: &[
        ("no-scan", "no scan by an authority that the policy names for it"),
        ("build-key", "the scan is signed with the key that signs the image"),
        ("unreadable", "a scan is there, but its schema is not known or it cannot be read"),
        ("stale", "the newest scan is older than max_days"),
        ("future", "the scan's date lies ahead"),
        ("vulnerable", "a vulnerability is worse than max_severity, and nobody tolerates it"),
        UNVERIFIED_ROW,
        UNKNOWN_ROW,
        TIMEOUT_ROW,
    ],
    cves: &[],
    check,
};

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    let asked = match asked(ctx, &RULE, |scope| scope.vulnerabilities.as_ref(), |image| image.vulnerabilities.as_ref())
    {
        Ok(asked) => asked,
        Err(finding) => return vec![*finding],
    };
    let now = match now(ctx, &RULE) {
        Ok(now) => now,
        Err(finding) => return vec![*finding],
    };
    let (newest, bad) = readable(ctx, &asked);
    if newest.is_empty() {
        return vec![none(&asked, bad)];
    }
    newest.into_iter().map(|(authority, scan)| judge(asked.rules, now, authority, &scan)).collect()
}

/// When the newest scan finished that counts, for BS-IMG-004.
pub(super) fn newest(ctx: &Ctx<'_>) -> Option<u64> {
    let asked =
        asked(ctx, &RULE, |scope| scope.vulnerabilities.as_ref(), |image| image.vulnerabilities.as_ref()).ok()?;
    readable(ctx, &asked).0.values().map(|scan| scan.at).max()
}

struct Dated<'a> {
    scan: &'a Report,
    at: u64,
}

/// The newest scan of each authority, and why others do not count, with the condition that this is.
fn readable<'a>(
    ctx: &Ctx<'_>,
    asked: &Asked<'a, ScanRules>,
) -> (BTreeMap<&'a str, Dated<'a>>, Vec<(&'static str, String)>) {
    let (found, bad) = statements(ctx, asked, &asked.rules.authorities, &[KIND]);
    let mut bad: Vec<_> = bad.into_iter().map(|why| ("no-scan", why)).collect();
    let mut newest: BTreeMap<&str, Dated<'_>> = BTreeMap::new();
    for statement in found {
        match read(ctx, asked, statement) {
            Ok(scan) if newest.get(statement.authority.as_str()).is_some_and(|other| other.at >= scan.at) => {}
            Ok(scan) => {
                newest.insert(&statement.authority, scan);
            }
            Err((condition, why)) => bad.push((condition, format!("\"{}\" {why}", text::show(&statement.authority)))),
        }
    }
    (newest, bad)
}

fn read<'a>(
    ctx: &Ctx<'_>,
    asked: &Asked<'a, ScanRules>,
    statement: &'a Attestation,
) -> Result<Dated<'a>, (&'static str, String)> {
    // Whom a trusted root certifies is told apart by the authority, which names persons.
    let keyless = ctx.policy.authorities.iter().any(|a| a.name == statement.authority && a.format == "keyless");
    let same = |s: &Signature| s.key == statement.key && (!keyless || s.authority == statement.authority);
    if asked.image.signatures.iter().filter(|s| asked.signed.by.contains_key(&s.authority)).any(same) {
        return Err(("build-key", "scanned with the key that signs the image".into()));
    }
    match &statement.says {
        Fact::Is(Said::Scan(scan)) => match date::instant(&scan.finished) {
            Some(at) => Ok(Dated { scan, at }),
            None => Err(("unreadable", format!("says it finished at \"{}\"", text::show(&scan.finished)))),
        },
        Fact::Is(_) => Err(("unreadable", "says something else than a scan".into())),
        Fact::Absent => Err(("unreadable", "was not read".into())),
        Fact::Unknown(why) => Err(("unreadable", format!("says what cannot be read: {}", text::show(why)))),
    }
}

/// The worst reason last: what was found and could not be read says more than what is not there.
fn none(asked: &Asked<'_, ScanRules>, bad: Vec<(&'static str, String)>) -> Finding {
    let rank = |condition: &str| ["no-scan", "build-key", "unreadable"].iter().position(|c| *c == condition);
    match bad.into_iter().max_by_key(|(condition, why)| (rank(condition), why.clone())) {
        Some(("build-key", why)) => {
            RULE.deny_fix("build-key", why, "attest the scan with the scanner's own key, not with the build's")
        }
        Some((condition, why)) => RULE.deny(condition, why),
        None => RULE.deny("no-scan", format!("no scan by {} is there", names(&asked.rules.authorities))),
    }
}

fn judge(rules: &ScanRules, now: u64, authority: &str, dated: &Dated<'_>) -> Finding {
    let (authority, day) = (text::show(authority), date::day(dated.at));
    if dated.at > now.saturating_add(LEEWAY) {
        return RULE.deny_fix(
            "future",
            format!("\"{authority}\" scanned it {day}, which lies ahead"),
            "set the clock right",
        );
    }
    let age = now.saturating_sub(dated.at);
    if age > rules.max_days.saturating_mul(DAY) {
        let fact =
            format!("\"{authority}\" scanned it {day}, {} days ago; the policy takes {}", age / DAY, rules.max_days);
        return RULE.deny("stale", fact);
    }
    let scan = dated.scan;
    let worse = |severity: Severity| severity.exceeds(rules.max_severity);
    let (tolerated, left): (Vec<_>, Vec<_>) =
        scan.found.iter().filter(|(_, s)| worse(*s)).partition(|(id, _)| tolerates(rules, now, id));
    let all: u64 = scan.counts.iter().filter(|(s, _)| worse(**s)).map(|(_, n)| n).sum();
    let unlisted = all.saturating_sub((tolerated.len() + left.len()) as u64);
    if !left.is_empty() || unlisted > 0 {
        let shown = text::list(left.iter().map(|(id, severity)| format!("{id} ({})", severity.name())));
        let fact = if left.is_empty() { format!("{unlisted} more than are listed") } else { shown };
        let fact = format!(
            "\"{authority}\" found {} worse than {}: {fact}",
            left.len() as u64 + unlisted,
            rules.max_severity.name()
        );
        return RULE.deny_fix("vulnerable", fact, "update what is vulnerable, or tolerate it by id until a date");
    }
    let mut fact =
        format!("scanned {day} by \"{authority}\" ({}, trust=jailed): {}", text::show(&scan.scanner), counts(scan));
    if !tolerated.is_empty() {
        fact.push_str(&format!("; tolerated: {}", text::list(tolerated.iter().map(|(id, _)| id))));
    }
    RULE.pass(fact)
}

/// An exception for that id that has not run out.
fn tolerates(rules: &ScanRules, now: u64, id: &str) -> bool {
    let open = |t: &&Tolerated| date::end_of(&t.expires).is_some_and(|end| now < end);
    rules.except.iter().filter(open).any(|t| t.id == id)
}

fn counts(scan: &Report) -> String {
    let shown: Vec<String> =
        scan.counts.iter().rev().filter(|(_, n)| **n > 0).map(|(s, n)| format!("{n} {}", s.name())).collect();
    if shown.is_empty() { "nothing found".into() } else { shown.join(", ") }
}

#[cfg(test)]
mod tests;
