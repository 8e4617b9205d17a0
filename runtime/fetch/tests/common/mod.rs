//! A registry of our own, with TLS and a CA of its own, that answers as a test wants; and a node that fetches from it, in a
//! mount namespace in which the fixed paths are the test's. Runs as root, as the program does.
#![allow(dead_code, reason = "each test takes what it needs")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(crate) const IMAGE: &str = "a537c71bb71947f39a871abf3f772e7ee08072a11c7bacf67b54523c38190f47";

/// What is said to one request.
pub(crate) enum Reply {
    Body(Vec<u8>),
    Status(u16, Vec<(&'static str, String)>),
    /// A byte every 100 ms, for ever.
    Trickle,
}

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../trust/tests/fixtures")
}

/// Blobs by digest and manifests by tag, as a registry holds them.
#[derive(Clone, Default)]
pub(crate) struct Shelf {
    pub(crate) blobs: BTreeMap<String, Vec<u8>>,
    pub(crate) tags: BTreeMap<String, Vec<u8>>,
}

impl Shelf {
    /// The image and the signatures of these layouts, which real tools made.
    pub(crate) fn of(layouts: &[&str]) -> Self {
        let mut shelf = Self::default();
        shelf.add(&fs::read(fixtures().join("image/app.manifest.json")).unwrap());
        for layout in layouts {
            let folder = fixtures().join("layouts").join(layout);
            for blob in fs::read_dir(folder.join("blobs/sha256")).unwrap() {
                shelf.add(&fs::read(blob.unwrap().path()).unwrap());
            }
            let index: serde_json::Value =
                serde_json::from_slice(&fs::read(folder.join("index.json")).unwrap()).unwrap();
            for entry in index["manifests"].as_array().unwrap() {
                let tag = entry["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap();
                let bytes = shelf.blobs[entry["digest"].as_str().unwrap()].clone();
                shelf.tags.insert(tag.into(), bytes);
            }
        }
        shelf
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) -> String {
        let digest = boltseal_trust::digest(bytes).to_string();
        self.blobs.insert(digest.clone(), bytes.to_vec());
        digest
    }

    /// What an honest registry without a page of referrers answers to a path.
    pub(crate) fn get(&self, path: &str) -> Reply {
        let name = path.split('?').next().unwrap().rsplit('/').next().unwrap();
        if path.contains("/referrers/") {
            return Reply::Status(404, Vec::new());
        }
        match self.blobs.get(name).or_else(|| self.tags.get(name)) {
            Some(bytes) => Reply::Body(bytes.clone()),
            None => Reply::Status(404, Vec::new()),
        }
    }
}

type Answer = dyn Fn(&str, &str) -> Reply + Send + Sync;

pub(crate) struct Registry {
    pub(crate) port: u16,
    pub(crate) seen: Arc<Mutex<Vec<String>>>,
}

impl Registry {
    /// `answer` gets the path and the head of each request. Its thread ends with the test's process.
    pub(crate) fn start(site: &Site, answer: impl Fn(&str, &str) -> Reply + Send + Sync + 'static) -> Self {
        let certificates = CertificateDer::pem_file_iter(site.path("server.pem")).unwrap().flatten().collect();
        let key = PrivateKeyDer::from_pem_file(site.path("server.key")).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (config, answer, log): (_, Arc<Answer>, _) = (Arc::new(config), Arc::new(answer), seen.clone());
        thread::spawn(move || {
            for socket in listener.incoming() {
                let (config, answer, log) = (config.clone(), answer.clone(), log.clone());
                thread::spawn(move || serve(socket.unwrap(), config, &*answer, &log));
            }
        });
        Self { port, seen }
    }

    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// Until the peer has enough; what goes wrong is the peer's to tell.
fn serve(socket: TcpStream, config: Arc<ServerConfig>, answer: &Answer, log: &Mutex<Vec<String>>) -> Option<()> {
    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), socket);
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).ok()? == 0 {
                return None;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let path = head.split(' ').nth(1).unwrap().to_owned();
        let who = head.lines().find(|l| l.starts_with("Authorization: ")).unwrap_or_default().to_owned();
        log.lock().unwrap().push(format!("{path} {who}"));
        match answer(&path, &head) {
            Reply::Body(bytes) => {
                stream
                    .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len()).as_bytes())
                    .ok()?;
                stream.write_all(&bytes).ok()?;
            }
            Reply::Status(code, headers) => {
                let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
                stream.write_all(format!("HTTP/1.1 {code} X\r\nContent-Length: 0\r\n{headers}\r\n").as_bytes()).ok()?;
            }
            Reply::Trickle => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n").ok()?;
                loop {
                    stream.write_all(b" ").and_then(|()| stream.flush()).ok()?;
                    thread::sleep(Duration::from_millis(100));
                }
            }
        }
        stream.flush().ok()?;
    }
}

/// The node's folders, and the certificates of its registry.
pub(crate) struct Site(TempDir);

pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) took: Duration,
    /// Files of the image in the store.
    pub(crate) stored: usize,
}

impl Site {
    pub(crate) fn new() -> Self {
        let site = Self(tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap());
        for name in ["etc/boltseal/trust", "lib/boltseal", "bin"] {
            fs::create_dir_all(site.path(name)).unwrap();
        }
        site.certificates();
        site.write(
            "etc/boltseal/policy.toml",
            "version = 1\n[[authority]]\nname = \"ci\"\nkey = \"ci.pub\"\nrepositories = [\"127.0.0.1\"]\n",
            0o644,
        );
        let key = fs::read_to_string(fixtures().join("keys/signer.pub")).unwrap();
        site.write("etc/boltseal/trust/ci.pub", &key, 0o644);
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str, mode: u32) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
    }

    fn certificates(&self) {
        let script = "set -e; cd $D
            for ca in ca other; do
                openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=$ca -days 2 -keyout $ca.key -out $ca.pem
            done
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=registry -keyout server.key -out server.csr
            printf 'subjectAltName=IP:127.0.0.1\\nextendedKeyUsage=serverAuth\\n' > ext
            openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -days 2 -extfile ext -out server.pem";
        let made = Command::new("sh").args(["-c", script]).env("D", self.0.path()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        for (name, to) in [("ca.pem", "etc/boltseal/ca.pem"), ("other.pem", "etc/boltseal/other.pem")] {
            let text = fs::read_to_string(self.path(name)).unwrap();
            self.write(to, &text, 0o644);
        }
    }

    /// As containerd runs it, with this in fetch.toml.
    pub(crate) fn verify(&self, registry: &Registry, config: &str) -> Ran {
        let name = format!("127.0.0.1:{}/team/app:1", registry.port);
        let digest = format!("sha256:{IMAGE}");
        let words = ["-name", &name, "-digest", &digest, "-stdin-media-type", "application/vnd.oci.descriptor.v1+json"];
        self.run(registry, config, &words)
    }

    pub(crate) fn by_hand(&self, registry: &Registry, config: &str) -> Ran {
        self.run(registry, config, &[&format!("127.0.0.1:{}/team/app@sha256:{IMAGE}", registry.port)])
    }

    fn run(&self, _: &Registry, config: &str, words: &[&str]) -> Ran {
        let ca = if config.contains("ca = ") { "" } else { "ca = [\"/etc/boltseal/ca.pem\"]\n" };
        self.write("etc/boltseal/fetch.toml", &format!("{ca}{config}"), 0o644);
        let script = "set -e; mount --bind $D/etc /etc; mount --bind $D/lib /var/lib; mount --bind $D/bin /usr/local/bin; exec \"$BIN\" \"$@\"";
        let start = Instant::now();
        let output = Command::new("unshare")
            .args(["-m", "--propagation", "private", "sh", "-c", script, "sh"])
            .args(words)
            .env("BIN", env!("CARGO_BIN_EXE_boltseal-fetch"))
            .env("D", self.0.path())
            .env_remove("HTTPS_PROXY")
            .env_remove("https_proxy")
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let held = self.path("lib/boltseal/sig/sha256").join(IMAGE);
        Ran {
            code: output.status.code().unwrap(),
            out: text(&output.stdout),
            err: text(&output.stderr),
            took: start.elapsed(),
            stored: fs::read_dir(held).map_or(0, Iterator::count),
        }
    }
}
