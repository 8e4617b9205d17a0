//! What the VM runs of ours: the programs as `make build` left them, the tests' own program, the signed images. All of it
//! goes on the payload disk at the checkout's path, so that the cached root needs no new build.
use crate::{cache, disk, initrd, uki};
use anyhow::{Context, Result, bail};
use ring::digest::{Context as Digest, SHA256};
use serde_json::Value;
use stack::image::sha256;
use stack::process::run;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "x86_64-unknown-linux-musl";

/// Made once per run; all boots use it.
#[derive(Debug, Clone)]
pub(crate) struct Built {
    /// Scratch folder of this run.
    pub(crate) work: PathBuf,
    pub(crate) payload: PathBuf,
    pub(crate) kernel: Vec<u8>,
    pub(crate) initrd: Vec<u8>,
    /// Digest of everything that the node runs of ours.
    pub(crate) programs: String,
    /// Folder of the signed images.
    pub(crate) images: PathBuf,
}

pub(crate) fn all(work: &Path) -> Result<Built> {
    let images = images()?;
    let kernel = cache().join("kernel");
    let stage = work.join("payload");
    fs::create_dir_all(stage.join("node"))?;
    let programs = programs(&stage)?;
    let init = work.join("init");
    strip(&own("boltseal-test-node-init")?, &init)?;
    let initrd = initrd::build(&init, &kernel)?;

    copy(&images, &stage.join("node/given"))?;
    selinux_policy(&stage.join("node/selinux.policy"))?;
    // For the boot that leaves the measured kernel by kexec: signed, or a locked-down kernel would not load it.
    uki::sign_kernel(&kernel.join("vmlinuz"), &stage.join("node/vmlinuz"), work)?;
    fs::write(stage.join("node/initrd"), &initrd)?;
    let payload = work.join("payload.ext4");
    disk::ext4(&stage, &payload)?;
    fs::remove_dir_all(&stage)?;
    Ok(Built { work: work.into(), payload, kernel: fs::read(kernel.join("vmlinuz"))?, initrd, programs, images })
}

/// Copies programs, tools and tests to where they are in the checkout. Answers with a digest over the programs.
fn programs(stage: &Path) -> Result<String> {
    let project = stack::private::project();
    let mut digest = Digest::new(&SHA256);
    let built = Path::new("target").join(TARGET).join("release");
    let made = made();
    fs::create_dir_all(stage.join(&built))?;
    for name in stack::node::BINARIES {
        let from = made.join(name);
        let bytes = fs::read(&from).with_context(|| format!("{}. Fix: make build", from.display()))?;
        digest.update(&bytes);
        fs::write(stage.join(&built).join(name), bytes)?;
        executable(&stage.join(&built).join(name))?;
    }
    for tool in ["containerd-2.1", "cosign-2.5", "cosign-3.1", "notation-1.3"] {
        let path = Path::new(".cache/tools").join(tool);
        copy(&project.join(&path), &stage.join(&path))?;
    }
    for path in ["integration/containerd", "integration/systemd", "profiles"] {
        copy(&project.join(path), &stage.join(path))?;
    }
    for (program, name) in [(own("boltseal-test-node")?, "boltseal-test-node"), (tests()?, "tests")] {
        strip(&program, &stage.join("node").join(name))?;
    }
    Ok(digest.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Folder of the three programs; like in the tests, `BOLTSEAL_PROFILE` names another build than the one that is shipped.
pub(crate) fn made() -> PathBuf {
    let profile = std::env::var("BOLTSEAL_PROFILE").unwrap_or_else(|_| "release".into());
    stack::private::project().join("target").join(TARGET).join(profile)
}

/// A program of this crate, built beside this one.
fn own(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if !path.exists() {
        bail!("{} is missing. Fix: cargo build -p boltseal-test-node --target {TARGET}", path.display());
    }
    Ok(path)
}

/// The program of the integration tests; cargo knows its name.
fn tests() -> Result<PathBuf> {
    let said = run(Command::new("cargo")
        .current_dir(stack::private::project())
        .args(["test", "--quiet", "--locked", "--no-run", "--test=main", "--message-format=json"])
        .args(["-p", "boltseal-integration-tests", "--target", TARGET]))?;
    let found = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|message| {
        let main = message["target"]["name"] == "main" && message["reason"] == "compiler-artifact";
        message["executable"].as_str().filter(|_| main).map(PathBuf::from)
    });
    found.context("cargo names no program of the integration tests")
}

/// Signed images, registry and keys, made in a private machine of this one; kept until what makes them changes.
fn images() -> Result<PathBuf> {
    let project = stack::private::project();
    let mut all = fs::read(made().join("boltseal")).context("make build")?;
    for file in ["image.rs", "node.rs", "sign.rs", "given.rs", "../../node/src/main.rs"] {
        all.extend(fs::read(project.join("integration/tests/src").join(file))?);
    }
    let name = sha256(&all).chars().skip(7).take(16).collect::<String>();
    let folder = cache().join("images").join(&name);
    if !folder.exists() {
        println!("node: making signed images");
        let base = cache().join("images");
        if base.exists() {
            fs::remove_dir_all(&base)?;
        }
        fs::create_dir_all(&base)?;
        let new = base.join("new");
        run(Command::new(std::env::current_exe()?).arg("images").arg(&new))?;
        fs::rename(new, &folder)?;
    }
    Ok(folder)
}

/// Debian's base policy and our domain, compiled: the node itself has no compiler.
fn selinux_policy(to: &Path) -> Result<()> {
    let selinux = cache().join("selinux");
    let tree = selinux.join("tree");
    let project = stack::private::project();
    let libraries =
        ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|path| tree.join(path).display().to_string());
    run(Command::new(tree.join("usr/bin/secilc"))
        .env("LD_LIBRARY_PATH", libraries.join(":"))
        .args(["-N", "-M", "true", "-c", "33", "-f", "/dev/null", "-o"])
        .arg(to)
        .arg(selinux.join("base.cil"))
        .arg(project.join("profiles/selinux/boltseal.cil"))
        .arg(project.join("integration/node/node.cil")))?;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(to)).map(|_| ())
}

fn strip(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("strip").arg("-s").arg("-o").arg(to).arg(from))?;
    executable(to)
}

fn executable(path: &Path) -> Result<()> {
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}
