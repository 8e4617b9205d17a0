//! Somebody changes the node's disk after the boot: a start is refused, and its twin, once the disk is as it was, starts. What
//! became of each start the host reads in the trail, by the ids of `crate::tampered`.
use super::enrol::{self, ETC, LIB};
use super::work::World;
use crate::job::version;
use crate::tampered::{STEPS, Step};
use anyhow::{Context, Result};
use stack::client::Request;
use stack::process::run;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAM: &str = "/usr/local/bin/boltseal";
const KEPT: &str = "/var/tmp/kept";

pub(super) fn all(world: &World) -> Result<()> {
    fs::create_dir_all(KEPT)?;
    for step in &STEPS {
        let change: fn() -> Result<()> = match step.change {
            crate::tampered::Change::OlderPolicy => older_policy,
            crate::tampered::Change::Program => program,
            crate::tampered::Change::Edited => edited,
            crate::tampered::Change::EditedAlone => edited_alone,
        };
        let kept = keep()?;
        let tried = change().and_then(|()| attempt(world, step, step.id, true));
        // The twin of an edit that does not count is the same edit and a request that needs none.
        if step.twin_before_undo {
            attempt(world, step, step.twin, false)?;
        }
        put_back(&kept)?;
        tried.context(step.id)?;
        if !step.twin_before_undo {
            attempt(world, step, step.twin, false)?;
        }
    }
    Ok(())
}

fn attempt(world: &World, step: &Step, id: &str, faulty: bool) -> Result<()> {
    let mut request = world.named(id, "app", &["/bin/true"])?;
    if faulty && step.ownerless {
        without_owner(&mut request);
    }
    let said = match world.complete(&request) {
        Ok(ended) => format!("ended with {}", ended.status),
        Err(status) => stack::cases::first_line(&status),
    };
    println!("guest: {id}: {said}");
    Ok(())
}

fn without_owner(request: &mut Request) {
    if let Some(annotations) = request.spec["annotations"].as_object_mut() {
        annotations.remove("boltseal.dev/owner");
    }
}

/// Copies of what is changed, by where it belongs.
fn keep() -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut kept = Vec::new();
    for path in [ETC, &format!("{LIB}/policy"), PROGRAM] {
        let copy = Path::new(KEPT).join(kept.len().to_string());
        run(Command::new("cp").arg("-a").arg(path).arg(&copy))?;
        kept.push((PathBuf::from(path), copy));
    }
    Ok(kept)
}

fn put_back(kept: &[(PathBuf, PathBuf)]) -> Result<()> {
    for (path, copy) in kept {
        run(Command::new("rm").arg("-rf").arg(path))?;
        run(Command::new("mv").arg(copy).arg(path))?;
    }
    Ok(())
}

/// Signed as it was, in both places where a start looks.
fn older_policy() -> Result<()> {
    for place in [ETC.to_owned(), format!("{LIB}/policy")] {
        run(Command::new("rm").arg("-rf").arg(&place))?;
        run(Command::new("cp").arg("-r").arg(enrol::policies(version::OLD)).arg(&place))?;
    }
    Ok(())
}

/// The same bytes and some more, in the place of a program.
fn program() -> Result<()> {
    let mut bytes = fs::read(PROGRAM)?;
    bytes.extend(b"other");
    fs::remove_file(PROGRAM)?;
    fs::write(PROGRAM, bytes)?;
    Ok(fs::set_permissions(PROGRAM, fs::Permissions::from_mode(0o755))?)
}

/// Would let a request without an owner through, were it signed.
fn edited() -> Result<()> {
    let mut policy = stack::policy::Policy::in_force()?;
    policy.warn("BS-OWN-001")?;
    stack::policy::put(&policy.text()?)
}

fn edited_alone() -> Result<()> {
    fs::remove_dir_all(Path::new(LIB).join("policy"))?;
    edited()
}
