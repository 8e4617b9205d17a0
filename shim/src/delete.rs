//! `delete`: clean up after a shim that is gone, or after a container that is. containerd may call it while it boots
//! and answers nobody, so nothing here asks it anything. Called again, it finds nothing and succeeds.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use boltseal_message::Operation;
use containerd_shim_protos::api::DeleteResponse;
use protobuf::Message as _;

use crate::events::now;
use crate::flags::Flags;
use crate::reap::{self, Reaper};
use crate::runtime::Gate;
use crate::serve::Left;
use crate::start;
use crate::starter::Starter;
use crate::stdio::read_small;
use crate::task::check_id;

/// containerd gives `delete` five seconds.
const DEADLINE: Duration = Duration::from_secs(4);
/// The exit status of what nobody waited for: as if by SIGKILL.
const STATUS: u32 = 137;
/// Where the gate keeps what it knows of containers.
const STATE: &str = "/run/boltseal";

pub(crate) fn delete(flags: &Flags) -> Result<Vec<u8>> {
    let bundle = match flags.bundle.as_str() {
        "" => std::env::current_dir().context("the bundle, which is the working folder")?,
        bundle => PathBuf::from(bundle),
    };
    let socket = abandoned_socket(flags, &bundle);
    let mut doomed = vec![(flags.id.clone(), bundle.clone())];
    if socket.is_some() {
        doomed.extend(siblings(&bundle, &flags.id));
        doomed.extend(left(&bundle));
    }
    doomed.retain(|(id, _)| may_have_state(Path::new(STATE), &flags.namespace, id));
    if !doomed.is_empty() {
        clean_up(flags, &doomed)?;
    }
    if let Some(socket) = socket {
        remove_abandoned(&socket)?;
    }
    let response = DeleteResponse { exit_status: STATUS, exited_at: Some(now()).into(), ..Default::default() };
    Ok(response.write_to_bytes()?)
}

/// One run of the gate for each.
fn clean_up(flags: &Flags, doomed: &[(String, PathBuf)]) -> Result<()> {
    // The gate inherits it.
    std::env::set_current_dir("/").context("chdir /")?;
    let starter = Starter::new(false)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async {
        // Orphans of a gate that has to be killed shall end as our children.
        nix::sys::prctl::set_child_subreaper(true).context("PR_SET_CHILD_SUBREAPER")?;
        let reaper = Arc::new(Reaper::default());
        tokio::spawn(reap::run(reaper, reap::signals()?));
        let gate = Gate::new(&flags.namespace, &flags.address, starter);
        let mut failures = Vec::new();
        for (id, bundle) in doomed {
            let operation = Operation::Delete { events: Vec::new() };
            if let Err(failure) = gate.run((id, bundle), operation, &[], DEADLINE).await {
                failures.push(format!("{id}: {failure}"));
            }
        }
        if !failures.is_empty() {
            bail!("{}", failures.join("; "));
        }
        Ok(())
    })
}

/// Whether the gate may hold anything of a container: its folder is `<state>/<containerd>/<namespace>/<id>`. After an
/// ordinary Delete there is none, and then there is nothing that a run of the gate could remove. What cannot be looked
/// at may be there.
fn may_have_state(state: &Path, namespace: &str, id: &str) -> bool {
    if namespace.contains('/') || id.contains('/') {
        return true;
    }
    let there = |path: &Path| match path.symlink_metadata() {
        Err(e) => !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
        Ok(_) => true,
    };
    match fs::read_dir(state) {
        Ok(entries) => entries.into_iter().any(|e| e.map_or(true, |e| there(&e.path().join(namespace).join(id)))),
        Err(e) => e.kind() != ErrorKind::NotFound,
    }
}

/// The socket of the bundle's group when no server listens on it.
fn abandoned_socket(flags: &Flags, bundle: &Path) -> Option<PathBuf> {
    // The address that `start` wrote knows a socket folder that we would not guess; but only its own name counts.
    let guess = start::socket_address(flags, &start::group(bundle, &flags.id), None);
    let written = fs::read_to_string(bundle.join("address")).unwrap_or_default();
    let name = |address: &str| Some(Path::new(address).file_name()?.to_owned());
    let address = if name(&written) == name(&guess) { written } else { guess };
    let path = PathBuf::from(address.strip_prefix("unix://")?);
    UnixStream::connect(&path).is_err().then_some(path)
}

/// The other containers of the pod whose sandbox `id` is: with the pod's server gone they are leftovers too, and a
/// containerd that speaks Task v3 cleans up after the sandbox alone.
fn siblings(bundle: &Path, id: &str) -> Vec<(String, PathBuf)> {
    if start::group(bundle, "") != id {
        return Vec::new();
    }
    let Some(entries) = bundle.parent().and_then(|folder| fs::read_dir(folder).ok()) else { return Vec::new() };
    let of_group = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.to_owned();
        (name != id && start::group(&path, "") == id).then_some((name, path))
    };
    entries.filter_map(|entry| of_group(entry.ok()?.path())).collect()
}

/// The containers that its server could not clean up after. Their bundles are gone, as those of deleted ones are.
fn left(bundle: &Path) -> Vec<(String, PathBuf)> {
    let lines = read_small(bundle.join(Left::FILE)).unwrap_or_default();
    let ids = lines.lines().filter(|id| check_id(id).is_ok());
    ids.filter_map(|id| Some((id.to_owned(), bundle.parent()?.join(id)))).collect()
}

fn remove_abandoned(socket: &Path) -> Result<()> {
    let Some(folder) = socket.parent().filter(|folder| folder.is_dir()) else { return Ok(()) };
    let _lock = start::lock_folder(folder)?;
    // A `start` may have bound it anew meanwhile.
    if UnixStream::connect(socket).is_ok() {
        return Ok(());
    }
    match fs::remove_file(socket) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e).with_context(|| socket.display().to_string()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_container_without_a_folder_has_no_state() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path();
        assert!(!may_have_state(&path.join("none"), "shop", "c1"), "no boltseal here yet");
        fs::create_dir_all(path.join("1935db59889b41fb/shop/c1")).unwrap();
        fs::create_dir_all(path.join("0000000000000000/other/c2")).unwrap();
        fs::write(path.join("node.json"), "{}").unwrap();
        assert!(may_have_state(path, "shop", "c1") && may_have_state(path, "other", "c2"));
        assert!(!may_have_state(path, "shop", "c2") && !may_have_state(path, "other", "c1"));
        // What is no name, and what cannot be listed, is left to the gate.
        assert!(may_have_state(path, "shop", "../x") && may_have_state(&path.join("node.json"), "shop", "c9"));
    }

    #[test]
    fn what_a_server_left_is_read_by_name() {
        let state = tempfile::tempdir().unwrap();
        let bundle = state.path().join("pod");
        fs::create_dir(&bundle).unwrap();
        assert_eq!(left(&bundle), []);
        fs::write(bundle.join("left"), "app\n../x\n\n..\nside").unwrap();
        assert_eq!(left(&bundle), ["app", "side"].map(|id| (id.to_owned(), state.path().join(id))));
    }

    #[test]
    fn siblings_are_those_that_name_the_sandbox() {
        let state = tempfile::tempdir().unwrap();
        let annotated = |sandbox: &str| format!(r#"{{"annotations":{{"io.kubernetes.cri.sandbox-id":"{sandbox}"}}}}"#);
        for (id, sandbox) in [("pod", "pod"), ("app", "pod"), ("other", "pod2"), ("pod2", "pod2")] {
            fs::create_dir(state.path().join(id)).unwrap();
            fs::write(state.path().join(id).join("config.json"), annotated(sandbox)).unwrap();
        }
        fs::create_dir(state.path().join("stray")).unwrap();
        let of = |id: &str| siblings(&state.path().join(id), id).into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(of("pod"), ["app"]);
        assert_eq!(of("app"), Vec::<String>::new());
        assert_eq!(of("stray"), Vec::<String>::new());
    }
}
