//! BS-IMG-002: the root file system is the signed image, with our own empty upper layer.
use super::{CREATE, Ctx, Identity, Rule, TIMEOUT_ROW, UNKNOWN_ROW, img_001_signature};
use crate::facts::{Door, Fact, Facts, Image, Rootfs, Verity};
use crate::pattern;
use crate::policy::{INTEGRITY, Level, Policy};
use crate::text;
use crate::verdict::Finding;

pub(super) static RULE: Rule = Rule {
    id: "BS-IMG-002",
    title: "The root file system is that image",
    nist: "4.1.5, 4.5.5",
    from: Level::Baseline,
    misfit: "deny",
    doors: CREATE,
    reads: "image.{chain_id,layers,verity,signatures}, rootfs.*, policy image.{integrity,snapshotters}, scope.integrity, authority",
    predicate: "a listed snapshotter's active snapshot, whose parent is the image's chain id and whose mounts are exactly those asked \
        for, of the one known overlay form; its upper folder is empty; /dev, /proc, /sys of the image are folders; its bytes are \
        bound to the signature at the integrity level of policy and scope, or better: dmverity-signed when an authority of the scope \
        signed which verity device each layer is, and these devices are what is mounted.",
    fix: "pull the image again and recreate the container",
    conditions: &[
        ("snapshotter", "the snapshotter is not listed"),
        ("no-snapshot", "the container has no snapshot"),
        ("not-active", "the snapshot is not the container's own"),
        ("other-parent", "the snapshot's parent is not the image"),
        ("other-mounts", "the mounts asked for are not the snapshot's"),
        ("unknown-form", "the mounts are not of the one known form"),
        ("used-upper", "the upper folder has something in it"),
        ("unsafe-root", "the image's /dev, /proc or /sys is not a folder"),
        ("integrity", "the bytes are not bound to the signature as firmly as the policy demands"),
        (
            "not-mountable",
            "the image is sealed, but this node has not all of its layers, or no dm-verity, erofs or loop devices",
        ),
        UNKNOWN_ROW,
        TIMEOUT_ROW,
    ],
    cves: &["CVE-2025-54867", "CVE-2026-41579 (a symlink at /dev)", "CVE-2026-53489"],
    check,
};

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    match &ctx.facts.rootfs {
        Fact::Is(rootfs) => {
            let found = judge(ctx, rootfs);
            if found.is_empty() {
                vec![RULE.pass(format!("chain proven, integrity {}", text::show(&rootfs.integrity)))]
            } else {
                found
            }
        }
        Fact::Absent => vec![RULE.deny_fix("no-snapshot", "the container has no snapshot", "start it from an image")],
        Fact::Unknown(why) => vec![RULE.unknown_fix(
            "the root file system",
            why,
            "recreate the container; boltseal doctor checks containerd",
        )],
    }
}

fn judge(ctx: &Ctx<'_>, r: &Rootfs) -> Vec<Finding> {
    let mut out = Vec::new();
    let rules = &ctx.policy.image;
    if !rules.snapshotters.contains(&r.snapshotter) {
        let fact = format!("snapshotter \"{}\" is not listed", text::show(&r.snapshotter));
        out.push(RULE.deny_fix("snapshotter", fact, "use a snapshotter of image.snapshotters"));
    }
    if !r.active {
        out.push(RULE.deny("not-active", "the snapshot is not the container's own active one"));
    }
    match &ctx.facts.image {
        Fact::Is(image) if image.chain_id.is_empty() || image.chain_id != r.parent => {
            let fact = format!(
                "the snapshot's parent is {}, the image is {}",
                text::show(&r.parent),
                text::show(&image.chain_id)
            );
            out.push(RULE.deny("other-parent", fact));
        }
        Fact::Is(_) => {}
        Fact::Absent => out.push(RULE.deny("other-parent", "there is no image to compare the snapshot with")),
        Fact::Unknown(why) => out.push(RULE.unknown("the image", why)),
    }
    if !r.mounts_match {
        out.push(RULE.deny("other-mounts", "the mounts asked for are not those of the snapshot"));
    }
    if !r.unknown_form.is_empty() {
        out.push(RULE.deny(
            "unknown-form",
            format!("the rootfs mounts are not of the known form: {}", text::list(&r.unknown_form)),
        ));
    }
    match &r.upper_empty {
        Fact::Is(true) => {}
        Fact::Is(false) => out.push(RULE.deny("used-upper", "the container's upper folder is not empty")),
        Fact::Absent => out.push(RULE.deny("used-upper", "the container has no upper folder of its own")),
        Fact::Unknown(why) => out.push(RULE.unknown("whether the upper folder is empty", why)),
    }
    if !r.unsafe_roots.is_empty() {
        let fact = format!("not a folder in the image: {}", text::list(&r.unsafe_roots));
        out.push(RULE.deny_fix("unsafe-root", fact, "make /dev, /proc and /sys plain folders in the image"));
    }
    out.extend(integrity(ctx, r));
    out
}

/// What the facts say of the level is believed only with what shows it.
fn integrity(ctx: &Ctx<'_>, r: &Rootfs) -> Option<Finding> {
    let rank = |level: &str| INTEGRITY.iter().position(|known| *known == level);
    let node = ctx.policy.image.integrity.as_str();
    let needs =
        ctx.scope.map(|scope| scope.integrity.as_str()).filter(|level| rank(level) > rank(node)).unwrap_or(node);
    let shown = match (r.integrity.as_str(), &r.verity) {
        (SIGNED, Fact::Is(layers)) => sealed(ctx.policy, ctx.facts).is_some_and(|verity| verity.layers == *layers),
        (SIGNED, _) | (_, Fact::Is(_)) => false,
        _ => true,
    };
    if shown && rank(&r.integrity).zip(rank(needs)).is_some_and(|(has, needs)| has >= needs) {
        return None;
    }
    let fact = format!("integrity is \"{}\", the policy demands \"{}\"", text::show(&r.integrity), text::show(needs));
    Some(match &r.verity {
        _ if !shown => RULE.deny("integrity", format!("{fact}; nothing shows that level")),
        Fact::Unknown(why) => RULE.deny_fix(
            "not-mountable",
            // The reason first: the CRI shows no more than a finding's beginning.
            format!("{}: {fact}", text::show(why)),
            "boltseal sig import its layers; boltseal doctor tells what this kernel lacks",
        ),
        _ => {
            RULE.deny_fix("integrity", fact, "boltseal image seal the image, then boltseal sig import; or demand less")
        }
    })
}

/// The one level above `unpacked` that this version reports.
const SIGNED: &str = "dmverity-signed";

/// The statement that says, for this very image, which verity device each of its layers is: by an authority that the scope
/// of the signed repository names and that may sign there now. A pinned image needs a signature for it too.
#[must_use]
pub fn sealed<'a>(policy: &Policy, facts: &'a Facts) -> Option<&'a Verity> {
    let image = facts.image.is().filter(|_| facts.door == Door::Create)?;
    let Identity::Signed(signed) = img_001_signature::by_signatures(policy, facts, image) else { return None };
    let scope = super::scope_of(policy, &signed.repository)?;
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
    use super::super::outcomes;
    use super::*;
    use crate::facts::VerityLayer;
    use crate::fixture;

    fn rootfs(change: impl Fn(&mut Rootfs)) -> Vec<String> {
        let mut facts = fixture::facts();
        if let Fact::Is(r) = &mut facts.rootfs {
            change(r);
        }
        outcomes(&RULE, &fixture::policy(), &facts)
    }

    #[test]
    fn truth_table() {
        assert_eq!(rootfs(|_| {}), ["pass"]);
        assert_eq!(rootfs(|r| r.snapshotter = "native".into()), ["deny snapshotter"]);
        assert_eq!(rootfs(|r| r.active = false), ["deny not-active"]);
        assert_eq!(rootfs(|r| r.parent = fixture::digest('9')), ["deny other-parent"]);
        assert_eq!(rootfs(|r| r.parent = String::new()), ["deny other-parent"]);
        assert_eq!(rootfs(|r| r.mounts_match = false), ["deny other-mounts"]);
        assert_eq!(rootfs(|r| r.unknown_form = vec!["bind".into()]), ["deny unknown-form"]);
        assert_eq!(rootfs(|r| r.upper_empty = Fact::Is(false)), ["deny used-upper"]);
        assert_eq!(rootfs(|r| r.upper_empty = Fact::Absent), ["deny used-upper"]);
        assert_eq!(rootfs(|r| r.upper_empty = Fact::Unknown("x".into())), ["deny unknown"]);
        assert_eq!(rootfs(|r| r.unsafe_roots = vec!["/dev".into()]), ["deny unsafe-root"]);
        assert_eq!(rootfs(|r| r.integrity = "none".into()), ["deny integrity"]);
        assert_eq!(rootfs(|r| *r = Rootfs::default()).len(), 6);
    }

    #[test]
    fn whole_facts() {
        let mut facts = fixture::facts();
        facts.rootfs = Fact::Unknown("timeout".into());
        assert_eq!(outcomes(&RULE, &fixture::policy(), &facts), ["deny timeout"]);
        facts.rootfs = Fact::Absent;
        assert_eq!(outcomes(&RULE, &fixture::policy(), &facts), ["deny no-snapshot"]);
        facts = fixture::facts();
        facts.image = Fact::Unknown("x".into());
        assert_eq!(outcomes(&RULE, &fixture::policy(), &facts), ["deny unknown"]);
        facts.image = Fact::Absent;
        assert_eq!(outcomes(&RULE, &fixture::policy(), &facts), ["deny other-parent"]);
        let mut policy = fixture::policy();
        policy.image.integrity = "fsverity".into();
        assert_eq!(outcomes(&RULE, &policy, &fixture::facts()), ["deny integrity"]);
    }

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
        (r.integrity, r.verity) = ("unpacked".into(), Fact::Absent);
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
