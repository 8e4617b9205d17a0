//! Docker's credential helpers: the operator's programs, run as the child's user before the child is, for one registry.
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const FOLDERS: [&str; 4] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];
const TIME: Duration = Duration::from_secs(4);
const MOST: usize = 64 << 10;
/// What a cloud's helper is told by.
const VARIABLES: [&str; 8] = [
    "HTTPS_PROXY",
    "https_proxy",
    "NO_PROXY",
    "no_proxy",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
    "AWS_SHARED_CREDENTIALS_FILE",
];

/// Who the helper runs as.
#[derive(Debug, Clone)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
    pub home: PathBuf,
}

/// What `docker-credential-<name> get` printed for `server`; None where it has none.
///
/// # Errors
/// It is not there, is not root's, took too long, or printed too much.
pub fn run(name: &str, server: &str, account: &Account, deadline: Instant) -> Result<Option<Vec<u8>>, String> {
    let name = format!("docker-credential-{name}");
    let program = FOLDERS.iter().map(|folder| Path::new(folder).join(&name)).find(|path| path.exists());
    let program = program.ok_or_else(|| format!("{name} is not in {}", FOLDERS.join(", ")))?;
    let meta = fs::metadata(&program).map_err(|e| format!("{}: {e}", program.display()))?;
    if meta.uid() != 0 || meta.mode() & 0o022 != 0 {
        return Err(format!("{} is not root's alone to change", program.display()));
    }
    let mut command = Command::new(&program);
    command.arg("get").env_clear().env("PATH", FOLDERS.join(":")).env("HOME", &account.home).current_dir("/");
    command.envs(VARIABLES.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))));
    command.uid(account.uid).gid(account.gid).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|e| format!("{}: {e}", program.display()))?;
    // A host's name fits into any pipe.
    let told = child.stdin.take().map(|mut stdin| stdin.write_all(format!("{server}\n").as_bytes()));
    let stdout = child.stdout.take();
    let said = match (told, stdout) {
        (Some(Ok(())), Some(stdout)) => read(stdout, deadline.min(Instant::now() + TIME)),
        (Some(Err(e)), _) => Err(e.to_string()),
        _ => Err("no pipe".into()),
    };
    if said.is_err() {
        child.kill().map_err(|e| format!("{name} does not end: {e}"))?;
    }
    let status = child.wait().map_err(|e| format!("{name}: {e}"))?;
    match said {
        Err(why) => Err(format!("{name}: {why}")),
        Ok(said) if status.success() => Ok(Some(said)),
        // That is how a helper says that it has none.
        Ok(said) if String::from_utf8_lossy(&said).contains("not found") => Ok(None),
        Ok(_) => Err(format!("{name} ended with {status}")),
    }
}

/// Everything until its end.
///
/// # Errors
/// Too late, or more than a helper says.
fn read(mut stdout: impl Read + AsFd, deadline: Instant) -> Result<Vec<u8>, String> {
    let mut said = Vec::new();
    let mut part = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err("no end in time".into());
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) | Err(nix::Error::EINTR) => continue,
            Ok(_) => {}
            Err(e) => return Err(e.to_string()),
        }
        let read = stdout.read(&mut part).map_err(|e| e.to_string())?;
        said.extend_from_slice(part.get(..read).unwrap_or_default());
        if read == 0 {
            return Ok(said);
        }
        if said.len() > MOST {
            return Err(format!("more than {MOST} bytes"));
        }
    }
}
