//! The parent: root, for what the operator wrote, for starting the child as another user, and for the store.
use crate::config::{BUNDLES, Config};
use crate::credentials::{self, Choice};
use crate::frames::Frame;
use crate::helper::{self, Account};
use crate::job::{Job, Secret};
use crate::judge::Judge;
use crate::keep::{Kept, Told, Word, keep};
use crate::reference::Reference;
use boltseal_evidence::file::{Folder, Owner};
use boltseal_trust::Digest;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{Uid, User};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Word by which the program is started as the child.
pub const CHILD: &str = "--child";
/// Whom the child runs as where there is such a user.
const USER: &str = "boltseal-fetch";
const NOBODY: u32 = 65534;
const STORE: &str = "/var/lib/boltseal/sig";
const POLICY: &str = "/etc/boltseal";
const MAX_CA: u64 = 4 << 20;
/// Of all the time, what is kept for storing and judging.
const AFTER: Duration = Duration::from_millis(800);
/// All bytes of the pipe: an index, and files of which few are as large as they may be.
const MAX_TOLD: usize = 24 << 20;

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// What the verifier answers.
    pub allow: bool,
    pub reason: String,
    /// Whether everything was looked at.
    pub whole: bool,
    pub notes: Vec<String>,
}

/// Fetches the signatures of `name` at `image` into the store.
///
/// # Errors
/// It could not be tried: nothing that is in the way of a single image.
pub fn fetch(name: &str, image: &Digest) -> Result<Outcome, String> {
    if !Uid::effective().is_root() {
        return Err("boltseal-fetch needs root to begin with. Fix: run as root".into());
    }
    let config = Config::load()?;
    let deadline = Instant::now() + Duration::from_secs(config.timeout_seconds);
    let reference = Reference::parse(name)?;
    let judge = Judge::new(Path::new(POLICY), &reference.repository(), deadline);
    let (told, trouble) = match ask(&config, &reference, image, deadline - AFTER) {
        Ok((told, trouble)) => (told, trouble),
        Err(why) => (Told::default(), Some(why)),
    };
    let word = |file: &boltseal_trust::StoreFile| judge.as_ref().map_or(Word::Nothing, |judge| judge.word(file));
    let kept = keep(Path::new(STORE), &told, image, &word)?;
    let listed = judge.as_ref().is_ok_and(|judge| judge.lists(image));
    let mut notes = told.notes;
    notes.extend(trouble.iter().cloned());
    let allow = !config.require || kept.vouched || listed;
    let reason = reason(&kept, allow, listed, judge.as_ref().err().map(String::as_str), notes.first());
    Ok(Outcome { allow, reason, whole: trouble.is_none(), notes })
}

fn reason(kept: &Kept, allow: bool, listed: bool, policy: Option<&str>, note: Option<&String>) -> String {
    let files = kept.new + kept.known;
    let plural = if files == 1 { "" } else { "s" };
    let mut text = format!("{files} signature file{plural}, {} new", kept.new);
    if kept.left > 0 {
        text.push_str(&format!(", no room for {}", kept.left));
    }
    text.push_str(match (kept.vouched, listed) {
        (true, _) => "; one is by an authority of the policy",
        (false, true) => "; the policy lists the image itself",
        (false, false) => "; none is by an authority of the policy",
    });
    if let Some(why) = policy.filter(|_| !kept.vouched && !listed) {
        text.push_str(&format!(", which does not load: {}", crate::shown(why)));
    }
    if !allow {
        text.push_str(" (require = true)");
    } else if !kept.vouched && !listed {
        text.push_str("; the start decides");
    }
    if let Some(note) = note {
        text.push_str(&format!(" ({note})"));
    }
    text
}

/// Runs the child. What it told, and what went wrong with it.
fn ask(
    config: &Config,
    reference: &Reference,
    image: &Digest,
    deadline: Instant,
) -> Result<(Told, Option<String>), String> {
    let account = account(config)?;
    let proxy = config.https_proxy.clone().or_else(|| variable(["HTTPS_PROXY", "https_proxy"]));
    let no_proxy = config.no_proxy.clone().or_else(|| variable(["NO_PROXY", "no_proxy"])).unwrap_or_default();
    let secret = secret(config, reference, &account, deadline)?;
    let left = deadline.saturating_duration_since(Instant::now());
    let job = Job {
        parent: std::process::id(),
        host: reference.host.clone(),
        port: reference.port,
        path: reference.path.clone(),
        digest: image.to_string(),
        time: u64::try_from(left.as_millis()).unwrap_or(0),
        plain_http: config.plain_http.clone(),
        ca: authorities(config)?,
        secret,
        proxy,
        no_proxy,
        ports: config.ports.clone(),
    };
    // A file without a name: whoever reads it slowly holds nobody up.
    let memory = memfd_create("boltseal-fetch", MFdFlags::MFD_CLOEXEC).map_err(|e| format!("the child's job: {e}"))?;
    let mut memory = File::from(memory);
    let text = serde_json::to_vec(&job).map_err(|e| e.to_string())?;
    memory.write_all(&text).and_then(|()| memory.rewind()).map_err(|e| format!("the child's job: {e}"))?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("boltseal-fetch").arg(CHILD).env_clear().current_dir("/").uid(account.uid).gid(account.gid);
    command.stdin(Stdio::from(memory)).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|e| format!("the child cannot be started: {e}"))?;
    let mut told = Told::default();
    let heard = hear(&mut child, image, &mut told, deadline);
    // It has said all that it may: what it still does is nobody's business.
    let killed = child.kill();
    let status = child.wait().map_err(|e| format!("the child: {e}"))?;
    let trouble = match (heard, killed) {
        (Ok(true), Ok(())) => None,
        (Ok(false), _) => Some(format!("the child ended early: {status}")),
        (Err(why), _) => Some(why),
        (_, Err(e)) => Some(format!("the child does not end: {e}")),
    };
    Ok((told, trouble))
}

/// Whether the child came to its end.
fn hear(child: &mut Child, image: &Digest, told: &mut Told, deadline: Instant) -> Result<bool, String> {
    let mut stdout = child.stdout.take().ok_or("no pipe")?;
    let mut buffer = Vec::new();
    let mut all = 0;
    let mut part = [0; 16 << 10];
    loop {
        while let Some((frame, length)) = Frame::decode(&buffer).map_err(|why| format!("the child wrote {why}"))? {
            buffer.drain(..length);
            if frame == Frame::End {
                return Ok(true);
            }
            told.add(image, frame).map_err(|why| format!("the child wrote {why}"))?;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err("the registry did not answer in time".into());
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) | Err(nix::Error::EINTR) => continue,
            Ok(_) => {}
            Err(e) => return Err(e.to_string()),
        }
        let read = stdout.read(&mut part).map_err(|e| e.to_string())?;
        if read == 0 {
            return Ok(false);
        }
        all += read;
        if all > MAX_TOLD {
            return Err("the child wrote too much".into());
        }
        buffer.extend_from_slice(part.get(..read).unwrap_or_default());
    }
}

/// The user, who must not be root.
fn account(config: &Config) -> Result<Account, String> {
    // A machine without /etc/passwd has no user.
    let named = |name: &str| match User::from_name(name) {
        Err(nix::Error::ENOENT) => Ok(None),
        other => other.map_err(|e| format!("user {name}: {e}")),
    };
    let user = match &config.user {
        Some(name) => Some(named(name)?.ok_or_else(|| format!("there is no user {name} (fetch.toml)"))?),
        None => named(USER)?,
    };
    let account = user.map_or_else(
        || Account { uid: NOBODY, gid: NOBODY, home: "/nonexistent".into() },
        |user| Account { uid: user.uid.as_raw(), gid: user.gid.as_raw(), home: user.dir },
    );
    if account.uid == 0 || account.gid == 0 {
        return Err("the fetcher's user is root (fetch.toml)".into());
    }
    Ok(account)
}

fn variable(names: [&str; 2]) -> Option<String> {
    names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

fn secret(config: &Config, reference: &Reference, account: &Account, deadline: Instant) -> Result<Secret, String> {
    let Some(file) =
        owned(&config.docker_config, credentials::MAX, config.docker_config != Config::default().docker_config)?
    else {
        return Ok(Secret::None);
    };
    let choice = credentials::choose(&file, &reference.registry, &reference.path)
        .map_err(|why| format!("{}: {why}", config.docker_config.display()))?;
    match choice {
        Choice::Secret(secret) => Ok(secret),
        Choice::Helper { name, server } => {
            Ok(helper::run(&name, &server, account, deadline)?.map_or(Secret::None, Secret::Helper))
        }
    }
}

/// A file that root alone may have written; one that is missing is none unless it `must` be there.
fn owned(path: &Path, most: u64, must: bool) -> Result<Option<Vec<u8>>, String> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Err(format!("{} is no path of a file", path.display()));
    };
    match Folder::open(folder, Owner::Root).and_then(|folder| folder.read(name, most, Owner::Root)) {
        Err(problem) if problem.missing && !must => Ok(None),
        Err(problem) => Err(problem.to_string()),
        Ok((bytes, _)) => Ok(Some(bytes)),
    }
}

fn authorities(config: &Config) -> Result<String, String> {
    let mut text = String::new();
    if config.ca.is_empty() {
        // A distribution's own may be reached by a link: it is the distribution's.
        let found = BUNDLES.iter().find_map(|path| std::fs::read_to_string(path).ok());
        return Ok(found.unwrap_or_default());
    }
    for path in &config.ca {
        let bytes = owned(path, MAX_CA, true)?.unwrap_or_default();
        text.push_str(std::str::from_utf8(&bytes).map_err(|_| format!("{}: no PEM", path.display()))?);
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons() {
        let none = Kept::default();
        let some = Kept { new: 1, known: 0, left: 0, vouched: true };
        let said = reason(&some, true, false, None, None);
        assert_eq!(said, "1 signature file, 1 new; one is by an authority of the policy");
        let said = reason(&none, false, false, Some("bad\npolicy"), None);
        assert_eq!(
            said,
            "0 signature files, 0 new; none is by an authority of the policy, which does not load: bad?policy (require = true)"
        );
        let said = reason(&none, true, true, Some("bad"), Some(&"a note".to_owned()));
        assert_eq!(said, "0 signature files, 0 new; the policy lists the image itself (a note)");
        assert!(reason(&none, true, false, None, None).ends_with("the start decides"));
    }
}
