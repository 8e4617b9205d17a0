//! What a permit grants. Reached only when nothing is denied: so what the request asks for and no rule tightens is granted
//! as asked, be it that the rule passed it, an allowance or exception let it through, or the rule only warns. What a
//! rule tightens (capabilities of the default set, limits, oom score, sizes) stays tightened at every level and mode.
use crate::facts::{Door, Fact, NamespaceOrigin};
use crate::network::{Open, Watch};
use crate::policy::LandlockRules;
use crate::rules::{self, Ctx, Identity};
use crate::standard;
use crate::verdict::Terms;
use std::collections::BTreeSet;

pub(crate) fn terms(ctx: &Ctx<'_>) -> Terms {
    let (memory, pids) = rules::filled_limits(ctx);
    let (apparmor, selinux) = rules::granted_label(ctx);
    let (repository, authorities) = match &ctx.identity {
        Identity::Signed(signed) => (Some(signed.repository.clone()), signed.by.keys().cloned().collect()),
        Identity::Pinned(_) | Identity::None(_) => (None, BTreeSet::new()),
    };
    let listed = &ctx.facts.namespaces.listed;
    let of_host = |kind: &str| {
        let mut own = listed.iter().filter(|n| n.kind == kind).peekable();
        own.peek().is_none() || own.any(|n| n.origin == Fact::Is(NamespaceOrigin::Host))
    };
    let create = ctx.facts.door == Door::Create;
    let network = rules::granted_network(ctx);
    Terms {
        capabilities: rules::kept_capabilities(ctx),
        memory,
        pids,
        tmpfs_size: ctx.policy.mounts.tmpfs_size,
        apparmor,
        selinux,
        exec_volumes: ctx.allowances.iter().flat_map(|a| a.exec_volumes.iter().cloned()).collect(),
        // The host's own namespace is left as it is.
        memory_noexec: !ctx.allowances.iter().any(|a| a.exec_memory) && !of_host("pid"),
        host_namespaces: standard::NAMESPACES
            .iter()
            .filter(|k| create && of_host(k))
            .map(ToString::to_string)
            .collect(),
        devices: ctx
            .facts
            .devices
            .nodes
            .iter()
            .map(|d| d.path.clone())
            .filter(|p| !standard::DEVICES.iter().any(|(s, _, _)| s == p))
            .collect(),
        // A kernel with less comes this far only where BS-FSY-001 warns or is excepted.
        landlock: LandlockRules {
            abi: ctx.policy.landlock.abi.min(ctx.facts.landlock.is().copied().unwrap_or(0)),
            ..ctx.policy.landlock
        },
        watch: watch(ctx, &network),
        network,
        network_hooks: ctx.facts.network_hooks == Fact::Is(()),
        programs: ctx.scope.and_then(|scope| scope.programs.clone()),
        oom_score_adj: rules::oom_score(ctx),
        sysctls: ctx.facts.sysctls.clone(),
        traps: ctx.policy.anomalies.syscalls.names(),
        pod_seccomp: ctx.facts.seccomp.present && ctx.facts.seccomp.unusable.is_empty(),
        repository,
        authorities,
        sensitivity: rules::granted_sensitivity(ctx),
        sandbox: matches!(ctx.identity, Identity::Pinned(_)),
    }
}

/// What is watched of the network.
fn watch(ctx: &Ctx<'_>, open: &Open) -> Watch {
    let (rules, confined) = (&ctx.policy.anomalies, *open != Open::default());
    if ctx.facts.network_hooks != Fact::Is(()) {
        return Watch::default();
    }
    Watch { told: rules.network.covers(confined), flows: rules.flows.covers(confined), scan: rules.port_scan }
        .or_nothing()
}
