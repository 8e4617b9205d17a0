//! More than one key must have signed.
use super::Case;
use super::image::{fresh_copy, signed_by};
use crate::node::World;
use crate::policy::{FOLDER, trust};
use crate::registry::ADDRESS;
use crate::sign::{Cosign, Key};
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

const P256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
/// The second authority's key file.
const SECOND: &str = "release.pub";

/// Who signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// The first authority alone.
    One,
    /// The first alone, and the second authority names the same key.
    OneKeyTwoNames,
    Both,
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "one signature where the scope needs two keys (cosign 2)",
            "BS-IMG-001",
            "1 of 2 needed keys",
            |world, _| needing_two(world, Cosign::V2, By::One),
        )
        .image("unsigned")
        .mend(|world, _| needing_two(world, Cosign::V2, By::Both)),
        Case::new(
            "one signature where the scope needs two keys (cosign 3)",
            "BS-IMG-001",
            "1 of 2 needed keys",
            |world, _| needing_two(world, Cosign::V3, By::One),
        )
        .image("unsigned")
        .mend(|world, _| needing_two(world, Cosign::V3, By::Both)),
        Case::new(
            "two authorities with one key where two are needed",
            "BS-IMG-001",
            "with the same key",
            |world, _| needing_two(world, Cosign::V2, By::OneKeyTwoNames),
        )
        .image("unsigned")
        .mend(|world, _| needing_two(world, Cosign::V2, By::Both)),
    ]
}

fn needing_two(world: &mut World, cosign: Cosign, by: By) -> Result<()> {
    let (first, second) = (world.node.key.clone(), Key::import(&world.node.work, "release", P256)?);
    trust(SECOND, if by == By::OneKeyTwoNames { &first.public } else { &second.public })?;
    world.undo_later(|_| fs::remove_file(Path::new(FOLDER).join("trust").join(SECOND)).context(SECOND));
    let prefix = format!("{ADDRESS}/demo");
    let mut policy = world.node.policy.clone();
    let authority = format!("name = \"release\"\nkey = \"{SECOND}\"\nrepositories = [\"{prefix}\"]");
    policy.push("authority", toml::from_str(&authority)?)?;
    policy.set_scope(&prefix, "authorities", vec!["ci", "release"])?;
    policy.set_scope(&prefix, "need", 2)?;
    // The first key is the node's own authority's as well, for another repository: a bundle names none and would count for it.
    policy.set_scope(&format!("{ADDRESS}/pause"), "authorities", vec!["release"])?;
    policy.write()?;
    world.undo_later(|world| world.node.policy.write());
    let image = fresh_copy(world)?;
    let keys = if by == By::Both { vec![&first, &second] } else { vec![&first] };
    signed_by(world, &image, &keys, cosign)
}
