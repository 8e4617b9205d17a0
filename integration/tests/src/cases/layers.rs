//! What the layers hold (BS-IMG-007, 008). The image `bare` is one static program, and starts; the others have one file more.
//!
//! Both rules are of `strict`: below it they are enforced by name, for case and twin alike.
use super::Case;
use crate::client::Request;
use crate::node::World;
use anyhow::Result;
use serde_json::json;

/// What the images without a shell run.
pub const ALONE: [&str; 2] = ["/app", "version"];

pub(super) fn cases() -> Vec<Case> {
    let case = |name, rule, says, image| {
        Case::new(name, rule, says, asked).image(image).mend(|world, request| {
            asked(world, request)?;
            let bare = world.node.images.get("bare")?;
            request.image = bare.name.clone();
            request.parent = bare.chain_id.clone();
            Ok(())
        })
    };
    vec![
        case("an image with a shell", "BS-IMG-007", "/bin/sh", "shell"),
        case("an image with busybox under another name", "BS-IMG-007", "/opt/tool is busybox", "renamed"),
        case("an image with an SSH daemon", "BS-IMG-007", "/usr/sbin/sshd", "sshd"),
        case("an image with a setuid program", "BS-IMG-008", "/bin/helper mode 4755", "setuid"),
        case("an image with a file capability", "BS-IMG-008", "permitted 0x2000", "capable"),
    ]
}

/// Both rules are asked, and what runs is what the images have.
fn asked(world: &mut World, request: &mut Request) -> Result<()> {
    let mut policy = world.node.policy.clone();
    policy.enforce("BS-IMG-007")?;
    policy.enforce("BS-IMG-008")?;
    policy.write()?;
    world.undo_later(|world| world.node.policy.write());
    request.spec["process"]["args"] = json!(ALONE);
    Ok(())
}
