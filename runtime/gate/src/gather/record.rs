//! The record that a container's later requests are bounded by.
use boltseal_evidence::record::{self, ContainerRecord};
use boltseal_launch::Parked;
use boltseal_message::Request;
use boltseal_policy::facts::{Bound, Facts};
use boltseal_seal::{Label, Sealed};
use std::collections::BTreeSet;

/// The record that later requests are bounded by.
pub(crate) fn record(
    request: &Request,
    facts: &Facts,
    terms: &boltseal_policy::Terms,
    sealed: &Sealed,
    parked: &Parked,
    decision: &str,
) -> ContainerRecord {
    let subject = &facts.subject;
    let image = facts.image.is();
    ContainerRecord {
        version: record::VERSION,
        id: request.id.clone(),
        namespace: request.namespace.clone(),
        sandbox_id: subject.sandbox_id.clone(),
        is_sandbox: subject.is_pod && subject.sandbox_id == request.id,
        pod_namespace: subject.pod_namespace.clone(),
        pod_name: subject.pod_name.clone(),
        pod_uid: subject.pod_uid.clone(),
        container_name: subject.container_name.clone(),
        pid: parked.pid,
        start_time: parked.start_time,
        cgroup_path: sealed.table.cgroup_path.clone(),
        cgroups: parked.cgroups.clone(),
        namespaces: parked.namespaces.clone(),
        user_ns_ranges: sealed.table.user_ids.into_iter().collect(),
        bound: Bound {
            capabilities: sealed.table.capabilities.clone(),
            label: match &sealed.table.label {
                None => String::new(),
                Some(Label::AppArmor(name) | Label::Selinux(name)) => name.clone(),
            },
            user_namespace: sealed.table.user_ids.is_some(),
            user_ids: sealed.table.user_ids.map_or(0, |(_, count)| count),
            uid: sealed.table.uid,
            repository: terms.repository.clone(),
            authority: terms.authorities.first().cloned(),
            authorities: if terms.authorities.len() > 1 { terms.authorities.clone() } else { BTreeSet::new() },
        },
        owner: facts.owner.is().cloned().unwrap_or_default(),
        image: subject.image_name.clone(),
        digest: image.map(|i| i.manifest.clone()).unwrap_or_default(),
        repository: terms.repository.clone().unwrap_or_default(),
        integrity: facts.rootfs.is().map(|rootfs| rootfs.integrity.clone()).unwrap_or_default(),
        sensitivity: terms.sensitivity.clone(),
        decision: decision.into(),
    }
}
