//! What the policy does not open, asked for at create. What it closes while a container runs: `tests/network.rs`.
use super::Case;
use super::image::bend_policy;
use crate::client::Request;
use crate::node::World;
use crate::policy::Policy;
use crate::registry::ADDRESS;
use anyhow::Result;
use serde_json::json;
use toml::Value;

const ANNOTATION: &str = "boltseal.dev/ports";

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "a port that the pod declares and the policy does not grant",
            "BS-NET-001",
            "bind 9090, which is not granted",
            |world, request| {
                strict(world)?;
                declare(request, "bind=9090")
            },
        )
        .mend(|world, request| {
            strict(world)?;
            declare(request, "bind=8080, connect=10.1.0.0/16:443")
        }),
        Case::new(
            "a destination that the pod declares and the policy does not grant",
            "BS-NET-001",
            "connect 10.0.0.0/7:443, which is not granted",
            |world, request| {
                strict(world)?;
                declare(request, "connect=10.0.0.0/7:443")
            },
        )
        .mend(|world, _| strict(world)),
        Case::new(
            "an annotation of ports that nobody understands",
            "BS-NET-001",
            "is not understood",
            |world, request| {
                strict(world)?;
                declare(request, "8080")
            },
        )
        .mend(|world, request| {
            strict(world)?;
            declare(request, "")
        }),
        Case::new("CAP_NET_ADMIN beside confined destinations", "BS-NET-002", "CAP_NET_ADMIN", |world, request| {
            admin(world, request, opened)
        })
        // Where nobody confines destinations, it may.
        .mend(|world, request| admin(world, request, |policy| policy.warn("BS-NET-002"))),
    ]
}

fn declare(request: &mut Request, ports: &str) -> Result<()> {
    request.spec["annotations"][ANNOTATION] = json!(ports);
    Ok(())
}

/// Level `strict`, and what the scope of the workload's images opens there.
fn strict(world: &mut World) -> Result<()> {
    bend_policy(world, "level", "strict")?;
    let mut policy = world.node.policy.clone();
    policy.strict()?;
    opened(&mut policy)?;
    policy.write()
}

fn opened(policy: &mut Policy) -> Result<()> {
    let list = |items: &[&str]| items.iter().map(|item| Value::from(*item)).collect::<Vec<_>>();
    let scope = format!("{ADDRESS}/demo");
    policy.set_scope(&scope, "bind", list(&["8080"]))?;
    policy.set_scope(&scope, "connect", list(&["10.0.0.0/8:443"]))
}

/// A capability that an allowance grants, at level `strict`.
fn admin(world: &mut World, request: &mut Request, more: fn(&mut Policy) -> Result<()>) -> Result<()> {
    for set in ["bounding", "effective", "permitted"] {
        if let Some(list) = request.spec["process"]["capabilities"][set].as_array_mut() {
            list.push(json!("CAP_NET_ADMIN"));
        }
    }
    let allowance = format!(
        "id = \"network\"\nauthority = \"ci\"\nrepository = \"{ADDRESS}/demo\"\ncapabilities = [\"CAP_NET_ADMIN\"]"
    );
    let mut policy = world.node.policy.clone();
    policy.push("allowance", toml::from_str(&allowance)?)?;
    policy.strict()?;
    more(&mut policy)?;
    policy.write()?;
    world.undo_later(|world| world.node.policy.write());
    Ok(())
}
