//! A list of programs (BS-PRC-005) while a container runs: the whole way from the policy's words to the kernel's answer, by init,
//! its children and an exec. `runtime/launch` tries the ways around it.
use crate::Report;
use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use stack::cases::list;
use stack::client::Request;
use stack::node::World;
use stack::since::Since;
use stack::spec;
use std::fs;

/// Two programs that are the same but for their file, and a script of the second.
const TRY: &str = "for p in /bin/busybox /bin/busybox.other; do $p echo ran $p; done 2>&1";

pub(crate) fn all(world: &mut World, report: &mut Report, name: &dyn Fn(&str) -> String) {
    let mut check = |what: &str, run: fn(&mut World) -> Result<String>| report.clean(&name(what), world, run);
    check("programs: only what the scope lists runs, and that does", only_listed);
    check("programs: an exec is confined as its container", by_exec);
    check("programs: a listed path that is not in the image is refused by name", not_there);
    check("programs: a volume says nothing about what is listed", from_a_volume);
}

fn only_listed(world: &mut World) -> Result<String> {
    let both = said(world, |_| {})?;
    ensure!(both == ["ran /bin/busybox", "ran /bin/busybox.other"], "{both:?}");
    list(world, &["/bin/sh", "-/lib/ld-linux-aarch64.so.1"])?;
    let records = Since::now()?;
    one_ran(&said(world, |_| {})?)?;
    let new = records.records()?;
    ensure!(new.iter().any(sealed), "no record of the list: {new:?}");
    list(world, &["/bin/sh", "/bin/busybox.other"])?;
    ensure!(said(world, |_| {})? == both, "what is listed does not run");
    Ok(String::new())
}

fn by_exec(world: &mut World) -> Result<String> {
    list(world, &["/bin/sleep", "/bin/sh"])?;
    let request = world.request("tools", &["/bin/sleep", "600"])?;
    world.run(&request)?;
    let undo = request.clone();
    world.undo_later(move |world| world.client.remove(&undo).map(drop).map_err(|s| anyhow::anyhow!("{s}")));
    // The policy opens more by now; the container stays what it was sealed to.
    for (id, programs) in [("e1", &["/bin/sh"][..]), ("e2", &["/bin/sh", "/bin/busybox.other"])] {
        list(world, programs)?;
        let file = world.output_file(&format!("{}-{id}", request.id));
        let out = format!("file://{}", file.display());
        world.client.exec(&request.id, id, &spec::process(&["/bin/sh", "-c", TRY]), &out)?;
        world.client.start(&request.id, id)?;
        world.client.wait(&request.id, id)?;
        world.client.delete_exec(&request.id, id)?;
        one_ran(&lines(&fs::read_to_string(&file)?))?;
    }
    Ok(String::new())
}

fn not_there(world: &mut World) -> Result<String> {
    list(world, &["/bin/sh", "/bin/bussybox"])?;
    let said = refused(world, |_| {})?;
    ensure!(said.contains("BS-PRC-005") && said.contains("\"/bin/bussybox\" is not in the image"), "{said}");
    list(world, &["/bin/sh", "-/bin/bussybox"])?;
    one_ran(&self::said(world, |_| {})?)?;
    Ok(said)
}

/// A pod's author mounts something over a listed path; the same beside it starts.
fn from_a_volume(world: &mut World) -> Result<String> {
    let mount = |request: &mut Request| {
        let volume = json!({ "destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"] });
        if let Some(mounts) = request.spec["mounts"].as_array_mut() {
            mounts.push(volume);
        }
    };
    list(world, &["/bin/sh", "/data/"])?;
    let said = refused(world, mount)?;
    ensure!(said.contains("\"/data/\" leads into a volume"), "{said}");
    one_ran(&self::said(world, |_| {})?)?;
    list(world, &["/bin/sh"])?;
    one_ran(&self::said(world, mount)?)?;
    Ok(said)
}

fn said(world: &mut World, bend: fn(&mut Request)) -> Result<Vec<String>> {
    let mut request = world.request("tools", &["/bin/sh", "-c", TRY])?;
    bend(&mut request);
    let ended = world.complete(&request).map_err(|s| anyhow::anyhow!("{}", s.message()))?;
    Ok(lines(&ended.output))
}

fn refused(world: &mut World, bend: fn(&mut Request)) -> Result<String> {
    let mut request = world.request("tools", &["/bin/sh", "-c", TRY])?;
    bend(&mut request);
    match world.complete(&request) {
        Err(status) => Ok(status.message().to_owned()),
        Ok(ended) => bail!("it started: {ended:?}"),
    }
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

fn one_ran(said: &[String]) -> Result<()> {
    let [first, second] = said else { bail!("{said:?}") };
    ensure!(first == "ran /bin/busybox", "{said:?}");
    ensure!(second.contains("/bin/busybox.other") && second.contains("Permission denied"), "{said:?}");
    Ok(())
}

fn sealed(record: &Value) -> bool {
    let findings = record["findings"].as_array();
    findings.is_some_and(|list| {
        let fact = |f: &Value| f["fact"].as_str().is_some_and(|fact| fact.contains("only these run: /bin/sh"));
        list.iter().any(|f| f["rule"] == "BS-PRC-005" && f["outcome"] == "sealed" && fact(f))
    })
}
