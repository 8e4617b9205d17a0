//! What a scope's list of programs does not name, asked for at create and by an exec. What it lets run while a container runs:
//! `tests/listed.rs`.
use super::Case;
use crate::node::World;
use crate::registry::ADDRESS;
use anyhow::Result;
use serde_json::json;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "a program that the scope does not list",
            "BS-PRC-005",
            "\"/bin/true\" is not on the scope's list",
            |world, _| list(world, &["/bin/busybox.other"]),
        )
        .image("tools")
        .mend(|world, _| list(world, &["/bin/busybox.other", "/bin/true"])),
        // By another name than the listed one: what it leads to counts beside that, never instead.
        Case::new(
            "a listed program by a name that is not listed",
            "BS-PRC-005",
            "\"/bin/true\" is not on the scope's list",
            |world, _| list(world, &["/bin/busybox"]),
        )
        .image("tools")
        .mend(|world, request| {
            request.spec["process"]["args"] = json!(["/bin/busybox", "true"]);
            list(world, &["/bin/busybox"])
        }),
        Case::new(
            "exec of a program that the scope does not list",
            "BS-PRC-005",
            "\"/bin/busybox.other\" is not on the scope's list",
            |world, _| list(world, &["/bin/sleep", "/bin/true"]),
        )
        .image("tools")
        .mend(|world, _| list(world, &["/bin/sleep", "/bin/true"]))
        .exec(|process| process["args"] = json!(["/bin/busybox.other", "true"])),
    ]
}

/// The list of the workload's images, until the case is undone.
pub fn list(world: &mut World, programs: &[&str]) -> Result<()> {
    let mut policy = world.node.policy.clone();
    let list: Vec<toml::Value> = programs.iter().map(|path| toml::Value::from(*path)).collect();
    policy.set_scope(&format!("{ADDRESS}/demo"), "programs", list)?;
    policy.write()?;
    world.undo_later(|world| world.node.policy.write());
    Ok(())
}
