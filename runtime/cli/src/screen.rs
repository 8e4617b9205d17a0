//! What goes out: data to stdout, talk to stderr, exit codes. Everything from outside is escaped on its way.
use boltseal_audit::clean;
use clap::ValueEnum;
use serde::Serialize;
use std::fmt;
use std::io::{self, IsTerminal, Write};

/// Exit codes, the same for every `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Ok = 0,
    /// Denied, or something was found.
    Findings = 1,
    Usage = 2,
    /// It could not be decided: a file, a device or a service did not answer.
    Undecided = 3,
    BadPolicy = 4,
}

/// Why a command ended early.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) text: String,
    pub(crate) io: Option<io::ErrorKind>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, text: impl fmt::Display) -> Self {
        Self { exit, text: text.to_string(), io: None }
    }
    pub(crate) fn undecided(text: impl fmt::Display) -> Self {
        Self::new(Exit::Undecided, text)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self { exit: Exit::Undecided, text: format!("stdout: {error}"), io: Some(error.kind()) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    Good,
    Bad,
    Doubt,
    Dim,
}

/// stdout.
#[derive(Debug)]
pub(crate) struct Screen {
    output: Output,
    colour: bool,
    out: io::Stdout,
}

impl Screen {
    pub(crate) fn new(output: Output) -> Self {
        let out = io::stdout();
        // https://no-color.org: set and not empty.
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        Self { output, colour: wanted && out.is_terminal(), out }
    }

    pub(crate) fn json(&self) -> bool {
        self.output == Output::Json
    }

    /// One line, escaped here so that no caller can forget to. Colours come in through [`Self::row`] alone.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), Failure> {
        writeln!(self.out, "{}", safe(text))?;
        Ok(())
    }

    /// A line with a coloured mark before it.
    pub(crate) fn row(&mut self, mark: char, colour: Colour, text: &str) -> Result<(), Failure> {
        let text = safe(text);
        if !self.colour {
            writeln!(self.out, " {mark} {}", text.trim_end())?;
            return Ok(());
        }
        let code = match colour {
            Colour::Good => 32,
            Colour::Bad => 31,
            Colour::Doubt => 33,
            Colour::Dim => 2,
        };
        writeln!(self.out, " \x1b[{code}m{mark}\x1b[0m {}", text.trim_end())?;
        Ok(())
    }

    /// A JSON document on a line of its own, in ASCII: nothing in it moves a cursor or turns the reading direction.
    pub(crate) fn document(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(Failure::undecided)?;
        writeln!(self.out, "{}", ascii(&text))?;
        Ok(())
    }
}

/// JSON text with everything beyond printable ASCII as `\uXXXX`; such characters stand in strings only.
fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c == '\x7f' || !c.is_ascii() {
            out.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            out.push(c);
        }
    }
    out
}

/// Talk for the operator.
pub(crate) fn talk(text: &str) {
    let mut err = io::stderr();
    for line in text.lines() {
        if writeln!(err, "boltseal: {}", safe(line)).is_err() {
            return;
        }
    }
}

/// Fit for a terminal, whatever it came from; long lines stay long, but not endless.
pub(crate) fn safe(text: &str) -> String {
    clean(text, 8192)
}

/// `1 file`, `2 files`.
pub(crate) fn count(n: usize, noun: &str) -> String {
    match (n, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{n} {stem}ies"),
        (_, None) => format!("{n} {noun}s"),
    }
}

/// `text` in a column of `width` characters.
pub(crate) fn column(text: &str, width: usize) -> String {
    let text = safe(text);
    let count = text.chars().count();
    if count <= width {
        return format!("{text:width$}");
    }
    let kept: String = text.chars().take(width.saturating_sub(2)).collect();
    format!("{kept}..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_ascii_and_the_same() {
        let text = "ä\u{202e}\x7f\u{9b}\u{1f600}\"\\\n";
        let json = ascii(&serde_json::to_string(text).unwrap());
        assert!(json.bytes().all(|b| (0x20..0x7f).contains(&b)), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }

    #[test]
    fn plurals() {
        assert_eq!(
            (count(0, "file"), count(1, "authority"), count(2, "authority")),
            ("0 files".into(), "1 authority".into(), "2 authorities".into())
        );
    }

    #[test]
    fn columns() {
        assert_eq!(column("abc", 5), "abc  ");
        assert_eq!(column("abcdef", 5), "abc..");
        assert_eq!(column("ä\n", 20), "ä<U+000A>           ");
    }
}
