//! User namespaces that are not the pod's own, or whose ids are not. Each twin has one that is.
use super::Case;
use crate::client::Request;
use crate::node::World;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs;

/// Ids that no other case has.
pub const HOST: u32 = 6_553_600;
pub const SIZE: u32 = 65_536;

pub(super) fn cases() -> Vec<Case> {
    let range = |name, says, fault| Case::new(name, "BS-PRC-010", says, fault).mend(good);
    vec![
        range("a user namespace with the node's root in it", "host's 0", |_, r| own(r, 0, SIZE)),
        range("a user namespace of ids of the node's own users", "the host's 1000 on", |_, r| own(r, 1000, SIZE)),
        range("a user namespace without an id", "range of 0 ids", |_, r| own(r, HOST, 0)),
        range("a user namespace of every id", "4294967295 ids", |_, r| own(r, HOST, u32::MAX)),
        range("a user namespace whose groups are other ids", "not one and the same range", |_, r| {
            own(r, HOST, SIZE)?;
            r.spec["linux"]["gidMappings"] = ids(HOST + SIZE, SIZE);
            Ok(())
        }),
        range("ids without a user namespace", "without a user namespace", |_, r| {
            own(r, HOST, SIZE)?;
            let listed = r.spec["linux"]["namespaces"].as_array_mut().context("no namespaces")?;
            listed.retain(|n| n["type"] != "user");
            Ok(())
        })
        .never_warned(),
        range("a user namespace without ids", "the uid map is empty", |_, r| {
            own(r, HOST, SIZE)?;
            for map in ["uidMappings", "gidMappings"] {
                r.spec["linux"][map] = json!([]);
            }
            Ok(())
        })
        .never_warned(),
        range("a user that the user namespace does not have", "runs as id 65536", |_, r| {
            own(r, HOST, SIZE)?;
            r.spec["process"]["user"] = json!({ "uid": SIZE, "gid": 0 });
            Ok(())
        })
        .never_warned(),
        range("ids of another pod that runs", "ids are also those of tests/", |world, r| {
            neighbour(world)?;
            own(r, HOST + SIZE / 2, SIZE)
        })
        .mend(|world, r| {
            neighbour(world)?;
            own(r, HOST + SIZE, SIZE)
        }),
        Case::new("the user namespace of another pod", "BS-PRC-004", "user namespace", |world, r| {
            let pid = neighbour(world)?;
            own(r, HOST, SIZE)?;
            for (kind, name) in [("user", "user"), ("network", "net")] {
                join(&mut r.spec, kind, &format!("/proc/{pid}/ns/{name}"));
            }
            Ok(())
        })
        .mend(good)
        .never_warned(),
        Case::new("the node's own user namespace by its path", "BS-PRC-004", "user namespace is the host's", |_, r| {
            own(r, HOST, SIZE)?;
            join(&mut r.spec, "user", "/proc/1/ns/user");
            Ok(())
        })
        .mend(good)
        .never_warned(),
        range("a granted folder, idmapped without a word of the policy", "is idmapped at /data", |world, r| {
            own(r, HOST, SIZE)?;
            idmapped(world, r, false, HOST)
        })
        .mend(|world, r| {
            own(r, HOST, SIZE)?;
            idmapped(world, r, true, HOST)
        }),
        range("a granted folder, idmapped to other ids than the container's", "other ids", |world, r| {
            own(r, HOST, SIZE)?;
            idmapped(world, r, true, 0)
        })
        .mend(|world, r| {
            own(r, HOST, SIZE)?;
            idmapped(world, r, true, HOST)
        })
        .never_warned(),
        range("a granted folder, idmapped without a user namespace", "without a user namespace", |world, r| {
            idmapped(world, r, true, HOST)
        })
        .never_warned(),
        Case::new("exec as an id of the node", "BS-PRC-010", "runs as id 6553600", good)
            .mend(good)
            .never_warned()
            .exec(|process| {
                process["user"] = json!({ "uid": HOST, "gid": HOST });
            }),
    ]
}

fn good(_: &mut World, request: &mut Request) -> Result<()> {
    own(request, HOST, SIZE)
}

fn ids(host: u32, size: u32) -> Value {
    json!([{ "containerID": 0, "hostID": host, "size": size }])
}

/// A new user namespace of these ids.
pub fn own(request: &mut Request, host: u32, size: u32) -> Result<()> {
    let listed = request.spec["linux"]["namespaces"].as_array_mut().context("no namespaces")?;
    listed.push(json!({ "type": "user" }));
    for map in ["uidMappings", "gidMappings"] {
        request.spec["linux"][map] = ids(host, size);
    }
    Ok(())
}

fn join(spec: &mut Value, kind: &str, path: &str) {
    for namespace in spec["linux"]["namespaces"].as_array_mut().into_iter().flatten() {
        if namespace["type"] == kind {
            namespace["path"] = json!(path);
        }
    }
}

/// A container that runs in a user namespace of the first ids; its pid.
fn neighbour(world: &mut World) -> Result<u32> {
    let mut other = world.request("app", &["/bin/sleep", "600"])?;
    own(&mut other, HOST, SIZE)?;
    let pid = world.run(&other).context("the other container")?;
    fs::write(world.node.work.join("neighbour"), &other.id)?;
    world.undo_later(|world| {
        let id = fs::read_to_string(world.node.work.join("neighbour"))?;
        let mut other = world.request("app", &[])?;
        other.id.clone_from(&id);
        other.key = id;
        world.client.remove(&other).context("the other container")
    });
    Ok(pid)
}

/// A folder that an allowance names; the mount is to be seen as from `host` on.
fn idmapped(world: &mut World, request: &mut Request, says_so: bool, host: u32) -> Result<()> {
    let folder = world.node.work.join("idmapped");
    fs::create_dir_all(&folder)?;
    let source = folder.display().to_string();
    let mut policy = world.node.policy.clone();
    let allowance = format!(
        "id = \"idmapped-folder\"\nauthority = \"ci\"\nrepository = \"{}/demo\"\nmounts = [{{ source = {}, writable = true, idmap = {says_so} }}]\n",
        crate::registry::ADDRESS,
        Value::from(source.clone())
    );
    policy.push("allowance", toml::from_str(&allowance)?)?;
    policy.write()?;
    world.undo_later(|world| world.node.policy.write());
    let mounts = request.spec["mounts"].as_array_mut().context("no mounts")?;
    mounts.push(json!({ "destination": "/data", "type": "bind", "source": source, "options": ["rbind", "rw"],
        "uidMappings": ids(host, SIZE), "gidMappings": ids(host, SIZE) }));
    Ok(())
}
