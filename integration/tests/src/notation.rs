//! Signatures of the Notary Project: certificates by openssl, the envelope by the project's own tool, or by openssl and by hand
//! so that all of it can be bent.
mod tool;

pub use tool::{KEY, Notation};

use crate::image::{Image, sha256};
use crate::process::run;
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Who signs, and how; every field may be bent.
const SIGNING_TIME: &str = "io.cncf.notary.signingTime";
pub const EXPIRY: &str = "io.cncf.notary.expiry";
pub const RSA: &str = "-algorithm RSA -pkeyopt rsa_keygen_bits:2048";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

#[derive(Debug, Clone)]
pub struct Signer {
    /// Name of the CA's files: another name is another root.
    pub ca: &'static str,
    pub subject: &'static str,
    /// The leaf's key, as `openssl genpkey` takes it; by hand only RSA signs.
    pub key: &'static str,
    /// Extensions of the leaf.
    pub usage: &'static str,
    /// notation signs, with these options, and not we; then `protected` says nothing.
    pub tool: Option<Vec<String>>,
    pub protected: Value,
    /// As COSE instead of JWS; then `protected` says what is in it beside the algorithm, in the same names.
    pub cose: bool,
}

impl Default for Signer {
    fn default() -> Self {
        Self {
            ca: "root",
            subject: "/C=US/ST=WA/O=corp/CN=ci",
            key: RSA,
            tool: None,
            usage: "keyUsage=critical,digitalSignature\nextendedKeyUsage=codeSigning\n",
            protected: json!({
                "alg": "PS256", "crit": ["io.cncf.notary.signingScheme"],
                "cty": "application/vnd.cncf.notary.payload.v1+json",
                "io.cncf.notary.signingScheme": "notary.x509",
                "io.cncf.notary.signingTime": "2026-01-01T00:00:00Z",
            }),
            cose: false,
        }
    }
}

/// The root certificate of this name, made at first use.
pub fn root(work: &Path, ca: &str) -> Result<PathBuf> {
    let folder = work.join("notation");
    fs::create_dir_all(&folder)?;
    let file = folder.join(format!("{ca}.pem"));
    if !file.exists() {
        openssl(
            &folder,
            &format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {ca}.key -subj /C=US/O=corp/CN=root -days 30 \
             -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign -out {ca}.pem"
            ),
        )?;
    }
    Ok(file)
}

impl Signer {
    /// An OCI layout with the image's manifest and its signature, as `oras copy -r` leaves it, but for the layers.
    pub fn layout(&self, work: &Path, image: &Image) -> Result<PathBuf> {
        match &self.tool {
            None => lay(work, image, Some((&self.envelope(work, image)?, self.cose))),
            Some(options) => {
                let layout = lay(work, image, None)?;
                self.certified(work)?;
                Notation::new(work, self.ca, "*")?.sign(&layout, image, KEY, self.cose, options)?;
                Ok(layout)
            }
        }
    }

    /// `leaf.key` with `leaf.pem`, and `chain.pem`, which begins with it; the folder that they are in.
    fn certified(&self, work: &Path) -> Result<PathBuf> {
        let (folder, ca) = (work.join("notation"), self.ca);
        root(work, ca)?;
        fs::write(folder.join("leaf.ext"), self.usage)?;
        openssl(&folder, &format!("genpkey -quiet {} -out leaf.key", self.key))?;
        openssl(&folder, &format!("req -new -key leaf.key -subj {} -out leaf.csr", self.subject))?;
        openssl(
            &folder,
            &format!(
                "x509 -req -in leaf.csr -CA {ca}.pem -CAkey {ca}.key -CAcreateserial -days 30 -extfile leaf.ext -out leaf.pem"
            ),
        )?;
        let chain = [fs::read(folder.join("leaf.pem"))?, fs::read(folder.join(format!("{ca}.pem")))?].concat();
        fs::write(folder.join("chain.pem"), chain)?;
        Ok(folder)
    }

    /// Of a leaf made for it.
    pub fn envelope(&self, work: &Path, image: &Image) -> Result<Vec<u8>> {
        let (folder, ca) = (self.certified(work)?, self.ca);
        let payload = json!({ "targetArtifact": target(image)? });
        let mut chain = Vec::new();
        for name in ["leaf", ca] {
            openssl(&folder, &format!("x509 -in {name}.pem -outform DER -out {name}.der"))?;
            chain.push(fs::read(folder.join(format!("{name}.der")))?);
        }
        let sign = |message: &[u8]| -> Result<Vec<u8>> {
            fs::write(folder.join("message"), message)?;
            openssl(
                &folder,
                "dgst -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest -sign leaf.key -out signature message",
            )?;
            Ok(fs::read(folder.join("signature"))?)
        };
        if self.cose {
            return self.sign1(payload.to_string().as_bytes(), &chain, sign);
        }
        let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encoded(&self.protected), encoded(&payload));
        let signature = URL_SAFE_NO_PAD.encode(sign(message.as_bytes())?);
        let chain: Vec<String> = chain.iter().map(|der| STANDARD.encode(der)).collect();
        let envelope = json!({
            "payload": encoded(&payload), "protected": encoded(&self.protected),
            "header": { "x5c": chain }, "signature": signature,
        });
        Ok(envelope.to_string().into_bytes())
    }

    /// A tagged COSE_Sign1 (RFC 9052) with the algorithm PS256.
    fn sign1(&self, payload: &[u8], chain: &[Vec<u8>], sign: impl Fn(&[u8]) -> Result<Vec<u8>>) -> Result<Vec<u8>> {
        let said = |name: &str| self.protected[name].as_str().map(text).unwrap_or_default();
        let critical: Vec<Vec<u8>> =
            self.protected["crit"].as_array().into_iter().flatten().filter_map(Value::as_str).map(text).collect();
        let protected = [
            [head(0, 1), head(1, 36)].concat(),
            [head(0, 2), head(4, critical.len()), critical.concat()].concat(),
            [head(0, 3), said("cty")].concat(),
            [text("io.cncf.notary.signingScheme"), said("io.cncf.notary.signingScheme")].concat(),
            [text(SIGNING_TIME), head(6, 1), head(0, 1_767_225_600)].concat(),
        ];
        let expiry = [text(EXPIRY), head(6, 1), head(0, 1_767_312_000)].concat();
        let expires = !self.protected[EXPIRY].is_null();
        let protected =
            [head(5, if expires { 6 } else { 5 }), protected.concat(), if expires { expiry } else { Vec::new() }]
                .concat();
        let message = [head(4, 4), text("Signature1"), bytes(&protected), bytes(&[]), bytes(payload)].concat();
        let chain: Vec<u8> = chain.iter().flat_map(|der| bytes(der)).collect();
        let unprotected = [head(5, 1), head(0, 33), head(4, 2), chain].concat();
        Ok([head(6, 18), head(4, 4), bytes(&protected), unprotected, bytes(payload), bytes(&sign(&message)?)].concat())
    }
}

/// The descriptor of the image's manifest.
fn target(image: &Image) -> Result<Value> {
    let file = image.layout.join("blobs/sha256").join(image.hex());
    let size = fs::metadata(&file).with_context(|| file.display().to_string())?.len();
    Ok(json!({ "mediaType": MANIFEST, "digest": image.manifest, "size": size }))
}

/// An OCI layout of its own: the image's manifest, and what says that it is a signature of it.
pub fn lay(work: &Path, image: &Image, signature: Option<(&[u8], bool)>) -> Result<PathBuf> {
    let layout = work.join(format!("notation-{}", image.hex()));
    if layout.exists() {
        fs::remove_dir_all(&layout)?;
    }
    let put = |media_type: &str, bytes: &[u8]| -> Result<Value> {
        let digest = sha256(bytes);
        let folder = layout.join("blobs/sha256");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(digest.trim_start_matches("sha256:")), bytes)?;
        Ok(json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() }))
    };
    let signed = put(MANIFEST, &fs::read(image.layout.join("blobs/sha256").join(image.hex()))?)?;
    let mut manifests = vec![signed.clone()];
    if let Some((envelope, cose)) = signature {
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": put("application/vnd.cncf.notary.signature", b"{}")?,
            "layers": [put(if cose { "application/cose" } else { "application/jose+json" }, envelope)?],
            "subject": signed,
        });
        manifests.push(put(MANIFEST, manifest.to_string().as_bytes())?);
    }
    fs::write(layout.join("index.json"), json!({ "schemaVersion": 2, "manifests": manifests }).to_string())?;
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(layout)
}

/// CBOR (RFC 8949): major type and argument.
fn head(kind: u8, value: usize) -> Vec<u8> {
    let [.., a, b, c, d] = value.to_be_bytes();
    let kind = kind << 5;
    match value {
        0..=23 => vec![kind | d],
        24..=0xff => vec![kind | 24, d],
        0x100..=0xffff => vec![kind | 25, c, d],
        _ => vec![kind | 26, a, b, c, d],
    }
}

fn bytes(content: &[u8]) -> Vec<u8> {
    [head(2, content.len()), content.to_vec()].concat()
}

fn text(content: &str) -> Vec<u8> {
    [head(3, content.len()), content.as_bytes().to_vec()].concat()
}

fn openssl(folder: &Path, words: &str) -> Result<()> {
    run(Command::new("openssl").args(words.split(' ').filter(|word| !word.is_empty())).current_dir(folder)).map(drop)
}
