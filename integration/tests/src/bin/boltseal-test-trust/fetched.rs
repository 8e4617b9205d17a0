//! What `boltseal-fetch` with `require = true` says of a keyless signature that it just brought.
use crate::Case;
use crate::starts::{MISSING, Stand};
use anyhow::{Context, Result, ensure};
use stack::node::{SIGNATURES, install_of};
use stack::process::output;
use stack::registry::ADDRESS;
use std::fs;
use std::path::Path;
use std::process::Command;

const CONFIG: &str = "/etc/boltseal/fetch.toml";
const NONE: &str = "none is by an authority of the policy";

type Bend = fn(&mut Stand) -> Result<()>;

const FETCHED: [(&str, Option<&str>, Bend); 4] = [
    ("signed by the identity that is named", None, |_| Ok(())),
    ("another identity named", Some(NONE), |stand| stand.authority("identities", vec!["intern@corp.example"])),
    ("another trusted root", Some(NONE), |stand| stand.authority("trusted_root", "other.json")),
    ("a fetcher without the feature", Some(MISSING), |stand| install_of(&stand.plain)),
];

pub(crate) fn cases(stand: &mut Stand) -> Result<Vec<Case>> {
    fs::write(CONFIG, format!("require = true\nplain_http = [\"{ADDRESS}\"]\n"))?;
    let image = stand.image("keyless")?.clone();
    let name = format!("{}@{}", image.repository, image.manifest);
    let mut all = Vec::new();
    for (what, refused, bend) in FETCHED {
        stand.store("keyless", Vec::new())?;
        bend(stand).context(what)?;
        let said = output(Command::new("boltseal-fetch").arg(&name))?;
        let brought = fs::read_dir(Path::new(SIGNATURES).join(image.hex()))?.count();
        ensure!(brought == 1, "{what}: {brought} files: {said:?}");
        let reason = said.stdout.trim().to_owned();
        ensure!(reason.contains(refused.unwrap_or("one is by an authority of the policy")), "{what}: {said:?}");
        ensure!([0, 1].contains(&said.code), "{what}: {said:?}");
        let ours = if said.ok() { Ok(()) } else { Err(reason) };
        let note = "boltseal-fetch, require = true";
        all.push(Case { format: "keyless fetch", name: what, accept: refused.is_none(), ours, tool: None, note });
        stand.undo()?;
    }
    fs::remove_file(CONFIG)?;
    Ok(all)
}
