//! The process: of the container and of an exec alike.
use crate::{Table, canonical};
use boltseal_policy::facts::{Door, Facts, Variable};
use boltseal_policy::{Permit, Terms};
use oci_spec::runtime::Process;
use serde_json::{Value, json};
use std::path::Path;

/// An exec'd process as it runs, and the table for it: its container's with its own ids, capabilities, cwd and terminal.
#[derive(Debug, Clone)]
pub struct SealedProcess {
    pub process: Process,
    /// Its serialisation, the bytes that libcontainer reads.
    pub json: Vec<u8>,
    pub table: Table,
}

/// Builds the process that an exec runs. Label and filters are the container's own, whatever the request names.
///
/// # Errors
/// One line: the permit is no exec's, or the process is not the one that its facts are of.
pub fn seal_process(permit: Permit, process: Process, container: &Table) -> Result<SealedProcess, String> {
    let (facts, terms) = (permit.facts(), permit.terms());
    if facts.door != Door::Exec {
        return Err("the permit was not given for an exec".into());
    }
    same(&process, facts)?;
    let json = canonical::bytes(&build(&process, facts, terms))?;
    let sealed: Process =
        serde_json::from_slice(&json).map_err(|e| format!("the sealed process does not parse: {e}"))?;
    let table = Table {
        capabilities: terms.capabilities.clone(),
        uid: facts.process.uid,
        gid: facts.process.gid,
        additional_gids: facts.process.additional_gids.clone(),
        cwd: facts.process.cwd.clone(),
        terminal: facts.process.terminal,
        ..container.clone()
    };
    Ok(SealedProcess { process: sealed, json, table })
}

/// The process is the one that the facts are of.
pub(crate) fn same(process: &Process, facts: &Facts) -> Result<(), String> {
    let (user, judged) = (process.user(), &facts.process);
    let env = process.env().as_deref().unwrap_or_default();
    let equal = env.len() == judged.env.len()
        && env.iter().zip(&judged.env).all(|(entry, v)| Variable::of(entry) == *v)
        && process.args().as_deref().unwrap_or_default() == judged.args
        && process.cwd() == Path::new(&judged.cwd)
        && (user.uid(), user.gid()) == (judged.uid, judged.gid)
        && user.additional_gids().as_deref().unwrap_or_default() == judged.additional_gids
        && process.terminal().unwrap_or(false) == judged.terminal;
    if equal { Ok(()) } else { Err("the process is not the one that was judged".into()) }
}

/// All five capability sets are explicit: absent ones mean all capabilities to libcontainer. Inheritable and ambient are
/// empty, so that a process that is not uid 0 has none after execve unless its file has, which no_new_privs ignores:
/// that is meant. AppArmor profile and SELinux label are our Executor's to write, and no field of theirs is here.
pub(crate) fn build(process: &Process, facts: &Facts, terms: &Terms) -> Value {
    let p = &facts.process;
    let size =
        process.console_size().filter(|_| p.terminal).map(|b| json!({ "height": b.height(), "width": b.width() }));
    let rlimits: Vec<Value> =
        p.rlimits.iter().map(|(kind, (soft, hard))| json!({ "type": kind, "soft": soft, "hard": hard })).collect();
    json!({
        "terminal": p.terminal,
        "consoleSize": size,
        "user": { "uid": p.uid, "gid": p.gid, "umask": process.user().umask().map(|m| m & 0o777), "additionalGids": p.additional_gids },
        "args": p.args,
        "env": environment(process),
        "cwd": p.cwd,
        "capabilities": {
            "bounding": terms.capabilities,
            "effective": terms.capabilities,
            "permitted": terms.capabilities,
            "inheritable": [],
            "ambient": [],
        },
        "rlimits": rlimits,
        "noNewPrivileges": true,
        "oomScoreAdj": terms.oom_score_adj,
    })
}

/// HOME is always set: without it libcontainer asks the image's name service, by code of the image and before any filter.
/// LISTEN_* are left out: libcontainer would hand on descriptors by them.
fn environment(process: &Process) -> Vec<String> {
    let given = process.env().as_deref().unwrap_or_default();
    let mut env: Vec<String> = given.iter().filter(|v| v.contains('=') && !v.starts_with("LISTEN_")).cloned().collect();
    if !env.iter().any(|v| v.starts_with("HOME=") && v.len() > "HOME=".len()) {
        env.retain(|v| !v.starts_with("HOME="));
        env.push("HOME=/".into());
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::properties::{permit_for, sealed};
    use boltseal_policy::facts::{Bound, Capabilities, Fact};
    use boltseal_policy::fixture;

    fn process(text: &str) -> Process {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn environments() {
        let env = |list: &str| environment(&process(&format!(r#"{{"user":{{}},"cwd":"/","env":{list}}}"#)));
        assert_eq!(env(r#"["A=1","LISTEN_FDS=3","LISTEN_PID=1","NOVALUE"]"#), ["A=1", "HOME=/"]);
        assert_eq!(env(r#"["HOME=/root","LD_PRELOAD=/x"]"#), ["HOME=/root", "LD_PRELOAD=/x"]);
        assert_eq!(env(r#"["HOME="]"#), ["HOME=/"]);
    }

    fn exec_facts() -> Facts {
        let mut f = fixture::facts();
        f.door = Door::Exec;
        f.bound = Fact::Is(Bound {
            label: "boltseal-default".into(),
            capabilities: fixture::set(&["CAP_KILL"]),
            ..Default::default()
        });
        f.process.args = vec!["id".into()];
        f.process.capabilities =
            Some(Capabilities { effective: fixture::set(&["CAP_KILL", "CAP_CHOWN"]), ..Default::default() });
        f.process.no_new_privileges = false;
        f
    }

    #[test]
    fn an_exec_gets_its_containers_table_with_its_own_ids() {
        let container = sealed(&fixture::policy(), &fixture::facts()).unwrap().table;
        let asked = process(
            r#"{"user":{"uid":1000,"gid":1000,"username":"root"},"cwd":"/","args":["id"],"noNewPrivileges":false,
            "apparmorProfile":"unconfined","selinuxLabel":"x","capabilities":{"ambient":["CAP_KILL"]},"scheduler":{"policy":"SCHED_FIFO"}}"#,
        );
        let out = seal_process(permit_for(&fixture::policy(), &exec_facts()), asked, &container).unwrap();
        let text = String::from_utf8(out.json.clone()).unwrap();
        assert_eq!(
            text,
            r#"{"args":["id"],"capabilities":{"ambient":[],"bounding":["CAP_KILL"],"effective":["CAP_KILL"],"inheritable":[],"permitted":["CAP_KILL"]},"cwd":"/","env":["HOME=/"],"noNewPrivileges":true,"rlimits":[],"terminal":false,"user":{"additionalGids":[],"gid":1000,"uid":1000}}"#
        );
        assert_eq!(out.table.capabilities, fixture::set(&["CAP_KILL"]));
        assert_eq!((out.table.label, out.table.mounts), (container.label.clone(), container.mounts.clone()));
        // Landlock too is what the container was sealed to, whatever the policy says by now.
        let mut listed = container;
        listed.landlock.programs = Some(vec!["/bin/id".into()]);
        let asked = process(r#"{"user":{"uid":1000,"gid":1000},"cwd":"/","args":["id"]}"#);
        let out = seal_process(permit_for(&fixture::policy(), &exec_facts()), asked, &listed).unwrap();
        assert_eq!(out.table.landlock, listed.landlock);
    }

    #[test]
    fn an_exec_is_inspected_for_its_own_user_and_place() {
        let mut facts = exec_facts();
        facts.process.uid = 1001;
        facts.process.gid = 1002;
        facts.process.additional_gids = vec![1003];
        facts.process.cwd = "/tmp".into();
        facts.process.terminal = true;
        let asked = process(
            r#"{"user":{"uid":1001,"gid":1002,"additionalGids":[1003]},"cwd":"/tmp","args":["id"],"terminal":true}"#,
        );
        let container = sealed(&fixture::policy(), &fixture::facts()).unwrap().table;
        let table = seal_process(permit_for(&fixture::policy(), &facts), asked, &container).unwrap().table;
        assert_eq!((table.uid, table.gid, table.additional_gids), (1001, 1002, vec![1003]));
        assert_eq!((table.cwd.as_str(), table.terminal), ("/tmp", true));
    }

    #[test]
    fn home_is_always_set_and_descriptors_are_never_handed_on() {
        for (given, env) in [
            (r#"["PATH=/bin"]"#, vec!["PATH=/bin", "HOME=/"]),
            (r#"["HOME=/root","A=1"]"#, vec!["HOME=/root", "A=1"]),
            (r#"["HOME=","A=1"]"#, vec!["A=1", "HOME=/"]),
            (r#"["HOME=/"]"#, vec!["HOME=/"]),
            (r#"["NOTHOME=/x"]"#, vec!["NOTHOME=/x", "HOME=/"]),
            (r#"["LISTEN_FDS=3","LISTEN_PID=1","A"]"#, vec!["HOME=/"]),
        ] {
            let asked = process(&format!(r#"{{"user":{{}},"cwd":"/","env":{given}}}"#));
            assert_eq!(environment(&asked), env, "{given}");
        }
    }

    #[test]
    fn another_environment_is_refused() {
        let judged = |env: &[&str]| {
            let mut facts = exec_facts();
            facts.process.env = env.iter().map(|entry| Variable::of(entry)).collect();
            let asked = r#"{"user":{"uid":1000,"gid":1000},"cwd":"/","args":["id"],"env":["A=1","B=2"]}"#;
            seal_process(permit_for(&fixture::policy(), &facts), process(asked), &Table::default())
        };
        assert!(judged(&["A=1", "B=2"]).is_ok());
        for other in [&["A=1", "B=3"][..], &["A=1"], &["A=1", "B=2", "C=3"], &["A=1", "C=2"], &["B=2", "A=1"], &[]] {
            assert!(judged(other).unwrap_err().contains("not the one that was judged"), "{other:?}");
        }
    }

    #[test]
    fn another_process_or_door_is_refused() {
        let container = Table::default();
        let other = process(r#"{"user":{"uid":1000,"gid":1000},"cwd":"/","args":["sh"]}"#);
        assert!(seal_process(permit_for(&fixture::policy(), &exec_facts()), other.clone(), &container).is_err());
        let root = process(r#"{"user":{"uid":0,"gid":1000},"cwd":"/","args":["id"]}"#);
        assert!(seal_process(permit_for(&fixture::policy(), &exec_facts()), root, &container).is_err());
        assert!(seal_process(permit_for(&fixture::policy(), &fixture::facts()), other, &container).is_err());
    }
}
