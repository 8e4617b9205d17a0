//! `boltseal node enroll`: the key of this node's TPM, and what a policy says of it.
use super::parties::{self, Part};
use super::{LIMIT, hex, quoted, tpm_address};
use crate::paths::POLICY;
use crate::screen::{Exit, Failure, Screen, talk};
use clap::Args;
use serde_json::json;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    part: Option<Part>,
    /// Take the TPM's word for its key, without a maker's certificate and a second party; the policy says so
    #[arg(long)]
    trust_on_first_use: bool,
    /// The TPM: /dev/tpmrm0, or unix:/absolute/path of a software TPM; by default what the policy names
    #[arg(long)]
    tpm: Option<String>,
    /// PCRs of the SHA-256 bank to accept as they are now
    #[arg(long, value_delimiter = ',', default_value = "0,2,4,7,9")]
    pcrs: Vec<u32>,
    /// Write the key to this new file, for trust/ of the policy
    #[arg(long, value_name = "FILE")]
    write_key: Option<PathBuf>,
}

pub(super) fn run(options: &Options, screen: &mut Screen) -> Result<Exit, Failure> {
    if let Some(part) = &options.part {
        return parties::run(part, screen);
    }
    if !options.trust_on_first_use {
        let text = "nothing proves yet that this key lives in a genuine TPM. Fix: enroll request, approve, complete and confirm do; or say --trust-on-first-use";
        return Err(Failure::new(Exit::Usage, text));
    }
    check_pcrs(&options.pcrs)?;
    let address = tpm_address(options.tpm.as_deref());
    first_use(&address, &options.pcrs, options.write_key.as_deref(), screen)
}

pub(super) fn check_pcrs(pcrs: &[u32]) -> Result<(), Failure> {
    match pcrs.iter().find(|pcr| **pcr > 23) {
        Some(bad) => Err(Failure::new(Exit::Usage, format!("--pcrs: there is no PCR {bad}, only 0 to 23"))),
        None => Ok(()),
    }
}

fn first_use(address: &str, pcrs: &[u32], write_key: Option<&Path>, screen: &mut Screen) -> Result<Exit, Failure> {
    talk(&format!("asking the TPM at {address}"));
    let enrolment = boltseal_node::enroll(address, Instant::now() + LIMIT).map_err(Failure::undecided)?;
    let key_file =
        write_key.and_then(|p| p.file_name()).map_or_else(|| "node.pem".into(), |n| n.to_string_lossy().into_owned());
    let mut heads = vec![
        format!("# TPM {:?}, attestation key {}", enrolment.manufacturer, enrolment.ak_name_hex),
        "# Trust on first use: compare that name on another way before relying on it.".into(),
    ];
    if let Some(why) = &enrolment.not_kept {
        heads.push(format!(
            "# The TPM does not keep the key ({why}): each attestation makes it anew, which takes longer."
        ));
    }
    let values: Vec<_> = enrolment.pcrs.iter().map(|(pcr, value)| (*pcr, *value)).collect();
    let snippet = node_part(&heads, Some(address), &key_file, "trust-on-first-use", &values, pcrs);
    if let Some(path) = write_key {
        write(path, &enrolment.ak_spki_pem)?;
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

/// `[node]` and `[node.pcrs]`: what makes this key and these values the accepted ones.
pub(super) fn node_part(
    heads: &[String],
    tpm: Option<&str>,
    key_file: &str,
    enrolled: &str,
    values: &[(u32, [u8; 32])],
    pcrs: &[u32],
) -> String {
    let mut out = heads.to_vec();
    out.push("[node]".into());
    out.extend(tpm.map(|address| format!("tpm = {}", quoted(address))));
    out.push(format!("attestation_key = {}", quoted(key_file)));
    out.push(format!("enrolled = {}", quoted(enrolled)));
    out.push("[node.pcrs]".into());
    for (pcr, value) in values.iter().filter(|(pcr, _)| pcrs.contains(pcr)) {
        // A PCR that nothing was measured into says nothing of this node.
        let nothing = value.iter().all(|b| *b == 0) || value.iter().all(|b| *b == 0xff);
        out.push(format!("{}{pcr} = [\"{}\"]", if nothing { "# nothing measured: " } else { "" }, hex(value)));
    }
    out.push(String::new());
    out.join("\n")
}

pub(super) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let new = || {
        let mut file = File::options().write(true).create_new(true).mode(0o644).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    new().map_err(|e: std::io::Error| {
        Failure::undecided(format!("{}: {e}. Fix: name a file that is not there yet", path.display()))
    })
}
