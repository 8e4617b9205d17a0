//! What is wrong with the image or with the root file system that it is to become.
use super::Case;
use crate::client::{Code, Mount, Request};
use crate::containerd;
use crate::image::{Image, of_platform};
use crate::node::World;
use crate::policy::trust;
use crate::sign::{Cosign, Key};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

const SIGNATURES: &str = "/var/lib/boltseal/sig/sha256";
/// What openssl makes of each kind.
const RSA: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"];
const P384: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"];
const ED25519: &[&str] = &["-algorithm", "ED25519"];

/// Who signs an image, beside the authority's key.
#[derive(Debug, Clone, Copy)]
enum Signer {
    Authority,
    /// Another key of the same kind.
    Same,
    /// The P-256 key that was the authority's.
    P256,
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("unsigned image", "BS-IMG-001", "signature", no_change)
            .image("unsigned")
            .mend(|world, _| signed(world, "unsigned")),
        Case::new("unsigned image of Docker's schema 2", "BS-IMG-001", "signature", no_change)
            .image("docker")
            .mend(|world, _| signed(world, "docker")),
        Case::new("unsigned index", "BS-IMG-001", "signature", no_change)
            .image("index")
            .mend(|world, _| signed(world, "index")),
        // Either the index is signed, or the manifest that runs here.
        Case::new("of an index, the manifest for another machine is signed", "BS-IMG-001", "signature", |world, _| {
            signed_platform(world, "arm64")
        })
        .image("index")
        .mend(|world, _| signed_platform(world, "amd64")),
        Case::new("signed by a key that nobody named", "BS-IMG-001", "key", no_change)
            .image("wrongkey")
            .mend(|world, _| signed(world, "wrongkey")),
        Case::new("RSA authority, signed by another RSA key (cosign 2)", "BS-IMG-001", "key", |world, _| {
            by_authority(world, RSA, Cosign::V2, Signer::Same)
        })
        .image("unsigned")
        .mend(|world, _| by_authority(world, RSA, Cosign::V2, Signer::Authority)),
        Case::new("RSA authority, signed by another RSA key (cosign 3)", "BS-IMG-001", "key", |world, _| {
            by_authority(world, RSA, Cosign::V3, Signer::Same)
        })
        .image("unsigned")
        .mend(|world, _| by_authority(world, RSA, Cosign::V3, Signer::Authority)),
        Case::new("P-384 authority, signed by a P-256 key (cosign 2)", "BS-IMG-001", "key", |world, _| {
            by_authority(world, P384, Cosign::V2, Signer::P256)
        })
        .image("unsigned")
        .mend(|world, _| by_authority(world, P384, Cosign::V2, Signer::Authority)),
        Case::new("P-384 authority, signed by a P-256 key (cosign 3)", "BS-IMG-001", "key", |world, _| {
            by_authority(world, P384, Cosign::V3, Signer::P256)
        })
        .image("unsigned")
        .mend(|world, _| by_authority(world, P384, Cosign::V3, Signer::Authority)),
        Case::new("Ed25519 authority, signed by another Ed25519 key", "BS-IMG-001", "key", |world, _| {
            by_authority(world, ED25519, Cosign::V2, Signer::Same)
        })
        .image("unsigned")
        .mend(|world, _| by_authority(world, ED25519, Cosign::V2, Signer::Authority)),
        Case::new("the signature is of another image", "BS-IMG-001", "another image", swap_signature)
            .image("swapped")
            .mend(|world, _| signed(world, "swapped")),
        Case::new("an attestation passed off as a signature (cosign 2)", "BS-IMG-001", "signature", no_change)
            .image("attested")
            .mend(|world, _| signed(world, "attested")),
        Case::new("an attestation passed off as a signature (cosign 3)", "BS-IMG-001", "signature", no_change)
            .image("attested3")
            .mend(|world, _| signed(world, "attested3")),
        Case::new("manifest altered in the content store", "BS-IMG-001", "other bytes", |world, request| {
            alter(world, request, |world| Ok(world.node.images.get("app")?.manifest.clone()))
        }),
        Case::new("image config altered in the content store", "BS-IMG-001", "digest", |world, request| {
            alter(world, request, |world| Ok(world.node.images.get("app")?.config.clone()))
        }),
        Case::new("re-tagged between create and start", "BS-IMG-002", "", |world, _| {
            world.undo_later(|world| retag(world, "app", "app"));
            Ok(())
        })
        .between(|world, _| retag(world, "app", "other")),
        Case::new("upper folder filled beforehand", "BS-IMG-002", "upper", no_change).between(fill_upper),
        Case::new("foreign lower folder", "BS-IMG-002", "", |_, request| {
            request.rootfs = |mounts| option(mounts, "lowerdir=", |lower| format!("/etc:{lower}"));
            Ok(())
        }),
        Case::new("bind mount as root file system", "BS-IMG-002", "", |_, request| {
            request.rootfs = |mounts| {
                *mounts = vec![Mount {
                    r#type: "bind".into(),
                    source: "/usr".into(),
                    options: vec!["rbind".into(), "ro".into()],
                    ..Mount::default()
                }];
            };
            Ok(())
        }),
        Case::new("unknown mount option", "BS-IMG-002", "", |_, request| {
            request.rootfs = |mounts| {
                if let Some(mount) = mounts.first_mut() {
                    mount.options.push("redirect_dir=on".into());
                }
            };
            Ok(())
        }),
        Case::new("snapshot of another image", "BS-IMG-002", "", |world, request| {
            request.parent = world.node.images.get("other")?.chain_id.clone();
            Ok(())
        }),
        Case::new("/dev of the image is a symlink", "BS-IMG-002", "/dev", no_change).image("devlink").mend(
            |world, request| {
                let other = world.node.images.get("other")?;
                request.image = other.name.clone();
                request.parent = other.chain_id.clone();
                Ok(())
            },
        ),
        Case::new("policy asks for more integrity than unpacked files have", "BS-IMG-002", "unpacked", |world, _| {
            bend_policy(world, "image.integrity", "fsverity")
        }),
        Case::new("registry that is not on the list", "BS-IMG-003", "elsewhere", |world, _| elsewhere(world, false))
            .image("elsewhere")
            .mend(|world, _| elsewhere(world, true)),
        Case::new("image by a digest that the policy denies", "BS-IMG-001", "deny_digests", |world, _| {
            let digest = world.node.images.get("app")?.manifest.clone();
            bend_policy(world, "image.deny_digests", vec![digest])
        }),
        Case::new("restore from a checkpoint", "BS-PRC-005", "checkpoint", checkpoint).code(Code::PermissionDenied),
    ]
}

fn no_change(_: &mut World, _: &mut Request) -> Result<()> {
    Ok(())
}

/// Signs with the key that the policy names; undone afterwards.
fn signed(world: &mut World, name: &str) -> Result<()> {
    let (image, key) = (world.node.images.get(name)?.clone(), world.node.key.clone());
    signed_by(world, &image, &[&key], Cosign::V2)
}

/// Signs one manifest of the index.
fn signed_platform(world: &mut World, architecture: &str) -> Result<()> {
    let (image, key) = (of_platform(world.node.images.get("index")?, architecture)?, world.node.key.clone());
    signed_by(world, &image, &[&key], Cosign::V2)
}

/// The authority gets a key of this kind, and somebody signs.
fn by_authority(world: &mut World, kind: &[&str], cosign: Cosign, signer: Signer) -> Result<()> {
    let authority = Key::import(&world.node.work, "authority", kind)?;
    let signer = match signer {
        Signer::Authority => authority.clone(),
        Signer::Same => Key::import(&world.node.work, "same-kind", kind)?,
        Signer::P256 => world.node.key.clone(),
    };
    trust("ci.pub", &authority.public)?;
    world.undo_later(|world| trust("ci.pub", &world.node.key.public));
    let image = fresh_copy(world)?;
    signed_by(world, &image, &[&signer], cosign)
}

/// A copy of the unsigned image under a name that no other has, so that no signature of an earlier case is found beside this one.
pub(super) fn fresh_copy(world: &World) -> Result<Image> {
    let mut image = world.node.images.get("unsigned")?.clone();
    let from = format!("docker://{}@{}", image.repository, image.manifest);
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    image.repository = format!("{}-{now}", image.repository);
    let mut copy = Command::new("skopeo");
    copy.args(["--insecure-policy", "copy", "--quiet", "--preserve-digests"]);
    copy.args(["--src-tls-verify=false", "--dest-tls-verify=false", &from]);
    crate::process::run(copy.arg(format!("docker://{}:1", image.repository)))?;
    Ok(image)
}

pub(super) fn signed_by(world: &mut World, image: &Image, keys: &[&Key], cosign: Cosign) -> Result<()> {
    store_anew(world, image)?;
    for key in keys {
        key.sign(cosign, image)?;
    }
    world.node.import(image)
}

/// Empties the image's folder of signatures until the case is over.
pub(super) fn store_anew(world: &mut World, image: &Image) -> Result<()> {
    let folder = Path::new(SIGNATURES).join(image.hex());
    let kept = Path::new("/var/lib/kept-signatures").to_path_buf();
    if folder.exists() {
        fs::rename(&folder, &kept)?;
    }
    world.undo_later(move |_| {
        fs::remove_dir_all(&folder)?;
        if kept.exists() {
            fs::rename(kept, folder)?;
        }
        Ok(())
    });
    Ok(())
}

/// A policy whose key may sign for the other registry path, which is on the list of registries or not.
fn elsewhere(world: &mut World, listed: bool) -> Result<()> {
    let prefix = format!("{}/elsewhere", crate::registry::ADDRESS);
    let mut policy = world.node.policy.clone();
    policy.authorize("ci", &prefix)?;
    policy.push("scope", toml::from_str(&format!("repository = \"{prefix}\"\nauthorities = [\"ci\"]"))?)?;
    if listed {
        policy.set("registries.allow", vec![prefix])?;
    }
    policy.write()?;
    world.undo_later(|world| world.node.policy.write());
    Ok(())
}

/// Files the good signature of `app` under the other image's digest.
fn swap_signature(world: &mut World, _: &mut Request) -> Result<()> {
    let from = Path::new(SIGNATURES).join(world.node.images.get("app")?.hex());
    let to = Path::new(SIGNATURES).join(world.node.images.get("swapped")?.hex());
    crate::process::run(Command::new("cp").arg("-a").arg(from).arg(&to))?;
    world.undo_later(|world| {
        let to = Path::new(SIGNATURES).join(world.node.images.get("swapped")?.hex());
        fs::remove_dir_all(to).context("swapped signature")
    });
    Ok(())
}

pub(super) fn blob(digest: &str) -> PathBuf {
    Path::new(containerd::ROOT)
        .join("io.containerd.content.v1.content/blobs/sha256")
        .join(digest.trim_start_matches("sha256:"))
}

/// Changes one space of the blob's JSON: the bytes stay readable, the digest no longer fits.
fn alter(world: &mut World, _: &mut Request, which: fn(&World) -> Result<String>) -> Result<()> {
    let file = blob(&which(world)?);
    let kept = PathBuf::from(format!("{}.kept", file.display()));
    fs::rename(&file, &kept).with_context(|| file.display().to_string())?;
    let text = fs::read_to_string(&kept)?.replacen("\"User\":\"65532:65532\"", "\"User\":\"00000:00000\"", 1);
    let text = text.replacen("\"schemaVersion\":2", "\"schemaVersion\":3", 1);
    fs::write(&file, text)?;
    world.undo_later(|world| {
        for name in ["manifest", "config"] {
            let app = world.node.images.get("app")?;
            let file = blob(if name == "manifest" { &app.manifest } else { &app.config });
            let kept = PathBuf::from(format!("{}.kept", file.display()));
            if kept.exists() {
                fs::rename(kept, file)?;
            }
        }
        Ok(())
    });
    Ok(())
}

fn retag(world: &mut World, name: &str, to: &str) -> Result<()> {
    let name = world.node.images.get(name)?.name.clone();
    // Where the name `to` pointed when it was pulled: by digest, as the name itself may have moved.
    let to = world.node.images.get(to)?;
    let mut image = world.client.image(&name)?;
    let target = image.target.as_mut().context("an image record without target")?;
    target.digest = to.manifest.clone();
    target.size = i64::try_from(fs::metadata(blob(&to.manifest))?.len())?;
    world.client.retag(&name, &image)?;
    Ok(())
}

fn fill_upper(world: &mut World, request: &Request) -> Result<()> {
    let mounts = world.client.mounts(&request.key)?;
    let options = mounts.first().map(|mount| mount.options.clone()).unwrap_or_default();
    let upper = options.iter().find_map(|option| option.strip_prefix("upperdir=")).context("no upper folder")?;
    fs::create_dir_all(Path::new(upper).join("etc"))?;
    fs::write(Path::new(upper).join("etc/passwd"), "evil:x:0:0::/:\n")?;
    Ok(())
}

fn option(mounts: &mut [Mount], prefix: &str, change: fn(&str) -> String) {
    for mount in mounts {
        for option in &mut mount.options {
            if let Some(value) = option.strip_prefix(prefix) {
                *option = format!("{prefix}{}", change(value));
            }
        }
    }
}

/// Another value in the policy, until the case is over.
pub(super) fn bend_policy(world: &mut World, key: &str, value: impl Into<toml::Value>) -> Result<()> {
    let mut policy = world.node.policy.clone();
    policy.set(key, value)?;
    policy.write()?;
    world.undo_later(|world| world.node.policy.write());
    Ok(())
}

/// A checkpoint that is none, but that containerd takes for one: it unpacks it before it asks the shim, so it is a real
/// archive, an empty one.
pub fn checkpoint(world: &mut World, request: &mut Request) -> Result<()> {
    let tar = [0; 10240];
    let file = world.node.work.join("empty.tar");
    fs::write(&file, tar)?;
    let digest = crate::image::sha256(&tar);
    // Nothing names it: the garbage collector takes it when it comes by before the label does.
    crate::process::poll("the checkpoint does not stay", std::time::Duration::from_secs(10), || {
        let ctr = |args: &[&str]| -> Option<std::process::ExitStatus> {
            let mut ctr = world.containerd.ctr(crate::node::NAMESPACE);
            let tar = fs::File::open(&file).ok()?;
            Some(ctr.args(args).stdin(tar).output().ok()?.status)
        };
        // It fails where the content is there already; the label decides.
        ctr(&["content", "ingest", "empty-checkpoint"])?;
        ctr(&["content", "label", &digest, "containerd.io/gc.root=test"])?.success().then_some(())
    })?;
    request.checkpoint = Some(crate::client::Descriptor {
        media_type: "application/vnd.containerd.container.criu.checkpoint.criu.tar".into(),
        digest,
        size: i64::try_from(tar.len())?,
        ..crate::client::Descriptor::default()
    });
    Ok(())
}
