//! Seals: (Permit, Spec) -> [`Sealed`]. Pure. What was judged is what runs: libcontainer sees only what this makes.
//!
//! A closed compiler: the new spec is built field by field from the permit, the facts that were judged and, for what
//! confines nothing, the old spec; it is not the old spec with patches. So a field that nobody wrote down here cannot
//! get through, and nothing is left to a default of oci-spec or libcontainer (absent capabilities mean all of them,
//! absent masked paths none). The spec must be the one that the facts were gathered from; a difference is an error.
#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")
)]

mod canonical;
mod linux;
mod mounts;
mod process;
#[cfg(test)]
mod properties;
mod table;

pub use boltseal_policy::{network, programs};
pub use process::{SealedProcess, seal_process};
pub use table::{ApprovedMount, ApprovedNamespace, Label, Landlock, Table};

use boltseal_policy::facts::{Door, Facts};
use boltseal_policy::network::{Open, Watch};
use boltseal_policy::{Permit, Terms};
use oci_spec::runtime::Spec;
use serde_json::{Value, json};

/// The version of the runtime-spec that the sealed spec is written in.
const OCI_VERSION: &str = "1.2.0";

/// The sealed container: the spec that libcontainer reads, and the table that inspection compares with the kernel's view.
#[derive(Debug, Clone)]
pub struct Sealed {
    pub spec: Spec,
    /// The spec's serialisation, the bytes that are written to our own bundle folder. Keys sorted: the same input gives
    /// the same bytes.
    pub json: Vec<u8>,
    /// sha256 of `json`, hex.
    pub digest: String,
    pub table: Table,
}

/// What the builders read.
pub(crate) struct Input<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) facts: &'a Facts,
    pub(crate) terms: &'a Terms,
}

/// Builds the spec that runs. `root.path` is `rootfs`, relative to our own bundle folder.
///
/// # Errors
/// One line: the facts are not those of the permit, the spec is not the one that the facts are of, or it asks for
/// something that cannot be built (which only a rule that warns lets come this far).
pub fn seal(permit: Permit, spec: Spec, facts: &Facts) -> Result<Sealed, String> {
    if permit.facts() != facts || facts.door != Door::Create {
        return Err("the permit was given for other facts".into());
    }
    let input = Input { spec: &spec, facts, terms: permit.terms() };
    same(&input)?;
    let (mounts, approved) = mounts::build(&input)?;
    let process = spec.process().as_ref().ok_or("the spec has no process")?;
    let linux = linux::build(&input, mounts::has_slave(&mounts))?;
    let value = json!({
        "ociVersion": OCI_VERSION,
        "root": { "path": "rootfs", "readonly": true },
        "process": process::build(process, facts, permit.terms()),
        "hostname": own_uts(&input).then(|| spec.hostname().clone()).flatten(),
        "domainname": own_uts(&input).then(|| spec.domainname().clone()).flatten(),
        "mounts": mounts,
        "hooks": hooks(&input)?,
        "linux": linux.json,
    });
    let json = canonical::bytes(&value)?;
    let digest = canonical::sha256(&json);
    let sealed: Spec = serde_json::from_slice(&json).map_err(|e| format!("the sealed spec does not parse: {e}"))?;
    // A node that lacks either comes this far only where the rules warn or are excepted.
    let tcp_rights = facts.landlock.is().is_some_and(|abi| *abi >= network::TCP_RIGHTS);
    let hooks = permit.terms().network_hooks;
    // Where a policy leaves ports to the programs, there are programs.
    let tcp_rights = tcp_rights && (permit.terms().landlock.ports || !hooks);
    let table = Table {
        landlock: Landlock {
            abi: permit.terms().landlock.abi,
            writable: mounts::writable(&approved, permit.terms()),
            bind: permit.terms().network.bind_tcp().filter(|_| tcp_rights),
            connect: permit.terms().network.connect_tcp().filter(|_| tcp_rights),
            // Likewise: without Landlock it comes this far only where BS-PRC-005 warns or is excepted.
            programs: permit.terms().programs.clone().filter(|_| facts.landlock.is().is_some_and(|abi| *abi > 0)),
        },
        network: if hooks { permit.terms().network.clone() } else { Open::default() },
        watch: if hooks { permit.terms().watch } else { Watch::default() },
        mounts: approved,
        masked: linux.masked,
        readonly: linux.readonly,
        capabilities: permit.terms().capabilities.clone(),
        uid: facts.process.uid,
        gid: facts.process.gid,
        additional_gids: facts.process.additional_gids.clone(),
        cwd: facts.process.cwd.clone(),
        namespaces: linux.namespaces,
        user_ids: linux.user_ids,
        label: label(permit.terms()),
        pod_seccomp: pod_seccomp(&input)?,
        cgroup_path: linux.cgroup_path,
        terminal: facts.process.terminal,
        traps: permit.terms().traps.clone(),
        memory_noexec: permit.terms().memory_noexec,
    };
    Ok(Sealed { spec: sealed, json, digest, table })
}

/// The spec is the one that the facts were gathered from, as far as a spec shows it.
fn same(input: &Input<'_>) -> Result<(), String> {
    let Input { spec, facts, .. } = input;
    let process = spec.process().as_ref().ok_or("the spec has no process")?;
    let linux = spec.linux().as_ref().ok_or("the spec has no linux part")?;
    process::same(process, facts)?;
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let listed = mounts.iter().map(|m| m.destination().as_os_str().as_encoded_bytes());
    let judged = facts.mounts.iter().map(|m| m.destination.as_bytes());
    let differs = |what: &str| Err(format!("the spec's {what} are not those that were judged"));
    if !listed.eq(judged) {
        return differs("mounts");
    }
    if linux.namespaces().as_deref().unwrap_or_default().len() != facts.namespaces.listed.len() {
        return differs("namespaces");
    }
    if linux.devices().as_deref().unwrap_or_default().len() != facts.devices.nodes.len() {
        return differs("devices");
    }
    if linux.seccomp().is_some() != facts.seccomp.present {
        return differs("seccomp filters");
    }
    Ok(())
}

/// Setting a name in the host's uts namespace would rename the host.
fn own_uts(input: &Input<'_>) -> bool {
    !input.terms.host_namespaces.contains("uts")
}

/// Only hooks that were judged, from the copy of the bytes that were judged, by their own words, with an empty environment:
/// without one libcontainer gives them the container's (CVE-2025-23266).
fn hooks(input: &Input<'_>) -> Result<Value, String> {
    let mut stages = serde_json::Map::new();
    for hook in &input.facts.hooks {
        if hook.copy.is_empty() {
            return Err(format!("the {} hook {:?} has no copy of what was judged", hook.stage, hook.path));
        }
        let list = stages.entry(hook.stage.clone()).or_insert_with(|| json!([]));
        let list = list.as_array_mut().ok_or("a hook stage is no list")?;
        list.push(json!({ "path": hook.copy, "args": hook.args, "env": [], "timeout": HOOK_TIMEOUT }));
    }
    Ok(if stages.is_empty() { Value::Null } else { Value::Object(stages) })
}

/// Seconds that a hook may take.
const HOOK_TIMEOUT: i64 = 10;

fn label(terms: &Terms) -> Option<Label> {
    let apparmor = terms.apparmor.clone().map(Label::AppArmor);
    apparmor.or_else(|| terms.selinux.clone().map(Label::Selinux))
}

/// Our Executor installs it: libcontainer without libseccomp would drop it with a warning.
fn pod_seccomp(input: &Input<'_>) -> Result<Option<String>, String> {
    let filter = input.spec.linux().as_ref().and_then(|l| l.seccomp().as_ref()).filter(|_| input.terms.pod_seccomp);
    let Some(filter) = filter else { return Ok(None) };
    let value = serde_json::to_value(filter).map_err(|e| format!("the pod's filter cannot be written: {e}"))?;
    let bytes = canonical::bytes(&value)?;
    String::from_utf8(bytes).map(Some).map_err(|e| format!("the pod's filter cannot be written: {e}"))
}
