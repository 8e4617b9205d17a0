//! Requests that must be refused, as data: what is wrong, which rule says so, and the twin that differs only in the fault
//! and starts.
mod attested;
mod bundle;
mod ear;
mod exec;
mod gates;
mod host;
mod image;
pub mod layers;
mod network;
mod node;
mod notation;
mod programs;
mod revoked;
mod sensitivity;
mod several;
pub mod signed;
mod spec;
mod store;
mod update;
pub mod users;

pub use image::checkpoint;
pub use programs::list;

use crate::client::{Code, Request, Status};
use crate::containerd::Version;
use crate::leak::Snapshot;
use crate::node::World;
use crate::since::Since;
use crate::spec as template;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

pub type Bend = fn(&mut World, &mut Request) -> Result<()>;

/// One fault.
#[derive(Debug, Clone)]
pub struct Case {
    pub name: &'static str,
    /// Rule that the first line names; empty where no rule speaks (a request that cannot be read).
    pub rule: &'static str,
    pub code: Code,
    /// Part of the message.
    pub says: &'static str,
    /// The image of request and twin.
    pub image: &'static str,
    /// Bends the request, or the node (and says how to undo that).
    pub fault: Bend,
    /// Makes the twin: the same as the fault, but right. Nothing where the plain request is the twin.
    pub mend: Bend,
    /// What changes after the container's record is made and before its task is.
    pub between: fn(&mut World, &Request) -> Result<()>,
    /// The fault is in an exec into a container that started well.
    pub exec: Option<fn(&mut Value)>,
    /// The fault is in new limits for a container that started well; the twin's are fine.
    pub update: Option<[fn() -> Value; 2]>,
    /// With the rule on `warn` the case need not start: it meets this instead (another rule, or a limit of the kernel).
    pub warned: Warned,
    /// The refusal leaves no record: the trail itself cannot take one.
    pub unrecorded: bool,
}

/// What becomes of the case when its rule only warns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warned {
    /// It starts, or is refused by another rule.
    StartsOrMeetsNext,
    /// No mode can be set for it: it is not a policy decision.
    Never,
}

fn nothing(_: &mut World, _: &mut Request) -> Result<()> {
    Ok(())
}

impl Case {
    fn new(name: &'static str, rule: &'static str, says: &'static str, fault: Bend) -> Self {
        let warned = if rule.is_empty() { Warned::Never } else { Warned::StartsOrMeetsNext };
        Self {
            name,
            rule,
            code: Code::PermissionDenied,
            says,
            image: "app",
            fault,
            mend: nothing,
            between: |_, _| Ok(()),
            exec: None,
            update: None,
            warned,
            unrecorded: false,
        }
    }

    fn image(self, image: &'static str) -> Self {
        Self { image, ..self }
    }
    fn mend(self, mend: Bend) -> Self {
        Self { mend, ..self }
    }
    fn between(self, between: fn(&mut World, &Request) -> Result<()>) -> Self {
        Self { between, ..self }
    }
    fn code(self, code: Code) -> Self {
        Self { code, ..self }
    }
    fn exec(self, exec: fn(&mut Value)) -> Self {
        Self { exec: Some(exec), ..self }
    }
    fn update(self, bad: fn() -> Value, good: fn() -> Value) -> Self {
        Self { update: Some([bad, good]), ..self }
    }
    fn never_warned(self) -> Self {
        Self { warned: Warned::Never, ..self }
    }
    fn unrecorded(self) -> Self {
        Self { unrecorded: true, ..self }
    }
}

/// Those that the demo shows, and that the test node meets in its virtual machine.
pub const SHOWN: [&str; 33] = [
    "unsigned image",
    "signed by a key that nobody named",
    "the signature is of another image",
    "an attestation passed off as a signature (cosign 3)",
    "image config altered in the content store",
    "re-tagged between create and start",
    "upper folder filled beforehand",
    "registry that is not on the list",
    "an image of 1970",
    "a vulnerability worse than the policy takes (trivy, cosign 2)",
    "no bill of materials",
    "provenance of another builder (SLSA v1, cosign 3)",
    "a password and a token in the image's config",
    "an image on a base that nobody named",
    "an image with a shell",
    "an image with a setuid program",
    "privileged: every capability, every device, nothing masked",
    "root of the node",
    "host network namespace",
    "hook",
    "log program",
    "sysctl of the node",
    "a field that no version of the specification knows",
    "LD_PRELOAD that no signed config sets",
    "unconfined",
    "device of the node",
    "no owner",
    "host folder /etc",
    "/etc by a bind alias",
    "docker.sock",
    "a root file system that shares propagation with the node",
    "exec with a capability that its container has not",
    "a PCR has another value than the policy accepts",
];

/// All of them, in the order of the rules.
#[must_use]
pub fn all() -> Vec<Case> {
    let mut all = image::cases();
    all.extend(layers::cases());
    all.extend(store::cases());
    all.extend(several::cases());
    all.extend(revoked::cases());
    all.extend(notation::cases());
    all.extend(gates::cases());
    all.extend(attested::cases());
    all.extend(spec::cases());
    all.extend(signed::cases());
    all.extend(users::cases());
    all.extend(host::cases());
    all.extend(exec::cases());
    all.extend(update::cases());
    all.extend(node::cases());
    all.extend(bundle::cases());
    all.extend(ear::cases());
    all.extend(sensitivity::cases());
    all.extend(network::cases());
    all.extend(programs::cases());
    all
}

/// How one try ended.
#[derive(Debug)]
pub enum Try {
    Started,
    Refused(Status),
}

impl Case {
    /// The request with its fault.
    pub fn attempt(&self, world: &mut World) -> Result<Try> {
        self.send(world, true)
    }

    /// The twin: must start and end well.
    pub fn twin(&self, world: &mut World) -> Result<()> {
        match self.send(world, false)? {
            Try::Started => Ok(()),
            Try::Refused(status) => bail!("the twin is refused: {}", status.message()),
        }
    }

    fn send(&self, world: &mut World, faulty: bool) -> Result<Try> {
        let stays = self.exec.is_some() || self.update.is_some();
        let args: &[&str] = if stays { &["/bin/sleep", "600"] } else { &["/bin/true"] };
        let mut request = world.request(self.image, args)?;
        let bent = if faulty { (self.fault)(world, &mut request) } else { (self.mend)(world, &mut request) };
        let tried = bent.context("cannot set the case up").and_then(|()| match (self.exec, self.update) {
            (Some(bend), _) => exec(world, &request, if faulty { bend } else { |_| {} }),
            (None, Some([bad, good])) => update(world, &request, &if faulty { bad() } else { good() }),
            (None, None) => self.create(world, &request, faulty),
        });
        let removed = world.client.remove(&request);
        world.undo().context("cannot undo the case")?;
        let tried = tried?;
        removed.context("cannot remove what the case made")?;
        Ok(tried)
    }

    fn create(&self, world: &mut World, request: &Request, faulty: bool) -> Result<Try> {
        let mounts = match world.client.create_container(request) {
            Ok(mounts) => mounts,
            Err(status) => bail!("containerd did not take the container's record: {status}"),
        };
        if faulty {
            (self.between)(world, request)?;
        }
        if let Err(status) = world.client.create_task(request, mounts) {
            return Ok(Try::Refused(status));
        }
        if let Err(status) = world.client.start(&request.id, "") {
            return Ok(Try::Refused(status));
        }
        let code = world.client.wait(&request.id, "")?;
        ensure!(code == 0, "the workload ended with {code}");
        Ok(Try::Started)
    }

    /// Refused as the case says, recorded, nothing left; then the twin starts. Answers with the first line.
    pub fn check(&self, world: &mut World) -> Result<String> {
        let before = Since::now()?;
        let clean = Snapshot::take()?;
        let status = match self.attempt(world)? {
            Try::Started => bail!("it started"),
            Try::Refused(status) => status,
        };
        let line = first_line(&status);
        self.expect(world.containerd.version, &status, &line)?;
        clean.compare()?;
        let new = before.records()?;
        if self.rule.is_empty() || self.unrecorded {
            ensure!(!new.iter().any(|record| record["ev"] == "started"), "the trail says that it started: {new:?}");
            ensure!(self.unrecorded || !new.iter().any(allowed), "the trail says that it was allowed: {new:?}");
        } else {
            ensure!(
                new.iter().any(|record| denies(record, self.rule)),
                "no record of a denial by {}: {new:?}",
                self.rule
            );
        }
        self.twin(world)?;
        clean.compare().context("after the twin")?;
        Ok(line)
    }

    fn expect(&self, version: Version, status: &Status, line: &str) -> Result<()> {
        let message = status.message();
        ensure!(self.is_status(version, status), "status {:?}, not {:?}: {message}", status.code(), self.code);
        ensure!(line.chars().count() <= 200, "first line of {} characters: {line}", line.chars().count());
        ensure!(line.starts_with("boltseal: "), "first line: {line}");
        if !self.rule.is_empty() {
            ensure!(line.contains(&format!("denied by {}: ", self.rule)), "not {}: {message}", self.rule);
            ensure!(line.contains("Fix: "), "no fix: {line}");
        }
        ensure!(message.contains(self.says), "nothing about \"{}\": {message}", self.says);
        Ok(())
    }

    /// containerd 1.6 knows no PERMISSION_DENIED and hands it on as UNKNOWN.
    #[must_use]
    pub fn is_status(&self, version: Version, status: &Status) -> bool {
        let lost = version == Version::V1_6 && self.code == Code::PermissionDenied && status.code() == Code::Unknown;
        lost || status.code() == self.code
    }

    /// With its rule on `warn` it starts, or something else refuses it. Answers with what happened.
    pub fn warned(&self, world: &mut World) -> Result<String> {
        let mut policy = world.node.policy.clone();
        policy.warn(self.rule)?;
        let enforced = std::mem::replace(&mut world.node.policy, policy);
        world.node.policy.write()?;
        let before = Since::now()?;
        let tried = self.attempt(world);
        world.node.policy = enforced;
        world.node.policy.write()?;
        let new = before.records()?;
        ensure!(new.iter().any(|record| warns(record, self.rule)), "no record of a warning: {tried:?}, {new:?}");
        match tried? {
            Try::Started => Ok("starts".into()),
            Try::Refused(status) => {
                let line = first_line(&status);
                ensure!(!line.contains(&format!("denied by {}", self.rule)), "still refused: {line}");
                ensure!(line.contains("BS-") && line.contains("Fix: "), "it names no rule, or no fix: {line}");
                Ok(line)
            }
        }
    }
}

/// Runs a good container and, in it, a process that `bend` made worse.
fn exec(world: &mut World, request: &Request, bend: fn(&mut Value)) -> Result<Try> {
    world.run(request).context("the container of the exec")?;
    let mut process = template::process(&["/bin/true"]);
    bend(&mut process);
    let out = format!("file://{}", world.output_file(&format!("{}-exec", request.id)).display());
    let asked = world.client.exec(&request.id, "e1", &process, &out);
    let started = asked.and_then(|()| world.client.start(&request.id, "e1"));
    let tried = match started {
        Err(status) => Try::Refused(status),
        Ok(_) => {
            let code = world.client.wait(&request.id, "e1")?;
            ensure!(code == 0, "the exec'd process ended with {code}");
            Try::Started
        }
    };
    match world.client.delete_exec(&request.id, "e1") {
        Err(status) if status.code() != Code::NotFound => bail!("delete of the exec: {status}"),
        _ => {}
    }
    ensure!(world.client.state(&request.id)? == 2, "the container itself no longer runs");
    Ok(tried)
}

/// Runs a good container and gives it other limits.
fn update(world: &mut World, request: &Request, resources: &Value) -> Result<Try> {
    world.run(request).context("the container of the update")?;
    let tried = match world.client.update(&request.id, resources) {
        Err(status) => Try::Refused(status),
        Ok(()) => Try::Started,
    };
    ensure!(world.client.state(&request.id)? == 2, "the container itself no longer runs");
    Ok(tried)
}

/// The first line of a refusal, without what containerd puts before and behind it.
#[must_use]
pub fn first_line(status: &Status) -> String {
    let message = status.message();
    let own = message.find("boltseal: ").and_then(|at| message.get(at..)).unwrap_or(message);
    let line = own.lines().next().unwrap_or_default();
    let behind = [": unknown", ": failed precondition", ": permission denied", ": invalid argument", ": unavailable"];
    behind.iter().find_map(|name| line.strip_suffix(name)).unwrap_or(line).to_owned()
}

/// A record of the trail that denies because of `rule`.
#[must_use]
pub fn denies(record: &Value, rule: &str) -> bool {
    let found = record["findings"].as_array();
    record["decision"] == "deny"
        && found.is_some_and(|list| list.iter().any(|finding| finding["rule"] == rule && finding["outcome"] == "deny"))
}

/// A record that says of `rule` that it only warned.
#[must_use]
pub fn warns(record: &Value, rule: &str) -> bool {
    let found = record["findings"].as_array();
    found.is_some_and(|list| list.iter().any(|finding| finding["rule"] == rule && finding["outcome"] == "warn"))
}

/// A record that allows a create or an exec.
#[must_use]
pub fn allowed(record: &Value) -> bool {
    record["decision"] == "allow"
}
