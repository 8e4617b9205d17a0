//! `boltseal sig import`: signatures and attestations of an OCI image layout into the node's store.
//!
//! The importer is not trusted: every start verifies what it reads. It only takes what a start could use, and says what
//! it left.
mod gc;
mod sealed;

pub(crate) use gc::{gc, list};

use crate::paths::{SIGNATURES, VERITY};
use crate::screen::{Colour, Exit, Failure, Screen, count, talk};
use boltseal_evidence::signatures::MAX_FILES;
use boltseal_store::layout::Layout;
use boltseal_store::{Put, Store};
use boltseal_trust::{Imported, import_layout};
use serde_json::json;
use std::path::Path;

pub(crate) fn import(path: &Path, screen: &mut Screen) -> Result<Exit, Failure> {
    let layout = Layout::open(path).map_err(Failure::undecided)?;
    talk(&format!("reading {}, {}", path.display(), count(layout.blobs().len(), "blob")));
    let mut found = collect(&layout).map_err(Failure::undecided)?;
    let store = Store::open(Path::new(SIGNATURES)).map_err(Failure::undecided)?;
    let mut taken = Vec::new();
    let files = std::mem::take(&mut found.files);
    for file in &files {
        match store.put(file, MAX_FILES).map_err(Failure::undecided)? {
            Put::Full => found.skipped.push(format!(
                "sha256:{}  {}: there is no room. Fix: remove what is not needed there, or boltseal sig gc",
                file.manifest_hex, file.name
            )),
            put => taken.push((file, put == Put::New)),
        }
    }
    let (sealed, mut skipped) = sealed::take(&layout, &found.blobs, Path::new(VERITY)).map_err(Failure::undecided)?;
    skipped.extend(found.skipped);
    let exit = if taken.is_empty() && sealed.is_empty() { Exit::Findings } else { Exit::Ok };
    if screen.json() {
        let files: Vec<_> = taken
            .iter()
            .map(|(f, new)| json!({ "image": format!("sha256:{}", f.manifest_hex), "file": f.name, "new": new }))
            .collect();
        let blobs: Vec<_> =
            sealed.iter().map(|(digest, new)| json!({ "blob": digest.to_string(), "new": new })).collect();
        screen.document(&json!({ "store": SIGNATURES, "taken": files, "sealed": blobs, "skipped": skipped }))?;
        return Ok(exit);
    }
    for (file, new) in &taken {
        let known = if *new { "" } else { " (was there already)" };
        screen.row('✓', Colour::Good, &format!("sha256:{}  {}{known}", file.manifest_hex, file.name))?;
    }
    for (digest, new) in &sealed {
        let known = if *new { "" } else { " (was there already)" };
        screen.row('✓', Colour::Good, &format!("{digest}  sealed layer{known}"))?;
    }
    for skipped in &skipped {
        screen.row('!', Colour::Doubt, &format!("skipped {skipped}"))?;
    }
    screen.line(&format!(
        "{} in {SIGNATURES}, {} new; {} skipped",
        count(taken.len(), "file"),
        taken.iter().filter(|(_, new)| *new).count(),
        skipped.len()
    ))?;
    if taken.is_empty() && sealed.is_empty() {
        talk(
            "nothing taken: the layout holds no signature that a start could take. Fix: sign the image, then save it with its signatures",
        );
    }
    Ok(exit)
}

/// What the index names, and the bundles that lie among the blobs without being named there.
fn collect(layout: &Layout) -> Result<Imported, String> {
    let index = layout.index()?;
    let mut found = import_layout(|digest| layout.blob(digest), &index).map_err(|e| e.to_string())?;
    for (digest, size) in layout.blobs() {
        if *size > boltseal_trust::MAX_ATTESTATION_FILE as u64 {
            continue;
        }
        let bytes = layout.blob(digest)?;
        // Whatever is no bundle is some other blob of the image.
        if let Ok(file) = boltseal_trust::bundle_file(&bytes) {
            found.files.push(file);
        }
    }
    found.files.sort();
    found.files.dedup();
    Ok(found)
}
