//! Signatures come with the pull: containerd's image verifier brings them, and the start decides. On containerd 2.1, which
//! alone has verifiers; each image's twin differs in its signature alone.
use crate::Report;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use stack::cri::Cri;
use stack::node::{NAMESPACE, SIGNATURES, World};
use stack::process::{Said, output, run};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the tests' containerd looks for verifiers; for all other tests it is not there.
const VERIFIERS: &str = stack::containerd::VERIFIERS;
const CONFIG: &str = "/etc/boltseal/fetch.toml";
const PLAIN: &str = "plain_http = [\"127.0.0.1:5000\"]\n";

pub(crate) fn all(world: &mut World, report: &mut Report, name: &dyn Fn(&str) -> String) {
    let mut check = |what: &str, run: fn(&mut World) -> Result<String>| report.clean(&name(what), world, run);
    check("fetch: a pull brings cosign 2's signature, and the image starts", |world| brought(world, "app"));
    check("fetch: a pull brings cosign 3's bundle, and the image starts", |world| brought(world, "app3"));
    check("fetch: a pull of an unsigned image brings nothing, and its start is refused", unsigned);
    check("fetch: with require a pull of what no authority signed is refused", required);
    check("fetch: CRI: a pull brings the signature, and one past the verifier does not", by_cri);
    check("fetch: gc removes what is gone, and nothing where containerd does not answer", collected);
    check("fetch: doctor names the way around the verifier", doctor);
}

/// boltseal-fetch as the node's only verifier, told this.
fn install(world: &mut World, config: &str) -> Result<()> {
    fs::create_dir_all(VERIFIERS)?;
    world.undo_later(|_| {
        fs::remove_dir_all(VERIFIERS)?;
        fs::remove_file(CONFIG).context(CONFIG)
    });
    symlink("/usr/local/bin/boltseal-fetch", Path::new(VERIFIERS).join("boltseal-fetch"))?;
    fs::write(CONFIG, format!("{PLAIN}{config}"))?;
    Ok(())
}

/// The image's folder in the store, put aside; it comes back afterwards, whatever was fetched meanwhile.
fn aside(world: &mut World, image: &str) -> Result<PathBuf> {
    let folder = Path::new(SIGNATURES).join(world.node.images.get(image)?.hex());
    let kept = world.node.work.join("aside");
    let had = folder.exists();
    if had {
        run(Command::new("mv").arg(&folder).arg(&kept))?;
    }
    let back = folder.clone();
    world.undo_later(move |_| {
        if back.exists() {
            fs::remove_dir_all(&back)?;
        }
        if had {
            run(Command::new("mv").arg(&kept).arg(&back))?;
        }
        Ok(())
    });
    Ok(folder)
}

fn pull(world: &World, image: &str, more: &[&str]) -> Result<Said> {
    let name = &world.node.images.get(image)?.name;
    output(world.containerd.ctr(NAMESPACE).args(["images", "pull", "--plain-http"]).args(more).arg(name))
}

fn files(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

fn starts(world: &mut World, image: &str) -> Result<()> {
    let request = world.request(image, &["/bin/true"])?;
    let ended = world.complete(&request)?;
    ensure!(ended.status == 0, "{ended:?}");
    Ok(())
}

fn refused(world: &mut World, image: &str) -> Result<()> {
    let request = world.request(image, &["/bin/true"])?;
    let tried = world.complete(&request);
    world.client.remove(&request).map_err(|status| anyhow::anyhow!("{status}"))?;
    match tried {
        Err(status) if status.message().contains("BS-IMG-001") => Ok(()),
        Err(status) => bail!("{status}"),
        Ok(ended) => bail!("it started: {ended:?}"),
    }
}

fn brought(world: &mut World, image: &str) -> Result<String> {
    let folder = aside(world, image)?;
    install(world, "require = true\n")?;
    refused(world, image).context("without its signature")?;
    let said = pull(world, image, &[])?;
    ensure!(said.ok(), "{}", said.stderr);
    ensure!(files(&folder) == 1, "{} files", files(&folder));
    starts(world, image)?;
    Ok(String::new())
}

fn unsigned(world: &mut World) -> Result<String> {
    let folder = aside(world, "unsigned")?;
    install(world, "")?;
    let said = pull(world, "unsigned", &[])?;
    ensure!(said.ok(), "{}", said.stderr);
    ensure!(files(&folder) == 0, "{} files", files(&folder));
    refused(world, "unsigned")?;
    Ok(String::new())
}

fn required(world: &mut World) -> Result<String> {
    install(world, "require = true\n")?;
    for image in ["unsigned", "wrongkey", "attested3"] {
        let said = pull(world, image, &[])?;
        let why = "none is by an authority of the policy (require = true)";
        ensure!(!said.ok() && said.stderr.contains(why), "{image}: {}", said.stderr);
    }
    let said = pull(world, "app", &[])?;
    ensure!(said.ok(), "the twin: {}", said.stderr);
    Ok(String::new())
}

fn by_cri(world: &mut World) -> Result<String> {
    let folder = aside(world, "app")?;
    install(world, "require = true\n")?;
    let name = world.node.images.get("app")?.name.clone();
    let past = pull(world, "app", &["--local"])?;
    ensure!(past.ok() && files(&folder) == 0, "{} files after a local pull: {}", files(&folder), past.stderr);
    Cri::new()?.pull(&name)?;
    ensure!(files(&folder) == 1, "{} files", files(&folder));
    let unsigned = world.node.images.get("unsigned")?.name.clone();
    match Cri::new()?.pull(&unsigned) {
        Err(status) => ensure!(status.message().contains("require = true"), "{status}"),
        Ok(_) => bail!("the CRI pulls what the verifier refuses"),
    }
    starts(world, "app")?;
    Ok(String::new())
}

fn collected(world: &mut World) -> Result<String> {
    let app = Path::new(SIGNATURES).join(world.node.images.get("app")?.hex());
    let gone = Path::new(SIGNATURES).join("ab".repeat(32));
    let young = Path::new(SIGNATURES).join("cd".repeat(32));
    world.undo_later({
        let young = young.clone();
        move |_| fs::remove_dir_all(young).map_err(Into::into)
    });
    for folder in [&gone, &young] {
        fs::create_dir(folder)?;
        fs::write(folder.join("x.sig.json"), "{}")?;
    }
    // Sealed layers that no statement names: one of long ago, one that was just brought.
    let layers = Path::new("/var/lib/boltseal/verity/sha256");
    run(Command::new("install").args(["-d", "-m", "0700", "/var/lib/boltseal/verity"]).arg(layers))?;
    world.undo_later(|_| fs::remove_dir_all("/var/lib/boltseal/verity").map_err(Into::into));
    let (old, new) = (layers.join("ab".repeat(32)), layers.join("cd".repeat(32)));
    for layer in [&old, &new] {
        fs::write(layer, "x")?;
    }
    for path in [&gone.join("x.sig.json"), &gone, &app, &old] {
        run(Command::new("touch").args(["-d", "30 days ago"]).arg(path))?;
    }
    let gc = |more: &[&str]| output(Command::new("boltseal").args(["sig", "gc"]).args(more));
    let said = gc(&["--address", "/run/containerd/no.sock"])?;
    ensure!(
        !said.ok() && said.stderr.contains("nothing is removed") && gone.exists() && old.exists(),
        "{}",
        said.stderr
    );
    let said = gc(&["--dry-run"])?;
    ensure!(
        said.ok() && gone.exists() && old.exists() && said.stdout.contains("would go"),
        "{}{}",
        said.stdout,
        said.stderr
    );
    ensure!(said.stdout.contains("1 sealed layer would go"), "{}", said.stdout);
    let said = gc(&[])?;
    ensure!(said.ok(), "{}{}", said.stdout, said.stderr);
    ensure!(!gone.exists() && young.exists() && app.exists() && !old.exists() && new.exists(), "{}", said.stdout);
    let said = output(Command::new("boltseal").args(["sig", "list", "-o", "json"]))?;
    let list: Value = serde_json::from_str(&said.stdout)?;
    ensure!(list["images"].as_array().is_some_and(|list| list.len() > 3), "{list}");
    Ok(String::new())
}

fn doctor(world: &mut World) -> Result<String> {
    let said = || -> Result<(String, String)> {
        let said = output(Command::new("boltseal").args(["doctor", "-o", "json"]))?;
        let checks: Vec<Value> = serde_json::from_str(&said.stdout)?;
        let check = checks.iter().find(|check| check["name"] == "verifier").context("no such check")?;
        Ok((check["state"].to_string(), check["fact"].to_string()))
    };
    let (state, fact) = said()?;
    ensure!(state == "\"warn\"" && fact.contains("every image passes"), "{state} {fact}");
    install(world, "")?;
    let (state, fact) = said()?;
    ensure!(state == "\"ok\"", "{state} {fact}");
    Ok(fact)
}
