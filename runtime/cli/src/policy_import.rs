//! `boltseal policy import`: the policy of another tool as one of boltseal's, with what it could not say.
use crate::policy::{self, Bad};
use crate::screen::{Exit, Failure, Screen, talk};
use boltseal_evidence::file::Owner;
use boltseal_import::{Imported, Kind, MAX_FILE, import as translate};
use boltseal_trust::keyless::MAX_TRUSTED_ROOT;
use serde_json::json;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

const MAX_KEY: usize = 16 << 10;

/// Prints the policy; with `write` it also makes that folder, ready for `policy lint` and `policy sign`.
pub(crate) fn import(
    file: &Path,
    write: Option<&Path>,
    root: Option<&Path>,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let bad = |why: String| Failure::new(Exit::BadPolicy, format!("{}: {why}", file.display()));
    let bytes = read(file, MAX_FILE).map_err(|e| Failure::undecided(format!("{}: {e}", file.display())))?;
    let key = |path: &str| read(Path::new(path), MAX_KEY).map_err(|e| e.to_string());
    let failed = |root: &Path, e: &dyn std::fmt::Display| Failure::undecided(format!("{}: {e}", root.display()));
    let root = root.map(|root| {
        let bytes = read(root, MAX_TRUSTED_ROOT).map_err(|e| failed(root, &e))?;
        String::from_utf8(bytes).map_err(|e| failed(root, &e))
    });
    let found = translate(&bytes, key, policy::on_curve, root.transpose()?).map_err(bad)?;
    if let Some(folder) = write {
        written(folder, &found)?;
    }
    if screen.json() {
        let notes: Vec<_> =
            found.notes.iter().map(|n| json!({ "kind": n.kind.name(), "what": n.what, "why": n.why })).collect();
        let keys: Vec<_> = found.keys.iter().map(|(name, pem)| json!({ "file": name, "pem": pem })).collect();
        screen.document(&json!({ "scopes": found.scopes, "notes": notes, "keys": keys, "policy": found.policy }))?;
    } else {
        for line in found.policy.lines() {
            screen.line(line)?;
        }
        for (name, pem) in &found.keys {
            screen.line("")?;
            screen.line(&format!("# trust/{name}:"))?;
            for line in pem.lines() {
                screen.line(&format!("# {line}"))?;
            }
        }
        for note in &found.notes {
            talk(&format!("{}: {}: {}", note.kind.name(), note.what, note.why));
        }
    }
    let lost = found.notes.iter().any(|note| note.kind != Kind::Differs);
    Ok(if lost { Exit::Findings } else { Exit::Ok })
}

fn read(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    if bytes.len() > max {
        return Err(io::Error::other(format!("larger than {max} bytes")));
    }
    Ok(bytes)
}

/// A new folder: nothing that is there is written over.
fn written(folder: &Path, found: &Imported) -> Result<(), Failure> {
    let failed = |e: io::Error| Failure::undecided(format!("{}: {e}", folder.display()));
    fs::create_dir(folder).map_err(failed)?;
    fs::create_dir(folder.join("trust")).map_err(failed)?;
    fs::write(folder.join("policy.toml"), &found.policy).map_err(failed)?;
    for (name, pem) in &found.keys {
        fs::write(folder.join("trust").join(name), pem).map_err(failed)?;
    }
    let folder = std::path::absolute(folder).map_err(failed)?;
    policy::load_of(&folder, Owner::Any).map_err(Bad::failure).map(drop)
}
