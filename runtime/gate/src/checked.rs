//! Layers that the kernel compares with digests of this node's own: containerd mounted them from files with fs-verity, or somebody
//! from verity devices (BS-IMG-002). A plain folder is no such layer, and what is not understood is none.
use boltseal_launch::{CheckedBy, checked_layer};
use boltseal_policy::Fact;
use boltseal_policy::facts::{CheckedLayer, Facts, Rootfs};
use std::path::Path;

/// The level of a root file system whose layers nobody sealed, or whose seal is of no use here.
pub(crate) fn gather(facts: &mut Facts) {
    let Fact::Is(rootfs) = &mut facts.rootfs else { return };
    // Of a form that is not known nothing is mounted.
    if rootfs.verity.is().is_some() || !rootfs.unknown_form.is_empty() || !rootfs.mounts_match {
        return;
    }
    look(rootfs, |folder| {
        let layer = checked_layer(Path::new(folder))?;
        Ok(layer.map(|layer| (layer.by, layer.digest)))
    });
}

type Looked = Result<Option<(CheckedBy, String)>, String>;

/// What compares the bytes of each lower folder. All of them, or it counts for nothing; the weakest is the level.
fn look(rootfs: &mut Rootfs, one: impl Fn(&str) -> Looked) {
    let mut layers = Vec::new();
    for (index, folder) in rootfs.lowers.iter().enumerate() {
        // As everywhere: the lowest is 0.
        let number = rootfs.lowers.len() - 1 - index;
        match one(folder) {
            Ok(Some((by, digest))) => {
                layers.push(CheckedLayer { folder: folder.clone(), level: level(by).into(), digest });
            }
            // An image that was unpacked into folders: nothing is wrong with it.
            Ok(None) if layers.is_empty() => return,
            Ok(None) => {
                rootfs.checked = Fact::Unknown(format!("layer {number} is a plain folder"));
                return;
            }
            Err(why) => {
                rootfs.checked = Fact::Unknown(format!("layer {number}: {why}"));
                return;
            }
        }
    }
    let by = |by: CheckedBy| layers.iter().any(|layer| layer.level == level(by));
    let weakest = [CheckedBy::FsVerity, CheckedBy::DmVerity].into_iter().find(|one| by(*one));
    if let Some(weakest) = weakest {
        rootfs.integrity = level(weakest).into();
        rootfs.checked = Fact::Is(layers);
    }
}

fn level(by: CheckedBy) -> &'static str {
    match by {
        CheckedBy::FsVerity => "fsverity",
        CheckedBy::DmVerity => "dmverity-local",
    }
}

fn by(level: &str) -> Option<CheckedBy> {
    [CheckedBy::FsVerity, CheckedBy::DmVerity].into_iter().find(|by| self::level(*by) == level)
}

/// What the kernel compares each layer with, lowest first, for the record of a start.
pub(crate) fn digests(facts: &Facts) -> Vec<String> {
    match facts.rootfs.is().map(|rootfs| (&rootfs.verity, &rootfs.checked)) {
        Some((Fact::Is(layers), _)) => layers.iter().map(|layer| format!("sha256:{}", layer.root_hash)).collect(),
        Some((_, Fact::Is(layers))) => layers.iter().rev().map(|layer| layer.digest.clone()).collect(),
        _ => Vec::new(),
    }
}

/// What the launch must find once more, top first.
pub(crate) fn layers(facts: &Facts) -> Option<Vec<boltseal_launch::CheckedLayer>> {
    let approved = |layer: &CheckedLayer| {
        let (folder, digest) = (layer.folder.clone().into(), layer.digest.clone());
        by(&layer.level).map(|by| boltseal_launch::CheckedLayer { folder, by, digest })
    };
    facts.rootfs.is()?.checked.is().and_then(|layers| layers.iter().map(approved).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked(answers: &[Looked]) -> (String, Fact<Vec<CheckedLayer>>) {
        let lowers: Vec<String> = (0..answers.len()).rev().map(|n| format!("/s/{n}/fs")).collect();
        let (integrity, checked) = ("unpacked".to_owned(), Fact::Absent);
        let mut rootfs = Rootfs { integrity, checked, lowers: lowers.clone(), ..Rootfs::default() };
        let answer = |folder: &str| answers[lowers.iter().position(|lower| lower == folder).unwrap()].clone();
        look(&mut rootfs, answer);
        (rootfs.integrity, rootfs.checked)
    }

    #[test]
    fn the_weakest_layer_is_the_level() {
        let has = |by, n: char| Ok(Some((by, format!("sha256:{n}"))));
        let (file, device) = (|n| has(CheckedBy::FsVerity, n), |n| has(CheckedBy::DmVerity, n));
        let level = |answers: &[Looked]| looked(answers).0;
        assert_eq!(level(&[file('a'), file('b')]), "fsverity");
        assert_eq!(level(&[device('a'), device('b')]), "dmverity-local");
        assert_eq!(level(&[device('a'), file('b')]), "fsverity");
        assert_eq!(level(&[file('a'), device('b')]), "fsverity");
        let why = |answers: &[Looked]| match looked(answers) {
            (level, Fact::Unknown(why)) if level == "unpacked" => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(why(&[file('a'), Ok(None)]), "layer 0 is a plain folder");
        assert_eq!(why(&[file('a'), Err("no digest".into())]), "layer 0: no digest");
        assert_eq!(why(&[Err("no digest".into()), file('a')]), "layer 1: no digest");
        for plain in [vec![], vec![Ok(None)], vec![Ok(None), file('a')]] {
            assert_eq!(looked(&plain), ("unpacked".into(), Fact::Absent));
        }
    }

    /// In the record the lowest comes first; the launch gets them as overlay takes them.
    #[test]
    fn what_is_recorded_and_what_is_launched() {
        let answers =
            [Ok(Some((CheckedBy::DmVerity, "sha256:t".into()))), Ok(Some((CheckedBy::DmVerity, "sha256:b".into())))];
        let (integrity, checked) = looked(&answers);
        let lowers = vec!["/s/1/fs".to_owned(), "/s/0/fs".to_owned()];
        let mut facts = boltseal_policy::fixture::facts();
        facts.rootfs = Fact::Is(Rootfs { integrity, checked, lowers, ..Rootfs::default() });
        assert_eq!(digests(&facts), ["sha256:b", "sha256:t"]);
        let launched = layers(&facts).unwrap();
        let found: Vec<_> = launched.iter().map(|l| (l.folder.to_str().unwrap(), l.by, l.digest.as_str())).collect();
        let expected = [("/s/1/fs", CheckedBy::DmVerity, "sha256:t"), ("/s/0/fs", CheckedBy::DmVerity, "sha256:b")];
        assert_eq!(found, expected);
    }
}
