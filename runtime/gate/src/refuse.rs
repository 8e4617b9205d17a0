//! Why a request ends without a container: one type, whose text is what a person reads at 3 a.m.
use boltseal_message::{Code, Refusal};
use boltseal_policy::{Class, Denial, Finding, Outcome};

/// An answer that starts nothing.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The policy's verdict, already recorded under `id`. `code` overrides the one that the verdict's rules have.
    /// `also` is what a person must know beside it, one line each.
    Verdict { denial: Denial, id: String, code: Option<Code>, also: Vec<String> },
    /// One sentence in the same form, with a status of its own.
    Because { code: Code, message: String },
}

/// Longest first line, characters.
const FIRST_LINE: usize = 200;

pub(crate) type Result<T> = std::result::Result<T, Refused>;

impl Refused {
    pub(crate) fn because(code: Code, message: impl Into<String>) -> Self {
        Self::Because { code, message: format!("boltseal: {}", shorten(&message.into())) }
    }

    /// The request is malformed.
    pub(crate) fn malformed(what: impl Into<String>) -> Self {
        Self::because(Code::InvalidArgument, what)
    }

    pub(crate) fn internal(what: impl Into<String>) -> Self {
        Self::because(Code::Internal, what)
    }

    /// The launch met what a rule would have denied, had it not only warned: names that rule, its fact and its fix.
    pub(crate) fn let_through(self, findings: &[Finding]) -> Self {
        let Self::Because { code, message } = self else { return self };
        let text = message.trim_start_matches("boltseal: ");
        let mut found = findings.iter().filter(|f| is_let_through(f) && is_about(&f.rule, text));
        let Some(first) = found.next() else { return Self::Because { code, message } };
        let how = if first.outcome == Outcome::Warn { "only warns" } else { "is excepted" };
        let head = format!("boltseal: not launched, {} {how}: ", first.rule);
        let tail = format!(". Fix: {}", first.fix);
        let room = FIRST_LINE.saturating_sub(head.chars().count());
        let tail = cut(&tail, room.saturating_sub(40).max(40));
        let mut lines = format!("{head}{}{tail}", cut(text, room.saturating_sub(tail.chars().count())));
        for finding in std::iter::once(first).chain(found) {
            lines.push_str(&format!("\n{}: {}. Fix: {}", finding.rule, shorten(&finding.fact), shorten(&finding.fix)));
        }
        if !lines.contains(text) {
            lines.push_str(&format!("\nthe launch said: {text}"));
        }
        Self::Because { code, message: lines }
    }

    pub(crate) fn into_message(self) -> Refusal {
        match self {
            Self::Verdict { denial, id, code, also } => Refusal {
                code: code.unwrap_or_else(|| code_of(&denial)),
                message: std::iter::once(denial.message(&id)).chain(also).collect::<Vec<_>>().join("\n"),
            },
            Self::Because { code, message } => Refusal { code, message },
        }
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Verdict { denial, id, .. } => f.write_str(&denial.message(id)),
            Self::Because { message, .. } => f.write_str(message),
        }
    }
}

/// Words by which a launch or the seal speaks of what a rule rules on. A rule that is not here has no part in a launch.
const SUBJECTS: &[(&str, &[&str])] = &[
    ("BS-IMG-002", &["layer", "of the image", "overlay"]),
    ("BS-PRC-001", &["seccomp", "filter"]),
    ("BS-PRC-002", &["capabilit"]),
    ("BS-PRC-004", &["namespace"]),
    ("BS-PRC-005", &["hook", "scope's `programs`"]),
    ("BS-PRC-006", &["limit", "oom_score"]),
    ("BS-PRC-007", &["sysctl"]),
    ("BS-PRC-008", &["cgroup", "root.path"]),
    ("BS-PRC-010", &["user namespace", "idmapped"]),
    ("BS-MAC-001", &["label", "apparmor", "selinux"]),
    ("BS-FSY-001", &["landlock", "mount", "masked"]),
    ("BS-FSY-002", &["mount", "bind"]),
    ("BS-FSY-003", &["mount", "propagation"]),
    ("BS-DEV-001", &["device"]),
];

fn is_let_through(finding: &Finding) -> bool {
    matches!(finding.outcome, Outcome::Warn | Outcome::Excepted(_))
}

fn is_about(rule: &str, text: &str) -> bool {
    let text = text.to_lowercase();
    SUBJECTS.iter().any(|(id, words)| *id == rule && words.iter().any(|word| text.contains(word)))
}

/// At most that many characters.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(3)).chain("...".chars()).collect()
}

/// A denial of one finding, for what is decided before there are facts (a policy that cannot be read).
pub(crate) fn single(rule: &str, condition: &str, fact: impl Into<String>, fix: &str) -> Denial {
    Denial {
        findings: vec![Finding {
            rule: rule.into(),
            outcome: Outcome::Deny,
            condition: condition.into(),
            fact: fact.into(),
            fix: fix.into(),
        }],
    }
}

fn code_of(denial: &Denial) -> Code {
    match denial.code() {
        Class::PermissionDenied => Code::PermissionDenied,
        Class::FailedPrecondition => Code::FailedPrecondition,
        Class::InvalidArgument => Code::InvalidArgument,
        Class::Unavailable => Code::Unavailable,
    }
}

/// Bounded, on one line, without control characters: text from outside must not forge a line of a log.
pub(crate) fn shorten(text: &str) -> String {
    let mut out: String = text.chars().take(1000).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(1000).is_some() {
        out.push_str("..");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_stays_on_one_line() {
        assert_eq!(shorten("a\nb\u{1b}[31m"), "a b [31m");
        assert!(shorten(&"x".repeat(5000)).len() < 1100);
    }

    fn finding(rule: &str, outcome: Outcome) -> Finding {
        Finding {
            rule: rule.into(),
            outcome,
            condition: "c".into(),
            fact: "what was seen".into(),
            fix: "mend it".into(),
        }
    }

    #[test]
    fn a_launch_that_fails_on_what_only_warned_names_the_rule() {
        let said = |text: &str, findings: &[Finding]| {
            let refused = Refused::because(Code::FailedPrecondition, text).let_through(findings);
            refused.into_message().message
        };
        let all = [
            finding("BS-PRC-007", Outcome::Warn),
            finding("BS-IMG-002", Outcome::Warn),
            finding("BS-FSY-002", Outcome::Pass),
            finding("BS-NOD-001", Outcome::Excepted("x".into())),
        ];
        let line = said("the image has no layers", &all);
        assert_eq!(
            line,
            "boltseal: not launched, BS-IMG-002 only warns: the image has no layers. Fix: mend it\n\
             BS-IMG-002: what was seen. Fix: mend it"
        );
        assert!(said("sysctl kernel.x is not in a separate kernel namespace", &all).contains("BS-PRC-007 only warns"));
        let excepted = [finding("BS-MAC-001", Outcome::Excepted("x".into()))];
        assert!(
            said("the AppArmor profile x is not loaded", &excepted).contains("BS-MAC-001 is excepted: the AppArmor")
        );
        let unlisted = [finding("BS-IMG-002", Outcome::Warn), finding("BS-PRC-005", Outcome::Warn)];
        let line = said("\"/a\" leads to \"/b\", which the scope's `programs` do not list", &unlisted);
        assert!(
            line.starts_with("boltseal: not launched, BS-PRC-005 only warns: \"/a\" leads") && line.contains(". Fix: "),
            "{line}"
        );
        // Not what any of them is about, or what the rule found well.
        for text in ["no memory", "mount point /data: the image has something else there"] {
            assert_eq!(said(text, &all), format!("boltseal: {text}"));
        }
        let long = said(&format!("layer {}", "x".repeat(300)), &all);
        assert!(long.lines().next().unwrap().chars().count() <= 200 && long.contains(&"x".repeat(300)), "{long}");
    }
}
