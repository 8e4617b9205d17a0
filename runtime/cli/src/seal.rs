//! `boltseal image seal`: at build time, off the node. For each layer of an image an EROFS image and its dm-verity tree, and one
//! signed statement of which belongs to which. All of it goes into the layout, as referrers of the image that any tool copies.
mod layer;

use crate::policy_sign::private;
use crate::screen::{Colour, Exit, Failure, Screen, count, talk};
use boltseal_trust::{
    Digest, MAX_SIGNATURE_FILE, Proposal, Source, VERITY_ARTIFACT, VERITY_BLOB, VerityLayer, bind_child, bind_diff_ids,
    digest, dsse_envelope, dsse_message, propose, verity_predicate, verity_statement,
};
use layer::Work;
use ring::rand::SystemRandom;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const BLOBS: &str = "blobs/sha256";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DSSE: &str = "application/vnd.dsse.envelope.v1+json";
const CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
/// In the index, on what was made for an image: made again, it takes the place of what was there.
const SUBJECT: &str = "dev.boltseal.verity.subject";
/// Indexes inside each other.
const MAX_NESTED: usize = 3;
const MAX_FILE: u64 = 4 << 20;

/// Who signs the statement.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Signer<'a> {
    /// A private key, here.
    Key(&'a Path),
    /// Another tool: the predicate of each image goes into this folder.
    Predicate(&'a Path),
}

/// An image of the layout.
struct Found {
    digest: Digest,
    size: usize,
    /// diff_id and compressed blob, the lowest first.
    layers: Vec<(Digest, Digest)>,
}

pub(crate) fn seal(path: &Path, by: Signer<'_>, only: Option<&str>, screen: &mut Screen) -> Result<Exit, Failure> {
    let key = match by {
        Signer::Key(key) => Some(private(key)?),
        Signer::Predicate(_) => None,
    };
    let index_file = path.join("index.json");
    let index = read(&index_file)?;
    let mut found = Vec::new();
    walk(path, &index, 0, &mut found)?;
    found.retain(|image| only.is_none_or(|only| image.digest.to_string() == only));
    if found.is_empty() {
        return Err(Failure::new(
            Exit::Findings,
            "no such image in the layout. Fix: copy the image into it, then seal it",
        ));
    }
    let work = Work::new(path.join(BLOBS))?;
    let mut made = BTreeMap::<Digest, VerityLayer>::new();
    let mut entries = Vec::new();
    let mut told = Vec::new();
    for image in &found {
        let mut layers = Vec::new();
        for (diff_id, blob) in &image.layers {
            if !made.contains_key(diff_id) {
                talk(&format!("layer {diff_id}"));
                made.insert(*diff_id, work.layer(diff_id, &blob_file(path, blob))?);
            }
            layers.extend(made.get(diff_id).cloned());
        }
        let predicate = verity_predicate(&layers, &work.mkfs());
        let statement = verity_statement(&image.digest, &predicate);
        let mut parts = Vec::new();
        match (by, &key) {
            (Signer::Predicate(folder), _) | (Signer::Key(folder), None) => {
                let file = folder.join(format!("{}.json", image.digest.hex()));
                fs::write(&file, &predicate).map_err(|e| Failure::undecided(format!("{}: {e}", file.display())))?;
            }
            (Signer::Key(_), Some((pair, public))) => {
                let signature = pair.sign(&SystemRandom::new(), &dsse_message(&statement));
                let signature = signature.map_err(|_| Failure::undecided("the key cannot sign"))?;
                let envelope = dsse_envelope(&statement, signature.as_ref(), public.id());
                if envelope.len() > MAX_SIGNATURE_FILE {
                    return Err(Failure::new(
                        Exit::Findings,
                        "the statement is larger than a start reads: too many layers",
                    ));
                }
                parts.push(put(path, DSSE, envelope.as_bytes())?);
            }
        }
        parts.extend(layers.iter().map(|l| descriptor(VERITY_BLOB, &l.blob, l.size)));
        entries.push((image.digest, referrer(path, image, &parts)?));
        told.push(json!({ "image": image.digest.to_string(), "layers": layers.iter().map(shown).collect::<Vec<_>>() }));
    }
    write_index(&index_file, &index, entries)?;
    if screen.json() {
        screen.document(&json!({ "sealed": told, "mkfs": work.mkfs() }))?;
        return Ok(Exit::Ok);
    }
    for image in &found {
        screen.row('✓', Colour::Good, &format!("{}  {}", image.digest, count(image.layers.len(), "layer")))?;
    }
    let total: u64 = made.values().map(|layer| layer.size).sum();
    screen.line(&format!("{} made by {}, {} MiB", count(made.len(), "blob"), work.mkfs(), total >> 20))?;
    Ok(Exit::Ok)
}

fn shown(layer: &VerityLayer) -> Value {
    json!({ "diff_id": layer.diff_id.to_string(), "blob": layer.blob.to_string(), "size": layer.size,
        "hash_offset": layer.hash_offset, "root_hash": layer.root_hash.hex() })
}

/// Images below an index. What is no image (signatures, attestations, what an earlier seal made) is passed over.
fn walk(path: &Path, index: &[u8], nested: usize, found: &mut Vec<Found>) -> Result<(), Failure> {
    let Ok(Proposal::Index(index)) = propose(Source::Index, index) else {
        return Err(Failure::undecided(
            "index.json is no index of images. Fix: give the folder of an OCI image layout",
        ));
    };
    for entry in index.entries {
        let named = entry.descriptor.digest.digest;
        // What is listed and not here is a platform that nobody copied.
        let Some(bytes) = blob(path, &named)? else { continue };
        match propose(Source::Target, &bytes) {
            Ok(Proposal::Index(_)) if nested < MAX_NESTED => walk(path, &bytes, nested + 1, found)?,
            Ok(Proposal::Manifest(manifest)) if CONFIGS.contains(&manifest.config.media_type.as_str()) => {
                let wrong = |why: String| Failure::undecided(format!("{named}: {why}"));
                let config_digest = manifest.config.digest;
                let config = blob(path, &config_digest.digest)?.ok_or_else(|| wrong("its config is missing".into()))?;
                bind_child(&bytes, boltseal_trust::Link::ManifestToConfig, &config_digest, &config)
                    .map_err(|why| wrong(why.to_string()))?;
                let Ok(Proposal::Config(proposed)) = propose(Source::Config, &config) else {
                    return Err(wrong("its config is none of an image".into()));
                };
                let diff_ids = bind_diff_ids(&config, &proposed.diff_ids).map_err(|why| wrong(why.to_string()))?;
                if diff_ids.len() != manifest.layers.len() || diff_ids.is_empty() {
                    return Err(wrong("its config and its manifest count layers differently".into()));
                }
                let blobs = manifest.layers.iter().map(|layer| layer.digest.digest);
                let layers = diff_ids.into_iter().zip(blobs).collect();
                if !found.iter().any(|image| image.digest == named) {
                    found.push(Found { digest: named, size: bytes.len(), layers });
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn blob_file(path: &Path, digest: &Digest) -> PathBuf {
    path.join(BLOBS).join(digest.hex())
}

/// None when it is not there.
fn blob(path: &Path, named: &Digest) -> Result<Option<Vec<u8>>, Failure> {
    let file = blob_file(path, named);
    if !file.exists() {
        return Ok(None);
    }
    let bytes = read(&file)?;
    if digest(&bytes) == *named { Ok(Some(bytes)) } else { Err(Failure::undecided(format!("{named}: other bytes"))) }
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let fail = |e: &dyn std::fmt::Display| Failure::undecided(format!("{}: {e}", file.display()));
    let meta = fs::metadata(file).map_err(|e| fail(&e))?;
    if meta.len() > MAX_FILE {
        return Err(fail(&format!("larger than {MAX_FILE} bytes")));
    }
    fs::read(file).map_err(|e| fail(&e))
}

fn descriptor(kind: &str, digest: &Digest, size: u64) -> Value {
    json!({ "mediaType": kind, "digest": digest.to_string(), "size": size })
}

fn put(path: &Path, kind: &str, bytes: &[u8]) -> Result<Value, Failure> {
    let named = digest(bytes);
    let file = blob_file(path, &named);
    crate::policy_files::put(&file, bytes, 0o644)
        .map_err(|e| Failure::undecided(format!("{}: {e}", file.display())))?;
    Ok(descriptor(kind, &named, bytes.len() as u64))
}

/// The manifest that refers to the image and holds `parts`.
fn referrer(path: &Path, image: &Found, parts: &[Value]) -> Result<Value, Failure> {
    let config = put(path, "application/vnd.oci.empty.v1+json", b"{}")?;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": VERITY_ARTIFACT, "config": config, "layers": parts,
        "subject": descriptor(MANIFEST, &image.digest, image.size as u64),
    });
    let bytes = serde_json::to_vec(&manifest).map_err(Failure::undecided)?;
    put(path, MANIFEST, &bytes)
}

fn write_index(file: &Path, index: &[u8], entries: Vec<(Digest, Value)>) -> Result<(), Failure> {
    let fail = |e: &dyn std::fmt::Display| Failure::undecided(format!("{}: {e}", file.display()));
    let mut index: Value = serde_json::from_slice(index).map_err(|e| fail(&e))?;
    let list = index.get_mut("manifests").and_then(Value::as_array_mut).ok_or_else(|| fail(&"no manifests"))?;
    for (image, mut entry) in entries {
        let (image, pointer) = (image.to_string(), format!("/annotations/{SUBJECT}"));
        list.retain(|other| other.pointer(&pointer).and_then(Value::as_str) != Some(&image));
        if let Some(entry) = entry.as_object_mut() {
            entry.insert("artifactType".into(), VERITY_ARTIFACT.into());
            entry.insert("annotations".into(), json!({ SUBJECT: image }));
        }
        list.push(entry);
    }
    let bytes = serde_json::to_vec(&index).map_err(|e| fail(&e))?;
    crate::policy_files::put(file, &bytes, 0o644).map_err(|e| fail(&e))
}
