//! BS-PRC-010: a user namespace's ids are nobody else's, and everything that speaks of ids means the same ones.
use super::{Ctx, PROCESSES, Rule, TIMEOUT_ROW, UNKNOWN_ROW};
use crate::facts::{Door, Fact, Facts, IdMaps, Lsm, Mount, NamespaceOrigin, Origin, UserNamespace};
use crate::policy::Level;
use crate::verdict::Finding;
use crate::{standard, text};

pub(super) static RULE: Rule = Rule {
    id: "BS-PRC-010",
    title: "A user namespace's host range excludes 0 and overlaps no other pod's",
    nist: "4.5.2",
    from: Level::Baseline,
    misfit: "deny",
    doors: PROCESSES,
    reads: "namespaces.listed, user_namespace.*, mounts[].{idmap,propagation,object}, rootfs.idmap, process.{uid,gid,additional_gids}, \
        hooks[].stage, label.lsm, bound.{user_namespace,user_ids}, policy user_namespace.{min_host_id,max_size}, allowance mounts",
    predicate: "a user namespace comes with maps and maps with a user namespace; both maps are one and the same range, from 0 on inside, \
        of 65536 to max_size ids of the host's from min_host_id to 2147483647, of which no other pod has one. A namespace that is \
        joined, the layers and each idmapped mount have that range and no other; a mount of the host's is idmapped only by an allowance \
        that says so. The process, an exec's too, has ids of the range. Nothing is asked for that cannot be had in a user namespace: \
        a namespace of the host's, mounts that the host adds later, a createContainer hook, SELinux.",
    fix: "give the pod a host range of its own, above 0",
    conditions: &[
        ("host-root", "host id 0 is mapped"),
        ("host-range", "ids of the host below policy user_namespace.min_host_id, or above 2147483647"),
        ("empty-map", "the user namespace has no mapping"),
        ("map-form", "the two maps are not one and the same range that begins with 0 inside"),
        ("size", "the range has fewer than 65536 ids, or more than policy user_namespace.max_size"),
        ("no-namespace", "ids are mapped, and no user namespace is asked for"),
        ("overlap", "another pod has ids of the range"),
        ("other-map", "the namespace that is joined, the layers or a mount have other ids"),
        ("idmap-grant", "a mount of the host's is idmapped, and no allowance says that it may be"),
        ("idmap-kind", "a mount that is no bind is idmapped"),
        ("unmapped-id", "the process would run as an id that the user namespace does not have"),
        ("host-namespace", "another namespace is the host's"),
        ("propagation", "a volume receives the host's mounts, which would not be idmapped"),
        ("hook", "a createContainer hook, which root of a user namespace cannot run"),
        ("selinux", "a user namespace under SELinux"),
        ("exec-outside", "the exec's container has a user namespace, and its record tells no ids"),
        UNKNOWN_ROW,
        TIMEOUT_ROW,
    ],
    cves: &[],
    check,
};

/// The last id that no reader takes for a negative number.
const LAST: u32 = i32::MAX as u32;

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    let (mut out, passes) = match ctx.facts.door {
        Door::Exec => (exec(ctx.facts), "no id of another namespace"),
        _ => match (&ctx.facts.user_namespace, is_listed(ctx.facts)) {
            (None, false) => (stray(ctx.facts), "no user namespace is asked for"),
            (Some(_), false) => (
                vec![RULE.deny_fix(
                    "no-namespace",
                    "ids are mapped without a user namespace",
                    "list a user namespace, or take uidMappings and gidMappings away",
                )],
                "",
            ),
            (None, true) => (vec![RULE.deny("empty-map", "the user namespace has no maps")], ""),
            (Some(user), true) => (create(ctx, user), "the host range is the pod's own"),
        },
    };
    if out.is_empty() {
        out.push(RULE.pass(passes));
    }
    out
}

fn is_listed(facts: &Facts) -> bool {
    facts.namespaces.listed.iter().any(|n| n.kind == "user")
}

/// Whether the process runs in a user namespace that is not the host's. What PRC-003 believes.
pub(super) fn has_own(facts: &Facts) -> bool {
    let own =
        |origin: &Fact<NamespaceOrigin>| matches!(origin, Fact::Is(NamespaceOrigin::New | NamespaceOrigin::OwnPod));
    facts.namespaces.listed.iter().any(|n| n.kind == "user" && own(&n.origin))
}

/// Mappings of mounts and layers, where there is no user namespace that they could be for.
fn stray(facts: &Facts) -> Vec<Finding> {
    let fix = "take the mount's mappings away, or give the pod a user namespace (hostUsers: false)";
    let mounts = facts.mounts.iter().filter(|m| m.idmap.is_some());
    let mut out: Vec<Finding> = mounts
        .map(|m| RULE.deny_fix("no-namespace", format!("{} is idmapped, without a user namespace", at(m)), fix))
        .collect();
    if facts.rootfs.is().is_some_and(|r| r.idmap.is_some()) {
        out.push(RULE.deny_fix("no-namespace", "the layers are idmapped, without a user namespace", fix));
    }
    out
}

fn create(ctx: &Ctx<'_>, user: &UserNamespace) -> Vec<Finding> {
    let facts = ctx.facts;
    let mut out = form(ctx, &user.ids);
    out.extend(others(user));
    if let Some((_, size)) = user.ids.range().filter(|_| out.is_empty()) {
        let p = &facts.process;
        out.extend(unmapped(size, [p.uid, p.gid].into_iter().chain(p.additional_gids.iter().copied())));
    }
    if let Fact::Is(joined) = &user.joined
        && *joined != user.ids
    {
        out.push(RULE.deny_fix(
            "other-map",
            "the user namespace that is joined has other ids than the spec lists",
            "list the maps of the pod's own user namespace",
        ));
    }
    if let Fact::Unknown(why) = &user.joined {
        out.push(RULE.unknown_fix("which ids the user namespace that is joined has", why, "recreate the pod"));
    }
    if facts.rootfs.is().and_then(|r| r.idmap.as_ref()).is_some_and(|ids| *ids != user.ids) {
        out.push(RULE.deny_fix("other-map", "the layers are to have other ids than the container", RECREATE));
    }
    out.extend(facts.mounts.iter().filter_map(|m| mount(ctx, user, m)));
    out.extend(unsupported(facts));
    out
}

const RECREATE: &str = "recreate the container";

/// One range, the same in both maps, of ids that the policy lets pods have.
fn form(ctx: &Ctx<'_>, ids: &IdMaps) -> Vec<Finding> {
    let rules = &ctx.policy.user_namespace;
    let mut out = Vec::new();
    // What is wrong with both is said once.
    let differ = ids.uids != ids.gids;
    for (what, ranges) in [("uid", &ids.uids), ("gid", &ids.gids)].into_iter().take(1 + usize::from(differ)) {
        if ranges.is_empty() {
            out.push(RULE.deny("empty-map", format!("the {what} map is empty")));
        }
        for (_, host, size) in ranges {
            let end = host.checked_add(size.saturating_sub(1)).filter(|last| *last <= LAST);
            if *host == 0 {
                out.push(RULE.deny("host-root", format!("the {what} map includes the host's 0")));
            } else if *host < rules.min_host_id || end.is_none() {
                let fact = format!("the {what} map has {size} ids from the host's {host} on");
                let fix = format!("give the pod ids of the host from {} to {LAST}", rules.min_host_id);
                out.push(RULE.deny_fix("host-range", fact, fix));
            }
            if !(standard::LEAST_IDS..=rules.max_size).contains(size) {
                let fix = match rules.max_size {
                    standard::LEAST_IDS => format!("give the pod {} ids", standard::LEAST_IDS),
                    most => format!("give the pod from {} to {most} ids", standard::LEAST_IDS),
                };
                out.push(RULE.deny_fix("size", format!("the {what} map has a range of {size} ids"), fix));
            }
        }
    }
    if out.is_empty() && ids.range().is_none() {
        out.push(RULE.deny_fix(
            "map-form",
            "the uid map and the gid map are not one and the same range from 0 on",
            "map one range, from 0 inside, to the same ids of the host for users and groups",
        ));
    }
    out
}

fn others(user: &UserNamespace) -> Option<Finding> {
    match &user.overlaps {
        Fact::Is(others) if others.is_empty() => None,
        Fact::Is(others) => Some(RULE.deny("overlap", format!("ids are also those of {}", text::list(others)))),
        Fact::Absent => Some(RULE.unknown("which ids other pods have", "nobody looked")),
        Fact::Unknown(why) => {
            Some(RULE.unknown_fix("which ids other pods have", why, "delete what was left half made"))
        }
    }
}

fn unmapped(size: u32, mut ids: impl Iterator<Item = u32>) -> Option<Finding> {
    let id = ids.find(|id| *id >= size)?;
    Some(RULE.deny_fix(
        "unmapped-id",
        format!("runs as id {id}, and the user namespace has 0 to {}", size.saturating_sub(1)),
        "run as a user and groups below 65536",
    ))
}

/// An idmapped mount is the pod's own, in the pod's own ids: root inside is then the owner of root's files in it.
fn mount(ctx: &Ctx<'_>, user: &UserNamespace, m: &Mount) -> Option<Finding> {
    let ids = m.idmap.as_ref()?;
    if m.kind != "bind" {
        let fact = format!("{} is idmapped, and no bind", at(m));
        return Some(RULE.deny_fix("idmap-kind", fact, "take the mount's mappings away"));
    }
    if !ids.is_empty() && *ids != user.ids {
        let fact = format!("{} is to have other ids than the container", at(m));
        return Some(RULE.deny_fix("other-map", fact, "map the mount as the container is mapped"));
    }
    // What cannot be resolved, BS-FSY-002 denies.
    let object = m.object.is().filter(|o| o.origin == Origin::Host)?;
    let fact = format!("{} of the host is idmapped at {}", text::show(&object.path), text::show(&m.destination));
    let granted = |grant: &crate::policy::AllowedMount| grant.idmap && super::fsy_002_binds::grants(grant, m, object);
    match ctx.allowed(|a| a.mounts.iter().any(granted)) {
        Some(by) => Some(RULE.allowed(by, "idmap-grant", fact)),
        None => Some(RULE.deny_fix("idmap-grant", fact, "use a pod volume, or an [[allowance]] with idmap = true")),
    }
}

fn at(m: &Mount) -> String {
    format!("the mount at {}", text::show(&m.destination))
}

/// What neither the kernel nor libcontainer can give to root of a user namespace.
fn unsupported(facts: &Facts) -> Vec<Finding> {
    let mut out = Vec::new();
    let of_host = |kind: &str| {
        let mut listed = facts.namespaces.listed.iter().filter(|n| n.kind == kind).peekable();
        listed.peek().is_none() || listed.any(|n| n.origin == Fact::Is(NamespaceOrigin::Host))
    };
    if let Some(kind) = standard::NAMESPACES.iter().find(|kind| of_host(kind)) {
        let fact = format!("the {kind} namespace is the host's, beside a user namespace");
        out.push(RULE.deny_fix("host-namespace", fact, "take hostUsers: false away, or the host's namespace"));
    }
    if let Some(m) = facts.mounts.iter().find(|m| m.propagation.as_deref().is_some_and(|p| p.ends_with("slave"))) {
        let fact = format!("{} receives the host's mounts, in a user namespace", at(m));
        out.push(RULE.deny_fix("propagation", fact, "take mountPropagation away, or hostUsers: false"));
    }
    if facts.hooks.iter().any(|h| h.stage == "createContainer") {
        out.push(RULE.deny_fix(
            "hook",
            "a createContainer hook in a user namespace",
            "make it a createRuntime hook, or take hostUsers: false away",
        ));
    }
    if facts.label.lsm == Lsm::Selinux {
        out.push(RULE.deny_fix("selinux", "a user namespace under SELinux", "take hostUsers: false away on this node"));
    }
    out
}

/// What an exec joins is what its container's record says; what the request says of itself does not count.
fn exec(facts: &Facts) -> Vec<Finding> {
    let Some(bound) = facts.bound.is() else {
        // No record, no exec: that is other rules' to say, and this one's not to pass.
        return vec![RULE.unknown_fix("which user namespace the container has", "its record", RECREATE)];
    };
    if !bound.user_namespace {
        return Vec::new();
    }
    if bound.user_ids == 0 {
        let fact = "the container's record tells no ids of its user namespace";
        return vec![RULE.deny_fix("exec-outside", fact, RECREATE)];
    }
    let p = &facts.process;
    unmapped(bound.user_ids, [p.uid, p.gid].into_iter().chain(p.additional_gids.iter().copied())).into_iter().collect()
}

#[cfg(test)]
mod tests;
