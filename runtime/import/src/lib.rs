//! Policies of other tools -> a boltseal policy. No I/O, no clock.
//!
//! What comes out is never looser than what went in, as far as it says: a demand that cannot be kept takes its scope with it,
//! and so does one below it that would then fall to it. What is lost is told by name, with the reason. Two things are told
//! and not kept: a transparency log's entry, and a pattern for one level of a path.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests"))]

mod cluster;
mod containers;
mod draft;
mod expand;
mod keyless;
mod kyverno;
mod reference;
mod root;
mod value;
mod workload;

pub use draft::{Imported, Kind, Note};
pub use value::read as documents;
pub use workload::{Asked, Workload, workloads};

use boltseal_trust::{Json, Key};
use draft::Draft;

/// Bytes of the largest file.
pub const MAX_FILE: usize = 1 << 20;

/// The policy that says the same, of a containers `policy.json`, or of Kyverno and policy-controller manifests in YAML or
/// JSON. `read` gets the path of a key or certificate that the file names, `sound` tells a key that can verify something, `root` is
/// the trusted root of keyless signers whose CA and logs the file only names.
///
/// # Errors
/// One line: the file is none of these, or not well formed.
pub fn import(
    bytes: &[u8],
    read: impl FnMut(&str) -> Result<Vec<u8>, String>,
    sound: fn(&Key) -> bool,
    root: Option<String>,
) -> Result<Imported, String> {
    let documents = value::read(bytes)?;
    let (mut containers, mut manifests) = (Vec::new(), Vec::new());
    for document in documents {
        match document.get("apiVersion") {
            Some(_) => manifests.push(document),
            None => containers.push(document),
        }
    }
    match (containers.as_slice(), manifests.as_slice()) {
        ([policy], []) => {
            let mut draft = Draft::new("a containers policy.json", false, sound, root);
            containers::import(policy, read, &mut draft)?;
            draft.finish()
        }
        ([], [_, ..]) => {
            let mut draft = Draft::new("Kubernetes image policies", true, sound, root);
            for manifest in &manifests {
                kubernetes(manifest, &mut draft, true)?;
            }
            draft.finish()
        }
        _ => Err("neither one containers policy.json nor Kubernetes manifests (apiVersion, kind)".into()),
    }
}

fn kubernetes(manifest: &Json, draft: &mut Draft, outer: bool) -> Result<(), String> {
    let text = |name: &str| manifest.get(name).and_then(Json::text).unwrap_or_default();
    let (group, kind) = (text("apiVersion").split('/').next().unwrap_or_default(), text("kind"));
    match (group, kind) {
        ("v1", "List") if outer => {
            for item in value::list(manifest, "items")? {
                kubernetes(item, draft, false)?;
            }
            Ok(())
        }
        ("kyverno.io", "ClusterPolicy" | "Policy") => kyverno::import(manifest, draft),
        ("policy.sigstore.dev", "ClusterImagePolicy") => cluster::import(manifest, draft),
        _ => {
            let kind = boltseal_policy::text::show(kind);
            Err(format!(
                "a manifest of kind \"{kind}\": known are ClusterPolicy, Policy (Kyverno), ClusterImagePolicy, List"
            ))
        }
    }
}

#[cfg(test)]
mod tests;
