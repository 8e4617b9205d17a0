//! The facts of what is asked of a running container: bounded by its own record, without containerd.
use super::{InForce, cgroups, common, floor, log_programs};
use crate::refuse::{Refused, Result, single};
use crate::state;
use crate::trail::{Book, bare};
use boltseal_evidence::record::{self, ContainerRecord};
use boltseal_evidence::{host, spec, spec_facts};
use boltseal_message::{Code, Exec, Request};
use boltseal_policy::Fact;
use boltseal_policy::facts::{Door, Facts, Subject};
use oci_spec::runtime::{LinuxResources, Process};
use std::path::Path;

/// The facts of an exec: bounded by the container's own record, without containerd.
pub(crate) fn exec(
    request: &Request,
    folder: &Path,
    exec: &Exec,
    book: &mut Book,
    policy: &InForce,
) -> Result<(Facts, Process, ContainerRecord)> {
    let record = running(request, folder)?;
    let parsed = spec::parse_process(&exec.process).map_err(|why| {
        let denial = single(
            "BS-PRC-008",
            "unreadable-spec",
            format!("the exec's process: {why}"),
            "send a complete OCI process of at most 1 MiB",
        );
        book.refuse(bare(request, Door::Exec, &exec.exec_id), denial, Some(Code::InvalidArgument))
    })?;
    let mut facts = common(Door::Exec, book, policy);
    recorded(&mut facts, &record, folder)?;
    facts.subject.exec_id.clone_from(&exec.exec_id);
    let (process, label, foreign) = spec_facts::facts_of_process(&parsed, floor()?);
    facts.process = process;
    facts.label = label;
    facts.foreign_fields = foreign;
    facts.log_programs = log_programs(&exec.stdio);
    host::label(&mut facts.label, policy.rules.label.apparmor.first().map(String::as_str));
    host::selinux_types(&mut facts.label, policy.rules.label.selinux.first().map(String::as_str));
    facts.seccomp.available = host::seccomp_available();
    Ok((facts, parsed.process, record))
}

/// The facts of an update.
pub(crate) fn update(
    request: &Request,
    folder: &Path,
    resources: &[u8],
    book: &Book,
    policy: &InForce,
) -> Result<(Facts, LinuxResources)> {
    let record = running(request, folder)?;
    let parsed = spec::parse_resources(resources).map_err(|why| {
        let denial = single(
            "BS-PRC-008",
            "unreadable-spec",
            format!("the update's resources: {why}"),
            "send OCI LinuxResources",
        );
        book.refuse(bare(request, Door::Update, ""), denial, Some(Code::InvalidArgument))
    })?;
    let mut facts = common(Door::Update, book, policy);
    recorded(&mut facts, &record, folder)?;
    facts.limits = spec_facts::limits_of(&parsed.resources);
    facts.devices.allowed = spec_facts::device_rules(&parsed.resources);
    let cgroups = cgroups()?;
    facts.devices.enforced = cgroups.devices_enforced();
    facts.foreign_fields = parsed.foreign_fields;
    cgroups.ancestor_limits(&record.cgroup_path, &mut facts.limits).map_err(Refused::internal)?;
    facts.limits.removed = lifted(&parsed.resources);
    Ok((facts, parsed.resources))
}

fn running(request: &Request, folder: &Path) -> Result<ContainerRecord> {
    let record = record::load(folder)
        .map_err(|e| Refused::because(Code::NotFound, format!("the container {} has no record: {e}", request.id)))?;
    if record.alive() {
        return Ok(record);
    }
    Err(Refused::because(Code::FailedPrecondition, format!("the container {} does not run", request.id)))
}

/// What the container's own record adds to the facts of an exec or an update.
fn recorded(facts: &mut Facts, record: &ContainerRecord, folder: &Path) -> Result<()> {
    facts.image = Fact::Is(state::image(folder)?);
    facts.bound = Fact::Is(record.bound.clone());
    facts.owner = if record.owner.is_empty() { Fact::Absent } else { Fact::Is(record.owner.clone()) };
    facts.subject = Subject {
        containerd_namespace: record.namespace.clone(),
        id: record.id.clone(),
        image_name: record.image.clone(),
        pod_namespace: record.pod_namespace.clone(),
        pod_name: record.pod_name.clone(),
        pod_uid: record.pod_uid.clone(),
        container_name: record.container_name.clone(),
        sandbox_id: record.sandbox_id.clone(),
        is_pod: !record.sandbox_id.is_empty(),
        ..Subject::default()
    };
    Ok(())
}

/// Limits that the update would lift: a limit once set may change, not go.
fn lifted(resources: &LinuxResources) -> Vec<String> {
    let mut out = Vec::new();
    if resources.memory().as_ref().and_then(|m| m.limit()).is_some_and(|limit| limit <= 0) {
        out.push("memory.limit".into());
    }
    // No machine has that much: it limits nothing.
    let unlimited = |swap: i64| !(0..1 << 62).contains(&swap);
    let unified = resources.unified().as_ref().and_then(|keys| keys.get("memory.swap.max"));
    if resources.memory().as_ref().and_then(|m| m.swap()).is_some_and(unlimited)
        || unified.is_some_and(|value| value.parse().map_or(true, unlimited))
    {
        out.push("memory.swap".into());
    }
    if resources.pids().as_ref().map(oci_spec::runtime::LinuxPids::limit).is_some_and(|limit| limit <= 0) {
        out.push("pids.limit".into());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_update_lifts() {
        let lifts = |text: &str| lifted(&serde_json::from_str(text).unwrap());
        assert!(lifts(r#"{"memory":{"limit":1,"swap":2},"pids":{"limit":3}}"#).is_empty());
        assert!(lifts(r#"{"cpu":{"shares":2}}"#).is_empty());
        assert_eq!(lifts(r#"{"memory":{"limit":-1}}"#), ["memory.limit"]);
        assert_eq!(lifts(r#"{"memory":{"swap":-1}}"#), ["memory.swap"]);
        assert_eq!(lifts(r#"{"memory":{"limit":1,"swap":9223372036854771712}}"#), ["memory.swap"]);
        for value in ["9223372036854771712", "max", "99999999999999999999"] {
            assert_eq!(lifts(&format!(r#"{{"unified":{{"memory.swap.max":"{value}"}}}}"#)), ["memory.swap"]);
        }
        assert!(lifts(r#"{"unified":{"memory.swap.max":"0"}}"#).is_empty());
        assert_eq!(lifts(r#"{"memory":{"limit":0},"pids":{"limit":0}}"#), ["memory.limit", "pids.limit"]);
    }
}
