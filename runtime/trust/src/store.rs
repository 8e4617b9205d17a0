//! From what the tools leave behind to files of the signature store. For the importer, which nobody trusts: a start
//! verifies every file anew.
use crate::digest::{Digest, digest};
use crate::notation::{cose, jws};
use crate::propose::json::{Object, object};
use crate::propose::signature::{bundle, cosign, dsse};
use crate::propose::{MAX_ATTESTATION_FILE, MAX_IMAGE_FILE, MAX_NAME, MAX_SIGNATURE_FILE, Malformed};
use crate::verity::{MAX_VERITY_BLOB, VERITY_BLOB};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};

const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const DSSE: &str = "application/vnd.dsse.envelope.v1+json";
const JWS: &str = "application/jose+json";
const COSE: &str = "application/cose";
/// The tag 18 of CBOR.
const COSE_SIGN1: u8 = 0xd2;
const NOTATION: &str = "application/vnd.cncf.notary.signature";
const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// Indexes inside each other.
const MAX_NESTED: usize = 3;
/// Reads of blobs of one layout.
const MAX_READS: usize = 1024;
/// Larger than a base64 signature needs.
const MAX_ANNOTATION: usize = 512;

/// A file for `/var/lib/boltseal/sig/sha256/<manifest_hex>/<name>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoreFile {
    /// The image (manifest or index) that the signature names: 64 hex digits.
    pub manifest_hex: String,
    /// `<sha256 of bytes>.sig.json`, `.bundle.json`, `.dsse.json`, `.notation.jws` or `.notation.cose`.
    pub name: String,
    pub bytes: Vec<u8>,
}

/// What a layout gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Imported {
    /// Each once, in the order of their names.
    pub files: Vec<StoreFile>,
    /// Sealed layers: digest and size as their manifest says, each once. Not read here.
    pub blobs: BTreeMap<Digest, u64>,
    /// What looked like a signature and was not taken, or could not be read: one line each.
    pub skipped: Vec<String>,
}

/// The layout itself cannot be walked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportError(Malformed);

impl Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "index.json: {}. Fix: give the folder of an OCI image layout (cosign save, skopeo copy --all, oras copy -r)",
            self.0
        )
    }
}

impl std::error::Error for ImportError {}

/// The store file of one cosign 2 signature: the layer of a `.sig` manifest, and the base64 text of its annotation
/// `dev.cosignproject.cosign/signature`.
///
/// # Errors
/// [`Malformed`] when the two are not a signature that a start could take.
pub fn signature_file(payload: &[u8], signature: &str) -> Result<StoreFile, Malformed> {
    let Ok(raw) = STANDARD.decode(signature) else {
        return Err(Malformed::new("the signature annotation is not base64"));
    };
    let (payload, signature) = (STANDARD.encode(payload), STANDARD.encode(raw));
    let bytes = format!("{{\"payload\":\"{payload}\",\"signature\":\"{signature}\"}}\n").into_bytes();
    Ok(store_file(cosign(&bytes)?.digest(), "sig.json", bytes))
}

/// The store file of one cosign 3 bundle, a signature or an attestation, as it is. Also for a blob that no index names:
/// `cosign save` of 3.1 leaves the bundles in `blobs/` and out of `index.json`.
///
/// # Errors
/// [`Malformed`] when it is not a keyed bundle about one image.
pub fn bundle_file(bytes: &[u8]) -> Result<StoreFile, Malformed> {
    Ok(store_file(bundle(bytes)?.digest(), "bundle.json", bytes.to_vec()))
}

/// The store file of one attestation of cosign 2: the layer of an `.att` manifest, as it is.
///
/// # Errors
/// [`Malformed`] when it is not a DSSE envelope about one image.
pub fn attestation_file(bytes: &[u8]) -> Result<StoreFile, Malformed> {
    Ok(store_file(dsse(bytes)?.digest(), "dsse.json", bytes.to_vec()))
}

/// The store file of one envelope of the Notary Project, as it is.
///
/// # Errors
/// [`Malformed`] when it is none that a start could take.
pub fn notation_file(bytes: &[u8]) -> Result<StoreFile, Malformed> {
    // A JWS is a JSON object, a COSE_Sign1 begins with its tag.
    if bytes.first() == Some(&COSE_SIGN1) {
        return Ok(store_file(cose::envelope(bytes)?.digest, "notation.cose", bytes.to_vec()));
    }
    Ok(store_file(jws::envelope(bytes)?.digest, "notation.jws", bytes.to_vec()))
}

fn store_file(named: Digest, end: &str, bytes: Vec<u8>) -> StoreFile {
    StoreFile { manifest_hex: named.hex(), name: format!("{}.{end}", digest(&bytes).hex()), bytes }
}

/// Walks an OCI image layout from its `index.json` and takes every signature: cosign 2 `.sig` manifests, and the
/// referrers of cosign 3 and notation, at whatever tag or depth they stand. `read_blob` gets `sha256:<hex>` and is asked for manifests (at most
/// 4 MiB by their descriptor) and layers of signatures (64 KiB) and attestations (1 MiB) only; what it returns is hashed here.
///
/// # Errors
/// [`ImportError`] when `index_json` is not an index. Everything below it that fails is a line of `skipped`.
pub fn import_layout<E: Display>(
    read_blob: impl FnMut(&str) -> Result<Vec<u8>, E>,
    index_json: &[u8],
) -> Result<Imported, ImportError> {
    let mut walk = Walk { read_blob, seen: BTreeSet::new(), reads: 0, found: Imported::default() };
    walk.index(index_json, 0).map_err(ImportError)?;
    let mut found = walk.found;
    found.files.sort();
    found.files.dedup();
    Ok(found)
}

/// The signatures of one manifest that a registry keeps beside an image: a cosign 2 `.sig` or `.att`, or a referrer, which
/// must refer to `subject` where one is given.
///
/// # Errors
/// [`Malformed`] when it is no manifest, or refers to something else. What is wrong with a layer is a line of `skipped`.
pub fn import_manifest<E: Display>(
    read_blob: impl FnMut(&str) -> Result<Vec<u8>, E>,
    manifest: &[u8],
    subject: Option<&Digest>,
) -> Result<Imported, Malformed> {
    let file = object(manifest, "manifest", MAX_IMAGE_FILE)?;
    if let Some(subject) = subject {
        let said = file.object("subject")?.need_text("digest", MAX_NAME)?;
        if said != subject.to_string() {
            return Err(Malformed::new("the manifest refers to another image"));
        }
    }
    let mut walk = Walk { read_blob, seen: BTreeSet::new(), reads: 0, found: Imported::default() };
    walk.manifest(&file)?;
    Ok(walk.found)
}

/// One entry of an index of referrers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Referrer {
    pub digest: Digest,
    /// Bytes, as the index has it.
    pub size: u64,
    /// Its type does not say that it is something else than a signature. cosign 3.1 writes another type than its own into
    /// the index that it keeps under a tag, so that only the manifest itself tells.
    pub likely: bool,
}

/// The entries of an index of referrers, those that may be signatures first. An entry that cannot be read is left out.
///
/// # Errors
/// [`Malformed`] when it is no index.
pub fn referrers(index: &[u8]) -> Result<Vec<Referrer>, Malformed> {
    const LIKELY: [&str; 5] = ["", "application/vnd.oci.empty.v1+json", BUNDLE, NOTATION, DSSE];
    let file = object(index, "index of referrers", MAX_IMAGE_FILE)?;
    let mut found = Vec::new();
    for entry in file.list("manifests")? {
        let Ok(entry) = entry.object("manifests") else { continue };
        let read = || {
            let kind = entry.text("artifactType", MAX_NAME)?;
            let likely = LIKELY.contains(&kind) || kind.starts_with("application/vnd.dev.cosign.");
            let size = entry.need("size")?.number("size")?;
            Ok::<_, Malformed>(Referrer { digest: descriptor_digest(entry)?, size, likely })
        };
        found.extend(read());
    }
    // Stable: otherwise the order is the index's.
    found.sort_by_key(|referrer| !referrer.likely);
    Ok(found)
}

struct Walk<R> {
    read_blob: R,
    seen: BTreeSet<Digest>,
    reads: usize,
    found: Imported,
}

impl<R, E: Display> Walk<R>
where
    R: FnMut(&str) -> Result<Vec<u8>, E>,
{
    fn index(&mut self, bytes: &[u8], nested: usize) -> Result<(), Malformed> {
        let file = object(bytes, "index", MAX_IMAGE_FILE)?;
        for entry in file.list("manifests")? {
            let entry = entry.object("manifests")?;
            if let Err(why) = self.entry(entry, nested) {
                let name = printable_digest(entry);
                self.found.skipped.push(format!("{name}: {why}"));
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Object<'_>, nested: usize) -> Result<(), Malformed> {
        let Some(bytes) = self.blob(entry, MAX_IMAGE_FILE)? else {
            return Ok(());
        };
        let file = object(&bytes, "manifest", MAX_IMAGE_FILE)?;
        if !file.has("manifests")? {
            return self.manifest(&file);
        }
        if nested == MAX_NESTED {
            return Err(Malformed::new("indexes nested too deeply"));
        }
        self.index(&bytes, nested + 1)
    }

    fn manifest(&mut self, manifest: &Object<'_>) -> Result<(), Malformed> {
        for layer in manifest.list("layers")? {
            let layer = layer.object("layers")?;
            let kind = layer.text("mediaType", MAX_NAME)?;
            let taken = match kind {
                SIMPLE_SIGNING => self.simple_signing(layer),
                BUNDLE => self.referrer(layer, manifest, bundle_file),
                JWS if notation(manifest)? => self.referrer(layer, manifest, notation_file),
                COSE if notation(manifest)? => self.referrer(layer, manifest, notation_file),
                DSSE => self.attestation(layer),
                VERITY_BLOB => self.sealed(layer),
                _ => continue,
            };
            if let Err(why) = taken {
                let name = printable_digest(layer);
                self.found.skipped.push(format!("{name}: {why}"));
            }
        }
        Ok(())
    }

    fn simple_signing(&mut self, layer: &Object<'_>) -> Result<(), Malformed> {
        let signature = layer.object("annotations")?.need_text(SIGNATURE_ANNOTATION, MAX_ANNOTATION)?;
        // Two signatures of one payload are two layers of one blob, told apart by the annotation: read it each time.
        let payload = self.read(layer, MAX_SIGNATURE_FILE)?;
        self.found.files.push(signature_file(&payload, signature)?);
        Ok(())
    }

    /// A layer as a verity device. What it is to be, a statement says; here it is only a file to bring.
    fn sealed(&mut self, layer: &Object<'_>) -> Result<(), Malformed> {
        let size = layer.need("size")?.number("size")?;
        if size > MAX_VERITY_BLOB || self.found.blobs.len() >= MAX_READS {
            return Err(Malformed::new("larger than a sealed layer may be, or one too many"));
        }
        self.found.blobs.insert(descriptor_digest(layer)?, size);
        Ok(())
    }

    /// An `.att` manifest refers to nothing: its tag names the image, and each layer does.
    fn attestation(&mut self, layer: &Object<'_>) -> Result<(), Malformed> {
        if let Some(bytes) = self.blob(layer, MAX_ATTESTATION_FILE)? {
            self.found.files.push(attestation_file(&bytes)?);
        }
        Ok(())
    }

    /// A layer that is a signature as it is, of what its manifest refers to.
    fn referrer(
        &mut self,
        layer: &Object<'_>,
        manifest: &Object<'_>,
        take: fn(&[u8]) -> Result<StoreFile, Malformed>,
    ) -> Result<(), Malformed> {
        let Some(bytes) = self.blob(layer, MAX_ATTESTATION_FILE)? else {
            return Ok(());
        };
        let file = take(&bytes)?;
        let subject = manifest.object("subject")?.need_text("digest", MAX_NAME)?;
        if subject.strip_prefix("sha256:") != Some(&file.manifest_hex) {
            return Err(Malformed::new("the referrer's subject is not what it signs"));
        }
        self.found.files.push(file);
        Ok(())
    }

    /// A blob the first time that it is met.
    fn blob(&mut self, descriptor: &Object<'_>, max: usize) -> Result<Option<Vec<u8>>, Malformed> {
        let named = descriptor_digest(descriptor)?;
        if !self.seen.insert(named) {
            return Ok(None);
        }
        self.read(descriptor, max).map(Some)
    }

    fn read(&mut self, descriptor: &Object<'_>, max: usize) -> Result<Vec<u8>, Malformed> {
        let named = descriptor_digest(descriptor)?;
        self.reads += 1;
        if self.reads > MAX_READS {
            return Err(Malformed::new(format!("not read: a layout has at most {MAX_READS} manifests and signatures")));
        }
        if descriptor.need("size")?.number("size")? > max as u64 {
            return Err(Malformed::new(format!("larger than {max} bytes")));
        }
        let bytes =
            (self.read_blob)(&named.to_string()).map_err(|error| Malformed::new(format!("cannot be read: {error}")))?;
        if digest(&bytes) != named {
            return Err(Malformed::new("the blob does not have its digest"));
        }
        Ok(bytes)
    }
}

/// Whether a manifest is that of a Notary Project signature: by its config, or by its type where the config is empty.
fn notation(manifest: &Object<'_>) -> Result<bool, Malformed> {
    Ok(manifest.text("artifactType", MAX_NAME)? == NOTATION
        || manifest.object("config")?.text("mediaType", MAX_NAME)? == NOTATION)
}

fn descriptor_digest(descriptor: &Object<'_>) -> Result<Digest, Malformed> {
    let text = descriptor.need_text("digest", MAX_NAME)?;
    text.parse().map_err(|error| Malformed::new(format!("digest: {error}")))
}

fn printable_digest(descriptor: &Object<'_>) -> String {
    descriptor_digest(descriptor).map_or_else(|_| "an entry without a digest".to_owned(), |digest| digest.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_that_is_not_its_digest_is_skipped() {
        let named = digest(b"{}");
        let index = format!(r#"{{"manifests":[{{"digest":"{named}","size":2}}]}}"#);
        let found = import_layout(|_| Ok::<_, String>(b"[]".to_vec()), index.as_bytes()).unwrap();
        assert!(found.files.is_empty());
        assert!(found.skipped[0].contains("does not have its digest"), "{:?}", found.skipped);
        let found = import_layout(|_| Err::<Vec<u8>, _>("gone"), index.as_bytes()).unwrap();
        assert!(found.skipped[0].contains("cannot be read: gone"), "{:?}", found.skipped);
    }

    #[test]
    fn an_index_that_holds_itself_is_too_small_to_matter_but_nesting_ends() {
        let mut body = r#"{"manifests":[]}"#.to_owned();
        let mut blobs = BTreeMap::new();
        for _ in 0..5 {
            let named = digest(body.as_bytes()).to_string();
            let next = format!(r#"{{"manifests":[{{"digest":"{named}","size":{}}}]}}"#, body.len());
            blobs.insert(named, body.into_bytes());
            body = next;
        }
        let found = import_layout(|name| blobs.get(name).cloned().ok_or("gone"), body.as_bytes()).unwrap();
        assert!(found.skipped[0].contains("nested too deeply"), "{:?}", found.skipped);
    }

    #[test]
    fn one_blob_named_a_thousand_times_ends_too() {
        let layer = format!(
            r#"{{"mediaType":"{SIMPLE_SIGNING}","digest":"{}","size":2,"annotations":{{"{SIGNATURE_ANNOTATION}":""}}}}"#,
            digest(b"{}")
        );
        let manifest = format!(r#"{{"layers":[{}]}}"#, vec![layer; MAX_READS * 2].join(","));
        let named = digest(manifest.as_bytes()).to_string();
        let index = format!(r#"{{"manifests":[{{"digest":"{named}","size":{}}}]}}"#, manifest.len());
        let mut reads = 0;
        let read = |name: &str| {
            reads += 1;
            Ok::<_, String>(if name == named { manifest.clone().into_bytes() } else { b"{}".to_vec() })
        };
        let found = import_layout(read, index.as_bytes()).unwrap();
        assert_eq!((reads, found.files.len()), (MAX_READS, 0));
        assert!(found.skipped.last().unwrap().contains("at most"));
    }

    #[test]
    fn what_is_not_an_index_is_an_error() {
        let error = import_layout(|_| Err::<Vec<u8>, _>(""), b"[]").unwrap_err().to_string();
        assert!(error.contains("index.json") && error.contains("Fix:"), "{error}");
    }

    #[test]
    fn referrers_that_may_be_signatures_come_first_and_what_is_no_entry_goes() {
        let (a, b, c) = (digest(b"a"), digest(b"b"), digest(b"c"));
        let index = format!(
            r#"{{"manifests":[7,{{"digest":"sha512:00","size":1}},
               {{"digest":"{a}","size":1,"artifactType":"application/spdx+json"}},
               {{"digest":"{b}","size":2,"artifactType":"application/vnd.oci.empty.v1+json"}},
               {{"digest":"{c}","size":-3}}, {{"digest":"{c}","size":3,"artifactType":"{NOTATION}"}}]}}"#
        );
        let found = referrers(index.as_bytes()).unwrap();
        let said: Vec<_> = found.iter().map(|r| (r.digest, r.size, r.likely)).collect();
        assert_eq!(said, [(b, 2, true), (c, 3, true), (a, 1, false)]);
        assert!(referrers(b"{}").is_err() && referrers(b"[]").is_err());
    }

    #[test]
    fn a_manifest_that_refers_to_another_image_is_refused() {
        let (image, other) = (digest(b"image"), digest(b"other"));
        let manifest = format!(r#"{{"layers":[],"subject":{{"digest":"{image}"}}}}"#);
        let read = |_: &str| Err::<Vec<u8>, _>("nothing to read");
        assert_eq!(import_manifest(read, manifest.as_bytes(), Some(&image)), Ok(Imported::default()));
        assert_eq!(import_manifest(read, manifest.as_bytes(), None), Ok(Imported::default()));
        assert!(import_manifest(read, manifest.as_bytes(), Some(&other)).is_err());
        assert!(import_manifest(read, br#"{"layers":[]}"#, Some(&image)).is_err());
    }
}
