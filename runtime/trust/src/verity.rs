//! Layers as dm-verity devices: what `boltseal image seal` says of an image's layers, and its reading at a start.
//!
//! The predicate is ours, and such that the gate needs no worker to read it: all of its values are strings without escapes, which
//! stand at known paths. It is read only after the statement's signature is verified, and every value has one form.
mod tree;

use crate::digest::{Digest, NotADigest};
use crate::strings::strings;

pub use tree::{BLOCK, Hashed, Tree, area};

/// Predicate type of the statement.
pub const VERITY: &str = "https://boltseal.dev/attestation/verity/v1";
/// Type of the layout's manifest that holds the blobs, and the statement if boltseal signed it.
pub const VERITY_ARTIFACT: &str = "application/vnd.boltseal.verity.v1";
/// Type of a blob: an EROFS image, and behind it the tree.
pub const VERITY_BLOB: &str = "application/vnd.boltseal.verity.v1.erofs";
/// Largest blob.
pub const MAX_VERITY_BLOB: u64 = 32 << 30;
const MAX_LAYERS: usize = 128;

/// One layer, as its signed statement names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerityLayer {
    /// Of the unpacked layer; its bytes are the tree's salt.
    pub diff_id: Digest,
    /// sha256 of the file.
    pub blob: Digest,
    /// Of the file, bytes.
    pub size: u64,
    /// Where the data ends and the tree's superblock stands.
    pub hash_offset: u64,
    pub root_hash: Digest,
}

impl VerityLayer {
    /// Whether the sizes are those of a file that the seal writes.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let data = self.hash_offset;
        data > 0
            && data.is_multiple_of(BLOCK)
            && self.size <= MAX_VERITY_BLOB
            && data < self.size
            && self.size - data == area(data / BLOCK)
    }
}

/// The predicate: keys in order, no white space, as `cosign attest` writes it again.
#[must_use]
pub fn verity_predicate(layers: &[VerityLayer], mkfs: &str) -> String {
    let one = |layer: &VerityLayer| {
        let VerityLayer { diff_id, blob, size, hash_offset, root_hash } = layer;
        let root = root_hash.hex();
        format!(
            r#"{{"blob":"{blob}","diff_id":"{diff_id}","hash_offset":"{hash_offset}","root_hash":"{root}","size":"{size}"}}"#
        )
    };
    let layers: Vec<_> = layers.iter().map(one).collect();
    let plain: String =
        mkfs.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, ' ' | '.' | '-' | '_' | '+' | '~')).collect();
    format!(r#"{{"layers":[{}],"mkfs":"{plain}"}}"#, layers.join(","))
}

/// The in-toto statement about one image with that predicate.
#[must_use]
pub fn verity_statement(manifest: &Digest, predicate: &str) -> String {
    let hex = manifest.hex();
    format!(
        r#"{{"_type":"https://in-toto.io/Statement/v1","predicateType":"{VERITY}","subject":[{{"digest":{{"sha256":"{hex}"}},"name":""}}],"predicate":{predicate}}}"#
    )
}

/// A DSSE envelope of an in-toto statement, and what is signed of it.
#[must_use]
pub fn dsse_message(statement: &str) -> Vec<u8> {
    crate::verify::pre_authentication_encoding(statement.as_bytes())
}

#[must_use]
pub fn dsse_envelope(statement: &str, signature: &[u8], key: &str) -> String {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    let (payload, sig) = (STANDARD.encode(statement), STANDARD.encode(signature));
    let kind = crate::verify::IN_TOTO;
    format!(r#"{{"payload":"{payload}","payloadType":"{kind}","signatures":[{{"keyid":"{key}","sig":"{sig}"}}]}}"#)
}

/// The layers that a statement names, the lowest first. To be asked of verified bytes.
///
/// # Errors
/// What is not as the seal writes it.
pub fn verity_layers(statement: &[u8]) -> Result<Vec<VerityLayer>, &'static str> {
    const MISSHAPEN: &str =
        "a layer has not each of blob, diff_id, hash_offset, root_hash, size once, as it must be written";
    let column = |name: &str| -> Result<Vec<&[u8]>, &'static str> {
        let mut found = Vec::new();
        strings(statement, &["predicate", "layers", "*", name], |_, raw| {
            if found.len() <= MAX_LAYERS {
                found.push(raw);
            }
        })
        .map_err(|_| "its predicate can be read in two ways")?;
        if found.len() > MAX_LAYERS { Err("more than 128 layers") } else { Ok(found) }
    };
    let text = |raw: &[u8]| std::str::from_utf8(raw).map(str::to_owned).map_err(|_| MISSHAPEN);
    let mut layers = Vec::new();
    let [blobs, diff_ids, offsets, roots, sizes] =
        [column("blob")?, column("diff_id")?, column("hash_offset")?, column("root_hash")?, column("size")?];
    if [&diff_ids, &offsets, &roots, &sizes].iter().any(|other| other.len() != blobs.len()) {
        return Err(MISSHAPEN);
    }
    let mut rest = diff_ids.iter().zip(&offsets).zip(&roots).zip(&sizes);
    for blob in &blobs {
        let Some((((diff_id, offset), root), size)) = rest.next() else { return Err(MISSHAPEN) };
        let digest = |raw: &[u8]| text(raw)?.parse().map_err(|_: NotADigest| MISSHAPEN);
        let layer = VerityLayer {
            diff_id: digest(diff_id)?,
            blob: digest(blob)?,
            size: number(size).ok_or(MISSHAPEN)?,
            hash_offset: number(offset).ok_or(MISSHAPEN)?,
            root_hash: Digest::from_hex(&text(root)?).map_err(|_| MISSHAPEN)?,
        };
        if !layer.is_whole() {
            return Err("a layer's sizes are not those of its data and its tree");
        }
        layers.push(layer);
    }
    if layers.is_empty() { Err("it names no layer") } else { Ok(layers) }
}

/// Decimal digits without a leading zero.
fn number(raw: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(raw).ok()?;
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::digest;
    use crate::propose::{Proposal, Source, propose};

    fn layer(name: &str, blocks: u64) -> VerityLayer {
        let hash_offset = blocks * BLOCK;
        VerityLayer {
            diff_id: digest(name.as_bytes()),
            blob: digest(b"blob"),
            size: hash_offset + area(blocks),
            hash_offset,
            root_hash: digest(b"root"),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let layers = vec![layer("a", 1), layer("b", 300)];
        let statement = verity_statement(&digest(b"image"), &verity_predicate(&layers, "mkfs.erofs \"1.5\""));
        assert_eq!(verity_layers(statement.as_bytes()), Ok(layers.clone()));
        assert!(statement.ends_with(r#""mkfs":"mkfs.erofs 1.5"}}"#), "{statement}");
        // As cosign 2 writes it, and with white space.
        let spaced = statement.replace("\":", "\" : ").replace("Statement/v1", "Statement/v0.1");
        assert_eq!(verity_layers(spaced.as_bytes()), Ok(layers));
        let signed = format!("DSSEv1 28 application/vnd.in-toto+json {} {statement}", statement.len());
        assert_eq!(dsse_message(&statement), signed.as_bytes());
        let envelope = dsse_envelope(&statement, b"sig", "id");
        let Ok(Proposal::Signature(proposal)) = propose(Source::Dsse, envelope.as_bytes()) else {
            panic!("{envelope}")
        };
        assert_eq!((proposal.payload(), proposal.digest()), (statement.as_bytes(), digest(b"image")));
    }

    #[test]
    fn a_file_has_data_and_its_tree_and_an_end() {
        assert!(layer("a", 1).is_whole());
        assert!(!layer("a", 0).is_whole());
        let most =
            (0..MAX_VERITY_BLOB / BLOCK).rev().find(|blocks| layer("a", *blocks).size <= MAX_VERITY_BLOB).unwrap();
        assert!(layer("a", most).is_whole());
        assert!(!layer("a", most + 1).is_whole());
        for (size, hash_offset) in [(BLOCK, BLOCK), (BLOCK - 1, BLOCK), (2 * BLOCK + 1, BLOCK + 1)] {
            assert!(!VerityLayer { size, hash_offset, ..layer("a", 1) }.is_whole(), "{size} {hash_offset}");
        }
    }

    #[test]
    fn every_value_has_one_form() {
        let layers = vec![layer("a", 1), layer("b", 300)];
        let good = verity_statement(&digest(b"image"), &verity_predicate(&layers, "m"));
        let root = digest(b"root").hex();
        for (bad, why) in [
            (good.replace(r#""size":"8192""#, r#""size":8192"#), "each of"),
            (good.replace(r#""size":"8192""#, r#""size":"08192""#), "each of"),
            (good.replace(r#""size":"8192""#, r#""size":"+8192""#), "each of"),
            (good.replace(r#""size":"8192""#, r#""size":"8193""#), "sizes"),
            (good.replace(r#""size":"8192""#, r#""size":"4096""#), "sizes"),
            (good.replace(r#""size":"8192""#, r#""size":"99999999999999999999""#), "each of"),
            (good.replace(r#""hash_offset":"4096""#, r#""hash_offset":"4097""#), "sizes"),
            (good.replace(r#""hash_offset":"4096""#, r#""hash_offset":"0""#), "each of"),
            (good.replacen(&root, &root.to_uppercase(), 1), "each of"),
            (good.replacen(r#""root_hash""#, r#""ROOT_hash""#, 1), "two ways"),
            (good.replacen(r#""root_hash""#, r#""root""#, 1), "each of"),
            (good.replacen(r#""blob""#, r#""size":"8192","blob""#, 1), "two ways"),
            (good.replacen("sha256:", "sha512:", 1), "each of"),
            (good.replace("\"layers\"", "\"layer\""), "no layer"),
            (good.replace("\"predicate\"", "\"predicates\""), "no layer"),
            (good.replace("\"predicate\":", "\"predicate\":{},\"predicate\":"), "two ways"),
            (verity_statement(&digest(b""), &verity_predicate(&vec![layer("a", 1); 129], "m")), "128"),
            (String::new(), "no layer"),
        ] {
            let error = verity_layers(bad.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{error}: {bad}");
        }
        assert_eq!(
            verity_layers(verity_statement(&digest(b""), &verity_predicate(&vec![layer("a", 1); 128], "m")).as_bytes())
                .unwrap()
                .len(),
            128
        );
    }
}
