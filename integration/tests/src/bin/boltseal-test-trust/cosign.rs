//! cosign 2.5 and 3.1: what they sign and attest, and what they say of it themselves.
use crate::ours::{Trust, attested, imported, read, signed};
use crate::{Case, Given};
use anyhow::{Context, Result};
use boltseal_trust::StoreFile;
use stack::image::Image;
use stack::process::{output, run};
use stack::sign::{Cosign, Key, fetch};
use std::path::Path;
use std::process::Command;

const VULN: &str = "https://cosign.sigstore.dev/attestation/vuln/v1";
const SBOM: &str = "https://spdx.dev/Document";
const P384: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"];
const RSA: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
const ED25519: &[&str] = &["-algorithm", "ED25519"];

pub(crate) fn cases(given: &Given<'_>) -> Result<Vec<Case>> {
    let ci = Key::generate(given.work, "ci")?;
    let mallory = Key::generate(given.work, "mallory")?;
    let mut all = Vec::new();
    for cosign in [Cosign::V2, Cosign::V3] {
        signatures(given, cosign, &ci, &mallory, &mut all)?;
        keys(given, cosign, &ci, &mut all)?;
        attestations(given, cosign, &ci, &mallory, &mut all)?;
        statements(given, cosign, &ci, &mut all)?;
    }
    Ok(all)
}

fn format(cosign: Cosign) -> &'static str {
    if cosign == Cosign::V2 { "simple signing (2.5)" } else { "bundle v0.3 (3.1)" }
}

/// A copy of the image in a repository of its own, where no other case's signature is found.
pub(crate) fn copy(image: &Image, name: &str, cosign: Cosign) -> Result<Image> {
    let version = if cosign == Cosign::V2 { 2 } else { 3 };
    let repository = format!("{}-{name}-{version}", image.repository);
    skopeo(&["--preserve-digests"], &format!("{}@{}", image.repository, image.manifest), &format!("{repository}:1"))?;
    Ok(Image { name: format!("{repository}:1"), repository, ..image.clone() })
}

fn skopeo(options: &[&str], from: &str, to: &str) -> Result<()> {
    let mut command = Command::new("skopeo");
    command.args(["--insecure-policy", "copy", "--quiet", "--all"]).args(options);
    command.args(["--src-tls-verify=false", "--dest-tls-verify=false"]);
    run(command.arg(format!("docker://{from}")).arg(format!("docker://{to}"))).map(drop)
}

/// Everything that lies beside the image, as the importer takes it.
pub(crate) fn files(work: &Path, image: &Image) -> Result<Vec<StoreFile>> {
    let folder = work.join(image.repository.replace(['/', ':'], "-"));
    std::fs::create_dir_all(&folder)?;
    let layouts = fetch(&folder, image)?;
    imported(layouts.iter().map(|(_, layout)| layout.as_path()))
}

/// The tool's word on what lies in the registry.
fn verify(cosign: Cosign, key: &Path, image: &Image) -> Result<Result<(), String>> {
    asked(cosign, &["verify"], key, image)
}

fn asked(cosign: Cosign, what: &[&str], key: &Path, image: &Image) -> Result<Result<(), String>> {
    let home = key.parent().context("a key without a folder")?;
    let mut command = cosign.command(home);
    command.args(what).arg("--key").arg(key).arg("--insecure-ignore-tlog=true");
    let said = output(command.arg(format!("{}@{}", image.repository, image.manifest)))?;
    let last = || said.stderr.lines().rev().find(|line| line.starts_with("Error")).unwrap_or(&said.stderr).to_owned();
    Ok(if said.ok() { Ok(()) } else { Err(last()) })
}

fn signatures(given: &Given<'_>, cosign: Cosign, ci: &Key, mallory: &Key, all: &mut Vec<Case>) -> Result<()> {
    let app = copy(&given.app, "signed", cosign)?;
    ci.sign(cosign, &app)?;
    let mut found = files(given.work, &app)?;
    let mut add =
        |name, accept, ours, tool, note| all.push(Case { format: format(cosign), name, accept, ours, tool, note });
    let (own, foreign) = (Trust::key(&ci.public)?, Trust::key(&mallory.public)?);
    add(
        "signed by the authority's key",
        true,
        signed(&found, &own, &app)?,
        Some(verify(cosign, &ci.public, &app)?),
        "",
    );
    add(
        "the same, under another key",
        false,
        signed(&found, &foreign, &app)?,
        Some(verify(cosign, &mallory.public, &app)?),
        "",
    );

    // Its signature beside another image, and beside the same image in another repository.
    let end = if cosign == Cosign::V2 { ".sig" } else { "" };
    let beside = |from: &Image, to: &Image| {
        // cosign 3.1 writes an index without its type, which skopeo adds; what it lists stays as it is.
        skopeo(
            &[],
            &format!("{}:sha256-{}{end}", from.repository, from.hex()),
            &format!("{}:sha256-{}{end}", to.repository, to.hex()),
        )
    };
    let other = copy(&given.other, "swapped", cosign)?;
    beside(&app, &other)?;
    add(
        "the same, beside another image",
        false,
        signed(&found, &own, &other)?,
        Some(verify(cosign, &ci.public, &other)?),
        "",
    );
    let moved = copy(&given.app, "moved", cosign)?;
    beside(&app, &moved)?;
    let (names, note) = match cosign {
        Cosign::V2 => {
            (false, "cosign verify does not compare docker-reference with the repository that it was asked about")
        }
        Cosign::V3 => (true, "it names no repository: the authority must be pinned to one"),
    };
    let name = "the same, beside this image elsewhere";
    add(name, names, signed(&found, &own, &moved)?, Some(verify(cosign, &ci.public, &moved)?), note);

    for file in &mut found {
        let text = String::from_utf8_lossy(&file.bytes).into_owned();
        let (head, payload) = text.split_once("\"payload\":\"").context("no payload in the signature")?;
        let changed = if payload.starts_with("eyJ") { "eyK" } else { "eyJ" };
        file.bytes = format!("{head}\"payload\":\"{changed}{}", payload.get(3..).unwrap_or_default()).into_bytes();
    }
    add(
        "the same, a character of the payload changed",
        false,
        signed(&found, &own, &app)?,
        None,
        "cosign is not handed a file",
    );
    Ok(())
}

fn keys(given: &Given<'_>, cosign: Cosign, p256: &Key, all: &mut Vec<Case>) -> Result<()> {
    let kinds = [("P-384", P384), ("RSA 2048", RSA), ("Ed25519", ED25519)];
    for (kind, options) in kinds {
        let name = kind.to_lowercase().replace([' ', '-'], "");
        let key = Key::import(given.work, &name, options)?;
        let image = copy(&given.app, &name, cosign)?;
        key.sign(cosign, &image)?;
        let found = files(given.work, &image)?;
        let hashed = kind == "Ed25519" && cosign == Cosign::V3;
        let sha384 = kind == "P-384" && cosign == Cosign::V3;
        let (good, bad) = match kind {
            "P-384" => ("a P-384 key", "P-384's signature under a P-256 key"),
            "RSA 2048" => ("an RSA key", "RSA's signature under a P-256 key"),
            _ if hashed => ("an Ed25519 key, which signs Ed25519ph", "Ed25519's signature under a P-256 key"),
            _ => ("an Ed25519 key", "Ed25519's signature under a P-256 key"),
        };
        let mut add = |name, accept, ours, tool, note| {
            all.push(Case { format: format(cosign), name, accept, ours, tool, note });
        };
        let hash: &[&str] = if sha384 { &["verify", "--signature-digest-algorithm", "sha384"] } else { &["verify"] };
        let tool = |key: &Key| asked(cosign, hash, &key.public, &image).map(Some);
        let note = if sha384 { "cosign signs with SHA-384 and must be told so to verify it" } else { "" };
        add(good, !hashed, signed(&found, &Trust::key(&key.public)?, &image)?, tool(&key)?, note);
        add(bad, false, signed(&found, &Trust::key(&p256.public)?, &image)?, tool(p256)?, "");
    }
    Ok(())
}

fn attestations(given: &Given<'_>, cosign: Cosign, ci: &Key, mallory: &Key, all: &mut Vec<Case>) -> Result<()> {
    let image = copy(&given.app, "attested", cosign)?;
    ci.attest(cosign, &image)?;
    let found = files(given.work, &image)?;
    let (own, foreign) = (Trust::key(&ci.public)?, Trust::key(&mallory.public)?);
    let format = if cosign == Cosign::V2 { "attestation (2.5)" } else { "attestation (3.1)" };
    let mut add = |name, accept, ours, tool| {
        let note = match (cosign, name) {
            (Cosign::V3, "the same, as a signature") => {
                "cosign verify 3.1 takes any statement by the key for a signature"
            }
            _ => "",
        };
        all.push(Case { format, name, accept, ours, tool, note });
    };
    let tool =
        |kind: &str, key: &Key| asked(cosign, &["verify-attestation", "--type", kind], &key.public, &image).map(Some);
    add("a scan by the authority's key", true, attested(&found, &own, &image, VULN)?, tool("vuln", ci)?);
    add("the same, under another key", false, attested(&found, &foreign, &image, VULN)?, tool("vuln", mallory)?);
    add("the same, as a bill of materials", false, attested(&found, &own, &image, SBOM)?, tool("spdxjson", ci)?);
    add("the same, as a signature", false, signed(&found, &own, &image)?, Some(verify(cosign, &ci.public, &image)?));
    let other = copy(&given.other, "unattested", cosign)?;
    let ours = attested(&found, &own, &other, VULN)?;
    all.push(Case {
        format,
        name: "the same, of another image",
        accept: false,
        ours,
        tool: None,
        note: "cosign is not handed a file",
    });
    Ok(())
}

/// What `cosign attest` takes, and whether a gate can read it.
fn statements(given: &Given<'_>, cosign: Cosign, ci: &Key, all: &mut Vec<Case>) -> Result<()> {
    let scan = |result: &str| {
        format!(
            r#"{{"invocation":{{}},"scanner":{{"uri":"","version":"","db":{{"uri":"","version":""}},"result":{result}}},"metadata":{{"scanStartedOn":"2026-11-30T10:00:00Z","scanFinishedOn":"2026-11-30T10:00:00Z"}}}}"#
        )
    };
    let trivy = r#"{"SchemaVersion":2,"Results":[{"Target":"a","Vulnerabilities":[{"VulnerabilityID":"CVE-1","Severity":"HIGH"}]}]}"#;
    let grype = r#"{"matches":[{"vulnerability":{"id":"CVE-1","severity":"High"}}],"descriptor":{"name":"grype"}}"#;
    let builder = r#"{"id":"https://ci.example/runner"}"#;
    let slsa02 = format!(r#"{{"builder":{builder},"buildType":"t","invocation":{{}}}}"#);
    let slsa1 = format!(
        r#"{{"buildDefinition":{{"buildType":"t","externalParameters":{{}}}},"runDetails":{{"builder":{builder}}}}}"#
    );
    let spdx = r#"{"spdxVersion":"SPDX-2.3","SPDXID":"SPDXRef-DOCUMENT","name":"a","packages":[{"name":"a","SPDXID":"SPDXRef-1"}]}"#;
    let rows = [
        ("a scan by trivy", "vuln", scan(trivy), "\"CVE-1\"", true),
        ("a scan by grype", "vuln", scan(grype), "\"CVE-1\"", true),
        ("a scan of a schema that nobody knows", "vuln", scan("{\"findings\":[]}"), "", false),
        ("a scan that scanned nothing", "vuln", scan("{\"SchemaVersion\":2,\"Results\":[]}"), "", false),
        ("a bill of materials, SPDX JSON", "spdxjson", spdx.to_owned(), "packages: 1", true),
        ("a bill of materials, SPDX as text", "spdx", "SPDXVersion: SPDX-2.3".to_owned(), "", false),
        (
            "a bill of materials, CycloneDX",
            "cyclonedx",
            r#"{"bomFormat":"CycloneDX","specVersion":"1.5","version":1,"components":[{"type":"library","name":"a"}]}"#
                .into(),
            "packages: 1",
            true,
        ),
        ("provenance, SLSA v0.2", "slsaprovenance02", slsa02, "https://ci.example/runner", true),
        ("provenance, SLSA v1", "slsaprovenance1", slsa1, "https://ci.example/runner", true),
    ];
    let trust = Trust::key(&ci.public)?;
    for (at, (name, kind, predicate, says, accept)) in rows.into_iter().enumerate() {
        let image = copy(&given.app, &format!("says{at}"), cosign)?;
        ci.attest_as(cosign, &image, kind, &predicate)?;
        let ours = match read(&files(given.work, &image)?, &trust, &image)? {
            Ok(said) if said.contains(says) => Ok(()),
            Ok(said) => Err(said),
            Err(why) => Err(why),
        };
        let tool = asked(cosign, &["verify-attestation", "--type", kind], &ci.public, &image)?;
        let note = if accept { "" } else { "cosign does not read what a statement says" };
        let format = if cosign == Cosign::V2 { "statement (2.5)" } else { "statement (3.1)" };
        all.push(Case { format, name, accept, ours, tool: Some(tool), note });
    }
    Ok(())
}
