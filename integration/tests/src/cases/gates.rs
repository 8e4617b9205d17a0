//! What an image must show beside a signature: its age, no secret in its config, a base that is named.
//!
//! `leaky`: of 1970, with a password in its environment and a token in its history. `fresh`: made with the node.
use super::Case;
use super::image::bend_policy;
use crate::client::Request;
use crate::node::World;
use crate::policy::Policy;
use anyhow::Result;
use toml::Value;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("an image of 1970", "BS-IMG-004", "created 1970-01-01", |world, _| aged(world)).image("leaky").mend(
            |world, request| {
                aged(world)?;
                other(world, request, "fresh")
            },
        ),
        Case::new("an image older than its scope takes", "BS-IMG-004", "created 2026-01-01", |world, _| {
            scope_aged(world, 30)
        })
        .mend(|world, _| scope_aged(world, 36_500)),
        Case::new(
            "an age by a time that nobody is trusted with",
            "BS-IMG-004",
            "nobody trusted with the time",
            |world, _| age_of(world, "timestamp"),
        )
        .mend(|world, _| age_of(world, "created")),
        Case::new("a password and a token in the image's config", "BS-IMG-009", "DB_PASSWORD", |world, _| {
            bend_policy(world, "image.secrets.allow", Vec::<Value>::new())
        })
        .image("leaky")
        .mend(|world, request| {
            bend_policy(world, "image.secrets.allow", Vec::<Value>::new())?;
            other(world, request, "fresh")
        }),
        // The variable is let through by name, the token in the history is not.
        Case::new(
            "a token in the image's history",
            "BS-IMG-009",
            "history entry 1 holds a GitHub token",
            |world, _| bend_policy(world, "image.secrets.allow", vec!["DB_PASSWORD"]),
        )
        .image("leaky")
        .mend(|world, _| bend_policy(world, "image.secrets.allow", vec!["DB_PASSWORD", "entry 1"])),
        Case::new("an image on a base that nobody named", "BS-IMG-010", "the lowest layer is", |world, _| {
            based_on(world, "other")
        })
        .mend(|world, _| based_on(world, "app")),
    ]
}

/// Nothing older than three months.
fn aged(world: &mut World) -> Result<()> {
    bend_policy(world, "image.age.max_days", 90)
}

fn scope_aged(world: &mut World, days: i64) -> Result<()> {
    bent(world, |policy| {
        let age = toml::Table::from_iter([("max_days".to_owned(), Value::from(days))]);
        policy.set_scope(&format!("{}/demo", crate::registry::ADDRESS), "age", age)
    })
}

fn age_of(world: &mut World, source: &str) -> Result<()> {
    bent(world, |policy| {
        policy.set("image.age.max_days", 36_500)?;
        policy.set("image.age.source", source)
    })
}

/// The one layer of that image is the base, and the rule as `strict` has it, unless the policy has it on `warn`.
fn based_on(world: &mut World, name: &str) -> Result<()> {
    let layer = world.node.images.get(name)?.chain_id.clone();
    bent(world, |policy| {
        policy.enforce("BS-IMG-010")?;
        let base = toml::from_str(&format!("name = \"busybox\"\ndiff_ids = [\"{layer}\"]"))?;
        policy.set("image.base", vec![Value::Table(base)])
    })
}

/// A changed policy, until the case is over.
fn bent(world: &mut World, change: impl FnOnce(&mut Policy) -> Result<()>) -> Result<()> {
    let mut policy = world.node.policy.clone();
    change(&mut policy)?;
    policy.write()?;
    world.undo_later(|world| world.node.policy.write());
    Ok(())
}

/// The same request for another image.
fn other(world: &mut World, request: &mut Request, name: &str) -> Result<()> {
    let image = world.node.images.get(name)?;
    request.image.clone_from(&image.name);
    request.parent.clone_from(&image.chain_id);
    Ok(())
}
