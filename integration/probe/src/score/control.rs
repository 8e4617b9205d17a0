//! The same checks where nothing stands in their way: root, in no container. What does not succeed here cannot be told to be
//! prevented there. And the system calls as an ordinary user under no filter: what the kernel itself has.
use crate::copy;
use anyhow::{Context, Result};
use probe::{Calls, Primitive, Report};
use stack::image::USER;
use stack::process;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::Command;

#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) primitives: Vec<Primitive>,
    pub(crate) calls: Calls,
}

/// A folder of the private machine's own that is neither nodev nor nosuid nor noexec.
const FOLDER: &str = "/var/lib";

/// While containerd runs: its socket is one of the things to be reached.
pub(crate) fn run(probe: &Path) -> Result<Control> {
    let plain = copy(probe, &format!("{FOLDER}/boltseal-probe"), 0o755)?;
    let set_uid = copy(probe, &format!("{FOLDER}/set-uid"), 0o4755)?;
    // What a shim of another age would leave to be found.
    let _shim = UnixListener::bind_addr(&SocketAddr::from_abstract_name("/containerd-shim/boltseal-probe.sock")?)?;
    let report = |text: String| serde_json::from_str::<Report>(&text).with_context(|| text);
    let primitives = report(run_with_open_file(&[
        &plain.display().to_string(),
        "primitives",
        "--folder",
        FOLDER,
        "--set-uid",
        &set_uid.display().to_string(),
    ])?)?;
    let (uid, gid) = USER.split_once(':').context("a user without a group")?;
    let calls = report(process::run(
        Command::new("setpriv")
            .args(["--reuid", uid, "--regid", gid, "--clear-groups", "--bounding-set=-all", "--no-new-privs"])
            .arg(&plain)
            .arg("calls"),
    )?)?;
    Ok(Control { primitives: primitives.primitives, calls: calls.calls })
}

/// With descriptor 9 open, so that there is one to inherit.
fn run_with_open_file(words: &[&str]) -> Result<String> {
    process::run(Command::new("sh").args(["-c", "exec 9</etc/passwd; exec \"$@\"", "sh"]).args(words))
}
