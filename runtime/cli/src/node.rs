//! `boltseal node enroll` and `status`.
use crate::paths::{POLICY, RUN};
use crate::policy::{Bad, Loaded, load, load_without_keys};
use crate::screen::{Colour, Exit, Failure, Screen, talk};
use boltseal_node::log::{Kernel, LogRules, LogSource};
use boltseal_node::text::{accepted, digests};
use boltseal_node::{Boot, Enrolment, Error, LogPolicy, NodePolicy, Status};
use boltseal_policy::policy;
use serde_json::json;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

const DEVICE: &str = "/dev/tpmrm0";
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn enroll(
    tpm: Option<&str>,
    pcrs: &[u32],
    write_key: Option<&Path>,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    if let Some(bad) = pcrs.iter().find(|pcr| **pcr > 23) {
        return Err(Failure::new(Exit::Usage, format!("--pcrs: there is no PCR {bad}, only 0 to 23")));
    }
    // A node that has no policy yet is enrolled too.
    let named = match tpm {
        Some(tpm) => tpm.to_owned(),
        None => load_without_keys(Path::new(POLICY))
            .ok()
            .map(|l| l.policy.node.tpm)
            .filter(|t| !t.is_empty())
            .unwrap_or_else(|| DEVICE.into()),
    };
    talk(&format!("asking the TPM at {named}"));
    let enrolment = boltseal_node::enroll(&named, Instant::now() + LIMIT).map_err(Failure::undecided)?;
    let key_file =
        write_key.and_then(|p| p.file_name()).map_or_else(|| "node.pem".into(), |n| n.to_string_lossy().into_owned());
    let snippet = snippet(&named, pcrs, &key_file, &enrolment);
    if let Some(path) = write_key {
        write(path, &enrolment.ak_spki_pem).map_err(|e| {
            Failure::undecided(format!("{}: {e}. Fix: name a file that is not there yet", path.display()))
        })?;
        talk(&format!("wrote {}: put it into {POLICY}/trust/", path.display()));
    }
    talk(
        "trust on first use: nothing proves yet that this key lives in a genuine TPM; compare the name on another way",
    );
    if enrolment.software {
        talk(
            "a software TPM: BS-NOD-001 denies every start unless a dated exception of condition software-tpm says otherwise",
        );
    }
    if screen.json() {
        let mut document = serde_json::to_value(&enrolment).map_err(Failure::undecided)?;
        if let Some(map) = document.as_object_mut() {
            map.insert("policy".into(), json!(snippet));
        }
        screen.document(&document)?;
    } else {
        for line in snippet.lines() {
            screen.line(line)?;
        }
        if write_key.is_none() {
            screen.line(&format!("# {POLICY}/trust/{key_file}:"))?;
            for line in enrolment.ak_spki_pem.lines() {
                screen.line(&format!("#   {line}"))?;
            }
        }
    }
    Ok(Exit::Ok)
}

/// The part of a policy that makes this node's state the accepted one.
fn snippet(tpm: &str, pcrs: &[u32], key_file: &str, enrolment: &Enrolment) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    line(format!("# TPM {:?}, attestation key {}", enrolment.manufacturer, enrolment.ak_name_hex));
    line("# Trust on first use: compare that name on another way before relying on it.".into());
    if let Some(why) = &enrolment.not_kept {
        line(format!("# The TPM does not keep the key ({why}): each attestation makes it anew, which takes longer."));
    }
    line("[node]".into());
    line(format!("tpm = {}", quoted(tpm)));
    line(format!("attestation_key = {}", quoted(key_file)));
    line("[node.pcrs]".into());
    for (pcr, value) in enrolment.pcrs.iter().filter(|(pcr, _)| pcrs.contains(pcr)) {
        let hex: String = value.iter().map(|b| format!("{b:02x}")).collect();
        // A PCR that nothing was measured into says nothing of this node.
        let nothing = value.iter().all(|b| *b == 0) || value.iter().all(|b| *b == 0xff);
        line(format!("{}{pcr} = [\"{hex}\"]", if nothing { "# nothing measured: " } else { "" }));
    }
    out
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

fn write(path: &Path, pem: &str) -> std::io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o644).open(path)?;
    file.write_all(pem.as_bytes())?;
    file.sync_all()
}

pub(crate) fn status(screen: &mut Screen) -> Result<Exit, Failure> {
    let loaded = load(Path::new(POLICY)).map_err(Bad::failure)?;
    let Some(status) = look(&loaded)? else {
        return Err(Failure::new(
            Exit::Findings,
            format!("the policy names no enrolled key that is in {POLICY}/trust/. Fix: boltseal node enroll"),
        ));
    };
    let rules = &loaded.policy.node;
    let exit = if status.verified && status.problems.is_empty() { Exit::Ok } else { Exit::Findings };
    if screen.json() {
        screen.document(&status)?;
        return Ok(exit);
    }
    let kind = if status.software { "software TPM" } else { "TPM" };
    screen.line(&format!("{kind} {}, made by {}", rules.tpm, status.manufacturer.as_deref().unwrap_or("?")))?;
    let (mark, colour, text) = match status.ak_matches {
        Some(true) => ('✓', Colour::Good, "this TPM has it"),
        Some(false) => ('✗', Colour::Bad, "this TPM does not have it"),
        None => ('?', Colour::Doubt, "the TPM could not be asked"),
    };
    screen.row(mark, colour, &format!("enrolled key {}: {text}", status.ak_name_hex))?;
    for (pcr, (value, accepted)) in &status.pcrs {
        let (mark, colour) = if *accepted { ('✓', Colour::Good) } else { ('✗', Colour::Bad) };
        screen.row(mark, colour, &format!("PCR {pcr:2} {value}"))?;
    }
    for problem in &status.problems {
        screen.row('!', Colour::Doubt, problem)?;
    }
    match (status.verified, status.expires_in) {
        (true, Some(seconds)) => {
            screen.row('✓', Colour::Good, &format!("attested for this boot and policy, for another {seconds} s"))?;
        }
        (true, None) => screen.row('✓', Colour::Good, "attested for this boot and policy")?,
        (false, _) => screen.row('✗', Colour::Bad, "not attested")?,
    }
    Ok(exit)
}

/// The TPM and the kept verdict under a policy; None when that enrolled no key.
pub(crate) fn look(loaded: &Loaded) -> Result<Option<Status>, Failure> {
    let rules = &loaded.policy.node;
    let key = loaded.bundle.trust(&rules.attestation_key).and_then(|bytes| std::str::from_utf8(bytes).ok());
    let Some(key) = key.filter(|_| !rules.attestation_key.is_empty()) else { return Ok(None) };
    let source = Kernel { tpm: &rules.tpm };
    let node = node_policy(rules, key, &source)?;
    let boot = Boot::current().map_err(Failure::undecided)?;
    Ok(Some(boltseal_node::status(Path::new(RUN), &node, &loaded.bundle.digest, &boot, Instant::now() + LIMIT)))
}

/// The kernel has no kexec: the switch that would turn it off comes with it.
pub(crate) fn kexec_is_absent() -> bool {
    Path::new("/proc/sys/kernel/pid_max").exists() && !Path::new("/proc/sys/kernel/kexec_load_disabled").exists()
}

/// A policy's `[node]` as a start takes it.
fn node_policy<'a>(
    rules: &'a policy::NodeRules,
    key: &'a str,
    source: &'a dyn LogSource,
) -> Result<NodePolicy<'a>, Failure> {
    let bad = |e: Error| Failure::new(Exit::BadPolicy, e);
    let log = rules.log.as_ref().map(log_rules).transpose().map_err(bad)?;
    Ok(NodePolicy {
        tpm: &rules.tpm,
        ak_spki_pem: key,
        pcrs: accepted(&rules.pcrs).map_err(bad)?,
        log: log.map(|rules| LogPolicy { rules, source }),
        ttl: Duration::from_secs(rules.ttl),
    })
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

    #[test]
    fn text_cannot_leave_its_quotes() {
        assert_eq!(quoted("unix:/a\"b\\c\n"), "\"unix:/a\\\"b\\\\c\\u000A\"");
    }
}
