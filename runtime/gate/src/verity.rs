//! Layers as verity devices: what a verified statement names, what of it is here, and what the launch mounts (BS-IMG-002).
use crate::paths;
use boltseal_evidence::file::{Folder, Owner};
use boltseal_launch::{SealedLayer, verity_support};
use boltseal_policy::Fact;
use boltseal_policy::facts::{Facts, Image, Verity, VerityLayer};
use boltseal_policy::{Policy, sealed};
use boltseal_trust::{VERITY, verity_layers};
use std::path::Path;

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

/// The level of the root file system, where somebody whose word counts sealed the image.
pub(crate) fn gather(policy: &Policy, facts: &mut Facts) {
    let Some(layers) = sealed(policy, facts).map(|verity| verity.layers.clone()) else { return };
    let here = all_here(Path::new(paths::VERITY), &layers).and_then(|()| verity_support());
    if let Fact::Is(rootfs) = &mut facts.rootfs {
        rootfs.verity = match here {
            Ok(()) => {
                rootfs.integrity = "dmverity-signed".into();
                Fact::Is(layers)
            }
            Err(why) => Fact::Unknown(why),
        };
    }
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

/// What the launch mounts, top first.
#[derive(Debug, Default)]
pub(crate) struct Mountable {
    pub(crate) lowers: Vec<String>,
    pub(crate) sealed: Option<Vec<SealedLayer>>,
}

pub(crate) fn mountable(facts: &Facts) -> Mountable {
    let Some(rootfs) = facts.rootfs.is() else { return Mountable::default() };
    let sealed = rootfs.verity.is().map(|layers| layers.iter().rev().map(layer).collect());
    Mountable { lowers: rootfs.lowers.clone(), sealed }
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
