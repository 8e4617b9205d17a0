//! BS-IMG-007: the image has no shell and no daemon to administer it from afar.
use super::{CREATE, Ctx, Rule, TIMEOUT_ROW, UNKNOWN_ROW};
use crate::facts::{Fact, Found, FoundKind};
use crate::policy::Level;
use crate::scan::asked;
use crate::text;
use crate::verdict::Finding;

pub(super) static RULE: Rule = Rule {
    id: "BS-IMG-007",
    title: "No shell and no remote administration in the image",
    nist: "4.1.2",
    from: Level::Strict,
    misfit: "deny",
    doors: CREATE,
    reads: "scan (of the image's layers, as the kernel merges them)",
    predicate: "no executable file and no symbolic link to one has the name of a shell (sh, bash, dash, busybox, zsh, pwsh ...), none \
        is busybox or toybox under another name, and none has the name of a daemon that lets somebody in (sshd, dropbear, telnetd, \
        xrdp, ttyd ...), in any folder. What a later layer takes away does not count. Interpreters (python, perl, node) are not \
        shells: what they may do is bounded by what they are given to run. Holds without a look where no policy asks.",
    fix: "build it from an image without (distroless, scratch, a multi-stage build)",
    conditions: &[
        ("shell", "the image has a shell"),
        ("remote-admin", "the image has a daemon that lets somebody in"),
        UNKNOWN_ROW,
        TIMEOUT_ROW,
    ],
    cves: &[],
    check,
};

/// What helps against an image that the scan cannot get through.
pub(super) const UNSCANNED: &str = "boltseal image inspect REF on the node scans it without a start's deadline";

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    listed(ctx, &RULE, &[(FoundKind::Shell, "shell"), (FoundKind::RemoteAdmin, "remote administration")])
}

/// What the scan found of these kinds, each a condition of the rule.
pub(crate) fn listed(ctx: &Ctx<'_>, rule: &Rule, kinds: &[(FoundKind, &str)]) -> Vec<Finding> {
    if !asked(ctx, rule) {
        return vec![rule.pass("no policy asks what its layers hold")];
    }
    let scan = match &ctx.facts.scan {
        Fact::Is(scan) => scan,
        Fact::Absent => return vec![unscanned(rule, "nobody scanned them")],
        Fact::Unknown(why) => return vec![unscanned(rule, why)],
    };
    let from = scan.from.name();
    let denied = kinds.iter().filter_map(|(kind, word)| {
        let (found, all) = scan.of(*kind);
        (all > 0).then(|| rule.deny(kind.name(), format!("{word}: {}; scan={from}", named(&found, all))))
    });
    let denied: Vec<Finding> = denied.collect();
    if denied.is_empty() {
        let words: Vec<&str> = kinds.iter().map(|(_, word)| *word).collect();
        return vec![rule.pass(format!("no {} in {} entries; scan={from}", words.join(", no "), scan.entries))];
    }
    denied
}

/// Also in time: trying again ends no sooner.
fn unscanned(rule: &Rule, why: &str) -> Finding {
    Finding { fix: UNSCANNED.into(), ..rule.unknown("what the layers hold", why) }
}

/// `/bin/sh -> busybox (layer 2), /bin/ash and 3 more`.
fn named(found: &[&Found], all: u64) -> String {
    const NAMED: usize = 3;
    let one = |f: &&Found| {
        let note = if f.note.is_empty() { String::new() } else { format!(" {}", text::show(&f.note)) };
        let layer = f.layer.map_or_else(String::new, |layer| format!(" (layer {layer})"));
        format!("{}{note}{layer}", text::show(&f.path))
    };
    let shown: Vec<String> = found.iter().take(NAMED).map(one).collect();
    match all.saturating_sub(u64::try_from(shown.len()).unwrap_or(u64::MAX)) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcomes;
    use super::*;
    use crate::facts::Scan;
    use crate::policy::Mode;
    use crate::{Facts, Policy, fixture};

    fn found(kind: FoundKind, path: &str) -> Found {
        Found { kind, path: path.into(), note: String::new(), layer: Some(0) }
    }

    fn table(level: Level, scan: Fact<Scan>) -> Vec<String> {
        let policy = Policy { level, ..fixture::policy() };
        outcomes(&RULE, &policy, &Facts { scan, ..fixture::facts() })
    }

    fn holding(kinds: &[FoundKind]) -> Fact<Scan> {
        Fact::Is(Scan { found: kinds.iter().map(|k| found(*k, "/x")).collect(), ..Scan::default() })
    }

    #[test]
    fn truth_table() {
        use FoundKind::{Device, FileCapability, RemoteAdmin, Setuid, Shell};
        let strict = |scan| table(Level::Strict, scan);
        assert_eq!(strict(holding(&[])), ["pass"]);
        assert_eq!(strict(holding(&[Shell])), ["deny shell"]);
        assert_eq!(strict(holding(&[RemoteAdmin])), ["deny remote-admin"]);
        assert_eq!(strict(holding(&[Shell, RemoteAdmin, Shell])), ["deny remote-admin", "deny shell"]);
        // What BS-IMG-008 rules on.
        assert_eq!(strict(holding(&[Setuid, FileCapability, Device])), ["pass"]);
        assert_eq!(strict(Fact::Unknown("x".into())), ["deny unknown"]);
        assert_eq!(strict(Fact::Unknown("timeout: x".into())), ["deny timeout"]);
        assert_eq!(strict(Fact::Absent), ["deny unknown"]);
        // More than are listed, and none of them is.
        assert_eq!(strict(Fact::Is(Scan { more: [1, 0, 0, 0, 0], ..Scan::default() })), ["deny shell"]);
        // Below its level nobody asks, whatever was seen.
        for scan in [holding(&[Shell]), Fact::Absent, Fact::Unknown("x".into())] {
            assert_eq!(table(Level::Restricted, scan), ["pass"]);
        }
    }

    #[test]
    fn who_asks_to_be_warned_is() {
        let mut policy = fixture::policy();
        policy.modes.insert(RULE.id.into(), Mode::Warn);
        let facts = Facts { scan: holding(&[FoundKind::Shell]), ..fixture::facts() };
        assert_eq!(outcomes(&RULE, &policy, &facts), ["deny shell"]);
        let crate::Verdict::Allow(permit) = crate::decide(&policy, &facts) else { panic!("denied") };
        let warned = permit.findings().iter().filter(|f| f.outcome == crate::Outcome::Warn);
        assert_eq!(warned.map(|f| f.rule.as_str()).collect::<Vec<_>>(), [RULE.id]);
    }

    #[test]
    fn what_was_found_is_named_with_its_layer() {
        let link = Found { note: "-> busybox".into(), layer: Some(2), ..found(FoundKind::Shell, "/bin/sh\n") };
        let unplaced = Found { layer: None, ..found(FoundKind::Shell, "/a") };
        assert_eq!(named(&[&link, &unplaced], 2), "/bin/sh\\n -> busybox (layer 2), /a");
        assert_eq!(named(&[&unplaced; 4], 9), "/a, /a, /a and 6 more");
        assert_eq!(named(&[&unplaced; 3], 3), "/a, /a, /a");
    }

    #[test]
    fn a_finding_says_where_the_scan_is_from() {
        let policy = Policy { level: Level::Strict, ..fixture::policy() };
        let facts = Facts { scan: holding(&[]), ..fixture::facts() };
        let findings = check(&Ctx::new(&policy, &facts));
        assert_eq!(findings[0].fact, "no shell, no remote administration in 0 entries; scan=fresh");
    }
}
