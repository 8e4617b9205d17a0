//! Kill and delete of a container whose record of the launch was damaged, by Delete and by `shim delete`.
use crate::Report;
use anyhow::{Context, Result, ensure};
use nix::sys::stat::Mode;
use stack::node::{World, state};
use stack::process::{poll, run};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

type Damage = (&'static str, fn(&Path) -> Result<()>);

const DAMAGES: [Damage; 6] = [
    ("truncated", |file| {
        let whole = fs::read(file)?;
        Ok(fs::write(file, whole.get(..whole.len() / 2).unwrap_or_default())?)
    }),
    ("empty", |file| Ok(fs::write(file, "")?)),
    ("garbage", |file| Ok(fs::write(file, [0xff; 4096])?)),
    ("missing", |file| Ok(fs::remove_file(file)?)),
    ("a link", |file| {
        fs::remove_file(file)?;
        Ok(std::os::unix::fs::symlink("/etc/passwd", file)?)
    }),
    ("a fifo", |file| {
        fs::remove_file(file)?;
        Ok(nix::unistd::mkfifo(file, Mode::S_IRUSR)?)
    }),
];

pub(crate) fn all(world: &mut World, report: &mut Report, name: &dyn Fn(&str) -> String) {
    let mut check = |what: &str, run: fn(&mut World) -> Result<String>| report.clean(&name(what), world, run);
    check("the record of a launch is damaged: kill and delete work, and the neighbour lives", |world| {
        each(world, |world, request, _| Ok(world.client.remove(request)?))
    });
    check("the shim is killed and the record of its launch is damaged: nothing stays", |world| {
        each(world, |world, request, pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            let shim = status.lines().find_map(|line| line.strip_prefix("PPid:")).context("no parent")?;
            run(Command::new("kill").args(["-9", shim.trim()]))?;
            poll("init outlives its shim", Duration::from_secs(10), || (!is_there(pid)).then_some(()))?;
            poll("containerd does not notice", Duration::from_secs(10), || {
                world.client.state(&request.id).map_or(true, |state| state == 3).then_some(())
            })?;
            Ok(world.client.remove(request)?)
        })
    });
}

fn is_there(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn each(world: &mut World, end: fn(&World, &stack::client::Request, u32) -> Result<()>) -> Result<String> {
    let neighbour = world.request("app", &["/bin/sleep", "600"])?;
    let bystander = world.run(&neighbour)?;
    for (what, damage) in DAMAGES {
        let request = world.request("app", &["/bin/sleep", "600"])?;
        let pid = world.run(&request)?;
        let folder = state(&request.id)?;
        damage(&folder.join("launch/record.json")).with_context(|| what)?;
        end(world, &request, pid).with_context(|| what)?;
        ensure!(!is_there(pid), "{what}: init runs");
        ensure!(!folder.exists(), "{what}: {} is left", folder.display());
        ensure!(is_there(bystander) && world.client.state(&neighbour.id)? == 2, "{what}: the neighbour was ended");
    }
    world.client.remove(&neighbour)?;
    Ok(String::new())
}
