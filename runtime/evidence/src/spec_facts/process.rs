//! A process of the spec, an exec'd one too.
use super::list;
use boltseal_policy::facts::{Capabilities, Process, Variable};
use oci_spec::runtime as oci;
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn process_facts(
    process: &oci::Process,
    floor: Option<i32>,
    at: &str,
    foreign: &mut Vec<String>,
) -> Process {
    let set = |caps: &Option<oci::Capabilities>| caps.iter().flatten().map(|cap| format!("CAP_{cap}")).collect();
    let mut rlimits = BTreeMap::new();
    for limit in list(process.rlimits()) {
        if rlimits.insert(limit.typ().to_string(), (limit.soft(), limit.hard())).is_some() {
            foreign.push(format!("{at}rlimits ({} twice)", limit.typ()));
        }
    }
    let env: Vec<Variable> = list(process.env()).iter().map(|entry| Variable::of(entry)).collect();
    let names: BTreeSet<&str> = env.iter().map(|v| v.name.as_str()).collect();
    if names.len() != env.len() {
        // One reader takes the first, another the last.
        foreign.push(format!("{at}env (a name twice)"));
    }
    Process {
        args: list(process.args()).to_vec(),
        search: list(process.env()).iter().find_map(|v| v.strip_prefix("PATH=")).map(str::to_owned),
        env,
        cwd: process.cwd().to_string_lossy().into_owned(),
        uid: process.user().uid(),
        gid: process.user().gid(),
        additional_gids: list(process.user().additional_gids()).to_vec(),
        terminal: process.terminal().unwrap_or(false),
        capabilities: process.capabilities().as_ref().map(|caps| Capabilities {
            bounding: set(caps.bounding()),
            effective: set(caps.effective()),
            inheritable: set(caps.inheritable()),
            permitted: set(caps.permitted()),
            ambient: set(caps.ambient()),
        }),
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        oom_score_adj: process.oom_score_adj(),
        oom_score_floor: floor,
        rlimits,
    }
}
