//! `boltseal install`: the folders that boltseal keeps things in, and the label of containers, brought into this kernel.
//! Run at every boot before containerd (integration/systemd/boltseal-install.service): AppArmor forgets. What is there is
//! left as it is, but for our own profile, which is replaced by the one in this program.
use crate::paths;
use crate::screen::{Colour, Exit, Failure, Screen};
use boltseal_evidence::host;
use boltseal_policy::facts::{Label, Lsm};
use boltseal_profiles as profiles;
use serde_json::json;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

const APPARMOR: &str = "/sys/kernel/security/apparmor";
const SELINUX: &str = "/sys/fs/selinux";
/// Where semodule gets it from, and where an operator finds it.
const MODULE: &str = "boltseal.cil";
/// What containers are labelled as; any pair of categories does to see whether the policy knows the type.
const CONTEXT: &str = "system_u:system_r:boltseal_t:s0:c0,c1";
/// What no policy knows. A kernel without a policy takes any.
const NONSENSE: &str = "system_u:system_r:boltseal_no_such_t:s0";

/// One thing that was seen to.
struct Done {
    what: &'static str,
    good: bool,
    fact: String,
}

pub(crate) fn install(screen: &mut Screen) -> Result<Exit, Failure> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::new(Exit::Usage, "install needs root"));
    }
    let made = folders(&[paths::POLICY, paths::LIB, paths::SIGNATURES, paths::TRAIL]);
    let all = [
        made.map_or_else(
            |fact| Done { what: "folders", good: false, fact },
            |fact| Done { what: "folders", good: true, fact },
        ),
        label(),
    ];
    for done in &all {
        if screen.json() {
            screen.document(&json!({ "name": done.what, "ok": done.good, "fact": done.fact }))?;
        } else {
            let (mark, colour) = if done.good { ('✓', Colour::Good) } else { ('✗', Colour::Bad) };
            screen.row(mark, colour, &format!("{:8} {}", done.what, done.fact))?;
        }
    }
    Ok(if all.iter().all(|done| done.good) { Exit::Ok } else { Exit::Findings })
}

/// Root's alone; one that is there keeps its mode, which `doctor` judges.
fn folders(paths: &[&str]) -> Result<String, String> {
    let mut made = Vec::new();
    for path in paths {
        if !Path::new(path).is_dir() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| format!("{path}: {e}"))?;
            made.push(*path);
        }
    }
    Ok(if made.is_empty() { "all there".into() } else { format!("made {}", made.join(", ")) })
}

fn label() -> Done {
    let mut label = Label::default();
    host::label(&mut label, None);
    let result = match &label.lsm {
        Lsm::AppArmor => apparmor(Path::new(APPARMOR)),
        Lsm::Selinux => selinux(Path::new(SELINUX), label.enforcing),
        Lsm::Neither => Err(
            "neither AppArmor nor SELinux is active in this kernel (BS-MAC-001). Fix: boot with one of them in lsm="
                .into(),
        ),
        Lsm::Unknown(why) => Err(format!("{why} (BS-MAC-001). Fix: mount sysfs, securityfs or selinuxfs")),
    };
    match result {
        Ok(fact) => Done { what: "label", good: true, fact },
        Err(fact) => Done { what: "label", good: false, fact },
    }
}

/// One write of the compiled profile; no parser is needed. What the kernel then lists is what counts.
fn apparmor(at: &Path) -> Result<String, String> {
    let blob = profiles::apparmor_compiled();
    let load = || -> io::Result<()> {
        let mut file = fs::File::options().write(true).open(at.join(".replace"))?;
        // The kernel takes a profile whole or not at all: a second write would be another profile.
        let taken = file.write(blob)?;
        if taken == blob.len() { Ok(()) } else { Err(io::Error::other(format!("only {taken} bytes were taken"))) }
    };
    let fix = "Fix: mount securityfs, and run outside of a container";
    load().map_err(|e| format!("AppArmor does not take profile {}: {e}. {fix}", profiles::APPARMOR))?;
    let list =
        fs::read_to_string(at.join("profiles")).map_err(|e| format!("AppArmor's list of profiles: {e}. {fix}"))?;
    match host::mode(&list, profiles::APPARMOR).as_deref() {
        Some("enforce") => Ok(format!("AppArmor: profile {} loaded, in enforce mode", profiles::APPARMOR)),
        mode => Err(format!("AppArmor took profile {}, but lists it as {mode:?}. {fix}", profiles::APPARMOR)),
    }
}

/// A policy is one whole, so that a module can only be added by the system's own tools, once; it outlives boots.
fn selinux(at: &Path, enforcing: bool) -> Result<String, String> {
    let takes = |context: &str| {
        let file = fs::File::options().write(true).open(at.join("context"));
        file.and_then(|mut file| file.write_all(context.as_bytes())).is_ok()
    };
    let known = || takes(CONTEXT);
    if takes(NONSENSE) {
        return Err("SELinux has no policy. Fix: load one at boot (selinux-policy-default, or labels.md)".into());
    }
    let mut how = "known to the policy";
    if !known() {
        add_module()?;
        how = "added to the policy";
        if !known() {
            return Err(format!(
                "SELinux: semodule took {MODULE}, but the kernel does not know boltseal_t. Fix: semodule -B"
            ));
        }
    }
    if !enforcing {
        return Err(format!("SELinux: boltseal_t is {how}, but SELinux is permissive (BS-MAC-001). Fix: setenforce 1"));
    }
    Ok(format!("SELinux: boltseal_t is {how}, enforcing"))
}

fn add_module() -> Result<(), String> {
    let path = Path::new(paths::LIB).join(MODULE);
    let write = || -> io::Result<()> {
        let mut file = fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits())
            .open(&path)?;
        file.write_all(profiles::selinux_module().as_bytes())
    };
    write().map_err(|e| format!("{}: {e}", path.display()))?;
    let fix = "Fix: install policycoreutils, or build the policy with this module (integration/docs/labels.md)";
    let tool = ["/usr/sbin/semodule", "/sbin/semodule"].into_iter().find(|tool| Path::new(tool).is_file());
    let tool = tool.ok_or_else(|| {
        format!("SELinux does not know boltseal_t, and there is no semodule; wrote {}. {fix}", path.display())
    })?;
    let run = Command::new(tool)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .arg("-i")
        .arg(&path)
        .stdin(Stdio::null())
        .output();
    let run = run.map_err(|e| format!("{tool}: {e}"))?;
    if run.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&run.stderr);
    Err(format!(
        "semodule does not take {}: {}. {fix}",
        path.display(),
        said.lines().last().unwrap_or("it says nothing").trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plain files stand for the kernel's: what is written arrives in one piece, and the list decides.
    #[test]
    fn the_profile_is_written_whole_and_the_list_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        assert!(apparmor(dir.path()).unwrap_err().contains("does not take profile boltseal-default"));
        fs::write(dir.path().join(".replace"), "").unwrap();
        assert!(apparmor(dir.path()).unwrap_err().contains("list of profiles"));
        for (list, good) in [
            ("boltseal-default (enforce)\n", true),
            ("other (enforce)\nboltseal-default (enforce)\n", true),
            ("boltseal-default (complain)\n", false),
            ("boltseal-default-x (enforce)\n", false),
            ("", false),
        ] {
            fs::write(dir.path().join(".replace"), "").unwrap();
            fs::write(dir.path().join("profiles"), list).unwrap();
            assert_eq!(apparmor(dir.path()).is_ok(), good, "{list:?}");
            assert_eq!(fs::read(dir.path().join(".replace")).unwrap(), profiles::apparmor_compiled());
        }
    }

    /// A plain file takes any context, as a kernel without a policy does: that is no knowledge.
    #[test]
    fn a_kernel_that_knows_every_type_has_no_policy() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("context"), "").unwrap();
        assert!(selinux(dir.path(), true).unwrap_err().contains("has no policy"));
    }

    #[test]
    fn folders_are_roots_alone_and_made_once() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let path = path.to_str().unwrap();
        assert_eq!(folders(&[path]).unwrap(), format!("made {path}"));
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o700);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(folders(&[path]).unwrap(), "all there");
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o755);
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(folders(&[dir.path().join("file/x").to_str().unwrap()]).is_err());
    }
}
