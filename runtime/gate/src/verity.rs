//! Layers as verity devices: what a verified statement names, what of it is here, and what the launch mounts (BS-IMG-002).
use crate::paths;
use boltseal_evidence::file::{Folder, Owner};
use boltseal_evidence::rootfs::unsafe_roots;
use boltseal_launch::{Rootfs, SealedLayer, SealedMount, set_up_sealed, verity_support};
use boltseal_policy::Fact;
use boltseal_policy::facts::{self, Facts, Image, Verity, VerityLayer};
use boltseal_policy::{Policy, sealed};
use boltseal_trust::{VERITY, verity_layers};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Reads the statement that `authority` signed about this image, if it is of that kind. Fixed code over verified bytes.
pub(crate) fn read(
    image: &mut Image,
    authority: &str,
    found: &boltseal_trust::Attestation,
    statement: &[u8],
) -> Result<(), &'static str> {
    if found.predicate_type != VERITY {
        return Ok(());
    }
    let layers = verity_layers(statement)?.into_iter().map(|layer| VerityLayer {
        diff_id: layer.diff_id.to_string(),
        blob: layer.blob.to_string(),
        size: layer.size,
        hash_offset: layer.hash_offset,
        root_hash: layer.root_hash.hex(),
    });
    let layers = layers.collect();
    image.verity.push(Verity { authority: authority.to_owned(), statement: found.statement.to_string(), layers });
    Ok(())
}

/// The level of the root file system, where somebody whose word counts sealed the image: its layers, set up and top first, and what is
/// to be known of them looked at there. What containerd unpacked is nothing that this container will see.
pub(crate) fn gather(policy: &Policy, facts: &mut Facts, deadline: Instant) -> Option<Vec<SealedMount>> {
    let named = sealed(policy, facts)?.layers.clone();
    let Fact::Is(rootfs) = &mut facts.rootfs else { return None };
    let mounts = all_here(Path::new(paths::VERITY), &named).and_then(|()| {
        let layers: Vec<_> = named.iter().rev().map(layer).collect();
        // Why a kernel cannot is not what the one call said that it failed at.
        set_up_sealed(&layers, deadline).map_err(|e| verity_support().err().unwrap_or_else(|| e.to_string()))
    });
    match mounts.and_then(|mounts| Ok((roots(&mounts)?, mounts))) {
        Ok((roots, mounts)) => {
            rootfs.integrity = "dmverity-signed".into();
            rootfs.verity = Fact::Is(named);
            rootfs.unsafe_roots = roots;
            Some(mounts)
        }
        Err(why) => {
            rootfs.verity = Fact::Unknown(why);
            None
        }
    }
}

fn roots(mounts: &[SealedMount]) -> Result<Vec<String>, String> {
    let folder = |mount: &SealedMount| {
        let fd = mount.root().try_clone_to_owned().map_err(|e| format!("a sealed layer cannot be held: {e}"))?;
        Ok(Folder { fd, path: PathBuf::from("/") })
    };
    mounts.iter().map(folder).collect::<Result<Vec<_>, String>>().map(|layers| unsafe_roots(&layers))
}

/// Whether there is a file for each. Of its bytes only the kernel tells, when they are read.
fn all_here(folder: &Path, layers: &[VerityLayer]) -> Result<(), String> {
    let folder = Folder::open(folder, Owner::Root).map_err(|problem| problem.to_string())?;
    for layer in layers {
        // Few characters, or the reason would be what a finding and the CRI cut off.
        let name = hex(&layer.blob);
        let short = name.get(..12).unwrap_or(name);
        let stat = folder.stat(name).map_err(|problem| format!("sealed layer {short} {}", problem.fact))?;
        if u64::try_from(stat.st_size) != Ok(layer.size) {
            return Err(format!("sealed layer {short} has {} bytes, signed are {}", stat.st_size, layer.size));
        }
    }
    Ok(())
}

fn hex(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or_default()
}

/// What the launch mounts: a sealed image is never mounted from folders.
pub(crate) fn mountable<'a>(rootfs: Option<&'a facts::Rootfs>, mounts: Option<&'a [SealedMount]>) -> Rootfs<'a> {
    let no_layer: &[SealedMount] = &[];
    let none = rootfs.filter(|rootfs| rootfs.verity.is().is_some()).map(|_| no_layer);
    Rootfs { lowers: rootfs.map_or(&[], |rootfs| &rootfs.lowers), sealed: mounts.or(none), checked: None }
}

fn layer(layer: &VerityLayer) -> SealedLayer {
    SealedLayer {
        file: Path::new(paths::VERITY).join(hex(&layer.blob)),
        size: layer.size,
        hash_offset: layer.hash_offset,
        root_hash: layer.root_hash.clone(),
        salt: hex(&layer.diff_id).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_image_is_never_mounted_from_folders() {
        let rootfs = facts::Rootfs { lowers: vec!["/x".into()], ..facts::Rootfs::default() };
        assert!(mountable(Some(&rootfs), None).sealed.is_none());
        let sealed = facts::Rootfs { verity: Fact::Is(Vec::new()), ..rootfs };
        assert!(mountable(Some(&sealed), None).sealed.is_some_and(<[_]>::is_empty));
        assert!(mountable(None, None).lowers.is_empty());
    }

    #[test]
    fn a_layer_that_is_not_here_is_named_before_any_text_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let layer = |size| VerityLayer {
            diff_id: format!("sha256:{}", "a".repeat(64)),
            blob: format!("sha256:{}", "b".repeat(64)),
            size,
            hash_offset: 4096,
            root_hash: "c".repeat(64),
        };
        let said = |size| all_here(dir.path(), &[layer(size)]);
        assert_eq!(said(9).unwrap_err(), "sealed layer bbbbbbbbbbbb does not exist");
        std::fs::write(dir.path().join("b".repeat(64)), [0; 8]).unwrap();
        assert_eq!(said(9).unwrap_err(), "sealed layer bbbbbbbbbbbb has 8 bytes, signed are 9");
        assert_eq!(said(8), Ok(()));
        assert!(all_here(&dir.path().join("none"), &[layer(8)]).unwrap_err().contains("does not exist"));
    }
}
