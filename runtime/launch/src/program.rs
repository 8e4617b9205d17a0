//! The container's program: looked up as execvp does, in the container, then executed with the sealed environment.
use crate::error::LaunchError;
use crate::sys;
use boltseal_seal::programs::DEFAULT_PATH;
use oci_spec::runtime::Process;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

#[derive(Debug)]
pub(crate) struct Program {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
    name: String,
}

impl Program {
    /// Finds the file that the arguments name.
    pub(crate) fn find(process: &Process) -> Result<Self, LaunchError> {
        let strings = |list: &Option<Vec<String>>| -> Result<Vec<CString>, LaunchError> {
            let all = list.iter().flatten().map(|s| CString::new(s.as_str()));
            all.collect::<Result<_, _>>()
                .map_err(|_| LaunchError::Exec("an argument or variable holds a NUL byte".into()))
        };
        let name = process.args().iter().flatten().next().cloned().unwrap_or_default();
        if name.is_empty() {
            return Err(LaunchError::Exec("no program is named".into()));
        }
        let search = process.env().iter().flatten().find_map(|e| e.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
        let path = locate(&name, search).map_err(|e| failed(&name, &e))?;
        let path = CString::new(path).map_err(|_| LaunchError::Exec("the program's path holds a NUL byte".into()))?;
        Ok(Self { path, args: strings(process.args())?, env: strings(process.env())?, name })
    }

    /// Only comes back with the reason why not. `listed`: only listed programs may be executed.
    pub(crate) fn execute(self, listed: bool) -> LaunchError {
        let error = sys::execve(&self.path, &self.args, &self.env);
        match failed(&self.name, &error) {
            LaunchError::Exec(text) if listed && error.raw_os_error() == Some(libc::EACCES) => {
                LaunchError::Exec(format!("{text}{UNLISTED}"))
            }
            other => other,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(self.path.as_bytes()))
    }
}

/// What EACCES most likely means of a program that is itself on the list.
const UNLISTED: &str = ": only the scope's `programs` may be executed (BS-PRC-005), and what runs a program must be \
    listed too: the interpreter of its `#!` line, and the dynamic loader (ld-linux-*.so, ld-musl-*.so)";

fn failed(name: &str, error: &io::Error) -> LaunchError {
    let why = match error.raw_os_error() {
        Some(libc::ENOENT) if !name.contains('/') => "executable file not found in $PATH".to_owned(),
        Some(libc::ENOENT) => "no such file or directory".to_owned(),
        Some(libc::EACCES) => "permission denied".to_owned(),
        Some(libc::ENOEXEC) => "exec format error".to_owned(),
        _ => error.to_string(),
    };
    LaunchError::Exec(format!("{name:?}: {why}"))
}

/// The shell's convention: 127 not found, 126 found but not runnable; 125 is ours.
pub(crate) fn exit_code(error: &LaunchError) -> i32 {
    match error {
        LaunchError::Exec(text)
            if text.ends_with("not found in $PATH") || text.ends_with("no such file or directory") =>
        {
            127
        }
        LaunchError::Exec(_) => 126,
        _ => 125,
    }
}

fn locate(name: &str, search: &str) -> io::Result<String> {
    if name.contains('/') {
        runnable(name)?;
        return Ok(name.to_owned());
    }
    let mut error = io::Error::from_raw_os_error(libc::ENOENT);
    for dir in search.split(':') {
        let path = if dir.is_empty() { format!("./{name}") } else { format!("{dir}/{name}") };
        match runnable(&path) {
            Ok(()) => return Ok(path),
            Err(e) if e.raw_os_error() == Some(libc::EACCES) => error = e,
            Err(_) => {}
        }
    }
    Err(error)
}

/// A regular file with any execute bit; whether this user may, execve says.
fn runnable(path: &str) -> io::Result<()> {
    let meta = std::fs::metadata(path)?;
    let fits = meta.is_file() && meta.permissions().mode() & 0o111 != 0;
    if fits { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EACCES)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::ProcessBuilder;

    fn find(args: &[&str], env: &[&str]) -> Result<Program, LaunchError> {
        let strings = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        Program::find(&ProcessBuilder::default().args(strings(args)).env(strings(env)).build().unwrap())
    }

    #[test]
    fn the_environments_path_is_searched() {
        assert_eq!(find(&["sh"], &["PATH=/nowhere:/bin"]).unwrap().path.to_str().unwrap(), "/bin/sh");
        assert_eq!(find(&["sh"], &["HOME=/"]).unwrap().path.to_str().unwrap(), "/usr/bin/sh");
        assert_eq!(
            find(&["sh"], &["PATH=/nowhere"]).unwrap_err(),
            LaunchError::Exec("\"sh\": executable file not found in $PATH".into())
        );
    }

    #[test]
    fn what_cannot_run_has_its_reason_and_code() {
        for (name, part, code) in [
            ("/no/such", "no such file", 127),
            ("/etc/passwd", "permission denied", 126),
            ("/etc", "permission denied", 126),
            ("", "no program", 126),
            ("no-such-program", "not found in $PATH", 127),
        ] {
            let error = find(&[name], &[]).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
            assert_eq!(exit_code(&error), code, "{name}");
        }
    }
}
