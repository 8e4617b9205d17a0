//! `boltseal node`: the TPM of this node, its boot and its attestation.
mod anchor;
mod attest;
mod enroll;
mod parties;
mod policy;
mod predict;
mod status;

use crate::paths::{POLICY, RUN};
use crate::policy::{Loaded, load_without_keys};
use crate::policy_measured;
use crate::screen::{Exit, Failure, Screen};
use boltseal_node::log::{Kernel, LogRules, LogSource};
use boltseal_node::measured::PCR;
use boltseal_node::text::{accepted, digests};
use boltseal_node::{Boot, Error, LogPolicy, NodePolicy, Status, TokenPolicy, check_token, is_software};
use boltseal_policy::policy::{self as rules, EarRules, NodeRules};
use clap::Subcommand;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const DEVICE: &str = "/dev/tpmrm0";
const LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Find or make this node's attestation key and print what the policy must say of it
    Enroll(enroll::Options),
    /// Print the PCR values and log rules that this boot's event log gives
    Policy {
        /// The TPM; by default what the policy names
        #[arg(long)]
        tpm: Option<String>,
        /// Read the event log from this file; the TPM is not asked, nothing proves the log
        #[arg(long, value_name = "FILE")]
        log: Option<PathBuf>,
        /// The command line of that log's boot; by default this boot's
        #[arg(long, value_name = "TEXT", requires = "log")]
        cmdline: Option<String>,
        /// Name accepted values also where rules judge all of a PCR
        #[arg(long)]
        values: bool,
    },
    /// Attest this boot now and keep the verdict, as the first start would
    Attest {
        /// Seconds to wait for the TPM
        #[arg(long, default_value_t = 30)]
        wait: u64,
    },
    /// Tell what the next boot measures, from its parts
    Predict(predict::Options),
    /// The trail's head, signed by a key that only a boot in an approved state can use
    #[command(subcommand)]
    Anchor(anchor::Anchor),
    /// Show the TPM's state and whether the kept verdict holds
    Status,
}

pub(crate) fn run(command: &NodeCommand, screen: &mut Screen) -> Result<Exit, Failure> {
    match command {
        NodeCommand::Enroll(options) => enroll::run(options, screen),
        NodeCommand::Policy { tpm, log, cmdline, values } => {
            policy::policy(tpm.as_deref(), log.as_deref(), cmdline.as_deref(), *values, screen)
        }
        NodeCommand::Attest { wait } => attest::attest(Duration::from_secs((*wait).min(600)), screen),
        NodeCommand::Predict(options) => predict::predict(options, screen),
        NodeCommand::Anchor(anchor) => anchor::run(anchor, screen),
        NodeCommand::Status => status::status(screen),
    }
}

/// What was asked for, else what the policy names, else the first device. A node that has no policy yet is looked at too.
fn tpm_address(asked: Option<&str>) -> String {
    let named = || load_without_keys(Path::new(POLICY)).ok().map(|l| l.policy.node.tpm).filter(|t| !t.is_empty());
    asked.map(str::to_owned).or_else(named).unwrap_or_else(|| DEVICE.into())
}

/// The enrolled key's PEM; None when the policy enrolled none.
fn key(loaded: &Loaded) -> Option<&str> {
    let name = Some(&loaded.policy.node.attestation_key).filter(|name| !name.is_empty())?;
    loaded.bundle.trust(name).and_then(|bytes| std::str::from_utf8(bytes).ok())
}

fn not_enrolled() -> Failure {
    Failure::new(
        Exit::Findings,
        format!("the policy names no enrolled key that is in {POLICY}/trust/. Fix: boltseal node enroll"),
    )
}

/// The TPM and the kept verdict under a policy; None when that enrolled no key.
pub(crate) fn look(loaded: &Loaded) -> Result<Option<Status>, Failure> {
    let rules = &loaded.policy.node;
    let Some(key) = key(loaded) else { return Ok(None) };
    let deadline = Instant::now() + LIMIT;
    let source = Kernel { tpm: &rules.tpm, deadline };
    let node = node_policy(rules, key, &source)?;
    let boot = Boot::current().map_err(Failure::undecided)?;
    let token = rules.ear.as_ref().map(|ear| token(loaded, ear, key, &boot));
    if let (Some(token), true) = (&token, rules.ear.as_ref().is_some_and(|ear| ear.instead)) {
        return Ok(Some(Status {
            software: is_software(&rules.tpm).map_err(|e| Failure::new(Exit::BadPolicy, e))?,
            verified: token.is_ok(),
            problems: token.as_ref().err().cloned().into_iter().collect(),
            ..Status::default()
        }));
    }
    let mut status = boltseal_node::status(Path::new(RUN), &node, &loaded.bundle.digest, &boot, deadline);
    if let Some(Err(why)) = token {
        status.verified = false;
        status.problems.push(why);
    }
    Ok(Some(status))
}

/// The verifier's token, as a start would take it; the clock is compared with no record here.
fn token(loaded: &Loaded, rules: &EarRules, key: &str, boot: &Boot) -> Result<(), String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|e| e.to_string())?.as_secs();
    let jwks =
        loaded.bundle.trust(&rules.jwks).ok_or_else(|| format!("trust/{} of [node.ear] is missing", rules.jwks))?;
    let policy = TokenPolicy {
        jwks,
        issuer: &rules.issuer,
        audience: &rules.audience,
        ak_claim: &rules.ak_claim,
        nonce_claim: &rules.nonce_claim,
    };
    check_token(Path::new(RUN), &policy, key, boot, now).map(drop).map_err(|e| e.to_string())
}

/// The kernel has no kexec: the switch that would turn it off comes with it.
pub(crate) fn kexec_is_absent() -> bool {
    Path::new("/proc/sys/kernel/pid_max").exists() && !Path::new("/proc/sys/kernel/kexec_load_disabled").exists()
}

/// A policy's `[node]` as a start takes it.
fn node_policy<'a>(rules: &'a NodeRules, key: &'a str, source: &'a dyn LogSource) -> Result<NodePolicy<'a>, Failure> {
    let bad = |e: Error| Failure::new(Exit::BadPolicy, e);
    let log = rules.log.as_ref().map(log_rules).transpose().map_err(bad)?;
    let mut pcrs = accepted(&rules.pcrs).map_err(bad)?;
    pcrs.extend(policy_measured::log()?.map(|log| (PCR, vec![log.value()])));
    Ok(NodePolicy {
        tpm: &rules.tpm,
        ak_spki_pem: key,
        pcrs,
        log: log.map(|rules| LogPolicy { rules, source }),
        cap: rules.cap,
        ttl: Duration::from_secs(rules.ttl),
    })
}

fn log_rules(rules: &rules::LogRules) -> Result<LogRules, Error> {
    Ok(LogRules {
        images: digests("log.images", &rules.images)?,
        certificates: digests("log.certificates", &rules.certificates)?,
        secure_boot: rules.secure_boot,
        files: digests("log.files", &rules.files)?,
        command_line_has: rules.command_line_has.iter().cloned().collect(),
        command_line_never: rules.command_line_never.iter().cloned().collect(),
    })
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_leave_its_quotes() {
        assert_eq!(quoted("unix:/a\"b\\c\n"), "\"unix:/a\\\"b\\\\c\\u000A\"");
    }
}
