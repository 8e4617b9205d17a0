//! `boltseal check`: the decision of a start about an OCI bundle, as far as it can be had without containerd.
mod facts;

use crate::policy::{self, Bad, Loaded};
use crate::screen::{Colour, Exit, Failure, Screen, column};
use boltseal_evidence::spec;
use boltseal_policy::{Finding, Outcome, Policy, Verdict, decide, rules};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// Names that stand for the default policy at that level.
const LEVELS: [&str; 4] = ["observe", "baseline", "restricted", "strict"];
/// Conditions that say that a fact was missing.
const MISSING: [&str; 3] = ["unknown", "timeout", "unverified"];

pub(crate) fn check(bundle: &Path, named: Option<&str>, screen: &mut Screen) -> Result<Exit, Failure> {
    let chosen = choose(named)?;
    let bytes = spec::read_config(bundle).map_err(Failure::undecided)?;
    // A spec that does not parse is refused by a start, too.
    let parsed =
        spec::parse(&bytes).map_err(|why| Failure::new(Exit::Findings, format!("denied by BS-PRC-008: {why}")))?;
    let facts = facts::gather(bundle, &parsed, &chosen)?;
    let (allowed, findings) = match decide(chosen.policy(), &facts) {
        Verdict::Allow(permit) => (true, permit.findings().to_vec()),
        Verdict::Deny(denial) => (false, denial.findings),
    };
    let rows = rows(findings);
    let exit = match (allowed, rows.iter().any(|row| row.result == "DENY")) {
        (true, _) => Exit::Ok,
        (false, true) => Exit::Findings,
        (false, false) => Exit::Undecided,
    };
    if screen.json() {
        screen.document(&document(&rows, exit))?;
    } else {
        table(&rows, exit, screen)?;
    }
    Ok(exit)
}

/// What a policy speaks against in an OCI bundle; what only a start can know is not asked.
pub(crate) fn denials(bundle: &Path, policy: &Policy) -> Result<Vec<Finding>, Failure> {
    let bytes = spec::read_config(bundle).map_err(Failure::undecided)?;
    let parsed = spec::parse(&bytes).map_err(|why| Failure::new(Exit::Findings, why))?;
    let facts = facts::gather(bundle, &parsed, &Chosen::Other(Box::new(policy.clone())))?;
    let findings = match decide(policy, &facts) {
        Verdict::Allow(_) => Vec::new(),
        Verdict::Deny(denial) => denial.findings,
    };
    let speaks = |f: &Finding| f.outcome == Outcome::Deny && !MISSING.contains(&f.condition.as_str());
    Ok(findings.into_iter().filter(speaks).collect())
}

/// The policy that is checked against.
#[derive(Debug)]
pub(crate) enum Chosen {
    InForce(Box<Loaded>),
    Other(Box<Policy>),
}

impl Chosen {
    pub(crate) fn policy(&self) -> &Policy {
        match self {
            Self::InForce(loaded) => &loaded.policy,
            Self::Other(policy) => policy,
        }
    }
}

fn choose(named: Option<&str>) -> Result<Chosen, Failure> {
    let text = match named {
        None => return policy::load().map(|l| Chosen::InForce(Box::new(l))).map_err(Bad::failure),
        Some(level) if LEVELS.contains(&level) => format!("version = 1\nlevel = \"{level}\""),
        Some(file) => fs::read_to_string(file).map_err(|e| {
            Failure::undecided(format!("{file}: {e}. Fix: name a policy file, or one of {}", LEVELS.join(", ")))
        })?,
    };
    Policy::parse(&text, &[]).map(|p| Chosen::Other(Box::new(p))).map_err(|problems| Bad(problems).failure())
}

struct Row {
    finding: Finding,
    title: &'static str,
    nist: &'static str,
    result: &'static str,
    mark: char,
    colour: Colour,
    /// The allowance or the exception.
    by: String,
}

/// In the order of the rules, whatever the verdict.
fn rows(findings: Vec<Finding>) -> Vec<Row> {
    let place = |id: &str| rules::all().iter().position(|rule| rule.id == id);
    let mut rows: Vec<Row> = findings
        .into_iter()
        .map(|finding| {
            let rule = rules::find(&finding.rule);
            let missing = MISSING.contains(&finding.condition.as_str());
            let (result, mark, colour, by) = match &finding.outcome {
                Outcome::Pass => ("pass", '✓', Colour::Good, String::new()),
                Outcome::Sealed => ("sealed", '✓', Colour::Good, String::new()),
                Outcome::Allowed(by) => ("allowed", '✓', Colour::Good, by.clone()),
                Outcome::Excepted(by) => ("excepted", '!', Colour::Doubt, by.clone()),
                Outcome::Warn => ("warn", '!', Colour::Doubt, String::new()),
                Outcome::Deny if missing => ("unknown", '?', Colour::Doubt, String::new()),
                Outcome::Deny => ("DENY", '✗', Colour::Bad, String::new()),
            };
            Row {
                title: rule.map_or("", |r| r.title),
                nist: rule.map_or("", |r| r.nist),
                finding,
                result,
                mark,
                colour,
                by,
            }
        })
        .collect();
    rows.sort_by_key(|row| place(&row.finding.rule));
    rows
}

const RESULTS: [&str; 7] = ["pass", "sealed", "allowed", "excepted", "warn", "DENY", "unknown"];

fn count(rows: &[Row], result: &str) -> usize {
    rows.iter().filter(|row| row.result == result).count()
}

fn table(rows: &[Row], exit: Exit, screen: &mut Screen) -> Result<(), Failure> {
    screen.line(&format!("   {:11} {:44} {:12} {:8}  WHY", "RULE", "CONTROL", "NIST 800-190", "RESULT"))?;
    for row in rows {
        let why =
            if row.by.is_empty() { row.finding.fact.clone() } else { format!("{} (by {})", row.finding.fact, row.by) };
        let text = format!(
            "{:11} {} {} {:8}  {why}",
            row.finding.rule,
            column(row.title, 44),
            column(row.nist, 12),
            row.result
        );
        screen.row(row.mark, row.colour, &text)?;
    }
    let counts: Vec<String> = RESULTS
        .iter()
        .map(|r| (count(rows, r), r))
        .filter(|(n, _)| *n > 0)
        .map(|(n, r)| format!("{n} {}", r.to_lowercase()))
        .collect();
    let verdict = match exit {
        Exit::Ok => "would be ALLOWED",
        Exit::Findings => "would be DENIED",
        _ => "UNDECIDED: nothing here speaks against it, but what is unknown denies a start",
    };
    let more = rows
        .iter()
        .find(|row| row.result == "DENY")
        .map(|row| format!("     more: boltseal explain {}", row.finding.rule));
    screen.line(&format!("{} -> {verdict}{}", counts.join(", "), more.unwrap_or_default()))
}

fn document(rows: &[Row], exit: Exit) -> Value {
    let verdict = match exit {
        Exit::Ok => "allow",
        Exit::Findings => "deny",
        _ => "undecided",
    };
    let findings: Vec<Value> = rows
        .iter()
        .map(|row| {
            let f = &row.finding;
            json!({ "rule": f.rule, "title": row.title, "nist": row.nist, "result": row.result.to_lowercase(), "condition": f.condition,
                "fact": f.fact, "fix": f.fix, "by": row.by })
        })
        .collect();
    let counts: serde_json::Map<String, Value> =
        RESULTS.iter().map(|r| (r.to_lowercase(), count(rows, r).into())).collect();
    json!({ "verdict": verdict, "counts": counts, "findings": findings })
}
