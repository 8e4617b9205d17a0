//! `boltseal image inspect`: what a start would find out about an image of this node. The gate looks, with the code of a start;
//! here it is shown.
mod shown;

use crate::doctor::house;
use crate::screen::{Exit, Failure, Screen, talk};
use serde_json::Value;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const GATE: &str = "boltseal-runtime";

/// Where an image is looked for.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    pub(crate) address: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) snapshotter: &'a str,
}

pub(crate) fn inspect(name: &str, place: &Place<'_>, screen: &mut Screen) -> Result<Exit, Failure> {
    let document = ask(&gate()?, &["inspect", place.address, place.namespace, place.snapshotter, name])?;
    if let Some(why) = document["policy_error"].as_str() {
        return Err(Failure::new(Exit::BadPolicy, format!("{why}. Fix: boltseal policy lint")));
    }
    let exit = match document["verdict"].as_str() {
        Some("allow") => Exit::Ok,
        Some("deny") => Exit::Findings,
        Some("undecided") => Exit::Undecided,
        _ => return Err(Failure::undecided(format!("{GATE} gave no verdict"))),
    };
    if screen.json() {
        screen.document(&document)?;
    } else {
        for line in shown::page(&document) {
            match line {
                shown::Line::Plain(text) => screen.line(&text)?,
                shown::Line::Marked(mark, colour, text) => screen.row(mark, colour, &text)?,
            }
        }
    }
    Ok(exit)
}

/// The one that is installed: it is the one that would judge.
fn gate() -> Result<PathBuf, Failure> {
    let found = house::BIN.iter().map(|dir| Path::new(dir).join(GATE)).find(|path| path.exists());
    found.ok_or_else(|| Failure::undecided(format!("{GATE} is not in {}. Fix: install it", house::BIN.join(", "))))
}

fn ask(gate: &Path, words: &[&str]) -> Result<Value, Failure> {
    let failed = |e: std::io::Error| Failure::undecided(format!("{}: {e}", gate.display()));
    let mut child = Command::new(gate)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let told = child.stderr.take();
    let said = std::thread::spawn(move || told.map(hear).unwrap_or_default());
    let mut answer = Vec::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_end(&mut answer).map_err(failed)?;
    }
    let status = child.wait().map_err(failed)?;
    let said = said.join().unwrap_or_default();
    if !status.success() {
        let why = said.trim().trim_start_matches("Error: ").replace('\n', " ");
        return Err(Failure::undecided(if why.is_empty() { format!("{GATE} ended with {status}") } else { why }));
    }
    if !said.is_empty() {
        talk(&said);
    }
    serde_json::from_slice(&answer).map_err(|e| Failure::undecided(format!("{GATE} answers otherwise: {e}")))
}

/// What it says on stderr but how far it is, which a terminal shows.
fn hear(stderr: impl Read) -> String {
    let terminal = std::io::stderr().is_terminal();
    let (mut rest, mut shown) = (String::new(), false);
    for line in BufReader::new(stderr.take(1 << 20)).lines().map_while(Result::ok) {
        match progress(&line) {
            Some((entries, megabytes)) if terminal => {
                shown = write!(std::io::stderr(), "\rscanning: {entries} entries, {megabytes} MB").is_ok();
            }
            Some(_) => {}
            None => rest.push_str(&format!("{line}\n")),
        }
    }
    if shown && writeln!(std::io::stderr()).is_err() {
        // Nobody reads it any more.
    }
    rest
}

fn progress(line: &str) -> Option<(u64, u64)> {
    let mut words = line.strip_prefix("progress ")?.split(' ').map(str::parse::<u64>);
    let (entries, bytes) = (words.next()?.ok()?, words.next()?.ok()?);
    words.next().is_none().then_some((entries, bytes >> 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_two_numbers() {
        assert_eq!(progress("progress 12 3145728"), Some((12, 3)));
        for other in ["", "progress", "progress 1", "progress 1 2 3", "progress a 1", "warning 1 2"] {
            assert_eq!(progress(other), None, "{other}");
        }
    }

    #[test]
    fn an_answer_is_whole_or_none() {
        let ask = |script: &str| ask(Path::new("/bin/sh"), &["-c", script]);
        assert_eq!(ask("echo progress 1 2 >&2; echo '{\"a\":1}'").unwrap()["a"], 1);
        let failed = |script: &str| ask(script).unwrap_err().text;
        assert_eq!(failed("echo 'Error: image \"x\" is not there' >&2; exit 1"), "image \"x\" is not there");
        assert!(failed("exit 1").contains("ended with"));
        assert!(failed("echo '{'").contains("answers otherwise"));
        // More than a pipe holds, on both sides.
        let flood =
            "yes progress 1 2 | head -n 30000 >&2; printf '\"'; head -c 300000 /dev/zero | tr '\\0' y; printf '\"'";
        assert_eq!(ask(flood).unwrap().as_str().unwrap().len(), 300_000);
    }
}
