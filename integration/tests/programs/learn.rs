//! `boltseal profile learn`: nginx is watched under runc; what was learned is less than the base filter, and enough to serve
//! under boltseal; without one of its calls it is not.
use crate::pod::{self, PATIENCE, Pod};
use crate::serve::get;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use stack::cri::v1::security_profile::ProfileType;
use stack::cri::v1::{ContainerConfig, ContainerState, SecurityProfile};
use stack::node::World;
use stack::process::{output, poll};
use std::fs::{self, File};
use std::process::{Child, Command};

const SOCKET: &str = "/run/learn.sock";
const WATCHING: &str = "/run/learn.json";
const LEARNED: &str = "/run/learned.json";
const LESS: &str = "/run/less.json";
const SAID: &str = "/run/learn.said";

pub(crate) fn check(world: &mut World) -> Result<String> {
    world.undo_later(|_| {
        for made in [SOCKET, WATCHING, LEARNED, LESS, SAID] {
            if fs::exists(made)? {
                fs::remove_file(made)?;
            }
        }
        Ok(())
    });
    let image = crate::image(world, "nginx", "demo/nginx")?;
    let mut agent = agent()?;
    let watched = watch(&image.name);
    let ended = end(&mut agent, watched.is_ok());
    watched.context("under runc")?;
    ended?;
    let said = fs::read_to_string(SAID)?;
    ensure!(said.contains("bind tcp 0.0.0.0 8080"), "{said}");

    let lint = output(Command::new("boltseal").args(["profile", "lint", LEARNED]))?;
    ensure!(lint.ok(), "{lint:?}");
    let diff = output(Command::new("boltseal").args(["-o", "json", "profile", "diff", "base", LEARNED]))?;
    let diff: Vec<Value> = serde_json::from_str(&diff.stdout)?;
    ensure!(!diff.is_empty() && diff.iter().all(|call| call["how"] == "tighter"), "{diff:?}");

    let pod = Pod::run("learned", "boltseal", |_| {})?;
    let outcome = serve(&pod, &image.name);
    pod.end()?;
    outcome?;
    Ok(format!("{} calls of the base filter are closed, nginx serves", diff.len()))
}

fn agent() -> Result<Child> {
    let mut command = Command::new("boltseal");
    command.args(["profile", "learn", SOCKET, "--profile", WATCHING]);
    let agent = command.stdout(File::create(LEARNED)?).stderr(File::create(SAID)?).spawn()?;
    poll("the agent does not listen", PATIENCE, || {
        (fs::exists(SOCKET).ok()? && fs::exists(WATCHING).ok()?).then_some(())
    })?;
    Ok(agent)
}

/// It ends with what it watches; where nothing was, it is told to.
fn end(agent: &mut Child, watched: bool) -> Result<()> {
    let ended = poll("the agent does not end", PATIENCE, || agent.try_wait().ok().flatten());
    if ended.is_err() || !watched {
        agent.kill()?;
        agent.wait()?;
    }
    let status = ended?;
    ensure!(status.success(), "{status}: {}", fs::read_to_string(SAID)?);
    Ok(())
}

fn watch(image: &str) -> Result<()> {
    let pod = Pod::run("watched", "runc", |_| {})?;
    let outcome = (|| {
        let id = pod.start(&nginx(&pod, image, WATCHING)?)?;
        let address = pod.cri.address(&pod.id)?;
        pod.answer(&id, "nginx", || get(&address, 8080, "/").ok())
    })();
    pod.end()?;
    outcome.map(|_| ())
}

fn nginx(pod: &Pod, image: &str, profile: &str) -> Result<ContainerConfig> {
    let mut config = pod::container("nginx", image, &["/usr/sbin/nginx", "-c", "/etc/nginx-app/nginx.conf"], &[]);
    config.mounts.push(pod.volume("/tmp")?);
    let context = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut()).context("no context")?;
    context.seccomp =
        Some(SecurityProfile { profile_type: ProfileType::Localhost.into(), localhost_ref: profile.into() });
    Ok(config)
}

/// With the profile it serves; with the profile but for one call that it learned, it does not.
fn serve(pod: &Pod, image: &str) -> Result<()> {
    let address = pod.cri.address(&pod.id)?;
    let id = pod.start(&nginx(pod, image, LEARNED)?)?;
    let body = pod.answer(&id, "nginx", || get(&address, 8080, "/").ok())?;
    ensure!(body.starts_with("served by nginx"), "{body}");
    pod::allowed(&id, &[])?;
    pod.cri.stop(&id)?;
    pod.cri.remove(&id)?;

    let mut less: Value = serde_json::from_slice(&fs::read(LEARNED)?)?;
    let mut taken = 0;
    for names in less["syscalls"].as_array_mut().into_iter().flatten().filter_map(|rule| rule["names"].as_array_mut()) {
        let before = names.len();
        names.retain(|name| name != "listen");
        taken += before - names.len();
    }
    ensure!(taken == 1, "listen was not learned");
    fs::write(LESS, serde_json::to_vec(&less)?)?;
    let id = pod.start(&nginx(pod, image, LESS)?)?;
    let status = poll("it does not end", PATIENCE, || {
        pod.cri.status(&id).ok().filter(|status| status.state() == ContainerState::ContainerExited)
    })?;
    let said = pod.said("nginx");
    ensure!(status.exit_code != 0 && said.contains("listen() to 0.0.0.0:8080"), "{}: {said}", status.exit_code);
    Ok(())
}
