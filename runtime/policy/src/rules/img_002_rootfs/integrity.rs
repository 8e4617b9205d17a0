//! BS-IMG-002: how firmly the bytes are bound to the signature, and what shows it.
use super::super::{Ctx, Identity, img_001_signature, scope_of};
use super::RULE;
use crate::facts::{CheckedLayer, Door, Fact, Facts, Image, Rootfs, Verity};
use crate::pattern;
use crate::policy::{INTEGRITY, Policy};
use crate::text;
use crate::verdict::Finding;

/// What the facts say of the level is believed only with what shows it.
pub(super) fn judge(ctx: &Ctx<'_>, r: &Rootfs) -> Option<Finding> {
    let node = ctx.policy.image.integrity.as_str();
    let needs =
        ctx.scope.map(|scope| scope.integrity.as_str()).filter(|level| rank(level) > rank(node)).unwrap_or(node);
    let shown = match (r.integrity.as_str(), &r.verity, &r.checked) {
        (SIGNED, Fact::Is(layers), Fact::Absent | Fact::Unknown(_)) => {
            sealed(ctx.policy, ctx.facts).is_some_and(|verity| verity.layers == *layers)
        }
        (level, Fact::Absent | Fact::Unknown(_), Fact::Is(layers)) => weakest(r, layers) == Some(level),
        (UNPACKED, Fact::Absent | Fact::Unknown(_), Fact::Absent | Fact::Unknown(_)) => true,
        _ => false,
    };
    if shown && rank(&r.integrity).zip(rank(needs)).is_some_and(|(has, needs)| has >= needs) {
        return None;
    }
    let fact = format!("integrity is \"{}\", the policy demands \"{}\"", text::show(&r.integrity), text::show(needs));
    // The reason first: the CRI shows no more than a finding's beginning.
    let because = |why: &str| format!("{}: {fact}", text::show(why));
    Some(match (&r.verity, &r.checked) {
        _ if !shown => RULE.deny("integrity", format!("{fact}; nothing shows that level")),
        (Fact::Unknown(why), _) => RULE.deny_fix(
            "not-mountable",
            because(why),
            "boltseal sig import its layers; boltseal doctor tells what this kernel lacks",
        ),
        (_, Fact::Unknown(why)) => RULE.deny_fix("integrity", because(why), remedy(needs)),
        _ => RULE.deny_fix("integrity", fact, remedy(needs)),
    })
}

fn rank(level: &str) -> Option<usize> {
    INTEGRITY.iter().position(|known| *known == level)
}

/// The level of the weakest, where these are the lower folders, each with a digest.
fn weakest<'a>(r: &Rootfs, layers: &'a [CheckedLayer]) -> Option<&'a str> {
    let whole = layers.iter().map(|layer| &layer.folder).eq(&r.lowers);
    let local = |layer: &CheckedLayer| [FSVERITY, LOCAL].contains(&layer.level.as_str()) && layer.digest.contains(':');
    let weakest = layers.iter().map(|layer| layer.level.as_str()).min_by_key(|level| rank(level));
    weakest.filter(|_| whole && layers.iter().all(local))
}

/// What reaches a level: for each the least that somebody has to do.
fn remedy(level: &str) -> &'static str {
    match level {
        FSVERITY => {
            "unpack it with containerd's erofs snapshotter and enable_fsverity; or boltseal image seal it; or demand less"
        }
        LOCAL => "mount its layers from verity devices (integrity.md); or boltseal image seal it; or demand less",
        _ => "boltseal image seal the image, then boltseal sig import; or demand less",
    }
}

const UNPACKED: &str = "unpacked";
const FSVERITY: &str = "fsverity";
const LOCAL: &str = "dmverity-local";
const SIGNED: &str = "dmverity-signed";

/// The statement that says, for this very image, which verity device each of its layers is: by an authority that the scope
/// of the signed repository names and that may sign there now. A pinned image needs a signature for it too.
#[must_use]
pub fn sealed<'a>(policy: &Policy, facts: &'a Facts) -> Option<&'a Verity> {
    let image = facts.image.is().filter(|_| facts.door == Door::Create)?;
    let Identity::Signed(signed) = img_001_signature::by_signatures(policy, facts, image) else { return None };
    let scope = scope_of(policy, &signed.repository)?;
    let counts = |verity: &&Verity| {
        let authority = policy.authorities.iter().find(|a| a.name == verity.authority);
        scope.authorities.contains(&verity.authority)
            && whole(verity, image)
            && authority.is_some_and(|a| {
                let dated = !a.is_dated() || facts.now.is().is_some_and(|now| a.closed(*now).is_none());
                dated
                    && a.takes(None)
                    && a.repositories.iter().any(|prefix| pattern::covers(prefix, &signed.repository))
            })
    };
    image.verity.iter().find(counts)
}

/// Every layer of the image in its order, and no other.
fn whole(verity: &Verity, image: &Image) -> bool {
    !image.layers.is_empty() && verity.layers.iter().map(|layer| &layer.diff_id).eq(&image.layers)
}

#[cfg(test)]
mod tests {
    use super::super::super::outcomes;
    use super::super::check;
    use super::*;
    use crate::facts::VerityLayer;
    use crate::fixture;
    use crate::policy::Authority;

    /// Facts of a sealed image, as the gate gives them.
    fn sealed_facts() -> Facts {
        let mut facts = fixture::facts();
        let mut layers = Vec::new();
        if let Fact::Is(image) = &mut facts.image {
            image.layers = vec![fixture::digest('1'), fixture::digest('2')];
            layers = image.layers.iter().map(|diff_id| layer(diff_id)).collect();
            let authority = image.signatures[0].authority.clone();
            image.verity = vec![Verity { authority, statement: fixture::digest('3'), layers: layers.clone() }];
        }
        if let Fact::Is(r) = &mut facts.rootfs {
            (r.integrity, r.verity) = (SIGNED.into(), Fact::Is(layers));
        }
        facts
    }

    fn layer(diff_id: &str) -> VerityLayer {
        let (diff_id, blob, root_hash) = (diff_id.to_owned(), fixture::digest('b'), "c".repeat(64));
        VerityLayer { diff_id, blob, size: 12288, hash_offset: 4096, root_hash }
    }

    fn of(policy: &Policy, change: impl Fn(&mut Image, &mut Rootfs)) -> Vec<String> {
        let mut facts = sealed_facts();
        if let (Fact::Is(image), Fact::Is(r)) = (&mut facts.image, &mut facts.rootfs) {
            change(image, r);
        }
        outcomes(&RULE, policy, &facts)
    }

    fn unsealed(r: &mut Rootfs) {
        (r.integrity, r.verity) = (UNPACKED.into(), Fact::Absent);
    }

    /// Facts of a root file system of two layers at these levels, top first.
    fn checked(r: &mut Rootfs, levels: [&str; 2]) {
        r.lowers = vec!["/s/2/fs".into(), "/s/1/fs".into()];
        let layer = |(folder, level): (&String, &str)| {
            let (folder, level, digest) = (folder.clone(), level.to_owned(), fixture::digest('5'));
            CheckedLayer { folder, level, digest }
        };
        r.checked = Fact::Is(r.lowers.iter().zip(levels).map(layer).collect());
        let weakest = levels.into_iter().min_by_key(|level| rank(level));
        (r.integrity, r.verity) = (weakest.unwrap_or_default().into(), Fact::Absent);
    }

    /// Every level against every demand, of the node and of the scope.
    #[test]
    fn each_level_against_each_demand() {
        let has = |level: &str, r: &mut Rootfs| match level {
            SIGNED => {}
            UNPACKED => unsealed(r),
            level => checked(r, [level; 2]),
        };
        for (n, demanded) in INTEGRITY.into_iter().enumerate() {
            for (m, level) in INTEGRITY.into_iter().enumerate() {
                let expected = if m >= n { ["pass"] } else { ["deny integrity"] };
                let mut policy = fixture::policy();
                policy.image.integrity = demanded.into();
                assert_eq!(of(&policy, |_, r| has(level, r)), expected, "{demanded}, {level}");
                policy.image.integrity = UNPACKED.into();
                policy.scopes.iter_mut().for_each(|scope| scope.integrity = demanded.into());
                assert_eq!(of(&policy, |_, r| has(level, r)), expected, "{demanded} of the scope, {level}");
            }
        }
    }

    #[test]
    fn layers_that_the_node_itself_checks() {
        let mut policy = fixture::policy();
        policy.image.integrity = FSVERITY.into();
        // The weakest of the layers.
        for (levels, level) in [([FSVERITY, LOCAL], FSVERITY), ([LOCAL, FSVERITY], FSVERITY), ([LOCAL, LOCAL], LOCAL)] {
            assert_eq!(of(&policy, |_, r| checked(r, levels)), ["pass"]);
            assert_eq!(
                of(&policy, |_, r| {
                    checked(r, levels);
                    assert_eq!(r.integrity, level);
                }),
                ["pass"]
            );
        }
        let faults: [fn(&mut Rootfs); 9] = [
            |r| r.integrity = LOCAL.into(),
            |r| r.integrity = SIGNED.into(),
            |r| r.integrity = UNPACKED.into(),
            |r| r.checked = Fact::Absent,
            |r| r.checked = Fact::Is(Vec::new()),
            |r| r.lowers.reverse(),
            |r| r.lowers.push("/s/0/fs".into()),
            |r| checked(r, [FSVERITY, UNPACKED]),
            |r| {
                if let Fact::Is(layers) = &mut r.checked {
                    layers[0].digest.clear();
                }
            },
        ];
        for (n, fault) in faults.into_iter().enumerate() {
            let with = |r: &mut Rootfs| {
                checked(r, [FSVERITY; 2]);
                fault(r);
            };
            assert_eq!(of(&policy, |_, r| with(r)), ["deny integrity"], "fault {n}");
        }
        // A seal and the node's own digests are not of one launch.
        let both = |r: &mut Rootfs| {
            let verity = r.verity.clone();
            checked(r, [LOCAL; 2]);
            (r.verity, r.integrity) = (verity, SIGNED.into());
        };
        assert_eq!(of(&policy, |_, r| both(r)), ["deny integrity"]);
        // What could not be read is no level, and where none is demanded no obstacle; the reason comes first.
        let unread = |r: &mut Rootfs| {
            unsealed(r);
            r.checked = Fact::Unknown("/s/2/fs: its file has no fs-verity digest".into());
        };
        assert_eq!(of(&policy, |_, r| unread(r)), ["deny integrity"]);
        let mut facts = sealed_facts();
        if let Fact::Is(r) = &mut facts.rootfs {
            unread(r);
        }
        let found = check(&Ctx::new(&policy, &facts));
        assert!(found[0].fact.starts_with("/s/2/fs: its file has no fs-verity digest: integrity is"), "{found:?}");
        policy.image.integrity = UNPACKED.into();
        assert_eq!(of(&policy, |_, r| unread(r)), ["pass"]);
        // A seal that cannot be mounted leaves what the node's own digests are worth.
        policy.image.integrity = FSVERITY.into();
        let cannot = |r: &mut Rootfs| {
            checked(r, [FSVERITY; 2]);
            r.verity = Fact::Unknown("no dm-verity in this kernel".into());
        };
        assert_eq!(of(&policy, |_, r| cannot(r)), ["pass"]);
        policy.image.integrity = SIGNED.into();
        assert_eq!(of(&policy, |_, r| cannot(r)), ["deny not-mountable"]);
    }

    /// The remedy speaks of the level that is demanded.
    #[test]
    fn a_remedy_for_each_level() {
        for (level, word) in [(FSVERITY, "enable_fsverity"), (LOCAL, "verity devices"), (SIGNED, "sig import")] {
            let mut policy = fixture::policy();
            policy.image.integrity = level.into();
            let found = check(&Ctx::new(&policy, &fixture::facts())).remove(0);
            assert!(found.fix.contains(word) && found.fact.contains(level), "{found:?}");
        }
    }

    #[test]
    fn sealed_layers() {
        let mut policy = fixture::policy();
        // A level that nobody demands is still to be shown; without it the image starts from its folders.
        for level in ["unpacked", "fsverity", "dmverity-local", SIGNED] {
            policy.image.integrity = level.into();
            let demanded = level != "unpacked";
            assert_eq!(of(&policy, |_, _| {}), ["pass"], "{level}");
            let without = if demanded { ["deny integrity"] } else { ["pass"] };
            assert_eq!(of(&policy, |_, r| unsealed(r)), without, "{level}");
            let faults: [fn(&mut Image, &mut Rootfs); 8] = [
                |_, r| r.verity = Fact::Absent,
                |_, r| r.integrity = "unpacked".into(),
                |i, _| i.verity.clear(),
                |i, _| i.verity[0].authority = "nobody".into(),
                |i, _| i.layers.reverse(),
                |i, _| i.layers.push(fixture::digest('4')),
                |i, _| i.layers.truncate(1),
                |i, _| i.verity[0].layers[0].root_hash = "d".repeat(64),
            ];
            for (n, fault) in faults.into_iter().enumerate() {
                assert_eq!(of(&policy, fault), ["deny integrity"], "{level}, fault {n}");
            }
            let cannot = |r: &mut Rootfs| {
                unsealed(r);
                r.verity = Fact::Unknown("no dm-verity in this kernel".into());
            };
            let without = if demanded { ["deny not-mountable"] } else { ["pass"] };
            assert_eq!(of(&policy, |_, r| cannot(r)), without, "{level}");
            if demanded {
                let mut facts = sealed_facts();
                if let Fact::Is(r) = &mut facts.rootfs {
                    cannot(r);
                }
                let found = check(&Ctx::new(&policy, &facts));
                assert!(
                    found.iter().any(|f| f.fact.starts_with("no dm-verity in this kernel: integrity")),
                    "{found:?}"
                );
            }
        }
        // The scope may demand more than the node, never less.
        policy.image.integrity = "unpacked".into();
        policy.scopes.iter_mut().for_each(|scope| scope.integrity = SIGNED.into());
        assert_eq!(of(&policy, |_, r| unsealed(r)), ["deny integrity"]);
        assert_eq!(of(&policy, |_, _| {}), ["pass"]);
        policy.image.integrity = SIGNED.into();
        policy.scopes.iter_mut().for_each(|scope| scope.integrity = "unpacked".into());
        assert_eq!(of(&policy, |_, r| unsealed(r)), ["deny integrity"]);
    }

    /// A level that is claimed and not shown is told as that, whatever else is wrong.
    #[test]
    fn a_level_that_nothing_shows() {
        let policy = fixture::policy();
        assert_eq!(of(&policy, |_, r| r.verity = Fact::Unknown("no dm-verity".into())), ["deny integrity"]);
        let mut facts = sealed_facts();
        if let Fact::Is(r) = &mut facts.rootfs {
            r.verity = Fact::Absent;
        }
        let found = check(&Ctx::new(&policy, &facts)).remove(0);
        assert!(found.fact.ends_with("nothing shows that level"), "{found:?}");
    }

    /// Each condition of the sealer's own: who signed the image meets them all.
    #[test]
    fn a_sealer_may_seal_here_and_now() {
        let with = |change: &dyn Fn(&mut Authority, &mut Facts)| {
            let (mut policy, mut facts) = (fixture::policy(), sealed_facts());
            let Fact::Is(image) = &mut facts.image else { panic!() };
            let signer = std::mem::replace(&mut image.verity[0].authority, "sealer".into());
            let mut sealer = policy.authorities.iter().find(|a| a.name == signer).unwrap().clone();
            sealer.name = "sealer".into();
            change(&mut sealer, &mut facts);
            policy.authorities.push(sealer);
            let nobody = sealed(&policy, &facts);
            assert!(nobody.is_none(), "no scope names it");
            policy.scopes.iter_mut().for_each(|scope| scope.authorities.push("sealer".into()));
            sealed(&policy, &facts).is_some()
        };
        let unclear = |facts: &mut Facts| facts.now = Fact::Unknown("no clock".into());
        assert!(with(&|_, _| {}));
        assert!(with(&|a, _| a.until = Some("2099-01-01".into())));
        assert!(!with(&|a, _| a.until = Some("2001-01-01".into())));
        assert!(!with(&|a, _| a.from = Some("2099-01-01".into())));
        assert!(with(&|_, facts| unclear(facts)));
        assert!(!with(&|a, facts| {
            a.until = Some("2099-01-01".into());
            unclear(facts);
        }));
        // What a seal has not got: a time that somebody is trusted with.
        assert!(!with(&|a, _| a.min_signing_time = Some("2001-01-01".into())));
        assert!(!with(&|a, _| a.repositories = vec!["ghcr.io/elsewhere".into()]));
        assert!(!with(&|a, _| a.repositories.clear()));
    }

    #[test]
    fn whose_word_counts_for_a_seal() {
        let (policy, facts) = (fixture::policy(), sealed_facts());
        assert!(sealed(&policy, &facts).is_some());
        let mut other = policy.clone();
        other.authorities.iter_mut().for_each(|a| a.until = Some("2001-01-01".into()));
        assert!(sealed(&other, &facts).is_none());
        let mut other = policy.clone();
        other.authorities.iter_mut().for_each(|a| a.min_signing_time = Some("2001-01-01".into()));
        assert!(sealed(&other, &facts).is_none());
        let mut unsigned = facts.clone();
        if let Fact::Is(image) = &mut unsigned.image {
            image.signatures.clear();
        }
        assert!(sealed(&policy, &unsigned).is_none());
        let mut exec = facts;
        exec.door = Door::Exec;
        assert!(sealed(&policy, &exec).is_none());
    }
}
