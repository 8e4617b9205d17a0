//! Owners' grants on pods as kubelet asks for them: whose keys the policy pins, an honest grant, and what can be wrong with one.
use crate::cri::{Cri, container, pod, v1};
use crate::jws::{Signer, now, unsigned};
use crate::node::World;
use crate::policy::{self, OWNER};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::fs;

/// File of the trust folder with the people's keys.
pub const JWKS: &str = "people.jwks";
const ANNOTATION: &str = "boltseal.dev/owner-grant";
/// Who is granted what here.
pub const SUBJECT: &str = "ann@example.com";
const HEAD: &str = r#"{"alg":"ES256","typ":"boltseal-grant+jwt"}"#;
const COMMAND: [&str; 2] = ["/bin/sleep", "600"];

/// What is wrong with a pod's grant, or with the pod; the rule and the words of the refusal.
pub type Fault = (&'static str, fn(&People, &mut Pod) -> Result<()>, &'static str, &'static str);

const OWN: &str = "BS-OWN-001";

/// Each is refused; the same pod with an honest grant starts.
pub const FAULTS: [Fault; 19] = [
    ("no grant, whatever the annotation says", |_, p| p.carry(None), OWN, "no annotation boltseal.dev/owner-grant"),
    (
        "a grant for another namespace",
        |w, p| w.with(p, |c| granted(c)["namespaces"] = json!(["bank"])),
        OWN,
        "for namespace bank",
    ),
    ("a grant for another pod", |w, p| w.with(p, |c| granted(c)["pods"] = json!(["db-*"])), OWN, "for pods db-*"),
    (
        "a grant for another image",
        |w, p| w.with(p, |c| first(c)["images"] = json!([digest('a')])),
        OWN,
        "for other images",
    ),
    (
        "a grant for another container",
        |w, p| w.with(p, |c| first(c)["name"] = "other".into()),
        OWN,
        "names no container",
    ),
    ("a grant that has expired", |w, p| w.with(p, |c| c["exp"] = (now() - 1).into()), OWN, "has expired"),
    ("a grant that is not valid yet", |w, p| w.with(p, |c| c["nbf"] = (now() + 3600).into()), OWN, "not valid yet"),
    ("a grant that lives for years", |w, p| w.with(p, |c| c["exp"] = (now() + 400 * 86_400).into()), OWN, "max_days"),
    (
        "a grant for another cluster",
        |w, p| w.with(p, |c| c["aud"] = json!(["boltseal:test"])),
        OWN,
        "owner.grant.audiences",
    ),
    ("a grant of another issuer", |w, p| w.with(p, |c| c["iss"] = "https://other.test".into()), OWN, "`iss`"),
    ("a grant of somebody else", |w, p| w.with(p, |c| c["sub"] = "eve@evil.test".into()), OWN, "does not speak for"),
    ("a grant without a second factor", |w, p| w.with(p, |c| c["amr"] = json!(["pwd"])), OWN, "`amr`"),
    (
        "a grant by a key that is no more in the set",
        |w, p| p.carry(Some(Signer::new()?.sign(HEAD, &w.claims(p))?)),
        OWN,
        "none of the pinned keys",
    ),
    ("a grant that nobody signed", |w, p| p.carry(Some(unsigned(&w.claims(p)))), OWN, "the pod's grant"),
    (
        "a token of another kind by the same key",
        |w, p| p.carry(Some(w.key.sign(r#"{"alg":"ES256","typ":"JWT"}"#, &w.claims(p))?)),
        OWN,
        "another kind",
    ),
    (
        "a grant with bytes behind it",
        |w, p| p.carry(Some(format!("{}.e30", w.key.sign(HEAD, &w.claims(p))?))),
        OWN,
        "three parts",
    ),
    (
        "an envelope that is none",
        |_, p| p.carry(Some(r#"{"payload":"e30=","payload":"e30=","payloadType":"t","signatures":[]}"#.into())),
        OWN,
        "twice",
    ),
    (
        "a command that the grant does not have",
        |w, p| w.with(p, |c| first(c)["command"] = json!(["/bin/sleep", "601"])),
        "BS-PRC-009",
        "another command than the signed one",
    ),
    (
        "a value that the grant does not have",
        |w, p| {
            w.with(p, |_| {})?;
            p.mode = "other";
            Ok(())
        },
        "BS-PRC-009",
        "MODE",
    ),
];

fn granted(claims: &mut Value) -> &mut Value {
    &mut claims["boltseal.dev/grant"]
}

fn first(claims: &mut Value) -> &mut Value {
    &mut granted(claims)["containers"][0]
}

fn digest(digit: char) -> String {
    format!("sha256:{}", digit.to_string().repeat(64))
}

/// Who signs grants here; their keys are pinned in the policy.
#[derive(Debug)]
pub struct People {
    key: Signer,
    pub image: String,
    manifest: String,
}

/// The node's policy, asking every pod for a grant by the people's keys.
pub fn bent(world: &World) -> Result<policy::Policy> {
    let mut bent = world.node.policy.clone();
    bent.set("owner.level", "grant")?;
    bent.set("owner.patterns", vec![toml::Value::from("*")])?;
    bent.enforce("BS-PRC-009")?;
    let rules: toml::Table = toml::from_str(&format!(
        r#"
audiences = ["boltseal:here"]
[[authority]]
name = "people"
jwks = "{JWKS}"
issuer = "https://idp.test"
identities = ["*@example.com"]
namespaces = ["demo"]
amr = ["mfa"]
"#
    ))?;
    bent.set("owner.grant", rules)?;
    Ok(bent)
}

impl People {
    /// Pins their keys and writes the policy that asks for their grants.
    pub fn new(world: &World) -> Result<Self> {
        let key = Signer::new()?;
        let file = world.node.work.join(JWKS);
        fs::write(&file, key.jwks()?)?;
        policy::trust(JWKS, &file)?;
        bent(world)?.write()?;
        let image = world.node.images.get("app")?;
        Ok(Self { key, image: image.name.clone(), manifest: image.manifest.clone() })
    }

    fn claims(&self, pod: &Pod) -> Value {
        let mode = ring::digest::digest(&ring::digest::SHA256, b"prod");
        let hex: String = mode.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        json!({
            "iss": "https://idp.test", "sub": SUBJECT, "aud": ["boltseal:here"], "amr": ["pwd", "mfa"],
            "nbf": now(), "exp": now() + 3600,
            "boltseal.dev/grant": {
                "version": 1, "namespaces": ["demo"], "pods": [pod.name],
                "containers": [{
                    "name": "app", "images": [self.manifest], "command": COMMAND,
                    "env": { "MODE": format!("sha256:{hex}"), "ANYTHING": "any" },
                }],
            },
        })
    }

    /// The pod carries an honest grant, but for the change.
    pub fn with(&self, pod: &mut Pod, change: impl Fn(&mut Value)) -> Result<()> {
        let mut claims = self.claims(pod);
        change(&mut claims);
        pod.carry(Some(self.key.sign(HEAD, &claims)?))
    }
}

/// A pod of one container.
#[derive(Debug)]
pub struct Pod {
    pub name: String,
    pub grant: Option<String>,
    /// Value of the variable MODE.
    pub mode: &'static str,
}

impl Pod {
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), grant: None, mode: "prod" }
    }

    fn carry(&mut self, grant: Option<String>) -> Result<()> {
        self.grant = grant;
        Ok(())
    }
}

/// Runs the pod and its container; both are gone afterwards.
pub fn run(world: &World, image: &str, of: &Pod, change: impl Fn(&mut v1::PodSandboxConfig)) -> Result<()> {
    let cri = Cri::new()?;
    let logs = world.node.work.join(format!("logs-{}", of.name));
    fs::create_dir_all(&logs)?;
    let mut config = pod(&of.name, &logs, Some(OWNER));
    config.annotations.extend(of.grant.iter().map(|grant| (ANNOTATION.to_owned(), grant.clone())));
    change(&mut config);
    let id = cri.run_pod(&config, "boltseal").context("RunPodSandbox")?;
    let mut app = container("app", image, &COMMAND, &Default::default());
    app.envs = [("MODE", of.mode), ("ANYTHING", "at all")]
        .map(|(key, value)| v1::KeyValue { key: key.into(), value: value.into() })
        .into();
    let outcome = cri
        .create(&id, &config, &app)
        .context("CreateContainer")
        .and_then(|container| cri.start(&container).context("StartContainer"));
    cri.remove_pod(&id).context("StopPodSandbox")?;
    outcome
}

/// A pod with this fault is refused, and its twin starts. The first line of the refusal.
pub fn refused(world: &World, people: &People, name: &str, of: &Fault) -> Result<String> {
    let (_, fault, rule, says) = of;
    let mut pod = Pod::new(name);
    fault(people, &mut pod)?;
    let Err(error) = run(world, &people.image, &pod, |_| {}) else { bail!("it started") };
    let text = format!("{error:#}");
    // A container's grant that does not hold covers nothing either: what it would have is then refused beside it.
    let alone = !text.contains("(+") || *rule == OWN && text.contains("BS-PRC-009");
    ensure!(text.contains(rule) && text.contains(says) && alone, "{text}");
    pod.mode = "prod";
    people.with(&mut pod, |_| {})?;
    run(world, &people.image, &pod, |_| {}).context("the twin")?;
    let line = text.find("boltseal: denied").and_then(|at| text.get(at..)?.lines().next()).context("no denial")?;
    Ok(line.to_owned())
}
