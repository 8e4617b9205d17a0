//! `boltseal profile learn`: the smallest profile for a workload, out of a run that is watched.
use crate::screen::{Exit, Failure, Screen, count, talk};
use boltseal_launch::learn::{self, Learned};
use boltseal_profiles::Arch;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

/// Calls that every program needs and that a run may not show: the first is how a runtime says that it is ready, before the
/// program begins, and runc does not let it be watched.
const ALWAYS: [&str; 6] = ["write", "execve", "exit", "exit_group", "restart_syscall", "rt_sigreturn"];

const TRIP_WIRE: &str = "SCMP_ACT_NOTIFY";

/// Listens at `socket`, prints what it saw as a profile.
pub(crate) fn learn(socket: &Path, profile: Option<&Path>, screen: &mut Screen) -> Result<Exit, Failure> {
    let arch =
        Arch::native().ok_or_else(|| Failure::undecided("there is no table of system calls for this machine"))?;
    let base = base()?;
    let at = socket.to_str().filter(|path| path.starts_with('/'));
    let at = at.ok_or_else(|| Failure::new(Exit::Usage, "the socket must be an absolute path"))?;
    let failed = |what: &Path, e: std::io::Error| Failure::undecided(format!("{}: {e}", what.display()));
    let listener = UnixListener::bind(socket).map_err(|e| failed(socket, e))?;
    let mut outcome = fs::set_permissions(socket, fs::Permissions::from_mode(0o600)).map_err(|e| failed(socket, e));
    if let (Ok(()), Some(file)) = (&outcome, profile) {
        outcome = write(file, &watching(&base, at)?).map_err(|e| failed(file, e));
    }
    let learned = outcome.and_then(|()| {
        talk(&format!("listening at {at}: start the workload outside of boltseal, with the profile that notifies"));
        learn::learn(&listener, boltseal_profiles::base_seccomp(), arch).map_err(|e| failed(socket, e))
    });
    // It goes in any case; what was learned is worth more than a socket that stays.
    if let Err(e) = fs::remove_file(socket) {
        talk(&failed(socket, e).text);
    }
    tell(&base, &learned?, screen)
}

fn tell(base: &Value, learned: &Learned, screen: &mut Screen) -> Result<Exit, Failure> {
    if learned.processes == 0 {
        return Err(Failure::undecided("nothing was started with a profile that notifies"));
    }
    let profile = learned_profile(base, learned);
    let ports: Vec<Value> = learned
        .ports
        .iter()
        .map(|p| json!({ "what": p.what, "protocol": p.protocol, "address": p.address.to_string(), "port": p.port }))
        .collect();
    if screen.json() {
        screen.document(&json!({ "profile": profile, "ports": ports, "processes": learned.processes }))?;
        return Ok(Exit::Ok);
    }
    let text = serde_json::to_string_pretty(&profile).map_err(Failure::undecided)?;
    for line in text.lines() {
        screen.line(line)?;
    }
    let calls: BTreeSet<&String> = learned.used.values().flatten().collect();
    let processes =
        if learned.processes == 1 { "1 process".into() } else { format!("{} processes", learned.processes) };
    talk(&format!("{processes}, {}", count(calls.len(), "call")));
    for p in &learned.ports {
        talk(&format!("{} {} {} {}", p.what, p.protocol, p.address, p.port));
    }
    Ok(Exit::Ok)
}

fn base() -> Result<Value, Failure> {
    serde_json::from_str(boltseal_profiles::base_seccomp()).map_err(Failure::undecided)
}

fn native() -> &'static str {
    if cfg!(target_arch = "aarch64") { "SCMP_ARCH_AARCH64" } else { "SCMP_ARCH_X86_64" }
}

/// The base filter with "notify" in place of "allow".
fn watching(base: &Value, socket: &str) -> Result<Value, Failure> {
    let mut profile = base.clone();
    let rules = profile.get_mut("syscalls").and_then(Value::as_array_mut);
    let rules = rules.ok_or_else(|| Failure::undecided("the base filter has no rules"))?;
    // What the trip-wire refuses is refused here by the default.
    rules.retain(|rule| rule["action"] != TRIP_WIRE);
    for rule in rules.iter_mut().filter(|rule| rule["action"] == "SCMP_ACT_ALLOW") {
        rule["action"] = TRIP_WIRE.into();
        if let Some(names) = rule["names"].as_array_mut() {
            names.retain(|name| name != ALWAYS[0]);
        }
    }
    rules.push(json!({ "comment": "runc wants it unwatched.", "action": "SCMP_ACT_ALLOW", "names": [ALWAYS[0]] }));
    profile["architectures"] = json!([native()]);
    profile["listenerPath"] = socket.into();
    Ok(profile)
}

/// The base filter without what was not used. What it answers otherwise than by its default (clone3) stays.
fn learned_profile(base: &Value, learned: &Learned) -> Value {
    let mut rules = vec![json!({ "comment": "Every program.", "action": "SCMP_ACT_ALLOW", "names": ALWAYS })];
    for (index, rule) in base["syscalls"].as_array().into_iter().flatten().enumerate() {
        // A pod's own profile may hand nothing over; the base filter beside it still does.
        if rule["action"] == TRIP_WIRE {
            continue;
        }
        if rule["action"] != "SCMP_ACT_ALLOW" {
            rules.push(rule.clone());
            continue;
        }
        let used = learned.used.get(&index);
        let names: Vec<&String> = used.into_iter().flatten().filter(|name| !ALWAYS.contains(&name.as_str())).collect();
        if !names.is_empty() {
            let mut rule = rule.clone();
            rule["names"] = json!(names);
            rules.push(rule);
        }
    }
    json!({
        "defaultAction": base["defaultAction"],
        "defaultErrnoRet": base["defaultErrnoRet"],
        "architectures": [native()],
        "syscalls": rules,
    })
}

/// A new file: nothing that is there is taken for a profile's place.
fn write(file: &Path, profile: &Value) -> std::io::Result<()> {
    let mut out = fs::File::options().write(true).create_new(true).open(file)?;
    out.write_all(&serde_json::to_vec_pretty(profile)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use boltseal_launch::seccomp::{self, Relation};
    use std::collections::BTreeMap;

    fn learned(used: &[(&str, &[&str])]) -> Learned {
        let base = base().unwrap();
        let rules = base["syscalls"].as_array().unwrap();
        let index =
            |comment: &str| rules.iter().position(|r| r["comment"].as_str().unwrap().starts_with(comment)).unwrap();
        let used: BTreeMap<_, _> =
            used.iter().map(|(group, names)| (index(group), names.iter().map(ToString::to_string).collect())).collect();
        Learned { used, processes: 1, ..Learned::default() }
    }

    #[test]
    fn what_is_learned_is_within_the_base_and_no_more_than_was_seen() {
        let learned = learned(&[("Reading and writing", &["read", "write"]), ("AF_INET.", &["socket"])]);
        let profile = learned_profile(&base().unwrap(), &learned).to_string();
        let own = seccomp::meaning(&profile, Arch::X86_64).unwrap();
        let base = seccomp::meaning(boltseal_profiles::base_seccomp(), Arch::X86_64).unwrap();
        assert!(own.unknown.is_empty() && own.redundant.is_empty(), "{:?}", own.redundant);
        for (name, answer) in &own.calls {
            let relation = seccomp::compare(&base.calls[name], answer);
            assert!(matches!(relation, Relation::Same | Relation::Tighter), "{name}: {answer}");
            let open = answer.to_string().contains("allow");
            assert_eq!(open, ALWAYS.contains(name) || ["read", "socket"].contains(name), "{name}: {answer}");
        }
        assert_eq!(own.calls["socket"].to_string(), "allow if arg0 == 0x2, else EPERM");
        assert_eq!(own.calls["clone3"].to_string(), "ENOSYS");
    }

    #[test]
    fn the_watching_profile_allows_nothing_but_one_call() {
        let profile = watching(&base().unwrap(), "/run/learn.sock").unwrap();
        let rules = profile["syscalls"].as_array().unwrap();
        let allowing: Vec<_> = rules.iter().filter(|r| r["action"] == "SCMP_ACT_ALLOW").map(|r| &r["names"]).collect();
        assert_eq!(allowing, [&json!(["write"])]);
        assert!(rules.iter().any(|r| r["action"] == "SCMP_ACT_ERRNO" && r["names"] == json!(["clone3"])));
        // Such a profile starts nothing under boltseal.
        assert!(seccomp::meaning(&profile.to_string(), Arch::X86_64).is_err());
    }
}
