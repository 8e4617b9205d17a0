//! What a row came to, and whether the trail says the same.
use crate::row::Seen;
use serde_json::Value;
use std::collections::BTreeSet;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Escaped,
    /// Nothing started; the last reason.
    Refused(String),
    /// It ran, and the exploit got nothing; the kernel's last answer.
    Held(String),
    /// Of many starts some ran and some were refused.
    Mixed {
        ran: usize,
        refused: usize,
    },
    NotTried(&'static str),
    /// No result: what went wrong.
    Failed(String),
}

impl Outcome {
    pub(crate) fn of(escaped: bool, all: &[Seen]) -> Self {
        let refused = all.iter().filter(|seen| matches!(seen, Seen::Refused(_))).count();
        match all.last() {
            _ if escaped => Self::Escaped,
            _ if refused > 0 && refused < all.len() => Self::Mixed { ran: all.len() - refused, refused },
            Some(Seen::Refused(why)) => Self::Refused(why.clone()),
            Some(seen) => Self::Held(seen.word("held: ").unwrap_or("").to_owned()),
            None => Self::Failed("nothing was asked".into()),
        }
    }

    pub(crate) fn tried(&self) -> bool {
        !matches!(self, Self::NotTried(_) | Self::Failed(_))
    }

    pub(crate) fn word(&self) -> String {
        match self {
            Self::Escaped => "**escaped**".into(),
            Self::Refused(_) => "refused".into(),
            Self::Held(_) => "held".into(),
            Self::Mixed { ran, refused } => format!("held ({ran} ran, {refused} refused)"),
            Self::NotTried(_) => "-".into(),
            Self::Failed(_) => "no result".into(),
        }
    }
}

/// A finished row.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) ids: &'static str,
    pub(crate) mechanism: &'static str,
    pub(crate) test: &'static str,
    /// Why there is no control; nothing when the exploit was seen to succeed.
    pub(crate) control: Option<String>,
    pub(crate) runc: Outcome,
    pub(crate) crun: Outcome,
    pub(crate) boltseal: Outcome,
    /// Rules that denied, from the trail.
    pub(crate) rules: Vec<String>,
}

impl Line {
    /// What boltseal answered must be what it wrote down.
    pub(crate) fn agree(&mut self, records: &[Value]) {
        let denied = records.iter().any(|record| record["decision"] == "deny" || record["ev"] == "aborted");
        let allowed = records.iter().any(stack::cases::allowed);
        let wrong = match &self.boltseal {
            Outcome::Refused(why) if !denied => Some(format!("refused, and the trail does not say so: {why}")),
            Outcome::Held(_) if !allowed => Some("it ran, and the trail does not say that it may".to_owned()),
            _ => None,
        };
        if let Some(wrong) = wrong {
            self.boltseal = Outcome::Failed(wrong);
        }
    }
}

/// Rules that denied, and `inspection` for what was made and then found to be wrong.
pub(crate) fn rules(records: &[Value]) -> Vec<String> {
    let mut all = BTreeSet::new();
    for record in records {
        if record["ev"] == "aborted" {
            all.insert("inspection".to_owned());
        }
        if record["decision"] != "deny" {
            continue;
        }
        for finding in record["findings"].as_array().into_iter().flatten() {
            if finding["outcome"] == "deny"
                && let Some(rule) = finding["rule"].as_str()
            {
                all.insert(rule.to_owned());
            }
        }
    }
    all.into_iter().collect()
}
