//! `make test-escape`: every row of the table, on boltseal through containerd, where it is safe on Debian's runc and crun
//! in the same run, and on a control in which the exploit succeeds. Words on the command line choose rows by their names.
#![forbid(unsafe_code)]

mod crun;
mod outcome;
mod report;
mod row;
mod rows;
mod site;

use anyhow::{Context, Result, bail, ensure};
use outcome::{Line, Outcome};
use row::{Control, Row, Seen};
use site::{Site, Who};
use stack::since::Since;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    stack::private::machine(work)
}

fn work(scratch: &Path) -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let groups = rows::all();
    let chosen = |row: &Row| words.is_empty() || words.iter().any(|word| row.test.contains(word.as_str()));
    for word in &words {
        ensure!(
            groups.iter().flat_map(|group| &group.rows).any(|row| row.test.contains(word.as_str())),
            "no row {word:?}"
        );
    }
    let mut site = Site::make(scratch)?;
    rows::keep()?;
    let before = Since::now()?;
    let mut lines = Vec::new();
    for group in &groups {
        for row in group.rows.iter().filter(|row| chosen(row)) {
            let line = one(&mut site, row).with_context(|| row.test.to_owned())?;
            println!("{}", report::told(&line));
            lines.push((group.name, line));
        }
    }
    report::end(&lines, &before, words.is_empty())
}

/// A row: its control, the peers, boltseal, and the twin of what boltseal refused.
fn one(site: &mut Site, row: &Row) -> Result<Line> {
    let runc = peer(site, row, Who::Runc);
    let crun = peer(site, row, Who::Crun);
    let control = control(site, row, &runc)?;
    let records = Since::now()?;
    let boltseal = attempt(site, row, Who::Boltseal).unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
    let records = records.records()?;
    let mut line = Line {
        ids: row.ids,
        mechanism: row.mechanism,
        test: row.test,
        control,
        runc,
        crun,
        boltseal,
        rules: outcome::rules(&records),
    };
    line.agree(&records);
    if matches!(line.boltseal, Outcome::Refused(_) | Outcome::Mixed { .. })
        && let Err(error) = twin(site, row)
    {
        line.boltseal = Outcome::Failed(format!("the twin: {error:#}"));
    }
    Ok(line)
}

fn peer(site: &mut Site, row: &Row, who: Who) -> Outcome {
    match (row.not_on)(who) {
        "" => attempt(site, row, who).unwrap_or_else(|error| Outcome::Failed(format!("{error:#}"))),
        why => Outcome::NotTried(why),
    }
}

fn control(site: &mut Site, row: &Row, runc: &Outcome) -> Result<Option<String>> {
    site.reset()?;
    let seen = match &row.control {
        Control::None(why) => return Ok(Some((*why).to_owned())),
        Control::Runc => *runc == Outcome::Escaped,
        Control::Done(proof) => {
            let proof = proof.clone();
            proof(site).context("the control")?
        }
        Control::Bare => {
            let words: Vec<&str> = row.args.iter().skip(1).map(String::as_str).collect();
            site.bare(&words)?.word("ESCAPED ").is_some()
        }
    };
    Ok((!seen).then(|| "the exploit does not succeed on this machine's control".to_owned()))
}

/// All rounds of a row on one runtime.
fn attempt(site: &mut Site, row: &Row, who: Who) -> Result<Outcome> {
    site.reset()?;
    let prepared = site.ask(who, row, false)?;
    drop(prepared);
    let rival = row.rival.map(|start| start(site)).transpose()?;
    let rounds = match (who, row.rival) {
        (Who::Runc | Who::Crun, Some(_)) => rows::PEER_STARTS,
        _ => row.rounds,
    };
    let mut all = Vec::new();
    let mut escaped = false;
    for round in 0..rounds {
        site.round = round;
        let ask = site.ask(who, row, true)?;
        let seen = site.send(who, &ask);
        let judged = seen.and_then(|seen| Ok(((row.escaped.clone())(site, who, &seen)?, seen)));
        let undone = site.world.undo();
        let (won, seen) = judged?;
        undone?;
        escaped |= won;
        all.push(seen);
        if escaped {
            break;
        }
    }
    if let Some(mut rival) = rival {
        ensure!(Path::new(&format!("/proc/{}", rival.pid())).exists(), "the rival ended: {}", rival.said());
        rival.stop()?;
    }
    Ok(Outcome::of(escaped, &all))
}

/// The same without the fault starts.
fn twin(site: &mut Site, row: &Row) -> Result<()> {
    site.reset()?;
    let ask = site.ask(Who::Boltseal, row, false)?;
    let seen = site.send(Who::Boltseal, &ask)?;
    site.world.undo()?;
    match seen {
        Seen::Ran { code: 0, .. } => Ok(()),
        Seen::Ran { code, output } => bail!("it ended with {code}: {output}"),
        Seen::Refused(why) => bail!("it is refused as well: {why}"),
    }
}
