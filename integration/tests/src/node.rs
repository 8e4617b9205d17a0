//! The whole node: registry, signed images, TPM, policy, containerd with boltseal, and a client of it.
use crate::client::{BOLTSEAL, Client, Request, SNAPSHOTTER, Status};
use crate::containerd::{self, Containerd, Version};
use crate::image::{self, Change, Form, Image, Recipe};
use crate::policy::{self, Policy};
use crate::process::{Daemon, Said, output, run};
use crate::sign::{self, Cosign, Key};
use crate::tpm::Tpm;
use crate::{given, private, registry, spec};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// containerd namespace of all requests that come from the gRPC client and `ctr`.
/// Where containers' output goes: one of the folders that the shim writes to.
pub const OUTPUT: &str = "/var/log/pods";
pub const NAMESPACE: &str = "tests";
pub const CRI_NAMESPACE: &str = "k8s.io";
pub const SIGNATURES: &str = "/var/lib/boltseal/sig/sha256";
pub const BINARIES: [&str; 4] = ["containerd-shim-boltseal-v1", "boltseal-runtime", "boltseal", "boltseal-fetch"];

/// What is made once and serves every containerd that is started on it.
#[derive(Debug)]
pub struct Node {
    pub work: PathBuf,
    pub images: Images,
    pub policy: Policy,
    pub tpm: Tpm,
    pub key: Key,
    pub(crate) _registry: Daemon,
    /// Made elsewhere and enrolled already: see `given`.
    pub(crate) given: bool,
}

/// Images by what is special about them; `app` and `pause` are the good ones.
#[derive(Debug, Default)]
pub struct Images(pub(crate) BTreeMap<String, Image>);

impl Images {
    pub fn get(&self, name: &str) -> Result<&Image> {
        self.0.get(name).with_context(|| format!("no image {name}"))
    }
    pub fn insert(&mut self, name: &str, image: Image) {
        self.0.insert(name.into(), image);
    }
    pub fn iter(&self) -> impl Iterator<Item = &Image> {
        self.0.values()
    }
}

impl Node {
    /// With only `app`, `app3` and `pause` unless `all`.
    pub fn make(scratch: &Path, all: bool) -> Result<Self> {
        Self::of(&built("release"), scratch, all)
    }

    /// The same with the programs of that folder.
    pub fn of(programs: &Path, scratch: &Path, all: bool) -> Result<Self> {
        install_of(programs)?;
        let work = scratch.join("work");
        fs::create_dir(&work)?;
        if let Some(folder) = given::folder() {
            return given::node(&folder, work, all);
        }
        let registry = registry::start(&work)?;
        let key = Key::generate(&work, "ci")?;
        let images = images(&work, &key, all)?;
        let tpm = Tpm::start(&work)?;
        let pause = images.get("pause")?;
        let policy = Policy::for_this_node(std::slice::from_ref(&pause.manifest))?;
        policy::trust("ci.pub", &key.public)?;
        policy.write()?;
        Ok(Self { work, images, policy, tpm, key, _registry: registry, given: false })
    }

    /// Enrols the TPM: its key goes into the policy's trust folder.
    pub fn enroll(&self) -> Result<()> {
        if self.given {
            return Ok(());
        }
        let key = Path::new(policy::FOLDER).join("trust").join(policy::NODE_KEY);
        if key.exists() {
            fs::remove_file(&key)?;
        }
        let tpm = format!("unix:{}", crate::tpm::SOCKET);
        run(Command::new("boltseal")
            .args(["node", "enroll", "--trust-on-first-use", "--tpm", &tpm, "--write-key"])
            .arg(key))?;
        Ok(())
    }

    /// Copies every signature, bundle and attestation that the registry holds of the image into the signature folder.
    pub fn import(&self, image: &Image) -> Result<()> {
        if self.given && Path::new(SIGNATURES).join(image.hex()).exists() {
            return Ok(());
        }
        for (tag, layout) in sign::fetch(&self.work, image)? {
            run(Command::new("boltseal").args(["sig", "import"]).arg(&layout)).with_context(|| tag)?;
        }
        Ok(())
    }
}

/// The four programs, as `make build` left them, where an operator would put them.
pub fn install() -> Result<()> {
    install_of(&built("release"))
}

/// Folder of what cargo built with that profile. `BOLTSEAL_PROFILE` names another (`quick`) for a shorter wait while developing.
#[must_use]
pub fn built(profile: &str) -> PathBuf {
    let profile = std::env::var("BOLTSEAL_PROFILE").unwrap_or_else(|_| profile.into());
    private::project().join("target/x86_64-unknown-linux-musl").join(profile)
}

/// The four programs of that folder.
pub fn install_of(programs: &Path) -> Result<()> {
    for name in BINARIES {
        let from = programs.join(name);
        if !from.exists() {
            bail!("{} is missing. Fix: make build", from.display());
        }
        let to = Path::new("/usr/local/bin").join(name);
        // One that is there already stays the file that was measured.
        if fs::read(&from)? != fs::read(&to).unwrap_or_default() {
            // By a rename: the one that is there may run.
            let new = to.with_extension("new");
            fs::copy(&from, &new)?;
            fs::rename(new, &to)?;
        }
    }
    Ok(())
}

fn images(work: &Path, key: &Key, all: bool) -> Result<Images> {
    let build = |path: &str, recipe: Recipe| image::build(work, registry::ADDRESS, path, "1", &recipe);
    let release = |text: &str| Recipe { release: text.into(), ..Recipe::default() };
    let mut images = BTreeMap::<String, Image>::new();

    let late = work.join("late");
    fs::write(&late, (0..image::LATE_BLOCKS).flat_map(image::late).collect::<Vec<u8>>())?;
    let files = vec![(late, image::LATE, 0o644)];
    images.insert("app".into(), build("demo/app", Recipe { files, ..release("app") })?);
    images.insert("app3".into(), build("demo/app3", release("app3"))?);
    images.insert("pause".into(), build("pause", Recipe { applets: vec!["sleep"], ..release("pause") })?);
    if all {
        images.insert("other".into(), build("demo/other", release("other"))?);
        let own = Recipe { entrypoint: vec!["/bin/true".into()], cmd: vec!["signed".into()], ..release("own") };
        images.insert("own".into(), build("demo/own", own)?);
        images.insert("docker".into(), build("demo/docker", Recipe { form: Form::Docker, ..release("docker") })?);
        images.insert("index".into(), build("demo/index", Recipe { form: Form::Index, ..release("index") })?);
        images.insert("unsigned".into(), build("demo/unsigned", release("unsigned"))?);
        images.insert("wrongkey".into(), build("demo/wrongkey", release("wrongkey"))?);
        images.insert("swapped".into(), build("demo/swapped", release("swapped"))?);
        images.insert("attested".into(), build("demo/attested", release("attested"))?);
        images.insert("attested3".into(), build("demo/attested3", release("attested3"))?);
        images.insert("devlink".into(), build("demo/devlink", Recipe { dev_symlink: true, ..release("devlink") })?);
        // A test's own program lies beside it or, for the harness, one folder up.
        let own = std::env::current_exe()?;
        let tries = own.ancestors().skip(1).take(2).map(|folder| folder.join("tries")).find(|path| path.exists());
        if let Some(program) = tries {
            images.insert(
                "tries".into(),
                build("demo/tries", Recipe { files: vec![(program, "/bin/tries", 0o755)], ..release("tries") })?,
            );
        }
        let other = vec![("/bin/busybox".into(), "/bin/busybox.other", 0o755)];
        images.insert("tools".into(), build("demo/tools", Recipe { files: other, ..release("tools") })?);
        images.insert("layered".into(), build("demo/layered", Recipe { above: layers(), ..release("layered") })?);
        let helper = vec![("/bin/busybox".into(), "/bin/helper", 0o4755)];
        images.insert("helper".into(), build("demo/helper", Recipe { files: helper, ..release("helper") })?);
        for (name, files, capable) in bare_and_one_more() {
            let (entrypoint, cmd) = (vec!["/app".into()], vec!["version".into()]);
            let recipe = Recipe { entrypoint, cmd, busybox: false, files, capable, ..release(name) };
            images.insert(name.into(), build(&format!("demo/{name}"), recipe)?);
        }
        images.insert("elsewhere".into(), build("elsewhere/app", release("elsewhere"))?);
        let leaky = Recipe {
            created: "1970-01-01T00:00:00Z".into(),
            env: vec!["DB_PASSWORD=hunter2".into()],
            created_by: format!("RUN git clone https://{}{}@git.example/a", "ghp_", "A1b2C3d4E5".repeat(4)),
            ..release("leaky")
        };
        images.insert("leaky".into(), build("demo/leaky", leaky)?);
        let now = run(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]))?.trim().to_owned();
        images.insert("fresh".into(), build("demo/fresh", Recipe { created: now, ..release("fresh") })?);
    }
    let images = Images(images);
    for name in ["app", "pause"] {
        key.sign(Cosign::V2, images.get(name)?)?;
    }
    key.sign(Cosign::V3, images.get("app3")?)?;
    if all {
        let more = ["other", "own", "devlink", "elsewhere", "tools", "tries", "leaky", "fresh", "layered", "helper"];
        for name in more.into_iter().chain(BARE) {
            if let Some(image) = images.0.get(name) {
                key.sign(Cosign::V2, image)?;
            }
        }
        Key::generate(work, "mallory")?.sign(Cosign::V2, images.get("wrongkey")?)?;
        key.attest(Cosign::V2, images.get("attested")?)?;
        key.attest(Cosign::V3, images.get("attested3")?)?;
    }
    Ok(images)
}

/// Layers of the image `layered`: each takes something away from those below. So many files that a scan takes a while.
fn layers() -> Vec<Vec<Change>> {
    use Change::{File, Files, Gone, Opaque};
    vec![
        vec![
            File("/data/one", "1"),
            File("/data/sub/old", "1"),
            File("/opt/a", "1"),
            File("/opt/b", "1"),
            File("/opt/dir/x", "1"),
            Files("/srv", 2000),
        ],
        vec![
            Opaque("/data"),
            File("/data/two", "2"),
            Gone("/opt/a"),
            Gone("/bin/touch"),
            File("/etc/release", "layered 2"),
        ],
        // A file in a folder's place, and a folder in a file's.
        vec![Gone("/data/two"), File("/opt/dir", "3"), File("/opt/b/c", "3"), Opaque("/srv/0"), File("/srv/0/1", "3")],
    ]
}

/// Images without busybox: a static program, and what each of them has beside it.
const BARE: [&str; 6] = ["bare", "shell", "renamed", "sshd", "setuid", "capable"];

type Files = Vec<(PathBuf, &'static str, u32)>;

fn bare_and_one_more() -> [(&'static str, Files, Option<&'static str>); BARE.len()] {
    // A program of ours: it needs no library, and nothing of the image.
    let app = || PathBuf::from("/usr/local/bin/boltseal");
    let with = |name, more: Option<(PathBuf, &'static str, u32)>, capable| {
        (name, std::iter::once((app(), "/app", 0o755)).chain(more).collect(), capable)
    };
    [
        with("bare", None, None),
        with("shell", Some(("/bin/busybox".into(), "/bin/sh", 0o755)), None),
        with("renamed", Some(("/bin/busybox".into(), "/opt/tool", 0o755)), None),
        with("sshd", Some((app(), "/usr/sbin/sshd", 0o755)), None),
        with("setuid", Some((app(), "/bin/helper", 0o4755)), None),
        with("capable", None, Some("app")),
    ]
}

/// A node with a running containerd.
#[derive(Debug)]
pub struct World {
    pub node: Node,
    pub containerd: Containerd,
    pub client: Client,
    /// Handler that requests name.
    pub runtime: &'static str,
    count: u32,
    undo: Vec<Undo>,
}

type Undone = Box<dyn FnOnce(&mut World) -> Result<()>>;

/// Puts back what a case changed on the node.
struct Undo(Undone);

impl std::fmt::Debug for Undo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Undo")
    }
}

/// How a request that started ended.
#[derive(Debug, Clone)]
pub struct Ended {
    pub status: u32,
    pub output: String,
}

impl World {
    pub fn start(node: Node, version: Version) -> Result<Self> {
        let pause = node.images.get("pause")?.name.clone();
        let containerd = Containerd::start(version, &node.work, &pause)?;
        Self::on(node, containerd)
    }

    /// On a containerd that runs.
    pub fn on(node: Node, containerd: Containerd) -> Result<Self> {
        fs::create_dir_all(OUTPUT)?;
        for image in node.images.iter() {
            containerd.pull(NAMESPACE, &image.name)?;
            containerd.pull(CRI_NAMESPACE, &image.name)?;
        }
        // A second name, so that a case may re-tag the first and the garbage collector still keeps the image.
        let app = &node.images.get("app")?.name;
        run(containerd.ctr(NAMESPACE).args(["images", "tag", app, "kept"]))?;
        let client = Client::new(containerd::SOCKET, NAMESPACE)?;
        Ok(Self { node, containerd, client, runtime: BOLTSEAL, count: 0, undo: Vec::new() })
    }

    /// Ends containerd; the node may serve another one.
    pub fn end(self) -> Result<Node> {
        let Self { node, mut containerd, client, .. } = self;
        drop(client);
        containerd.stop()?;
        Ok(node)
    }

    /// A request that starts: the workload image with `args`, stdout and stderr in a file.
    pub fn request(&mut self, image: &str, args: &[&str]) -> Result<Request> {
        self.count += 1;
        self.named(&format!("c{}", self.count), image, args)
    }

    /// The same under an id that is looked for in the trail.
    pub fn named(&self, id: &str, image: &str, args: &[&str]) -> Result<Request> {
        let id = id.to_owned();
        let image = self.node.images.get(image)?;
        let stdout = format!("file://{}", self.output_file(&id).display());
        Ok(Request {
            spec: spec::spec(NAMESPACE, &id, args),
            raw_spec: None,
            image: image.name.clone(),
            runtime: self.runtime.into(),
            snapshotter: SNAPSHOTTER.into(),
            key: id.clone(),
            parent: image.chain_id.clone(),
            view: false,
            rootfs: |_| {},
            stdin: String::new(),
            stderr: stdout.clone(),
            stdout,
            terminal: false,
            checkpoint: None,
            labels: std::collections::HashMap::new(),
            id,
        })
    }

    #[must_use]
    pub fn output_file(&self, id: &str) -> PathBuf {
        let version = self.containerd.version.name().replace(' ', "-");
        Path::new(OUTPUT).join(format!("{id}-{version}.out"))
    }

    /// Creates container and task; on failure what was made is removed and the status answered.
    pub fn create(&self, request: &Request) -> Result<u32, Status> {
        let made = self.client.create_container(request).and_then(|mounts| self.client.create_task(request, mounts));
        if made.is_err() {
            self.client.remove(request)?;
        }
        made
    }

    /// The whole life of a container: create, start, wait, delete.
    pub fn complete(&self, request: &Request) -> Result<Ended, Status> {
        self.create(request)?;
        let ended = self.client.start(&request.id, "").and_then(|_| self.client.wait(&request.id, ""));
        let removed = self.client.remove(request);
        let status = ended?;
        removed?;
        let output = fs::read_to_string(self.output_file(&request.id)).unwrap_or_default();
        Ok(Ended { status, output })
    }

    /// Leaves a running container.
    pub fn run(&self, request: &Request) -> Result<u32, Status> {
        let pid = self.create(request)?;
        if let Err(status) = self.client.start(&request.id, "") {
            self.client.remove(request)?;
            return Err(status);
        }
        Ok(pid)
    }

    /// Something to put back once the case is over.
    pub fn undo_later(&mut self, undo: impl FnOnce(&mut Self) -> Result<()> + 'static) {
        self.undo.push(Undo(Box::new(undo)));
    }

    /// All of it, whatever fails; answers with the first error.
    pub fn undo(&mut self) -> Result<()> {
        let mut outcome = Ok(());
        while let Some(Undo(undo)) = self.undo.pop() {
            let undone = undo(self);
            outcome = outcome.and(undone);
        }
        outcome
    }

    pub fn ctr(&self, args: &[&str]) -> Result<Said> {
        output(self.containerd.ctr(NAMESPACE).args(args))
    }
}

/// The gate's own folder of a container.
pub fn state(id: &str) -> Result<PathBuf> {
    let mut all = fs::read_dir("/run/boltseal")?.filter_map(|entry| Some(entry.ok()?.path().join(NAMESPACE).join(id)));
    all.find(|folder| folder.is_dir()).with_context(|| format!("{id} has no folder"))
}

/// The trail as `boltseal audit list` shows it, oldest first.
pub fn trail() -> Result<Vec<Value>> {
    let text = run(Command::new("boltseal").args(["audit", "list", "-o", "json"]))?;
    match serde_json::from_str::<Value>(&text) {
        Ok(Value::Array(records)) => Ok(records),
        _ => text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect(),
    }
}
