//! A trusted root (Sigstore's `trusted_root.json`) of what a file says itself: certificates of CAs and keys of logs.
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use boltseal_trust::Key;
use serde_json::{Value, json};

/// What such a file calls its kind.
const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.trustedroot+json;version=0.1";
const MAX_CERTIFICATES: usize = 16;

/// `cas`: PEM certificates, each of which is trusted itself. `logs`, `ctlogs`: PEM keys. What has no name in a file has none here.
pub(crate) fn root(cas: &str, logs: &[&str], ctlogs: &[&str]) -> Result<String, String> {
    let authority = |raw: String| json!({ "uri": "", "certChain": { "certificates": [{ "rawBytes": raw }] }, "validFor": always() });
    let cas: Vec<Value> = certificates(cas)?.into_iter().map(authority).collect();
    let keys = |keys: &[&str]| keys.iter().map(|pem| log(pem)).collect::<Result<Vec<Value>, String>>();
    let root = json!({
        "mediaType": MEDIA_TYPE, "tlogs": keys(logs)?, "certificateAuthorities": cas, "ctlogs": keys(ctlogs)?,
        "timestampAuthorities": [],
    });
    Ok(format!("{root:#}\n"))
}

/// Such a file says no window. Verifiers of Sigstore's take none for a key of a log.
fn always() -> Value {
    json!({ "start": "1970-01-01T00:00:00Z" })
}

/// Base64 of each block, nothing between them.
fn certificates(pem: &str) -> Result<Vec<String>, String> {
    let (begin, end) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----");
    let mut all = Vec::new();
    let mut rest = pem.trim();
    while !rest.is_empty() {
        let block = rest.strip_prefix(begin).and_then(|rest| rest.split_once(end));
        let (body, after) = block.ok_or("not PEM certificates alone")?;
        let body: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        STANDARD.decode(&body).map_err(|_| "a certificate that is not base64")?;
        all.push(body);
        rest = after.trim_start();
        if all.len() > MAX_CERTIFICATES {
            return Err(format!("more than {MAX_CERTIFICATES} certificates"));
        }
    }
    if all.is_empty() { Err("no certificate".into()) } else { Ok(all) }
}

fn log(pem: &str) -> Result<Value, String> {
    let key = Key::from_spki_pem(pem).map_err(|why| format!("a log's key is {}", why.0))?;
    let details = match key.ec_point().map(<[u8]>::len) {
        Some(65) => "PKIX_ECDSA_P256_SHA_256",
        Some(_) => "PKIX_ECDSA_P384_SHA_384",
        None if !key.signs_bundles() => "PKIX_ED25519",
        None => return Err("a log's key is RSA".into()),
    };
    let id: Vec<u8> = (0..key.id().len())
        .step_by(2)
        .filter_map(|at| u8::from_str_radix(key.id().get(at..at + 2)?, 16).ok())
        .collect();
    let body: String = key.pem().lines().filter(|line| !line.starts_with('-')).collect();
    Ok(json!({
        "baseUrl": "", "hashAlgorithm": "SHA2_256",
        "publicKey": { "rawBytes": body, "keyDetails": details, "validFor": always() },
        "logId": { "keyId": STANDARD.encode(id) },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNER: &str = include_str!("../../trust/tests/fixtures/keys/signer.pub");
    const BLOCK: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    #[test]
    fn what_is_no_certificate_and_no_key_is_refused() {
        let made: Value = serde_json::from_str(&root(&BLOCK.repeat(2), &[SIGNER], &[]).unwrap()).unwrap();
        assert_eq!(made["certificateAuthorities"].as_array().unwrap().len(), 2);
        assert_eq!(made["tlogs"][0]["publicKey"]["keyDetails"], "PKIX_ECDSA_P256_SHA_256");
        for (cas, log) in [
            ("", SIGNER),
            ("x", SIGNER),
            (&format!("{BLOCK}x"), SIGNER),
            (&BLOCK.replace("AAAA", "*"), SIGNER),
            (&BLOCK.replace("END", "FIN"), SIGNER),
            (&BLOCK.repeat(MAX_CERTIFICATES + 1), SIGNER),
            (BLOCK, BLOCK),
        ] {
            assert!(root(cas, &[log], &[]).is_err(), "{cas:.60} {log:.60}");
        }
    }
}
