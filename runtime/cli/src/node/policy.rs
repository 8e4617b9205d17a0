//! `boltseal node policy`: the part of a policy that this boot's event log gives, to start from on a node that is known good.
use super::{LIMIT, hex, quoted, tpm_address};
use crate::screen::{Exit, Failure, Screen, talk};
use boltseal_node::log::{Draft, Events, Kernel, Known, Labelled, MAX_LOG, apart, draft};
use boltseal_node::tpm::Tpm;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

/// PCRs of a policy: firmware and its drivers by value; loader, Secure Boot, command line and initrd by rules where they can.
const PCRS: [u32; 5] = [0, 2, 4, 7, 9];
/// What no command line of a node should have: another init, a shell, protections off.
const NEVER: [&str; 6] =
    ["init=", "systemd.debug_shell", "systemd.unit=", "module.sig_enforce=0", "lockdown=none", "mitigations=off"];

pub(crate) fn policy(
    tpm: Option<&str>,
    log: Option<&Path>,
    cmdline: Option<&str>,
    values: bool,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let address = tpm_address(tpm);
    let kernel = Kernel { tpm: &address, deadline: Instant::now() + LIMIT };
    let bytes = read_log(log, &kernel)?;
    let answer = apart(&bytes, kernel.deadline).map_err(Failure::undecided)?;
    let events = Events::decode(&bytes, &answer).map_err(Failure::undecided)?;
    let path = Known(&events).boot_path();
    let pcrs: BTreeMap<u32, [u8; 32]> = match log {
        Some(_) => {
            talk("a log from a file: nothing proves that a TPM measured it");
            events.replay()
        }
        None => Tpm::open(&address, Instant::now() + LIMIT)
            .and_then(|mut tpm| tpm.pcrs(PCRS.into_iter().chain([8])))
            .map_err(Failure::undecided)?,
    };
    let wanted = pcrs.into_iter().filter(|(pcr, _)| PCRS.contains(pcr) || *pcr == 8).collect();
    let log_digest = hex(&events.digest());
    let proven = events.prove(&wanted).map_err(Failure::undecided)?;
    let line = match cmdline {
        Some(text) => text.as_bytes().to_vec(),
        None => kernel.command_line().map_err(Failure::undecided)?,
    };
    let draft = draft(&proven, &line);
    let text = snippet(&wanted, &draft, values);
    if screen.json() {
        let pcrs: BTreeMap<_, _> = wanted.iter().map(|(pcr, value)| (pcr.to_string(), hex(value))).collect();
        screen
            .document(&json!({ "boot_path": path, "log": log_digest, "pcrs": pcrs, "draft": draft, "policy": text }))?;
    } else {
        for line in text.lines() {
            screen.line(line)?;
        }
    }
    if !draft.command_line_vouched {
        talk("nothing that was measured vouches for /proc/cmdline: rules on the command line would deny every start");
    }
    Ok(Exit::Ok)
}

pub(super) fn read_log(file: Option<&Path>, kernel: &Kernel<'_>) -> Result<Vec<u8>, Failure> {
    let Some(path) = file else { return kernel.log().map_err(Failure::undecided) };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_LOG as u64 + 1).read_to_end(&mut bytes))
        .map_err(|e| Failure::undecided(format!("{}: {e}", path.display())))?;
    Ok(bytes)
}

/// TOML for a file of its own in policy.d.
fn snippet(pcrs: &BTreeMap<u32, [u8; 32]>, draft: &Draft, values: bool) -> String {
    let secure = draft.secure_boot == Some(true) && !draft.certificates.is_empty();
    let by_rules = |pcr: u32| match pcr {
        4 => !draft.images.is_empty(),
        7 => secure,
        9 => !draft.files.is_empty() && draft.command_line_vouched,
        _ => false,
    };
    let mut out = vec![
        "# What this boot measured. It is good if this boot was: check each digest before you sign it.".to_owned(),
    ];
    out.push("[node.pcrs]".into());
    for (pcr, value) in pcrs.iter().filter(|(pcr, _)| PCRS.contains(pcr)) {
        let nothing = value.iter().all(|b| *b == 0) || value.iter().all(|b| *b == 0xff);
        match (nothing, by_rules(*pcr) && !values) {
            (true, _) => out.push(format!("# nothing measured: {pcr}")),
            (_, true) => out.push(format!("# {pcr} is judged by rules: {}", hex(value))),
            _ => out.push(format!("{pcr} = [\"{}\"]", hex(value))),
        }
    }
    out.push("[node.log]".into());
    list(&mut out, "images", &draft.images);
    match draft.secure_boot {
        Some(true) => out.push("secure_boot = true".into()),
        _ => out.push("# Secure Boot is off in this boot: PCR 7 needs a value, and any kernel that is not listed is seen by PCR 4 alone".into()),
    }
    list(&mut out, "certificates", &draft.certificates);
    list(&mut out, "files", &draft.files);
    if draft.command_line_vouched {
        out.push(format!("# this boot: {}", boltseal_audit::clean(&draft.command_line, 2000)));
        let flat = draft.command_line.replace('-', "_");
        let never: Vec<_> =
            NEVER.iter().filter(|text| !flat.contains(&text.replace('-', "_"))).map(|text| quoted(text)).collect();
        out.push(format!("command_line_never = [{}]", never.join(", ")));
    }
    out.join("\n")
}

fn list(out: &mut Vec<String>, name: &str, entries: &[Labelled]) {
    if entries.is_empty() {
        return;
    }
    out.push(format!("{name} = ["));
    for entry in entries {
        out.push(format!("    \"{}\", # {}", entry.digest, entry.label));
    }
    out.push("]".into());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(byte: u8, label: &str) -> Labelled {
        Labelled { digest: hex(&[byte; 32]), label: label.into() }
    }

    /// What is printed is a policy that lint accepts, with Secure Boot and without.
    #[test]
    fn what_is_printed_is_a_policy() {
        let pcrs: BTreeMap<_, _> = PCRS.into_iter().map(|pcr| (pcr, [pcr as u8 + 1; 32])).collect();
        let mut draft = Draft {
            images: vec![entry(4, "image")],
            certificates: vec![entry(7, "db")],
            secure_boot: Some(true),
            files: vec![entry(9, "Linux initrd")],
            command_line_vouched: true,
            command_line: "root=/dev/vda1 \"init=\" ro\u{1b}".into(),
        };
        let of = |draft: &Draft, values| {
            let text = format!("version = 1\n{}", snippet(&pcrs, draft, values));
            let policy = boltseal_policy::Policy::parse(&text, &[]).unwrap();
            (policy.validate(), policy.node)
        };
        let (problems, node) = of(&draft, false);
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(node.pcrs.keys().collect::<Vec<_>>(), ["0", "2"]);
        assert!(!node.log.unwrap().command_line_never.contains("init="), "this very boot has it");
        let (problems, node) = of(&draft, true);
        assert_eq!((problems, node.pcrs.len()), (vec![], 5));
        (draft.secure_boot, draft.certificates) = (Some(false), vec![]);
        let (problems, node) = of(&draft, false);
        assert_eq!(problems, Vec::<String>::new());
        assert!(node.pcrs.contains_key("7") && !node.pcrs.contains_key("4"));
    }
}
