//! `boltseal node enroll request|approve|complete|confirm`: two parties, files between them.
use super::enroll::{check_pcrs, node_part, write};
use super::{LIMIT, hex, tpm_address};
use crate::screen::{Colour, Exit, Failure, Screen, talk};
use boltseal_node::parties::{self, Approval, MAX_FILE, Pending, Proof, Request};
use boltseal_node::{Error, Makers};
use boltseal_policy::pattern;
use clap::Subcommand;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Largest file of certificates.
const MAX_PEM: u64 = 1 << 20;

#[derive(Debug, Subcommand)]
pub(crate) enum Part {
    /// On the node: write a request with its attestation key and its TPM's endorsement certificates
    Request {
        /// What the node is called; nothing proves it
        #[arg(long, value_name = "NAME")]
        node: String,
        /// The TPM; by default what the policy names
        #[arg(long)]
        tpm: Option<String>,
        /// The new file to write
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Off the node: check requests against TPM makers' certificates and write approvals
    Approve {
        /// Requests
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Certificates of TPM makers to trust, PEM
        #[arg(long, value_name = "FILE")]
        ek_roots: PathBuf,
        /// Certificates between those and the TPMs, PEM
        #[arg(long, value_name = "FILE")]
        ek_intermediates: Option<PathBuf>,
        /// Approve only nodes whose name matches
        #[arg(long, value_name = "PATTERN", default_value = "*")]
        node: String,
        /// Folder for NAME.approval.json, which goes to the node, and NAME.pending.json, which stays
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// On the node: open an approval, and write the proof that this TPM holds both keys
    Complete {
        /// NAME.approval.json
        approval: PathBuf,
        /// The TPM; by default what the policy names
        #[arg(long)]
        tpm: Option<String>,
        /// The new file to write
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Off the node: check a proof, and print what the policy must say of the node
    Confirm {
        /// NAME.pending.json
        pending: PathBuf,
        /// The proof
        proof: PathBuf,
        /// PCRs of the SHA-256 bank to accept as the request quotes them
        #[arg(long, value_delimiter = ',', default_value = "0,2,4,7,9")]
        pcrs: Vec<u32>,
        /// Write the key to this new file, for trust/ of the policy
        #[arg(long, value_name = "FILE")]
        write_key: Option<PathBuf>,
    },
}

pub(super) fn run(part: &Part, screen: &mut Screen) -> Result<Exit, Failure> {
    match part {
        Part::Request { node, tpm, out } => {
            let made = parties::request(&tpm_address(tpm.as_deref()), node, Instant::now() + LIMIT);
            let made = made.map_err(Failure::undecided)?;
            save(out, &made)?;
            told(
                screen,
                &format!("wrote {}: take it to who approves nodes", out.display()),
                &json!({ "node": made.node }),
            )
        }
        Part::Approve { files, ek_roots, ek_intermediates, node, out } => {
            let between = ek_intermediates.as_deref().map(|path| text(path, MAX_PEM)).transpose()?.unwrap_or_default();
            let makers = Makers::from_pem(&text(ek_roots, MAX_PEM)?, &between);
            approve(files, &makers.map_err(|e| Failure::new(Exit::Usage, e))?, node, out, screen)
        }
        Part::Complete { approval, tpm, out } => {
            let approval: Approval = load(approval)?;
            let proof = parties::complete(&tpm_address(tpm.as_deref()), &approval, Instant::now() + LIMIT);
            save(out, &proof.map_err(refused)?)?;
            let said = format!("wrote {}: take it back to who approved this node", out.display());
            told(screen, &said, &json!({ "node": approval.node, "ak_name": approval.ak_name }))
        }
        Part::Confirm { pending, proof, pcrs, write_key } => {
            check_pcrs(pcrs)?;
            let (pending, proof): (Pending, Proof) = (load(pending)?, load(proof)?);
            let key = parties::confirm(&pending, &proof).map_err(refused)?;
            confirmed(&pending, &key.to_pem(), pcrs, write_key.as_deref(), screen)
        }
    }
}

/// Each request by itself: one that is refused does not stop the others.
fn approve(files: &[PathBuf], makers: &Makers, node: &str, out: &Path, screen: &mut Screen) -> Result<Exit, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(Failure::undecided)?.as_secs();
    let mut all = Vec::new();
    for file in files {
        let one = || -> Result<(String, String), Failure> {
            let request: Request = load(file)?;
            if !pattern::matches(node, &request.node) {
                return Err(Failure::new(
                    Exit::Findings,
                    format!("its name {:?} does not match {node:?}", request.node),
                ));
            }
            let (approval, pending) = parties::approve(&request, makers, now).map_err(refused)?;
            save(&out.join(format!("{}.pending.json", request.node)), &pending)?;
            save(&out.join(format!("{}.approval.json", request.node)), &approval)?;
            Ok((request.node, pending.ek_certificate))
        };
        all.push((file, one()));
    }
    let exit = if all.iter().all(|(_, one)| one.is_ok()) { Exit::Ok } else { Exit::Findings };
    if screen.json() {
        let list = all.iter().map(|(file, one)| match one {
            Ok((node, certificate)) => {
                json!({ "file": file, "node": node, "ek_certificate": certificate, "approved": true })
            }
            Err(failure) => json!({ "file": file, "approved": false, "problem": failure.text }),
        });
        screen.document(&list.collect::<Vec<_>>())?;
        return Ok(exit);
    }
    for (file, one) in &all {
        match one {
            Ok((node, certificate)) => {
                screen.row('✓', Colour::Good, &format!("{node}: endorsement certificate {certificate}"))?;
            }
            Err(failure) => screen.row('✗', Colour::Bad, &format!("{}: {}", file.display(), failure.text))?,
        }
    }
    Ok(exit)
}

fn confirmed(
    pending: &Pending,
    pem: &str,
    pcrs: &[u32],
    write_key: Option<&Path>,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let file = format!("{}.pem", pending.node);
    let name = write_key.and_then(Path::file_name).map_or(file, |name| name.to_string_lossy().into_owned());
    if let Some(path) = write_key {
        write(path, pem)?;
    }
    let heads = [
        format!("# {}, attestation key {}", pending.node, pending.ak_name),
        format!("# Certified by its TPM's maker: endorsement certificate {}", pending.ek_certificate),
    ];
    let values: Vec<_> = pending.pcrs.iter().map(|(pcr, value)| (*pcr, *value)).collect();
    let part = node_part(&heads, None, &name, "certified", &values, pcrs);
    if screen.json() {
        let values: std::collections::BTreeMap<_, _> =
            values.iter().map(|(pcr, v)| (pcr.to_string(), hex(v))).collect();
        screen.document(&json!({
            "node": pending.node, "ak_name_hex": pending.ak_name, "ak_spki_pem": pem,
            "ek_certificate": pending.ek_certificate, "pcrs": values, "policy": part,
        }))?;
    } else {
        for line in part.lines() {
            screen.line(line)?;
        }
    }
    Ok(Exit::Ok)
}

fn refused(error: Error) -> Failure {
    match error {
        Error::Io(..) | Error::Deadline(_) => Failure::undecided(error),
        other => Failure::new(Exit::Findings, other),
    }
}

fn told(screen: &mut Screen, said: &str, document: &serde_json::Value) -> Result<Exit, Failure> {
    talk(said);
    if screen.json() {
        screen.document(document)?;
    }
    Ok(Exit::Ok)
}

fn load<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let text = text(path, MAX_FILE as u64 + 1)?;
    parties::read(text.as_bytes()).map_err(|e| Failure::undecided(format!("{}: {e}", path.display())))
}

fn text(path: &Path, limit: u64) -> Result<String, Failure> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(limit).read_to_string(&mut text))
        .map_err(|e| Failure::undecided(format!("{}: {e}", path.display())))?;
    Ok(text)
}

fn save(path: &Path, value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(Failure::undecided)?;
    write(path, &format!("{text}\n"))
}
