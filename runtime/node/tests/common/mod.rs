//! A software TPM per test, a node that is enrolled with it, and peers that misbehave.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]
use boltseal_node::tpm::Tpm;
use boltseal_node::{Boot, Enrolment, NodePolicy, NodeState, check, enroll};
use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub const DIGEST: &str = "sha256:4c2a1f0e";
pub const TTL: Duration = Duration::from_secs(3600);
pub const QUOTE: u32 = 0x158;

pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

pub fn closed_folder() -> TempDir {
    tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().unwrap()
}

/// A swtpm of its own, ended with the value, also when a test panics.
pub struct Swtpm {
    child: Child,
    dir: TempDir,
}

impl Swtpm {
    pub fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap())
    }

    /// With what is in `state` below that folder.
    pub fn start_in(dir: TempDir) -> Self {
        let path = |name: &str| dir.path().join(name).display().to_string();
        std::fs::create_dir_all(path("state")).unwrap();
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "startup-clear"])
            .args(["--tpmstate", &format!("dir={}", path("state"))])
            .args(["--server", &format!("type=unixio,path={}", path("tpm"))])
            .args(["--ctrl", &format!("type=unixio,path={}", path("control"))])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("swtpm is installed");
        let swtpm = Self { child, dir };
        let end = soon();
        while UnixStream::connect(swtpm.socket()).is_err() {
            assert!(Instant::now() < end, "swtpm did not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        swtpm
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("tpm")
    }

    pub fn address(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    pub fn open(&self) -> Tpm {
        Tpm::open(&self.address(), soon()).unwrap()
    }

    pub fn extend(&self, pcr: u32, value: u8) {
        self.open().extend(pcr, &[value; 32]).unwrap();
    }

    /// A reset: PCRs are zero again, keys are kept.
    pub fn reboot(mut self) -> Self {
        self.stop();
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        std::fs::remove_file(dir.path().join("tpm")).unwrap_or_default();
        std::fs::remove_file(dir.path().join("control")).unwrap_or_default();
        Self::start_in(dir)
    }

    /// Ends it for good and takes its socket away.
    pub fn stop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().map(|_| ()).unwrap_or_default();
        std::fs::remove_file(self.socket()).unwrap_or_default();
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What firmware and kernel would have measured.
pub fn measure(swtpm: &Swtpm) {
    for (pcr, value) in [(0, 0x10), (4, 0x14), (7, 0x17), (9, 0x19)] {
        swtpm.extend(pcr, value);
    }
}

/// An enrolled node: TPM, folder, policy.
pub struct Node {
    pub swtpm: Swtpm,
    pub enrolment: Enrolment,
    pub dir: TempDir,
    pub boot: Boot,
    pub digest: String,
    pub ttl: Duration,
    pub tpm: String,
    pub pcrs: BTreeMap<u32, Vec<[u8; 32]>>,
}

impl Node {
    pub fn new() -> Self {
        let swtpm = Swtpm::start();
        measure(&swtpm);
        let enrolment = enroll(&swtpm.address(), soon()).unwrap();
        Self {
            pcrs: [0, 4, 7, 9].map(|pcr| (pcr, vec![enrolment.pcrs[&pcr]])).into(),
            tpm: swtpm.address(),
            enrolment,
            dir: closed_folder(),
            boot: Boot::current().unwrap(),
            digest: DIGEST.into(),
            ttl: TTL,
            swtpm,
        }
    }

    pub fn policy(&self) -> NodePolicy<'_> {
        NodePolicy {
            tpm: &self.tpm,
            ak_spki_pem: &self.enrolment.ak_spki_pem,
            pcrs: self.pcrs.clone(),
            log: None,
            cap: None,
            ttl: self.ttl,
        }
    }

    pub fn check(&self) -> NodeState {
        self.check_by(soon())
    }

    pub fn check_by(&self, deadline: Instant) -> NodeState {
        check(self.dir.path(), &self.policy(), &self.digest, &self.boot, deadline)
    }

    /// The verdict file.
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("node.json")
    }

    pub fn put(&self, bytes: &[u8]) {
        put(&self.file(), bytes);
    }
}

pub fn put(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

/// Verified, and nothing else said.
#[track_caller]
pub fn passes(state: &NodeState) {
    assert!(state.verified && state.problems.is_empty() && state.wrong_pcrs.is_empty(), "{state:?}");
}

/// Not verified, and one of the problems says `text`.
#[track_caller]
pub fn denied(state: &NodeState, text: &str) {
    assert!(!state.verified, "{state:?}");
    assert!(state.problems.iter().any(|p| p.contains(text)), "wanted {text:?}: {state:?}");
}

/// A listener in a thread; `serve` gets each connection. Ends with the value.
pub struct Server {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    dir: TempDir,
}

impl Server {
    pub fn new(serve: impl Fn(UnixStream) + Send + Sync + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tpm");
        let listener = UnixListener::bind(&path).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let serve = Arc::new(serve);
        let thread = std::thread::spawn(move || {
            for connection in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let serve = serve.clone();
                // Detached: it ends when its client does.
                std::thread::spawn(move || serve(connection.unwrap()));
            }
        });
        Self { path, stop, thread: Some(thread), dir }
    }

    pub fn address(&self) -> String {
        format!("unix:{}", self.path.display())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(UnixStream::connect(&self.path));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap_or_default();
        }
    }
}

/// Stands between a node and its TPM: counts quotes, and may change what the TPM answers.
pub struct Proxy {
    pub server: Server,
    pub quotes: Arc<AtomicUsize>,
    pub commands: Arc<AtomicUsize>,
    change: Arc<Mutex<Change>>,
}

/// (command code, reply bytes) -> changed in place.
pub type Change = Box<dyn FnMut(u32, &mut Vec<u8>) + Send>;

impl Proxy {
    pub fn new(to: &Swtpm) -> Self {
        let to = to.socket();
        let (quotes, commands) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let change: Arc<Mutex<Change>> = Arc::new(Mutex::new(Box::new(|_, _| {})));
        let (counted, all, changing) = (quotes.clone(), commands.clone(), change.clone());
        let server = Server::new(move |mut client| {
            let mut tpm = UnixStream::connect(&to).unwrap();
            let mut buffer = [0; 8192];
            while let Ok(count @ 10..) = client.read(&mut buffer) {
                let code = u32::from_be_bytes(buffer[6..10].try_into().unwrap());
                all.fetch_add(1, Ordering::SeqCst);
                if code == QUOTE {
                    counted.fetch_add(1, Ordering::SeqCst);
                }
                tpm.write_all(&buffer[..count]).unwrap();
                let count = tpm.read(&mut buffer).unwrap();
                let mut reply = buffer[..count].to_vec();
                changing.lock().unwrap()(code, &mut reply);
                if client.write_all(&reply).is_err() {
                    return;
                }
            }
        });
        Self { server, quotes, commands, change }
    }

    pub fn change(&self, change: impl FnMut(u32, &mut Vec<u8>) + Send + 'static) {
        *self.change.lock().unwrap() = Box::new(change);
    }

    pub fn quotes(&self) -> usize {
        self.quotes.load(Ordering::SeqCst)
    }

    pub fn commands(&self) -> usize {
        self.commands.load(Ordering::SeqCst)
    }
}
