//! `boltseal node anchor`: the head of the trail, signed by a key that only a boot in an approved state can use.
use super::enroll::{check_pcrs, write};
use super::{LIMIT, hex, tpm_address};
use crate::paths::TRAIL;
use crate::policy_sign::private;
use crate::screen::{Exit, Failure, Screen, talk};
use base64::{Engine, engine::general_purpose::STANDARD};
use boltseal_node::Boot;
use boltseal_node::bound::{self, Approved};
use boltseal_node::key::AttestationKey;
use boltseal_node::text::accepted;
use boltseal_node::tpm::Tpm;
use clap::Subcommand;
use nix::fcntl::OFlag;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

const MAX_FILE: u64 = 64 << 10;

#[derive(Debug, Subcommand)]
pub(crate) enum Anchor {
    /// On the node: print the bound key of this TPM for an authority
    Key {
        /// The authority's public key, P-256 in PEM
        #[arg(long, value_name = "FILE")]
        authority: PathBuf,
        /// The TPM; by default what the policy names
        #[arg(long)]
        tpm: Option<String>,
    },
    /// On the node: write the present values of PCRs, for the authority to approve
    State {
        /// PCRs of the SHA-256 bank
        #[arg(long, value_delimiter = ',', default_value = "0,2,4,7,9")]
        pcrs: Vec<u32>,
        /// The TPM; by default what the policy names
        #[arg(long)]
        tpm: Option<String>,
        /// The new file to write
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Off the node: approve a state
    Approve {
        /// What `state` wrote
        state: PathBuf,
        /// The authority's private key, PKCS #8
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The new file to write
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// On the node: sign the trail's newest record
    Sign {
        /// The authority's public key
        #[arg(long, value_name = "FILE")]
        authority: PathBuf,
        /// The approval of this boot's state
        #[arg(long, value_name = "FILE")]
        approval: PathBuf,
        /// Append the line to this file too, which is made if need be
        #[arg(long, value_name = "FILE")]
        append: Option<PathBuf>,
        /// The TPM; by default what the policy names
        #[arg(long)]
        tpm: Option<String>,
    },
    /// Off the node: check what `sign` printed, and print its head for `audit verify --head`
    Check {
        /// What `sign` printed
        anchor: PathBuf,
        /// The bound key, as `key` printed it
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
}

/// PCR values, and what the authority said to them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    version: u32,
    pcrs: BTreeMap<String, String>,
    /// r and s, base64.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    signature: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    version: u32,
    boot_id: String,
    /// `SEQ:SUM` of the newest record.
    head: String,
    /// Seconds since the epoch, as the node's clock had it.
    at: u64,
    signature: String,
}

impl Signed {
    fn message(&self) -> String {
        format!("boltseal anchor v1\n{}\n{}\n{}\n", self.boot_id, self.head, self.at)
    }
}

pub(super) fn run(anchor: &Anchor, screen: &mut Screen) -> Result<Exit, Failure> {
    match anchor {
        Anchor::Key { authority, tpm } => {
            let key = bound::key(&tpm_address(tpm.as_deref()), &text(authority)?, Instant::now() + LIMIT);
            let key = key.map_err(Failure::undecided)?;
            if screen.json() {
                screen.document(&json!({ "bound_key": key }))?;
            } else {
                key.lines().try_for_each(|line| screen.line(line))?;
            }
        }
        Anchor::State { pcrs, tpm, out } => {
            check_pcrs(pcrs)?;
            let values = Tpm::open(&tpm_address(tpm.as_deref()), Instant::now() + LIMIT)
                .and_then(|mut tpm| tpm.pcrs(pcrs.iter().copied()))
                .map_err(Failure::undecided)?;
            let pcrs = values.iter().map(|(pcr, value)| (pcr.to_string(), hex(value))).collect();
            save(out, &State { version: 1, pcrs, signature: None })?;
        }
        Anchor::Approve { state, key, out } => {
            let state: State = load(state)?;
            let message = bound::state(&values(&state)?).map_err(bad)?;
            let der =
                private(key)?.0.sign(&SystemRandom::new(), &message).map_err(|_| Failure::undecided("no signature"))?;
            let fixed = fixed(der.as_ref()).ok_or_else(|| Failure::undecided("an odd signature"))?;
            save(out, &State { signature: Some(STANDARD.encode(fixed)), ..state })?;
        }
        Anchor::Sign { authority, approval, append, tpm } => {
            let signed = sign(authority, approval, tpm.as_deref())?;
            append.as_deref().map_or(Ok(()), |file| add(file, &signed))?;
            screen.document(&signed)?;
        }
        Anchor::Check { anchor, key } => return check(anchor, key, screen),
    }
    Ok(Exit::Ok)
}

fn sign(authority: &Path, approval: &Path, tpm: Option<&str>) -> Result<Signed, Failure> {
    let state: State = load(approval)?;
    let signature = state.signature.as_deref().and_then(|text| STANDARD.decode(text).ok());
    let signature = signature.and_then(|bytes| bytes.try_into().ok());
    let signature = signature.ok_or_else(|| bad("the approval has no signature. Fix: node anchor approve"))?;
    let approved = Approved { pcrs: values(&state)?, signature };
    let report = boltseal_audit::verify(Path::new(TRAIL), None).map_err(Failure::undecided)?;
    if !report.problems.is_empty() {
        return Err(bad("the trail does not verify: there is nothing to sign. Fix: boltseal audit verify"));
    }
    let head = report.head.ok_or_else(|| bad("the trail is empty"))?;
    let mut signed = Signed {
        version: 1,
        boot_id: Boot::current().map_err(Failure::undecided)?.boot_id,
        head: format!("{}:{}", head.seq, head.sum),
        at: SystemTime::now().duration_since(UNIX_EPOCH).map_err(Failure::undecided)?.as_secs(),
        signature: String::new(),
    };
    let authority = text(authority)?;
    let message = signed.message();
    let made = bound::sign(&tpm_address(tpm), &authority, &approved, message.as_bytes(), Instant::now() + LIMIT);
    signed.signature = STANDARD.encode(made.map_err(bad)?);
    Ok(signed)
}

/// One line, by one write, on the disk before this returns. What is no plain file is not written to.
fn add(path: &Path, signed: &Signed) -> Result<(), Failure> {
    let line = serde_json::to_string(signed).map_err(Failure::undecided)?;
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let mut options = File::options();
    options.append(true).create(true).mode(0o600).custom_flags(flags.bits());
    let write = || {
        let mut file = options.open(path)?;
        if !file.metadata()?.is_file() {
            return Err(std::io::Error::other("it is no plain file"));
        }
        file.write_all(format!("{line}\n").as_bytes())?;
        file.sync_all()
    };
    write().map_err(|e| Failure::undecided(format!("{}: {e}", path.display())))
}

fn check(anchor: &Path, key: &Path, screen: &mut Screen) -> Result<Exit, Failure> {
    let signed: Signed = load(anchor)?;
    let key = AttestationKey::from_pem(&text(key)?).map_err(Failure::undecided)?;
    let signature = STANDARD.decode(&signed.signature).map_err(Failure::undecided)?;
    let good =
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.point()).verify(signed.message().as_bytes(), &signature);
    if good.is_err() {
        return Err(bad("the anchor is not signed by this key: no boot in an approved state made it"));
    }
    if screen.json() {
        screen.document(&json!({ "head": signed.head, "boot_id": signed.boot_id, "at": signed.at }))?;
    } else {
        screen.line(&signed.head)?;
    }
    Ok(Exit::Ok)
}

fn bad(why: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Findings, why)
}

fn values(state: &State) -> Result<BTreeMap<u32, [u8; 32]>, Failure> {
    let lists = state.pcrs.iter().map(|(pcr, value)| (pcr.clone(), vec![value.clone()])).collect();
    let lists = accepted(&lists).map_err(Failure::undecided)?;
    // 16 and 23 can be set back by anybody, 17 to 22 by a late launch; all zeroes or ones is a PCR that shows nothing.
    let unfit = |values: &[[u8; 32]]| values.iter().any(|v| *v == [0; 32] || *v == [0xff; 32]);
    if let Some((pcr, _)) = lists.iter().find(|(pcr, values)| **pcr > 15 || unfit(values)) {
        return Err(bad(format!(
            "PCR {pcr} shows no state of a boot. Fix: node anchor state with PCRs 0 to 15 that are measured into"
        )));
    }
    Ok(lists.into_iter().filter_map(|(pcr, values)| Some((pcr, *values.first()?))).collect())
}

/// r and s of an ECDSA-Sig-Value in DER (RFC 3279), 32 bytes each.
fn fixed(der: &[u8]) -> Option<[u8; 64]> {
    let [0x30, size, rest @ ..] = der else { return None };
    let mut rest = Some(rest).filter(|rest| rest.len() == usize::from(*size))?;
    let mut out = [0; 64];
    for half in out.chunks_exact_mut(32) {
        let [0x02, size, number @ ..] = rest else { return None };
        let (number, next) = number.split_at_checked(usize::from(*size))?;
        let number = number.strip_prefix(&[0]).unwrap_or(number);
        half.get_mut(32_usize.checked_sub(number.len())?..)?.copy_from_slice(number);
        rest = next;
    }
    rest.is_empty().then_some(out)
}

fn load<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    serde_json::from_str(&text(path)?).map_err(|e| Failure::undecided(format!("{}: {e}", path.display())))
}

fn text(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
        .map_err(|e| Failure::undecided(format!("{}: {e}", path.display())))?;
    Ok(text)
}

fn save(path: &Path, value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(Failure::undecided)?;
    write(path, &format!("{text}\n"))?;
    talk(&format!("wrote {}", path.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_in_der_has_two_numbers() {
        let mut der = vec![0x30, 0x26, 0x02, 0x21, 0];
        der.extend([0x99; 32]);
        der.extend([0x02, 0x01, 7]);
        let fixed_form = fixed(&der).unwrap();
        assert_eq!((fixed_form[0], fixed_form[31], fixed_form[62], fixed_form[63]), (0x99, 0x99, 0, 7));
        for end in 0..der.len() {
            assert_eq!(fixed(&der[..end]), None, "{end}");
        }
        assert_eq!(fixed(&[&der[..], &[0]].concat()), None);
    }
}
