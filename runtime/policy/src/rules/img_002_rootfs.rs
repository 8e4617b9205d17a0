//! BS-IMG-002: the root file system is the signed image, with our own empty upper layer.
mod integrity;

use super::{CREATE, Ctx, Rule, TIMEOUT_ROW, UNKNOWN_ROW};
use crate::facts::{Fact, Rootfs};
use crate::policy::Level;
use crate::text;
use crate::verdict::Finding;

pub use integrity::sealed;

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
        signed which verity device each layer is, and these devices are what is mounted; fsverity or dmverity-local, the weakest of \
        its layers, when each lower folder is an EROFS mount of a file with fs-verity, or of a verity device of this node's.",
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
    out.extend(integrity::judge(ctx, r));
    out
}

#[cfg(test)]
mod tests {
    use super::super::outcomes;
    use super::*;
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
}
