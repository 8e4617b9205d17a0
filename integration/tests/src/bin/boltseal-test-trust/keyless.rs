//! Signatures by certificates that Fulcio gives out ("keyless"): made by cosign 3.1 with a CA and a time stamp authority of our own, which
//! have no log; and statements that were made with Sigstore's own CA and logs, which cannot be had here but as files, and of which
//! sigstore-go is asked as well.
use crate::cosign::{copy, files};
use crate::ours::{Trust, signed, stated};
use crate::{Case, Given};
use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use boltseal_trust::keyless::{Demands, Fulcio};
use boltseal_trust::{Digest, StoreFile};
use serde_json::{Value, json};
use stack::fulcio::{self, IDENTITY, ISSUER, Signer, certified_anew};
use stack::image::Image;
use stack::process::output;
use stack::sign::Cosign;
use std::fs;
use std::path::Path;
use std::process::Command;

const FORMAT: &str = "keyless (3.1)";
const NO_LOG: Demands = Demands { log: false, sct: false };
const WORKFLOW: &str = "https://github.com/prefix-dev/sigstore-example/.github/workflows/action.yaml@refs/heads/main";
/// What the statement of that workflow is about.
const SUBJECT: &str = "sha256:54303491a8418fbed24344b513546182c29b43bf282ceb433af65e2299f9271f";
const INTERN: &str = "https://git.corp.example/intern/app";

type Fault = (&'static str, &'static str, fn(&mut Signer));

/// The accepted twin of each is the first case.
const SIGNED: [Fault; 2] = [
    ("certified by another CA with the same identity", "ca", |s| s.ca = "other"),
    ("without a time stamp", "unstamped", |s| s.stamped = false),
];

type Replaced = (&'static str, bool, fn(&mut Signer));

/// Another certificate of the same key, put into the good one's place: cosign does not sign with each.
const REPLACED: [Replaced; 3] = [
    ("another certificate of the same kind", true, |_| {}),
    ("a certificate for servers", false, |s| s.usage = "serverAuth"),
    ("a certificate that had ended when it signed", false, |s| s.ended = true),
];

pub(crate) fn cases(given: &Given<'_>, fulcio: &fulcio::Fulcio) -> Result<Vec<Case>> {
    let root = fulcio.trusted_root("fulcio")?;
    let trust = |identity: &'static str, issuer: &'static str| -> Result<Trust> {
        let read = Fulcio::new(&fs::read(&root)?, NO_LOG).map_err(|why| anyhow!("{why}"))?;
        Ok(Trust::Keyless(read, identity, issuer))
    };
    let tool = |image: &Image, identity: &str, issuer: &str| -> Result<Option<Result<(), String>>> {
        let mut command = fulcio.verify(&root, identity, issuer);
        let said = output(command.arg(format!("{}@{}", image.repository, image.manifest)))?;
        let last = said.stderr.lines().rev().find(|line| line.starts_with("Error")).unwrap_or(&said.stderr).to_owned();
        Ok(Some(if said.ok() { Ok(()) } else { Err(last) }))
    };
    let mut all = Vec::new();
    let mut add = |name, accept, ours, tool, note| all.push(Case { format: FORMAT, name, accept, ours, tool, note });
    let own = trust(IDENTITY, ISSUER)?;

    // Made before the signature, so that they are valid then.
    let made = |fault: fn(&mut Signer)| {
        let mut signer = Signer::default();
        fault(&mut signer);
        fulcio.certificate(&signer)
    };
    let certificates = REPLACED.iter().map(|(_, _, fault)| made(*fault)).collect::<Result<Vec<_>>>()?;
    let app = copy(&given.app, "keyless", Cosign::V3)?;
    fulcio.sign(&Signer::default(), &app)?;
    let found = files(given.work, &app)?;
    add("signed by the identity that is named", true, signed(&found, &own, &app)?, tool(&app, IDENTITY, ISSUER)?, "");
    let (intern, elsewhere) = (trust(INTERN, ISSUER)?, trust(IDENTITY, "https://accounts.example")?);
    add("the same, another identity named", false, signed(&found, &intern, &app)?, tool(&app, INTERN, ISSUER)?, "");
    let other_issuer = tool(&app, IDENTITY, "https://accounts.example")?;
    add("the same, another issuer named", false, signed(&found, &elsewhere, &app)?, other_issuer, "");
    let trusted = fs::read(&root)?;
    let beside = |found: &[StoreFile], image: &Image| {
        let bundle = &found.first().context("no bundle")?.bytes;
        let of = image.manifest.parse::<Digest>().map_err(|why| anyhow!("{why}"))?;
        sigstore_go(given.work, (&trusted, bundle), (IDENTITY, ISSUER), &of, NO_LOG)
    };
    let other = signed(&found, &own, &given.other)?;
    add("the same, of another image", false, other, beside(&found, &given.other)?, "");
    for (name, repository, fault) in SIGNED {
        let mut signer = Signer::default();
        fault(&mut signer);
        let image = copy(&given.app, repository, Cosign::V3)?;
        fulcio.sign(&signer, &image)?;
        let ours = signed(&files(given.work, &image)?, &own, &image)?;
        add(name, false, ours, tool(&image, IDENTITY, ISSUER)?, "");
    }
    for ((name, accept, _), certificate) in REPLACED.iter().zip(&certificates) {
        let mut found = found.clone();
        for file in &mut found {
            file.bytes = certified_anew(&file.bytes, certificate)?;
        }
        add(name, *accept, signed(&found, &own, &app)?, beside(&found, &app)?, "");
    }
    all.extend(public(given.work)?);
    all.extend(carried(given.work)?);
    Ok(all)
}

/// The verdict of sigstore-go, another implementation of the same rules: cosign asks for the package that a statement is about.
fn sigstore_go(
    work: &Path,
    (root, bundle): (&[u8], &[u8]),
    (identity, issuer): (&str, &str),
    of: &Digest,
    demands: Demands,
) -> Result<Option<Result<(), String>>> {
    let (root_file, bundle_file) = (work.join("trusted-root.json"), work.join("bundle.json"));
    fs::write(&root_file, root)?;
    fs::write(&bundle_file, bundle)?;
    let program = stack::private::project().join(".cache/tools/sigstore-go-1.3/usr/bin/sigstore-go-verification");
    let mut command = Command::new(program);
    command.env("HOME", work).args([
        "-artifact-digest",
        &of.hex(),
        "-expectedSAN",
        identity,
        "-expectedIssuer",
        issuer,
    ]);
    command.arg(format!("-requireTlog={}", demands.log)).arg(format!("-requireCTlog={}", demands.sct));
    let said = output(command.arg("-trustedrootJSONpath").arg(root_file).arg(bundle_file))?;
    let why = said.stderr.trim().to_owned();
    // It says the same of what it cannot be asked.
    ensure!(said.ok() || !(why.is_empty() || why.contains("Usage") || why.contains("flag")), "sigstore-go: {said:?}");
    Ok(Some(if said.ok() { Ok(()) } else { Err(why) }))
}

/// With Rekor of versions 1 and 2, and the CT log's promise: files, see `runtime/keyless/tests/data/SOURCE`.
fn public(work: &Path) -> Result<Vec<Case>> {
    let data = stack::private::project().join("runtime/keyless/tests/data");
    let read = |name: &str| fs::read(data.join(name));
    let digest = |hex: &str| hex.parse::<Digest>().map_err(|why| anyhow!("{why}"));
    let subject = digest(SUBJECT)?;
    let other = digest(&format!("sha256:{}", "0".repeat(64)))?;
    let mut all = Vec::new();
    for (format, root, bundle, who) in [
        (
            "keyless, Rekor v1",
            "public-good.json",
            "rekor-v1.json",
            (WORKFLOW, "https://token.actions.githubusercontent.com"),
        ),
        ("keyless, Rekor v2", "staging.json", "rekor-v2.json", ("jku@goto.fi", "https://github.com/login/oauth")),
    ] {
        let (root, bundle) = (read(root)?, read(bundle)?);
        let demands = Demands { log: true, sct: true };
        let fulcio = Fulcio::new(&root, demands).map_err(|why| anyhow!("{why}"))?;
        let mut add = |name, accept, bundle: &[u8], who, of: &Digest| -> Result<()> {
            let tool = sigstore_go(work, (&root, bundle), who, of, demands)?;
            all.push(Case { format, name, accept, ours: stated(bundle, &fulcio, who, of), tool, note: "" });
            Ok(())
        };
        add("a statement by the identity that is named", true, &bundle, who, &subject)?;
        add("the same, another identity named", false, &bundle, (INTERN, who.1), &subject)?;
        add("the same, another issuer named", false, &bundle, (who.0, ISSUER), &subject)?;
        add("the same, of another image", false, &bundle, who, &other)?;
        let unlogged = String::from_utf8_lossy(&bundle).replacen("\"inclusionProof\"", "\"inclusionproof\"", 1);
        add("the same, without its proof of inclusion", false, unlogged.as_bytes(), who, &subject)?;
    }
    Ok(all)
}

/// A containers `policy.json` that names Sigstore's CA and log, as `boltseal policy import` carries it over: the trusted root
/// that it writes judges a real statement.
fn carried(work: &Path) -> Result<Vec<Case>> {
    let data = stack::private::project().join("runtime/keyless/tests/data");
    let bundle = fs::read(data.join("rekor-v1.json"))?;
    let root = |name: &str| -> Result<Value> { Ok(serde_json::from_slice(&fs::read(data.join(name))?)?) };
    let (good, staging) = (root("public-good.json")?, root("staging.json")?);
    let mut all = Vec::new();
    for (name, accept, ca, log) in [
        ("a statement under the CA and log of a policy.json", true, &good, &good),
        ("the same, another CA in it", false, &staging, &good),
        ("the same, another log in it", false, &good, &staging),
    ] {
        let issuer = "https://token.actions.githubusercontent.com";
        let policy = json!({ "default": [{ "type": "reject" }], "transports": { "docker": { "ghcr.io/corp": [{
            "type": "sigstoreSigned",
            "fulcio": { "caData": authorities(ca)?, "oidcIssuer": issuer, "subjectEmail": WORKFLOW },
            "rekorPublicKeyDatas": logs(log)?,
        }] } } });
        let none = |path: &str| Err(format!("{path} is not named"));
        let found = boltseal_import::import(policy.to_string().as_bytes(), none, |_| true, None);
        let found = found.map_err(|why| anyhow!("{name}: {why}"))?;
        let [(_, written)] = &found.keys[..] else { bail!("{name}: {:?}", found.notes) };
        // As the authority that it writes demands.
        ensure!(found.policy.contains("sct = false") && !found.policy.contains("log = false"), "{}", found.policy);
        let demands = Demands { log: true, sct: false };
        let fulcio = Fulcio::new(written.as_bytes(), demands).map_err(|why| anyhow!("{why}"))?;
        let subject = SUBJECT.parse::<Digest>().map_err(|why| anyhow!("{why}"))?;
        let ours = stated(&bundle, &fulcio, (WORKFLOW, issuer), &subject);
        let tool = sigstore_go(work, (written.as_bytes(), &bundle), (WORKFLOW, issuer), &subject, demands)?;
        all.push(Case { format: "keyless, imported", name, accept, ours, tool, note: "" });
    }
    Ok(all)
}

/// PEM certificates of a trusted root's CAs, in base64.
fn authorities(root: &Value) -> Result<String> {
    let authorities = root["certificateAuthorities"].as_array().context("no CAs")?;
    let chains = authorities.iter().filter_map(|authority| authority["certChain"]["certificates"].as_array());
    let raw = chains.flatten().filter_map(|certificate| certificate["rawBytes"].as_str());
    Ok(STANDARD.encode(raw.map(|raw| pem("CERTIFICATE", raw)).collect::<String>()))
}

/// Each of its logs' keys, PEM in base64.
fn logs(root: &Value) -> Result<Vec<String>> {
    let raw = root["tlogs"].as_array().context("no logs")?.iter().filter_map(|log| {
        let key = &log["publicKey"];
        key["keyDetails"].as_str().filter(|kind| kind.contains("ECDSA")).and(key["rawBytes"].as_str())
    });
    Ok(raw.map(|raw| STANDARD.encode(pem("PUBLIC KEY", raw))).collect())
}

fn pem(kind: &str, raw: &str) -> String {
    format!("-----BEGIN {kind}-----\n{raw}\n-----END {kind}-----\n")
}
