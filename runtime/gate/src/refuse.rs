//! Why a request ends without a container: one type, whose text is what a person reads at 3 a.m.
use boltseal_message::{Code, Refusal};
use boltseal_policy::{Class, Denial, Finding, Outcome};

/// An answer that starts nothing.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The policy's verdict, already recorded under `id`. `code` overrides the one that the verdict's rules have.
    Verdict { denial: Denial, id: String, code: Option<Code> },
    /// One sentence in the same form, with a status of its own.
    Because { code: Code, message: String },
}

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

    pub(crate) fn into_message(self) -> Refusal {
        match self {
            Self::Verdict { denial, id, code } => {
                Refusal { code: code.unwrap_or_else(|| code_of(&denial)), message: denial.message(&id) }
            }
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
}
