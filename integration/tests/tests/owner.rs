//! Owners that the cluster proves: a service account's token, projected into the pod as kubelet does.
use crate::Report;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use stack::cri::{Cri, container, pod};
use stack::jws::{HEAD, Signer, now, unsigned};
use stack::leak::Snapshot;
use stack::node::World;
use stack::policy::{self, OWNER};
use stack::since::Since;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

const JWKS: &str = "cluster.jwks";
const SUBJECT: &str = "system:serviceaccount:demo:web";

/// What is wrong with a pod's token, and what the refusal says. The twin has a right one in its place.
type Fault = (&'static str, fn(&Cluster, &Pod) -> Result<()>, &'static str);

const FAULTS: [Fault; 12] = [
    ("no token, whatever the annotation says", |_, _| Ok(()), "no token in a volume boltseal-owner"),
    ("a token that has expired", |c, p| c.project(p, |t| t["exp"] = (now() - 1).into()), "has expired"),
    ("a token for the API server", |c, p| c.project(p, |t| t["aud"] = json!(["https://cluster.test"])), "audience"),
    ("a token of another cluster", |c, p| c.project(p, |t| t["iss"] = "https://other.test".into()), "`iss`"),
    ("a token of another pod", |c, p| c.project(p, |t| t["kubernetes.io"]["pod"]["uid"] = "b".into()), "is of pod"),
    ("a token of another namespace", |c, p| c.project(p, other_namespace), "is of namespace"),
    ("a token of another node", |c, p| c.project(p, |t| t["kubernetes.io"]["node"]["name"] = "b".into()), "is of node"),
    ("a token that names no node", |c, p| c.project(p, |t| t["kubernetes.io"]["node"] = Value::Null), "no node"),
    ("a token of an account that nobody named", |c, p| c.project(p, other_account), "matches no pattern"),
    (
        "a token that another key signed",
        |c, p| p.put(&Signer::new()?.sign(HEAD, &c.claims(p))?),
        "none of the pinned keys",
    ),
    ("a token that nobody signed", |c, p| p.put(&unsigned(&c.claims(p))), "the pod's token"),
    (
        "a token that is a link out of its volume",
        |c, p| {
            let outside = p.root().join("token");
            p.put(&c.key.sign(HEAD, &c.claims(p))?)?;
            fs::copy(p.volume().join("token"), &outside)?;
            fs::remove_file(p.volume().join("token"))?;
            Ok(symlink(outside, p.volume().join("token"))?)
        },
        "cannot be opened",
    ),
];

fn other_namespace(token: &mut Value) {
    token["kubernetes.io"]["namespace"] = "bank".into();
    token["sub"] = "system:serviceaccount:bank:web".into();
}

fn other_account(token: &mut Value) {
    token["kubernetes.io"]["serviceaccount"]["name"] = "admin".into();
    token["sub"] = "system:serviceaccount:demo:admin".into();
}

pub(crate) fn all(world: &mut World, report: &mut Report, name: &dyn Fn(&str) -> String) {
    let cluster = match Cluster::new(world) {
        Ok(cluster) => cluster,
        Err(error) => return report.check(&name("owner: a policy with a cluster's keys"), || Err(error)),
    };
    // The first pod makes what stays.
    report.check(&name("owner: a token proves who runs a pod and its containers"), || proven(world, &cluster));
    for (number, (what, fault, says)) in FAULTS.iter().enumerate() {
        report.check(&name(&format!("refused: {what}")), || {
            let clean = Snapshot::take()?;
            refused(world, &cluster, &format!("owner-{number}"), *fault, says)?;
            clean.compare()?;
            Ok(String::new())
        });
    }
    report.check(&name("owner: the policy as it was"), || {
        fs::remove_file(Path::new(policy::FOLDER).join("trust").join(JWKS))?;
        world.node.policy.write()?;
        Ok(String::new())
    });
}

/// A cluster as its tokens show it; its keys are pinned in the policy.
struct Cluster {
    key: Signer,
}

impl Cluster {
    fn new(world: &World) -> Result<Self> {
        let key = Signer::new()?;
        let file = world.node.work.join(JWKS);
        fs::write(&file, key.jwks()?)?;
        policy::trust(JWKS, &file)?;
        let mut bent = world.node.policy.clone();
        bent.set("owner.level", "pod-token")?;
        bent.set("owner.patterns", vec![toml::Value::from(SUBJECT)])?;
        for (name, value) in [("jwks", JWKS), ("issuer", "https://cluster.test"), ("audience", "boltseal")] {
            bent.set(&format!("owner.token.{name}"), value)?;
        }
        bent.write()?;
        Ok(Self { key })
    }

    /// As kube-apiserver writes them for a projected token.
    fn claims(&self, pod: &Pod) -> Value {
        let node = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        json!({
            "aud": ["boltseal"], "iss": "https://cluster.test", "sub": SUBJECT,
            "iat": now(), "nbf": now(), "exp": now() + 3607,
            "kubernetes.io": {
                "namespace": "demo",
                "node": { "name": node.trim(), "uid": "0a" },
                "pod": { "name": pod.name, "uid": pod.uid() },
                "serviceaccount": { "name": "web", "uid": "0b" },
            },
        })
    }

    fn project(&self, pod: &Pod, change: impl Fn(&mut Value)) -> Result<()> {
        let mut claims = self.claims(pod);
        change(&mut claims);
        if claims["kubernetes.io"]["node"].is_null() {
            claims["kubernetes.io"].as_object_mut().context("no claims")?.remove("node");
        }
        pod.put(&self.key.sign(HEAD, &claims)?)
    }
}

struct Pod {
    name: String,
}

impl Pod {
    fn uid(&self) -> String {
        format!("uid-of-{}", self.name)
    }

    fn root(&self) -> PathBuf {
        Path::new("/var/lib/kubelet/pods").join(self.uid())
    }

    fn volume(&self) -> PathBuf {
        self.root().join("volumes/kubernetes.io~projected/boltseal-owner")
    }

    /// As kubelet does: a dated folder, a link to it that is exchanged, a link for each file.
    fn put(&self, token: &str) -> Result<()> {
        let volume = self.volume();
        if volume.exists() {
            fs::remove_dir_all(&volume)?;
        }
        let dated = volume.join("..2026_11_30_22_00_00.1");
        fs::create_dir_all(&dated)?;
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o777))?;
        fs::write(dated.join("token"), token)?;
        symlink("..2026_11_30_22_00_00.1", volume.join("..data"))?;
        Ok(symlink("..data/token", volume.join("token"))?)
    }
}

/// Runs the pod, and with it what `work` does; it is gone afterwards.
fn run(world: &World, pod_of: &Pod, work: impl FnOnce(&Cri, &str, &Path) -> Result<()>) -> Result<()> {
    let cri = Cri::new()?;
    let logs = world.node.work.join(format!("logs-{}", pod_of.name));
    fs::create_dir_all(&logs)?;
    let id = cri.run_pod(&pod(&pod_of.name, &logs, Some(OWNER)), "boltseal").context("RunPodSandbox")?;
    let outcome = work(&cri, &id, &logs);
    cri.remove_pod(&id).context("StopPodSandbox")?;
    outcome
}

fn refused(
    world: &World,
    cluster: &Cluster,
    name: &str,
    fault: fn(&Cluster, &Pod) -> Result<()>,
    says: &str,
) -> Result<()> {
    let pod = Pod { name: name.into() };
    fault(cluster, &pod)?;
    let outcome = run(world, &pod, |_, _, _| Ok(()));
    let Err(error) = outcome else { bail!("it started") };
    let text = format!("{error:#}");
    ensure!(text.contains("BS-OWN-001") && text.contains(says) && !text.contains("(+"), "{text}");
    cluster.project(&pod, |_| {})?;
    run(world, &pod, |_, _, _| Ok(())).context("the twin")?;
    Ok(fs::remove_dir_all(pod.root())?)
}

fn proven(world: &World, cluster: &Cluster) -> Result<String> {
    let pod_of = Pod { name: "owned".into() };
    cluster.project(&pod_of, |_| {})?;
    let image = world.node.images.get("app")?.name.clone();
    let before = Since::now()?;
    run(world, &pod_of, |cri, id, logs| {
        let config = container("app", &image, &["/bin/sleep", "600"], &Default::default());
        let container = cri.create(id, &pod("owned", logs, Some(OWNER)), &config).context("CreateContainer")?;
        cri.start(&container).context("StartContainer")
    })?;
    fs::remove_dir_all(pod_of.root())?;
    let records = before.records()?;
    let started: Vec<&Value> = records.iter().filter(|r| r["ev"] == "started").collect();
    ensure!(started.len() == 2 && started.iter().all(|r| r["who"]["owner"] == SUBJECT), "{started:?}");
    Ok(format!("{SUBJECT}, sandbox and container"))
}
