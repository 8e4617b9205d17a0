//! `start`: find or leave behind the pod's one server, and tell containerd its address.
//!
//! The reply decides whether a containerd works at all: 1.6 takes a bare address and nothing else, 1.7 to 2.2 take it
//! as Task v2, 2.3 sends BootstrapParams and reads a BootstrapResult. We name Task v2 there too: with v3 containerd
//! skips `delete` and the exit event of each container when a shim dies.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use containerd_shim::StartOpts;
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use nix::fcntl::{Flock, FlockArg};
use protobuf::Message as _;

use crate::armour;
use crate::flags::Flags;
use crate::info;
use crate::spawn::{Child, spawn};
use crate::starter;

/// Most bytes of a `config.json` that are read to find the group; a longer one is a group of its own, and the gate
/// refuses it in Create, where the answer reaches the user.
const MAX_CONFIG: u64 = 4 << 20;
const MAX_STDIN: u64 = 4 << 20;
/// Task API version that 2.3 is told.
const TASK_VERSION: i32 = 2;
const GROUP_KEYS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

pub(crate) fn start(flags: &Flags) -> Result<Vec<u8>> {
    let mut stdin = Vec::new();
    io::stdin().lock().take(MAX_STDIN).read_to_end(&mut stdin).context("read stdin")?;
    let params = bootstrap_params(&stdin, flags);
    let bundle = std::env::current_dir().context("the bundle, which is the working folder")?;
    let events = match &params {
        Some(params) => params.containerd_ttrpc_address.clone(),
        None => std::env::var("TTRPC_ADDRESS").unwrap_or_default(),
    };
    if events.is_empty() {
        bail!("containerd named no TTRPC_ADDRESS to send events to");
    }
    // The server cannot say it: it has no way to answer yet.
    armour::check_kernel()?;
    let gate = starter::path()?;
    if !gate.is_file() {
        bail!("the gate {} is missing. Fix: install boltseal completely", gate.display());
    }
    let mut server = Server { flags: flags.clone(), events, bundle };
    if let (true, Some(params)) = (server.flags.address.is_empty(), &params) {
        server.flags.address.clone_from(&params.containerd_grpc_address);
    }
    let socket_dir = params.as_ref().and_then(|params| params.socket_dir.clone()).filter(|dir| !dir.is_empty());
    let address = socket_address(&server.flags, &group(&server.bundle, &flags.id), socket_dir);
    server.find_or_spawn(&address)?;
    // 1.6 and 1.7 find the shim again from this file after a restart.
    write_atomically(&server.bundle.join("address"), address.as_bytes())?;
    reply(&address, params.is_some())
}

/// What 2.3 sends on stdin. Runtime options of an older containerd may decode as BootstrapParams too, so the names must
/// agree with the flags.
fn bootstrap_params(stdin: &[u8], flags: &Flags) -> Option<BootstrapParams> {
    BootstrapParams::parse_from_bytes(stdin)
        .ok()
        .filter(|params| params.instance_id == flags.id && params.namespace == flags.namespace)
}

fn reply(address: &str, bootstrap: bool) -> Result<Vec<u8>> {
    if !bootstrap {
        return Ok(address.as_bytes().to_vec());
    }
    let result = BootstrapResult {
        version: TASK_VERSION,
        address: address.into(),
        protocol: "ttrpc".into(),
        ..Default::default()
    };
    Ok(result.write_to_bytes()?)
}

/// `unix://` address of a group's socket, where containerd keeps its shims' sockets.
pub(crate) fn socket_address(flags: &Flags, group: &str, socket_dir: Option<String>) -> String {
    let (address, namespace) = (flags.address.clone(), flags.namespace.clone());
    StartOpts { address, namespace, socket_dir, ..Default::default() }.socket_address(group)
}

/// The group that a bundle belongs to: its pod's sandbox id, or its own id. Only a grouping: the gate takes the pod's
/// identity from containerd's records.
pub(crate) fn group(bundle: &Path, id: &str) -> String {
    let mut config = Vec::new();
    let read =
        fs::File::open(bundle.join("config.json")).and_then(|file| file.take(MAX_CONFIG).read_to_end(&mut config));
    let spec: serde_json::Value = match read {
        Ok(_) => serde_json::from_slice(&config).unwrap_or_default(),
        Err(_) => serde_json::Value::Null,
    };
    let named = GROUP_KEYS.iter().find_map(|key| spec.get("annotations")?.get(key)?.as_str());
    named.filter(|name| !name.is_empty() && name.len() <= 256).unwrap_or(id).to_owned()
}

struct Server {
    flags: Flags,
    events: String,
    bundle: PathBuf,
}

impl Server {
    /// One server per group, however many `start`s run at once: the sockets' folder is locked meanwhile.
    fn find_or_spawn(&self, address: &str) -> Result<()> {
        let path = Path::new(address.strip_prefix("unix://").unwrap_or(address));
        let folder = path.parent().context("socket path without a folder")?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| folder.display().to_string())?;
        let _lock = lock_folder(folder)?;
        let listener = match UnixListener::bind(path) {
            Ok(listener) => listener,
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
                if UnixStream::connect(path).is_ok() {
                    return Ok(());
                }
                fs::remove_file(path).with_context(|| format!("remove stale {}", path.display()))?;
                UnixListener::bind(path).with_context(|| path.display().to_string())?
            }
            Err(e) => return Err(e).with_context(|| path.display().to_string()),
        };
        let spawned = self.spawn(&listener, address);
        if spawned.is_err() {
            fs::remove_file(path).with_context(|| format!("remove {}", path.display()))?;
        }
        spawned
    }

    /// The listener is bound and listens already: nobody can connect too early, no second bind can race.
    fn spawn(&self, listener: &UnixListener, address: &str) -> Result<()> {
        let exe = std::env::current_exe().context("own binary")?;
        let flags = &self.flags;
        let mut args: Vec<&OsStr> = vec![info::BINARY.as_ref()];
        let named = [
            ("-namespace", flags.namespace.as_ref()),
            ("-address", flags.address.as_ref()),
            ("-publish-binary", flags.publish_binary.as_ref()),
            ("-id", flags.id.as_ref()),
            ("-socket", OsStr::new(address)),
            ("-bundle", self.bundle.as_os_str()),
        ];
        args.extend(named.into_iter().flat_map(|(name, value)| [OsStr::new(name), value]));
        if flags.debug {
            args.push("-debug".as_ref());
        }
        args.push("serve".as_ref());
        let environment = vec![format!("TTRPC_ADDRESS={}", self.events)];
        // Nothing of the reply's pipe stays with the server: containerd reads it to its end.
        let child = Child { args, environment, stderr: None, passed: listener.as_fd() };
        let pid = spawn(&exe, &child).context("start the server")?;
        // containerd shall survive its shims when memory runs out.
        containerd_shim::cgroup::adjust_oom_score(pid).context("oom score of the server")?;
        Ok(())
    }
}

/// Exclusive lock on the folder of sockets, held until dropped.
pub(crate) fn lock_folder(folder: &Path) -> Result<Flock<fs::File>> {
    let file = fs::File::open(folder).with_context(|| folder.display().to_string())?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| e).context("lock the folder of sockets")
}

fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    let temporary = path.with_file_name(".address");
    let context = || path.display().to_string();
    let mut options = fs::OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    options.open(&temporary).and_then(|mut file| file.write_all(content)).with_context(context)?;
    fs::rename(&temporary, path).with_context(context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protobuf::well_known_types::any::Any;

    fn flags() -> Flags {
        Flags { namespace: "k8s.io".into(), id: "abc".into(), address: "/run/c.sock".into(), ..Default::default() }
    }

    fn bundle(config: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.json"), config).unwrap();
        folder
    }

    #[test]
    fn params_of_this_shim_are_taken_and_answered_in_their_format() {
        let params = BootstrapParams {
            instance_id: "abc".into(),
            namespace: "k8s.io".into(),
            containerd_ttrpc_address: "/run/c.sock.ttrpc".into(),
            ..Default::default()
        };
        assert_eq!(bootstrap_params(&params.write_to_bytes().unwrap(), &flags()), Some(params));
        // Fields 1 (varint), 2 and 3 (text) of containerd.runtime.bootstrap.v1.BootstrapResult, byte by byte.
        let mut expected = vec![0x08, 2, 0x12, 8];
        expected.extend(b"unix:///");
        expected.extend([0x1a, 5]);
        expected.extend(b"ttrpc");
        assert_eq!(reply("unix:///", true).unwrap(), expected);
    }

    #[test]
    fn an_older_containerd_gets_the_bare_address() {
        let options = Any { type_url: "containerd.runc.v1.Options".into(), ..Default::default() };
        for stdin in [Vec::new(), options.write_to_bytes().unwrap(), vec![0xff, 0xfe, 1]] {
            assert_eq!(bootstrap_params(&stdin, &flags()), None);
        }
        let other = BootstrapParams { instance_id: "abc".into(), namespace: "other".into(), ..Default::default() };
        assert_eq!(bootstrap_params(&other.write_to_bytes().unwrap(), &flags()), None);
        assert_eq!(reply("unix:///run/x", false).unwrap(), b"unix:///run/x");
    }

    #[test]
    fn containers_of_one_pod_share_an_address() {
        let sandbox = bundle(r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod1"}}"#);
        let explicit =
            bundle(r#"{"annotations":{"io.containerd.runc.v2.group":"g","io.kubernetes.cri.sandbox-id":"pod1"}}"#);
        assert_eq!(group(sandbox.path(), "abc"), "pod1");
        assert_eq!(group(explicit.path(), "abc"), "g");
        for alone in ["{}", "not json", r#"{"annotations":{"io.containerd.runc.v2.group":""}}"#] {
            assert_eq!(group(bundle(alone).path(), "abc"), "abc");
        }
        let address = socket_address(&flags(), "pod1", None);
        assert_eq!(address.strip_prefix("unix:///run/containerd/s/").map(str::len), Some(64));
        assert_ne!(address, socket_address(&flags(), "pod2", None));
        assert!(socket_address(&flags(), "pod1", Some("/x".into())).starts_with("unix:///x/"));
    }
}
