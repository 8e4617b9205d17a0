//! Hooks that an allowance grants: they run, and what runs is what was judged.
use crate::Report;
use anyhow::{Context, Result, ensure};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use stack::leak::Snapshot;
use stack::node::World;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const FOLDER: &str = "/var/lib/hooks";
const STAGES: [&str; 3] = ["prestart", "createRuntime", "createContainer"];

pub(crate) fn all(world: &mut World, report: &mut Report, name: &dyn Fn(&str) -> String) {
    let mut check = |what: &str, run: fn(&mut World) -> Result<String>| {
        report.check(&name(what), || {
            fs::create_dir_all(FOLDER)?;
            let clean = Snapshot::take()?;
            let said = run(world);
            world.node.policy.write()?;
            fs::remove_dir_all(FOLDER)?;
            let said = said?;
            clean.compare()?;
            Ok(said)
        });
    };
    check("granted hooks run, with their own arguments and an empty environment", granted);
    check("a hook that is swapped after it was judged: the judged one runs", swapped);
    check("a hook at a stage that would never run is refused", never_run);
}

/// A script that is a hook, with the text that it is granted by.
struct Hook {
    stage: &'static str,
    path: String,
    digest: String,
}

impl Hook {
    fn make(stage: &'static str, name: &str, script: &str) -> Result<Self> {
        let path = format!("{FOLDER}/{name}");
        let text = format!("#!/bin/sh\n{script}\n");
        fs::write(&path, &text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        let digest: String = digest(&SHA256, text.as_bytes()).as_ref().iter().map(|b| format!("{b:02x}")).collect();
        Ok(Self { stage, path, digest })
    }

    fn spec(&self) -> Value {
        json!({ "path": self.path, "args": ["hook", self.stage] })
    }
}

/// Starts a container with these hooks, all of them granted.
fn start(world: &mut World, hooks: &[Hook]) -> Result<()> {
    grant(world, hooks)?;
    ask(world, hooks)
}

fn grant(world: &World, hooks: &[Hook]) -> Result<()> {
    let mut text =
        format!("id = \"hooks\"\nauthority = \"ci\"\nrepository = \"{}/demo\"\nhooks = [\n", stack::registry::ADDRESS);
    for hook in hooks {
        text.push_str(&format!(
            "{{ stage = \"{0}\", path = \"{1}\", digest = \"sha256:{2}\", args = [\"hook\", \"{0}\"] }},\n",
            hook.stage, hook.path, hook.digest
        ));
    }
    let mut policy = world.node.policy.clone();
    policy.push("allowance", toml::from_str(&format!("{text}]\n"))?)?;
    policy.write()
}

fn ask(world: &mut World, hooks: &[Hook]) -> Result<()> {
    let mut request = world.request("app", &["/bin/true"])?;
    for hook in hooks {
        let list = &mut request.spec["hooks"][hook.stage];
        match list.as_array_mut() {
            Some(list) => list.push(hook.spec()),
            None => *list = json!([hook.spec()]),
        }
    }
    let ended = world.complete(&request)?;
    ensure!(ended.status == 0, "{ended:?}");
    Ok(())
}

fn read(name: &str) -> Result<String> {
    fs::read_to_string(Path::new(FOLDER).join(name)).context(name.to_owned())
}

fn granted(world: &mut World) -> Result<String> {
    let script = format!("echo \"$1 $(cat) $(env)\" >>{FOLDER}/said");
    let hooks: Vec<Hook> = STAGES.iter().map(|stage| Hook::make(stage, stage, &script)).collect::<Result<_>>()?;
    start(world, &hooks)?;
    let said = read("said")?;
    for stage in STAGES {
        ensure!(said.contains(&format!("{stage} {{")), "{stage} did not run, or got no state: {said}");
    }
    ensure!(!said.contains("HOME=") && !said.contains("LD_"), "an environment came through: {said}");
    Ok(String::new())
}

/// The first hook puts another file in the place of those that come after it.
fn swapped(world: &mut World) -> Result<String> {
    let swap = format!(
        "for f in createRuntime createContainer; do\n\
         printf '#!/bin/sh\\necho evil >>{FOLDER}/said\\n' >{FOLDER}/evil; chmod 755 {FOLDER}/evil\n\
         mv {FOLDER}/evil {FOLDER}/$f; done"
    );
    let mut hooks = vec![Hook::make("prestart", "prestart", &swap)?];
    for stage in ["createRuntime", "createContainer"] {
        hooks.push(Hook::make(stage, stage, &format!("echo good >>{FOLDER}/said"))?);
    }
    start(world, &hooks)?;
    ensure!(read("createRuntime")?.contains("evil"), "the first hook swapped nothing");
    ensure!(read("said")? == "good\ngood\n", "{}", read("said")?);
    // The next start judges the new file.
    let refused = start(world, &hooks[1..]).err().context("the swapped hook is granted")?;
    ensure!(refused.to_string().contains("BS-PRC-005"), "{refused:#}");
    Ok(String::new())
}

fn never_run(world: &mut World) -> Result<String> {
    for stage in ["startContainer", "poststart", "poststop"] {
        let hook = Hook::make(stage, stage, "true")?;
        let refused = ask(world, &[hook]).err().with_context(|| format!("a {stage} hook is taken and never run"))?;
        let text = refused.to_string();
        ensure!(text.contains("BS-PRC-005") && text.contains("never run here"), "{text}");
    }
    Ok(String::new())
}
