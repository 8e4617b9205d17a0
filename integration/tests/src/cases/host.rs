//! Folders, files and sockets of the node that a container must not get.
use super::Case;
use crate::client::Request;
use crate::node::World;
use crate::process::run;
use anyhow::Result;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::Command;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("host folder /etc", "BS-FSY-002", "/etc", |_, request| bind(request, "/etc", &["rbind", "ro"])),
        Case::new("host folder /etc, writable", "BS-FSY-002", "/etc", |_, request| {
            bind(request, "/etc", &["rbind", "rw"])
        }),
        Case::new("/etc by a symlink", "BS-FSY-002", "/etc", |world, request| {
            let link = world.node.work.join("innocent");
            symlink("/etc", &link)?;
            world.undo_later(|world| Ok(fs::remove_file(world.node.work.join("innocent"))?));
            bind(request, &link.display().to_string(), &["rbind", "ro"])
        }),
        Case::new("/etc by a bind alias", "BS-FSY-002", "/etc", |world, request| {
            let alias = folder(world, "alias")?;
            run(Command::new("mount").args(["--bind", "/etc", &alias]))?;
            world.undo_later(|world| run(Command::new("umount").arg(world.node.work.join("alias"))).map(|_| ()));
            bind(request, &alias, &["rbind", "ro"])
        }),
        Case::new("/etc as a layer of an overlay", "BS-FSY-002", "/etc", |world, request| {
            let merged = folder(world, "merged")?;
            run(Command::new("mount")
                .args(["-t", "overlay", "overlay", "-o"])
                .arg(format!("lowerdir=/etc:{}", folder(world, "empty")?))
                .arg(&merged))?;
            world.undo_later(|world| run(Command::new("umount").arg(world.node.work.join("merged"))).map(|_| ()));
            bind(request, &merged, &["rbind", "ro"])
        }),
        Case::new("the whole node", "BS-FSY-002", "", |_, request| bind(request, "/", &["rbind", "ro"])),
        Case::new("a harmless-looking folder that is not listed", "BS-FSY-002", "harmless", |world, request| {
            let folder = folder(world, "harmless")?;
            bind(request, &folder, &["rbind", "ro"])
        }),
        Case::new("docker.sock", "BS-FSY-002", "docker.sock", |world, request| {
            drop(UnixListener::bind("/run/docker.sock")?);
            world.undo_later(|_| Ok(fs::remove_file("/run/docker.sock")?));
            bind_at(request, "/docker.sock", "/run/docker.sock", &["bind", "rw"])
        }),
        Case::new("containerd's own socket", "BS-FSY-002", "containerd", |_, request| {
            bind_at(request, "/containerd.sock", crate::containerd::SOCKET, &["bind", "rw"])
        }),
        Case::new("a mount that shares propagation with the node", "BS-FSY-003", "rshared", |world, request| {
            // The folder itself is granted by the policy, so that its propagation alone is wrong.
            let folder = granted(world)?;
            bind(request, &folder, &["rbind", "ro", "rshared"])
        })
        .mend(|world, request| {
            let folder = granted(world)?;
            bind(request, &folder, &["rbind", "ro", "rprivate"])
        }),
        Case::new("a root file system that shares propagation with the node", "BS-FSY-003", "shared", |_, request| {
            request.spec["linux"]["rootfsPropagation"] = json!("rshared");
            Ok(())
        }),
    ]
}

fn bind(request: &mut Request, source: &str, options: &[&str]) -> Result<()> {
    bind_at(request, "/data", source, options)
}

fn bind_at(request: &mut Request, destination: &str, source: &str, options: &[&str]) -> Result<()> {
    if let Some(mounts) = request.spec["mounts"].as_array_mut() {
        mounts.push(json!({ "destination": destination, "type": "bind", "source": source, "options": options }));
    }
    Ok(())
}

fn folder(world: &World, name: &str) -> Result<String> {
    let folder = world.node.work.join(name);
    fs::create_dir_all(&folder)?;
    Ok(folder.display().to_string())
}

/// A folder that an allowance of the policy names; the allowance goes when the case is over.
fn granted(world: &mut World) -> Result<String> {
    let folder = folder(world, "granted")?;
    let mut policy = world.node.policy.clone();
    let allowance = format!(
        "id = \"granted-folder\"\nauthority = \"ci\"\nrepository = \"{}/demo\"\nmounts = [{{ source = {} }}]\n",
        crate::registry::ADDRESS,
        Value::from(folder.clone())
    );
    policy.push("allowance", toml::from_str(&allowance)?)?;
    policy.write()?;
    world.undo_later(|world| world.node.policy.write());
    Ok(folder)
}
