//! BS-NOD-001's fact: the node's verdict for this boot, verified anew for this start.
use crate::{paths, state};
use boltseal_node::log::{Kernel, LogRules};
use boltseal_node::measured::{Log, PCR};
use boltseal_node::text::{accepted, digests};
use boltseal_node::{Boot, Error, LogPolicy, NodePolicy, TokenPolicy, check, check_token, is_software};
use boltseal_policy::Fact;
use boltseal_policy::facts::Node;
use boltseal_policy::policy::{self, NodeRules};
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest wait for a TPM in the way of a start.
const TPM_TIME: Duration = Duration::from_secs(5);

/// What the bundle and this boot give beside the rules.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Given<'a> {
    /// The enrolled AK's PEM, None when the bundle has none.
    pub(crate) key: Option<&'a [u8]>,
    /// The verifier's keys.
    pub(crate) jwks: Option<&'a [u8]>,
    pub(crate) policy_digest: &'a str,
    /// What was measured of boltseal in this boot: one more PCR that the quote must show.
    pub(crate) measured: Option<&'a Log>,
    pub(crate) now: &'a Fact<u64>,
}

pub(crate) fn fact(rules: &NodeRules, given: &Given<'_>) -> Fact<Node> {
    let key = match given.key.map(std::str::from_utf8) {
        None => return Fact::Absent,
        Some(Err(_)) => return Fact::Unknown("node.attestation_key is no PEM file".into()),
        Some(Ok(key)) => key,
    };
    let instead = rules.ear.as_ref().is_some_and(|ear| ear.instead);
    if rules.pcrs.is_empty() && rules.log.is_none() && !instead {
        return Fact::Absent;
    }
    attested(rules, key, given).unwrap_or_else(Fact::Unknown)
}

fn attested(rules: &NodeRules, key: &str, given: &Given<'_>) -> Result<Fact<Node>, String> {
    let said = |e: Error| e.to_string();
    let boot = Boot::current().map_err(|e| format!("this boot has no identity: {e}"))?;
    state::run_folder()?;
    let token = rules.ear.as_ref().map(|ear| token(ear, key, &boot, given));
    if let (Some(token), true) = (&token, rules.ear.as_ref().is_some_and(|ear| ear.instead)) {
        let software = is_software(&rules.tpm).map_err(said)?;
        return Ok(Fact::Is(Node {
            tpm: if software { "software".into() } else { "hardware".into() },
            verified: token.is_ok(),
            problems: token.as_ref().err().cloned().into_iter().collect(),
            ..Node::default()
        }));
    }
    let deadline = Instant::now() + TPM_TIME;
    let source = Kernel { tpm: &rules.tpm, deadline };
    let log = rules.log.as_ref().map(log_rules).transpose().map_err(said)?;
    let mut pcrs = accepted(&rules.pcrs).map_err(said)?;
    pcrs.extend(given.measured.map(|log| (PCR, vec![log.value()])));
    let policy = NodePolicy {
        tpm: &rules.tpm,
        ak_spki_pem: key,
        pcrs,
        log: log.map(|rules| LogPolicy { rules, source: &source }),
        cap: rules.cap,
        ttl: Duration::from_secs(rules.ttl),
    };
    let mut state = check(Path::new(paths::RUN), &policy, given.policy_digest, &boot, deadline);
    if let Some(Err(why)) = token {
        state.verified = false;
        state.problems.push(why);
    }
    Ok(Fact::Is(Node {
        tpm: if state.software { "software".into() } else { "hardware".into() },
        verified: state.verified,
        problems: state.problems,
        notes: state.notes,
        wrong_pcrs: state.wrong_pcrs,
    }))
}

/// The verifier's token. The gate parses nothing of it before a pinned key has verified it.
fn token(rules: &policy::EarRules, key: &str, boot: &Boot, given: &Given<'_>) -> Result<(), String> {
    let Fact::Is(now) = given.now else {
        return Err("the verifier's token: the time is not known, so it may have expired".into());
    };
    let jwks = given.jwks.ok_or_else(|| format!("trust/{} of [node.ear] is missing", rules.jwks))?;
    let policy = TokenPolicy {
        jwks,
        issuer: &rules.issuer,
        audience: &rules.audience,
        ak_claim: &rules.ak_claim,
        nonce_claim: &rules.nonce_claim,
    };
    check_token(Path::new(paths::RUN), &policy, key, boot, *now).map(drop).map_err(|e| e.to_string())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> NodeRules {
        NodeRules { pcrs: [("7".into(), vec!["ab".repeat(32)])].into(), ..NodeRules::default() }
    }

    #[test]
    fn what_does_not_read_is_unknown_and_nothing_enrolled_is_absent() {
        let none = Given { key: None, ..given() };
        assert_eq!(fact(&rules(), &none), Fact::Absent);
        let der = Given { key: Some(&[0x30, 0x82, 0xff]), ..given() };
        assert!(matches!(fact(&rules(), &der), Fact::Unknown(why) if why.contains("no PEM file")));
        assert_eq!(fact(&NodeRules::default(), &given()), Fact::Absent);
        let bad = NodeRules { pcrs: [("24".into(), vec![])].into(), ..rules() };
        assert!(matches!(attested(&bad, "pem", &given()), Err(why) if why.contains("no PCR")));
        let log = policy::LogRules { images: ["x".to_owned()].into(), ..Default::default() };
        let bad = NodeRules { log: Some(log), ..rules() };
        assert!(matches!(attested(&bad, "pem", &given()), Err(why) if why.contains("log.images")));
    }

    fn given() -> Given<'static> {
        Given { key: Some(b"pem"), jwks: None, policy_digest: "d", measured: None, now: &Fact::Is(1_800_000_000) }
    }

    /// A clock that went back, a key set that is missing, no token: each is a reason, none is a pass.
    #[test]
    fn a_token_needs_a_clock_keys_and_itself() {
        let ear = policy::EarRules { jwks: "ear.jwks".into(), instead: true, ..Default::default() };
        let boot = Boot::current().unwrap();
        let why = |given: &Given<'_>| token(&ear, "pem", &boot, given).unwrap_err();
        let back = Fact::Unknown("the clock is before the last record".into());
        assert!(why(&Given { now: &back, ..given() }).contains("may have expired"));
        assert!(why(&given()).contains("trust/ear.jwks"));
        assert!(why(&Given { jwks: Some(b"{}"), ..given() }).contains("attestation key"));
    }
}
