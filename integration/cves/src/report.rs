//! The table, on screen and in README.md, and the last line.
use crate::outcome::{Line, Outcome};
use anyhow::{Context, Result, bail, ensure};
use stack::process::run;
use stack::since::Since;
use std::fs;
use std::process::Command;

/// As many rows must have a control, or the run shows too little.
const LEAST: usize = 30;
const BEGIN: &str = "<!-- The table: written by `make test-escape`. -->";

/// One line while it runs.
pub(crate) fn told(line: &Line) -> String {
    let detail = |who: &str, outcome: &Outcome| match outcome {
        Outcome::Refused(why) | Outcome::Held(why) | Outcome::Failed(why) => {
            format!("{who}: {} ({})", outcome.word(), why.chars().take(150).collect::<String>())
        }
        Outcome::NotTried(why) => format!("{who}: not tried ({why})"),
        _ => format!("{who}: {}", outcome.word()),
    };
    format!(
        "{} | {}\n    {}\n    {}\n    {}{}",
        line.test,
        line.ids,
        detail("runc", &line.runc),
        detail("crun", &line.crun),
        detail("boltseal", &line.boltseal),
        line.control.as_ref().map(|why| format!("\n    no control: {why}")).unwrap_or_default()
    )
}

fn boltseal(line: &Line) -> String {
    if line.rules.is_empty() {
        line.boltseal.word()
    } else {
        format!("{}: {}", line.boltseal.word(), line.rules.join(", "))
    }
}

fn table(lines: &[(&'static str, Line)]) -> String {
    let mut text = String::from("| CVE | mechanism | runc | crun | boltseal | test |\n|---|---|---|---|---|---|\n");
    let mut last = "";
    for (group, line) in lines {
        if *group != last {
            text.push_str(&format!("| **{group}** | | | | | |\n"));
            last = group;
        }
        let control = if line.control.is_some() { " (no control)" } else { "" };
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} | {}{control} |\n",
            line.ids,
            line.mechanism,
            line.runc.word(),
            line.crun.word(),
            boltseal(line),
            line.test
        ));
    }
    text
}

/// Table, counts, last line; an error when something escaped or had no result. `whole`: no row was left out.
pub(crate) fn end(lines: &[(&'static str, Line)], before: &Since, whole: bool) -> Result<()> {
    let text = table(lines);
    println!("\n{text}");
    let records = before.records()?;
    let count = |decision: &str| records.iter().filter(|record| record["decision"] == decision).count();
    let (allowed, denied) = (count("allow"), count("deny"));
    let aborted = records.iter().filter(|record| record["ev"] == "aborted").count();
    let verified = run(Command::new("boltseal").args(["audit", "verify"]))?;
    println!(
        "trail: {allowed} allowed, {denied} denied, {aborted} ended by the inspection; {}",
        verified.lines().next().unwrap_or_default()
    );
    let versions = versions()?;
    println!("peers: {versions}");

    let all = || lines.iter().map(|(_, line)| line);
    let tried: Vec<&Line> = all().filter(|line| line.control.is_none() && line.boltseal.tried()).collect();
    let on_runc: Vec<&&Line> = tried.iter().filter(|line| line.runc.tried()).collect();
    let succeeded = all().filter(|line| line.boltseal == Outcome::Escaped).count();
    let on_peer = on_runc.iter().filter(|line| line.runc == Outcome::Escaped).count();
    let last = format!(
        "escapes: {} tried, {succeeded} succeeded, {} also tried on runc ({on_peer} succeeded)",
        tried.len(),
        on_runc.len()
    );
    if whole {
        readme(&text, &versions, &last)?;
    }
    println!("{last}");
    let failed =
        |line: &&Line| [&line.boltseal, &line.runc, &line.crun].iter().any(|o| matches!(o, Outcome::Failed(_)));
    let without: Vec<&str> = all().filter(failed).map(|line| line.test).collect();
    ensure!(succeeded == 0, "{succeeded} succeeded");
    if !without.is_empty() {
        bail!("no result: {}", without.join(", "));
    }
    ensure!(!whole || tried.len() >= LEAST, "only {} rows have a control", tried.len());
    Ok(())
}

fn versions() -> Result<String> {
    let first = |program: &str| -> Result<String> {
        Ok(run(Command::new(program).arg("--version"))?.lines().next().unwrap_or_default().to_owned())
    };
    Ok(format!(
        "{}, {}, {}",
        first("runc")?,
        first("crun")?,
        first("containerd")?.replace("github.com/containerd/containerd ", "")
    ))
}

/// Replaces the table of the README; the text before it stays.
fn readme(table: &str, versions: &str, last: &str) -> Result<()> {
    let file = stack::private::project().join("integration/cves/README.md");
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let (head, _) = text.split_once(BEGIN).with_context(|| format!("{}: the line {BEGIN}", file.display()))?;
    Ok(fs::write(&file, format!("{head}{BEGIN}\n\nPeers: {versions}.\n\n{table}\n`{last}`\n"))?)
}
