//! `make test-programs`: real programs out of Debian packages, signed, started by the CRI under the default policy, asked
//! something over the network; then the allowances of profiles/allowances, each with an image that they are not for.
//!
//!   cargo test -p boltseal-integration-tests --test programs [-- WORD..]     part of a program's or template's name; 1.6, 2.1

mod learn;
mod pod;
mod serve;
mod templates;

use anyhow::{Result, ensure};
use stack::containerd::Version;
use stack::image::{self, Image};
use stack::leak::Snapshot;
use stack::node::{CRI_NAMESPACE, Node, World};
use stack::private::project;
use stack::sign::Cosign;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    stack::private::machine(work)
}

fn work(scratch: &Path) -> Result<()> {
    let mut words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let programs = serve::all();
    let templates = templates::all();
    let version = Version::ALL.into_iter().find(|v| words.iter().any(|word| v.name().ends_with(word.as_str())));
    words.retain(|word| !Version::ALL.iter().any(|v| v.name().ends_with(word.as_str())));
    let version = version.unwrap_or(Version::V2_1);
    for word in &words {
        let names = programs.iter().map(|p| p.name).chain(templates.iter().map(|t| t.name)).chain(["learn"]);
        let known = names.into_iter().any(|name| name.contains(word.as_str()));
        ensure!(known, "{word:?} is in no program's and no template's name");
    }
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));

    let node = Node::make(scratch, false)?;
    node.enroll()?;
    for image in node.images.iter() {
        node.import(image)?;
    }
    let mut world = World::start(node, version)?;
    pod::default_policy(&mut world)?;
    println!("---- {}, level restricted, as profiles/policy/default.toml has it", version.name());
    // The first pods make the bridge and folders that stay.
    pod::first()?;

    let mut report = Report::default();
    let mut serving = 0;
    for program in programs.iter().filter(|program| wanted(program.name)) {
        serving += usize::from(report.check(program.name, &mut world, |world| serve::check(world, program)));
    }
    let (mut started, mut refused) = (0, 0);
    for template in templates.iter().filter(|template| wanted(template.name)) {
        let both = report.check(template.name, &mut world, |world| templates::check(world, template));
        started += usize::from(both);
        refused += usize::from(both);
    }
    if wanted("learn") {
        report.check("learn", &mut world, learn::check);
    }
    if !report.failed.is_empty() {
        println!("---- the end of containerd's log\n{}", world.containerd.log());
    }
    world.end()?;
    ensure!(report.failed.is_empty(), "failed: {}", report.failed.join("; "));
    println!("programs: {serving} serve, {started} templates start, {refused} refused with another image");
    Ok(())
}

#[derive(Default)]
struct Report {
    failed: Vec<String>,
}

impl Report {
    /// Whether it passed, and left nothing.
    fn check(&mut self, name: &str, world: &mut World, run: impl FnOnce(&mut World) -> Result<String>) -> bool {
        let start = Instant::now();
        let outcome = Snapshot::take().and_then(|clean| {
            let said = run(world);
            let undone = world.undo();
            let said = said?;
            undone?;
            clean.compare()?;
            Ok(said)
        });
        let took = start.elapsed().as_millis();
        match outcome {
            Ok(said) => println!("ok    {name} ({took} ms) {said}"),
            Err(error) => {
                println!("FAIL  {name}: {error:#}");
                self.failed.push(name.into());
                return false;
            }
        }
        true
    }
}

/// The image whose layer `fetch-programs.sh` packed, as `path` below the registry: signed, its signature on the node, pulled. Made
/// once.
fn image(world: &mut World, layer: &str, path: &str) -> Result<Image> {
    if let Ok(image) = world.node.images.get(path) {
        return Ok(image.clone());
    }
    let packed = project().join(".cache/programs").join(format!("{layer}.tar.gz"));
    ensure!(packed.exists(), "{} is missing. Fix: integration/tools/fetch-programs.sh", packed.display());
    let image = image::of_layer(&world.node.work, stack::registry::ADDRESS, path, "1", &packed)?;
    world.node.key.sign(Cosign::V2, &image)?;
    world.node.import(&image)?;
    world.containerd.pull(CRI_NAMESPACE, &image.name)?;
    world.node.images.insert(path, image.clone());
    Ok(image)
}
