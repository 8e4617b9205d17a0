//! What is wrong with the policy bundle although it can be read: who signed it, over what, and when.
use super::Case;
use super::image::bend_policy;
use crate::client::Code;
use crate::node::World;
use crate::policy;
use crate::process::run;
use crate::tpm;
use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const PIN: &str = "/var/lib/boltseal/signer";
const LAST: &str = "/var/lib/boltseal/policy";
const MEASURED: &str = "/run/boltseal/measured";
const FLOOR: &str = "/run/boltseal/floor";
const SIGNATURE: &str = "/etc/boltseal/bundle.sig";

pub(super) fn cases() -> Vec<Case> {
    // Where a key is pinned no mode reaches these: a policy that is not its authors' would excuse itself.
    let case = |name, says, fault| {
        Case::new(name, "BS-NOD-004", says, fault)
            .code(Code::FailedPrecondition)
            .mend(|world, _| Author::pinned(world)?.apply(1))
            .never_warned()
    };
    vec![
        // These three a policy may say of itself, so that a mode counts, too.
        Case::new("a policy that wants to be signed, and no pinned key", "BS-NOD-004", "bundle.signed", |world, _| {
            bend_policy(world, "bundle.signed", true)
        })
        .code(Code::FailedPrecondition)
        .mend(|world, _| {
            bend_policy(world, "bundle.signed", true)?;
            Author::pinned(world)?.apply(1)
        }),
        Case::new("a policy bundle with no floor under its version", "BS-NOD-004", "no floor", |world, _| {
            Author::pinned_without_floor(world)?.apply(1)
        })
        .code(Code::FailedPrecondition)
        .mend(|world, _| Author::pinned(world)?.apply(1)),
        Case::new("a boot in which nothing was measured", "BS-NOD-004", "bundle.measured", |world, _| {
            bend_policy(world, "bundle.measured", true)
        })
        .code(Code::FailedPrecondition)
        .mend(|world, _| measured(world)),
        case("the policy swapped after it was measured", "policy bundle is not the one measured", |world, _| {
            measured(world)?;
            bend_policy(world, "limits.pids", 512)
        })
        .mend(|world, _| measured(world)),
        case("a swapped policy that says that nothing need be measured", "policy bundle is not the one", |world, _| {
            measured(world)?;
            world.node.policy.write()
        })
        .mend(|world, _| measured(world)),
        case(
            "a program swapped after it was measured",
            "/usr/local/bin/boltseal is not the one measured",
            |world, _| {
                measured(world)?;
                swap_program(world, "other")
            },
        )
        .mend(|world, _| {
            measured(world)?;
            swap_program(world, "")
        }),
        Case::new("something else measured into the PCR of boltseal's own", "BS-NOD-001", "PCR 13", |world, _| {
            measured(world)?;
            tpm::extend(13, &[7; 32])?;
            super::node::forget_verdict()
        })
        .code(Code::FailedPrecondition)
        .mend(|world, _| {
            measured(world)?;
            super::node::forget_verdict()
        }),
        case("the key that signs policies swapped after it was measured", "signing key is not the one", |world, _| {
            let author = Author::pinned(world)?;
            wanted(world)?;
            author.apply(1)?;
            let mallory = Author::new(&world.node.work, "mallory-author")?;
            run(Command::new("boltseal").args(["policy", "trust", "--replace"]).arg(&mallory.public))?;
            fs::copy(mallory.sign(2)?.join("bundle.sig"), SIGNATURE)?;
            Ok(())
        })
        .mend(|world, _| {
            let author = Author::pinned(world)?;
            wanted(world)?;
            author.apply(1)
        }),
        case("a policy bundle that nobody signed", "no signature", |world, _| Author::pinned(world).map(drop)),
        case("an older signed policy bundle put back", "version 1; this node takes 2", |world, _| {
            older(world)?;
            fs::remove_dir_all(LAST)?;
            Ok(())
        }),
        case("an older signed policy bundle, and no note of the floor", "version 1; this node takes 2", |world, _| {
            older(world)?;
            fs::remove_dir_all(LAST)?;
            Ok(fs::remove_file(FLOOR)?)
        }),
        case("an older signed policy bundle in both places", "version 1; this node takes 2", |world, _| {
            older(world)?;
            let (policy, signature) = (Path::new(LAST).join("policy.toml"), Path::new(LAST).join("bundle.sig"));
            fs::copy(policy::FILE, policy)?;
            Ok(fs::copy(SIGNATURE, signature).map(drop)?)
        }),
        // The node's verdict is kept, so that the floor alone is missing.
        case("a signed policy bundle, and its TPM is gone", "the floor under the policy", |world, request| {
            Author::pinned(world)?.apply(1)?;
            super::node::without_tpm(world, request)?;
            Ok(fs::remove_file(FLOOR)?)
        })
        .mend(|world, request| {
            Author::pinned(world)?.apply(1)?;
            super::node::without_tpm(world, request)
        }),
        case("a policy bundle with one byte changed", "other files", |world, _| {
            Author::pinned(world)?.apply(1)?;
            fs::remove_dir_all(LAST)?;
            policy::write(&format!("{}\n", world.node.policy.text()?))
        }),
        case("a policy bundle with a key of somebody else's in trust/", "other files", |world, _| {
            Author::pinned(world)?.apply(1)?;
            fs::remove_dir_all(LAST)?;
            policy::trust("mallory.pub", &world.node.key.public)
        }),
        case("an unsigned policy that says that it need not be signed", "no signature", |world, _| {
            Author::pinned(world)?;
            let mut bent = world.node.policy.clone();
            bent.set("level", "observe")?;
            bent.warn("BS-NOD-004")?;
            bent.write()
        }),
        case("a policy bundle signed by another key", "not by the pinned one", |world, _| {
            Author::pinned(world)?;
            let mallory = Author::new(&world.node.work, "mallory-author")?;
            fs::copy(mallory.sign(1)?.join("bundle.sig"), SIGNATURE)?;
            Ok(())
        }),
        case("a policy bundle whose signature is forged", "does not verify", |world, _| {
            Author::pinned(world)?.apply(1)?;
            fs::remove_dir_all(LAST)?;
            let text = fs::read_to_string(SIGNATURE)?;
            Ok(fs::write(SIGNATURE, text.replace("version 1", "version 2"))?)
        }),
        case("a pinned signing key that anybody may write", "written to by others", |world, _| {
            Author::pinned(world)?.apply(1)?;
            Ok(fs::set_permissions(PIN, fs::Permissions::from_mode(0o666))?)
        }),
        case("a pinned signing key that is none", "boltseal policy trust", |world, _| {
            Author::pinned(world)?.apply(1)?;
            Ok(fs::write(PIN, "")?)
        }),
        // What cannot be read with a key pinned: without a last good bundle, as without a key; with one, that judges.
        case("a signed policy that does not parse, and no last good one", "policy.toml", |world, _| {
            Author::pinned(world)?.apply(1)?;
            fs::remove_dir_all(LAST)?;
            policy::write("version = \n")
        })
        .mend(|world, _| {
            Author::pinned(world)?.apply(1)?;
            policy::write("version = \n")
        }),
    ]
}

/// The policy wants to be measured; what was measured goes with the TPM's next boot.
fn wanted(world: &mut World) -> Result<()> {
    world.undo_later(|world| {
        if Path::new(MEASURED).exists() {
            fs::remove_file(MEASURED)?;
        }
        super::node::new_boot(world)
    });
    bend_policy(world, "bundle.measured", true)
}

/// As `boltseal-attest.service` leaves a boot.
fn measured(world: &mut World) -> Result<()> {
    wanted(world)?;
    run(Command::new("boltseal").args(["node", "attest"])).map(drop)
}

/// Another file in the place of a program: the same bytes and some more.
fn swap_program(world: &mut World, more: &str) -> Result<()> {
    const PROGRAM: &str = "/usr/local/bin/boltseal";
    let kept = format!("{PROGRAM}.kept");
    fs::rename(PROGRAM, &kept)?;
    let mut bytes = fs::read(&kept)?;
    bytes.extend(more.as_bytes());
    fs::write(PROGRAM, bytes)?;
    fs::set_permissions(PROGRAM, fs::Permissions::from_mode(0o755))?;
    world.undo_later(move |_| Ok(fs::rename(kept, PROGRAM)?));
    Ok(())
}

/// Version 2 was in force; version 1 lies there again, signed as it was.
fn older(world: &mut World) -> Result<()> {
    let author = Author::pinned(world)?;
    author.apply(1)?;
    let old = (fs::read(policy::FILE)?, fs::read(SIGNATURE)?);
    bend_policy(world, "limits.pids", 512)?;
    author.apply(2)?;
    fs::write(policy::FILE, old.0)?;
    Ok(fs::write(SIGNATURE, old.1)?)
}

/// Whoever writes policies: a key pair by openssl, and a folder to write in.
struct Author {
    key: PathBuf,
    public: PathBuf,
    folder: PathBuf,
}

impl Author {
    fn new(work: &Path, name: &str) -> Result<Self> {
        let at = |end: &str| work.join(format!("{name}{end}"));
        let author = Self { key: at(".key"), public: at(".pub"), folder: at("") };
        run(Command::new("openssl")
            .args(["genpkey", "-quiet", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"])
            .arg(&author.key))?;
        run(Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&author.key).arg("-out").arg(&author.public))?;
        Ok(author)
    }

    /// A new author whom this node believes, until the case is over; the floor is in the TPM.
    fn pinned(world: &mut World) -> Result<Self> {
        let author = Self::new(&world.node.work, "author")?;
        let tpm = format!("unix:{}", tpm::SOCKET);
        run(Command::new("boltseal").args(["policy", "trust", "--tpm", &tpm]).arg(&author.public))?;
        world.undo_later(forget);
        Ok(author)
    }

    fn pinned_without_floor(world: &mut World) -> Result<Self> {
        let author = Self::new(&world.node.work, "author")?;
        run(Command::new("boltseal").args(["policy", "trust", "--no-floor"]).arg(&author.public))?;
        world.undo_later(forget);
        Ok(author)
    }

    /// What is in force now, signed, in the author's folder.
    fn sign(&self, version: u64) -> Result<PathBuf> {
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder)?;
        }
        run(Command::new("cp").arg("-r").arg(policy::FOLDER).arg(&self.folder))?;
        let signature = self.folder.join("bundle.sig");
        if signature.exists() {
            fs::remove_file(signature)?;
        }
        let number = version.to_string();
        let mut command = Command::new("boltseal");
        command.args(["policy", "sign", "--number", &number, "--key"]).arg(&self.key).arg(&self.folder);
        run(&mut command).map(|_| self.folder.clone())
    }

    fn apply(&self, version: u64) -> Result<()> {
        let folder = self.sign(version)?;
        run(Command::new("boltseal").args(["policy", "apply"]).arg(folder)).map(drop)
    }
}

/// As before: no pin, no signature, the test's own policy.
fn forget(world: &mut World) -> Result<()> {
    let gone = |path: &str| match fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path).with_context(|| path.to_owned()),
        Ok(_) => fs::remove_file(path).with_context(|| path.to_owned()),
    };
    for path in [PIN, LAST, SIGNATURE, FLOOR, "/etc/boltseal/trust/mallory.pub"] {
        gone(path)?;
    }
    world.node.policy.write()
}
