//! `boltseal audit list` and `verify`.
use crate::args::Filters;
use crate::paths::TRAIL;
use crate::screen::{Colour, Exit, Failure, Screen, column, count, talk};
use boltseal_audit::{
    Anomaly, Class, Decision, Event, Filter, Finding, Head, Outcome, Record, Report, TrailError, parse_since,
};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) fn list(filters: &Filters, screen: &mut Screen) -> Result<Exit, Failure> {
    let filter = filter(filters)?;
    if !screen.json() {
        screen
            .line(&format!("   {:20}  {:>6}  {:11}  {:8}  {:16}  {}", "TIME", "SEQ", "EVENT", "ID", "OWNER", "WHAT"))?;
    }
    let mut shown = Ok(());
    let bad = boltseal_audit::list(Path::new(TRAIL), &filter, |record| {
        if shown.is_ok() {
            shown = if screen.json() { screen.document(&record) } else { row(&record, screen) };
        }
    })
    .map_err(unreadable)?;
    shown?;
    if bad > 0 {
        let (lines, are) = (
            count(usize::try_from(bad).unwrap_or(usize::MAX), "line"),
            if bad == 1 { "is no record" } else { "are no records" },
        );
        talk(&format!("{lines} {are}. Fix: look with `boltseal audit verify`"));
        return Ok(Exit::Findings);
    }
    Ok(Exit::Ok)
}

fn filter(filters: &Filters) -> Result<Filter, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let since = match &filters.since {
        None => None,
        Some(text) => match parse_since(text, now) {
            None => {
                return Err(Failure::new(
                    Exit::Usage,
                    format!("--since {text}: neither 15m, 1h, 7d nor a time in UTC such as 2026-01-31T12:00:00Z"),
                ));
            }
            since => since,
        },
    };
    Ok(Filter {
        since,
        denied: filters.denied,
        rule: filters.rule.as_ref().map(|r| r.to_ascii_uppercase()),
        owner: filters.owner.clone(),
        image: filters.image.clone(),
        id: filters.id.clone(),
        event: None,
    })
}

fn row(record: &Record, screen: &mut Screen) -> Result<(), Failure> {
    let (mark, colour) = match (record.decision, record.ev) {
        (Some(Decision::Deny), _) => ('✗', Colour::Bad),
        (Some(Decision::Allow), _) => ('✓', Colour::Good),
        (None, Event::Aborted | Event::Recovered | Event::Oom | Event::LogDropped | Event::Anomaly) => {
            ('!', Colour::Doubt)
        }
        (None, _) => ('·', Colour::Dim),
    };
    let time = record.ts.get(..19).unwrap_or(&record.ts);
    let id = if record.of.is_empty() { &record.id } else { &record.of };
    let head = format!("{time}Z  {:>6}  {:11}  {id:8}  {}", record.seq, event(record), column(&record.who.owner, 16));
    screen.row(mark, colour, &format!("{head}  {}", what(record)))
}

fn event(record: &Record) -> &'static str {
    match (record.ev, record.decision) {
        (Event::Exec, Some(Decision::Deny)) => "exec denied",
        (Event::Exec, _) => "exec",
        (Event::Decision, Some(Decision::Deny)) => "denied",
        (Event::Decision, _) => "allowed",
        (Event::Started, _) => "started",
        (Event::Aborted, _) => "aborted",
        (Event::Running, _) => "running",
        (Event::Exited, _) => "exited",
        (Event::Oom, _) => "oom",
        (Event::LogDropped, _) => "log dropped",
        (Event::Anomaly, _) => "anomaly",
        (Event::Network, _) => "network",
        (Event::Node, _) => "node",
        (Event::Recovered, _) => "recovered",
        (Event::Rotate, _) => "rotate",
    }
}

/// The one thing that an operator wants to know of it.
fn what(record: &Record) -> String {
    let mut words = Vec::new();
    let w = &record.what;
    words.push(match (w.namespace.is_empty(), w.pod.is_empty()) {
        (false, false) => format!("{}/{}/{}", w.namespace, w.pod, w.container),
        _ => w.id.clone(),
    });
    words.push(w.image.clone());
    let denied: Vec<&Finding> = record.findings.iter().filter(|f| f.outcome == Outcome::Deny).collect();
    if let Some((first, more)) = denied.split_first() {
        let more = if more.is_empty() { String::new() } else { format!(" (+{} more)", more.len()) };
        words.push(format!("{} {}{more}", first.rule, first.fact));
    }
    let excepted = record.findings.iter().filter(|f| f.outcome == Outcome::Excepted).map(|f| f.rule.as_str());
    let excepted: Vec<&str> = excepted.collect();
    if !excepted.is_empty() {
        words.push(format!("[excepted: {}]", excepted.join(", ")));
    }
    words.extend(record.status.map(|status| format!("status {status}")));
    words.extend(record.bytes.map(|bytes| format!("{bytes} bytes")));
    words.extend(record.anomaly.iter().chain(&record.network).map(|anomaly| seen(anomaly, record.pid)));
    words.push(record.note.clone());
    words.extend(record.break_glass.iter().map(|line| format!("[{line}]")));
    words.push(record.next.clone());
    words.retain(|word| !word.is_empty());
    words.join("  ")
}

/// `syscall refused: mount by sh (/bin/sh, pid 7), 12 times`.
fn seen(anomaly: &Anomaly, pid: Option<u32>) -> String {
    let class = match anomaly.class {
        Class::Process => "process",
        Class::Syscall => "syscall",
        Class::ProtectedFile => "protected file",
        Class::Write => "write",
        Class::Listener => "listener",
        Class::Destination => "destination",
        Class::Malware => "malware",
    };
    let how = if anomaly.refused { "refused" } else { "seen" };
    let pid = pid.map(|pid| format!("pid {pid}")).unwrap_or_default();
    let who = [anomaly.executable.as_str(), &pid].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>();
    let inside = if who.is_empty() { String::new() } else { format!(" ({})", who.join(", ")) };
    let by = if anomaly.comm.is_empty() { inside } else { format!(" by {}{inside}", anomaly.comm) };
    let times = if anomaly.count == 1 { String::new() } else { format!(", {} times", anomaly.count) };
    let scan = match anomaly.port_scan {
        0 => String::new(),
        n => format!(", port scan: {n} destinations within a minute"),
    };
    format!("{class} {how}: {}{by}{times}{scan}", anomaly.what)
}

pub(crate) fn verify(head: Option<&str>, screen: &mut Screen) -> Result<Exit, Failure> {
    let kept = match head {
        None => None,
        Some(text) => match Head::parse(text) {
            None => {
                return Err(Failure::new(
                    Exit::Usage,
                    format!("--head {text}: not of the form SEQ:SUM, with 64 lower-case hex digits"),
                ));
            }
            head => head,
        },
    };
    let report = boltseal_audit::verify(Path::new(TRAIL), kept.as_ref()).map_err(unreadable)?;
    let exit = if !report.problems.is_empty() {
        Exit::Findings
    } else if report.records == 0 {
        Exit::Undecided
    } else {
        Exit::Ok
    };
    if screen.json() {
        screen.document(&report)?;
        return Ok(exit);
    }
    table(&report, kept.is_some(), screen)?;
    Ok(exit)
}

fn table(report: &Report, kept: bool, screen: &mut Screen) -> Result<(), Failure> {
    for problem in &report.problems {
        let place = if problem.file.is_empty() {
            String::new()
        } else {
            format!("{}, after record {}: ", problem.file, problem.after)
        };
        screen.row('✗', Colour::Bad, &format!("{place}{}", problem.what))?;
    }
    if report.more_problems > 0 {
        screen.row('✗', Colour::Bad, &format!("and {} more", report.more_problems))?;
    }
    for open in &report.unfinished {
        let text = format!(
            "record {} ({}, {}, {}): allowed, but neither started nor aborted (yet)",
            open.seq, open.id, open.ts, open.container
        );
        screen.row('!', Colour::Doubt, &text)?;
    }
    for other in &report.others {
        screen.row('!', Colour::Doubt, &format!("{other} is no file of the trail"))?;
    }
    let Some(head) = &report.head else {
        return screen.row(
            '?',
            Colour::Doubt,
            "the trail is empty: nothing to verify, and no sign of what was there before",
        );
    };
    let n = |n: u64, noun| count(usize::try_from(n).unwrap_or(usize::MAX), noun);
    let counts = format!(
        "{} in {}; {}: {} allowed, {} refused; {} started, {}, {}, {} aborted, {} unfinished; {} marked",
        n(report.records, "record"),
        count(report.files, "file"),
        n(report.decisions, "decision"),
        report.allowed,
        report.refused,
        report.started,
        n(report.execs, "exec"),
        n(report.updates, "update"),
        report.aborted,
        report.unfinished.len(),
        n(report.recovered, "torn tail")
    );
    if !report.problems.is_empty() {
        return screen.row('✗', Colour::Bad, &format!("trail DAMAGED: {counts}"));
    }
    screen.row('✓', Colour::Good, &format!("chain whole, records 1..{}: {counts}", head.seq))?;
    if kept {
        return screen.row('✓', Colour::Good, &format!("it holds the kept head; head now {}:{}", head.seq, head.sum));
    }
    screen.row('·', Colour::Dim, &format!("head {}:{}", head.seq, head.sum))?;
    screen.row(
        '·',
        Colour::Dim,
        "a trail whose newest records were cut off looks whole: keep the head elsewhere and give it with --head",
    )
}

fn unreadable(error: TrailError) -> Failure {
    Failure::undecided(error)
}
