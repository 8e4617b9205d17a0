//! A node whose images, signatures and keys were made on another machine: a virtual one that has its own TPM and that is
//! enrolled already. `save` writes a node's making to a folder; where `BOLTSEAL_STACK_GIVEN` names such a folder,
//! `Node::make` takes everything from there instead of building, signing and enrolling.
use crate::image::Image;
use crate::node::{Images, Node};
use crate::policy::Policy;
use crate::process::run;
use crate::registry;
use crate::sign::Key;
use crate::tpm::Tpm;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

pub const GIVEN: &str = "BOLTSEAL_STACK_GIVEN";
const IMAGES: &str = "images.json";
/// What a refused boot needs.
const FEW: [&str; 2] = ["app", "pause"];

#[must_use]
pub fn folder() -> Option<PathBuf> {
    std::env::var_os(GIVEN).map(PathBuf::from)
}

/// Writes registry, keys, layouts and imported signatures of a node to `folder`, which must not be there yet.
pub fn save(node: &Node, folder: &Path) -> Result<()> {
    run(Command::new("cp").arg("-a").arg(&node.work).arg(folder))?;
    run(Command::new("cp").args(["-a", "/var/lib/boltseal/sig"]).arg(folder.join("sig")))?;
    fs::write(folder.join(IMAGES), serde_json::to_vec_pretty(&node.images.0)?)?;
    for left in ["swtpm", "swtpm.log", "registry.log", "registry.yml"] {
        run(Command::new("rm").arg("-rf").arg(folder.join(left)))?;
    }
    Ok(())
}

/// The images by name.
pub fn images(folder: &Path) -> Result<BTreeMap<String, Image>> {
    let file = folder.join(IMAGES);
    let text = fs::read(&file).with_context(|| file.display().to_string())?;
    let mut images: BTreeMap<String, Image> = serde_json::from_slice(&text)?;
    for image in images.values_mut() {
        let name = image.layout.file_name().context("a layout without a name")?.to_owned();
        image.layout = folder.join(name);
    }
    Ok(images)
}

pub(crate) fn node(folder: &Path, work: PathBuf, all: bool) -> Result<Node> {
    symlink(folder.join("registry"), work.join("registry"))?;
    let registry = registry::start(&work)?;
    let mut images = images(folder)?;
    images.retain(|name, _| all || FEW.contains(&name.as_str()));
    Ok(Node {
        images: Images(images),
        policy: Policy::in_force()?,
        tpm: Tpm::device()?,
        key: Key::kept(&folder.join("keys"), "ci"),
        _registry: registry,
        given: true,
        work,
    })
}
