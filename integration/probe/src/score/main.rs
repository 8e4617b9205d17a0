//! `make probe`: the probe under runc with containerd's default seccomp profile, the same under crun, gVisor's runsc, and
//! boltseal with its default policy; one image, one containerd, one run, side by side.
//!
//!   boltseal-score [-o table|json]
//!
//! Exit code 0 only when boltseal is below runc and crun in every column and within its own bounds.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests"))]

mod control;
mod runtimes;
mod table;
mod verdict;

use anyhow::{Context, Result, bail, ensure};
use stack::containerd::Version;
use stack::image::{self, Recipe};
use stack::node::{Node, World};
use stack::registry;
use stack::sign::Cosign;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The probe in the image, and beside it the copy with the set-uid bit.
const INSIDE: &str = "/bin/boltseal-probe";
const SET_UID: &str = "/bin/set-uid";
const IMAGE: &str = "probe";

fn main() -> ExitCode {
    stack::private::machine(score)
}

fn score(scratch: &Path) -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let json = match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] | ["-o", "table"] => false,
        ["-o", "json"] => true,
        _ => bail!("usage: boltseal-score [-o table|json]"),
    };
    let probe = std::env::current_exe()?.with_file_name("boltseal-probe");
    ensure!(probe.exists(), "{} is missing. Fix: make probe", probe.display());
    let node = node(scratch, &probe)?;
    let mut world = World::start(node, Version::V2_1)?;
    let control = control::run(&probe).context("the control, outside of any container")?;
    let runs = runtimes::all(&mut world)?;
    let verdict = verdict::judge(&control, &runs)?;
    if json {
        table::json(&control, &runs, &verdict)?;
    } else {
        table::print(&control, &runs, &verdict);
    }
    ensure!(verdict.is_empty(), "boltseal misses {} of its bounds", verdict.len());
    Ok(())
}

/// A node with the probe's image, signed like every other.
fn node(scratch: &Path, probe: &Path) -> Result<Node> {
    let mut node = Node::make(scratch, false)?;
    let recipe = Recipe {
        entrypoint: vec![INSIDE.into()],
        release: "probe".into(),
        files: vec![(probe.into(), INSIDE, 0o755), (probe.into(), SET_UID, 0o4755)],
        ..Recipe::default()
    };
    let image = image::build(&node.work, registry::ADDRESS, "demo/probe", "1", &recipe)?;
    node.key.sign(Cosign::V2, &image)?;
    node.images.insert(IMAGE, image);
    node.enroll()?;
    for image in node.images.iter() {
        node.import(image)?;
    }
    Ok(node)
}

/// A copy of the probe that everybody may run, with that mode.
fn copy(probe: &Path, to: &str, mode: u32) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let to = PathBuf::from(to);
    fs::copy(probe, &to)?;
    fs::set_permissions(&to, fs::Permissions::from_mode(mode))?;
    Ok(to)
}
