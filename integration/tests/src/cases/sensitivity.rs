//! What a pod is trusted with, what the node may run, and what runs already.
use super::Case;
use crate::client::{Code, Request};
use crate::node::{NAMESPACE, World, state};
use crate::registry::ADDRESS;
use anyhow::{Context, Result};
use serde_json::json;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use toml::Value;

const ANNOTATION: &str = "boltseal.dev/sensitivity";

pub(super) fn cases() -> Vec<Case> {
    let case = |name, says, fault| Case::new(name, "BS-NOD-003", says, fault).code(Code::FailedPrecondition);
    vec![
        case("a sensitivity that the node lacks", "\"secret\" does not run on this node", |world, request| {
            levels(world, &["public"])?;
            name(request, "secret")
        })
        .mend(|world, request| {
            levels(world, &["public"])?;
            name(request, "public")
        }),
        case("a sensitivity, and a node that knows of none", "does not run on this node", |_, request| {
            name(request, "secret")
        }),
        case("no sensitivity where the node asks for one", "no sensitivity", |world, _| levels(world, &["public"]))
            .mend(|world, request| {
                levels(world, &["public"])?;
                name(request, "public")
            }),
        case("a sensitivity beside another one", "beside tests/", |world, request| {
            levels(world, &["public", "secret"])?;
            neighbour(world, Some("public"))?;
            name(request, "secret")
        })
        .mend(|world, request| {
            levels(world, &["public", "secret"])?;
            neighbour(world, Some("public"))?;
            name(request, "public")
        }),
        case("a sensitivity beside what nobody labelled", "which has no sensitivity", |world, request| {
            neighbour(world, None)?;
            levels(world, &["public", "secret"])?;
            name(request, "secret")
        })
        .mend(|world, request| {
            levels(world, &["public", "secret"])?;
            name(request, "secret")
        }),
        case(
            "a pod that names another sensitivity than the policy for its image",
            "the policy's scope",
            |world, request| {
                of_image(world, "secret")?;
                name(request, "public")
            },
        )
        .mend(|world, _| of_image(world, "secret")),
        case("a sensitivity beside a container whose record is gone", "something of it runs", |world, request| {
            levels(world, &["public"])?;
            let id = neighbour(world, Some("public"))?;
            fs::remove_file(state(&id)?.join("container.json"))?;
            name(request, "public")
        })
        .mend(|world, request| {
            levels(world, &["public"])?;
            half_made(world)?;
            name(request, "public")
        }),
        case("an annotation that claims to run beside everything", "\"*\" does not run", |world, request| {
            levels(world, &["public"])?;
            name(request, "*")
        })
        .mend(|world, _| {
            // Which the policy may say of an image.
            neighbour(world, None)?;
            of_image(world, "*")
        }),
    ]
}

fn name(request: &mut Request, sensitivity: &str) -> Result<()> {
    request.spec["annotations"][ANNOTATION] = json!(sensitivity);
    Ok(())
}

fn levels(world: &mut World, levels: &[&str]) -> Result<()> {
    let list: Vec<Value> = levels.iter().map(|level| Value::from(*level)).collect();
    super::image::bend_policy(world, "sensitivity.levels", list)
}

/// The node takes both levels, and the policy says which the workload's images have.
fn of_image(world: &mut World, sensitivity: &str) -> Result<()> {
    let mut policy = world.node.policy.clone();
    policy.set("sensitivity.levels", vec![Value::from("public"), Value::from("secret")])?;
    policy.set_scope(&format!("{ADDRESS}/demo"), "sensitivity", sensitivity)?;
    policy.write()?;
    world.undo_later(|world| world.node.policy.write());
    Ok(())
}

/// A container that runs until the case is over.
fn neighbour(world: &mut World, sensitivity: Option<&str>) -> Result<String> {
    let mut request = world.request("app", &["/bin/sleep", "600"])?;
    if let Some(sensitivity) = sensitivity {
        name(&mut request, sensitivity)?;
    }
    world.run(&request).context("the neighbour")?;
    let id = request.id.clone();
    world.undo_later(move |world| world.client.remove(&request).context("the neighbour").map(drop));
    Ok(id)
}

/// What a create leaves that was killed before it launched anything.
fn half_made(world: &mut World) -> Result<()> {
    let mut all = fs::read_dir("/run/boltseal")?.filter_map(|entry| Some(entry.ok()?.path().join(NAMESPACE)));
    let place = all.find(|folder| folder.is_dir()).context("nothing started here yet")?.join("half-made");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(place.join("launch/bundle"))?;
    fs::write(place.join("lock"), "")?;
    world.undo_later(move |_| Ok(fs::remove_dir_all(place)?));
    Ok(())
}
