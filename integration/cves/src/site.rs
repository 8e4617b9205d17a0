//! The place where all of it happens: a node with boltseal, runc and crun, canaries that stand for the host, and one way
//! to ask any of the three.
use crate::crun;
use crate::row::{Ask, Row, Seen};
use crate::rows::Noted;
use crate::rows::note;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use stack::cases::first_line;
use stack::client::{BOLTSEAL, RUNC};
use stack::containerd::Version;
use stack::image::{self, Recipe};
use stack::node::{NAMESPACE, Node, OUTPUT, World};
use stack::process::{output, run};
use stack::registry::ADDRESS;
use stack::sign::Cosign;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the tests let burn in the place of the host.
pub(crate) const HOST: &str = "/var/lib/cves";
/// A file that no container may read.
pub(crate) const SECRET: &str = "/var/lib/cves/host/secret";
/// A folder that no container may change.
pub(crate) const OUTSIDE: &str = "/var/lib/cves/host/outside";
/// A volume that the policy grants, writable.
pub(crate) const VOLUME: &str = "/var/lib/cves/volume";
/// A file of the kernel's that may be written by accident, as a runtime does whose /dev/null leads there: its text is the
/// container's own, of its UTS namespace.
pub(crate) const PROC_FILE: &str = "/proc/sys/kernel/domainname";
/// A file of the image beside the same path of the host.
const INSIDE: &str = "/var/lib/cves/host/outside/.image";
const TOKEN: &str = "canary-of-the-host\n";
/// What may be overwritten: copies, one and all.
const PEERS: [&str; 3] = ["/usr/sbin/runc", "/usr/bin/crun", "/usr/bin/containerd-shim-runc-v2"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Boltseal,
    Runc,
    Crun,
}

pub(crate) struct Site {
    pub(crate) world: World,
    /// containerd's own default filter, as `ctr run --seccomp` writes it.
    filter: Value,
    pub(crate) exploit: PathBuf,
    /// Which round of a row it is, from 0.
    pub(crate) round: u32,
    /// What was seen of the shim of the last container with execs.
    pub(crate) noted: Noted,
}

impl Site {
    pub(crate) fn make(scratch: &Path) -> Result<Self> {
        let exploit = std::env::current_exe()?.with_file_name("boltseal-exploit");
        ensure!(exploit.exists(), "{} is missing. Fix: make test-escape", exploit.display());
        let bare = Path::new("/usr/local/bin/boltseal-exploit");
        run(Command::new("strip").arg("-o").arg(bare).arg(&exploit))?;
        copies()?;
        let mut node = Node::make(scratch, false)?;
        node.enroll()?;
        images(&mut node, bare)?;
        for image in node.images.iter() {
            node.import(image)?;
        }
        policy(&mut node)?;
        let mut world = World::start(node, Version::V1_6)?;
        let filter = filter(&mut world)?;
        let mut site = Self { world, filter, exploit: bare.into(), round: 0, noted: Noted::default() };
        site.reset()?;
        Ok(site)
    }

    /// The canaries as they were.
    pub(crate) fn reset(&mut self) -> Result<()> {
        if Path::new(HOST).exists() {
            fs::remove_dir_all(HOST)?;
        }
        for folder in [OUTSIDE, VOLUME] {
            fs::create_dir_all(folder)?;
        }
        fs::write(SECRET, TOKEN)?;
        for file in [SECRET, "/var/lib/cves/host", HOST] {
            fs::set_permissions(file, fs::Permissions::from_mode(0o755))?;
        }
        Ok(fs::set_permissions(VOLUME, fs::Permissions::from_mode(0o777))?)
    }

    /// The exploit outside any container.
    pub(crate) fn bare(&self, words: &[&str]) -> Result<Seen> {
        let said = output(Command::new(&self.exploit).args(words))?;
        Ok(Seen::Ran { code: u32::try_from(said.code).unwrap_or(255), output: said.stdout })
    }

    /// The request of a row for one runtime, with its fault or as the twin.
    pub(crate) fn ask(&mut self, who: Who, row: &Row, faulty: bool) -> Result<Ask> {
        self.world.runtime = if who == Who::Boltseal { BOLTSEAL } else { RUNC };
        let args: Vec<&str> = row.args.iter().map(String::as_str).collect();
        let image = if faulty { row.image } else { row.good_image };
        let mut request = self.world.request(image, &args)?;
        // The most that an attacker who got in has: root of the container, and a filter as Kubernetes' RuntimeDefault.
        request.spec["process"]["user"] = json!({ "uid": 0, "gid": 0 });
        request.spec["linux"]["seccomp"] = self.filter.clone();
        let mut ask = Ask { request, execs: Vec::new() };
        (row.common)(self, &mut ask)?;
        if faulty {
            (row.fault)(self, &mut ask)?;
        }
        Ok(ask)
    }

    pub(crate) fn send(&mut self, who: Who, ask: &Ask) -> Result<Seen> {
        if ask.request.terminal {
            return self.with_terminal(who, ask);
        }
        match who {
            Who::Crun => crun::run(self, ask),
            Who::Boltseal | Who::Runc if ask.execs.is_empty() => self.whole(ask),
            Who::Boltseal | Who::Runc => self.with_execs(who, ask),
        }
    }

    /// A terminal's output comes by a fifo, as containerd's clients make it.
    fn with_terminal(&self, who: Who, ask: &Ask) -> Result<Seen> {
        ensure!(who != Who::Crun, "crun's terminal needs a console socket");
        let path = Path::new(OUTPUT).join(format!("{}.fifo", ask.request.id));
        run(Command::new("mkfifo").arg(&path))?;
        let mut fifo = fs::File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&path)?;
        let mut ask = ask.clone();
        ask.request.stdout = path.display().to_string();
        ask.request.stderr = String::new();
        let seen = self.whole(&ask)?;
        let mut bytes = vec![0; 1 << 16];
        let length = fifo.read(&mut bytes).unwrap_or(0);
        bytes.truncate(length);
        fs::remove_file(path)?;
        Ok(match seen {
            Seen::Ran { code, .. } => Seen::Ran { code, output: String::from_utf8_lossy(&bytes).replace('\r', "") },
            refused => refused,
        })
    }

    fn whole(&self, ask: &Ask) -> Result<Seen> {
        let request = &ask.request;
        let mounts = self.world.client.create_container(request).context("the container's record")?;
        let ended = self
            .world
            .client
            .create_task(request, mounts)
            .and_then(|_| self.world.client.start(&request.id, ""))
            .and_then(|_| self.world.client.wait(&request.id, ""));
        self.world.client.remove(request).context("remove")?;
        Ok(match ended {
            Ok(code) => Seen::Ran { code, output: self.said(&request.id) },
            Err(status) => Seen::Refused(first_line(&status)),
        })
    }

    fn with_execs(&mut self, who: Who, ask: &Ask) -> Result<Seen> {
        let request = &ask.request;
        let client = &self.world.client;
        let init = match self.world.run(request) {
            Ok(init) => init,
            Err(status) => return Ok(Seen::Refused(first_line(&status))),
        };
        let (_, size) = note(who, init, None)?;
        let mut output = String::new();
        let mut refused = None;
        for (number, process) in ask.execs.iter().enumerate() {
            let exec = format!("e{number}");
            let out = format!("{}-{exec}", request.id);
            let uri = format!("file://{}", self.world.output_file(&out).display());
            let started =
                client.exec(&request.id, &exec, process, &uri).and_then(|()| client.start(&request.id, &exec));
            match started.and_then(|_| client.wait(&request.id, &exec)) {
                Ok(_) => output.push_str(&self.said(&out)),
                Err(status) => refused = Some(first_line(&status)),
            }
            // What was refused may be known or not; the container's removal takes it along.
            drop(client.delete_exec(&request.id, &exec));
        }
        self.noted = note(who, init, Some(size))?.0;
        // An init that runs an exploit has its own end; one that only sleeps has none.
        let is_exploit = request.spec["process"]["args"][0] == "/bin/exploit";
        let code = if is_exploit { client.wait(&request.id, "")? } else { 0 };
        client.remove(request).context("remove")?;
        output.push_str(&self.said(&request.id));
        Ok(match refused {
            Some(why) if output.trim().is_empty() => Seen::Refused(why),
            _ => Seen::Ran { code, output },
        })
    }

    /// BS-PRC-003 as it is shipped, until the row is over.
    pub(crate) fn enforce_root_rule(&mut self) -> Result<()> {
        let mut policy = self.world.node.policy.clone();
        policy.set("modes.BS-PRC-003", "enforce")?;
        policy.write()?;
        self.world.undo_later(|world| world.node.policy.write());
        Ok(())
    }

    fn said(&self, id: &str) -> String {
        fs::read(self.world.output_file(id))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }
}

/// runc and crun are bound over by copies of themselves, in this private machine alone.
fn copies() -> Result<()> {
    for program in PEERS {
        let copy = Path::new("/var/lib").join(Path::new(program).file_name().context("a program without a name")?);
        fs::copy(program, &copy).with_context(|| format!("{program}. Fix: make setup"))?;
        run(Command::new("mount").arg("--bind").arg(&copy).arg(program))?;
    }
    Ok(())
}

/// Images as an attacker signs them: his own program in each, and one path that is a symbolic link.
const IMAGES: [(&str, Option<(&str, &str)>); 10] = [
    ("app", None),
    ("user-wraps", None),
    ("proc-link", Some(("/proc", "/tmp"))),
    ("proc-volume", Some(("/proc", "/volume/proc"))),
    ("sys-link", Some(("/sys", "/tmp"))),
    ("dev-out", Some(("/dev", OUTSIDE))),
    ("dev-null", Some(("/dev/null", PROC_FILE))),
    ("dev-console", Some(("/dev/console", SECRET))),
    ("file-out", Some(("/etc/out", "/var/lib/cves/host/outside/file"))),
    ("cwd-link", Some(("/cwd", "/proc/self/fd/7"))),
];

fn images(node: &mut Node, exploit: &Path) -> Result<()> {
    for (name, link) in IMAGES {
        let recipe = Recipe {
            release: format!("cve-{name}"),
            user: if name == "user-wraps" { "4294967296:4294967296" } else { image::USER }.into(),
            // The second makes the folder of that name in the image: some runtimes only follow a link that leads somewhere.
            files: vec![(exploit.into(), "/bin/exploit", 0o755), ("/etc/hostname".into(), INSIDE, 0o755)],
            links: link.into_iter().map(|(path, target)| (path, target.to_owned())).collect(),
            ..Recipe::default()
        };
        let image = image::build(&node.work, ADDRESS, &format!("demo/cve-{name}"), "1", &recipe)?;
        node.key.sign(Cosign::V2, &image)?;
        node.images.insert(name, image);
    }
    Ok(())
}

/// Weaker than what is shipped in what would else refuse every row for one and the same reason: root of the container
/// starts, and the volume is granted, writable. What is left has to hold by itself.
fn policy(node: &mut Node) -> Result<()> {
    node.policy.warn("BS-PRC-003")?;
    let allowance = format!(
        "id = \"volume\"\nauthority = \"ci\"\nrepository = \"{ADDRESS}/demo\"\n\
         mounts = [{}]\n",
        ["", "/a", "/source", "/file"]
            .map(|part| format!("{{ source = \"{VOLUME}{part}\", writable = true }}"))
            .join(", ")
    );
    node.policy.push("allowance", toml::from_str(&allowance)?)?;
    node.policy.write()
}

fn filter(world: &mut World) -> Result<Value> {
    let image = world.node.images.get("app")?.name.clone();
    let ctr = |args: &[&str]| run(world.containerd.ctr(NAMESPACE).args(args));
    ctr(&["run", "--detach", "--seccomp", &image, "filter", "/bin/true"])?;
    let text = ctr(&["containers", "info", "filter"])?;
    stack::process::poll("it does not end", std::time::Duration::from_secs(10), || {
        world.client.state("filter").ok().filter(|state| *state == 3)
    })?;
    ctr(&["tasks", "rm", "filter"])?;
    ctr(&["containers", "rm", "filter"])?;
    let info: Value = serde_json::from_str(&text)?;
    let filter = info["Spec"]["linux"]["seccomp"].clone();
    ensure!(filter["syscalls"].is_array(), "containerd's default filter is not in its record: {text}");
    Ok(filter)
}
