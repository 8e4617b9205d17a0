//! Grants of owners, on pods as kubelet asks for them: each that is refused has a twin with an honest one, which starts.
use crate::Report;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use stack::granted::{FAULTS, JWKS, People, Pod, SUBJECT, bent, refused, run};
use stack::leak::Snapshot;
use stack::node::World;
use stack::policy;
use stack::process;
use stack::since::Since;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

pub(crate) fn all(world: &mut World, report: &mut Report, name: &dyn Fn(&str) -> String) {
    let people = match People::new(world) {
        Ok(people) => people,
        Err(error) => return report.check(&name("grants: a policy with people's keys"), || Err(error)),
    };
    report
        .check(&name("grants: an owner's grant covers what runs, and the trail names her"), || proven(world, &people));
    for (number, fault) in FAULTS.iter().enumerate() {
        report.check(&name(&format!("refused: {}", fault.0)), || {
            let clean = Snapshot::take()?;
            refused(world, &people, &format!("web-{number}"), fault)?;
            clean.compare()?;
            Ok(String::new())
        });
    }
    report.check(&name("grants: a system pod needs none"), || system(world));
    report
        .check(&name("grants: from a manifest by the command line, as a token and as an envelope"), || by_hand(world));
    report
        .check(&name("break-glass: two of three keys let a pod without a grant start; one does not"), || glass(world));
    report.check(&name("grants: the policy as it was"), || {
        let trust = Path::new(policy::FOLDER).join("trust");
        for file in [JWKS, "cli.pub", "glass-0.pub", "glass-1.pub", "glass-2.pub"] {
            fs::remove_file(trust.join(file))?;
        }
        world.node.policy.write()?;
        Ok(String::new())
    });
}

fn proven(world: &World, people: &People) -> Result<String> {
    let mut pod = Pod::new("granted");
    people.with(&mut pod, |_| {})?;
    let before = Since::now()?;
    run(world, &people.image, &pod, |_| {})?;
    let records = before.records()?;
    let of = |ev: &str| records.iter().filter(|r| r["ev"] == ev).cloned().collect::<Vec<Value>>();
    let started = of("started");
    ensure!(started.len() == 2 && started.iter().all(|r| r["who"]["owner"] == SUBJECT), "{started:?}");
    let decided = of("decision");
    let covered = decided.iter().flat_map(|r| r["findings"].as_array().into_iter().flatten());
    let covered: Vec<&str> = covered
        .filter(|f| f["rule"] == "BS-PRC-009" && f["outcome"] == "allowed")
        .filter_map(|f| f["condition"].as_str())
        .collect();
    ensure!(covered == ["command", "env"], "{covered:?}");
    Ok(format!("{SUBJECT}, sandbox and container; command and environment by the grant"))
}

/// A pod of a listed namespace with a listed image has the policy's owner; in another namespace it is refused.
fn system(world: &World) -> Result<String> {
    let image = world.node.images.get("app")?;
    let mut policy = bent(world)?;
    policy.warn("BS-PRC-009")?;
    let listed: toml::Table = toml::from_str(&format!(
        "id = \"agent\"\nowner = \"platform@example.com\"\nnamespace = \"demo-system\"\nauthority = \"ci\"\nrepository = \"{}\"\n",
        image.repository
    ))?;
    policy.set("owner.system", vec![toml::Value::Table(listed)])?;
    policy.write()?;
    let pod = Pod::new("agent");
    let Err(error) = run(world, &image.name, &pod, |_| {}) else { bail!("it started in another namespace") };
    ensure!(format!("{error:#}").contains("no annotation boltseal.dev/owner-grant"), "{error:#}");
    let before = Since::now()?;
    run(world, &image.name, &pod, |config| {
        if let Some(metadata) = &mut config.metadata {
            metadata.namespace = "demo-system".into();
        }
    })
    .context("the twin")?;
    let records = before.records()?;
    let mut decided = records.iter().filter(|r| r["ev"] == "decision");
    let named = |r: &Value| r["who"]["owner"] == "platform@example.com" && r.to_string().contains("system agent");
    ensure!(decided.all(named), "{records:?}");
    Ok("owner platform@example.com, by the policy's list".into())
}

/// A fresh P-256 key as openssl makes it: the private file, and the public one in the policy's trust folder.
fn key(world: &World, name: &str) -> Result<std::path::PathBuf> {
    let (private, public) = (world.node.work.join(format!("{name}.key")), world.node.work.join(format!("{name}.pub")));
    let kind = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"];
    process::run(Command::new("openssl").args(kind).arg(&private))?;
    process::run(Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&private).arg("-out").arg(&public))?;
    policy::trust(&format!("{name}.pub"), &public)?;
    Ok(private)
}

/// stdout of `boltseal grant`, into a file; the exit code must be this one.
fn grant(world: &World, code: i32, args: &[&str], into: &str) -> Result<String> {
    let said = Command::new("boltseal").arg("grant").args(args).current_dir(&world.node.work).output()?;
    let errors = String::from_utf8_lossy(&said.stderr).into_owned();
    ensure!(said.status.code() == Some(code), "boltseal grant {args:?}: {:?}: {errors}", said.status);
    fs::write(world.node.work.join(into), &said.stdout)?;
    Ok(if code == 0 { String::from_utf8(said.stdout)? } else { errors })
}

fn by_hand(world: &World) -> Result<String> {
    key(world, "cli")?;
    let mut bent = bent(world)?;
    let rules: toml::Table = toml::from_str(
        r#"
audiences = ["boltseal:here"]
[[authority]]
name = "cli"
key = "cli.pub"
issuer = "the-owner"
identities = ["*"]
namespaces = ["demo"]
"#,
    )?;
    bent.set("owner.grant", rules)?;
    bent.write()?;
    let image = world.node.images.get("app")?;
    let manifest = format!(
        "kind: Pod\nmetadata: {{ name: by-hand, namespace: demo }}\nspec:\n  containers:\n    - name: app\n      image: {}\n      \
         command: [\"/bin/sleep\", \"600\"]\n      env:\n        - {{ name: MODE, value: prod }}\n        \
         - {{ name: ANYTHING, valueFrom: {{ secretKeyRef: {{ name: s, key: k }} }} }}\n",
        image.name
    );
    fs::write(world.node.work.join("pod.yaml"), manifest)?;
    let digest = format!("{}={}", image.name, image.manifest);
    let ask = [
        "generate",
        "-f",
        "pod.yaml",
        "--issuer",
        "the-owner",
        "--subject",
        SUBJECT,
        "--audience",
        "boltseal:here",
        "--image",
        &digest,
    ];
    let told = grant(world, 1, &ask, "claims")?;
    ensure!(told.contains("ANYTHING comes from secretKeyRef: any value is granted"), "{told}");
    for form in [&["sign", "claims", "--key", "cli.key"][..], &["sign", "claims", "--key", "cli.key", "--envelope"]] {
        let made = grant(world, 0, form, "grant")?;
        let shown = grant(world, 0, &["verify", "grant"], "shown")?;
        ensure!(shown.contains(SUBJECT) && shown.contains(&image.manifest), "{shown}");
        let mut pod = Pod { name: "by-hand".into(), grant: Some(made.trim_end().into()), mode: "prod" };
        run(world, &image.name, &pod, |_| {})?;
        pod.mode = "test";
        let Err(error) = run(world, &image.name, &pod, |_| {}) else { bail!("another value started") };
        ensure!(format!("{error:#}").contains("MODE"), "{error:#}");
    }
    Ok("what it could not resolve is told; another value is refused".into())
}

fn glass(world: &World) -> Result<String> {
    let mut policy = bent(world)?;
    let keys: Vec<String> = (0..3).map(|n| format!("glass-{n}")).collect();
    for name in &keys {
        key(world, name)?;
    }
    let files: Vec<toml::Value> = keys.iter().map(|name| format!("{name}.pub").into()).collect();
    policy.set("break_glass.keys", files)?;
    policy.write()?;
    let trust = Path::new(policy::FOLDER).join("trust").join(policy::NODE_KEY);
    let node = boltseal_trust::Key::from_spki_pem(&fs::read_to_string(trust)?).map_err(|e| anyhow::anyhow!("{e}"))?;
    let image = world.node.images.get("app")?.name.clone();
    let pod = Pod::new("glass");
    let refused = |says: &str| -> Result<String> {
        let Err(error) = run(world, &image, &pod, |_| {}) else { bail!("it started") };
        let text = format!("{error:#}");
        ensure!(text.contains("BS-OWN-001") && text.contains(says), "{text}");
        Ok(text)
    };
    ensure!(!refused("no annotation")?.contains("break-glass"), "before there is any");
    let ask = |rules: &[&str]| -> Result<()> {
        let mut args = vec!["request", "--node", node.id(), "--reason", "the owner's key is lost", "--hours", "1"];
        rules.iter().for_each(|rule| args.extend(["--rule", rule]));
        grant(world, 0, &args, "request").map(drop)
    };
    let sign = |from: &str, by: usize, into: &str| {
        grant(world, 0, &["sign", from, "--break-glass", "--key", &format!("glass-{by}.key")], into).map(drop)
    };
    ask(&["BS-OWN-001=no-grant", "BS-PRC-009=command", "BS-PRC-009=env"])?;
    let never = ["request", "--node", node.id(), "--reason", "x", "--rule", "BS-PRC-001=unavailable"];
    ensure!(grant(world, 2, &never, "never")?.contains("nobody lets that through"), "the base filter");
    sign("request", 0, "once")?;
    ensure!(grant(world, 1, &["install", "once"], "x")?.contains("1 of 2 keys"), "one key is enough");
    sign("once", 0, "same")?;
    ensure!(grant(world, 1, &["install", "same"], "x")?.contains("1 of 2 keys"), "one key counts twice");
    // Whoever is root may put it there himself: it still counts for nothing.
    let folder = Path::new("/var/lib/boltseal/break-glass");
    fs::DirBuilder::new().mode(0o700).create(folder)?;
    let place = |from: &str| -> Result<()> {
        fs::copy(world.node.work.join(from), folder.join("by-hand.json"))?;
        Ok(fs::set_permissions(folder.join("by-hand.json"), fs::Permissions::from_mode(0o600))?)
    };
    place("same")?;
    refused("no annotation")?;
    fs::remove_file(folder.join("by-hand.json"))?;
    sign("once", 2, "twice")?;
    grant(world, 0, &["install", "twice"], "x")?;
    let before = Since::now()?;
    run(world, &image, &pod, |_| {}).context("with two keys")?;
    let records = before.records()?;
    let shows = |r: &&Value| r["break_glass"].to_string().contains("the owner's key is lost");
    let decided: Vec<&Value> = records.iter().filter(|r| r["ev"] == "decision" || r["ev"] == "started").collect();
    ensure!(decided.len() == 4 && decided.iter().all(shows), "{decided:?}");
    ensure!(decided[0].to_string().contains("excepted"), "{:?}", decided[0]);
    let listed = process::run(Command::new("boltseal").args(["audit", "list", "--since", "1m"]))?;
    ensure!(listed.contains("[break-glass "), "{listed}");
    let doctor = Command::new("boltseal").arg("doctor").output()?;
    ensure!(String::from_utf8_lossy(&doctor.stdout).contains("in force for BS-OWN-001, BS-PRC-009"), "{doctor:?}");
    // What it does not list is refused, and the refusal shows that something is in force.
    let foreign = Pod { name: "glass".into(), grant: Some("a.b.c".into()), mode: "prod" };
    let Err(error) = run(world, &image, &foreign, |_| {}) else { bail!("a false grant started") };
    ensure!(format!("{error:#}").contains("break-glass "), "{error:#}");
    fs::remove_dir_all(folder)?;
    refused("no annotation")?;
    Ok("shown in decisions, starts, a refusal, audit list and doctor".into())
}
