//! What stays behind the container: the shim's sockets, its memory, and folders of state.
use super::process;
use crate::row::Row;
use crate::site::Who;
use anyhow::{Context, Result};
use stack::process::output;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What an exec of the flood writes, bytes.
const EACH: usize = 1 << 20;
const EXECS: usize = 40;

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row::request(
            "containerd CVE-2020-15257 (shim)",
            "the shim listens on an abstract socket",
            "shim-abstract",
            |_, _| Ok(()),
        )
        .args(&["/bin/sleep", "60"])
        .common(|_, ask| {
            ask.execs = vec![process(&["/bin/true"])];
            Ok(())
        })
        .escaped(|site, _, _| Ok(site.noted.abstract_socket))
        .control(|_| {
            let before = abstract_sockets()?;
            let _held = listener()?;
            Ok(abstract_sockets()? > before)
        })
        .not_on(|who| if who == Who::Crun { "a matter of the shim" } else { "" }),
        Row::request(
            "containerd CVE-2024-25621",
            "folders of state that other users of the node may enter",
            "state-folders",
            |_, _| Ok(()),
        )
        .args(&["/bin/sleep", "60"])
        .common(|_, ask| {
            ask.execs = vec![process(&["/bin/true"])];
            Ok(())
        })
        .escaped(|site, _, _| Ok(site.noted.open_folder.is_some()))
        .control(|_| {
            let folder = Path::new("/run/cve-open");
            fs::create_dir(folder)?;
            fs::set_permissions(folder, fs::Permissions::from_mode(0o711))?;
            let open = enters(folder)?;
            fs::remove_dir(folder)?;
            Ok(open)
        })
        .not_on(|who| if who == Who::Crun { "its folder is made by this test" } else { "" }),
        Row::request(
            "containerd CVE-2022-23471, CVE-2022-31030, CVE-2025-64329",
            "a flood of execs and of their output, kept in the shim's memory",
            "exec-flood",
            |_, ask| {
                let script = format!("head -c {EACH} /dev/zero");
                ask.execs = (0..EXECS).map(|_| process(&["/bin/sh", "-c", &script])).collect();
                Ok(())
            },
        )
        .args(&["/bin/sleep", "60"])
        .common(|_, ask| {
            ask.execs = vec![process(&["/bin/true"])];
            Ok(())
        })
        .escaped(|site, _, _| Ok(site.noted.grown > (EACH * EXECS / 4) as u64))
        .control(|_| {
            // Who keeps what he reads.
            let before = rss(std::process::id())?;
            let kept = vec![1_u8; EACH * EXECS];
            let grown = rss(std::process::id())?.saturating_sub(before);
            drop(kept);
            Ok(grown > (EACH * EXECS / 4) as u64)
        })
        .not_on(|who| if who == Who::Crun { "a matter of the shim" } else { "" }),
    ]
}

/// What is seen of the shim while its container runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Noted {
    pub(crate) abstract_socket: bool,
    pub(crate) open_folder: Option<PathBuf>,
    /// Bytes by which the shim has grown since its container was started.
    pub(crate) grown: u64,
}

/// Called twice: after the start and before the end.
pub(crate) fn note(who: Who, init: u32, before: Option<u64>) -> Result<(Noted, u64)> {
    // An init that has ended tells nothing of its shim; the rows that ask have one that sleeps.
    let Ok(status) = fs::read_to_string(format!("/proc/{init}/status")) else { return Ok((Noted::default(), 0)) };
    let shim = status.lines().find_map(|line| line.strip_prefix("PPid:")).context("no parent")?.trim().parse()?;
    let size = rss(shim)?;
    let mut noted = Noted { grown: size.saturating_sub(before.unwrap_or(size)), ..Noted::default() };
    let sockets: Vec<String> = fs::read_dir(format!("/proc/{shim}/fd"))?
        .filter_map(|entry| Some(fs::read_link(entry.ok()?.path()).ok()?.to_string_lossy().into_owned()))
        .filter_map(|link| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    noted.abstract_socket = fs::read_to_string("/proc/net/unix")?.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        matches!(fields.as_slice(), [.., inode, name] if name.starts_with('@') && sockets.iter().any(|s| s == inode))
    });
    let roots: &[&str] = match who {
        Who::Boltseal => &["/run/boltseal", "/var/lib/boltseal", "/var/log/boltseal"],
        Who::Runc | Who::Crun => &["/run/containerd/runc", "/run/runc"],
    };
    noted.open_folder = roots.iter().map(PathBuf::from).find(|root| root.exists() && enters(root).unwrap_or(true));
    Ok((noted, size))
}

/// Whether a user without any right may go into the folder.
fn enters(folder: &Path) -> Result<bool> {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "sh", "-c", "cd \"$0\""]).arg(folder);
    Ok(output(&mut command)?.ok())
}

fn rss(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? * 1024)
}

fn abstract_sockets() -> Result<usize> {
    Ok(fs::read_to_string("/proc/net/unix")?.lines().filter(|line| line.contains(" @")).count())
}

fn listener() -> Result<std::os::unix::net::UnixListener> {
    use std::os::linux::net::SocketAddrExt;
    let address = std::os::unix::net::SocketAddr::from_abstract_name("containerd-shim-cve")?;
    Ok(std::os::unix::net::UnixListener::bind_addr(&address)?)
}
