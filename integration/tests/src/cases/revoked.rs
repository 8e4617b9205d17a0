//! Signed well, and taken back: a digest, a layer, an authority whose time is over.
use super::Case;
use crate::node::World;
use crate::policy::Policy;
use crate::registry::ADDRESS;
use anyhow::Result;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("image by a digest that its scope denies", "BS-IMG-001", "deny_digests of scope", |world, _| {
            let digest = world.node.images.get("app")?.manifest.clone();
            bend(world, |policy| policy.set_scope(&demo(), "deny_digests", vec![digest]))
        })
        .mend(|world, _| {
            let digest = world.node.images.get("other")?.manifest.clone();
            bend(world, |policy| policy.set_scope(&demo(), "deny_digests", vec![digest]))
        }),
        Case::new("image with a layer that the policy denies", "BS-IMG-001", "layer sha256:", |world, _| {
            let layer = world.node.images.get("app")?.chain_id.clone();
            bend(world, |policy| policy.set("image.deny_digests", vec![layer]))
        })
        .mend(|world, _| {
            let layer = world.node.images.get("other")?.chain_id.clone();
            bend(world, |policy| policy.set("image.deny_digests", vec![layer]))
        }),
        Case::new("signed by an authority whose time is over", "BS-IMG-001", "counted until 2026-01-01", |world, _| {
            dated(world, "until", "2026-01-01")
        })
        .mend(|world, _| dated(world, "until", "2099-01-01")),
        Case::new("signed by an authority whose time has not come", "BS-IMG-001", "from 2099-01-01", |world, _| {
            dated(world, "from", "2099-01-01")
        })
        .mend(|world, _| dated(world, "from", "2026-01-01")),
        Case::new(
            "minimum signing time, and no trusted time (cosign 2)",
            "BS-IMG-001",
            "does not prove when",
            |world, _| dated(world, "min_signing_time", "2026-01-01"),
        ),
        Case::new(
            "minimum signing time, and no trusted time (cosign 3)",
            "BS-IMG-001",
            "does not prove when",
            |world, _| dated(world, "min_signing_time", "2026-01-01"),
        )
        .image("app3"),
    ]
}

fn demo() -> String {
    format!("{ADDRESS}/demo")
}

/// Of both authorities, which have one key: a bundle names no repository and would count for the other.
fn dated(world: &mut World, key: &str, date: &str) -> Result<()> {
    bend(world, |policy| {
        policy.set_authority("node", key, date)?;
        policy.set_authority("ci", key, date)
    })
}

fn bend(world: &mut World, change: impl FnOnce(&mut Policy) -> Result<()>) -> Result<()> {
    let mut policy = world.node.policy.clone();
    change(&mut policy)?;
    policy.write()?;
    world.undo_later(|world| world.node.policy.write());
    Ok(())
}
