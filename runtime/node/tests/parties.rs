//! Two-party enrolment against software TPMs whose endorsement certificates a local authority signed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod common;

use boltseal_node::Makers;
use boltseal_node::parties::{Approval, Pending, Request, approve, complete, confirm, read, request};
use common::{Swtpm, measure, soon};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A maker of TPMs: a root, an intermediate, and what signs endorsement certificates.
struct Maker {
    dir: TempDir,
}

impl Maker {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let conf = format!(
            "statedir = {0}\nsigningkey = {0}/signkey.pem\nissuercert = {0}/issuercert.pem\ncertserial = {0}/serial\n",
            dir.path().display()
        );
        std::fs::write(at("ca.conf"), conf).unwrap();
        std::fs::write(at("ca.options"), "--platform-manufacturer test\n--platform-version 1\n--platform-model test\n")
            .unwrap();
        let setup = format!(
            "create_certs_tool=/usr/bin/swtpm_localca\ncreate_certs_tool_config={}\ncreate_certs_tool_options={}\nactive_pcr_banks = sha256\n",
            at("ca.conf"),
            at("ca.options")
        );
        std::fs::write(at("setup.conf"), setup).unwrap();
        Self { dir }
    }

    /// A TPM with RSA endorsement key and certificate, as the tools of the distribution make it.
    fn tpm(&self) -> Swtpm {
        self.tpm_with("2048")
    }

    fn tpm_with(&self, rsa_bits: &str) -> Swtpm {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        std::fs::create_dir(&state).unwrap();
        let done = Command::new("swtpm_setup")
            .args(["--tpm2", "--createek", "--create-ek-cert", "--overwrite", "--rsa-keysize", rsa_bits, "--tpmstate"])
            .arg(&state)
            .arg("--config")
            .arg(self.dir.path().join("setup.conf"))
            .output()
            .expect("swtpm_setup is installed");
        assert!(
            done.status.success(),
            "{}{}",
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        );
        let swtpm = Swtpm::start_in(dir);
        measure(&swtpm);
        swtpm
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap()
    }

    fn makers(&self) -> Makers {
        Makers::from_pem(&self.file("swtpm-localca-rootca-cert.pem"), &self.file("issuercert.pem")).unwrap()
    }
}

#[track_caller]
fn says<T: std::fmt::Debug>(result: Result<T, boltseal_node::Error>, text: &str) {
    let error = result.unwrap_err().to_string();
    assert!(error.contains(text), "wanted {text:?}: {error}");
}

#[test]
fn a_certified_tpm_enrols_through_files() {
    let maker = Maker::new();
    let swtpm = maker.tpm();
    let asked = request(&swtpm.address(), "node-1", soon()).unwrap();
    let asked: Request = read(&serde_json::to_vec(&asked).unwrap()).unwrap();
    let (approval, pending) = approve(&asked, &maker.makers(), now()).unwrap();
    let approval: Approval = read(&serde_json::to_vec(&approval).unwrap()).unwrap();
    let pending: Pending = read(&serde_json::to_vec(&pending).unwrap()).unwrap();
    let proof = complete(&swtpm.address(), &approval, soon()).unwrap();
    assert_eq!(confirm(&pending, &proof).unwrap().to_pem(), asked.ak_spki_pem);
    assert_eq!(pending.pcrs, swtpm.open().pcrs(0..24).unwrap());
    // Again, as often as wanted: no key and no session stays in the TPM.
    for _ in 0..4 {
        complete(&swtpm.address(), &approval, soon()).unwrap();
    }
    // The issuing certificate alone may be the root.
    let issuer = Makers::from_pem(&maker.file("issuercert.pem"), "").unwrap();
    assert!(approve(&asked, &issuer, now()).is_ok());

    // Another maker's root, no intermediate, a day before the certificate, a hundred years after it.
    let other = Maker::new();
    let stranger = other.tpm();
    says(approve(&asked, &other.makers(), now()), "does not lead to a given root");
    let gap = Makers::from_pem(&maker.file("swtpm-localca-rootca-cert.pem"), "").unwrap();
    says(approve(&asked, &gap, now()), "does not lead to a given root");
    says(approve(&asked, &maker.makers(), now() - 86_400 * 2), "CertNotValidYet");
    // Another TPM, certified or not, cannot complete it; nor can its proof stand for this one.
    says(complete(&stranger.address(), &approval, soon()), "another attestation key");
    let theirs = request(&stranger.address(), "node-1", soon()).unwrap();
    let (their_approval, their_pending) = approve(&theirs, &other.makers(), now()).unwrap();
    let their_proof = complete(&stranger.address(), &their_approval, soon()).unwrap();
    says(confirm(&pending, &their_proof), "another node or key");
    assert!(confirm(&their_pending, &their_proof).is_ok());
    // An earlier proof of the same key does not fit a newer approval.
    let (_, newer) = approve(&asked, &maker.makers(), now()).unwrap();
    says(confirm(&newer, &proof), "the proof is wrong");
}

/// A good certificate beside a key that its TPM does not hold: approved, never completed.
#[test]
fn a_key_outside_the_certified_tpm_completes_nothing() {
    let maker = Maker::new();
    let (good, plain) = (maker.tpm(), Swtpm::start());
    measure(&plain);
    let text = |request: &Request| serde_json::to_value(request).unwrap();
    let honest = text(&request(&good.address(), "node-1", soon()).unwrap());
    says(request(&plain.address(), "node-1", soon()), "carries no certificate");
    // The attestation key and quote are another TPM's, the certificate is this one's.
    let other = maker.tpm();
    let mut mixed = text(&request(&other.address(), "node-1", soon()).unwrap());
    mixed["ek_certificates"] = honest["ek_certificates"].clone();
    let mixed: Request = read(mixed.to_string().as_bytes()).unwrap();
    let (approval, _) = approve(&mixed, &maker.makers(), now()).unwrap();
    says(complete(&good.address(), &approval, soon()), "another attestation key");
    says(complete(&other.address(), &approval, soon()), "the TPM refused ActivateCredential");
    // Relabelled for the good TPM's key: the credential itself names the other one.
    let mut relabelled = serde_json::to_value(&approval).unwrap();
    let (real, _) = approve(&read(honest.to_string().as_bytes()).unwrap(), &maker.makers(), now()).unwrap();
    relabelled["ak_name"] = real.ak_name.clone().into();
    let relabelled: Approval = read(relabelled.to_string().as_bytes()).unwrap();
    says(complete(&good.address(), &relabelled, soon()), "the TPM refused ActivateCredential");
    // A request that was changed on its way.
    let change = |key: &str, value: serde_json::Value| {
        let mut changed = honest.clone();
        changed[key] = value;
        read::<Request>(changed.to_string().as_bytes()).and_then(|request| approve(&request, &maker.makers(), now()))
    };
    says(change("ak_spki_pem", mixed.ak_spki_pem.clone().into()), "not signed by the enrolled");
    says(change("nonce", "00".repeat(32).into()), "nonce");
    says(change("node", "../etc".into()), "no host name");
    says(change("ek_certificates", serde_json::json!([])), "no endorsement certificate");
    says(change("ek_certificates", serde_json::json!(["AAAA"])), "does not lead");
    says(change("version", 2.into()), "another version");
    says(change("more", 2.into()), "not the JSON");
    assert!(change("node", "node-2".into()).is_ok(), "twin");
}

/// Each endorsement key that the distribution's tools certify, alone: RSA of both sizes, and P-384 with SHA-384 and AES-256.
#[test]
fn each_kind_of_endorsement_key_enrols() {
    let maker = Maker::new();
    let mut kinds = std::collections::BTreeSet::new();
    for bits in ["2048", "3072"] {
        let swtpm = maker.tpm_with(bits);
        let asked = serde_json::to_value(request(&swtpm.address(), "node-1", soon()).unwrap()).unwrap();
        let certificates = asked["ek_certificates"].as_array().unwrap().clone();
        assert_eq!(certificates.len(), 2, "RSA and P-384");
        for certificate in certificates {
            let mut one = asked.clone();
            one["ek_certificates"] = serde_json::json!([certificate]);
            let one: Request = read(one.to_string().as_bytes()).unwrap();
            let (approval, pending) = approve(&one, &maker.makers(), now()).unwrap();
            let text = serde_json::to_value(&approval).unwrap();
            let proof = complete(&swtpm.address(), &approval, soon()).unwrap();
            assert!(confirm(&pending, &proof).is_ok());
            kinds.insert(text["endorsement_key"].as_str().unwrap().to_owned());
            // The twin of each: one bit of the credential, one of the secret, another kind of key.
            for (name, value) in [("credential", None), ("secret", None), ("endorsement_key", Some("p256"))] {
                let mut bad = text.clone();
                let old = bad[name].as_str().unwrap().to_owned();
                let flipped = format!("{}{}", if old.starts_with('A') { 'B' } else { 'A' }, &old[1..]);
                bad[name] = value.map_or(flipped, str::to_owned).into();
                let bad: Approval = read(bad.to_string().as_bytes()).unwrap();
                assert!(complete(&swtpm.address(), &bad, soon()).is_err(), "{text} {name}");
            }
            // Nothing of the failures stays in the TPM.
            assert!(complete(&swtpm.address(), &approval, soon()).is_ok());
        }
    }
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["p384", "rsa2048", "rsa3072"]);
}

/// The P-256 endorsement key, with a certificate made here: the same exchange with ECDH instead of RSA.
#[test]
fn a_p256_endorsement_key_works_too() {
    let maker = Maker::new();
    let swtpm = maker.tpm();
    let Some(certificate) = p256_certificate(&maker, &swtpm) else { panic!("no certificate was made") };
    let mut asked = serde_json::to_value(request(&swtpm.address(), "node-1", soon()).unwrap()).unwrap();
    asked["ek_certificates"] = serde_json::json!([certificate]);
    let asked: Request = read(asked.to_string().as_bytes()).unwrap();
    let root = Makers::from_pem(&maker.file("p256-root.pem"), "").unwrap();
    let (approval, pending) = approve(&asked, &root, now()).unwrap();
    assert!(serde_json::to_string(&approval).unwrap().contains("\"p256\""));
    let proof = complete(&swtpm.address(), &approval, soon()).unwrap();
    assert!(confirm(&pending, &proof).is_ok());
    let expired = approve(&asked, &root, now() + 86_400 * 40);
    says(expired, "CertExpired");
}

/// Asks the TPM for its P-256 endorsement key and certifies it for thirty days.
fn p256_certificate(maker: &Maker, swtpm: &Swtpm) -> Option<String> {
    let dir = maker.dir.path();
    let run = |script: &str| {
        let out = Command::new("sh").args(["-ec", script]).current_dir(dir).output().unwrap();
        assert!(
            out.status.success(),
            "{script}: {}{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
        out.stdout
    };
    let point = swtpm_ek_point(swtpm)?;
    let spki = [&hex_bytes("3059301306072a8648ce3d020106082a8648ce3d030107034200")[..], &point].concat();
    std::fs::write(dir.join("ek.der"), spki).unwrap();
    run("set -e
         openssl pkey -pubin -inform DER -in ek.der -out ek.pem
         openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout p256-root.key -subj /CN=root -days 90 -out p256-root.pem
         openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout x.key -subj / -out x.csr
         printf 'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,keyAgreement\nextendedKeyUsage=2.23.133.8.1\nsubjectAltName=critical,dirName:d\n[d]\nx.2.23.133.2.1=id:00001014\n' > ext
         openssl x509 -req -in x.csr -force_pubkey ek.pem -CA p256-root.pem -CAkey p256-root.key -CAcreateserial -days 30 -extfile ext -outform DER -out ek-cert.der");
    let text = run("base64 -w0 ek-cert.der");
    Some(String::from_utf8(text).unwrap())
}

fn hex_bytes(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// The template of TCG's EK credential profile (L-2), written out here a second time.
fn swtpm_ek_point(swtpm: &Swtpm) -> Option<Vec<u8>> {
    let template = [
        "0023000b000300b20020837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa",
        "00060080004300100003001000200000000000000000000000000000000000000000000000000000000000000000",
        "00200000000000000000000000000000000000000000000000000000000000000000",
    ];
    let template = hex_bytes(&template.concat());
    let public = swtpm.open().with_primary(&template, |_, _, public| Ok(public.to_vec())).unwrap();
    let tail = &public[public.len() - 68..];
    (tail[..2] == [0, 32]).then(|| [&[4][..], &tail[2..34], &tail[36..]].concat())
}
