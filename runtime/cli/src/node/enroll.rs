//! `boltseal node enroll`: the key of this node's TPM, and what a policy says of it.
use super::{LIMIT, hex, quoted, tpm_address};
use crate::paths::POLICY;
use crate::screen::{Exit, Failure, Screen, talk};
use boltseal_node::Enrolment;
use serde_json::json;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Instant;

pub(crate) fn enroll(
    tpm: Option<&str>,
    pcrs: &[u32],
    write_key: Option<&Path>,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    if let Some(bad) = pcrs.iter().find(|pcr| **pcr > 23) {
        return Err(Failure::new(Exit::Usage, format!("--pcrs: there is no PCR {bad}, only 0 to 23")));
    }
    let named = tpm_address(tpm);
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
        let hex = hex(value);
        // A PCR that nothing was measured into says nothing of this node.
        let nothing = value.iter().all(|b| *b == 0) || value.iter().all(|b| *b == 0xff);
        line(format!("{}{pcr} = [\"{hex}\"]", if nothing { "# nothing measured: " } else { "" }));
    }
    out
}

fn write(path: &Path, pem: &str) -> std::io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o644).open(path)?;
    file.write_all(pem.as_bytes())?;
    file.sync_all()
}
