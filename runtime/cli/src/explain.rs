//! `boltseal explain`: what a rule reads, when it holds, how to meet it, how to be excepted from it.
use crate::screen::{Colour, Exit, Failure, Screen};
use boltseal_policy::policy::Level;
use boltseal_policy::rules::{self, Rule};
use serde_json::{Value, json};

/// The one rule that nothing excepts: what is not recorded does not happen.
const NEVER_EXCEPTED: &str = "BS-AUD-001";

pub(crate) fn explain(id: Option<&str>, screen: &mut Screen) -> Result<Exit, Failure> {
    let Some(id) = id else { return list(screen) };
    let Some(rule) = rules::find(&id.to_ascii_uppercase()) else {
        return Err(Failure::new(Exit::Usage, format!("there is no rule {id}. Fix: `boltseal explain` lists them")));
    };
    if screen.json() {
        screen.document(&document(rule))?;
    } else {
        page(rule, screen)?;
    }
    Ok(Exit::Ok)
}

fn list(screen: &mut Screen) -> Result<Exit, Failure> {
    if screen.json() {
        screen.document(&rules::all().iter().map(|r| document(r)).collect::<Vec<_>>())?;
        return Ok(Exit::Ok);
    }
    for rule in rules::all() {
        screen.row('·', Colour::Dim, &format!("{:11} {:10}  {}", rule.id, level(rule.from), rule.title))?;
    }
    Ok(Exit::Ok)
}

fn page(rule: &Rule, screen: &mut Screen) -> Result<(), Failure> {
    let doors: Vec<String> = rule.doors.iter().map(|d| format!("{d:?}").to_lowercase()).collect();
    screen.line(&format!("{}  {}", rule.id, rule.title))?;
    let rows = [
        ("NIST", format!("SP 800-190, {}", rule.nist)),
        (
            "enforced",
            if rule.id == NEVER_EXCEPTED {
                "at every level".into()
            } else {
                let earlier: String = rules::earlier(rule)
                    .iter()
                    .map(|(condition, from)| format!("{condition} from level {}, the rest ", level(*from)))
                    .collect();
                format!("{earlier}from level {}; below it a misfit only warns", level(rule.from))
            },
        ),
        ("doors", doors.join(", ")),
        ("reads", rule.reads.to_owned()),
        ("holds when", rule.predicate.to_owned()),
        ("misfit", rule.misfit.to_owned()),
        ("fix", rule.fix.to_owned()),
    ];
    for (name, text) in rows {
        paragraph(name, &text, screen)?;
    }
    for (at, (name, meaning)) in rule.conditions.iter().enumerate() {
        paragraph(if at == 0 { "conditions" } else { "" }, &format!("{name}: {meaning}"), screen)?;
    }
    if !rule.cves.is_empty() {
        paragraph("answers", &rule.cves.join(", "), screen)?;
    }
    if rule.id == NEVER_EXCEPTED {
        return paragraph("exception", "none: what is not recorded does not happen", screen);
    }
    screen.line("  exception")?;
    for text in example(rule) {
        screen.line(&format!("    {text}"))?;
    }
    Ok(())
}

/// A dated exception in its right form.
fn example(rule: &Rule) -> [String; 7] {
    let condition = rule.conditions.first().map_or("", |(name, _)| name);
    // What is of the node, or keeps an image from having a verified repository, has no repository to go by.
    let node = rule.id.starts_with("BS-NOD-") || rule.id == "BS-IMG-001";
    let scope = if node {
        "\"*\"    # the whole node"
    } else {
        "\"registry.example/team\"    # repository prefix; \"*\" for the node"
    };
    [
        "[[exception]]".to_owned(),
        format!("rule = \"{}\"", rule.id),
        format!("condition = \"{condition}\"    # one of the conditions above"),
        format!("scope = {scope}"),
        "owner = \"..\"".to_owned(),
        "reason = \"..\"".to_owned(),
        "expires = \"2027-01-31\"    # shown in every record until then, never counted as a pass".to_owned(),
    ]
}

/// `name` in a column, then the text in lines of a readable width.
fn paragraph(name: &str, text: &str, screen: &mut Screen) -> Result<(), Failure> {
    const WIDTH: usize = 92;
    let (mut line, mut name) = (String::new(), name);
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
            screen.line(&format!("  {name:11} {line}"))?;
            line.clear();
            name = "";
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    screen.line(&format!("  {name:11} {line}"))
}

fn document(rule: &Rule) -> Value {
    let conditions: serde_json::Map<String, Value> =
        rule.conditions.iter().map(|(n, m)| ((*n).into(), (*m).into())).collect();
    let earlier: serde_json::Map<String, Value> =
        rules::earlier(rule).iter().map(|(condition, from)| ((*condition).into(), level(*from).into())).collect();
    json!({ "id": rule.id, "title": rule.title, "nist": rule.nist, "from": rule.from, "doors": rule.doors, "misfit": rule.misfit,
        "reads": rule.reads, "predicate": rule.predicate, "fix": rule.fix, "conditions": conditions, "earlier": earlier, "cves": rule.cves })
}

pub(crate) fn level(level: Level) -> &'static str {
    match level {
        Level::Observe => "observe",
        Level::Baseline => "baseline",
        Level::Restricted => "restricted",
        Level::Strict => "strict",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boltseal_policy::Policy;

    #[test]
    fn every_example_is_a_policy() {
        for rule in rules::all().iter().filter(|r| r.id != NEVER_EXCEPTED) {
            let text = format!("version = 1\n{}", example(rule).join("\n"));
            let policy = Policy::parse(&text, &[]).unwrap_or_else(|e| panic!("{}: {e:?}", rule.id));
            assert_eq!(policy.exceptions[0].rule, rule.id);
        }
    }
}
