//! BS-NOD-001's fact: the node's verdict for this boot, verified anew for this start.
use crate::worker::{Jail, Parse};
use crate::{paths, state};
use boltseal_node::log::{Kernel, LogRules, LogSource, propose};
use boltseal_node::measured::{Log, PCR};
use boltseal_node::text::{accepted, digests};
use boltseal_node::{Boot, Error, LogPolicy, NodePolicy, check};
use boltseal_policy::Fact;
use boltseal_policy::facts::Node;
use boltseal_policy::policy::{self, NodeRules};
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest wait for a TPM in the way of a start.
const TPM_TIME: Duration = Duration::from_secs(5);

/// `key` is the enrolled AK's PEM, None when the bundle has none. What was `measured` of boltseal in this boot is one more
/// PCR that the quote must show.
pub(crate) fn fact(rules: &NodeRules, key: Option<&[u8]>, policy_digest: &str, measured: Option<&Log>) -> Fact<Node> {
    let Some(key) = key.and_then(|bytes| std::str::from_utf8(bytes).ok()) else {
        return Fact::Absent;
    };
    if rules.pcrs.is_empty() && rules.log.is_none() {
        return Fact::Absent;
    }
    attested(rules, key, policy_digest, measured).unwrap_or_else(Fact::Unknown)
}

fn attested(rules: &NodeRules, key: &str, policy_digest: &str, measured: Option<&Log>) -> Result<Fact<Node>, String> {
    let said = |e: Error| e.to_string();
    let boot = Boot::current().map_err(|e| format!("this boot has no identity: {e}"))?;
    state::run_folder()?;
    let deadline = Instant::now() + TPM_TIME;
    let source = Jailed { kernel: Kernel { tpm: &rules.tpm }, deadline };
    let log = rules.log.as_ref().map(log_rules).transpose().map_err(said)?;
    let mut pcrs = accepted(&rules.pcrs).map_err(said)?;
    pcrs.extend(measured.map(|log| (PCR, vec![log.value()])));
    let policy = NodePolicy {
        tpm: &rules.tpm,
        ak_spki_pem: key,
        pcrs,
        log: log.map(|rules| LogPolicy { rules, source: &source }),
        ttl: Duration::from_secs(rules.ttl),
    };
    let state = check(Path::new(paths::RUN), &policy, policy_digest, &boot, deadline);
    Ok(Fact::Is(Node {
        tpm: if state.software { "software".into() } else { "hardware".into() },
        verified: state.verified,
        problems: state.problems,
        notes: state.notes,
        wrong_pcrs: state.wrong_pcrs,
    }))
}

fn log_rules(rules: &policy::LogRules) -> Result<LogRules, Error> {
    Ok(LogRules {
        images: digests("log.images", &rules.images)?,
        certificates: digests("log.certificates", &rules.certificates)?,
        secure_boot: rules.secure_boot,
        files: digests("log.files", &rules.files)?,
        command_line_has: rules.command_line_has.iter().cloned().collect(),
        command_line_never: rules.command_line_never.iter().cloned().collect(),
    })
}

/// The kernel's log, taken apart in a worker. What comes back is replayed and compared with the quote: see `boltseal_node::log`.
#[derive(Debug)]
struct Jailed<'a> {
    kernel: Kernel<'a>,
    deadline: Instant,
}

impl LogSource for Jailed<'_> {
    fn log(&self) -> Result<Vec<u8>, Error> {
        self.kernel.log()
    }

    fn propose(&self, log: &[u8]) -> Result<Vec<u8>, Error> {
        let jail = Jail::new(self.deadline).map_err(Error::Refused)?;
        jail.parse(propose, log).map_err(|why| Error::Refused(format!("the event log could not be taken apart: {why}")))
    }

    fn command_line(&self) -> Result<Vec<u8>, Error> {
        self.kernel.command_line()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> NodeRules {
        NodeRules { pcrs: [("7".into(), vec!["ab".repeat(32)])].into(), ..NodeRules::default() }
    }

    #[test]
    fn what_does_not_read_is_unknown_and_nothing_enrolled_is_absent() {
        assert_eq!(fact(&rules(), None, "d", None), Fact::Absent);
        assert_eq!(fact(&NodeRules::default(), Some(b"pem"), "d", None), Fact::Absent);
        let bad = NodeRules { pcrs: [("24".into(), vec![])].into(), ..rules() };
        assert!(matches!(attested(&bad, "pem", "d", None), Err(why) if why.contains("no PCR")));
        let log = policy::LogRules { images: ["x".to_owned()].into(), ..Default::default() };
        let bad = NodeRules { log: Some(log), ..rules() };
        assert!(matches!(attested(&bad, "pem", "d", None), Err(why) if why.contains("log.images")));
    }

    /// A worker takes a log apart, also one that is none; whatever kills it is told.
    #[test]
    fn a_log_is_taken_apart_in_a_jail() {
        let source =
            Jailed { kernel: Kernel { tpm: "/dev/tpmrm0" }, deadline: Instant::now() + Duration::from_secs(5) };
        let told = |log: &[u8]| source.propose(log).unwrap();
        assert_eq!(told(b"junk"), propose(b"junk"));
        assert_eq!(told(&vec![0; 3 << 20]), propose(&vec![0; 3 << 20]));
        let late = Jailed { deadline: Instant::now(), ..source };
        assert!(late.propose(b"junk").unwrap_err().to_string().contains("could not be taken apart"));
    }
}
