//! Runs a program and takes what it prints, for at most five seconds.
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(5);
const MOST: u64 = 4 << 20;

/// stdout of `program args`, with an empty environment.
pub(crate) fn run(program: &Path, args: &[&str]) -> Result<String, String> {
    let shown = program.display();
    let mut command = Command::new(program);
    command.args(args).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|e| format!("{shown}: {e}"))?;
    let Some(stdout) = child.stdout.take() else { return Err(format!("{shown}: no stdout")) };
    let reader = thread::spawn(move || {
        let mut text = String::new();
        stdout.take(MOST).read_to_string(&mut text).map(|_| text)
    });
    let deadline = Instant::now() + LIMIT;
    let status = loop {
        match child.try_wait().map_err(|e| format!("{shown}: {e}"))? {
            Some(status) => break status,
            None if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            None => {
                let killed = child.kill().and_then(|()| child.wait());
                return Err(format!(
                    "{shown}: no end after {LIMIT:?} ({})",
                    killed.map_or_else(|e| e.to_string(), |s| s.to_string())
                ));
            }
        }
    };
    let text = reader.join().map_err(|_| format!("{shown}: unreadable"))?.map_err(|e| format!("{shown}: {e}"))?;
    if status.success() { Ok(text) } else { Err(format!("{shown} ended with {status}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_ends() {
        assert_eq!(
            run(Path::new("/bin/sh"), &["-c", "echo x; env | grep -v -e ^PWD -e ^SHLVL -e ^_ -e ^OLDPWD; true"])
                .unwrap(),
            "x\n"
        );
        assert!(run(Path::new("/bin/false"), &[]).unwrap_err().contains("exit status: 1"));
        assert!(run(Path::new("/none"), &[]).is_err());
        let begin = Instant::now();
        assert!(run(Path::new("/bin/sleep"), &["60"]).unwrap_err().contains("no end"));
        assert!(begin.elapsed() < Duration::from_secs(8));
    }
}
