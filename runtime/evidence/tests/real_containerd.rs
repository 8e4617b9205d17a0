//! containerd's records as a real containerd gives them, and what asking costs. In a mount and network namespace of its
//! own with a private /run, which this program makes by running itself under `unshare`. Needs root and containerd.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use boltseal_evidence::containerd::{CAP, Client, Error};
use boltseal_evidence::file::sha256;
use boltseal_evidence::spec_facts::{SpecContext, facts_of_spec};
use boltseal_evidence::{rootfs, spec};
use nix::mount::{MsFlags, mount};
use nix::time::{ClockId, clock_gettime};
use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

const INSIDE: &str = "BOLTSEAL_REAL_CONTAINERD";
const IMAGE: &str = "registry.test/team/app:v1";

fn main() {
    if std::env::var_os(INSIDE).is_none() {
        let exe = std::env::current_exe().unwrap();
        let status = Command::new("unshare")
            .args(["--mount", "--net", "--propagation", "private", "--"])
            .arg(exe)
            .env(INSIDE, "1")
            .status()
            .expect("unshare runs");
        assert!(status.success(), "the cases failed: {status}");
        return;
    }
    mount(Some("none"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path());
    let image = Image::import(&daemon, dir.path());
    daemon.ctr(&["containers", "create", "--label", "team=a", IMAGE, "c1"]);
    records(&daemon, &image);
    println!("test records ... ok");
    absent(&daemon);
    println!("test what is not there ... ok");
    bounded(&daemon, &image);
    println!("test bounded blobs ... ok");
    stopped(&daemon);
    println!("test a containerd that stands still ... ok");
    cost(&daemon, &image);
}

struct Daemon {
    child: Child,
    address: String,
}

impl Daemon {
    fn start(dir: &Path) -> Self {
        let address = "/run/c/containerd.sock".to_owned();
        fs::create_dir("/run/c").unwrap();
        let config = dir.join("config.toml");
        let text = format!(
            "version = 2\nroot = \"{}\"\nstate = \"/run/c/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{address}\"\n",
            dir.join("root").display()
        );
        fs::write(&config, text).unwrap();
        let log = fs::File::create(dir.join("log")).unwrap();
        let child = Command::new("containerd")
            .args(["--config", config.to_str().unwrap(), "--log-level", "warn"])
            .stderr(log)
            .spawn()
            .expect("containerd runs");
        let daemon = Self { child, address };
        let end = Instant::now() + Duration::from_secs(20);
        while Client::connect(&daemon.address, "t", Instant::now() + CAP)
            .and_then(|c| c.image("none"))
            .is_err_and(|e| !matches!(e, Error::NotFound { .. }))
        {
            assert!(
                Instant::now() < end,
                "containerd does not come up: {}",
                fs::read_to_string(dir.join("log")).unwrap()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        daemon
    }

    fn ctr(&self, args: &[&str]) {
        let done = Command::new("ctr").args(["-a", &self.address, "-n", "t"]).args(args).output().expect("ctr runs");
        assert!(done.status.success(), "ctr {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn client(&self) -> Client {
        Client::connect(&self.address, "t", Instant::now() + CAP).unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// An image of one layer in the OCI layout, made here, so every digest is known.
struct Image {
    manifest: String,
    config: Vec<u8>,
    diff_id: String,
}

impl Image {
    fn import(daemon: &Daemon, dir: &Path) -> Self {
        let layout = dir.join("layout");
        fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
        fs::create_dir_all(dir.join("layer/etc")).unwrap();
        fs::write(dir.join("layer/etc/hello"), "hello").unwrap();
        let tar = |from: &Path, to: &Path| {
            let done = Command::new("tar").arg("-C").arg(from).arg("-cf").arg(to).arg(".").status().unwrap();
            assert!(done.success());
        };
        tar(&dir.join("layer"), &dir.join("layer.tar"));
        let blob = |bytes: &[u8]| {
            fs::write(layout.join("blobs/sha256").join(sha256(bytes)), bytes).unwrap();
            format!("sha256:{}", sha256(bytes))
        };
        let layer = fs::read(dir.join("layer.tar")).unwrap();
        let diff_id = blob(&layer);
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["/hello"]}},"rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#
        );
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{diff_id}","size":{}}}]}}"#,
            blob(config.as_bytes()),
            config.len(),
            layer.len()
        );
        let digest = blob(manifest.as_bytes());
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{},"annotations":{{"io.containerd.image.name":"{IMAGE}"}}}}]}}"#,
            manifest.len()
        );
        fs::write(layout.join("index.json"), index).unwrap();
        fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        tar(&layout, &dir.join("image.tar"));
        daemon.ctr(&["images", "import", dir.join("image.tar").to_str().unwrap()]);
        Self { manifest: digest, config: config.into_bytes(), diff_id }
    }
}

fn records(daemon: &Daemon, image: &Image) {
    let client = daemon.client();
    let container = client.container("c1").unwrap();
    assert_eq!((container.image.as_str(), container.snapshotter.as_str()), (IMAGE, "overlayfs"));
    assert_eq!(container.labels.get("team").map(String::as_str), Some("a"));
    assert_eq!((container.sandbox_id.as_deref(), container.cri.as_ref()), (None, None));
    let target = client.image(&container.image).unwrap();
    assert_eq!(target.digest, image.manifest);
    let manifest = client.blob(&target.digest, 1 << 20).unwrap();
    assert_eq!(u64::try_from(manifest.len()).unwrap(), target.size);
    assert_eq!(format!("sha256:{}", sha256(&manifest)), image.manifest);
    let snapshot = client.snapshot(&container.snapshotter, &container.snapshot_key).unwrap();
    assert!(snapshot.active);
    assert_eq!(snapshot.parent, image.diff_id, "the chain id of one layer is its diff id");
    let facts = rootfs::rootfs_facts(&snapshot.mounts, &container.snapshotter, &snapshot);
    assert!(facts.unknown_form.is_empty() && facts.mounts_match && facts.unsafe_roots.is_empty(), "{facts:?}");
    assert_eq!(facts.upper_empty.is(), Some(&true));
    assert_eq!(facts.lowers.len(), 1);
    // containerd's own default spec lies within the sealed set.
    let parsed = spec::parse(&container.spec).unwrap();
    let context = SpecContext {
        bundle: Path::new("/run/c/state/io.containerd.runtime.v2.task/t/c1"),
        oom_score_floor: None,
        seccomp_available: true,
        devices_enforced: true,
    };
    let facts = facts_of_spec(&parsed, &context);
    assert!(facts.foreign_fields.is_empty(), "{:?}", facts.foreign_fields);
    assert!(facts.mounts.iter().all(|m| m.unknown_options.is_empty()), "{:?}", facts.mounts);
    assert_eq!(facts.process.args, ["/hello"]);
}

fn absent(daemon: &Daemon) {
    let client = daemon.client();
    assert!(matches!(client.container("none"), Err(Error::NotFound { .. })));
    assert!(matches!(client.image("none"), Err(Error::NotFound { .. })));
    assert!(matches!(client.blob(&format!("sha256:{}", "0".repeat(64)), 9), Err(Error::NotFound { .. })));
    assert!(matches!(client.snapshot("overlayfs", "none"), Err(Error::NotFound { .. })));
    assert!(client.snapshot("nosuch", "c1").is_err());
    let other = Client::connect(&daemon.address, "other", Instant::now() + CAP).unwrap();
    assert!(matches!(other.container("c1"), Err(Error::NotFound { .. })), "another namespace");
}

fn bounded(daemon: &Daemon, image: &Image) {
    let client = daemon.client();
    let digest = format!("sha256:{}", sha256(&image.config));
    assert_eq!(client.blob(&digest, image.config.len()).unwrap(), image.config);
    assert!(matches!(client.blob(&digest, image.config.len() - 1), Err(Error::TooLarge { .. })));
}

/// Stopped by SIGSTOP: the socket takes connections, nobody answers.
fn stopped(daemon: &Daemon) {
    let signal = |name: &str| {
        let done = Command::new("kill").args([name, &daemon.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    };
    signal("-STOP");
    let start = Instant::now();
    let result = Client::connect(&daemon.address, "t", start + Duration::from_secs(60)).and_then(|c| c.container("c1"));
    let took = start.elapsed();
    signal("-CONT");
    assert!(matches!(result, Err(Error::Timeout(_))), "{result:?}");
    assert!(took < CAP + Duration::from_millis(500), "{took:?}");
}

/// Wall and CPU of one connection with every call that a start makes. Printed, and bounded so loosely that only a
/// mistake (a thread per call, a sleep) breaks it.
fn cost(daemon: &Daemon, image: &Image) {
    let cpu = || Duration::from(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap());
    let digest = format!("sha256:{}", sha256(&image.config));
    let mut runs: Vec<(Duration, Duration)> = (0..31)
        .map(|_| {
            let (wall, used) = (Instant::now(), cpu());
            let client = daemon.client();
            let container = client.container("c1").unwrap();
            let target = client.image(&container.image).unwrap();
            client.blob(&target.digest, 1 << 20).unwrap();
            client.blob(&digest, 1 << 20).unwrap();
            client.snapshot(&container.snapshotter, &container.snapshot_key).unwrap();
            drop(client);
            (wall.elapsed(), cpu() - used)
        })
        .collect();
    let first = runs[0];
    runs.sort();
    let median = runs[runs.len() / 2].0;
    runs.sort_by_key(|r| r.1);
    let median_cpu = runs[runs.len() / 2].1;
    println!(
        "connect and six calls: first {:?} wall {:?} CPU, median of 31 {median:?} wall {median_cpu:?} CPU",
        first.0, first.1
    );
    // Nothing of it is left: what follows forks.
    assert_eq!(fs::read_dir("/proc/self/task").unwrap().count(), 1);
}
