//! `make test-node`: the project's test node, a virtual machine with measured boot, booted nine times.
//!
//!   boltseal-test-node                 all boots; the last line sums them up
//!   boltseal-test-node boot NAME..     only those
//!
//! Within: `images FOLDER` (makes the signed images, in a private machine) and `guest` (the second program of the VM).
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests"))]

mod anchor;
mod author;
mod boot;
mod boots;
mod build;
mod disk;
mod enrol;
mod guest;
mod initrd;
mod job;
mod levels;
mod plan;
mod predict;
mod sealed;
mod tampered;
mod trail;
mod uki;
mod vm;

use anyhow::{Context, Result, bail};
use stack::process::run;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["guest", ..] => return guest::main(),
        // Stages of its own: see there.
        ["images", folder] => {
            let folder = PathBuf::from(folder);
            return stack::private::machine(move |scratch| images(scratch, &folder));
        }
        [] => boots::run(&[]),
        ["boot", names @ ..] if !names.is_empty() => boots::run(names),
        _ => Err(anyhow::anyhow!("usage: boltseal-test-node [boot NAME..]")),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn images(scratch: &Path, folder: &Path) -> Result<()> {
    if folder.exists() {
        bail!("{} is there already", folder.display());
    }
    let node = stack::node::Node::make(scratch, true)?;
    node.enroll()?;
    for image in node.images.iter() {
        node.import(image).with_context(|| image.name.clone())?;
    }
    seal(&node)?;
    stack::given::save(&node, folder)
}

/// Copies of an image's layout that are sealed: by whom the policy lets, by another, and of another image. The node has none of the
/// tools that this takes.
fn seal(node: &stack::node::Node) -> Result<()> {
    let keys = node.work.join("keys");
    let sealer = author::Pair::generate(&keys, sealed::AUTHORITY)?;
    let other = author::Pair::generate(&keys, "stranger")?;
    let first =
        [("app", &sealer, sealed::LAYOUT), ("app", &other, sealed::FOREIGN), ("other", &sealer, sealed::ANOTHER)];
    let first = first.map(|(image, key, name)| (image, key, name.to_owned()));
    let more = sealed::MORE.map(|image| (image, &sealer, format!("{}-{image}", sealed::LAYOUT)));
    for (image, key, name) in first.into_iter().chain(more) {
        let layout = node.work.join(name);
        run(Command::new("cp").arg("-a").arg(&node.images.get(image)?.layout).arg(&layout))?;
        let words = ["image", "seal", "-o", "json", "--key"];
        let said = run(Command::new("boltseal").args(words).arg(&key.private).arg(&layout))?;
        // For whoever looks for the byte to change.
        std::fs::write(layout.join("root_hash.json"), said)?;
    }
    Ok(())
}

/// `.cache/node`, where everything that is kept stands.
fn cache() -> PathBuf {
    stack::private::project().join(".cache/node")
}
