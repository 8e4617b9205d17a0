//! `boltseal sig list` and `sig gc`: what the store holds, and what it holds for images that are gone.
mod layers;

use crate::paths::SIGNATURES;
use crate::screen::{Colour, Exit, Failure, Screen, count};
use boltseal_evidence::containerd::{Client, Error};
use boltseal_store::{Held, Store};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where containerd listens, on its own and within k3s.
const ADDRESSES: [&str; 2] = ["/run/containerd/containerd.sock", "/run/k3s/containerd/containerd.sock"];
/// For one namespace; the client has a bound of its own.
const TIME: Duration = Duration::from_secs(2);

pub(crate) fn list(screen: &mut Screen) -> Result<Exit, Failure> {
    let images = held()?;
    if screen.json() {
        let images: Vec<_> = images.iter().map(described).collect();
        screen.document(&json!({ "store": SIGNATURES, "images": images }))?;
        return Ok(Exit::Ok);
    }
    for image in &images {
        screen.line(&format!("sha256:{}", image.manifest_hex))?;
        for (name, size) in &image.files {
            screen.line(&format!("  {name}  {}", count(usize::try_from(*size).unwrap_or(0), "byte")))?;
        }
    }
    let files = images.iter().map(|image| image.files.len()).sum();
    screen.line(&format!("{} of {} in {SIGNATURES}", count(files, "file"), count(images.len(), "image")))?;
    Ok(Exit::Ok)
}

/// Removes what no containerd has an image for, and what nothing was added to since `grace`: a verifier and an operator
/// bring signatures before there is an image; and the sealed layers that no statement names then. Where any containerd does not say what
/// it has, nothing is removed.
pub(crate) fn gc(addresses: &[String], grace: &str, dry_run: bool, screen: &mut Screen) -> Result<Exit, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let since = boltseal_audit::parse_since(grace, now).filter(|since| *since <= now).ok_or_else(|| {
        Failure::new(Exit::Usage, format!("--grace {grace}: neither 7d, 12h nor a date that is past"))
    })?;
    let addresses: Vec<&str> = match addresses {
        [] => ADDRESSES.into_iter().filter(|path| Path::new(path).exists()).collect(),
        given => given.iter().map(String::as_str).collect(),
    };
    if addresses.is_empty() {
        return Err(Failure::undecided(format!(
            "no containerd at {}: nothing is removed. Fix: --address ADDRESS",
            ADDRESSES.join(", ")
        )));
    }
    let unsure = |why: String| Failure::undecided(format!("{why}: nothing is removed"));
    let all = held()?;
    let (old, young): (Vec<_>, Vec<_>) = all.iter().cloned().partition(|image| image.changed < since);
    let (looked, kept) = (old.len(), young.len());
    let gone = gone(&addresses, old).map_err(unsure)?;
    let left: Vec<&Held> = all.iter().filter(|image| !gone.contains(image)).collect();
    let layers = layers::Sorted::of(&left, since).map_err(unsure)?;
    if !dry_run {
        let store = Store::open(Path::new(SIGNATURES)).map_err(Failure::undecided)?;
        for image in &gone {
            store.remove(image).map_err(Failure::undecided)?;
        }
        layers.remove().map_err(Failure::undecided)?;
    }
    let used = looked - gone.len();
    if screen.json() {
        let removed: Vec<_> = gone.iter().map(described).collect();
        let layers = layers.described();
        screen.document(
            &json!({ "removed": removed, "dry_run": dry_run, "in_use": used, "young": kept, "sealed": layers }),
        )?;
        return Ok(Exit::Ok);
    }
    let did = if dry_run { "would go" } else { "removed" };
    for image in &gone {
        let files = count(image.files.len(), "file");
        screen.row('-', Colour::Dim, &format!("sha256:{}  {files} {did}", image.manifest_hex))?;
    }
    layers.show(did, screen)?;
    screen.line(&format!("{} {did}; {used} in use, {kept} too young ({grace})", count(gone.len(), "image")))?;
    layers.sum_up(did, screen)?;
    Ok(Exit::Ok)
}

fn held() -> Result<Vec<Held>, Failure> {
    if !Path::new(SIGNATURES).exists() {
        return Ok(Vec::new());
    }
    Store::open(Path::new(SIGNATURES)).and_then(|store| store.images()).map_err(Failure::undecided)
}

fn described(image: &Held) -> Value {
    let files: Vec<_> = image.files.iter().map(|(name, size)| json!({ "name": name, "bytes": size })).collect();
    json!({ "image": format!("sha256:{}", image.manifest_hex), "files": files, "changed": image.changed })
}

/// Those that no namespace of no containerd has an image or a blob of. An index's manifests are blobs that it keeps.
fn gone(addresses: &[&str], mut left: Vec<Held>) -> Result<Vec<Held>, String> {
    let mut images = 0;
    for address in addresses {
        let failed = |e: Error| format!("{address}: {e}");
        let connect = |namespace: &str| Client::connect(address, namespace, Instant::now() + TIME).map_err(failed);
        for namespace in connect("default")?.namespaces().map_err(failed)? {
            let client = connect(&namespace)?;
            let targets: BTreeSet<String> = client.targets().map_err(failed)?.into_iter().collect();
            images += targets.len();
            let mut still = Vec::new();
            for image in left {
                let digest = format!("sha256:{}", image.manifest_hex);
                if !targets.contains(&digest) && !client.has_blob(&digest).map_err(failed)? {
                    still.push(image);
                }
            }
            left = still;
        }
    }
    // One that was just set up, or is on another disk than it was: it would take everything with it.
    if images == 0 && !left.is_empty() {
        return Err(format!("{}: no image at all", addresses.join(", ")));
    }
    Ok(left)
}
