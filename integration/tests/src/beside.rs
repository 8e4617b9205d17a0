//! The same tests on several versions, each in a process and a private machine of its own beside the others.
use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitCode, Stdio};

/// Runs this program once for each word, the word added to those of the command line. Every line that they print stands under
/// its word, the last one of each (`N passed, M failed`) is added up. A process that fails or does not say how many fails.
#[must_use]
pub fn beside(words: &[&str]) -> ExitCode {
    match all(words) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn all(words: &[&str]) -> Result<bool> {
    let started: Result<Vec<Child>> = words.iter().map(|word| start(word)).collect();
    let ended: Vec<Result<Counts>> = std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (child, word) in started?.into_iter().zip(words) {
            threads.push(scope.spawn(move || follow(child, word)));
        }
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Counts>>| {
            thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked")))
        };
        anyhow::Ok(threads.into_iter().map(join).collect())
    })?;
    let (mut sum, mut good) = (Counts::default(), true);
    for (counts, word) in ended.into_iter().zip(words) {
        match counts {
            Ok(counts) => sum = Counts { passed: sum.passed + counts.passed, failed: sum.failed + counts.failed },
            Err(error) => {
                println!("{word} | {error:#}");
                good = false;
            }
        }
    }
    println!("{} passed, {} failed", sum.passed, sum.failed);
    Ok(good && sum.failed == 0)
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
}

impl Counts {
    fn read(line: &str) -> Option<Self> {
        let (passed, failed) = line.strip_suffix(" failed")?.split_once(" passed, ")?;
        Some(Self { passed: passed.parse().ok()?, failed: failed.parse().ok()? })
    }
}

/// It ends with this process, and its private machine with it.
fn start(word: &str) -> Result<Child> {
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .arg(word)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run setpriv (Debian's util-linux)")
}

fn follow(mut child: Child, word: &str) -> Result<Counts> {
    let (out, err) = (child.stdout.take().context("no stdout")?, child.stderr.take().context("no stderr")?);
    let counts = std::thread::scope(|scope| {
        scope.spawn(|| show(err, word));
        show(out, word)
    });
    let status = child.wait()?;
    // Whoever failed has said what.
    let counts = counts.filter(|counts| status.success() || counts.failed > 0);
    let counts = counts.with_context(|| format!("it ended with {status} and did not say what failed"))?;
    ensure!(status.success() == (counts.failed == 0), "it ended with {status}");
    Ok(counts)
}

/// Prints each line as it comes; what the last line with counts said.
fn show(from: impl Read, word: &str) -> Option<Counts> {
    let mut counts = None;
    for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        match Counts::read(&line) {
            Some(read) => counts = Some(read),
            None => println!("{word} | {line}"),
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_line_with_counts_is_one() {
        assert_eq!(Counts::read("12 passed, 0 failed"), Some(Counts { passed: 12, failed: 0 }));
        for line in ["", "ok    12 passed, 0 failed", "12 passed, 0 failed or left", "passed,  failed"] {
            assert_eq!(Counts::read(line), None, "{line}");
        }
        assert_eq!(show(&b"a\n3 passed, 1 failed\nerror: failed: x\n"[..], "w"), Some(Counts { passed: 3, failed: 1 }));
        assert_eq!(show(&b"a\n"[..], "w"), None);
    }
}
