//! The worker's root: the layers as a container has them, merged by the kernel, read-only, in a mount namespace that ends with
//! the worker.
use crate::layers::Layers;
use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::fs::create_dir;
use std::os::fd::AsRawFd;
use std::path::Path;

/// A folder that every node has; only this namespace sees what comes over it.
const OVER: &str = "/run";
/// What a page of mount options takes.
const PAGE: usize = 4096;

/// Runs in the worker before it is locked in. What a later layer hides, an opaque folder and every other feature of an overlay
/// are the kernel's own: nothing here says what they mean.
pub(crate) fn enter(layers: &Layers<'_>) -> Result<(), String> {
    let failed = |what: &'static str| move |e: nix::Error| format!("the layers cannot be merged: {what}: {e}");
    unshare(CloneFlags::CLONE_NEWNS).map_err(failed("a mount namespace"))?;
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).map_err(failed("keeping it private"))?;
    // Before anything comes over a path that leads to them.
    let layers = layers.again()?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let size = Some("size=64k,nr_inodes=512,mode=0700");
    mount(Some("tmpfs"), OVER, Some("tmpfs"), flags, size).map_err(failed("an empty layer above"))?;
    for name in ["upper", "work", "root"] {
        create_dir(Path::new(OVER).join(name)).map_err(|e| format!("the layers cannot be merged: {name}: {e}"))?;
    }
    // By descriptor, as a container's are: the object that was opened is mounted, whatever its path leads to by now.
    let layers = layers.lowers(Path::new(OVER))?;
    let lowers: Vec<String> = layers.iter().map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd())).collect();
    let data = format!("lowerdir={},upperdir={OVER}/upper,workdir={OVER}/work", lowers.join(":"));
    if data.len() >= PAGE {
        return Err(format!("{} layers are more than one overlay mount takes", lowers.len()));
    }
    let root = format!("{OVER}/root");
    let flags = flags | MsFlags::MS_RDONLY | MsFlags::MS_NOATIME;
    mount(Some("overlay"), root.as_str(), Some("overlay"), flags, Some(data.as_str()))
        .map_err(failed("the overlay"))?;
    nix::unistd::chroot(root.as_str()).map_err(failed("entering it"))?;
    nix::unistd::chdir("/").map_err(failed("entering it"))?;
    read_only().map_err(|e| format!("Landlock: {e}"))
}

/// Below this root files are read and folders listed. A kernel without Landlock has the root, the lost rights and the filter.
fn read_only() -> Result<(), Box<dyn std::error::Error>> {
    let rules = Ruleset::default().set_compatibility(CompatLevel::BestEffort);
    let rules = rules.handle_access(AccessFs::from_all(ABI::V1))?.create()?;
    rules.add_rule(PathBeneath::new(PathFd::new("/")?, AccessFs::ReadFile | AccessFs::ReadDir))?.restrict_self()?;
    Ok(())
}
